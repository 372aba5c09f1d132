"""What a node committed is there, whole and in its order, and what would take any of it back is refused."""

import asyncio
import random
import sqlite3
import time
from pathlib import Path

import pytest

from mesh.adapters import sqlite as sqlite_module
from mesh.adapters import store as store_module
from mesh.adapters.store import Conflict, Store
from mesh.core.log.merkle import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency, verify_inclusion
from mesh.errors import Alarm, Refused, Unavailable
from mesh.limits import SQLITE_WAIT_MS_MAX
from mesh.protocol.step import Append, Head, InsertOnce, Locate, Persist, PutBody, PutLaw, PutNote, PutOpenings, SetHead, SetMeta
from tests.adapters.storekit import LOG, NAME, PEER, append, filled, frontier_of, head, ident, refused, tamper

# ---------------------------------------------------------------------------------------------------------- what is kept


async def test_everything_that_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.sizes() == {LOG: 300, PEER: 2}
    assert await store.heads() == {("log", LOG): head(LOG, 300).head, ("witness", PEER): head(PEER, 2).head}
    assert await store.frontier(LOG) == frontier_of(LOG, 300)
    assert await store.records(LOG, 298, 10) == list(append(LOG, 298, 2).leaves)
    assert await store.bodies([ident(1), ident(9)]) == {ident(1): b"envelope one"}
    assert await store.all_law() == [(ident(3), b"revocation one")]
    assert await store.openings([ident(1), ident(2)]) == {ident(1): b"openings one"}
    assert await store.once("intent", {ident(1): 7, ident(2): 7}) == {ident(1): 299}
    assert await store.once("intent", {ident(1): 8}) == {}
    assert await store.once("outcome", {ident(1): 7}) == {}
    assert await store.find(ident(2), 9) == [(ident(2), PEER, 1)]
    assert await store.note("checkpoint", LOG) == (300, b"checkpoint 300")
    assert await store.note("certificate", LOG) == (300, b"certificate 300")
    assert await store.meta("incarnation") == 7
    assert await store.scrub(LOG) == 300
    await store.commit([append(LOG, 300, 1)])
    assert await store.frontier(LOG) == frontier_of(LOG, 301)
    await store.close()


