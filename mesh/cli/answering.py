"""The seven questions that people ask of an execution, each with what its answer rests on, and how far that has come.

Rules
-----
1. An answer is taken from a record or from a statement that a record names by its hash. Which record, which statement, and how far the
   record has come stands beside it; an answer is final if all that it rests on is.
2. Signatures of statements are checked here, with what the rosters say: an answer that rests on one that fails is none.
3. What cannot be answered is said, with the reason; nothing is filled in.

Not here: the life of an execution, stage by stage (:mod:`mesh.cli.telling`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from mesh.cli import telling
from mesh.cli.reaching import Reach
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Basis, Governance, Law
from mesh.core.log.record import DecisionMade, Denied, OutcomeRecorded, Record
from mesh.core.messages import Proved
from mesh.core.run.authorization import Authorization
from mesh.core.run.identity import Identity, issued_by
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Blocked, Outcome, Started
from mesh.errors import Refused
from mesh.protocol.advancing import State
from mesh.protocol.belonging import belongs
from mesh.protocol.proving import bodies_of, record_of

__all__ = ["QUESTIONS", "Answer", "Rest", "answer_all"]

Key = Literal["origin", "authorized_by", "policy", "runtime", "dependencies", "inherited", "controls"]
QUESTIONS: Final[Mapping[Key, str]] = {
    "origin": "where it began",
    "authorized_by": "who authorized it",
    "policy": "which policy",
    "runtime": "which runtime",
    "dependencies": "what it depends on",
    "inherited": "what it inherited",
    "controls": "which controls",
}
"""The keys are what programs read: they stay."""
_NO_TEXT: Final = "the text of the intent is not held by whoever answered"


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer rests on."""

    record: str
    reached: State
    statement: str = ""
    """Id of the statement that the record names; empty if the record itself says it."""
    kind: str = ""

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.record}, {self.reached}" + (f" ({self.kind} {self.statement[:12]})" if self.kind else "")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer."""

    question: str
    says: dict[str, Any]
    rests_on: list[Rest]
    final: bool
    unanswered: str
    """Why there is no answer, or not the whole one; empty if there is."""

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{name}: {telling.words(value)}" for name, value in self.says.items()]
        if self.unanswered:
            said.append(f"not answered: {self.unanswered}")
        said.append(f"rests on {'; '.join(rest.told for rest in self.rests_on)}")
        return [f"{(self.question if at == 0 else '').ljust(18)} {line}" for at, line in enumerate(said)]


class _Facts:
    """An execution's records and statements, read once."""

    def __init__(self, answers: Sequence[Proved], reach: Reach, governance: Governance) -> None:
        self.governance, self.reach = governance, reach
        self.records = [record_of(answer) for answer in answers]
        self.bodies = {identity: data for answer in answers for identity, data in bodies_of(answer).items()}
        decided = [record for record in self.records if isinstance(record, DecisionMade | Denied)]
        permits = [record for record in decided if isinstance(record, DecisionMade) and record.authorization]
        self.main = next(iter([*permits, *decided]), None)
        self.permit = permits[0] if permits else None
        self.intent = self._intent()

    def _intent(self) -> Statement[Intent] | None:
        data = self.bodies.get(self.main.intent) if self.main is not None else None
        if data is None:
            return None
        said = envelope.read(Intent, data)
        return said if said.signed_by(said.claims.holder) else None

    def document(self, identity: str) -> Identity | None:
        """Whom it names, believed by issuers of any roster that is held."""
        data = self.bodies.get(identity)
        if data is None:
            return None
        try:
            said = envelope.read(Identity, data)
            return self.governance.rosters.judged(lambda roster: issued_by(said, roster), by=lambda roster: roster.issuers)
        except Refused:
            return None

    def outcomes(self) -> list[tuple[OutcomeRecorded, Outcome]]:
        """What the enforcer that it was meant for has signed of it, oldest first."""
        found = list[tuple[OutcomeRecorded, Outcome]]()
        for record in self.records:
            if isinstance(record, OutcomeRecorded) and record.outcome in self.bodies and record.intent in self.bodies:
                said = envelope.read(Outcome, self.bodies[record.outcome])
                if belongs(record, self.bodies) and said.signed_by(said.claims.enforcer):
                    found.append((record, said.claims))
        return found

    def law(self) -> Law | None:
        """By which it was decided, if its manifest is held."""
        if not isinstance(self.main, DecisionMade) or self.intent is None:
            return None
        try:
            basis = Basis(self.main.attested.manifest, self.main.attested.activation)
            return self.governance.active(self.intent.claims.domain, self.main.attested.region, self.main.at_ms, basis)
        except Refused:
            return None

    def rest(self, record: Record, statement: str = "", kind: str = "") -> Rest:
        """A record, or a statement that it names."""
        return Rest(record=self.reach.name(record), reached=self.reach.of(record).reached, statement=statement, kind=kind)


