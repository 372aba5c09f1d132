"""A fake gate shows a program what the real one would, and cannot be taken for it in production."""

import ast
import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.core.bytes import envelope
from mesh.core.run.authorization import Authorization
from mesh.core.run.kin import read_parent
from mesh.errors import Refused
from mesh.gate.core import Core
from mesh.gate.errors import Aborted, ApprovalRequired, Denied
from mesh.gate.front import Execution, Gate
from mesh.gate.hall import Hall
from mesh.testing import FakeGate
from mesh.testing.fakegate import _Behind, _Here
from tests.house.tree import ROOT, parsed

RESOURCE = ("Account", "acme")


@pytest.fixture
def fake() -> FakeGate:
    return FakeGate(obligations=["receipt"])


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_") or name in {"__enter__", "__aexit__"}}


# --------------------------------------------------------------------------------------------------------- it cannot drift


@pytest.mark.parametrize("name", sorted(public(Gate)))
def test_it_has_the_gates_methods_with_the_gates_signatures(name: str) -> None:
    assert inspect.signature(getattr(FakeGate, name)) == inspect.signature(getattr(Gate, name))


def test_what_it_has_besides_is_for_telling_it_what_to_do() -> None:
    assert set(public(FakeGate)) == {"asked", "approval", "permit", "deny", "need_approvals", "revoke"}
    assert not set(public(FakeGate)) & set(public(Gate))


def test_what_it_gives_is_the_gates_own(fake: FakeGate) -> None:
    assert type(fake.execution("payments/send", RESOURCE)) is Execution


@pytest.mark.parametrize(("part", "real", "stand_in"), [("_core", Core, _Behind), ("_hall", Hall, _Here)])
def test_everything_that_the_front_asks_of_what_stands_behind_is_there_and_takes_the_same(part: str, real: type, stand_in: type) -> None:
    used = {
        node.attr
        for node in ast.walk(parsed("mesh/gate/front.py"))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == part
    }
    assert used
    for name in used:
        ours, theirs = inspect.signature(getattr(stand_in, name)), inspect.signature(getattr(real, name))
        assert [(item.name, item.kind) for item in ours.parameters.values()] == [
            (item.name, item.kind) for item in theirs.parameters.values()
        ], name


def _async_body(gate: Gate) -> object:
    @gate.guard("payments/send", resource=RESOURCE)
    async def pay(amount: int) -> int:
        await asyncio.sleep(0)
        return amount + 1

    return asyncio.run(pay(amount=2))


def _plain_body(gate: Gate) -> object:
    @gate.guard("payments/send", resource=lambda amount, **_: ("Account", f"a{amount}"), committed=("memo",))
    def pay(amount: int, memo: str | None = None) -> object:
        return amount, memo

    return pay(5), pay(6, "rent"), list(inspect.signature(pay).parameters)


def _twice(gate: Gate) -> object:
    run = gate.execution("payments/send", RESOURCE, {"amount": 3})
    with run:
        pass
    with run:
        pytest.fail("entered twice")


def _outputs(gate: Gate) -> object:
    with gate.execution("payments/send", RESOURCE, {"amount": 3}) as run:
        run.check()
        run.exited(0, "")
        for number in range(17):
            run.output(b"", f"o{number}")
    return None


def _fails(gate: Gate) -> object:
    with gate.execution("payments/send", RESOURCE, {"amount": 3}):
        raise KeyError("mine")


def _measured(gate: Gate) -> object:
    def broken() -> Any:
        raise OSError

    with gate.execution("payments/send", RESOURCE, {"amount": 3}, measure=broken):
        pytest.fail("entered")


def _closed(gate: Gate) -> object:
    gate.close()
    with gate.execution("payments/send", RESOURCE, {"amount": 3}):
        pytest.fail("entered")


def _papers(gate: Gate) -> object:
    with gate.execution("payments/send", RESOURCE, {"amount": 3}) as run:
        said = envelope.read(Authorization, bytes(read_parent(run.papers).authorization))
        return said.claims.action, run.obligations, run.params, len(run.intent), len(run.countersign(b""))


def _block(*arguments: Any, **more: Any) -> Callable[[Gate], object]:
    def do(gate: Gate) -> object:
        with gate.execution(*arguments, **more) as run:
            return dict(run.params)

    return do


