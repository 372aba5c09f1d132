"""A stream goes to other signers behind one statement: what the former ones say from there on counts nowhere, and fills nothing up."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.activation import Activation, Ring, activate_stream
from mesh.core.law.conflict import judge
from mesh.core.law.fold import admit_governance, extend, put_in_force, restore
from mesh.core.law.governance import Basis, Governance
from mesh.core.law.halt import Halt, halt_stream
from mesh.core.law.heartbeat import covers
from mesh.core.law.policy import Manifest, policy_stream
from mesh.core.law.reign import Handover, in_reign
from mesh.core.law.resolve import RESOLVES, Resolve
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.roster import ROSTERS, Role, Roster
from mesh.core.law.streams import Chain, Cursor, Fork
from mesh.core.law.succession import check_step, lacking_handovers
from mesh.core.law.travel import Said, read_law
from mesh.protocol.gossip import wanted
from tests.core.kit import refuses
from tests.support.factory import MESH, sign
from tests.support.rosters import ROOT, handing_over, key, roster, signed

FOUR = ("a", "b", "c", "d")
DOMAIN = "payments"
POLICY, ACTIVATE, HALT = policy_stream(DOMAIN), activate_stream(DOMAIN), halt_stream(DOMAIN)
REVOKE = stream_of(key("revoker").public)
GENESIS = signed(roster(FOUR, 1, 3))
PLAIN = admit_governance(GENESIS, pin=GENESIS.id)


def _manifest(epoch: int, previous: str, by: str, since: str = "", reason: str = "") -> Statement[Manifest]:
    claims = Manifest(
        mesh=MESH,
        domain=DOMAIN,
        epoch=epoch,
        previous=previous,
        since=since,
        digest="blake3:" + "ab" * 32,
        actions={},
        enforcers=[],
        not_before_ms=0,
        expires_ms=1_000_000,
        reason=reason,
        issued_ms=0,
    )
    return envelope.read(Manifest, sign(claims, key(by)))


def _activation(number: int, previous: str, of: Statement[Manifest], by: str, since: str = "") -> Statement[Activation]:
    rings = [Ring(regions=[], not_before_ms=0)]
    claims = Activation(
        mesh=MESH,
        domain=DOMAIN,
        sequence=number,
        previous=previous,
        since=since,
        epoch=of.claims.epoch,
        manifest=of.id,
        rings=rings,
        reason="",
        issued_ms=0,
    )
    return envelope.read(Activation, sign(claims, key(by)))


def _revocation(number: int, previous: str, name: str, by: str = "revoker", since: str = "") -> Statement[Said]:
    target = Target(type="subject", value=f"spiffe://{MESH}/agent/{name}")
    claims = Revocation(
        mesh=MESH,
        revoker=key(by).public,
        sequence=number,
        previous=previous,
        since=since,
        target=target,
        spares=[],
        reason="",
        issued_ms=0,
    )
    return read_law(sign(claims, key(by)))


def _halt(number: int, previous: str, lifts: Sequence[str], by: str, since: str = "") -> Statement[Said]:
    claims = Halt(mesh=MESH, domain=DOMAIN, sequence=number, previous=previous, since=since, lifts=list(lifts), reason="", issued_ms=0)
    return read_law(sign(claims, key(by)))


def _behind(*last: Statement[Said]) -> dict[str, Handover]:
    return {said.claims.link[0].partition("@")[0]: Handover(sequence=said.claims.sequence, head=said.id) for said in last}


def _role(*names: str, threshold: int = 1) -> Role:
    return Role(keys=[key(name).public for name in names], threshold=threshold)


def _next(before: Statement[Roster], *last: Statement[Said], **changed: object) -> Statement[Roster]:
    """The next roster, with other roles; streams are handed over behind these, or behind nothing."""
    plain = roster(FOUR, 1, 3, after=before)
    kept = {name: getattr(before.claims, name) for name in ("root", "revoker", "policy")}
    after = msgspec.structs.replace(plain, **{**kept, **changed}, handovers=_behind(*last))
    return signed(handing_over(before.claims, after))


FIRST = _manifest(1, "", "policy")
SECOND = _manifest(2, FIRST.id, "policy")
BEGUN = _activation(1, "", SECOND, "policy")
SINCE = _next(GENESIS, SECOND, BEGUN, policy={DOMAIN: _role("new policy")})
"""Behind two epochs and an activation, the domain has another signer."""
STOLEN = _manifest(3, SECOND.id, "policy", reason="by who was let go")
STOLEN_BEGUN = _activation(2, BEGUN.id, STOLEN, "policy")
THIRD = _manifest(3, SECOND.id, "new policy", SINCE.id)
THIRD_BEGUN = _activation(2, BEGUN.id, THIRD, "new policy", SINCE.id)
LAWS: tuple[Statement[Said], ...] = (FIRST, SECOND, BEGUN, SINCE, STOLEN, STOLEN_BEGUN, THIRD, THIRD_BEGUN)


def _epoch(held: Governance) -> int:
    return held.active(DOMAIN, "eu", 1_000).manifest.epoch


def _heard(held: Governance, heard: Sequence[Statement[Said]], size: int) -> Governance:
    """So many at once, and again as long as anything is new: as gossip does."""
    while True:
        before = held
        for at in range(0, len(heard), size):
            held = extend(held, heard[at : at + size]).governance
        if held is before:
            return held


def _until_still(held: Governance, heard: Sequence[Statement[Said]], size: int) -> Governance:
    """The same, and then the newest roster is in force."""
    held = _heard(held, heard, size)
    return put_in_force(held, len(held.rosters.ids))


# ------------------------------------------------------------------------------------------------------------- who was let go


def test_a_signer_who_was_let_go_makes_no_policy_any_more() -> None:
    held = _until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    assert _epoch(held) == 2
    held = _until_still(held, (STOLEN, STOLEN_BEGUN), 9)
    assert _epoch(held) == 2
    held.check_open(DOMAIN)
    held = _until_still(held, (THIRD, THIRD_BEGUN), 9)
    assert (_epoch(held), held.active(DOMAIN, "eu", 1_000).manifest_id) == (3, THIRD.id)
    held.check_open(DOMAIN)


def test_whoever_could_sign_alone_cannot_once_the_threshold_is_raised() -> None:
    both = _role("policy", "new policy", threshold=2)
    raised = _next(GENESIS, FIRST, policy={DOMAIN: both})
    alone = _manifest(2, FIRST.id, "policy", raised.id)
    together = envelope.read(Manifest, sign(alone.claims, key("policy"), key("new policy")))
    held = _until_still(PLAIN, (FIRST, raised), 9)
    assert extend(held, [alone]).refused[alone.id].code == "threshold_not_met"
    assert extend(held, [together]).new == (together,)
    as_before = _manifest(2, FIRST.id, "policy")
    assert _epoch(_until_still(held, (as_before, _activation(1, "", as_before, "policy")), 9)) == 1


@given(st.permutations(LAWS), st.integers(1, len(LAWS)), st.permutations(LAWS))
def test_whatever_comes_first_the_same_counts(heard: list[Statement[Said]], size: int, stored: list[Statement[Said]]) -> None:
    held, again = _until_still(PLAIN, heard, size), put_in_force(restore(PLAIN, stored), 2)
    for one in (held, again):
        assert one.active(DOMAIN, "eu", 1_000).manifest_id == THIRD.id
        one.check_open(DOMAIN)
    whole = _until_still(PLAIN, LAWS, 1)
    assert held.digest == again.digest == whole.digest
    assert msgspec.structs.replace(held, former={}) == msgspec.structs.replace(whole, former={})


def test_what_former_signers_said_and_were_heard_with_is_still_replayed_for_decisions_of_their_epoch_and_for_no_later_one() -> None:
    held = _until_still(PLAIN, LAWS, 9)
    basis = Basis(STOLEN.id, STOLEN_BEGUN.id)
    assert held.under(1).active(DOMAIN, "eu", 1_000, basis).manifest_id == STOLEN.id
    with refuses("handed_over"):
        held.under(2).active(DOMAIN, "eu", 1_000, basis)
    assert held.under(2).active(DOMAIN, "eu", 1_000, Basis(SECOND.id, BEGUN.id)).manifest_id == SECOND.id


def test_former_signers_neither_fork_nor_fill_the_stream_of_the_new_ones() -> None:
    held = _until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    noise = [_manifest(2, FIRST.id, "policy", reason=str(number)) for number in range(3)] + [STOLEN]
    held = _until_still(held, noise, 9)
    assert isinstance(held.streams[POLICY], Fork)
    assert isinstance(held.streams[in_reign(POLICY, SINCE.id)], Chain)
    held.check_open(DOMAIN)
    assert [head.stream for head in held.frontier if head.stream.startswith(POLICY)] == [in_reign(POLICY, SINCE.id)]
    assert extend(held, [THIRD]).new == (THIRD,)


def test_denials_behind_a_handover_are_not_taken_in_once_the_roster_is_in_force_and_policies_are_for_whoever_rested_on_them() -> None:
    held = _until_still(PLAIN, (GONE, WITHOUT), 9)
    assert extend(held, [LATE]).refused[LATE.id].code == "handed_over"
    held = _until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    assert extend(held, [STOLEN]).new == (STOLEN,)


def test_until_the_roster_is_in_force_former_signers_deny_and_new_ones_allow_nothing() -> None:
    """Else whoever hears of it first would be blind to what all others hold, for as long as it has not begun."""
    held, others = _heard(PLAIN, (GONE, WITHOUT), 9), _heard(PLAIN, (GONE, LATE), 9)
    assert not covers(list(held.frontier), list(others.frontier), held.whole)
    held = _heard(held, (LATE,), 9)
    assert held.denies(("subject", f"spiffe://{MESH}/agent/late"))
    assert covers(list(held.frontier), list(others.frontier), held.whole)
    early = _revocation(1, "", "early", by="new revoker", since=WITHOUT.id)
    assert _heard(held, (early,), 9).denies(("subject", f"spiffe://{MESH}/agent/early"))
    laws = _heard(PLAIN, (FIRST, SECOND, BEGUN, SINCE, THIRD, THIRD_BEGUN), 9)
    assert _epoch(laws) == 2
    with refuses("policy_unknown"):
        laws.active(DOMAIN, "eu", 1_000, Basis(THIRD.id, THIRD_BEGUN.id))
    assert _epoch(put_in_force(laws, 2)) == 3


def test_two_of_different_reigns_under_one_number_are_no_conflict() -> None:
    held = _until_still(PLAIN, LAWS, 9)
    with refuses("no_conflict"):
        judge(STOLEN, THIRD, held.rosters)


# ------------------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    "said",
    [
        _manifest(2, FIRST.id, "new policy", SINCE.id),
        _manifest(3, FIRST.id, "new policy", SINCE.id),
        _revocation(1, "", "x", since=SINCE.id),
    ],
    ids=["a number that was handed over", "behind another statement", "a stream that it does not hand over"],
)
def test_what_does_not_go_on_behind_what_was_handed_over_is_refused(said: Statement[Said]) -> None:
    held = _until_still(PLAIN, (FIRST, SECOND, BEGUN, SINCE), 9)
    assert extend(held, [said]).refused[said.id].code == "handed_over"


def test_without_what_was_handed_over_nothing_is_in_force_and_the_former_stream_is_asked_for() -> None:
    whole = _until_still(PLAIN, LAWS, 9)
    held = _until_still(PLAIN, (SINCE, THIRD, THIRD_BEGUN), 9)
    with refuses("domain_unknown"):
        held.active(DOMAIN, "eu", 1_000)
    assert wanted(held, whole.frontier) == {POLICY: Cursor(1), ACTIVATE: Cursor(1)}
    held = _until_still(held, (FIRST,), 9)
    assert wanted(held, whole.frontier) == {POLICY: Cursor(2), ACTIVATE: Cursor(1)}
    held = _until_still(held, (SECOND, BEGUN), 9)
    assert (held.digest, wanted(held, whole.frontier)) == (whole.digest, {})


def test_whoever_holds_another_history_than_the_one_that_was_handed_over_asks_for_all_of_it() -> None:
    twin = _manifest(2, FIRST.id, "policy", reason="a twin")
    held, whole = _until_still(PLAIN, (FIRST, twin, BEGUN, SINCE), 9), _until_still(PLAIN, LAWS, 9)
    assert wanted(held, whole.frontier)[POLICY] == Cursor(0)
    held = _until_still(held, (SECOND, THIRD, THIRD_BEGUN), 9)
    assert held.digest == whole.digest
    assert held.active(DOMAIN, "eu", 1_000).manifest_id == THIRD.id


def test_nobody_acts_who_lacks_a_denial_that_was_handed_over_also_if_all_others_lack_it_too() -> None:
    """k members acknowledged the first, and the second is lacking everywhere."""
    after = _next(GENESIS, LATE, revoker=_role("new revoker"))
    knows, lacks = _until_still(PLAIN, (GONE, after), 1), _until_still(PLAIN, (after,), 1)
    assert wanted(lacks, knows.frontier) == {REVOKE: Cursor(1)}
    for one in (knows, lacks):
        with refuses("roster_pending"):
            one.check_roster(50_000)
    _until_still(lacks, (GONE, LATE), 1).check_roster(50_000)
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=after), revoker=after.claims.revoker)
    anew = signed(msgspec.structs.replace(plain, handovers={REVOKE: Handover(sequence=0, head="")}))
    _until_still(lacks, (anew,), 1).check_roster(50_000)


def test_who_has_not_heard_of_the_roster_is_covered_by_who_has_and_not_the_other_way_round() -> None:
    before = _until_still(PLAIN, (FIRST, SECOND, BEGUN), 9)
    after = extend(before, [SINCE]).governance
    for later in (after, put_in_force(after, 2)):
        assert covers(list(later.frontier), list(before.frontier), later.whole)
        assert not covers(list(before.frontier), list(later.frontier), before.whole)
        assert set(wanted(before, later.frontier)) == {ROSTERS}
        assert wanted(later, before.frontier) == {}
    assert covers(list(after.frontier), list(put_in_force(after, 2).frontier), after.whole)


# ------------------------------------------------------------------------------------------------------------------ denials


GONE = _revocation(1, "", "gone")
LATE = _revocation(2, GONE.id, "late")
WITHOUT = _next(GENESIS, GONE, revoker=_role("new revoker"))


def test_what_a_former_revoker_said_up_to_the_handover_denies_and_nothing_behind_it() -> None:
    for heard in ((GONE, LATE, WITHOUT), (WITHOUT, LATE, GONE), (LATE, WITHOUT, GONE)):
        held = _until_still(PLAIN, heard, 1)
        assert held.denies(("subject", f"spiffe://{MESH}/agent/gone"))
        assert not held.denies(("subject", f"spiffe://{MESH}/agent/late"))
        assert held.revoked == {("subject", f"spiffe://{MESH}/agent/gone")}


def test_as_long_as_it_is_not_known_what_was_handed_over_all_of_it_denies() -> None:
    held = _until_still(PLAIN, (WITHOUT, LATE), 1)
    assert held.denies(("subject", f"spiffe://{MESH}/agent/late"))


def test_handed_over_behind_nothing_all_of_it_is_gone() -> None:
    anew = _next(GENESIS, revoker=_role("new revoker"))
    held = _until_still(PLAIN, (GONE, LATE, anew), 9)
    assert (held.revoked, held.lacks(in_reign(REVOKE, anew.id))) == (frozenset(), "")
    assert [head.stream for head in held.frontier] == [ROSTERS]


def test_a_revoker_that_stays_goes_on_behind_what_it_said() -> None:
    both = _next(GENESIS, LATE, revoker=_role("revoker", "new revoker"))
    further = _revocation(3, LATE.id, "further", since=both.id)
    held = _until_still(PLAIN, (both, further, LATE, GONE), 1)
    assert len(held.revoked) == 3
    (head,) = (head for head in held.frontier if head.stream != ROSTERS)
    assert (head.stream, head.sequence, head.head) == (in_reign(REVOKE, both.id), 3, further.id)


def test_former_revokers_neither_halt_nor_lift() -> None:
    halt = _halt(1, "", (), "revoker")
    lift, again = _halt(2, halt.id, (halt.id,), "revoker"), _halt(3, "ab" * 32, (), "revoker")
    after = _next(GENESIS, halt, revoker=_role("new revoker"))
    held = _until_still(PLAIN, (halt, lift, after, again), 1)
    assert held.halted == {DOMAIN: (halt.id,)}
    lifted = _halt(2, halt.id, (halt.id,), "new revoker", after.id)
    assert _until_still(held, (lifted,), 1).halted == {}


def test_over_several_handovers_only_what_each_handed_on_counts() -> None:
    one = _next(GENESIS, GONE, revoker=_role("revoker", "second"))
    kept = _revocation(2, GONE.id, "kept", since=one.id)
    lost = _revocation(3, kept.id, "lost", since=one.id)
    two = _next(one, kept, revoker=_role("third"))
    said = (GONE, LATE, one, kept, lost, two)
    for heard in (said, said[::-1]):
        held = _until_still(PLAIN, heard, 1)
        assert {value.rpartition("/")[2] for _, value in held.revoked} == {"gone", "kept"}
    held = _until_still(PLAIN, (two, one), 1)
    whole = _until_still(PLAIN, said, 1)
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
    held = _until_still(PLAIN, (said,), 1)
    assert held.spared == {issuer: frozenset()}
    anew = _next(GENESIS, revoker=_role("new revoker"))
    assert _until_still(held, (anew,), 1).spared == {}


# ----------------------------------------------------------------------------------------------------------------- the root


OTHER_ROOT = tuple(key(f"other root {number}") for number in range(3))


def _resolve(
    keys: Sequence[SecretKey], stream: str, head: str, aside: str, number: int = 1, previous: str = "", since: str = ""
) -> Statement[Said]:
    claims = Resolve(
        mesh=MESH, sequence=number, previous=previous, since=since, stream=stream, head=head, aside=[aside], reason="", issued_ms=0
    )
    return read_law(sign(claims, *keys))


def test_a_fork_of_the_resolves_is_ended_by_a_roster_that_says_behind_which_they_go_on() -> None:
    twin = _manifest(1, "", "policy", reason="a twin")
    one, two = _resolve(ROOT[:2], POLICY, FIRST.id, twin.id), _resolve(ROOT[:2], POLICY, twin.id, FIRST.id)
    held = _until_still(PLAIN, (FIRST, twin, one, two), 9)
    assert held.forked(POLICY)
    after = _next(GENESIS, one)
    held = _until_still(held, (after,), 9)
    assert (held.forked(POLICY), held.forked(held.current(RESOLVES))) == (False, False)
    assert held.active(DOMAIN, "eu", 1_000).manifest_id == FIRST.id


def test_a_former_root_resolves_nothing() -> None:
    twin = _manifest(1, "", "policy", reason="a twin")
    root = Role(keys=[one.public for one in OTHER_ROOT], threshold=2)
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), root=root)
    after = signed(handing_over(GENESIS.claims, plain), *ROOT[:2], *OTHER_ROOT[:2])
    held = _until_still(PLAIN, (FIRST, twin, after, _resolve(ROOT[:2], POLICY, FIRST.id, twin.id)), 9)
    assert held.forked(POLICY)
    held = _until_still(held, (_resolve(OTHER_ROOT[:2], POLICY, FIRST.id, twin.id, since=after.id),), 9)
    assert not held.forked(POLICY)


TWIN = _next(GENESIS, GONE, policy={DOMAIN: _role("another policy")}, revoker=_role("another revoker"))
"""Another second roster."""
CHOSEN = _resolve(ROOT[:2], ROSTERS, SINCE.id, TWIN.id)
HALTED = _halt(1, "", (), "revoker")
LIFTED = _halt(2, HALTED.id, (HALTED.id,), "revoker")


@given(st.permutations([*LAWS, GONE, LATE, HALTED, LIFTED, TWIN]), st.integers(1, 14), st.booleans())
def test_whatever_comes_first_the_same_counts_also_when_rosters_fork(heard: list[Statement[Said]], size: int, resolved: bool) -> None:
    more = (CHOSEN,) if resolved else ()
    held, whole = _heard(_heard(PLAIN, heard, size), more, 1), _heard(PLAIN, (*more, *LAWS, GONE, LATE, HALTED, LIFTED, TWIN), 99)
    again = restore(PLAIN, [*heard, *more])
    epoch = len(whole.rosters.ids)
    for one in (put_in_force(held, epoch), put_in_force(again, epoch)):
        same = put_in_force(whole, epoch)
        assert (one.digest, one.revoked, one.halted, one.rosters.ids) == (same.digest, same.revoked, same.halted, same.rosters.ids)
        assert (one.rollouts, one.streams, one.void, one.frontier) == (same.rollouts, same.streams, same.void, same.frontier)


def test_who_has_taken_over_nothing_lacks_what_others_lack_too_as_long_as_somebody_shows_it() -> None:
    """Two who each lack what the other holds ask one another."""
    after = _next(GENESIS, LATE, revoker=_role("new revoker"))
    one, other = _until_still(PLAIN, (GONE, after), 1), _until_still(PLAIN, (LATE, after), 1)
    assert wanted(other, one.frontier) == {REVOKE: Cursor(1)}


def test_a_roster_for_an_epoch_that_is_past_is_taken_in_by_nobody() -> None:
    """A former root would fork the rosters where it still was one, and resolve that fork itself."""
    held = _until_still(PLAIN, LAWS, 9)
    assert extend(held, [TWIN]).refused[TWIN.id].code == "roster_conflict"
    held.check_open(DOMAIN)


def test_nobody_hands_over_what_is_no_stream_or_the_rosters_themselves() -> None:
    plain = roster(FOUR, 1, 3, after=GENESIS)
    with refuses("roster_unsound"):
        msgspec.structs.replace(plain, handovers={ROSTERS: Handover(sequence=0, head="")})
    strange = signed(msgspec.structs.replace(plain, handovers={"policy/nobody": Handover(sequence=0, head="")}))
    assert extend(PLAIN, [strange]).refused[strange.id].code == "roster_unsound"


def test_a_stream_without_room_behind_it_is_not_handed_over() -> None:
    with refuses("roster_unsound"):
        msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), handovers={ACTIVATE: Handover(sequence=4_096, head="ab" * 32)})


def test_a_later_roster_may_hand_over_what_an_earlier_one_asked_too_much_of() -> None:
    lost = _revocation(3, LATE.id, "lost")
    asks = _next(GENESIS, lost, revoker=_role("new revoker"))
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=asks), revoker=asks.claims.revoker)
    mends = signed(msgspec.structs.replace(plain, handovers={REVOKE: Handover(sequence=2, head=LATE.id)}))
    held = _until_still(PLAIN, (GONE, LATE, asks), 1)
    assert held.incomplete == [in_reign(REVOKE, asks.id)]
    held = _until_still(held, (mends,), 1)
    assert (held.incomplete, len(held.revoked)) == ([], 2)


def test_what_a_resolve_chose_stands_also_if_that_roster_has_another_root() -> None:
    root = Role(keys=[one.public for one in OTHER_ROOT], threshold=2)
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), root=root)
    moved = signed(handing_over(GENESIS.claims, plain), *ROOT[:2], *OTHER_ROOT[:2])
    held = _heard(PLAIN, (moved, TWIN, _resolve(ROOT[:2], ROSTERS, moved.id, TWIN.id)), 1)
    assert (held.rosters.ids, held.forked(ROSTERS)) == ((GENESIS.id, moved.id), False)


def test_of_two_rosters_the_resolved_one_says_what_counts() -> None:
    keeps, drops = _next(GENESIS, GONE, revoker=_role("new revoker")), _next(GENESIS, revoker=_role("new revoker"))
    for chosen, other, counted in ((keeps, drops, True), (drops, keeps, False)):
        held = _until_still(PLAIN, (GONE, keeps, drops, _resolve(ROOT[:2], ROSTERS, chosen.id, other.id)), 1)
        assert held.rosters.ids == (GENESIS.id, chosen.id)
        assert held.denies(("subject", f"spiffe://{MESH}/agent/gone")) is counted


# -------------------------------------------------------------------------------------------------------------------- rosters


def test_a_roster_that_changes_signers_and_does_not_say_where_is_refused() -> None:
    plain = roster(FOUR, 1, 3, after=GENESIS)
    for changed, streams in (
        ({"policy": {DOMAIN: _role("new policy")}}, [ACTIVATE, POLICY]),
        ({"policy": {**GENESIS.claims.policy, "more": _role("more")}}, ["activate/more", "halt/more", "policy/more"]),
        ({"policy": {}}, [ACTIVATE, HALT, POLICY]),
        ({"revoker": _role("revoker", "second", threshold=2)}, sorted([HALT, REVOKE, stream_of(key("second").public)])),
        ({"root": _role("root 0", "root 1", threshold=2)}, [RESOLVES]),
        ({"issuers": _role("another issuer")}, []),
    ):
        after = msgspec.structs.replace(plain, **changed)
        assert lacking_handovers(GENESIS.claims, after) == streams
        if streams:
            with refuses("handover_missing"):
                check_step(GENESIS.claims, after)
        check_step(GENESIS.claims, handing_over(GENESIS.claims, after))


@pytest.mark.parametrize(
    "handover", [Handover(sequence=0, head="ab" * 32), Handover(sequence=1, head="")], ids=["nothing with an id", "something without one"]
)
def test_a_handover_that_contradicts_itself_is_unsound(handover: Handover) -> None:
    with refuses("roster_unsound"):
        msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), handovers={POLICY: handover})


def test_the_first_roster_takes_nothing_over() -> None:
    with refuses("roster_unsound"):
        msgspec.structs.replace(GENESIS.claims, handovers={POLICY: Handover(sequence=0, head="")})


def test_a_revoker_says_so_much_and_no_more_until_a_roster_hands_its_stream_over() -> None:
    few = msgspec.structs.replace(GENESIS.claims, bounds=msgspec.structs.replace(GENESIS.claims.bounds, revocations_max=2))
    first = signed(few)
    held = admit_governance(first, pin=first.id)
    third = _revocation(3, LATE.id, "third")
    taken = extend(held, [GONE, LATE, third])
    assert {identity: no.code for identity, no in taken.refused.items()} == {third.id: "stream_full"}
    forks = [_revocation(1, "", f"fork {number}") for number in range(9)]
    assert len(_heard(held, forks, 9).revoked) == 4, "and twice as many of a fork"
    again = msgspec.structs.replace(roster(FOUR, 1, 3, after=first), bounds=few.bounds, handovers=_behind(LATE))
    after = signed(again)
    more = _revocation(3, LATE.id, "third", since=after.id)
    assert extend(extend(taken.governance, [after]).governance, [more]).new == (more,)


def test_what_a_revoker_may_say_is_changed_by_handing_its_stream_over_only() -> None:
    less = msgspec.structs.replace(GENESIS.claims.bounds, revocations_max=10)
    after = msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), bounds=less)
    assert lacking_handovers(GENESIS.claims, after) == [REVOKE]


@pytest.mark.parametrize("most", [0, 100_001])
def test_a_revoker_that_may_say_nothing_or_more_than_a_stream_holds_is_unsound(most: int) -> None:
    with refuses("roster_unsound"):
        msgspec.structs.replace(GENESIS.claims, bounds=msgspec.structs.replace(GENESIS.claims.bounds, revocations_max=most))


def test_a_stream_that_began_anew_need_not_be_kept_once_that_roster_is_in_force() -> None:
    one = _next(GENESIS, GONE, revoker=_role("revoker", "second"))
    two = _next(one, revoker=_role("third"))
    held = _until_still(PLAIN, (GONE, one, two), 1)
    assert put_in_force(_heard(PLAIN, (GONE, one, two), 1), 2).forgettable == frozenset({stream_of(key("second").public), HALT})
    gone = {REVOKE, in_reign(REVOKE, one.id), in_reign(stream_of(key("second").public), one.id)}
    assert gone < held.forgettable
    assert not any(name.startswith(("policy/", "activate/", RESOLVES)) for name in held.forgettable)
