"""The life of a policy on a real mesh: two people sign it, every node admits it by itself, and all regions begin at one moment."""

import asyncio
import json
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters import signer
from mesh.core import subjects
from mesh.core.bytes import canonical, envelope
from mesh.core.law.activation import Activation, Ring
from mesh.core.law.policy import Bundle, Manifest, bundle_digest
from mesh.core.messages import Offer, Offered, RefusedAnswer, Supply, pack, unpack
from mesh.dev.cluster import Cluster
from mesh.dev.stage import wish
from mesh.gate.connect import open_core
from mesh.gate.context import load_context
from mesh.gate.errors import Denied
from tests.live.kit import POLICIES, Client, code_of, command

FORBID = '@id("payments/nothing") forbid (principal, action == Action::"payments/send", resource);\n'
ROOT = Path(__file__).parents[2]
CLOCK_MS = 100
"""How far a node's clock may be from this process's, on one machine."""


def _keys(mesh: Cluster, machine: Path) -> tuple[str, str]:
    """The keys of two signers, each on a machine of its own."""
    found = []
    for number in (1, 2):
        folder = machine / f"signer-{number}"
        folder.mkdir(parents=True)
        name = f"policy-payments-{number}.key"
        found.append(str(shutil.copy2(mesh.files.folder / "people" / name, folder / name)))
    return found[0], found[1]


def _folder(target: Path, *, cases: bool = True) -> Path:
    """The payments policy, and one forbid more; ``cases`` that pass."""
    shutil.copytree(POLICIES / "payments", target)
    (target / "nothing.cedar").write_text(FORBID)
    for path in (target / "tests").glob("*.toml"):
        path.unlink()
    (target / "tests" / "one.toml").write_text(
        '[[case]]\nname = "nobody pays"\naction = "send"\nprincipal = "spiffe://dev/agent/billing"\ngroups = ["payers"]\n'
        'resource = \'Account::"acct:acme-supplies"\'\nparams = { to = "acct:acme-supplies", amount_cents = 1 }\n'
        f'expect = "{"deny" if cases else "permit"}"\nby = ["payments/nothing"]\n'
    )
    return target


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000)


async def _flip(client: Client, begins_ms: int, before: str, after: str) -> dict[str, str]:
    """Ask every region until all have changed; the intent of the first changed answer of each."""

    async def one(region: str) -> str:
        while True:
            sent_ms = time.time_ns() // 1_000_000
            intent = client.intent()
            code = code_of(await client.send(client.request(intent)[1], region=region))
            got_ms = time.time_ns() // 1_000_000
            assert code in {before, after}, code
            if code == after:
                assert got_ms >= begins_ms - CLOCK_MS, f"{region} began {begins_ms - got_ms} ms too early"
                return envelope.draft(intent).id
            assert sent_ms <= begins_ms + CLOCK_MS, f"{region} had not begun {sent_ms - begins_ms} ms after its time"
            await asyncio.sleep(0.02)

    regions = list(dict.fromkeys(member.region for member in client.governance.roster.members))
    return dict(zip(regions, await asyncio.gather(*map(one, regions)), strict=True))


async def _ready(mesh: Cluster) -> Client:
    client = await Client.connect(mesh.files.context)
    for name in mesh.files.nodes:
        await client.until_reachable(name)
        await client.until(name, "fresh", lambda status: status.fresh)
    return client


async def _ok(mesh: Cluster, *arguments: str) -> Any:
    status, shown, err = await command(mesh, *arguments)
    assert status == 0, err
    return shown


@pytest.mark.asyncio
async def test_a_policy_signed_by_two_flips_every_region_at_once_and_back(own_mesh: Cluster, tmp_path: Path) -> None:
    client = await _ready(own_mesh)
    auditor = await _auditor(own_mesh)
    core = await open_core(load_context(str(own_mesh.files.context)), "billing")
    one, two = _keys(own_mesh, tmp_path)
    folder, bundle, manifest = _folder(tmp_path / "policy"), tmp_path / "bundle.json", tmp_path / "manifest.json"
    built = await _ok(own_mesh, "policy", "build", str(folder), "-o", str(bundle))
    await _ok(own_mesh, "policy", "sign", str(folder), "--key", one, "--out", str(manifest))
    status, _, err = await command(own_mesh, "policy", "push", str(manifest), str(bundle))
    assert (status, json.loads(err.splitlines()[-1])["error"]["code"]) == (5, "threshold_not_met")
    passed = Path(shutil.copy2(manifest, Path(two).parent / "manifest.json"))
    signed = await _ok(own_mesh, "policy", "sign", str(passed), "--key", two, "--trust", str(own_mesh.files.roster))
    assert (signed["complete"], signed["epoch"], signed["digest"]) == (True, 2, built["digest"])
    pushed = await _ok(own_mesh, "policy", "push", str(passed), str(bundle), "--watch")
    assert pushed["admitted"] >= 3
    for name in own_mesh.files.nodes:
        await client.until(name, "admitting", lambda item: any((p.domain, p.admitted) == ("payments", 2) for p in item.policies))
    assert code_of(await client.ask()) == "authorized", "what is admitted does not decide yet"

    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 1})
    begun = await _ok(own_mesh, "policy", "activate", "payments", "--key", one, "--co-sign", two, "--watch")
    assert (begun["acknowledged"], len(set(begun["begins"].values()))) == (True, 1)
    asked = await core.request(wanted)
    denied = await _flip(client, _ms(begun["begins"]["eu"]), "authorized", "policy_denied")
    with pytest.raises(Denied) as refused:
        await core.present(wanted, asked, lambda: None)
    assert refused.value.code == "wrong_epoch"
    await core.close(wait_ms=2_000)

    proof = tmp_path / "proof.json"
    await _final(own_mesh, denied["eu"], proof)
    verified = await _ok(own_mesh, "verify", str(proof), "--trust", str(own_mesh.files.roster))
    assert [row["verdict"] for row in verified] == ["VERIFIED"]
    assert "payments epoch 2" in next(check["detail"] for check in verified[0]["checks"] if check["name"] == "policy")
    assert any("payments/nothing" in str(stage) for stage in (await _ok(own_mesh, "why", denied["eu"]))["stages"])

    back = tmp_path / "back.json"
    rolled = await _ok(own_mesh, "policy", "rollback", "payments", "--to", "1", "--key", one, "--co-sign", two, "--out", str(back))
    assert (rolled["epoch"], rolled["complete"]) == (3, True)
    assert (await _ok(own_mesh, "policy", "push", str(back), "--watch"))["admitted"] >= 3
    begun = await _ok(own_mesh, "policy", "activate", "payments", "--key", one, "--co-sign", two, "--watch")
    await _flip(client, _ms(begun["begins"]["us"]), "policy_denied", "authorized")
    status, _, err = await command(own_mesh, "policy", "activate", "payments", "--epoch", "2", "--key", one, "--co-sign", two)
    assert (status, json.loads(err.splitlines()[-1])["error"]["code"]) == (2, "wrong_epoch")
    rows = await _ok(own_mesh, "policy", "ls", "payments")
    assert [(row["epoch"], len(row["active_at"])) for row in rows] == [(1, 0), (2, 0), (3, 4)]
    await client.bus.close()
    told = await _audited(auditor)
    assert (told["mismatch"], told["unverifiable"], told["findings"]) == (0, 0, []), "it heard of each epoch while it ran"
    assert told["match"] > 0


