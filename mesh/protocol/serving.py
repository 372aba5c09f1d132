"""Records leave a node in batches that any receiver can take: within every limit, in order, with the statements they are about.

Rules
-----
1. No message is larger than :data:`~mesh.limits.MESSAGE_BYTES_MAX`, none has more than :data:`~mesh.limits.BATCH_RECORDS_MAX`
   records. One record with all its statements always fits.
2. A statement stands in a message once, however many of its records name it. One that is not held is left out: the receiver
   finds the record incomplete and asks somebody else.
3. What is published is kept by streams and can never be erased, so openings travel in answers to a pull only.
4. A signed note goes with the last batch, never without the records it covers before it.
5. Of records that were pruned an answer to a pull holds the leaf hashes; records come with the next one.
6. An answer to a pull shows how its records lead to the certificate that it carries, so that nobody needs to believe who answers.

Not here: reading storage, choosing the note, belief (:mod:`mesh.protocol.mirror`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from mesh.core.bytes import canonical
from mesh.core.log.merkle import Frontier, consistency_beyond
from mesh.core.log.record import DecisionMade, Denied, EnforcerHeard, OutcomeRecorded, Record
from mesh.core.messages import LineageBatch, Openings, pack
from mesh.limits import BATCH_RECORDS_MAX, MESSAGE_BYTES_MAX, PROOF_HASHES_MAX, REQUEST_BYTES_MAX

__all__ = ["BODIES", "announce_batches", "body_ids", "fitting", "leaf_ids", "opening_ids", "pull_answer", "shown_paths"]

_FRAME_BYTES: Final = 512
"""Member names, brackets, origin and index of a batch: 160 characters of origin and some 90 more, doubled."""
_PATHS_BYTES: Final = 67 * (2 * PROOF_HASHES_MAX + 1)
"""Of two consistency paths and a root: 64 hex digits, quotes and a comma each."""
_DECISION: Final = DecisionMade.__struct_config__.tag
BODIES: Final[Mapping[object, tuple[str, ...]]] = {
    _DECISION: ("intent", "identity", "enforcer"),
    OutcomeRecorded.__struct_config__.tag: ("outcome", "identity"),
    EnforcerHeard.__struct_config__.tag: ("heard", "identity"),
    Denied.__struct_config__.tag: ("intent", "identity"),
}
"""Which members of a record name statements, by the record's tag."""


class _Names(msgspec.Struct, frozen=True):
    """Those members of any record."""

    record: str
    intent: str = ""
    identity: str = ""
    enforcer: str = ""
    outcome: str = ""
    heard: str = ""


_NAMES: Final = msgspec.json.Decoder(_Names)


def body_ids(record: Record) -> tuple[str, ...]:
    """Ids of the statements that whoever examines ``record`` needs."""
    return _ids(type(record).__struct_config__.tag, record)


