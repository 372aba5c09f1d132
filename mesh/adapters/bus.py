"""The only door to nats-py: what cannot be sent now is refused now, and a connection that died quietly is noticed and replaced.

Rules
-----
1. Nothing is sent late. Without a live connection :meth:`Bus.publish` and :meth:`Bus.request` refuse at once
   (``unreachable``), and what nats-py still held when a connection broke is thrown away, not sent to the next one.
2. Nobody waits without a bound: every request, stored publish, pull and close has its time.
3. A handler is a plain function that enqueues. It gets nothing larger than ``MESSAGE_BYTES_MAX``, and what it raises is
   counted and logged, never passed on.
4. Answers go to inboxes only (:mod:`mesh.adapters.bus_message`).
5. No callback of ours raises or waits: an exception in one kills nats-py's read loop while it still calls itself connected.
6. A watchdog measures a round trip and looks at nats-py's tasks. What is closed, mute, dead or long in reconnecting is
   replaced by a new client, on which every subscription is made again. A short break is nats-py's own business, with full
   jitter between attempts, and without an end to them.
7. Credentials are never shown, and never sent in the clear to a server that should speak TLS.

Traps of nats-py 2.16 behind rules 5 and 6, each with a test: an ``rtt()`` that times out leaves a cancelled future on which
the late PONG breaks the read loop (so we never cancel one); most server errors close the client for good; ``publish`` never
yields and swallows a cancellation under back-pressure, ``drain`` likewise; a cancelled fetch leaves its pull request on the
server; a creds file without a token is read for ever; an advertised server is dialled with our password; an attempt that
fails after it was connected stays open.

Not here: making streams (:mod:`mesh.adapters.streams`), and any belief in what arrives.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import anyio
import nats.errors
from nats.aio.client import Client

from mesh.adapters.bus_message import COUNTERS, NO_HEADERS, Delivery, Handler, Message, Receipt, receipt
from mesh.adapters.bus_options import BusOptions, login
from mesh.adapters.bus_receive import Puller, Subscription
from mesh.adapters.nkey import UserKey
from mesh.errors import Refused, Unavailable
from mesh.limits import MESSAGE_BYTES_MAX

__all__ = ["Bus", "BusOptions", "Delivery", "Handler", "Message", "Receipt", "Subscription"]

_YIELD_EVERY: Final = 128
"""Publishes between two turns of the event loop: 5,000 without one would stop every timer for 14 ms."""
_PENDING_BYTES: Final = 262_144
"""Waiting to be written, above which a publish waits for the socket: small, for what waits here is late already."""
_STUCK_S: Final = 2.0
"""How long a publish may wait for the socket."""
_CONNECT_S: Final = 2
_DIAL_S: Final = 3.0
"""One round of attempts over all servers."""
_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 10.0
_RTT_S: Final = 2.0
_FLUSH_TURNS: Final = 100
"""Turns of the event loop in which nats-py writes what it holds, unless the socket is full."""
_RECONNECT_S: Final = 5.0
"""How long nats-py may try by itself: it can hang for minutes in closing a socket whose packets are dropped."""
_DISCARD_S: Final = 1.0

_log = logging.getLogger(__name__)


class _Client(Client):
    """nats-py's client with the places closed that have no option."""

    def __init__(self, key: UserKey | None) -> None:
        super().__init__()
        if key is not None:  # what connect() would set with a package that has no wheel
            self._auth_configured = True
            self._public_nkey = key.public

    async def _connect_to_server(self, s: Any) -> None:
        _abort(self)  # an attempt that failed after it was connected is left open by nats-py, one more with each
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        if "tls" in self.options and not self._server_info.get("tls_required"):  # rule 7
            raise nats.errors.SecureConnRequiredError
        return super()._connect_command()


