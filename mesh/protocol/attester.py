"""Would I have written these records? Every decision is asked again, every statement behind a record is verified again.

Rules
-----
1. A record stands where it says (mesh, origin, index), its time does not decrease and is not ahead of mine by more than ε.
2. A decision is repeated from what the record names: same question, same decision bytes, same authorization id, or ``wrong``. So is one
   under a roster that its log has left.
3. An outcome is what its enforcer signed, word for word; so is what it has heard.
4. A denial without a decision needs no justification: saying no is always lawful. But who it was said to must have asked.
5. What cannot be checked (a body, an opening or a newer policy is not held, the engine is down, its time is to come) is neither right nor
   wrong: the record is *incomplete*, and what follows waits. An opening that was erased by a statement makes it incomplete with a code of
   its own, so that whoever knows the record to be final need not wait (:mod:`mesh.protocol.gone`).
6. A record names statements by what they say, not by how they are signed and spelled: whoever carries them can spoil that. One that
   is spoilt is missing; only what a statement says can make a record wrong.
7. Approvals and the papers of parents stand in the record itself: if they do not hold, or rest on what its owner knew to be revoked,
   it is wrong. That a parent was over is judged by nobody afterwards: what its owner knew of that is in no frontier.

The same procedure serves attesters before they sign and auditors afterwards. Not here: signing, storage.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Basis, Governance
from mesh.core.law.known import check_known
from mesh.core.law.roster import Member
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import (
    AttestRefused,
    Cosigned,
    DecisionMade,
    Denied,
    EnforcerHeard,
    GovernanceChanged,
    OutcomeRecorded,
    Record,
    read_record,
)
from mesh.core.messages import Openings
from mesh.core.run.approval import weigh
from mesh.core.run.heard import Heard, check_heard
from mesh.core.run.identity import check_identity
from mesh.core.run.intent import Intent
from mesh.core.run.kin import below, trace
from mesh.core.run.outcome import Outcome, event_name
from mesh.core.run.sealed import check_boxes
from mesh.errors import MeshError, Refused
from mesh.protocol import decide
from mesh.protocol.documents import Documents
from mesh.protocol.examine import Question, authenticate, authorization_draft, question
from mesh.protocol.step import Append, Locate, Persist, PutBody, PutOpenings

__all__ = ["Examined", "Material", "examine_records", "located_ids", "storing"]

_INCOMPLETE: Final = frozenset({"body_missing", "clock_unsure", "engine_unavailable", "erased", "policy_unknown"})
_ID: Final = re.compile("[0-9a-f]{64}")
_ID_CHARS: Final = 64
_MANGLED: Final = frozenset(
    {
        "bad_signature",
        "box_malformed",
        "box_mismatch",
        "identity_unknown",
        "malformed",
        "non_canonical",
        "opening_mismatch",
        "too_large",
        "unauthenticated",
        "wrong_kind",
    }
)
"""What a statement, an opening or a sealed box can be made into on its way (rule 6)."""


class Material(msgspec.Struct, frozen=True):
    """What travels beside records."""

    bodies: Mapping[str, bytes]
    """Statement id to envelope."""
    openings: Mapping[str, Openings]
    """Intent id to what opens its parameters; absent if nothing was sent."""


class Examined(msgspec.Struct, frozen=True):
    """One record, as it was found."""

    data: bytes
    hash: bytes
    record: Record
    code: str
    """Empty if it is what I would have written."""
    detail: str
    bodies: tuple[PutBody, ...]
    openings: tuple[PutOpenings, ...]

    @property
    def incomplete(self) -> bool:
        """Rule 5."""
        return self.code in _INCOMPLETE


class _Found(msgspec.Struct):
    """Working copy of one record's examination."""

    record: Record
    data: bytes
    bodies: dict[str, PutBody]
    openings: tuple[PutOpenings, ...] = ()
    asked: Question | None = None
    code: str = ""
    detail: str = ""


