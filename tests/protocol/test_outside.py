"""Of what an external witness answers only its own line on exactly the published text is kept, and only a size that can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.log.certificate import certificate_note, verify_certificate
from mesh.core.log.checkpoint import cosignature_line, cosignature_message, cosigner
from mesh.core.log.note import format_lines, parse_note
from mesh.limits import NOTE_SIGNATURES_MAX
from mesh.protocol.outside import cosigned, published, told_size
from tests.core.kit import HOSTILE, refuses, secret
from tests.core.log.logs import ATTESTERS, LOG, MEMBERS, attestation, checkpoint_of, signed

KEY = secret(77)
WITNESS = cosigner("witness.example/w1", KEY.public)
CHECKPOINT = checkpoint_of(7)
NOTE = signed(CHECKPOINT)
CERTIFICATE = certificate_note(NOTE, [attestation(name, CHECKPOINT) for name in list(MEMBERS)[:3]])


def line(time_s: int = 1_700_000_000, *, number: int = 77, text: bytes = CHECKPOINT.to_text(), name: str = WITNESS.name) -> bytes:
    key = secret(number)
    return format_lines([cosignature_line(name, key.public, time_s, key.sign(cosignature_message(text, time_s)))])


def test_its_line_is_kept_and_strangers_are_left_out() -> None:
    kept = parse_note(cosigned(NOTE, line(number=78, name="x") + line(), WITNESS))
    assert (kept.text, format_lines(kept.lines)) == (CHECKPOINT.to_text(), line())


@pytest.mark.parametrize(
    "answer",
    [b"", line(0), line(number=78), line(text=checkpoint_of(8).to_text()), line() + line(1_700_000_001), line()[:-1], NOTE],
    ids=["nothing", "no time", "another key", "another text", "two", "no end", "a note"],
)
def test_nothing_else_is(answer: bytes) -> None:
    with refuses("not_cosigned"):
        cosigned(NOTE, answer, WITNESS)


@given(HOSTILE)
def test_hostile_bytes_are_no_cosignature_and_no_size(data: bytes) -> None:
    with refuses("not_cosigned"):
        cosigned(NOTE, data, WITNESS)
    with refuses("not_cosigned"):
        told_size("text/x.tlog.size", b"x" + data, 7)


@given(st.integers(0, 7))
def test_a_size_up_to_the_published_one_is_taken(size: int) -> None:
    assert told_size("text/x.tlog.size", b"%d\n" % size, 7) == size


@pytest.mark.parametrize("body", [b"8\n", b"-1\n", b"07\n", b"7", b"7\n\n", b" 7\n", b"+7\n", b"7.0\n", b"", b"9" * 40 + b"\n"])
def test_another_is_not(body: bytes) -> None:
    with refuses("not_cosigned"):
        told_size("text/x.tlog.size", body, 7)
    with refuses("not_cosigned"):
        told_size("text/plain", b"7\n", 7)


def test_what_is_published_is_the_certificate_with_lines_on_its_own_text_beneath() -> None:
    mine, old = cosigned(NOTE, line(), WITNESS), cosigned(signed(checkpoint_of(6)), line(text=checkpoint_of(6).to_text()), WITNESS)
    assert published(CERTIFICATE, []) == CERTIFICATE
    assert published(CERTIFICATE, [old]) == CERTIFICATE
    assert published(CERTIFICATE, [old, mine, mine]) == CERTIFICATE + line()
    with refuses("bad_signature"):
        verify_certificate(published(CERTIFICATE, [mine]), log=LOG, attesters=ATTESTERS, k=3)


def test_more_lines_than_a_note_may_have_are_left_out() -> None:
    verifiers = [cosigner(f"witness.example/{number}", KEY.public) for number in range(NOTE_SIGNATURES_MAX)]
    notes = [cosigned(NOTE, line(name=one.name), one) for one in verifiers]
    assert len(parse_note(published(CERTIFICATE, notes)).lines) == NOTE_SIGNATURES_MAX
