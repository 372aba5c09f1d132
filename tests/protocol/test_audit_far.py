"""No owner keeps an auditor behind: what leads to a certificate is judged page by page, however far the certificate is."""

from collections.abc import Callable
from functools import cache

import msgspec
import pytest

from mesh.core.bytes import canonical
from mesh.core.law.proofs import judge_proof
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.note import Note
from mesh.core.messages import LineageBatch, pack
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent, AuditPosition, AuditState, Followed, PullFailed
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.holding import STAGED_MAX
from mesh.protocol.step import Ask
from tests.protocol.machines import LAB, NOW, batch, line
from tests.protocol.test_catching import K
from tests.protocol.test_proven import PAGE, page, simple

SIZE = STAGED_MAX + 300
FAR = simple("far", SIZE)
OTHER = simple("other", SIZE)
NOTE, SHORT = FAR.note(*K), FAR.note(*K[:-1]).decode()
Answering = Callable[[Ask, int], LineageBatch | None]


class Reader:
    """An auditor whose pulls of one log are answered as a test says."""

    def __init__(self, position: AuditPosition | None = None) -> None:
        self.audit = Audit(LAB.governance, LAB.engine)
        self.state: AuditState = self.audit.begin(position)
        self.now_ms = NOW + 10_000
        self.asked: list[Ask] = []

    def feed(self, *events: AuditEvent) -> list[Ask]:
        step = self.audit.step(self.state, events, now_ms=self.now_ms)
        self.state = step.state
        return [effect for effect in step.effects if isinstance(effect, Ask)]

    def pull(self, answer: Answering, rounds: int = 60) -> "Reader":
        for _ in range(rounds):
            self.now_ms += 400
            for ask in self.feed(Tick()):
                self.asked.append(ask)
                given = answer(ask, len(self.asked))
                self.feed(LineageArrived(pack(given), pulled=True) if given is not None else PullFailed(ask.origin))
        return self

    @property
    def log(self) -> Followed:
        return self.state.logs[FAR.origin]

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.state.findings]


@cache
def _of(name: str, first: int) -> LineageBatch:
    owner = {"far": FAR, "other": OTHER}[name]
    return page(owner, first, owner.note(*K))


def _honest(ask: Ask, _number: int = 0) -> LineageBatch:
    return _of("far", ask.first)