def examine_records(
    leaves: Sequence[bytes],
    material: Material,
    *,
    owner: Member,
    first: int,
    after_ms: int,
    governance: Governance,
    documents: Documents,
    engine: decide.Engine,
    now_ms: int,
    after_epoch: int = 0,
) -> list[Examined]:
    """Examine consecutive records of ``owner``'s log from index ``first`` on.

    Args:
        leaves: leaf data of the records.
        material: the statements beside them.
        owner: whose log it is.
        first: index of the first.
        after_ms: time of the record before.
        governance: what is in force.
        documents: memo of verified identity documents.
        engine: the policy engine.
        now_ms: my time, for rule 1.
        after_epoch: roster epoch of the decision before; 0 if that is not known, then only among these records it must not fall.

    Raises:
        Refused: if leaf data is not a record at all: then nobody can say what follows either.
    """
    found: list[_Found] = []
    for offset, data in enumerate(leaves):
        item = _Found(read_record(data), data, {})
        try:
            _check_place(item.record, governance, owner, index=first + offset, after_ms=after_ms, now_ms=now_ms)
            after_epoch = _check_epoch(item.record, after_epoch)
            _check_statements(item, material, governance, documents, owner)
        except MeshError as error:
            item.code, item.detail = _judge(error)
        after_ms = max(after_ms, item.record.at_ms)
        found.append(item)
    _replay(found, governance, engine, owner)
    return [
        Examined(item.data, leaf_hash(item.data), item.record, item.code, item.detail, tuple(item.bodies.values()), item.openings)
        for item in found
    ]


def _judge(error: MeshError) -> tuple[str, str]:
    if error.code in _MANGLED:
        return "body_missing", f"{error.code}: {error.detail}"
    return error.code, error.detail


def located_ids(record: Record) -> tuple[str, ...]:
    """The statement ids under which a record can be found."""
    match record:
        case DecisionMade(intent=intent, authorization=authorization, parents=parents) if authorization:
            return (intent, authorization, *(below(paper.named[0]) for paper in parents))
        case OutcomeRecorded(outcome=outcome, intent=intent, authorization=authorization):
            return (outcome, intent, authorization)
        case EnforcerHeard(heard=heard):
            return (heard,)
        case AttestRefused(refusal=refusal):
            return (envelope.draft(refusal).id,)
        case GovernanceChanged(change="erased" | "pruned", about=about):
            return (about[:_ID_CHARS],) if _ID.fullmatch(about[:_ID_CHARS]) else ()
        case _:
            intent_id = getattr(record, "intent", "")
            return (intent_id,) if intent_id else ()


def storing(origin: str, first: int, records: Sequence[Examined]) -> list[Persist]:
    """What to persist so that these records are held with all they name."""
    effects: list[Persist] = [Append(origin, first, tuple(item.data for item in records), tuple(item.hash for item in records))]
    bodies: dict[str, PutBody] = {}
    for offset, item in enumerate(records):
        effects += [Locate(identity, origin, first + offset) for identity in located_ids(item.record)]
        effects += item.openings
        bodies.update((body.id, body) for body in item.bodies)
    return [*effects, *bodies.values()]


def _check_place(record: Record, governance: Governance, owner: Member, *, index: int, after_ms: int, now_ms: int) -> None:
    roster = governance.roster
    if record.mesh != roster.mesh or record.origin != roster.origin(owner) or record.index != index:
        raise Refused("record_invalid", f"says {record.origin[:60]} {record.index}, stands at {index}")
    if record.at_ms < after_ms:
        raise Refused("record_invalid", f"time {record.at_ms} after {after_ms}")
    if record.at_ms > now_ms + roster.bounds.skew_ms:
        # Not wrong for ever: it may be my clock. It waits until it is no longer in the future.
        raise Refused("clock_unsure", f"time {record.at_ms}, now {now_ms}")


def _check_epoch(record: Record, after_epoch: int) -> int:
    """That no decision was made under a roster that its log has left; under which one it is now."""
    if not isinstance(record, DecisionMade):
        return after_epoch
    if record.roster_epoch < after_epoch:
        raise Refused("record_invalid", f"decided under roster epoch {record.roster_epoch} after {after_epoch}")
    return record.roster_epoch


def _check_statements(item: _Found, material: Material, governance: Governance, documents: Documents, owner: Member) -> None:
    match item.record:
        case DecisionMade() as record:
            item.asked = _ask_again(record, item, material, governance, documents, owner)
        case OutcomeRecorded() as record:
            _check_outcome(record, item, material, governance, documents)
        case EnforcerHeard() as record:
            _check_heard(record, item, material, governance, documents)
        case Denied() as record:
            _check_asker(record, item, material, governance, documents)
        case Cosigned() as record:
            _check_heads(record)
        case _:
            pass


