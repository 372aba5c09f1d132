"""Outcomes in, receipts out: what an enforcer signs is recorded once, however often and to whomever it is sent.

Rules
-----
1. The enforcer's document comes with its outcomes; its key signs them. Anyone else's are refused unsigned and counted.
2. An outcome recorded before is answered with a receipt for the record it has.
3. Order and gaps within an enforcer's chain are not judged here: it may use another governor for the next one. Auditors see
   all logs.
"""

from collections.abc import Mapping
from functools import partial

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Draft, Statement
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.log.record import OutcomeRecorded
from mesh.core.messages import OutcomeAnswer, OutcomeRequest, unpack
from mesh.core.run.authorization import Receipt, RecordRef
from mesh.core.run.identity import check_identity
from mesh.core.run.outcome import Outcome, event_name
from mesh.errors import Refused
from mesh.protocol.documents import Documents
from mesh.protocol.intake import refuse
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Effect, InsertOnce, Locate, PutBody, Reply, Send, Sign, Signed

__all__ = ["OutcomesArrived", "take_outcomes"]


class OutcomesArrived(msgspec.Struct, frozen=True):
    """A request as it came from an enforcer: outcomes, or what it has heard (:mod:`mesh.protocol.hearing`)."""

    waiter: int
    data: bytes


def take_outcomes(
    event: OutcomesArrived,
    *,
    governance: Governance,
    me: Member,
    writer: Writer,
    documents: Documents,
    known: Mapping[str, RecordRef],
    seen: dict[str, RecordRef],
) -> tuple[list[Effect], str]:
    """Record one request's outcomes.

    Args:
        event: the request.
        governance: what is in force.
        me: the recording member.
        writer: this step's working copy of the log.
        documents: memo of verified identity documents.
        known: outcome id to its record, for those found recorded before.
        seen: the same for those recorded earlier in this step; extended here.

    Returns:
        the effects, and the code under which to count the request as noise; empty if it was taken.
    """
    try:
        request = unpack(OutcomeRequest, event.data)
        place = documents.admit_former(bytes(request.identity), governance)  # what happened is taken in, whoever is gone
        outcomes = [_believe(bytes(raw), place.id, place.claims.key, governance) for raw in request.outcomes]
        for outcome in outcomes:
            check_identity(place.claims, role="enforcer", subject=None, key=outcome.claims.enforcer, now_ms=outcome.claims.at_ms)
    except Refused as refusal:
        return [refuse(event.waiter, refusal.code, refusal.detail)], refusal.code
    effects: list[Effect] = [PutBody(place.id, "identity", place.envelope)]
    drafts: list[Draft] = []
    for outcome in outcomes:
        ref = known.get(outcome.id) or seen.get(outcome.id)
        if ref is None:
            ref = _record(outcome, writer)
            seen[outcome.id] = ref
            effects.append(PutBody(outcome.id, "outcome", outcome.envelope))
            effects.append(InsertOnce("outcome", outcome.id, outcome.claims.at_ms, ref.index))
            effects += [
                Locate(identity, ref.origin, ref.index) for identity in (outcome.id, outcome.claims.intent, outcome.claims.authorization)
            ]
        drafts.append(envelope.draft(Receipt(mesh=writer.mesh, issuer=me.name, statement=outcome.id, record=ref)))
    effects += [Sign("decision", draft) for draft in drafts]
    effects.append(Send(Reply(event.waiter), partial(_receipts, tuple(draft.id for draft in drafts))))
    return effects, ""


def _believe(data: bytes, document: str, key: str, governance: Governance) -> Statement[Outcome]:
    statement = envelope.read(Outcome, data)
    claims = statement.claims
    if claims.mesh != governance.roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.enforcer != key or claims.identity != document:
        raise Refused("identity_mismatch", "the outcome is another enforcer's")
    if not statement.sealed_by((key,)):
        raise Refused("bad_signature", "outcome")
    return statement


def _record(outcome: Statement[Outcome], writer: Writer) -> RecordRef:
    claims = outcome.claims
    return writer.append(
        OutcomeRecorded(
            mesh=writer.mesh,
            origin=writer.origin,
            index=writer.index,
            at_ms=writer.at_ms,
            event=event_name(claims.event),
            outcome=outcome.id,
            identity=claims.identity,
            intent=claims.intent,
            authorization=claims.authorization,
        )
    )


def _receipts(ids: tuple[str, ...], signed: Signed) -> bytes:
    return canonical.encode(OutcomeAnswer(receipts=[msgspec.Raw(signed.statements[identity]) for identity in ids]))
