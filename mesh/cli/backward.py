"""A log read from its newest record backwards, as k members attested it, as far as somebody wants it.

Rules
-----
1. The log's largest proved certificate says what is final. What a member holds beyond is handed on as its word, never as final, and no more
   of it than :data:`BEYOND_MAX`: whoever invents records can do that without end.
2. A stretch of records is read with the inclusion proof of its first one. That proof holds the tree before it; with the stretch it must
   become the tree behind it, which is the certified one or was proved with the stretch before. So one certificate is looked at for each
   stretch, none for each record, and nothing is handed on before it was checked.
3. Where a span of time ends is searched with single records, since times in a log never decrease. The record there is read too: it must be
   beyond the span, or the member hid some. Where the span begins the reading ends, at a certified record that is older.
4. A member that fails is left for the next one, at the stretch where it failed.

Not here: which records are meant (:mod:`mesh.cli.sifting`), many logs together (:mod:`mesh.cli.listing`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from mesh.cli import recorded
from mesh.cli.client import MeshClient
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import Record, read_record
from mesh.core.messages import LineageBatch, NodeStatus
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import BATCH_RECORDS_MAX, CLOCK_MS_MAX
from mesh.protocol.proving import by_id

__all__ = ["ALWAYS", "BEYOND_MAX", "Backward", "Span", "Stretch"]

_STRETCH_MAX: Final = 8 * BATCH_RECORDS_MAX
"""Records that are read with one proof, at most; the first stretch is one batch, since most who ask want the newest few."""


BEYOND_MAX: Final = 8_192
"""Records that are not final and yet read: what some minutes without k members leave behind, and a second's work."""


class Span(msgspec.Struct, frozen=True):
    """From ``since_ms`` on, before ``until_ms``; ms since the epoch."""

    since_ms: int
    until_ms: int


ALWAYS: Final = Span(0, CLOCK_MS_MAX + 1)


class Stretch(msgspec.Struct, frozen=True):
    """Consecutive records of one log, oldest first."""

    records: Sequence[Record]
    final: bool
    member: str
    """Who served them."""
    bodies: Mapping[str, bytes]
    """Statement id to envelope, of what came with them."""


