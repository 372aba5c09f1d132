"""The gate on a real mesh of one: files, NATS, governor process, programs."""

import asyncio
import json
import os
import runpy
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import mesh
from mesh.adapters.spent import SpentStore
from mesh.core.messages import Authorized, unpack
from mesh.deploy.devmesh import Principal, create
from mesh.dev.cluster import Cluster
from mesh.errors import Refused
from tests.house.tree import ROOT

POLICIES = ROOT / "mesh" / "dev" / "policies"
WORKER = Principal(name="worker", subject="spiffe://dev/agent/worker", groups=["ops", "payers"], person="ada@example.org")
STRANGER = Principal(name="stranger", subject="spiffe://dev/agent/stranger")
GATE = Principal(name="gate", subject="spiffe://dev/enforcer/gate", role="enforcer", enforcer_class="in-process")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    files = create(
        tmp_path_factory.mktemp("gate") / "mesh",
        policies=[POLICIES / "ops", POLICIES / "payments"],
        principals=[WORKER, STRANGER],
        enforcer=GATE,
        nodes=1,
        random=secrets.token_bytes,
        now_ms=time.time_ns() // 1_000_000,
    )
    with Cluster(files) as running:
        running.start_bus()
        asyncio.run(running.provision())
        running.start()
        yield running


@pytest.fixture
def context(cluster: Cluster) -> str:
    return str(cluster.files.context)


def command(context: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mesh.cli", "--context", context, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, **options)


def backlog(cluster: Cluster) -> int:
    """What the enforcer's file still holds."""

    async def count() -> int:
        from mesh.gate.context import load_context

        found = load_context(str(cluster.files.context))
        from mesh.adapters.signer import load

        store = await SpentStore.open(found.path(found.spent), audience=load(found.path(found.enforcer.key)).key.public)
        try:
            return await store.backlog()
        finally:
            await store.close()

    return asyncio.run(count())


def test_a_function_is_governed_by_a_real_mesh(context: str) -> None:
    with mesh.connect(context, "worker") as gate:

        @gate.guard("ops/blink", resource=lambda text: ("Host", text))
        def blink(text: str) -> str:
            return text.upper()

        @gate.guard("payments/send", resource=lambda to, **_: ("Account", to))
        def pay(to: str, amount_cents: int) -> None:
            pytest.fail(f"paid {amount_cents} to {to}")

        assert blink("light") == "LIGHT"
        with pytest.raises(mesh.Denied) as caught:
            pay("acct:mallory", 10**12)
    assert caught.value.code == "policy_denied"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/pay/acct:acme-supplies/1000", 200, b"paid 1000 to acct:acme-supplies"),
        ("/pay/acct:mallory/1000000000", 403, b"policy_denied"),
        ("/health", 200, b"well"),
        ("/admin", 403, b"action_unknown"),
    ],
)
async def test_the_web_application_of_the_documentation_is_governed_by_a_real_mesh(
    context: str, path: str, status: int, text: bytes
) -> None:
    create = runpy.run_path(str(ROOT / "docs" / "examples" / "web.py"))["create"]
    sent = list[dict[str, Any]]()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with await mesh.connect_async(context, "worker") as gate:
        scope = {"type": "http", "method": "POST", "path": path}
        await create(gate)(scope, asyncio.Queue().get, send)
    assert sent[0]["status"] == status
    assert text in sent[1]["body"]


@pytest.mark.parametrize("backend", ["asyncio", "anyio"])
def test_async_code_is_governed_on_either_way_of_running_it(context: str, backend: str) -> None:
    async def main() -> str:
        async with await mesh.connect_async(context, "worker") as gate, gate.execution("ops/blink", ("Host", "h"), {"text": "t"}) as run:
            await anyio.lowlevel.checkpoint()
            return str(run.params["text"])

    assert (asyncio.run(main()) if backend == "asyncio" else anyio.run(main)) == "t"


def test_outcomes_of_a_real_mesh_become_final_and_are_forgotten(cluster: Cluster, context: str) -> None:
    with mesh.connect(context, "worker") as gate:
        with gate.execution("ops/blink", ("Host", "h"), {"text": "t"}):
            pass
        time.sleep(1.5)
    assert backlog(cluster) == 0


@pytest.mark.parametrize("identity", [None, "nobody"])
def test_an_identity_must_be_one_of_the_contexts(context: str, identity: str | None) -> None:
    with pytest.raises(Refused) as caught:
        mesh.connect(context, identity)
    assert caught.value.code == "config_invalid"
    assert "stranger, worker" in caught.value.detail


