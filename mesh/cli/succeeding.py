"""Which rosters there are besides those of the context's files: members are asked, the root's signatures say what is true.

Rules
-----
1. All members that are known are asked at once, and those of newer rosters as soon as they are known. It takes one answer of each, or
   until k of the roster in force have said all they hold; at most a second.
2. Each roster is believed because of the one before it. In force is the newest that has begun by this clock, and none older than the
   files say.
3. If nobody answers, or nobody holds more, the word of the files stands.

Who holds back a newer roster from a command holds it back from k members, or from this machine: nothing old is made right by that,
commands only ask those who have left.

Not here: acting by it; nodes go over when enough of them hold it (:mod:`mesh.protocol.adoption`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.reign import in_reign
from mesh.core.law.resolve import RESOLVES
from mesh.core.law.roster import ROSTERS, Roster
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import Said, cursor_of
from mesh.core.law.vouched import newest_begun
from mesh.errors import MeshError, Unavailable

__all__ = ["Learnt", "learn"]

_WAIT_S: Final = 1.0
Page = Callable[[str, str, Cursor], Awaitable[Sequence[Statement[Said]]]]
"""What that member shows of that stream behind that place; raises a :class:`MeshError` if it does not."""


class Learnt(NamedTuple):
    """What is known then."""

    governance: Governance
    """With all rosters that members show, of which the newest that has begun is in force."""
    rosters: tuple[bytes, ...]
    """Envelopes of those after the first, epoch after epoch."""
    reached: bool
    """Whether anybody answered at all."""


async def learn(page: Page, governance: Governance, rosters: Iterable[bytes], *, now_ms: int) -> Learnt:
    """Ask members by ``page``; ``governance`` says whom to believe to begin with, ``rosters`` are the envelopes of its rosters."""
    learner = _Learner(page, governance, rosters)
    await learner.ask_all(ROSTERS, Cursor(governance.rosters.newest.epoch), now_ms)
    if learner.governance.forked(ROSTERS):
        asked = set[str]()
        while (stream := _resolves(learner.governance)) not in asked:  # what is resolved may lead to another root, and so on
            asked.add(stream)
            await learner.ask_all(stream, Cursor(0), now_ms)
    return Learnt(newest_begun(learner.governance, now_ms), learner.rosters, bool(learner.reached))


def _resolves(governance: Governance) -> str:
    """The stream in which it stands what the root says about forks, or what is lacking before it."""
    stream = in_reign(RESOLVES, governance.rosters.since(RESOLVES))
    return governance.lacks(stream) or stream


class _Learner:
    """What members have shown so far."""

    def __init__(self, page: Page, governance: Governance, rosters: Iterable[bytes]) -> None:
        self.governance = governance
        self.reached = set[str]()
        self._page = page
        self._first = governance.roster.epoch
        self._envelopes = {envelope.identify(data)[1]: data for data in rosters}

    @property
    def rosters(self) -> tuple[bytes, ...]:
        """Envelopes of those after the first, epoch after epoch."""
        return tuple(self._envelopes[identity] for identity in self.governance.rosters.ids[1:] if identity in self._envelopes)

    async def ask_all(self, stream: str, after: Cursor, now_ms: int) -> None:
        """Rule 1."""
        now, told = asyncio.get_running_loop().time, set[str]()
        deadline_s = now() + _WAIT_S
        tasks = dict[str, asyncio.Task[bool]]()
        try:
            while True:
                for roster in self.governance.rosters.chain[self._first - 1 :]:
                    for member in roster.members:
                        if member.name not in tasks:
                            tasks[member.name] = asyncio.create_task(self._ask(member.name, stream, after))
                waiting = [task for task in tasks.values() if not task.done()]
                told = {name for name, task in tasks.items() if task.done() and task.result()}
                force = newest_begun(self.governance, now_ms).roster
                if not waiting or now() >= deadline_s or sum(member.name in told for member in force.members) >= force.k:
                    return
                await asyncio.wait(waiting, timeout=deadline_s - now(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _ask(self, member: str, stream: str, after: Cursor) -> bool:
        """Whether the member has said all that it holds."""
        try:
            while True:
                shown = await self._page(member, stream, after)
                self.reached.add(member)
                taken = extend(self.governance, shown)
                self.governance = taken.governance
                self._envelopes.update({item.id: item.envelope for item in taken.new if isinstance(item.claims, Roster)})
                last = max(map(cursor_of, shown), default=after)
                if taken.refused:
                    return False
                if last <= after:  # a member that brings nothing further would be asked for ever
                    return True
                after = last
        except Unavailable:
            return False
        except MeshError:
            self.reached.add(member)
            return False
