"""A host's clocks in a world: both follow true time with an error, the wall clock may also be set wrong.

The rules are those of a node's real clock: the steady reading is the largest of the wall clock, a persisted high water, and
the last reading plus what the boot-time clock says has passed since; it never runs backwards within a boot.
"""

from collections.abc import Callable

from mesh.testing.world.setting import EPOCH_MS

__all__ = ["WorldClock"]


class WorldClock:
    """One host's clocks.

    Args:
        true_us: µs since the world began.
        skew_ms: by how much this clock may be wrong at most, either way, while it is an honest one.
        error_ms: how wrong it is at the beginning.
        drift_ppm: by how much it runs fast.
    """

    def __init__(self, true_us: Callable[[], int], *, skew_ms: int, error_ms: int, drift_ppm: int) -> None:
        self._true_us = true_us
        self._skew_ms = skew_ms
        self._error_ms = error_ms
        self._drift_ppm = drift_ppm
        self.step_ms = 0
        """How far somebody has set the wall clock wrong."""
        self._last_ms = 0
        self._last_boot_ms = 0

    def _drifted_ms(self) -> int:
        passed_ms = self._true_us() // 1000
        wrong_ms = self._error_ms + passed_ms * self._drift_ppm // 1_000_000
        return passed_ms + max(-self._skew_ms, min(self._skew_ms, wrong_ms))

    def wall_ms(self) -> int:
        """The wall clock, in ms since the Unix epoch; may jump."""
        return EPOCH_MS + self._drifted_ms() + self.step_ms

    def ahead_ms(self) -> int:
        """By how much the steady time is ahead of a clock that nobody has set wrong."""
        return self.now_ms() - EPOCH_MS - self._drifted_ms()

    def boot(self, high_water_ms: int) -> None:
        """A process starts on this host: all it knows of the past is what it has persisted."""
        self._last_ms = high_water_ms
        self._last_boot_ms = self._drifted_ms()

    def now_ms(self) -> int:
        """The steady time, in ms since the Unix epoch."""
        boot_ms = self._drifted_ms()
        passed_ms = max(0, boot_ms - self._last_boot_ms)
        self._last_ms = max(self.wall_ms(), self._last_ms + passed_ms)
        self._last_boot_ms = max(boot_ms, self._last_boot_ms)
        return self._last_ms
