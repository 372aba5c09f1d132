"""Which core does what: what is measured has one to itself, server and client share another.

Where the system cannot pin, or has one core only, nothing is pinned and the report says so.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

__all__ = ["Cores", "choose", "cpu_s", "pin", "pinned_here"]


class Cores(msgspec.Struct, frozen=True):
    """Core numbers; -1 for wherever the system likes."""

    measured: int
    others: int

    @property
    def pinned(self) -> bool:
        """Whether they are two."""
        return self.measured >= 0


def choose() -> Cores:
    """The last core that this process may use for what is measured, the first for the rest."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return Cores(allowed[-1], allowed[0]) if len(allowed) > 1 else Cores(-1, -1)


def pin(core: int) -> None:
    """Keep this process, and the children it starts from now on, on ``core``."""
    if core >= 0:
        os.sched_setaffinity(0, {core})


@contextmanager
def pinned_here(cores: Cores) -> Generator[None]:
    """Server and client where they belong; afterwards this process is where it was."""
    if not cores.pinned:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(cores.others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pid: int) -> float:
    """Processor time that a process has used so far, in s; 0 where the system does not show it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
