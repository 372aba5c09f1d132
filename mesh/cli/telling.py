"""Records in words: one line for a list, a story for an execution, plain values for programs. The same facts in each.

Not here: asking for them (:mod:`mesh.cli.client`), printing them (:mod:`mesh.cli.output`).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from mesh.cli.naming import node_of
from mesh.codes import CODES
from mesh.core.bytes import envelope
from mesh.core.law.governance import Basis, Governance
from mesh.core.log.record import (
    AttestRefused,
    Cosigned,
    DecisionMade,
    Denied,
    EnforcerHeard,
    GovernanceChanged,
    Incident,
    Noise,
    OutcomeRecorded,
    Record,
)
from mesh.core.messages import Proved
from mesh.core.run.approval import BreakGlass, read_said
from mesh.core.run.authorization import Authorization
from mesh.core.run.heard import Heard
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Aborted, Blocked, Failed, Finished, Outcome, Started, Unknown
from mesh.errors import Refused
from mesh.protocol.belonging import belongs
from mesh.protocol.proving import bodies_of, record_of

if TYPE_CHECKING:
    from mesh.cli.reaching import Reach

__all__ = ["Story", "approved", "kind_of_record", "node_of", "sealed", "statements", "told", "when", "words"]


def when(ms: int) -> str:
    """A time in ms since the epoch as people write it, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def kind_of_record(record: Record) -> str:
    """The word that a record begins with."""
    return str(record.__struct_config__.tag)


def told(record: Record) -> str:
    """A record in one line."""
    match record:
        case DecisionMade(decision=decision):
            errors = f", errors: {', '.join(decision.errors)}" if decision.errors else ""
            needs = f", approval needed: {', '.join(decision.needs)}" if decision.needs else ""
            glass = ", BREAK-GLASS" if record.attested.breakglass else ""
            return f"{decision.effect} by {', '.join(decision.determining) or 'default'}{errors}{needs}{glass}"
        case Denied(code=code, detail=detail):
            return f"denied: {code}" + (f" ({detail})" if detail else "")
        case OutcomeRecorded(event=event):
            return event
        case EnforcerHeard(subject=subject):
            return subject
        case Noise(code=code, count=count):
            return f"{count} refused: {code}"
        case GovernanceChanged(change=change, about=about):
            return f"{change} {about}".rstrip()
        case AttestRefused(refusal=refusal):
            return f"will not attest {node_of(refusal.origin)}/{refusal.index}: {refusal.reason}, {refusal.code}"
        case Incident(code=code, detail=detail):
            return f"{code}: {detail}"
        case Cosigned(heads=heads):
            return ", ".join(f"{node_of(head.origin)} up to {head.size}" for head in heads)


def statements(answer: Proved) -> list[dict[str, Any]]:
    """The statements that came with a record, opened."""
    opened: list[dict[str, Any]] = []
    for identity, data in bodies_of(answer).items():
        for payload in (Intent, Identity, Outcome, Heard):
            kind = envelope.kind_of(payload)
            if envelope.identify(data)[0] == kind.payload_type:
                statement = envelope.read(payload, data)
                signed_by = sorted(key for key in statement.signatures if statement.signed_by(key))
                opened.append({"id": identity, "kind": kind.name, "signed_by": signed_by, "says": json.loads(statement.payload)})
    return opened


def sealed(answer: Proved) -> list[dict[str, Any]]:
    """Which parameters of the intent behind a record are sealed, for whom, and whether their boxes came with it."""
    found = list[dict[str, Any]]()
    here = {(box.name, box.auditor) for item in answer.batch.openings for box in item.boxes}
    for data in bodies_of(answer).values():
        if envelope.identify(data)[0] == envelope.kind_of(Intent).payload_type:
            for name, seals in sorted(envelope.read(Intent, data).claims.sealed.items()):
                found += [
                    {"parameter": name, "auditor": seal.auditor, "key": seal.key, "box": seal.box, "held": (name, seal.auditor) in here}
                    for seal in seals
                ]
    return found


