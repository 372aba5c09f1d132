"""An auditor believes nobody: it follows every log, repeats every decision, recomputes every root, and says what it found.

Rules
-----
0. It follows the logs of whoever is or was a member of any roster that it holds; what a roster that it does not hold yet must say waits.
1. Records are staged as they come, in order, and examined at once, by the same procedure as attesters use. They count only when
   a checkpoint signed by the log's own key has the root that they lead to: what was injected on the way is thrown away.
2. A record is final when k distinct members of one roster attested a checkpoint over it; the lines are verified here. Of a former one
   as many must be there still as :mod:`mesh.core.law.former` says. What this auditor has once found final stays final.
3. Every decision is a *match*, a *mismatch*, or *unverifiable*: its openings were erased, or the engine cannot say. The last
   is never a finding.
4. A finding is what must not be: a record that is not what it must be, a decision under a roster that its log has left, two histories of
   one log, a tree that a log names of another and that this one did not have (:mod:`mesh.protocol.entangled`), an incident, a refusal to
   attest, and what only all logs together show (:mod:`mesh.protocol.alarms`). Findings are kept for ever; following goes on.
5. What is missing is asked for, from the owner first, then from each other member; at most one pull per log at a time. What k
   members answered that they do not have is judged without it.
6. Where both halves of two histories were seen in one run, they are a proof (:mod:`mesh.core.law.fraud`), as members make it. It is
   not kept in the position.
7. The position is small and says everything that starting again needs; what was staged is fetched again.
8. What was asked for and shows that it leads to a certificate is taken at once, however far that is (:mod:`mesh.protocol.leading`): no
   owner keeps an auditor behind by certificates that are rarer than records can be staged, or by a root that it alone signs. So are the
   hashes of records below a floor (:mod:`mesh.core.law.retain`), counted as *pruned*: nothing is said of them, and nothing missed.

Not here: how records travel (:mod:`mesh.roles.auditor`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.law.governance import Governance
from mesh.core.law.retain import NOWHERE
from mesh.core.law.roster import Member, Roster
from mesh.core.log.checkpoint import Checkpoint, log_verifier, open_checkpoint, read_checkpoint
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.record import AttestRefused, Cosigned, DecisionMade, Incident, OutcomeRecorded
from mesh.core.messages import LineageBatch, unpack
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from mesh.errors import Refused
from mesh.limits import AUDIT_LOGS_MAX, BATCH_RECORDS_MAX
from mesh.protocol import decide
from mesh.protocol.alarms import PATIENT, Patience, Standing, Watch, kept_of, standing, watched
from mesh.protocol.attester import Examined, Material, examine_records
from mesh.protocol.audited import (
    FINDINGS_MAX,
    AuditEvent,
    AuditPosition,
    AuditState,
    Finding,
    Followed,
    MembersTold,
    PullFailed,
    beginning,
    by_stranger,
    excused,
    kept_log,
    last_epoch,
    last_ms,
    resumed,
)
from mesh.protocol.documents import Documents
from mesh.protocol.entangled import Contradiction, name, settle
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.evidence import certified
from mesh.protocol.histories import Recent, accused
from mesh.protocol.holding import STAGED_MAX, Aim
from mesh.protocol.leading import bare_hashes, leading
from mesh.protocol.lives import permitted
from mesh.protocol.numbering import LoggedOutcome
from mesh.protocol.progress import moved
from mesh.protocol.proving import by_id
from mesh.protocol.step import Ask, Step

__all__ = ["Audit", "seen_ms"]

_PULL_MS: Final = 300
_NOTES_MAX: Final = 64
_UNVERIFIABLE: Final = frozenset({"body_missing", "engine_unavailable", "erased", "policy_unknown"})
_LATER: Final = frozenset({"clock_unsure", "policy_unknown"})
"""What time will tell: it is my clock or the owner's, or a policy or roster that I have not heard of yet; whoever attested has."""
_STRANGER_MS: Final = 30_000
"""How long after a record its signer may be known to a roster only that I have not heard of yet."""


