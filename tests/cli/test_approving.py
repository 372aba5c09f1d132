"""People sign what they were shown in full; a file passes between them, and nobody adds a line to what is not valid."""

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters import signer
from mesh.adapters.clock import wall_ms
from mesh.cli import client
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.law.roster import Role
from mesh.core.messages import DeniedAnswer
from mesh.core.run.approval import Approval, BreakGlass, Effect, read_said
from mesh.core.run.authorization import Denial
from mesh.core.run.intent import Intent
from mesh.core.run.paper import fold, unfold
from mesh.limits import APPROVAL_LIFE_MS_MAX, GRANT_LIFE_MS_MAX
from tests.cli.lawmesh import code_of
from tests.cli.shell import Shell
from tests.support.factory import Lab, sign


class People:
    """Where people sit who approve: a key file each, and a mesh in which something was denied."""

    def __init__(self, shell: Shell, folder: Path) -> None:
        self.shell, self.folder = shell, folder
        self.lab: Lab = shell.story.lab
        self.denied = self._denied(100, memo=None)

    def _denied(self, number: int, *, memo: str | None) -> str:
        mesh = self.shell.story.mesh
        name, intent, openings = self.lab.intent(number, amount=500, account="vault", memo=memo, at_ms=mesh.now_ms)
        answer = mesh.request("eu-1", self.lab.request(intent, openings))
        assert isinstance(answer, DeniedAnswer)
        denial = envelope.read(Denial, bytes(answer.denial)).claims
        assert denial.code == "approval_needed"
        self.effect = Effect.of(envelope.read(Intent, intent).claims)
        assert self.effect.digest in denial.detail
        return name

    def key(self, name: str, use: str = "approver") -> str:
        """The file of the key of that name in the lab."""
        path = self.folder / f"{name.replace(' ', '-')}.key"
        if not path.exists():
            signer.generate(path, use, bytes.fromhex(sha256_hex(name.encode())))
        return str(path)

    def say(self, *arguments: str) -> tuple[int, Any, str]:
        """Exit status, the object that was printed, standard error."""
        status, out, err = self.shell.run("-o", "json", *arguments)
        return status, json.loads(out) if out else None, err

    def approve(self, target: str, name: str, *more: str) -> tuple[int, Any, str]:
        return self.say("approve", target, "--key", self.key(name), "--yes", *more)

    def grant(self, target: str, *names: str, more: tuple[str, ...] = ("--reason", "it burns")) -> tuple[int, Any, str]:
        first, *others = (self.key(name) for name in names)
        return self.say("grant", target, "--key", first, *[part for key in others for part in ("--co-sign", key)], "--yes", *more)

    def read(self, shown: Any) -> Any:
        return read_said(unfold((self.folder / shown["file"]).read_bytes()).statement.envelope)


