"""The next roster is planned from the one before and one change; what members would refuse is refused before anybody signs."""

from pathlib import Path

import msgspec
import pytest

from mesh.adapters.clock import wall_ms
from mesh.cli import client
from mesh.cli import roster_words as words
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Roster, assents
from mesh.core.law.succession import admit_successor
from mesh.core.messages import Sync
from mesh.errors import Refused
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL
from tests.cli.rosterdesk import RosterDesk


def _safe(desk: RosterDesk, statement: Statement[Roster], *keys: Path) -> Roster:
    """As members will read it, signed by these."""
    file = desk.folder / f"roster-{statement.claims.epoch}.json"
    return admit_successor(desk.lab.roster, desk.lab.pin, desk.seal(str(file), *(keys or (*desk.roots[:2], desk.operator))))


def test_a_member_more_gets_the_smallest_quorum_that_may_follow(rosters: RosterDesk) -> None:
    status, shown, err = rosters.plan("add", "af-1", "--region", "af", "--keys", rosters.member("af-1"))
    assert (status, shown["epoch"], shown["n"], shown["f"], shown["k"]) == (0, 2, 5, 1, 4), err
    assert shown["previous"] == rosters.lab.pin
    assert shown["changes"] == ["member af-1 comes, in af, of lab", "k: 3 to 4"]
    assert shown["arithmetic"] == "k + k' - |old or new| = 3 + 4 - 5 = 2, more than max(f, f') = max(1, 1) = 1"
    assert (shown["overlap"]["shared"], shown["overlap"]["safe"]) == (2, True)
    assert [(one["who"], one["needed"], len(one["open"])) for one in shown["signatures"]] == [
        ("root of epoch 1", 2, 3),
        ("root of epoch 2", 2, 3),
        ("operator lab", 1, 1),
    ]
    drawn = words.read(rosters.folder / shown["file"])
    assert (drawn.id, dict(drawn.signatures)) == (shown["id"], {}), "nobody has signed it"
    assert _safe(rosters, drawn).member("af-1").log_key == rosters.public("af-1", "log")


def test_the_keys_of_a_member_are_given_in_hex_or_as_files_as_well(rosters: RosterDesk) -> None:
    folder = rosters.member("af-1")
    (rosters.folder / "witness.pub").write_text(rosters.public("af-1", "witness") + "\n")
    keys = ["--log-key", rosters.public("af-1", "log"), "--witness-key", "witness.pub", "--attest-key", f"{folder}/attest.key"]
    status, shown, err = rosters.plan("add", "af-1", "--region", "af", *keys)
    assert (status, code_of(err), shown) == (3, "usage", None)
    assert "no decision key" in err
    made = rosters.made("add", "af-1", "--region", "af", *keys, "--decision-key", rosters.public("af-1", "decision"))
    member = made.claims.member("af-1")
    assert [member.log_key, member.witness_key, member.attest_key, member.decision_key] == [
        rosters.public("af-1", use) for use in ("log", "witness", "attest", "decision")
    ]


def test_a_key_of_another_use_is_no_key_of_a_member(rosters: RosterDesk) -> None:
    folder = Path(rosters.member("af-1"))
    (folder / "log.key").unlink()
    (folder / "witness.key").rename(folder / "log.key")
    assert code_of(rosters.plan("add", "af-1", "--region", "af", "--keys", str(folder))[2]) == "config_invalid"


def test_a_new_operator_is_described_and_must_sign(rosters: RosterDesk) -> None:
    other = rosters.key_file("operator acme", use="operator")
    add = ["add", "af-1", "--region", "af", "--keys", rosters.member("af-1"), "--operator", "acme"]
    assert code_of(rosters.plan(*add)[2]) == "usage", "nobody knows who that is"
    made = rosters.made(*add, "--operator-key", str(other), "--jurisdiction", "ke")
    assert [one.who for one in assents(made.claims, rosters.lab.roster)][2:] == ["operator acme"]
    assert _safe(rosters, made, *rosters.roots[:2], other).operators["acme"].jurisdiction == "ke"


def test_who_has_several_operators_says_whose_the_member_is(rosters: RosterDesk) -> None:
    other = rosters.key_file("operator acme", use="operator")
    rosters.made(
        *("add", "af-1", "--region", "af", "--keys", rosters.member("af-1")),
        *("--operator", "acme", "--operator-key", str(other), "--jurisdiction", "ke"),
    )
    again = ["add", "oc-1", "--region", "oc", "--keys", rosters.member("oc-1"), "--from", "roster-2.json"]
    assert code_of(rosters.plan(*again)[2]) == "usage"
    assert rosters.made(*again, "--operator", "acme").claims.member("oc-1").operator == "acme"


