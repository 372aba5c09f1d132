"""The story holds on a real mesh; and each of its guarantees, broken once, is seen to be broken."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from mesh.core.messages import NodeStatus, Proved
from mesh.dev.cluster import Cluster
from mesh.dev.link import Fault, Link
from mesh.dev.stage import Ran, Stage
from mesh.dev.story import STORY
from mesh.dev.tell import bring_up, checked
from mesh.gate.core import Asked, Wish, Work
from mesh.gate.errors import Denied

ROOT = Path(__file__).parents[2]
NAMES = [
    "injected_agent_stopped", "permit_runs_once", "deny_leaves_no_trace", "replay_refused", "changed_arguments_refused",
    "expired_refused", "forged_refused", "final_by_k", "proof_verifies_offline",
    "policy_needs_threshold", "policy_flips_everywhere", "rollback_refused",
    "revocation_everywhere", "running_execution_cancelled", "cut_link_fails_closed", "stale_denies", "heals_without_loss",
    "node_joins_live", "restored_backup_heals", "auditor_agrees",
    "wrong_decision_refused", "fork_frozen_with_proof",
]  # fmt: skip


def mesh_dev(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mesh.cli", "dev", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


@pytest.mark.timeout(180)
def test_every_guarantee_of_the_story_holds_on_a_real_mesh(tmp_path: Path) -> None:
    run = mesh_dev("--once", "--json", cwd=tmp_path)
    out, err = run.communicate(timeout=150)
    report = json.loads(out)
    assert (report["v"], report["kind"]) == (1, "dev-report")
    assert [item["name"] for item in report["guarantees"]] == NAMES
    assert [item for item in report["guarantees"] if not item["ok"]] == []
    assert all(item["measured"] for item in report["guarantees"])
    assert run.returncode == 0, err


@pytest.mark.timeout(120)
def test_kill_9_of_mesh_dev_leaves_no_process(tmp_path: Path) -> None:
    with mesh_dev("--no-story", "--persist", "kept", cwd=tmp_path) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "Serving" in line:
                break
        assert len(_processes(tmp_path)) >= 5, "a server and four governors"
        run.kill()
    end = time.monotonic() + 10
    while left := _processes(tmp_path):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    again = mesh_dev("--no-story", "--persist", "kept", "--once", cwd=tmp_path)
    again.communicate(timeout=60)
    assert again.returncode == 0, "what was killed starts again, with its history"


def _processes(folder: Path) -> list[str]:
    """Command lines that name the folder, of processes that are not dead."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(folder) in line and state != "Z":
            found.append(line)
    return found


class Lax(Stage):
    """An enforcer that lets everything through: spent, changed, expired, forged, denied."""

    async def authorize(self, identity: str, wanted: Wish) -> Asked:
        try:
            return await super().authorize(identity, wanted)
        except Denied:
            return None  # type: ignore[return-value]

    async def present(self, identity: str, wanted: Wish, asked: Asked) -> Work:
        return None  # type: ignore[return-value]

    async def finish(self, identity: str, work: Work) -> None:
        del identity, work


