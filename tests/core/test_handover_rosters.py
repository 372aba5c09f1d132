"""What rosters say of handovers, and whose word counts about the rosters themselves."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes.envelope import Statement
from mesh.core.law.erase import ERASURES
from mesh.core.law.fold import admit_governance, extend, put_in_force, restore
from mesh.core.law.reign import Handover, in_reign
from mesh.core.law.resolve import RESOLVES
from mesh.core.law.revocation import stream_of
from mesh.core.law.roster import ROSTERS, Role
from mesh.core.law.streams import Cursor
from mesh.core.law.succession import check_step, lacking_handovers
from mesh.core.law.travel import Said
from mesh.protocol.gossip import wanted
from tests.core.handing import (
    ACTIVATE,
    CHOSEN,
    DOMAIN,
    FIRST,
    FOUR,
    GENESIS,
    GONE,
    HALT,
    HALTED,
    LATE,
    LAWS,
    LIFTED,
    OTHER_ROOT,
    PLAIN,
    POLICY,
    REVOKE,
    TWIN,
    behind,
    following,
    hear,
    manifest,
    resolve,
    revocation,
    role,
    until_still,
)
from tests.core.kit import refuses
from tests.support.factory import MESH
from tests.support.rosters import ROOT, handing_over, key, roster, signed

# ----------------------------------------------------------------------------------------------------------------- the root


def test_a_fork_of_the_resolves_is_ended_by_a_roster_that_says_behind_which_they_go_on() -> None:
    twin = manifest(1, "", "policy", reason="a twin")
    one, two = resolve(ROOT[:2], POLICY, FIRST.id, twin.id), resolve(ROOT[:2], POLICY, twin.id, FIRST.id)
    held = until_still(PLAIN, (FIRST, twin, one, two), 9)
    assert held.forked(POLICY)
    after = following(GENESIS, one)
    held = until_still(held, (after,), 9)
    assert (held.forked(POLICY), held.forked(held.current(RESOLVES))) == (False, False)
    assert held.active(DOMAIN, "eu", 1_000).manifest_id == FIRST.id


def test_a_former_root_resolves_nothing() -> None:
    twin = manifest(1, "", "policy", reason="a twin")
    root = Role(keys=[one.public for one in OTHER_ROOT], threshold=2)
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), root=root)
    after = signed(handing_over(GENESIS.claims, plain), *ROOT[:2], *OTHER_ROOT[:2])
    held = until_still(PLAIN, (FIRST, twin, after, resolve(ROOT[:2], POLICY, FIRST.id, twin.id)), 9)
    assert held.forked(POLICY)
    held = until_still(held, (resolve(OTHER_ROOT[:2], POLICY, FIRST.id, twin.id, since=after.id),), 9)
    assert not held.forked(POLICY)


@given(st.permutations([*LAWS, GONE, LATE, HALTED, LIFTED, TWIN]), st.integers(1, 14), st.booleans())
def test_whatever_comes_first_the_same_counts_also_when_rosters_fork(heard: list[Statement[Said]], size: int, resolved: bool) -> None:
    more = (CHOSEN,) if resolved else ()
    held, whole = hear(hear(PLAIN, heard, size), more, 1), hear(PLAIN, (*more, *LAWS, GONE, LATE, HALTED, LIFTED, TWIN), 99)
    again = restore(PLAIN, [*heard, *more])
    epoch = len(whole.rosters.ids)
    for one in (put_in_force(held, epoch), put_in_force(again, epoch)):
        same = put_in_force(whole, epoch)
        assert (one.digest, one.revoked, one.halted, one.rosters.ids) == (same.digest, same.revoked, same.halted, same.rosters.ids)
        assert (one.rollouts, one.streams, one.void, one.frontier) == (same.rollouts, same.streams, same.void, same.frontier)


def test_who_has_taken_over_nothing_lacks_what_others_lack_too_as_long_as_somebody_shows_it() -> None:
    """Two who each lack what the other holds ask one another."""
    after = following(GENESIS, LATE, revoker=role("new revoker"))
    one, other = until_still(PLAIN, (GONE, after), 1), until_still(PLAIN, (LATE, after), 1)
    assert wanted(other, one.frontier) == {REVOKE: Cursor(1)}


def test_a_roster_for_an_epoch_that_is_past_is_taken_in_by_nobody() -> None:
    """A former root would fork the rosters where it still was one, and resolve that fork itself."""
    held = until_still(PLAIN, LAWS, 9)
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
    lost = revocation(3, LATE.id, "lost")
    asks = following(GENESIS, lost, revoker=role("new revoker"))
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=asks), revoker=asks.claims.revoker)
    mends = signed(msgspec.structs.replace(plain, handovers={REVOKE: Handover(sequence=2, head=LATE.id)}))
    held = until_still(PLAIN, (GONE, LATE, asks), 1)
    assert held.incomplete == [in_reign(REVOKE, asks.id)]
    held = until_still(held, (mends,), 1)
    assert (held.incomplete, len(held.revoked)) == ([], 2)


def test_what_a_resolve_chose_stands_also_if_that_roster_has_another_root() -> None:
    root = Role(keys=[one.public for one in OTHER_ROOT], threshold=2)
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), root=root)
    moved = signed(handing_over(GENESIS.claims, plain), *ROOT[:2], *OTHER_ROOT[:2])
    held = hear(PLAIN, (moved, TWIN, resolve(ROOT[:2], ROSTERS, moved.id, TWIN.id)), 1)
    assert (held.rosters.ids, held.forked(ROSTERS)) == ((GENESIS.id, moved.id), False)


def test_of_two_rosters_the_resolved_one_says_what_counts() -> None:
    keeps, drops = following(GENESIS, GONE, revoker=role("new revoker")), following(GENESIS, revoker=role("new revoker"))
    for chosen, other, counted in ((keeps, drops, True), (drops, keeps, False)):
        held = until_still(PLAIN, (GONE, keeps, drops, resolve(ROOT[:2], ROSTERS, chosen.id, other.id)), 1)
        assert held.rosters.ids == (GENESIS.id, chosen.id)
        assert held.denies(("subject", f"spiffe://{MESH}/agent/gone")) is counted


# -------------------------------------------------------------------------------------------------------------------- rosters


def test_a_roster_that_changes_signers_and_does_not_say_where_is_refused() -> None:
    plain = roster(FOUR, 1, 3, after=GENESIS)
    for changed, streams in (
        ({"policy": {DOMAIN: role("new policy")}}, [ACTIVATE, POLICY]),
        ({"policy": {**GENESIS.claims.policy, "more": role("more")}}, ["activate/more", "halt/more", "policy/more"]),
        ({"policy": {}}, [ACTIVATE, HALT, POLICY]),
        ({"revoker": role("revoker", "second", threshold=2)}, sorted([HALT, REVOKE, stream_of(key("second").public)])),
        ({"root": role("root 0", "root 1", threshold=2)}, [ERASURES, RESOLVES]),
        ({"issuers": role("another issuer")}, []),
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
    third = revocation(3, LATE.id, "third")
    taken = extend(held, [GONE, LATE, third])
    assert {identity: no.code for identity, no in taken.refused.items()} == {third.id: "stream_full"}
    forks = [revocation(1, "", f"fork {number}") for number in range(9)]
    assert len(hear(held, forks, 9).revoked) == 4, "and twice as many of a fork"
    again = msgspec.structs.replace(roster(FOUR, 1, 3, after=first), bounds=few.bounds, handovers=behind(LATE))
    after = signed(again)
    more = revocation(3, LATE.id, "third", since=after.id)
    assert extend(extend(taken.governance, [after]).governance, [more]).new == (more,)


def test_what_a_revoker_may_say_is_changed_by_handing_its_stream_over_only() -> None:
    less = msgspec.structs.replace(GENESIS.claims.bounds, revocations_max=10)
    after = msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), bounds=less)
    assert lacking_handovers(GENESIS.claims, after) == [REVOKE]


@pytest.mark.parametrize("most", [0, 100_001])
def test_a_revoker_that_may_say_nothing_or_more_than_a_stream_holds_is_unsound(most: int) -> None:
    with refuses("roster_unsound"):
        msgspec.structs.replace(GENESIS.claims, bounds=msgspec.structs.replace(GENESIS.claims.bounds, revocations_max=most))


def test_a_governor_that_may_have_nothing_waiting_is_unsound() -> None:
    with refuses("roster_unsound"):
        msgspec.structs.replace(GENESIS.claims, bounds=msgspec.structs.replace(GENESIS.claims.bounds, backlog_max=0))


def test_a_stream_that_began_anew_need_not_be_kept_once_that_roster_is_in_force() -> None:
    one = following(GENESIS, GONE, revoker=role("revoker", "second"))
    two = following(one, revoker=role("third"))
    held = until_still(PLAIN, (GONE, one, two), 1)
    assert put_in_force(hear(PLAIN, (GONE, one, two), 1), 2).forgettable == frozenset({stream_of(key("second").public), HALT})
    gone = {REVOKE, in_reign(REVOKE, one.id), in_reign(stream_of(key("second").public), one.id)}
    assert gone < held.forgettable
    assert not any(name.startswith(("policy/", "activate/", RESOLVES)) for name in held.forgettable)