SAME: dict[str, Callable[[Gate], object]] = {
    "a plain function": _plain_body,
    "an async function": _async_body,
    "a block": _block("payments/send", RESOURCE, {"amount": 3}, committed={"memo": "rent"}),
    "entered twice": _twice,
    "too many outputs": _outputs,
    "a body that fails": _fails,
    "a measure that fails": _measured,
    "a closed gate": _closed,
    "a float": _block("payments/send", RESOURCE, {"amount": 1.5}),
    "a name that is none": _block("pay", RESOURCE),
    "a resource that is none": _block("payments/send", ("Account",)),
    "a file of approvals that is not there": _block("payments/send", RESOURCE, {"amount": 3}, approvals=[Path("nowhere")]),
    "papers that are none": _block("payments/send", RESOURCE, {"amount": 3}, within=b"{}"),
    "a method": lambda gate: gate.guard("payments/send", resource=RESOURCE)(gate.close),
    "papers of what runs": _papers,
    "not begun": lambda gate: gate.execution("payments/send", RESOURCE).params,
}


def _said(do: Callable[[Gate], object], gate: Gate) -> object:
    try:
        return do(gate)
    except Denied as denied:
        return type(denied), denied.code
    except Refused as refused:
        return type(refused), refused.code
    except Exception as error:  # noqa: BLE001 -- whatever it is, it must be the same
        return type(error), str(error)


@pytest.mark.parametrize("what", SAME)
def test_a_program_cannot_tell_it_from_the_real_gate(gate: Gate, fake: FakeGate, what: str) -> None:
    assert _said(SAME[what], fake) == _said(SAME[what], gate)


# ------------------------------------------------------------------------------------------------- it does as it is told


def test_it_remembers_what_was_asked(fake: FakeGate) -> None:
    outer = fake.execution("payments/send", RESOURCE, {"amount": 3}, committed={"memo": "x"}, purpose="rent", assurance="quorum")
    with outer:
        part = fake.execution("ops/run", ("Host", "h"), within=outer)
        with part:
            pass
    (first, second) = fake.asked
    assert (first.kind, first.action, first.resource, first.params, first.committed) == (
        "execution",
        "payments/send",
        RESOURCE,
        {"amount": 3, "memo": "x"},
        ("memo",),
    )
    assert (first.purpose, first.assurance, first.code, first.ended, first.intent) == ("rent", "quorum", "", "finished", outer.intent)
    assert second.within
    assert first.within == ""
    fake.request("ops/run", ("Host", "h"), after=[outer])
    assert (fake.asked[2].kind, fake.asked[2].after) == ("request", (second.within,))


@pytest.mark.parametrize("code", ["policy_denied", "stale", "halted", "used", "internal_error"])
def test_it_denies_with_any_code(fake: FakeGate, code: str) -> None:
    fake.deny(code, "because")
    with pytest.raises(Denied) as caught, fake.execution("payments/send", RESOURCE):
        pytest.fail("entered")
    assert (caught.value.code, caught.value.reason, caught.value.intent) == (code, "because", fake.asked[0].intent)
    assert (fake.asked[0].code, fake.asked[0].ended) == (code, "")
    fake.permit()
    with fake.execution("payments/send", RESOURCE):
        pass


def test_it_denies_one_action_only_and_the_last_word_counts(fake: FakeGate) -> None:
    fake.deny("halted", action="payments/send")
    with fake.execution("ops/run", RESOURCE):
        pass
    with pytest.raises(Denied), fake.execution("payments/send", RESOURCE):
        pytest.fail("entered")
    fake.deny("stale")
    with pytest.raises(Denied) as caught, fake.execution("payments/send", RESOURCE):
        pytest.fail("entered")
    assert caught.value.code == "stale"


@pytest.mark.parametrize("tell", [FakeGate.deny, FakeGate.revoke])
def test_it_knows_no_code_that_is_none(fake: FakeGate, tell: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="no code"):
        tell(fake, "policy_dennied")


def test_it_needs_approvals_until_some_come(fake: FakeGate) -> None:
    fake.need_approvals(action="payments/send")
    with pytest.raises(ApprovalRequired) as caught, fake.execution("payments/send", RESOURCE):
        pytest.fail("entered")
    assert caught.value.intent == fake.asked[0].intent
    with fake.execution("payments/send", RESOURCE, approvals=[fake.approval]):
        pass
    assert len(fake.asked[1].approvals) == 1


