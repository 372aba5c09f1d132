"""Governors that run the real machine, on storage and a network that are Python dictionaries: real records, real certificates.

Time moves only when told to. Messages arrive in the order in which they were sent.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.governance import Governance
from mesh.core.log.merkle import Frontier, inclusion_path, leaf_hash, tree_get
from mesh.core.log.record import read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import (
    Answer,
    BarrierAnswer,
    BarrierAsked,
    BundleAsked,
    BundleGiven,
    Find,
    Found,
    HeardAsked,
    LawAsked,
    LawBatch,
    Leaves,
    LineageBatch,
    Location,
    MirrorStatus,
    NodeStatus,
    Offer,
    Prove,
    Proved,
    Pull,
    RefusedAnswer,
    StatusAsked,
    Supply,
    Sync,
    SyncAnswer,
    pack,
    unpack,
    unpack_answer,
    unpack_asked,
)
from mesh.errors import Refused, Unavailable
from mesh.protocol import hearing
from mesh.protocol.barrier import answer_draft
from mesh.protocol.begin import begin
from mesh.protocol.events import (
    AccusationArrived,
    BarrierArrived,
    CosigArrived,
    Event,
    HeartbeatArrived,
    IntentArrived,
    LawArrived,
    LineageArrived,
    NoteArrived,
    OutcomesArrived,
    SyncArrived,
    Tick,
)
from mesh.protocol.governor import Machine
from mesh.protocol.serving import announce_batches, body_ids, fitting, opening_ids, pull_answer, shown_paths
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import (
    Announce,
    Append,
    AppendHashes,
    Ask,
    AskLaw,
    Commit,
    InsertOnce,
    Locate,
    Outgoing,
    Persist,
    PutBody,
    PutBundle,
    PutLaw,
    PutNote,
    PutOpenings,
    Reply,
    SetHead,
    SetMeta,
    Step,
    phases,
)
from mesh.protocol.stored import Stored, StoredLog
from mesh.roles.status import policies_of
from tests.support.factory import T0, Lab

__all__ = ["LittleMesh", "Node"]

_NOTHING = Facts()


class Node:
    """One governor and what it has on its disk."""

    def __init__(self, lab: Lab, name: str, governance: Governance) -> None:
        self.name = name
        self.keys = lab.keys[name]
        self.machine = Machine(governance, governance.roster.member(name), lab.engine)
        self.origin = governance.roster.origin(self.machine.me)
        self.state: GovernorState
        self.logs: dict[str, list[bytes]] = {}
        self.bodies: dict[str, bytes] = {}
        self.openings: dict[str, bytes] = {}
        self.notes: dict[tuple[str, str], dict[int, bytes]] = {}
        self.places: list[Location] = []
        self.law: dict[str, list[bytes]] = {}
        """Envelopes by stream."""
        self.up = True

    def commit(self, effects: Sequence[Persist]) -> None:
        """Make effects durable, as a dictionary does."""
        for effect in effects:
            match effect:
                case Append(origin=origin, first=first, leaves=leaves):
                    log = self.logs.setdefault(origin, [])
                    assert first == len(log)
                    log.extend(leaves)
                case AppendHashes(origin=origin, first=first, hashes=hashes):
                    log = self.logs.setdefault(origin, [])
                    assert first == len(log)
                    log.extend(hashes)
                case PutBody():
                    self.bodies[effect.id] = effect.envelope
                case PutOpenings():
                    self.openings[effect.intent] = effect.openings
                case PutNote():
                    self.notes.setdefault((effect.space, effect.origin), {})[effect.size] = effect.note
                case Locate():
                    self.places.append(Location(id=effect.id, origin=effect.origin, index=effect.index))
                case PutLaw():
                    self.law.setdefault(effect.stream, []).append(effect.envelope)
                case InsertOnce() | PutBundle() | SetHead() | SetMeta():
                    pass

    def certificate(self, origin: str, at_least: int) -> tuple[int, bytes] | None:
        """The smallest certificate of that size or more."""
        sizes = [item for item in sorted(self.notes.get(("certificate", origin), {}).items()) if item[0] >= at_least]
        return sizes[0] if sizes else None

    def pulled(self, ask: Pull) -> bytes:
        """The answer to a pull."""
        leaves = self.logs.get(ask.origin, [])[ask.first : ask.first + min(ask.count, 128)]
        records = [read_record(leaf) for leaf in leaves]
        ids = {key for record in records for key in body_ids(record)} & self.bodies.keys()
        opened = {key for record in records for key in opening_ids(record)} & self.openings.keys()
        found = self.certificate(ask.origin, ask.first + 1)
        note = found[1] if found else self.state.log.note if ask.origin == self.origin else b""
        bodies = {key: self.bodies[key] for key in sorted(ids)}
        openings = {key: self.openings[key] for key in sorted(opened)}
        leaves = leaves[: fitting(leaves, bodies, openings, note)]
        hashes = [leaf_hash(leaf) for leaf in self.logs.get(ask.origin, [])]
        path, start = shown_paths(hashes, ask.first, ask.first + len(leaves), found[0] if found else 0)
        return pull_answer(ask.origin, ask.first, leaves, bodies, openings, note, path=path, start=start)

    def told(self, asker: str, boot: str) -> bytes:
        """What it answers to another's first start."""
        roster, asked = self.machine.governance.roster, BarrierAsked(asker=asker, nonce=boot)
        draft = answer_draft(roster, self.machine.me, asked, self.machine.governance.frontier, notes=(), heartbeat=b"")
        key = self.keys["decision"]
        said = envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message)})
        return pack(BarrierAnswer(barrier=msgspec.Raw(said), heartbeat=[], certificates=[]))

    def answer(self, data: bytes) -> bytes:
        """The answer to a question on the node's sync subject."""
        asked = unpack_asked(data)
        match asked:
            case Pull():
                return self.pulled(asked)
            case Leaves(origin=origin, first=first, count=count):
                return pull_answer(origin, first, self.logs.get(origin, [])[first : first + min(count, 128)], {}, {}, b"")
            case Find(prefix=prefix, count=count):
                return pack(Found(records=[place for place in reversed(self.places) if place.id.startswith(prefix)][:count]))
            case Prove():
                return self._prove(asked)
            case StatusAsked():
                return pack(self.status())
            case HeardAsked(after=after):
                return hearing.answer(hearing.page(self.state.words, after), self.bodies)
            case BundleAsked(digest=digest):
                return self._bundle(digest)
            case Sync() | Offer() | LawAsked() | Supply() | BarrierAsked():
                return pack(RefusedAnswer(code="unavailable", detail=""))

    def _bundle(self, digest: str) -> bytes:
        laws = (law for epochs in self.machine.governance.laws.values() for law in epochs if law.manifest.digest == digest)
        held = next((law.bundle for law in laws if law.bundle is not None), None)
        return pack(BundleGiven(bundle=msgspec.Raw(canonical.encode(held))) if held else RefusedAnswer(code="not_found", detail=digest))

    def _prove(self, ask: Prove) -> bytes:
        leaves = self.logs.get(ask.origin, [])
        if ask.index >= len(leaves):
            return pack(RefusedAnswer(code="not_found", detail=f"{ask.origin} {ask.index}"))
        proof, found = "", self.certificate(ask.origin, ask.index + 1)
        if found is not None:
            path = inclusion_path(tree_get([leaf_hash(leaf) for leaf in leaves[: found[0]]]), ask.index, found[0])
            proof = TlogProof(index=ask.index, path=path, note=found[1]).encode().decode()
        one = unpack(LineageBatch, self.pulled(Pull(origin=ask.origin, first=ask.index, count=1)))
        return pack(Proved(batch=one, proof=proof))

    def status(self) -> NodeStatus:
        """How it is."""
        governance, state = self.machine.governance, self.state
        return NodeStatus(
            node=self.name,
            region=self.machine.me.region,
            incarnation=state.incarnation,
            roster_epoch=governance.roster.epoch,
            frontier=governance.digest,
            policies=policies_of(governance, self.machine.me.region, T0, {}),
            halted=sorted(state.governance.halted),
            conflicts=sum(map(state.governance.forked, state.governance.whole)),
            frozen=sorted(state.governance.frozen),
            origin=self.origin,
            size=len(self.logs[self.origin]),
            certified=state.log.certified,
            mirrors=[
                MirrorStatus(
                    origin=mirror.origin,
                    size=mirror.frontier.size,
                    witnessed=mirror.witnessed.size if mirror.witnessed else 0,
                    attested=mirror.attested.size if mirror.attested else 0,
                    certified=mirror.certified,
                    refused=mirror.refused >= 0,
                    conflicted=mirror.conflicted,
                )
                for mirror in state.mirrors.values()
            ],
            fresh=state.was_fresh,
            code="" if state.was_fresh else "stale",
            vouchers=sorted(state.fresh.heard),
            now_ms=T0,
            uptime_ms=1,
            counters={"published": 3},
        )