class Bus:
    """One connection of one process role. Use :meth:`connect`, then as an async context manager or with :meth:`close`."""

    def __init__(self, options: BusOptions, on_change: Callable[[bool], None] | None) -> None:
        self._options = options
        self._on_change = on_change
        self._client: Any = None
        self._subscriptions: list[Subscription] = []
        self._pullers: dict[tuple[str, str, str], Puller] = {}
        self._kick = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._answering = False
        self._announced = False
        self._closing = False
        self._pings = set[asyncio.Task[float]]()
        self._own_servers: frozenset[str] = frozenset()
        self._last_error = ""
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        """What happened so far, for metrics; only ever grows."""

    @classmethod
    async def connect(cls, options: BusOptions, *, on_change: Callable[[bool], None] | None = None, wait_ms: int = 5_000) -> Self:
        """Connect, and stay connected until :meth:`close`.

        Args:
            options: where and as whom.
            on_change: told True when the bus became healthy and False when it no longer is; it must not wait.
            wait_ms: how long the first connection may take.

        Raises:
            Refused: ``config_invalid`` for credentials, addresses or a name that cannot be used.
            Unavailable: ``unreachable``.
        """
        bus = cls(options, on_change)
        end = time.monotonic() + wait_ms / 1000
        attempt = 0
        while bus._client is None:
            try:
                bus._client = await bus._dial(min(_DIAL_S, end - time.monotonic()))
            except Unavailable:
                attempt += 1
                if time.monotonic() + (pause := _jitter(attempt)) >= end:
                    raise
                await asyncio.sleep(pause)
        bus._answering = True
        bus._announce()
        bus._watcher = asyncio.create_task(bus._watch())
        return bus

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def healthy(self) -> bool:
        """Whether the server answered lately on a connection that still reads. A node that may not guess denies without it."""
        client = self._client
        return self._answering and client is not None and bool(client.is_connected) and not _broken(client)

    # ------------------------------------------------------------------------------------------------------------ send

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send without an answer; whether anybody got it is not known.

        Raises:
            Refused: ``too_large``, or ``malformed`` for a subject or header that NATS cannot carry.
            Unavailable: ``unreachable``.
        """
        counters = self.counters
        counters["published"] += 1
        if not counters["published"] % _YIELD_EVERY:
            await asyncio.sleep(0)
        client = self._sendable(data)  # from here to nats-py's buffer nothing waits: what is refused offline is never kept
        stuck, cancels = counters["stuck"], 0
        if waits := client.pending_data_size + len(data) > _PENDING_BYTES // 2:  # headers and subject count too
            cancels = _cancels()
        try:
            await client.publish(subject, data, headers=headers)
        except (nats.errors.Error, UnicodeError) as error:
            raise _ours(error, subject) from None
        if waits:
            if _cancels() > cancels:
                await _cancel_again()
            if counters["stuck"] > stuck:
                raise Unavailable("unreachable", "the connection takes nothing")

    async def request(self, subject: str, data: bytes, *, timeout_ms: int, headers: Mapping[str, str] | None = None) -> Message:
        """Ask and wait for the first answer.

        Raises:
            Refused: as :meth:`publish`.
            Unavailable: ``unreachable`` when nobody listens, nobody answers in ``timeout_ms``, or the answer is too large to read.
        """
        client = self._sendable(data)
        self.counters["requests"] += 1
        cancels = _cancels()
        try:
            answer = await client.request(subject, data, timeout=timeout_ms / 1000, headers=headers)
        except (nats.errors.Error, UnicodeError) as error:
            if _cancels() > cancels:  # it came together with the failure, which hid it
                await _cancel_again()
            raise _ours(error, subject) from None
        if _cancels() > cancels:
            await _cancel_again()
        if len(answer.data) > MESSAGE_BYTES_MAX:
            self.counters["dropped_oversize"] += 1
            raise Unavailable("unreachable", f"the answer on {subject} is too large")
        return Message(answer.subject, answer.data, answer.reply, answer.headers or NO_HEADERS, self)

    async def store(self, subject: str, data: bytes, *, message_id: str, timeout_ms: int) -> Receipt:
        """Publish to the stream that binds ``subject`` and wait until it holds the message; repeat with the same id until it does.

        Raises:
            Refused: as :meth:`publish`.
            Unavailable: ``unreachable`` when no stream answers, ``unavailable`` when it refuses (full, wrong size).
        """
        answer = await self.request(subject, data, timeout_ms=timeout_ms, headers={"Nats-Msg-Id": message_id})
        return receipt(answer)

    # --------------------------------------------------------------------------------------------------------- receive

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Hand every message on ``subject`` to ``handler``, on this connection and on all that follow.

        With a connection, the server knows of it when this returns: who is told now that we listen will be heard.

        Args:
            subject: may hold wildcards.
            handler: called on the event loop, one message at a time; it enqueues and returns.
            queue: share the messages with all subscribers of this group.

        Raises:
            Refused: ``malformed`` for a subject or group that NATS cannot carry.
        """
        subscription = Subscription(self, subject, queue, handler)
        self._subscriptions.append(subscription)
        client = self._client
        if client is not None and not client.is_closed:  # else the next connection makes it known
            try:
                await subscription.attach(client)
            except (nats.errors.BadSubjectError, UnicodeError) as error:
                self._subscriptions.remove(subscription)
                raise _ours(error, subject) from None
            await self._ping(client)
        return subscription

    async def forget(self, subscription: Subscription) -> None:
        """Take a wish back. For :class:`Subscription`."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            if subscription.native is not None:
                with suppress(nats.errors.Error):  # that connection is gone, and the wish with it
                    await subscription.native.unsubscribe()

    async def pull(self, stream: str, durable: str, *, batch: int, timeout_ms: int, domain: str = "") -> list[Delivery]:
        """Up to ``batch`` messages of a durable pull consumer; an empty list when there is none within ``timeout_ms``.

        The consumer must exist. A call that is cancelled leaves its fetch running, and the next call takes what it brought:
        so nothing is lost, and no pull request is left behind on the server. Keep ``timeout_ms`` at a few seconds.

        Raises:
            Unavailable: ``unreachable`` when stream, consumer or server do not answer.
        """
        key = (stream, durable, domain)
        puller = self._pullers.setdefault(key, Puller(*key))
        try:
            return await puller.take(self, partial(self._sendable, b""), batch, timeout_ms / 1000)
        except nats.errors.Error as error:
            with suppress(nats.errors.Error):
                await puller.unbind()
            raise _ours(error, f"{stream}/{durable}") from None

    # ----------------------------------------------------------------------------------------------------------- close

    async def close(self, *, drain_ms: int = 2_000) -> None:
        """Stop receiving, hand over what arrived, send what waits, all within ``drain_ms``; then close. Idempotent."""
        self._closing = True
        # Shielded: a node that is being cancelled must still leave the bus properly. anyio's scope cancels again and again,
        # which nats-py's drain needs: it swallows the first one.
        with anyio.CancelScope(shield=True):
            if self._watcher is not None:
                self._watcher.cancel()
                await asyncio.wait({self._watcher})
            for puller in self._pullers.values():
                with suppress(nats.errors.Error):
                    await puller.close()
            client = self._client
            if client is not None:
                with anyio.move_on_after(drain_ms / 1000), suppress(nats.errors.Error):
                    await client.drain()
            self._client = None
            await _discard(client, self._pings)
        self._announce()

    # -------------------------------------------------------------------------------------------------------- liveness

    def _sendable(self, data: bytes) -> Any:
        if len(data) > MESSAGE_BYTES_MAX:
            raise Refused("too_large", f"{len(data)} bytes, at most {MESSAGE_BYTES_MAX}")
        client = self._client
        if not self._answering or client is None or not client.is_connected:
            self.counters["refused_offline"] += 1
            raise Unavailable("unreachable", f"no connection to the bus {self._last_error}".rstrip())
        return client

    async def _watch(self) -> None:
        down_since: float | None = None
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._kick.wait(), self._options.watch_ms / 1000)
            self._kick.clear()
            try:
                alive = await self._alive(self._client)
                down_since = None if alive and self.healthy else down_since or time.monotonic()
                if not alive or (down_since is not None and time.monotonic() - down_since > _RECONNECT_S):
                    await self._rebuild()
                    down_since = None
                self._announce()
            except Exception:  # noqa: BLE001 -- the watchdog must not be what dies
                self.counters["errors"] += 1
                _log.exception("watching the bus")

    async def _alive(self, client: Any) -> bool:
        if client is None or client.is_closed:
            return False
        if not client.is_connected:
            return True  # it reconnects by itself, for a while
        reconnects = self.counters["reconnects"]
        return await self._ping(client) or not client.is_connected or self.counters["reconnects"] != reconnects

    async def _ping(self, client: Any) -> bool:
        """Whether the server answered: then it has all that was written before."""
        for _ in range(_FLUSH_TURNS):
            if not client.pending_data_size:
                break
            await asyncio.sleep(0)  # nats-py sends a PING before what it still holds
        # Never cancelled before the connection is gone: a PONG that finds a cancelled future kills the read loop.
        ping = asyncio.create_task(client.rtt(timeout=3600))
        self._pings.add(ping)
        tasks = {ping, client._reading_task, client._flusher_task}  # noqa: SLF001 -- see _broken
        await asyncio.wait(tasks, timeout=_RTT_S, return_when=asyncio.FIRST_COMPLETED)
        if not ping.done():
            return False
        self._pings.discard(ping)
        return ping.exception() is None

    async def _rebuild(self) -> None:
        self._answering = False
        self._announce()
        old, self._client = self._client, None
        await _discard(old, self._pings)
        attempt = 0
        while True:
            try:
                self._client = await self._dial(_DIAL_S)
                break
            except (Unavailable, Refused) as no:  # a credential file may be in the middle of its renewal
                self._last_error = no.detail
                attempt += 1
                await asyncio.sleep(_jitter(attempt))
        self._answering = True
        self.counters["rebuilds"] += 1

    async def _dial(self, limit_s: float) -> Any:
        arguments, key = login(self._options)
        self._last_error = ""
        client = _Client(key)
        try:
            await asyncio.wait_for(
                client.connect(
                    list(self._options.servers),
                    name=self._options.name,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    closed_cb=self._on_closed,
                    reconnect_to_server_handler=self._next_server,
                    inbox_prefix=f"_INBOX_{self._options.name}",
                    pending_size=_PENDING_BYTES,
                    flush_timeout=_STUCK_S,
                    max_reconnect_attempts=-1,
                    ping_interval=2,
                    max_outstanding_pings=2,
                    connect_timeout=_CONNECT_S,
                    reconnect_time_wait=_BACKOFF_MIN_S,  # type: ignore[arg-type]
                    **arguments,
                ),
                limit_s,
            )
            self._own_servers = frozenset(uri.netloc for uri in client.servers) - {uri.netloc for uri in client.discovered_servers}
            while unknown := [wish for wish in self._subscriptions if wish.client is not client]:
                await unknown[0].attach(client)
            await self._ping(client)
        except BaseException as error:
            await _discard(client, self._pings)
            if isinstance(error, nats.errors.Error | OSError | TimeoutError):
                raise Unavailable("unreachable", self._last_error or str(error)) from None
            if isinstance(error, Exception):  # nats-py's own way of saying that it will not have what it was given
                raise Refused("config_invalid", f"bus: {type(error).__name__}") from None
            raise
        self._last_error = ""
        return client

    def _next_server(self, pool: list[Any], _info: dict[str, Any]) -> tuple[Any, float]:
        # Only servers of our configuration: one that another server advertises would be shown our credentials.
        own = [server for server in pool if server.uri.netloc in self._own_servers] or pool
        fewest = min(server.reconnects for server in own)
        return secrets.choice([server for server in own if server.reconnects == fewest]), _jitter(fewest)

    # ------------------------------------------------------------------------------- called by nats-py: rule 5 throughout

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self.counters["dropped_slow"] += 1
        elif isinstance(error, nats.errors.FlushTimeoutError):
            self.counters["stuck"] += 1
            self._kick.set()
        else:
            self.counters["errors"] += 1
            if not (self._last_error and isinstance(error, OSError)):  # what a server said tells more than how it hung up
                self._last_error = f"({type(error).__name__}: {str(error)[:120]})"

    async def _on_disconnect(self) -> None:
        self.counters["disconnects"] += not self._closing
        client = self._client
        if client is not None:
            client._pending.clear()  # noqa: SLF001 -- rule 1: nats-py would send it on the next connection
            client._pending_data_size = 0  # noqa: SLF001 -- as above
        self._announce()

    async def _on_reconnect(self) -> None:
        self.counters["reconnects"] += 1
        self._last_error = ""
        self._announce()

    async def _on_closed(self) -> None:
        self._kick.set()

    def _announce(self) -> None:
        now = self.healthy and not self._closing
        if now == self._announced:
            return
        self._announced = now
        if self._on_change is not None:
            try:
                self._on_change(now)
            except Exception:  # noqa: BLE001 -- rule 5
                self.counters["handler_errors"] += 1
                _log.exception("told that the bus is %s", "healthy" if now else "unhealthy")


def _broken(client: Any) -> bool:
    # nats-py offers no other sight of it: the client calls itself connected while nobody reads.
    return any(task is None or task.done() for task in (client._reading_task, client._flusher_task))  # noqa: SLF001


async def _discard(client: Any, pings: "set[asyncio.Task[float]]") -> None:
    """End a client whatever state it is in, within a bound."""
    if client is not None:
        with anyio.move_on_after(_DISCARD_S, shield=True):
            try:
                await client.close()
            except Exception as error:  # noqa: BLE001 -- a half-made client fails in its own ways, and it is going anyway
                _log.debug("closing a connection: %r", error)
        _abort(client)  # a peer that reads nothing keeps a polite close waiting
    while pings:
        pings.pop().cancel()


def _abort(client: Any) -> None:
    writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001 -- nats-py only closes it politely
    if writer is not None:
        writer.transport.abort()


def _jitter(attempt: int) -> float:
    """Seconds to wait before an attempt: anything up to a bound that doubles, so that clients do not come back all at once."""
    bound = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2.0 ** min(attempt, 10))
    return bound * secrets.randbelow(1_000) / 1_000


def _cancels() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


async def _cancel_again() -> None:
    """nats-py swallowed a cancellation: let it arrive now."""
    await asyncio.sleep(0)  # anyio's scopes deliver again by themselves
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
        task.cancel()
        await asyncio.sleep(0)


def _ours(error: Exception, subject: str) -> Refused | Unavailable:
    match error:
        case nats.errors.NoRespondersError():
            return Unavailable("unreachable", f"nobody listens on {subject}")
        case nats.errors.TimeoutError():
            return Unavailable("unreachable", f"no answer on {subject} in time")
        case nats.errors.MaxPayloadError():
            return Refused("too_large", "more than the server takes")
        case nats.errors.BadSubjectError() | nats.errors.BadHeaderError() | UnicodeError():
            return Refused("malformed", f"{subject[:80]!r} or a header of it")
        case _:
            return Unavailable("unreachable", f"{subject}: {type(error).__name__} {str(error)[:120]}")
