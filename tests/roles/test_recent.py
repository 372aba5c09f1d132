"""What is announced from memory is what is on the disk, and what is not in memory is read."""

from pathlib import Path

from mesh.adapters.store import Store
from mesh.core.log.merkle import leaf_hash
from mesh.core.messages import LineageBatch, unpack
from mesh.protocol.begin import begin
from mesh.protocol.events import IntentArrived, Tick
from mesh.protocol.governor import Machine
from mesh.protocol.state import Facts
from mesh.protocol.step import Append, Persist, PutBody, PutOpenings
from mesh.roles.answers import announcement
from mesh.roles.loading import load_state
from mesh.roles.recent import BYTES_MAX, Recent
from tests.support.factory import T0, Lab

LOG = "lab/eu-1/e1"


def records(first: int, count: int, origin: str = LOG, size: int = 10) -> Append:
    leaves = tuple(b"%d " % index + bytes(size) for index in range(first, first + count))
    return Append(origin, first, leaves, tuple(map(leaf_hash, leaves)))


def body(number: int) -> PutBody:
    return PutBody(f"{number:064x}", "intent", b"body %d" % number)


def test_commits_that_follow_each_other_are_announced_as_one() -> None:
    recent = Recent(LOG)
    recent.keep([records(5, 2), body(1)])
    recent.keep([body(2), records(7, 1), PutOpenings("ab" * 32, b"secret"), records(8, 2)])
    recent.keep([records(10, 1), body(3)])
    found = recent.announced(5, 9)
    assert found is not None
    assert found[0] == [*records(5, 4).leaves]
    assert set(found[1].values()) == {b"body 1", b"body 2"}
    rest = recent.announced(9, 11)
    assert rest is not None
    assert rest[0] == [*records(9, 2).leaves]
    assert {b"body 2", b"body 3"} == set(rest[1].values())


def test_what_was_announced_is_forgotten() -> None:
    recent = Recent(LOG)
    recent.keep([records(0, 3)])
    assert recent.announced(0, 3) is not None
    assert recent.announced(0, 3) is None


def test_a_gap_is_no_answer() -> None:
    recent = Recent(LOG)
    recent.keep([records(4, 2)])
    assert recent.announced(3, 6) is None
    recent.keep([records(7, 2)])
    recent.keep([records(10, 2)])
    assert recent.announced(7, 12) is None
    recent.keep([records(12, 2)])
    assert recent.announced(12, 15) is None


def test_logs_of_others_are_not_kept() -> None:
    recent = Recent(LOG)
    recent.keep([records(0, 3, origin="lab/us-1/e1"), body(1)])
    assert recent.announced(0, 3) is None


def test_the_bound_drops_the_oldest() -> None:
    recent = Recent(LOG)
    half = BYTES_MAX // 2 - 100
    recent.keep([records(0, 1, size=half)])
    recent.keep([records(1, 1, size=half)])
    recent.keep([records(2, 1, size=half)])
    assert recent.announced(0, 3) is None
    recent.keep([records(3, 1, size=half)])
    recent.keep([records(4, 1, size=half)])
    recent.keep([records(5, 1, size=half)])
    assert recent.announced(4, 6) is not None
    recent.keep([records(6, 1, size=BYTES_MAX)])
    assert recent.announced(6, 7) is None


async def test_memory_and_file_announce_the_same_bytes(tmp_path: Path) -> None:
    lab = Lab(members=1, f=0, k=1)
    machine = Machine(lab.governance, lab.governance.roster.member("eu-1"), lab.engine)
    store = await Store.open(tmp_path / "node.db", owner="eu-1")
    stored = await load_state(store, lab.governance, machine.me)
    recent = Recent(LOG)
    begun = begin(machine, stored, boot="b1" * 32, now_ms=T0 + 1_000)
    asked = [IntentArrived(number, lab.request(*lab.intent(number, at_ms=T0 + 1_000)[1:])) for number in range(5)]
    beaten = machine.step(begun.state, [Tick()], now_ms=T0 + 1_000, wall_ms=T0 + 1_000, facts=Facts())
    decided = machine.step(beaten.state, asked, now_ms=T0 + 1_000, wall_ms=T0 + 1_000, facts=Facts())
    for step in (begun, beaten, decided):
        kept = [effect for effect in step.effects if isinstance(effect, Persist)]
        if kept:
            await store.commit(kept)
            recent.keep(kept)
    size = decided.state.log.frontier.size
    ours = await announcement(store, recent, LOG, 0, size, b"note")
    assert ours == await announcement(store, Recent(LOG), LOG, 0, size, b"note")
    batch = unpack(LineageBatch, ours[0])
    assert len(batch.records) == size
    assert len(batch.bodies) == 5 + 2
    await store.close()
