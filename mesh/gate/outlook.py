"""What this process knows of the mesh now: who signed what and when, asked for at the start and heard ever after.

Rules
-----
1. Nothing is fresh until k members answered this boot's nonce; they are asked at once, and again until all have answered.
2. What cannot be believed changes nothing and is counted.
3. Governance statements are heard as governors publish them, and asked for when a heartbeat says that its member holds more.
   What is learnt denies at once, also what is running: ``learnt`` is called.
4. It goes over to the next roster as governors do, by the same evidence (:mod:`mesh.protocol.adoption`).

Not here: what freshness means (:mod:`mesh.protocol.freshness`), what is asked of whom (:mod:`mesh.protocol.gossip`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Final

from mesh.adapters.bus import Bus
from mesh.adapters.clock import Clock, wall_ms
from mesh.core import subjects
from mesh.core.law.fold import put_in_force
from mesh.core.law.governance import Governance
from mesh.core.messages import LawAsked, Sync, SyncAnswer, pack, unpack
from mesh.errors import MeshError, Refused
from mesh.protocol.adoption import check_view, go_over, next_roster
from mesh.protocol.enforcer import View, take_heartbeat
from mesh.protocol.freshness import Freshness
from mesh.protocol.gossip import Asking, Gossip, LawArrived
from mesh.protocol.step import AskLaw

__all__ = ["Outlook"]

_ASK_MS: Final = 2_000


class Outlook:
    """The enforcer's view, kept up to date."""

    def __init__(
        self,
        governance: Governance,
        clock: Clock,
        boot: str,
        wall: Callable[[], int] = wall_ms,
        *,
        learnt: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing heard yet.

        Args:
            governance: what the files say.
            clock: the steady clock.
            boot: this boot's nonce.
            wall: the wall clock.
            learnt: called when governance has changed.
        """
        self.governance = governance
        self.clock = clock
        self._wall = wall
        self.counters: Counter[str] = Counter()
        self._fresh = Freshness.begin(boot)
        self._ready = asyncio.Event()
        self._asking: Mapping[str, Asking] = {}
        self._learnt = learnt
        self._bus: Bus | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def view(self) -> View:
        """What is known at this moment."""
        return View(governance=self.governance, fresh=self._fresh, now_ms=self.clock.now_ms(), wall_ms=self._wall())

    def hear(self, data: bytes) -> None:
        """Take a heartbeat as it came from the bus."""
        try:
            self._fresh = take_heartbeat(self._fresh, data, self.governance.roster, now_ms=self.clock.now_ms())
        except Refused as refusal:
            self.counters[refusal.code] += 1
        self._go_over()
        self._ask_for_law(self._gossip())
        self._look()

    def learn(self, data: bytes, node: str = "") -> None:
        """Take governance statements as they were published, or answered by ``node``."""
        gossip = self._gossip()
        try:
            _, refused = gossip.arrived(LawArrived(data, node))
            self.counters.update(refused)
        except Refused as refusal:
            self.counters[refusal.code] += 1
        self._ask_for_law(gossip)
        self._go_over()
        self._look()

    async def follow(self, bus: Bus) -> None:
        """Hear every heartbeat and every governance statement from now on."""
        self._bus = bus
        await bus.subscribe(subjects.hb(subjects.ANY), lambda message: self.hear(message.data))
        await bus.subscribe(subjects.law(subjects.ANY), lambda message: self.learn(message.data))

    def close(self) -> None:
        """Ask for nothing more."""
        self._bus = None
        for task in self._tasks:
            task.cancel()

    def _go_over(self) -> None:
        """Rule 4."""
        former = self.governance.roster
        after = next_roster(self.governance, self._fresh, now_ms=self.clock.now_ms())
        if after is None:
            return
        self.governance = put_in_force(self.governance, after.epoch)
        self._fresh = go_over(self._fresh, former, after)
        self._learnt()
        if self._bus is not None:
            self._spawn(self.ask_all(self._bus))  # new members have not answered this boot yet

    def _look(self) -> None:
        """Notice that this view may be acted by, once: whether it may be at any later moment is asked by whoever acts."""
        if self._ready.is_set():
            return
        view = self.view()
        with suppress(Refused):
            check_view(view.governance, view.fresh, wall_ms=view.wall_ms, now_ms=view.now_ms)
            self._ready.set()

    def _gossip(self) -> Gossip:
        return Gossip(self.governance, self._asking, (), now_ms=self.clock.now_ms())

    def _ask_for_law(self, gossip: Gossip) -> None:
        """Adopt what was learnt, and ask for what others hold."""
        changed = gossip.governance is not self.governance
        asks = gossip.due(self._fresh) if self._bus is not None else []
        self.governance, self._asking = gossip.governance, gossip.asking
        for ask in asks:
            self._spawn(self._pull(ask))
        if changed:
            self._learnt()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pull(self, ask: AskLaw) -> None:
        if self._bus is None:
            return
        question = pack(LawAsked(stream=ask.stream, sequence=ask.after.sequence, id=ask.after.id))
        try:
            answer = await self._bus.request(subjects.sync(ask.member), question, timeout_ms=_ASK_MS)
        except MeshError as error:
            self.counters[error.code] += 1
            return
        self.learn(answer.data, ask.member)

    async def ask_all(self, bus: Bus) -> None:
        """Rule 1; returns when all members have answered."""
        pause_s = self.governance.roster.bounds.heartbeat_ms / 1000
        while missing := [member.name for member in self.governance.roster.members if member.name not in self._fresh.echoed]:
            await asyncio.gather(*(self._ask(bus, member) for member in missing))
            await asyncio.sleep(pause_s)

    async def wait_ready(self, wait_ms: int) -> bool:
        """Whether within ``wait_ms`` this view could be acted by: k members have answered and I hold what they hold.

        Files may know a former roster or policy only, so by answers alone whoever asks at once is denied as ``wrong_epoch`` or ``stale``.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), wait_ms / 1000)
        return self._ready.is_set()

    async def _ask(self, bus: Bus, member: str) -> None:
        try:
            answer = await bus.request(subjects.sync(member), pack(Sync(nonce=self._fresh.boot)), timeout_ms=_ASK_MS)
            self.hear(bytes(unpack(SyncAnswer, answer.data).heartbeat))
        except MeshError as error:
            self.counters[error.code] += 1
