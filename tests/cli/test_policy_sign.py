"""A manifest passes between signers as a file; no key signs two under one epoch, and nobody adds a line to what is not valid."""

import json
from pathlib import Path

import msgspec
import pytest

from mesh.cli import client
from mesh.core.bytes import envelope
from mesh.core.law.policy import Manifest, admit_manifest, bundle_digest
from mesh.core.messages import Sync
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL, PolicyDesk
from tests.support.factory import DOMAIN, secret, sign


def _read(path: Path) -> envelope.Statement[Manifest]:
    return envelope.read(Manifest, path.read_bytes())


def test_the_same_folder_is_built_to_the_same_bundle_and_its_digest_is_said(policy: PolicyDesk) -> None:
    status, shown, err = policy.say("build", str(policy.policy), "-o", "one.json")
    again = policy.say("build", str(policy.policy), "-o", "two.json")[1]
    data = (policy.folder / "one.json").read_bytes()
    assert (status, shown["digest"], again["digest"]) == (0, bundle_digest(data), shown["digest"]), err
    assert data == (policy.folder / "two.json").read_bytes()
    assert (shown["domain"], shown["bytes"]) == (DOMAIN, len(data))


@pytest.mark.parametrize("command", ["build", "sign"])
def test_a_folder_whose_cases_fail_is_neither_built_nor_signed(policy: PolicyDesk, command: str) -> None:
    cases = policy.policy / "tests" / "send.toml"
    cases.write_text(cases.read_text().replace('expect = "permit"', 'expect = "deny"'))
    more = ["-o", "bundle.json"] if command == "build" else policy.keys(0)
    status, shown, err = policy.say(command, str(policy.policy), *more)
    assert (status, shown, code_of(err)) == (2, None, "policy_tests_failed")
    assert not (policy.folder / "bundle.json").exists()
    cases.unlink()
    assert code_of(policy.say(command, str(policy.policy), *more)[2]) == "policy_tests_failed", "no cases show nothing"
    assert policy.kept(0) == []


def test_two_signers_on_two_machines_make_a_manifest_that_members_believe(policy: PolicyDesk) -> None:
    status, shown, err = policy.say("sign", str(policy.policy), *policy.keys(0), "--reason", "smaller amounts", "--valid", "30")
    assert (status, shown["complete"], shown["needed"]) == (0, False, 2), err
    assert (shown["epoch"], shown["previous"], shown["reason"]) == (2, policy.first.id, "smaller amounts")
    assert shown["signed_by"] == [policy.lab.signers[0].public]
    assert "1 of 2 signatures" in err
    passed = policy.folder / "machine-1" / "passed.json"
    passed.write_bytes((policy.folder / shown["file"]).read_bytes())
    status, second, err = policy.say("sign", str(passed), *policy.keys(1), "--trust", str(policy.roster))
    assert (status, second["complete"], second["id"]) == (0, True, shown["id"]), err
    assert (second["reason"], second["terms"].keys(), second["digest"]) == ("smaller amounts", {"send"}, shown["digest"])
    claims = admit_manifest(_read(passed), policy.lab.roster)
    assert claims.expires_ms - claims.issued_ms == 30 * 86_400_000
    assert policy.kept(0) == policy.kept(1) == [2]


def test_a_file_that_came_back_with_more_lines_is_not_written_over(policy: PolicyDesk) -> None:
    passed = policy.sign(0)
    policy.say("sign", str(passed), *policy.keys(1))
    assert policy.say("sign", str(policy.policy), *policy.keys(0))[1]["complete"]
    assert len(_read(passed).signatures) == 2
    status, _, err = policy.say("sign", str(passed), *policy.keys(2), "--reason", "another")
    assert (status, code_of(err), policy.kept(2)) == (3, "usage", [])