class Story:
    """One execution: each stage with where it is recorded, and whether that is final."""

    def __init__(self, answers: Sequence[Proved], reach: "Reach", governance: Governance) -> None:
        """Tell what ``answers`` say, oldest first; ``reach`` says how far their records have come."""
        self._governance = governance
        self._reach = reach
        self._bodies: dict[str, bytes] = {}
        for answer in answers:
            self._bodies.update(bodies_of(answer))
        self.stages: list[dict[str, Any]] = []
        records = [record_of(answer) for answer in answers]
        self._intent(records)
        for record in records:
            self._stage(record)
        self._loose_end(records)

    def lines(self) -> list[str]:
        """For people."""
        lines: list[str] = []
        for stage in self.stages:
            head = [stage["what"]]
            if "record" in stage:
                by = ", ".join(stage["attested_by"])
                head += [f"{stage['record']} at {stage['at']}, " + (f"final: attested by {by}" if by else "not final yet")]
            head += [f"{name}: {words(value)}" for name, value in stage.items() if name not in _SHOWN and value not in ("", [], {})]
            lines += [f"{(stage['stage'] if at == 0 else '').ljust(14)} {line}" for at, line in enumerate(head)]
        return lines

    def _intent(self, records: Sequence[Record]) -> None:
        intent = next((record.intent for record in records if isinstance(record, DecisionMade | Denied | OutcomeRecorded)), "")
        body = self._bodies.get(intent)
        if not intent:
            return
        if body is None:
            self.stages.append({"stage": "intent", "id": intent, "what": "its text is not held by whoever answered"})
            return
        said = envelope.read(Intent, body).claims
        hidden = dict.fromkeys(said.committed, "(committed)")
        hidden |= {name: f"(sealed for {', '.join(seal.auditor for seal in seals)})" for name, seals in said.sealed.items()}
        self.stages.append(
            {
                "stage": "intent",
                "id": intent,
                "what": f'{said.subject} asks for {said.domain}/{said.action} on {said.resource.type}::"{said.resource.id}"',
                "params": {**said.params, **hidden},
                "purpose": said.purpose,
                "measured": [f"{item.name} {item.digest}" for item in said.measurements],
                "enforcer": said.audience.enforcer[:16] + "…",
                "created": when(said.created_ms),
                "expires": when(said.expires_ms),
            }
        )

    def _stage(self, record: Record) -> None:
        standing = self._reach.of(record)
        stage: dict[str, Any] = {
            "stage": kind_of_record(record),
            "what": told(record),
            "record": self._reach.name(record),
            "at": when(record.at_ms),
            "reached": standing.reached,
            "stages": standing.told,
            "attested_by": standing.attested_by,
            "witnessed_by": standing.witnessed_by,
        }
        match record:
            case DecisionMade():
                self.stages.append(stage | self._decision(record))
                if record.authorization:
                    self.stages.append(self._authorization(record))
            case Denied(code=code):
                entry = CODES.get(code)
                self.stages.append(stage | ({"meaning": entry.meaning, "fix": entry.fix} if entry else {}))
            case OutcomeRecorded(event=event, outcome=outcome):
                whose = "" if self._belongs(record) else "by another enforcer or boot than the intent is meant for: "
                self.stages.append(stage | {"stage": event, "id": outcome, "what": whose + self._outcome(outcome)})
            case _:
                self.stages.append(stage)

    def _decision(self, record: DecisionMade) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "policy": f"epoch {record.attested.policy_epoch}, {record.decision.bundle}",
            "assurance": record.decision.assurance,
            "obligations": record.decision.obligations,
            "decided in": f"{record.attested.region}, as of roster epoch {record.roster_epoch}",
            "person": record.attested.person,
            "approvals": [approved(bytes(raw)) for raw in record.approvals],
            "parents": _parents(record),
            "root": record.attested.root if record.attested.delegation_depth else "",
            "engine": record.engine,
        }
        for epochs in self._governance.laws.values():
            for law in epochs:
                if law.manifest.digest == record.decision.bundle and law.bundle is not None:
                    wanted = [policy for policy in law.bundle.policies if policy.id in record.decision.determining]
                    facts["annotations"] = [
                        f"{policy.id} @{name}({text})" for policy in wanted for name, text in policy.annotations.items()
                    ]
        return facts

    def _authorization(self, record: DecisionMade) -> dict[str, Any]:
        stage: dict[str, Any] = {"stage": "authorization", "id": record.authorization, "what": "issued for one use"}
        body = self._bodies.get(record.intent)
        if body is not None:
            intent = envelope.read(Intent, body).claims
            try:
                basis = Basis(record.attested.manifest, record.attested.activation)
                law = self._governance.active(intent.domain, record.attested.region, record.at_ms, basis)
                terms = law.manifest.terms(intent.action)
            except Refused:
                return stage  # decided under a law that this context does not know
            stage["until"] = when(min(record.at_ms + terms.authorization_ms, intent.expires_ms))
            stage["lease"] = f"{terms.lease_ms} ms"
        return stage

    def _outcome(self, identity: str) -> str:
        body = self._bodies.get(identity)
        if body is None:
            return "its text is not held by whoever answered"
        event = envelope.read(Outcome, body).claims.event
        match event:
            case Started(checks=checks, spend=spend):
                passed = sum(check.passed for check in checks)
                return f"{passed} of {len(checks)} checks passed, spend number {spend}"
            case Finished(status=status, duration_ms=duration_ms):
                return f"status {status} after {duration_ms} ms"
            case Failed(status=status, error=error, duration_ms=duration_ms):
                return f"{error}, status {status} after {duration_ms} ms"
            case Blocked(code=code, detail=detail):
                return f"not started: {code} {detail}".rstrip()
            case Aborted(code=code, duration_ms=duration_ms):
                return f"ended by the enforcer after {duration_ms} ms: {code}"
            case Unknown(boot=boot):
                return f"started by boot {boot[:12]}… of its enforcer, which left no end"

    def _belongs(self, record: OutcomeRecorded) -> bool:
        held = record.intent in self._bodies and record.outcome in self._bodies
        return not held or belongs(record, self._bodies)

    def _loose_end(self, records: Sequence[Record]) -> None:
        permits = {record.authorization for record in records if isinstance(record, DecisionMade)} - {""}
        ended = {record.authorization for record in records if isinstance(record, OutcomeRecorded) and self._belongs(record)}
        if permits - ended:
            self.stages.append({"stage": "outcome", "what": "none recorded: it was not run, or its enforcer has not reported yet"})


