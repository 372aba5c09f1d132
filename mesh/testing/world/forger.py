"""What somebody who owns the bus may make of records on their way: everything that needs no signature.

Not here: changed bytes and old messages (:mod:`mesh.testing.world.network`), members that lie with their own keys
(:mod:`mesh.testing.world.liars`).
"""

from random import Random

import msgspec

from mesh.core.bytes import canonical
from mesh.core.log.record import GovernanceChanged, encode_record, read_record
from mesh.core.messages import LineageBatch, pack, unpack
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX
from mesh.testing.world.message import Message

__all__ = ["forged"]


def forged(message: Message, random: Random) -> Message:
    """The message with another history, if it carries records; otherwise as it is."""
    if message.kind not in {"lineage", "reply"}:
        return message
    try:
        batch = unpack(LineageBatch, message.data)
    except Refused:
        return message
    records = [bytes(raw) for raw in batch.records]
    bodies, openings, checkpoint = batch.bodies, batch.openings, batch.checkpoint
    match random.randrange(6):
        case 0:
            bodies = [raw for raw in bodies if random.random() < 0.5]
        case 1:
            openings = []
        case 2:
            checkpoint = ""
        case 3:
            records = [*records[:-1], b'{"record":"nothing"}']
        case _:
            at = random.randrange(len(records) + 1)
            records = [*records[:at], _invented(batch, at, records, random), *records[at + 1 :]]
    changed = msgspec.structs.replace(
        batch, records=[msgspec.Raw(leaf) for leaf in records[:BATCH_RECORDS_MAX]], bodies=bodies, openings=openings, checkpoint=checkpoint
    )
    return msgspec.structs.replace(message, data=pack(changed))


def _invented(batch: LineageBatch, at: int, records: list[bytes], random: Random) -> bytes:
    mesh = batch.origin.split("/")[0]
    at_ms = read_record(records[min(at, len(records) - 1)]).at_ms if records else 0
    record = GovernanceChanged(
        mesh=mesh,
        origin=batch.origin,
        index=batch.first + at,
        at_ms=at_ms + random.choice((0, 0, 0, 3_600_000)),
        change="fresh",
        about=canonical.sha256_hex(random.randbytes(4)),
    )
    return encode_record(record)
