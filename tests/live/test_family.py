"""A family of real programs: parts run within others, results are used, and revoking the root ends all that runs within it."""

import asyncio
import json
import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from mesh.core.run.kin import read_parent
from mesh.deploy.devmesh import create
from mesh.dev.cluster import Cluster
from tests.live.kit import BILLING, GATE, command, until_fresh

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]
DOMAIN = """
domain = "jobs"
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
@id("jobs/three-deep")
permit (principal, action == Action::"jobs/run", resource)
when { context.attested.delegation_depth <= 2 && context.attested.root == "spiffe://dev/agent/billing" };
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
by = {by}
"""
CASES = [
    ("alone", "", "permit", '["jobs/three-deep"]'),
    ("a part", "delegation_depth = 2", "permit", '["jobs/three-deep"]'),
    ("too deep", "delegation_depth = 3", "deny", "[]"),
    ("for somebody else", 'delegation_depth = 1\nroot = "spiffe://dev/agent/other"', "deny", "[]"),
]


def _policy(folder: Path) -> Path:
    (folder / "tests").mkdir(parents=True)
    (folder / "domain.toml").write_text(DOMAIN)
    (folder / "schema.cedarschema").write_text("entity Host;\n")
    (folder / "entities.json").write_text('[{"uid": {"type": "Group", "id": "payers"}}]\n')
    (folder / "run.cedar").write_text(POLICY)
    (folder / "tests" / "run.toml").write_text(
        "".join(CASE.format(name=name, facts=facts, expect=expect, by=by) for name, facts, expect, by in CASES)
    )
    return folder


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Cluster]:
    """Four governors of a domain whose policy counts how deep a job stands, and for whom it runs."""
    files = create(
        tmp_path / "mesh",
        policies=[_policy(tmp_path / "jobs")],
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


class _Shell:
    """What people type in one folder."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.running: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.running:
            if process.returncode is None:
                process.terminate()
            await process.communicate()

    def line(self, *arguments: str) -> list[str]:
        """`mesh run` of a job."""
        named = ("--context", str(self.cluster.files.context), "-o", "json")
        return [sys.executable, "-m", "mesh.cli", *named, "run", "--action", "jobs/run", "--cwd", str(self.folder), *arguments]

    async def start(self, name: str, *options: str) -> None:
        """A job that says where its papers are, and then runs on."""
        job = f"cp $MESH_WITHIN {name}.new && mv {name}.new {name}; sleep 60"
        process = await asyncio.create_subprocess_exec(
            *self.line(*options, "--", "sh", "-c", job),
            env=_environment(),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.running.append(process)
        end = time.monotonic() + 30
        while not (self.folder / name).exists():
            assert process.returncode is None, await process.communicate()
            assert time.monotonic() < end, f"{name} does not run"
            await asyncio.sleep(0.02)

    async def run(self, *arguments: str) -> tuple[int, str]:
        """A job to its end: exit status and standard error."""
        process = await asyncio.create_subprocess_exec(
            *self.line(*arguments), env=_environment(), cwd=self.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, err.decode()

    def id(self, name: str) -> str:
        """Of the authorization in a file of papers."""
        return read_parent((self.folder / name).read_bytes()).named[0]

    async def graph(self, name: str, *options: str) -> dict[str, Any]:
        status, shown, err = await command(self.cluster, "lineage", "graph", name, *options)
        assert status == 0, err
        found: dict[str, Any] = shown
        return found

    async def recorded(self, name: str, state: str) -> dict[str, Any]:
        """The graph around an execution once that is recorded of it."""
        end = time.monotonic() + 20
        while True:
            status, found, _ = await command(self.cluster, "lineage", "graph", name)
            if status == 0 and any((node["id"], node["state"]) == (name, state) for node in found["nodes"]):
                return dict(found)
            assert time.monotonic() < end, f"{state} is not recorded: {found}"
            await asyncio.sleep(0.1)


def _environment() -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name != "MESH_WITHIN"}, "PYTHONPATH": str(ROOT)}


def _code(err: str) -> str:
    return str(json.loads(err.splitlines()[0])["error"]["code"])


async def test_parts_run_within_one_another_until_the_root_is_revoked(jobs: Cluster, tmp_path: Path) -> None:
    await until_fresh(jobs)
    async with _Shell(jobs, tmp_path) as shell:
        await _revoked_at_the_root(jobs, shell)


async def _revoked_at_the_root(jobs: Cluster, shell: _Shell) -> None:
    await shell.start("root")
    await shell.start("child", "--within", "root")
    await shell.start("grandchild", "--within", "child")
    status, err = await shell.run("--within", "grandchild", "--", "true")
    assert (status, _code(err)) == (2, "policy_denied"), "policy counts how deep it stands"
    ids = [shell.id(name) for name in ("root", "child", "grandchild")]
    found = await shell.recorded(ids[2], "started")
    assert [(edge["parent"], edge["child"], edge["kind"]) for edge in found["edges"]] == [
        (ids[1], ids[2], "within"),
        (ids[0], ids[1], "within"),
    ]
    assert sorted(node["id"] for node in (await shell.graph(ids[0]))["nodes"]) == sorted(ids), "from above and from below"
    assert (await shell.graph(ids[0], "--depth", "1"))["more"]

    key = str(jobs.files.folder / "people" / "revoker.key")
    status, shown, err = await command(jobs, "revoke", f"ancestor:{ids[0]}", "--key", key, "--watch")
    assert (status, shown["acknowledged"]) == (0, True), err
    for process in shell.running:  # each is a process of its own: nobody but the mesh ends it
        _, said = await asyncio.wait_for(process.communicate(), 20)
        assert (process.returncode, _code(said.decode())) == (2, "revoked")
    for name in ids:
        await shell.recorded(name, "aborted")
    status, err = await shell.run("--within", "child", "--", "true")
    assert (status, _code(err)) == (2, "revoked")
    assert (await shell.run("--", "true"))[0] == 0, "whatever else billing does goes on"

    proof = str(shell.folder / "proof.json")
    status, _, err = await command(jobs, "prove", ids[2], "--out", proof)
    assert status == 0, err
    status, verdicts, err = await command(jobs, "verify", proof)
    assert (status, verdicts[0]["verdict"]) == (0, "VERIFIED"), verdicts
    (parents,) = [check["detail"] for check in verdicts[0]["checks"] if check["name"] == "parents"]
    assert "within" in parents


async def test_a_program_finds_within_what_it_runs_and_a_result_is_used(jobs: Cluster, tmp_path: Path) -> None:
    await until_fresh(jobs)
    shell = _Shell(jobs, tmp_path)
    inner = shlex.join(shell.line("--papers", "inner", "--", "true"))
    path = ("--env", "PATH", "--env", f"PYTHONPATH={ROOT}")
    status, err = await shell.run("--papers", "outer", *path, "--", "sh", "-c", f"exec {inner}")
    assert status == 0, err
    found = await shell.recorded(shell.id("inner"), "finished")
    assert [(edge["parent"], edge["child"]) for edge in found["edges"]] == [(shell.id("outer"), shell.id("inner"))]

    status, err = await shell.run("--after", "inner", "--after", "outer", "--papers", "last", "--", "true")
    assert status == 0, err
    found = await shell.recorded(shell.id("last"), "finished")
    assert {(edge["child"], edge["kind"]) for edge in found["edges"]} >= {(shell.id("last"), "after")}
    await shell.recorded(shell.id("outer"), "finished")
    status, err = await shell.run("--within", "outer", "--", "true")
    assert (status, _code(err)) == (2, "parent_over")
    status, err = await shell.run("--papers", "failed", "--", "false")
    assert status == 1, err
    status, err = await shell.run("--after", "failed", "--", "true")
    assert (status, _code(err)) == (2, "parent_unfinished")
    status, err = await shell.run("--env", "MESH_WITHIN=x", "--", "true")
    assert (status, _code(err)) == (3, "usage")
    status, told, err = await command(jobs, "why", shell.id("last"))
    assert status == 0, err
    (parents,) = [stage["parents"] for stage in told["stages"] if stage.get("parents")]
    assert [word.split()[0] for word in parents] == ["after", "after"]
