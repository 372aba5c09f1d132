"""An intent is answered once authenticated with a signed, recorded yes or no; before that it costs neither."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.law.governance import Governance
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import DecisionMade, Denied, Record, read_record
from mesh.core.messages import Authorized, DeniedAnswer, IntentRequest, Openings, RefusedAnswer, unpack_answer
from mesh.core.run.authorization import Authorization, Denial
from mesh.core.run.decision import Verdict, decision_digest
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Audience, EntityRef, Intent, Measurement
from mesh.core.run.params import Opening, commit
from mesh.errors import Refused
from mesh.limits import INTENT_LIFE_MS_MAX, REQUEST_BYTES_MAX
from mesh.protocol.documents import Documents
from mesh.protocol.intake import Intake, IntentArrived
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Append, InsertOnce, Locate, PutBody, PutOpenings, Sign
from tests.protocol.machines import (
    DOMAIN,
    LAB,
    ME,
    MESH,
    NOW,
    T0,
    altered,
    answers,
    empty_log,
    halted,
    intent_of,
    only,
    revoking,
    secret,
    sign,
)
from tests.support.factory import RuleEngine

ORIGIN = LAB.roster.origin(ME)
STRANGER = secret("stranger")
BOUNDS = LAB.roster.bounds


class Desk:
    """One batch at the first governor."""

    def __init__(
        self, governance: Governance = LAB.governance, *, engine: Any = None, known: dict[str, bytes] | None = None, now_ms: int = NOW
    ) -> None:
        self.writer = Writer(empty_log(ORIGIN), mesh=MESH, now_ms=now_ms)
        self.intake = Intake(
            governance=governance, me=ME, writer=self.writer, documents=Documents(), engine=engine or LAB.engine, known=known or {}
        )
        self.leaves: Sequence[bytes] = ()

    def take(self, *requests: bytes, stale: Refused | None = None) -> list[Any]:
        """The answers, read."""
        self.intake.take([IntentArrived(waiter, data) for waiter, data in enumerate(requests)], stale)
        for effect in self.writer.finish(empty_log(ORIGIN))[1]:
            if isinstance(effect, Append):
                self.leaves = effect.leaves
        told = answers(self.intake.effects)
        return [unpack_answer(told[waiter]) for waiter in range(len(requests))]

    @property
    def records(self) -> list[Record]:
        return [read_record(leaf) for leaf in self.leaves]


def _request(intent: bytes, openings: Sequence[Opening] = (), **changes: bytes) -> bytes:
    parts = {"intent": intent, "identity": LAB.identity_envelope, "enforcer": LAB.place_envelope, **changes}
    return canonical.encode(
        IntentRequest(
            **{name: msgspec.Raw(data) for name, data in parts.items()}, openings=list(openings), boxes=[], approvals=[], parents=[]
        )
    )


def _good(number: int = 1, **changes: Any) -> bytes:
    return _request(intent_of(number, **{"created_ms": NOW, "expires_ms": NOW + 30_000, **changes})[1])


def _denial(answer: Any) -> Denial:
    assert isinstance(answer, DeniedAnswer)
    statement = envelope.read(Denial, bytes(answer.denial))
    assert statement.signed_by(ME.decision_key)
    return statement.claims


# ------------------------------------------------------------------------------------------------------------------ yes


def test_a_permit_is_recorded_and_its_authorization_is_what_the_record_stands_for() -> None:
    desk = Desk()
    (answer,) = desk.take(_good())
    assert isinstance(answer, Authorized)
    (record,) = desk.records
    assert isinstance(record, DecisionMade)
    authorization = envelope.read(Authorization, bytes(answer.authorization))
    claims = authorization.verify(ME.decision_key)
    assert authorization.id == record.authorization
    assert (claims.intent, claims.issuer, claims.decision) == (record.intent, ME.name, decision_digest(record.decision))
    assert (claims.not_before_ms, claims.expires_ms, claims.lease_ms) == (NOW, NOW + 30_000, 10_000)
    assert (claims.subject, claims.holder, claims.domain, claims.uses) == ("spiffe://lab/agent/anna", LAB.holder.public, DOMAIN, 1)
    assert (claims.origin, claims.index) == (record.origin, record.index) == (ORIGIN, 0)
    assert tuple(answer.frontier) == LAB.governance.frontier


def test_an_authorization_never_outlives_the_intent() -> None:
    (answer,) = Desk().take(_good(expires_ms=NOW + 1_234))
    assert envelope.read(Authorization, bytes(answer.authorization)).claims.expires_ms == NOW + 1_234


def test_everything_a_replay_needs_is_kept_with_the_record() -> None:
    desk = Desk()
    opening = Opening(name="memo", salt="ab" * 16, value="private")
    identity, intent = intent_of(1, created_ms=NOW, expires_ms=NOW + 9_000, committed={"memo": commit(opening)})
    desk.take(_request(intent, [opening]))
    effects = desk.intake.effects
    (record,) = desk.records
    assert isinstance(record, DecisionMade)
    assert {(body.id, body.kind) for body in only(PutBody, effects)} == {
        (identity, "intent"), (record.identity, "identity"), (record.enforcer, "identity"),
    }  # fmt: skip
    assert only(PutOpenings, effects) == [PutOpenings(identity, canonical.encode(Openings(intent=identity, openings=[opening], boxes=[])))]
    assert only(InsertOnce, effects) == [InsertOnce("intent", identity, NOW, 0)]
    assert {place.id for place in only(Locate, effects)} == {identity, record.authorization}


def test_only_what_was_permitted_is_used_up() -> None:
    desk = Desk()
    desk.take(_good(1, params={"amount": 5_000}), _good(2))
    (used,) = only(InsertOnce, desk.intake.effects)
    assert used.index == 1


# --------------------------------------------------------------------------------------------- no, before authentication


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed"),
        (b"{}", "malformed"),
        (_good()[:-1], "malformed"),
        (_good().replace(b'"openings":[]', b'"openings": []'), "non_canonical"),
        (_request(b"{}"), "malformed"),
        (_request(altered(LAB.intent(1)[1], Intent, LAB.holder, mesh="other")), "wrong_mesh"),
        (_request(altered(LAB.intent(1)[1], Intent, STRANGER)), "unauthenticated"),
        (_request(altered(LAB.intent(1)[1], Intent)), "unauthenticated"),
        (_request(LAB.identity_envelope), "wrong_kind"),
        (_request(intent_of(1)[1], identity=altered(LAB.identity_envelope, Identity, STRANGER)), "identity_unknown"),
        (_request(intent_of(1)[1], identity=altered(LAB.identity_envelope, Identity, LAB.issuer, person="Eve")), "identity_mismatch"),
        (_request(intent_of(1, subject="spiffe://lab/agent/eve")[1]), "identity_mismatch"),
        (_request(altered(LAB.intent(1)[1], Intent, STRANGER, holder=STRANGER.public)), "identity_mismatch"),
    ],
)
def test_who_is_not_authenticated_is_told_so_unsigned_and_only_counted(data: bytes, code: str) -> None:
    desk = Desk()
    (answer,) = desk.take(data)
    assert isinstance(answer, RefusedAnswer)
    assert (answer.code, desk.intake.noise, desk.records) == (code, {code: 1}, [])
    assert not only(Sign, desk.intake.effects)


def test_a_request_is_measured_before_it_is_read() -> None:
    room = REQUEST_BYTES_MAX - len(_good())
    for more, code in ((room, "non_canonical"), (room + 1, "too_large")):
        (answer,) = Desk().take(_good() + b" " * more)
        assert answer.code == code


# ---------------------------------------------------------------------------------------------- no, after authentication


PLACE = envelope.read(Identity, LAB.place_envelope)
WHO = envelope.read(Identity, LAB.identity_envelope)


def _beside(place: bytes) -> bytes:
    return _request(intent_of(1, created_ms=NOW, expires_ms=NOW + 9)[1], enforcer=place)


def _with_document(data: bytes, **changes: Any) -> bytes:
    document = envelope.identify(data)[1]
    return _request(intent_of(1, created_ms=NOW, expires_ms=NOW + 9_000, identity=document, **changes)[1], identity=data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_good(domain="elsewhere"), "domain_unknown"),
        (_good(action="steal"), "action_unknown"),
        (_good(params={}), "params_mismatch"),
        (_good(params={"amount": "10"}), "params_mismatch"),
        (_good(params={"amount": 10, "more": 1}), "params_mismatch"),
        (_good(committed={"memo": "ab" * 32}), "opening_mismatch"),
        (_good(resource=EntityRef(type="Planet", id="mars")), "entity_missing"),
        (_good(assurance_min="quorum"), "assurance_unavailable"),
        (_good(assurance_min="final"), "assurance_unavailable"),
        (_good(params={"amount": 101}), "policy_denied"),
        (_good(resource=EntityRef(type="Account", id="frozen")), "policy_denied"),
        (_good(audience=Audience(enforcer=STRANGER.public, boot="b0" * 32)), "identity_mismatch"),
        (_beside(LAB.identity_envelope), "identity_mismatch"),
        (_beside(b"{}"), "malformed"),
        (_beside(altered(LAB.place_envelope, Identity, STRANGER)), "identity_unknown"),
        (_beside(altered(LAB.place_envelope, Identity, LAB.issuer, subject="spiffe://lab/x")), "audience_unknown"),
        (_with_document(altered(LAB.identity_envelope, Identity, LAB.issuer, expires_ms=NOW)), "identity_expired"),
        (_with_document(altered(LAB.identity_envelope, Identity, LAB.issuer, not_before_ms=NOW + 1)), "identity_expired"),
        (_with_document(altered(LAB.identity_envelope, Identity, LAB.issuer, role="enforcer")), "identity_mismatch"),
        (_with_document(altered(LAB.identity_envelope, Identity, LAB.issuer, groups=["nobody"])), "entity_missing"),
    ],
)  # fmt: skip
def test_a_no_to_somebody_known_is_signed_and_recorded(data: bytes, code: str) -> None:
    desk = Desk()
    (answer,) = desk.take(data)
    denial = _denial(answer)
    (record,) = desk.records
    assert denial.code == code
    assert (denial.record.origin, denial.record.index, denial.record.leaf) == (ORIGIN, 0, leaf_hash(desk.leaves[0]).hex())
    if code == "policy_denied":
        assert isinstance(record, DecisionMade)
        assert (record.decision.effect, record.authorization) == ("deny", "")
    else:
        assert isinstance(record, Denied)
        assert (record.code, record.intent, record.subject) == (code, denial.intent, "spiffe://lab/agent/anna")
    assert not only(InsertOnce, desk.intake.effects)


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        (_good(created_ms=NOW + BOUNDS.skew_ms), True),
        (_good(created_ms=NOW - 9_000, expires_ms=NOW + 1), True),
        (_good(created_ms=NOW - 9_000, expires_ms=NOW), False),
        (_good(created_ms=NOW, expires_ms=NOW + INTENT_LIFE_MS_MAX), True),
        (_good(params={"amount": 100}), True),
    ],
)
def test_the_bounds_themselves_are_within(data: bytes, allowed: bool) -> None:
    assert isinstance(Desk().take(data)[0], Authorized) is allowed


def test_what_was_measured_may_not_be_revoked() -> None:
    measured = Measurement(name="script", digest="blake3:" + "0a" * 32)
    desk = Desk(revoking(("digest", measured.digest)))
    assert _denial(desk.take(_good(measurements=[measured]))[0]).code == "revoked"


def test_the_policies_that_decided_are_named() -> None:
    (answer,) = Desk().take(_good(resource=EntityRef(type="Account", id="frozen")))
    assert _denial(answer).determining == ["never-frozen"]


@pytest.mark.parametrize(
    "target",
    [
        ("key", LAB.holder.public),
        ("subject", "spiffe://lab/agent/anna"),
        ("document", WHO.id),
        ("key", LAB.place_key.public),
        ("subject", "spiffe://lab/enforcer/till"),
        ("document", PLACE.id),
        ("intent", intent_of(1, created_ms=NOW, expires_ms=NOW + 30_000)[0]),
        ("enrolled", LAB.roster.issuers.keys[0]),
        ("issuer", LAB.roster.issuers.keys[0]),
        ("governor", ME.name),
        ("digest", LAB.governance.active(DOMAIN, "eu", NOW).manifest.digest),
    ],
)
def test_nothing_in_the_chain_may_be_revoked(target: tuple[str, str]) -> None:
    assert _denial(Desk(revoking(target)).take(_good())[0]).code == "revoked"
    assert isinstance(Desk(revoking((target[0], "somebody else"))).take(_good())[0], Authorized)


@pytest.mark.parametrize("forgotten", ["", WHO.id, PLACE.id])
def test_of_a_revoked_issuer_only_those_documents_count_that_are_spared(forgotten: str) -> None:
    spared = {WHO.id, PLACE.id} - {forgotten}
    (answer,) = Desk(revoking(("issuer", LAB.issuer.public), spares=spared)).take(_good())
    assert isinstance(answer, Authorized) if not forgotten else _denial(answer).code == "revoked"


def test_every_intent_of_a_halted_domain_is_denied_whatever_policy_says() -> None:
    desk = Desk(halted())
    frozen = EntityRef(type="Account", id="frozen")
    asked: list[dict[str, Any]] = [{}, {"action": "unheard-of"}, {"resource": frozen}, {"assurance_min": "final"}]
    answers_ = desk.take(*(_good(number, **changes) for number, changes in enumerate(asked)))
    assert [(_denial(answer).code, _denial(answer).determining) for answer in answers_] == [("halted", [])] * 4
    assert [record.code for record in desk.records if isinstance(record, Denied)] == ["halted"] * 4
    assert len(desk.records) == 4
    assert _denial(Desk(halted()).take(_good(), stale=Refused("stale", ""))[0]).code == "halted"
    assert isinstance(Desk(halted(resumed=True)).take(_good())[0], Authorized)


def test_an_intent_whose_time_is_over_is_not_recorded_because_its_domain_is_halted() -> None:
    desk = Desk(halted())
    (answer,) = desk.take(_good(created_ms=NOW - 60_000, expires_ms=NOW - 1))
    assert isinstance(answer, RefusedAnswer)
    assert (answer.code, desk.records) == ("intent_expired", [])


@pytest.mark.parametrize(("at_ms", "code"), [(T0 - 1, "domain_unknown"), (LAB.manifest.expires_ms, "policy_expired")])
def test_outside_of_the_policys_time_nothing_is_decided(at_ms: int, code: str) -> None:
    who = altered(LAB.identity_envelope, Identity, LAB.issuer, not_before_ms=0, expires_ms=at_ms + 10**9)
    place = altered(LAB.place_envelope, Identity, LAB.issuer, not_before_ms=0, expires_ms=at_ms + 10**9)
    intent = intent_of(1, created_ms=at_ms, expires_ms=at_ms + 9, identity=envelope.identify(who)[1])[1]
    (answer,) = Desk(now_ms=at_ms).take(_request(intent, identity=who, enforcer=place))
    assert _denial(answer).code == code


@pytest.mark.parametrize("code", ["stale", "clock_unsure"])
def test_while_this_view_is_not_fresh_everybody_known_is_denied_and_nobody_is_decided(code: str) -> None:
    desk = Desk()
    told = desk.take(_good(1), _good(2), b"garbage", stale=Refused(code, "2 of 3"))
    assert [_denial(answer).code for answer in told[:2]] == [code, code]
    assert isinstance(told[2], RefusedAnswer)
    assert all(isinstance(record, Denied) for record in desk.records)


class _Failing(RuleEngine):
    """A permit that errs: Cedar would skip the policy, were it a forbid."""

    def _one(self, request: Any) -> Verdict:
        return msgspec.structs.replace(super()._one(request), errors=("overflow",))


def test_a_policy_that_fails_allows_nothing() -> None:
    desk = Desk(engine=_Failing())
    assert _denial(desk.take(_good())[0]).code == "policy_error"
    (record,) = desk.records
    assert isinstance(record, DecisionMade)
    assert (record.decision.effect, record.decision.errors) == ("deny", ["overflow"])


class _Half(RuleEngine):
    """No answer for one account, nonsense for another."""

    def evaluate(self, bundle_digest: str, requests: Any) -> list[Verdict | None]:
        odd = Verdict(allow=True, determining=("no-such-policy",), errors=())
        told = {"gone": None, "odd": odd}
        return [
            told.get(request.resource.id, verdict)
            for request, verdict in zip(requests, super().evaluate(bundle_digest, requests), strict=True)
        ]


def test_an_engine_without_an_answer_denies_one_intent_and_hurts_nobody_else() -> None:
    desk = Desk(engine=_Half())
    accounts = ("acme", "gone", "odd", "acme")
    told = desk.take(*(_good(number, resource=EntityRef(type="Account", id=name)) for number, name in enumerate(accounts)))
    assert [isinstance(answer, Authorized) for answer in told] == [True, False, False, True]
    assert [_denial(answer).code for answer in told[1:3]] == ["engine_unavailable"] * 2


def test_a_governor_without_the_bundle_denies_and_stays_alive() -> None:
    (answer,) = Desk(revoking(bundles=[])).take(_good())
    assert _denial(answer).code == "engine_unavailable"


# ------------------------------------------------------------------------------------------------------------------ again


def test_an_intent_that_was_permitted_gets_the_same_bytes_again_however_late_and_stale() -> None:
    desk = Desk()
    (first,) = desk.take(_good())
    (record,) = desk.records
    assert isinstance(record, DecisionMade)
    again = Desk(known={record.intent: desk.leaves[0]}, now_ms=NOW + 9_000)
    (second,) = again.take(_good(), stale=Refused("stale", ""))
    assert second == first
    assert again.records == []


def test_a_denial_is_not_remembered() -> None:
    assert _denial(Desk().take(_good(), stale=Refused("stale", ""))[0]).code == "stale"
    assert isinstance(Desk().take(_good())[0], Authorized)


def test_what_was_revoked_since_is_not_authorized_again() -> None:
    desk = Desk()
    desk.take(_good())
    (record,) = desk.records
    assert isinstance(record, DecisionMade)
    again = Desk(revoking(("key", LAB.holder.public)), known={record.intent: desk.leaves[0]})
    assert _denial(again.take(_good())[0]).code == "revoked"


def test_what_was_authorized_is_not_authorized_again_while_its_domain_is_halted() -> None:
    desk = Desk()
    desk.take(_good())
    (record,) = desk.records
    assert isinstance(record, DecisionMade)
    known = {record.intent: desk.leaves[0]}
    again = Desk(halted(), known=known)
    assert _denial(again.take(_good())[0]).code == "halted"
    over = Desk(halted(), known=known, now_ms=NOW + 30_000)
    (answer,) = over.take(_good())
    assert isinstance(answer, RefusedAnswer)
    assert over.records == []


def test_the_same_intent_beside_another_enforcers_document_is_not_the_same_request() -> None:
    desk = Desk()
    desk.take(_good())
    (record,) = desk.records
    assert isinstance(record, DecisionMade)
    other = altered(LAB.place_envelope, Identity, LAB.issuer, enforcer_class="in-process")
    intent = intent_of(1, created_ms=NOW, expires_ms=NOW + 30_000)[1]
    again = Desk(known={record.intent: desk.leaves[0]})
    assert _denial(again.take(_request(intent, enforcer=other))[0]).code == "intent_conflict"


def test_an_intent_that_was_used_up_by_something_else_is_refused() -> None:
    identity = intent_of(1, created_ms=NOW, expires_ms=NOW + 30_000)[0]
    leaf = canonical.encode(
        Denied(mesh=MESH, origin=ORIGIN, index=0, at_ms=NOW, intent=identity, identity="cd" * 32, subject="x", code="stale", detail="")
    )
    (answer,) = Desk(known={identity: leaf}).take(_good())
    assert _denial(answer).code == "intent_conflict"


def test_delivered_twice_in_one_batch_it_is_decided_once_and_both_get_the_same_answer() -> None:
    desk = Desk()
    first, second = desk.take(_good(), _good())
    assert isinstance(first, Authorized)
    assert isinstance(second, Authorized)
    assert bytes(first.authorization) == bytes(second.authorization)
    assert len(desk.records) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_good(created_ms=NOW - 60_000, expires_ms=NOW), "intent_expired"),
        (_good(created_ms=NOW + BOUNDS.skew_ms + 1), "intent_expired"),
        (_good(expires_ms=NOW + INTENT_LIFE_MS_MAX + 1), "intent_too_long"),
    ],
)
def test_whoever_repeats_an_old_intent_writes_nothing_into_the_log(data: bytes, code: str) -> None:
    desk = Desk()
    (answer,) = desk.take(data)
    assert isinstance(answer, RefusedAnswer)
    assert answer.code == code
    assert desk.records == []


def test_one_batch_has_one_order_and_one_time() -> None:
    desk = Desk()
    told = desk.take(*(_good(number) for number in range(20)))
    ids = [envelope.read(Authorization, bytes(answer.authorization)).claims.intent for answer in told]
    assert [record.intent for record in desk.records if isinstance(record, DecisionMade)] == ids
    assert {record.at_ms for record in desk.records} == {NOW}
    assert len({sha256_hex(leaf) for leaf in desk.leaves}) == 20


def test_a_document_with_a_strangers_signature_is_not_taken_for_a_proof_could_not_show_it() -> None:
    both = sign(WHO.claims, LAB.issuer, STRANGER)
    intent = intent_of(1, created_ms=NOW, expires_ms=NOW + 9_000)[1]
    (answer,) = Desk().take(_request(intent, identity=both))
    assert isinstance(answer, RefusedAnswer)
    assert answer.code == "identity_unknown"


def test_an_intent_with_a_strangers_signature_is_not_taken_for_a_proof_could_not_show_it() -> None:
    statement = envelope.read(Intent, intent_of(1, created_ms=NOW, expires_ms=NOW + 9_000)[1])
    junk = envelope.assemble(
        "application/vnd.govmesh.intent.v1+json", statement.payload, {**statement.signatures, STRANGER.public: bytes(64)}
    )
    (answer,) = Desk().take(_request(junk))
    assert isinstance(answer, RefusedAnswer)
    assert answer.code == "unauthenticated"
