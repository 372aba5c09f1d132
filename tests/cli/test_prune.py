"""`mesh lineage prune` signs only floors over what is final and old, never a lower one, and ends well once the nodes' own logs say so."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from mesh.cli import pruning
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.retain import Floor, Retain
from mesh.core.messages import Offer
from mesh.limits import PRUNE_AGE_MS_MIN
from mesh.protocol.events import RecordsPruned
from tests.cli.lawmesh import Desk, code_of
from tests.cli.test_erase import ALL, _asked
from tests.support.factory import MESH, T0, secret, sign


def _pruning(desk: Desk, members: Collection[str] = ALL) -> None:
    """These members prune whatever they are told to: the shell's part, which a little mesh has not."""
    ask, done = desk.ask, set[tuple[str, str]]()

    async def asking(member: str, message: Payload) -> bytes:
        answer = await ask(member, message)
        for name in members if isinstance(message, Offer) else ():
            for origin, kept in desk.mesh.nodes[name].state.governance.floors.items():
                if (name, kept.id) not in done:
                    done.add((name, kept.id))
                    desk.mesh.deliver(name, RecordsPruned(kept.id, origin, kept.below))
                    desk.mesh.run(6)
        return answer

    desk.ask = asking


def _prune(desk: Desk, below: int, *arguments: str, keys: int = 2) -> tuple[int, Any, str]:
    paths = [desk.folder / f"root-{number}.key" for number in range(keys)]
    first, *others = [path if path.exists() else desk.key_file(f"root {number}", use="root") for number, path in enumerate(paths)]
    signing = [part for path in others for part in ("--co-sign", str(path))]
    said = ("lineage", "prune", "--log", "eu-1", "--below", str(below), *arguments, "--key", str(first), *signing)
    status, out, err = desk.run("-o", "json", *said)
    return status, json.loads(out) if out else None, err


def _floors(desk: Desk) -> set[int]:
    return {kept.below for node in desk.mesh.nodes.values() for kept in node.state.governance.floors.values()}


def test_it_ends_with_0_once_every_members_own_log_says_that_it_has_pruned(desk: Desk) -> None:
    _asked(desk, 1)
    _pruning(desk)
    status, told, err = _prune(desk, 1, "--archive", "tape 7", "--reason", "ten years", "--watch", "--wait", "3")
    assert status == 0, err
    assert [(row["node"], row["pruned"], row["record"].split("/")[0]) for row in told["members"]] == [(name, True, name) for name in ALL]
    assert (told["below"], told["archive"], told["needed"], _floors(desk)) == (1, "tape 7", 4, {1})
    assert "archives: tape 7" in err


def test_nobody_says_it_for_somebody_else_and_a_quorum_is_enough_if_that_is_wished(desk: Desk) -> None:
    _asked(desk, 1)
    _pruning(desk, ALL[:3])
    status, told, err = _prune(desk, 1, "--watch", "--wait", "0.5")
    assert (status, code_of(err), told["pruned"]) == (4, "not_acknowledged", 3)
    assert "sa-1" in err
    status, again, err = _prune(desk, 1, "--quorum")
    assert (status, again["retain"], again["needed"]) == (0, told["retain"], 3), err
    assert "nothing new is signed" in err


def test_a_floor_over_what_is_not_final_or_not_old_is_not_signed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _asked(desk, 1)
    assert code_of(_prune(desk, 10_000)[2]) == "not_final"
    monkeypatch.setattr(pruning, "wall_ms", lambda: desk.mesh.now_ms + PRUNE_AGE_MS_MIN - 60_000)
    assert code_of(_prune(desk, 2)[2]) == "record_young"
    assert _floors(desk) == set()


def test_who_pruned_by_another_word_for_the_same_floor_has_pruned(desk: Desk) -> None:
    _asked(desk, 1)
    _pruning(desk)
    first = _prune(desk, 1, "--watch", "--wait", "3")[1]["retain"]
    origin = f"{MESH}/eu-1/e1"
    keys, floors = [secret(f"root {number}") for number in (0, 1)], [Floor(origin=origin, below=1)]

    def again(number: int) -> Statement[Retain]:
        said = Retain(mesh=MESH, sequence=1, previous="", since="", floors=floors, archive="", reason=f"{number}", issued_ms=T0)
        return envelope.read(Retain, sign(said, *keys))

    other = next(item for item in map(again, range(64)) if item.id < first)  # which counts then
    desk.offer(other)
    desk.mesh.run(6)
    assert {kept.id for node in desk.mesh.nodes.values() for kept in node.state.governance.floors.values()} == {other.id}
    status, told, err = _prune(desk, 1, "--wait", "0.5")
    assert (status, told["retain"], told["pruned"]) == (0, other.id, 4), err


def test_a_smaller_floor_is_not_signed(desk: Desk) -> None:
    _asked(desk, 1)
    _pruning(desk)
    assert _prune(desk, 2)[0] == 0
    assert code_of(_prune(desk, 1)[2]) == "floor_falls"
    assert _floors(desk) == {2}


def test_it_takes_the_root_threshold(desk: Desk) -> None:
    _asked(desk, 1)
    assert code_of(_prune(desk, 1, keys=1)[2]) == "threshold_not_met"


def test_an_archive_that_is_named_must_be_whole_of_this_log_and_reach_the_floor(desk: Desk, tmp_path: Path) -> None:
    _asked(desk, 1)
    _pruning(desk)
    for node in ("eu-1", "us-1"):
        status, _, err = desk.run("lineage", "archive", node, "--to", str(tmp_path / node))
        assert status == 0, err
    assert code_of(_prune(desk, 1, "--archived", str(tmp_path / "us-1"))[2]) == "not_found"
    assert code_of(_prune(desk, 10_000, "--archived", str(tmp_path / "eu-1"))[2]) == "not_found"
    assert _floors(desk) == set()
    status, _, err = _prune(desk, 1, "--archived", str(tmp_path / "eu-1"))
    assert status == 0, err
    next((tmp_path / "eu-1" / "statements").rglob("*.json")).unlink()
    assert code_of(_prune(desk, 2, "--archived", str(tmp_path / "eu-1"))[2]) == "body_missing"
    assert _floors(desk) == {1}


def test_a_floor_at_the_end_of_what_is_final_is_not_signed_for_of_each_log_the_newest_record_stays(desk: Desk) -> None:
    _asked(desk, 1)
    final = max(log.certified for node in desk.mesh.nodes.values() for log in node.state.mirrors.values() if "/eu-1/" in log.origin)
    assert final == desk.mesh.nodes["eu-1"].state.log.frontier.size
    assert code_of(_prune(desk, final)[2]) == "not_final"
    assert _floors(desk) == set()
