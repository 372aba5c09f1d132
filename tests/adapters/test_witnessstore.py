"""What a witness has cosigned is never taken back: not by a caller, not by whoever writes into the file, not by rot."""

import sqlite3
from pathlib import Path

import pytest

from mesh.adapters import signer
from mesh.adapters.witnessstore import Cosigned, WitnessStore
from mesh.core.log.checkpoint import Checkpoint, log_line
from mesh.core.log.note import Note
from mesh.errors import Alarm, Refused, Unavailable
from mesh.limits import WITNESS_EVIDENCE_MAX
from mesh.protocol.step import Head, PutNote, SetHead, SetMeta
from tests.adapters.storekit import refused, tamper

LOG = "log.example/a"
ROOT, OTHER = b"r" * 32, b"o" * 32
NAME = "node.db"  # as the kit of the stores calls it


def effects(size: int, *, root: bytes = ROOT, time_s: int = 10) -> list[SetHead | PutNote]:
    return [SetHead("witness", LOG, Head(size, root, time_s)), PutNote("checkpoint", LOG, size, b"note %d" % size)]


def contradicting(origin: str, number: int) -> bytes:
    return Note(Checkpoint(origin, 1 + number, ROOT).to_text(), (log_line(origin, "ab" * 32, bytes(64)),)).encode()


async def opened(folder: Path, *, key: str = "ab" * 32) -> WitnessStore:
    if not (folder / "witness.key").exists():
        signer.generate(folder / "witness.key", "witness", bytes(32))
    create = not (folder / NAME).exists()
    return await WitnessStore.open(folder / NAME, key=key, key_file=folder / "witness.key", create=create)


async def test_what_was_advanced_is_there_after_a_restart(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    first = await store.advance(LOG, None, effects(5))
    second = await store.advance(LOG, first.head, effects(9, root=OTHER, time_s=11))
    await store.close()
    store = await opened(tmp_path)
    assert await store.all() == {LOG: second} == {LOG: Cosigned(Head(9, OTHER, 11), b"note 9")}
    await store.close()


@pytest.mark.parametrize("before", [None, Head(4, ROOT, 10), Head(5, OTHER, 10), Head(5, ROOT, 9)], ids=["none", "size", "root", "time"])
async def test_nothing_is_written_over_something_else_than_was_judged(tmp_path: Path, before: Head | None) -> None:
    store = await opened(tmp_path)
    first = await store.advance(LOG, None, effects(5))
    await refused(store.advance(LOG, before, effects(9)), Alarm, "storage_rolled_back")
    assert await store.all() == {LOG: first}
    await store.advance(LOG, first.head, effects(9))
    await store.close()


@pytest.mark.parametrize(
    ("size", "root", "time_s"), [(4, ROOT, 11), (5, OTHER, 11), (9, ROOT, 9)], ids=["smaller", "another root", "an earlier time"]
)
async def test_the_file_itself_refuses_to_go_back(tmp_path: Path, size: int, root: bytes, time_s: int) -> None:
    store = await opened(tmp_path)
    first = await store.advance(LOG, None, effects(5))
    await refused(store.advance(LOG, first.head, effects(size, root=root, time_s=time_s)), Alarm, "storage_rolled_back")
    assert await store.all() == {LOG: first}
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM cosigned",
        "UPDATE cosigned SET size = 4",
        "UPDATE cosigned SET root = zeroblob(32)",
        "UPDATE cosigned SET time_s = 9",
        "UPDATE cosigned SET origin = 'other'",
        "REPLACE INTO cosigned SELECT origin, 4, root, time_s, note, sum FROM cosigned",
        "DELETE FROM evidence",
        "UPDATE evidence SET note = x'00'",
    ],
)
async def test_the_file_refuses_whoever_writes(tmp_path: Path, statement: str) -> None:
    store = await opened(tmp_path)
    await store.advance(LOG, None, effects(5))
    await store.keep(LOG, b"another")
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("statement", ["UPDATE cosigned SET size = 50", "UPDATE cosigned SET note = x'00'", "UPDATE cosigned SET sum = 1"])
async def test_rot_is_found_when_it_is_read(tmp_path: Path, statement: str) -> None:
    store = await opened(tmp_path)
    await store.advance(LOG, None, effects(5))
    await store.close()
    tamper(tmp_path, statement)
    store = await opened(tmp_path)
    await refused(store.all(), Alarm, "storage_corrupt")
    await store.close()


@pytest.mark.parametrize(
    "statement", ["UPDATE evidence SET sum = 1 WHERE origin LIKE '%a'", "UPDATE evidence SET origin = 'log.example/c'"]
)
async def test_evidence_is_kept_once_and_bounded(tmp_path: Path, statement: str) -> None:
    store = await opened(tmp_path)
    for number in range(WITNESS_EVIDENCE_MAX + 1):
        for _ in range(2):
            await store.keep(LOG, contradicting(LOG, number))
    await store.keep("log.example/b", contradicting("log.example/b", 0))
    kept = [(LOG, contradicting(LOG, number)) for number in range(WITNESS_EVIDENCE_MAX)]
    assert await store.evidence() == [*kept, ("log.example/b", contradicting("log.example/b", 0))]
    await store.close()
    tamper(tmp_path, statement)
    store = await opened(tmp_path)
    await refused(store.evidence(), Alarm, "storage_corrupt")
    await store.close()


async def test_one_process_has_the_file_and_one_the_key(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await refused(opened(tmp_path), Unavailable, "storage_failed")
    elsewhere = WitnessStore.open(tmp_path / "other.db", key="ab" * 32, key_file=tmp_path / "witness.key", create=True)
    await refused(elsewhere, Unavailable, "storage_failed")
    await store.close()
    await refused(opened(tmp_path, key="cd" * 32), Refused, "config_invalid")
    await (await opened(tmp_path)).close()
    missing = WitnessStore.open(tmp_path / NAME, key="ab" * 32, key_file=tmp_path / "no.key")
    await refused(missing, Unavailable, "storage_failed")


async def test_a_step_of_somebody_else_is_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await refused(store.advance(LOG, None, [SetMeta("x", 1)]), Refused, "malformed")
    await refused(store.advance("log.example/b", None, effects(5)), Refused, "malformed")
    await store.close()
