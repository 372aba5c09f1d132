"""Before a policy is signed, a real mesh shows what it would have said to what was really decided."""

import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mesh.core.messages import NodeStatus
from mesh.dev.cluster import Cluster
from mesh.policy.build import check
from tests.live.kit import POLICIES, Client, code_of, command

pytestmark = pytest.mark.asyncio
SMALL, LARGE, REFUSED = 1_000, 300_000, 90_000_000
ASKED = (SMALL, SMALL, LARGE, REFUSED, LARGE, SMALL, LARGE, REFUSED)


@pytest.fixture
async def decided(own_mesh: Cluster) -> AsyncIterator[Cluster]:
    """A mesh in which every governor has decided, and all of that is final."""
    client = await Client.connect(own_mesh.files.context)
    for name in own_mesh.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    for region in own_mesh.files.regions:
        for amount in ASKED:
            code = code_of(await client.ask(region=region, amount=amount))
            assert code == ("policy_denied" if amount == REFUSED else "authorized")
    for name in own_mesh.files.nodes:
        await client.until(name, "final", _final((await client.status(name)).size))
    yield own_mesh
    await client.bus.close()


def _final(size: int) -> Callable[[NodeStatus], bool]:
    return lambda status: status.certified >= size


def candidate(folder: Path, limit: int) -> str:
    """The folder that decided, with another limit for whom to pay; its cases are of no concern here."""
    shutil.copytree(POLICIES / "payments", folder / "candidate")
    path = folder / "candidate" / "send.cedar"
    text, count = re.subn(r"amount_cents <= 500000", f"amount_cents <= {limit}", path.read_text())
    assert count == 1
    path.write_text(text)
    return str(folder / "candidate")


async def test_exactly_the_decisions_that_a_lower_limit_turns_round_are_found(decided: Cluster, tmp_path: Path) -> None:
    nodes = len(decided.files.nodes)
    total, flips = nodes * len(ASKED), nodes * ASKED.count(LARGE)

    status, same, err = await command(decided, "policy", "shadow", str(POLICIES / "payments"), "--replay", "1h", "--max-flips", "0")
    assert (status, same["replayed"], same["same"], same["skipped"]) == (0, total, total, {}), err

    folder = candidate(tmp_path, 200_000)
    status, lower, err = await command(decided, "policy", "shadow", folder, "--max-flips", str(flips))
    assert (status, lower["decisions"], lower["flips"]["count"]) == (0, total, flips), err
    assert (lower["changes"]["count"], lower["unanswerable"]["count"]) == (0, 0)
    assert {(row["recorded"]["effect"], row["now"]["effect"], row["action"]) for row in lower["flips"]["rows"]} == {
        ("permit", "deny", "payments/send")
    }
    by_node = [row["record"].partition("/")[0] for row in lower["flips"]["rows"]]
    assert {name: by_node.count(name) for name in decided.files.nodes} == dict.fromkeys(decided.files.nodes, ASKED.count(LARGE))

    status, _, err = await command(decided, "policy", "shadow", folder, "--max-flips", str(flips - 1))
    assert status == 2
    assert "policy_flips" in err

    made = tmp_path / "bundle.json"
    made.write_bytes(check(Path(folder)).data)
    context = decided.files.context.with_name("bare.toml")
    text, count = re.subn(r"(?m)^(policy|bundles) = \[.*\]$", r"\1 = []", decided.files.context.read_text())
    context.write_text(text)
    status, bundled, err = await command(decided, "--context", str(context), "policy", "shadow", str(made))
    assert (status, count, bundled["flips"]["rows"]) == (0, 2, lower["flips"]["rows"]), err  # terms come from what members show

    decided.kill("us-1")
    status, without, err = await command(decided, "policy", "shadow", folder)
    assert (status, without["flips"]["rows"]) == (0, lower["flips"]["rows"]), err
    assert list(without["silent"]) == ["us-1"]
    assert all(log["read_from"] not in {"", "us-1"} and not log["error"] for log in without["logs"])
