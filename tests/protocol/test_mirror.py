"""A mirror stores what the log's own key signed, says so, and holds nobody else's words against its owner."""

from typing import Any

import msgspec
import pytest

from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner, log_line, log_verifier, witness_name
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Note, open_note, parse_note
from mesh.core.log.record import AttestRefused, GovernanceChanged, Incident, read_record
from mesh.core.run.decision import Verdict
from mesh.protocol.documents import Documents
from mesh.protocol.holding import Mirror, MirrorContext
from mesh.protocol.lineage import Writer
from mesh.protocol.mirror import pull_due, take_batch, take_note
from mesh.protocol.refusing import conflict_key, refused_key
from mesh.protocol.step import Append, Ask, Head, PutBody, PutNote, Send, SetHead, SetMeta, Sign
from tests.core.kit import refuses
from tests.protocol.machines import LAB, ME, MESH, NOW, OWNER, Owner, batch, empty_log, line, only, perform, secret
from tests.support.factory import RuleEngine

ORIGIN = LAB.roster.origin(OWNER)
MEMBERS = LAB.roster.members
STALL_MS = LAB.roster.bounds.attest_stall_ms


class Holder:
    """My mirror of the owner's log."""

    def __init__(self, engine: Any = None) -> None:
        self.state = Mirror(
            origin=ORIGIN, frontier=Frontier.empty(), last_ms=0, staged=(), witnessed=None, attested=None, wanted=0, certified=0,
            asked_ms=0, asked=0, waiting_ms=0, missing=-1, refused=-1, conflicted=False,
        )  # fmt: skip
        self.engine = engine or LAB.engine
        self.now_ms = NOW
        self.writer = Writer(empty_log(LAB.roster.origin(ME)), mesh=MESH, now_ms=NOW)

    def _context(self) -> MirrorContext:
        return MirrorContext(LAB.governance, ME, OWNER, self.writer, Documents(), self.engine, self.now_ms)

    def batch(self, data: Any, *, helper: str = OWNER.name) -> list[Any]:
        self.state, effects = take_batch(self.state, data, self._context(), helper=helper)
        return effects

    def note(self, note: bytes, *, answer: bool = True) -> list[Any]:
        self.state, effects = take_note(self.state, note, self._context(), answer=answer)
        return effects

    def tick(self, after_ms: int = 300) -> list[Any]:
        self.now_ms += after_ms
        self.state, effects = pull_due(self.state, self._context())
        return effects

    def records(self) -> list[Any]:
        state = empty_log(LAB.roster.origin(ME))
        return [read_record(leaf) for append in self.writer.finish(state)[1] if isinstance(append, Append) for leaf in append.leaves]


def _owner(count: int = 3, *, memo: str | None = None, engine: Any = None) -> Owner:
    owner = Owner(engine=engine)
    for number in range(count):
        _, intent, openings = LAB.intent(number, memo=memo, at_ms=NOW)
        owner.decide(LAB.request(intent, openings))
    return owner


def _said(effects: list[Any]) -> dict[str, int]:
    """Key name to time of the lines that the effects send to the owner."""
    (send,) = [effect for effect in only(Send, effects) if "cosig" in str(effect.to)]
    note = send.build(perform(effects))
    keys = (cosigner(witness_name(MESH, ME.name), ME.witness_key), cosigner(attest_name(MESH, ME.name), ME.attest_key))
    return {signed.verifier.name.rpartition("/")[2]: signed.time_s for signed in open_note(note, keys).signed}


# ---------------------------------------------------------------------------------------------------------------- storing


