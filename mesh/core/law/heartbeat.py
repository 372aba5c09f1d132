"""A heartbeat is one member's signed word on what governance state it holds at a signed time.

It is freshness, completeness and anti-entropy digest in one message. A *frontier* lists, per governance stream, how far a
member holds it without a gap: (sequence, head), the head being the id of the last statement.
"""

from collections.abc import Container, Mapping
from typing import Annotated, Final

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, Hex32, Millis, Payload, Token, sha256_hex
from mesh.core.bytes.envelope import statement
from mesh.limits import BATCH_EVENTS_MAX, FRONTIER_STREAMS_MAX, MEMBERS_MAX, NOTE_BYTES_MAX

__all__ = ["ENDED", "NOTHING", "Frontier", "Heartbeat", "Standing", "StreamHead", "StreamName", "covers", "frontier_digest", "reaches"]


NOTHING: Final[Mapping[str, Container[str]]] = {}
"""No stream is forked here."""


class _Everything:
    def __contains__(self, _identity: object) -> bool:
        return True


ENDED: Final = _Everything()
"""Of a stream that went to other signers: all of it that counts is held, so nobody waits for what is still said in it."""
StreamName = Annotated[str, msgspec.Meta(pattern="^[a-z]{1,16}(/[a-z0-9-]{1,64})?(@[0-9a-f]{16})?$(?!\\n)", max_length=98)]
"""``roster``, ``policy/<domain>``, ``activate/<domain>``, ``revoke/<key>``, ``halt/<domain>``, ``resolve``; under later signers with
the beginning of the id of the roster that named them (:mod:`mesh.core.law.reign`).
"""


class StreamHead(Payload):
    """How far one governance stream is held."""

    stream: StreamName
    sequence: Count
    """Of the last statement; of a fork, how many are held."""
    head: Hex32
    """Its id; of a fork, a digest of the ids of all that are held."""
    forked: bool
    """Whether its author has said two things: what it says still denies, and freshness does not wait for it."""
    held: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    """Of a fork that was resolved: the digest of the ids of all that are held, those aside too. Else empty."""


class Standing(Payload):
    """How one member stands to the policy of one domain."""

    domain: Token
    admitted: Count
    """The newest epoch that it has checked and could decide by; 0 if none."""
    active: Count
    """The epoch by which it decides now; 0 if none."""


Frontier = Annotated[list[StreamHead], msgspec.Meta(max_length=FRONTIER_STREAMS_MAX)]
"""Sorted by stream, each once."""


@statement("heartbeat")
class Heartbeat(Payload):
    """Signed by the member's decision key, every ``heartbeat_ms`` and in answer to a ``sync`` request."""

    mesh: Token
    member: Token
    incarnation: Count
    sequence: Count
    """Dense within an incarnation."""
    signed_ms: Millis
    roster_epoch: Count
    frontier: Frontier
    policies: Annotated[list[Standing], msgspec.Meta(max_length=MEMBERS_MAX)]
    """Sorted by domain."""
    checkpoint: Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]
    """The latest published checkpoint note of the member's log; empty before the first."""
    behind: bool
    """Whether it lacks records that were final before it started: until it holds them, this vouches for nothing."""
    echo: Annotated[list[Hex32], msgspec.Meta(max_length=BATCH_EVENTS_MAX)]
    """Boot nonces of those who asked for this one: it was made after they started."""


def frontier_digest(frontier: list[StreamHead]) -> str:
    """SHA-256 of the canonical frontier."""
    return sha256_hex(canonical.encode(frontier))


def reaches(frontier: list[StreamHead], stream: str, sequence: int, identity: str) -> bool:
    """Whether whoever holds ``frontier`` holds the statement of that number and id; of a fork a frontier does not say which."""
    for head in frontier:
        if head.stream == stream and not head.forked:
            return head.sequence > sequence or (head.sequence, head.head) == (sequence, identity)
    return False


def covers(mine: list[StreamHead], theirs: list[StreamHead], whole: Mapping[str, Container[str]] = NOTHING) -> bool:
    """Whether ``mine`` holds all that ``theirs`` claims: every stream at least as far, and the same head where as far.

    A stream that both know to be forked is left out: its author could otherwise stop everybody for ever. If I alone know, I
    must hold the whole chain that their head ends; if they alone, I must first see the fork, which they can show.

    A stream that was resolved is waited for again, like a chain: I must hold what their head ends. Who still calls it forked may
    lack the resolve only, or may know of a second fork: it vouches if it holds the same set as I do.

    A stream that I know to have ended is left out: what counts of it is the beginning of another, and who names it has yet to hear.

    Args:
        mine: what I hold.
        theirs: what another claims.
        whole: stream that is or was forked to the ids that I hold with all before them; to nothing, while I lack what its
            resolve leaves aside; to :data:`ENDED`, if it went to other signers.
    """
    held = {entry.stream: entry for entry in mine}
    for entry in theirs:
        own = held.get(entry.stream)
        if whole.get(entry.stream) is ENDED:
            continue
        if own is not None and (own.forked or own.held):
            if entry.forked:
                if own.held and own.held != entry.head:
                    return False
            elif entry.head not in whole.get(entry.stream, ()):
                return False
            continue
        if entry.forked or entry.held:
            return False
        if own is None or own.sequence < entry.sequence:
            return False
        if own.sequence == entry.sequence and own.head != entry.head:
            return False
    return True
