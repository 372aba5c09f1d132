"""What is seen of a record's way is what keys of the roster have signed: in order, once, in whatever order messages come."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.note import Line, Note
from mesh.core.messages import pack
from mesh.errors import Refused
from mesh.protocol.advancing import STATES, Advance, Reached, advanced, note_in
from tests.core.kit import HOSTILE, flips, refuses
from tests.protocol.machines import LAB, NOW, OWNER, batch, line
from tests.protocol.test_proven import simple

LOG = simple("a", 40)
OTHERS = [member for member in LAB.roster.members if member.name != OWNER.name]
AT_S = NOW // 1000


def _text(size: int) -> bytes:
    return Checkpoint(LOG.origin, size, bytes([size]) * 32).to_text()


def _note(size: int, *lines: Line) -> bytes:
    return Note(_text(size), lines).encode()


def _recorded(size: int) -> bytes:
    return _note(size, line(OWNER, "log", _text(size)))


def _witnessed(size: int, at_s: int = AT_S + 1) -> bytes:
    return _note(size, line(OTHERS[0], "witness", _text(size), at_s), line(OTHERS[0], "attest", _text(size), at_s))


def _final(size: int) -> bytes:
    attested = [line(member, "attest", _text(size), AT_S + 2 + at) for at, member in enumerate(LAB.roster.members[: LAB.roster.k])]
    return _note(size, line(OWNER, "log", _text(size)), *attested)


def _seen(notes: Iterable[bytes]) -> tuple[dict[str, Reached], list[tuple[str, int, int]]]:
    held, told = dict[str, Reached](), list[Advance]()
    for note in notes:
        held, advances = advanced(held, note, LAB.governance)
        told += advances
    assert {one.origin for one in told} <= {LOG.origin}
    return held, [(one.state, one.first, one.end) for one in told]


def test_a_record_is_recorded_then_witnessed_then_final_and_each_says_when_as_far_as_somebody_signed_it() -> None:
    held, told = dict[str, Reached](), list[Advance]()
    for note in (_recorded(5), _witnessed(5), _final(5)):
        held, advances = advanced(held, note, LAB.governance)
        told += advances
    assert [(one.state, one.first, one.end) for one in told] == [(state, 0, 5) for state in STATES]
    assert [one.at_ms for one in told] == [0, 1_000 * (AT_S + 1), 1_000 * (AT_S + 1 + LAB.roster.k)]
    assert held == {LOG.origin: Reached(origin=LOG.origin, recorded=5, witnessed=5, final=5)}


def test_what_a_later_state_implies_is_said_with_it() -> None:
    assert _seen([_final(7)])[1] == [("recorded", 0, 7), ("witnessed", 0, 7), ("final", 0, 7)]
    assert _seen([_recorded(3), _recorded(9), _witnessed(3), _final(9)])[1] == [
        ("recorded", 0, 3),
        ("recorded", 3, 9),
        ("witnessed", 0, 3),
        ("witnessed", 3, 9),
        ("final", 0, 9),
    ]


def test_what_comes_twice_or_late_is_said_once_and_nothing_goes_back() -> None:
    notes = [_recorded(5), _witnessed(5), _final(5)]
    _, once = _seen(notes)
    assert _seen([*notes, *notes, _recorded(2), _witnessed(4), _final(3)])[1] == once


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_in_whatever_order_notes_come_every_state_of_every_record_is_said_once_and_in_order(random: Random) -> None:
    notes = [make(size) for size in (2, 5, 9) for make in (_recorded, _witnessed, _final)]
    held, told = _seen(random.sample(notes, len(notes)) + random.sample(notes, 4))
    assert held[LOG.origin] == Reached(origin=LOG.origin, recorded=9, witnessed=9, final=9)
    _complete(told, 9)


def _complete(told: Sequence[tuple[str, int, int]], size: int) -> None:
    reached = dict.fromkeys(map(str, STATES), 0)
    for state, first, end in told:
        assert (first, first < end) == (reached[state], True)
        reached[state] = end
        assert reached["recorded"] >= max(reached.values())
        assert reached["witnessed"] >= reached["final"]
    assert set(reached.values()) == {size}


def test_a_restart_goes_on_from_what_was_kept() -> None:
    held, first = _seen([_recorded(5), _witnessed(5)])
    held, advances = advanced(held, _final(5), LAB.governance)
    assert first + [(one.state, one.first, one.end) for one in advances] == _seen([_recorded(5), _witnessed(5), _final(5)])[1]
    assert advanced(held, _final(5), LAB.governance)[1] == []


# ----------------------------------------------------------------------------------------------------------- who may say so


def test_nobody_but_its_own_log_records_and_nobody_but_others_witness() -> None:
    own = _note(5, line(OWNER, "witness", _text(5)), line(OWNER, "attest", _text(5)))
    assert _seen([own])[1] == []
    assert _seen([_recorded(5), own])[1] == [("recorded", 0, 5)], "its owner is no other member"
    assert _seen([_witnessed(5)])[1] == [], "a witness alone says nothing of what its log has signed"
    stranger = _note(5, line(OTHERS[0], "log", _text(5)))
    assert _seen([stranger])[1] == []


def test_fewer_than_k_make_nothing_final_and_one_key_under_many_names_is_one() -> None:
    few = [line(member, "attest", _text(5)) for member in LAB.roster.members[: LAB.roster.k - 1]]
    again = line(LAB.roster.members[0], "attest", _text(5), AT_S + 9)
    renamed = msgspec.structs.replace(again, name=f"lab/{LAB.roster.members[-1].name}/attest")
    for lines in (few, [*few, again], [*few, renamed]):
        assert "final" not in [state for state, *_ in _seen([_note(5, line(OWNER, "log", _text(5)), *lines)])[1]]


@pytest.mark.parametrize(("note", "state"), [(_recorded(5), "recorded"), (_witnessed(5), "witnessed"), (_final(5), "final")], ids=STATES)
def test_one_changed_byte_of_a_note_says_nothing_that_the_whole_one_does_not(note: bytes, state: str) -> None:
    before = _seen([] if state == "recorded" else [_recorded(5)])[0]
    whole = {(one.state, one.first, one.end) for one in advanced(before, note, LAB.governance)[1]}
    assert state in {one[0] for one in whole}
    changed = 0
    for data in flips(note):
        changed += 1
        with suppress(Refused):
            assert {(one.state, one.first, one.end) for one in advanced(before, data, LAB.governance)[1]} <= whole
    assert changed > 300


def test_a_line_that_somebody_spoilt_or_added_costs_that_line_only() -> None:
    spoilt = line(OTHERS[1], "attest", _text(9))
    text = _text(5)
    lines = [line(OWNER, "log", text), line(OTHERS[0], "witness", text), msgspec.structs.replace(spoilt)]
    assert _seen([_note(5, *lines)])[1] == [("recorded", 0, 5), ("witnessed", 0, 5)]


def test_a_note_about_another_mesh_or_no_log_of_this_one_is_refused() -> None:
    for origin in ("other/us-1/e1", "lab/nobody/e1"):
        text = Checkpoint(origin, 5, bytes(32)).to_text()
        with refuses("unknown_member"):
            advanced({}, Note(text, (line(OWNER, "log", text),)).encode(), LAB.governance)


@given(HOSTILE)
def test_hostile_bytes_are_refused_and_change_nothing(data: bytes) -> None:
    for kind in ("lineage", "checkpoint", "cosig"):
        with pytest.raises(Refused):
            advanced({}, note_in(kind, data), LAB.governance)


def test_records_that_come_without_a_checkpoint_say_nothing() -> None:
    assert note_in("lineage", pack(batch(LOG, 0, 3))) == b""
    assert note_in("lineage", pack(batch(LOG, 0, 3, note=LOG.note(size=3)))) == LOG.note(size=3)
