"""Whether a view is new enough is judged by what members signed and when, never by when it arrived."""

from typing import Any

import pytest

from mesh.core.bytes import envelope
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.protocol.freshness import Freshness, check_clock, check_fresh, counts, hear, leap, vouchers
from tests.core.kit import refuses
from tests.protocol.machines import BOOT, LAB, NOW, ahead, beat

BOUNDS = LAB.roster.bounds  # Δ 3,000 ms, ε 300 ms
FRONTIER = LAB.governance.frontier
MEMBERS = tuple(LAB.keys)


def _hear(state: Freshness, data: bytes, now_ms: int = NOW) -> Freshness:
    statement = envelope.read(Heartbeat, data)
    return hear(state, statement.claims, statement.id, now_ms=now_ms, bounds=BOUNDS)


def _heard(*beats: bytes, now_ms: int = NOW) -> Freshness:
    state = Freshness.begin(BOOT)
    for data in beats:
        state = _hear(state, data, now_ms)
    return state


def _vouch(state: Freshness, now_ms: int = NOW, frontier: tuple[StreamHead, ...] = FRONTIER) -> set[str]:
    return set(vouchers(state, frontier, now_ms=now_ms, bounds=BOUNDS))


@pytest.mark.parametrize(
    ("age_ms", "counted"),
    [(-301, False), (-300, True), (0, True), (2_700, True), (2_701, False), (10**9, False), (-(10**9), False)],
)
def test_a_heartbeat_counts_from_skew_ahead_up_to_the_staleness_bound_less_the_skew(age_ms: int, counted: bool) -> None:
    assert counts(NOW - age_ms, NOW, BOUNDS) is counted


def test_a_heartbeat_grows_old_though_it_arrived_late() -> None:
    state = _heard(beat("us-1", 1, NOW - 2_600))
    assert _vouch(state) == {"us-1"}
    assert _vouch(state, NOW + 101) == set()


def test_one_from_the_future_neither_counts_nor_replaces_another() -> None:
    state = _heard(beat("us-1", 1, NOW), beat("us-1", 2, NOW + 301))
    assert [item.sequence for item in state.heard["us-1"]] == [1]
    assert _vouch(_hear(state, beat("us-1", 2, NOW + 301), NOW + 1)) == {"us-1"}


def test_what_is_old_when_it_arrives_is_not_kept() -> None:
    assert _heard(beat("us-1", 1, NOW - 2_701)).heard == {}


@pytest.mark.parametrize(("incarnation", "sequence"), [(3, 4), (3, 5), (2, 99)])
def test_a_replayed_heartbeat_changes_nothing(incarnation: int, sequence: int) -> None:
    state = _heard(beat("us-1", 5, NOW, incarnation=3))
    assert _hear(state, beat("us-1", sequence, NOW + 1, incarnation=incarnation), NOW + 1) is state


def test_a_new_incarnation_replaces_all_of_the_former() -> None:
    state = _heard(beat("us-1", 5, NOW), beat("us-1", 6, NOW), beat("us-1", 0, NOW, incarnation=2))
    assert [(item.incarnation, item.sequence) for item in state.heard["us-1"]] == [(2, 0)]


def test_a_chatty_member_is_remembered_within_bounds() -> None:
    state = _heard(*(beat("us-1", number, NOW) for number in range(40)))
    assert [item.sequence for item in state.heard["us-1"]] == list(range(24, 40))


def test_who_claims_to_be_ahead_does_not_vouch_by_that_but_may_by_an_older_one() -> None:
    state = _heard(beat("us-1", 1, NOW - 1_000), beat("us-1", 2, NOW, frontier=ahead()))
    assert _vouch(state) == {"us-1"}
    assert vouchers(state, FRONTIER, now_ms=NOW, bounds=BOUNDS)["us-1"] == state.heard["us-1"][0].id
    assert _vouch(state, NOW + 1_800) == set()


def test_who_is_behind_vouches_for_what_covers_it() -> None:
    behind = [head for head in FRONTIER if head.stream == "roster"]
    assert _vouch(_heard(beat("us-1", 1, NOW, frontier=behind))) == {"us-1"}


def test_another_head_at_the_same_sequence_is_not_covered() -> None:
    forked = [StreamHead(stream=head.stream, sequence=head.sequence, head="ff" * 32, forked=False, held="") for head in FRONTIER]
    assert _vouch(_heard(beat("us-1", 1, NOW, frontier=forked))) == set()


def test_one_liar_that_is_ahead_stops_nobody() -> None:
    beats = [beat(name, 1, NOW, echo=[BOOT]) for name in MEMBERS[:3]]
    state = _heard(*beats, beat(MEMBERS[3], 1, NOW, frontier=ahead(), echo=[BOOT]))
    assert set(check_fresh(state, FRONTIER, LAB.roster, now_ms=NOW)) == set(MEMBERS[:3])


