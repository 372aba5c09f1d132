"""Questions to other members; what they answer comes back as events. One that does not answer is asked again by whoever asked."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from typing import Final

from mesh.adapters.bus import Bus
from mesh.core import subjects
from mesh.core.bytes.canonical import Payload
from mesh.core.law.erase import ERASURES
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.reign import base_of
from mesh.core.law.retain import Floors
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import read_law
from mesh.core.messages import (
    BarrierAsked,
    BundleAsked,
    BundleGiven,
    LawAsked,
    LawBatch,
    LineageBatch,
    Pull,
    Sync,
    SyncAnswer,
    pack,
    unpack,
)
from mesh.errors import MeshError
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.barrier import asks
from mesh.protocol.events import BarrierArrived, HeartbeatArrived, LawArrived, LineageArrived
from mesh.protocol.freshness import answered
from mesh.protocol.step import Ask, AskLaw
from mesh.roles.performer import Performer

__all__ = ["Peers"]

_TIMEOUT_MS: Final = 2_000
_AGAIN_S: Final = 0.05
"""Between two rounds of questions."""
_AGAIN_S_MAX: Final = 1.0
"""The same, to a member that does not answer a start."""
_REFUSED: Final = b'{"answer":"refused",'


class Peers:
    """The other members, over the bus."""

    def __init__(
        self,
        bus: Bus,
        enqueue: Callable[[BarrierArrived | HeartbeatArrived | LawArrived | LineageArrived], None],
    ) -> None:
        """Ask over ``bus``; answers go to ``enqueue``."""
        self._bus = bus
        self.others: Sequence[str] = ()
        """The other members of the roster in force."""
        self._enqueue = enqueue

    async def pull(self, item: Ask | AskLaw) -> None:
        """Records of a log, or statements of a governance stream."""
        with suppress(MeshError):
            if isinstance(item, Ask):
                ask = Pull(origin=item.origin, first=item.first, count=BATCH_RECORDS_MAX)
                self._enqueue(LineageArrived(await self._request(item.member, ask), pulled=True, node=item.member))
            else:
                law = LawAsked(stream=item.stream, sequence=item.after.sequence, id=item.after.id)
                answer = await self._request(item.member, law)
                if not answer.startswith(_REFUSED):  # it was busy: that is no answer, and it is asked again like one that was silent
                    self._enqueue(LawArrived(answer, node=item.member))

    async def sync(self, member: str, nonce: str) -> None:
        """A heartbeat of now that names ``nonce``."""
        with suppress(MeshError):
            answer = await self._request(member, Sync(nonce=nonce))
            self._enqueue(HeartbeatArrived(bytes(unpack(SyncAnswer, answer).heartbeat)))

    async def sync_all(self, performer: Performer, wanted: Callable[[], bool]) -> None:
        """Ask every member for a heartbeat of now, until enough have answered, also without who is caught later; while it is ``wanted``."""
        roster, nonce, wait_s = performer.machine.governance.roster, performer.state.fresh.boot, _AGAIN_S
        while wanted():
            state = performer.state
            enough = answered(state.fresh, roster, state.governance.frozen)
            if not enough:
                await asyncio.gather(*(self.sync(name, nonce) for name in self.others if name not in state.fresh.echoed))
            wait_s = _AGAIN_S_MAX if enough else wait_s
            await asyncio.sleep(wait_s)
            wait_s = _AGAIN_S if enough else min(2 * wait_s, _AGAIN_S_MAX)

    async def bundle(self, digest: str) -> bytes | None:
        """The policy bundle of that digest, from whichever member gives it; not all nodes ask the same one first."""
        for member in random.sample(self.others, len(self.others)):
            with suppress(MeshError):
                return bytes(unpack(BundleGiven, await self._request(member, BundleAsked(digest=digest))).bundle)
        return None

    async def records(self, origin: str, index: int, fits: Callable[[LineageBatch], bool]) -> LineageBatch | None:
        """The record at ``index`` with its statements, from whichever member has what ``fits``; none if nobody answers so."""
        for member in self.others:
            with suppress(MeshError):
                found = unpack(LineageBatch, await self._request(member, Pull(origin=origin, first=index, count=1)))
                if (found.origin, found.first, len(found.records or found.pruned)) == (origin, index, 1) and fits(found):
                    return found
        return None

    async def floors(self, governance: Governance) -> Floors:
        """From where on the root lets logs be kept, by what members show; signatures are believed, by what ``governance`` knows."""
        streams = [ERASURES, *(name for name in governance.reigns if base_of(name) == ERASURES)]
        for member, stream in product(self.others, streams):
            after = Cursor(0, "")
            with suppress(MeshError):
                while shown := [read_law(bytes(raw)) for raw in (await self._said(member, stream, after)).statements]:
                    governance, last = extend(governance, shown).governance, shown[-1]
                    if (reached := Cursor(last.claims.link[1], last.id)) <= after:
                        break
                    after = reached
        return governance.floors

    async def _said(self, member: str, stream: str, after: Cursor) -> LawBatch:
        return unpack(LawBatch, await self._request(member, LawAsked(stream=stream, sequence=after.sequence, id=after.id)))

    async def ask_all(self, performer: Performer, wanted: Callable[[], bool]) -> None:
        """Ask every member what this node has signed, until its start is through, or it is no longer ``wanted``."""
        others = [member.name for member in performer.machine.governance.roster.members if member.name != performer.machine.me.name]
        await asyncio.gather(*(self._ask_start(name, performer, wanted) for name in others))

    async def _ask_start(self, member: str, performer: Performer, wanted: Callable[[], bool]) -> None:
        question, wait_s = BarrierAsked(asker=performer.machine.me.name, nonce=performer.state.fresh.boot), _AGAIN_S
        while wanted() and (waiting := performer.state.barrier) is not None:
            if asks(waiting, member, performer.state.governance):
                with suppress(MeshError):
                    answer = await self._request(member, question)
                    if not answer.startswith(_REFUSED):
                        self._enqueue(BarrierArrived(answer))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _AGAIN_S_MAX)

    async def _request(self, member: str, question: Payload) -> bytes:
        return (await self._bus.request(subjects.sync(member), pack(question), timeout_ms=_TIMEOUT_MS)).data
