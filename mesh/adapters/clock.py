"""Time that never runs backwards and does not stop while the host sleeps.

Rules
-----
1. :meth:`Clock.now_ms` is the largest of: the wall clock, the high water that was persisted before, and the last reading plus
   what the boot-time clock says has passed since. A wall clock set back, a restart and a suspended host cannot make
   anything younger than it is.
2. A wall clock set *forward* by more than :data:`STEP_MS` is followed only once it has stayed so for :data:`BORNE_OUT_MS`: one bad
   sample must not carry a node into a future from which time does not run back. Whether a wall clock may be *believed* is a
   comparison with what peers signed (:mod:`mesh.protocol.freshness`), which trusts nothing meanwhile.
3. Waiting ends by this clock, not by the event loop's: that one stands still while the host sleeps, and a lease would
   outlive its end by the length of the nap.

``CLOCK_BOOTTIME`` is Linux's; elsewhere the monotonic clock stands in, which may stop during sleep: then only the wall
clock notices.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

__all__ = ["BORNE_OUT_MS", "STEP_MS", "Clock", "Reading", "boot_ms", "read", "wall_ms"]

_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NS_PER_MS: Final = 1_000_000
STEP_MS: Final = 250
"""Beyond it the wall clock was set, it did not drift."""
BORNE_OUT_MS: Final = 10_000
"""How long a time set forward must last."""
_SLICE_MS: Final = 250
"""Longest nap between two looks at the clock: how late a wait may end after the host wakes up."""


def wall_ms() -> int:
    """The wall clock, in ms since the Unix epoch; may jump."""
    return time.time_ns() // _NS_PER_MS


def boot_ms() -> int:
    """Time since the host started, sleep included, in ms; never jumps."""
    return time.clock_gettime_ns(_BOOT_CLOCK) // _NS_PER_MS


class Reading(msgspec.Struct, frozen=True):
    """Both clocks at one moment, in ms."""

    wall_ms: int
    boot_ms: int


def read() -> Reading:
    """Both clocks now."""
    return Reading(wall_ms(), boot_ms())


class Clock:
    """The node's clock (rule 1).

    Args:
        high_water_ms: the largest time this node ever signed or persisted; 0 for a new node.
        source: where readings come from.
    """

    def __init__(self, high_water_ms: int = 0, *, source: Callable[[], Reading] = read) -> None:
        self._source = source
        first = source()
        self._last_ms = max(first.wall_ms, high_water_ms)
        self._last_boot_ms = first.boot_ms
        self._stepped_boot_ms = -1
        """Since when the wall clock is further ahead than it can have drifted; -1 if it is not."""
        self._awake = asyncio.Event()

    def now_ms(self) -> int:
        """The time by rules 1 and 2, in ms since the epoch; never smaller than before."""
        reading = self._source()
        self._last_ms += max(0, reading.boot_ms - self._last_boot_ms)
        self._last_boot_ms = max(reading.boot_ms, self._last_boot_ms)
        if self._borne_out(reading.wall_ms - self._last_ms):
            self._last_ms = max(reading.wall_ms, self._last_ms)
        return self._last_ms

    def _borne_out(self, ahead_ms: int) -> bool:
        """Rule 2."""
        if ahead_ms <= STEP_MS:
            self._stepped_boot_ms = -1
            return True
        if self._stepped_boot_ms < 0:
            self._stepped_boot_ms = self._last_boot_ms
        return self._last_boot_ms - self._stepped_boot_ms >= BORNE_OUT_MS

    def wall_ms(self) -> int:
        """What the wall clock says now, whether or not it is followed."""
        return self._source().wall_ms

    def raise_to(self, floor_ms: int) -> None:
        """Let no later reading be smaller than ``floor_ms``: a high water read from the store, or the time that enough peers signed."""
        self._last_ms = max(self.now_ms(), floor_ms)

    async def sleep_until(self, due_ms: int) -> bool:
        """Wait until :meth:`now_ms` reaches ``due_ms``: True; or until :meth:`wake`: False. For one waiting task.

        A wake-up that came while nobody waited ends the next wait at once: none is lost.
        """
        while (left_ms := due_ms - self.now_ms()) > 0:
            try:
                await asyncio.wait_for(self._awake.wait(), min(left_ms, _SLICE_MS) / 1000)
            except TimeoutError:
                continue
            self._awake.clear()
            return False
        return True

    def wake(self) -> None:
        """End the current wait early, or the next: there is something to do."""
        self._awake.set()
