"""A real gate and the real machine of one governor in this process, and between them a bus that does to the gate what it is told.

Rules
-----
1. Keys, signatures, records, the protocol, the gate and its file of spent intents are the real ones. Not there are NATS, Cedar (the
   verdicts are told), the governor's disk, which is a dictionary, and finality: the outcomes are recorded, and nobody proves them.
2. Governor, bus and gate live on the gate's own thread; whoever tells them something is let in there.
3. Time passes as usual from a fixed beginning on, and may jump.

Not here: what is shown on it (:mod:`mesh.testing.contract`).
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import msgspec

import mesh
from mesh.adapters.bus import Bus
from mesh.adapters.bus_message import NO_HEADERS, Publisher
from mesh.adapters.bus_message import Message as Delivered
from mesh.adapters.clock import Clock, Reading
from mesh.adapters.signer import KeyFile, Signer
from mesh.adapters.spent import SpentStore
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.log.record import OutcomeRecorded, read_record
from mesh.core.messages import Authorized, LawBatch, Prove, RefusedAnswer, pack, unpack, unpack_asked
from mesh.core.run.authorization import Authorization
from mesh.core.run.outcome import Outcome
from mesh.errors import Unavailable
from mesh.gate import connect as connecting
from mesh.gate.core import Core, Settings
from mesh.gate.front import Gate
from mesh.gate.hall import Hall
from mesh.protocol.enforcer import Place
from mesh.testing.benchlaw import ENFORCER, MEMBER, REGION, TENANT, WORKLOAD, BenchLaw, Engine
from mesh.testing.world import keys
from mesh.testing.world.clock import WorldClock
from mesh.testing.world.governor import Governor
from mesh.testing.world.ground import Ground
from mesh.testing.world.message import Message
from mesh.testing.world.setting import EPOCH_MS

__all__ = ["Bench", "connected_to"]

_BEFORE_US: Final = 2_000_000
"""Of true time, in which the governor starts before there is a gate."""
_STEP_S: Final = 0.002
_TICK_S: Final = 0.02
_FRESH_MS: Final = 5_000
_CLOSE_MS: Final = 1_000
_FOR_EVER_US: Final = 1 << 50
_GATE: Final = "gate"
_STALE_US: Final = 3_500_000
"""Longer than a heartbeat is believed, shorter than an authorization lives."""
T = TypeVar("T")
Spoil = Callable[[bytes], bytes]


class _Nobody:
    """Who looks on at a governor, and says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class _Time:
    """True time in µs since the beginning (rule 3)."""

    def __init__(self) -> None:
        self._begun_ns = time.monotonic_ns()
        self.ahead_us = _BEFORE_US

    def now_us(self) -> int:
        return self.of_ns(time.monotonic_ns())

    def of_ns(self, monotonic_ns: int) -> int:
        """What it was when the host's monotonic clock said this."""
        return self.ahead_us + (monotonic_ns - self._begun_ns) // 1000

    def now_ms(self) -> int:
        return EPOCH_MS + self.now_us() // 1000

    def read(self) -> Reading:
        return Reading(self.now_ms(), self.now_ms())


