"""The receiving half of the bus: subscriptions that outlive connections, and pulls that lose nothing and leave nothing behind.

Rules
-----
1. A subscription is a standing wish: made known on the present connection and on each one that follows.
2. What is larger than ``MESSAGE_BYTES_MAX`` is dropped and counted before anything looks into it.
3. One fetch at a time for a durable consumer, and it is never cancelled: nats-py would leave its pull request on the server
   (260 of 300 cancelled ones did), which then swallows a message. A cancelled call leaves the fetch to the next call.
4. A reply subject that no stream makes is a lie of the server: dropped and counted.

Not here: connections, and nats-py's errors, which pass through to :mod:`mesh.adapters.bus`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from mesh.adapters.bus_message import NO_HEADERS, Delivery, Handler, Message, Publisher
from mesh.errors import Unavailable
from mesh.limits import MESSAGE_BYTES_MAX

__all__ = ["Puller", "Subscriber", "Subscription"]

_PLAIN_TOKENS: Final = 9
"""$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>"""
_DOMAIN_TOKENS: Final = 11
"""The same with domain and account after ACK; more may follow."""

_log = logging.getLogger(__name__)


class Subscriber(Publisher, Protocol):
    """What a subscription needs of its bus."""

    async def forget(self, subscription: "Subscription") -> None:
        """Take the wish back."""
        ...


class Subscription:
    """A standing wish for a subject (rule 1)."""

    def __init__(self, bus: Subscriber, subject: str, queue: str, handler: Handler) -> None:
        self._bus = bus
        self._subject = subject
        self._queue = queue
        self._handler = handler
        self.client: Any = None
        """The connection that knows of it. For the bus."""
        self.native: Any = None
        """nats-py's own subscription there. For the bus."""

    async def unsubscribe(self) -> None:
        """End it. Messages that already arrived may still be handed over."""
        await self._bus.forget(self)

    async def attach(self, client: Any) -> None:
        """Make it known on a connection. For the bus."""
        self.client = client
        native = await client.subscribe(self._subject, queue=self._queue, cb=self._deliver)
        if self.client is client:
            self.native = native

    async def _deliver(self, message: Any) -> None:
        bus, data = self._bus, message.data
        if len(data) > MESSAGE_BYTES_MAX:
            bus.counters["dropped_oversize"] += 1
            return
        bus.counters["received"] += 1
        try:
            self._handler(Message(message.subject, data, message.reply, message.headers or NO_HEADERS, bus))
        except Exception:  # noqa: BLE001 -- whatever it is, the next message must still be handed over
            bus.counters["handler_errors"] += 1
            _log.exception("handler of %s", self._subject)


class Puller:
    """The one fetch that may be under way for a durable consumer, and the inbox it uses."""

    def __init__(self, stream: str, durable: str, domain: str) -> None:
        self._stream = stream
        self._durable = durable
        self._domain = domain
        self._lock = asyncio.Lock()
        self._client: Any = None
        self._native: Any = None
        self._fetch: asyncio.Task[list[Any]] | None = None

    async def take(self, bus: Publisher, sendable: Callable[[], Any], batch: int, timeout_s: float) -> list[Delivery]:
        """What the fetch under way brings, or a new one of up to ``batch`` messages."""
        async with self._lock:
            if self._fetch is None:
                client = sendable()
                if self._client is not client:
                    js = client.jetstream(domain=self._domain or None)
                    self._native = await js.pull_subscribe_bind(durable=self._durable, stream=self._stream)
                    self._client = client
                self._fetch = asyncio.create_task(self._native.fetch(batch, timeout_s))
            await asyncio.wait({self._fetch})  # being cancelled here cancels the wait, not the fetch
            fetch, self._fetch = self._fetch, None
            if fetch.cancelled():
                raise Unavailable("unreachable", "the bus is closing")
            try:
                messages = fetch.result()
            except TimeoutError:  # nats-py's own is one too: there was nothing
                return []
            return [delivery for message in messages if (delivery := await _delivery(bus, message)) is not None]

    async def unbind(self) -> None:
        """Forget the inbox: the next fetch makes a new one. Raises what nats-py raises."""
        self._client = None
        if self._native is not None:
            await self._native.unsubscribe()

    async def close(self) -> None:
        """End a fetch under way; only when the connection goes with it (rule 3). Raises what nats-py raises."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait({self._fetch})
        await self.unbind()  # fetch takes what lies in its queue without saying so, and a drain would wait for the word


async def _delivery(bus: Publisher, message: Any) -> Delivery | None:
    reply: str = message.reply
    numbers = _numbers(reply)
    if numbers is None:
        bus.counters["errors"] += 1
        return None

    async def settle(verdict: bytes) -> None:
        await bus.publish(reply, verdict)

    if len(message.data) > MESSAGE_BYTES_MAX:
        bus.counters["dropped_oversize"] += 1
        await settle(b"+TERM")  # it would come again for ever
        return None
    return Delivery(message.subject, message.data, message.headers or NO_HEADERS, *numbers, settle)


def _numbers(reply: str) -> tuple[int, int] | None:
    """Stream sequence and messages pending, as the acknowledgement subject has them."""
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"] or (len(tokens) != _PLAIN_TOKENS and len(tokens) < _DOMAIN_TOKENS):
        return None
    at = 0 if len(tokens) == _PLAIN_TOKENS else 2
    sequence, pending = tokens[5 + at], tokens[8 + at]
    return (int(sequence), int(pending)) if sequence.isdecimal() and pending.isdecimal() else None
