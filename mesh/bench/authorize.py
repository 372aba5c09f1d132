"""P1 and P2: what one authorization costs under load and alone, beside the plain loop that does only what cannot be left out."""

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from mesh.bench.cores import cpu_s
from mesh.bench.floor import Times, write_requests
from mesh.bench.load import IN_FLIGHT, Asker, Workload, connect
from mesh.bench.report import Pair, Row, percentile, row
from mesh.bench.setting import Setting, started
from mesh.core import subjects
from mesh.errors import Unavailable

__all__ = ["latency", "throughput"]

_COUNT: Final = 6_000
_COUNT_QUICK: Final = 384
_WARM: Final = 512
_ALONE: Final = 400
_ALONE_QUICK: Final = 40
_FSYNC_BYTES: Final = 8_192
"""What one commit of one decision appends, about."""
_ECHO: Final = "echo"


class _Load(msgspec.Struct, frozen=True):
    """One measured run of ours."""

    rate: float
    cpu_us: float
    """Of the governor's process, per decision."""


def throughput(setting: Setting, *, rounds: int, quick: bool) -> list[Row]:
    """P1: authorizations per second with 64 in flight."""
    workload = Workload(setting.context)
    count = _COUNT_QUICK if quick else _COUNT
    loads, floors = list[_Load](), list[Times]()
    asyncio.run(_loaded(setting, workload, workload.requests(_WARM)))
    for number in range(rounds):
        requests = workload.requests(count)
        if number % 2:
            loads.append(asyncio.run(_loaded(setting, workload, requests)))
            floors.append(_floor(setting, requests))
        else:
            floors.append(_floor(setting, requests))
            loads.append(asyncio.run(_loaded(setting, workload, requests)))
    pairs = [Pair(load.rate, floor.count / floor.seconds) for load, floor in zip(loads, floors, strict=True)]
    cpu = [load.cpu_us / (1e6 * floor.cpu_s / floor.count) for load, floor in zip(loads, floors, strict=True)]
    detail = {
        "ours_cpu_us": median(load.cpu_us for load in loads),
        "floor_cpu_us": median(1e6 * floor.cpu_s / floor.count for floor in floors),
        "cpu_ratio": median(cpu),
        "in_flight": IN_FLIGHT,
        "decisions": count,
    }
    what = "authorize end to end, 64 in flight, durable before the answer"
    return [row("P1", what, pairs, unit="authorizations/s", least=0.65, detail=detail)]


def latency(setting: Setting, *, rounds: int, quick: bool) -> list[Row]:
    """P2: how long one authorization takes when nothing else happens, p50 and p99."""
    workload = Workload(setting.context)
    count = _ALONE_QUICK if quick else _ALONE
    answer = asyncio.run(_answers(setting, workload, workload.requests(1), 1))[0]
    times = _floor(setting, workload.requests(_COUNT_QUICK if quick else _COUNT))
    cpu_ms = 1e3 * times.cpu_s / times.count
    ours, floors = list[list[float]](), list[list[float]]()
    for _ in range(rounds):
        requests = workload.requests(count)
        trips = _echoed(setting, requests, answer)
        ours.append(asyncio.run(_alone(setting, workload.subject, requests)))
        syncs = _fsyncs(setting.files.folder, count)
        floors.append([trip + sync + cpu_ms for trip, sync in zip(trips, syncs, strict=True)])
    detail = {"floor_cpu_ms": cpu_ms, "requests": count}
    rows = list[Row]()
    for name, share, most in (("p50", 0.5, 2.0), ("p99", 0.99, 4.0)):
        pairs = [Pair(percentile(mine, share), percentile(theirs, share)) for mine, theirs in zip(ours, floors, strict=True)]
        rows.append(row(f"P2 {name}", f"one authorization alone, {name}", pairs, unit="ms", most=most, detail=detail))
    return rows


async def _loaded(setting: Setting, workload: Workload, requests: Sequence[bytes]) -> _Load:
    async with await connect(setting.context) as bus:
        asker = Asker(bus, workload.subject)
        await asker.until_served(workload)
        began, began_cpu = time.perf_counter(), cpu_s(setting.governor)
        await asker.all(requests)
        seconds, cpu = time.perf_counter() - began, cpu_s(setting.governor) - began_cpu
    return _Load(len(requests) / seconds, 1e6 * cpu / len(requests))


async def _answers(setting: Setting, workload: Workload, requests: Sequence[bytes], in_flight: int) -> list[bytes]:
    async with await connect(setting.context) as bus:
        asker = Asker(bus, workload.subject)
        await asker.until_served(workload)
        return await asker.all(requests, in_flight)


async def _alone(setting: Setting, subject: str, requests: Sequence[bytes]) -> list[float]:
    """Milliseconds of each request, one after the other."""
    async with await connect(setting.context) as bus:
        asker = Asker(bus, subject)
        taken = list[float]()
        for request in requests:
            began = time.perf_counter()
            await asker.one(request)
            taken.append(1e3 * (time.perf_counter() - began))
        return taken


def _floor(setting: Setting, requests: Sequence[bytes]) -> Times:
    folder = setting.files.folder / f"floor-{secrets.token_hex(4)}"
    folder.mkdir()
    write_requests(folder / "requests", requests)
    command = [
        sys.executable,
        "-m",
        "mesh.bench.floor",
        str(setting.cores.measured),
        str(setting.node),
        str(folder / "requests"),
        str(folder),
    ]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        raise Unavailable("unavailable", f"the floor failed: {done.stderr.decode(errors='replace')[-300:].strip()}")
    return msgspec.json.decode(done.stdout, type=Times)


def _echoed(setting: Setting, requests: Sequence[bytes], answer: bytes) -> list[float]:
    """Milliseconds of round trips with the same bytes, through the same accounts of the same server."""
    folder = setting.files.folder
    (folder / "answer").write_bytes(answer)
    subject = subjects.intent("bench", setting.context.tenant, _ECHO)
    nkey = str(setting.files.provisioner)
    with started(["echo", str(setting.cores.measured), setting.server, nkey, subject, str(folder / "answer")], folder / "echo.log"):
        return asyncio.run(_alone(setting, subject, requests))


def _fsyncs(folder: Path, count: int) -> list[float]:
    """Milliseconds of writing two pages of a file that does not grow, and waiting for the disk: what a commit cannot do without."""
    taken = list[float]()
    descriptor = os.open(folder / "synced", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(_FSYNC_BYTES * count), 0)
        os.fsync(descriptor)
        for number in range(count):
            began = time.perf_counter()
            os.pwrite(descriptor, secrets.token_bytes(_FSYNC_BYTES), _FSYNC_BYTES * number)
            os.fdatasync(descriptor)
            taken.append(1e3 * (time.perf_counter() - began))
    finally:
        os.close(descriptor)
    return taken
