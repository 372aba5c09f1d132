"""What was erased is in no byte of the file or its WAL, and the file does not take it in again."""

import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from mesh.adapters.store import Store
from mesh.errors import Refused, Unavailable
from mesh.limits import SQLITE_WAIT_MS_MAX
from mesh.protocol.step import PutBody, PutOpenings
from tests.adapters.storekit import NAME, child, filled, ident, refused


def _bytes(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.iterdir())


async def test_no_byte_of_erased_openings_stays_in_the_file_or_its_wal_and_others_stay(tmp_path: Path) -> None:
    chance = random.Random(7)
    secrets = {ident(number): chance.randbytes(chance.choice((20, 90, 400, 6_000))) for number in range(200)}
    store = await Store.open(tmp_path / NAME, owner="a")
    for intent, secret in secrets.items():
        await store.commit([PutOpenings(intent, secret), PutBody(intent, "intent", b"envelope")])
    assert all(secret[:16] in _bytes(tmp_path) for secret in list(secrets.values())[:5])
    order = list(secrets)
    chance.shuffle(order)
    for start in range(0, 180, 60):
        await store.erase(order[start : start + 60])
    left = _bytes(tmp_path)
    for intent in order[:180]:
        secret = secrets[intent]
        for at in (0, len(secret) // 2, len(secret) - 16):  # not even a part of it
            assert secret[at : at + 16] not in left
    assert await store.openings(order) == {intent: secrets[intent] for intent in order[180:]}
    assert await store.bodies(order[:3]) == dict.fromkeys(order[:3], b"envelope")
    await store.close()


async def test_openings_of_what_was_erased_are_not_taken_in_again_also_after_reopening(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    assert await store.unerased([ident(1), ident(2)]) == [ident(1), ident(2)]
    await store.erase([ident(1), ident(2)])  # of the second there was nothing
    for _ in range(2):
        for number in (1, 2, 5):
            await store.commit([PutOpenings(ident(number), b"it came back %d" % number)])
        assert await store.openings([ident(1), ident(2), ident(5)]) == {ident(5): b"it came back 5"}
        assert await store.unerased([ident(1), ident(2), ident(5)]) == [ident(5)]
        await store.close()
        store = await Store.open(tmp_path / NAME, owner="a")
    await store.erase([ident(1)])  # once more harms nothing
    await store.close()
    assert b"it came back 1" not in _bytes(tmp_path)


async def test_the_file_refuses_to_forget_what_was_erased_whoever_writes(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.erase([ident(1)])
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME)
    for statement in ("DELETE FROM erased", "UPDATE erased SET intent = x'00'"):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    connection.close()


async def test_a_reader_of_an_older_state_makes_erasing_wait_and_nobody_else_and_it_is_done_the_next_time(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    reader = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM opening").fetchone()
    begun = time.monotonic()
    for intents in ([ident(1)], []):  # it is deleted the first time; what is left to do is the WAL
        await refused(store.erase(intents), Unavailable, "unavailable")
    await store.commit([PutOpenings(ident(5), b"somebody else's")])
    assert time.monotonic() - begun < SQLITE_WAIT_MS_MAX / 2_000, "whoever writes waited for whoever reads"
    assert b"openings one" in _bytes(tmp_path)
    reader.close()
    await store.erase([])
    assert b"openings one" not in _bytes(tmp_path)
    await store.close()


async def test_what_is_no_id_erases_nothing(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await refused(store.erase([ident(1), "x"]), Refused, "malformed")
    assert await store.openings([ident(1)]) == {ident(1): b"openings one"}
    await store.close()


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
import mesh.adapters.store as module
from mesh.adapters.store import Store
from mesh.protocol.step import PutOpenings
from tests.adapters.storekit import ident

async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = await Store.open(Path(sys.argv[1]), owner="a")
    await store.commit([PutOpenings(ident(1), b"needle-in-the-file" * 9)])
    setattr(module, sys.argv[2], die)
    await store.erase([ident(1)])

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["blank", "emptied"])
async def test_killed_in_the_middle_it_is_all_there_or_all_gone_and_the_next_time_it_goes(tmp_path: Path, where: str) -> None:
    process = child(_KILLED, str(tmp_path / NAME), where)
    assert process.wait(60) == -signal.SIGKILL, process.communicate()[1]
    process.communicate()
    assert b"needle-in-the-file" in _bytes(tmp_path)
    store = await Store.open(tmp_path / NAME, owner="a")
    committed = where == "emptied"  # what was overwritten stood in the WAL only, which an opening cuts off
    assert (await store.unerased([ident(1)]) == []) is committed
    assert (b"needle-in-the-file" in _bytes(tmp_path)) is not committed
    await store.erase([ident(1)])
    assert b"needle-in-the-file" not in _bytes(tmp_path)
    await store.close()