class Twice(Stage):
    """A runner that runs the program once more behind the enforcer's back."""

    async def command(self, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
        ran = await super().command(*arguments, cwd=cwd, env=env)
        if "--" in arguments:
            program = arguments[arguments.index("--") + 1 :]
            await (await asyncio.create_subprocess_exec(*program)).wait()
        return ran


class Unattested(Stage):
    """Certificates with a line too few."""

    async def proof(self, origin: str, index: int) -> Proved:
        proved = await super().proof(origin, index)
        lines = proved.proof.splitlines(keepends=True)
        return msgspec.structs.replace(proved, proof="".join(lines[:-1]))


class Credulous(Stage):
    """A verifier that says yes to anything."""

    async def command(self, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
        ran = await super().command(*arguments, cwd=cwd, env=env)
        return Ran(0, ran.out, ran.err) if "verify" in arguments else ran


class Immortal(Stage):
    """Governors that do not die: the view stays fresh, and so nothing is shown."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder)
        self.cluster = _Proxy(cluster)  # type: ignore[assignment]


class _Proxy:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def kill(self, name: str) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._cluster, name)


class Forgetful(Stage):
    """A node that has lost what it attested."""

    async def status(self, node: str) -> NodeStatus:
        status = await super().status(node)
        if node == self.nodes[-1]:
            return msgspec.structs.replace(status, mirrors=[msgspec.structs.replace(item, attested=0) for item in status.mirrors])
        return status


class Disagreeing(Stage):
    """An auditor whose replay gives another answer."""

    async def command(self, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
        ran = await super().command(*arguments, cwd=cwd, env=env)
        report = json.loads(ran.out)
        return Ran(0, json.dumps({**report, "match": report["match"] - 1, "mismatch": 1}), ran.err)


class Unrevoked(Stage):
    """A revocation that reaches nobody."""

    async def revoke(self, subject: str) -> dict[str, Any]:
        return {"acknowledged_ms": 1, "target": subject}


class Uncut(Stage):
    """A link that cannot be cut."""

    async def link(self) -> Link:
        link = Uncuttable("story", urlsplit(self.cluster.url).port or 0)
        await link.open()
        return link


class Uncuttable(Link):
    """What it is told to become it does not."""

    async def become(self, up: Fault, down: Fault) -> None:
        pass


class Unanimous(Stage):
    """Nodes that take what one person signed."""

    async def offer(self, data: bytes) -> dict[str, str]:
        return dict.fromkeys(await super().offer(data), "")


class Early(Stage):
    """A region that begins before its time."""

    async def everywhere(self, identity: str, wanted: Wish) -> dict[str, str]:
        answers = await super().everywhere(identity, wanted)
        answers[list(answers)[-1]] = "policy_denied"
        return answers


class Backwards(Stage):
    """A node that goes back to an older epoch."""

    async def status(self, node: str) -> NodeStatus:
        status = await super().status(node)
        if node != self.nodes[-1]:
            return status
        return msgspec.structs.replace(status, policies=[msgspec.structs.replace(item, active=1) for item in status.policies])


class Alone(Stage):
    """A node that joins and holds nobody else's records."""

    async def status(self, node: str) -> NodeStatus:
        status = await super().status(node)
        return status if node in self.nodes else msgspec.structs.replace(status, mirrors=[])


class Unrestored(Stage):
    """A restore that puts nothing back."""

    async def told(self, *arguments: str) -> dict[str, Any]:
        return {} if arguments[:2] == ("node", "restore") else await super().told(*arguments)


class Forgiving(Stage):
    """Governors that freeze nobody."""

    async def status(self, node: str) -> NodeStatus:
        return msgspec.structs.replace(await super().status(node), frozen=[])


class Doubtful(Stage):
    """A proof that proves nothing elsewhere."""

    async def command(self, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
        ran = await super().command(*arguments, cwd=cwd, env=env)
        return Ran(2, ran.out.replace("PROVED", "NOTHING PROVED"), ran.err) if "fraud" in arguments and "verify" in arguments else ran


BREAKS: dict[str, type[Stage]] = {
    "injected_agent_stopped": Lax,
    "permit_runs_once": Twice,
    "deny_leaves_no_trace": Twice,
    "replay_refused": Lax,
    "changed_arguments_refused": Lax,
    "expired_refused": Lax,
    "forged_refused": Lax,
    "final_by_k": Unattested,
    "proof_verifies_offline": Credulous,
    "policy_needs_threshold": Unanimous,
    "policy_flips_everywhere": Early,
    "rollback_refused": Backwards,
    "revocation_everywhere": Unrevoked,
    "running_execution_cancelled": Unrevoked,
    "cut_link_fails_closed": Uncut,
    "stale_denies": Immortal,
    "heals_without_loss": Forgetful,
    "node_joins_live": Alone,
    "restored_backup_heals": Unrestored,
    "auditor_agrees": Disagreeing,
    "wrong_decision_refused": Forgiving,
    "fork_frozen_with_proof": Doubtful,
}


@pytest.fixture(scope="module")
def dev_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with bring_up(tmp_path_factory.mktemp("dev") / "mesh", nodes=4) as cluster:
        yield cluster


def test_every_guarantee_has_a_way_to_break_it() -> None:
    assert [guarantee.name for guarantee in STORY] == NAMES == list(BREAKS)


@pytest.mark.asyncio
@pytest.mark.parametrize("guarantee", STORY, ids=lambda guarantee: guarantee.name)
async def test_a_broken_guarantee_is_reported_as_broken(dev_mesh: Cluster, tmp_path: Path, guarantee: Any) -> None:
    stage = BREAKS[guarantee.name](dev_mesh, tmp_path)
    stage.patience_s = 3.0
    await stage.open()
    try:
        told = await checked(guarantee, stage)
    finally:
        await stage.close()
    assert not told.ok, told.measured
    assert told.measured