class _Line:
    """The bus, as the gate and the governor see it; lives on the gate's thread."""

    def __init__(self, law: BenchLaw, passing: _Time) -> None:
        self.time = passing
        self.ground = Ground(0)
        self.engine = Engine()
        member = law.governance.roster.member(MEMBER)
        clock = WorldClock(lambda: self.ground.now_us, skew_ms=100, error_ms=0, drift_ppm=0)
        self.governor = Governor(
            MEMBER, member, law.governance, law.library, ground=self.ground, bus=self, watcher=cast("Any", _Nobody()), clock=clock
        )
        self.governor.engine = self.engine
        self.counters: dict[str, int] = {}
        self.silent = False
        """Whether heartbeats are lost."""
        self.swallow_s = 0.0
        """How long an intent is waited for whose answer never comes; 0 while answers come."""
        self.spoil: Spoil | None = None
        """May change the answer to an intent."""
        self._handlers: dict[str, Callable[[Delivered], None]] = {}
        self._replies: dict[int, bytes] = {}
        self._calls = 0
        self._pump: asyncio.Task[None] | None = None
        self.governor.boot()
        self.pump()

    def pump(self) -> None:
        """Let the governor live up to now."""
        self.ground.run(self.time.now_us(), until=lambda: False)

    # The governor's side.

    def send(self, message: Message) -> None:
        if message.target == _GATE:
            self._replies[message.call] = message.data

    def publish(self, source: str, subject: str, data: bytes) -> None:
        del source
        if subject == subjects.hb(MEMBER) and not self.silent:
            self.hear(subjects.hb(subjects.ANY), data)

    def hear(self, place: str, data: bytes) -> None:
        """Something reaches the gate."""
        handler = self._handlers.get(place)
        if handler is not None:
            handler(self._delivered(data))

    def _delivered(self, data: bytes) -> Delivered:
        return Delivered("", data, "", NO_HEADERS, cast("Publisher", self))

    # The gate's side: what it uses of mesh.adapters.bus.Bus.

    async def subscribe(self, subject: str, handler: Callable[[Delivered], None]) -> None:
        self._handlers[subject] = handler
        self._pump = self._pump or asyncio.create_task(self._tick())

    async def request(self, subject: str, data: bytes, *, timeout_ms: int) -> Delivered:
        if not self.governor.up:
            raise Unavailable("unreachable", "nobody listens")
        kind = next(word for word in ("intent", "outcome", "sync") if word in subject.split("."))
        if kind == "intent" and self.swallow_s:
            await asyncio.sleep(self.swallow_s)
            raise Unavailable("unreachable", f"no answer in {timeout_ms} ms")
        if kind == "sync" and isinstance(unpack_asked(data), Prove):
            return self._delivered(pack(RefusedAnswer(code="not_final", detail="nothing becomes final here")))
        answer = await self._answer(kind, data, timeout_ms)
        if kind == "intent" and self.spoil is not None:
            answer = self.spoil(answer)
        return self._delivered(answer)

    async def _answer(self, kind: str, data: bytes, timeout_ms: int) -> bytes:
        self._calls += 1
        call, end = self._calls, time.monotonic() + timeout_ms / 1000
        self.pump()
        self.governor.take(Message(_GATE, MEMBER, kind, data, call))
        while call not in self._replies:
            if time.monotonic() > end:
                raise Unavailable("unreachable", f"no answer in {timeout_ms} ms")
            await asyncio.sleep(_STEP_S)
            self.pump()
        return self._replies.pop(call)

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.pump()


