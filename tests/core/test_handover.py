"""A stream goes to other signers behind one statement: what the former ones say from there on counts nowhere, and fills nothing up."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.conflict import judge
from mesh.core.law.fold import extend, put_in_force, restore
from mesh.core.law.governance import Basis
from mesh.core.law.heartbeat import covers
from mesh.core.law.policy import Manifest
from mesh.core.law.reign import Handover, in_reign
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import ROSTERS
from mesh.core.law.streams import Chain, Cursor, Fork
from mesh.core.law.travel import Said, read_law
from mesh.protocol.gossip import wanted
from tests.core.handing import (
    ACTIVATE,
    BEGUN,
    DOMAIN,
    FIRST,
    FOUR,
    GENESIS,
    GONE,
    LATE,
    LAWS,
    PLAIN,
    POLICY,
    REVOKE,
    SECOND,
    SINCE,
    STOLEN,
    STOLEN_BEGUN,
    THIRD,
    THIRD_BEGUN,
    WITHOUT,
    activation,
    epoch_of,
    following,
    halting,
    hear,
    manifest,
    revocation,
    role,
    until_still,
)
from tests.core.kit import refuses
from tests.support.factory import MESH, sign
from tests.support.rosters import key, roster, signed

# ------------------------------------------------------------------------------------------------------------- who was let go


def test_a_signer_who_was_let_go_makes_no_policy_any_more() -> None:
    held = until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    assert epoch_of(held) == 2
    held = until_still(held, (STOLEN, STOLEN_BEGUN), 9)
    assert epoch_of(held) == 2
    held.check_open(DOMAIN)
    held = until_still(held, (THIRD, THIRD_BEGUN), 9)
    assert (epoch_of(held), held.active(DOMAIN, "eu", 1_000).manifest_id) == (3, THIRD.id)
    held.check_open(DOMAIN)


def test_whoever_could_sign_alone_cannot_once_the_threshold_is_raised() -> None:
    both = role("policy", "new policy", threshold=2)
    raised = following(GENESIS, FIRST, policy={DOMAIN: both})
    alone = manifest(2, FIRST.id, "policy", raised.id)
    together = envelope.read(Manifest, sign(alone.claims, key("policy"), key("new policy")))
    held = until_still(PLAIN, (FIRST, raised), 9)
    assert extend(held, [alone]).refused[alone.id].code == "threshold_not_met"
    assert extend(held, [together]).new == (together,)
    as_before = manifest(2, FIRST.id, "policy")
    assert epoch_of(until_still(held, (as_before, activation(1, "", as_before, "policy")), 9)) == 1


@given(st.permutations(LAWS), st.integers(1, len(LAWS)), st.permutations(LAWS))
def test_whatever_comes_first_the_same_counts(heard: list[Statement[Said]], size: int, stored: list[Statement[Said]]) -> None:
    held, again = until_still(PLAIN, heard, size), put_in_force(restore(PLAIN, stored), 2)
    for one in (held, again):
        assert one.active(DOMAIN, "eu", 1_000).manifest_id == THIRD.id
        one.check_open(DOMAIN)
    whole = until_still(PLAIN, LAWS, 1)
    assert held.digest == again.digest == whole.digest
    assert msgspec.structs.replace(held, former={}) == msgspec.structs.replace(whole, former={})


def test_what_former_signers_said_and_were_heard_with_is_still_replayed_for_decisions_of_their_epoch_and_for_no_later_one() -> None:
    held = until_still(PLAIN, LAWS, 9)
    basis = Basis(STOLEN.id, STOLEN_BEGUN.id)
    assert held.under(1).active(DOMAIN, "eu", 1_000, basis).manifest_id == STOLEN.id
    with refuses("handed_over"):
        held.under(2).active(DOMAIN, "eu", 1_000, basis)
    assert held.under(2).active(DOMAIN, "eu", 1_000, Basis(SECOND.id, BEGUN.id)).manifest_id == SECOND.id


def test_former_signers_neither_fork_nor_fill_the_stream_of_the_new_ones() -> None:
    held = until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    noise = [manifest(2, FIRST.id, "policy", reason=str(number)) for number in range(3)] + [STOLEN]
    held = until_still(held, noise, 9)
    assert isinstance(held.streams[POLICY], Fork)
    assert isinstance(held.streams[in_reign(POLICY, SINCE.id)], Chain)
    held.check_open(DOMAIN)
    assert [head.stream for head in held.frontier if head.stream.startswith(POLICY)] == [in_reign(POLICY, SINCE.id)]
    assert extend(held, [THIRD]).new == (THIRD,)


def test_denials_behind_a_handover_are_not_taken_in_once_the_roster_is_in_force_and_policies_are_for_whoever_rested_on_them() -> None:
    held = until_still(PLAIN, (GONE, WITHOUT), 9)
    assert extend(held, [LATE]).refused[LATE.id].code == "handed_over"
    held = until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    assert extend(held, [STOLEN]).new == (STOLEN,)


def test_until_the_roster_is_in_force_former_signers_deny_and_new_ones_allow_nothing() -> None:
    """Else whoever hears of it first would be blind to what all others hold, for as long as it has not begun."""
    held, others = hear(PLAIN, (GONE, WITHOUT), 9), hear(PLAIN, (GONE, LATE), 9)
    assert not covers(list(held.frontier), list(others.frontier), held.whole)
    held = hear(held, (LATE,), 9)
    assert held.denies(("subject", f"spiffe://{MESH}/agent/late"))
    assert covers(list(held.frontier), list(others.frontier), held.whole)
    early = revocation(1, "", "early", by="new revoker", since=WITHOUT.id)
    assert hear(held, (early,), 9).denies(("subject", f"spiffe://{MESH}/agent/early"))
    laws = hear(PLAIN, (FIRST, SECOND, BEGUN, SINCE, THIRD, THIRD_BEGUN), 9)
    assert epoch_of(laws) == 2
    with refuses("policy_unknown"):
        laws.active(DOMAIN, "eu", 1_000, Basis(THIRD.id, THIRD_BEGUN.id))
    assert epoch_of(put_in_force(laws, 2)) == 3


def test_two_of_different_reigns_under_one_number_are_no_conflict() -> None:
    held = until_still(PLAIN, LAWS, 9)
    with refuses("no_conflict"):
        judge(STOLEN, THIRD, held.rosters)


# ------------------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    "said",
    [
        manifest(2, FIRST.id, "new policy", SINCE.id),
        manifest(3, FIRST.id, "new policy", SINCE.id),
        revocation(1, "", "x", since=SINCE.id),
    ],
    ids=["a number that was handed over", "behind another statement", "a stream that it does not hand over"],
)
def test_what_does_not_go_on_behind_what_was_handed_over_is_refused(said: Statement[Said]) -> None:
    held = until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    assert extend(held, [said]).refused[said.id].code == "handed_over"


def test_without_what_was_handed_over_nothing_is_in_force_and_the_former_stream_is_asked_for() -> None:
    whole = until_still(PLAIN, LAWS, 9)
    held = until_still(PLAIN, (SINCE, THIRD, THIRD_BEGUN), 9)
    with refuses("domain_unknown"):
        held.active(DOMAIN, "eu", 1_000)
    assert wanted(held, whole.frontier) == {POLICY: Cursor(1), ACTIVATE: Cursor(1)}
    held = until_still(held, (FIRST,), 9)
    assert wanted(held, whole.frontier) == {POLICY: Cursor(2), ACTIVATE: Cursor(1)}
    held = until_still(held, (SECOND, BEGUN), 9)
    assert (held.digest, wanted(held, whole.frontier)) == (whole.digest, {})


def test_whoever_holds_another_history_than_the_one_that_was_handed_over_asks_for_all_of_it() -> None:
    twin = manifest(2, FIRST.id, "policy", reason="a twin")
    held, whole = until_still(PLAIN, (FIRST, twin, BEGUN, SINCE), 9), until_still(PLAIN, LAWS, 9)
    assert wanted(held, whole.frontier)[POLICY] == Cursor(0)
    held = until_still(held, (SECOND, THIRD, THIRD_BEGUN), 9)
    assert held.digest == whole.digest
    assert held.active(DOMAIN, "eu", 1_000).manifest_id == THIRD.id


def test_nobody_acts_who_lacks_a_denial_that_was_handed_over_also_if_all_others_lack_it_too() -> None:
    """k members acknowledged the first, and the second is lacking everywhere."""
    after = following(GENESIS, LATE, revoker=role("new revoker"))
    knows, lacks = until_still(PLAIN, (GONE, after), 1), until_still(PLAIN, (after,), 1)
    assert wanted(lacks, knows.frontier) == {REVOKE: Cursor(1)}
    for one in (knows, lacks):
        with refuses("roster_pending"):
            one.check_roster(50_000)
    until_still(lacks, (GONE, LATE), 1).check_roster(50_000)
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=after), revoker=after.claims.revoker)
    anew = signed(msgspec.structs.replace(plain, handovers={REVOKE: Handover(sequence=0, head="")}))
    until_still(lacks, (anew,), 1).check_roster(50_000)


def test_who_has_not_heard_of_the_roster_is_covered_by_who_has_and_not_the_other_way_round() -> None:
    before = until_still(PLAIN, (FIRST, SECOND, BEGUN), 9)
    after = extend(before, [SINCE]).governance
    for later in (after, put_in_force(after, 2)):
        assert covers(list(later.frontier), list(before.frontier), later.whole)
        assert not covers(list(before.frontier), list(later.frontier), before.whole)
        assert set(wanted(before, later.frontier)) == {ROSTERS}
        assert wanted(later, before.frontier) == {}
    assert covers(list(after.frontier), list(put_in_force(after, 2).frontier), after.whole)


# ------------------------------------------------------------------------------------------------------------------ denials


def test_what_a_former_revoker_said_up_to_the_handover_denies_and_nothing_behind_it() -> None:
    for heard in ((GONE, LATE, WITHOUT), (WITHOUT, LATE, GONE), (LATE, WITHOUT, GONE)):
        held = until_still(PLAIN, heard, 1)
        assert held.denies(("subject", f"spiffe://{MESH}/agent/gone"))
        assert not held.denies(("subject", f"spiffe://{MESH}/agent/late"))
        assert held.revoked == {("subject", f"spiffe://{MESH}/agent/gone")}


def test_as_long_as_it_is_not_known_what_was_handed_over_all_of_it_denies() -> None:
    held = until_still(PLAIN, (WITHOUT, LATE), 1)
    assert held.denies(("subject", f"spiffe://{MESH}/agent/late"))


def test_handed_over_behind_nothing_all_of_it_is_gone() -> None:
    anew = following(GENESIS, revoker=role("new revoker"))
    held = until_still(PLAIN, (GONE, LATE, anew), 9)
    assert (held.revoked, held.lacks(in_reign(REVOKE, anew.id))) == (frozenset(), "")
    assert [head.stream for head in held.frontier] == [ROSTERS]


def test_a_revoker_that_stays_goes_on_behind_what_it_said() -> None:
    both = following(GENESIS, LATE, revoker=role("revoker", "new revoker"))
    further = revocation(3, LATE.id, "further", since=both.id)
    held = until_still(PLAIN, (both, further, LATE, GONE), 1)
    assert len(held.revoked) == 3
    (head,) = (head for head in held.frontier if head.stream != ROSTERS)
    assert (head.stream, head.sequence, head.head) == (in_reign(REVOKE, both.id), 3, further.id)


def test_former_revokers_neither_halt_nor_lift() -> None:
    halt = halting(1, "", (), "revoker")
    lift, again = halting(2, halt.id, (halt.id,), "revoker"), halting(3, "ab" * 32, (), "revoker")
    after = following(GENESIS, halt, revoker=role("new revoker"))
    held = until_still(PLAIN, (halt, lift, after, again), 1)
    assert held.halted == {DOMAIN: (halt.id,)}
    lifted = halting(2, halt.id, (halt.id,), "new revoker", after.id)
    assert until_still(held, (lifted,), 1).halted == {}


def test_over_several_handovers_only_what_each_handed_on_counts() -> None:
    one = following(GENESIS, GONE, revoker=role("revoker", "second"))
    kept = revocation(2, GONE.id, "kept", since=one.id)
    lost = revocation(3, kept.id, "lost", since=one.id)
    two = following(one, kept, revoker=role("third"))
    said = (GONE, LATE, one, kept, lost, two)
    for heard in (said, said[::-1]):
        held = until_still(PLAIN, heard, 1)
        assert {value.rpartition("/")[2] for _, value in held.revoked} == {"gone", "kept"}
    held = until_still(PLAIN, (two, one), 1)
    whole = until_still(PLAIN, said, 1)
    assert wanted(held, whole.frontier) == {REVOKE: Cursor(1)}


def test_an_issuer_lives_again_whose_revocation_was_not_handed_over() -> None:
    issuer = key("issuer").public
    target = Target(type="issuer", value=issuer)
    claims = Revocation(
        mesh=MESH,
        revoker=key("revoker").public,
        sequence=1,
        previous="",
        since="",
        target=target,
        spares=[],
        reason="",
        issued_ms=0,
    )
    said = read_law(sign(claims, key("revoker")))
    held = until_still(PLAIN, (said,), 1)
    assert held.spared == {issuer: frozenset()}
    anew = following(GENESIS, revoker=role("new revoker"))
    assert until_still(held, (anew,), 1).spared == {}
