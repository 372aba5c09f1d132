"""What this process knows of the mesh now: who signed what and when, asked for at the start and heard ever after.

Rules
-----
1. Nothing is fresh until k members answered this boot's nonce; they are asked at once, and again until all have answered.
2. What cannot be believed changes nothing and is counted.

Not here: what freshness means (:mod:`mesh.protocol.freshness`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from mesh.adapters.bus import Bus, Message
from mesh.adapters.clock import Clock, wall_ms
from mesh.core import subjects
from mesh.core.law.governance import Governance
from mesh.core.messages import Sync, SyncAnswer, pack, unpack
from mesh.errors import MeshError, Refused
from mesh.protocol.enforcer import View, take_heartbeat
from mesh.protocol.freshness import Freshness

__all__ = ["Outlook"]

_ASK_MS: Final = 2_000


class Outlook:
    """The enforcer's view, kept up to date."""

    def __init__(self, governance: Governance, clock: Clock, boot: str, wall: Callable[[], int] = wall_ms) -> None:
        """Nothing heard yet; ``boot`` is this boot's nonce, ``wall`` the wall clock."""
        self.governance = governance
        self.clock = clock
        self._wall = wall
        self.counters: Counter[str] = Counter()
        self._fresh = Freshness.begin(boot)
        self._answered = asyncio.Event()

    def view(self) -> View:
        """What is known at this moment."""
        return View(governance=self.governance, fresh=self._fresh, now_ms=self.clock.now_ms(), wall_ms=self._wall())

    def hear(self, data: bytes) -> None:
        """Take a heartbeat as it came from the bus."""
        try:
            self._fresh = take_heartbeat(self._fresh, data, self.governance.roster, now_ms=self.clock.now_ms())
        except Refused as refusal:
            self.counters[refusal.code] += 1
        if len(self._fresh.echoed) >= self.governance.roster.k:
            self._answered.set()

    async def follow(self, bus: Bus) -> None:
        """Hear every heartbeat from now on."""
        await bus.subscribe(subjects.hb(subjects.ANY), self._heard)

    def _heard(self, message: Message) -> None:
        self.hear(message.data)

    async def ask_all(self, bus: Bus) -> None:
        """Rule 1; returns when all members have answered."""
        pause_s = self.governance.roster.bounds.heartbeat_ms / 1000
        while missing := [member.name for member in self.governance.roster.members if member.name not in self._fresh.echoed]:
            await asyncio.gather(*(self._ask(bus, member) for member in missing))
            await asyncio.sleep(pause_s)

    async def wait_answered(self, wait_ms: int) -> bool:
        """Whether k members have answered within ``wait_ms``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), wait_ms / 1000)
        return self._answered.is_set()

    async def _ask(self, bus: Bus, member: str) -> None:
        try:
            answer = await bus.request(subjects.sync(member), pack(Sync(nonce=self._fresh.boot)), timeout_ms=_ASK_MS)
            self.hear(bytes(unpack(SyncAnswer, answer.data).heartbeat))
        except MeshError as error:
            self.counters[error.code] += 1
