"""Four eyes on a real mesh: denied, approved by two people through a file, run once; and a broken glass that everybody sees."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.deploy.devmesh import create
from mesh.dev.cluster import Cluster
from tests.live.kit import BILLING, GATE, command, until_fresh

pytestmark = pytest.mark.asyncio
DOMAIN = """
domain = "vault"
enforcers = ["spiffe://dev/enforcer/gate"]
[entities.Host]
open = true
[actions.run]
resource = "Host"
[actions.run.params]
argv = "strings"
cwd = "string"
env = "strings"
uid = "int"
"""
POLICY = """
@id("vault/four-eyes")
@approval("2 of security")
permit (principal, action == Action::"vault/run", resource) unless { context.attested.breakglass };

@id("vault/emergency")
permit (principal, action == Action::"vault/run", resource) when { context.attested.breakglass };
"""
CASE = """
[[case]]
name = "{name}"
action = "run"
principal = "spiffe://dev/agent/billing"
resource = 'Host::"h"'
params = {{ argv = ["true"], cwd = "/", env = [], uid = 0 }}
{facts}
expect = "{expect}"
by = ["{by}"]
"""


def _policy(folder: Path) -> Path:
    (folder / "tests").mkdir(parents=True)
    (folder / "domain.toml").write_text(DOMAIN)
    (folder / "schema.cedarschema").write_text("entity Host;\n")
    (folder / "entities.json").write_text('[{"uid": {"type": "Group", "id": "payers"}}]\n')
    (folder / "run.cedar").write_text(POLICY)
    cases = [
        ("nobody looked", "", "deny", "vault/four-eyes"),
        ("two looked", "approvals = { security = 2 }", "permit", "vault/four-eyes"),
        ("it burns", "breakglass = true", "permit", "vault/emergency"),
    ]
    (folder / "tests" / "run.toml").write_text(
        "".join(CASE.format(name=name, facts=facts, expect=expect, by=by) for name, facts, expect, by in cases)
    )
    return folder


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Cluster]:
    """Four governors of a domain in which everything takes two people."""
    files = create(
        tmp_path / "mesh",
        policies=[_policy(tmp_path / "vault")],
        principals=[BILLING],
        enforcer=GATE,
        nodes=4,
        random=secrets.token_bytes,
        now_ms=time.time_ns() // 1_000_000,
    )
    with Cluster(files) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        yield cluster


_PARAMS = {"argv": ["true"], "cwd": "/", "env": [], "uid": 0}


class _Desk:
    """What people type; how often the program ran."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.mark = folder / "ran"

    async def run(self, *approvals: str, word: str = "once") -> tuple[int, str]:
        """Exit status and standard error of the program's start."""
        given = [part for name in approvals for part in ("--approval", str(self.folder / name))]
        program = ["--", "sh", "-c", f"echo {word} >> {self.mark}"]
        status, _, err = await command(self.cluster, "run", "--action", "vault/run", "--cwd", str(self.folder), *given, *program)
        return status, err

    async def sign(self, verb: str, target: str, number: int, *more: str) -> tuple[dict[str, Any], str]:
        """What one person signs."""
        key = str(self.cluster.files.folder / "people" / f"security-{number}.key")
        status, shown, err = await command(self.cluster, verb, target, "--key", key, "--yes", *more)
        assert status == 0, err
        return shown, err

    @property
    def ran(self) -> list[str]:
        return self.mark.read_text().split() if self.mark.exists() else []


def _error(err: str) -> dict[str, str]:
    error: dict[str, str] = json.loads(err.splitlines()[0])["error"]
    return error


def _named(err: str) -> str:
    found = re.search(r"next: mesh (?:approve|why) ([0-9a-f]{64})", err)
    assert found is not None, err
    return found[1]


