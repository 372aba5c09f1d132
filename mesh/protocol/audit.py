"""An auditor believes nobody: it follows every log, repeats every decision, recomputes every root, and says what it found.

Rules
-----
1. Records are staged as they come, in order, and examined at once, by the same procedure as attesters use. They count only when
   a checkpoint signed by the log's own key has the root that they lead to: what was injected on the way is thrown away.
2. A record is final when k distinct members attested a checkpoint over it; the lines are verified here.
3. Every decision is a *match*, a *mismatch*, or *unverifiable*: its openings were erased, or the engine cannot say. The last
   is never a finding.
4. A finding is what must not be: a record that is not what it must be, an outcome by another enforcer than the intent is meant
   for (as far as both came in one run), two histories of one log, an incident, a refusal to attest. Findings are kept for ever;
   following goes on.
5. What is missing is asked for, from the owner first, then from each other member; at most one pull per log at a time. What k
   members answered that they do not have is judged without it.
6. The position is small and says everything that starting again needs; what was staged is fetched again.

Not here: how records travel (:mod:`mesh.roles.auditor`), alarms that need all logs at once.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Count, Hex32, Millis, Name, Payload, Text, Token
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import Checkpoint, log_verifier, open_checkpoint, read_checkpoint
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import AttestRefused, DecisionMade, Incident, Origin, OutcomeRecorded
from mesh.core.messages import LineageBatch, unpack
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from mesh.errors import Refused
from mesh.limits import MEMBERS_MAX
from mesh.protocol import decide
from mesh.protocol.attester import Examined, Material, examine_records
from mesh.protocol.belonging import Misfit, Pairs, Said, meant_by
from mesh.protocol.documents import Documents
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.proving import by_id
from mesh.protocol.step import Ask, Step

__all__ = ["Audit", "AuditEvent", "AuditPosition", "AuditState", "Finding", "Followed", "LogPosition", "PullFailed", "Tally", "tally"]

FINDINGS_MAX: Final = 1_000
"""Kept findings; beyond, they are only counted: whoever has a thousand needs no more."""
_PULL_MS: Final = 300
_STAGED_MAX: Final = 4_096
_NOTES_MAX: Final = 64
_UNVERIFIABLE: Final = frozenset({"body_missing", "engine_unavailable", "policy_unknown"})
_LATER: Final = frozenset({"clock_unsure", "policy_unknown"})
"""What time will tell: it is my clock or the owner's, or a policy that I have not heard of yet; whoever attested has."""


class Finding(Payload):
    """Something that must not be."""

    code: Name
    origin: Origin
    index: Count
    """Of the record; for a checkpoint, its size."""
    detail: Text


class LogPosition(Payload):
    """How far one log was followed."""

    origin: Origin
    size: Count
    """Records settled under a checkpoint of the log's own key."""
    hashes: Annotated[list[Hex32], msgspec.Meta(max_length=64)]
    """Of its frontier at that size."""
    last_ms: Millis
    certified: Count
    """Of these, final."""
    match: Count
    mismatch: Count
    unverifiable: Count
    breakglass: Count


class AuditPosition(Payload):
    """All that an auditor must not forget."""

    mesh: Token
    roster: Hex32
    """Statement id of the roster it follows by."""
    logs: Annotated[list[LogPosition], msgspec.Meta(max_length=MEMBERS_MAX)]
    findings: Annotated[list[Finding], msgspec.Meta(max_length=FINDINGS_MAX)]
    found: Count
    """How many there were, kept or not."""


