"""`mesh lineage erase` names only what is final and hides something, and ends well only once the nodes' own logs say that it is gone."""

import json
from collections.abc import Collection
from typing import Any

import pytest

from mesh.cli import erasing
from mesh.core.bytes.canonical import Payload
from mesh.core.messages import Authorized, Offer
from mesh.protocol.events import OpeningsErased
from tests.cli.lawmesh import Desk, code_of

ALL = ("eu-1", "us-1", "ap-1", "sa-1")
ANNA = "spiffe://lab/agent/anna"


def _asked(desk: Desk, number: int, *, memo: str | None = "private", at: str = "eu-1", final: bool = True) -> str:
    intent, data, openings = desk.lab.intent(number, memo=memo, at_ms=desk.mesh.now_ms)
    assert isinstance(desk.mesh.request(at, desk.lab.request(data, openings)), Authorized)
    if final:
        desk.mesh.run(6)
    return intent


def _erasing(desk: Desk, members: Collection[str] = ALL) -> None:
    """These members erase whatever they are told to: the shell's part, which a little mesh has not."""
    ask, done = desk.ask, set[tuple[str, str]]()

    async def asking(member: str, message: Payload) -> bytes:
        answer = await ask(member, message)
        for name in members if isinstance(message, Offer) else ():
            for identity in desk.mesh.nodes[name].state.governance.erasures:
                if (name, identity) not in done:
                    done.add((name, identity))
                    desk.mesh.deliver(name, OpeningsErased(identity))
                    desk.mesh.run(6)
        return answer

    desk.ask = asking


def _erase(desk: Desk, *arguments: str, keys: int = 2) -> tuple[int, Any, str]:
    paths = [desk.folder / f"root-{number}.key" for number in range(keys)]
    first, *others = [path if path.exists() else desk.key_file(f"root {number}", use="root") for number, path in enumerate(paths)]
    signing = [part for path in others for part in ("--co-sign", str(path))]
    status, out, err = desk.run("-o", "json", "lineage", "erase", *arguments, "--key", str(first), *signing)
    return status, json.loads(out) if out else None, err


def _erased(desk: Desk) -> list[set[str]]:
    return [set(node.state.governance.erased) for node in desk.mesh.nodes.values()]


def test_it_ends_with_0_once_every_members_own_log_says_that_it_has_erased(desk: Desk) -> None:
    intent = _asked(desk, 1)
    _erasing(desk)
    status, told, err = _erase(desk, intent[:16], "--reason", "the customer asked", "--watch", "--wait", "3")
    assert status == 0, err
    assert [(row["node"], row["erased"], len(row["records"])) for row in told["members"]] == [(name, True, 1) for name in ALL]
    assert (told["intents"], told["needed"], told["left"]) == ([intent], 4, 0)
    assert [record.split("/")[0] for row in told["members"] for record in row["records"]] == list(ALL)
    assert _erased(desk) == [{intent}] * 4


def test_nobody_says_it_for_somebody_else_and_a_quorum_is_enough_if_that_is_wished(desk: Desk) -> None:
    intent = _asked(desk, 1)
    _erasing(desk, ALL[:3])  # the fourth serves their records too, and has none of its own
    status, told, err = _erase(desk, intent, "--watch", "--wait", "0.5")
    assert (status, code_of(err), told["erased"]) == (4, "not_acknowledged", 3)
    assert "sa-1" in err
    status, again, err = _erase(desk, intent, "--quorum")
    assert (status, again["erasures"], again["needed"]) == (0, told["erasures"], 3), err
    assert "left: sa-1" in err
    assert "nothing new is signed" in err


def test_all_that_hides_something_of_one_workload_before_a_time_is_meant_and_nothing_else(desk: Desk) -> None:
    one, two = _asked(desk, 1), _asked(desk, 2, at="us-1")
    _asked(desk, 3, memo=None)
    _erasing(desk)
    status, told, err = _erase(desk, "--subject", ANNA, "--dry-run")
    assert (status, told["intents"], told["signed"]) == (0, sorted([one, two]), False), err
    assert _erased(desk) == [set[str]()] * 4
    for arguments in (("--subject", "spiffe://lab/agent/nobody"), ("--subject", ANNA, "--before", "2001-01-01T00:00:00Z")):
        assert code_of(_erase(desk, *arguments)[2]) == "not_found"
    status, told, err = _erase(desk, "--subject", ANNA)
    assert (status, told["intents"]) == (0, sorted([one, two])), err
    assert _erased(desk) == [{one, two}] * 4


def test_more_than_one_erasure_names_is_left_for_the_next(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    intents = sorted([_asked(desk, 1), _asked(desk, 2)])
    monkeypatch.setattr(erasing, "ERASED_MAX", 1)
    _erasing(desk)
    status, told, err = _erase(desk, "--subject", ANNA)
    assert (status, told["intents"], told["left"]) == (2, intents[:1], 1), err
    status, told, err = _erase(desk, "--subject", ANNA)
    assert (status, told["left"], len(told["erasures"])) == (0, 0, 2), err
    assert _erased(desk) == [set(intents)] * 4


def test_what_is_not_final_or_hides_nothing_is_not_erased(desk: Desk) -> None:
    plain = _asked(desk, 1, memo=None)
    assert code_of(_erase(desk, plain)[2]) == "not_found"
    assert code_of(_erase(desk, "ab" * 32)[2]) == "not_found"
    early = _asked(desk, 2, final=False)
    assert code_of(_erase(desk, early)[2]) == "not_final"
    assert _erased(desk) == [set[str]()] * 4


def test_it_takes_the_root_threshold_and_one_way_to_say_what_is_meant(desk: Desk) -> None:
    intent = _asked(desk, 1)
    assert code_of(_erase(desk, intent, keys=1)[2]) == "threshold_not_met"
    assert code_of(_erase(desk)[2]) == "usage"
    assert code_of(_erase(desk, intent, "--subject", ANNA)[2]) == "usage"
    assert code_of(_erase(desk, intent, "--before", "2001-01-01T00:00:00Z")[2]) == "usage"  # it would not keep it from being erased
    status, _, err = desk.run("-o", "json", "lineage", "erase", intent, "--key", str(desk.key))
    assert (status, code_of(err)) == (3, "config_invalid")


def test_a_signed_erasure_that_nobody_takes_is_kept_and_offered_again(desk: Desk) -> None:
    intent, whole = _asked(desk, 1), desk.ask
    desk.losing(Offer, ALL)
    status, _, err = _erase(desk, intent)
    assert (status, code_of(err)) == (4, "unreachable")
    desk.ask = whole
    _erasing(desk)
    status, told, err = _erase(desk, intent)
    assert (status, len(told["erasures"])) == (0, 1), err
    assert "says so already" in err
