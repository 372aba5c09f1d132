"""A person reads from files alone what a roster says, and whether a planned change of it may be made."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters.bus_table import BusTable
from mesh.adapters.trustfiles import Trust
from mesh.cli import run
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Role, Roster
from mesh.core.log.checkpoint import cosigner, log_verifier
from mesh.core.log.note import SignatureType, Verifier
from mesh.core.log.tlogpolicy import read_logs
from mesh.deploy.toml import to_toml
from mesh.limits import ENVELOPE_BYTES_MAX
from mesh.roles.config import NodeConfig, NodeTable, OutsideTable, WitnessTable
from tests.cli.lawmesh import code_of
from tests.core.kit import secret
from tests.support.rosters import ROOT, key, member, roster, signed

FOUR = ("a", "b", "c", "d")
FIVE = (*FOUR, "e")
GENESIS = signed(roster(FOUR, 1, 3))
WIDER = signed(roster(FIVE, 1, 4, after=GENESIS))
NARROWER = signed(roster(FIVE[1:], 1, 3, after=WIDER))
SWAPPED = signed(roster((*FOUR[:3], "e"), 1, 3, after=GENESIS))


class Shelf:
    """Files of rosters, and commands about them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def put(self, name: str, statement: Statement[Roster]) -> str:
        path = self.folder / name
        path.write_bytes(statement.envelope)
        return str(path)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        status = run(["roster", *arguments])
        shown = self._capsys.readouterr()
        return status, shown.out, shown.err

    def check(self, *statements: Statement[Roster], more: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]], str]:
        """Exit status, the steps, and the code of the refusal, if any."""
        files = [self.put(f"{number}.json", statement) for number, statement in enumerate(statements)]
        status, out, err = self.run("check", *files, *more, "-o", "json")
        return status, json.loads(out) if out else [], code_of(err) if status else ""


@pytest.fixture
def shelf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shelf:
    return Shelf(tmp_path, capsys)


# ------------------------------------------------------------------------------------------------------------------------ show


def test_show_says_who_is_in_it_what_is_enough_and_which_id_to_pin(shelf: Shelf) -> None:
    status, out, _ = shelf.run("show", shelf.put("roster.json", WIDER), "-o", "json")
    shown = json.loads(out)
    assert status == 0
    assert (shown["id"], shown["previous"], shown["epoch"]) == (WIDER.id, GENESIS.id, 2)
    assert (shown["n"], shown["f"], shown["k"]) == (5, 1, 4)
    assert [(one["name"], one["region"], one["log_key"]) for one in shown["members"]] == [
        (name, "eu", member(name).log_key) for name in FIVE
    ]
    assert [(role["role"], role["threshold"], role["of"]) for role in shown["roles"]] == [
        ("root", 2, 3),
        ("issuers", 1, 1),
        ("revoker", 1, 1),
        ("policy/payments", 1, 1),
    ]
    assert shown["roles"][0]["keys"] == [one.public for one in ROOT]
    assert shown["bounds"]["stale_ms"] == 3_000
    assert shown["signed"] == "by 2 of its own root's 3 keys, 2 needed"


def test_a_table_shows_the_same_to_people(shelf: Shelf) -> None:
    status, out, _ = shelf.run("show", shelf.put("roster.json", GENESIS))
    assert status == 0
    for part in (f"id               {GENESIS.id}", "stale_ms         3000", "policy/payments  1          1", "a     eu      own       1"):
        assert part in out


def test_show_counts_signatures_that_hold_and_believes_nothing(shelf: Shelf) -> None:
    short = signed(roster(FOUR, 1, 3), ROOT[0], key("stranger"))
    status, out, _ = shelf.run("show", shelf.put("roster.json", short), "-o", "json")
    assert (status, json.loads(out)["signed"]) == (0, "by 1 of its own root's 3 keys, 2 needed")


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [(b"{}", "malformed", 3), (b" " * (ENVELOPE_BYTES_MAX + 1), "too_large", 3), (None, "config_invalid", 3)],
    ids=["other bytes", "too many bytes", "no file"],
)
@pytest.mark.parametrize("command", ["show", "check"])
def test_what_is_no_roster_is_refused(command: str, data: bytes | None, code: str, status: int, shelf: Shelf) -> None:
    path = shelf.folder / "roster.json"
    if data is not None:
        path.write_bytes(data)
    paths = [str(path)] * (1 if command == "show" else 2)
    ended, _, err = shelf.run(command, *paths, "-o", "json")
    assert (ended, code_of(err)) == (status, code)