def leaf_ids(leaf: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """:func:`body_ids` and :func:`opening_ids` of leaf data that was believed before it was stored, and is not examined again."""
    names = _NAMES.decode(leaf)
    return _ids(names.record, names), (names.intent,) if names.record == _DECISION else ()


def opening_ids(record: Record) -> tuple[str, ...]:
    """Ids of the intents whose openings whoever repeats ``record`` needs, if their parameters are committed."""
    return (record.intent,) if isinstance(record, DecisionMade) else ()


def _ids(kind: object, record: object) -> tuple[str, ...]:
    return tuple([getattr(record, name) for name in BODIES.get(kind, ())])


def announce_batches(origin: str, first: int, leaves: Sequence[bytes], bodies: Mapping[str, bytes], note: bytes) -> list[bytes]:
    """The messages that publish consecutive records of the node's own log.

    Args:
        origin: the log.
        first: index of the first record.
        leaves: leaf data of the records; may be none, when a checkpoint is only said again.
        bodies: statement id to envelope, of those that are held.
        note: the signed checkpoint; goes with the last message.

    Returns:
        at least one message.
    """
    batches = list(_cut(leaves, bodies, {}, room=MESSAGE_BYTES_MAX - _FRAME_BYTES - _note_bytes(note)))
    messages: list[bytes] = []
    for batch in batches:
        last = len(messages) == len(batches) - 1
        messages.append(_message(origin, first, batch, note if last else b""))
        first += len(batch.records)
    return messages


def pull_answer(
    origin: str,
    first: int,
    leaves: Sequence[bytes],
    bodies: Mapping[str, bytes],
    openings: Mapping[str, bytes],
    note: bytes,
    *,
    path: Sequence[bytes] = (),
    start: Sequence[bytes] = (),
    pruned: Sequence[bytes] = (),
) -> bytes:
    """The answer to a pull: as many of the records as fit into one message.

    Args:
        origin: the log, the node's own or one it mirrors.
        first: index of the first record.
        leaves: leaf data of the records from there on; may be none.
        bodies: statement id to envelope, of those that are held.
        openings: intent id to the canonical :class:`~mesh.core.messages.Openings`, of those that are held.
        note: the smallest certificate beyond ``first`` by the roster in force, else the newest, else the newest signed checkpoint; may
            be empty.
        path: from behind the last of these records, all of which must fit, to that certificate.
        start: from before the first, behind the root there.
        pruned: in place of all the others, leaf hashes of records of which no more is held.
    """
    batch = _Batch([], {}, {}, 0, pruned) if pruned else next(_cut(leaves, bodies, openings, room=_room(note)))
    return _message(origin, first, batch, note, path, start)


def fitting(leaves: Sequence[bytes], bodies: Mapping[str, bytes], openings: Mapping[str, bytes], note: bytes) -> int:
    """How many of these records one answer holds."""
    return len(next(_cut(leaves, bodies, openings, room=_room(note))).records)


def shown_paths(hashes: Sequence[bytes], first: int, end: int, size: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """``path`` and ``start`` of an answer with the records ``[first, end)`` and a certificate over ``size``, from a log's leaf hashes."""
    begun = Frontier.empty().extend(hashes[:first])
    path = consistency_beyond(Frontier.empty(), hashes, end, size) if 0 < end < size <= len(hashes) else ()
    start = (begun.root(), *consistency_beyond(begun, hashes[first:], first, size)) if 0 < first < size <= len(hashes) else ()
    return path, start


def _room(note: bytes) -> int:
    return MESSAGE_BYTES_MAX - _FRAME_BYTES - _PATHS_BYTES - _note_bytes(note)


class _Batch(msgspec.Struct):
    """What goes into one message, with the bytes it takes."""

    records: list[bytes]
    bodies: dict[str, bytes]
    openings: dict[str, bytes]
    size: int
    pruned: Sequence[bytes] = ()


def _cut(leaves: Sequence[bytes], bodies: Mapping[str, bytes], openings: Mapping[str, bytes], *, room: int) -> Iterator[_Batch]:
    batch = _Batch([], {}, {}, 0)
    for leaf in leaves:
        named, hidden = leaf_ids(leaf)
        needed = {key: bodies[key] for key in named if key in bodies}
        opened = {key: openings[key] for key in hidden if key in openings} if openings else {}
        cost = _cost(leaf, needed, opened, batch)
        if batch.records and (len(batch.records) >= BATCH_RECORDS_MAX or batch.size + cost > room):
            yield batch
            batch = _Batch([], {}, {}, 0)
            cost = _cost(leaf, needed, opened, batch)
        batch.size += cost
        batch.records.append(leaf)
        batch.bodies.update(needed)
        batch.openings.update(opened)
    yield batch


def _cost(leaf: bytes, needed: Mapping[str, bytes], opened: Mapping[str, bytes], batch: _Batch) -> int:
    size = len(leaf) + 1
    for key, data in needed.items():
        if key not in batch.bodies:
            size += len(data) + 1
    for key, data in opened.items():
        if key not in batch.openings:
            size += len(data) + 1
    return size


def _message(origin: str, first: int, batch: _Batch, note: bytes, path: Sequence[bytes] = (), start: Sequence[bytes] = ()) -> bytes:
    return pack(
        LineageBatch(
            origin=origin,
            first=first,
            records=[msgspec.Raw(leaf) for leaf in batch.records],
            bodies=[msgspec.Raw(data) for data in batch.bodies.values()],
            pruned=[value.hex() for value in batch.pruned],
            openings=[canonical.decode(Openings, data, bytes_max=REQUEST_BYTES_MAX) for data in batch.openings.values()],
            checkpoint=note.decode(),
            path=[value.hex() for value in path],
            start=[value.hex() for value in start],
        )
    )


def _note_bytes(note: bytes) -> int:
    return len(canonical.encode(note.decode()))
