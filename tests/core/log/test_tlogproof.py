"""A tlog-proof is C2SP's, in one spelling; it proves one record, and no byte of it lies outside of the check."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.log.certificate import certificate_note
from mesh.core.log.merkle import inclusion_path
from mesh.core.log.tlogproof import TlogProof
from mesh.errors import Refused
from mesh.limits import NOTE_BYTES_MAX, PROOF_HASHES_MAX, RECORD_BYTES_MAX, TLOG_PROOF_BYTES_MAX, TREE_SIZE_MAX
from tests.core.kit import HOSTILE, flips, refuses
from tests.core.log.logs import ATTESTERS, GET, LOG, MEMBERS, RECORDS, attestation, checkpoint_of, signed

SIZE = len(RECORDS)
CHECKPOINT = checkpoint_of(SIZE)
NOTE = certificate_note(signed(CHECKPOINT), [attestation(name, CHECKPOINT) for name in MEMBERS])
HASH64 = "A" * 43 + "="


def proof(index: int, *, extra: bytes = b"") -> TlogProof:
    return TlogProof(index=index, path=inclusion_path(GET, index, SIZE), note=NOTE, extra=extra)


def verify(found: TlogProof, leaf: bytes, k: int = 4) -> None:
    assert found.verify(leaf, log=LOG, cosigners=ATTESTERS, k=k).checkpoint == CHECKPOINT


def test_every_record_of_a_log_can_be_proved() -> None:
    for index, record in enumerate(RECORDS):
        for extra in (b"", record):
            found = TlogProof.parse(proof(index, extra=extra).encode())
            assert found == proof(index, extra=extra)
            verify(found, record)


def test_a_proof_proves_no_other_record() -> None:
    with refuses("bad_proof"):
        verify(proof(3), RECORDS[4])
    with refuses("bad_proof"):
        verify(TlogProof(index=4, path=proof(3).path, note=NOTE), RECORDS[3])


def test_the_extra_line_holds_the_record_or_nothing() -> None:
    with refuses("bad_proof"):
        verify(proof(3, extra=RECORDS[4]), RECORDS[3])


def test_a_proof_needs_its_quorum() -> None:
    with refuses("not_final"):
        verify(proof(3), RECORDS[3], k=5)
    with refuses("not_final"):
        verify(proof(3), RECORDS[3], k=0)


@pytest.mark.parametrize("extra", [b"", RECORDS[3]])
def test_every_changed_byte_of_a_proof_is_noticed(extra: bytes) -> None:
    for changed in flips(proof(3, extra=extra).encode()):
        with refuses("malformed", "non_canonical", "bad_signature", "bad_proof"):
            verify(TlogProof.parse(changed), RECORDS[3])


def test_a_proof_is_spelled_as_in_the_specification() -> None:
    lines = TlogProof(index=73_894, path=(bytes(32),), note=NOTE, extra=b"record").encode().split(b"\n")
    assert lines[:5] == [b"c2sp.org/tlog-proof@v1", b"extra cmVjb3Jk", b"index 73894", HASH64.encode(), b""]
    assert b"\n".join(lines[5:]) == NOTE


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("", "malformed"),
        ("c2sp.org/tlog-proof@v1", "malformed"),
        ("c2sp.org/tlog-proof@v1\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v2\nindex 3\n\n", "malformed"),
        ("index 3\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\nextra AAAA\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\nindex 3\nextra AAAA\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\nextra AAAA\nextra AAAA\nindex 3\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\nextra AAA\nindex 3\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\nextra AAB=\nindex 3\n\n", "non_canonical"),
        ("c2sp.org/tlog-proof@v1\nextra \nindex 3\n\n", "non_canonical"),
        ("c2sp.org/tlog-proof@v1\nindex 03\n\n", "non_canonical"),
        ("c2sp.org/tlog-proof@v1\nindex -3\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\nindex\n\n", "malformed"),
        ("c2sp.org/tlog-proof@v1\r\nindex 3\n\n", "malformed"),
        (f"c2sp.org/tlog-proof@v1\nindex {TREE_SIZE_MAX + 1}\n\n", "too_large"),
        (f"c2sp.org/tlog-proof@v1\nindex 3\n{HASH64[4:]}\n\n", "malformed"),
        (f"c2sp.org/tlog-proof@v1\nindex 3\n{HASH64[:-2]}B=\n\n", "non_canonical"),
        (f"c2sp.org/tlog-proof@v1\nindex 3\n{HASH64} \n\n", "malformed"),
    ],
)
def test_what_is_not_a_proof_is_refused(head: str, code: str) -> None:
    with refuses(code):
        TlogProof.parse(head.encode() + NOTE)


def test_a_proof_without_a_note_is_refused() -> None:
    for rest in (b"", b"text\n", b"\n"):
        with refuses("malformed"):
            TlogProof.parse(b"c2sp.org/tlog-proof@v1\nindex 3\n\n" + rest)


def test_the_longest_proof_fits_its_limit() -> None:
    padded = b"x" * (NOTE_BYTES_MAX - len(NOTE)) + NOTE
    longest = TlogProof(index=TREE_SIZE_MAX, path=(bytes(32),) * PROOF_HASHES_MAX, note=padded, extra=b"r" * RECORD_BYTES_MAX)
    assert TlogProof.parse(longest.encode()) == longest
    assert len(longest.encode()) <= TLOG_PROOF_BYTES_MAX
    with refuses("too_large"):
        TlogProof.parse(b"x" * (TLOG_PROOF_BYTES_MAX + 1))


def test_a_proof_may_have_as_many_hashes_as_the_limit() -> None:
    hashes = (bytes(32),) * PROOF_HASHES_MAX
    assert TlogProof.parse(TlogProof(index=0, path=hashes, note=NOTE).encode()).path == hashes
    with refuses("too_large"):
        TlogProof.parse(TlogProof(index=0, path=(*hashes, bytes(32)), note=NOTE).encode())


@given(HOSTILE)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    with refuses("malformed", "non_canonical", "too_large"):
        TlogProof.parse(data)


@given(st.integers(0, 1_000), st.integers(0, 1_000), HOSTILE)
def test_spliced_proofs_raise_only_our_error(start: int, end: int, data: bytes) -> None:
    whole = proof(3).encode()
    spliced = whole[:start] + data + whole[end:]
    try:
        found = TlogProof.parse(spliced)
    except Refused:
        return
    assert found.encode() == spliced
