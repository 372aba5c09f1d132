"""A certificate is believed exactly when k distinct keys attested it, and no byte of it lies outside of the check."""

import pytest

from mesh.core.bytes import canonical
from mesh.core.log.certificate import Certificate, certificate_note, verify_certificate
from mesh.core.log.checkpoint import Checkpoint, cosignature_line, cosignature_message, cosigner, witness_name
from mesh.core.log.note import Note, append_lines, open_note, parse_note
from mesh.errors import Refused
from mesh.limits import NOTE_BYTES_MAX, STATEMENT_BYTES_MAX
from tests.core.kit import flips, refuses, secret
from tests.core.log.logs import ATTESTERS, LOG, MEMBERS, attestation, checkpoint_of, signed

CHECKPOINT = checkpoint_of(13)
NAMES = list(MEMBERS)
K = 3


def certificate(names: list[str], checkpoint: Checkpoint = CHECKPOINT) -> bytes:
    return certificate_note(signed(checkpoint), [attestation(name, checkpoint) for name in names])


def verified(note: bytes, attesters: dict[str, str] = ATTESTERS, k: int = K) -> list[str]:
    return [each.verifier.name for each in verify_certificate(note, log=LOG, attesters=attesters, k=k).attestations]


@pytest.mark.parametrize("count", range(5))
def test_k_of_n_members_make_it_final_and_fewer_do_not(count: int) -> None:
    note = certificate(NAMES[:count])
    if count >= K:
        assert verified(note) == NAMES[:count]
    else:
        with refuses("not_final"):
            verified(note)


def test_the_checkpoint_and_the_times_come_back() -> None:
    note = certificate_note(signed(CHECKPOINT), [attestation(name, CHECKPOINT, time_s=at) for at, name in enumerate(NAMES)])
    attested = verify_certificate(note, log=LOG, attesters=ATTESTERS, k=K)
    assert attested.checkpoint == CHECKPOINT
    assert [each.time_s for each in attested.attestations] == [0, 1, 2, 3]


def test_the_order_in_which_members_answered_leaves_no_trace() -> None:
    assert certificate(NAMES) == certificate(NAMES[::-1])


def test_one_key_under_two_names_counts_once() -> None:
    key = MEMBERS[NAMES[0]]
    alias = "mesh.example/alias/attest"
    line = cosignature_line(alias, key.public, 7, key.sign(cosignature_message(CHECKPOINT.to_text(), 7)))
    note = certificate_note(signed(CHECKPOINT), [attestation(NAMES[0], CHECKPOINT), attestation(NAMES[1], CHECKPOINT), line])
    with refuses("not_final"):
        verified(note, ATTESTERS | {alias: key.public})
    assert verified(note, ATTESTERS | {alias: key.public}, k=2)


def test_the_log_key_does_not_count() -> None:
    with refuses("not_final"):
        verified(certificate(NAMES[:2]))


@pytest.mark.parametrize("k", [0, -1])
def test_nobody_is_never_enough(k: int) -> None:
    with refuses("not_final"):
        verified(certificate(NAMES), k=k)


def test_without_the_log_members_make_nothing_final() -> None:
    text = CHECKPOINT.to_text()
    with refuses("bad_signature"):
        verified(Note(text, tuple(attestation(name, CHECKPOINT) for name in NAMES)).encode())


def test_an_attestation_of_another_checkpoint_does_not_count() -> None:
    lines = [attestation(NAMES[0], CHECKPOINT), attestation(NAMES[1], CHECKPOINT), attestation(NAMES[2], checkpoint_of(12))]
    with refuses("bad_signature"):
        verified(certificate_note(signed(CHECKPOINT), lines))


def test_a_witness_cosignature_is_no_attestation() -> None:
    name, key = witness_name("mesh.example", "eu4"), secret(44)
    line = cosignature_line(name, key.public, 7, key.sign(cosignature_message(CHECKPOINT.to_text(), 7)))
    with refuses("bad_signature"):
        verified(append_lines(certificate(NAMES), [line]))


def test_a_member_of_another_roster_is_a_stranger() -> None:
    with refuses("bad_signature"):
        verified(certificate(NAMES), {name: ATTESTERS[name] for name in NAMES[:3]})


def test_an_empty_tree_can_be_certified_as_well() -> None:
    assert verified(certificate(NAMES, checkpoint_of(0)), k=4)


def test_every_changed_byte_of_a_certificate_is_noticed() -> None:
    for changed in flips(certificate(NAMES)):
        with refuses("malformed", "non_canonical", "bad_signature"):
            verified(changed)


def test_any_reader_of_notes_can_check_a_certificate() -> None:
    opened = open_note(certificate(NAMES), [LOG, *(cosigner(name, key) for name, key in ATTESTERS.items())])
    assert len(opened.signed) == 5
    assert opened.text == CHECKPOINT.to_text()


def test_a_certificate_survives_its_own_encoding() -> None:
    value = Certificate(roster_epoch=3, note=certificate(NAMES).decode())
    data = canonical.encode(value)
    assert canonical.decode(Certificate, data, bytes_max=STATEMENT_BYTES_MAX) == value
    assert verified(value.note.encode()) == NAMES


def test_a_certificate_carries_a_note_and_no_more() -> None:
    longest = Certificate(roster_epoch=0, note="x" * NOTE_BYTES_MAX)
    assert canonical.decode(Certificate, canonical.encode(longest), bytes_max=2 * NOTE_BYTES_MAX) == longest
    with refuses("malformed"):
        canonical.decode(
            Certificate, canonical.encode(Certificate(roster_epoch=0, note="x" * (NOTE_BYTES_MAX + 1))), bytes_max=2 * NOTE_BYTES_MAX
        )
    with pytest.raises(Refused):
        parse_note(longest.note.encode())