class Followed(msgspec.Struct, frozen=True):
    """One log."""

    origin: str
    frontier: Frontier
    last_ms: int
    certified: int
    match: int
    mismatch: int
    unverifiable: int
    breakglass: int
    """Decisions with a broken glass: lawful, and for people to look at."""
    staged: tuple[Examined, ...] = ()
    notes: Mapping[int, bytes] = {}
    """Size to a note that the log signed, beyond what is settled."""
    roots: Mapping[int, bytes] = {}
    """Settled sizes that are not final yet, and their roots."""
    goal: int = 0
    """The largest size of a certificate seen."""
    wanted: int = 0
    """How many records there must be."""
    asking: str = ""
    """The member whose answer is awaited."""
    asked_ms: int = 0
    turn: int = 0
    """Whose turn it is to be asked: it passes on with each pull that did not help."""
    fruitless: int = 0
    """Pulls in a row that did not help."""
    without: frozenset[str] = frozenset()
    """Members that have answered since something last helped, and could not."""

    @property
    def held(self) -> int:
        """Records settled or staged."""
        return self.frontier.size + len(self.staged)

    @property
    def lacks_policy(self) -> bool:
        """Whether something was decided by a policy that this auditor has not heard of."""
        return any(item.code == "policy_unknown" for item in self.staged)

    @property
    def caught_up(self) -> bool:
        """Whether everything that is known to be final was settled."""
        return self.certified >= self.goal

    @property
    def ready(self) -> int:
        """Index of the first record that is not here, or could not be judged for lack of something."""
        return next((self.frontier.size + offset for offset, item in enumerate(self.staged) if item.incomplete), self.held)


class AuditState(msgspec.Struct, frozen=True):
    """All that an auditor knows."""

    logs: Mapping[str, Followed]
    findings: tuple[Finding, ...]
    found: int
    garbage: int
    """Messages that were none; anyone on the bus can send them."""
    pairs: Pairs = Pairs()
    """Permits and outcomes of this run, until their other half comes."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor has judged, in numbers."""

    records: int
    final: int
    match: int
    """Decisions that a repetition gives again."""
    mismatch: int
    unverifiable: int
    breakglass: int
    findings: int
    garbage: int


class PullFailed(msgspec.Struct, frozen=True):
    """A member did not answer a pull."""

    origin: str


AuditEvent = LineageArrived | NoteArrived | PullFailed | Tick


class Audit:
    """An auditor's pure step function."""

    def __init__(self, governance: Governance, engine: decide.Engine) -> None:
        """Audit by ``governance``. What was decided by a law without its bundle, which the engine must hold, has to wait.

        ``governance`` may be replaced between steps, by one that knows more.
        """
        self.governance = governance
        self.roster = governance.roster
        self.engine = engine
        self.documents = Documents()

    def begin(self, position: AuditPosition | None) -> AuditState:
        """The state to start from: a kept position, or nothing.

        Raises:
            Refused: ``wrong_mesh`` or ``wrong_epoch`` for the position of another mesh or roster, ``malformed`` for a broken one.
        """
        kept = {} if position is None else {log.origin: log for log in position.logs}
        if position is not None and position.mesh != self.roster.mesh:
            raise Refused("wrong_mesh", position.mesh)
        if position is not None and position.roster != self.governance.roster_id:
            raise Refused("wrong_epoch", f"the position was kept under the roster {position.roster[:12]}…")
        origins = [self.roster.origin(member) for member in self.roster.members]
        logs = {origin: _resumed(kept[origin]) if origin in kept else _fresh(origin) for origin in origins}
        return AuditState(logs, tuple(position.findings) if position else (), position.found if position else 0, 0)

    def position(self, state: AuditState) -> AuditPosition:
        """What to keep of a state."""
        logs = [
            LogPosition(
                origin=log.origin,
                size=log.frontier.size,
                hashes=[value.hex() for value in log.frontier.hashes],
                last_ms=log.last_ms,
                certified=log.certified,
                match=log.match,
                mismatch=log.mismatch,
                unverifiable=log.unverifiable,
                breakglass=log.breakglass,
            )
            for log in state.logs.values()
        ]
        return AuditPosition(
            mesh=self.roster.mesh, roster=self.governance.roster_id, logs=logs, findings=list(state.findings), found=state.found
        )

    def step(self, state: AuditState, events: Sequence[AuditEvent], *, now_ms: int) -> Step[AuditState]:
        """Fold a batch of events; the effects are pulls."""
        work = _Work(self, state, now_ms)
        for event in events:
            try:
                work.take(event)
            except Refused:
                work.garbage += 1
        return work.finish()


