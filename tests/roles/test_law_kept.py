"""What a governor took in denies again when it starts, is handed to whoever asks, and is not believed when the file was changed."""

from pathlib import Path

import msgspec
import pytest

from mesh.adapters.store import Store
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import restore
from mesh.core.law.reign import Handover
from mesh.core.law.roster import ROSTERS
from mesh.core.law.travel import Said, read_law
from mesh.core.messages import LawAsked, LawBatch, unpack
from mesh.errors import Alarm
from mesh.limits import BATCH_RECORDS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol.begin import begin
from mesh.protocol.gossip import put
from mesh.protocol.governor import Machine
from mesh.protocol.step import Persist, PutLaw, SetMeta
from mesh.protocol.stored import ROSTER_EPOCH
from mesh.roles.answers import law
from mesh.roles.loading import load_governance, load_state
from tests.support.factory import T0, Lab
from tests.support.halts import SAID
from tests.support.revocations import STREAM, WORLD, chained, governance

LAB = Lab()
PLAIN = governance(LAB)
ME = PLAIN.roster.members[0]


async def _store(path: Path, *said: Persist) -> Store:
    store = await Store.open(path / "node.db", owner=ME.name)
    await store.commit(said)
    return store


async def test_what_was_taken_in_denies_again_after_a_restart(tmp_path: Path) -> None:
    said: tuple[Statement[Said], ...] = (*WORLD, *SAID)
    await (await _store(tmp_path, *map(put, reversed(said)))).close()
    store = await Store.open(tmp_path / "node.db", owner=ME.name)
    state = begin(Machine(PLAIN, ME, LAB.engine), await load_state(store, PLAIN, ME), boot="b0" * 32, now_ms=T0).state
    held = restore(PLAIN, said)
    assert state.governance.digest == held.digest
    assert state.governance.halted == held.halted != {}
    assert state.governance.revoked == held.revoked
    assert dict(state.governance.streams) == dict(held.streams)
    await store.close()


@pytest.mark.parametrize("epoch", [1, 2])
async def test_what_begins_anew_is_deleted_once_that_roster_is_in_force_and_not_before(tmp_path: Path, epoch: int) -> None:
    claims = msgspec.structs.replace(
        PLAIN.roster,
        epoch=2,
        previous=PLAIN.roster_id,
        not_before_ms=PLAIN.roster.not_before_ms + 2 * PLAIN.roster.bounds.stale_ms,
        handovers={STREAM: Handover(sequence=0, head="")},
    )
    said: tuple[Statement[Said], ...] = (*WORLD, *SAID, read_law(LAB.seal(claims)))
    store = await _store(tmp_path, *map(put, said), SetMeta(ROSTER_EPOCH, epoch))
    state = await load_governance(store, PLAIN)
    denied = {(item.claims.target.type, item.claims.target.value) for item in WORLD if item.claims.link[0] != STREAM or epoch == 1}
    assert (state.roster.epoch, state.revoked) == (epoch, denied)
    left = {read_law(data).claims.link[0] for _, data in await store.all_law()}
    assert (STREAM in left) == (epoch == 1)
    assert ROSTERS in left
    await store.close()


@pytest.mark.parametrize("what", ["another statement", "no statement", "a statement of another kind"])
async def test_a_statement_that_is_not_the_one_it_is_kept_as_stops_the_start(tmp_path: Path, what: str) -> None:
    one, two = chained(2)
    data = {"another statement": two.envelope, "no statement": b"{}", "a statement of another kind": LAB.roster_envelope}[what]
    store = await _store(tmp_path, PutLaw(STREAM, 1, one.id, data))
    with pytest.raises(Alarm) as caught:
        await load_state(store, PLAIN, ME)
    assert caught.value.code == "storage_corrupt"
    await store.close()


@pytest.mark.parametrize(("size", "least"), [(100, BATCH_RECORDS_MAX), (131_072, 7)])
async def test_an_answer_holds_as_many_statements_as_fit_one_message_and_the_next_goes_on_behind_them(
    tmp_path: Path, size: int, least: int
) -> None:
    said = sorted((1 + number % 3, sha256_hex(b"%d" % number)) for number in range(300 if size < 1000 else 20))
    store = await _store(tmp_path, *(PutLaw(STREAM, number, key, b'"%s"' % key.encode().ljust(size - 2, b".")) for number, key in said))
    after, read = (0, ""), list[str]()
    while True:
        answer = await law(store, LawAsked(stream=STREAM, sequence=after[0], id=after[1]))
        assert len(answer) <= MESSAGE_BYTES_MAX
        page = [msgspec.json.decode(raw)[:64] for raw in unpack(LawBatch, answer).statements]
        if not page:
            break
        read += page
        assert len(page) >= min(least, len(said) - len(read) + len(page))
        after = said[len(read) - 1]
    assert read == [key for _, key in said]
    await store.close()
