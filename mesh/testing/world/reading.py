"""What the bytes that are signed in a world say."""

from typing import TypeVar

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.limits import STATEMENT_BYTES_MAX

__all__ = ["read", "unpae"]

P = TypeVar("P", bound=Payload)


def read(kind: type[P], payload: bytes) -> P:
    """The payload of a kind."""
    return canonical.decode(kind, payload, bytes_max=2 * STATEMENT_BYTES_MAX)


def unpae(message: bytes) -> tuple[str, bytes]:
    """(kind, payload) of the bytes that a signature on a statement covers."""
    _, length, rest = message.split(b" ", 2)
    payload_type, rest = rest[: int(length)].decode(), rest[int(length) + 1 :]
    return payload_type.removeprefix("application/vnd.govmesh.").removesuffix(".v1+json"), rest.partition(b" ")[2]
