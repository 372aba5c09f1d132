"""A governance stream is what one source has said, numbered without gaps and chained; how much of it is held is a pure value.

Rules
-----
1. What is held is a function of the *set* of statements taken in, whatever the order and however often each came.
2. Only the gapless chain from 1 on is advertised. A statement without its predecessor is kept (*loose*), and advances nothing.
3. Two statements under one number, or one that names another predecessor than the one held, are a fork: their author has said
   two things. From then on the stream is only a set. What it says still denies; nobody waits for what it may still say. But
   a chain that others hold and advertise is waited for as before: a fork shown to me alone must not hide it from me.
4. Whoever may end a fork names a statement of it: :func:`settle` answers the one history that leads there and goes on behind it.
   What is held stays the same set.
5. A frontier lists one head per stream; :func:`mesh.core.law.heartbeat.covers` compares two, :func:`ahead` says what another one has and
   I lack.

Not here: what statements mean (:mod:`mesh.core.law.governance`), how they travel (:mod:`mesh.protocol.gossip`).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mesh.core.bytes.canonical import sha256_hex
from mesh.core.law.heartbeat import StreamHead
from mesh.errors import Refused
from mesh.limits import STREAM_STATEMENTS_MAX

__all__ = ["Chain", "Cursor", "Fork", "Growth", "Link", "Stream", "ahead", "common", "head_of", "leading", "onward", "settle", "take"]


class Link(msgspec.Struct, frozen=True):
    """One statement's place in its stream."""

    sequence: int
    """From 1."""
    id: str
    previous: str
    """Id of the statement before; empty for the first."""


class Chain(msgspec.Struct, frozen=True):
    """A stream whose author has said one thing so far."""

    ids: tuple[str, ...] = ()
    """Of the gapless beginning: number n stands at n-1."""
    loose: Mapping[int, Link] = {}
    """By number, what came before its predecessor did."""


class Fork(msgspec.Struct, frozen=True):
    """A stream whose author has said two things."""

    ids: frozenset[str]
    whole: Mapping[str, Link]
    """By id, those whose predecessors are all held: whoever's chain ends in one of them, I hold all of it."""
    broken: tuple[Link, ...]
    """The others."""
    digest: str
    """Of all ids, by which two holders see that they differ: made once, because every heartbeat is compared with it."""


Stream = Chain | Fork


class Cursor(msgspec.Struct, frozen=True, order=True):
    """Where to go on: behind this in the order (number, id). An empty id is before all statements of its number."""

    sequence: int
    id: str = ""


class Growth:
    """A stream while statements are added to it: one copy for all of them, however long it is, and none for what is held."""

    def __init__(self, stream: Stream, *, most: int = STREAM_STATEMENTS_MAX, room: int = STREAM_STATEMENTS_MAX) -> None:
        """Begin from ``stream``, which stays as it is; its numbers end at ``most``, and a fork has room for twice ``room``."""
        self._before = stream
        self._most = most
        self._room = min(most, room)
        self._chain: _GrowingChain | None = None
        self._fork: _GrowingFork | None = None
        """One of the two, once something was added."""

    def holds(self, link: Link) -> bool:
        """Whether that statement is held already."""
        if self._fork is not None:
            return link.id in self._fork.ids
        if self._chain is None and isinstance(self._before, Fork):
            return link.id in self._before.ids
        ids, loose = (self._chain.ids, self._chain.loose) if self._chain is not None else _parts(self._before)
        if link.sequence <= len(ids):
            return link.sequence > 0 and ids[link.sequence - 1] == link.id
        found = loose.get(link.sequence)
        return found is not None and found.id == link.id

    def add(self, link: Link) -> None:
        """Add a statement that is not held.

        Raises:
            Refused: ``malformed`` for a number that no statement has, ``stream_full``.
        """
        if link.sequence < 1 or (link.sequence == 1) != (link.previous == ""):
            raise Refused("malformed", f"number {link.sequence} of a stream after {link.previous[:12]!r}")
        if link.sequence > self._most:  # by what it says, so that all refuse the same
            raise Refused("stream_full", f"number {link.sequence}, the last one is {self._most}")
        if self._fork is None and isinstance(self._before, Fork):
            self._fork = _GrowingFork.of(self._before)
        if self._fork is None:
            self._chain = self._chain or _GrowingChain(*_parts(self._before))
            if not self._chain.contradicts(link):
                self._chain.add(link)
                return
            self._fork = self._chain.forked()
        elif len(self._fork.ids) >= 2 * self._room:  # room for two whole histories: what makes a fork is always taken in
            raise Refused("stream_full", f"{2 * self._room} statements of a fork")
        self._fork.add(link)

    def finish(self) -> Stream:
        """The stream now; the very same object if nothing was added."""
        if self._fork is not None:
            return self._fork.finish()
        return Chain(tuple(self._chain.ids), self._chain.loose) if self._chain is not None else self._before


class _GrowingChain:
    def __init__(self, ids: Sequence[str], loose: Mapping[int, Link]) -> None:
        self.ids = list(ids)
        self.loose = dict(loose)

    def add(self, link: Link) -> None:
        self.loose[link.sequence] = link
        while (found := self.loose.pop(len(self.ids) + 1, None)) is not None:
            self.ids.append(found.id)

    def contradicts(self, link: Link) -> bool:
        """Whether what is held under this number, before it or after it, cannot stand beside it."""
        at, held, before = link.sequence, len(self.ids), link.previous
        if at <= held or at in self.loose:
            return True
        if at - 1 in self.loose:
            before = self.loose[at - 1].id
        elif at > 1 and at - 1 == held:
            before = self.ids[-1]
        after = self.loose.get(at + 1)
        return before != link.previous or (after is not None and after.previous != link.id)

    def forked(self) -> "_GrowingFork":
        links = map(Link, range(1, len(self.ids) + 1), self.ids, ["", *self.ids])
        fork = _GrowingFork({*self.ids}, {link.id: link for link in links}, {})
        for link in self.loose.values():
            fork.add(link)
        return fork


