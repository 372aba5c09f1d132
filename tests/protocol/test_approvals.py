"""What policy permits only with approvals is denied without them, with the effect's digest; everybody who repeats it finds the same."""

from collections.abc import Sequence

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.law.governance import Governance
from mesh.core.log.record import DecisionMade, Denied, Record, encode_record, read_record
from mesh.core.messages import Answer, Authorized, DeniedAnswer, unpack_answer
from mesh.core.run.approval import Effect
from mesh.core.run.authorization import Authorization, Denial
from mesh.core.run.intent import Intent
from mesh.errors import Refused
from mesh.limits import APPROVALS_BYTES_MAX, APPROVALS_MAX, DETERMINING_MAX, POLICY_NAME_CHARS_MAX, RECORD_BYTES_MAX
from mesh.protocol.attester import Examined, Material, examine_records
from mesh.protocol.documents import Documents
from mesh.protocol.intake import Intake, IntentArrived
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Append, PutBody
from tests.protocol.machines import LAB, ME, NOW, answers, empty_log, halted, only, revoking, secret
from tests.support.factory import MESH

ORIGIN = LAB.roster.origin(ME)
ONE, TWO, THREE = LAB.approvers
INTENT_ID, INTENT, _ = LAB.intent(1, amount=500, account="vault", at_ms=NOW)
APPROVED = LAB.approval(INTENT)
GRANTED = LAB.grant()
DIGEST = Effect.of(envelope.read(Intent, INTENT).claims).digest


class Desk:
    """One batch at one governor."""

    def __init__(self, governance: Governance = LAB.governance, *, known: dict[str, bytes] | None = None) -> None:
        self.governance = governance
        self.writer = Writer(empty_log(ORIGIN), mesh=MESH, now_ms=NOW)
        self.intake = Intake(
            governance=governance, me=ME, writer=self.writer, documents=Documents(), engine=LAB.engine, known=known or {}
        )  # fmt: skip
        self.leaves: Sequence[bytes] = ()

    def ask(self, *approvals: bytes, intent: bytes = INTENT, stale: Refused | None = None) -> Answer:
        """The answer to the intent with these."""
        self.intake.take([IntentArrived(0, LAB.request(intent, [], *approvals))], stale)
        for effect in self.writer.finish(empty_log(ORIGIN))[1]:
            if isinstance(effect, Append):
                self.leaves = effect.leaves
        return unpack_answer(answers(self.intake.effects)[0])

    @property
    def record(self) -> Record:
        return read_record(self.leaves[0])

    def replayed(self, record: Record | None = None, *, governance: Governance | None = None) -> Examined:
        """As an attester finds it."""
        bodies = {body.id: body.envelope for body in only(PutBody, self.intake.effects)}
        leaf = self.leaves[0] if record is None else encode_record(record)
        return examine_records(
            [leaf], Material(bodies, {}), owner=ME, first=0, after_ms=0, governance=governance or self.governance,
            documents=Documents(), engine=LAB.engine, now_ms=NOW,
        )[0]  # fmt: skip


def _denial(answer: Answer) -> Denial:
    assert isinstance(answer, DeniedAnswer)
    return envelope.read(Denial, bytes(answer.denial)).claims


def _permitted(*approvals: bytes) -> tuple[Desk, DecisionMade, Authorization]:
    desk = Desk()
    answer = desk.ask(*approvals)
    assert isinstance(answer, Authorized), _denial(answer)
    assert isinstance(desk.record, DecisionMade)
    return desk, desk.record, envelope.read(Authorization, bytes(answer.authorization)).claims


# ------------------------------------------------------------------------------------------------------------- the governor


@pytest.mark.parametrize(
    "approvals", [(), (LAB.approval(INTENT, ONE),), (LAB.approval(INTENT, ONE), LAB.approval(INTENT, ONE, reason="again"))]
)
def test_without_enough_approvals_the_answer_says_what_is_missing_and_for_which_effect(approvals: tuple[bytes, ...]) -> None:
    desk = Desk()
    denial = _denial(desk.ask(*approvals))
    assert (denial.code, denial.determining) == ("approval_needed", ["vault"])
    assert denial.detail == f"effect {DIGEST} needs 2 of security"
    record = desk.record
    assert isinstance(record, DecisionMade)
    assert (record.decision.effect, record.decision.needs, record.decision.obligations) == ("deny", ["2 of security"], [])
    assert record.authorization == ""
    assert desk.replayed().code == ""


