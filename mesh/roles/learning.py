"""What governs, learnt from members by somebody who is none of them: every statement is verified, and every policy checked here.

Rules
-----
1. Each member is asked what it holds, by a heartbeat that it signs, and for what is lacking here; also those of a roster that was
   just learnt. One that shows nothing, or nothing that can be believed, costs one question.
2. A policy is admitted as a node admits it (:mod:`mesh.policy.admission`); one that is refused is named once, and what was decided
   by it stays unverifiable.

3. In force is the newest roster that has begun: its members are asked the next time.

Not here: freshness. Whoever only replays waits for what it lacks.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from mesh.adapters.cedar import CedarEngine
from mesh.adapters.decision_thread import DecisionThread
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import with_bundle
from mesh.core.law.governance import Governance, Law
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.policy import read_bundle
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import Said, read_law
from mesh.core.law.vouched import newest_begun
from mesh.core.messages import BundleAsked, BundleGiven, LawAsked, LawBatch, Sync, SyncAnswer, unpack
from mesh.errors import MeshError, Refused
from mesh.policy.admission import examine, install
from mesh.protocol.gossip import rosters_first, wanted
from mesh.roles.pulling import pull_stream

__all__ = ["Learning"]

Ask = Callable[[str, Payload], Awaitable[bytes]]
"""A member and a question to its answer; raises a :class:`MeshError` if there is none."""

_log = logging.getLogger(__name__)


class Learning:
    """What is known so far; :meth:`go_on` asks for more."""

    def __init__(self, governance: Governance, ask: Ask, engine: CedarEngine, thread: DecisionThread) -> None:
        """Begin with ``governance``, whose bundles ``engine`` holds already; it is loaded on ``thread``."""
        self.governance = governance
        self._ask = ask
        self._engine = engine
        self._thread = thread
        self._refused = set[str]()

    async def go_on(self, *, now_ms: int) -> Governance:
        """Ask every member once; what is known then."""
        asked = set[str]()
        while lacking := [name for name in self._names() if name not in asked]:
            asked.add(lacking[0])
            with suppress(MeshError):
                frontier = await self._frontier(lacking[0])
                for stream in rosters_first(wanted(self.governance, frontier)):
                    self.governance, _ = await pull_stream(partial(self._page, lacking[0], stream), self.governance, frontier, stream)
        self.governance = newest_begun(self.governance, now_ms)
        for laws in list(self.governance.laws.values()):
            for law in laws:
                if law.bundle is None and law.manifest_id not in self._refused:
                    await self._admit(law)
        return self.governance

    def _names(self) -> list[str]:
        """Members of the roster in force, then those of newer ones."""
        rosters = [self.governance.roster, *self.governance.rosters.chain[self.governance.roster.epoch :]]
        return list(dict.fromkeys(member.name for roster in rosters for member in roster.members))

    async def _frontier(self, name: str) -> Sequence[StreamHead]:
        answer = unpack(SyncAnswer, await self._ask(name, Sync(nonce=secrets.token_hex(32))))
        said = envelope.read(Heartbeat, bytes(answer.heartbeat))
        beat = self.governance.rosters.judged(
            lambda roster: said.verify(roster.member(name).decision_key), by=lambda roster: roster.members
        )
        return beat.frontier if beat.member == name else []

    async def _page(self, name: str, stream: str, after: Cursor) -> list[Statement[Said]]:
        page = unpack(LawBatch, await self._ask(name, LawAsked(stream=stream, sequence=after.sequence, id=after.id)))
        return [read_law(bytes(raw)) for raw in page.statements]

    async def _admit(self, law: Law) -> None:
        for name in self._names():
            with suppress(MeshError):
                data = bytes(unpack(BundleGiven, await self._ask(name, BundleAsked(digest=law.manifest.digest))).bundle)
                bundle = read_bundle(data, digest=law.manifest.digest)
                break
        else:
            return
        try:
            await asyncio.to_thread(examine, [data])
            await self._thread.run(install, law.manifest, bundle, self._engine)
        except Refused as refusal:
            self._refused.add(law.manifest_id)
            _log.warning("policy of %s epoch %d is not admitted: %s", law.manifest.domain, law.manifest.epoch, refusal)
        else:
            self.governance = with_bundle(self.governance, law.manifest_id, bundle)
