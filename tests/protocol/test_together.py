"""No log loses what was final because its owner has left: those who are left certify it among themselves."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest

from mesh.core.law.proofs import judge_proof
from mesh.core.log.certificate import certificate_note
from mesh.core.log.checkpoint import Checkpoint, read_checkpoint
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Note, parse_note
from mesh.core.log.record import read_record
from mesh.core.messages import LineageBatch, unpack
from mesh.core.run.decision import Verdict
from mesh.protocol.documents import Documents
from mesh.protocol.histories import Recent
from mesh.protocol.holding import Mirror, MirrorContext
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX, Writer
from mesh.protocol.members import is_current, logs_of, owner_of
from mesh.protocol.mirror import pull_due, take_batch, take_note
from mesh.protocol.proven import attest_held, behind, take_proven
from mesh.protocol.refusing import refused_key
from mesh.protocol.serving import body_ids, pull_answer, shown_paths
from mesh.protocol.step import Append, Ask, Effect, Head, PutNote, Send, SetHead, SetMeta, Sign, Signed, Step, phases
from mesh.protocol.stored import StoredLog
from mesh.protocol.together import lines_due, resumed, seek, take_shared
from tests.core.kit import refuses
from tests.protocol.machines import MESH, NOW, Owner, checkpoint, empty_log, line, only
from tests.support.epochs import ALL, EpochLab

LABS: Final = {epoch: EpochLab(epoch) for epoch in (1, 2, 3)}
MEMBERS: Final = {member.name: member for member in ALL.roster.members}
NOW_IN: Final = LABS[3].governance
ORIGIN: Final = "lab/eu-1/e1"
"""Whose owner has left with the third roster, of which k is 3."""
FIRST: Final = ("ap-1", "eu-1", "us-1")
"""Who made its certificates: k of the first roster, two of them are there."""
STALL_MS: Final = NOW_IN.roster.bounds.attest_stall_ms


def _eu(count: int = 6) -> Owner:
    owner = Owner(MEMBERS["eu-1"])
    for number in range(count):
        owner.decide(LABS[1].request(LABS[1].intent(number, at_ms=NOW)[1], []), governance=LABS[1].governance)
    return owner


EU: Final = _eu()


def _note(*names: str, size: int, owner: Owner = EU) -> bytes:
    return checkpoint(owner.leaves[:size], *(MEMBERS[name] for name in names), owner=owner.member)


def _batch(first: int, *, note: bytes = b"", owner: Owner = EU) -> LineageBatch:
    leaves = owner.leaves[first:]
    bodies = {key: owner.bodies[key] for leaf in leaves for key in body_ids(read_record(leaf)) if key in owner.bodies}
    hashes, size = [leaf_hash(leaf) for leaf in owner.leaves], read_checkpoint(note).size if note else 0
    path, start = shown_paths(hashes, first, len(owner.leaves), size)
    return unpack(LineageBatch, pull_answer(owner.origin, first, leaves, bodies, owner.openings, note, path=path, start=start))


def _stored(size: int, certified: int = 0, *, owner: Owner = EU, by: Sequence[str] = FIRST) -> StoredLog:
    frontier = Frontier.empty().extend(leaf_hash(leaf) for leaf in owner.leaves[:size])
    head = Head(size, frontier.root(), NOW // 1000 - 9)
    return StoredLog(
        frontier=frontier,
        last_ms=NOW - 9_000,
        certified=certified,
        witness=head,
        attest=head,
        checkpoint=_note(size=size, owner=owner),
        certificate=_note(*by, size=certified, owner=owner) if certified else b"",
        recent=Recent(Frontier.empty(), tuple(leaf_hash(leaf) for leaf in owner.leaves[:size])),
    )


class Heir:
    """One member's mirror of a log whose owner has left."""

    def __init__(self, name: str, stored: StoredLog | None = None, *, owner: Owner = EU, engine: Any = None) -> None:
        self.me, self.owner, self.now_ms = MEMBERS[name], owner, NOW
        self.engine = engine or LABS[3].engine
        self.state: Mirror = resumed(owner.origin, stored, NOW_IN)
        self.writer = Writer(empty_log(NOW_IN.roster.origin(self.me)), mesh=MESH, now_ms=NOW)

    @property
    def context(self) -> MirrorContext:
        return MirrorContext(NOW_IN, self.me, self.owner.member, self.writer, Documents(), self.engine, self.now_ms)

    def seek(self, certificate: bytes) -> list[Effect]:
        self.state, effects = seek(self.state, certificate, self.context)
        return effects

    def take(self, batch: LineageBatch, *, helper: str = "us-1") -> list[Effect]:
        self.state, effects = take_batch(self.state, batch, self.context, helper=helper)
        return effects

    def due(self) -> list[Effect]:
        self.state, held = attest_held(self.state, self.context)
        self.state, effects = lines_due(self.state, self.context)
        return [*held, *effects]

    def hear(self, note: bytes) -> list[Effect]:
        self.state, first = take_note(self.state, note, self.context, answer=True)
        self.state, then = take_shared(self.state, note, self.context)
        return [*first, *then]

    def said(self, effects: Sequence[Effect]) -> list[bytes]:
        """The notes that these effects show to everybody."""
        sends = only(Send, effects)
        assert all(send.to == f"mesh.v1.{self.me.region}.checkpoint.{self.me.name}" for send in sends)
        return [send.build(_signed(effects, self.me.name)) for send in sends]


