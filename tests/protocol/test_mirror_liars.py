"""One liar delays a mirror and never stops it; a log's own lies are kept with their signatures."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.note import Note
from mesh.core.log.record import AttestRefused, Incident, Noise
from mesh.core.messages import LineageBatch, pack
from mesh.errors import Alarm
from mesh.protocol.events import Event, HeartbeatArrived, LineageArrived, NoteArrived, Stopping, Tick
from mesh.protocol.refusing import conflict_key, refused_key
from mesh.protocol.step import Append, Ask, SetHead, SetMeta, Sign
from tests.protocol.machines import LAB, ME, MESH, NOW, OWNER, Governor, Owner, batch, beat, line, only
from tests.protocol.test_mirror import MEMBERS, ORIGIN, STALL_MS, Holder, _owner
from tests.support.littlemesh import LittleMesh

NONSENSE = b'{"record":"nonsense"}'
OTHERS = [member.name for member in MEMBERS if member.name not in {ME.name, OWNER.name}]


def _invented(first: int, count: int = 1, checkpoint: str = "") -> LineageBatch:
    """Records in good form that the log's owner never wrote."""
    records = [
        Noise(mesh=MESH, origin=ORIGIN, index=index, at_ms=NOW, code="malformed", count=1, from_ms=0, to_ms=NOW)
        for index in range(first, first + count)
    ]
    raws = [msgspec.Raw(canonical.encode(record)) for record in records]
    return LineageBatch(
        origin=ORIGIN, first=first, records=raws, bodies=[], pruned=[], openings=[], path=[], start=[], checkpoint=checkpoint
    )


def _signed(size: int, root: bytes = bytes(32), owner: Any = OWNER) -> bytes:
    text = Checkpoint(LAB.roster.origin(owner), size, root).to_text()
    return Note(text, (line(owner, "log", text),)).encode()


def _incidents(mine: Holder) -> list[Incident]:
    return [record for record in mine.records() if isinstance(record, Incident)]


# ---------------------------------------------------------------------------------------------------------------- poisoners


def test_records_count_only_on_their_owners_subject() -> None:
    mesh = LittleMesh(LAB)
    victim, other = mesh.nodes["eu-1"], mesh.nodes["us-1"]
    held = other.state.mirrors[victim.origin].held
    fake = LineageBatch(origin=victim.origin, first=held, records=[], bodies=[], pruned=[], openings=[], path=[], start=[], checkpoint="")
    record = Noise(mesh=MESH, origin=victim.origin, index=held, at_ms=NOW, code="malformed", count=1, from_ms=0, to_ms=NOW)
    fake = msgspec.structs.replace(fake, records=[msgspec.Raw(canonical.encode(record))])
    mesh.deliver("us-1", LineageArrived(pack(fake), pulled=False, node="sa-1"))
    assert other.state.mirrors[victim.origin].held == held
    assert other.state.noise["record_invalid"] == 1
    mesh.deliver("us-1", LineageArrived(pack(fake), pulled=False, node="eu-1"))
    assert other.state.mirrors[victim.origin].held == held + 1


def test_what_was_pulled_replaces_what_is_staged() -> None:
    owner, mine = _owner(3), Holder()
    mine.batch(_invented(0, 2), helper="")
    mine.note(owner.note())
    (append,) = only(Append, mine.batch(batch(owner)))
    assert append.leaves == tuple(owner.leaves)


def test_the_same_records_again_cost_nothing_of_what_is_staged() -> None:
    owner, mine = _owner(4), Holder()
    gone = list(owner.bodies)
    mine.batch(batch(owner))
    before = mine.state.staged
    mine.batch(batch(owner, 0, 2, without=gone))
    assert mine.state.staged == before


def test_a_helper_that_sends_junk_is_left_for_the_next_until_one_is_honest() -> None:
    owner, mine = _owner(5), Holder()
    mine.note(owner.note())
    asked: list[str] = []
    for _ in range(20):
        for ask in mine.tick():
            asked.append(ask.member)
            if ask.member == OTHERS[0]:
                mine.batch(_invented(ask.first, 5), helper=ask.member)
            elif ask.member == OTHERS[1]:
                mine.batch(batch(owner, ask.first), helper=ask.member)
    assert mine.state.frontier == owner.log.frontier
    assert asked == [OWNER.name] * 2 + [OTHERS[0], OTHERS[1]]


