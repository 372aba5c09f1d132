"""An intent is spent once, whichever process asks, and no outcome is lost or told twice."""

import asyncio
import os
import random
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from mesh.adapters.spent import Pending, Spent, SpentStore
from mesh.adapters.store import Store, hold
from mesh.core.bytes.canonical import sha256_hex
from mesh.errors import Alarm, Refused, Unavailable
from tests.adapters.storekit import child, refused

NAME = "spent.db"
AUDIENCE = "a" * 64
BOOT, LATER = "1" * 64, "2" * 64


def ident(number: int) -> str:
    return sha256_hex(str(number).encode())


async def opened(path: Path) -> SpentStore:
    return await SpentStore.open(path / NAME, audience=AUDIENCE)


async def spend(store: SpentStore, number: int, *, boot: str = BOOT) -> int:
    return await store.spend(ident(number), boot=boot, domain="payments", authorization=ident(-number), at_ms=number)


async def keep(store: SpentStore, sequence: int, *, boot: str = BOOT, ends: int | None = None) -> str:
    name = sha256_hex(f"{boot} {sequence}".encode())
    ended = None if ends is None else ident(ends)
    await store.enqueue(name, boot=boot, sequence=sequence, envelope=f"outcome {sequence}".encode(), ends=ended)
    return name


# -------------------------------------------------------------------------------------------------------------- spending


