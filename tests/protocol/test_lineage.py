"""A node's own log: records in, one checkpoint at a time out, certificates back."""

from typing import Any

import msgspec
import pytest

from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import Checkpoint, log_verifier, read_checkpoint
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Note, parse_note
from mesh.core.log.record import GovernanceChanged, read_record
from mesh.core.run.authorization import RecordRef
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX, LogState, Writer, certify, checkpoint_due, take_lines
from mesh.protocol.step import Announce, Append, Head, PutNote, Send, SetHead, Sign
from tests.core.kit import refuses
from tests.protocol.machines import LAB, ME, MESH, NOW, empty_log, line, only, perform

ORIGIN = LAB.roster.origin(ME)
OTHERS = [member for member in LAB.roster.members if member.name != ME.name]


def _record(writer: Writer, about: str = "x", **changes: Any) -> GovernanceChanged:
    record = GovernanceChanged(mesh=MESH, origin=ORIGIN, index=writer.index, at_ms=writer.at_ms, change="policy", about=about)
    return msgspec.structs.replace(record, **changes)


def _log(count: int = 3, *, now_ms: int = NOW, state: LogState | None = None) -> LogState:
    state = state or empty_log(ORIGIN)
    writer = Writer(state, mesh=MESH, now_ms=now_ms)
    for _ in range(count):
        writer.append(_record(writer))
    return writer.finish(state)[0]


def _due(state: LogState, now_ms: int = NOW) -> tuple[LogState, list[Any]]:
    return checkpoint_due(state, LAB.roster, ME, now_ms=now_ms)


def _outstanding(count: int = 3) -> tuple[LogState, bytes]:
    """A log with a checkpoint on its way, its own lines taken in, and the checkpoint's text."""
    state, effects = _due(_log(count))
    signed = perform(effects)
    (send,) = only(Send, effects)
    assert state.outstanding is not None
    state, _ = take_lines(state, LAB.roster, ME, send.build(signed))
    assert state.outstanding is not None
    return state, state.outstanding.text


def _lines(text: bytes, *uses: tuple[Any, str]) -> bytes:
    return Note(text, tuple(line(member, use, text) for member, use in uses)).encode()


def test_records_of_a_batch_stand_one_after_the_other_under_one_time() -> None:
    writer = Writer(empty_log(ORIGIN), mesh=MESH, now_ms=NOW)
    refs = [writer.append(_record(writer, str(number))) for number in range(3)]
    state, (append,) = writer.finish(empty_log(ORIGIN))
    assert isinstance(append, Append)
    assert refs == [RecordRef(origin=ORIGIN, index=at, leaf=leaf_hash(leaf).hex()) for at, leaf in enumerate(append.leaves)]
    assert [read_record(leaf).at_ms for leaf in append.leaves] == [NOW] * 3
    assert (append.first, append.hashes) == (0, tuple(map(leaf_hash, append.leaves)))
    assert (state.frontier, state.last_ms) == (Frontier.empty().extend(append.hashes), NOW)


def test_a_batch_without_records_appends_nothing() -> None:
    state = _log()
    assert Writer(state, mesh=MESH, now_ms=NOW + 5).finish(state) == (state, [])


def test_times_in_a_log_never_decrease() -> None:
    state = _log(now_ms=NOW)
    assert Writer(state, mesh=MESH, now_ms=NOW - 5_000).at_ms == NOW
    assert Writer(state, mesh=MESH, now_ms=NOW + 1).at_ms == NOW + 1


@pytest.mark.parametrize("changes", [{"index": 1}, {"origin": "elsewhere"}, {"at_ms": NOW + 1}])
def test_a_record_made_for_another_place_is_never_appended(changes: dict[str, Any]) -> None:
    writer = Writer(empty_log(ORIGIN), mesh=MESH, now_ms=NOW)
    with pytest.raises(AssertionError):
        writer.append(_record(writer, **changes))