class Audit:
    """An auditor's pure step function."""

    def __init__(self, governance: Governance, engine: decide.Engine) -> None:
        """Audit by ``governance``. What was decided by a law without its bundle, which the engine must hold, has to wait.

        ``governance`` may be replaced between steps, by one that knows more.
        """
        self.governance = governance
        self.engine = engine
        self.documents = Documents()

    @property
    def roster(self) -> Roster:
        """The one in force, whose members are asked."""
        return self.governance.roster

    @property
    def rosters(self) -> tuple[Roster, ...]:
        """All that are held, oldest first."""
        return self.governance.rosters.chain_with(self.roster)

    @property
    def owners(self) -> Mapping[str, Member]:
        """Origin to whose log it is, as the newest roster that knows it says."""
        return {roster.origin(member): member for roster in self.rosters for member in roster.members}

    def begin(self, position: AuditPosition | None) -> AuditState:
        """The state to start from: a kept position, or nothing. Logs of rosters that are not held here yet are kept until they are.

        Raises:
            Refused: ``wrong_mesh`` or ``wrong_epoch`` for the position of another mesh, ``malformed`` for a broken one.
        """
        kept = {} if position is None else {log.origin: log for log in position.logs}
        if position is not None and position.mesh != self.roster.mesh:
            raise Refused("wrong_mesh", position.mesh)
        if position is not None and position.roster != self.governance.rosters.ids[0]:
            raise Refused("wrong_epoch", f"the position was kept under rosters that follow {position.roster[:12]}…")
        logs = {origin: resumed(kept[origin]) if origin in kept else beginning(origin) for origin in dict.fromkeys([*self.owners, *kept])}
        if position is None:
            return AuditState(logs, (), 0, 0)
        return AuditState(logs, tuple(position.findings), position.found, 0, watched(position.watched))

    def position(self, state: AuditState) -> AuditPosition:
        """What to keep of a state."""
        members = {self.roster.origin(member) for member in self.roster.members}
        logs = [kept_log(log) for log in sorted(state.logs.values(), key=lambda log: log.origin not in members)[:AUDIT_LOGS_MAX]]
        return AuditPosition(
            mesh=self.roster.mesh,
            roster=self.governance.rosters.ids[0],
            logs=logs,
            findings=list(state.findings),
            found=state.found,
            watched=kept_of(state.watched),
        )

    def standing(self, state: AuditState, *, now_ms: int, patience: Patience = PATIENT) -> list[Standing]:
        """The alarms that stand now."""
        roster = self.roster
        return standing(
            state.watched,
            {origin: log.pace for origin, log in state.logs.items()},
            {member.name: roster.origin(member) for member in roster.members},
            seen_ms=seen_ms(state.logs.values(), now_ms=now_ms),
            now_ms=now_ms,
            stale_ms=roster.bounds.stale_ms,
            patience=patience,
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
        self.owners = audit.owners
        self.now_ms = now_ms
        self.logs = {**{origin: beginning(origin) for origin in self.owners if origin not in state.logs}, **state.logs}
        self.findings = list(state.findings)
        self.found = state.found
        self.garbage = state.garbage
        self.watch = Watch(state.watched)
        self.named = state.named
        self.proofs = list(state.proofs)
        self.asks: list[Ask] = []

    def take(self, event: AuditEvent) -> None:
        match event:
            case LineageArrived(data=data, pulled=pulled):
                self._batch(unpack(LineageBatch, data), pulled=pulled)
            case NoteArrived(data=data):
                self._note(data)
            case PullFailed(origin=origin):
                self._fruitless(self.logs[origin], answered=False)
            case MembersTold(statuses=statuses):
                final = {origin: log.certified for origin, log in self.logs.items()}
                self.watch.told(statuses, final, self.roster, now_ms=self.now_ms)
            case Tick():
                for log in list(self.logs.values()):
                    self._pull(log)

    def finish(self) -> Step[AuditState]:
        for trouble in self.watch.troubles():
            self._find(trouble.code, trouble.origin, trouble.index, trouble.detail)
        kept = self.watch.finish(seen_ms(self.logs.values(), now_ms=self.now_ms))
        members = {self.roster.origin(member) for member in self.roster.members}
        for log in list(self.logs.values()):
            known, final = (log.signed, log.certified) if log.origin in members else (log.goal, log.frontier.size)
            pace = moved(log.pace, settled=log.frontier.size, certified=final, known=known, now_ms=self.now_ms)
            if pace != log.pace:
                self._adopt(msgspec.structs.replace(log, pace=pace))
        return Step(
            AuditState(self.logs, tuple(self.findings), self.found, self.garbage, kept, self.named, tuple(self.proofs)), tuple(self.asks)
        )

    def _owner(self, origin: str) -> Member:
        if origin not in self.owners:
            raise Refused("unknown_member", origin[:80])
        return self.owners[origin]

    # ------------------------------------------------------------------------------------------------------------ records

    def _batch(self, batch: LineageBatch, *, pulled: bool) -> None:
        owner = self._owner(batch.origin)
        log = self.logs[batch.origin]
        before = log.ready
        try:
            if not (pulled and self._lead(log, batch, owner)):
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
        leaves = leaves[: log.frontier.size + STAGED_MAX - start]
        if batch.first > start or not leaves:
            return msgspec.structs.replace(log, wanted=max(log.wanted, batch.first + len(batch.records)))
        kept = log.staged[: start - log.frontier.size]
        examined = self._examine(leaves, batch, owner, first=start, after=(last_ms(kept, log.last_ms), last_epoch(kept, log.epoch)))
        tail = log.staged[len(kept) + len(examined) :]
        return msgspec.structs.replace(log, staged=(*kept, *examined, *tail))

    def _lead(self, log: Followed, batch: LineageBatch, owner: Member) -> bool:
        """Rule 8: settle what leads to the certificate that came with it, up to what must wait. False if it is to be staged instead."""
        first, note = log.frontier.size, batch.checkpoint.encode()
        bare = [] if batch.records else bare_hashes(batch, first, self.audit.governance)
        if not batch.first <= first < batch.first + len(batch.records or bare) or not self._is_final(note, owner, log.epoch):
            return self._led(log)
        leaves, shown = [bytes(raw) for raw in batch.records[first - batch.first :]], Aim.of(note)
        hashes = [leaf_hash(leaf) for leaf in leaves] or bare[first - batch.first :]
        count, _ = leading(log.frontier, hashes, batch.path, aim=shown, shown=shown)
        if not count:
            return self._led(log)
        if bare:
            self.watch.pruned(self.now_ms, read_ms=log.last_ms)
            self._passed(log, hashes[:count])
            self._count(log, (), log.frontier.extend(hashes[:count]), note, bare=hashes[:count])
            return True
        items = self._examine(leaves[:count], batch, owner, first=first, after=(log.last_ms, log.epoch))
        ready = next((offset for offset, item in enumerate(items) if self._waits(item, gone=self._exhausted(log))), count)
        little = ready == count < min(BATCH_RECORDS_MAX, shown.size - first)
        turn = log.turn + little  # who brings no whole page may be one that wants this to take for ever
        self._adopt(msgspec.structs.replace(log, staged=(*items, *log.staged[count:]), goal=max(log.goal, shown.size), turn=turn))
        if ready:
            self._passed(log, hashes[:ready])
            self._count(self.logs[log.origin], tuple(items[:ready]), log.frontier.extend(hashes[:ready]), note)
        return True

    def _led(self, log: Followed) -> bool:
        """Whether nothing counts of what is asked for but what leads to a certificate: where k could not show that, only if it is far."""
        far = log.frontier.size + STAGED_MAX < min(log.notes, default=log.goal)
        return far or (log.frontier.size < log.goal and not self._exhausted(log))

    def _waits(self, item: Examined, *, gone: bool) -> bool:
        return item.code in _LATER or self._early(item) or (item.incomplete and not gone)

    def _passed(self, log: Followed, hashes: Sequence[bytes]) -> None:
        """What its key alone signed for sizes among these records, which are certified."""
        base = log.frontier.size
        for size, note in log.notes.items():
            if size <= base + len(hashes) and read_checkpoint(note).root != log.frontier.extend(hashes[: size - base]).root():
                self._find("log_conflict", log.origin, size, "its key signed another root than the one that is certified")

    def _examine(self, leaves: list[bytes], batch: LineageBatch, owner: Member, *, first: int, after: tuple[int, int]) -> list[Examined]:
        bodies = by_id(batch.bodies)
        openings = {item.intent: item for item in batch.openings}
        return examine_records(
            leaves,
            Material(bodies, openings),
            owner=owner,
            first=first,
            after_ms=after[0],
            governance=self.audit.governance,
            documents=self.audit.documents,
            engine=self.audit.engine,
            now_ms=self.now_ms,
            after_epoch=after[1],
        )

    # -------------------------------------------------------------------------------------------------------------- notes

    def _note(self, data: bytes) -> None:
        origin = read_checkpoint(data).origin
        owner, log = self._owner(origin), self.logs[origin]
        verifier = log_verifier(log.origin, owner.log_key)
        checkpoint = open_checkpoint(data, verifier).checkpoint
        final = self._is_final(data, owner, log.roots.get(checkpoint.size, (b"", log.epoch))[1])
        if checkpoint.size <= log.frontier.size:
            self._compare(log, checkpoint, data, final=final)
            return
        known = log.notes.get(checkpoint.size)
        if known is not None and read_checkpoint(known).root != checkpoint.root:
            self._find("log_conflict", log.origin, checkpoint.size, "its key signed two roots at one size")
            self._prove(owner, (known, data))
        if known is None or final:
            notes = dict(sorted({**log.notes, checkpoint.size: data}.items())[:_NOTES_MAX])
            log = msgspec.structs.replace(log, notes=notes, wanted=max(log.wanted, checkpoint.size))
        self._adopt(msgspec.structs.replace(log, goal=max(log.goal, checkpoint.size)) if final else log)
        self._settle(log.origin)

    def _is_final(self, note: bytes, owner: Member, since: int) -> bool:
        """Whether k members of a roster attested it, none older than ``since``: who had left before a decision has no say in it."""
        rosters = [roster for roster in self.audit.rosters if roster.epoch >= since]
        try:
            certified(note, self.roster.origin(owner), [owner], rosters, self.roster.epoch)
        except Refused:  # whoever signed it besides its log may be of a roster that is not held here yet
            return False
        return True

    def _compare(self, log: Followed, checkpoint: Checkpoint, note: bytes, *, final: bool) -> None:
        """A note about what is settled already."""
        size = checkpoint.size
        root = log.frontier.root() if size == log.frontier.size else log.roots.get(size, (None, 0))[0]
        root = log.recent.root(size) if root is None and log.recent is not None else root
        if root is None:
            return  # settled as part of something larger: the certificate over that decides
        if root != checkpoint.root:
            self._find("log_conflict", log.origin, size, "its key signed another root than the one that its records lead to")
            self._prove_older(log, checkpoint, note)
        elif final and size > log.certified:
            roots = {other: value for other, value in log.roots.items() if other > size}
            self._adopt(msgspec.structs.replace(log, certified=size, goal=max(log.goal, size), roots=roots))

    def _prove_older(self, log: Followed, checkpoint: Checkpoint, note: bytes) -> None:
        """With what was settled there, or behind it, if that was in this run."""
        old, owner = checkpoint.size, self._owner(log.origin)
        size = min((size for size in log.noted if size >= old), default=0)
        if size == old:
            self._prove(owner, (log.noted[size], note))
        elif size and log.recent is not None and (root := log.recent.root(old)) is not None:
            self._prove(owner, (note, log.noted[size]), root=root, path=log.recent.path(old, size))

    def _prove(self, owner: Member, notes: Sequence[bytes], *, root: bytes | None = None, path: Sequence[bytes] = ()) -> None:
        """That these two cannot both be; once a key, and only what any roster bears out."""
        if all(proof.claims.key != owner.log_key for proof in self.proofs):
            self.proofs.append(accused(self.roster.origin(owner), notes, owner, self.roster.mesh, root=root, path=path))

    # ------------------------------------------------------------------------------------------------------------- settle

    def _settle(self, origin: str) -> None:
        """Rule 1: count what a signed checkpoint covers, the nearest checkpoint first."""
        while notes := self.logs[origin].notes:
            log, size = self.logs[origin], min(notes)
            count = size - log.frontier.size
            gone = size <= log.goal and self._exhausted(log)  # who attested has held everything; before that it may still come
            early = any(self._waits(item, gone=True) for item in log.staged[:count])
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
            self._count(log, items, frontier, notes[size])

    def _early(self, item: Examined) -> bool:
        return by_stranger(item) and self.now_ms < item.record.at_ms + _STRANGER_MS

    def _count(self, log: Followed, items: tuple[Examined, ...], frontier: Frontier, note: bytes, *, bare: Sequence[bytes] = ()) -> None:
        """These records are what ``note`` is about, or lead to it; or ``bare`` hashes of records that were pruned."""
        hashes = bare or [item.hash for item in items]
        checkpoint = Checkpoint(log.origin, frontier.size, frontier.root())
        tally = {"match": log.match, "mismatch": log.mismatch, "unverifiable": log.unverifiable, "breakglass": log.breakglass}
        half = [(checkpoint.size, note)] if read_checkpoint(note).size == checkpoint.size else []
        self.named, contradicted = settle(self.named, log.origin, log.frontier, hashes)
        for offset, item in enumerate(items):
            self._judge(item, log.origin, log.frontier.size + offset, tally)
        self._contradict(contradicted)
        self._adopt(
            msgspec.structs.replace(
                log,
                frontier=frontier,
                last_ms=max(log.last_ms, last_ms(items, 0)),
                pruned=log.pruned + len(bare),
                epoch=last_epoch(items, log.epoch),
                staged=log.staged[len(hashes) :],
                notes={size: data for size, data in log.notes.items() if size > checkpoint.size},
                roots={**log.roots, checkpoint.size: (checkpoint.root, last_epoch(items, log.epoch))},
                fruitless=0,
                without=frozenset(),
                noted=dict([*log.noted.items(), *half][-_NOTES_MAX:]),
                recent=(log.recent or Recent(log.frontier, ())).grown(hashes),
                **tally,
            )
        )
        grown = self.logs[log.origin]
        self._compare(grown, checkpoint, note, final=self._is_final(note, self._owner(log.origin), grown.epoch))

    def _judge(self, item: Examined, origin: str, index: int, tally: dict[str, int]) -> None:
        record = item.record
        if isinstance(record, DecisionMade):
            verdict = "match" if not item.code else "unverifiable" if item.code in _UNVERIFIABLE else "mismatch"
            tally[verdict] += 1
            tally["breakglass"] += record.attested.breakglass
        if item.code and not excused(item):
            self._find(item.code, origin, index, item.detail)
        if isinstance(record, Incident):
            self._find("record_invalid" if not record.code else record.code, origin, index, f"incident: {record.detail}")
        elif isinstance(record, AttestRefused) and record.refusal.reason == "wrong":
            said = record.refusal
            self._find(said.code, said.origin, said.index, f"{said.member} refuses to attest it")
        elif isinstance(record, Cosigned) and not item.code:
            self.named, contradicted = name(self.named, record, {origin: log.frontier.size for origin, log in self.logs.items()})
            self._contradict(contradicted)
        self._watch(item, origin, index)

    def _contradict(self, found: Iterable[Contradiction]) -> None:
        for one in found:
            self._find("log_conflict", one.origin, one.index, str(one))

    def _watch(self, item: Examined, origin: str, index: int) -> None:
        """What this record is for the others, wherever they stand."""
        record = item.record
        bodies = {body.id: body.envelope for body in item.bodies}
        if isinstance(record, DecisionMade) and record.authorization and record.intent in bodies:
            # Also if it should not have been made: it can be used.
            intent = envelope.read(Intent, bodies[record.intent]).claims
            self.watch.permit(record.intent, permitted(record, intent, self.audit.governance, sound=not item.code))
        elif isinstance(record, OutcomeRecorded) and not item.code:
            said = envelope.read(Outcome, bodies[record.outcome])
            self.watch.outcome(LoggedOutcome(said.id, said.claims, origin, index, record.at_ms))

    # -------------------------------------------------------------------------------------------------------------- pulls

    def _pull(self, log: Followed) -> None:
        """Rule 5."""
        if log.asking or (log.fruitless and self.now_ms - log.asked_ms < _PULL_MS) or max(log.wanted, log.held) <= log.ready:
            return
        if log.origin not in self.owners:
            return
        owner, members = self.owners[log.origin].name, [member.name for member in self.roster.members]
        whom = list(dict.fromkeys([owner, *members] if owner in members else members))[log.turn % len(members)]
        final = min(log.goal, self.audit.governance.floors.get(log.origin, NOWHERE).below)  # hashes are taken from what is settled on
        self.asks.append(Ask(whom, log.origin, log.frontier.size if self._led(log) or log.frontier.size < final else log.ready))
        self._adopt(msgspec.structs.replace(log, asking=whom, asked_ms=self.now_ms))

    def _exhausted(self, log: Followed) -> bool:
        # k members hold whatever is final, and any two sets of k share an honest one. Silence says nothing, nor who has left.
        return len(log.without & {member.name for member in self.roster.members}) >= self.roster.k

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


def seen_ms(logs: Iterable[Followed], *, now_ms: int) -> int:
    """Up to when every log was read: now, or the last record of one that is behind."""
    return min((log.last_ms for log in logs if log.signed > log.frontier.size), default=now_ms)