class _Work:
    """The working copy of one step."""

    def __init__(self, audit: Audit, state: AuditState, now_ms: int) -> None:
        self.audit = audit
        self.roster = audit.roster
        self.now_ms = now_ms
        self.logs = dict(state.logs)
        self.findings = list(state.findings)
        self.found = state.found
        self.garbage = state.garbage
        self.pairs = state.pairs
        self.asks: list[Ask] = []

    def take(self, event: AuditEvent) -> None:
        match event:
            case LineageArrived(data=data, pulled=pulled):
                self._batch(unpack(LineageBatch, data), pulled=pulled)
            case NoteArrived(data=data):
                self._note(data)
            case PullFailed(origin=origin):
                self._fruitless(self.logs[origin], answered=False)
            case Tick():
                for log in list(self.logs.values()):
                    self._pull(log)

    def finish(self) -> Step[AuditState]:
        return Step(AuditState(self.logs, tuple(self.findings), self.found, self.garbage, self.pairs), tuple(self.asks))

    # ------------------------------------------------------------------------------------------------------------ records

    def _batch(self, batch: LineageBatch, *, pulled: bool) -> None:
        owner = self.roster.owner(batch.origin)
        log = self.logs[batch.origin]
        before = log.ready
        try:
            self._adopt(self._stage(log, batch, owner))
            if batch.checkpoint:
                self._note(batch.checkpoint.encode())
        except Refused:
            self.garbage += 1
        self._settle(batch.origin)
        log = self.logs[batch.origin]
        if pulled and log.ready <= before:
            self._fruitless(log, answered=True)
        elif pulled:
            self._adopt(msgspec.structs.replace(log, asking="", fruitless=0, without=frozenset()))

    def _stage(self, log: Followed, batch: LineageBatch, owner: Member) -> Followed:
        """Examine what is next, and again what lacked something; a gap is remembered as wanted."""
        start = log.ready if batch.first <= log.ready < batch.first + len(batch.records) else log.held
        leaves = [bytes(raw) for raw in batch.records[max(start - batch.first, 0) :]]
        leaves = leaves[: log.frontier.size + _STAGED_MAX - start]
        if batch.first > start or not leaves:
            return msgspec.structs.replace(log, wanted=max(log.wanted, batch.first + len(batch.records)))
        kept = log.staged[: start - log.frontier.size]
        examined = self._examine(leaves, batch, owner, first=start, after_ms=kept[-1].record.at_ms if kept else log.last_ms)
        tail = log.staged[len(kept) + len(examined) :]
        return msgspec.structs.replace(log, staged=(*kept, *examined, *tail))

    def _examine(self, leaves: list[bytes], batch: LineageBatch, owner: Member, *, first: int, after_ms: int) -> list[Examined]:
        bodies = by_id(batch.bodies)
        openings = {item.intent: item.openings for item in batch.openings}
        return examine_records(
            leaves,
            Material(bodies, openings),
            owner=owner,
            first=first,
            after_ms=after_ms,
            governance=self.audit.governance,
            documents=self.audit.documents,
            engine=self.audit.engine,
            now_ms=self.now_ms,
        )

    # -------------------------------------------------------------------------------------------------------------- notes

    def _note(self, data: bytes) -> None:
        owner = self.roster.owner(read_checkpoint(data).origin)
        log = self.logs[self.roster.origin(owner)]
        verifier = log_verifier(log.origin, owner.log_key)
        checkpoint = open_checkpoint(data, verifier).checkpoint
        final = self._is_final(data, owner)
        if checkpoint.size <= log.frontier.size:
            self._compare(log, checkpoint, final=final)
            return
        known = log.notes.get(checkpoint.size)
        if known is not None and read_checkpoint(known).root != checkpoint.root:
            self._find("log_conflict", log.origin, checkpoint.size, "its key signed two roots at one size")
        if known is None or final:
            notes = dict(sorted({**log.notes, checkpoint.size: data}.items())[:_NOTES_MAX])
            log = msgspec.structs.replace(log, notes=notes, wanted=max(log.wanted, checkpoint.size))
        self._adopt(msgspec.structs.replace(log, goal=max(log.goal, checkpoint.size)) if final else log)
        self._settle(log.origin)

    def _is_final(self, note: bytes, owner: Member) -> bool:
        log = log_verifier(self.roster.origin(owner), owner.log_key)
        try:
            verify_certificate(note, log=log, attesters=self.roster.attest_keys(), k=self.roster.k)
        except Refused as refusal:
            if refusal.code == "not_final":
                return False
            raise
        return True

    def _compare(self, log: Followed, checkpoint: Checkpoint, *, final: bool) -> None:
        """A note about what is settled already."""
        size = checkpoint.size
        root = log.frontier.root() if size == log.frontier.size else log.roots.get(size)
        if root is None:
            return  # settled as part of something larger: the certificate over that decides
        if root != checkpoint.root:
            self._find("log_conflict", log.origin, size, "its key signed another root than the one that its records lead to")
        elif final and size > log.certified:
            roots = {other: value for other, value in log.roots.items() if other > size}
            self._adopt(msgspec.structs.replace(log, certified=size, goal=max(log.goal, size), roots=roots))

    # ------------------------------------------------------------------------------------------------------------- settle

    def _settle(self, origin: str) -> None:
        """Rule 1: count what a signed checkpoint covers, the nearest checkpoint first."""
        while notes := self.logs[origin].notes:
            log, size = self.logs[origin], min(notes)
            count = size - log.frontier.size
            gone = size <= log.goal and self._exhausted(log)  # who attested has held everything; before that it may still come
            early = any(item.code in _LATER for item in log.staged[:count])
            if log.held < size or early or (log.ready < size and not gone):
                return
            checkpoint = read_checkpoint(notes[size])
            items = log.staged[:count]
            frontier = log.frontier.extend(item.hash for item in items)
            if frontier.root() != checkpoint.root:
                if self._exhausted(log):
                    self._find("bad_proof", origin, size, "what members serve does not lead to the root that its key signed")
                self._adopt(msgspec.structs.replace(log, staged=()))
                return
            self._count(log, items, frontier, checkpoint)

    def _count(self, log: Followed, items: tuple[Examined, ...], frontier: Frontier, checkpoint: Checkpoint) -> None:
        note = log.notes[checkpoint.size]
        tally = {"match": log.match, "mismatch": log.mismatch, "unverifiable": log.unverifiable, "breakglass": log.breakglass}
        for offset, item in enumerate(items):
            self._judge(item, log.origin, log.frontier.size + offset, tally)
        self._adopt(
            msgspec.structs.replace(
                log,
                frontier=frontier,
                last_ms=max(log.last_ms, items[-1].record.at_ms),
                staged=log.staged[len(items) :],
                notes={size: data for size, data in log.notes.items() if size > checkpoint.size},
                roots={**log.roots, checkpoint.size: checkpoint.root},
                fruitless=0,
                without=frozenset(),
                **tally,
            )
        )
        self._compare(self.logs[log.origin], checkpoint, final=self._is_final(note, self.roster.owner(log.origin)))

    def _judge(self, item: Examined, origin: str, index: int, tally: dict[str, int]) -> None:
        record = item.record
        if isinstance(record, DecisionMade):
            verdict = "match" if not item.code else "unverifiable" if item.code in _UNVERIFIABLE else "mismatch"
            tally[verdict] += 1
            tally["breakglass"] += record.attested.breakglass
        if item.code and not _excused(item):
            self._find(item.code, origin, index, item.detail)
        if isinstance(record, Incident):
            self._find("record_invalid" if not record.code else record.code, origin, index, f"incident: {record.detail}")
        elif isinstance(record, AttestRefused) and record.refusal.reason == "wrong":
            said = record.refusal
            self._find(said.code, said.origin, said.index, f"{said.member} refuses to attest it")
        if not item.code:
            self._pair(item, origin, index)

    def _pair(self, item: Examined, origin: str, index: int) -> None:
        """Rule 4: an outcome by whom the intent is not meant for."""
        record = item.record
        bodies = {body.id: body.envelope for body in item.bodies}
        misfits: list[Misfit] = []
        if isinstance(record, DecisionMade) and record.authorization:
            self.pairs, misfits = self.pairs.permit(record.authorization, meant_by(envelope.read(Intent, bodies[record.intent])))
        elif isinstance(record, OutcomeRecorded):
            outcome = envelope.read(Outcome, bodies[record.outcome]).claims
            self.pairs, misfits = self.pairs.outcome(Said(outcome, origin, index))
        for misfit in misfits:
            self._find("record_invalid", misfit.origin, misfit.index, misfit.detail)

    # -------------------------------------------------------------------------------------------------------------- pulls

    def _pull(self, log: Followed) -> None:
        """Rule 5."""
        if log.asking or (log.fruitless and self.now_ms - log.asked_ms < _PULL_MS) or max(log.wanted, log.held) <= log.ready:
            return
        members = [self.roster.owner(log.origin).name, *(member.name for member in self.roster.members)]
        whom = list(dict.fromkeys(members))[log.turn % len(self.roster.members)]
        self.asks.append(Ask(whom, log.origin, log.ready))
        self._adopt(msgspec.structs.replace(log, asking=whom, asked_ms=self.now_ms))

    def _exhausted(self, log: Followed) -> bool:
        # k members hold whatever is final, and any two sets of k share an honest one. Silence says nothing.
        return len(log.without) >= self.roster.k

    def _fruitless(self, log: Followed, *, answered: bool) -> None:
        known = {log.asking} if answered and log.asking else set[str]()
        self._adopt(msgspec.structs.replace(log, asking="", turn=log.turn + 1, fruitless=log.fruitless + 1, without=log.without | known))
        self._settle(log.origin)

    # -------------------------------------------------------------------------------------------------------------- parts

    def _adopt(self, log: Followed) -> None:
        self.logs[log.origin] = log

    def _find(self, code: str, origin: str, index: int, detail: str) -> None:
        finding = Finding(code=code, origin=origin, index=index, detail=detail[:300])
        if finding in self.findings:
            return
        self.found += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)


def tally(state: AuditState) -> Tally:
    """The numbers of all logs together."""
    logs = state.logs.values()
    return Tally(
        records=sum(log.frontier.size for log in logs),
        final=sum(log.certified for log in logs),
        match=sum(log.match for log in logs),
        mismatch=sum(log.mismatch for log in logs),
        unverifiable=sum(log.unverifiable for log in logs),
        breakglass=sum(log.breakglass for log in logs),
        findings=state.found,
        garbage=state.garbage,
    )


def _excused(item: Examined) -> bool:
    """Whether what could not be checked may lawfully be gone (openings), or it is we who cannot."""
    if not isinstance(item.record, DecisionMade):
        return False
    return item.code == "engine_unavailable" or (item.code == "body_missing" and item.detail.startswith("opening"))


def _fresh(origin: str) -> Followed:
    return Followed(origin, Frontier.empty(), 0, 0, 0, 0, 0, 0)


def _resumed(kept: LogPosition) -> Followed:
    frontier = Frontier.restore(kept.size, [bytes.fromhex(value) for value in kept.hashes])
    return Followed(kept.origin, frontier, kept.last_ms, kept.certified, kept.match, kept.mismatch, kept.unverifiable, kept.breakglass)
