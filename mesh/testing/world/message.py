"""What travels on the bus of a world."""

import msgspec

__all__ = ["Message"]


class Message(msgspec.Struct, frozen=True):
    """One message on its way."""

    source: str
    target: str
    kind: str
    data: bytes
    call: int = 0
    """Of a request and its reply; 0 for what expects none."""
