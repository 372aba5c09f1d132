"""A node goes over to the next roster when enough members hold it, and acts under none in between."""

import msgspec
import pytest

from mesh.core.law.fold import admit_governance, extend
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.roster import ROSTERS
from mesh.protocol.adoption import check_view, go_over, next_roster
from mesh.protocol.freshness import Freshness, hear
from tests.core.kit import refuses
from tests.support.factory import MESH
from tests.support.rosters import member, roster, signed

FOUR = ("a", "b", "c", "d")
GENESIS = signed(roster(FOUR, 1, 3))
SECOND = signed(roster((*FOUR, "e"), 1, 4, after=GENESIS))
OTHER = signed(roster((*FOUR, "f"), 1, 4, after=GENESIS))
THIRD = signed(roster((*FOUR[1:], "e"), 1, 3, after=SECOND))
FIRST = admit_governance(GENESIS, pin=GENESIS.id)
HOLDING = extend(FIRST, [SECOND]).governance
TWICE_STALE_MS = 6_000
BEGINS_MS = SECOND.claims.not_before_ms
HELD = StreamHead(stream=ROSTERS, sequence=2, head=SECOND.id, forked=False, held="")
LACKING = StreamHead(stream=ROSTERS, sequence=1, head=GENESIS.id, forked=False, held="")


def _say(fresh: Freshness, who: str, at_ms: int, head: StreamHead, *, epoch: int = 1) -> Freshness:
    beat = Heartbeat(
        mesh=MESH,
        member=who,
        incarnation=1,
        sequence=at_ms,
        signed_ms=at_ms,
        roster_epoch=epoch,
        frontier=[head],
        policies=[],
        checkpoint="",
        behind=False,
        echo=[fresh.boot],
    )
    return hear(fresh, beat, f"{who} {at_ms}", now_ms=at_ms, bounds=GENESIS.claims.bounds)


def _heard(names: tuple[str, ...], at_ms: int, head: StreamHead = HELD, *, epoch: int = 1) -> Freshness:
    fresh = Freshness.begin("00" * 32)
    for name in names:
        fresh = _say(fresh, name, at_ms, head, epoch=epoch)
    return fresh


@pytest.mark.parametrize(("names", "over"), [(FOUR[:2], False), (FOUR[:3], True), (FOUR, True), (("a", "b", "z", "e"), False)])
def test_it_goes_over_once_k_members_of_the_former_roster_have_held_the_next_for_long_enough(names: tuple[str, ...], over: bool) -> None:
    fresh = _heard(names, BEGINS_MS - TWICE_STALE_MS)
    assert (next_roster(HOLDING, fresh, now_ms=BEGINS_MS) is not None) == over


def test_it_never_goes_over_before_the_next_one_begins_nor_before_2_delta_are_over() -> None:
    early = _heard(FOUR, 1_000)
    assert next_roster(HOLDING, early, now_ms=BEGINS_MS - 1) is None
    assert next_roster(HOLDING, early, now_ms=BEGINS_MS) == SECOND.claims
    late = _heard(FOUR, BEGINS_MS)
    assert next_roster(HOLDING, late, now_ms=BEGINS_MS + TWICE_STALE_MS - 1) is None
    assert next_roster(HOLDING, late, now_ms=BEGINS_MS + TWICE_STALE_MS) == SECOND.claims


def test_saying_again_that_one_holds_it_does_not_make_it_later() -> None:
    fresh = _heard(FOUR, 1_000)
    for at_ms in range(1_500, BEGINS_MS, 500):
        for name in FOUR:
            fresh = _say(fresh, name, at_ms, HELD)
    assert next_roster(HOLDING, fresh, now_ms=BEGINS_MS) == SECOND.claims


@pytest.mark.parametrize(
    "head",
    [
        LACKING,
        StreamHead(stream=ROSTERS, sequence=2, head=OTHER.id, forked=False, held=""),
        StreamHead(stream=ROSTERS, sequence=2, head=SECOND.id, forked=True, held=""),
        StreamHead(stream="revoke/00", sequence=2, head=SECOND.id, forked=False, held=""),
    ],
)
def test_who_holds_another_or_none_does_not_count(head: StreamHead) -> None:
    assert next_roster(HOLDING, _heard(FOUR, 1_000, head), now_ms=BEGINS_MS + TWICE_STALE_MS) is None


def test_who_holds_a_later_one_holds_this_one() -> None:
    beyond = StreamHead(stream=ROSTERS, sequence=3, head=THIRD.id, forked=False, held="")
    assert next_roster(HOLDING, _heard(FOUR, 1_000, beyond), now_ms=BEGINS_MS) == SECOND.claims
    both = extend(HOLDING, [THIRD]).governance
    assert next_roster(both, _heard(FOUR, 1_000, beyond), now_ms=THIRD.claims.not_before_ms) == SECOND.claims, "one after the other"


@pytest.mark.parametrize(("names", "over"), [(("a",), False), (("a", "b"), True), (("e", "f", "g"), False)])
def test_who_was_away_goes_over_when_one_honest_member_has(names: tuple[str, ...], over: bool) -> None:
    fresh = _heard(names, BEGINS_MS, epoch=2)
    assert (next_roster(HOLDING, fresh, now_ms=BEGINS_MS) is not None) == over


def test_without_a_next_one_or_with_two_nobody_goes_over() -> None:
    torn = extend(HOLDING, [OTHER]).governance
    for governance in (FIRST, torn, HOLDING.under(2)):
        assert next_roster(governance, _heard(FOUR, 1_000), now_ms=BEGINS_MS) is None


# ------------------------------------------------------------------------------------------------------------------ in between


def test_between_the_two_nothing_is_allowed_however_many_vouch() -> None:
    for head in (LACKING, HELD):
        fresh = _heard(FOUR, BEGINS_MS - 1, head)
        assert len(check_view(HOLDING, fresh, wall_ms=BEGINS_MS - 1, now_ms=BEGINS_MS - 1)) == 4
        with refuses("roster_pending"):
            check_view(HOLDING, fresh, wall_ms=BEGINS_MS, now_ms=BEGINS_MS)
    fresh = _heard((*FOUR, "e"), BEGINS_MS, epoch=2)
    assert len(check_view(HOLDING.under(2), fresh, wall_ms=BEGINS_MS, now_ms=BEGINS_MS)) == 5


def test_the_word_of_members_of_both_is_taken_along() -> None:
    changed = signed(roster((*FOUR[:3], "e", member("d", generation=1)), 1, 4, after=GENESIS)).claims
    fresh = go_over(_heard(FOUR, 1_000), GENESIS.claims, changed)
    for kept in (fresh.heard, fresh.echoed, fresh.timed, fresh.shown):
        assert set(kept) == {"a", "b", "c"}
    assert fresh.boot == "00" * 32
    assert msgspec.structs.replace(fresh, boot="") == msgspec.structs.replace(go_over(fresh, changed, changed), boot="")
