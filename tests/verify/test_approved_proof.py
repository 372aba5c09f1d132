"""Who approved is part of the proof: offline, by the roster alone; no byte of it can change and nobody's word can be taken out."""

from functools import cache

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.core.log.record import DecisionMade, encode_record, read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import Authorized
from mesh.errors import Refused
from mesh.verify import Report, verify
from tests.protocol.machines import LAB, OWNER, checkpoint
from tests.support.proofs import Happened


class _Approved(Happened):
    """What happened before, and then a large payment that two people approved, and one in an emergency."""

    def __init__(self) -> None:
        super().__init__()
        self.large = self._pay(11)
        self.urgent = self._pay(12, glass=True)
        self.lacking = self.deny("us-1", 13, "approval_needed", amount=500, account="vault")
        self.mesh.run(6)

    def _pay(self, number: int, *, glass: bool = False) -> str:
        name, intent, openings = self.lab.intent(number, amount=500, account="vault", at_ms=self.mesh.now_ms)
        said = self.lab.grant() if glass else self.lab.approval(intent)
        answer = self.mesh.request("us-1", self.lab.request(intent, openings, said))
        assert isinstance(answer, Authorized)
        authorization = envelope.identify(bytes(answer.authorization))[1]
        self.mesh.report("eu-1", self.lab.report(self.lab.lived(name, authorization, at_ms=self.mesh.now_ms)))
        return name


@cache
def approved() -> _Approved:
    return _Approved()


def _verdict(data: bytes) -> str:
    try:
        return verify(data, trust=LAB.roster_envelope).verdict
    except Refused as refusal:
        return refusal.code


def _check(report: Report, name: str) -> tuple[str, str]:
    return next((check.result, check.detail) for check in report.checks if check.name == name)


@pytest.mark.parametrize(("which", "who"), [("large", "2 of security"), ("urgent", "break-glass")])
def test_everybody_attests_what_was_approved_and_a_stranger_verifies_by_whom(which: str, who: str) -> None:
    report = verify(approved().proof(getattr(approved(), which)), trust=LAB.roster_envelope, pin=LAB.pin, engine=LAB.engine)
    assert report.verdict == "VERIFIED", report.checks
    assert _check(report, "approvals") == ("passed", who)
    assert _check(report, "replay")[0] == "passed"


def test_a_denial_for_lack_of_approvals_is_proved_with_what_it_lacks() -> None:
    report = verify(approved().proof(approved().lacking), trust=LAB.roster_envelope, engine=LAB.engine)
    assert (report.verdict, _check(report, "replay")[0]) == ("VERIFIED", "passed"), report.checks
    assert isinstance(report.record, DecisionMade)
    assert report.record.decision.needs == ["2 of security"]
    bundle = read_proof(approved().proof(approved().lacking))
    for needs in (["1 of security"], ["1 of finance", "2 of security"]):
        decision = msgspec.structs.replace(report.record.decision, needs=needs)
        leaf = encode_record(msgspec.structs.replace(report.record, decision=decision))
        lie = encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(leaf), proof=""))
        assert _check(verify(lie, trust=LAB.roster_envelope), "decision")[0] == "failed"


def test_what_nobody_approved_says_nothing_of_approvals() -> None:
    report = verify(approved().proof(approved().permitted), trust=LAB.roster_envelope)
    assert "approvals" not in {check.name for check in report.checks}


def test_one_changed_byte_of_a_proof_with_approvals_is_never_verified() -> None:
    data = approved().proof(approved().large, outcomes=0)
    assert _verdict(data) == "VERIFIED"
    for at, byte in enumerate(data):
        changed = data[:at] + bytes([byte ^ (0x01, 0x20, 0x80)[at % 3]]) + data[at + 1 :]
        assert _verdict(changed) not in {"VERIFIED", "PARTIAL"}, (at, data[max(0, at - 40) : at + 40])


def test_an_approval_or_one_persons_line_cannot_be_taken_out() -> None:
    bundle = read_proof(approved().proof(approved().large, outcomes=0))
    record = read_record(bytes(bundle.record))
    assert isinstance(record, DecisionMade)
    (said,) = record.approvals
    whole = canonical.decode(dict, bytes(said), bytes_max=10**5)
    fewer = canonical.encode(whole | {"signatures": whole["signatures"][:1]})
    for approvals in ([], [msgspec.Raw(fewer)]):
        leaf = encode_record(msgspec.structs.replace(record, approvals=approvals))
        assert _verdict(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(leaf)))) == "FAILED"


@pytest.mark.parametrize("approvals", [0, 1])
def test_not_even_k_attesting_liars_can_show_an_approval_that_was_not_given(approvals: int) -> None:
    bundle = read_proof(approved().proof(approved().large, outcomes=0))
    record = read_record(bytes(bundle.record))
    assert isinstance(record, DecisionMade)
    forged = [msgspec.Raw(LAB.approval(bytes(bundle.bodies[0]), LAB.approvers[0], LAB.holder))][:approvals]
    leaf = encode_record(msgspec.structs.replace(record, approvals=forged, index=0))
    members = [LAB.roster.member(name) for name in ("ap-1", "eu-1", "sa-1")]
    proof = TlogProof(index=0, path=(), note=checkpoint([leaf], *members, owner=OWNER)).encode().decode()
    report = verify(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(leaf), proof=proof)), trust=LAB.roster_envelope)
    assert report.verdict == "FAILED"
    failed = next(check for check in report.checks if check.result == "failed")
    assert (failed.name, failed.code) == (("approvals", "bad_signature") if approvals else ("decision", "replay_mismatch"))