def test_any_c2sp_verifier_is_told_what_makes_a_checkpoint_final(shelf: Shelf) -> None:
    path = shelf.put("roster.json", WIDER)
    status, out, _ = shelf.run("show", path, "--format", "tlog-policy", "--log", "b")
    log, *witnesses, group, quorum = [line.split(" ") for line in out.splitlines()]
    assert (status, log[0], Verifier.from_vkey(log[1])) == (0, "log", log_verifier("lab/b/e1", member("b").log_key))
    assert [(word, name) for word, name, _ in witnesses] == [("witness", name) for name in FIVE]
    cosigners = [Verifier.from_vkey(vkey) for _, _, vkey in witnesses]
    assert {one.name: one.key for one in cosigners} == WIDER.claims.attest_keys()
    assert {one.kind for one in cosigners} == {SignatureType.COSIGNATURE}
    assert (group, quorum) == (["group", "Quorum", "4", *FIVE], ["quorum", "Quorum"])


def test_the_external_witnesses_of_a_node_are_named_and_never_asked_for(shelf: Shelf) -> None:
    outsider = cosigner("witness.example/w1", secret(77).public)
    table = OutsideTable(witnesses={"w1": WitnessTable(url="https://witness.example/", vkey=outsider.vkey)})
    node = NodeConfig(
        node=NodeTable(name="b", data="d", keys="k"),
        bus=BusTable(servers=["nats://x"]),
        trust=Trust(roster="r", pin="p", policy=["p"]),
        outside=table,
    )
    (shelf.folder / "node.toml").write_text(to_toml(node, leave_out=frozenset({"base"})))
    path = shelf.put("roster.json", WIDER)
    plain = shelf.run("show", path, "--format", "tlog-policy", "--log", "lab/b/e1")
    status, out, _ = shelf.run("show", path, "--format", "tlog-policy", "--log", "b", "--outside", str(shelf.folder / "node.toml"))
    assert (plain[0], status) == (0, 0)
    assert set(out.splitlines()) - set(plain[1].splitlines()) == {f"witness outside/w1 {outsider.vkey} https://witness.example/"}
    assert read_logs(out.encode()) == [log_verifier("lab/b/e1", member("b").log_key)]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--format", "tlog-policy"), "usage"),
        (("--log", "b"), "usage"),
        (("--outside", "node.toml"), "usage"),
        (("--format", "tlog-policy", "--log", "z"), "unknown_member"),
        (("--format", "tlog-policy", "--log", "lab/z/e1"), "unknown_member"),
    ],
)
def test_such_a_policy_is_about_one_log(more: tuple[str, ...], code: str, shelf: Shelf) -> None:
    assert code_of(shelf.run("show", shelf.put("roster.json", WIDER), *more, "-o", "json")[2]) == code


# ----------------------------------------------------------------------------------------------------------------------- check


def test_a_chain_that_may_be_followed_ends_with_0_and_shows_each_step(shelf: Shelf) -> None:
    status, steps, code = shelf.check(GENESIS, WIDER, NARROWER, more=("--pin", GENESIS.id))
    assert (status, code) == (0, "")
    assert [(step["from"], step["to"], step["id"], step["verdict"]) for step in steps] == [
        (1, 2, WIDER.id, "may follow"),
        (2, 3, NARROWER.id, "may follow"),
    ]
    assert [step["changes"] for step in steps] == [["member e comes, in eu, of own", "k: 3 to 4"], ["member a goes", "k: 4 to 3"]]
    assert steps[0]["overlap"] == {"old": 0, "both": 4, "new": 1, "k": [3, 4], "f": [1, 1], "union": 5, "shared": 2, "safe": True}


