"""A program hands approvals on with its intent: its body runs as often as people said, and never for something else."""

from functools import partial
from pathlib import Path

import pytest

from mesh.core.bytes import envelope
from mesh.core.run.approval import Effect, read_said
from mesh.core.run.intent import Intent
from mesh.core.run.paper import fold
from mesh.gate.errors import Denied
from mesh.gate.front import Gate
from mesh.gate.hall import Hall
from tests.gate.wire import FakeBus, events_of, opened
from tests.support.factory import Lab

RESOURCE = ("Account", "vault")
PARAMS = {"amount": 500}


def _denied(gate: Gate, bus: FakeBus) -> bytes:
    """The envelope of an intent that policy allows with approvals only."""
    with pytest.raises(Denied) as caught, gate.execution("payments/send", RESOURCE, PARAMS):
        pytest.fail("it ran")
    assert (caught.value.code, caught.value.record is not None) == ("approval_needed", True)
    return bus.mesh.nodes["eu-1"].bodies[caught.value.intent]


def _code(gate: Gate, said: bytes | Path, amount: int = 500) -> str:
    try:
        with gate.execution("payments/send", RESOURCE, {"amount": amount}, approvals=[said]):
            return "ran"
    except Denied as denied:
        return denied.code


def test_what_was_approved_runs_once_though_the_intent_is_another(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    said = lab.approval(_denied(gate, bus))
    assert _code(gate, said, amount=501) == "approval_mismatch"
    assert _code(gate, said) == "ran"
    assert _code(gate, said) == "approval_used"
    gate.close()
    assert sorted(events_of(bus)) == ["blocked", "finished", "started"]


def test_as_often_as_it_says(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    said = lab.approval(_denied(gate, bus), uses=2)
    assert [_code(gate, said) for _ in range(3)] == ["ran", "ran", "approval_used"]


def test_a_second_process_of_the_audience_shares_the_uses(gate: Gate, bus: FakeBus, lab: Lab, tmp_path: Path) -> None:
    said = lab.approval(_denied(gate, bus))
    assert _code(gate, said) == "ran"
    hall = Hall("second-gate")
    core = hall.wait(opened(lab, bus, tmp_path / "spent.db", boot="b2" * 32))
    hall.at_exit(partial(core.close, wait_ms=0))
    with Gate(hall, core) as second:
        assert _code(second, said) == "approval_used"


def test_a_broken_glass_runs_what_policy_left_for_it(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    assert _code(gate, lab.grant()) == "ran"
    assert _code(gate, lab.grant()) == "approval_used"
    assert _code(gate, lab.grant(reason="it burns again"), amount=700) == "ran"


def test_files_are_taken_as_people_hand_them_on(gate: Gate, bus: FakeBus, lab: Lab, tmp_path: Path) -> None:
    intent = _denied(gate, bus)
    file = tmp_path / "approval.json"
    said = lab.approval(intent)
    file.write_bytes(fold(read_said(said), Effect.of(envelope.read(Intent, intent).claims)))
    assert _code(gate, file) == "ran"
    assert _code(gate, tmp_path / "none.json") == "config_invalid"
    assert _code(gate, b"{}") == "malformed"


def test_a_guarded_function_finds_the_approvals_of_its_arguments(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    given = dict[int, bytes]()

    @gate.guard("payments/send", resource=RESOURCE, approvals=lambda amount: [given[amount]] if amount in given else [])
    def pay(amount: int) -> int:
        return amount

    with pytest.raises(Denied) as caught:
        pay(500)
    assert caught.value.code == "approval_needed"
    given[500] = lab.approval(bus.mesh.nodes["eu-1"].bodies[caught.value.intent])
    assert pay(500) == 500
    with pytest.raises(Denied) as caught:
        pay(600)
    assert caught.value.code == "approval_needed"


def test_asking_alone_uses_nothing_up(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    said = lab.approval(_denied(gate, bus))
    for _ in range(2):
        assert gate.request("payments/send", RESOURCE, PARAMS, approvals=[said]).authorization
    assert _code(gate, said) == "ran"