async def test_what_two_people_approved_runs_once_and_a_broken_glass_is_seen_by_everybody(vault: Cluster, tmp_path: Path) -> None:
    await until_fresh(vault)
    desk = _Desk(vault, tmp_path)

    status, err = await desk.run()
    denied, error = _named(err), _error(err)
    assert (status, error["code"], desk.ran) == (2, "approval_needed", [])
    assert error["detail"].endswith("needs 2 of security")

    file = str(tmp_path / "approval.json")
    shown, err = await desk.sign("approve", denied, 1, "--reason", "I looked", "--for", "10m", "-o", file)
    assert (shown["needed"], len(shown["signed_by"])) == (2, 1)
    assert shown["effect"] in error["detail"]
    assert f"next: mesh approve {file} --key" in err
    assert _error((await desk.run("approval.json"))[1])["code"] == "approval_needed", "one is not two"
    shown, err = await desk.sign("approve", file, 2)
    assert (len(shown["signed_by"]), shown["params"]["argv"][2]) == (2, f"echo once >> {desk.mark}")
    assert f"--approval {file}" in err

    status, err = await desk.run("approval.json")
    assert (status, desk.ran) == (0, ["once"]), err
    approved = _named(err)
    status, err = await desk.run("approval.json")
    assert (status, _error(err)["code"], desk.ran) == (2, "approval_used", ["once"])
    status, err = await desk.run("approval.json", word="twice")
    assert (status, _error(err)["code"], desk.ran) == (2, "approval_mismatch", ["once"])

    shown, _ = await desk.sign("grant", denied, 3, "--reason", "it burns", "-o", str(tmp_path / "grant.json"))
    assert (shown["actions"], shown["uses"]) == (["run"], 1)
    status, err = await desk.run("grant.json", word="emergency")
    assert (status, desk.ran) == (0, ["once", "emergency"]), err
    urgent = _named(err)

    _, told, _ = await command(vault, "why", urgent)
    stages = told["stages"]
    assert any("BREAK-GLASS" in stage["what"] for stage in stages)
    assert any("it burns" in said for stage in stages for said in stage.get("approvals", []))
    await _proved(vault, approved, tmp_path / "proof.json")
    status, audit, err = await command(vault, "audit", "run", "--once")
    assert (status, audit["breakglass"], audit["findings"], audit["mismatch"]) == (0, 1, [], 0), err

    await _asked_beforehand(desk)

    key = str(vault.files.folder / "people" / "revoker.key")
    gone = signer_of(vault, 1)
    status, _, err = await command(vault, "revoke", gone, "--key", key, "--watch")
    assert status == 0, err
    again = str(tmp_path / "again.json")
    await desk.sign("approve", denied, 1, "-o", again)
    await desk.sign("approve", again, 2)
    status, err = await desk.run("again.json")
    assert (status, _error(err)["code"], desk.ran) == (2, "revoked", ["once", "emergency"])


def signer_of(cluster: Cluster, number: int) -> str:
    """A person's public key, as `mesh revoke` takes it."""
    line = (cluster.files.folder / "people" / f"security-{number}.key").read_text().split()
    return f"key:{line[2]}"


async def _asked_beforehand(desk: _Desk) -> None:
    """What nobody was denied yet can be approved, too."""
    asked = desk.folder / "asked.json"
    asked.write_text(json.dumps({"action": "vault/run", "resource": {"type": "Host", "id": "h"}, "params": _PARAMS}))
    before = str(desk.folder / "before.json")
    await desk.sign("approve", str(asked), 2, "-o", before)
    shown, _ = await desk.sign("approve", before, 2)
    assert len(shown["signed_by"]) == 1, "one person twice is not two"
    await desk.sign("approve", before, 3)
    status, answer, err = await command(desk.cluster, "request", str(asked), "--approval", before)
    assert (status, answer["answer"]) == (0, "authorized"), err


async def _proved(cluster: Cluster, intent: str, path: Path) -> None:
    """Final, written down, and believed by somebody who holds the roster only."""
    end = time.monotonic() + 20
    while True:
        status, _, err = await command(cluster, "prove", intent, "-o", str(path))
        if status == 0:
            break
        assert time.monotonic() < end, err
        await asyncio.sleep(0.3)
    status, report, err = await command(cluster, "verify", str(path), "--trust", str(cluster.files.roster))
    assert status == 0, err
    assert any(check["name"] == "approvals" and check["detail"] == "2 of security" for check in _checks(report)), report


def _checks(report: Any) -> list[dict[str, str]]:
    one = report[0] if isinstance(report, list) else report
    found: list[dict[str, str]] = one["checks"]
    return found
