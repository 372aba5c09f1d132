"""An enforcer's outcomes are recorded once, and every time receipted; nobody else's are."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import OutcomeRecorded, read_record
from mesh.core.messages import OutcomeAnswer, OutcomeRequest, RefusedAnswer, unpack, unpack_answer
from mesh.core.run.authorization import Receipt, RecordRef
from mesh.core.run.identity import Identity
from mesh.core.run.outcome import Outcome
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.documents import Documents
from mesh.protocol.lineage import Writer
from mesh.protocol.outcomes import OutcomesArrived, take_outcomes
from mesh.protocol.step import Append, Effect, InsertOnce, Locate, PutBody, Sign
from tests.protocol.machines import LAB, ME, MESH, NOW, altered, answers, empty_log, only, secret

ORIGIN = LAB.roster.origin(ME)
INTENT, AUTHORIZATION = "aa" * 32, "bb" * 32
STARTED, FINISHED = LAB.lived(INTENT, AUTHORIZATION, at_ms=NOW)
STRANGER = secret("stranger")


class Desk:
    """Requests at the first governor, in one step."""

    def __init__(self, known: dict[str, RecordRef] | None = None) -> None:
        self.writer = Writer(empty_log(ORIGIN), mesh=MESH, now_ms=NOW)
        self.known = known or {}
        self.seen: dict[str, RecordRef] = {}
        self.effects: list[Effect] = []
        self.noise = ""

    def take(self, data: bytes) -> Any:
        effects, self.noise = take_outcomes(
            OutcomesArrived(7, data),
            governance=LAB.governance,
            me=ME,
            writer=self.writer,
            documents=Documents(),
            known=self.known,
            seen=self.seen,
        )
        self.effects += effects
        (answer,) = answers(effects).values()
        return unpack_answer(answer) if self.noise else unpack(OutcomeAnswer, answer)

    def leaves(self) -> tuple[bytes, ...]:
        effects = self.writer.finish(empty_log(ORIGIN))[1]
        return effects[0].leaves if effects and isinstance(effects[0], Append) else ()


def _receipts(answer: OutcomeAnswer) -> list[Receipt]:
    return [envelope.read(Receipt, bytes(raw)).verify(ME.decision_key) for raw in answer.receipts]


def test_outcomes_are_recorded_in_order_and_each_is_receipted() -> None:
    desk = Desk()
    receipts = _receipts(desk.take(LAB.report([STARTED, FINISHED])))
    leaves = desk.leaves()
    records = [read_record(leaf) for leaf in leaves]
    ids = [envelope.identify(data)[1] for data in (STARTED, FINISHED)]
    assert [
        (record.event, record.outcome, record.intent, record.authorization) for record in records if isinstance(record, OutcomeRecorded)
    ] == [
        ("started", ids[0], INTENT, AUTHORIZATION),
        ("finished", ids[1], INTENT, AUTHORIZATION),
    ]
    assert [(receipt.statement, receipt.issuer) for receipt in receipts] == [(identity, ME.name) for identity in ids]
    assert [receipt.record for receipt in receipts] == [
        RecordRef(origin=ORIGIN, index=at, leaf=leaf_hash(leaf).hex()) for at, leaf in enumerate(leaves)
    ]
    assert only(InsertOnce, desk.effects) == [
        InsertOnce("outcome", identity, envelope.read(Outcome, said).claims.at_ms, index)
        for index, (identity, said) in enumerate(zip(ids, (STARTED, FINISHED), strict=True))
    ]


def test_everything_is_kept_by_which_an_outcome_is_found_and_checked() -> None:
    desk = Desk()
    desk.take(LAB.report([STARTED]))
    identity = envelope.identify(STARTED)[1]
    assert {(body.id, body.kind) for body in only(PutBody, desk.effects)} == {
        (identity, "outcome"),
        (envelope.draft(LAB.place).id, "identity"),
    }
    assert {place.id for place in only(Locate, desk.effects)} == {identity, INTENT, AUTHORIZATION}


@pytest.mark.parametrize("where", ["one request", "one step", "an earlier step"])
def test_an_outcome_said_twice_is_recorded_once_and_receipted_twice(where: str) -> None:
    desk = Desk()
    if where == "one request":
        receipts = _receipts(desk.take(LAB.report([STARTED, STARTED])))
    elif where == "one step":
        receipts = _receipts(desk.take(LAB.report([STARTED]))) + _receipts(desk.take(LAB.report([STARTED])))
    else:
        (first,) = _receipts(desk.take(LAB.report([STARTED])))
        later = Desk({envelope.identify(STARTED)[1]: first.record})
        receipts = [first, *_receipts(later.take(LAB.report([STARTED])))]
        assert later.leaves() == ()
        assert not only(InsertOnce, later.effects)
    assert receipts[0] == receipts[1]
    assert len(desk.leaves()) == 1


def _report(identity: bytes, *outcomes: bytes) -> bytes:
    return canonical.encode(OutcomeRequest(identity=msgspec.Raw(identity), outcomes=[msgspec.Raw(data) for data in outcomes]))


def _claims(**changes: Any) -> bytes:
    return altered(STARTED, Outcome, LAB.place_key, **changes)


OTHER = altered(LAB.place_envelope, Identity, LAB.issuer, key=STRANGER.public)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"garbage", "malformed"),
        (_report(LAB.place_envelope), "malformed"),
        (_report(LAB.place_envelope, b"{}"), "malformed"),
        (_report(LAB.place_envelope, LAB.place_envelope), "wrong_kind"),
        (_report(altered(LAB.place_envelope, Identity, STRANGER), STARTED), "identity_unknown"),
        (_report(LAB.identity_envelope, STARTED), "identity_mismatch"),
        (_report(OTHER, STARTED), "identity_mismatch"),
        (_report(OTHER, altered(STARTED, Outcome, STRANGER, enforcer=STRANGER.public)), "identity_mismatch"),
        (_report(LAB.place_envelope, _claims(mesh="other")), "wrong_mesh"),
        (_report(LAB.place_envelope, _claims(identity="cc" * 32)), "identity_mismatch"),
        (_report(LAB.place_envelope, altered(STARTED, Outcome, STRANGER)), "bad_signature"),
        (_report(LAB.place_envelope, altered(STARTED, Outcome)), "bad_signature"),
        (_report(LAB.place_envelope, _claims(at_ms=LAB.place.expires_ms)), "identity_expired"),
        (_report(LAB.place_envelope, _claims(at_ms=LAB.place.not_before_ms - 1)), "identity_expired"),
        (_report(LAB.place_envelope, STARTED, altered(FINISHED, Outcome, STRANGER)), "bad_signature"),
    ],
)
def test_what_the_enforcer_of_the_document_did_not_say_is_refused_whole_unsigned_and_counted(data: bytes, code: str) -> None:
    desk = Desk()
    answer = desk.take(data)
    assert isinstance(answer, RefusedAnswer)
    assert (answer.code, desk.noise, desk.leaves()) == (code, code, ())
    assert not only(Sign, desk.effects)


@pytest.mark.parametrize("at_ms", [LAB.place.not_before_ms, LAB.place.expires_ms - 1])
def test_a_document_counts_at_the_time_of_the_outcome_not_of_its_arrival(at_ms: int) -> None:
    assert len(_receipts(Desk().take(_report(LAB.place_envelope, _claims(at_ms=at_ms))))) == 1


def test_a_request_holds_as_many_outcomes_as_a_message_of_records_and_not_one_more() -> None:
    many = [LAB.lived(INTENT, AUTHORIZATION, at_ms=NOW, sequence=number)[0] for number in range(BATCH_RECORDS_MAX + 1)]
    assert len(_receipts(Desk().take(LAB.report(many[:-1])))) == BATCH_RECORDS_MAX
    assert Desk().take(LAB.report(many)).code == "malformed"
