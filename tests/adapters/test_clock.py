"""Time that never runs backwards."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters import clock
from mesh.adapters.clock import Clock, Reading


class Hands:
    """A clock whose hands a test moves."""

    def __init__(self, wall_ms: int, boot_ms: int) -> None:
        self.wall_ms = wall_ms
        self.boot_ms = boot_ms

    def __call__(self) -> Reading:
        return Reading(self.wall_ms, self.boot_ms)


def test_it_reads_the_wall_clock_when_nothing_is_wrong() -> None:
    before = time.time_ns() // 1_000_000
    now = Clock().now_ms()
    assert before <= now <= time.time_ns() // 1_000_000 + 1


def test_the_boot_clock_counts_what_has_passed() -> None:
    before = clock.boot_ms()
    time.sleep(0.02)
    assert 20 <= clock.boot_ms() - before < 5_000


def test_a_wall_clock_set_back_does_not_turn_time_back() -> None:
    hands = Hands(1_000_000, 500)
    own = Clock(source=hands)
    hands.wall_ms, hands.boot_ms = 1_000, 700
    assert own.now_ms() == 1_000_200
    hands.boot_ms = 800
    assert own.now_ms() == 1_000_300


def test_a_wall_clock_set_forward_is_followed_once_it_has_lasted() -> None:
    hands = Hands(1_000_000, 500)
    own = Clock(source=hands)
    hands.wall_ms, hands.boot_ms = 5_000_000, 600
    assert own.now_ms() == 1_000_100
    hands.wall_ms, hands.boot_ms = 5_009_999, 10_599
    assert own.now_ms() == 1_010_099
    hands.wall_ms, hands.boot_ms = 5_010_000, 10_600
    assert own.now_ms() == 5_010_000


def test_one_bad_sample_of_the_wall_clock_leaves_no_trace() -> None:
    hands = Hands(1_000_000, 500)
    own = Clock(source=hands)
    hands.wall_ms, hands.boot_ms = 4_600_000, 550
    own.now_ms()
    hands.wall_ms, hands.boot_ms = 1_000_100, 600
    assert own.now_ms() == 1_000_100
    hands.wall_ms, hands.boot_ms = 4_620_000, 20_600
    assert own.now_ms() == 1_020_100, "the next one begins anew"


def test_what_a_clock_drifts_is_followed_at_once() -> None:
    hands = Hands(1_000_000, 500)
    own = Clock(source=hands)
    hands.wall_ms = 1_000_250
    assert own.now_ms() == 1_000_250
    hands.wall_ms = 1_000_501
    assert own.now_ms() == 1_000_250


def test_a_restart_begins_at_the_persisted_high_water() -> None:
    hands = Hands(1_000, 0)
    own = Clock(9_000, source=hands)
    assert own.now_ms() == 9_000
    hands.boot_ms = 50
    assert own.now_ms() == 9_050


def test_a_floor_that_peers_signed_is_kept_and_a_lower_one_changes_nothing() -> None:
    hands = Hands(1_000, 0)
    own = Clock(source=hands)
    own.raise_to(4_000)
    assert own.now_ms() == 4_000
    own.raise_to(2_000)
    hands.boot_ms = 10
    assert own.now_ms() == 4_010


@given(
    st.integers(0, 10**13),
    st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 10**10), st.none() | st.integers(0, 10**13)), max_size=20),
)
def test_time_never_runs_backwards(high_water: int, moves: list[tuple[int, int, int | None]]) -> None:
    hands = Hands(10**12, 10**6)
    own = Clock(high_water, source=hands)
    last = own.now_ms()
    assert last >= high_water
    for wall, boot, floor in moves:
        hands.wall_ms, hands.boot_ms = wall, boot
        if floor is not None:
            own.raise_to(floor)
        now = own.now_ms()
        assert now >= max(last, floor or 0)
        last = now


async def test_a_wait_ends_at_its_time_not_before() -> None:
    own = Clock()
    due = own.now_ms() + 30
    assert await own.sleep_until(due)
    assert own.now_ms() >= due
    assert await own.sleep_until(due)


async def test_a_wait_notices_that_the_host_slept() -> None:
    hands = Hands(1_000, 0)
    own = Clock(source=hands)
    waiting = asyncio.create_task(own.sleep_until(3_600_000))
    await asyncio.sleep(0.01)
    hands.wall_ms, hands.boot_ms = 4_000_000, 3_999_000  # as after an hour of suspend: the loop's own clock saw nothing of it
    assert await asyncio.wait_for(waiting, 2)


async def test_a_wait_can_be_ended_early() -> None:
    own = Clock()
    waiting = asyncio.create_task(own.sleep_until(own.now_ms() + 60_000))
    await asyncio.sleep(0.01)
    own.wake()
    assert await asyncio.wait_for(waiting, 1) is False
    assert await own.sleep_until(own.now_ms() + 5), "one call ends one wait"


async def test_a_wake_up_while_nobody_waits_is_not_lost() -> None:
    own = Clock()
    own.wake()
    assert await asyncio.wait_for(own.sleep_until(own.now_ms() + 60_000), 1) is False
