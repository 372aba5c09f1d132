"""`mesh trust` counts owners, by the roster in force or by any other."""

import json

import pytest

from mesh.cli import client
from mesh.core.messages import Sync
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL
from tests.cli.rosterdesk import RosterDesk
from tests.support.rosters import member, roster, signed


def _asked(desk: RosterDesk, *more: str) -> tuple[int, dict[str, object], str]:
    status, out, err = desk.run("-o", "json", "trust", *more)
    return status, json.loads(out), err


def test_a_mesh_that_one_operator_runs_says_one(rosters: RosterDesk) -> None:
    status, shown, _ = _asked(rosters)
    found = {one["by"]: one for one in shown["collusion"]}  # type: ignore[attr-defined]
    assert (status, shown["roster"], shown["n"]) == (0, rosters.lab.pin, 4)
    assert {by: one["number"] for by, one in found.items()} == {"member": 2, "operator": 1, "jurisdiction": 1, "region": 2}
    assert found["member"]["forge"]["owners"] == 3
    assert found["operator"]["exceed"] == {"owners": 1, "such_as": ["lab"]}


def test_members_who_do_not_answer_leave_what_the_files_say(rosters: RosterDesk) -> None:
    rosters.losing(Sync, ALL)
    status, shown, err = _asked(rosters)
    assert (status, shown["roster"]) == (0, rosters.lab.pin)
    assert "this is the roster of the files, members were not heard: unreachable" in err


def test_any_roster_can_be_asked_about_without_a_mesh(rosters: RosterDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "open_client", None)
    path = rosters.folder / "other.json"
    path.write_bytes(signed(roster([member(name, operator=name) for name in ("a", "b", "c", "d")], 1, 3)).envelope)
    status, shown, _ = _asked(rosters, "--roster", str(path), "--at-least", "2")
    assert status == 0
    assert [one["number"] for one in shown["collusion"]] == [2, 2, 1, 1]  # type: ignore[attr-defined]


def test_it_can_be_asked_for_enough_owners(rosters: RosterDesk) -> None:
    status, _, err = _asked(rosters, "--at-least", "2")
    assert (status, code_of(err)) == (2, "too_few_owners")
    assert _asked(rosters, "--at-least", "2", "--by", "member")[0] == 0
    assert _asked(rosters, "--at-least", "3", "--by", "member")[0] == 2


def test_people_read_who_could_do_what(rosters: RosterDesk) -> None:
    status, out, err = rosters.run("trust")
    assert status == 0
    assert "operator      1       1       1           1      1" in out
    assert "root 2 3 name all members anew" in " ".join(out.split())
    assert "1 of 1 operators could break what this mesh promises: lab" in err
