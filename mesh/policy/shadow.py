"""Before a policy is signed: what it would have said to what was really asked, decision by decision.

Rules
-----
1. The candidate is asked the recorded question again, at the recorded time, in the recorded region and frontier, with the
   recorded statements; only the law is another. It is asked by the procedure that governors decide by.
2. A *flip* has another effect. A *change* has the same effect, but other policies determined it, other errors were met, other
   obligations or another assurance came of it.
3. What the candidate cannot be asked any more (its action is gone, its parameters or entities are others) is *unanswerable*, with the
   code with which a governor would deny it: a denial, whatever was recorded.
4. What cannot be asked again by anybody here (a statement or an opening is not held, or was spoilt on its way) is *skipped*.
5. Denials without a decision are not asked again, since no policy had a say in them; they are counted.
6. Tables are bounded: of each kind the first :data:`ROWS_MAX` are kept, and :data:`GROUPS_MAX` groups are told apart; all are counted.

Not here: where records come from and whether they are believed (:mod:`mesh.cli.recorded`), admission of the candidate
(:mod:`mesh.policy.admission`), who signs it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from mesh.core.bytes import envelope
from mesh.core.law.activation import Activation, Ring, Rollout, activate_stream
from mesh.core.law.governance import Governance, Law
from mesh.core.law.policy import Bundle, Manifest, Terms, policy_stream
from mesh.core.log.record import DecisionMade, Denied
from mesh.core.run.decision import Decision, Effect
from mesh.core.run.intent import Assurance, Intent
from mesh.core.run.params import Opening
from mesh.errors import MeshError, Refused
from mesh.limits import CLOCK_MS_MAX
from mesh.protocol import decide
from mesh.protocol.documents import Documents
from mesh.protocol.examine import Question, authenticate, question
from mesh.protocol.serving import body_ids

__all__ = [
    "Candidate",
    "Found",
    "Judged",
    "Kind",
    "Recorded",
    "Said",
    "Table",
    "Turn",
    "candidate",
    "denials",
    "replay",
    "table",
    "turn_of",
]

ROWS_MAX: Final = 5_000
"""Kept rows of each kind: whoever has more reads the groups."""
GROUPS_MAX: Final = 500
"""Groups of each kind that are told apart."""
_DETAIL_CHARS: Final = 200
_NOT_THE_POLICY: Final = frozenset(
    {"identity_expired", "identity_mismatch", "intent_expired", "intent_too_long", "opening_mismatch", "seal_mismatch"}
)
"""Of what the procedure can refuse once the sender is known, what no policy could change: it is the evidence that does not do."""

Kind = Literal["same", "flip", "change", "unanswerable", "skipped", "elsewhere"]


class Recorded(msgspec.Struct, frozen=True):
    """A decision and what came with it."""

    record: DecisionMade
    bodies: Mapping[str, bytes]
    """Statement id to envelope, as :func:`mesh.protocol.proving.by_id` gives them; others may be among them."""
    openings: Sequence[Opening]
    """Of its intent's committed parameters; none if they are not held."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that nobody signed yet, in force everywhere and always."""

    law: Law
    governance: Governance
    """The state in which it is the only law of its domain."""
    others: frozenset[str]
    """Ids of other domains' manifests: what was decided under one of them is not about this domain."""


class Said(msgspec.Struct, frozen=True):
    """What of a decision can be compared between two policies."""

    effect: Effect
    determining: tuple[str, ...]
    errors: tuple[str, ...]
    obligations: tuple[str, ...]
    assurance: Assurance


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded decision, and what the candidate makes of it."""

    kind: Kind
    origin: str
    index: int
    at_ms: int
    recorded: Said
    now: Said | None = None
    """What the candidate says, if it could be asked."""
    changed: tuple[str, ...] = ()
    """Which members of :class:`Said` differ."""
    code: str = ""
    """Why it could not be asked; empty if it could."""
    detail: str = ""
    subject: str = ""
    """With action and resource: empty if the intent is not held."""
    action: str = ""
    resource: str = ""


class Turn(msgspec.Struct, frozen=True):
    """From which policies to which: what rows are grouped by."""

    effect: str
    determining: tuple[str, ...]
    now_effect: str
    """Empty if the candidate could not be asked."""
    now_determining: tuple[str, ...]
    code: str
    changed: tuple[str, ...]


class Found(msgspec.Struct, frozen=True):
    """All of one kind."""

    count: int = 0
    rows: tuple[Judged, ...] = ()
    groups: Mapping[Turn, int] = {}

    def merge(self, after: "Found") -> "Found":
        """These, and those after them."""
        groups = dict(self.groups)
        for turn, count in after.groups.items():
            if turn in groups or len(groups) < GROUPS_MAX:
                groups[turn] = groups.get(turn, 0) + count
        return Found(self.count + after.count, (*self.rows, *after.rows)[:ROWS_MAX], groups)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate makes of many decisions."""

    same: int = 0
    flips: Found = Found()
    changes: Found = Found()
    unanswerable: Found = Found()
    skipped: Mapping[str, int] = {}
    """Code to how many."""
    elsewhere: int = 0
    """Decisions about other domains."""
    denied: Mapping[str, int] = {}
    """Denials without a decision, by code; of those whose intent is not held, all domains'."""

    @property
    def replayed(self) -> int:
        """Decisions to which the candidate has an answer."""
        return self.same + self.flips.count + self.changes.count

    @property
    def decisions(self) -> int:
        """Decisions about this domain, as far as that is known."""
        return self.replayed + self.unanswerable.count + sum(self.skipped.values())

    def merge(self, after: "Table") -> "Table":
        """This table and one of records that come after its own."""
        return Table(
            same=self.same + after.same,
            flips=self.flips.merge(after.flips),
            changes=self.changes.merge(after.changes),
            unanswerable=self.unanswerable.merge(after.unanswerable),
            skipped=_sum(self.skipped, after.skipped),
            elsewhere=self.elsewhere + after.elsewhere,
            denied=_sum(self.denied, after.denied),
        )