async def test_a_revocation_cancels_what_runs_and_denies_from_then_on(fake: FakeGate) -> None:
    cleaned = list[bool]()

    async def body() -> None:
        async with fake.execution("payments/send", RESOURCE):
            asyncio.get_running_loop().call_later(0.01, fake.revoke)
            try:
                await asyncio.sleep(30)
            finally:
                cleaned.append(True)

    begun = time.monotonic()
    with pytest.raises(Aborted) as caught:
        await body()
    assert (caught.value.code, cleaned, time.monotonic() - begun < 5) == ("revoked", [True], True)
    assert (fake.asked[0].ended, fake.asked[0].error) == ("aborted", "revoked")
    with pytest.raises(Denied):
        await body()


def test_a_plain_body_hears_of_it_when_it_asks_also_from_another_thread(fake: FakeGate) -> None:
    stopped = threading.Event()

    def body() -> None:
        with fake.execution("payments/send", RESOURCE) as run:
            run.on_stop(stopped.set)
            thread = threading.Thread(target=lambda: fake.revoke("stale", action="payments/send"))
            thread.start()
            thread.join()
            assert stopped.is_set()
            run.check()

    with pytest.raises(Aborted):
        body()
    assert (fake.asked[0].ended, fake.asked[0].error) == ("aborted", "stale")


async def test_who_is_cancelled_while_it_is_asked_for_runs_nothing(fake: FakeGate) -> None:
    task = asyncio.create_task(fake.execution("payments/send", RESOURCE).__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.asked == []


# ------------------------------------------------------------------------------------------- it is no gate for production


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), **environment},
        check=False,
        capture_output=True,
        text=True,
    )


def test_what_is_sealed_reaches_the_body_and_is_remembered_as_such(fake: FakeGate) -> None:
    @fake.guard("payroll/pay", resource=("Employee", "emp:7"), sealed=("iban",))
    def pay(iban: str, amount_cents: int) -> str:
        return f"{amount_cents} to {iban}"

    assert pay("DE1", 5) == "5 to DE1"
    assert (fake.asked[0].params, fake.asked[0].sealed) == ({"iban": "DE1", "amount_cents": 5}, ("iban",))
    for public, committed in (({"iban": "DE1"}, None), (None, {"iban": "DE1"})):
        twice = fake.execution("payroll/pay", ("Employee", "emp:7"), public, committed=committed, sealed={"iban": "DE1"})
        with pytest.raises(Denied, match="params_mismatch"), twice:
            pass


def test_made_outside_of_a_test_it_warns_every_time() -> None:
    done = _python("from mesh.testing import FakeGate\nfor _ in range(2):\n    FakeGate()")
    assert done.returncode == 0
    assert done.stderr.count("FakeGateWarning: a FakeGate enforces nothing, and this is no test") == 2


def test_where_warnings_are_errors_it_is_not_made() -> None:
    done = _python("from mesh.testing import FakeGate\nFakeGate()", PYTHONWARNINGS="error")
    assert done.returncode == 1
    assert "FakeGateWarning" in done.stderr


@pytest.mark.parametrize("runner", ["pytest", "unittest"])
def test_in_either_kind_of_test_it_does_not(runner: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import unittest\nfrom mesh.testing import FakeGate\nclass TestIt(unittest.TestCase):\n    def test_it(self):\n        FakeGate()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::mesh.testing.FakeGateWarning", "-m", runner, "test_it.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_reads_no_context_and_opens_no_file() -> None:
    code = (
        "import sys, warnings\nfrom mesh.testing import FakeGate\nwarnings.simplefilter('ignore')\nseen = []\n"
        "with FakeGate().execution('a/b', ('T', 'x')): pass\n"
        "sys.addaudithook(lambda name, args: seen.append(str(args[0])) if name == 'open' else None)\n"
        "with FakeGate().execution('a/b', ('T', 'x')): pass\nprint(seen)"
    )
    done = _python(code, MESH_CONTEXT="/nowhere/at/all.toml")
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_it_takes_no_context() -> None:
    assert list(inspect.signature(FakeGate).parameters) == ["obligations"]


def test_nothing_that_comes_out_of_it_is_signed(fake: FakeGate, gate: Gate) -> None:
    said = envelope.read(Authorization, bytes(fake.request("payments/send", RESOURCE).authorization))
    assert not said.signatures
    with fake.execution("payments/send", RESOURCE) as run:
        papers = run.papers
    with pytest.raises(Denied) as caught, gate.execution("payments/send", RESOURCE, {"amount": 3}, within=papers):
        pytest.fail("entered")
    assert caught.value.code in {"wrong_mesh", "bad_signature", "parent_mismatch", "parent_unknown"}
