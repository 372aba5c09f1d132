"""Rosters are one stream: what is held is a function of the set, and who acts under which of them is a function of that and the time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import admit_governance, extend, restore, unsaid
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import covers
from mesh.core.law.reign import Handover, in_reign
from mesh.core.law.resolve import Resolve
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.roster import ROSTERS, Role, Roster
from mesh.core.law.streams import Chain, Fork
from mesh.core.law.travel import Said, read_law, streams_of
from mesh.limits import FRONTIER_STREAMS_MAX
from tests.core.handing import revocation
from tests.core.kit import refuses
from tests.support.factory import MESH, sign
from tests.support.rosters import ROOT, handing_over, key, member, roster, signed

FOUR = ("a", "b", "c", "d")
GENESIS = signed(roster(FOUR, 1, 3))
SECOND = signed(roster((*FOUR, "e"), 1, 4, after=GENESIS))
THIRD = signed(roster((*FOUR[1:], "e"), 1, 3, after=SECOND))
OTHER = signed(roster((*FOUR, "f"), 1, 4, after=GENESIS))
"""Follows the genesis as well."""
PLAIN = admit_governance(GENESIS, pin=GENESIS.id)


def _revocation(by: str, number: int = 1, previous: str = "", since: str = "") -> Statement[Said]:
    return revocation(number, previous, f"{by.replace(' ', '-')}-{number}", by, since)


def _resolve(head: str, aside: str) -> Statement[Said]:
    claims = Resolve(
        mesh=MESH, sequence=1, previous="", since="", stream=ROSTERS, head=head, aside=[aside], reason="a test", issued_ms=1_000
    )
    return read_law(sign(claims, *ROOT[:2]))


OLD = _revocation("revoker")
TWO = Role(keys=[key("revoker").public, key("second revoker").public], threshold=1)
UPTO = {stream_of(key("revoker").public): Handover(sequence=1, head=OLD.id)}
FOURTH = signed(
    handing_over(THIRD.claims, msgspec.structs.replace(roster((*FOUR[1:], "e"), 1, 3, after=THIRD), revoker=TWO, handovers=UPTO))
)
NEW = _revocation("second revoker", since=FOURTH.id)
"""By somebody whom only the fourth roster knows."""
NEXT = _revocation("revoker", 2, OLD.id, since=FOURTH.id)
LATE = _revocation("revoker", 2, OLD.id)
"""In the name of the former roster, behind what was handed over."""
RESOLVE = _resolve(SECOND.id, OTHER.id)
CHAIN: tuple[Statement[Said], ...] = (SECOND, THIRD, FOURTH, NEW, OLD, NEXT, LATE)
FORKED: tuple[Statement[Said], ...] = (SECOND, OTHER, THIRD, OLD)


def _until_still(held: Governance, heard: list[Statement[Said]], cuts: list[int]) -> Governance:
    """Offer them in these batches, and again as long as anything is new: as gossip does."""
    while True:
        before = held
        for start, end in pairwise([0, *sorted(cuts), len(heard)]):
            held = extend(held, heard[start:end]).governance
        if held is before:
            return held


@given(st.data(), st.sampled_from([CHAIN, FORKED, (*FORKED, RESOLVE)]))
def test_two_nodes_fed_the_same_rosters_in_any_two_orders_with_duplicates_are_in_the_same_state(
    data: st.DataObject, said: tuple[Statement[Said], ...]
) -> None:
    states = list[Governance]()
    for _ in range(2):
        heard = data.draw(st.permutations([*said, *data.draw(st.lists(st.sampled_from(said), max_size=3))]))
        states.append(_until_still(PLAIN, heard, data.draw(st.lists(st.integers(0, len(heard)), max_size=3))))
    one, two = (msgspec.structs.replace(state, former={}) for state in states)
    assert one == two
    again = restore(PLAIN, data.draw(st.permutations(said)))
    assert (again.digest, again.rosters, again.revoked) == (one.digest, one.rosters, one.revoked)


def test_the_state_is_the_same_in_two_processes_with_other_hash_seeds() -> None:
    ask = "from tests.core.test_rosters import CHAIN, FORKED, PLAIN, RESOLVE; from mesh.core.law.fold import extend\n"
    ask += "print([extend(PLAIN, said).governance.digest for said in (CHAIN, FORKED, (*FORKED, RESOLVE))])"
    seen = {
        subprocess.run([sys.executable, "-c", ask], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_a_roster_is_held_before_it_is_in_force() -> None:
    held = extend(PLAIN, [THIRD, SECOND]).governance
    assert held.rosters.ids == (GENESIS.id, SECOND.id, THIRD.id)
    assert (held.roster, held.successor) == (GENESIS.claims, SECOND.claims)
    assert held.under(3).roster == THIRD.claims
    assert (held.under(3).successor, held.under(1)) == (None, held)
    assert set(held.under(2).keys) == {member.decision_key for member in SECOND.claims.members}
    with refuses("wrong_epoch"):
        held.under(4)


def test_whoever_lacks_a_roster_that_another_holds_does_not_cover_it() -> None:
    held = extend(PLAIN, [SECOND]).governance
    assert covers(list(held.frontier), list(PLAIN.frontier))
    assert not covers(list(PLAIN.frontier), list(held.frontier))


def test_a_roster_without_its_predecessor_is_believed_once_that_has_come() -> None:
    taken = extend(PLAIN, [THIRD])
    assert (taken.new, taken.refused[THIRD.id].code) == ((), "wrong_epoch")
    assert extend(taken.governance, [SECOND, THIRD]).governance.rosters.newest == THIRD.claims


def test_whoever_a_held_roster_lets_speak_is_believed_also_after_they_are_gone() -> None:
    assert extend(PLAIN, [NEW]).refused[NEW.id].code == "wrong_epoch"
    held = extend(PLAIN, [NEW, FOURTH, THIRD, SECOND]).governance
    assert ("subject", f"spiffe://{MESH}/agent/second-revoker-1") in held.revoked
    stream = stream_of(key("second revoker").public)
    fifth = roster((*FOUR[1:], "e"), 1, 3, after=FOURTH)
    gone = signed(handing_over(FOURTH.claims, msgspec.structs.replace(fifth, handovers={stream: Handover(sequence=1, head=NEW.id)})))
    later = extend(held, [gone]).governance
    assert ("subject", f"spiffe://{MESH}/agent/second-revoker-1") in later.revoked
    assert in_reign(stream, gone.id) in streams_of(later.rosters)


# -------------------------------------------------------------------------------------------------- when one may be acted under


def test_from_the_moment_a_held_successor_begins_nobody_acts_under_the_former_one() -> None:
    held = extend(PLAIN, [SECOND]).governance
    at_ms = SECOND.claims.not_before_ms
    held.check_roster(at_ms - 1)
    with refuses("roster_pending"):
        held.check_roster(at_ms)
    held.under(2).check_roster(at_ms)
    with refuses("roster_pending"):
        held.under(2).check_roster(at_ms - 1)


def test_two_successors_of_one_roster_stop_everything_until_the_root_says_which_counts() -> None:
    held = extend(PLAIN, [SECOND]).governance
    torn = extend(held, [OTHER]).governance
    assert isinstance(torn.streams[ROSTERS], Fork)
    assert torn.rosters.ids == (GENESIS.id,)
    with refuses("roster_conflict"):
        torn.check_roster(0)
    mended = extend(torn, [RESOLVE]).governance
    assert mended.rosters.ids == (GENESIS.id, SECOND.id)
    mended.check_roster(0)


def test_who_acts_under_a_roster_goes_on_whoever_signs_another_of_its_epoch() -> None:
    """k members held it before anybody went over: nobody can have gone over to the other one."""
    held = extend(PLAIN, [OTHER]).governance.under(2)
    taken = extend(held, [SECOND])
    assert (taken.new, taken.refused[SECOND.id].code) == ((), "roster_conflict")
    taken.governance.check_roster(OTHER.claims.not_before_ms)


def test_who_acts_under_one_that_does_not_count_is_stopped() -> None:
    mended = extend(PLAIN, [OTHER, SECOND, RESOLVE]).governance
    stray = msgspec.structs.replace(mended, roster=OTHER.claims, roster_id=OTHER.id)
    with refuses("roster_conflict"):
        stray.check_roster(OTHER.claims.not_before_ms)


# ------------------------------------------------------------------------------------------------------------------- from files


def test_the_pinned_roster_is_in_force_and_those_around_it_are_believed() -> None:
    for pin, epoch in ((GENESIS.id, 1), (SECOND.id, 2), (THIRD.id, 3)):
        held = admit_governance(GENESIS, pin=pin, said=[THIRD, SECOND])
        assert (held.roster.epoch, held.rosters.ids) == (epoch, (GENESIS.id, SECOND.id, THIRD.id))


def test_a_pinned_roster_that_these_files_do_not_lead_to_is_refused() -> None:
    with refuses("wrong_epoch"):
        admit_governance(GENESIS, pin=THIRD.id, said=[SECOND])
    with refuses("wrong_epoch"):
        admit_governance(GENESIS, pin=THIRD.id, said=[THIRD])
    with refuses("roster_conflict"):
        admit_governance(GENESIS, pin=OTHER.id, said=[OTHER, SECOND])
    with refuses("wrong_epoch"):
        admit_governance(SECOND, pin=SECOND.id)


def test_what_was_said_is_forgotten_and_the_rosters_are_not() -> None:
    held = extend(PLAIN, [SECOND, OLD]).governance.under(2)
    bare = unsaid(held)
    assert (bare.roster, bare.rosters, set(bare.streams), bare.revoked) == (held.roster, held.rosters, {ROSTERS}, frozenset())
    assert isinstance(bare.streams[ROSTERS], Chain)
    assert extend(bare, [OLD]).governance.digest == held.digest


def test_all_rosters_together_never_make_for_more_streams_than_a_heartbeat_can_name() -> None:
    def with_revokers(before: Statement[Roster], names: list[str]) -> Statement[Roster]:
        revoker = Role(keys=[key(name).public for name in names], threshold=1)
        after = handing_over(before.claims, msgspec.structs.replace(roster(FOUR, 1, 3, after=before), revoker=revoker))
        return envelope.read(Roster, sign(after, *ROOT[:2]))

    before, many = GENESIS, list[Statement[Roster]]()
    for generation in range(3):
        before = with_revokers(before, [f"{generation} {number}" for number in range(FRONTIER_STREAMS_MAX // 5)])
        many.append(before)
    taken = extend(PLAIN, many)
    assert taken.new == tuple(many[:2])
    assert taken.refused[many[2].id].code == "roster_unsound"


# ------------------------------------------------------------------------------------------ one revoker, and what a roster names


TWO_REVOKERS = Role(keys=[key("revoker").public, key("second revoker").public], threshold=2)
FIRST_OF_TWO = signed(msgspec.structs.replace(GENESIS.claims, revoker=TWO_REVOKERS))
JOINING = signed(msgspec.structs.replace(roster((*FOUR, "e"), 1, 4, after=FIRST_OF_TWO), revoker=TWO_REVOKERS, handovers={}))


NEWCOMER = ("key", JOINING.claims.members[-1].decision_key)


def _of_newcomer(kind: Literal["key", "enrolled"], *by: str) -> Statement[Said]:
    target = Target(type=kind, value=NEWCOMER[1])
    claims = Revocation(
        mesh=MESH, revoker=key(by[0]).public, sequence=1, previous="", since="", target=target, spares=[], reason="", issued_ms=1_000
    )
    return read_law(sign(claims, *map(key, by)))


BOTH = ("revoker", "second revoker")
TAKEN: dict[str, tuple[tuple[Statement[Said], ...], bool]] = {
    "by one, as a key": ((_of_newcomer("key", "revoker"),), False),
    "by all, as a key": ((_of_newcomer("key", *BOTH),), False),
    "by all, as a key, and the same with one line": ((_of_newcomer("key", "revoker"), _of_newcomer("key", *BOTH)), False),
    "by all, as enrolled": ((_of_newcomer("enrolled", *BOTH),), True),
    "by all, as enrolled, and the same with one line": ((_of_newcomer("enrolled", "revoker"), _of_newcomer("enrolled", *BOTH)), True),
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_key_that_any_held_roster_names_is_revoked_as_such_only_whoever_carries_it_and_whatever_comes_first(what: str) -> None:
    said, dead = TAKEN[what]
    begun = admit_governance(FIRST_OF_TWO, pin=FIRST_OF_TWO.id)
    states = [_until_still(begun, list(order), cuts) for order in permutations([JOINING, *said]) for cuts in ([], [1], [1, 2])]
    assert {state.denies(NEWCOMER) for state in states} == {dead}
    assert len({state.digest for state in states}) == 1
    assert {state.said_of(NEWCOMER) for state in states} == ({(said[-1].id,)} if dead else {()})


def test_before_a_roster_names_it_one_revoker_ends_a_key() -> None:
    held = extend(admit_governance(FIRST_OF_TWO, pin=FIRST_OF_TWO.id), [_of_newcomer("key", "revoker")]).governance
    with refuses("revoked"):
        held.check_unrevoked(NEWCOMER)
    extend(held, [JOINING]).governance.check_unrevoked(NEWCOMER)


def test_a_log_that_left_does_not_come_back_under_another_key() -> None:
    back = signed(roster((*FOUR[1:], "e", member("a", generation=1)), 1, 4, after=THIRD))
    assert extend(PLAIN, [SECOND, THIRD, back]).refused[back.id].code == "roster_unsafe"
    newer = signed(roster((*FOUR[1:], "e", msgspec.structs.replace(member("a", generation=1), log_epoch=2)), 1, 4, after=THIRD))
    assert extend(PLAIN, [SECOND, THIRD, newer]).governance.rosters.ids[-1] == newer.id


def test_whoever_heard_a_new_revoker_before_its_roster_was_set_aside_and_who_heard_it_after_hold_the_same() -> None:
    aside = signed(
        msgspec.structs.replace(
            roster((*FOUR, "f"), 1, 4, after=GENESIS), revoker=Role(keys=[key("revoker").public, key("second revoker").public], threshold=1)
        )
    )
    said = [SECOND, aside, NEW, _resolve(SECOND.id, aside.id)]
    assert (
        len(
            {_until_still(PLAIN, list(order), []).digest for order in permutations(said)}
            | {_one_by_one(order) for order in permutations(said)}
        )
        == 1
    )


def _one_by_one(said: Sequence[Statement[Said]]) -> str:
    return _until_still(PLAIN, list(said), list(range(1, len(said)))).digest