async def test_an_intent_is_spent_once_and_stays_spent(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    assert [await spend(store, number) for number in (5, 6, 7)] == [1, 2, 3]
    await refused(spend(store, 6), Refused, "used")
    await refused(spend(store, 6, boot=LATER), Refused, "used")
    await store.close()
    store = await opened(tmp_path)
    await refused(spend(store, 5, boot=LATER), Refused, "used")
    assert await spend(store, 8, boot=LATER) == 4
    for wrong in ("", "G" * 64, "a" * 63):
        await refused(store.spend(wrong, boot=BOOT, domain="d", authorization=ident(1), at_ms=1), Refused, "malformed")
    await store.close()


async def test_of_concurrent_spends_one_wins_and_its_neighbours_do_not_suffer(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    answers = await asyncio.gather(*(spend(store, number % 50) for number in range(200)), return_exceptions=True)
    assert sorted(answer for answer in answers if isinstance(answer, int)) == list(range(1, 51))
    assert Counter(answer.code for answer in answers if isinstance(answer, Refused)) == {"used": 150}
    await store.close()


RACER = """
import asyncio, sys
from pathlib import Path
from tests.adapters.test_spent import *
async def main():
    store = await opened(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for first in range(0, 100, 4):
        answers = await asyncio.gather(*(spend(store, first + more) for more in range(4)), return_exceptions=True)
        for number, answer in enumerate(answers, first):
            assert isinstance(answer, int) or answer.code == "used", answer
            if isinstance(answer, int):
                print(number, answer, flush=True)
    await store.close()
asyncio.run(main())
"""


def test_of_several_processes_exactly_one_spends_each_intent(tmp_path: Path) -> None:
    racers = [child(RACER, str(tmp_path)) for _ in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wins = list[tuple[int, ...]]()
    for racer in racers:
        out, err = racer.communicate(timeout=100)
        assert (racer.returncode, err) == (0, "")
        wins += [tuple(map(int, line.split())) for line in out.splitlines()]
    assert sorted(number for number, _ in wins) == list(range(100))
    assert sorted(count for _, count in wins) == list(range(1, 101))


# ------------------------------------------------------------------------------------------------------------- approvals


async def use(store: SpentStore, number: int, *approvals: tuple[int, int]) -> int:
    """Spend that intent, resting on approvals by (number, uses)."""
    said = [(ident(1_000_000 + name), uses) for name, uses in approvals]
    return await store.spend(ident(number), boot=BOOT, domain="payments", authorization=ident(-number), at_ms=number, approvals=said)


async def test_an_approval_is_used_as_often_as_it_says_and_no_more(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    assert [await use(store, number, (1, 2)) for number in (1, 2)] == [1, 2]
    await refused(use(store, 3, (1, 2)), Refused, "approval_used")
    await store.close()
    store = await opened(tmp_path)
    await refused(use(store, 3, (1, 2)), Refused, "approval_used")
    assert await use(store, 3) == 3, "what was refused for an approval is not spent"
    await store.close()


async def test_of_several_approvals_all_are_used_or_none(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await use(store, 1, (1, 1))
    await refused(use(store, 2, (2, 1), (1, 1)), Refused, "approval_used")
    await refused(use(store, 1, (2, 1)), Refused, "used")
    assert await use(store, 3, (2, 1)) == 2
    await store.close()


async def test_of_concurrent_uses_one_wins_and_its_neighbours_do_not_suffer(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    answers = await asyncio.gather(
        *(use(store, number, (1, 3)) if number % 2 else use(store, number) for number in range(40)), return_exceptions=True
    )
    assert Counter(answer.code for answer in answers if isinstance(answer, Refused)) == {"approval_used": 17}
    assert sum(isinstance(answer, int) for answer in answers) == 23
    await store.close()


USER = """
import asyncio, sys
from pathlib import Path
from tests.adapters.test_spent import *
async def main():
    store = await opened(Path(sys.argv[1]))
    first = int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    for approval in range(40):
        try:
            await use(store, first + approval, (approval, 1))
        except Refused as refusal:
            assert refusal.code == "approval_used", refusal
        else:
            print(approval, flush=True)
    await store.close()
asyncio.run(main())
"""


def test_of_two_processes_that_race_for_one_use_one_wins(tmp_path: Path) -> None:
    racers = [child(USER, str(tmp_path), str(first)) for first in (0, 100)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wins = list[int]()
    for racer in racers:
        out, err = racer.communicate(timeout=100)
        assert (racer.returncode, err) == (0, "")
        wins += map(int, out.split())
    assert sorted(wins) == list(range(40))


SPENDER = """
import asyncio, sys
from pathlib import Path
from tests.adapters.test_spent import *
async def main():
    store = await opened(Path(sys.argv[1]))
    for number in range(int(sys.argv[2]), 1_000_000):
        await spend(store, number, boot=sys.argv[3])
        print(number, flush=True)
asyncio.run(main())
"""


def killed(path: Path, first: int, lines: int, boot: str = BOOT) -> int:
    """Spend from ``first`` on in a process that is killed after so many; the last that was acknowledged."""
    with child(SPENDER, str(path), str(first), boot) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        told += process.stdout.readlines()
    return max(int(line) for line in told if line.endswith("\n"))


def test_what_was_acknowledged_is_spent_after_kill_9(tmp_path: Path) -> None:
    async def check(first: int, last: int) -> int:
        store = await opened(tmp_path)
        for number in range(first, last + 1):
            await refused(spend(store, number), Refused, "used")
        await store.close()
        return last + 2  # the one that was under way may be spent, too

    dice, first = random.Random(1), 0
    for _ in range(3):
        first = asyncio.run(check(first, killed(tmp_path, first, dice.randint(3, 40))))


async def test_a_store_belongs_to_one_audience(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    await refused(SpentStore.open(tmp_path / NAME, audience="b" * 64), Refused, "config_invalid")
    await refused(Store.open(tmp_path / NAME, owner=AUDIENCE), Refused, "config_invalid")
    await refused(SpentStore.open(tmp_path / "no" / NAME, audience=AUDIENCE), Unavailable, "storage_failed")


async def test_spends_are_synced_with_their_folder(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    found = [await store._file.read(f"PRAGMA {name}") for name in ("journal_mode", "application_id")]
    assert found == [[("delete",)], [(0x73706E74,)]]
    writer = await store._file._writer.execute("PRAGMA synchronous")
    assert await writer.fetchone() == (3,)
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM spent",
        "UPDATE spent SET ended = 0",
        "UPDATE spent SET intent = zeroblob(32), ended = 1",
        "UPDATE chain SET next = 0",
        "DELETE FROM approval_use",
        "UPDATE approval_use SET number = 9",
    ],
)
async def test_the_file_itself_refuses_to_unspend(tmp_path: Path, statement: str) -> None:
    store = await opened(tmp_path)
    await use(store, 1, (1, 1))
    await keep(store, 0)
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute(statement)
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_TRIGGER
    connection.close()


async def test_a_process_that_cannot_show_that_it_lives_does_not_join(tmp_path: Path) -> None:
    stranger = hold(tmp_path / f"{NAME}.1.life")
    assert stranger is not None
    await refused(opened(tmp_path), Unavailable, "storage_failed")
    os.close(stranger)
    await (await opened(tmp_path)).close()


# -------------------------------------------------------------------------------------------------------------- outcomes


async def test_outcomes_wait_in_order_until_they_are_acknowledged(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    names = [await keep(store, sequence) for sequence in range(5)] + [await keep(store, 0, boot=LATER)]
    assert await store.backlog() == 6
    assert await store.pending(2) == [Pending(names[0], BOOT, 0, b"outcome 0"), Pending(names[1], BOOT, 1, b"outcome 1")]
    await store.acknowledge([names[0], names[3], ident(99)])
    await store.close()
    store = await opened(tmp_path)
    assert [item.id for item in await store.pending(9)] == [names[1], names[2], names[4], names[5]]
    await keep(store, 5)
    assert [item.sequence for item in await store.pending(9)] == [1, 2, 4, 0, 5]
    assert await store.backlog() == 5
    await store.close()


@pytest.mark.parametrize("sequence", [0, 1, 3])
async def test_a_boot_cannot_skip_or_repeat_a_number_even_after_it_was_acknowledged(tmp_path: Path, sequence: int) -> None:
    store = await opened(tmp_path)
    await store.acknowledge([await keep(store, 0), await keep(store, 1)])
    await refused(keep(store, sequence), Alarm, "log_conflict")
    assert await store.backlog() == 0
    await keep(store, 2)
    await refused(keep(store, 1, boot=LATER), Alarm, "log_conflict")
    await store.close()


async def test_a_spent_intent_ends_once_and_only_if_it_was_spent(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await spend(store, 1)
    await keep(store, 0, ends=1)
    await refused(keep(store, 1, ends=1), Refused, "intent_conflict")
    await refused(keep(store, 1, ends=2), Refused, "not_found")
    assert await store.backlog() == 1
    await keep(store, 1)
    await store.close()


async def test_a_flipped_outcome_is_an_alarm(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await keep(store, 0)
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("UPDATE outcome SET envelope = x'00'")
    connection.commit()
    connection.close()
    store = await opened(tmp_path)
    await refused(store.pending(1), Alarm, "storage_corrupt")
    await store.close()


# ------------------------------------------------------------------------------------------------------------- unfinished


async def test_only_spends_without_an_end_by_processes_that_are_gone_are_unfinished(tmp_path: Path) -> None:
    last = await asyncio.to_thread(killed, tmp_path, 0, 3)
    sibling, store = await opened(tmp_path), await opened(tmp_path)
    await spend(sibling, 1_000, boot="3" * 64)
    await spend(store, 1_001, boot=LATER)
    found = await store.unfinished(LATER)
    assert [item.at_ms for item in found][: last + 1] == list(range(last + 1))
    assert len(found) <= last + 2
    assert found[1] == Spent(ident(1), BOOT, "payments", ident(-1), 1)
    for sequence, item in enumerate(found):
        outcome = sha256_hex(item.intent.encode())
        await store.enqueue(outcome, boot=LATER, sequence=sequence, envelope=b"unknown", ends=item.intent)
    assert await store.unfinished(LATER) == []
    assert [item.at_ms for item in await sibling.unfinished("3" * 64)] == []
    await sibling.close()
    assert [item.at_ms for item in await store.unfinished(LATER)] == [1_000]
    assert [item.at_ms for item in await store.unfinished(BOOT)] == [1_000, 1_001]
    await store.close()


async def test_lock_files_of_the_gone_are_removed_once_nothing_of_theirs_is_open(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await spend(store, 1)
    await store.close()
    for _ in range(5):
        await (await opened(tmp_path)).close()
    store = await opened(tmp_path)
    assert len(list(tmp_path.glob("*.life"))) == 2  # this one's, and that of the open spend
    assert [item.intent for item in await store.unfinished(LATER)] == [ident(1)]
    await keep(store, 0, boot=LATER, ends=1)
    await store.close()
    store = await opened(tmp_path)
    assert len(list(tmp_path.glob("*.life"))) == 1
    await store.close()


# --------------------------------------------------------------------------------------------------------------- failing


async def test_a_closed_store_answers_everyone(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    spends = [asyncio.create_task(spend(store, number)) for number in range(200)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    answers = await asyncio.gather(*spends, return_exceptions=True)
    done = [answer for answer in answers if isinstance(answer, int)]
    assert all(isinstance(answer, int) or (isinstance(answer, Unavailable) and answer.code == "storage_failed") for answer in answers)
    for call in (spend(store, 999), keep(store, 0), store.pending(1), store.backlog(), store.acknowledge([]), store.unfinished(BOOT)):
        await refused(call, Unavailable, "storage_failed")
    store = await opened(tmp_path)
    assert await spend(store, 999) == len(done) + 1
    await store.close()


FULL = """
import asyncio, resource, sys
from pathlib import Path
from tests.adapters.test_spent import *
async def main(path):
    store = await opened(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    spent = 0
    try:
        for number in range(10_000):
            await spend(store, number)
            spent = number + 1
    except Unavailable as error:
        assert error.code == "storage_failed"
    assert 0 < spent < 9_000
    await refused(spend(store, 20_000), Unavailable, "storage_failed")
    await store.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = await opened(path)
    for number in range(spent):
        await refused(spend(store, number), Refused, "used")
    assert await spend(store, 20_000) in {spent + 1, spent + 2}
    await store.close()
    print("done")
asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_denies_and_forgets_nothing(tmp_path: Path) -> None:
    out, err = child(FULL, str(tmp_path)).communicate(timeout=100)
    assert (out.strip(), err) == ("done", "")