def answer_all(answers: Sequence[Proved], reach: Reach, governance: Governance) -> dict[str, Answer]:
    """Every question, in the order of :data:`QUESTIONS`; none about records that belong to no intent."""
    facts = _Facts(answers, reach, governance)
    main = facts.main
    if main is None:
        return {}
    return {
        "origin": _origin(facts, main),
        "authorized_by": _authorized_by(facts, main),
        "policy": _policy(facts, main),
        "runtime": _runtime(facts, main),
        "dependencies": _dependencies(facts, main),
        "inherited": _inherited(facts, main),
        "controls": _controls(facts, main),
    }


def _answer(key: Key, says: dict[str, Any], rests_on: Sequence[Rest], unanswered: str = "") -> Answer:
    said = {name: value for name, value in says.items() if value not in ("", [], {}, None)}
    final = bool(rests_on) and all(rest.reached == "final" for rest in rests_on)
    return Answer(question=QUESTIONS[key], says=said, rests_on=list(rests_on), final=final, unanswered=unanswered)


def _origin(facts: _Facts, main: DecisionMade | Denied) -> Answer:
    if facts.intent is None:
        held = "its signature does not hold" if main.intent in facts.bodies else _NO_TEXT
        named = {"subject": main.subject} if isinstance(main, Denied) else {}
        return _answer("origin", named, [facts.rest(main)], held)
    intent, document = facts.intent.claims, facts.document(main.identity)
    says = {
        "subject": intent.subject,
        "asked": f'{intent.domain}/{intent.action} on {intent.resource.type}::"{intent.resource.id}"',
        "purpose": intent.purpose,
        "created": telling.when(intent.created_ms),
        "person": document.person if document is not None else "",
        "root": main.attested.root if isinstance(main, DecisionMade) else "",
    }
    rests = [facts.rest(main, facts.intent.id, "intent")]
    if document is None:
        return _answer("origin", says, rests, "whose key it is: no identity document that an issuer signed is held by whoever answered")
    return _answer("origin", says, [*rests, facts.rest(main, main.identity, "identity")])


def _authorized_by(facts: _Facts, main: DecisionMade | Denied) -> Answer:
    node = telling.node_of(main.origin)
    if isinstance(main, Denied):
        return _answer("authorized_by", {"denied": main.code, "by": node}, [facts.rest(main)], "nobody did")
    if not main.authorization:
        return _answer("authorized_by", {"denied": main.decision.code, "by": node}, [facts.rest(main)], "nobody did")
    says = {
        "governor": node,
        "region": main.attested.region,
        "authorization": main.authorization,
        "attested_by": facts.reach.of(main).attested_by,
        "approvals": [telling.approved(bytes(raw)) for raw in main.approvals],
        "at": telling.when(main.at_ms),
    }
    return _answer("authorized_by", says, [facts.rest(main, main.authorization, "authorization")])


def _policy(facts: _Facts, main: DecisionMade | Denied) -> Answer:
    if isinstance(main, Denied):
        return _answer("policy", {}, [facts.rest(main)], f"none was asked: it was denied before, with {main.code}")
    law = facts.law()
    says = {
        "epoch": main.attested.policy_epoch,
        "bundle": main.decision.bundle,
        "effect": main.decision.effect,
        "determining": main.decision.determining or ["none: that denies"],
        "activation": main.attested.activation,
        "engine": f"{main.decision.profile}, build {main.engine}",
    }
    rests = [facts.rest(main), facts.rest(main, main.attested.manifest, "policy")]
    return _answer("policy", says, rests, "" if law is not None else "who signed it: no member shows its manifest")


