"""A governance stream is what one source has said, numbered without gaps and chained; how much of it is held is a pure value.

Rules
-----
1. What is held is a function of the *set* of statements taken in, whatever the order and however often each came.
2. Only the gapless chain from 1 on is advertised. A statement without its predecessor is kept (*loose*), and advances nothing.
3. Two statements under one number, or one that names another predecessor than the one held, are a fork: their author has said
   two things. From then on the stream is only a set. What it says still denies; nobody waits for it any more.
4. A frontier lists one head per stream; :func:`covers` compares two, :func:`ahead` says what another has and I lack.

Not here: what statements mean (:mod:`mesh.core.law.governance`), how they travel (:mod:`mesh.protocol.gossip`).
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from mesh.core.bytes.canonical import sha256_hex
from mesh.core.law.heartbeat import StreamHead
from mesh.errors import Refused
from mesh.limits import STREAM_STATEMENTS_MAX

__all__ = ["Chain", "Cursor", "Fork", "Growth", "Link", "Stream", "ahead", "head_of", "take"]


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
    digest: str
    """Of all of them, by which two holders see that they differ: made once, because every heartbeat is compared with it."""

    @classmethod
    def of(cls, ids: Iterable[str]) -> "Fork":
        """A fork of these statements."""
        held = frozenset(ids)
        return cls(held, sha256_hex("".join(sorted(held)).encode()))


Stream = Chain | Fork


class Cursor(msgspec.Struct, frozen=True, order=True):
    """Where to go on: behind this in the order (number, id). An empty id is before all statements of its number."""

    sequence: int
    id: str = ""


class Growth:
    """A stream while statements are added to it: one copy for all of them, however long it is, and none for what is held."""

    def __init__(self, stream: Stream) -> None:
        """Begin from ``stream``, which stays as it is."""
        self._before = stream
        self._held: Sequence[str] | AbstractSet[str] = stream.ids
        self._loose: Mapping[int, Link] = stream.loose if isinstance(stream, Chain) else {}
        self._grown: tuple[list[str] | set[str], dict[int, Link]] | None = None
        """The same two, once something was added."""

    def holds(self, link: Link) -> bool:
        """Whether that statement is held already."""
        held = self._held
        if isinstance(held, AbstractSet):
            return link.id in held
        if link.sequence <= len(held):
            return link.sequence > 0 and held[link.sequence - 1] == link.id
        found = self._loose.get(link.sequence)
        return found is not None and found.id == link.id

    def add(self, link: Link) -> None:
        """Add a statement that is not held.

        Raises:
            Refused: ``malformed`` for a number that no statement has, ``stream_full``.
        """
        if link.sequence < 1 or (link.sequence == 1) != (link.previous == ""):
            raise Refused("malformed", f"number {link.sequence} of a stream after {link.previous[:12]!r}")
        if len(self._held) + len(self._loose) >= STREAM_STATEMENTS_MAX:
            raise Refused("stream_full", f"{STREAM_STATEMENTS_MAX} statements")
        held = self._held
        ids, loose = self._grown or (set(held) if isinstance(held, AbstractSet) else list(held), dict(self._loose))
        if isinstance(ids, list) and self._contradicts(ids, link):
            ids = {*ids, *(item.id for item in loose.values())}
            loose.clear()
        if isinstance(ids, set):
            ids.add(link.id)
        else:
            loose[link.sequence] = link
            while (found := loose.pop(len(ids) + 1, None)) is not None:
                ids.append(found.id)
        self._held, self._loose = self._grown = ids, loose

    def finish(self) -> Stream:
        """The stream now; the very same object if nothing was added."""
        if self._grown is None:
            return self._before
        ids, loose = self._grown
        return Fork.of(ids) if isinstance(ids, set) else Chain(tuple(ids), loose)

    def _contradicts(self, ids: list[str], link: Link) -> bool:
        """Whether what is held under this number, before it or after it, cannot stand beside it."""
        at, held, before = link.sequence, len(ids), link.previous
        if at <= held or at in self._loose:
            return True
        if at - 1 in self._loose:
            before = self._loose[at - 1].id
        elif at > 1 and at - 1 == held:
            before = ids[-1]
        after = self._loose.get(at + 1)
        return before != link.previous or (after is not None and after.previous != link.id)


def take(stream: Stream, links: Iterable[Link]) -> Stream:
    """The stream with these statements more. Raises as :meth:`Growth.add`."""
    growth = Growth(stream)
    for link in links:
        if not growth.holds(link):
            growth.add(link)
    return growth.finish()


def head_of(name: str, stream: Stream) -> StreamHead | None:
    """What a frontier says of the stream; nothing as long as nothing can be said.

    Of a fork: how many statements are held, and the digest of all their ids.
    """
    if isinstance(stream, Fork):
        return StreamHead(stream=name, sequence=len(stream.ids), head=stream.digest, forked=True)
    return StreamHead(stream=name, sequence=len(stream.ids), head=stream.ids[-1], forked=False) if stream.ids else None


def ahead(streams: Mapping[str, Stream], theirs: Sequence[StreamHead]) -> dict[str, Cursor]:
    """Of which streams another claims to hold what I do not, and behind what to ask."""
    wanted = dict[str, Cursor]()
    for head in theirs:
        own = streams.get(head.stream, Chain())
        if isinstance(own, Fork):
            mine = head_of(head.stream, own)
            if mine is not None and head.forked and head.sequence >= mine.sequence and head.head != mine.head:
                wanted[head.stream] = Cursor(0)
        elif head.forked:
            wanted[head.stream] = Cursor(0)
        elif head.sequence > len(own.ids):
            wanted[head.stream] = Cursor(len(own.ids) + 1)
        elif head.sequence > 0 and own.ids[head.sequence - 1] != head.head:
            wanted[head.stream] = Cursor(head.sequence)  # two histories: what they hold is the other half of the proof
    return wanted