def candidate(governance: Governance, bundle: Bundle, digest: str, *, actions: Mapping[str, Terms], enforcers: Sequence[str]) -> Candidate:
    """The candidate as the next epoch of its domain.

    Args:
        governance: whose roster says who may issue identities; its laws name the domains of recorded decisions.
        bundle: what would decide; whoever replays has admitted it and loaded it under ``digest``.
        digest: of the bundle.
        actions: per action, on which terms.
        enforcers: whom its authorizations may name.
    """
    epochs = governance.laws.get(bundle.domain, ())
    manifest = Manifest(
        mesh=governance.roster.mesh,
        domain=bundle.domain,
        epoch=max((law.manifest.epoch for law in epochs), default=0) + 1,
        previous=epochs[-1].manifest_id if epochs else "",
        since=governance.rosters.since(policy_stream(bundle.domain)),
        digest=digest,
        actions=dict(actions),
        enforcers=sorted(enforcers),
        not_before_ms=0,
        expires_ms=CLOCK_MS_MAX,
        reason="",
        issued_ms=0,
    )
    law = Law(manifest=manifest, manifest_id=envelope.draft(manifest).id, bundle=bundle)
    begun = Activation(
        mesh=manifest.mesh,
        domain=manifest.domain,
        sequence=1,
        previous="",
        since=governance.rosters.since(activate_stream(bundle.domain)),
        epoch=manifest.epoch,
        manifest=law.manifest_id,
        rings=[Ring(regions=[], not_before_ms=0)],
        reason="",
        issued_ms=0,
    )
    state = msgspec.structs.replace(
        governance,
        laws={**governance.laws, bundle.domain: (law,)},
        rollouts={**governance.rollouts, bundle.domain: Rollout.of([envelope.draft(begun).id], [begun])},
    )
    others = frozenset(law.manifest_id for domain, laws in governance.laws.items() if domain != bundle.domain for law in laws)
    return Candidate(law=law, governance=state, others=others)


def replay(recorded: Sequence[Recorded], candidate: Candidate, *, documents: Documents, engine: decide.Engine) -> list[Judged]:
    """What ``candidate`` makes of each of these decisions, in their order; ``engine`` must hold its bundle."""
    asked = [_ask(item, candidate, documents) for item in recorded]
    open_ = [item for item in asked if isinstance(item, Question)]
    verdicts = iter(engine.evaluate(candidate.law.manifest.digest, [item.request for item in open_]) if open_ else ())
    judged: list[Judged] = []
    for item, one in zip(recorded, asked, strict=True):
        if isinstance(one, Judged):
            judged.append(one)
            continue
        verdict, intent = next(verdicts), one.intent.claims
        if verdict is None:
            judged.append(_judged(item.record, "unanswerable", intent, code="engine_unavailable"))
            continue
        try:
            now = decide.conclude(one.request, verdict, intent, one.law, profile=engine.profile)
        except MeshError as error:
            judged.append(_judged(item.record, "unanswerable", intent, code=error.code, detail=error.detail))
        else:
            judged.append(_compared(item.record, intent, _said(now)))
    return judged


