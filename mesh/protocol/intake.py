"""Intents in, answers out: a whole batch is authenticated, decided, recorded and answered as one step.

Rules
-----
1. Before somebody is authenticated a refusal costs no signature and no record of its own: it is answered unsigned and counted
   in an aggregate.
2. Afterwards every no is signed and recorded, like every yes; but for an intent whose time is over, which anybody may send again.
3. Freshness is judged once per batch, before any decision. A halted domain is denied without asking for it, or for policy.
4. An intent for which an authorization was issued gets the same bytes again; denials are not cached.
5. A parent that is known to be over lets nothing begin within it; that is asked when the decision is about to be durable.
6. The record of a permit names the authorization's id and commits before the authorization is signed.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Draft
from mesh.core.law.governance import Basis, Governance
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.roster import Member
from mesh.core.log.record import DecisionMade, Denied, read_record
from mesh.core.messages import Authorized, DeniedAnswer, IntentRequest, Openings, RefusedAnswer, unpack
from mesh.core.run.approval import Effect as Approved
from mesh.core.run.authorization import Denial, RecordRef
from mesh.core.run.decision import Decision, Verdict
from mesh.core.run.kin import below
from mesh.core.run.sealed import check_boxes
from mesh.errors import MeshError, Refused
from mesh.limits import REQUEST_BYTES_MAX
from mesh.protocol import decide
from mesh.protocol.documents import Documents
from mesh.protocol.examine import Authenticated, Question, authenticate, authorization_draft, check_chain, check_open, question
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Effect, InsertOnce, Locate, PutBody, PutOpenings, Reply, Running, Send, Sign, Signed

__all__ = ["Intake", "IntentArrived", "refuse"]


_NOT_ALIVE: Final = frozenset({"intent_expired", "intent_too_long"})


class IntentArrived(msgspec.Struct, frozen=True):
    """A request as it came from the bus."""

    waiter: int
    data: bytes


class _Pending(msgspec.Struct):
    """One authenticated intent on its way through the batch."""

    waiters: list[int]
    request: IntentRequest
    sender: Authenticated
    asked: Question | None = None
    code: str = ""
    detail: str = ""


class Intake:
    """The working copy of one batch."""

    def __init__(
        self,
        *,
        governance: Governance,
        me: Member,
        writer: Writer,
        documents: Documents,
        engine: decide.Engine,
        known: Mapping[str, bytes],
        over: AbstractSet[str] = frozenset(),
    ) -> None:
        """Prepare for a batch.

        Args:
            governance: what is in force.
            me: the deciding member.
            writer: this step's working copy of the log.
            documents: memo of verified identity documents.
            engine: the policy engine.
            known: intent id to the leaf data of the record that permitted it, for intents found answered before.
            over: ids of authorizations whose executions are known to be over.
        """
        self.governance = governance
        self.me = me
        self.writer = writer
        self.documents = documents
        self.engine = engine
        self.known = known
        self.over = over
        self.effects: list[Effect] = []
        self.noise: dict[str, int] = {}

    def take(self, events: Sequence[IntentArrived], stale: Refused | None) -> None:
        """Answer every event; ``stale`` is why nothing may be allowed now, if so."""
        pending: list[_Pending] = []
        seen: dict[str, _Pending] = {}
        for event in events:
            item = self._authenticate(event)
            if item is None:
                continue
            first = seen.setdefault(item.sender.intent.id, item)
            if first is not item:
                first.waiters += item.waiters  # delivered twice: one decision, and the same answer for both
                continue
            self._ask(item, stale)
            pending.append(item)
        self._decide(pending)

    def _authenticate(self, event: IntentArrived) -> _Pending | None:
        try:
            request = unpack(IntentRequest, event.data, bytes_max=REQUEST_BYTES_MAX)
            sender = authenticate(bytes(request.intent), bytes(request.identity), self.governance, self.documents)
        except Refused as refusal:
            self._refuse(event.waiter, refusal.code, refusal.detail)
            return None
        return _Pending([event.waiter], request, sender)

    def _refuse(self, waiter: int, code: str, detail: str) -> None:
        self.noise[code] = self.noise.get(code, 0) + 1
        self.effects.append(refuse(waiter, code, detail))

    def _ask(self, item: _Pending, stale: Refused | None) -> None:
        if item.sender.intent.id in self.known:
            return
        try:
            check_open(item.sender, self.governance, at_ms=self.writer.at_ms)
            if item.sender.intent.id in self.governance.erased:  # nobody would keep what it takes to repeat the decision
                raise Refused("erased", "an erasure names this intent")
            if stale is not None:
                raise stale
            check_boxes(item.sender.intent.claims.sealed, item.request.boxes)
            item.asked = question(
                item.sender,
                bytes(item.request.enforcer),
                item.request.openings,
                self.governance,
                self.documents,
                region=self.me.region,
                at_ms=self.writer.at_ms,
                frontier=self.governance.digest,
                approvals=[bytes(raw) for raw in item.request.approvals],
                parents=item.request.parents,
            )
            check_chain(item.asked, self.governance, me=self.me.name)
            parent = item.asked.family.parent
            if parent is not None and parent.authorization.id in self.over:
                raise Refused("parent_over", f"{parent.authorization.id[:12]} has ended")
        except MeshError as error:
            item.asked, item.code, item.detail = None, error.code, error.detail

    def _decide(self, pending: Sequence[_Pending]) -> None:
        verdicts: dict[str, Verdict | None] = {}
        by_bundle: dict[str, list[_Pending]] = {}
        for item in pending:
            if item.asked is not None:
                by_bundle.setdefault(item.asked.law.manifest.digest, []).append(item)
        for digest, group in by_bundle.items():
            answers = self.engine.evaluate(digest, [item.asked.request for item in group if item.asked is not None])
            verdicts.update(zip((item.sender.intent.id for item in group), answers, strict=True))
        for item in pending:
            verdict = verdicts.get(item.sender.intent.id)
            if item.sender.intent.id in self.known:
                self._repeat(item, self.known[item.sender.intent.id])
            elif item.asked is None:
                self._turn_away(item)
            elif verdict is None:
                self._deny(item, "engine_unavailable", "")
            else:
                self._conclude(item, item.asked, verdict)

    def _turn_away(self, item: _Pending) -> None:
        if item.code not in _NOT_ALIVE:
            self._deny(item, item.code, item.detail)
            return
        # Whoever heard it once can send it again for ever: its holder is known, but need not be the one who sends it.
        for waiter in item.waiters:
            self._refuse(waiter, item.code, item.detail)

    def _conclude(self, item: _Pending, asked: Question, verdict: Verdict) -> None:
        draft = None
        try:
            decision = decide.conclude(asked.request, verdict, asked.intent.claims, asked.law, profile=self.engine.profile)
            if decision.effect == "permit":
                draft = self._draft(asked, decision, self.writer.index, self.writer.at_ms)
        except MeshError as error:  # one intent's trouble is not its batch's
            self._deny(item, error.code, error.detail)
            return
        self._record(item, asked, decision, draft)

    def _record(self, item: _Pending, asked: Question, decision: Decision, draft: Draft | None) -> None:
        ref = self.writer.append(
            DecisionMade(
                mesh=self.writer.mesh,
                origin=self.writer.origin,
                index=self.writer.index,
                at_ms=self.writer.at_ms,
                roster_epoch=self.governance.roster.epoch,
                intent=asked.intent.id,
                identity=asked.identity.id,
                enforcer=asked.enforcer.id,
                attested=asked.attested,
                decision=decision,
                engine=self.engine.build,
                approvals=[msgspec.Raw(said.envelope) for said in asked.backing.said],
                parents=list(asked.family.papers),
                authorization=draft.id if draft is not None else "",
            )
        )
        self._keep(item, asked, ref)
        if draft is not None:
            self.effects.append(InsertOnce("intent", asked.intent.id, asked.intent.claims.created_ms, ref.index))
            self.effects.append(Locate(draft.id, ref.origin, ref.index))
            self.effects += [Locate(below(item.authorization.id), ref.origin, ref.index) for item in asked.family.kin]
            parent = asked.family.parent
            if parent is not None:
                self.effects.append(Running(parent.authorization.id, parent.outcome.claims.enforcer))
            self._authorize(item.waiters, draft, self.governance.frontier)
        else:
            self._send_denial(item, *_why(decision, asked), decision.determining, ref)

    def _keep(self, item: _Pending, asked: Question, ref: RecordRef) -> None:
        intent = asked.intent
        self.effects += [
            PutBody(intent.id, "intent", intent.envelope),
            PutBody(asked.identity.id, "identity", asked.identity.envelope),
            PutBody(asked.enforcer.id, "identity", asked.enforcer.envelope),
            Locate(intent.id, ref.origin, ref.index),
        ]
        if item.request.openings or item.request.boxes:
            opened = Openings(intent=intent.id, openings=item.request.openings, boxes=item.request.boxes)
            self.effects.append(PutOpenings(intent.id, canonical.encode(opened)))

    def _draft(self, asked: Question, decision: Decision, index: int, at_ms: int) -> Draft:
        place = self.writer.origin, index
        return authorization_draft(asked, decision, self.governance, issuer=self.me.name, place=place, at_ms=at_ms)

    def _authorize(self, waiters: Sequence[int], draft: Draft, frontier: tuple[StreamHead, ...]) -> None:
        self.effects.append(Sign("decision", draft))
        answer = partial(_authorized, draft.id, frontier)
        self.effects += [Send(Reply(waiter), answer) for waiter in waiters]

    def _deny(self, item: _Pending, code: str, detail: str) -> None:
        intent = item.sender.intent
        ref = self.writer.append(
            Denied(
                mesh=self.writer.mesh,
                origin=self.writer.origin,
                index=self.writer.index,
                at_ms=self.writer.at_ms,
                intent=intent.id,
                identity=item.sender.identity.id,
                subject=intent.claims.subject,
                code=code,
                detail=detail[:200],
            )
        )
        identity = item.sender.identity
        self.effects += [
            PutBody(intent.id, "intent", intent.envelope),
            PutBody(identity.id, "identity", identity.envelope),
            Locate(intent.id, ref.origin, ref.index),
        ]
        self._send_denial(item, code, detail, [], ref)

    def _send_denial(self, item: _Pending, code: str, detail: str, determining: list[str], ref: RecordRef) -> None:
        denial = envelope.draft(
            Denial(
                mesh=self.writer.mesh,
                issuer=self.me.name,
                intent=item.sender.intent.id,
                code=code,
                detail=detail[:200],
                determining=determining,
                at_ms=self.writer.at_ms,
                record=ref,
            )
        )
        self.effects.append(Sign("decision", denial))
        self.effects += [Send(Reply(waiter), partial(_denied, denial.id)) for waiter in item.waiters]

    def _repeat(self, item: _Pending, leaf: bytes) -> None:
        """Rule 4: the authorization is a function of the record, so it is made again rather than kept."""
        record = read_record(leaf)
        if not isinstance(record, DecisionMade):
            self._deny(item, "intent_conflict", "")
            return
        try:
            check_open(item.sender, self.governance, at_ms=self.writer.at_ms)
            asked = question(
                item.sender,
                bytes(item.request.enforcer),
                item.request.openings,
                self.governance,
                self.documents,
                region=self.me.region,
                at_ms=record.at_ms,
                frontier=record.attested.frontier,
                basis=Basis(record.attested.manifest, record.attested.activation),
                approvals=[bytes(raw) for raw in record.approvals],
                parents=record.parents,
            )
            check_chain(asked, self.governance, me=self.me.name)
        except MeshError as error:
            item.code, item.detail = error.code, error.detail
            self._turn_away(item)
            return
        draft = self._draft(asked, record.decision, record.index, record.at_ms)
        frontier = self.governance.former.get(record.attested.frontier)
        if draft.id != record.authorization or frontier is None:
            self._deny(item, "intent_conflict", "it was authorized under other conditions")
            return
        self._authorize(item.waiters, draft, frontier)


def _why(decision: Decision, asked: Question) -> tuple[str, str]:
    """Code and detail of a decision that denies."""
    if decision.needs:  # the effect first: it is what people must see whole
        return decision.code, f"effect {Approved.of(asked.intent.claims).digest} needs {', '.join(decision.needs)}"
    return decision.code, ""


def refuse(waiter: int, code: str, detail: str) -> Send:
    """An unsigned no."""
    return Send(Reply(waiter), partial(_refused, canonical.encode(RefusedAnswer(code=code, detail=detail[:200]))))


def _refused(answer: bytes, _signed: Signed) -> bytes:
    return answer


def _authorized(authorization: str, frontier: tuple[StreamHead, ...], signed: Signed) -> bytes:
    return canonical.encode(Authorized(authorization=msgspec.Raw(signed.statements[authorization]), frontier=list(frontier)))


def _denied(denial: str, signed: Signed) -> bytes:
    return canonical.encode(DeniedAnswer(denial=msgspec.Raw(signed.statements[denial])))