async def test_what_was_never_stored_is_an_answer_not_an_error(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    assert (await store.sizes(), await store.heads()) == ({}, {})
    assert (await store.frontier(LOG)).root() == EMPTY_ROOT
    assert await store.records(LOG, 0, 5) == []
    assert (await store.bodies([]), await store.find("", 5)) == ({}, [])
    assert (await store.all_law(), await store.law("revoke/aa", 0, "", 5)) == ([], [])
    assert await store.note("certificate", LOG, latest=True) is None
    assert await store.meta("nothing") is None
    assert await store.scrub(LOG) == 0
    await store.commit([])
    await store.close()


async def test_the_file_says_whose_it_is_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert connection.execute("SELECT name, sqlite FROM owner").fetchall() == [("a", sqlite3.sqlite_version)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    await refused(Store.open(tmp_path / NAME, owner="b"), Refused, "config_invalid")
    await (await Store.open(tmp_path / NAME, owner="a")).close()


async def test_who_finds_the_file_locked_waits_so_long_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "_PRAGMAS", _waiting(SQLITE_WAIT_MS_MAX // 25))
    await (await filled(tmp_path)).close()
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    await refused(Store.open(tmp_path / NAME, owner="a"), Unavailable, "storage_failed")
    assert time.monotonic() - begun >= SQLITE_WAIT_MS_MAX / 25_000
    asyncio.get_running_loop().call_later(0.05, other.close)
    await (await Store.open(tmp_path / NAME, owner="a")).close()


def _waiting(length_ms: int) -> tuple[str, ...]:
    """What is set on every connection, with a shorter patience."""
    whole = f"busy_timeout = {SQLITE_WAIT_MS_MAX}"
    assert whole in sqlite_module._PRAGMAS
    return tuple(f"busy_timeout = {length_ms}" if pragma == whole else pragma for pragma in sqlite_module._PRAGMAS)


async def test_a_file_written_by_another_sqlite_says_so_from_then_on(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    tamper(tmp_path, "UPDATE owner SET sqlite = '3.37.0'")
    await (await Store.open(tmp_path / NAME, owner="a")).close()
    connection = sqlite3.connect(tmp_path / NAME)
    assert connection.execute("SELECT sqlite FROM owner").fetchone() == (sqlite3.sqlite_version,)
    connection.close()


async def test_commits_sync_in_full(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    session = store_module.Session(store._file._writer)
    assert await session.fetch("PRAGMA synchronous") == [(2,)]
    assert await session.fetch("PRAGMA foreign_keys") == [(1,)]
    await store.close()


async def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    await refused(Store.open(tmp_path / NAME, owner="a"), Refused, "config_invalid")
    (tmp_path / "text.db").write_bytes(b"this is no database" * 100)
    await refused(Store.open(tmp_path / "text.db", owner="a"), Alarm, "storage_corrupt")
    await refused(Store.open(tmp_path / "no" / NAME, owner="a"), Unavailable, "storage_failed")
    (tmp_path / "folder.db").mkdir()
    await refused(Store.open(tmp_path / "folder.db", owner="a"), Unavailable, "storage_failed")


# ------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(head(LOG, 299, 2), id="smaller size"),
        pytest.param(SetHead("log", LOG, Head(300, bytes(32), 2)), id="other root at the same size"),
        pytest.param(head(LOG, 300, 0), id="earlier time"),
        pytest.param(append(LOG, 299, 2), id="record that is there"),
        pytest.param(append(LOG, 301, 1), id="gap"),
        pytest.param(append("dev/c/e1", 1, 1), id="gap in a new log"),
    ],
)
async def test_what_would_move_back_is_an_alarm_and_leaves_nothing(tmp_path: Path, wrong: Persist) -> None:
    store = await filled(tmp_path)
    await refused(store.commit([SetMeta("incarnation", 8), append(PEER, 2, 1), wrong]), Alarm, "storage_rolled_back")
    assert await store.meta("incarnation") == 7
    assert await store.sizes() == {LOG: 300, PEER: 2}
    assert (await store.heads())["log", LOG] == head(LOG, 300).head
    await store.commit([head(LOG, 300, 1), append(LOG, 300, 1), head(LOG, 301, 1), append(PEER, 2, 1)])
    assert await store.sizes() == {LOG: 301, PEER: 3}
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM log",
        "DELETE FROM record",
        "DELETE FROM branch",
        "DELETE FROM body",
        "DELETE FROM located",
        "DELETE FROM document",
        "DELETE FROM used",
        "DELETE FROM law",
        "DELETE FROM head",
        "UPDATE log SET origin = 'x'",
        "UPDATE record SET data = x'00'",
        "UPDATE branch SET hash = zeroblob(32)",
        "UPDATE body SET envelope = x'00'",
        "UPDATE located SET idx = 5",
        "UPDATE document SET envelope = x'00'",
        "UPDATE used SET at_ms = 5",
        "UPDATE used SET idx = 5",
        "UPDATE law SET envelope = x'00'",
        "UPDATE law SET sequence = 2",
        "UPDATE head SET size = size - 1",
        "UPDATE head SET root = zeroblob(32)",
        "UPDATE head SET time_s = 0",
        "UPDATE head SET use = 'attest'",
        "REPLACE INTO head SELECT use, log, size - 1, root, time_s, sum FROM head",
        "REPLACE INTO record SELECT n, log, idx, leaf, x'00' FROM record WHERE idx = 0",
        "REPLACE INTO record SELECT n, log, idx + 1, leaf, data FROM record WHERE idx = 299",
        "REPLACE INTO body SELECT n, id, kind, x'00', sum FROM body",
        "INSERT INTO record SELECT 9999, log, idx + 2, leaf, data FROM record WHERE idx = 299",
    ],
)
async def test_the_file_itself_refuses_to_forget_whoever_writes(tmp_path: Path, statement: str) -> None:
    await (await filled(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / NAME)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute(statement)
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_TRIGGER
    connection.close()


@pytest.mark.parametrize(
    "again", [[InsertOnce("intent", ident(1), 7, 5)], [InsertOnce("intent", ident(3), 9, 5), InsertOnce("intent", ident(3), 9, 6)]]
)
async def test_a_key_that_is_not_new_is_named_and_leaves_nothing(tmp_path: Path, again: list[InsertOnce]) -> None:
    store = await filled(tmp_path)
    step: list[Persist] = [
        append(LOG, 300, 1),
        InsertOnce("intent", ident(4), 7, 300),
        InsertOnce("outcome", ident(1), 7, 300),
        *again,
        SetMeta("x", 1),
    ]
    error = await refused(store.commit(step), Conflict, "intent_conflict")
    assert isinstance(error, Conflict)
    assert (error.space, error.key) == ("intent", again[-1].key)
    assert await store.once("intent", dict.fromkeys([ident(number) for number in range(9)], 7)) == {ident(1): 299}
    assert (await store.sizes())[LOG] == 300
    assert await store.meta("x") is None
    await store.commit(step[:3])
    assert await store.once("outcome", {ident(1): 7}) == {ident(1): 300}
    await store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        PutBody(ident(5).upper(), "intent", b""),
        PutBody(ident(5)[:-2], "intent", b""),
        PutLaw("revoke/aa", 1, "z" * 64, b""),
        PutOpenings("z" * 64, b""),
        InsertOnce("intent", " " + ident(5)[1:], 7, 1),
        Locate("", LOG, 1),
        Append(LOG, 300, (b"one", b"two"), (leaf_hash(b"one"),)),
    ],
)
async def test_what_is_no_id_is_refused_and_leaves_nothing(tmp_path: Path, wrong: Persist) -> None:
    store = await filled(tmp_path)
    await refused(store.commit([SetMeta("x", 1), wrong]), Refused, "malformed")
    assert await store.meta("x") is None
    await store.commit([SetMeta("x", 2)])
    await store.close()


