"""That an enforcer has heard is proved offline by its own signature; no quorum of liars can put a word into its mouth."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.log.bundle import Proven, encode_proof, make_proof
from mesh.core.log.record import EnforcerHeard, encode_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.heard import Heard
from mesh.core.run.identity import Identity
from mesh.verify import Report, verify
from tests.protocol.machines import LAB, MESH, NOW, OWNER, altered, checkpoint, secret
from tests.support.heard import another_enforcer, word

SAID = word(LAB, at_ms=NOW)
STRANGER = secret("stranger")


def _judged(said: bytes, document: bytes, **changes: Any) -> Report:
    """A record of that word which k members have attested, whatever it is."""
    record = EnforcerHeard(
        mesh=MESH,
        origin=LAB.roster.origin(OWNER),
        index=0,
        at_ms=NOW,
        heard=envelope.identify(said)[1],
        identity=envelope.identify(document)[1],
        subject=LAB.place.subject,
    )
    leaf = encode_record(msgspec.structs.replace(record, **changes))
    members = [LAB.roster.member(name) for name in ("ap-1", "eu-1", "sa-1")]
    proof = TlogProof(index=0, path=(), note=checkpoint([leaf], *members)).encode().decode()
    bundle = make_proof(Proven(record=msgspec.Raw(leaf), proof=proof, bodies=[msgspec.Raw(said), msgspec.Raw(document)]))
    return verify(encode_proof(bundle), trust=LAB.roster_envelope)


def test_a_recorded_word_is_verified_with_a_roster_alone() -> None:
    report = _judged(SAID.envelope, LAB.place_envelope)
    assert (report.verdict, [check.result for check in report.checks if check.result == "failed"]) == ("VERIFIED", []), report.checks
    assert isinstance(report.record, EnforcerHeard)


BY_STRANGER = altered(SAID.envelope, Heard, STRANGER, enforcer=STRANGER.public)
OTHER, OTHER_DOCUMENT = another_enforcer(LAB, "gate", at_ms=NOW)


@pytest.mark.parametrize(
    ("heard", "document", "changes", "code"),
    [
        (altered(SAID.envelope, Heard, STRANGER), LAB.place_envelope, {}, "bad_signature"),
        (altered(SAID.envelope, Heard), LAB.place_envelope, {}, "threshold_not_met"),
        (BY_STRANGER, LAB.place_envelope, {}, "identity_mismatch"),
        (SAID.envelope, OTHER_DOCUMENT, {}, "identity_mismatch"),
        (OTHER, OTHER_DOCUMENT, {}, "identity_mismatch"),  # the record says that it is another's
        (SAID.envelope, altered(LAB.place_envelope, Identity, STRANGER), {}, "bad_signature"),
        (altered(SAID.envelope, Heard, LAB.place_key, mesh="other"), LAB.place_envelope, {}, "wrong_mesh"),
        (altered(SAID.envelope, Heard, LAB.place_key, sequence=0), LAB.place_envelope, {}, "malformed"),
        (SAID.envelope, LAB.place_envelope, {"at_ms": LAB.place.expires_ms}, "identity_expired"),
        (SAID.envelope, LAB.place_envelope, {"heard": "ab" * 32}, "record_invalid"),
    ],
)
def test_what_the_enforcer_did_not_sign_fails_even_if_k_members_attested_it(
    heard: bytes, document: bytes, changes: dict[str, Any], code: str
) -> None:
    report = _judged(heard, document, **changes)
    assert report.verdict == "FAILED"
    assert [check.code for check in report.checks if check.result == "failed"] == [code], report.checks
