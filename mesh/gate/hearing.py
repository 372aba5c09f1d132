"""What this process has heard is said, signed, to governors: from now on it starts nothing that this state denies.

Rules
-----
1. Said is what every start is checked against at that moment, and never what is still to be taken in.
2. The first word waits until this boot was fresh once; then each change is said, one every :data:`EVERY_S` seconds at most, what is
   newest then.
3. A word is brought until one governor has recorded it. What is newer takes the place of what was not recorded yet; nothing is kept
   over a restart: the next boot says it anew. A receipt is enough: a governor that gives one and keeps no record makes people see
   an enforcer as missing that is not, until it has something new to say.
4. Whatever goes wrong is tried again, ever more rarely. Nothing that runs or starts depends on it.

Not here: what was heard (:mod:`mesh.gate.outlook`), what a governor does with a word (:mod:`mesh.protocol.hearing`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

import msgspec

from mesh.adapters.bus import Bus
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Draft
from mesh.core.law.heartbeat import StreamHead
from mesh.core.messages import HeardRequest, OutcomeAnswer, RefusedAnswer, pack, unpack
from mesh.core.run.heard import Heard
from mesh.errors import MeshError, Refused
from mesh.gate.asking import Regions
from mesh.protocol.adoption import check_view
from mesh.protocol.enforcer import Place, View, check_receipt

__all__ = ["EVERY_S", "Teller"]

EVERY_S: Final = 0.25
_ASK_MS: Final = 2_000
_ROUNDS_MAX: Final = 5
"""Of all regions, after which the pause no longer doubles: then it is eight seconds."""
_SUPERSEDED: Final = "superseded"
_ANSWER: Final = cast("type[OutcomeAnswer | RefusedAnswer]", OutcomeAnswer | RefusedAnswer)

_log = logging.getLogger(__name__)


class Teller:
    """One boot's words."""

    def __init__(self, bus: Bus, place: Place, regions: Regions, *, view: Callable[[], View], sign: Callable[[Draft], bytes]) -> None:
        """Speak for the enforcer ``place`` to governors of ``regions``, one after the other, of what ``view`` shows; ``sign`` seals it."""
        self._bus = bus
        self._place = place
        self._regions = regions
        self._view = view
        self._sign = sign
        self._token = subjects.short(place.document.claims.subject)
        self._frontier: tuple[StreamHead, ...] | None = None
        """What was said last, unless it must be said anew."""
        self._sequence = 0
        self._unsent: tuple[str, bytes] | None = None
        """Id and message of the newest word, until it is recorded."""
        self._wake = asyncio.Event()
        self.counters: Counter[str] = Counter()

    def learnt(self) -> None:
        """What governs has changed, and is in force here."""
        self._wake.set()

    async def run(self) -> None:
        """Speak for ever."""
        while not self._fresh():
            self._wake.clear()
            await self._pause(EVERY_S)
        failed = 0
        while True:
            self._wake.clear()
            self._say()
            if self._unsent is not None:
                failed = 0 if await self._bring(*self._unsent) else failed + 1
            await asyncio.sleep(EVERY_S)  # rule 2
            rounds = min(failed // len(self._regions.every), _ROUNDS_MAX)
            await self._pause(EVERY_S * (2**rounds - 1) if self._unsent is not None else None)

    async def _pause(self, length_s: float | None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), length_s)

    def _fresh(self) -> bool:
        view = self._view()
        try:
            check_view(view.governance, view.fresh, wall_ms=view.wall_ms, now_ms=view.now_ms)
        except Refused:
            return False
        return True

    def _say(self) -> None:
        """Sign what is in force now, if it is not what was said last (rule 1)."""
        view = self._view()
        if view.governance.frontier == self._frontier:
            return
        self._frontier = view.governance.frontier
        self._sequence += 1
        claims = self._place.document.claims
        draft = envelope.draft(
            Heard(
                mesh=claims.mesh,
                enforcer=claims.key,
                identity=self._place.document.id,
                boot=self._place.boot,
                sequence=self._sequence,
                frontier=list(self._frontier),
                at_ms=view.now_ms,
            )
        )
        request = HeardRequest(heard=msgspec.Raw(self._sign(draft)), identity=msgspec.Raw(self._place.document.envelope))
        self._unsent = draft.id, pack(request)

    async def _bring(self, identity: str, request: bytes) -> bool:
        """Whether it is recorded."""
        try:
            message = await self._bus.request(subjects.outcome(self._regions.current, self._token), request, timeout_ms=_ASK_MS)
            answer = unpack(_ANSWER, message.data)
            if isinstance(answer, RefusedAnswer):
                self.counters[answer.code] += 1
                if answer.code == _SUPERSEDED:
                    self._frontier = None  # a boot before this one, or a sibling, spoke after this was signed: it is said anew
                raise Refused("unrecorded", f"{answer.code}: {answer.detail}"[:200])
            (receipt,) = answer.receipts if len(answer.receipts) == 1 else (b"",)
            check_receipt(bytes(receipt), identity, self._view().governance)
        except MeshError as error:
            _log.info("what was heard is not recorded in %s: %s", self._regions.current, error)
            self.counters["unrecorded"] += 1
            self._regions.turn()
            return False
        self.counters["recorded"] += 1
        self._unsent = None
        return True
