"""What we offer keeps to the contract for adapters, and whoever breaks one clause of it fails that clause and no other."""

import asyncio
import concurrent.futures
import contextlib
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mesh
from mesh.cli import run as command
from mesh.gate.asgi import GateMiddleware, Message, Receive, Scope, Send, Wanted
from mesh.gate.errors import Denied
from mesh.gate.front import Gate
from mesh.testing import Body, BodyFailed, ContractBroken, FakeGate, adapter_contract, broken_clauses, connected_to, contract
from mesh.testing.contract import CLAUSES, Adapter, check
from tests.house.tree import ROOT

ACTION, JOB, PARAMS = "jobs/run", ("Job", "nightly"), {"attempt": 1, "tables": ["a", "b"]}


# ----------------------------------------------------------------------------------------------------------- what we offer


def _guard(gate: Gate, body: Body) -> None:
    @gate.guard(ACTION, resource=lambda job, **_: ("Job", job), committed=("memo",))
    def work(job: str, memo: str) -> None:
        assert (job, memo) == ("nightly", "secret")
        body()

    work("nightly", memo="secret")


def _guard_sealed(gate: Gate, body: Body) -> None:
    @gate.guard(ACTION, resource=JOB, sealed=("iban",))
    def work(iban: str, attempt: int) -> None:
        assert (iban, attempt) == ("DE1", 1)
        body()

    work("DE1", 1)


async def _guard_async(gate: Gate, body: Body) -> None:
    @gate.guard(ACTION, resource=JOB)
    async def work(*, attempt: int) -> None:
        await asyncio.sleep(0)
        assert attempt == 1
        body()

    await work(attempt=1)


def _execution(gate: Gate, body: Body) -> None:
    with gate.execution(ACTION, JOB, PARAMS) as run:
        assert run.params == PARAMS
        body()


async def _execution_async(gate: Gate, body: Body) -> None:
    async with gate.execution(ACTION, JOB, PARAMS):
        await asyncio.sleep(0)
        body()


async def _asgi(gate: Gate, body: Body) -> str | None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body()
            status = 200
        except BodyFailed:
            status = 500
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    sent = list[Message]()
    requests = asyncio.Queue[Message]()
    requests.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    async def send(message: Message) -> None:
        sent.append(message)

    behind = GateMiddleware(app, gate=gate, asks=lambda scope: Wanted("web/post", ("Path", scope["path"]), {"method": scope["method"]}))
    await behind({"type": "http", "method": "POST", "path": "/jobs"}, requests.get, send)
    if sent[0]["status"] in {403, 428}:
        return str(json.loads(sent[1]["body"])["code"])
    return None if sent[0]["status"] == 200 else "failed"


