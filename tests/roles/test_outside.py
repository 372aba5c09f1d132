"""What a log shows outside is what others can check without us, and what others say of it counts to nothing."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tlog_scales.backend import HttpBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet
from tlog_scales.tlog import Checkpoint as TheirCheckpoint

from mesh.adapters.httpclient import ask
from mesh.adapters.store import Store
from mesh.core.law.roster import Roster
from mesh.core.log.certificate import certificate_note, verify_certificate
from mesh.core.log.checkpoint import (
    Checkpoint,
    attest_name,
    cosignature_line,
    cosignature_message,
    cosigner,
    log_line,
    log_verifier,
    read_checkpoint,
)
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.note import Note, Verifier, parse_note
from mesh.core.log.tlogpolicy import Outsider
from mesh.errors import Alarm, Unavailable
from mesh.limits import WITNESS_ASK_MS_MAX, WITNESSES_MAX
from mesh.protocol.step import Append, Head, PutNote, SetHead
from mesh.roles import cosigners as cosigners_module
from mesh.roles import tiles
from mesh.roles.config import OutsideTable, WitnessTable
from mesh.roles.cosigners import Cosigners
from mesh.roles.outside import outside, outsiders
from tests.core.kit import refuses, secret
from tests.roles.witnesskit import configure, running, until
from tests.support.foreign import foreign_witness, serve
from tests.support.rosters import roster as roster_of

ORIGIN = "dev/a/e1"
LOG_KEY = secret(100)
LOG = log_verifier(ORIGIN, LOG_KEY.public)
MEMBERS = {attest_name("dev", name): secret(number) for number, name in enumerate("abcd", 1)}
ATTESTERS = {name: key.public for name, key in MEMBERS.items()}


def leaf(index: int) -> bytes:
    return f"record {index} ".encode() * (1 + index % 5)


class Log:
    """A governor's file, as far as the outside sees it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.size = 0

    async def grow(self, count: int) -> None:
        """More records, and the certificate over all of them."""
        leaves = [leaf(index) for index in range(self.size, self.size + count)]
        append = Append(ORIGIN, self.size, tuple(leaves), tuple(map(leaf_hash, leaves)))
        await self.store.commit([append])
        self.size += count
        root = (await self.store.frontier(ORIGIN)).root()
        head, text = Head(self.size, root, int(time.time())), Checkpoint(ORIGIN, self.size, root).to_text()
        signed = Note(text, (log_line(ORIGIN, LOG_KEY.public, LOG_KEY.sign(text)),)).encode()
        lines = [
            cosignature_line(name, key.public, head.time_s, key.sign(cosignature_message(text, head.time_s)))
            for name, key in list(MEMBERS.items())[:3]
        ]
        certificate = PutNote("certificate", ORIGIN, self.size, certificate_note(signed, lines))
        await self.store.commit([SetHead("log", ORIGIN, head), certificate])


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    store = await Store.open(tmp_path / "node.db", owner="a")
    yield Log(store)
    await store.close()


@asynccontextmanager
async def shown(log: Log, capsys: pytest.CaptureFixture[str], **witnesses: WitnessTable) -> AsyncIterator[str]:
    """The door of that log, once something is published; its address."""
    table = OutsideTable(listen="127.0.0.1:0", witnesses=witnesses)
    alarms = list[Exception]()
    entered = outside(table, MESH, origin=lambda: ORIGIN, store=lambda: log.store, alarm=alarms.append, counters=Counter())
    async with entered:
        port = int(capsys.readouterr().err.split()[1])
        url = f"http://127.0.0.1:{port}"
        if log.size:
            await showing(url, log.size)
        yield url
    assert alarms == []


MESH = roster_of(("a", "b", "c", "d"), 1, 3)


@pytest.fixture
def roster() -> Roster:
    return MESH


def verifiers() -> VkeySet:
    vkeys = [LOG.vkey, *(cosigner(name, key).vkey for name, key in ATTESTERS.items())]
    return VkeySet(*map(Vkey.from_string, vkeys))


# -------------------------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("size", [1, 255, 256, 257, 600])
async def test_an_independent_reader_verifies_the_whole_log_over_http(log: Log, capsys: pytest.CaptureFixture[str], size: int) -> None:
    await log.grow(size)
    async with shown(log, capsys) as url:
        await asyncio.to_thread(_read_all, url, size)