def test_with_enough_the_authorization_names_what_it_rests_on() -> None:
    desk, record, claims = _permitted(APPROVED)
    assert (record.decision.effect, record.decision.needs) == ("permit", [])
    assert (record.attested.approvals, record.attested.breakglass) == ({"security": 2}, False)
    assert [bytes(raw) for raw in record.approvals] == [APPROVED]
    assert claims.approvals == [envelope.identify(APPROVED)[1]]
    assert desk.replayed().code == ""


def test_two_people_may_approve_without_meeting() -> None:
    _, record, claims = _permitted(LAB.approval(INTENT, TWO, reason="so do I"), LAB.approval(INTENT, ONE))
    assert record.attested.approvals == {"security": 2}
    assert claims.approvals == sorted(claims.approvals)
    assert len(claims.approvals) == 2


def test_an_approval_that_comes_in_time_turns_the_same_intent() -> None:
    assert _denial(Desk().ask()).code == "approval_needed"
    assert isinstance(Desk().ask(APPROVED), Authorized)


def test_a_broken_glass_is_a_fact_for_policy_and_no_bypass() -> None:
    desk, record, claims = _permitted(GRANTED)
    assert (record.decision.determining, record.attested.breakglass) == (["emergency"], True)
    assert claims.approvals == [envelope.identify(GRANTED)[1]]
    assert desk.replayed().code == ""
    frozen = LAB.intent(2, amount=500, account="frozen", at_ms=NOW)[1]
    assert _denial(Desk().ask(GRANTED, intent=frozen)).code == "policy_denied", "a forbid stays one"


def test_a_halted_domain_stays_denied_with_a_grant() -> None:
    assert _denial(Desk(halted()).ask(GRANTED, APPROVED)).code == "halted"


def test_a_stale_mesh_stays_denied_with_a_grant() -> None:
    assert _denial(Desk().ask(GRANTED, APPROVED, stale=Refused("stale", "2 of 3 vouch"))).code == "stale"


OTHER = LAB.intent(1, amount=501, account="vault", at_ms=NOW)[1]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (LAB.approval(OTHER), "approval_mismatch"),
        (LAB.grant(actions=["refund"]), "approval_mismatch"),
        (LAB.approval(INTENT, expires_ms=NOW), "approval_expired"),
        (LAB.approval(INTENT, not_before_ms=NOW + 301), "approval_expired"),
        (LAB.grant(expires_ms=NOW), "approval_expired"),
        (LAB.grant(expires_ms=NOW + 14_400_001), "approval_too_long"),
        (LAB.approval(INTENT, ONE, secret("stranger"), reason="and I"), "bad_signature"),
        (LAB.approval(INTENT, group="nobody"), "approver_unknown"),
        (LAB.approval(INTENT, mesh="other"), "wrong_mesh"),
        (LAB.grant(LAB.board[0]), "threshold_not_met"),
        (LAB.identity_envelope, "wrong_kind"),
    ],
)
def test_what_does_not_hold_is_a_recorded_no_even_where_none_was_needed(said: bytes, code: str) -> None:
    for intent in (INTENT, LAB.intent(3, amount=500, account="vault", at_ms=NOW)[1]):
        desk = Desk()
        assert _denial(desk.ask(said, intent=intent)).code == code
        assert isinstance(desk.record, Denied)
    desk = Desk()
    assert _denial(desk.ask(APPROVED, said)).code == code, "one that holds does not hide it"


@pytest.mark.parametrize(
    "target",
    [("enrolled", ONE.public), ("enrolled", TWO.public), ("document", envelope.identify(APPROVED)[1])],
    ids=lambda target: target[1][:6],
)
def test_a_revoked_approver_or_approval_counts_no_more(target: tuple[str, str]) -> None:
    denial = _denial(Desk(revoking(target)).ask(APPROVED))
    kind = "key" if target[0] == "enrolled" else target[0]
    assert (denial.code, denial.detail[:12]) == ("revoked", f"{kind} {target[1]}"[:12])


