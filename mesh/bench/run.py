"""Runs the benchmarks that were asked for, in one mesh of one, and gives its folder back."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from mesh.bench.authorize import latency, throughput
from mesh.bench.cores import choose, pinned_here
from mesh.bench.enforce import verification
from mesh.bench.report import Report, Row, report
from mesh.bench.setting import Setting, mesh_of_one

__all__ = ["NAMES", "measure"]


class _Bench(Protocol):
    def __call__(self, setting: Setting, *, rounds: int, quick: bool) -> list[Row]: ...


_BENCHES: Final[Mapping[str, _Bench]] = {"P1": throughput, "P2": latency, "P3": verification}
NAMES: Final = tuple(_BENCHES)


def measure(names: Sequence[str], *, rounds: int, quick: bool, profile: Path | None = None) -> Report:
    """Measure ``names``, in the order given. Call it on the main thread.

    Args:
        names: of :data:`NAMES`.
        rounds: pairs of measurements for each.
        quick: few requests: shows that everything runs, measures nothing worth keeping.
        profile: where the governor leaves a profile of itself; what it measures then is distorted.
    """
    cores = choose()
    with (
        tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder,
        pinned_here(cores),
        mesh_of_one(Path(folder) / "mesh", cores, profile=profile) as setting,
    ):
        rows = [row for name in names for row in _BENCHES[name](setting, rounds=rounds, quick=quick)]
    return report(rows, cores)