def denials(records: Iterable[tuple[Denied, Mapping[str, bytes]]], candidate: Candidate) -> dict[str, int]:
    """How often, by code, no decision was made about an intent of the candidate's domain, or about one that is not held."""
    counts: dict[str, int] = {}
    for record, bodies in records:
        intent = _intent(record.intent, bodies)
        if intent is None or intent.domain == candidate.law.manifest.domain:
            counts[record.code] = counts.get(record.code, 0) + 1
    return counts


def table(judged: Iterable[Judged], denied: Mapping[str, int] | None = None) -> Table:
    """These in a table, with ``denied`` as :func:`denials` counts them."""
    by_kind: dict[Kind, list[Judged]] = {}
    for row in judged:
        by_kind.setdefault(row.kind, []).append(row)
    return Table(
        same=len(by_kind.get("same", ())),
        flips=_found(by_kind.get("flip", ())),
        changes=_found(by_kind.get("change", ())),
        unanswerable=_found(by_kind.get("unanswerable", ())),
        skipped=_counted(row.code for row in by_kind.get("skipped", ())),
        elsewhere=len(by_kind.get("elsewhere", ())),
        denied=dict(sorted((denied or {}).items())),
    )


def turn_of(row: Judged) -> Turn:
    """The group that a row belongs to."""
    before, now = row.recorded, row.now
    return Turn(before.effect, before.determining, now.effect if now else "", now.determining if now else (), row.code, row.changed)


def _ask(item: Recorded, candidate: Candidate, documents: Documents) -> Question | Judged:
    """The question to put to the candidate, or why there is none."""
    record, bodies = item.record, item.bodies
    intent = _intent(record.intent, bodies)
    if record.attested.manifest in candidate.others or (intent is not None and intent.domain != candidate.law.manifest.domain):
        return _judged(record, "elsewhere", intent)
    missing = [name for name in body_ids(record) if name not in bodies]
    if missing or intent is None:
        what = missing[0] if missing else record.intent
        return _judged(record, "skipped", intent, code="body_missing", detail=f"the statement {what[:12]}…")
    try:
        sender = authenticate(bodies[record.intent], bodies[record.identity], candidate.governance, documents)
        documents.admit(bodies[record.enforcer], candidate.governance)
    except Refused as refusal:
        return _judged(record, "skipped", intent, code=refusal.code, detail=refusal.detail)
    facts = record.attested
    try:
        return question(
            sender,
            bodies[record.enforcer],
            item.openings,
            candidate.governance,
            documents,
            region=facts.region,
            at_ms=record.at_ms,
            frontier=facts.frontier,
            approvals=[bytes(raw) for raw in record.approvals],
            parents=record.parents,
        )
    except MeshError as error:
        kind: Kind = "skipped" if error.code in _NOT_THE_POLICY else "unanswerable"
        return _judged(record, kind, intent, code=error.code, detail=error.detail)


def _intent(name: str, bodies: Mapping[str, bytes]) -> Intent | None:
    """What the intent says, if it is here; who signed it is another matter."""
    if name not in bodies:
        return None
    try:
        return envelope.read(Intent, bodies[name]).claims
    except Refused:
        return None


def _said(decision: Decision) -> Said:
    return Said(decision.effect, tuple(decision.determining), tuple(decision.errors), tuple(decision.obligations), decision.assurance)


def _compared(record: DecisionMade, intent: Intent, now: Said) -> Judged:
    before = _said(record.decision)
    changed = tuple(name for name in Said.__struct_fields__ if getattr(before, name) != getattr(now, name))
    kind: Kind = "flip" if "effect" in changed else "change" if changed else "same"
    return msgspec.structs.replace(_judged(record, kind, intent), now=now, changed=changed)


def _judged(record: DecisionMade, kind: Kind, intent: Intent | None, *, code: str = "", detail: str = "") -> Judged:
    return Judged(
        kind=kind,
        origin=record.origin,
        index=record.index,
        at_ms=record.at_ms,
        recorded=_said(record.decision),
        code=code,
        detail=detail[:_DETAIL_CHARS],
        subject=intent.subject if intent else "",
        action=f"{intent.domain}/{intent.action}" if intent else "",
        resource=f'{intent.resource.type}::"{intent.resource.id}"' if intent else "",
    )


def _found(rows: Sequence[Judged]) -> Found:
    groups: dict[Turn, int] = {}
    for row in rows:
        turn = turn_of(row)
        if turn in groups or len(groups) < GROUPS_MAX:
            groups[turn] = groups.get(turn, 0) + 1
    return Found(len(rows), tuple(rows[:ROWS_MAX]), groups)


def _counted(codes: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code in codes:
        counts[code] = counts.get(code, 0) + 1
    return dict(sorted(counts.items()))


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {code: one.get(code, 0) + other.get(code, 0) for code in sorted({*one, *other})}