def _read_all(url: str, size: int) -> None:
    reader = TilesReader(HttpBackend(f"{url}/{ORIGIN}"))
    checkpoint = reader.get_checkpoint()
    assert (checkpoint.origin, checkpoint.size) == (ORIGIN, size)
    assert len(verifiers().verify(checkpoint.signatures, checkpoint)) == 4
    assert reader.calculate_root_hash() == checkpoint.root_hash
    for index in {0, size // 2, size - 1}:
        assert reader.get_entry(index) == leaf(index)
        reader.get_inclusion_proof(index, size).check(hashlib.sha256(b"\x00" + leaf(index)).digest(), checkpoint.root_hash)
    for old in {1, size // 2 or 1}:
        before = TilesReader(reader.backend)
        before.set_size(size)
        root = before.mth(0, old)
        reader.get_consistency_proof(old, size).check(root, checkpoint.root_hash)


async def test_a_log_of_seventy_thousand_has_the_tiles_of_the_specification(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    await log.grow(70_000)
    async with shown(log, capsys) as url:
        for path, hashes in (
            *(("tile/0/000", 256), ("tile/0/272", 256), ("tile/0/273.p/112", 112), ("tile/1/000", 256), ("tile/1/001.p/17", 17)),
            *(
                ("tile/2/000.p/1", 1),
                ("tile/0/273", 0),
                ("tile/0/273.p/113", 0),
                ("tile/1/001", 0),
                ("tile/2/000", 0),
                ("tile/3/000.p/1", 0),
            ),
            *(
                ("tile/0/x000/000", 0),
                ("tile/0/0", 0),
                ("tile/00/000", 0),
                ("tile/64/000", 0),
                ("tile/0/000.p/256", 0),
                ("tile/0/000.p/0", 0),
            ),
            *(("tile/0/000.p/5", 5), ("tile/0/x999/999", 0), ("tile/63/x999/x999/x999/x999/x999/999", 0), ("tile/entries/000.p/0", 0)),
        ):
            reply = await ask(f"{url}/{ORIGIN}/{path}", wait_ms=5_000, bytes_max=99_999)
            assert (reply.status, len(reply.body)) == ((200, 32 * hashes) if hashes else (404, 0)), path
        await asyncio.to_thread(_read_all, url, 70_000)


async def test_what_never_changes_may_be_kept_and_what_does_may_not(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    await log.grow(300)
    async with shown(log, capsys) as url:
        paths = ("checkpoint", "tile/0/000", "tile/entries/001.p/44", "tile/0/001", "nothing")
        seen = [await _headers(url, f"{ORIGIN}/{path}") for path in paths]
    kinds, caching = [one["content-type"] for one in seen], [one["cache-control"] for one in seen]
    assert kinds[:3] == ["text/plain; charset=utf-8", "application/octet-stream", "application/octet-stream"]
    assert caching == ["no-cache", *["public, max-age=31536000, immutable"] * 2, *["no-store"] * 2]


async def _headers(url: str, path: str) -> dict[str, str]:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = (await reader.read()).partition(b"\r\n\r\n")[0].decode("latin-1")
    writer.close()
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])}


async def test_nothing_is_published_before_it_is_certified(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    async with shown(log, capsys) as url:
        assert (await ask(f"{url}/checkpoint", wait_ms=3_000, bytes_max=9)).status == 404
    await log.grow(10)
    await log.store.commit([Append(ORIGIN, 10, (leaf(10),), (leaf_hash(leaf(10)),))])
    async with shown(log, capsys) as url:
        assert (await ask(f"{url}/{ORIGIN}/tile/entries/000.p/10", wait_ms=3_000, bytes_max=9_999)).status == 200
        for path in ("tile/entries/000.p/11", "tile/0/000.p/11"):
            assert (await ask(f"{url}/{ORIGIN}/{path}", wait_ms=3_000, bytes_max=9_999)).status == 404


async def test_what_may_be_kept_for_ever_is_never_another_logs(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """A node whose keys change goes on in another log, with other bytes behind the same numbers."""
    await log.grow(300)
    async with shown(log, capsys) as url:
        assert (await ask(f"{url}/checkpoint", wait_ms=3_000, bytes_max=9_999)).body == await newest(f"{url}/{ORIGIN}")
        for path in ("tile/0/000", "/tile/0/000", "another/log/tile/0/000", f"{ORIGIN}x/tile/0/000", f"{ORIGIN}/{ORIGIN}/tile/0/000"):
            assert (await ask(f"{url}/{path}", wait_ms=3_000, bytes_max=9_999)).status == 404, path


async def test_whoever_reads_without_end_gets_so_much_in_a_second_and_hashes_are_not_behind_entries(
    log: Log, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.grow(256)
    async with shown(log, capsys) as url:
        entries = f"{url}/{ORIGIN}/tile/entries/000"
        size = len((await ask(entries, wait_ms=5_000, bytes_max=99_999_999)).body)
        monkeypatch.setattr(tiles, "BYTES_PER_S", 4 * size)  # four in a second
        began = time.monotonic()
        greedy = [asyncio.create_task(ask(entries, wait_ms=9_000, bytes_max=99_999_999)) for _ in range(6)]
        await asyncio.sleep(0)
        assert (await ask(f"{url}/{ORIGIN}/tile/0/000", wait_ms=5_000, bytes_max=99_999)).status == 200
        assert time.monotonic() - began < 1.0
        assert {reply.status for reply in await asyncio.gather(*greedy)} == {200}
        assert time.monotonic() - began >= 6 / 4


async def test_a_log_is_only_read(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    await log.grow(1)
    async with shown(log, capsys) as url:
        for method in ("POST", "PUT", "DELETE"):
            assert (await ask(f"{url}/checkpoint", method=method, wait_ms=3_000, bytes_max=9)).status == 405


# ---------------------------------------------------------------------------------------------------------------- witnesses


async def newest(url: str) -> bytes:
    return (await ask(f"{url}/checkpoint", wait_ms=5_000, bytes_max=99_999)).body


async def showing(url: str, size: int) -> bytes:
    """What is published once it is of that size."""
    for _ in range(500):
        if (note := await newest(url)) and read_checkpoint(note).size == size:
            return note
        await asyncio.sleep(0.02)
    pytest.fail("it was never published")


async def test_an_external_witness_of_another_maker_cosigns_what_is_published(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with foreign_witness(tmp_path, {ORIGIN: LOG.vkey}) as (address, vkey):
        await log.grow(5)
        async with shown(log, capsys, rust=WitnessTable(url=address, vkey=vkey)) as url:
            for size in (5, 300):
                if size > log.size:
                    await log.grow(size - log.size)
                note = await showing(url, size)
                theirs = TheirCheckpoint.from_text(note.decode())
                assert len(VkeySet(Vkey.from_string(vkey)).verify(theirs.signatures, theirs)) == 1
                assert len(verifiers().verify(theirs.signatures, theirs)) == 4
        kept = await log.store.note("outside", ORIGIN, member="rust", latest=True)
        assert kept is not None
        assert (kept.size, len(parse_note(kept.note).lines)) == (300, 1)


async def test_after_a_restart_a_witness_is_asked_from_where_it_was(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = list[bytes]()
    with foreign_witness(tmp_path, {ORIGIN: LOG.vkey}) as (address, vkey), _between(address, asked) as between:
        for size in (5, 9):
            await log.grow(size - log.size)
            async with shown(log, capsys, rust=WitnessTable(url=between + "/", vkey=vkey)) as url:
                await showing(url, size)
    assert [body.partition(b"\n")[0] for body in asked] == [b"old 0", b"old 5"]


def _between(address: str, asked: list[bytes]) -> Any:
    def answer(path: str, body: bytes) -> tuple[int, str, bytes]:
        asked.append(body)
        reply = asyncio.run(ask(address + path, method="POST", body=body, wait_ms=5_000, bytes_max=99_999))
        return reply.status, reply.kind, reply.body

    return serve(answer)


async def test_a_witness_that_knows_more_than_we_remember_is_asked_again_from_there(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after the file of a governor was refilled: its witnesses' lines are gone, theirs of it are not."""
    asked = list[bytes]()
    with foreign_witness(tmp_path, {ORIGIN: LOG.vkey}) as (address, vkey), _between(address, asked) as between:
        await log.grow(7)
        async with shown(log, capsys, first=WitnessTable(url=between, vkey=vkey)) as url:
            await showing(url, 7)
        await log.grow(4)
        async with shown(log, capsys, second=WitnessTable(url=between, vkey=vkey)) as url:
            assert b"witness.example/rust" in await showing(url, 11)
    assert [body.partition(b"\n")[0] for body in asked] == [b"old 0", b"old 0", b"old 7"]


async def test_our_own_witness_cosigns_our_own_governor(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(configure(tmp_path / "w", LOG.vkey)) as (node, address):
        await log.grow(5)
        async with shown(log, capsys, ours=WitnessTable(url=address, vkey=node.verifier.vkey)) as url:
            assert b"witness.example/w1" in await showing(url, 5)


def _signing(seed: int, *, name: str = "witness.example/liar", time_s: int = 1_700_000_000) -> Callable[[bytes], bytes]:
    key = secret(seed)

    def sign(body: bytes) -> bytes:
        text = parse_note(body.partition(b"\n\n")[2]).text
        line = cosignature_line(name, key.public, time_s, key.sign(cosignature_message(text, time_s)))
        return Note(text, (line,)).encode().rpartition(b"\n\n")[2]

    return sign


def _double(body: bytes) -> bytes:
    return _signing(50)(body) + _signing(50, time_s=1_700_000_001)(body)


LIAR = cosigner("witness.example/liar", secret(50).public)
LIES: dict[str, Callable[[bytes], tuple[int, str, bytes]]] = {
    "nothing": lambda _: (200, "text/plain", b""),
    "garbage": lambda _: (200, "text/plain", b"\xff\x00" * 50),
    "another key's line": lambda body: (200, "text/plain", _signing(51)(body)),
    "another text's line": lambda body: (200, "text/plain", _signing(50)(body.replace(b"\n5\n", b"\n6\n"))),
    "no time": lambda body: (200, "text/plain", _signing(50, time_s=0)(body)),
    "two lines": lambda body: (200, "text/plain", _double(body)),
    "a member's line": lambda body: (200, "text/plain", _signing(4, name=attest_name("dev", "d"))(body)),
    "megabytes": lambda _: (200, "text/plain", bytes(5_000_000)),
    "no": lambda _: (403, "text/plain", b"no"),
    "elsewhere": lambda _: (302, "text/plain", b""),
    "a size beyond": lambda _: (409, "text/x.tlog.size", b"1000000\n"),
    "a size for ever": lambda _: (409, "text/x.tlog.size", b"3\n"),
    "a size that is none": lambda _: (409, "text/x.tlog.size", b"-1\n"),
    "a size of another kind": lambda _: (409, "text/plain", b"3\n"),
    "a size of many digits": lambda _: (409, "text/x.tlog.size", b"3" * 40_000),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_witness_that_lies_costs_its_line_and_nothing_else(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: str
) -> None:
    with (
        serve(lambda _, body: LIES[lie](body)) as hostile,
        foreign_witness(tmp_path, {ORIGIN: LOG.vkey}) as (address, vkey),
    ):
        await log.grow(5)
        honest, liar = WitnessTable(url=address, vkey=vkey), WitnessTable(url=hostile, vkey=LIAR.vkey)
        async with shown(log, capsys, a=liar, b=honest) as url:
            note = await showing(url, 5)
            assert b"witness.example/rust" in note
            assert b"witness.example/liar" not in note
            assert len(parse_note(note).lines) == 5
            await log.grow(5)
            assert b"witness.example/rust" in await showing(url, 10)
        assert await log.store.note("outside", ORIGIN, member="a", latest=True) is None


async def test_who_does_not_answer_is_left_alone_for_longer_and_longer_and_waited_for_once(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosigners_module, "WITNESS_ASK_MS_MAX", 200)
    knocked = list[asyncio.StreamWriter]()

    def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocked.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    who = Outsider(LIAR, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    cosigners = Cosigners(lambda: ORIGIN, lambda: log.store, {"silent": who}, Counter())
    loop, times, away = asyncio.get_running_loop(), list[float](), list[float]()
    for at_s in (0.0, 1.0, 2.5, 3.0, 7.0, 8.0):
        await log.grow(1)
        began = loop.time()
        await cosigners.round(at_s)
        times.append(loop.time() - began)
        away.append(cosigners._witnesses[0].away_s)
        assert read_checkpoint(cosigners.checkpoint).size == log.size
    server.close()
    for writer in knocked:
        writer.transport.abort()
    await asyncio.sleep(0)
    assert len(knocked) == 3
    assert away == [2, 2, 4, 4, 8, 8]
    assert all(took < WITNESS_ASK_MS_MAX / 1000 for took in times)
    assert [took > 0.19 for took in times] == [True, False, True, False, True, False]


async def test_a_quiet_log_is_shown_again_after_a_while_and_not_before(log: Log) -> None:
    bodies = list[bytes]()

    def answer(_: str, body: bytes) -> tuple[int, str, bytes]:
        bodies.append(body)
        return 200, "text/plain", _signing(50, time_s=1_700_000_000 + len(bodies))(body)

    await log.grow(3)
    with serve(answer) as address:
        cosigners = Cosigners(lambda: ORIGIN, lambda: log.store, {"w": Outsider(LIAR, address)}, Counter())
        notes = list[bytes]()
        for at_s in (0.0, 1.0, 599.0, 600.0, 601.0):
            await cosigners.round(at_s)
            notes.append(cosigners.checkpoint)
    assert len(bodies) == 2
    assert notes[0] == notes[1] == notes[2] != notes[3] == notes[4]


async def test_lines_of_external_witnesses_make_nothing_final(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda _, body: (200, "text/plain", _signing(50)(body))) as address:
        await log.grow(5)
        async with shown(log, capsys, w=WitnessTable(url=address, vkey=LIAR.vkey)) as url:
            note = await showing(url, 5)
    assert len(parse_note(note).lines) == 5
    certificate = await log.store.note("certificate", ORIGIN, latest=True)
    assert certificate is not None
    assert verify_certificate(certificate.note, log=LOG, attesters=ATTESTERS, k=3).checkpoint.size == 5
    with refuses("bad_signature"):  # what is published is no certificate of ours
        verify_certificate(note, log=LOG, attesters=ATTESTERS, k=3)
    two = parse_note(note)
    fewer = Note(two.text, tuple(line for line in two.lines if line.name not in {"dev/b/attest", "dev/c/attest"})).encode()
    with refuses("bad_signature", "not_final"):
        verify_certificate(fewer, log=LOG, attesters=ATTESTERS, k=2)


# ------------------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("UPPER", WitnessTable(url="http://x", vkey=LIAR.vkey)),
        ("w", WitnessTable(url="x", vkey=LIAR.vkey)),
        ("w", WitnessTable(url="http://x", vkey="x")),
        ("w", WitnessTable(url="http://x", vkey=LOG.vkey)),
    ],
    ids=["name", "url", "no key", "a log's key"],
)
def test_a_witness_that_cannot_be_asked_is_refused_at_the_start(roster: Roster, name: str, table: WitnessTable) -> None:
    with refuses("config_invalid"):
        outsiders(OutsideTable(witnesses={name: table}), roster)


def test_a_member_is_no_external_witness_and_nobody_is_two(roster: Roster) -> None:
    for key in (roster.members[0].attest_key, roster.members[1].witness_key):
        with refuses("config_invalid"):
            outsiders(OutsideTable(witnesses={"w": WitnessTable(url="http://x", vkey=cosigner("x", key).vkey)}), roster)
    twice = {name: WitnessTable(url="http://x", vkey=LIAR.vkey) for name in ("a", "b")}
    with refuses("config_invalid"):
        outsiders(OutsideTable(witnesses=twice), roster)


def test_there_may_be_only_so_many_external_witnesses(roster: Roster) -> None:
    many = {f"w{n}": WitnessTable(url="http://x", vkey=cosigner("x", secret(n).public).vkey) for n in range(WITNESSES_MAX + 1)}
    assert len(outsiders(OutsideTable(witnesses=dict(list(many.items())[:-1])), roster)) == WITNESSES_MAX
    with refuses("config_invalid"):
        outsiders(OutsideTable(witnesses=many), roster)


async def test_without_a_table_nothing_is_opened_and_nobody_is_asked(log: Log, roster: Roster, capsys: pytest.CaptureFixture[str]) -> None:
    before = asyncio.all_tasks()
    off = outside(OutsideTable(), roster, origin=_unasked, store=_unasked, alarm=lambda _: None, counters=Counter())
    async with off:
        assert asyncio.all_tasks() == before
    assert capsys.readouterr().err == ""


def _unasked() -> Any:
    pytest.fail("nobody may be asked")


async def test_a_node_that_is_not_open_publishes_nothing_and_storage_that_rots_is_an_alarm(roster: Roster) -> None:
    alarms = list[Exception]()
    errors: list[Exception] = [Unavailable("storage_failed", ""), Alarm("storage_corrupt", "")]

    def store() -> Store:
        raise errors[0]

    table = OutsideTable(witnesses={"w": WitnessTable(url="http://127.0.0.1:1", vkey=LIAR.vkey)})
    async with outside(table, roster, origin=lambda: ORIGIN, store=store, alarm=alarms.append, counters=Counter()):
        await asyncio.sleep(0.05)
        assert alarms == []
        errors.pop(0)
        await until(lambda: bool(alarms))
    assert [getattr(alarm, "code", "") for alarm in alarms] == ["storage_corrupt"]


def test_a_witness_is_known_by_its_key() -> None:
    assert Verifier.from_vkey(LIAR.vkey) == LIAR
