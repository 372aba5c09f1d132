"""A figure of ours stands beside its floor, both measured in turns on one machine, or it does not stand at all.

Rules
-----
1. A row is the median over rounds of what was measured in pairs; its ratio is the median of the *pairwise* ratios, so that a
   neighbour who steals the processor for a while disturbs some pairs, not the result.
2. A report names host, versions and commit: figures of two machines are not compared.
"""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from mesh.adapters.natsserver import find
from mesh.bench.cores import Cores

__all__ = ["Pair", "Report", "Row", "percentile", "report", "row"]

_LIBRARIES: Final = ("govmesh", "cedarpy", "msgspec", "nats-py", "pynacl", "uvloop")
_WAIT_S: Final = 5.0


class Pair(msgspec.Struct, frozen=True):
    """One round: ours and the floor, measured right after each other, in the same unit."""

    ours: float
    floor: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure."""

    id: str
    what: str
    ours: float
    floor: float
    ratio: float
    """ours / floor."""
    unit: str
    reach: str
    """What the ratio should be."""
    reached: bool
    rounds: int
    ratios: list[float]
    """Of each round, in the order they were measured."""
    detail: dict[str, float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one run."""

    host: str
    cores: int
    pinned: bool
    """Whether ours and floor had a core of their own, apart from server and client."""
    versions: dict[str, str]
    commit: str
    rows: list[Row]


def row(name: str, what: str, pairs: Sequence[Pair], *, unit: str, least: float = 0, most: float = 0, detail: Mapping[str, float]) -> Row:
    """The row of these rounds; exactly one of ``least`` and ``most`` says what its ratio should be."""
    ratios = [pair.ours / pair.floor for pair in pairs]
    ratio = median(ratios)
    return Row(
        id=name,
        what=what,
        ours=_short(median(pair.ours for pair in pairs)),
        floor=_short(median(pair.floor for pair in pairs)),
        ratio=_short(ratio),
        unit=unit,
        reach=f">= {least}" if least else f"<= {most}",
        reached=ratio >= least if least else ratio <= most,
        rounds=len(pairs),
        ratios=[_short(item) for item in ratios],
        detail={key: _short(value) for key, value in detail.items()},
    )


def report(rows: Sequence[Row], cores: Cores) -> Report:
    """The rows with where they were measured."""
    return Report(
        host=f"{platform.machine()} {platform.system()} {platform.release()} {_processor()}".strip(),
        cores=os.cpu_count() or 1,
        pinned=cores.pinned,
        versions={"python": platform.python_version(), "nats-server": _said_by(str(find()), "--version"), **_installed()},
        commit=_commit(),
        rows=list(rows),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of ``values`` lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _installed() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str:
    """Of the checkout this runs from; empty for an installed package."""
    return _said_by("git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--abbrev=12")


def _said_by(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _short(value: float) -> float:
    return float(f"{value:.4g}")