def test_the_second_signer_needs_no_mesh(policy: PolicyDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = policy.sign(0)
    monkeypatch.setattr(client, "open_client", None)
    assert policy.say("sign", str(passed), *policy.keys(1))[1]["complete"]


def test_who_says_the_epoch_needs_no_mesh_either(policy: PolicyDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "open_client", None)
    offline = ["--trust", str(policy.roster), "--epoch", "2", "--previous", policy.first.id, "--out", "m.json"]
    status, shown, err = policy.say("sign", str(policy.policy), *policy.keys(0), *offline)
    assert (status, shown["epoch"], shown["previous"]) == (0, 2, policy.first.id), err
    data = (policy.folder / "m.json").read_bytes()
    assert policy.say("sign", str(policy.policy), *policy.keys(0), *offline)[0] == 0
    assert (policy.folder / "m.json").read_bytes() == data, "asked again it is the same statement"
    policy.change()
    assert code_of(policy.say("sign", str(policy.policy), *policy.keys(0), *offline)[2]) == "already_signed"


@pytest.mark.parametrize("more", [["--previous", "ab" * 32], ["--epoch", "2"], ["--epoch", "1", "--previous", "ab" * 32]])
def test_an_epoch_goes_with_what_is_before_it(policy: PolicyDesk, more: list[str]) -> None:
    status, _, err = policy.say("sign", str(policy.policy), *policy.keys(0), *more)
    assert (status, code_of(err)) == (3, "usage")


def test_a_key_never_signs_two_manifests_under_one_epoch(policy: PolicyDesk) -> None:
    first = policy.sign(0).read_bytes()
    assert policy.sign(0).read_bytes() == first, "the same policy again is the same statement"
    policy.change()
    status, shown, err = policy.say("sign", str(policy.policy), *policy.keys(0), "--out", "other.json")
    assert (status, shown, code_of(err)) == (2, None, "already_signed")
    assert not (policy.folder / "other.json").exists()
    other = policy.say("sign", str(policy.policy), *policy.keys(2), "--out", "other.json")[1]
    assert other["epoch"] == 2, "another signer may draft another"
    status, _, err = policy.say("sign", "other.json", *policy.keys(0))
    assert (status, code_of(err)) == (2, "already_signed")
    assert len(_read(policy.folder / "other.json").signatures) == 1
    policy.say("sign", "other.json", *policy.keys(1))
    assert policy.say("push", "other.json", str(policy.build()))[0] == 0
    assert policy.say("sign", str(policy.policy), *policy.keys(0))[1]["epoch"] == 3, "a draft that lost stops nobody"


def test_a_line_is_added_only_to_what_the_role_signed(policy: PolicyDesk) -> None:
    passed = policy.sign(0)
    good = _read(passed)
    key = policy.lab.signers[0].public
    payload_type = envelope.draft(good.claims).payload_type
    passed.write_bytes(envelope.assemble(payload_type, good.payload, {key: bytes(64)}))
    assert code_of(policy.say("sign", str(passed), *policy.keys(1))[2]) == "bad_signature"
    passed.write_bytes(sign(good.claims, secret("stranger")))
    assert code_of(policy.say("sign", str(passed), *policy.keys(1))[2]) == "bad_signature"
    assert policy.kept(1) == []


def test_only_policy_signers_of_the_domain_sign(policy: PolicyDesk) -> None:
    assert code_of(policy.say("sign", str(policy.policy), "--key", str(policy.key))[2]) == "config_invalid"
    stranger = policy.key_file("stranger", use="policy")
    assert code_of(policy.say("sign", str(policy.policy), "--key", str(stranger))[2]) == "bad_signature"
    assert not list(policy.folder.glob("**/*.signed"))


def test_a_signer_refuses_what_is_not_the_policy_that_was_read(policy: PolicyDesk) -> None:
    passed, bundle = policy.sign(0), policy.build()
    policy.change()
    status, _, err = policy.say("sign", str(passed), *policy.keys(1), "--bundle", str(policy.policy))
    assert (status, code_of(err), policy.kept(1)) == (2, "digest_mismatch", [])
    assert policy.say("sign", str(passed), *policy.keys(1), "--bundle", str(bundle))[0] == 0


def test_a_bundle_says_no_terms_and_is_not_signed(policy: PolicyDesk) -> None:
    status, _, err = policy.say("sign", str(policy.build()), *policy.keys(0))
    assert (status, code_of(err)) == (3, "usage")
    assert "give its folder" in err


def test_a_manifest_of_another_mesh_or_domain_is_not_signed(policy: PolicyDesk) -> None:
    for changed, code in (({"mesh": "other"}, "wrong_mesh"), ({"domain": "elsewhere"}, "domain_unknown")):
        path = policy.folder / "other.json"
        path.write_bytes(sign(msgspec.structs.replace(policy.first.claims, **changed), policy.lab.signers[0]))
        assert code_of(policy.say("sign", str(path), *policy.keys(1))[2]) == code


def test_fewer_than_k_members_say_no_epoch_and_nothing_is_signed(policy: PolicyDesk) -> None:
    policy.losing(Sync, ALL[:2])
    status, _, err = policy.say("sign", str(policy.policy), *policy.keys(0))
    assert (status, code_of(err), policy.kept(0)) == (4, "unreachable", [])


def test_a_rollback_is_a_new_epoch_with_older_content(policy: PolicyDesk) -> None:
    policy.pushed()
    status, shown, err = policy.say("rollback", DOMAIN, "--to", "1", *policy.keys(0, 1))
    assert (status, shown["epoch"], shown["digest"]) == (0, 3, policy.first.claims.digest), err
    made = _read(policy.folder / shown["file"]).claims
    assert (made.actions, made.enforcers, made.reason) == (policy.first.claims.actions, policy.first.claims.enforcers, "as epoch 1")
    assert "is a new epoch, with what epoch 1 says" in err
    status, pushed, err = policy.say("push", shown["file"])
    assert (status, pushed["held"]) == (0, 4), err
    assert code_of(policy.say("rollback", DOMAIN, "--to", "9", *policy.keys(0, 1))[2]) == "not_found"


def test_what_a_file_says_can_be_looked_at_before_it_is_signed(policy: PolicyDesk) -> None:
    passed = policy.sign(0)
    status, shown, err = policy.say("show", str(passed))
    assert (status, shown["epoch"], shown["complete"]) == (0, 2, False)
    assert "still to sign: 1 of" in err
    assert json.dumps(shown["terms"])
