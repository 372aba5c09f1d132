"""A node deletes what an erasure names once nobody needs it from it, says so in its log once, and does it again on an old disk."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pytest

from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import GovernanceChanged, read_record
from mesh.core.messages import Authorized, LawBatch, Offer, pack
from mesh.errors import Unavailable
from mesh.limits import AUDIT_LOGS_MAX
from mesh.protocol.events import IntentArrived, LawArrived, LineageArrived, OfferArrived, OpeningsErased, Tick
from mesh.protocol.step import Append, Locate, PutLaw, PutOpenings
from mesh.roles.erasing import erase_for_ever
from mesh.roles.loading import load_governance
from tests.protocol.machines import LAB as MACHINES
from tests.protocol.machines import NOW, Owner, batch
from tests.roles.faultdesk import Desk
from tests.roles.test_performer import LAB, Bench, answer_in
from tests.support.erasures import erase
from tests.support.factory import T0

SECRET = b"what-the-customer-bought"


async def _within(condition: Callable[[], bool], wait_s: float = 5.0) -> None:
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110 -- what is waited for is another task
            await asyncio.sleep(0.01)


def _here(path: Path) -> bool:
    return any(SECRET in file.read_bytes() for file in path.iterdir())


async def _asked(bench: Bench) -> str:
    """An intent with a secret, permitted; its record is not certified yet."""
    intent, data, openings = LAB.intent(1, memo=SECRET.decode(), at_ms=T0 + 1_000)
    bench.performer.fold([IntentArrived(1, LAB.request(data, openings))])
    await bench.done()
    assert isinstance(answer_in(bench.said[-1][1]), Authorized)
    return intent


async def _told(bench: Bench, *intents: str) -> str:
    """Offer the node an erasure of these; its id."""
    statement = erase(LAB, *intents)
    offer = pack(Offer(statements=[msgspec.Raw(statement.envelope)]))
    await bench.performer.take([OfferArrived(9, offer), Tick()])
    assert bench.performer.state.governance.erased == set(intents)
    return statement.id


async def _changes(bench: Bench) -> list[tuple[str, str]]:
    log = bench.performer.state.log
    records = map(read_record, await bench.store.records(log.origin, 0, 128))
    return [(record.change, record.about) for record in records if isinstance(record, GovernanceChanged) and record.change == "erased"]


async def test_openings_stay_until_their_record_is_final_in_its_owners_log_then_no_byte_of_them_is_left(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    intent = await _asked(bench)
    identity = await _told(bench, intent, "ab" * 32)
    told = list[OpeningsErased]()
    state = bench.performer.state
    bench.performer._state = msgspec.structs.replace(state, log=msgspec.structs.replace(state.log, certified=0))
    work = asyncio.create_task(erase_for_ever(bench.performer, told.append))
    await asyncio.sleep(0.4)
    assert (told, _here(tmp_path)) == ([], True)
    assert await bench.store.unerased([intent, "ab" * 32]) == [intent]  # what nobody needs goes at once
    log = bench.performer.state.log
    bench.performer._state = msgspec.structs.replace(bench.performer.state, log=msgspec.structs.replace(log, certified=log.frontier.size))
    await _within(lambda: bool(told))
    assert (told, _here(tmp_path)) == ([OpeningsErased(identity)], False)
    await bench.performer.take([told[0]])
    await bench.performer.take([Tick()])
    assert await _changes(bench) == [("erased", identity)]
    work.cancel()
    await bench.store.close()


async def test_a_node_says_once_that_it_has_erased_and_erases_again_what_came_back_with_an_old_disk(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    identity = await _told(bench, "cd" * 32)
    origin = bench.performer.state.log.origin
    await bench.performer.take([OpeningsErased(identity), Tick()])
    assert [at for _, at, _ in await bench.store.find(identity, 9)] == [origin]
    # its log has come back from the others, its openings from an old copy of the file
    await bench.store.commit([PutOpenings("cd" * 32, SECRET)])
    assert _here(tmp_path)
    told = list[OpeningsErased]()
    work = asyncio.create_task(erase_for_ever(bench.performer, told.append))
    await _within(lambda: not _here(tmp_path))
    await asyncio.sleep(0.3)
    assert (told, await _changes(bench)) == ([], [("erased", identity)])
    work.cancel()
    await bench.store.close()


async def test_a_node_that_ended_before_it_said_so_says_it_after_its_next_start(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    identity = await _told(bench, "ef" * 32)
    await bench.store.erase(["ef" * 32])
    governance = await load_governance(bench.store, LAB.governance)
    assert governance.erased == {"ef" * 32}
    told = list[OpeningsErased]()
    work = asyncio.create_task(erase_for_ever(bench.performer, told.append))
    await _within(lambda: bool(told))
    assert told == [OpeningsErased(identity)]
    work.cancel()
    await bench.store.close()


async def test_while_somebody_reads_an_older_state_it_is_not_said_also_if_only_an_old_disk_came_back(tmp_path: Path) -> None:
    for recorded in (False, True):
        folder = tmp_path / str(recorded)
        folder.mkdir()
        bench = await Bench.at(folder)
        identity = await _told(bench, "cd" * 32)
        if recorded:
            await bench.performer.take([OpeningsErased(identity), Tick()])
        await bench.store.commit([PutOpenings("cd" * 32, SECRET)])
        reader = sqlite3.connect(folder / "node.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM opening").fetchone()
        told = list[OpeningsErased]()
        work = asyncio.create_task(erase_for_ever(bench.performer, told.append))
        await asyncio.sleep(0.4)
        assert (told, _here(folder), await bench.store.unerased(["cd" * 32])) == ([], True, [])
        reader.close()
        await _within(lambda: not _here(folder))  # noqa: B023 -- it is over before the next turn
        await asyncio.sleep(0.3)
        assert told == ([] if recorded else [OpeningsErased(identity)])
        work.cancel()
        await bench.store.close()


async def test_what_a_process_that_was_killed_had_overwritten_goes_from_the_wal_that_it_left_also_if_it_was_said_long_ago(
    tmp_path: Path,
) -> None:
    bench = await Bench.at(tmp_path)
    identity = await _told(bench, "cd" * 32)
    await bench.performer.take([OpeningsErased(identity), Tick()])
    await bench.store.commit([PutOpenings("cd" * 32, SECRET)])
    reader = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM opening").fetchone()
    with pytest.raises(Unavailable):
        await bench.store.erase(["cd" * 32])
    reader.close()  # here it is killed; the next one finds this file
    assert (_here(tmp_path), await bench.store.unerased(["cd" * 32])) == (True, [])
    work = asyncio.create_task(erase_for_ever(bench.performer, lambda _: None))
    await _within(lambda: not _here(tmp_path))
    work.cancel()
    await bench.store.close()


async def test_erasing_ends_with_the_file(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    await _told(bench, "ef" * 32)
    await bench.store.close()
    await asyncio.wait_for(erase_for_ever(bench.performer, lambda _: None), 5)


async def test_erasing_ends_with_the_file_also_if_nothing_was_ever_to_be_erased(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    await bench.store.close()
    await asyncio.wait_for(erase_for_ever(bench.performer, lambda _: None), 5)


async def test_a_file_that_was_only_busy_is_asked_again(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    identity = await _told(bench, "cd" * 32)
    erase_, tries, told = bench.store.erase, list[int](), list[OpeningsErased]()

    async def busy_once(intents: Collection[str]) -> None:
        tries.append(len(intents))
        if len(tries) == 1:
            raise Unavailable("storage_failed", "SQLITE_BUSY: database is locked")
        await erase_(intents)

    bench.store.erase = busy_once  # type: ignore[method-assign]  # what BEGIN IMMEDIATE meets where somebody copies the file
    work = asyncio.create_task(erase_for_ever(bench.performer, told.append))
    await _within(lambda: bool(told))
    assert (told, tries) == ([OpeningsErased(identity)], [1, 1])
    work.cancel()
    await bench.store.close()


async def test_no_number_of_records_of_others_about_it_hides_what_is_not_final_in_the_own_log_or_was_said_there(tmp_path: Path) -> None:
    """Any member may write of any id that its openings were erased."""
    bench = await Bench.at(tmp_path)
    intent = await _asked(bench)
    identity = await _told(bench, intent)
    await bench.performer.take([OpeningsErased(identity), Tick()])
    other = bench.performer.state.log.origin.replace("eu-1", "us-1")
    leaves = [str(number).encode() for number in range(AUDIT_LOGS_MAX + 1)]
    places = [Locate(about, other, number) for about in (intent, identity) for number in range(len(leaves))]
    await bench.store.commit([Append(other, 0, tuple(leaves), tuple(map(leaf_hash, leaves))), *places])
    state = bench.performer.state
    bench.performer._state = msgspec.structs.replace(state, log=msgspec.structs.replace(state.log, certified=0))
    told = list[OpeningsErased]()
    work = asyncio.create_task(erase_for_ever(bench.performer, told.append))
    await asyncio.sleep(0.4)
    assert _here(tmp_path)
    bench.performer._state = msgspec.structs.replace(state, log=msgspec.structs.replace(state.log, certified=state.log.frontier.size))
    await _within(lambda: not _here(tmp_path))
    await asyncio.sleep(0.3)
    assert told == []
    work.cancel()
    await bench.store.close()


async def test_an_erasure_is_stored_like_any_statement_and_its_record_is_found_under_its_id(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    kept: list[object] = []
    commit = bench.store.commit

    async def watched(effects: object) -> None:
        kept.extend(effects)  # type: ignore[arg-type]
        await commit(effects)  # type: ignore[arg-type]

    bench.store.commit = watched  # type: ignore[method-assign]
    identity = await _told(bench, "ef" * 32)
    await bench.performer.take([OpeningsErased(identity), Tick()])
    assert [item.stream for item in kept if isinstance(item, PutLaw)] == ["erase"]
    assert [item.id for item in kept if isinstance(item, Locate)] == [identity]
    await bench.store.close()


async def test_openings_that_another_member_offers_again_are_not_kept_and_its_records_are_attested(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.start(fresh=True)
    owner, hidden = Owner(), list[str]()
    for number in range(3):
        intent, data, openings = MACHINES.intent(200 + number, memo=SECRET.decode(), at_ms=NOW)
        owner.decide(MACHINES.request(data, openings))
        hidden.append(intent)
    statement = erase(MACHINES, *hidden[:2])
    await desk.take(LawArrived(pack(LawBatch(statements=[msgspec.Raw(statement.envelope)]))))
    assert desk.state.governance.erased == set(hidden[:2])
    work = asyncio.create_task(erase_for_ever(desk.performer, lambda _: None))
    await asyncio.sleep(0.3)
    await desk.take(LineageArrived(pack(batch(owner, note=owner.note())), pulled=True, node=owner.member.name))
    store = desk.performer.store
    held = desk.state.mirrors[owner.origin]
    assert held.attested is not None
    assert (held.attested.size, await store.openings(hidden)) == (3, {hidden[2]: owner.openings[hidden[2]]})
    work.cancel()
    await desk.end()
