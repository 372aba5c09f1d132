"""``mesh world``: seeded worlds, many at once; the first broken promise is written down event by event."""

import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec

from mesh.cli.output import Cli, format_option, pass_cli
from mesh.testing.world.world import Result, event_log, run_seed

__all__ = ["world"]

_FAILED: Final = 1
_SEEDS: Final = re.compile(r"(\d{1,12})(?:\.\.(\d{1,12}))?")


def _seeds(ctx: click.Context, param: click.Parameter, value: str) -> range:
    """The seeds of ``A..B``, both included, or of ``A`` alone."""
    match = _SEEDS.fullmatch(value)
    first, last = (int(match[1]), int(match[2] or match[1])) if match is not None else (1, 0)
    if last < first:
        raise click.BadParameter(f"{value!r} is not A..B with A <= B", ctx=ctx, param=param)
    return range(first, last + 1)


@click.group()
def world() -> None:
    """Seeded worlds: real machines on a simulated network, with simulated disks, clocks and liars."""


@world.command()
@click.option("--seeds", metavar="A..B", callback=_seeds, default="0..100", show_default=True, help="Which worlds, both ends included.")
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, show_default="one per core", help="Worlds at a time.")
@click.option("--nodes", type=click.IntRange(1, 13), help="Governors in each, instead of what the seed says.")
@click.option(
    "--logs", type=click.Path(file_okay=False, path_type=Path), default=Path(".mesh/world"), show_default=True, help="Where to write."
)
@format_option
@pass_cli
def run(cli: Cli, *, seeds: range, jobs: int, nodes: int | None, logs: Path) -> int:
    """Live through worlds; exit 1 if any promise is broken, with the first such world's events in a file."""
    began = time.monotonic()
    failed: list[Result] = []
    with _results(seeds, jobs, nodes) as results, _progress(cli, results, len(seeds)) as shown:
        failed += [result for result in shown if result.promise]
    written = ""
    if failed:
        logs.mkdir(parents=True, exist_ok=True)
        path = logs / f"seed-{failed[0].seed}.json"
        path.write_bytes(event_log(failed[0]))
        written = str(path)
    cli.value(
        {
            "worlds": len(seeds),
            "failed": [result.seed for result in failed],
            "seconds": round(time.monotonic() - began, 1),
            "first": f"{failed[0].promise}: {failed[0].message}" if failed else "",
            "events": written,
        }
    )
    return _FAILED if failed else 0


def _one(seed: int, nodes: int | None) -> Result:
    result = run_seed(seed, nodes=nodes)
    # Thousands of events are worth their way between processes only if somebody will read them.
    return result if result.promise else msgspec.structs.replace(result, events=[])


@contextmanager
def _results(seeds: range, jobs: int, nodes: int | None) -> Iterator[Iterable[Result]]:
    one: Callable[[int], Result] = partial(_one, nodes=nodes)
    if jobs == 1:
        yield map(one, seeds)
        return
    with ProcessPoolExecutor(min(jobs, len(seeds)), mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map(one, seeds)


@contextmanager
def _progress(cli: Cli, results: Iterable[Result], length: int) -> Iterator[Iterable[Result]]:
    stream = sys.stderr
    if cli.quiet or not stream.isatty():
        yield results
        return
    with click.progressbar(results, length=length, label="worlds", file=stream) as bar:
        yield bar