def test_a_revoked_grant_breaks_no_glass() -> None:
    assert _denial(Desk(revoking(("document", envelope.identify(GRANTED)[1]))).ask(GRANTED)).code == "revoked"


def test_whoever_asks_again_gets_the_same_bytes_and_not_after_a_revocation() -> None:
    desk = Desk()
    first = desk.ask(APPROVED)
    known = {INTENT_ID: desk.leaves[0]}
    assert Desk(known=known).ask() == first, "they rest on what is recorded"
    assert _denial(Desk(revoking(("enrolled", ONE.public)), known=known).ask(APPROVED)).code == "revoked"


# ------------------------------------------------------------------------------------------------------------- the attester


@pytest.mark.parametrize(
    ("approvals", "code"),
    [
        ([], "replay_mismatch"),
        ([LAB.approval(INTENT, ONE)], "replay_mismatch"),
        ([LAB.approval(INTENT, ONE, TWO, THREE)], "replay_mismatch"),
        ([LAB.approval(INTENT, ONE, secret("stranger"))], "record_invalid"),
        ([LAB.approval(OTHER)], "record_invalid"),
        ([LAB.approval(INTENT, expires_ms=NOW)], "record_invalid"),
        ([APPROVED, LAB.approval(INTENT, LAB.board[0], group="board")], "record_invalid"),
        ([APPROVED, GRANTED], "replay_mismatch"),
        ([APPROVED.replace(b'":"', b'": "', 1)], "record_invalid"),
    ],
)
def test_a_record_with_other_approvals_than_counted_is_wrong(approvals: list[bytes], code: str) -> None:
    desk, record, _ = _permitted(APPROVED)
    said = [msgspec.Raw(data) for data in sorted(approvals, key=lambda data: envelope.identify(data)[1])]
    found = desk.replayed(msgspec.structs.replace(record, approvals=said))
    assert (found.code, found.incomplete) == (code, False), found.detail


def test_a_governor_that_allows_without_the_approvals_is_wrong() -> None:
    desk, record, _ = _permitted(APPROVED)
    attested = msgspec.structs.replace(record.attested, approvals={})
    found = desk.replayed(msgspec.structs.replace(record, approvals=[], attested=attested))
    assert (found.code, found.incomplete) == ("replay_mismatch", False)


def test_approvals_stand_in_one_order() -> None:
    desk, record, _ = _permitted(LAB.approval(INTENT, ONE), LAB.approval(INTENT, TWO, reason="so do I"))
    found = desk.replayed(msgspec.structs.replace(record, approvals=record.approvals[::-1]))
    assert found.code == "record_invalid"


@pytest.mark.parametrize("target", [("enrolled", ONE.public), ("document", envelope.identify(APPROVED)[1])], ids=lambda target: target[0])
def test_what_the_governor_knew_to_be_revoked_makes_its_record_wrong_and_what_it_did_not_know_yet_does_not(target: tuple[str, str]) -> None:
    desk, record, _ = _permitted(APPROVED)
    later = revoking(target)
    assert desk.replayed(governance=later).code == "", "it could not know"
    knowing = msgspec.structs.replace(record.attested, frontier=later.digest)
    found = desk.replayed(msgspec.structs.replace(record, attested=knowing), governance=later)
    assert (found.code, found.incomplete) == ("revoked", False)


# ------------------------------------------------------------------------------------------------------------------ limits


def test_the_largest_decision_with_approvals_fits_a_record() -> None:
    _, record, _ = _permitted(APPROVED)
    names = [f"{number:02}".ljust(POLICY_NAME_CHARS_MAX, "x") for number in range(DETERMINING_MAX)]
    decision = msgspec.structs.replace(record.decision, determining=names, obligations=names, errors=names)
    said = [msgspec.Raw(b'"' + b"x" * (APPROVALS_BYTES_MAX // APPROVALS_MAX - 2) + b'"')] * APPROVALS_MAX
    full = msgspec.structs.replace(record, decision=decision, approvals=said)
    assert len(canonical.encode(full)) <= RECORD_BYTES_MAX
    assert len(encode_record(full)) > APPROVALS_BYTES_MAX