def _signed(effects: Sequence[Effect], name: str) -> Signed:
    kept: list[Signed] = []

    def look(signed: Signed) -> bytes:
        kept.append(signed)
        return b""

    keys: Mapping[Any, Any] = ALL.keys[name]
    step = Step(None, (*only(Sign, effects), Send("x", look)))
    runner = phases(
        step,
        sign=lambda use, message: keys[use].sign(message),
        public={use: key.public for use, key in keys.items()},
        failpoint=lambda _: None,
    )
    for _ in runner:
        pass
    return kept[0]


def _talk(heirs: Sequence[Heir], seconds: int, *, silent: Sequence[str] = ()) -> None:
    """So much time, in which everybody hears all that the others say, and pulls from whom it asks."""
    by_name = {heir.me.name: heir for heir in heirs}
    for _ in range(4 * seconds):
        for heir in heirs:
            heir.now_ms += 250
            heir.state, asks = pull_due(heir.state, heir.context)
            for ask in only(Ask, asks):
                asked = by_name.get(ask.member)
                if asked is not None and ask.member not in silent:
                    batch = _batch(ask.first, note=asked.state.certificate, owner=heir.owner)
                    left = batch.records[: max(0, asked.state.frontier.size - ask.first)]
                    heir.state, _ = take_batch(heir.state, msgspec.structs.replace(batch, records=left), heir.context, helper=ask.member)
        notes = [note for heir in heirs if heir.me.name not in silent for note in heir.said(heir.due())]
        while notes:
            more = list[bytes]()
            for note in notes:
                for heir in heirs:
                    effects = heir.hear(note)
                    if heir.me.name not in silent:
                        more += heir.said(effects)
            notes = more


# ---------------------------------------------------------------------------------------------------------- who makes them


def test_a_former_certificate_is_none_by_the_roster_in_force_and_what_it_covered_is_the_goal() -> None:
    heir = Heir("ap-1", _stored(6, 4))
    assert (heir.state.left, heir.state.goal, heir.state.certified, heir.state.certificate) == (True, 4, 0, b"")
    assert not is_current(_note(*FIRST, size=4), NOW_IN)
    assert is_current(_note("ap-1", "sa-1", "us-1", size=4), NOW_IN)
    assert not is_current(_note("ap-1", "us-1", size=4), NOW_IN)
    assert not is_current(b"what is no note", NOW_IN)


def test_those_who_are_left_say_their_lines_and_each_keeps_the_certificate() -> None:
    heirs = [Heir(name, _stored(6, 4)) for name in ("af-1", "ap-1", "sa-1", "us-1")]
    _talk(heirs, 2)
    for heir in heirs:
        assert (heir.state.certified, is_current(heir.state.certificate, NOW_IN)) == (6, True)


@pytest.mark.parametrize("silent", ["af-1", "ap-1", "sa-1", "us-1"])
def test_one_members_silence_costs_nothing(silent: str) -> None:
    heirs = [Heir(name, _stored(6, 4)) for name in ("af-1", "ap-1", "sa-1", "us-1")]
    _talk(heirs, 2, silent=[silent])
    assert [heir.state.certified for heir in heirs] == [6] * 4


def test_who_has_attested_less_catches_up_first_because_nobody_attests_less_than_before() -> None:
    heirs = [Heir("af-1"), Heir("ap-1", _stored(4, 4)), Heir("sa-1", _stored(6, 2)), Heir("us-1", _stored(5))]
    _talk(heirs, 10)
    for heir in heirs:
        assert heir.state.attested is not None
        assert (heir.state.attested.size, heir.state.certified) == (6, 6)


