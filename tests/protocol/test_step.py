"""What a machine asks for happens in one order: remember, then sign, then send."""

from typing import Any

import pytest

from mesh.core.bytes import envelope
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner, log_verifier
from mesh.core.log.note import Note, open_note
from mesh.core.run.authorization import Receipt, RecordRef
from mesh.protocol.step import FAILPOINTS, Announce, Ask, Commit, NoteDraft, Reply, Send, Sending, SetMeta, Sign, Step, phases
from tests.protocol.machines import LAB, ME, MESH

ORIGIN = LAB.roster.origin(ME)
KEYS = LAB.keys[ME.name]
RECEIPT = envelope.draft(Receipt(mesh=MESH, issuer=ME.name, statement="ab" * 32, record=RecordRef(origin=ORIGIN, index=0, leaf="cd" * 32)))


def _run(*effects: Any, log: list[str] | None = None) -> Any:
    said = [] if log is None else log

    def sign(use: Any, message: bytes) -> bytes:
        said.append(f"sign {use}")
        return KEYS[use].sign(message)

    public: Any = {use: key.public for use, key in KEYS.items()}
    return phases(Step("after", effects), sign=sign, public=public, failpoint=said.append)


def test_everything_is_remembered_before_anything_is_signed_and_signed_before_anything_is_sent() -> None:
    said: list[str] = []
    send = Send(Reply(1), lambda signed: signed.statements[RECEIPT.id])
    runner = _run(send, Sign("decision", RECEIPT), SetMeta("a", 1), SetMeta("b", 2), log=said)
    assert next(runner) == Commit((SetMeta("a", 1), SetMeta("b", 2)))
    assert said == ["persist.before"]
    sending = next(runner)
    assert said == ["persist.before", "persist.after", "sign decision", "sign.after"]
    assert isinstance(sending, Sending)
    ((item, data),) = sending.messages
    assert item is send
    assert envelope.read(Receipt, data).signed_by(KEYS["decision"].public)
    with pytest.raises(StopIteration) as done:
        next(runner)
    assert done.value.value == "after"
    assert tuple(word for word in said if "sign d" not in word) == FAILPOINTS


def test_a_commit_that_failed_leaves_nothing_signed() -> None:
    said: list[str] = []
    runner = _run(SetMeta("a", 1), Sign("decision", RECEIPT), Send("x", lambda _: b""), log=said)
    next(runner)
    runner.close()
    assert said == ["persist.before"]


def test_a_step_without_anything_to_remember_or_send_passes_every_boundary_all_the_same() -> None:
    said: list[str] = []
    with pytest.raises(StopIteration) as done:
        next(_run(log=said))
    assert done.value.value == "after"
    assert said == list(FAILPOINTS)


def test_a_crash_at_a_boundary_goes_no_further() -> None:
    for at, name in enumerate(FAILPOINTS):
        said: list[str] = []

        def failpoint(passed: str, name: str = name, said: list[str] = said) -> None:
            said.append(passed)
            if passed == name:
                raise KeyboardInterrupt

        public: Any = {use: key.public for use, key in KEYS.items()}
        effects = (SetMeta("a", 1), Sign("decision", RECEIPT), Send("x", lambda _: b""))
        runner = phases(Step(None, effects), sign=lambda use, message: KEYS[use].sign(message), public=public, failpoint=failpoint)
        with pytest.raises(KeyboardInterrupt):
            list(runner)
        assert said == list(FAILPOINTS[: at + 1])


def test_a_log_signs_the_text_itself_and_a_cosigner_time_and_text() -> None:
    text = Checkpoint(ORIGIN, 3, bytes(32)).to_text()
    log, attest = NoteDraft(ORIGIN, text, None), NoteDraft(attest_name(MESH, ME.name), text, 77)
    send = Send("x", lambda signed: Note(text, (signed.lines[log.id], signed.lines[attest.id])).encode())
    (sending,) = list(_run(Sign("log", log), Sign("attest", attest), send))
    verifiers = (log_verifier(ORIGIN, ME.log_key), cosigner(attest_name(MESH, ME.name), ME.attest_key))
    opened = open_note(sending.messages[0][1], verifiers)
    assert [signed.time_s for signed in opened.signed] == [0, 77]
    assert opened.strangers == 0


def test_an_announcement_goes_out_with_its_signed_note_and_a_pull_with_nothing() -> None:
    text = Checkpoint(ORIGIN, 3, bytes(32)).to_text()
    log = NoteDraft(ORIGIN, text, None)
    announce, ask = Announce(ORIGIN, 0, 3, log), Ask("us-1", ORIGIN, 5)
    (sending,) = list(_run(Sign("log", log), announce, ask))
    assert [item for item, _ in sending.messages] == [announce, ask]
    assert open_note(sending.messages[0][1], (log_verifier(ORIGIN, ME.log_key),)).text == text
    assert sending.messages[1][1] == b""
