"""A web application behind the gate runs only what is authorized, tells why not, and ends with what it was for."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import mesh
from mesh.core.run.outcome import Failed
from mesh.gate.asgi import EXECUTION, UNGOVERNED, GateMiddleware, Message, Receive, Scope, Send, Wanted
from mesh.gate.errors import Aborted, Denied
from mesh.gate.front import Gate
from tests.gate.wire import FakeBus, events_of, outcomes_of, revoked
from tests.support.factory import Lab

Web = Callable[[Scope, Receive, Send], Awaitable[None]]


class Browser:
    """The server's side of one connection: what it hands in, what it was given."""

    def __init__(self, kind: str = "http", *, path: str = "/pay", body: list[bytes] | None = None, **more: Any) -> None:
        self.scope: Scope = {"type": kind, "path": path, "headers": [], **more}
        self._in: asyncio.Queue[Message] = asyncio.Queue()
        self.out = list[Message]()
        self.given = 0
        """Messages that were taken."""
        if kind == "websocket":
            self._in.put_nowait({"type": "websocket.connect"})
        elif kind == "http":
            parts = body or [b""]
            for at, part in enumerate(parts, 1):
                self._in.put_nowait({"type": "http.request", "body": part, "more_body": at < len(parts)})

    def leave(self) -> None:
        self._in.put_nowait({"type": f"{self.scope['type']}.disconnect"})

    def say(self, text: str) -> None:
        self._in.put_nowait({"type": "websocket.receive", "text": text})

    async def receive(self) -> Message:
        message = await self._in.get()
        self.given += 1
        return message

    async def send(self, message: Message) -> None:
        self.out.append(message)

    async def visit(self, app: Web) -> "Browser":
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.out[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.out)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.out[0]["headers"])


def pays(amount: int = 3, account: str = "acme") -> Callable[[Scope], Wanted]:
    return lambda _: Wanted("payments/send", ("Account", account), {"amount": amount})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello", "more_body": False})


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    pytest.fail("the application was reached")


async def recorded(gate: Gate, bus: FakeBus) -> list[str]:
    await gate.aclose()
    return events_of(bus)


async def until(done: Callable[[], bool]) -> None:
    for _ in range(250):
        if done():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not happen")


# -------------------------------------------------------------------------------------------------------------------- http


async def test_what_is_authorized_is_answered_by_the_application(gate: Gate, bus: FakeBus) -> None:
    seen = list[Any]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope[EXECUTION].params)
        await hello(scope, receive, send)

    browser = await Browser().visit(GateMiddleware(app, gate=gate, asks=pays()))
    assert (browser.status, browser.body) == (200, b"hello")
    assert seen == [{"amount": 3}]
    assert EXECUTION not in browser.scope
    assert await recorded(gate, bus) == ["started", "finished"]


async def test_what_is_denied_does_not_reach_the_application_and_is_told_why(gate: Gate, bus: FakeBus) -> None:
    browser = await Browser().visit(GateMiddleware(never, gate=gate, asks=pays(amount=101)))
    assert browser.status == 403
    assert json.loads(browser.body) == {"code": "policy_denied", "detail": Denied("policy_denied").safe}
    assert b"retry-after" not in browser.headers
    assert browser.headers[b"content-type"] == b"application/json"
    assert browser.headers[b"content-length"] == str(len(browser.body)).encode()
    assert await recorded(gate, bus) == []


async def test_where_trying_again_may_help_it_is_told_when(gate: Gate, bus: FakeBus) -> None:
    for node in bus.mesh.nodes.values():
        node.up = False
    browser = await Browser().visit(GateMiddleware(never, gate=gate, asks=pays()))
    assert browser.status == 403
    assert json.loads(browser.body)["code"] == "unreachable"
    assert json.loads(browser.body)["retry_after"] == 2
    assert browser.headers[b"retry-after"] == b"2"


