"""Questions to other members; what they answer comes back as events. One that does not answer is asked again by whoever asked."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from mesh.adapters.bus import Bus
from mesh.core import subjects
from mesh.core.bytes.canonical import Payload
from mesh.core.messages import LawAsked, Pull, Sync, SyncAnswer, pack, unpack
from mesh.errors import MeshError
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.governor import HeartbeatArrived, LawArrived, LineageArrived
from mesh.protocol.step import Ask, AskLaw

__all__ = ["Peers"]

_TIMEOUT_MS: Final = 2_000
_REFUSED: Final = b'{"answer":"refused",'


class Peers:
    """The other members, over the bus."""

    def __init__(self, bus: Bus, enqueue: Callable[[HeartbeatArrived | LawArrived | LineageArrived], None]) -> None:
        """Ask over ``bus``; answers go to ``enqueue``."""
        self._bus = bus
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

    async def _request(self, member: str, question: Payload) -> bytes:
        return (await self._bus.request(subjects.sync(member), pack(question), timeout_ms=_TIMEOUT_MS)).data
