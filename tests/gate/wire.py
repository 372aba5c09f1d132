"""A gate's core on a real spent store, with governors that run the real machine behind a bus that tests can spoil."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from mesh.adapters.bus_message import NO_HEADERS, Message
from mesh.adapters.clock import Clock, Reading
from mesh.adapters.signer import KeyFile, Signer
from mesh.adapters.spent import SpentStore
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Params
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Manifest
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Roster
from mesh.core.log.record import OutcomeRecorded, read_record
from mesh.core.messages import Asked, Sync, unpack
from mesh.core.run.identity import Identity
from mesh.core.run.intent import EntityRef, Measurement
from mesh.core.run.outcome import Outcome
from mesh.errors import Unavailable
from mesh.gate.core import Core, Settings, Wish
from mesh.protocol.enforcer import Place
from mesh.protocol.events import IntentArrived, OutcomesArrived, SyncArrived, Tick
from tests.support.factory import DOMAIN, MESH, T0, Lab, sign
from tests.support.littlemesh import LittleMesh, Node

__all__ = ["MEASURED", "FakeBus", "FakeTime", "events_of", "outcomes_of", "revoked", "settings", "wish"]

MEASURED = (Measurement(name="function", digest="blake3:" + "0f" * 32),)
_STEP_S = 0.02
Spoil = Callable[[str, bytes, bytes], bytes]


class FakeTime:
    """Time that begins when the little mesh is ready, passes as usual, and can jump."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.ahead_ms = 2_000

    def now_ms(self) -> int:
        return T0 + self.ahead_ms + int((time.monotonic() - self._start) * 1000)

    def read(self) -> Reading:
        return Reading(self.now_ms(), self.now_ms())

    def clock(self) -> Clock:
        return Clock(source=self.read)


class _Wired(LittleMesh):
    """The little mesh with ears outside."""

    def __init__(self, lab: Lab) -> None:
        self.ears: list[Callable[[bytes], None]] = []
        self._turn = threading.RLock()
        """Two gates of one process ask from a thread each."""
        super().__init__(lab)

    def _publish(self, node: Node, subject: str, data: bytes) -> None:
        super()._publish(node, subject, data)
        if subject.startswith("mesh.v1.hb."):
            for ear in self.ears:
                ear(data)

    def call(self, node: str, make: Callable[[int], Any]) -> bytes:
        answers = list[bytes]()
        with self._turn:
            self._call(node, make, answers.append)
            self._drain()
        return answers[0]

    def tick(self, now_ms: int) -> None:
        with self._turn:
            self.now_ms = max(self.now_ms, now_ms)
            for name, node in self.nodes.items():
                if node.up:
                    self._queue.append((name, Tick()))
            self._drain()


class FakeBus:
    """What the gate asks of a bus, answered by governors in this process."""

    def __init__(self, lab: Lab, passing: FakeTime) -> None:
        self.mesh = _Wired(lab)
        self.time = passing
        self.regions = {member.region: member.name for member in lab.roster.members}
        self.counters = dict[str, int]()
        self.asked = list[str]()
        """Subjects of all requests, in order."""
        self.spoil: Spoil | None = None
        """May change an answer, given subject and request, or raise instead."""
        self.hold: Callable[[str], Awaitable[None]] | None = None
        """May wait before a request is taken."""
        self.law = list[Callable[[bytes], None]]()
        """Who hears governance statements; nobody here publishes any."""
        self.silent = False
        """Whether the governors' heartbeats are lost."""
        self.closed = False
        self._pump: asyncio.Task[None] | None = None

    async def subscribe(self, subject: str, handler: Callable[[Message], None]) -> None:
        if subject == "mesh.v1.law.*":
            self.law.append(lambda data: handler(Message("mesh.v1.law.x", data, "", NO_HEADERS, self)))
            return

        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        def hear(data: bytes) -> None:
            if self.silent:
                return
            message = Message("mesh.v1.hb.x", data, "", NO_HEADERS, self)
            if threading.get_ident() == thread:
                handler(message)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(handler, message)

        self.mesh.ears.append(hear)
        self._pump = self._pump or asyncio.get_running_loop().create_task(self._tick())

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        raise AssertionError(f"a gate publishes nothing: {subject}")

    async def request(self, subject: str, data: bytes, *, timeout_ms: int) -> Message:
        self.asked.append(subject)
        if self.hold is not None:
            await self.hold(subject)
        await asyncio.sleep(0)
        _, _, first, kind, *_ = subject.split(".")
        name = kind if first == "sync" else self.regions.get(first, "")
        if name not in self.mesh.nodes or not self.mesh.nodes[name].up:
            raise Unavailable("unreachable", subject)
        self.mesh.now_ms = max(self.mesh.now_ms, self.time.now_ms())
        answer = self._answer(name, kind if first != "sync" else "sync", data)
        if self.spoil is not None:
            answer = self.spoil(subject, data, answer)
        return Message("", answer, "", NO_HEADERS, self)

    async def close(self) -> None:
        self.closed = True
        if self._pump is not None:
            self._pump.cancel()

    def _answer(self, name: str, kind: str, data: bytes) -> bytes:
        if kind == "intent":
            return self.mesh.call(name, lambda waiter: IntentArrived(waiter, data))
        if kind == "outcome":
            return self.mesh.call(name, lambda waiter: OutcomesArrived(waiter, data))
        asked = unpack(Asked, data)  # type: ignore[arg-type,var-annotated]
        if isinstance(asked, Sync):
            return self.mesh.call(name, lambda waiter: SyncArrived(waiter, asked.nonce))
        return self.mesh.nodes[name].answer(data)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_STEP_S)
            self.mesh.tick(self.time.now_ms())


