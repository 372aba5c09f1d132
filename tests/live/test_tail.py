"""The way of every record is seen on a real bus: in order, also after a kill, and what strangers publish is seen by nobody."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters.bus import Bus
from mesh.adapters.bus_table import bus_options
from mesh.core import subjects
from mesh.core.log.checkpoint import Checkpoint, cosignature_line, log_line, witness_name
from mesh.core.log.note import Note
from mesh.core.messages import LineageBatch, pack
from mesh.dev.cluster import Cluster
from mesh.roles.config import load_config
from tests.core.kit import secret
from tests.live.kit import Client

pytestmark = pytest.mark.asyncio
STATES = ("recorded", "witnessed", "final")


class Tailing:
    """`mesh lineage tail` as a process, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def reached(self, origin: str, state: str) -> int:
        return max((line["end"] for line in self.lines if (line["origin"], line["state"]) == (origin, state)), default=0)

    async def until(self, origin: str, size: int, state: str = "final") -> None:
        async with asyncio.timeout(20):
            while self.reached(origin, state) < size:  # noqa: ASYNC110 -- what another process prints
                await asyncio.sleep(0.05)

    async def end(self, number: int = signal.SIGTERM) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), 10)
        await self._reading
        return status


@asynccontextmanager
async def _tail(cluster: Cluster, *arguments: str) -> AsyncIterator[Tailing]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "mesh.cli", "--context", str(cluster.files.context), "-o", "jsonl", "lineage", "tail", *arguments),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    tailing = Tailing(process)
    try:
        yield tailing
    finally:
        await tailing.end(signal.SIGKILL)


async def _asked(client: Client, count: int) -> tuple[str, int]:
    """So many intents at one node: its log, and how many records of it are final then."""
    for _ in range(count):
        await client.ask(region="eu")
    size = (await client.status("eu-1")).size
    status = await client.until("eu-1", "final", lambda status: status.certified >= size)
    return status.origin, size


def _in_order(lines: list[dict[str, Any]], origin: str, size: int) -> None:
    """Every record came to every state, and to none before the one before."""
    reached = dict.fromkeys(STATES, 0)
    for line in lines:
        if line["origin"] == origin:
            assert line["first"] <= reached[line["state"]], "no record is left out"
            reached[line["state"]] = max(reached[line["state"]], line["end"])
            assert reached["recorded"] >= reached["witnessed"] >= reached["final"]
    assert min(reached.values()) >= size


async def test_every_record_is_seen_on_its_way_and_after_a_kill_nothing_is_left_out_and_nothing_goes_back(
    own_mesh: Cluster, tmp_path: Path
) -> None:
    client, keep = await Client.connect(own_mesh.files.context), str(tmp_path / "tail.json")
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    async with _tail(own_mesh, "--keep", keep) as first:
        origin, size = await _asked(client, 20)
        await first.until(origin, size)
        await _asked(client, 5)
        await first.end(signal.SIGKILL)
    _in_order(first.lines, origin, size)
    origin, size = await _asked(client, 15)
    async with _tail(own_mesh, "--keep", keep) as second:
        await second.until(origin, size)
        assert await second.end() == 0
    _in_order([*first.lines, *second.lines], origin, size)
    again = [line for line in second.lines if line in first.lines]
    assert len(again) <= 12, "what was saved is not told again"
    async with _tail(own_mesh, "--keep", keep) as third:
        origin, size = await _asked(client, 1)
        await third.until(origin, size)
        told = [line for line in third.lines if line in second.lines]
        assert told == [], "an end that was asked for has saved all that it told"
    total = [line for line in (*first.lines, *second.lines, *third.lines) if line["origin"] == origin]
    assert len(total) < 3 * size, "one line for each step of the log, not for each record"
    await client.bus.close()


async def test_what_a_reader_that_had_enough_did_not_print_is_printed_by_the_next(own_mesh: Cluster, tmp_path: Path) -> None:
    client, keep = await Client.connect(own_mesh.files.context), str(tmp_path / "tail.json")
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    await _asked(client, 20)
    lines = list[dict[str, Any]]()
    for _ in range(2):
        async with _tail(own_mesh, "--keep", keep, "-n", "3") as tailing:  # what the first had on its way comes again after 30 s
            assert await asyncio.wait_for(tailing.process.wait(), 45) == 0
            await tailing.end()
        assert len(tailing.lines) == 3
        lines += tailing.lines
    origin, size = await _asked(client, 1)
    async with _tail(own_mesh, "--keep", keep) as rest:
        await rest.until(origin, size)
        assert await rest.end() == 0
    for log in {line["origin"] for line in rest.lines}:
        _in_order([*lines, *rest.lines], log, 1)
    _in_order([*lines, *rest.lines], origin, size)
    await client.bus.close()


async def test_what_a_member_or_a_workload_forges_is_seen_by_nobody(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    origin, size = await _asked(client, 3)
    mesh, far, key = client.context.mesh, size + 1_000, secret(9)
    text = Checkpoint(origin, far, bytes(32)).to_text()
    lines = [cosignature_line(witness_name(mesh, name), key.public, int(time.time()), bytes(64)) for name in ("us-1", "ap-1", "sa-1")]
    forged = Note(text, (log_line(origin, key.public, key.sign(text)), *lines)).encode()
    batch = pack(
        LineageBatch(
            origin=origin,
            first=size,
            records=[msgspec.Raw(b"{}")],
            bodies=[],
            pruned=[],
            openings=[],
            path=[],
            start=[],
            checkpoint=forged.decode(),
        )
    )
    config = load_config(own_mesh.files.node("us-1"))
    async with _tail(own_mesh) as tailing, await Bus.connect(bus_options(config.bus, name="gov-us-1", base=config.path("."))) as member:
        await asyncio.sleep(2)
        for bus in (member, client.bus):  # a member may say what it likes on cosig subjects; a workload on none of these
            for subject, data in (
                (subjects.cosig("eu", "eu-1"), forged),
                (subjects.checkpoint("eu", "eu-1"), forged),
                (subjects.lineage("eu", "eu-1"), batch),
                (subjects.checkpoint("us", "us-1"), forged),
                (subjects.lineage("us", "us-1"), batch),
                (subjects.cosig("eu", "eu-1"), b"\xff" * 900),
            ):
                await bus.publish(subject, data)
        origin, size = await _asked(client, 3)
        await tailing.until(origin, size)
        assert max(line["end"] for line in tailing.lines) < far
        assert await tailing.end() == 0
    await client.bus.close()


async def test_listening_begins_now_shows_what_was_asked_for_and_ends_by_itself(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    origin, before = await _asked(client, 5)
    async with _tail(own_mesh, "--state", "final", "--node", "eu-1", "-n", "2") as tailing:
        await asyncio.sleep(2)
        for _ in range(3):
            await _asked(client, 2)
        assert await asyncio.wait_for(tailing.process.wait(), 15) == 0
        await tailing.end()
    assert [(line["state"], line["origin"]) for line in tailing.lines] == [("final", origin)] * 2
    assert min(line["first"] for line in tailing.lines) >= before
    now_ms = time.time_ns() // 1_000_000
    assert all(now_ms - 60_000 < line["at_ms"] <= now_ms + 2_000 for line in tailing.lines)
    await client.bus.close()