def _mesh_run(gate: Gate, body: Body) -> str | None:
    said = io.StringIO()
    with connected_to(gate), contextlib.redirect_stderr(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", None)
        status = command(["run", "--action", "ops/run", "--resource", "Host:here", "--", *body.argv])
    if status == 0:
        return None
    found = re.search(r"error\[(\w+)\]", said.getvalue())
    return found[1] if found else f"exit status {status}"


test_a_guarded_function = adapter_contract(_guard)
test_a_guarded_async_function = adapter_contract(_guard_async)
test_a_guarded_function_with_a_sealed_argument = adapter_contract(_guard_sealed)
test_an_execution = adapter_contract(_execution)
test_an_async_execution = adapter_contract(_execution_async)
test_the_asgi_middleware = adapter_contract(_asgi)
test_mesh_run = adapter_contract(_mesh_run)


# ------------------------------------------------------------------------------------------------------------ what is broken


def _runs_on(code: str) -> Adapter:
    """Fails open for one reason."""

    def adapter(gate: Gate, body: Body) -> None:
        try:
            _execution(gate, body)
        except Denied as denied:
            if denied.code == code:
                body()
            raise

    return adapter


def _runs_nothing(gate: Gate, body: Body) -> None:
    with gate.execution(ACTION, JOB, PARAMS):
        if body.fails:
            raise BodyFailed


def _runs_afterwards(gate: Gate, body: Body) -> None:
    with gate.execution(ACTION, JOB, PARAMS):
        pass
    time.sleep(0.02)
    body()


def _loses_patience(gate: Gate, body: Body) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(_execution, gate, body)
        try:
            asked.result(timeout=0.75)
        except TimeoutError:
            body()


def _takes_silence_for_yes(gate: Gate, body: Body) -> None:
    begun = time.monotonic()
    try:
        _execution(gate, body)
    except Denied as denied:
        if denied.code == "unreachable" and time.monotonic() - begun < 0.5:
            body()
        raise


def _remembers_a_yes() -> Adapter:
    permitted: list[Gate] = []

    def adapter(gate: Gate, body: Body) -> None:
        if gate in permitted:
            body()
            return
        _execution(gate, body)
        permitted.append(gate)

    return adapter


def _makes_up_for_it() -> Adapter:
    waiting: list[Body] = []

    def adapter(gate: Gate, body: Body) -> None:
        try:
            with gate.execution(ACTION, JOB, PARAMS):
                body()
                while waiting:
                    waiting.pop()()
        except Denied as denied:
            if denied.code == "overloaded":
                waiting.append(body)
            raise

    return adapter


def _tries_again(gate: Gate, body: Body) -> None:
    with gate.execution(ACTION, JOB, PARAMS):
        try:
            body()
        except BodyFailed:
            body()


def _is_tight_lipped(gate: Gate, body: Body) -> str | None:
    try:
        _execution(gate, body)
    except Denied:
        return "sorry"
    return None


BROKEN: dict[str, Callable[[], Adapter]] = {
    "permitted": lambda: _runs_nothing,
    "inside": lambda: _runs_afterwards,
    "denied": lambda: _runs_on("policy_denied"),
    "timed_out": lambda: _loses_patience,
    "governor_down": lambda: _takes_silence_for_yes,
    "stale": lambda: _runs_on("stale"),
    "revoked": lambda: _runs_on("revoked"),
    "forged": lambda: _runs_on("bad_signature"),
    "gate_broken": lambda: _runs_on("internal_error"),
    "asked_each_time": _remembers_a_yes,
    "retried": _makes_up_for_it,
    "failed_once": lambda: _tries_again,
    "told_why": lambda: _is_tight_lipped,
}


@pytest.mark.parametrize("clause", CLAUSES)
def test_who_breaks_one_clause_fails_that_clause_and_no_other(monkeypatch: pytest.MonkeyPatch, clause: str) -> None:
    if clause not in {"timed_out", "governor_down"}:  # nobody else cares how long it was silent
        monkeypatch.setattr(contract, "_SLOW_S", 0.05)
    found = broken_clauses(BROKEN[clause]())
    assert list(found) == [clause], found
    assert found[clause].startswith(f"{clause}: ")


def test_each_clause_says_what_it_demands() -> None:
    assert set(BROKEN) == set(CLAUSES)
    for clause in CLAUSES.values():
        assert (clause.__doc__ or "").endswith(".")


# ------------------------------------------------------------------------------------------------------- who fails them all


def _asks_nobody(gate: Gate, body: Body) -> None:
    body()


def _runs_whatever_comes(gate: Gate, body: Body) -> None:
    with contextlib.suppress(Denied), gate.execution(ACTION, JOB, PARAMS):
        pass
    body()


@pytest.mark.parametrize("clause", CLAUSES)
def test_who_asks_nobody_fails_every_clause(clause: str) -> None:
    with pytest.raises(ContractBroken, match="asked for nothing"):
        check(_asks_nobody, clause)


@pytest.mark.parametrize("clause", ["denied", "governor_down", "stale", "revoked", "forged", "gate_broken"])
def test_who_runs_whatever_comes_fails_wherever_it_must_not(clause: str) -> None:
    with pytest.raises(ContractBroken, match="the body ran although"):
        check(_runs_whatever_comes, clause)


def test_a_program_that_exits_says_so_by_its_status() -> None:
    def adapter(gate: Gate, body: Body) -> None:
        try:
            _execution(gate, body)
        except (Denied, BodyFailed):
            sys.exit(2)
        sys.exit(0)

    assert list(broken_clauses(adapter)) == ["told_why"]


def test_a_body_that_is_put_off_to_a_thread_is_seen() -> None:
    def adapter(gate: Gate, body: Body) -> None:
        try:
            _execution(gate, body)
        except Denied:
            threading.Timer(0.01, body).start()
            raise

    with pytest.raises(ContractBroken):
        check(adapter, "denied")


# -------------------------------------------------------------------------------------------------------------- a stranger's


def test_whoever_writes_an_adapter_gets_one_test_for_each_clause(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from mesh.testing import adapter_contract\n"
        "def mine(gate, body):\n"
        "    with gate.execution('jobs/run', ('Job', 'x'), {'n': 1}):\n"
        "        body()\n"
        "test_contract = adapter_contract(mine)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert f"{len(CLAUSES)} passed" in done.stdout, done.stdout + done.stderr


def test_without_pytest_it_is_a_function() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from mesh.testing import broken_clauses\n"
        "def mine(gate, body):\n"
        "    with gate.execution('jobs/run', ('Job', 'x')):\n"
        "        body()\n"
        "print(broken_clauses(mine))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env={"PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True
    )
    assert done.stdout == "{}\n", done.stderr


def test_who_is_lent_a_gate_does_not_close_it_and_afterwards_everything_is_as_before() -> None:
    before = mesh.connect
    gate = FakeGate()
    with connected_to(gate):
        with mesh.connect("any", "body") as lent, lent.execution(ACTION, JOB):
            pass

        async def other() -> None:
            async with await mesh.connect_async() as lent, lent.execution(ACTION, JOB):
                pass

        asyncio.run(other())
    assert len(gate.asked) == 2
    assert mesh.connect is before
    with gate.execution(ACTION, JOB):
        pass