def test_lines_of_a_former_certificate_count_on_if_their_members_are_there() -> None:
    """Two of the three are; a third line on the same checkpoint is enough, though both have attested more since."""
    ahead = [Heir(name, _stored(6, 4)) for name in ("ap-1", "us-1")]
    third = Heir("sa-1", _stored(4, 4))
    (note,) = third.said(third.due())
    third.hear(note)
    assert (third.state.certified, is_current(third.state.certificate, NOW_IN)) == (4, True)
    for heir in ahead:
        heir.hear(note)
        assert (heir.state.certified, heir.state.lines) == (4, {})


def test_a_member_that_holds_everything_asks_nobody_and_says_its_line_ever_more_rarely() -> None:
    heir, times = Heir("ap-1", _stored(6, 4)), list[int]()
    for _ in range(4 * 80):
        heir.now_ms += 250
        if heir.due():
            times.append(heir.now_ms - NOW)
    apart = [later - former for former, later in pairwise(times)]
    assert apart == [2_000, 4_000, 8_000, 16_000, 32_000]


def test_the_owner_of_a_log_makes_its_certificates_as_long_as_it_comes_in_time() -> None:
    owner = Owner(MEMBERS["us-1"])
    owner.decide(LABS[1].request(LABS[1].intent(1, at_ms=NOW)[1], []), governance=LABS[1].governance)
    heir = Heir("ap-1", _stored(1, 1, owner=owner), owner=owner)
    assert not heir.state.left
    assert heir.due() == []
    heir.now_ms = NOW + STALL_MS
    assert heir.due() == []
    heir.now_ms += 1
    assert len(heir.said(heir.due())) == 1


def test_who_has_a_certificate_shows_it_to_whoever_says_a_line_once_a_second() -> None:
    done, late = Heir("ap-1", _stored(6, 6, by=("ap-1", "sa-1", "us-1"))), Heir("af-1", _stored(6, 4))
    assert (done.state.certified, done.due()) == (6, [])
    (note,) = late.said(late.due())
    (shown,) = done.said(done.hear(note))
    assert shown == done.state.certificate
    assert done.hear(note) == []
    assert done.hear(shown) == []
    done.now_ms += 1_000
    assert len(done.hear(note)) == 1
    late.hear(shown)
    assert late.state.certified == 6


# ------------------------------------------------------------------------------------------------------------- what does not count


def test_a_spoilt_line_and_those_of_who_has_left_count_for_nothing() -> None:
    heir = Heir("ap-1", _stored(6, 4))
    note = parse_note(_note("us-1", size=6))
    spoilt = [msgspec.structs.replace(item, signature=bytes(72)) if item.name.endswith("attest") else item for item in note.lines]
    with refuses("bad_signature"):
        heir.hear(Note(note.text, tuple(spoilt)).encode())
    heir.hear(_note("eu-1", "us-1", size=6))
    assert {name for lines in heir.state.lines.values() for name in lines} == {"lab/ap-1/attest", "lab/us-1/attest"}
    assert [len(lines) for _, lines in sorted(heir.state.lines.items())] == [2, 1]


def test_a_line_that_a_stranger_signed_in_the_logs_name_is_not_the_logs() -> None:
    heir, note = Heir("ap-1", _stored(6, 4)), parse_note(_note("us-1", size=6))
    log = next(item for item in note.lines if item.name == ORIGIN)
    heir.state = msgspec.structs.replace(heir.state, signed={})
    strange = msgspec.structs.replace(log, key_id=bytes(4), signature=bytes(64))
    heir.state, _ = take_shared(heir.state, Note(note.text, (strange, *note.lines)).encode(), heir.context)
    assert parse_note(heir.state.signed[6]).lines == (log,)


def test_lines_on_another_history_are_no_lines_on_this_one() -> None:
    other = Owner(MEMBERS["eu-1"])
    for number in range(10, 16):
        other.decide(LABS[1].request(LABS[1].intent(number, at_ms=NOW)[1], []), governance=LABS[1].governance)
    heir = Heir("ap-1", _stored(6, 4))
    heir.hear(_note("sa-1", "us-1", size=6, owner=other))
    assert heir.state.conflicted
    assert heir.state.certified == 0
    assert 6 not in {size for size, _ in heir.state.lines}


def test_no_certificate_is_kept_of_records_that_are_not_here() -> None:
    heir = Heir("ap-1", _stored(4, 4))
    heir.seek(_note("ap-1", "sa-1", "us-1", size=6))
    assert [effect for effect in heir.due() if isinstance(effect, PutNote)] == []
    assert (heir.state.goal, heir.state.wanted, heir.state.certified) == (6, 6, 0)


