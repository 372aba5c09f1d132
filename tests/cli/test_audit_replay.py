"""Threat 37: 10,000 decisions that a governor made are made again offline from its file, by the real policy engine, to the same bytes.

What the auditor calls a match is shown to be that: one decision of which one field says something else is none.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest

from mesh.cli import client, run
from mesh.core.bytes import canonical
from mesh.core.log.record import DecisionMade, read_record
from mesh.protocol import decide
from mesh.protocol.events import IntentArrived
from mesh.protocol.state import Facts
from tests.cli.test_audit_files import _filed
from tests.support.factory import Lab
from tests.support.littlemesh import LittleMesh, Node

QUARTER: Final = 2_500
BATCH: Final = 100


class Alone:
    """One governor that is its own quorum, and what it decided."""

    def __init__(self) -> None:
        self.lab = Lab(members=1, f=0, k=1)
        self.mesh = LittleMesh(self.lab)
        self.node: Node = self.mesh.nodes["eu-1"]
        self.permits = 0

    def decide(self, first: int, count: int) -> None:
        """So many intents, of which some are too much, some for a frozen account, and some have a committed parameter."""
        for start in range(first, first + count, BATCH):
            events = list[IntentArrived]()
            for number in range(start, min(start + BATCH, first + count)):
                account, memo = "frozen" if number % 17 == 0 else "acme", f"memo {number}" if number % 5 == 0 else None
                _, intent, openings = self.lab.intent(number, amount=number % 150, account=account, memo=memo, at_ms=self.mesh.now_ms)
                self.mesh._asked += 1
                self.mesh._waiters[self.mesh._asked] = lambda _: None
                events.append(IntentArrived(self.mesh._asked, self.lab.request(intent, openings)))
            now_ms = self.mesh.now_ms
            step = self.node.machine.step(self.node.state, events, now_ms=now_ms, wall_ms=now_ms, facts=Facts())
            self.mesh._perform(self.node, step)
            self.mesh.run(2)
        self.permits = sum(bool(record.authorization) for record in self.decisions())

    def decisions(self) -> list[DecisionMade]:
        records = [read_record(leaf) for leaf in self.node.logs[self.node.origin]]
        return [record for record in records if isinstance(record, DecisionMade)]

    def filed(self, path: Path) -> Path:
        asyncio.run(_filed(self.node, path, SimpleNamespace(lab=self.lab, mesh=self.mesh)))  # type: ignore[arg-type]  # it reads these two
        return path


Audited = Callable[[Alone, Path], tuple[int, Any]]


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    """``mesh audit run --from FILE`` by somebody who trusts that roster: exit status and report."""

    def audit(alone: Alone, path: Path) -> tuple[int, Any]:
        lab = alone.lab
        library = client.Library(
            governance=lab.governance, manifests=(lab.manifest_envelope,), bundles=(lab.bundle_bytes,), roster=lab.roster_envelope
        )
        monkeypatch.setattr(client, "files", lambda _cli: library)
        status = run(["-o", "json", "audit", "run", "--from", str(alone.filed(path))])
        return status, json.loads(capsys.readouterr().out)

    return audit


@pytest.mark.parametrize("quarter", range(4))
def test_threat_37_ten_thousand_decisions_are_made_again_offline_to_the_same_bytes(audited: Audited, tmp_path: Path, quarter: int) -> None:
    alone = Alone()
    alone.decide(quarter * QUARTER, QUARTER)
    assert len(alone.decisions()) == QUARTER
    assert QUARTER // 2 < alone.permits < QUARTER - 100, "of both kinds there are many"
    status, report = audited(alone, tmp_path / "node.db")
    assert (status, report["match"], report["mismatch"], report["unverifiable"], report["findings"]) == (0, QUARTER, 0, 0, [])
    assert report["final"] == report["records"] == len(alone.node.logs[alone.node.origin])


CHANGED: Final[dict[str, dict[str, Any]]] = {
    "another input": {"input": "0" * 64},
    "another policy that decided": {"determining": ["vault"]},
    "an obligation less": {"obligations": []},
    "another assurance": {"assurance": "final"},
    "a profile that nobody has": {"profile": "cedar-4/2"},
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_decision_of_which_one_field_says_something_else_is_no_match(
    audited: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    alone, real, made = Alone(), decide.conclude, list[bytes]()

    def concluded(*arguments: Any, **named: Any) -> Any:
        decision = real(*arguments, **named)
        made.append(canonical.encode(decision))
        return msgspec.structs.replace(decision, **CHANGED[what]) if len(made) == 3 else decision

    with monkeypatch.context() as patch:
        patch.setattr(decide, "conclude", concluded)
        alone.decide(1, 6)
    status, report = audited(alone, tmp_path / "node.db")
    assert (status, report["match"], report["mismatch"]) == (5, 5, 1)
    (finding,) = report["findings"]
    indices = [record.index for record in alone.decisions()]
    assert (finding["code"], finding["record"]) == ("replay_mismatch", f"eu-1/{indices[2]}")
