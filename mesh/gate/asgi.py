"""A web application behind the gate, as ASGI middleware: a request reaches it only if it is authorized as what the program says it is.

::

    app = GateMiddleware(app, gate=gate, asks=lambda scope: Wanted("web/post", ("Path", scope["path"])))

Rules
-----
1. ``asks`` maps a connection to what is wanted. What it does not map (None) is denied, HTTP and websocket alike; what needs no
   authorization is said to be :data:`UNGOVERNED`, in so many words. Whatever fails while it is mapped or asked for is a denial.
2. A denial is 403, 428 where people have to approve first, with a JSON body ``{code, detail, retry_after?}``, ``detail`` being safe to
   show, and with ``Retry-After`` where trying again may help. A websocket is refused before it is accepted.
3. The application runs inside of the execution. When that is ended (:class:`~mesh.gate.errors.Aborted`) it is cancelled, and who
   waits gets 403, or a connection that breaks off if the answer has begun. What the application itself raises passes unchanged.
4. A client that goes away before its answer is complete cancels what was asked for, or what runs. Bodies pass through piece by piece,
   and none is read ahead of the application; so who leaves in the middle of an upload that nobody reads is noticed when it is read.
5. Lifespan passes through; a scope of another kind is refused.

Only what ``asks`` makes of the scope is signed. The body of a request is not: guard the function that gets what is in it.

Not here: who the client is. ``asks`` is given what the client sent, and believes of it what it can check.
"""

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast

import anyio
import msgspec

from mesh.core.run.intent import Assurance
from mesh.errors import MeshError
from mesh.gate.errors import Aborted, ApprovalRequired, Denied
from mesh.gate.front import Approvals, Gate, Papers, Resource