def test_a_member_less_takes_its_operator_with_it_if_that_owns_no_other(rosters: RosterDesk) -> None:
    other = rosters.key_file("operator acme", use="operator")
    rosters.made(
        *("add", "af-1", "--region", "af", "--keys", rosters.member("af-1")),
        *("--operator", "acme", "--operator-key", str(other), "--jurisdiction", "ke"),
    )
    made = rosters.made("remove", "af-1", "--from", "roster-2.json")
    assert (made.claims.epoch, made.claims.k, set(made.claims.operators)) == (3, 3, {"lab"})
    assert rosters.plan("remove", "af-1")[0] == 5, "it is not in the context's"


def test_fewer_members_than_f_needs_are_refused_with_what_they_could_bear(rosters: RosterDesk) -> None:
    status, _, err = rosters.plan("remove", "sa-1")
    assert (status, code_of(err)) == (3, "roster_unsound")
    assert "3 members bear f=0 at most, f=1 takes 4" in err
    status, shown, err = rosters.plan("remove", "sa-1", "--f", "0")
    assert (status, shown["k"]) == (0, 3), "2 would be sound, and not safe"
    assert "mesh roster set --k 2` may lower it" in err


def test_four_members_cannot_exchange_one_in_one_step_and_are_told_the_way(rosters: RosterDesk) -> None:
    status, shown, err = rosters.plan("rotate", "sa-1", "--keys", rosters.member("new"))
    assert (status, code_of(err), shown) == (3, "roster_unsafe", None)
    assert "k + k' - |old or new| = 3 + 3 - 5 = 1, not more than max(f, f') = max(1, 1) = 1" in err
    way = (
        "1. mesh roster add SPARE --k 4 (3 + 4 - 5 = 2); 2. mesh roster rotate sa-1 --k 4 (4 + 4 - 6 = 2);"
        " 3. mesh roster remove SPARE --k 3 (4 + 3 - 5 = 2)"
    )
    assert way in err
    assert not list(rosters.folder.glob("roster-*.json"))


def test_the_way_that_is_told_can_be_gone(rosters: RosterDesk) -> None:
    """Each step is planned on the draft before it, and all of them may follow one another."""
    spare, new = rosters.member("spare"), rosters.member("new")
    first = rosters.made("add", "spare", "--region", "af", "--keys", spare)
    later = ["--begins", "+3h", "--from"]
    second = rosters.made("rotate", "sa-1", "--keys", new, "--begins", "+2h", "--from", "roster-2.json")
    third = rosters.made("remove", "spare", *later, "roster-3.json")
    now, now_id = rosters.lab.roster, rosters.lab.pin
    for drawn, before in ((first, ""), (second, "roster-2.json"), (third, "roster-3.json")):
        file, owner = f"roster-{drawn.claims.epoch}.json", () if drawn is third else (rosters.operator,)
        now, now_id = admit_successor(now, now_id, rosters.seal(file, *rosters.roots[:2], *owner, before=before)), drawn.id
    assert [member.name for member in now.members] == list(ALL)
    assert (now.member("sa-1").log_epoch, now.member("sa-1").log_key) == (2, rosters.public("new", "log"))


def test_new_keys_leave_the_others_and_only_a_new_log_key_begins_a_log(rosters: RosterDesk) -> None:
    rosters.made("add", "af-1", "--region", "af", "--keys", rosters.member("af-1"))
    rosters.member("new", "decision", "log")
    rotate = ["rotate", "af-1", "--from", "roster-2.json", "--out", "next.json"]
    made = rosters.made(*rotate, "--decision-key", rosters.public("new", "decision")).claims.member("af-1")
    assert (made.log_epoch, made.log_key, made.decision_key) == (1, rosters.public("af-1", "log"), rosters.public("new", "decision"))
    made = rosters.made(*rotate, "--log-key", rosters.public("new", "log"), "--region", "oc").claims.member("af-1")
    assert (made.log_epoch, made.region) == (2, "oc")
    assert code_of(rosters.plan(*rotate, "--keys", str(rosters.folder / "keys-af-1"))[2]) == "usage"


def test_another_operator_takes_four_new_keys(rosters: RosterDesk) -> None:
    rosters.made("add", "af-1", "--region", "af", "--keys", rosters.member("af-1"))
    other = rosters.key_file("operator acme", use="operator")
    rosters.member("new")
    sold = ["rotate", "af-1", "--operator", "acme", "--operator-key", str(other), "--jurisdiction", "ke", "--from", "roster-2.json"]
    assert code_of(rosters.plan(*sold, "--decision-key", rosters.public("new", "decision"), "--begins", "+3h")[2]) == "roster_unsafe"
    assert rosters.made(*sold, "--keys", str(rosters.folder / "keys-new"), "--begins", "+3h").claims.member("af-1").operator == "acme"