def test_a_step_too_large_is_shown_with_its_arithmetic_and_ends_with_its_code(shelf: Shelf) -> None:
    status, steps, code = shelf.check(GENESIS, SWAPPED, NARROWER)
    assert (status, code) == (3, "roster_unsafe")
    (step,) = steps
    assert (step["verdict"], step["changes"]) == ("roster_unsafe", ["member d goes", "member e comes, in eu, of own"])
    assert step["arithmetic"] == "k + k' - |old or new| = 3 + 3 - 5 = 1, not more than max(f, f') = max(1, 1) = 1"


def test_people_read_the_same_step_by_step(shelf: Shelf) -> None:
    status, out, err = shelf.run("check", shelf.put("1.json", GENESIS), shelf.put("2.json", SWAPPED))
    assert status == 3
    assert out.splitlines() == [
        f"epoch 1 to 2: {shelf.folder / '2.json'}",
        f"  id       {SWAPPED.id}",
        "  changes  member d goes",
        "  changes  member e comes, in eu, of own",
        "  overlap  k + k' - |old or new| = 3 + 3 - 5 = 1, not more than max(f, f') = max(1, 1) = 1",
        "  verdict  roster_unsafe",
    ]
    assert "is taken on its own word; --pin ID" in err
    assert f"error[roster_unsafe]: {shelf.folder / '2.json'}: k + k'" in err
    assert "a step like this must be made in several" in err


@pytest.mark.parametrize(
    ("second", "status", "code"),
    [
        (NARROWER, 2, "wrong_epoch"),
        (GENESIS, 2, "wrong_epoch"),
        (signed(roster(FOUR, 1, 3, after=GENESIS), ROOT[0]), 5, "threshold_not_met"),
        (signed(roster(FOUR, 1, 3, after=GENESIS, mesh="other")), 5, "wrong_mesh"),
    ],
    ids=["skipped", "same", "one signature short", "another mesh"],
)
def test_what_may_not_follow_ends_with_its_code(second: Statement[Roster], status: int, code: str, shelf: Shelf) -> None:
    ended, steps, said = shelf.check(GENESIS, second)
    assert (ended, said, steps[-1]["verdict"]) == (status, code, code)


def test_a_first_roster_that_is_not_the_pinned_one_is_refused(shelf: Shelf) -> None:
    status, steps, code = shelf.check(GENESIS, WIDER, more=("--pin", WIDER.id))
    assert (status, steps, code) == (2, [], "wrong_epoch")


def test_every_kind_of_change_is_named(shelf: Shelf) -> None:
    others = (key("new root"), *ROOT[:2])
    base = roster([msgspec.structs.replace(member("a"), region="us"), member("b", generation=1), *FOUR[2:], "e"], 1, 4, after=GENESIS)
    after = msgspec.structs.replace(
        base,
        root=Role(keys=[one.public for one in others], threshold=3),
        policy={"refunds": Role(keys=[key("refunds").public], threshold=1)},
        bounds=msgspec.structs.replace(base.bounds, stale_ms=4_000),
    )
    status, steps, code = shelf.check(GENESIS, signed(after, *others, *ROOT))
    assert (status, code) == (3, "roster_unsafe")
    assert steps[0]["changes"] == [
        "member a moves: eu to us",
        "member b is another one: new log_key, witness_key, attest_key, decision_key",
        "member e comes, in eu, of own",
        "k: 3 to 4",
        "role root: 2 of 3 to 3 of 3",
        f"role root: key {ROOT[2].public[:12]}… goes",
        f"role root: key {others[0].public[:12]}… comes",
        "role policy/payments goes",
        "role policy/refunds comes: 1 of 1",
        "stale_ms: 3000 to 4000",
    ]


def test_a_step_that_changes_nothing_says_so(shelf: Shelf) -> None:
    status, out, err = shelf.run("check", shelf.put("1.json", GENESIS), shelf.put("2.json", signed(roster(FOUR, 1, 3, after=GENESIS))))
    assert (status, "  changes  nothing" in out) == (0, True)
    assert "this judges files, and changes no mesh" in err
