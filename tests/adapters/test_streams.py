"""Streams and consumers: made once, checked ever after, changed never."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from mesh.adapters.bus import Bus, BusOptions
from mesh.adapters.natsserver import NatsServer
from mesh.adapters.streams import ensure_consumer, law_stream, lineage_stream, provision
from mesh.core import subjects
from mesh.errors import Refused, Unavailable
from mesh.limits import MESSAGE_BYTES_MAX

SMALL = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path_factory.mktemp("nats"), config="jetstream { domain: here }\nmax_payload: 2MB") as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(BusOptions(servers=(server.url,), name="admin")) as connected:
        yield connected


async def api(bus: Bus, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await bus.request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"", timeout_ms=5_000)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def test_a_region_gets_its_two_streams_and_they_bind_what_must_be_kept_and_nothing_else(bus: Bus) -> None:
    await provision(bus, ["eu", "us-east"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    for subject, stream in (
        (subjects.lineage("eu", "g1"), "LINEAGE_eu"),
        (subjects.checkpoint("eu", "g1"), "LINEAGE_eu"),
        (subjects.cosig("us-east", "g1"), "LINEAGE_us-east"),
        (subjects.law_stored("eu", "abc"), "LAW_eu"),
        (subjects.fraud("us-east", "g1"), "LAW_us-east"),
    ):
        assert (await bus.store(subject, b"x", message_id=subject, timeout_ms=2_000)).stream == stream
    for subject in (
        subjects.hb("g1"),
        subjects.law("abc"),
        subjects.sync("g1"),
        subjects.intent("eu", "t", "w"),
        subjects.outcome("eu", "e"),
    ):
        with pytest.raises(Unavailable):
            await bus.store(subject, b"x", message_id=subject, timeout_ms=2_000)


async def test_provisioning_again_changes_nothing_and_loses_nothing(bus: Bus) -> None:
    await provision(bus, ["ap"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    await bus.store(subjects.lineage("ap", "g1"), b"x", message_id="1", timeout_ms=2_000)
    before = await api(bus, f"STREAM.INFO.{lineage_stream('ap')}")
    await provision(bus, ["ap"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    after = await api(bus, f"STREAM.INFO.{lineage_stream('ap')}")
    assert before["config"] == after["config"]
    assert before["state"] == after["state"]
    assert before["created"] == after["created"]


async def test_a_stream_that_stands_there_otherwise_is_named_field_by_field_and_left_alone(bus: Bus) -> None:
    await api(bus, "STREAM.CREATE.LINEAGE_sa", {"name": "LINEAGE_sa", "subjects": ["mesh.v1.sa.lineage.*"], "storage": "memory"})
    before = (await api(bus, "STREAM.INFO.LINEAGE_sa"))["config"]
    with pytest.raises(Refused) as no:
        await provision(bus, ["sa"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    assert no.value.code == "config_invalid"
    for field in ("subjects", "storage", "discard", "deny_delete", "deny_purge", "max_bytes", "duplicate_window"):
        assert field in no.value.detail
    assert (await api(bus, "STREAM.INFO.LINEAGE_sa"))["config"] == before


async def test_messages_can_be_neither_deleted_nor_purged_and_a_full_stream_refuses(bus: Bus) -> None:
    await provision(bus, ["full"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    name = lineage_stream("full")
    stored, refusal = 0, ""
    while not refusal:
        try:
            await bus.store(subjects.lineage("full", "g1"), os.urandom(MESSAGE_BYTES_MAX), message_id=str(stored), timeout_ms=2_000)
            stored += 1
        except Unavailable as no:
            refusal = no.code
    assert refusal == "unavailable"
    assert stored >= 3
    assert "error" in await api(bus, f"STREAM.MSG.DELETE.{name}", {"seq": 1})
    assert "error" in await api(bus, f"STREAM.PURGE.{name}")
    assert (await api(bus, f"STREAM.INFO.{name}"))["state"]["messages"] == stored


async def test_the_same_message_is_stored_once(bus: Bus) -> None:
    await provision(bus, ["dup"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    first = await bus.store(subjects.law_stored("dup", "s"), b"x", message_id="same", timeout_ms=2_000)
    again = await bus.store(subjects.law_stored("dup", "s"), b"x", message_id="same", timeout_ms=2_000)
    assert (first.stream, first.duplicate, again.duplicate, again.sequence) == (law_stream("dup"), False, True, first.sequence)


@pytest.mark.parametrize("region", ["hb", "a.b", "*", ">", "", "EU"])
async def test_a_region_that_is_no_token_is_refused(bus: Bus, region: str) -> None:
    with pytest.raises(Refused) as no:
        await provision(bus, [region])
    assert no.value.code == "malformed"


async def test_what_the_server_will_not_have_is_refused_with_its_words(bus: Bus) -> None:
    with pytest.raises(Refused) as no:
        await provision(bus, ["bad"], replicas=3, lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    assert no.value.code == "config_invalid"
    assert "STREAM.CREATE.LINEAGE_bad" in no.value.detail


async def test_a_consumer_is_made_once_and_reads_from_the_beginning(bus: Bus) -> None:
    await provision(bus, ["con"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    for node in ("g1", "g2"):
        await bus.store(subjects.lineage("con", node), node.encode(), message_id=node, timeout_ms=2_000)
    await ensure_consumer(bus, lineage_stream("con"), "auditor")
    await ensure_consumer(bus, lineage_stream("con"), "auditor")
    got = await bus.pull(lineage_stream("con"), "auditor", batch=10, timeout_ms=1_000)
    assert [d.data for d in got] == [b"g1", b"g2"]
    only = subjects.lineage("con", "g2")
    await ensure_consumer(bus, lineage_stream("con"), "auditor2", filter_subject=only)
    await ensure_consumer(bus, lineage_stream("con"), "auditor2", filter_subject=only)
    assert [d.data for d in await bus.pull(lineage_stream("con"), "auditor2", batch=10, timeout_ms=1_000)] == [b"g2"]


async def test_a_consumer_that_stands_there_otherwise_is_reported(bus: Bus) -> None:
    await provision(bus, ["oth"], lineage_bytes_max=SMALL, law_bytes_max=SMALL)
    await ensure_consumer(bus, lineage_stream("oth"), "auditor", filter_subject=subjects.lineage("oth", "g1"))
    with pytest.raises(Refused) as no:
        await ensure_consumer(bus, lineage_stream("oth"), "auditor")
    assert no.value.code == "config_invalid"
    assert "filter_subject" in no.value.detail


async def test_a_consumer_of_no_stream_or_with_no_name_is_refused(bus: Bus) -> None:
    for stream, durable in (("NOPE", "auditor"), (lineage_stream("eu"), "a b"), (lineage_stream("eu"), "a*")):
        with pytest.raises(Refused):
            await ensure_consumer(bus, stream, durable)


async def test_streams_of_a_domain_are_reached_by_its_name(bus: Bus) -> None:
    await provision(bus, ["dom"], lineage_bytes_max=SMALL, law_bytes_max=SMALL, domain="here")
    await ensure_consumer(bus, law_stream("dom"), "auditor", domain="here")
    await bus.store(subjects.fraud("dom", "g1"), b"proof", message_id="p", timeout_ms=2_000)
    got = await bus.pull(law_stream("dom"), "auditor", batch=1, timeout_ms=1_000, domain="here")
    assert [d.data for d in got] == [b"proof"]
    await got[0].ack()
    with pytest.raises(Unavailable) as no:
        await provision(bus, ["dom"], domain="elsewhere")
    assert no.value.code == "unreachable"


async def test_something_else_that_answers_is_not_believed(bus: Bus) -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    await bus.subscribe("$JS.fake.API.>", queue.put_nowait)
    for answer, code in ((b"[]", "unavailable"), (b'{"error":{"code":503,"description":"no quorum"}}', "unavailable")):
        async with anyio.create_task_group() as group:

            async def reply(data: bytes = answer) -> None:
                await (await queue.get()).respond(data)

            group.start_soon(reply)
            with pytest.raises(Unavailable) as no:
                await provision(bus, ["eu"], domain="fake")
            assert no.value.code == code