async def test_what_people_must_approve_is_another_status_and_names_what_to_approve(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    asks = pays(amount=500, account="vault")
    browser = await Browser().visit(GateMiddleware(never, gate=gate, asks=asks))
    assert browser.status == 428
    said = json.loads(browser.body)
    assert said["code"] == "approval_needed"
    approval = lab.approval(bus.mesh.nodes["eu-1"].bodies[said["intent"]])

    def approved(scope: Scope) -> Wanted:
        return Wanted("payments/send", ("Account", "vault"), {"amount": 500}, approvals=(approval,))

    assert (await Browser().visit(GateMiddleware(hello, gate=gate, asks=approved))).status == 200


def _broken(_: Scope) -> Any:
    raise KeyError("a secret")


async def _later(_: Scope) -> Wanted:
    return pays()({})


def _refuses(_: Scope) -> Any:
    raise mesh.Refused("params_mismatch", "a secret")


UNMAPPED: dict[str, tuple[Any, str]] = {
    "nothing": (lambda _: None, "action_unknown"),
    "yes": (lambda _: True, "internal_error"),
    "an error": (_broken, "internal_error"),
    "our own error": (_refuses, "params_mismatch"),
    "a coroutine": (_later, "internal_error"),
    "a name that is none": (lambda _: Wanted("pay", ("Account", "acme")), "malformed"),
    "a value that cannot be signed": (lambda _: Wanted("payments/send", ("Account", "acme"), {"amount": 1.5}), "params_mismatch"),
    "a resource that is none": (lambda _: Wanted("payments/send", ("Account",)), "malformed"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", UNMAPPED)
async def test_what_is_not_mapped_or_fails_in_mapping_is_denied(gate: Gate, bus: FakeBus, what: str) -> None:
    asks, code = UNMAPPED[what]
    browser = await Browser().visit(GateMiddleware(never, gate=gate, asks=asks))
    assert (browser.status, json.loads(browser.body)["code"]) == (403, code)
    assert b"secret" not in browser.body
    assert not [subject for subject in bus.asked if ".intent." in subject]


async def test_a_gate_that_breaks_is_a_denial(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(gate, "execution", broken)
    browser = await Browser().visit(GateMiddleware(never, gate=gate, asks=pays()))
    assert (browser.status, json.loads(browser.body)["code"]) == (403, "internal_error")


async def test_only_what_is_called_so_is_ungoverned(gate: Gate, bus: FakeBus) -> None:
    browser = await Browser(path="/health").visit(GateMiddleware(hello, gate=gate, asks=lambda _: UNGOVERNED))
    assert browser.status == 200
    assert await recorded(gate, bus) == []


@pytest.mark.parametrize("begun", [True, False])
async def test_an_exception_of_the_application_passes_unchanged(gate: Gate, bus: FakeBus, *, begun: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await Browser().visit(GateMiddleware(app, gate=gate, asks=pays()))
    assert await recorded(gate, bus) == ["started", "failed"]


async def test_a_denial_inside_of_the_application_is_the_applications(gate: Gate) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Denied("policy_denied")

    with pytest.raises(Denied):
        await Browser().visit(GateMiddleware(app, gate=gate, asks=pays()))


async def test_bodies_pass_piece_by_piece_in_both_directions_and_nothing_is_read_ahead(gate: Gate) -> None:
    browser = Browser(body=[b"a", b"b", b"c"])
    ahead = list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            await asyncio.sleep(0.01)
            message = await receive()
            ahead.append(browser.given)
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": more})

    assert (await browser.visit(GateMiddleware(app, gate=gate, asks=pays()))).body == b"ABC"
    assert ahead == [1, 2, 3]


async def test_a_client_that_leaves_cancels_what_runs(gate: Gate, bus: FakeBus) -> None:
    inside, cleaned = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        inside.set()
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.set()

    browser = Browser()
    visit = asyncio.create_task(browser.visit(GateMiddleware(app, gate=gate, asks=pays())))
    await inside.wait()
    browser.leave()
    await asyncio.wait_for(visit, 5)
    assert cleaned.is_set()
    assert browser.out == []
    await gate.aclose()
    ended = outcomes_of(bus)[-1].event
    assert isinstance(ended, Failed)
    assert ended.error == "CancelledError"


async def test_a_client_that_leaves_while_it_is_asked_for_lets_nothing_run(gate: Gate, bus: FakeBus) -> None:
    asked, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def hold(subject: str) -> None:
        if ".intent." in subject:
            loop.call_soon_threadsafe(asked.set)
            await asyncio.to_thread(go_on.wait, 10)

    bus.hold = hold
    browser = Browser()
    visit = asyncio.create_task(browser.visit(GateMiddleware(never, gate=gate, asks=pays())))
    await asked.wait()
    browser.leave()
    await asyncio.wait_for(visit, 5)
    go_on.set()
    assert browser.out == []


async def test_after_the_answer_who_leaves_cancels_nothing(gate: Gate, bus: FakeBus) -> None:
    browser, done = Browser(), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await hello(scope, receive, send)
        browser.leave()
        done.append((await receive())["type"])
        await asyncio.sleep(0.1)
        done.append("afterwards")

    await browser.visit(GateMiddleware(app, gate=gate, asks=pays()))
    assert done == ["http.disconnect", "afterwards"]
    assert await recorded(gate, bus) == ["started", "finished"]


async def test_a_server_that_breaks_off_is_a_client_that_left(gate: Gate) -> None:
    browser = Browser()

    async def broken() -> Message:
        raise ConnectionResetError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(30)

    await asyncio.wait_for(GateMiddleware(app, gate=gate, asks=pays())(browser.scope, broken, browser.send), 5)
    assert browser.out == []


async def test_a_server_that_says_more_than_it_can_stops_nobody(gate: Gate) -> None:
    browser, taken = Browser(), list[str]()

    async def for_ever() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        taken.extend([(await receive())["type"] for _ in range(5)])
        await hello(scope, receive, send)

    await asyncio.wait_for(GateMiddleware(app, gate=gate, asks=pays())(browser.scope, for_ever, browser.send), 5)
    assert (browser.status, taken) == (200, ["http.request"] * 5)


@pytest.mark.parametrize("begun", [True, False])
async def test_what_is_revoked_while_it_runs_is_ended_and_told_if_it_can_be(gate: Gate, bus: FakeBus, lab: Lab, *, begun: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        gate._core.outlook.governance = revoked(lab, "key", lab.holder.public)
        await asyncio.sleep(30)

    browser, behind = Browser(), GateMiddleware(app, gate=gate, asks=pays())
    if begun:
        with pytest.raises(Aborted):
            await browser.visit(behind)
        assert [message["type"] for message in browser.out] == ["http.response.start"]
    else:
        await browser.visit(behind)
        assert (browser.status, json.loads(browser.body)["code"]) == (403, "revoked")
    assert await recorded(gate, bus) == ["started", "aborted"]


# -------------------------------------------------------------------------------------------------- lifespan, websocket, others


async def test_lifespan_passes_through(gate: Gate) -> None:
    reached = list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    await Browser("lifespan").visit(GateMiddleware(app, gate=gate, asks=lambda _: None))
    assert reached == ["lifespan"]


async def test_a_connection_of_another_kind_is_refused(gate: Gate) -> None:
    with pytest.raises(Denied):
        await Browser("carrier-pigeon").visit(GateMiddleware(never, gate=gate, asks=lambda _: UNGOVERNED))


@pytest.mark.parametrize("asks", [lambda _: None, pays(amount=101)], ids=["unmapped", "denied"])
@pytest.mark.parametrize("answers", [True, False])
async def test_a_websocket_is_refused_before_it_is_accepted(gate: Gate, asks: Any, *, answers: bool) -> None:
    browser = Browser("websocket", extensions={"websocket.http.response": {}} if answers else {})
    await browser.visit(GateMiddleware(never, gate=gate, asks=asks))
    code = "action_unknown" if asks({}) is None else "policy_denied"
    if answers:
        assert [message["type"] for message in browser.out] == ["websocket.http.response.start", "websocket.http.response.body"]
        assert (browser.status, json.loads(browser.body)["code"]) == (403, code)
    else:
        assert browser.out == [{"type": "websocket.close", "code": 1008, "reason": code}]


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})


async def test_a_mapped_websocket_is_one_execution_and_ends_as_such_conversations_do(gate: Gate, bus: FakeBus) -> None:
    browser = Browser("websocket")
    browser.say("one")
    browser.say("two")
    visit = asyncio.create_task(browser.visit(GateMiddleware(_echo, gate=gate, asks=pays())))
    await until(lambda: len(browser.out) == 3)
    browser.leave()
    await asyncio.wait_for(visit, 5)
    assert [message.get("text") for message in browser.out] == [None, "one", "two"]
    assert await recorded(gate, bus) == ["started", "finished"]


async def test_a_websocket_whose_application_does_not_listen_is_cancelled_with_its_client(gate: Gate, bus: FakeBus) -> None:
    inside = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        inside.set()
        await asyncio.sleep(30)

    browser = Browser("websocket")
    visit = asyncio.create_task(browser.visit(GateMiddleware(app, gate=gate, asks=pays())))
    await inside.wait()
    browser.leave()
    await asyncio.wait_for(visit, 5)
    assert await recorded(gate, bus) == ["started", "failed"]


async def test_a_websocket_that_is_revoked_is_closed(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        gate._core.outlook.governance = revoked(lab, "key", lab.holder.public)
        await receive()

    browser = await Browser("websocket").visit(GateMiddleware(app, gate=gate, asks=pays()))
    assert browser.out[-1] == {"type": "websocket.close", "code": 1008, "reason": "revoked"}
    assert await recorded(gate, bus) == ["started", "aborted"]