def _check_asker(record: Denied, item: _Found, material: Material, governance: Governance, documents: Documents) -> None:
    intent = _body(record.intent, "intent", item, material)
    identity = _body(record.identity, "identity", item, material)
    sender = authenticate(intent, identity, governance, documents, former=True)
    said = (sender.intent.id, sender.identity.id, sender.intent.claims.subject)
    if said != (record.intent, record.identity, record.subject):
        raise Refused("record_invalid", "somebody else asked")


def _ask_again(
    record: DecisionMade, item: _Found, material: Material, governance: Governance, documents: Documents, owner: Member
) -> Question:
    governance = _as_of(record, governance, owner)
    intent = _body(record.intent, "intent", item, material)
    identity = _body(record.identity, "identity", item, material)
    enforcer = _body(record.enforcer, "identity", item, material)
    sender = authenticate(intent, identity, governance, documents)
    domain, basis = sender.intent.claims.domain, Basis(record.attested.manifest, record.attested.activation)
    if all(law.manifest_id != basis.manifest for law in governance.laws.get(domain, ())):
        # Who learned of a new policy first is not wrong: those who have not wait until they hold it.
        raise Refused("policy_unknown", f"the manifest of {domain} epoch {record.attested.policy_epoch}")
    opened = material.openings.get(record.intent)
    if sender.intent.claims.committed and opened is None:
        raise Refused("erased" if record.intent in governance.erased else "body_missing", "openings")
    check_boxes(sender.intent.claims.sealed, opened.boxes if opened is not None else ())
    # The frontier is the record's own word: whether it was new enough is judged against heartbeats, not by replay.
    frontier, region = record.attested.frontier, governance.roster.member(owner.name).region
    said = _backed(record, sender.intent.claims, governance)
    _check_traced(record, sender.intent, governance)
    asked = question(
        sender, enforcer, opened.openings if opened is not None else (), governance, documents,
        region=region, at_ms=record.at_ms, frontier=frontier, basis=basis, approvals=said, parents=record.parents,
    )  # fmt: skip
    if (sender.intent.id, sender.identity.id, asked.enforcer.id) != (record.intent, record.identity, record.enforcer):
        raise Refused("record_invalid", "a statement is not the one named")
    if asked.attested != record.attested:
        raise Refused("replay_mismatch", "the attested facts are not those of this governor at that time")
    if opened is not None and (opened.openings or opened.boxes):
        item.openings = (PutOpenings(record.intent, canonical.encode(opened)),)
    return asked


def _as_of(record: DecisionMade, governance: Governance, owner: Member) -> Governance:
    """What was in force for this governor as it decided: it may have gone over to a roster before me, or after."""
    epoch = record.roster_epoch
    if epoch != governance.roster.epoch and epoch > len(governance.rosters.ids):
        # As with a new policy: who learned of it first is not wrong.
        raise Refused("policy_unknown", f"roster epoch {epoch}")
    then = governance.under(epoch)
    whose = owner.name, owner.log_epoch, owner.log_key  # its other keys may have been changed since
    if all((member.name, member.log_epoch, member.log_key) != whose for member in then.roster.members):
        raise Refused("unknown_member", f"{owner.name} is no member of roster epoch {epoch}")
    if record.at_ms < then.roster.not_before_ms:
        raise Refused("roster_pending", f"roster epoch {epoch} begins at {then.roster.not_before_ms}")
    return then


def _backed(record: DecisionMade, intent: Intent, governance: Governance) -> list[bytes]:
    """The approvals that the record holds, which must be all that counted: nobody but its owner can have spoilt them (rule 7)."""
    said = [bytes(raw) for raw in record.approvals]
    try:
        backing = weigh(said, intent, governance.roster, at_ms=record.at_ms)
    except Refused as refusal:
        raise Refused("record_invalid", f"approvals: {refusal.code} {refusal.detail}") from None
    if [item.envelope for item in backing.said] != said:
        raise Refused("record_invalid", "approvals that do not count, or not in their order")
    check_known(governance, record.attested.frontier, backing.chain)
    return said


def _check_traced(record: DecisionMade, intent: Statement[Intent], governance: Governance) -> None:
    """That the papers of its parents hold, and rest on nothing that its owner knew to be revoked (rule 7)."""
    try:
        family = trace(record.parents, intent, governance.rosters, epoch=governance.roster.epoch, at_ms=record.at_ms)
    except Refused as refusal:
        raise Refused("record_invalid", f"parents: {refusal.code} {refusal.detail}") from None
    check_known(governance, record.attested.frontier, family.chain)