def test_a_bus_that_is_not_there_is_unreachable(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(mesh.Unavailable) as caught:
        mesh.connect(_context(cluster, tmp_path, {cluster.url: "nats://127.0.0.1:1"}), "worker")
    assert caught.value.code == "unreachable"


def test_a_program_that_forgets_to_close_ends_and_loses_nothing(cluster: Cluster, context: str) -> None:
    code = (
        "import mesh, sys\n"
        "gate = mesh.connect(sys.argv[1], 'worker')\n"
        "with gate.execution('ops/blink', ('Host', 'h'), {'text': 't'}):\n"
        "    print('ran')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, context],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    with mesh.connect(context, "worker"):
        time.sleep(1.5)
    assert backlog(cluster) == 0


# ------------------------------------------------------------------------------------------------------------------------ mesh run


def test_a_program_runs_with_exactly_what_was_authorized(context: str, tmp_path: Path) -> None:
    done = command(
        context, "run", "--as", "worker", "--action", "ops/run", "--cwd", str(tmp_path), "--env", "A=b", "--env", "C", "--",
        "sh", "-c", 'echo "$A $C $D"; pwd; cat; echo oops >&2; exit 7',
        input="given", env={**os.environ, "C": "d", "D": "not named"},
    )  # fmt: skip
    assert done.returncode == 7
    assert done.stdout == f"b d \n{tmp_path}\ngiven"
    assert done.stderr.startswith("oops\nnext: mesh why ")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["--action", "ops/run", "--", "rm", "-rf", "/nowhere"], 2, "policy_denied"),
        (["--action", "ops/fly", "--", "true"], 2, "action_unknown"),
        (["--action", "ops/run", "--resource", "Host", "--", "true"], 3, "usage"),
        (["--action", "ops/run", "--env", "NOT_SET_ANYWHERE", "--", "true"], 3, "usage"),
        (["--action", "ops/run", "--", "no-such-program"], 1, "exec_failed"),
        (["--action", "run", "--", "true"], 3, "malformed"),
    ],
    ids=["policy", "no-action", "no-colon", "no-variable", "no-program", "no-domain"],
)
def test_what_may_not_run_does_not_and_the_status_says_why(context: str, arguments: list[str], status: int, code: str) -> None:
    done = command(context, "run", "--as", "worker", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"error[{code}]: ")
    assert "\nfix: " in done.stderr


def test_a_denial_can_be_read_by_programs(context: str) -> None:
    done = command(context, "run", "--as", "stranger", "--action", "ops/run", "-o", "json", "--", "true")
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[0])["error"]["code"] == "policy_denied"


def test_a_program_that_was_killed_is_told_as_shells_do(context: str) -> None:
    assert command(context, "run", "--as", "worker", "--action", "ops/run", "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_ending_the_command_ends_the_program(context: str, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    line = [sys.executable, "-m", "mesh.cli", "--context", context, "run", "--as", "worker", "--action", "ops/run", "--"]
    process = subprocess.Popen([*line, "sh", "-c", f"echo $$ > {mark}; exec sleep 60"])
    end = time.monotonic() + 20
    while not (mark.exists() and mark.read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


# -------------------------------------------------------------------------------------------------------------------- mesh request


ASKED = {"action": "ops/blink", "resource": {"type": "Host", "id": "h"}, "params": {"text": "t"}}


def test_a_request_prints_the_governors_answer_as_it_came(context: str, tmp_path: Path) -> None:
    (tmp_path / "asked.json").write_text(json.dumps(ASKED))
    done = command(context, "request", "--as", "worker", str(tmp_path / "asked.json"))
    assert done.returncode == 0
    assert isinstance(unpack(Authorized, done.stdout.strip().encode()), Authorized)
    assert "authorized by eu-1" in done.stderr


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (json.dumps({**ASKED, "action": "payments/send"}), 2, "params_mismatch"),
        (json.dumps({**ASKED, "parms": {}}), 3, "malformed"),
        (json.dumps({**ASKED, "params": {"text": 1.5}}), 2, "params_mismatch"),
        ("{", 3, "malformed"),
        ("[" * 20_000, 3, "too_large"),
        ("[" * 9_000, 3, "malformed"),
    ],
    ids=["declared-otherwise", "unknown-key", "float", "no-json", "too-large", "too-deep"],
)
def test_a_request_that_cannot_be_made_is_refused(context: str, asked: str, status: int, code: str) -> None:
    done = command(context, "request", "--as", "worker", "-", input=asked)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"error[{code}]: ")


# --------------------------------------------------------------------------------------------------------------------- wrong files


def _context(cluster: Cluster, tmp_path: Path, changes: dict[str, str]) -> str:
    for item in cluster.files.folder.iterdir():
        if item.name != "context.toml":
            (tmp_path / item.name).symlink_to(item)
    text = cluster.files.context.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "context.toml").write_text(text)
    return str(tmp_path / "context.toml")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('mesh = "dev"', 'mesh = "prod"', "config_invalid"),
        ("identities/gate.key", "identities/worker.key", "config_invalid"),
        ("identities/worker.key", "identities/stranger.key", "identity_mismatch"),
        ("identities/worker.json", "roster.json", "wrong_kind"),
        ("identities/worker.json", "nothing.json", "config_invalid"),
    ],
    ids=["mesh", "key-of-another-use", "key-of-another", "no-document", "no-file"],
)
def test_a_context_that_does_not_fit_together_connects_to_nothing(cluster: Cluster, tmp_path: Path, old: str, new: str, code: str) -> None:
    with pytest.raises(mesh.MeshError) as caught:
        mesh.connect(_context(cluster, tmp_path, {old: new}), "worker")
    assert caught.value.code == code
