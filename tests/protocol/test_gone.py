"""Who comes too late for openings that were erased is let past what k members have attested, and past nothing else."""

from typing import Any

import msgspec
import pytest

from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.log.record import AttestRefused, DecisionMade, Denied, GovernanceChanged, read_record
from mesh.core.messages import LineageBatch
from mesh.limits import ERASED_MAX
from mesh.protocol.attester import Material, examine_records
from mesh.protocol.documents import Documents
from mesh.protocol.gone import lets_past, passing
from mesh.protocol.holding import MirrorContext
from mesh.protocol.lineage import Writer
from mesh.protocol.proven import aimed_at, attest_held, sought, take_proven
from mesh.protocol.step import Append, Ask, PutOpenings, SetHead
from tests.protocol.machines import LAB, NOW, OWNER, Owner, batch, only
from tests.protocol.test_mirror import MEMBERS, STALL_MS, Holder
from tests.support.erasures import erase, erasing


class _Late(Holder):
    """A mirror of somebody who holds an erasure."""

    def __init__(self, governance: Governance) -> None:
        super().__init__()
        self.governance = governance

    def _context(self) -> MirrorContext:
        return msgspec.structs.replace(super()._context(), governance=self.governance)


def _owner(count: int = 2, *, first: int = 0, hides: tuple[int, ...] = (0,)) -> tuple[Owner, list[str]]:
    """An owner that has decided about these intents, some with a committed parameter; and the ids of those."""
    owner, hidden = Owner(), list[str]()
    for number in range(first, first + count):
        intent, data, openings = LAB.intent(number, memo="private" if number in hides else None, at_ms=NOW)
        owner.decide(LAB.request(data, openings))
        hidden += [intent] if number in hides else []
    return owner, hidden


def _bare(owner: Owner, first: int = 0, count: int | None = None, note: bytes = b"") -> LineageBatch:
    return msgspec.structs.replace(batch(owner, first, count, note), openings=[])


def _uses(effects: list[Any]) -> list[str]:
    return [item.use for item in only(SetHead, effects)]


def _pulled(mine: Holder, owner: Owner, note: bytes, turns: int = 1) -> list[Any]:
    """What comes of so many pulls, each answered from this log by somebody who has no openings any more."""
    return [
        effect
        for _ in range(turns)
        for ask in only(Ask, mine.tick())
        for effect in mine.batch(_bare(owner, ask.first, 128, note), helper=ask.member)
    ]


def _misplaced(writer: Writer) -> GovernanceChanged:
    return GovernanceChanged(mesh=writer.mesh, origin=writer.origin, index=7, at_ms=writer.at_ms, change="fresh", about="")


def test_a_final_record_whose_openings_were_erased_is_held_and_attested_without_them() -> None:
    owner, hidden = _owner()
    mine, final = _Late(erasing(LAB, *hidden)), owner.note(*MEMBERS[1:4])
    assert mine.batch(_bare(owner, note=owner.note())) == []  # its own key alone makes nothing final
    assert only(Append, mine.note(final)) == []  # nobody has shown yet that they lead there
    effects = _pulled(mine, owner, final)
    assert len(only(Append, effects)[0].leaves) == 2
    assert _uses(effects) == ["witness", "attest"]
    assert only(PutOpenings, effects) == []
    assert mine.state.refused == -1


def test_the_certificate_may_reach_further_and_come_with_the_answer() -> None:
    owner, hidden = _owner(4)
    mine, final = _Late(erasing(LAB, *hidden)), owner.note(*MEMBERS[1:4])
    assert only(Append, mine.batch(_bare(owner, 0, 2, owner.note(size=2)))) == []
    effects = _pulled(mine, owner, final, 3)
    assert sum(len(append.leaves) for append in only(Append, effects)) == 4
    assert _uses(effects) == ["witness", "attest"]
    owner.decide(LAB.request(LAB.intent(9, at_ms=NOW)[1], []))
    effects = mine.batch(_bare(owner, 4, note=owner.note()))  # and on by its owner's word, as ever
    assert _uses(effects) == ["witness", "attest"]