async def test_a_record_with_the_hash_of_another_is_never_stored(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await refused(store.commit([Append(LOG, 300, (b"one",), (leaf_hash(b"two"),))]), Alarm, "storage_corrupt")
    assert (await store.sizes())[LOG] == 300
    await store.commit([append(LOG, 300, 1)])
    await store.close()


async def test_a_body_and_a_place_can_come_again(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.commit([PutBody(ident(1), "intent", b"other signatures"), PutOpenings(ident(1), b"other"), Locate(ident(1), LOG, 299)])
    await store.commit([PutBody(ident(5), "intent", b"five"), PutBody(ident(5), "intent", b"five"), *[Locate(ident(5), LOG, 7)] * 2])
    assert await store.bodies([ident(1), ident(5)]) == {ident(1): b"envelope one", ident(5): b"five"}
    assert await store.openings([ident(1)]) == {ident(1): b"openings one"}
    assert await store.find(ident(1), 9) == [(ident(1), LOG, 299)]
    assert await store.find(ident(5), 9) == [(ident(5), LOG, 7)]
    await store.close()


async def test_not_even_replacing_changes_a_governance_statement_on_a_connection_of_the_store(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    with pytest.raises(sqlite3.IntegrityError):
        await store._file._writer.execute("REPLACE INTO law SELECT stream, sequence, id, x'00', sum FROM law")
    await store._file._writer.rollback()
    assert await store.all_law() == [(ident(3), b"revocation one")]
    await store.close()


async def test_a_governance_statement_can_come_again_and_stays_as_it_came_first(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    again = PutLaw("revoke/aa", 1, ident(3), b"other signatures")
    await store.commit([again, PutLaw("revoke/aa", 2, ident(4), b"two"), again])
    assert await store.law("revoke/aa", 0, "", 9) == [b"revocation one", b"two"]
    assert await store.all_law() == [(ident(3), b"revocation one"), (ident(4), b"two")]
    await store.close()


async def test_what_a_stream_said_is_deleted_only_once_nothing_of_it_counts(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.commit([PutLaw("revoke/bb", 1, ident(5), b"stays"), PutLaw("revoke/aa", 2, ident(4), b"two")])
    with pytest.raises(sqlite3.IntegrityError):
        await store._file._writer.execute("DELETE FROM law WHERE stream = 'revoke/aa'")
    await store._file._writer.rollback()
    for _ in range(2):  # also if the node ended before it had read again what is left
        await store.forget({"revoke/aa", "revoke/none"})
        assert await store.all_law() == [(ident(5), b"stays")]
    with pytest.raises(sqlite3.IntegrityError):
        await store._file._writer.execute("DELETE FROM forgotten")
    await store._file._writer.rollback()
    await store.close()


async def test_a_governance_stream_is_read_page_by_page_in_the_order_of_number_and_id(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    numbers = [1, 1, 1, 2, 3, 9, 9, 10, 11, 100, 2**53 - 1]
    keys = [(number, ident(at)) for at, number in enumerate(numbers)]
    said = [PutLaw("revoke/aa", number, key, f"{number} {key}".encode()) for number, key in keys]
    others = [PutLaw(stream, number, ident(50 + number), b"another stream") for stream in ("revoke/a", "revoke/aaa") for number in (0, 5)]
    shuffled = [*said, *others]
    random.Random(1).shuffle(shuffled)
    await store.commit(shuffled)
    ordered = [f"{number} {key}".encode() for number, key in sorted(keys)]
    for count in (1, 2, 3, 20):
        after, read = (0, ""), list[bytes]()
        while page := await store.law("revoke/aa", *after, count):
            assert len(page) <= count
            read += page
            number, _, key = page[-1].decode().partition(" ")
            after = (int(number), key)
        assert read == ordered
    assert await store.law("revoke/aa", 9, "", 1) == [ordered[5]]  # an empty id is before all of its number
    assert await store.law("revoke/aa", 9, "ff" * 32, 1) == [ordered[7]]
    assert await store.law("revoke/none", 0, "", 9) == []
    await refused(store.law("revoke/aa", 9, "z" * 64, 1), Refused, "malformed")
    assert len(await store.all_law()) == len(shuffled)
    await store.close()


async def test_more_ids_than_fit_one_query_are_answered(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([PutBody(ident(number), "intent", str(number).encode()) for number in range(1_300)])
    assert await store.bodies([ident(number) for number in range(1_400)]) == {
        ident(number): str(number).encode() for number in range(1_300)
    }
    await refused(store.bodies(["x"]), Refused, "malformed")
    await store.close()


# ---------------------------------------------------------------------------------------------------- notes and searching


async def test_every_certificate_and_the_newest_checkpoint_are_kept(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    for size in (10, 20, 30):
        await store.commit([PutNote(space, LOG, size, f"{space} {size}".encode()) for space in ("checkpoint", "certificate")])
    await store.commit([PutNote("checkpoint", LOG, 15, b"late"), PutNote("checkpoint", PEER, 3, b"peer")])
    assert await store.note("certificate", LOG) == (10, b"certificate 10")
    assert await store.note("certificate", LOG, at_least=10) == (10, b"certificate 10")
    assert await store.note("certificate", LOG, at_least=11) == (20, b"certificate 20")
    assert await store.note("certificate", LOG, at_least=31) is None
    assert await store.note("certificate", LOG, latest=True) == (30, b"certificate 30")
    assert await store.note("checkpoint", LOG) == (30, b"checkpoint 30")
    assert await store.note("checkpoint", PEER) == (3, b"peer")
    await store.commit([PutNote("checkpoint", LOG, 30, b"more signatures")])
    assert await store.note("checkpoint", LOG, latest=True) == (30, b"more signatures")
    await store.close()


async def test_of_what_a_member_cosigned_and_of_its_heartbeats_the_newest_is_kept(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    for size in (10, 30, 20):
        await store.commit([PutNote("cosigned", LOG, size, f"b {size}".encode(), "b"), PutNote("heartbeat", LOG, size, f"{size}".encode())])
    await store.commit([PutNote("cosigned", LOG, 10, b"c 10", "c")])
    for note, kept in ((("b", "cosigned"), (30, b"b 30")), (("c", "cosigned"), (10, b"c 10")), (("", "heartbeat"), (30, b"30"))):
        member, space = note
        assert await store.note(space, LOG, member=member) == kept  # type: ignore[arg-type]  # both are spaces
    assert await store.note("cosigned", LOG) is None
    await store.close()


async def test_the_newest_certificates_come_first_and_as_many_as_are_asked_for(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([PutNote("certificate", LOG, size, f"{size}".encode()) for size in (10, 30, 20)])
    assert await store.certificates(LOG, 2) == [b"30", b"20"]
    assert await store.certificates(LOG, 9) == [b"30", b"20", b"10"]
    assert await store.certificates(PEER, 9) == []
    await store.close()


async def test_records_are_found_by_any_prefix_newest_first(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    places = [(ident(number % 300), PEER if number % 3 else LOG, number) for number in range(600)]
    for start in range(0, 600, 50):
        await store.commit([Locate(*place) for place in places[start : start + 50]])
    for digits in (0, 1, 2, 3, 4, 63, 64):
        prefix = ident(7)[:digits]
        expected = [place for place in reversed(places) if place[0].startswith(prefix)]
        assert await store.find(prefix, 1_000) == expected
        assert await store.find(prefix, 1) == expected[:1]
    for wrong in ("g", "A", " ", "0" * 65):
        await refused(store.find(wrong, 1), Refused, "malformed")
    await store.close()


# --------------------------------------------------------------------------------------------------- trees from few hashes


async def test_proofs_of_every_small_size_lead_to_its_root(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    whole = append(LOG, 0, 600)
    await store.commit([append(LOG, 0, 255), append(LOG, 255, 2), append(LOG, 257, 343)])
    roots, frontier, dice = [EMPTY_ROOT], Frontier.empty(), random.Random(1)
    for leaf in whole.hashes:
        frontier = frontier.append(leaf)
        roots.append(frontier.root())
    for size in range(1, 601):
        for index in {0, size - 1, dice.randrange(size)}:
            verify_inclusion(whole.hashes[index], index, size, roots[size], await store.inclusion_path(LOG, index, size))
        old = dice.randint(1, size)
        verify_consistency(old, size, roots[old], roots[size], await store.consistency_path(LOG, old, size))
    for call in (store.inclusion_path(LOG, 0, 601), store.inclusion_path(LOG, 5, 5), store.inclusion_path(PEER, 0, 1)):
        await refused(call, Refused, "not_found")
    for call in (store.consistency_path(LOG, 1, 601), store.consistency_path(LOG, 0, 5), store.consistency_path(LOG, 6, 5)):
        await refused(call, Refused, "not_found")
    await store.close()


async def test_proofs_across_all_stored_levels_lead_to_the_root(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    size = 2**16 + 2**8 * 3 + 5
    whole = append(LOG, 0, size)
    for first in range(0, size, 8_192):
        await store.commit([append(LOG, first, min(8_192, size - first))])
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert connection.execute("SELECT level, count(*) FROM branch GROUP BY level").fetchall() == [(8, 2**8 + 3), (16, 1)]
    connection.close()
    dice = random.Random(2)
    for _ in range(60):
        new = dice.randint(2, size)
        old, index = dice.randint(1, new), dice.randrange(new)
        root = Frontier.empty().extend(whole.hashes[:new]).root()
        verify_inclusion(whole.hashes[index], index, new, root, await store.inclusion_path(LOG, index, new))
        old_root = Frontier.empty().extend(whole.hashes[:old]).root()
        verify_consistency(old, new, old_root, root, await store.consistency_path(LOG, old, new))
    await store.commit([SetHead("log", LOG, Head(size, Frontier.empty().extend(whole.hashes).root(), 1))])
    assert await store.frontier(LOG) == Frontier.empty().extend(whole.hashes)
    assert await store.scrub(LOG) == size
    await store.close()


async def test_the_frontier_is_rebuilt_at_a_thousand_sizes_wherever_the_head_stands(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    dice, frontier = random.Random(3), Frontier.empty()
    for turn in range(1_000):
        step = append(LOG, frontier.size, dice.randint(1, 12))
        frontier = frontier.extend(step.hashes)
        signed = [SetHead(dice.choice(["log", "attest"]), LOG, Head(frontier.size, frontier.root(), turn))] if dice.random() < 0.1 else []
        await store.commit([step, *signed])
        assert await store.frontier(LOG) == frontier
        if turn % 200 == 0:  # and what the writer goes on from after a restart is the same
            await store.close()
            store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.scrub(LOG) == frontier.size
    await store.close()


async def test_the_frontier_of_any_earlier_size_is_rebuilt_and_leads_on_to_what_was_signed(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([append(LOG, 0, 1_200), head(LOG, 700), head(LOG, 900, use="attest")])
    for size in (0, 1, 255, 256, 511, 512, 699, 700, 701, 768, 899, 900, 901, 1_024, 1_200):
        assert await store.frontier_at(LOG, size) == frontier_of(LOG, size)
    for size in (-1, 1_201):
        await refused(store.frontier_at(LOG, size), Refused, "not_found")
    await store.close()
    tamper(tmp_path, "UPDATE branch SET hash = zeroblob(32) WHERE number = 0")
    store = await Store.open(tmp_path / NAME, owner="a")
    for size in (300, 700, 800, 1_200):
        await refused(store.frontier_at(LOG, size), Alarm, "storage_corrupt")
    await store.close()


async def test_a_witness_may_be_ahead_of_the_records_it_holds_but_a_signer_not(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([append(PEER, 0, 5), head(PEER, 9, use="witness")])
    assert await store.frontier(PEER) == frontier_of(PEER, 5)
    assert await store.scrub(PEER) == 5
    await store.commit([head(PEER, 8, use="attest")])
    await refused(store.scrub(PEER), Alarm, "storage_rolled_back")
    await store.close()