class LittleMesh:
    """All governors of a lab, fresh and idle."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.now_ms = T0
        self.nodes = {name: Node(lab, name, lab.governance) for name in lab.keys}
        self.stream: list[tuple[str, bytes]] = []
        """What a stream would hold, in order."""
        self._queue: deque[tuple[str, Event]] = deque()
        self._waiters: dict[int, Callable[[bytes], None]] = {}
        self._asked = 0
        for node in self.nodes.values():
            empty = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
            boot = canonical.sha256_hex(node.name.encode())
            self._perform(node, begin(node.machine, Stored(incarnation=0, own=empty, mirrors={}), boot=boot, now_ms=self.now_ms))
            for other in self.nodes.values():
                if other is not node:
                    self._queue.append((node.name, BarrierArrived(other.told(node.name, boot))))
        for node in self.nodes.values():
            for other in self.nodes.values():
                if other is not node:
                    self._call(other.name, partial(SyncArrived, nonce=node.state.fresh.boot), partial(self._beat, node.name))
        self.run(3)

    def request(self, node: str, data: bytes) -> Answer:
        """Ask a governor for an authorization; its answer."""
        answers: list[bytes] = []
        self._call(node, partial(IntentArrived, data=data), answers.append)
        self._drain()
        return unpack_answer(answers[0])

    def report(self, node: str, data: bytes) -> bytes:
        """Send outcomes to a governor; its answer."""
        answers: list[bytes] = []
        self._call(node, partial(OutcomesArrived, data=data), answers.append)
        self._drain()
        return answers[0]

    def deliver(self, node: str, event: Event) -> None:
        """Something reaches a node, from whomever."""
        self._queue.append((node, event))
        self._drain()

    def run(self, ticks: int) -> None:
        """Let time pass in steps of 300 ms."""
        for _ in range(ticks):
            self.now_ms += 300
            for name, node in self.nodes.items():
                if node.up:
                    self._queue.append((name, Tick()))
            self._drain()

    async def ask(self, node: str, message: Payload) -> bytes:
        """Ask a node on its sync subject, as a client does."""
        if not self.nodes[node].up:
            raise Unavailable("unreachable", node)
        try:
            return self.nodes[node].answer(pack(message))
        except Refused as refusal:
            return pack(RefusedAnswer(code=refusal.code, detail=refusal.detail))

    def _beat(self, node: str, answer: bytes) -> None:
        self._queue.append((node, HeartbeatArrived(bytes(unpack(SyncAnswer, answer).heartbeat))))

    def _call(self, node: str, make: Callable[[int], Event], done: Callable[[bytes], None]) -> None:
        self._asked += 1
        self._waiters[self._asked] = done
        self._queue.append((node, make(self._asked)))

    def _drain(self) -> None:
        while self._queue:
            name, event = self._queue.popleft()
            node = self.nodes[name]
            if node.up:
                step = node.machine.step(node.state, [event], now_ms=self.now_ms, wall_ms=self.now_ms, facts=_NOTHING)
                self._perform(node, step)

    def _perform(self, node: Node, step: Step[GovernorState]) -> None:
        public = {use: key.public for use, key in node.keys.items()}
        runner = phases(step, sign=lambda use, message: node.keys[use].sign(message), public=public, failpoint=lambda _: None)  # type: ignore[arg-type]  # the four uses
        try:
            phase = next(runner)
            while True:
                if isinstance(phase, Commit):
                    node.commit(phase.effects)
                else:
                    for item, data in phase.messages:
                        self._deliver(node, item, data)
                phase = next(runner)
        except StopIteration as done:
            node.state = done.value

    def _deliver(self, node: Node, item: Outgoing, data: bytes) -> None:
        if isinstance(item, Ask):
            other = self.nodes[item.member]
            if other.up:
                pull = Pull(origin=item.origin, first=item.first, count=128)
                self._queue.append((node.name, LineageArrived(other.pulled(pull), pulled=True, node=item.member)))
        elif isinstance(item, Announce):
            leaves = node.logs[item.origin][item.first : item.size]
            ids = [key for leaf in leaves for key in body_ids(read_record(leaf)) if key in node.bodies]
            for message in announce_batches(item.origin, item.first, leaves, {key: node.bodies[key] for key in ids}, data):
                self._publish(node, f"mesh.v1.{node.machine.me.region}.lineage.{node.name}", message)
        elif isinstance(item, AskLaw):
            held = [msgspec.Raw(data) for data in self.nodes[item.member].law.get(item.stream, [])]
            self._queue.append((node.name, LawArrived(pack(LawBatch(statements=held)), item.member)))
        elif isinstance(item.to, Reply):
            self._waiters.pop(item.to.waiter)(data)
        else:
            self._publish(node, item.to, data)

    def _publish(self, node: Node, subject: str, data: bytes) -> None:
        kind = subject.split(".")[2 if subject.startswith("mesh.v1.hb.") else 3]
        if kind in {"lineage", "checkpoint", "cosig"}:
            self.stream.append((subject, data))
        for name in self.nodes:
            if kind == "hb" and name != node.name:
                self._queue.append((name, HeartbeatArrived(data)))
            elif kind == "lineage" and name != node.name:
                self._queue.append((name, LineageArrived(data, pulled=False, node=node.name)))
            elif kind == "fraud":
                self._queue.append((name, AccusationArrived(data)))
            elif kind == "checkpoint" and name != node.name:
                self._queue.append((name, NoteArrived(data)))
            elif kind == "cosig" and subject.endswith(f".{name}"):
                self._queue.append((name, CosigArrived(data)))