def _check_outcome(record: OutcomeRecorded, item: _Found, material: Material, governance: Governance, documents: Documents) -> None:
    place = documents.admit_former(_body(record.identity, "identity", item, material), governance)
    statement = envelope.read(Outcome, _body(record.outcome, "outcome", item, material))
    claims = statement.claims
    if not statement.sealed_by((claims.enforcer,)):
        raise Refused("bad_signature", "outcome")
    check_identity(place.claims, role="enforcer", subject=None, key=claims.enforcer, now_ms=claims.at_ms)
    said = (statement.id, place.id, claims.identity, claims.intent, claims.authorization, event_name(claims.event), claims.mesh)
    if said != (record.outcome, record.identity, place.id, record.intent, record.authorization, record.event, record.mesh):
        raise Refused("record_invalid", "the outcome says something else")


def _check_heads(record: Cosigned) -> None:
    """That it names other logs of this mesh, each once, in their order. Whether they had these trees is for whoever holds both."""
    origins = [head.origin for head in record.heads]
    strange = [origin for origin in origins if origin == record.origin or not origin.startswith(f"{record.mesh}/")]
    if strange or origins != sorted(set(origins)) or not all(head.size for head in record.heads):
        raise Refused("record_invalid", f"trees of other logs: {', '.join(strange or origins)[:120]}")


def _check_heard(record: EnforcerHeard, item: _Found, material: Material, governance: Governance, documents: Documents) -> None:
    place = documents.admit_former(_body(record.identity, "identity", item, material), governance)
    statement = envelope.read(Heard, _body(record.heard, "heard", item, material))
    if (statement.id, place.id, place.claims.subject) != (record.heard, record.identity, record.subject):
        raise Refused("record_invalid", "another enforcer's word, or another word")
    if not statement.sealed_by((statement.claims.enforcer,)):
        raise Refused("bad_signature", "heard")
    try:
        claims = check_heard(statement, mesh=record.mesh, document=place.id, key=place.claims.key)
    except Refused as refusal:  # it is signed: nobody spoilt it on its way
        raise Refused("record_invalid", refusal.detail) from None
    check_identity(place.claims, role="enforcer", subject=None, key=claims.enforcer, now_ms=record.at_ms)
    # The record does not say under which roster it was taken in; another one may allow clocks less.
    if claims.at_ms > record.at_ms + max(roster.bounds.skew_ms for roster in governance.rosters.every):
        raise Refused("record_invalid", f"said at {claims.at_ms}, recorded at {record.at_ms}")


def _body(identity: str, kind: str, item: _Found, material: Material) -> bytes:
    data = material.bodies.get(identity)
    if data is None:
        raise Refused("body_missing", f"{kind} {identity[:12]}")
    item.bodies[identity] = PutBody(identity, kind, data)
    return data


def _replay(found: list[_Found], governance: Governance, engine: decide.Engine, owner: Member) -> None:
    asked = [(item, item.asked, item.record) for item in found if item.asked is not None]
    by_bundle: dict[str, list[tuple[_Found, Question, DecisionMade]]] = {}
    for item, question_, record in asked:
        if isinstance(record, DecisionMade):
            by_bundle.setdefault(question_.law.manifest.digest, []).append((item, question_, record))
    for digest, group in by_bundle.items():
        verdicts = engine.evaluate(digest, [question_.request for _, question_, _ in group])
        for (item, question_, record), verdict in zip(group, verdicts, strict=True):
            if verdict is None:
                item.code = "engine_unavailable"
                continue
            try:
                decision = decide.conclude(question_.request, verdict, question_.intent.claims, question_.law, profile=engine.profile)
            except MeshError as error:
                item.code, item.detail = error.code, error.detail
                continue
            expected = ""
            if decision.effect == "permit":
                place = record.origin, record.index
                then = governance.under(record.roster_epoch)
                draft = authorization_draft(question_, decision, then, issuer=owner.name, place=place, at_ms=record.at_ms)
                expected = draft.id
            if decision != record.decision or expected != record.authorization:
                item.code, item.detail = "replay_mismatch", f"{record.decision.effect} recorded, {decision.effect} replayed"
