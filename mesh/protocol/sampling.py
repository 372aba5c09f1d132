"""A sample of records that nobody chose: drawn from what k members have attested, and from something that came afterwards.

Rules
-----
1. What is drawn from are certificates, one per log, which whoever draws has verified; every record below their sizes may be drawn, each
   as likely as any other.
2. The order of draws is a function of these certificates' checkpoints and of a seed, and of nothing else. A smaller sample is the
   beginning of a larger one.
3. Who signed a checkpoint has no influence: of the notes only the text counts, or whoever carries them could leave lines out until a
   sample pleases them.

Whoever writes the last record before the certificates can try records until a sample pleases *them*. A seed that nobody knew then
takes that away; without one, the sample is honest about everybody but the last to write.

Not here: belief in the certificates, asking for them (:mod:`mesh.cli.exporting`).
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload, Text, sha256_hex
from mesh.core.log.checkpoint import Checkpoint, read_checkpoint
from mesh.core.log.record import Origin
from mesh.errors import Refused
from mesh.limits import AUDIT_LOGS_MAX, HEADS_BYTES_MAX, NOTE_BYTES_MAX

__all__ = ["Drawn", "Heads", "LogHead", "draw", "read_heads"]

_FORMAT: Final = "govmesh/sample-heads/v1"
_BYTES: Final = 16


class LogHead(Payload):
    """One log's certificate."""

    origin: Origin
    note: Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]


class Heads(Payload):
    """What a sample is drawn from."""

    format: Literal["govmesh/sample-heads/v1"]
    logs: Annotated[list[LogHead], msgspec.Meta(max_length=AUDIT_LOGS_MAX)]
    """Sorted by origin, no log twice."""

    @classmethod
    def of(cls, notes: Iterable[bytes]) -> "Heads":
        """These certificates, in the one order.

        Raises:
            Refused: ``malformed``, ``non_canonical``: what is wrong with a note.
        """
        logs = [LogHead(origin=read_checkpoint(note).origin, note=note.decode()) for note in notes]
        return cls(format=_FORMAT, logs=sorted(logs, key=lambda log: log.origin))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """What they say."""
        return [read_checkpoint(log.note.encode()) for log in self.logs]

    @property
    def total(self) -> int:
        """Records that may be drawn."""
        return sum(checkpoint.size for checkpoint in self.checkpoints)

    @property
    def digest(self) -> str:
        """SHA-256 over all checkpoints' texts, lowercase hex (rule 3)."""
        return sha256_hex(b"".join(checkpoint.to_text() for checkpoint in self.checkpoints))


class Drawn(msgspec.Struct, frozen=True):
    """One record."""

    origin: str
    index: int


class _Seed(Payload):
    heads: Text
    purpose: Literal["govmesh/sample/v1"]
    seed: Text


def read_heads(data: bytes) -> Heads:
    """Certificates from a file. Nothing in it is believed.

    Raises:
        Refused: the codec's codes; ``non_canonical`` out of order or with one log twice; ``bad_checkpoint`` under another log's name.
    """
    heads = canonical.decode(Heads, data, bytes_max=HEADS_BYTES_MAX)
    origins = [log.origin for log in heads.logs]
    if origins != sorted(frozenset(origins)):
        raise Refused("non_canonical", "the logs are not in their order")
    if origins != [checkpoint.origin for checkpoint in heads.checkpoints]:
        raise Refused("bad_checkpoint", "a certificate under another log's name")
    return heads


def draw(heads: Heads, *, seed: str, count: int) -> list[Drawn]:
    """``count`` different records in the order of their draw, or all if there are not so many."""
    checkpoints, total = heads.checkpoints, heads.total
    ends = list(accumulate(checkpoint.size for checkpoint in checkpoints))
    key = hashlib.sha256(canonical.encode(_Seed(heads=heads.digest, purpose="govmesh/sample/v1", seed=seed))).digest()
    room = 1 << (8 * _BYTES)
    drawn, turn = dict[int, Drawn](), 0
    while len(drawn) < min(count, total):
        number = int.from_bytes(hashlib.sha256(key + turn.to_bytes(8)).digest()[:_BYTES])
        turn += 1
        if number >= room - room % total:  # else the first records would be a little likelier
            continue
        at = number % total
        log = bisect_right(ends, at)
        drawn.setdefault(at, Drawn(checkpoints[log].origin, at - ends[log] + checkpoints[log].size))
    return list(drawn.values())
