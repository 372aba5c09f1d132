"""A roster passes between signers as a file; no key signs two of one epoch, and nobody adds a line to what may not follow."""

import json
from pathlib import Path

import msgspec
import pytest

from mesh.cli import client
from mesh.cli import roster_words as words
from mesh.core.bytes import envelope
from mesh.core.law.roster import Roster
from mesh.core.law.succession import admit_successor
from tests.cli.lawmesh import code_of
from tests.cli.rosterdesk import RosterDesk
from tests.support.factory import secret, sign


def _drawn(desk: RosterDesk, *more: str) -> str:
    desk.made("add", "af-1", "--region", "af", "--keys", desk.member("af-1"), *more)
    return "roster-2.json"


def _another(desk: RosterDesk) -> str:
    desk.made("set", "--bound", "heartbeat_ms=600", "--out", "other.json")
    return "other.json"


def _kept(key: Path) -> list[int]:
    path = key.with_name(f"{key.name}.roster.signed")
    return [entry["sequence"] for entry in json.loads(path.read_bytes())["signed"]] if path.exists() else []


def test_signers_on_several_machines_make_a_roster_that_members_believe(rosters: RosterDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _drawn(rosters)
    monkeypatch.setattr(client, "open_client", None)  # no mesh is needed
    status, first, err = rosters.plan("sign", file, "--key", str(rosters.roots[0]))
    assert (status, first["complete"], first["changes"]) == (0, False, ["member af-1 comes, in af, of lab", "k: 3 to 4"]), err
    assert "root of epoch 1: 1 of 2; still to sign: 1 of " in err
    assert f"operator lab: 0 of 1; still to sign: 1 of {rosters.lab.operator.public[:12]}…" in err
    assert [(one["who"], one["signed"], one["complete"]) for one in first["signatures"]] == [
        ("root of epoch 1", 1, False),
        ("root of epoch 2", 1, False),
        ("operator lab", 0, False),
    ]
    elsewhere = rosters.folder / "passed.json"
    elsewhere.write_bytes((rosters.folder / file).read_bytes())
    second = rosters.plan("sign", str(elsewhere), "--key", str(rosters.roots[2]), "--from", str(rosters.roster))[1]
    assert (second["complete"], second["id"]) == (False, first["id"])
    status, third, err = rosters.plan("sign", str(elsewhere), "--key", str(rosters.operator))
    assert (status, third["complete"]) == (0, True)
    assert "next: mesh roster push" in err
    assert admit_successor(rosters.lab.roster, rosters.lab.pin, words.read(elsewhere)).epoch == 2
    assert [_kept(key) for key in (*rosters.roots, rosters.operator)] == [[2], [], [2], [2]]


def test_one_desk_with_several_keys_signs_at_once(rosters: RosterDesk) -> None:
    file = _drawn(rosters)
    keys = ["--key", str(rosters.roots[0]), "--co-sign", str(rosters.roots[1]), "--co-sign", str(rosters.operator)]
    assert rosters.plan("sign", file, *keys)[1]["complete"]


def test_a_key_never_signs_two_rosters_of_one_epoch(rosters: RosterDesk) -> None:
    file, other = _drawn(rosters), _another(rosters)
    rosters.seal(file, rosters.roots[0])
    before = (rosters.folder / file).read_bytes()
    assert rosters.plan("sign", file, "--key", str(rosters.roots[0]))[0] == 0
    assert (rosters.folder / file).read_bytes() == before, "the same again is the same"
    status, shown, err = rosters.plan("sign", other, "--key", str(rosters.roots[0]))
    assert (status, shown, code_of(err)) == (2, None, "already_signed")
    assert not words.read(rosters.folder / other).signatures
    rosters.seal(other, *rosters.roots[1:])
    followed = admit_successor(rosters.lab.roster, rosters.lab.pin, words.read(rosters.folder / other))
    assert followed.bounds.heartbeat_ms == 600, "a draft that lost stops nobody"


def test_an_operator_signs_no_second_roster_either(rosters: RosterDesk) -> None:
    file = _drawn(rosters)
    rosters.seal(file, rosters.operator)
    rosters.made("add", "oc-1", "--region", "oc", "--keys", rosters.member("oc-1"), "--out", "other.json")
    assert code_of(rosters.plan("sign", "other.json", "--key", str(rosters.operator))[2]) == "already_signed"


def test_nobody_signs_what_may_not_follow(rosters: RosterDesk) -> None:
    drawn = words.read(rosters.folder / _drawn(rosters))
    unsafe = msgspec.structs.replace(drawn.claims, members=drawn.claims.members[1:], k=3)
    for name, changed, code in (
        ("unsafe", unsafe, "roster_unsafe"),
        ("skips", msgspec.structs.replace(drawn.claims, epoch=3), "wrong_epoch"),
        ("loose", msgspec.structs.replace(drawn.claims, previous="ab" * 32), "wrong_epoch"),
        ("elsewhere", msgspec.structs.replace(drawn.claims, mesh="other"), "wrong_mesh"),
    ):
        plain = envelope.draft(changed)
        (rosters.folder / name).write_bytes(envelope.assemble(plain.payload_type, plain.payload, {}))
        assert code_of(rosters.plan("sign", name, "--key", str(rosters.roots[0]))[2]) == code
    assert _kept(rosters.roots[0]) == []


def test_a_line_is_added_only_to_valid_ones_of_whom_it_takes(rosters: RosterDesk) -> None:
    file = rosters.folder / _drawn(rosters)
    claims = words.read(file).claims
    plain = envelope.draft(claims)
    for data in (
        sign(claims, secret("stranger")),
        sign(claims, rosters.lab.revoker),
        envelope.assemble(plain.payload_type, plain.payload, {rosters.lab.root[1].public: bytes(64)}),
    ):
        file.write_bytes(data)
        assert code_of(rosters.plan("sign", str(file), "--key", str(rosters.roots[0]))[2]) == "bad_signature"
    assert _kept(rosters.roots[0]) == []


def test_only_whom_it_takes_signs(rosters: RosterDesk) -> None:
    other = _another(rosters)
    assert code_of(rosters.plan("sign", other, "--key", str(rosters.operator))[2]) == "bad_signature", "it says nothing new of the operator"
    assert code_of(rosters.plan("sign", other, "--key", str(rosters.key))[2]) == "config_invalid"
    stranger = rosters.key_file("stranger", use="root")
    assert code_of(rosters.plan("sign", other, "--key", str(stranger))[2]) == "bad_signature"
    assert not list(rosters.folder.glob("**/*.roster.signed"))


def test_a_file_that_came_back_with_more_lines_is_not_written_over(rosters: RosterDesk) -> None:
    file = _drawn(rosters)
    bare = rosters.folder / "bare.json"
    bare.write_bytes((rosters.folder / file).read_bytes())
    rosters.seal(file, rosters.roots[0])
    assert rosters.plan("sign", str(bare), "--key", str(rosters.operator), "--out", file)[0] == 0
    assert len(words.read(rosters.folder / file).signatures) == 2
    other = _another(rosters)
    assert code_of(rosters.plan("sign", other, "--key", str(rosters.roots[1]), "--out", file)[2]) == "usage"


def test_a_roster_says_itself_what_it_follows(rosters: RosterDesk) -> None:
    _drawn(rosters)
    rosters.made("remove", "af-1", "--from", "roster-2.json")
    status, _, err = rosters.plan("sign", "roster-3.json", "--key", str(rosters.roots[0]))
    assert (status, code_of(err)) == (2, "wrong_epoch")
    assert "--from FILE gives the roster before" in err
    assert rosters.plan("sign", "roster-3.json", "--key", str(rosters.roots[0]), "--from", "roster-2.json")[0] == 0
    first = rosters.folder / "first.json"
    first.write_bytes(rosters.roster.read_bytes())
    assert code_of(rosters.plan("sign", str(first), "--key", str(rosters.roots[2]), "--from", "roster-2.json")[2]) == "usage"


def test_the_root_hands_over_only_with_both(rosters: RosterDesk) -> None:
    new = [rosters.key_file(f"new root {number}", use="root") for number in range(2)]
    drop = [part for key in rosters.lab.root for part in ("--drop-key", f"root={key.public[:16]}")]
    file = "roster-2.json"
    rosters.made("set", "--add-key", f"root={new[0]}", "--add-key", f"root={new[1]}", *drop)
    made = rosters.seal(file, rosters.roots[0], *new)
    assert [(one["who"], one["complete"]) for one in words.missing(made, rosters.lab.roster)] == [
        ("root of epoch 1", False),
        ("root of epoch 2", True),
    ]
    assert isinstance(admit_successor(rosters.lab.roster, rosters.lab.pin, rosters.seal(file, rosters.roots[1])), Roster)
