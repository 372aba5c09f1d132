"""What comes out of the bus, as values: the bytes are nobody's word yet, and an answer can only go to an inbox.

A workload that names one of our own subjects as its reply would otherwise have a governor's permitted answer published
there: :func:`safe_reply` is asked before every answer.

Not here: how they arrive (:mod:`mesh.adapters.bus`).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec

from mesh.errors import Refused, Unavailable

__all__ = ["COUNTERS", "NO_HEADERS", "Delivery", "Handler", "Message", "Publisher", "Receipt", "receipt", "safe_reply"]

COUNTERS: Final = (
    "disconnects",
    "dropped_oversize",
    "dropped_slow",
    "errors",
    "forged_replies",
    "handler_errors",
    "published",
    "rebuilds",
    "received",
    "reconnects",
    "refused_offline",
    "requests",
    "stuck",
)
"""What the bus counts; metrics carry the same names."""
NO_HEADERS: Final[Mapping[str, str]] = {}
_REWRITTEN: Final = "_R_."
_INBOXES: Final = ("_INBOX_", "_INBOX.", _REWRITTEN)


class Publisher(Protocol):
    """What a message needs of the bus it came from."""

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far."""
        ...

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send without an answer."""
        ...


def safe_reply(reply: str) -> bool:
    """Whether an answer may go there: an inbox of a client, or the server's own rewriting of one (``_R_.``)."""
    return reply.startswith(_INBOXES) and "*" not in reply and ">" not in reply


class Message(msgspec.Struct, frozen=True, eq=False):
    """What arrived. Subject, headers and reply are claims of whoever sent it, or of the server."""

    subject: str
    data: bytes
    reply: str
    headers: Mapping[str, str]
    bus: Publisher

    @property
    def answerable(self) -> bool:
        """Whether :meth:`respond` would answer; ask before doing work for nobody."""
        return safe_reply(self.reply)

    @property
    def imported(self) -> bool:
        """Whether whoever asks is in another account: the server rewrites the replies of those that import a service."""
        return self.reply.startswith(_REWRITTEN)

    async def respond(self, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Answer.

        Raises:
            Refused: ``reply_forbidden`` (counted) when the reply is no inbox; ``too_large``.
            Unavailable: ``unreachable``.
        """
        if not safe_reply(self.reply):
            self.bus.counters["forged_replies"] += 1
            raise Refused("reply_forbidden", self.reply[:80])
        await self.bus.publish(self.reply, data, headers=headers)


Handler = Callable[[Message], None]
"""Takes a message on the event loop, enqueues it and returns."""


class Receipt(msgspec.Struct, frozen=True):
    """A stream's word that it holds a message. Neither durable nor an identity: sequences are re-issued after damage."""

    stream: str
    sequence: int
    duplicate: bool


class _Fault(msgspec.Struct, frozen=True):
    description: str = ""


class _PubAck(msgspec.Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Fault | None = None


def receipt(answer: Message) -> Receipt:
    """Read a stream's answer to a publish.

    Raises:
        Unavailable: ``unavailable`` when the stream refused, or when what answered is no stream.
    """
    try:
        ack = msgspec.json.decode(answer.data, type=_PubAck)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Unavailable("unavailable", "what answered is no stream") from None
    if ack.error is not None or not ack.stream:
        raise Unavailable("unavailable", f"the stream says: {ack.error.description[:120] if ack.error else 'nothing'}")
    return Receipt(ack.stream, ack.seq, ack.duplicate)


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """A message from a stream; unless acknowledged it comes again."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    sequence: int
    """One that is smaller than before means that the stream was lost and made anew."""
    waiting: int
    """How many more the stream has for this consumer."""
    settle: Callable[[bytes], Awaitable[None]]

    async def ack(self) -> None:
        """It is durably ours.

        Raises:
            Unavailable: ``unreachable``; it comes again.
        """
        await self.settle(b"+ACK")

    async def nak(self) -> None:
        """Send it again. Raises as :meth:`ack`."""
        await self.settle(b"-NAK")

    async def term(self) -> None:
        """Never send it again: it is no good. Raises as :meth:`ack`."""
        await self.settle(b"+TERM")