class Bench:
    """One gate on one governor; a context manager. ``folder`` gets the file of spent intents."""

    def __init__(self, law: BenchLaw, folder: Path) -> None:
        self._law = law
        self._time = _Time()
        self._line = _Line(law, self._time)
        self._hall = Hall("mesh-bench")
        try:
            self._core, self._store = self._hall.wait(self._open(folder / "spent.db"))
        except BaseException:
            self._hall.close(self._line.close())
            raise
        self._hall.at_exit(partial(self._core.close, wait_ms=0))
        self.gate = Gate(self._hall, self._core)
        """The real one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hall.close(self._core.close(wait_ms=0))

    async def _open(self, path: Path) -> tuple[Core, SpentStore]:
        bench = self._law
        settings = Settings(
            governance=bench.governance,
            region=REGION,
            tenant=TENANT,
            place=Place(document=bench.place, boot=hashlib.sha256(b"bench boot").hexdigest(), obligations=frozenset()),
            signer=Signer([KeyFile("enforcer", keys.secret(ENFORCER)), KeyFile("workload", keys.secret(WORKLOAD))]),
            identity=bench.identity,
        )
        store = await SpentStore.open(path, audience=bench.place.claims.key)
        core = Core(settings, cast("Bus", self._line), store, Clock(source=self._time.read), self._time.now_ms)
        await core.open_(wait_ms=_FRESH_MS)
        return core, store

    def _do(self, act: Callable[[], T]) -> T:
        """Rule 2."""

        async def there() -> T:
            return act()

        return self._hall.wait(there())

    # ------------------------------------------------------------------------------------------------------ what goes wrong

    def deny(self) -> None:
        """Policy permits nothing any more."""
        self._do(self._line.engine.deny)

    def need_people(self) -> None:
        """Policy permits only what people approved."""
        self._do(self._line.engine.need_people)

    def swallow(self, seconds: float) -> None:
        """Whoever asks waits so long and gets no answer."""
        self._line.swallow_s = seconds

    def crash(self) -> None:
        """The governor dies, and stays dead."""
        self._do(partial(self._line.governor.crash, _FOR_EVER_US))

    def silence(self) -> None:
        """Heartbeats are lost, and have been for longer than they are believed."""
        self._line.silent = True
        self._time.ahead_us += _STALE_US
        self._do(self._line.pump)

    def forge(self) -> None:
        """Every authorization is signed by somebody else."""

        def forged(answer: bytes) -> bytes:
            said = unpack(Authorized, answer)
            draft = envelope.draft(envelope.read(Authorization, bytes(said.authorization)).claims)
            return pack(msgspec.structs.replace(said, authorization=msgspec.Raw(keys.signed(draft, "somebody"))))

        self._line.spoil = forged

    def shed(self) -> None:
        """The governor is too busy for the next one who asks."""

        def busy(_: bytes) -> bytes:
            self._line.spoil = None
            return pack(RefusedAnswer(code="overloaded", detail=""))

        self._line.spoil = busy

    def revoke_late(self) -> None:
        """After the governor's yes, and before anything has begun, the gate hears that the workload's key is revoked."""

        def heard(answer: bytes) -> bytes:
            self._say(self._law.revocation)
            return answer

        self._line.spoil = heard

    def halt(self) -> None:
        """The gate hears that everything in this domain is to stop."""
        self._do(partial(self._say, self._law.halt))

    def _say(self, statement: bytes) -> None:
        self._line.hear(subjects.law(subjects.ANY), pack(LawBatch(statements=[msgspec.Raw(statement)])))

    def break_store(self) -> None:
        """What the gate keeps its spent intents in raises what nobody foresaw."""

        async def broken(*_: object, **__: object) -> int:
            raise RuntimeError("an error inside the gate")

        vars(self._store)["spend"] = broken

    # --------------------------------------------------------------------------------------------------------- what happened

    def outcomes(self) -> list[Outcome]:
        """What the governor has on record of what ran, in order; waits for what the gate still has to say."""
        self._hall.wait(self._core.outbox.wait_taken_in(_CLOSE_MS))
        return self._do(self._recorded)

    def _recorded(self) -> list[Outcome]:
        disk = self._line.governor.disk
        origin = self._law.governance.roster.origin(self._line.governor.member)
        found = list[Outcome]()
        for record in map(read_record, disk.records(origin, 0, disk.size(origin))):
            if isinstance(record, OutcomeRecorded):
                found.append(envelope.read(Outcome, disk.bodies[record.outcome]).claims)
        return sorted(found, key=lambda outcome: outcome.sequence)

    def at_ms(self, monotonic_ns: int) -> int:
        """The mesh's time when the host's monotonic clock said this."""
        return EPOCH_MS + self._time.of_ns(monotonic_ns) // 1000


class _Lent(Gate):
    """Somebody else's gate: who was lent it does not close it."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate._hall, gate._core)  # noqa: SLF001 -- the same gate, but for its end

    def close(self) -> None:
        """Leave it open."""


@contextmanager
def connected_to(gate: Gate) -> Generator[None]:
    """While this lasts, ``mesh.connect`` and ``mesh.connect_async`` give ``gate``, whatever context and identity are asked for.

    For programs and adapters that open their own gate. Not for what has imported the functions themselves before.
    """
    lent = _Lent(gate)

    def connect(context: str | None = None, identity: str | None = None, **_: object) -> Gate:
        del context, identity
        return lent

    async def connect_async(context: str | None = None, identity: str | None = None, **_: object) -> Gate:
        return connect(context, identity)

    ours: Mapping[str, object] = {"connect": connect, "connect_async": connect_async}
    before = [(door, name, getattr(door, name)) for door in (mesh, connecting) for name in ours]
    try:
        for door, name, _ in before:
            setattr(door, name, ours[name])
        yield
    finally:
        for door, name, value in before:
            setattr(door, name, value)