def test_a_certificate_that_is_further_than_can_be_staged_is_reached_page_by_page() -> None:
    reader = Reader()
    reader.feed(NoteArrived(NOTE))
    reader.pull(_honest)
    assert (reader.log.frontier, reader.log.certified, reader.log.caught_up) == (FAR.log.frontier, SIZE, True)
    assert (reader.codes, len(reader.asked)) == ([], -(-SIZE // PAGE))


def test_what_was_published_before_it_and_fills_the_staging_holds_nothing_up() -> None:
    """As it comes from a stream: records, with none but the last of them signed."""
    reader = Reader()
    for first in range(0, SIZE, PAGE):
        reader.feed(LineageArrived(pack(batch(FAR, first, PAGE)), pulled=False))
    assert (reader.log.frontier.size, reader.log.held) == (0, STAGED_MAX)
    reader.feed(NoteArrived(NOTE))
    assert not reader.log.caught_up
    reader.pull(_honest)
    assert (reader.log.frontier, reader.log.caught_up, reader.codes) == (FAR.log.frontier, True, [])


@pytest.mark.parametrize("lie", ["another history", "a path that is cut off", "no certificate", "a certificate of less than k", "silence"])
def test_who_answers_something_else_costs_its_turns_and_moves_nothing(lie: str) -> None:
    def answer(ask: Ask, number: int) -> LineageBatch | None:
        honest = _honest(ask)
        if ask.member != FAR.member.name and number % 3:
            return honest
        return {
            "another history": msgspec.structs.replace(honest, records=_of("other", ask.first).records),
            "a path that is cut off": msgspec.structs.replace(honest, path=honest.path[:-1]),
            "no certificate": msgspec.structs.replace(honest, checkpoint="", path=[]),
            "a certificate of less than k": msgspec.structs.replace(honest, checkpoint=SHORT),
            "silence": None,
        }[lie]

    reader = Reader()
    reader.feed(NoteArrived(NOTE))
    reader.pull(answer, rounds=120)
    assert (reader.log.frontier, reader.log.certified, reader.codes) == (FAR.log.frontier, SIZE, [])


def test_an_owner_that_answers_with_one_record_at_a_time_delays_by_its_own_turns_only() -> None:
    def answer(ask: Ask, _number: int) -> LineageBatch:
        return page(FAR, ask.first, NOTE, 1) if ask.member == FAR.member.name else _honest(ask)

    reader = Reader()
    reader.feed(NoteArrived(NOTE))
    reader.pull(answer)
    assert reader.log.caught_up
    assert sum(ask.member == FAR.member.name for ask in reader.asked) == 1


def test_another_history_under_its_own_certificate_by_less_than_k_is_never_taken() -> None:
    reader = Reader()
    reader.feed(NoteArrived(NOTE))
    reader.pull(lambda ask, _: msgspec.structs.replace(_of("other", ask.first), checkpoint=OTHER.note(*K[:-1]).decode()), rounds=20)
    assert (reader.log.frontier.size, reader.log.certified) == (0, 0)


def test_a_root_that_its_key_alone_signed_on_the_way_is_a_finding_and_holds_nothing_up() -> None:
    text = Checkpoint(FAR.origin, 100, bytes(32)).to_text()
    reader = Reader()
    reader.feed(NoteArrived(Note(text, (line(FAR.member, "log", text),)).encode()), NoteArrived(NOTE))
    reader.pull(_honest)
    assert (reader.log.caught_up, reader.codes) == (True, ["log_conflict"])
    assert (reader.state.findings[0].origin, reader.state.findings[0].index) == (FAR.origin, 100)


def test_another_root_for_a_size_on_the_way_keeps_no_place_from_what_proves_it() -> None:
    """There the certificate was about more than what was settled: that pair shows nothing."""

    def lie(size: int) -> NoteArrived:
        text = Checkpoint(FAR.origin, size, bytes(32)).to_text()
        return NoteArrived(Note(text, (line(FAR.member, "log", text),)).encode())

    reader = Reader()
    reader.feed(NoteArrived(NOTE))
    reader.pull(_honest, rounds=3)
    reader.feed(lie(reader.log.frontier.size))
    assert (reader.log.frontier.size, reader.codes, reader.state.proofs) == (3 * PAGE, ["log_conflict"], ())
    reader.pull(_honest)
    reader.feed(lie(SIZE - 5))
    (proof,) = reader.state.proofs
    assert judge_proof(proof, LAB.governance.rosters).sizes == (SIZE - 5, SIZE)


def test_it_goes_on_from_where_it_was_kept_on_the_way() -> None:
    reader = Reader()
    reader.feed(NoteArrived(NOTE))
    reader.pull(_honest, rounds=7)
    kept = canonical.decode(AuditPosition, canonical.encode(reader.audit.position(reader.state)), bytes_max=10**6)
    again = Reader(kept)
    assert (again.log.frontier.size, again.log.certified) == (7 * PAGE, 7 * PAGE)
    again.feed(NoteArrived(NOTE))
    again.pull(_honest)
    assert (again.log.frontier, again.log.caught_up) == (FAR.log.frontier, True)
    assert len(again.asked) == -(-SIZE // PAGE) - 7


def test_what_lacks_a_statement_waits_and_what_stands_before_it_is_judged_and_what_k_do_not_have_is_judged_without() -> None:
    owner = simple("few", 3)
    owner.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], LAB.intent(1, at_ms=NOW)[2]), at_ms=NOW)
    simple("rest", SIZE, owner)
    note, lacking = owner.note(*K), list(batch(owner, 0, 8).bodies)

    def answer(ask: Ask, *, whole: bool) -> LineageBatch:
        given = page(owner, ask.first, note)
        return msgspec.structs.replace(given, bodies=lacking if whole and ask.first <= 3 else [], openings=[])

    reader = Reader()
    reader.feed(NoteArrived(note))
    reader.pull(lambda ask, _: answer(ask, whole=False), rounds=2)
    assert (reader.log.frontier.size, reader.log.certified, reader.log.match, reader.codes) == (3, 3, 0, [])
    gone = Reader(reader.audit.position(reader.state))
    gone.feed(NoteArrived(note))
    reader.pull(lambda ask, _: answer(ask, whole=True))
    assert (reader.log.caught_up, reader.codes) == (True, [])
    gone.pull(lambda ask, _: answer(ask, whole=False))
    assert (gone.log.caught_up, set(gone.codes), gone.log.unverifiable) == (True, {"body_missing"}, 1)