def settings(lab: Lab, *, boot: str = "b1" * 32, obligations: frozenset[str] = frozenset({"receipt"})) -> Settings:
    """The lab's enforcer and its one workload."""
    place = Place(document=envelope.read(Identity, lab.place_envelope), boot=boot, obligations=obligations)
    governance = admit_governance(  # without bundles, like any enforcer
        envelope.read(Roster, lab.roster_envelope), pin=lab.pin, manifests=[envelope.read(Manifest, lab.manifest_envelope)], bundles=[]
    )
    return Settings(
        governance=governance,
        region="eu",
        tenant="demo",
        place=place,
        signer=Signer([KeyFile("enforcer", lab.place_key), KeyFile("workload", lab.holder)]),
        identity=envelope.read(Identity, lab.identity_envelope),
    )


async def opened(lab: Lab, bus: FakeBus, path: Path, *, boot: str = "b1" * 32, store: SpentStore | None = None) -> Core:
    """A core that is ready to allow."""
    store = store or await SpentStore.open(path, audience=lab.place_key.public)
    core = Core(settings(lab, boot=boot), bus, store, bus.time.clock(), bus.time.now_ms)  # type: ignore[arg-type]  # all that it uses
    await core.open_(wait_ms=5_000)
    return core


def wish(*, amount: int = 10, account: str = "acme", committed: Params | None = None, sealed: Params | None = None) -> Wish:
    """A small payment."""
    return Wish(
        domain=DOMAIN,
        action="send",
        resource=EntityRef(type="Account", id=account),
        params={"amount": amount},
        committed=committed or {},
        sealed=sealed or {},
        purpose="rent",
        assurance="local",
        measure=lambda: MEASURED,
    )


def revoked(lab: Lab, kind: str, value: str) -> Governance:
    """The lab's governance after one revocation."""
    claims = Revocation(
        mesh=MESH,
        revoker=lab.revoker.public,
        sequence=1,
        previous="",
        since="",
        target=Target(type=kind, value=value),  # type: ignore[arg-type]
        spares=[],
        reason="stolen",
        issued_ms=T0,
    )
    return admit_governance(
        envelope.read(Roster, lab.roster_envelope),
        pin=lab.pin,
        manifests=[envelope.read(Manifest, lab.manifest_envelope)],
        bundles=[lab.bundle_bytes],
        said=[envelope.read(Revocation, sign(claims, lab.revoker))],
    )


def outcomes_of(bus: FakeBus) -> list[Outcome]:
    """All outcomes in all governors' own logs, each once, in the order of their chains."""
    found = dict[str, Outcome]()
    for node in bus.mesh.nodes.values():
        for leaf in node.logs.get(node.origin, []):
            record = read_record(leaf)
            if isinstance(record, OutcomeRecorded):
                found[record.outcome] = envelope.read(Outcome, node.bodies[record.outcome]).claims
    return sorted(found.values(), key=lambda outcome: (outcome.boot, outcome.sequence))


def events_of(bus: FakeBus) -> list[str]:
    """The events in them."""
    return [outcome.event.__struct_config__.tag for outcome in outcomes_of(bus)]  # type: ignore[misc]
