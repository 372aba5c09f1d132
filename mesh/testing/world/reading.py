"""What the bytes that are signed in a world say, and whether two steps do the same."""

from collections.abc import Container, Mapping
from typing import TypeVar

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.core.law.conflict import judge
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import read_law
from mesh.core.log.record import Incident, Record
from mesh.errors import Refused
from mesh.limits import STATEMENT_BYTES_MAX
from mesh.protocol.state import GovernorState
from mesh.protocol.step import Send, Step

__all__ = ["accuses", "read", "same_step", "unpae"]

P = TypeVar("P", bound=Payload)


def read(kind: type[P], payload: bytes) -> P:
    """The payload of a kind."""
    return canonical.decode(kind, payload, bytes_max=2 * STATEMENT_BYTES_MAX)


def accuses(record: Record, liars: Container[str], taken: Mapping[str, bytes], rosters: Rosters) -> bool:
    """Whether it is an incident about nobody who lies, and names no two of these statements (by id) that cannot both be."""
    if not isinstance(record, Incident) or any(word in liars for word in record.detail.split("/")):
        return False
    stream, *ids = record.detail.split(" ")
    try:
        one, other = (read_law(taken[identity]) for identity in ids)
        return judge(one, other, rosters).stream != stream
    except (KeyError, ValueError, Refused):
        return True


def unpae(message: bytes) -> tuple[str, bytes]:
    """(kind, payload) of the bytes that a signature on a statement covers."""
    _, length, rest = message.split(b" ", 2)
    payload_type, rest = rest[: int(length)].decode(), rest[int(length) + 1 :]
    return payload_type.removeprefix("application/vnd.govmesh.").removesuffix(".v1+json"), rest.partition(b" ")[2]


def same_step(one: Step[GovernorState], other: Step[GovernorState]) -> bool:
    """Whether two answers of a machine are the same, but for how messages are put together from what they name."""
    parts = [[effect if not isinstance(effect, Send) else (effect.to, effect.durable) for effect in step.effects] for step in (one, other)]
    return parts[0] == parts[1] and one.state == other.state
