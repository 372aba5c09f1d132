"""A checkpoint has one spelling and one signer; a log that does not grow as it must is found out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.log.checkpoint import (
    AddCheckpoint,
    Checkpoint,
    attest_name,
    cosignature_line,
    cosignature_message,
    cosigner,
    log_line,
    log_origin,
    log_verifier,
    open_checkpoint,
    read_checkpoint,
    verify_growth,
    witness_name,
)
from mesh.core.log.merkle import EMPTY_ROOT, consistency_path
from mesh.core.log.note import Note, append_lines, parse_note
from mesh.errors import Refused
from mesh.limits import NOTE_BYTES_MAX, PROOF_HASHES_MAX, TREE_SIZE_MAX, WITNESS_REQUEST_BYTES_MAX
from tests.core.kit import HOSTILE, flips, needs_vectors, refuses, secret, vectors
from tests.core.log.logs import ATTESTERS, GET, LOG, LOG_KEY, MEMBERS, ORIGIN, attestation, checkpoint_of, signed

ROOT64 = "A" * 43 + "="
NEW = Checkpoint(ORIGIN, 0, EMPTY_ROOT)


# ----------------------------------------------------------------------------------------------------------------- text


def test_names_say_mesh_node_and_purpose() -> None:
    assert log_origin("mesh.example", "eu1", 2) == "mesh.example/eu1/e2"
    assert witness_name("mesh.example", "eu1") == "mesh.example/eu1/witness"
    assert attest_name("mesh.example", "eu1") == "mesh.example/eu1/attest"


def test_a_checkpoint_is_three_lines() -> None:
    assert Checkpoint("mesh/eu1/e0", 7, bytes(32)).to_text() == f"mesh/eu1/e0\n7\n{ROOT64}\n".encode()


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40),
    st.integers(0, TREE_SIZE_MAX),
    st.binary(min_size=32, max_size=32),
)
def test_a_checkpoint_survives_its_own_text(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, root)
    assert Checkpoint.from_text(checkpoint.to_text()) == checkpoint


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "malformed"),
        ("o\n7\n", "malformed"),
        (f"\n7\n{ROOT64}\n", "malformed"),
        (f"o\n7\n{ROOT64}", "malformed"),
        (f"o\n7\n{ROOT64}\nextension\n", "malformed"),
        (f"o\n7\n{ROOT64}\n\n", "malformed"),
        (f"o\r\n7\r\n{ROOT64}\r\n", "malformed"),
        (f"o\n\n{ROOT64}\n", "malformed"),
        (f"o\n-1\n{ROOT64}\n", "malformed"),
        (f"o\n+7\n{ROOT64}\n", "malformed"),
        (f"o\n 7\n{ROOT64}\n", "malformed"),
        (f"o\n1_0\n{ROOT64}\n", "malformed"),
        (f"o\n\N{ARABIC-INDIC DIGIT SEVEN}\n{ROOT64}\n", "malformed"),
        (f"o\n7.0\n{ROOT64}\n", "malformed"),
        (f"o\n07\n{ROOT64}\n", "non_canonical"),
        (f"o\n00\n{ROOT64}\n", "non_canonical"),
        (f"o\n7\n{ROOT64[:-1]}\n", "malformed"),
        (f"o\n7\n{ROOT64[4:]}\n", "malformed"),  # 29 bytes
        (f"o\n7\n{ROOT64[:-2]}B=\n", "non_canonical"),  # stray bits
        (f"o\n7\nAAAA{ROOT64}\n", "malformed"),  # 35 bytes
        (f"o\n{TREE_SIZE_MAX + 1}\n{ROOT64}\n", "too_large"),
        (f"o\n{'9' * 5000}\n{ROOT64}\n", "too_large"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text: str, code: str) -> None:
    with refuses(code):
        Checkpoint.from_text(text.encode())


def test_a_tree_may_be_as_large_as_its_limit() -> None:
    assert Checkpoint.from_text(f"o\n{TREE_SIZE_MAX}\n{ROOT64}\n".encode()).size == TREE_SIZE_MAX


def test_a_checkpoint_text_may_be_as_long_as_a_note() -> None:
    rest = len(f"\n7\n{ROOT64}\n")
    longest = f"{'o' * (NOTE_BYTES_MAX - rest)}\n7\n{ROOT64}\n".encode()
    assert Checkpoint.from_text(longest).to_text() == longest
    with refuses("too_large"):
        Checkpoint.from_text(b"o" + longest)


@given(HOSTILE)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    readers = (Checkpoint.from_text, read_checkpoint, AddCheckpoint.parse, lambda data: open_checkpoint(data, LOG))
    for read in readers:
        with refuses("malformed", "non_canonical", "too_large"):
            read(data)


# ------------------------------------------------------------------------------------------------------------ believing


def test_a_checkpoint_is_believed_on_the_word_of_its_log() -> None:
    checkpoint = checkpoint_of(7)
    opened = open_checkpoint(signed(checkpoint), LOG)
    assert opened.checkpoint == checkpoint == read_checkpoint(signed(checkpoint))
    assert (opened.cosignatures, opened.strangers) == ((), 0)


def test_cosignatures_are_verified_with_their_times() -> None:
    checkpoint = checkpoint_of(7)
    names = list(MEMBERS)
    note = append_lines(signed(checkpoint), [attestation(name, checkpoint, time_s=1_000 + at) for at, name in enumerate(names)])
    opened = open_checkpoint(note, LOG, tuple(cosigner(name, ATTESTERS[name]) for name in names[:3]))
    assert [(each.verifier.name, each.time_s) for each in opened.cosignatures] == list(zip(names, range(1_000, 1_003), strict=False))
    assert opened.strangers == 1


def test_cosigners_alone_make_no_checkpoint() -> None:
    checkpoint = checkpoint_of(7)
    name = next(iter(MEMBERS))
    unsigned = Note(checkpoint.to_text(), (attestation(name, checkpoint),)).encode()
    with refuses("bad_signature"):
        open_checkpoint(unsigned, LOG, (cosigner(name, ATTESTERS[name]),))


def test_a_log_cannot_speak_for_another() -> None:
    theirs = Checkpoint("mesh.example/us1/e0", 7, checkpoint_of(7).root)
    with refuses("bad_checkpoint"):
        open_checkpoint(signed(theirs), LOG)


def test_a_signature_over_another_text_is_refused() -> None:
    other = parse_note(signed(checkpoint_of(8)))
    with refuses("bad_signature"):
        open_checkpoint(Note(checkpoint_of(7).to_text(), other.lines).encode(), LOG)


def test_a_log_line_is_none_of_a_cosigner_and_the_other_way_round() -> None:
    key, text = secret(9), checkpoint_of(7).to_text()
    plain = log_line(ORIGIN, key.public, key.sign(text))
    timed = cosignature_line(ORIGIN, key.public, 5, key.sign(cosignature_message(text, 5)))
    assert plain.key_id != timed.key_id
    with refuses("bad_signature"):
        open_checkpoint(Note(text, (timed,)).encode(), log_verifier(ORIGIN, key.public))
    opened = open_checkpoint(Note(text, (plain, timed)).encode(), log_verifier(ORIGIN, key.public), (cosigner(ORIGIN, key.public),))
    assert len(opened.cosignatures) == 1


def test_text_below_a_signed_checkpoint_is_no_checkpoint() -> None:
    text = checkpoint_of(7).to_text() + b"extension\n"
    note = Note(text, (log_line(ORIGIN, LOG_KEY.public, LOG_KEY.sign(text)),)).encode()
    with refuses("malformed"):
        open_checkpoint(note, LOG)


def test_every_changed_byte_of_a_signed_checkpoint_is_noticed() -> None:
    for changed in flips(signed(checkpoint_of(7))):
        with refuses("malformed", "non_canonical", "bad_signature"):
            open_checkpoint(changed, LOG)


# -------------------------------------------------------------------------------------------------------------- growing


def test_a_log_may_grow_from_any_size_to_any_larger_one() -> None:
    for new in range(14):
        verify_growth(NEW, checkpoint_of(new), ())
        for old in range(1, new + 1):
            verify_growth(checkpoint_of(old), checkpoint_of(new), consistency_path(GET, old, new))


@pytest.mark.parametrize(
    ("old", "new", "proof"),
    [
        pytest.param(NEW, checkpoint_of(5), (bytes(32),), id="a proof from size 0"),
        pytest.param(NEW, Checkpoint(ORIGIN, 0, bytes(32)), (), id="size 0 with another root"),
        pytest.param(Checkpoint(ORIGIN, 0, bytes(32)), checkpoint_of(5), (), id="an old size 0 with another root"),
        pytest.param(checkpoint_of(5), checkpoint_of(5), (bytes(32),), id="a proof at the same size"),
        pytest.param(checkpoint_of(5), Checkpoint(ORIGIN, 5, bytes(32)), (), id="another root at the same size"),
        pytest.param(checkpoint_of(5), checkpoint_of(9), (), id="no proof"),
        pytest.param(checkpoint_of(5), checkpoint_of(9), consistency_path(GET, 6, 9), id="a proof from another size"),
        pytest.param(checkpoint_of(9), checkpoint_of(5), consistency_path(GET, 5, 9), id="shrinking"),
        pytest.param(checkpoint_of(5), NEW, (), id="shrinking to nothing"),
        pytest.param(checkpoint_of(5), checkpoint_of(5, "mesh.example/us1/e0"), (), id="another log"),
    ],
)
def test_no_log_may(old: Checkpoint, new: Checkpoint, proof: tuple[bytes, ...]) -> None:
    with refuses("bad_proof"):
        verify_growth(old, new, proof)


# --------------------------------------------------------------------------------------------------- asking for cosignatures


def request(old: int, new: int) -> AddCheckpoint:
    return AddCheckpoint(old, consistency_path(GET, old, new) if old else (), signed(checkpoint_of(new)))


def test_a_request_survives_its_own_encoding() -> None:
    for old, new in ((0, 5), (5, 5), (5, 13)):
        assert AddCheckpoint.parse(request(old, new).encode()) == request(old, new)


def test_a_request_is_spelled_as_in_the_specification() -> None:
    note = signed(checkpoint_of(13))
    lines = AddCheckpoint(20_852_014, (bytes(32), bytes(32)), note).encode().split(b"\n")
    assert lines[:4] == [b"old 20852014", ROOT64.encode(), ROOT64.encode(), b""]
    assert AddCheckpoint(0, (), note).encode() == b"old 0\n\n" + note


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("", "malformed"),
        ("old 5", "malformed"),
        ("old 5\n", "malformed"),
        ("old -5\n\n", "malformed"),
        ("old \n\n", "malformed"),
        ("new 5\n\n", "malformed"),
        ("5\n\n", "non_canonical"),
        ("old 05\n\n", "non_canonical"),
        ("old  5\n\n", "malformed"),
        (f"old {TREE_SIZE_MAX + 1}\n\n", "too_large"),
        (f"old 5\n{ROOT64[4:]}\n\n", "malformed"),
        (f"old 5\n{ROOT64[:-2]}B=\n\n", "non_canonical"),
        (f"old 5\n {ROOT64}\n\n", "malformed"),
    ],
)
def test_what_is_not_a_request_is_refused(head: str, code: str) -> None:
    with refuses(code):
        AddCheckpoint.parse(head.encode() + signed(checkpoint_of(5)))


def test_a_request_without_a_note_is_refused() -> None:
    for rest in (b"", b"text\n", b"\n"):
        with refuses("malformed"):
            AddCheckpoint.parse(b"old 0\n\n" + rest)


def test_a_request_may_have_as_many_hashes_as_the_limit() -> None:
    note = signed(checkpoint_of(5))
    hashes = (bytes(32),) * PROOF_HASHES_MAX
    assert AddCheckpoint.parse(AddCheckpoint(5, hashes, note).encode()).proof == hashes
    with refuses("too_large"):
        AddCheckpoint.parse(AddCheckpoint(5, (*hashes, bytes(32)), note).encode())


def test_the_longest_request_fits_its_limit() -> None:
    tail = signed(Checkpoint(ORIGIN, TREE_SIZE_MAX, bytes(32)))
    longest = AddCheckpoint(TREE_SIZE_MAX, (bytes(32),) * PROOF_HASHES_MAX, b"x" * (NOTE_BYTES_MAX - len(tail)) + tail)
    assert AddCheckpoint.parse(longest.encode()) == longest
    assert len(longest.encode()) <= WITNESS_REQUEST_BYTES_MAX
    with refuses("too_large"):
        AddCheckpoint.parse(b"x" * (WITNESS_REQUEST_BYTES_MAX + 1))


@given(st.integers(0, 400), st.integers(0, 400), HOSTILE)
def test_spliced_requests_raise_only_our_error(start: int, end: int, data: bytes) -> None:
    whole = request(5, 13).encode()
    spliced = whole[:start] + data + whole[end:]
    try:
        parsed = AddCheckpoint.parse(spliced)
    except Refused:
        return
    assert parsed.encode() == spliced


@needs_vectors
def test_published_checkpoints_are_read() -> None:
    published = vectors("notes/tlog-notes.json")
    for case in published["notes"]:
        if "\n10\n" in case.get("note", ""):
            checkpoint = read_checkpoint(case["note"].encode())
            assert (checkpoint.size, checkpoint.root[:4].hex()) == (10, "1c0e4700")
    text = published["gomod_tree"]["text"].encode()
    assert Checkpoint.from_text(text).size == 123_456_789_012
    assert Checkpoint.from_text(text).to_text() == text
