"""Revoking on a real mesh: one command, and no governor authorizes whoever was revoked."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.dev.cluster import Cluster
from tests.live.kit import BILLING, Client, code_of, command

ROOT = Path(__file__).parents[2]


@pytest.mark.asyncio
@pytest.mark.asyncio
async def test_whoever_is_revoked_is_denied_by_every_governor(own_mesh: Cluster) -> None:
    key = str(own_mesh.files.folder / "people" / "revoker.key")
    client = await Client.connect(own_mesh.files.context)
    for name in own_mesh.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    assert {code_of(await client.ask(region=region)) for region in own_mesh.files.regions} == {"authorized"}

    status, shown, err = await command(own_mesh, "revoke", BILLING.subject, "--key", key, "--reason", "left", "--watch")
    assert (status, shown["acknowledged"], shown["sequence"]) == (0, True, 1), err
    assert 0 <= shown["acknowledged_ms"] < 10_000
    end = time.monotonic() + shown["stale_ms"] / 1_000
    for region in own_mesh.files.regions:
        while (code := code_of(await client.ask(region=region))) != "revoked":
            assert code == "authorized"
            assert time.monotonic() < end, f"{region} still authorizes after Δ"
            await asyncio.sleep(0.02)

    own_mesh.kill("us-1")
    status, shown, err = await command(own_mesh, "revoke", "spiffe://dev/agent/other", "--key", key, "--watch")
    assert (status, shown["sequence"]) == (0, 2), err
    assert {row["node"]: row["covers_ms"] is None for row in shown["members"]}["us-1"]
    own_mesh.start(["us-1"])
    await client.until("us-1", "fresh", lambda item: item.fresh)
    status, rows, err = await command(own_mesh, "revocations", "ls")
    assert status == 0, err
    assert [(row["number"], row["target"], row["reason"], row["held"]) for row in rows] == [
        (1, f"subject:{BILLING.subject}", "left", "4 of 4"),
        (2, "subject:spiffe://dev/agent/other", "", "4 of 4"),
    ]
    assert code_of(await client.ask(region="us")) == "revoked", "also after a restart"
    await client.bus.close()


async def _answers(client: Client, regions: Sequence[str], code: str) -> None:
    """Each region comes to answer so: a busy machine may make a node unsure of its clock for a moment."""
    end = time.monotonic() + 10
    for region in regions:
        while (found := code_of(await client.ask(region=region))) != code:
            assert time.monotonic() < end, f"{region} still answers {found}"
            await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_a_revoked_governor_authorizes_nothing_and_of_a_revoked_issuer_only_what_is_spared_counts(own_mesh: Cluster) -> None:
    key, (first, *others) = str(own_mesh.files.folder / "people" / "revoker.key"), own_mesh.files.regions
    client = await Client.connect(own_mesh.files.context)
    for name in own_mesh.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    issuer = client.governance.roster.issuers.keys[0]
    status, shown, err = await command(own_mesh, "revoke", f"governor:{own_mesh.files.nodes[0]}", "--key", key, "--watch")
    assert (status, shown["acknowledged"]) == (0, True), err
    await _answers(client, [first], "revoked")
    await _answers(client, others, "authorized")

    both = [part for name in (client.document.id, client.enforcer.id) for part in ("--except", name)]
    status, shown, err = await command(own_mesh, "revoke", f"issuer:{issuer}", *both, "--key", key, "--watch")
    assert (status, len(shown["spares"])) == (0, 2), err
    await _answers(client, others, "authorized")
    status, shown, err = await command(own_mesh, "revoke", f"issuer:{issuer}", *both[:2], "--key", key, "--watch")
    assert (status, shown["spares"], shown["sequence"]) == (0, [client.document.id], 3), err
    await _answers(client, others, "revoked")
    await client.bus.close()


def test_whoever_interrupts_is_told_that_it_is_signed(own_mesh: Cluster) -> None:
    key = str(own_mesh.files.folder / "people" / "revoker.key")
    assert asyncio.run(command(own_mesh, "revoke", "spiffe://dev/agent/first", "--key", key))[0] == 0
    for node in ("ap-1", "sa-1"):
        own_mesh.kill(node)
    # Whoever runs these tests in the background ignores the signal, and so would the command.
    attentive = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    arguments = [sys.executable, "-c", attentive, "-m", "mesh.cli", "--context", str(own_mesh.files.context)]
    arguments += ["revoke", "spiffe://dev/agent/none"]
    arguments += ["--key", key, "--watch"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stderr is not None
        told = ""
        for line in run.stderr:
            told += line
            if "holds it" in line:
                break
        run.send_signal(signal.SIGINT)
        told += run.stderr.read()
    assert run.returncode == 130, told
    assert "interrupted: it is signed and stays so" in told