async def _auditor(mesh: Cluster) -> asyncio.subprocess.Process:
    """One that runs all the while."""
    arguments = ["--context", str(mesh.files.context), "-o", "json", "audit", "run"]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mesh.cli", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=ROOT
    )


async def _audited(auditor: asyncio.subprocess.Process) -> dict[str, Any]:
    """What it says at its end, once it had time for what came last."""
    await asyncio.sleep(4)
    auditor.terminate()
    out, _ = await auditor.communicate()
    return msgspec.json.decode(out, type=dict[str, Any])


async def _final(mesh: Cluster, intent: str, proof: Path) -> None:
    """Write the proof once the decision is final."""
    end = time.monotonic() + 15
    while (await command(mesh, "prove", intent, "-o", str(proof)))[0]:
        assert time.monotonic() < end, "it does not become final"
        await asyncio.sleep(0.2)


@pytest.mark.asyncio
async def test_nodes_refuse_by_themselves_what_the_commands_would_not_send(own_mesh: Cluster, tmp_path: Path) -> None:
    client = await _ready(own_mesh)
    one, two = _keys(own_mesh, tmp_path)
    keys = [signer.load(Path(path)).key for path in (one, two)]
    before = envelope.read(Manifest, (own_mesh.files.folder / "policy" / "payments.manifest.json").read_bytes())
    bundle = await asyncio.to_thread(_bad_bundle, tmp_path)
    claims = msgspec.structs.replace(before.claims, epoch=2, previous=before.id, digest=bundle_digest(bundle))

    assert await _offer(client, claims, keys[:1]) == dict.fromkeys(own_mesh.files.nodes, "threshold_not_met")
    assert await _offer(client, claims, keys) == dict.fromkeys(own_mesh.files.nodes, "")
    for name in own_mesh.files.nodes:
        await _ask(client, name, Supply(bundle=msgspec.Raw(bundle)))
    for name in own_mesh.files.nodes:
        told = await client.until(
            name, "refusing", lambda item: any((p.domain, p.code) == ("payments", "policy_tests_failed") for p in item.policies)
        )
        assert {policy.domain: policy.admitted for policy in told.policies}["payments"] == 1
    status, _, err = await command(own_mesh, "policy", "activate", "payments", "--key", one, "--co-sign", two)
    assert (status, json.loads(err.splitlines()[-1])["error"]["code"]) == (4, "not_admitted")

    step = Activation(
        mesh="dev", domain="payments", sequence=1, previous="", since="", epoch=1, manifest=before.id,
        rings=[Ring(regions=[], not_before_ms=before.claims.not_before_ms)], reason="", issued_ms=before.claims.issued_ms,
    )  # fmt: skip
    assert await _offer(client, step, keys[:1]) == dict.fromkeys(own_mesh.files.nodes, "threshold_not_met")
    assert code_of(await client.ask()) == "authorized", "the epoch before goes on deciding"
    await client.bus.close()


def _bad_bundle(folder: Path) -> bytes:
    """A bundle that passes everything but its cases."""
    from mesh.policy.build import check

    built = check(_folder(folder / "bad", cases=False))
    assert canonical.decode(Bundle, built.data, bytes_max=len(built.data)).cases
    return built.data


async def _ask(client: Client, node: str, message: Offer | Supply) -> bytes:
    return (await client.bus.request(subjects.sync(node), pack(message), timeout_ms=5_000)).data


async def _offer(client: Client, claims: Manifest | Activation, keys: list[Any]) -> dict[str, str]:
    """What each node says to it, signed by these."""
    draft = envelope.draft(claims)
    data = envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})
    found = dict[str, str]()
    for member in client.governance.roster.members:
        answer = await _ask(client, member.name, Offer(statements=[msgspec.Raw(data)]))
        assert not answer.startswith(b'{"answer":"refused"'), unpack(RefusedAnswer, answer)
        found[member.name] = unpack(Offered, answer).results[draft.id]
    return found
