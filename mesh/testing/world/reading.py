"""What the bytes that are signed in a world say, and whether two steps do the same."""

from typing import TypeVar

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.limits import STATEMENT_BYTES_MAX
from mesh.protocol.state import GovernorState
from mesh.protocol.step import Send, Step

__all__ = ["read", "same_step", "unpae"]

P = TypeVar("P", bound=Payload)


def read(kind: type[P], payload: bytes) -> P:
    """The payload of a kind."""
    return canonical.decode(kind, payload, bytes_max=2 * STATEMENT_BYTES_MAX)


def unpae(message: bytes) -> tuple[str, bytes]:
    """(kind, payload) of the bytes that a signature on a statement covers."""
    _, length, rest = message.split(b" ", 2)
    payload_type, rest = rest[: int(length)].decode(), rest[int(length) + 1 :]
    return payload_type.removeprefix("application/vnd.govmesh.").removesuffix(".v1+json"), rest.partition(b" ")[2]


def same_step(one: Step[GovernorState], other: Step[GovernorState]) -> bool:
    """Whether two answers of a machine are the same, but for how messages are put together from what they name."""
    parts = [[effect if not isinstance(effect, Send) else (effect.to, effect.durable) for effect in step.effects] for step in (one, other)]
    return parts[0] == parts[1] and one.state == other.state
