"""The first roster of a mesh is drawn up from a description that people can read; only public keys go into it."""

import json
import tomllib
from pathlib import Path

import pytest

from mesh.cli import roster_words as words
from mesh.core.law.roster import admit_roster
from mesh.errors import Refused
from tests.cli.lawmesh import code_of
from tests.cli.rosterdesk import RosterDesk

MEMBERS = ("eu-1", "us-1", "ap-1", "sa-1")
ROOTS = ("root-1", "root-2", "root-3")


def _described(desk: RosterDesk, *, members: tuple[str, ...] = MEMBERS, head: str = "", tail: str = "") -> Path:
    """A description, with the keys that it names."""
    people = {**dict.fromkeys(ROOTS, "root"), "issuer": "issuer", "revoker": "revoker", "policy": "policy", "acme": "operator"}
    for name, use in people.items():
        desk.key_file(f"of {name}", use=use).rename(desk.folder / f"{name}.key")
    lines = ['mesh = "new"', head, "[operators.acme]", 'key = "acme.key"', 'jurisdiction = "de"']
    for name in members:
        desk.member(name)
        lines += [f"[members.{name}]", f'region = "{name[:2]}"', 'operator = "acme"', f'keys = "keys-{name}"']
    for role, keys, threshold in (("root", ROOTS, 2), ("issuers", ("issuer",), 1), ("revoker", ("revoker",), 1)):
        lines += [f"[roles.{role}]", f"keys = {json.dumps([f'{key}.key' for key in keys])}", f"threshold = {threshold}"]
    lines += ["[roles.policy.payments]", 'keys = ["policy.key"]', "threshold = 1", tail]
    path = desk.folder / "new.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_description_makes_a_roster_that_its_root_and_operators_sign_and_anybody_pins(rosters: RosterDesk) -> None:
    status, shown, err = rosters.plan("init", str(_described(rosters)))
    assert (status, shown["epoch"], shown["n"], shown["f"], shown["k"], shown["begins"]) == (0, 1, 4, 1, 3, "at once"), err
    assert [one["who"] for one in shown["signatures"]] == ["root of epoch 1", "operator acme"]
    keys = [rosters.folder / f"{name}.key" for name in ("root-1", "root-3", "acme")]
    for key in keys[:2]:
        rosters.seal("roster-1.json", key)
    with pytest.raises(Refused, match="operator_unsigned"):
        admit_roster(words.read(rosters.folder / "roster-1.json"), pin=shown["id"])
    made = admit_roster(rosters.seal("roster-1.json", keys[2]), pin=shown["id"])
    assert (made.member("eu-1").log_key, made.bounds.stale_ms) == (rosters.public("eu-1", "log"), 5_000)
    err = rosters.plan("sign", "roster-1.json", "--key", str(keys[0]))[2]
    assert f"pin it as {shown['id']} in every configuration" in err


def test_one_key_signs_one_first_roster(rosters: RosterDesk) -> None:
    path = _described(rosters)
    rosters.made("init", str(path))
    rosters.seal("roster-1.json", rosters.folder / "root-1.key")
    path.write_text(path.read_text().replace('jurisdiction = "de"', 'jurisdiction = "ch"'))
    assert code_of(rosters.plan("init", str(path))[2]) == "usage", "the one that is signed is not written over"
    rosters.made("init", str(path), "--out", "other.json")
    assert code_of(rosters.plan("sign", "other.json", "--key", str(rosters.folder / "root-1.key"))[2]) == "already_signed"


def test_public_keys_do_where_secret_ones_are_elsewhere(rosters: RosterDesk) -> None:
    path = _described(rosters)
    keys = rosters.folder / "keys-eu-1"
    public = {use: rosters.public("eu-1", use) for use in ("log", "witness", "attest", "decision")}
    for use, key in public.items():
        (keys / f"{use}.key").unlink()
        if use != "log":
            (keys / f"{use}.pub").write_text(key)
    path.write_text(path.read_text().replace('keys = "keys-eu-1"', f'keys = "keys-eu-1"\nlog_key = "{public["log"]}"'))
    member = rosters.made("init", str(path)).claims.member("eu-1")
    assert (member.log_key, member.decision_key) == (public["log"], public["decision"])


def test_f_k_and_bounds_are_as_described(rosters: RosterDesk) -> None:
    path = _described(rosters, head="f = 0\nk = 4", tail="[bounds]\nstale_ms = 9000")
    claims = rosters.made("init", str(path)).claims
    assert (claims.f, claims.k, claims.bounds.stale_ms, claims.bounds.heartbeat_ms) == (0, 4, 9_000, 1_000)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('mesh = "new"', "", "config_invalid"),
        ('mesh = "new"', 'mesh = "new"\nmembership = 1', "config_invalid"),
        ('mesh = "new"', 'mesh = "new"\nf = 2', "roster_unsound"),
        ('mesh = "new"', 'mesh = "new"\nk = 2', "roster_unsound"),
        ('operator = "acme"', 'operator = "globex"', "roster_unsound"),
        ('"root-2.key"', '"root-1.key"', "bad_key"),
        ('"root-2.key"', '"issuer.key"', "config_invalid"),
        ('"root-2.key"', '"nowhere.key"', "config_invalid"),
        ('keys = "keys-eu-1"', "", "usage"),
        ('region = "eu"', 'region = "Europe"', "malformed"),
    ],
)
def test_what_is_described_wrongly_is_refused(rosters: RosterDesk, old: str, new: str, code: str) -> None:
    path = _described(rosters)
    path.write_text(path.read_text().replace(old, new))
    assert code_of(rosters.plan("init", str(path))[2]) == code
    assert not (rosters.folder / "roster-1.json").exists()


def test_the_template_is_a_description(rosters: RosterDesk) -> None:
    status, out, _ = rosters.run("roster", "init", "--template")
    told = tomllib.loads(out)
    assert (status, set(told)) == (0, {"mesh", "operators", "members", "roles"})
    for name, use in (("acme/operator", "operator"), ("issuer", "issuer"), ("revoker-1", "revoker"), ("revoker-2", "revoker")):
        (rosters.folder / name).parent.mkdir(exist_ok=True)
        rosters.key_file(f"template {name.replace('/', ' ')}", use=use).rename(rosters.folder / f"{name}.key")
    for name in ("root-1", "root-2", "root-3", "policy-1", "policy-2"):
        rosters.key_file(f"template {name}", use=name[:-2]).rename(rosters.folder / f"{name}.key")
    Path(rosters.member("eu-1")).rename(rosters.folder / "eu-1")
    (rosters.folder / "mesh.toml").write_text(out)
    status, shown, err = rosters.plan("init", "mesh.toml")
    assert (status, shown["n"], shown["f"], shown["k"]) == (0, 1, 0, 1), err
    lines = out.replace("# [bounds]", "[bounds]").replace("# heartbeat_ms", "heartbeat_ms").replace("# stale_ms", "stale_ms")
    assert tomllib.loads(lines)["bounds"] == {"heartbeat_ms": 1_000, "stale_ms": 5_000}
    assert code_of(rosters.plan("init")[2]) == "usage"
