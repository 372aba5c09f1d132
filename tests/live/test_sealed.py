"""A sealed parameter on a real mesh: from the intent over four governors that never see it to the auditor who opens it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.signer import generate_seal
from mesh.dev.cluster import Cluster
from mesh.gate.connect import connect
from mesh.gate.errors import Denied
from mesh.gate.front import Gate
from tests.live.kit import Client, command

pytestmark = pytest.mark.asyncio
IBAN = "DE89370400440532013000"  # not that of the policy's own cases
EMPLOYEE = ("Employee", "emp:7")


def _pay(gate: Gate) -> tuple[str, Any]:
    """The intent's id, and what the body saw."""
    with gate.execution("payroll/pay", EMPLOYEE, {"amount_cents": 420_000}, sealed={"iban": IBAN}, committed={"note": "May"}) as run:
        return run.intent, run.params["iban"]


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_socket()}


async def _opened(mesh: Cluster, *arguments: str) -> tuple[int, Any, str]:
    return await command(mesh, "lineage", "open", *arguments)


async def test_what_is_sealed_reaches_its_auditor_and_is_nowhere_on_the_way(
    client: Client, mesh: Cluster, payroll: Path, tmp_path: Path
) -> None:
    gate = await asyncio.to_thread(connect, str(mesh.files.context), "billing")
    try:
        intent, seen = await asyncio.to_thread(_pay, gate)
    finally:
        await gate.aclose()
    assert seen == IBAN
    size = (await client.status("eu-1")).size
    await client.until("eu-1", "final", lambda status: status.certified >= size)

    status, (decision, *_), err = await command(mesh, "lineage", "show", intent)
    assert status == 0, err
    assert [(item["parameter"], item["auditor"], item["held"]) for item in decision["sealed"]] == [
        ("iban", "finance", True),
        ("iban", "tax", True),
    ]
    assert len(decision["attested_by"]) >= 3
    status, rows, err = await _opened(mesh, intent, "--key", str(payroll / "finance.key"))
    assert status == 0, err
    assert rows == [{"parameter": "iban", "value": IBAN, "auditor": "finance", "code": ""}]

    proof = tmp_path / "proof.json"
    assert (await command(mesh, "prove", intent, "--out", str(proof)))[0] == 0
    status, judged, err = await command(mesh, "verify", str(proof), "--trust", str(mesh.files.folder / "roster.json"))
    assert (status, judged[0]["verdict"]) == (0, "VERIFIED"), err
    assert "sealed: iban for finance, tax" in [check["detail"] for check in judged[0]["checks"]]
    status, rows, err = await _opened(mesh, "--from", str(proof), "--key", str(payroll / "finance.key"))
    assert (status, rows[0]["value"]) == (0, IBAN), err

    held = _bytes_of(mesh.files.folder)
    assert any(intent.encode() in data for data in held.values())
    assert [name for name, data in held.items() if IBAN.encode() in data] == []
    assert IBAN.encode() not in proof.read_bytes()


async def test_another_key_opens_nothing_on_a_real_mesh(mesh: Cluster, tmp_path: Path) -> None:
    gate = await asyncio.to_thread(connect, str(mesh.files.context), "billing")
    try:
        intent, _ = await asyncio.to_thread(_pay, gate)
        with pytest.raises(Denied) as no:
            await asyncio.to_thread(gate.request, "payroll/pay", EMPLOYEE, {"amount_cents": 1}, committed={"iban": IBAN})
        assert no.value.code == "params_mismatch"  # governors would see it
    finally:
        await gate.aclose()
    generate_seal(tmp_path / "stranger.key", bytes(range(32)))
    status, _, err = await _opened(mesh, intent, "--key", str(tmp_path / "stranger.key"))
    assert status == 3
    assert json.loads(err.splitlines()[0])["error"]["code"] == "not_sealed_for"