def test_a_revoked_key_is_enrolled_nowhere(rosters: RosterDesk) -> None:
    folder = rosters.member("af-1")
    revoked = rosters.public("af-1", "attest")
    assert rosters.revoke(f"key:{revoked}")[0] == 0
    status, _, err = rosters.plan("add", "af-1", "--region", "af", "--keys", folder)
    assert (status, code_of(err)) == (2, "revoked")
    assert revoked in err
    assert code_of(rosters.plan("set", "--add-key", f"policy/payments={revoked}")[2]) == "revoked"
    rosters.losing(Sync, ALL)
    status, _, err = rosters.plan("add", "af-1", "--region", "af", "--keys", folder)
    assert status == 0
    assert "revocations are those of the files, members were not heard" in err


def test_a_revoked_governor_is_replaced_under_another_name(rosters: RosterDesk) -> None:
    folder, again = rosters.member("new"), rosters.member("again")
    assert rosters.revoke("governor:sa-1", "--co-sign", str(rosters.second))[0] == 0
    rosters.made("add", "oc-1", "--region", "oc", "--keys", folder)
    later = ["--begins", "+3h", "--from", "roster-2.json"]
    status, _, err = rosters.plan("rotate", "sa-1", "--keys", again, *later)
    assert (status, code_of(err)) == (2, "revoked")
    assert "who replaces it takes another name" in err
    rosters.made("remove", "sa-1", *later)
    back = ["add", "sa-1", "--region", "sa", "--keys", again, "--begins", "+5h", "--from", "roster-3.json"]
    assert code_of(rosters.plan(*back)[2]) == "revoked"
    assert rosters.made("add", "sa-2", *back[2:]).claims.member("sa-2").region == "sa"


def test_a_revoked_issuer_never_issues_again(rosters: RosterDesk) -> None:
    issuer, other = rosters.lab.issuer.public, rosters.public_of("another issuer")
    assert rosters.revoke(f"issuer:{issuer}", "--co-sign", str(rosters.second))[0] == 0
    status, _, err = rosters.plan("set", "--add-key", f"issuers={other}")
    assert (status, f"key {issuer[:12]}… is revoked and stays in the roster" in err) == (0, True)
    rosters.made("set", "--add-key", f"issuers={other}", "--drop-key", f"issuers={issuer}")
    back = ["set", "--add-key", f"issuers={issuer}", "--from", "roster-2.json", "--begins", "+3h"]
    assert code_of(rosters.plan(*back)[2]) == "revoked"


def test_a_revocation_in_the_files_counts_without_any_mesh(rosters: RosterDesk) -> None:
    folder = rosters.member("af-1")
    rosters.losing(Sync, ALL)
    gone = {("key", rosters.public("af-1", "log")): ("00" * 32,)}
    rosters.library = msgspec.structs.replace(rosters.library, governance=msgspec.structs.replace(rosters.lab.governance, revocations=gone))
    assert code_of(rosters.plan("add", "af-1", "--region", "af", "--keys", folder)[2]) == "revoked"


def test_what_begins_too_soon_is_not_written(rosters: RosterDesk) -> None:
    """Δ is 3 s here, a heartbeat 0.5 s: 6 s, and 5 s to spread."""
    add = ["add", "af-1", "--region", "af", "--keys", rosters.member("af-1"), "--begins"]
    status, _, err = rosters.plan(*add, "+10s")
    assert (status, code_of(err)) == (3, "too_soon")
    assert not list(rosters.folder.glob("roster-*.json"))
    made = rosters.made(*add, "+12s")
    assert abs(made.claims.not_before_ms - wall_ms() - 12_000) < 1_000
    assert code_of(rosters.plan("remove", "af-1", "--from", "roster-2.json", "--begins", "+14s")[2]) == "too_soon", "epochs stay apart"
    for wrong in ("tomorrow", "2027-01-31T09:00:00", "9999999d"):
        assert code_of(rosters.plan(*add, wrong)[2]) == "usage"


def test_by_default_it_begins_in_an_hour_and_an_hour_after_the_one_before(rosters: RosterDesk) -> None:
    first = rosters.made("add", "af-1", "--region", "af", "--keys", rosters.member("af-1"))
    second = rosters.made("remove", "af-1", "--from", "roster-2.json")
    assert abs(first.claims.not_before_ms - wall_ms() - 3_600_000) < 5_000
    assert second.claims.not_before_ms == first.claims.not_before_ms + 3_600_000