__all__ = ["EXECUTION", "UNGOVERNED", "App", "GateMiddleware", "Message", "Receive", "Scope", "Send", "Ungoverned", "Wanted"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

EXECUTION: Final = "mesh.execution"
"""Where the application finds its :class:`~mesh.gate.front.Execution`, in the scope."""
_DENIED: Final = 403
_APPROVAL: Final = 428
"""Precondition Required (RFC 6585): nothing is wrong with the request, somebody else has to say something first."""
_POLICY_VIOLATION: Final = 1008
"""Why a websocket is closed (RFC 6455, 7.4.1)."""


class Ungoverned(Enum):
    """A type of its own, so that no mistake is one."""

    UNGOVERNED = "ungoverned"


UNGOVERNED: Final = Ungoverned.UNGOVERNED
"""This connection needs no authorization."""


class Wanted(msgspec.Struct, frozen=True):
    """What a connection would do; as the arguments of :meth:`mesh.gate.front.Gate.execution`."""

    action: str
    resource: Resource
    params: Mapping[str, Any] = {}
    committed: Mapping[str, Any] = {}
    sealed: Mapping[str, Any] = {}
    purpose: str = ""
    assurance: Assurance = "local"
    approvals: Approvals = ()
    within: Papers | None = None


Asks: TypeAlias = Callable[[Scope], Wanted | Ungoverned | None]


class GateMiddleware:
    """The application that stands in front of ``app``."""

    def __init__(self, app: App, *, gate: Gate, asks: Asks) -> None:
        """Let through to ``app`` what ``gate`` authorizes as ``asks`` says."""
        self._app = app
        self._gate = gate
        self._asks = asks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            raise Denied("action_unknown", f"a scope of type {str(kind)[:40]}")
        client = _Client(scope, receive, send)
        try:
            wanted = self._wanted(scope)
        except Denied as denied:
            await client.refuse(denied)
            return
        if isinstance(wanted, Ungoverned):
            await self._app(scope, receive, send)
            return
        with anyio.CancelScope() as here:
            listening = asyncio.create_task(client.listen(here.cancel))
            try:
                await self._governed(scope, client, wanted)
            finally:
                listening.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.gather(listening, return_exceptions=True)

    def _wanted(self, scope: Scope) -> Wanted | Ungoverned:
        try:
            wanted = cast("object", self._asks(scope))
        except MeshError as error:
            raise Denied(error.code, error.detail) from error
        except Exception as error:
            raise Denied("internal_error", type(error).__name__) from error
        if wanted is None:
            raise Denied("action_unknown", "no action stands for this connection")
        if inspect.iscoroutine(wanted):
            wanted.close()  # it is said what is wrong, not that nobody awaited it
        if not isinstance(wanted, Wanted | Ungoverned):
            raise Denied("internal_error", f"an action is a Wanted, not a {type(wanted).__name__}")
        return wanted

    async def _governed(self, scope: Scope, client: "_Client", wanted: Wanted) -> None:
        entered = False
        try:
            async with self._gate.execution(
                wanted.action,
                wanted.resource,
                wanted.params,
                committed=wanted.committed,
                sealed=wanted.sealed,
                purpose=wanted.purpose,
                assurance=wanted.assurance,
                approvals=wanted.approvals,
                within=wanted.within,
            ) as run:
                entered = True
                await self._app({**scope, EXECUTION: run}, client.receive, client.send)
        except Aborted as aborted:
            if not await client.refuse(aborted):
                raise
        except Denied as denied:
            if entered:  # somebody's further down
                raise
            await client.refuse(denied)
        except Exception as error:
            if entered:
                raise
            await client.refuse(Denied("internal_error", type(error).__name__))


class _Client:
    """The other end of one connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._kind: Literal["http", "websocket"] = scope["type"]
        self._answers = self._kind == "http" or "websocket.http.response" in (scope.get("extensions") or {})
        """Whether a denial can have a body."""
        self._receive = receive
        self._send = send
        self._waiting: deque[Message] = deque()
        self._left: Message | None = None
        self._listeners = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._begun = False
        """HTTP: the answer has begun; websocket: it is accepted."""
        self._done = False
        """HTTP: the answer is complete; websocket: it is closed."""
        self._heard = False
        """Whether somebody listens."""
        self._over = False
        """HTTP: the server says what cannot follow a whole body, so it is only listened to when the application asks."""

    async def listen(self, gone: Callable[[], object]) -> None:
        """Hear what comes before the application asks for it (rule 4), and call ``gone`` if the client leaves too early."""
        self._heard, more, whole = True, False, False
        while True:
            while more and self._waiting:
                self._room.clear()
                await self._room.wait()
            try:
                message = await self._receive()
            except Exception:  # noqa: BLE001 -- whatever a server raises here, nobody hears the client any more
                message = {"type": f"{self._kind}.disconnect"}
            if message["type"] == f"{self._kind}.disconnect":
                break
            self._waiting.append(message)
            self._over = whole
            self._news.set()
            if self._over:
                return
            more = self._kind == "websocket" or message.get("more_body", False)
            whole = not more
        self._left = message
        waited_for = self._kind == "websocket" and self._listeners > 0  # how such a conversation usually ends
        self._news.set()
        if not self._done and not waited_for:
            gone()

    async def receive(self) -> Message:
        """For the application."""
        self._listeners += 1
        try:
            while not self._waiting and self._left is None:
                if self._over:
                    return await self._receive()
                self._news.clear()
                await self._news.wait()
        finally:
            self._listeners -= 1
        if not self._waiting:
            return cast("Message", self._left)
        self._room.set()
        return self._waiting.popleft()

    async def send(self, message: Message) -> None:
        """For the application."""
        self._note(message)
        await self._send(message)

    def _note(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.accept" | "websocket.http.response.start":
                self._begun = True
            case "http.response.body" | "websocket.http.response.body":
                self._done = not message.get("more_body", False)
            case "http.response.pathsend" | "websocket.close":
                self._done = True
            case _:
                pass

    async def refuse(self, ended: Denied | Aborted) -> bool:
        """Tell the client, if it can still be told (rule 2); whether it could."""
        if self._done or (self._kind == "http" and self._begun):
            return False
        if self._kind == "websocket" and not self._heard:
            await self._receive()  # the question that is answered now
        if self._kind == "websocket" and (self._begun or not self._answers):
            await self.send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ended.code})
            return True
        prefix = "http" if self._kind == "http" else "websocket.http"
        status, headers, body = _answer(ended)
        await self.send({"type": f"{prefix}.response.start", "status": status, "headers": headers})
        await self.send({"type": f"{prefix}.response.body", "body": body, "more_body": False})
        return True


def _answer(ended: Denied | Aborted) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body."""
    said: dict[str, object] = {"code": ended.code, "detail": ended.safe}
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if ended.retry_after is not None:
        said["retry_after"] = ended.retry_after
        headers.append((b"retry-after", str(ended.retry_after).encode()))
    if isinstance(ended, ApprovalRequired):
        said["intent"] = ended.intent
    body = json.dumps(said).encode()
    headers.append((b"content-length", str(len(body)).encode()))
    return _APPROVAL if isinstance(ended, ApprovalRequired) else _DENIED, headers, body