def test_a_checkpoint_of_many_pulls_is_reached_though_a_liar_is_asked_too() -> None:
    owner, mine = _owner(9), Holder()
    mine.note(owner.note())
    for _ in range(60):
        for ask in mine.tick():
            if ask.member == OTHERS[0]:
                mine.batch(_invented(ask.first, 2), helper=ask.member)
            elif ask.member == OTHERS[1]:
                mine.batch(batch(owner, ask.first, 2), helper=ask.member)
                mine.batch(_invented(ask.first, 9), helper=OTHERS[0])  # a late answer of the liar's
    assert mine.state.frontier == owner.log.frontier
    assert _incidents(mine) == []


def test_nobody_is_accused_because_of_what_others_send() -> None:
    owner, mine = _owner(3), Holder()
    mine.note(owner.note())
    for _ in range(4 * STALL_MS // 300):
        for ask in mine.tick():
            if ask.member != OWNER.name:
                mine.batch(_invented(ask.first, 3), helper=ask.member)
    assert mine.records() == []


# -------------------------------------------------------------------------------------------------------------- own lies


def test_another_root_at_a_smaller_size_is_two_histories() -> None:
    owner, mine = _owner(2), Holder()
    mine.batch(batch(owner, note=owner.note()))
    owner.decide(LAB.request(LAB.intent(7, at_ms=NOW)[1], []))
    mine.batch(batch(owner, 2, note=owner.note()))
    assert mine.note(owner.note(size=2)) == []
    assert mine.note(_signed(2)) == [SetMeta(conflict_key(ORIGIN), 2)]
    assert [item.code for item in _incidents(mine)] == ["log_conflict"]


def test_two_roots_for_one_size_are_two_histories_before_anything_is_stored() -> None:
    owner, mine = _owner(3), Holder()
    mine.note(owner.note())
    assert mine.note(_signed(3)) == [SetMeta(conflict_key(ORIGIN), 3)]
    (incident,) = _incidents(mine)
    assert incident.detail.count("signature") == 2
    assert mine.tick() == []
    assert not only(Sign, mine.batch(batch(owner, note=owner.note())))


def test_a_root_that_a_larger_one_contradicts_is_two_histories() -> None:
    owner, mine = _owner(2), Holder()
    mine.batch(batch(owner, note=owner.note()))
    mine.note(_signed(3))
    for number in (7, 8):
        owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
    assert mine.batch(batch(owner, 2, note=owner.note()), helper="") == [SetMeta(conflict_key(ORIGIN), 3)]
    (incident,) = _incidents(mine)
    assert bytes(32).hex() in incident.detail
    assert owner.log.frontier.root().hex() in incident.detail
    assert mine.state.frontier.size == 2


def test_a_contradiction_is_found_though_only_one_size_was_covered_at_first() -> None:
    owner, mine = _owner(4), Holder()
    mine.note(_signed(2))
    mine.note(owner.note())
    effects = [effect for _ in range(6) for ask in mine.tick() for effect in mine.batch(batch(owner, ask.first, 2))]
    assert effects == [SetMeta(conflict_key(ORIGIN), 2)]


def test_an_owner_whose_answers_never_lead_to_its_root_is_an_incident_once_and_is_not_attested() -> None:
    owner, mine = _owner(3), Holder()
    mine.note(_signed(3))
    effects: list[Any] = []
    for _ in range(8 * STALL_MS // 300):
        for ask in mine.tick():
            effects += mine.batch(batch(owner, ask.first)) if ask.member == OWNER.name else []
    assert not only(SetHead, effects)
    assert [item.code for item in _incidents(mine)] == ["bad_checkpoint"]


def test_answers_spoilt_for_a_while_are_no_incident() -> None:
    owner, mine = _owner(3), Holder()
    mine.note(owner.note())
    for _ in range(3):
        for ask in mine.tick(STALL_MS):
            mine.batch(_invented(ask.first, 3), helper=ask.member)
    for _ in range(8):
        for ask in mine.tick():
            mine.batch(batch(owner, ask.first), helper=ask.member)
    assert mine.state.frontier == owner.log.frontier
    assert mine.records() == []


@pytest.mark.parametrize("place", [0, 2])
def test_a_signed_leaf_that_is_no_record_is_refused_as_wrong_and_ends_that_log(place: int) -> None:
    owner, mine = _owner(place), Holder()
    owner.append(NONSENSE)
    owner.append(NONSENSE)
    raws = [msgspec.Raw(leaf) for leaf in owner.leaves]
    sent = LineageBatch(
        origin=ORIGIN, first=0, records=raws, bodies=batch(owner, 0, place).bodies, pruned=[], openings=[], path=[], start=[], checkpoint=""
    )
    effects = mine.batch(msgspec.structs.replace(sent, checkpoint=owner.note().decode()), helper="")
    assert effects[0] == SetMeta(refused_key(ORIGIN), place)
    assert not only(Append, effects)
    (refused,) = mine.records()
    assert isinstance(refused, AttestRefused)
    said = refused.refusal
    assert (said.index, said.reason, said.code, said.leaf) == (place, "wrong", "malformed", leaf_hash(NONSENSE).hex())
    assert mine.tick() == []
    assert mine.batch(sent) == []


def test_a_leaf_that_is_no_record_is_proven_over_several_pulls() -> None:
    owner, mine = Owner(), Holder()
    for _ in range(4):
        owner.append(NONSENSE)
    mine.note(owner.note())
    for _ in range(4):
        for ask in mine.tick():
            raws = [msgspec.Raw(leaf) for leaf in owner.leaves[ask.first : ask.first + 2]]
            mine.batch(
                LineageBatch(
                    origin=ORIGIN, first=ask.first, records=raws, bodies=[], pruned=[], openings=[], path=[], start=[], checkpoint=""
                )
            )
    assert mine.state.refused == 0


# -------------------------------------------------------------------------------------------------------------- my own key


def _lone() -> Governor:
    """A governor that has signed a checkpoint over one record."""
    mine = Governor()
    mine.now_ms += 60_000
    mine.take(Stopping(), Tick())
    mine.now_ms += 60_000
    mine.take(Tick())
    assert mine.state.log.outstanding is not None
    return mine


@pytest.mark.parametrize("way", ["note", "heartbeat", "lineage"])
@pytest.mark.parametrize("what", ["beyond", "another root"])
def test_my_own_key_on_what_i_never_signed_is_an_alarm(way: str, what: str) -> None:
    mine = _lone()
    size = mine.state.log.frontier.size
    note = _signed(size + 1 if what == "beyond" else size, owner=ME)
    lineage = LineageBatch(
        origin=LAB.roster.origin(ME), first=0, records=[], bodies=[], pruned=[], openings=[], path=[], start=[], checkpoint=note.decode()
    )
    events: dict[str, Event] = {
        "note": NoteArrived(note),
        "heartbeat": HeartbeatArrived(beat(ME.name, 900, mine.now_ms, checkpoint=note.decode())),
        "lineage": LineageArrived(pack(lineage), pulled=False, node=ME.name),
    }
    with pytest.raises(Alarm, match="storage_rolled_back"):
        mine.take(events[way])


def test_my_own_notes_come_back_to_me_without_alarm() -> None:
    mine = _lone()
    for head in mine.state.log.heads:
        mine.take(NoteArrived(_signed(head.size, head.root, owner=ME)))
    assert mine.state.noise == {}


def test_a_note_of_mine_that_somebody_else_signed_is_noise() -> None:
    mine = _lone()
    text = Checkpoint(LAB.roster.origin(ME), 99, bytes(32)).to_text()
    mine.take(NoteArrived(Note(text, (line(OWNER, "log", text),)).encode()))
    assert mine.state.noise == {"bad_signature": 1}


def test_a_pull_goes_on_after_what_is_staged() -> None:
    mine = Holder()
    mine.note(_signed(9))
    mine.batch(_invented(0, 4))
    assert mine.tick() == [Ask(OWNER.name, ORIGIN, 4)]