def _runtime(facts: _Facts, main: DecisionMade | Denied) -> Answer:
    if facts.permit is None:
        return _answer("runtime", {}, [facts.rest(main)], "none: nothing was authorized")
    begun = next((item for item in facts.outcomes() if isinstance(item[1].event, Started)), None)
    place = facts.document(facts.permit.enforcer)
    says: dict[str, Any] = {
        "enforcer": place.subject if place is not None else "",
        "class": facts.permit.attested.enforcer_class,
        "person": place.person if place is not None else "",
        "boot": facts.intent.claims.audience.boot if facts.intent is not None else "",
        "measured": [f"{item.name} {item.digest}" for item in facts.intent.claims.measurements] if facts.intent is not None else [],
        "started": telling.when(begun[1].at_ms) if begun is not None else "",
    }
    rests = [facts.rest(facts.permit, facts.permit.enforcer, "identity")]
    if begun is None:
        return _answer("runtime", says, rests, "that it ran: no start of it by the enforcer it was meant for is recorded")
    return _answer("runtime", says, [*rests, facts.rest(begun[0], begun[0].outcome, "outcome")])


def _dependencies(facts: _Facts, main: DecisionMade | Denied) -> Answer:
    if isinstance(main, Denied):
        return _asked_only("dependencies", facts, main)
    skipped = 1 if main.attested.delegation_depth else 0
    named = [envelope.read(Authorization, bytes(paper.authorization)) for paper in main.parents[skipped:]]
    after = [_named(said) for said in named]
    rests = [facts.rest(main), *(facts.rest(main, said.id, "authorization") for said in named)]
    return _answer("dependencies", {"after": after or ["nothing: it names no execution whose result it uses"]}, rests)


def _inherited(facts: _Facts, main: DecisionMade | Denied) -> Answer:
    if isinstance(main, Denied):
        return _asked_only("inherited", facts, main)
    depth = main.attested.delegation_depth
    within = envelope.read(Authorization, bytes(main.parents[0].authorization)) if depth else None
    says = {
        "within": _named(within) if within is not None else "nothing: it stands alone",
        "depth": depth,
        "root": main.attested.root,
        "roster_epoch": main.roster_epoch,
        "policy_epoch": main.attested.policy_epoch,
        "frontier": main.attested.frontier,
    }
    return _answer("inherited", says, [facts.rest(main), *([facts.rest(main, within.id, "authorization")] if within is not None else [])])


def _named(said: Statement[Authorization]) -> str:
    return f"{said.claims.subject} {said.claims.domain}/{said.claims.action} {said.id}"


def _asked_only(key: Key, facts: _Facts, main: Denied) -> Answer:
    """Of what was denied without a decision only the intent says what it would have had; nobody has looked at it."""
    if facts.intent is None:
        return _answer(key, {}, [facts.rest(main)], _NO_TEXT)
    intent = facts.intent.claims
    named = [item.authorization for item in intent.after] if key == "dependencies" else intent.within
    says = {"asked": named or ["nothing"]}
    return _answer(key, says, [facts.rest(main, facts.intent.id, "intent")], "whether that was so: it was denied before anybody looked")


def _controls(facts: _Facts, main: DecisionMade | Denied) -> Answer:
    if isinstance(main, Denied):
        return _answer("controls", {"denied": f"{main.code} {main.detail}".rstrip()}, [facts.rest(main)])
    rests, law = [facts.rest(main)], facts.law()
    says: dict[str, Any] = {
        "assurance": main.decision.assurance,
        "obligations": main.decision.obligations,
        "approvals_needed": main.decision.needs,
        "breakglass": "BREAK-GLASS" if main.attested.breakglass else "",
    }
    if law is not None and facts.intent is not None and facts.permit is not None:
        terms = law.manifest.terms(facts.intent.claims.action)
        says["authorization_until"] = telling.when(min(main.at_ms + terms.authorization_ms, facts.intent.claims.expires_ms))
        says["lease_ms"] = terms.lease_ms
    unanswered = ""
    if facts.permit is not None:
        unanswered = "what was checked at the start: none is recorded"
        for record, said in facts.outcomes():
            if isinstance(said.event, Started):
                says["checks"] = {check.name: "passed" if check.passed else "FAILED" for check in said.event.checks}
                unanswered = ""
            elif isinstance(said.event, Blocked):
                says["blocked"], unanswered = f"{said.event.code} {said.event.detail}".rstrip(), ""
            else:
                says["ended"] = record.event
            rests.append(facts.rest(record, record.outcome, "outcome"))
    return _answer("controls", says, rests, unanswered)