def test_a_checkpoint_is_remembered_with_its_times_before_three_keys_sign_it() -> None:
    state, effects = _due(_log())
    head = Head(3, state.frontier.root(), NOW // 1000)
    assert only(SetHead, effects) == [SetHead(use, ORIGIN, head) for use in ("log", "witness", "attest")]
    assert [sign.use for sign in only(Sign, effects)] == ["log", "witness", "attest"]
    (announce,) = only(Announce, effects)
    assert (announce.first, announce.size) == (0, 3)
    assert (state.announced, state.tick_ms, state.signed_s) == (3, NOW, NOW // 1000)


def test_nothing_new_makes_no_checkpoint() -> None:
    assert _due(empty_log(ORIGIN)) == (empty_log(ORIGIN), [])
    state = msgspec.structs.replace(_log(), certified=3)
    assert _due(state) == (state, [])


def test_a_log_has_at_most_one_checkpoint_per_tick() -> None:
    state = msgspec.structs.replace(_log(), tick_ms=NOW - 249)
    assert _due(state) == (state, [])
    assert only(SetHead, _due(state, NOW + 1)[1])


def test_a_second_checkpoint_waits_for_the_first() -> None:
    state, _ = _due(_log())
    state = _log(2, now_ms=NOW + 300, state=state)
    assert _due(state, NOW + 999) == (state, [])


def test_an_outstanding_checkpoint_is_said_again_with_the_same_bytes() -> None:
    state, effects = _due(_log())
    later, again = _due(_log(2, now_ms=NOW + 400, state=state), NOW + 1_000)
    assert not only(SetHead, again)
    (first,), (second,) = only(Send, effects), only(Send, again)
    assert first.build(perform(effects)) == second.build(perform(again))
    (announce,) = only(Announce, again)
    assert (announce.first, announce.size) == (3, 3)
    assert _due(later, NOW + 1_999)[1] == []


def test_after_a_start_what_has_no_certificate_is_published_again() -> None:
    state, _ = _due(_log())
    state = msgspec.structs.replace(state, announced=1)
    (announce,) = only(Announce, _due(state, NOW + 1_000)[1])
    assert (announce.first, announce.size) == (1, 3)


def test_no_checkpoint_is_signed_under_an_earlier_time_than_the_one_before() -> None:
    state = msgspec.structs.replace(_log(), signed_s=NOW // 1000 + 7)
    grown, effects = _due(state)
    assert [item.head.time_s for item in only(SetHead, effects)] == [NOW // 1000 + 7] * 3
    assert grown.signed_s == NOW // 1000 + 7


def test_k_members_make_the_certificate_and_k_less_one_do_not() -> None:
    state, text = _outstanding()
    state, effects = take_lines(state, LAB.roster, ME, _lines(text, (OTHERS[0], "attest")))
    assert effects == []
    state, effects = take_lines(state, LAB.roster, ME, _lines(text, (OTHERS[1], "attest")))
    (kept, *_), (sent,) = only(PutNote, effects), only(Send, effects)
    assert (kept.space, kept.size, state.certified, state.outstanding) == ("certificate", 3, 3, None)
    assert sent.durable
    assert sent.build(perform([])) == kept.note
    found = verify_certificate(kept.note, log=log_verifier(ORIGIN, ME.log_key), attesters=LAB.roster.attest_keys(), k=3)
    assert found.checkpoint == Checkpoint.from_text(text)


def test_witnesses_are_kept_and_count_for_nothing() -> None:
    state, text = _outstanding()
    state, effects = take_lines(state, LAB.roster, ME, _lines(text, *((member, "witness") for member in OTHERS)))
    assert effects == []
    assert state.outstanding is not None
    assert len(state.outstanding.lines) == 6


def test_the_same_line_again_counts_once() -> None:
    state, text = _outstanding()
    for _ in range(3):
        state, effects = take_lines(state, LAB.roster, ME, _lines(text, (OTHERS[0], "attest")))
        assert effects == []


def test_a_certificate_waits_for_the_logs_own_line() -> None:
    state, effects = _due(_log())
    assert state.outstanding is not None
    text = state.outstanding.text
    state, effects = take_lines(state, LAB.roster, ME, _lines(text, *((member, "attest") for member in OTHERS)))
    assert effects == []
    state, effects = take_lines(state, LAB.roster, ME, _lines(text, (ME, "log")))
    assert only(PutNote, effects)


def test_a_bad_line_of_a_known_key_spoils_the_note_and_changes_nothing() -> None:
    state, text = _outstanding()
    good, bad = line(OTHERS[0], "attest", text), line(OTHERS[1], "attest", text + b"x\n")
    with refuses("bad_signature"):
        take_lines(state, LAB.roster, ME, Note(text, (good, bad)).encode())


def test_lines_on_another_text_are_ignored() -> None:
    state, text = _outstanding()
    other = Checkpoint(ORIGIN, 2, bytes(32)).to_text()
    assert take_lines(state, LAB.roster, ME, _lines(other, *((member, "attest") for member in OTHERS))) == (state, [])
    assert take_lines(_log(), LAB.roster, ME, _lines(text, (OTHERS[0], "attest"))) == (_log(), [])


def test_garbage_is_refused() -> None:
    state, _ = _outstanding()
    with refuses("malformed"):
        take_lines(state, LAB.roster, ME, b"nothing\n")


def test_the_published_note_is_the_checkpoint_with_the_logs_own_line() -> None:
    state, text = _outstanding()
    assert parse_note(state.note) == Note(text, (line(ME, "log", text),))


def test_what_each_other_member_cosigned_is_kept_also_if_it_comes_after_the_certificate() -> None:
    state, text = _outstanding()
    both = [(OTHERS[0], "attest"), (OTHERS[0], "witness"), (OTHERS[1], "attest")]
    state, effects = take_lines(state, LAB.roster, ME, _lines(text, *both))
    kept = {note.member: note for note in only(PutNote, effects) if note.space == "cosigned"}
    assert {name: note.note for name, note in kept.items()} == {
        OTHERS[0].name: _lines(text, *both[:2]),
        OTHERS[1].name: _lines(text, both[2]),
    }
    late = (OTHERS[2], "attest")
    state, effects = take_lines(state, LAB.roster, ME, _lines(text, both[0], late))
    assert effects == [PutNote("cosigned", ORIGIN, 3, _lines(text, late), OTHERS[2].name)]
    assert take_lines(state, LAB.roster, ME, _lines(text, both[0], late)) == (state, [])


def test_nothing_outstanding_certifies_nothing() -> None:
    assert certify(_log(), LAB.roster, ME) == (_log(), [])


@pytest.mark.parametrize("extra", [0, 1, 700])
def test_a_checkpoint_never_covers_more_new_records_than_a_peer_can_stage(extra: int) -> None:
    state, sizes = _log(2 * CHECKPOINT_RECORDS_MAX + extra), []
    now_ms = NOW
    while state.certified < state.frontier.size:
        state, effects = _due(state, now_ms)
        (announce,) = only(Announce, effects)
        sizes.append(announce.size - announce.first)
        assert state.outstanding is not None
        text = state.outstanding.text
        notes = _lines(text, (ME, "log"), (ME, "attest"), *((member, "attest") for member in OTHERS[:2]))
        state, _ = take_lines(state, LAB.roster, ME, notes)
        now_ms += 250
    assert sizes == [CHECKPOINT_RECORDS_MAX] * 2 + ([extra] if extra else [])
    assert read_checkpoint(state.note).root == state.frontier.root()