def test_a_roster_that_somebody_signed_is_not_written_over(rosters: RosterDesk) -> None:
    add = ["add", "af-1", "--region", "af", "--keys", rosters.member("af-1")]
    rosters.made(*add)
    drawn = rosters.made(*add, "--begins", "+2h")
    rosters.seal("roster-2.json", rosters.roots[0])
    assert code_of(rosters.plan(*add)[2]) == "usage"
    rosters.folder.joinpath("notes.txt").write_text("mine")
    assert code_of(rosters.plan(*add, "--out", "notes.txt")[2]) == "usage"
    assert rosters.folder.joinpath("notes.txt").read_text() == "mine"
    assert rosters.made(*add, "--out", "other.json").id != drawn.id


def test_roles_operators_and_bounds_change_without_members(rosters: RosterDesk) -> None:
    key = rosters.key_file("policy new", use="policy")
    dropped = rosters.lab.signers[0].public
    owner = rosters.key_file("operator new", use="operator")
    made = rosters.made(
        "set",
        *("--add-key", f"policy/payments={key}", "--drop-key", f"policy/payments={dropped[:10]}", "--threshold", "policy/payments=3"),
        *("--add-key", f"policy/books={rosters.public_of('a')}", "--add-key", f"policy/books={rosters.public_of('b')}"),
        *("--operator-key", f"lab={owner}", "--jurisdiction", "lab=ch", "--bound", "heartbeat_ms=600"),
        *("--add-key", f"approvers/auditors={rosters.public_of('c')}", "--drop-group", "board"),
    ).claims
    assert {name: len(role.keys) for name, role in made.approvers.items()} == {"security": 3, "auditors": 1}
    payments, books = made.policy["payments"], made.policy["books"]
    assert (len(payments.keys), payments.threshold, dropped in payments.keys) == (3, 3, False)
    assert (len(books.keys), books.threshold) == (2, 2), "all who begin a domain sign for it"
    assert (made.operators["lab"].jurisdiction, made.bounds.heartbeat_ms) == ("ch", 600)
    assert (made.k, made.f, made.members) == (3, 1, rosters.lab.roster.members)
    gone = rosters.made("set", "--drop-domain", "books", "--from", "roster-2.json").claims
    assert list(gone.policy) == ["payments"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "usage"),
        (["--k", "3"], "usage"),
        (["--add-key", "kings=" + "ab" * 32], "usage"),
        (["--add-key", "root"], "usage"),
        (["--add-key", "policy=" + "ab" * 32], "usage"),
        (["--drop-group", "kings"], "usage"),
        (["--drop-key", "root=ffffffffffff"], "not_found"),
        (["--threshold", "root=4"], "roster_unsound"),
        (["--threshold", "root=many"], "usage"),
        (["--drop-domain", "books"], "domain_unknown"),
        (["--jurisdiction", "acme=de"], "usage"),
        (["--bound", "patience_ms=1"], "usage"),
        (["--bound", "stale_ms=100"], "roster_unsound"),
        (["--f", "2"], "roster_unsound"),
        (["--k", "4"], "roster_unsound"),
        (["--add-key", "root=" + "00" * 32], "bad_key"),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, list) else value,
)
def test_what_cannot_be_is_refused(rosters: RosterDesk, arguments: list[str], code: str) -> None:
    assert code_of(rosters.plan("set", *arguments)[2]) == code
    assert not list(rosters.folder.glob("roster-*.json"))


def test_nobody_is_a_member_twice_and_no_stranger_leaves(rosters: RosterDesk) -> None:
    assert code_of(rosters.plan("add", "eu-1", "--region", "eu", "--keys", rosters.member("x"))[2]) == "usage"
    assert code_of(rosters.plan("add", "No Name", "--region", "eu", "--keys", str(rosters.folder / "keys-x"))[2]) == "malformed"
    assert code_of(rosters.plan("rotate", "xx-1", "--keys", str(rosters.folder / "keys-x"))[2]) == "unknown_member"


def test_a_file_needs_no_context(rosters: RosterDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(_: object) -> client.Library:
        raise Refused("config_invalid", "no context")

    monkeypatch.setattr(client, "files", files)
    status, _, err = rosters.plan("add", "af-1", "--region", "af", "--keys", rosters.member("af-1"), "--from", str(rosters.roster))
    assert status == 0, err
    assert "nobody is asked which keys are revoked" in err
    assert code_of(rosters.plan("remove", "af-1")[2]) == "config_invalid"


def test_people_read_the_plan(rosters: RosterDesk) -> None:
    status, out, err = rosters.run("roster", "add", "af-1", "--region", "af", "--keys", rosters.member("af-1"))
    assert status == 0
    assert "must sign   root of epoch 1 (2 of 3), root of epoch 2 (2 of 3), operator lab (1 of 1)" in out
    assert "next: mesh roster sign roster-2.json --key KEYFILE, by each of them" in err
