"""One request, one believed answer: the home region's governors first, then the others, within one deadline.

Rules
-----
1. A signed no by a member is an answer. One that only says that *this* governor cannot tell now (exit 4 in the registry) sends
   us on to the next region; so does silence, and an unsigned no that is not about the request itself.
2. An authorization is handed on as it came: the enforcer judges it.
3. Asking twice is harmless: whatever the answers are, an intent is spent once.

Not here: making intents, verifying authorizations.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from mesh.adapters.bus import Bus
from mesh.codes import CODES
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.roster import Roster
from mesh.core.messages import Answer, Authorized, DeniedAnswer, RefusedAnswer, unpack_answer
from mesh.core.run.authorization import Denial
from mesh.errors import MeshError, Refused
from mesh.gate.errors import Denied

__all__ = ["Regions", "ask"]

_TRY_MS: Final = 2_500
"""For one region: longer than a governor under load needs, short enough to leave time for another."""
_ELSEWHERE_EXIT: Final = 4
_INVALID_EXIT: Final = 3


class Regions:
    """All regions with governors, as the roster in force says, the home region first; and one of them whose turn it is."""

    def __init__(self, roster: Callable[[], Roster], home: str) -> None:
        """Begin at home."""
        self._roster = roster
        self._home = home
        self._turn = 0

    @property
    def every(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(dict.fromkeys((self._home, *(member.region for member in self._roster().members))))

    @property
    def current(self) -> str:
        """Whose turn it is."""
        return self.every[self._turn % len(self.every)]

    def turn(self) -> None:
        """The next one: this one did not answer."""
        self._turn += 1


async def ask(
    bus: Bus, request: bytes, intent: str, *, regions: Sequence[str], tenant: str, workload: str, roster: Roster, deadline_ms: int
) -> Authorized:
    """The answer of governors to the packed ``request`` for the intent of that id.

    Raises:
        Denied: with the code of the first no that was heard; ``unreachable`` when there was none.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_ms / 1000
    first: Denied | None = None
    for region in regions:
        left_ms = int((end - loop.time()) * 1000)
        if left_ms <= 0:
            break
        try:
            answer = await bus.request(subjects.intent(region, tenant, workload), request, timeout_ms=min(_TRY_MS, left_ms))
            return _judge(unpack_answer(answer.data), intent, roster)
        except Denied as denied:
            if _final(denied):
                raise
            if first is None or first.code == "unreachable":
                first = denied
        except MeshError as error:  # nobody there, or nothing that can be read
            first = first or Denied(error.code, error.detail, intent=intent)
    raise first or Denied("unreachable", "no time left to ask", intent=intent)


def _judge(answer: Answer, intent: str, roster: Roster) -> Authorized:
    match answer:
        case Authorized():
            return answer
        case RefusedAnswer(code=code, detail=detail):
            raise Denied(code, detail, intent=intent)
        case DeniedAnswer(denial=raw):
            statement = envelope.read(Denial, bytes(raw))
            claims = statement.verify(roster.member(statement.claims.issuer).decision_key)
            if (claims.mesh, claims.intent) != (roster.mesh, intent):
                raise Refused("intent_conflict", "a denial of something else")
            raise Denied(claims.code, claims.detail, claims.record, intent=intent)


def _final(denied: Denied) -> bool:
    exit_ = CODES[denied.code].exit
    return exit_ != _ELSEWHERE_EXIT if denied.record is not None else exit_ == _INVALID_EXIT