@pytest.fixture
def people(own: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> People:
    lab = own.story.lab
    library = client.Library(governance=lab.governance, manifests=(), bundles=(), roster=lab.roster_envelope)
    monkeypatch.setattr(client, "files", lambda _: library)
    monkeypatch.chdir(tmp_path)
    return People(own, tmp_path)


def test_what_was_denied_is_shown_in_full_and_approved_by_one_after_the_other(people: People) -> None:
    status, shown, err = people.approve(people.denied, "security 0", "--reason", "called them", "--for", "2h", "--uses", "3")
    assert (status, shown["needed"], shown["group"], shown["uses"], shown["reason"]) == (0, 2, "security", 3, "called them"), err
    assert {name: shown[name] for name in ("domain", "subject", "action", "resource", "params")} == {
        "domain": "payments", "subject": "spiffe://lab/agent/anna", "action": "send", "resource": {"type": "Account", "id": "vault"},
        "params": {"amount": 500},
    }  # fmt: skip
    assert shown["effect"] == people.effect.digest
    assert f"next: mesh approve {shown['file']} --key KEYFILE" in err
    status, both, err = people.approve(shown["file"], "security 1")
    assert (status, len(both["signed_by"]), both["id"], both["params"]) == (0, 2, shown["id"], {"amount": 500}), err
    assert f"--approval {shown['file']}" in err
    said = people.read(both)
    assert both["needed"] == 2, "who signs next is told, too"
    assert isinstance(said.claims, Approval)
    assert said.sealed_by([key.public for key in people.lab.approvers])
    assert said.claims.expires_ms - said.claims.not_before_ms == 7_200_000


def test_the_second_signer_needs_no_mesh(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = people.approve(people.denied, "security 0")[1]
    monkeypatch.setattr(client, "open_client", None)
    assert people.approve(shown["file"], "security 2")[0] == 0


def test_two_keys_at_hand_sign_at_once_and_one_key_counts_once(people: People) -> None:
    _, shown, _ = people.approve(people.denied, "security 0", "--co-sign", people.key("security 1"), "-o", "both.json")
    assert (len(shown["signed_by"]), shown["file"]) == (2, "both.json")
    _, once, err = people.approve(people.denied, "security 0", "--co-sign", people.key("security 0"), "-o", "one.json")
    assert len(once["signed_by"]) == 1
    assert "1 of 2 signatures" in err
    assert len(people.approve("one.json", "security 0")[1]["signed_by"]) == 1, "again is not another"


def test_nobody_signs_unasked(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    status, shown, err = people.say("approve", people.denied, "--key", people.key("security 0"))
    assert (status, shown, code_of(err)) == (3, None, "usage")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    status, shown, err = people.say("approve", people.denied, "--key", people.key("security 0"))
    assert (status, shown) == (130, None)
    assert "'amount': 500" in err, "what would be signed was shown"
    assert not list(people.folder.glob("*.json"))
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert people.say("approve", people.denied, "--key", people.key("security 0"))[0] == 0


def test_a_dry_run_shows_and_signs_nothing(people: People) -> None:
    status, shown, err = people.approve(people.denied, "security 0", "--dry-run")
    assert (status, shown["params"], "signed_by" in shown) == (0, {"amount": 500}, False)
    assert "nothing was signed" in err
    assert not list(people.folder.glob("*.json"))


def test_a_request_can_be_approved_before_it_was_ever_denied(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from mesh.gate import connect, context

    holder = context.Holder(document="anna.json", key="anna.key")
    (people.folder / "anna.json").write_bytes(people.lab.identity_envelope)

    class _Context:
        def __init__(self) -> None:
            self.identities = {"anna": holder}

        def path(self, name: str) -> Path:
            return people.folder / name

    monkeypatch.setattr(context, "load_context", lambda _: _Context())
    assert connect.pick(_Context(), None) is holder  # type: ignore[arg-type]  # all that it uses
    asked = {"action": "payments/send", "resource": {"type": "Account", "id": "vault"}, "params": {"amount": 500}}
    (people.folder / "asked.json").write_text(json.dumps(asked))
    status, shown, err = people.approve("asked.json", "security 0")
    assert (status, shown["effect"]) == (0, people.effect.digest), err
    (people.folder / "asked.json").write_text(json.dumps(asked | {"committed": {"memo": "secret"}}))
    assert code_of(people.approve("asked.json", "security 0")[2]) == "usage", "no two intents would commit alike"
    (people.folder / "asked.json").write_text(json.dumps(asked | {"action": "send"}))
    assert code_of(people.approve("asked.json", "security 0")[2]) == "malformed"


def test_whose_committed_parameters_are_salted_anew_is_told(people: People) -> None:
    status, shown, err = people.approve(people._denied(101, memo="secret"), "security 0")
    assert (status, list(shown["committed"])) == (0, ["memo"])
    assert "salted anew" in err
    assert "secret" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("name", "use", "code"),
    [("revoker", "revoker", "config_invalid"), ("stranger", "approver", "bad_signature"), ("revoker", "approver", "bad_signature")],
)
def test_only_keys_of_a_group_of_approvers_approve(people: People, name: str, use: str, code: str) -> None:
    status, shown, err = people.say("approve", people.denied, "--key", people.key(name, use), "--yes")
    assert (shown, code_of(err)) == (None, code)
    assert status != 0


def test_one_file_is_signed_by_one_group(people: People) -> None:
    assert code_of(people.approve(people.denied, "security 0", "--co-sign", people.key("board 0"))[2]) == "usage"
    shown = people.approve(people.denied, "security 0")[1]
    assert code_of(people.approve(shown["file"], "board 0")[2]) == "bad_signature"


def test_nobody_adds_a_line_to_what_is_not_valid_or_not_what_it_shows(people: People) -> None:
    file = people.folder / people.approve(people.denied, "security 0", "-o", "a.json")[1]["file"]
    statement, effect, _ = unfold(file.read_bytes())
    assert effect is not None

    def refused(data: bytes) -> str:
        (people.folder / "bad.json").write_bytes(data)
        status, _, err = people.approve("bad.json", "security 1")
        assert status != 0
        assert (people.folder / "bad.json").read_bytes() == data
        return code_of(err)

    def signed(*keys: Any, **changes: Any) -> bytes:
        return fold(read_said(sign(msgspec.structs.replace(statement.claims, **changes), *keys)), effect)

    assert refused(signed(people.lab.holder)) == "bad_signature"
    assert refused(signed(people.lab.approvers[0], mesh="other")) == "wrong_mesh"
    assert refused(signed(people.lab.approvers[0], not_before_ms=1, expires_ms=wall_ms() - 1)) in {"approval_expired", "approval_too_long"}
    assert refused(signed(people.lab.approvers[0], not_before_ms=wall_ms() - 9_000, expires_ms=wall_ms() - 1)) == "approval_expired"
    shown = file.read_bytes().replace(b'"amount":500', b'"amount":5')
    assert shown != file.read_bytes()
    assert refused(shown) == "approval_mismatch"
    assert refused(b"{}") == "malformed"
    assert refused(fold(statement, effect, ["some of security"])) == "policy_invalid"


def test_what_stands_in_a_file_is_not_said_again(people: People) -> None:
    shown = people.approve(people.denied, "security 0")[1]
    for more in (("--reason", "x"), ("--for", "1h"), ("--uses", "2"), ("--as", "anna")):
        assert code_of(people.approve(shown["file"], "security 1", *more)[2]) == "usage"
    assert code_of(people.say("grant", shown["file"], "--key", people.key("security 1"), "--yes")[2]) == "usage", "it is an approval"


@pytest.mark.parametrize(("verb", "most"), [("approve", APPROVAL_LIFE_MS_MAX), ("grant", GRANT_LIFE_MS_MAX)])
def test_nothing_is_signed_for_longer_than_it_may_live(people: People, verb: str, most: int) -> None:
    key, reason = people.key("security 0"), ["--reason", "long"]
    assert people.say(verb, people.denied, "--key", key, "--yes", *reason, "--for", f"{most // 1000}s")[0] == 0
    status, _, err = people.say(verb, people.denied, "--key", key, "--yes", *reason, "--for", f"{most // 1000 + 1}s", "-o", "no.json")
    assert (status, code_of(err)) == (3, "approval_too_long")
    assert not (people.folder / "no.json").exists()


def test_an_unknown_intent_is_not_approved(people: People) -> None:
    assert code_of(people.approve("ab" * 32, "security 0")[2]) == "not_found"
    assert code_of(people.approve(people.denied, "security 0", "--as", "anna")[2]) == "usage"


def test_the_glass_is_broken_for_one_workload_and_the_actions_named(people: People) -> None:
    status, shown, err = people.grant(people.denied, "board 0", more=("--reason", "it burns", "--action", "refund"))
    assert (status, shown["needed"], shown["actions"], shown["subject"]) == (0, 2, ["refund", "send"], people.effect.subject), err
    assert f"next: mesh grant {shown['file']} --key KEYFILE" in err
    status, both, err = people.grant(shown["file"], "board 1", more=())
    assert (status, len(both["signed_by"])) == (0, 2), err
    said = people.read(both)
    assert isinstance(said.claims, BreakGlass)
    assert said.claims.expires_ms - said.claims.not_before_ms == 900_000
    assert code_of(people.approve(shown["file"], "board 2")[2]) == "usage", "it is a grant"


def test_nobody_breaks_the_glass_without_a_reason(people: People) -> None:
    assert code_of(people.grant(people.denied, "board 0", more=())[2]) == "usage"


def test_why_and_the_list_of_records_say_plainly_who_approved_and_that_the_glass_was_broken(people: People) -> None:
    mesh, lab = people.shell.story.mesh, people.lab
    names = list[str]()
    for number, board in ((102, False), (103, True)):
        name, intent, openings = lab.intent(number, amount=500, account="vault", at_ms=mesh.now_ms)
        mesh.request("us-1", lab.request(intent, openings, lab.grant() if board else lab.approval(intent)))
        names.append(name)
    approved, broken = (people.shell.json("why", name)["stages"] for name in names)
    (told,) = [stage["approvals"][0] for stage in approved if stage.get("approvals")]
    assert told.startswith("approved by security (")
    assert "seen and agreed" in told
    assert any(stage["what"].endswith("BREAK-GLASS") for stage in broken)
    assert any("BREAK-GLASS granted by board" in said for stage in broken for said in stage.get("approvals", []))
    rows = {row["intent"]: row["what"] for row in people.shell.json("lineage", "ls")}
    assert rows[names[0]] == "permit by vault"
    assert rows[names[1]] == "permit by emergency, BREAK-GLASS"
    assert rows[people.denied] == "deny by vault, approval needed: 2 of security"


def test_a_roster_shows_its_groups_of_approvers_and_what_changes_in_them(people: People) -> None:
    lab = people.lab
    (people.folder / "roster.json").write_bytes(lab.roster_envelope)
    roles = {role["role"]: role for role in people.shell.json("roster", "show", "roster.json")["roles"]}
    assert (roles["approvers/board"]["threshold"], roles["approvers/security"]["keys"]) == (2, [key.public for key in lab.approvers])
    fewer = {"security": Role(keys=[key.public for key in lab.approvers[:2]], threshold=2)}
    after = msgspec.structs.replace(lab.roster, epoch=2, previous=lab.pin, not_before_ms=10_000, approvers=fewer)
    (people.folder / "next.json").write_bytes(sign(after, *lab.root[:2]))
    (step,) = people.shell.json("roster", "check", "roster.json", "next.json")
    assert step["changes"] == [
        "role approvers/board goes",
        "role approvers/security: 1 of 3 to 2 of 2",
        f"role approvers/security: key {lab.approvers[2].public[:12]}… goes",
    ]


def test_approving_what_policy_asked_nobody_about_is_told(people: People) -> None:
    mesh, lab = people.shell.story.mesh, people.lab
    name, intent, openings = lab.intent(110, account="frozen", at_ms=mesh.now_ms)
    mesh.request("eu-1", lab.request(intent, openings))
    status, _, err = people.approve(name, "security 0")
    assert status == 0
    assert "policy asked nobody to approve it" in err