@pytest.mark.parametrize("lines", [0, 2])
def test_what_is_not_final_waits_for_its_openings_and_is_refused_as_missing_like_anything_else(lines: int) -> None:
    owner, hidden = _owner()
    mine = _Late(erasing(LAB, *hidden))
    note = owner.note(*MEMBERS[1 : 1 + lines])
    assert only(Append, mine.batch(_bare(owner, note=note))) == []
    for _ in range(STALL_MS // 300 + 2):
        mine.tick()
        mine.batch(_bare(owner, note=note))
    refusals = [record.refusal for record in mine.records() if isinstance(record, AttestRefused)]
    assert [(item.reason, item.code, item.index) for item in refusals] == [("missing", "erased", 0)]
    effects = mine.batch(batch(owner, note=note))  # its owner keeps them until it is final
    assert _uses(effects) == ["witness", "attest"]
    assert [item.intent for item in only(PutOpenings, effects)] == hidden  # the file does not take them in


def test_openings_that_nobody_erased_are_missing_also_where_k_members_have_attested() -> None:
    owner, _ = _owner()
    for governance in (LAB.governance, erasing(LAB, "ab" * 32)):
        mine = _Late(governance)
        assert only(Append, mine.batch(_bare(owner, note=owner.note(*MEMBERS[1:4])))) == []
        assert mine.state.staged[0].code == "body_missing"


def test_a_certificate_over_another_history_lets_nothing_of_this_one_pass() -> None:
    owner, hidden = _owner(3)
    other = Owner()
    for number in (0, 1, 7):  # the same intent, decided again in another history
        _, data, openings = LAB.intent(number, memo="private" if number == 0 else None, at_ms=NOW)
        other.decide(LAB.request(data, openings))
    mine, final = _Late(erasing(LAB, *hidden)), owner.note(*MEMBERS[1:4])
    mine.batch(_bare(other, 0, 2, other.note(size=2)))
    mine.note(final)
    for _ in range(8):
        effects = _pulled(mine, other, final)
        effects += mine.batch(batch(other, 0, 2, other.note(size=2)))  # also not with the openings that only its owner still has
        assert (only(Append, effects), _uses(effects)) == ([], [])
    assert [len(append.leaves) for append in only(Append, _pulled(mine, owner, final, 3))] == [3]


def test_a_certificate_far_behind_is_reached_also_over_pages_full_of_what_was_erased() -> None:
    owner, hidden = _owner(300, hides=tuple(range(300)))
    first = erase(LAB, *hidden[:ERASED_MAX])
    held = extend(LAB.governance, [first, erase(LAB, *hidden[ERASED_MAX:], after=first)]).governance
    mine, final = _Late(held), owner.note(*MEMBERS[1:4])
    mine.note(final)
    effects = _pulled(mine, owner, final, 8)
    assert (sum(len(append.leaves) for append in only(Append, effects)), mine.state.frontier) == (300, owner.log.frontier)
    assert _uses(effects) == ["witness", "attest"]


def test_a_newcomer_that_is_shown_a_certificate_at_its_start_is_let_past_too_and_quietly() -> None:
    owner, hidden = _owner(3)
    final = owner.note(*MEMBERS[1:4])
    for known in (False, True):
        mine = _Late(erasing(LAB, *hidden) if known else LAB.governance)
        mine.state, _ = sought(mine.state, final, mine._context())
        mine.state, effects = take_proven(mine.state, _bare(owner, note=final), mine._context(), quiet=True)
        assert (mine.state.frontier.size, only(SetHead, effects)) == (3 if known else 0, [])  # it waits until it hears of the erasure
        mine.governance = erasing(LAB, *hidden)
        if known:
            mine.state, effects = attest_held(mine.state, mine._context())
        else:
            effects = _pulled(mine, owner, final)
        assert _uses(effects) == ["witness", "attest"]
        assert mine.state.refused == -1


def test_a_wrong_record_beside_an_erased_one_is_refused_as_ever() -> None:
    owner, hidden = _owner(2)
    owner.write(_misplaced)
    mine, final = _Late(erasing(LAB, *hidden)), owner.note(*MEMBERS[1:4])
    mine.state = aimed_at(mine.state, final)
    effects = _pulled(mine, owner, final)
    assert sum(len(append.leaves) for append in only(Append, effects)) == 3
    assert _uses(effects) == []
    refusals = [record.refusal for record in mine.records() if isinstance(record, AttestRefused)]
    assert [(item.reason, item.index) for item in refusals] == [("wrong", 2)]


def test_a_certificate_of_members_who_left_before_the_decision_is_none_for_it() -> None:
    owner, hidden = _owner()
    governance = erasing(LAB, *hidden)
    mine, final = _Late(governance), owner.note(*MEMBERS[1:4])
    mine.batch(_bare(owner))
    stopped = mine.state.staged
    record = msgspec.structs.replace(stopped[0].record, roster_epoch=2)
    later = (msgspec.structs.replace(stopped[0], record=record), *stopped[1:])
    for staged, past in ((stopped, True), (later, False)):
        assert lets_past(staged, 0, final, governance, OWNER) is past
        assert passing(staged, {final}, governance, OWNER) == [past, False]
    assert not lets_past(stopped[1:], 1, final, governance, OWNER), "nothing stops these"
    assert not lets_past(stopped, 2, final, governance, OWNER), "it ends before them"


def test_everything_else_about_such_a_record_is_still_examined() -> None:
    owner, hidden = _owner(1)
    governance = erasing(LAB, *hidden)

    def code(leaf: bytes, bodies: dict[str, bytes]) -> str:
        (item,) = examine_records(
            [leaf], Material(bodies, {}), owner=OWNER, first=0, after_ms=0, governance=governance, documents=Documents(),
            engine=LAB.engine, now_ms=NOW,
        )  # fmt: skip
        return item.code

    assert code(owner.leaves[0], owner.bodies) == "erased"
    assert code(owner.leaves[0], {}) == "body_missing"
    record = read_record(owner.leaves[0])
    assert isinstance(record, DecisionMade)
    assert code(owner.leaves[0].replace(b'"index":0', b'"index":1'), owner.bodies) == "record_invalid"


def test_an_intent_that_an_erasure_names_is_denied_and_not_decided() -> None:
    intent, data, openings = LAB.intent(5, memo="private", at_ms=NOW)
    owner = Owner()
    owner.decide(LAB.request(data, openings), governance=erasing(LAB, intent))
    (record,) = [read_record(leaf) for leaf in owner.leaves]
    assert isinstance(record, Denied)
    assert record.code == "erased"
    assert owner.openings == {}


def test_two_erasures_may_name_the_same_intent() -> None:
    owner, hidden = _owner(1)
    first = erase(LAB, *hidden)
    held = extend(LAB.governance, [first, erase(LAB, *hidden, "ab" * 32, after=first)]).governance
    mine = _Late(held)
    mine.batch(_bare(owner, note=owner.note(*MEMBERS[1:4])))
    assert only(Append, _pulled(mine, owner, owner.note(*MEMBERS[1:4])))