def test_of_many_sizes_the_largest_are_remembered() -> None:
    heir = Heir("ap-1", _stored(6))
    for size in range(1, 7):
        heir.state = msgspec.structs.replace(heir.state, signed={**heir.state.signed, size: _note(size=size)})
        heir.hear(_note("us-1", size=size))
    assert [size for size, _ in sorted(heir.state.lines)] == [3, 4, 5, 6]


def test_a_former_owner_cannot_grow_its_log_for_ever() -> None:
    heir = Heir("ap-1", _stored(4, 4))
    assert heir.state.room == CHECKPOINT_RECORDS_MAX
    far = Checkpoint(ORIGIN, 4 + CHECKPOINT_RECORDS_MAX + 1, bytes(32)).to_text()
    heir.hear(Note(far, (line(MEMBERS["eu-1"], "log", far),)).encode())
    assert heir.state.wanted == 4
    near = Checkpoint(ORIGIN, 4 + CHECKPOINT_RECORDS_MAX, bytes(32)).to_text()
    heir.hear(Note(near, (line(MEMBERS["eu-1"], "log", near),)).encode())
    assert heir.state.wanted == 4 + CHECKPOINT_RECORDS_MAX


def test_once_it_is_certified_nothing_is_added_but_what_k_members_attest() -> None:
    heir = Heir("ap-1", _stored(4, 4, by=("ap-1", "sa-1", "us-1")))
    heir.hear(_note(size=6))
    assert (heir.state.room, heir.state.wanted) == (0, 4)
    heir.hear(_note("af-1", "sa-1", "us-1", size=6))
    assert heir.state.wanted == 6


# -------------------------------------------------------------------------------------------------------------------- being behind


def _behind(heir: Heir) -> bool:
    return behind(heir.state)


def test_a_member_is_behind_until_it_holds_what_was_final() -> None:
    heir = Heir("af-1")
    assert not _behind(heir)
    heir.seek(_note(*FIRST, size=4))
    assert _behind(heir)
    heir.now_ms += 100 * STALL_MS
    assert _behind(heir), "it holds nothing of another history"
    whole = _batch(0, note=_note(size=3))
    effects = heir.take(msgspec.structs.replace(whole, records=whole.records[:3]))
    assert (only(Append, effects), _behind(heir)) == ([], True), "the owner's word is none"
    effects = heir.take(_batch(0, note=_note(*FIRST, size=4)))
    assert (len(only(Append, effects)), heir.state.frontier.size, _behind(heir)) == (1, 4, False)


def _another(size: int = 6) -> Owner:
    """The same member, with another history."""
    other = Owner(MEMBERS["eu-1"])
    for number in range(10, 10 + size):
        other.decide(LABS[1].request(LABS[1].intent(number, at_ms=NOW)[1], []), governance=LABS[1].governance)
    return other


@pytest.mark.parametrize("held", [3, 4])
def test_who_holds_another_history_proves_it_and_is_not_behind_for_ever(held: int) -> None:
    """It can never hold the other one, and its owner has signed both: 4 is a tree without a path to it, whose root stands in no proof."""
    heir = Heir("ap-1", _stored(held, owner=_another()))
    heir.seek(_note(*FIRST, size=6))
    heir.now_ms += 100 * STALL_MS
    heir.take(_batch(held))
    assert _behind(heir), "nothing shows it yet, however long it takes"
    context = heir.context
    heir.state, effects = take_batch(heir.state, _batch(held, note=_note(*FIRST, size=6)), context, helper="us-1")
    assert (heir.state.frontier.size, heir.state.split, _behind(heir), only(SetHead, effects)) == (held, True, False, [])
    assert [judge_proof(proof, NOW_IN.rosters).member for proof in context.proofs] == ["eu-1"]
    assert heir.due() == []


def test_who_holds_more_of_another_history_than_was_final_proves_it_at_its_start() -> None:
    heir = Heir("ap-1", _stored(6, owner=_another()))
    context = heir.context
    heir.state, _ = seek(heir.state, _note(*FIRST, size=4), context)
    assert (heir.state.split, _behind(heir)) == (True, False)
    assert [judge_proof(proof, NOW_IN.rosters).member for proof in context.proofs] == ["eu-1"]


