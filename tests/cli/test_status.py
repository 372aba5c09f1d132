"""`mesh status` shows for every node what it holds, what it decides by, how far it is behind, and ends with a code that scripts can use."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes.canonical import Payload
from mesh.core.messages import NodeStatus, PolicyStatus, StatusAsked, pack, unpack
from tests.cli.shell import Shell


def test_status_shows_every_node(shell: Shell) -> None:
    rows = shell.json("status")
    assert [row["node"] for row in rows] == ["eu-1", "us-1", "ap-1", "sa-1"]
    assert all(row["state"] == "fresh" and row["log"] == row["final"] for row in rows)
    status, out, err = shell.run("status")
    wanted = ["node", "region", "state", "roster_epoch", "policies", "frontier", "log", "final", "lag", "mirrors", "vouched", "up"]
    assert out.splitlines()[0].split() == wanted
    assert "4 of 4 fresh, 3 needed" in err
    assert "differ" not in out + err
    assert status == 0


def test_status_shows_which_node_holds_other_statements_than_most(own: Shell) -> None:
    honest, digest = own.ask, own.story.lab.governance.digest

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        return data.replace(digest.encode(), b"ab" * 32) if member == "us-1" else data

    own.ask = ask
    rows = own.json("status")
    assert [(row["differs"], row["frontier_digest"]) for row in rows] == [
        (False, digest),
        (True, "ab" * 32),
        (False, digest),
        (False, digest),
    ]
    assert [row["roster_epoch"] for row in rows] == [1] * 4
    assert [row["policies"] for row in rows] == [["payments@1"]] * 4
    _, out, err = own.run("status")
    assert f"{digest[:12]} " in out
    assert "abababababab differs" in out
    assert "us-1 differ from most" in err


def test_status_shows_how_far_each_node_is_behind(own: Shell) -> None:
    honest = own.ask
    assert [(row["lag"], row["lag_own"], row["lag_others"]) for row in own.json("status")] == [("none", 0, 0)] * 4

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if not isinstance(message, StatusAsked):
            return data
        status = unpack(NodeStatus, data)
        if member == "us-1":
            status = msgspec.structs.replace(status, certified=status.size - 2)
        if member == "ap-1":
            behind = [msgspec.structs.replace(item, attested=item.attested - 3) for item in status.mirrors[:1]]
            status = msgspec.structs.replace(status, mirrors=behind + status.mirrors[1:])
        return pack(status)

    own.ask = ask
    assert [(row["lag"], row["lag_own"], row["lag_others"]) for row in own.json("status")] == [
        ("none", 0, 0),
        ("2 not final", 2, 0),
        ("3 not attested", 0, 3),
        ("none", 0, 0),
    ]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "payments@1"),
        ({"held": 2}, "payments@1 (2 held)"),
        ({"held": 2, "admitted": 2}, "payments@1 (2 admitted)"),
        ({"held": 2, "code": "policy_tests_failed"}, "payments@1 (2 held) policy_tests_failed"),
        ({"active": 0, "code": "policy_expired"}, "payments@0 (1 admitted) policy_expired"),
    ],
)
def test_status_shows_which_policy_decides_and_which_is_to_come(own: Shell, changed: dict[str, Any], told: str) -> None:
    honest = own.ask
    policy = PolicyStatus(domain="payments", active=1, admitted=1, held=1, digest="", code="")

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if isinstance(message, StatusAsked):
            status = unpack(NodeStatus, data)
            return pack(msgspec.structs.replace(status, policies=[msgspec.structs.replace(policy, **changed)]))
        return data

    own.ask = ask
    assert [row["policies"] for row in own.json("status")] == [[told]] * 4


def test_status_ends_with_4_below_k_fresh_nodes(own: Shell) -> None:
    for name in ("eu-1", "us-1"):
        own.story.mesh.nodes[name].up = False
    status, out, _ = own.run("status")
    assert status == 4
    assert out.count("unreachable") == 2