class _GrowingFork:
    def __init__(self, ids: set[str], whole: dict[str, Link], waiting: dict[str, list[Link]]) -> None:
        self.ids = ids
        self.whole = whole
        self.waiting = waiting
        """By the predecessor that they lack."""

    @classmethod
    def of(cls, fork: Fork) -> "_GrowingFork":
        grown = cls(set(fork.ids), dict(fork.whole), {})
        for link in fork.broken:
            grown.waiting.setdefault(link.previous, []).append(link)
        return grown

    def add(self, link: Link) -> None:
        self.ids.add(link.id)
        added = [link]
        while added:
            item = added.pop()
            before = self.whole.get(item.previous)
            if item.sequence == 1 or (before is not None and before.sequence == item.sequence - 1):
                self.whole[item.id] = item
                added += self.waiting.pop(item.id, ())
            else:
                self.waiting.setdefault(item.previous, []).append(item)

    def finish(self) -> Fork:
        broken = sorted((link for links in self.waiting.values() for link in links), key=lambda link: (link.sequence, link.id))
        digest = sha256_hex("".join(sorted(self.ids)).encode())
        return Fork(frozenset(self.ids), self.whole, tuple(broken), digest)


def _parts(stream: Stream) -> tuple[Sequence[str], Mapping[int, Link]]:
    return (stream.ids, stream.loose) if isinstance(stream, Chain) else ((), {})


def take(stream: Stream, links: Iterable[Link]) -> Stream:
    """The stream with these statements more. Raises as :meth:`Growth.add`."""
    growth = Growth(stream)
    for link in links:
        if not growth.holds(link):
            growth.add(link)
    return growth.finish()


def settle(fork: Fork, head: str) -> tuple[str, ...]:
    """The history that leads to ``head`` and goes on behind it; nothing if there is none, or if behind it are two."""
    path, parted = onward(fork, head)
    return () if parted else path


def onward(fork: Fork, head: str) -> tuple[tuple[str, ...], bool]:
    """The history that leads to ``head`` and goes on behind it until it parts, if it does; and whether it does."""
    start = fork.whole.get(head)
    path = list(leading(fork, start.sequence, head)) if start is not None else []
    after = dict[str, list[str]]()
    for link in fork.whole.values():
        after.setdefault(link.previous, []).append(link.id)
    while path and (following := after.get(path[-1])):
        if len(following) > 1:
            return tuple(path), True
        path += following
    return tuple(path), False


def leading(stream: Stream, sequence: int, head: str) -> tuple[str, ...]:
    """Ids of the history up to that statement of that number, from the first on; nothing unless all of it is held."""
    if isinstance(stream, Chain):
        return stream.ids[:sequence] if stream.ids[sequence - 1 : sequence] == (head,) else ()
    path, at = list[str](), head
    while at in stream.whole:
        path.append(at)
        at = stream.whole[at].previous
    path.reverse()
    return tuple(path) if len(path) == sequence else ()


def common(fork: Fork) -> tuple[str, ...]:
    """The history up to where it parts."""
    after = dict[str, list[str]]()
    for link in fork.whole.values():
        after.setdefault(link.previous, []).append(link.id)
    path, at = list[str](), ""
    while len(following := after.get(at, [])) == 1:
        at = following[0]
        path.append(at)
    return tuple(path)


def head_of(name: str, stream: Stream, settled: Sequence[str] = ()) -> StreamHead | None:
    """What a frontier says of the stream; nothing as long as nothing can be said.

    Of a fork: how many statements are held, and the digest of all their ids. If it is ``settled``, as of a chain, and that digest.
    """
    if isinstance(stream, Fork) and not settled:
        return StreamHead(stream=name, sequence=len(stream.ids), head=stream.digest, forked=True, held="")
    ids, held = (settled, stream.digest) if isinstance(stream, Fork) else (stream.ids, "")
    return StreamHead(stream=name, sequence=len(ids), head=ids[-1], forked=False, held=held) if ids else None


def ahead(streams: Mapping[str, Stream], theirs: Sequence[StreamHead]) -> dict[str, Cursor]:
    """Of which streams another claims to hold what I do not, and behind what to ask."""
    wanted = dict[str, Cursor]()
    for head in theirs:
        own = streams.get(head.stream, Chain())
        if isinstance(own, Fork):
            # Whoever holds fewer may still hold another: counts say nothing about sets.
            theirs_all = head.head if head.forked else head.held
            if theirs_all != own.digest if theirs_all else head.sequence > 0 and head.head not in own.whole:
                wanted[head.stream] = Cursor(0)
        elif head.forked or head.held:
            wanted[head.stream] = Cursor(0)
        elif head.sequence > len(own.ids):
            wanted[head.stream] = Cursor(len(own.ids) + 1)
        elif head.sequence > 0 and own.ids[head.sequence - 1] != head.head:
            wanted[head.stream] = Cursor(head.sequence)  # two histories: what they hold is the other half of the proof
    return wanted
