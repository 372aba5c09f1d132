"""What stands under a world: one heap of events, one thread, true time, and a trace in which nothing is left to chance.

Rules
-----
1. Events happen in the order of their time, those of the same time in the order in which they were planned.
2. Every random choice comes from a generator that is named after seed and purpose. No set or dictionary whose order depends on
   the process is ever walked.
3. The trace is a line per event; its digest is the same in every process.
"""

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from typing import Final

__all__ = ["Ground", "Violation"]

_MS: Final = 1_000


class Violation(Exception):
    """A promise was broken; the world stops."""

    def __init__(self, promise: str, message: str) -> None:
        super().__init__(promise, message)
        self.promise = promise
        self.message = message


class Ground:
    """Heap, time and trace of one world."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_us = 0
        self.lines: list[tuple[int, str, str, str]] = []
        """(µs, who, what, about what)."""
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._planned = 0

    @property
    def now_ms(self) -> int:
        """True time in ms since the world began."""
        return self.now_us // _MS

    def random(self, purpose: str) -> Random:
        """The generator of one purpose."""
        return Random(f"{self.seed} {purpose}")

    def after(self, delay_us: int, act: Callable[[], object]) -> None:
        """Do this later."""
        self._planned += 1
        heapq.heappush(self._heap, (self.now_us + max(0, delay_us), self._planned, act))

    def say(self, who: str, what: str, about: str = "") -> None:
        """Add a line to the trace."""
        self.lines.append((self.now_us, who, what, about))

    def run(self, end_us: int, *, until: Callable[[], bool]) -> bool:
        """Let time pass up to ``end_us``; whether ``until`` came true, which is asked every quarter of a virtual second."""
        asked_us = self.now_us
        while self._heap and self._heap[0][0] <= end_us:
            self.now_us, _, act = heapq.heappop(self._heap)
            act()
            if self.now_us - asked_us >= 250 * _MS:
                asked_us = self.now_us
                if until():
                    return True
        self.now_us = end_us
        return until()

    def digest(self) -> str:
        """SHA-256 over the trace, in hex."""
        found = hashlib.sha256()
        for line in self.lines:
            found.update("{} {} {} {}\n".format(*line).encode())
        return found.hexdigest()
