"""What rotted is put back only as it was signed: nobody can put in anything else, and where not all can be had nothing is touched."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from mesh.adapters.store import Store
from mesh.adapters.storecheck import check_file, copy_file
from mesh.adapters.storemend import BrokenFile, LostRecord, LostStatement
from mesh.core.log.merkle import leaf_hash
from mesh.core.messages import LineageBatch
from mesh.errors import Alarm, Unavailable
from mesh.protocol.events import Tick
from mesh.protocol.step import Head, SetHead
from mesh.roles.mending import LOST_MAX, mended, note_broken
from tests.roles.test_performer import Bench
from tests.support.unguarded import tampered

ALARM = Alarm("storage_corrupt", "record 7 of lab/eu-1/e1")


@pytest.fixture
async def whole(tmp_path: Path) -> Path:
    """A file that a governor wrote, all of whose records but the last are signed."""
    (tmp_path / "whole").mkdir()
    bench = await Bench.at(tmp_path / "whole")
    bench.ask(*range(20))
    await bench.done()
    head = bench.performer.state.log.frontier
    await bench.store.commit([SetHead("log", bench.performer.state.log.origin, Head(head.size, head.root(), 1 << 31))])
    bench.ask(20)
    await bench.done()
    await bench.performer.take([Tick()])
    await bench.store.close()
    copy_file(tmp_path / "whole" / "node.db", tmp_path / "node.db")
    return tmp_path / "node.db"


class Peer:
    """A member that holds the same, and may lie."""

    def __init__(self, path: Path, lie: Callable[[LineageBatch], LineageBatch] = lambda batch: batch) -> None:
        self.path, self.lie, self.asked = path, lie, 0

    async def records(self, origin: str, index: int, fits: Callable[[LineageBatch], bool]) -> LineageBatch | None:
        self.asked += 1
        with closing(sqlite3.connect(self.path)) as file:
            ((leaf,),) = file.execute("SELECT data FROM record WHERE idx = ?", (index,)).fetchall()
            bodies = [row[0] for table in ("body", "document") for row in file.execute(f"SELECT envelope FROM {table}")]  # noqa: S608 -- our own names
        given = LineageBatch(
            origin=origin,
            first=index,
            records=[msgspec.Raw(leaf)],
            bodies=[msgspec.Raw(data) for data in bodies],
            pruned=[],
            openings=[],
            path=[],
            start=[],
            checkpoint="",
        )
        answer = self.lie(given)
        return answer if fits(answer) else None


def _digest(path: Path) -> str:
    with closing(sqlite3.connect(path)) as file:
        return hashlib.sha256("\n".join(sorted(file.iterdump())).encode()).hexdigest()


ROTTEN = {
    "a record": ("UPDATE record SET data = x'00' WHERE idx = 7",),
    "a leaf hash": ("UPDATE record SET leaf = zeroblob(32) WHERE idx = 7",),
    "a body": ("UPDATE body SET envelope = x'00' WHERE n = 7",),
    "a document": ("UPDATE document SET envelope = x'00' WHERE n = 1",),
    "all of them": (
        "UPDATE record SET data = x'00' WHERE idx < 15",
        "UPDATE body SET envelope = x'00'",
        "UPDATE document SET envelope = x'00'",
    ),
}


@pytest.mark.parametrize("what", ROTTEN)
async def test_what_rotted_is_to_the_byte_what_it_was(whole: Path, tmp_path: Path, what: str) -> None:
    before = _digest(whole)
    tampered(whole, *ROTTEN[what])
    assert _digest(whole) != before
    (said,) = await mended(whole, ALARM, Peer(tmp_path / "whole" / "node.db").records)
    assert (said.code, ALARM.detail in said.detail) == ("storage_corrupt", True)
    assert _digest(whole) == before
    await check_file(whole, still=False)


def _other_record(batch: LineageBatch) -> LineageBatch:
    return msgspec.structs.replace(batch, records=[msgspec.Raw(b'{"record":"noise"}')])


def _no_bodies(batch: LineageBatch) -> LineageBatch:
    return msgspec.structs.replace(batch, bodies=batch.bodies[:1])


@pytest.mark.parametrize(("what", "lie"), [("a record", _other_record), ("all of them", _other_record), ("all of them", _no_bodies)])
async def test_who_gives_something_else_is_not_believed_and_then_nothing_is_touched(
    whole: Path, tmp_path: Path, what: str, lie: Callable[[LineageBatch], LineageBatch]
) -> None:
    tampered(whole, *ROTTEN[what])
    broken, peer = _digest(whole), Peer(tmp_path / "whole" / "node.db", lie)
    with pytest.raises(Alarm) as caught:
        await mended(whole, ALARM, peer.records)
    assert caught.value is ALARM
    assert peer.asked > 0
    assert _digest(whole) == broken


UNKNOWN = {
    "a record that is not signed yet": "UPDATE record SET data = x'00' WHERE idx = (SELECT max(idx) FROM record)",
    "a record and its hash": "UPDATE record SET data = x'00', leaf = zeroblob(32) WHERE idx = 7",
    "a record that is gone": "DELETE FROM record WHERE idx = 7",
    "heads, so that nothing vouches": "UPDATE head SET sum = sum + 1",
    "a head that leads nowhere": "UPDATE record SET log = 9 WHERE idx = 7",
}


@pytest.mark.parametrize("what", UNKNOWN)
async def test_what_no_signed_root_vouches_for_is_left_as_it_is(whole: Path, tmp_path: Path, what: str) -> None:
    tampered(whole, UNKNOWN[what], "UPDATE record SET data = x'01' WHERE idx = 3")
    broken = _digest(whole)
    with pytest.raises(Alarm, match="storage_corrupt"):
        await mended(whole, ALARM, Peer(tmp_path / "whole" / "node.db").records)
    assert _digest(whole) == broken


async def test_what_was_found_while_the_node_ran_is_looked_for_at_its_next_start_and_no_other_alarm_is_mended(
    whole: Path, tmp_path: Path
) -> None:
    peer = Peer(tmp_path / "whole" / "node.db")
    assert await mended(whole, None, peer.records) == []
    note_broken(whole, Unavailable("unreachable", "no bus"))
    assert await mended(whole, None, peer.records) == []
    with pytest.raises(Alarm, match="storage_rolled_back"):
        await mended(whole, Alarm("storage_rolled_back", ""), peer.records)
    with pytest.raises(Alarm, match="storage_corrupt"):
        await mended(whole, ALARM, peer.records)  # it was found a moment ago, and nothing is found that could be mended
    tampered(whole, *ROTTEN["a record"])
    note_broken(whole, ALARM)
    assert len(await mended(whole, None, peer.records)) == 1
    assert await mended(whole, None, peer.records) == []
    note_broken(whole, ALARM)
    assert await mended(whole, None, peer.records) == [], "somebody else has mended it"


async def test_a_file_that_somebody_has_open_is_left_alone_and_so_is_one_that_lost_too_much(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Peer(tmp_path / "whole" / "node.db")
    tampered(whole, *ROTTEN["all of them"])
    store = await Store.open(whole, owner="eu-1")
    with pytest.raises(Alarm, match="storage_corrupt"):
        await mended(whole, ALARM, peer.records)
    await store.close()
    monkeypatch.setattr("mesh.roles.mending.LOST_MAX", 3)
    with pytest.raises(Alarm, match="storage_corrupt"):
        await mended(whole, ALARM, peer.records)
    assert peer.asked == 0
    assert LOST_MAX > 3


async def test_a_file_takes_back_nothing_but_the_bytes_that_it_lost(whole: Path) -> None:
    with BrokenFile(whole) as file:
        assert (file.lost_records(), file.lost_statements()) == ([], [])
        with pytest.raises(Alarm, match="storage_corrupt"):
            file.give_record(LostRecord("lab/eu-1/e1", 3, leaf_hash(b"a")), b"b")
        with pytest.raises(Alarm, match="storage_corrupt"):
            file.give_statement(LostStatement("body", 1, "ab" * 32, 7), b"{}")
