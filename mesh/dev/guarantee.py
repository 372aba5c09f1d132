"""What a guarantee of the story is: a name, a promise in one line, and a check that measures."""

from collections.abc import Awaitable, Callable

import msgspec

from mesh.dev.stage import Stage

__all__ = ["Guarantee", "Measured"]


class Measured(msgspec.Struct, frozen=True):
    """How a check came out."""

    ok: bool
    measured: str
    """What was read back from disk or bus, for people."""


class Guarantee(msgspec.Struct, frozen=True):
    """One line of the story."""

    name: str
    promise: str
    check: Callable[[Stage], Awaitable[Measured]]
    settle_s: float = 0.0
    """For a check that waits on purpose: about how long, so that whoever watches knows."""