@pytest.mark.parametrize(("echoes", "vouching", "fresh"), [(3, 3, True), (2, 3, False), (3, 2, False), (0, 4, False), (4, 4, True)])
def test_fresh_means_k_members_that_answered_this_start_and_k_that_vouch(echoes: int, vouching: int, fresh: bool) -> None:
    state = Freshness.begin(BOOT)
    for at, name in enumerate(MEMBERS):
        # Who does not vouch any more has answered at the start.
        state = _hear(state, beat(name, 1, NOW - 5_000, echo=[BOOT] if at < echoes else ["aa" * 32]), NOW - 5_000)
        if at < vouching:
            state = _hear(state, beat(name, 2, NOW), NOW)
    if fresh:
        assert len(check_fresh(state, FRONTIER, LAB.roster, now_ms=NOW)) >= 3
        return
    with refuses("stale"):
        check_fresh(state, FRONTIER, LAB.roster, now_ms=NOW)


def test_an_echo_of_another_start_is_none() -> None:
    assert _heard(beat("us-1", 1, NOW, echo=["aa" * 32])).echoed == frozenset()
    assert _heard(beat("us-1", 1, NOW, echo=["aa" * 32, BOOT])).echoed == {"us-1"}


@pytest.mark.parametrize(
    ("ages_ms", "sure"),
    [
        ((0, 0, 0, 0), True),
        ((-301, 0, 0, 0), True),  # one liar alone moves nobody's clock
        ((-301, -301, 0, 0), False),  # two cannot both lie
        ((-300, -300, -300, -300), True),
        ((), True),
        ((-900,), True),
    ],
)
def test_a_clock_behind_what_f_and_one_more_members_signed_is_not_trusted(ages_ms: tuple[int, ...], sure: bool) -> None:
    wall_ms = NOW
    state = _heard(*(beat(name, 1, NOW - age) for name, age in zip(MEMBERS, ages_ms, strict=False)), now_ms=NOW + 900)
    check: Any = lambda: check_clock(state, LAB.roster, wall_ms=wall_ms, now_ms=wall_ms)  # noqa: E731 -- asked twice
    if sure:
        check()
        return
    with refuses("clock_unsure"):
        check()


def _timed(*late_ms: int, leapt: bool = False) -> Freshness:
    """Heard from so many, so late each."""
    state = Freshness.begin(BOOT)
    state = leap(state) if leapt else state
    for name, late in zip(MEMBERS, late_ms, strict=False):
        state = _hear(state, beat(name, 1, NOW - late))
    return state


HALF = 300 + 1_350


@pytest.mark.parametrize(
    ("late_ms", "sure"),
    [
        ((HALF, HALF, HALF), True),
        ((HALF + 1, HALF + 1, HALF), False),  # one may be a liar that speaks after me
        ((HALF + 1, HALF, HALF), True),
        ((3_600_000, 3_600_000, 3_600_000), False),  # though none of these counts
        ((3_600_000, 0, 0), True),
        ((3_600_000,), True),  # one alone may lie
    ],
)
def test_a_clock_ahead_of_what_all_but_f_members_signed_is_not_trusted(late_ms: tuple[int, ...], sure: bool) -> None:
    state = _timed(*late_ms)
    if sure:
        check_clock(state, LAB.roster, wall_ms=NOW, now_ms=NOW)
        check_clock(state, LAB.roster, wall_ms=NOW + 60_000, now_ms=NOW + 60_000)  # silence is staleness, not doubt
        return
    with refuses("clock_unsure"):
        check_clock(state, LAB.roster, wall_ms=NOW, now_ms=NOW)


def test_an_hour_behind_is_doubt_though_nothing_heard_counts() -> None:
    state = _timed(-3_600_000, -3_600_000)
    assert state.heard == {}
    with refuses("clock_unsure"):
        check_clock(state, LAB.roster, wall_ms=NOW, now_ms=NOW)


def test_own_heartbeats_and_replayed_ones_bear_no_clock_out() -> None:
    state = _timed(HALF + 1, HALF + 1)
    own = envelope.read(Heartbeat, beat(MEMBERS[3], 1, NOW))
    state = hear(state, own.claims, own.id, now_ms=NOW, bounds=BOUNDS, own=True)
    state = _hear(state, beat(MEMBERS[0], 1, NOW - HALF - 1), NOW - HALF - 1)
    with refuses("clock_unsure"):
        check_clock(state, LAB.roster, wall_ms=NOW, now_ms=NOW)


@pytest.mark.parametrize(("heard", "sure"), [(0, False), (1, False), (2, True)])
def test_after_a_leap_of_time_more_than_f_must_have_been_heard(heard: int, sure: bool) -> None:
    state = _timed(*[0] * heard, leapt=True)
    if sure:
        check_clock(state, LAB.roster, wall_ms=NOW, now_ms=NOW)
        return
    with refuses("clock_unsure"):
        check_clock(state, LAB.roster, wall_ms=NOW, now_ms=NOW)


def test_a_wall_clock_set_forward_is_doubted_until_time_has_followed() -> None:
    check_clock(_timed(0, 0), LAB.roster, wall_ms=NOW + 300, now_ms=NOW)
    with refuses("clock_unsure"):
        check_clock(_timed(0, 0), LAB.roster, wall_ms=NOW + 301, now_ms=NOW)