def test_records_are_stored_witnessed_and_attested_once_a_signed_checkpoint_covers_them() -> None:
    owner, mine = _owner(), Holder()
    assert mine.batch(batch(owner)) == []
    assert (mine.state.frontier.size, len(mine.state.staged)) == (0, 3)
    effects = mine.note(owner.note())
    head = Head(3, owner.log.frontier.root(), NOW // 1000)
    (append,) = only(Append, effects)
    assert (append.first, append.leaves) == (0, tuple(owner.leaves))
    assert {body.id for body in only(PutBody, effects)} == set(owner.bodies)
    assert only(SetHead, effects) == [SetHead("witness", ORIGIN, head), SetHead("attest", ORIGIN, head)]
    assert only(PutNote, effects) == [PutNote("checkpoint", ORIGIN, 3, owner.note())]
    assert _said(effects) == {"witness": NOW // 1000, "attest": NOW // 1000}
    assert (mine.state.frontier, mine.state.staged, mine.state.note) == (owner.log.frontier, (), b"")


def test_a_batch_that_carries_its_checkpoint_is_enough() -> None:
    owner, mine = _owner(), Holder()
    assert only(Append, mine.batch(batch(owner, note=owner.note()), helper=""))
    assert mine.state.held == 3


def test_records_beyond_the_checkpoint_wait_for_the_next() -> None:
    owner, mine = _owner(4), Holder()
    mine.batch(batch(owner))
    (append,) = only(Append, mine.note(owner.note(size=3)))
    assert len(append.leaves) == 3
    assert (mine.state.frontier.size, len(mine.state.staged)) == (3, 1)
    (append,) = only(Append, mine.note(owner.note()))
    assert (append.first, len(append.leaves)) == (3, 1)


def test_records_come_in_any_pieces_and_twice() -> None:
    owner, mine = _owner(5), Holder()
    for first, count in ((0, 2), (0, 3), (4, 1), (1, 3), (3, 2)):
        mine.batch(batch(owner, first, count))
    assert only(Append, mine.note(owner.note()))
    assert mine.state.frontier == owner.log.frontier


def test_what_the_logs_key_did_not_sign_never_reaches_storage() -> None:
    owner, stranger, mine = _owner(2), _owner(2), Holder()
    stranger.write(lambda writer: GovernanceChanged(mesh=MESH, origin=ORIGIN, index=2, at_ms=NOW, change="fresh", about=""))
    owner.decide(LAB.request(LAB.intent(9, at_ms=NOW)[1], []))
    mine.batch(batch(stranger))
    assert mine.note(owner.note()) == []
    assert (mine.state.staged, mine.state.frontier.size, mine.state.wanted) == ((), 0, 3)
    assert mine.tick() == [Ask(OWNER.name, ORIGIN, 0)]
    mine.batch(batch(owner))
    assert mine.state.frontier == owner.log.frontier
    assert not mine.state.conflicted


def test_a_flood_of_invented_records_is_bounded_and_forgotten() -> None:
    owner, mine = Owner(), Holder()
    for index in range(5_000):
        owner.write(
            lambda writer, index=index: GovernanceChanged(  # type: ignore[misc]  # a default argument binds it now
                mesh=MESH, origin=ORIGIN, index=index, at_ms=NOW, change="fresh", about=f"{index}"
            )
        )
    for first in range(0, 5_000, 128):
        mine.batch(batch(owner, first, 128))
    assert 4_000 < len(mine.state.staged) <= 4_096
    real = _owner(1)
    mine.note(real.note())
    assert mine.state.staged == ()
    assert only(Append, mine.batch(batch(real)))


def test_a_leaf_that_is_no_record_is_nothing_until_the_log_has_signed_it() -> None:
    owner, mine = _owner(1), Holder()
    nonsense = msgspec.structs.replace(batch(owner), records=[msgspec.Raw(owner.leaves[0]), msgspec.Raw(b'{"record":"nonsense"}')])
    assert mine.batch(nonsense) == []
    owner.decide(LAB.request(LAB.intent(3, at_ms=NOW)[1], []))
    assert mine.note(owner.note()) == []
    assert only(Append, mine.batch(batch(owner)))
    assert mine.records() == []


# ------------------------------------------------------------------------------------------------------------------ notes


def test_a_note_by_another_key_is_refused() -> None:
    text = parse_note(_owner().note()).text
    other = secret("somebody")
    with refuses("bad_signature"):
        Holder().note(Note(text, (log_line(ORIGIN, other.public, other.sign(text)),)).encode())


def test_a_note_of_another_log_is_refused_though_the_key_is_right() -> None:
    text = Checkpoint("elsewhere/log", 3, bytes(32)).to_text()
    key = LAB.keys[OWNER.name]["log"]
    with refuses("bad_checkpoint"):
        Holder().note(Note(text, (log_line(ORIGIN, key.public, key.sign(text)),)).encode())


def test_a_certificate_is_kept_once_its_records_are_here() -> None:
    owner, mine = _owner(), Holder()
    note = owner.note(*MEMBERS[1:4])
    assert mine.note(note) == []
    assert PutNote("certificate", ORIGIN, 3, note) in mine.batch(batch(owner))
    assert mine.state.certified == 3


def test_a_certificate_of_what_is_held_already_is_kept_once() -> None:
    owner, mine = _owner(), Holder()
    mine.batch(batch(owner, note=owner.note()))
    note = owner.note(*MEMBERS[1:4])
    assert mine.note(note) == [PutNote("certificate", ORIGIN, 3, note)]
    assert only(PutNote, mine.note(note)) == []


@pytest.mark.parametrize("arrives", ["before its records", "after them"])
def test_lines_that_somebody_added_or_spoilt_cost_only_themselves(arrives: str) -> None:
    owner, mine = _owner(), Holder()
    text = parse_note(owner.note()).text
    junk = [line(member, "attest", text + b"x\n") for member in MEMBERS[1:4]]
    spoilt = Note(text, (line(OWNER, "log", text), *junk)).encode()
    if arrives == "before its records":
        mine.note(spoilt)
        effects = mine.batch(batch(owner))
    else:
        mine.batch(batch(owner))
        effects = mine.note(spoilt)
    assert only(Append, effects)
    assert only(PutNote, effects) == [PutNote("checkpoint", ORIGIN, 3, owner.note())]
    assert mine.state.certified == 0
    assert mine.note(owner.note(*MEMBERS[1:4]))
    assert mine.state.certified == 3


def test_k_lines_of_fewer_members_are_no_certificate() -> None:
    owner, mine = _owner(), Holder()
    mine.batch(batch(owner, note=owner.note()))
    assert only(PutNote, mine.note(owner.note(*MEMBERS[1:3]))) == []


def test_the_nearest_signed_size_is_aimed_at_first() -> None:
    owner, mine = _owner(5), Holder()
    mine.note(owner.note())
    mine.note(owner.note(size=2))
    mine.note(owner.note(size=4))
    assert (parse_note(mine.state.note).text, mine.state.wanted) == (parse_note(owner.note(size=2)).text, 5)


def test_an_older_checkpoint_changes_nothing() -> None:
    owner, mine = _owner(5), Holder()
    mine.batch(batch(owner, note=owner.note()))
    before = mine.state
    assert mine.note(owner.note(size=3)) == []
    assert mine.state == before


# ----------------------------------------------------------------------------------------------------------------- saying


def test_a_checkpoint_seen_before_is_answered_with_the_same_lines() -> None:
    owner, mine = _owner(), Holder()
    first = _said(mine.batch(batch(owner, note=owner.note()), helper=""))
    mine.now_ms += 60_000
    again = mine.note(owner.note())
    assert _said(again) == first
    assert not only(SetHead, again)


def test_nobody_is_answered_who_did_not_ask() -> None:
    owner, mine = _owner(), Holder()
    mine.batch(batch(owner, note=owner.note()))
    assert mine.note(owner.note(), answer=False) == []
    assert mine.batch(batch(owner, note=owner.note())) == []


def test_times_of_lines_never_run_backwards() -> None:
    owner, mine = _owner(2), Holder()
    mine.batch(batch(owner, note=owner.note(size=1)))
    mine.now_ms -= 5_000
    owner.decide(LAB.request(LAB.intent(7, at_ms=NOW)[1], []))
    mine.now_ms = NOW - 200
    effects = mine.batch(batch(owner, 1, note=owner.note()))
    assert {item.head.time_s for item in only(SetHead, effects)} == {NOW // 1000}


def test_two_histories_are_an_incident_and_the_end_of_cosigning() -> None:
    owner, mine = _owner(), Holder()
    mine.batch(batch(owner, note=owner.note()))
    text = Checkpoint(ORIGIN, 3, bytes(32)).to_text()
    other = Note(text, (line(OWNER, "log", text),)).encode()
    assert mine.note(other) == [SetMeta(conflict_key(ORIGIN), 3)]
    (incident,) = mine.records()
    assert isinstance(incident, Incident)
    assert incident.code == "log_conflict"
    assert mine.note(other) == []
    owner.decide(LAB.request(LAB.intent(8, at_ms=NOW)[1], []))
    assert not only(Sign, mine.batch(batch(owner, 3, note=owner.note())))
    assert len(mine.records()) == 1


# ----------------------------------------------------------------------------------------------------------- right, wrong


class _Generous(RuleEngine):
    limit = 10**6


def test_a_wrong_record_is_refused_once_and_nothing_of_that_log_is_attested_any_more() -> None:
    owner, mine = _owner(1), Holder()
    owner.engine = _Generous()
    (wrong,) = owner.decide(LAB.request(LAB.intent(5, amount=5_000, at_ms=NOW)[1], []))
    effects = mine.batch(batch(owner, note=owner.note()), helper="")
    assert [item.use for item in only(SetHead, effects)] == ["witness"]
    assert SetMeta(refused_key(ORIGIN), 1) in effects
    assert set(_said([effect for effect in effects if "fraud" not in str(getattr(effect, "to", ""))])) == {"witness"}
    (refused,) = mine.records()
    assert isinstance(refused, AttestRefused)
    said = refused.refusal
    assert (said.origin, said.index, said.reason, said.code, said.leaf) == (
        ORIGIN,
        1,
        "wrong",
        "replay_mismatch",
        leaf_hash(owner.leaves[1]).hex(),
    )
    assert [send for send in only(Send, effects) if "fraud" in str(send.to)]
    assert wrong.authorization
    owner.decide(LAB.request(LAB.intent(6, at_ms=NOW)[1], []))
    effects = mine.batch(batch(owner, 2, note=owner.note()))
    assert [item.use for item in only(SetHead, effects)] == ["witness"]
    assert len(mine.records()) == 1


def test_a_record_that_stays_incomplete_is_refused_as_missing_once_and_attested_when_it_is_complete() -> None:
    owner, mine = _owner(3), Holder()
    gone = read_record(owner.leaves[1]).intent  # type: ignore[union-attr]  # it is a decision
    mine.note(owner.note())
    said = []
    for _ in range(2 * STALL_MS // 300):
        mine.tick()
        effects = mine.batch(batch(owner, mine.state.held, without=[gone]))
        said += [send for send in only(Send, effects) if "fraud" in str(send.to)]
    assert len(said) == 1
    (refused,) = mine.records()
    assert (refused.refusal.reason, refused.refusal.code, refused.refusal.index) == ("missing", "body_missing", 1)
    assert mine.state.frontier.size == 0
    mine.tick()
    effects = mine.batch(batch(owner, mine.state.held))
    assert [item.use for item in only(SetHead, effects)] == ["witness", "attest"]
    assert (mine.state.missing, mine.state.refused, mine.state.waiting_ms) == (-1, -1, 0)


def test_what_nobody_signed_is_never_refused_however_long_it_lies_there() -> None:
    owner, forged, mine = _owner(1), _owner(1), Holder()
    mine.batch(batch(owner, note=owner.note()))
    forged.write(lambda writer: GovernanceChanged(mesh=MESH, origin=ORIGIN, index=1, at_ms=NOW + 10**9, change="fresh", about=""))
    for _ in range(3 * STALL_MS // 300):
        assert not only(Send, mine.batch(batch(forged, 1)))
        mine.tick()
    assert mine.records() == []
    owner.decide(LAB.request(LAB.intent(3, at_ms=NOW)[1], []))
    effects = mine.batch(batch(owner, 1, note=owner.note()))
    assert [item.use for item in only(SetHead, effects)] == ["witness", "attest"]


class _Down(RuleEngine):
    down = True

    def evaluate(self, bundle_digest: str, requests: Any) -> list[Verdict | None]:
        return [None if self.down else verdict for verdict in super().evaluate(bundle_digest, requests)]


def test_while_my_own_engine_is_down_nothing_is_held_against_anybody() -> None:
    engine = _Down()
    owner, mine = _owner(2), Holder(engine)
    assert not only(Append, mine.batch(batch(owner, note=owner.note())))
    engine.down = False
    mine.tick()
    assert only(Append, mine.batch(batch(owner)))
    assert mine.records() == []


# ---------------------------------------------------------------------------------------------------------------- pulling


def test_what_is_missing_is_asked_of_the_owner_twice_then_of_each_other_member() -> None:
    owner, mine = _owner(), Holder()
    mine.note(owner.note())
    asked = [effect.member for _ in range(8) for effect in mine.tick()]
    others = [member.name for member in MEMBERS if member.name not in {ME.name, OWNER.name}]
    assert asked == [OWNER.name] * 2 + [others[0]] * 2 + [others[1]] * 2 + [OWNER.name] * 2


def test_at_most_one_pull_of_a_log_per_interval() -> None:
    mine = Holder()
    mine.note(_owner().note())
    assert mine.tick()
    assert mine.tick(299) == []
    assert mine.tick(1)


def test_nothing_is_asked_for_that_is_here() -> None:
    owner, mine = _owner(), Holder()
    assert mine.tick() == []
    mine.batch(batch(owner, note=owner.note()))
    assert mine.tick() == []


def test_only_the_logs_own_key_makes_anybody_ask() -> None:
    mine = Holder()
    mine.batch(batch(_owner(5), 3))
    assert mine.state.wanted == 0
    assert mine.tick() == []


def test_a_pull_starts_where_what_is_complete_ends() -> None:
    owner, mine = _owner(3), Holder()
    gone = read_record(owner.leaves[1]).intent  # type: ignore[union-attr]  # it is a decision
    mine.note(owner.note())
    mine.batch(batch(owner, without=[gone]))
    assert mine.tick() == [Ask(OWNER.name, ORIGIN, 1)]


def test_committed_parameters_are_attested_once_their_openings_were_pulled() -> None:
    owner, mine = _owner(2, memo="private"), Holder()
    published = msgspec.structs.replace(batch(owner, note=owner.note()), openings=[])
    assert not only(Append, mine.batch(published, helper=""))
    assert mine.tick() == [Ask(OWNER.name, ORIGIN, 0)]
    effects = mine.batch(batch(owner))
    assert [item.use for item in only(SetHead, effects)] == ["witness", "attest"]


def test_the_log_line_alone_is_what_is_verified_of_a_plain_note() -> None:
    owner = _owner()
    opened = open_note(owner.note(), (log_verifier(ORIGIN, OWNER.log_key),))
    assert [signed.line for signed in opened.signed] == [line(OWNER, "log", opened.text)]