class Backward:
    """One log."""

    def __init__(self, mesh: MeshClient, answers: Mapping[str, NodeStatus], origin: str, say: Callable[[str], None], *, bare: bool) -> None:
        """Read ``origin`` from whoever is among ``answers``; ``say`` is told what could not be had.

        ``bare`` leaves out the statements that records name: :meth:`statements` brings those of some.
        """
        self._bare = bare
        self.origin = origin
        self.complete = True
        """Whether all that was asked for could be had."""
        self._mesh, self._answers, self._say = mesh, answers, say

    @property
    def size(self) -> int:
        """How many records somebody says that it has."""
        return max((recorded.held(answer, self.origin) for answer in self._answers.values()), default=0)

    async def stretches(self, span: Span) -> AsyncIterator[Stretch]:
        """The records of the span, the newest stretch first."""
        try:
            head = await recorded.head_of(self._mesh, self._answers, self.origin)
        except MeshError as error:
            head = None
            self._missed(f"nothing of {self.origin} could be proved: {error}")
        async for stretch in self._beyond(head.size if head is not None else 0, span):
            yield stretch
        if head is not None:
            async for stretch in self.certified(head, span):
                yield stretch

    async def statements(self, stretch: Stretch, records: Sequence[Record]) -> Mapping[str, bytes]:
        """What ``records`` of a stretch name, by id, as far as who served them gives it."""
        if not self._bare:
            return stretch.bodies
        found, at = dict[str, bytes](), 0
        with suppress(MeshError):
            while at < len(records):
                first = records[at].index
                batch = await self._mesh.records(stretch.member, self.origin, first, min(BATCH_RECORDS_MAX, records[-1].index - first + 1))
                if batch.first != first or not batch.records:
                    break
                found.update(by_id(batch.bodies))
                while at < len(records) and records[at].index < first + len(batch.records):
                    at += 1
        return found

    def _missed(self, text: str) -> None:
        self.complete = False
        self._say(text)

    # ----------------------------------------------------------------------------------------------------- not final yet

    async def _beyond(self, size: int, span: Span) -> AsyncIterator[Stretch]:
        """What is not final yet, as the first one serves it who has what it says that it has."""
        claims = {member: recorded.held(answer, self.origin) for member, answer in self._answers.items()}
        failure: MeshError | None = None
        for member, claimed in sorted(claims.items(), key=lambda claim: -claim[1]):
            end = top = min(claimed, size + BEYOND_MAX)
            try:
                while end > size:
                    first = max(size, end - BATCH_RECORDS_MAX)
                    records, bodies, _ = await self._read(member, first, end)
                    if end == top < claimed:
                        self._missed(f"{member} holds more of {self.origin} that is not final: {claimed - top:,} records were not read")
                    yield _within(Stretch(records, final=False, member=member, bodies=bodies), span)
                    if records[0].at_ms < span.since_ms:
                        return
                    end = first
            except MeshError as error:
                failure = error
                if end == top:
                    continue  # it brought nothing
            else:
                return
            break
        if failure is not None:
            self._missed(f"what is not final yet of {self.origin} could not all be had: {failure}")

    # ------------------------------------------------------------------------------------------------------------- final

    async def certified(self, head: recorded.Head, span: Span) -> AsyncIterator[Stretch]:
        """The final records of the span, the newest stretch first; some may have none."""
        begun, behind, root = False, head.size, head.root
        failure: MeshError = Unavailable("unreachable", self.origin)
        for member in recorded.readers(self._mesh, self._answers, head):
            width = BATCH_RECORDS_MAX
            try:
                if not begun:
                    behind, root = await self._behind(member, head, span)
                while behind > 0:
                    first = max(0, behind - width)
                    try:
                        stretch, before = await self._proved(member, head, (first, behind), root)
                    except Refused as refusal:
                        if refusal.code != "record_pruned" or behind - first == 1:
                            raise
                        width = (behind - first) // 2  # some of them may be kept
                        continue
                    if not begun and behind < head.size and stretch.records[-1].at_ms < span.until_ms:
                        raise Refused("bad_proof", f"{member} said that {self.origin} {behind - 1} is behind that time, and it is not")
                    begun = True
                    yield _within(stretch, span)
                    if stretch.records[0].at_ms < span.since_ms:
                        return
                    behind, root, width = first, before, min(2 * width, _STRETCH_MAX)
            except MeshError as error:
                failure = error
            else:
                return
        self._missed(f"{self.origin} could not be read below {behind}: {failure}")

    async def _behind(self, member: str, head: recorded.Head, span: Span) -> tuple[int, bytes]:
        """Where to begin, with the root of what is before: one behind the last record of the span as ``member`` says (rule 3)."""
        if span.until_ms > CLOCK_MS_MAX:
            return head.size, head.root
        behind = min(await recorded.first_since(self._mesh, member, head, span.until_ms) + 1, head.size)
        if behind == head.size:
            return behind, head.root
        return behind, (await recorded.tree_before(self._mesh, member, head, behind)).root()

    async def _proved(self, member: str, head: recorded.Head, part: tuple[int, int], root: bytes) -> tuple[Stretch, bytes]:
        """The records from ``part[0]`` to before ``part[1]``, where the tree has that root, with the root before them (rule 2)."""
        tree = await recorded.tree_before(self._mesh, member, head, part[0])
        records, bodies, leaves = await self._read(member, *part)
        if tree.extend(map(leaf_hash, leaves)).root() != root:
            raise Refused("bad_proof", f"what {member} serves of {self.origin} from {part[0]} on does not lead to the certified root")
        return Stretch(records, final=True, member=member, bodies=bodies), tree.root()

    async def _read(self, member: str, first: int, end: int) -> tuple[list[Record], dict[str, bytes], list[bytes]]:
        ask = self._mesh.leaves if self._bare else self._mesh.records
        bodies, leaves = dict[str, bytes](), list[bytes]()

        def asked(at: int) -> Coroutine[None, None, LineageBatch]:
            return ask(member, self.origin, at, min(BATCH_RECORDS_MAX, end - at))

        # At once, so that one is read here while the next is looked up there. One that does not hold all is followed by more.
        ahead = {at: asyncio.create_task(asked(at)) for at in range(first, end, BATCH_RECORDS_MAX)}
        try:
            while first + len(leaves) < end:
                at = first + len(leaves)
                batch = await (ahead.pop(at) if at in ahead else asked(at))
                if (batch.origin, batch.first) != (self.origin, at) or not batch.records:
                    raise Refused("not_found", f"{member} does not serve {self.origin} {at}")
                bodies.update(by_id(batch.bodies))
                leaves += [bytes(raw) for raw in batch.records][: end - at]
        finally:
            for task in ahead.values():
                task.cancel()
            await asyncio.gather(*ahead.values(), return_exceptions=True)
        records = [read_record(leaf) for leaf in leaves]
        if any((record.origin, record.index) != (self.origin, index) for index, record in enumerate(records, first)):
            raise Refused("malformed", f"{member} serves other records than those of {self.origin} from {first} on")
        return records, bodies, leaves


def _within(stretch: Stretch, span: Span) -> Stretch:
    chosen = [record for record in stretch.records if span.since_ms <= record.at_ms < span.until_ms]
    return stretch if len(chosen) == len(stretch.records) else msgspec.structs.replace(stretch, records=chosen)
