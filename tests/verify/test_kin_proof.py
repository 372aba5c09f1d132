"""Within what something ran, and whose result it used, is part of the proof: offline, by the roster alone."""

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.core.log.record import DecisionMade, encode_record, read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.intent import Intent
from mesh.errors import Refused
from mesh.verify import verify
from tests.protocol.machines import LAB, OWNER, checkpoint
from tests.support.factory import sign
from tests.support.kin import family


def _verdict(data: bytes) -> str:
    try:
        return verify(data, trust=LAB.roster_envelope).verdict
    except Refused as refusal:
        return refusal.code


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("child", "within 1, begun by spiffe://lab/agent/anna"),
        ("grandchild", "within 2, begun by spiffe://lab/agent/anna"),
        ("user", "after 1"),
    ],
)
def test_everybody_attests_a_part_and_a_stranger_verifies_within_what_it_ran(which: str, told: str) -> None:
    report = verify(family().proof(getattr(family(), which)), trust=LAB.roster_envelope, pin=LAB.pin, engine=LAB.engine)
    assert report.verdict == "VERIFIED", report.checks
    found = {check.name: (check.result, check.detail) for check in report.checks}
    assert found["parents"] == ("passed", told)
    assert found["replay"][0] == "passed"


def test_what_stands_alone_says_nothing_of_parents() -> None:
    report = verify(family().proof(family().permitted), trust=LAB.roster_envelope)
    assert "parents" not in {check.name for check in report.checks}


def test_one_changed_byte_of_a_proof_with_parents_is_never_verified() -> None:
    data = family().proof(family().grandchild, outcomes=0)
    assert _verdict(data) == "VERIFIED"
    at = data.index(b'"parents":[{')
    for place in range(at, data.index(b'"roster_epoch"', at)):
        changed = data[:place] + bytes([data[place] ^ (0x01, 0x20, 0x80)[place % 3]]) + data[place + 1 :]
        assert _verdict(changed) not in {"VERIFIED", "PARTIAL"}, (place, data[place - 40 : place + 40])


@pytest.mark.parametrize(("parents", "failed"), [(0, "parents"), (1, "parents")])
def test_not_even_k_attesting_liars_can_show_a_parent_that_was_not(parents: int, failed: str) -> None:
    bundle = read_proof(family().proof(family().child, outcomes=0))
    record = read_record(bytes(bundle.record))
    assert isinstance(record, DecisionMade)
    other = envelope.read(Intent, bytes(bundle.bodies[0])).claims
    forged = [msgspec.structs.replace(record.parents[0], authorization=msgspec.Raw(sign(other, LAB.holder)))][:parents]
    leaf = encode_record(msgspec.structs.replace(record, parents=forged or [family().ended], index=0))
    members = [LAB.roster.member(name) for name in ("ap-1", "eu-1", "sa-1")]
    proof = TlogProof(index=0, path=(), note=checkpoint([leaf], *members, owner=OWNER)).encode().decode()
    report = verify(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(leaf), proof=proof)), trust=LAB.roster_envelope)
    assert report.verdict == "FAILED"
    assert next(check.name for check in report.checks if check.result == "failed") == failed


def test_a_line_that_a_governor_cut_is_not_what_the_record_leads_to() -> None:
    bundle = read_proof(family().proof(family().grandchild, outcomes=0))
    record = read_record(bytes(bundle.record))
    assert isinstance(record, DecisionMade)
    leaf = encode_record(msgspec.structs.replace(record, authorization="ab" * 32, index=0))
    members = [LAB.roster.member(name) for name in ("ap-1", "eu-1", "sa-1")]
    proof = TlogProof(index=0, path=(), note=checkpoint([leaf], *members, owner=OWNER)).encode().decode()
    report = verify(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(leaf), proof=proof)), trust=LAB.roster_envelope)
    assert next((check.name, check.code) for check in report.checks if check.result == "failed") == ("decision", "replay_mismatch")