def _parents(record: DecisionMade) -> list[str]:
    """As the papers in the record say it."""
    within, told_ = record.attested.delegation_depth > 0, list[str]()
    for at, paper in enumerate(record.parents):
        authorization = envelope.read(Authorization, bytes(paper.authorization))
        claims = authorization.claims
        how = f"within (depth {record.attested.delegation_depth})" if within and at == 0 else "after"
        consent = ", countersigned by its holder" if paper.countersignature else ""
        told_.append(f"{how} {claims.subject} {claims.domain}/{claims.action} {authorization.id[:12]}{consent}")
    return told_


def approved(data: bytes) -> str:
    """An approval or a grant in one line."""
    said = read_said(data)
    claims, keys = said.claims, ", ".join(f"{key[:12]}…" for key in sorted(said.signatures))
    what = "BREAK-GLASS granted" if isinstance(claims, BreakGlass) else "approved"
    return f'{what} by {claims.group} ({keys}): "{claims.reason}", {claims.uses} uses until {when(claims.expires_ms)}, {said.id[:12]}'


_SHOWN = frozenset({"stage", "what", "record", "at", "attested_by", "witnessed_by", "reached"})


def words(value: object) -> str:
    """A value in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={item}" for name, item in cast("Mapping[str, object]", value).items())
    return ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)