def test_no_answer_makes_a_member_count_but_one_that_proves_two_histories() -> None:
    heir = Heir("ap-1", _stored(3))
    heir.seek(_note(*FIRST, size=6))
    other = _another()
    theirs = _batch(3, owner=other, note=_note(size=6, owner=other))
    mixed = msgspec.structs.replace(_batch(3, note=_note(*FIRST, size=6)), start=theirs.start, records=[])
    for lie in (_batch(3, owner=other), theirs, mixed):
        heir.take(lie)
        heir.now_ms += STALL_MS + 1
        assert (heir.state.frontier.size, heir.state.split, _behind(heir)) == (3, False, True)
    heir.take(_batch(3, note=_note(*FIRST, size=6)))
    assert (heir.state.frontier.size, _behind(heir)) == (6, False)


# ---------------------------------------------------------------------------------------------------------------- without a signature


class _Deny(type(ALL.engine)):  # type: ignore[misc]  # whichever class the lab's engine has
    def evaluate(self, bundle_digest: str, requests: Sequence[Any]) -> list[Verdict | None]:
        del bundle_digest
        return [Verdict(allow=False, determining=(), errors=()) for _ in requests]


def _quietly(heir: Heir, batch: LineageBatch) -> list[Effect]:
    heir.state, effects = take_proven(heir.state, batch, heir.context, quiet=True)
    return effects


def test_while_nothing_may_be_signed_records_are_stored_and_attested_later() -> None:
    heir = Heir("af-1")
    heir.seek(_note(*FIRST, size=4))
    effects = _quietly(heir, _batch(0, note=_note(*FIRST, size=4)))
    assert {type(effect).__name__ for effect in effects} == {"Append", "Locate", "PutBody", "PutNote"}
    assert (heir.state.frontier.size, heir.state.witnessed, heir.state.attested) == (4, None, None)
    heads = only(SetHead, heir.due())
    assert [(head.use, head.head.size) for head in heads] == [("witness", 4), ("attest", 4)]
    assert only(SetHead, heir.due()) == []


@pytest.mark.parametrize("quiet", [True, False])
def test_what_others_made_final_and_is_wrong_is_stored_refused_once_and_never_attested(quiet: bool) -> None:
    heir = Heir("af-1", engine=_Deny())
    heir.seek(_note(*FIRST, size=4))
    batch = _batch(0, note=_note(*FIRST, size=4))
    effects = _quietly(heir, batch) if quiet else heir.take(batch)
    assert SetMeta(refused_key(ORIGIN), 0) in effects
    assert (heir.state.frontier.size, heir.state.refused, _behind(heir)) == (4, 0, False)
    assert len(only(Send, effects)) == (0 if quiet else 1)
    later = [*heir.due(), *heir.due()]
    assert len(only(Send, later)) == (1 if quiet else 0), "once it can be signed, and once"
    assert only(SetHead, [*effects, *later]) == []


def test_nothing_is_attested_later_that_leads_elsewhere_or_was_cosigned_further() -> None:
    held = Heir("ap-1", _stored(4)).state
    changes: tuple[dict[str, Any], ...] = (
        {"attested": None, "refused": 2},
        {"attested": None, "conflicted": True},
        {"attested": None, "signed": {}},
        {"attested": None, "witnessed": Head(6, bytes(32), 1)},
        {"attested": None, "frontier": Frontier.empty().extend([bytes(32)] * 4)},
        {},
    )
    for changed in changes:
        state = msgspec.structs.replace(held, **changed)
        assert attest_held(state, Heir("ap-1").context) == (state, [])


# ------------------------------------------------------------------------------------------------------------------- whose log it is


def test_the_logs_are_those_of_all_who_were_members_up_to_the_roster_in_force() -> None:
    assert logs_of(NOW_IN) == tuple(f"lab/{name}/e1" for name in ("us-1", "ap-1", "sa-1", "af-1", "eu-1"))
    assert "lab/af-1/e1" not in logs_of(NOW_IN.under(1))
    assert owner_of(NOW_IN, ORIGIN) == MEMBERS["eu-1"]
    with refuses("unknown_member"):
        owner_of(NOW_IN.under(1), "lab/af-1/e1")


def test_a_certificate_says_what_the_lines_say() -> None:
    heirs = [Heir(name, _stored(6, 4)) for name in ("ap-1", "sa-1", "us-1")]
    _talk(heirs, 1)
    note = heirs[0].state.certificate
    parsed = parse_note(note)
    own = next(item for item in parsed.lines if item.name == ORIGIN)
    rest = [item for item in parsed.lines if item.name != ORIGIN]
    assert note == certificate_note(Note(parsed.text, (own,)).encode(), rest)
    assert read_checkpoint(note).size == 6
