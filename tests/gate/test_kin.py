"""A program says within which execution another runs, and whose result it uses: what it may is the mesh's to say."""

import secrets
from collections.abc import Generator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from mesh.adapters.signer import KeyFile, Signer
from mesh.core.bytes import envelope
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.run.authorization import Authorization
from mesh.core.run.identity import Identity
from mesh.core.run.kin import read_parent
from mesh.core.run.outcome import Finished, Outcome, Started
from mesh.gate.core import Core
from mesh.gate.errors import Denied
from mesh.gate.front import Execution, Gate, Papers
from mesh.gate.hall import Hall
from tests.gate.wire import FakeBus, opened, settings
from tests.support.factory import Lab, secret

ACCOUNT = ("Account", "acme")


def _decisions(bus: FakeBus) -> list[DecisionMade]:
    found = [read_record(leaf) for node in bus.mesh.nodes.values() for leaf in node.logs.get(node.origin, [])]
    return sorted((record for record in found if isinstance(record, DecisionMade)), key=lambda record: record.at_ms)


def _code(gate: Gate, amount: int = 1, *, within: Papers | None = None, after: tuple[Papers, ...] = ()) -> str:
    try:
        with gate.execution("payments/send", ACCOUNT, {"amount": amount}, within=within, after=after):
            return "ran"
    except Denied as denied:
        return denied.code


@pytest.fixture
def other(lab: Lab, bus: FakeBus, tmp_path: Path) -> Generator[Gate]:
    """The gate of another identity in the same process."""
    key = secret("bert")
    document = envelope.read(Identity, lab.identity("spiffe://lab/agent/bert", key, groups=["payers"]))
    own = settings(lab, boot=secrets.token_hex(32))
    signer = Signer([KeyFile("enforcer", lab.place_key), KeyFile("workload", key)])
    hall = Hall("other-gate")
    core = hall.wait(opened(lab, bus, tmp_path / "other.db", boot="b2" * 32))
    core._settings = msgspec.structs.replace(own, place=core._settings.place, signer=signer, identity=document)
    hall.at_exit(partial(Core.close, core, wait_ms=0))
    with Gate(hall, core) as gate:
        yield gate


def test_a_part_runs_within_and_the_record_says_so(gate: Gate, bus: FakeBus) -> None:
    with gate.execution("payments/send", ACCOUNT, {"amount": 1}) as outer:
        assert _code(gate, 2, within=outer) == "ran"
        with gate.execution("payments/send", ACCOUNT, {"amount": 3}, within=outer.papers) as inner:
            assert _code(gate, 4, within=inner) == "ran"
    depths = [record.attested.delegation_depth for record in _decisions(bus)]
    assert depths == [0, 1, 1, 2]


def test_what_has_ended_is_no_parent_any_more(gate: Gate) -> None:
    with gate.execution("payments/send", ACCOUNT, {"amount": 1}) as outer:
        running = outer.papers
    assert outer.papers != running
    assert _code(gate, within=outer) == "parent_over"


def test_a_result_is_used_once_there_is_one(gate: Gate, bus: FakeBus, tmp_path: Path) -> None:
    with gate.execution("payments/send", ACCOUNT, {"amount": 1}) as first:
        first.output(b"42")
        assert _code(gate, after=(first,)) == "parent_unfinished"
    file = tmp_path / "papers.json"
    file.write_bytes(first.papers)
    assert _code(gate, after=(file,)) == "ran"
    (parent,) = _decisions(bus)[-1].parents
    assert parent == read_parent(first.papers)


def test_what_failed_has_no_result(gate: Gate) -> None:
    def fail() -> Execution:
        work = gate.execution("payments/send", ACCOUNT, {"amount": 1})
        with pytest.raises(ZeroDivisionError), work:
            raise ZeroDivisionError
        return work

    assert _code(gate, after=(fail(),)) == "parent_unfinished"


def test_an_execution_countersigns_for_another_identity_of_its_process(gate: Gate, other: Gate, bus: FakeBus) -> None:
    with gate.execution("payments/send", ACCOUNT, {"amount": 1}) as outer:
        assert _code(other, 2, within=outer.papers) == "parent_foreign", "papers alone are no consent"
        assert _code(other, 3, within=outer) == "ran"
    (parent,) = _decisions(bus)[-1].parents
    assert (len(parent.countersignature), _decisions(bus)[-1].attested.root) == (128, "spiffe://lab/agent/anna")


def test_a_guarded_function_runs_within_what_runs(gate: Gate, bus: FakeBus) -> None:
    outer: list[Execution] = []

    @gate.guard("payments/send", resource=ACCOUNT, within=lambda: outer[0] if outer else None)
    def pay(amount: int) -> int:
        return amount

    assert pay(1) == 1
    with gate.execution("payments/send", ACCOUNT, {"amount": 2}) as work:
        outer.append(work)
        assert pay(3) == 3
    assert [record.attested.delegation_depth for record in _decisions(bus)] == [0, 0, 1]


def test_whatever_else_is_handed_over_is_a_denial(gate: Gate, tmp_path: Path) -> None:
    assert _code(gate, within=b"{}") == "malformed"
    assert _code(gate, within=tmp_path / "none.json") == "config_invalid"
    with pytest.raises(Denied) as caught:
        gate.request("payments/send", ACCOUNT, {"amount": 1}, after=[b"x"])
    assert caught.value.code == "malformed"


def test_papers_are_what_was_issued_and_said_and_nothing_else(gate: Gate) -> None:
    with gate.execution("payments/send", ACCOUNT, {"amount": 1}) as work:
        paper = read_parent(work.papers)
        authorization = envelope.read(Authorization, bytes(paper.authorization))
        assert (authorization.claims.intent, paper.countersignature) == (work.intent, "")
        assert envelope.read(Outcome, bytes(paper.outcome)).claims.event.__class__ is Started
    ended = read_parent(work.papers)
    assert bytes(ended.authorization) == authorization.envelope
    assert envelope.read(Outcome, bytes(ended.outcome)).claims.event.__class__ is Finished
