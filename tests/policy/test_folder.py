"""A policy folder is read whole, and everything that is wrong with it is said at once."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.adapters import cedar_child
from mesh.core.bytes import canonical
from mesh.core.bytes.sealkeys import SealKey
from mesh.core.law.policy import Bundle, read_bundle
from mesh.errors import Refused, Unavailable
from mesh.limits import AUDITORS_MAX, BUNDLE_BYTES_MAX
from mesh.policy.build import build, check
from mesh.policy.cases import require_cases, run_cases
from mesh.policy.folder import PolicyRefused, load_folder
from mesh.policy.init import write_starter
from tests.policy.kit import ready


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_starter(tmp_path / "policy", mesh="dev")
    return tmp_path / "policy"


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def findings(act: Callable[[Path], object], folder: Path) -> list[str]:
    with pytest.raises(PolicyRefused) as refused:
        act(folder)
    assert refused.value.code == refused.value.findings[0].code
    return [f"{one.where}: {one.what}" for one in refused.value.findings]


def test_the_starter_passes_its_own_checks_and_cases(folder: Path) -> None:
    built = check(folder)
    with ready(built.bundle) as engine:
        outcomes = run_cases(built.bundle, built.actions, engine, clock_ns=lambda: 0)
        require_cases(built.bundle, built.actions, engine)
    assert [one.ok for one in outcomes] == [True] * 4
    assert built.enforcers == ["spiffe://dev/enforcer/gate"]


def test_the_starter_is_of_the_mesh_it_was_made_for_and_replaces_nothing(tmp_path: Path) -> None:
    write_starter(tmp_path / "other", mesh="acme")
    assert check(tmp_path / "other").enforcers == ["spiffe://acme/enforcer/gate"]
    for taken in (tmp_path / "other", tmp_path / "other" / "domain.toml"):
        with pytest.raises(Refused) as no:
            write_starter(taken, mesh="dev")
        assert no.value.code == "usage"
    with pytest.raises(Refused) as no:
        write_starter(tmp_path / "other" / "domain.toml" / "below", mesh="dev")
    assert no.value.code == "usage"


@pytest.mark.parametrize("name", ["payments", "ops", "customers"])
def test_the_policies_of_the_dev_mesh_pass_their_checks_and_cases(name: str) -> None:
    import mesh

    built = check(Path(next(iter(mesh.__path__))) / "dev" / "policies" / name)
    assert built.bundle.domain == name
    with ready(built.bundle) as engine:
        require_cases(built.bundle, built.actions, engine)
    effects = {case.effect for case in built.bundle.cases}
    assert effects == {"permit", "deny"}
    named = {policy for case in built.bundle.cases for policy in case.determining}
    assert named == {policy.id for policy in built.bundle.policies}  # every policy decides a case


def test_the_same_folder_makes_the_same_bytes_whatever_the_order_of_its_files(folder: Path, tmp_path: Path) -> None:
    first = build(load_folder(folder))
    parts = (folder / "send.cedar").read_text().split("@id(")[1:]
    for number, part in enumerate(reversed(parts)):
        (folder / f"{number}.cedar").write_text(f"@id({part}")
    (folder / "send.cedar").unlink()
    entities = json.loads((folder / "entities.json").read_text())
    (folder / "entities.json").write_text(json.dumps(entities[::-1]))
    again = build(load_folder(folder))
    assert again.data == first.data
    assert read_bundle(again.data, digest=first.digest) == first.bundle
    assert canonical.decode(Bundle, again.data, bytes_max=BUNDLE_BYTES_MAX) == first.bundle


def test_terms_are_the_strongest_of_domain_action_and_every_permit(folder: Path) -> None:
    assert build(load_folder(folder)).actions["send"].assurance == "local"
    edit(folder / "domain.toml", ('resource = "Account"', 'resource = "Account"\nassurance = "quorum"'))
    assert build(load_folder(folder)).actions["send"].assurance == "quorum"
    edit(folder / "send.cedar", ('@description("Payers', '@assurance("final")\n@description("Payers'))
    terms = build(load_folder(folder)).actions["send"]
    assert (terms.assurance, terms.authorization_ms, terms.lease_ms) == ("final", 30_000, 10_000)


def test_everything_wrong_with_all_files_is_said_at_once_with_suggestions(folder: Path) -> None:
    edit(folder / "domain.toml", ('floor = "local"', 'flor = "local"'), ('"int" # bool', '"integer" # bool'))
    edit(folder / "schema.cedarschema", ("entity AccountList;", "entity AccountList; type X = Long;"))
    edit(folder / "entities.json", ('"parents"', '"parent"'))
    edit(
        folder / "tests" / "send.toml",
        ('expect = "permit"', 'effect = "permit"'),
        ("Account::", "Account:"),
        ('purpose = "', 'purpose = 7 # "'),
    )
    found = findings(load_folder, folder)
    assert "domain.toml: unknown key flor (did you mean floor?)" in found
    assert any(one.startswith("domain.toml: principal") for one in found)
    assert any(one.startswith("schema.cedarschema: only entity types") for one in found)
    assert "entities.json: entity 3: unknown key parent; did you mean 'parents'?" in found
    assert any("case 'a payer pays an approved supplier': unknown key effect" in one for one in found)
    assert any("case 'an agent that was talked into it pays nobody unknown': Expected `str`, got `int`" in one for one in found)
    assert any("case 'a personal limit': resource is written Type::\"id\"" in one for one in found)


def test_types_and_resources_must_be_in_the_schema(folder: Path) -> None:
    edit(folder / "domain.toml", ("[entities.Account]", "[entities.Acount]"), ('resource = "Account"', 'resource = "Accounts"'))
    assert findings(load_folder, folder) == [
        "domain.toml: entities.Acount: schema.cedarschema has no such type; did you mean 'Account'?",
        "domain.toml: actions.send.resource: schema.cedarschema has no type 'Accounts'; did you mean 'Account'?",
    ]


def test_files_that_are_missing_or_not_text_are_findings(folder: Path, tmp_path: Path) -> None:
    assert findings(load_folder, tmp_path / "nowhere") == [f"{tmp_path / 'nowhere'}: no such folder"]
    (folder / "domain.toml").unlink()
    (folder / "entities.json").write_text("[")
    (folder / "schema.cedarschema").write_bytes(b"\xff")
    (folder / "send.cedar").unlink()
    (folder / "tests" / "send.toml").write_text("[[case")
    found = findings(load_folder, folder)
    assert [one.partition(":")[0] for one in found] == [
        "domain.toml",
        "schema.cedarschema",
        str(folder),
        "entities.json",
        "tests/send.toml",
    ]


def test_a_file_larger_than_a_bundle_is_not_read(folder: Path) -> None:
    with (folder / "send.cedar").open("wb") as file:
        os.truncate(file.fileno(), BUNDLE_BYTES_MAX + 1)
    with pytest.raises(PolicyRefused) as refused:
        load_folder(folder)
    assert refused.value.code == "too_large"


def test_a_bundle_that_grows_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.policy.build.BUNDLE_BYTES_MAX", 1_000)
    with pytest.raises(PolicyRefused) as refused:
        build(load_folder(folder))
    assert refused.value.code == "too_large"


def test_names_that_no_bundle_may_hold_are_findings(folder: Path) -> None:
    edit(folder / "entities.json", ('"id": "payers"', f'"id": "{"x" * 2000}"'))
    assert any("entities.json: entity 1" in one for one in findings(load_folder, folder))


def test_policy_text_that_does_not_parse_names_its_file(folder: Path) -> None:
    (folder / "a.cedar").write_text("permit (principal, action, resource)")
    (folder / "b.cedar").write_text("permit (principal, action, resource);")
    (folder / "c.cedar").write_text("(" * 100)
    found = findings(check, folder)
    assert [one.partition(":")[0] for one in found] == ["c.cedar", "a.cedar", "b.cedar"]
    assert found[2] == "b.cedar: policy number 1 has no @id"


def test_checks_of_the_bundle_name_the_policy(folder: Path) -> None:
    edit(
        folder / "send.cedar",
        ('AccountList::"approved"', 'AccountList::"aproved"'),
        ("params.amount_cents > 10000", "params.amount_cents + 1 > 10000"),
    )
    assert {one.partition(":")[0] for one in findings(check, folder)} == {"payments/unapproved-limit"}


def test_without_a_child_there_is_no_verdict_on_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar_child, "_START", "raise SystemError")
    with pytest.raises(Unavailable):
        check(folder)


# -------------------------------------------------------------------------------------------------------------------- cases


def outcomes(folder: Path) -> dict[str, str]:
    built = check(folder)
    with ready(built.bundle) as engine:
        return {one.name: one.said for one in run_cases(built.bundle, built.actions, engine, clock_ns=lambda: 0) if not one.ok}


def test_a_permit_by_another_policy_than_the_case_names_fails(folder: Path) -> None:
    edit(folder / "tests" / "send.toml", ('by = ["payments/send-by-payers"]', 'by = ["payments/personal-limit"]'))
    said = outcomes(folder)["a payer pays an approved supplier"]
    assert said == "permit by payments/send-by-payers; expected permit by payments/personal-limit"


def test_a_policy_that_errors_fails_its_case_whatever_the_effect(folder: Path) -> None:
    (folder / "sum.cedar").write_text(
        '@id("payments/sum") permit (principal, action, resource) when { context.asserted.params.amount_cents + 9223372036854775807 > 0 };'
    )
    assert "deny by no policy with errors (payments/sum: overflow)" in outcomes(folder)["nobody else pays anything"]


def test_a_case_that_never_reaches_the_engine_fails_with_the_code(folder: Path) -> None:
    edit(folder / "tests" / "send.toml", ('groups = ["payers"]', 'groups = ["payer"]'), ("amount_cents = 1 }", "amount = 1 }"))
    found = outcomes(folder)
    assert found["a personal limit"].startswith("entity_missing: ")
    assert found["nobody else pays anything"].startswith("params_mismatch: ")
    edit(folder / "tests" / "send.toml", ('action = "send"', 'action = "sned"'))
    assert outcomes(folder)["a personal limit"].startswith("action_unknown: ")


def test_an_engine_without_an_answer_fails_every_case(folder: Path) -> None:
    built = check(folder)
    with ready() as engine:
        found = run_cases(built.bundle, built.actions, engine, clock_ns=lambda: 0)
        with pytest.raises(Refused) as no:
            require_cases(built.bundle, built.actions, engine)
    assert all(not one.ok and one.said.startswith("engine_unavailable") for one in found)
    assert no.value.code == "policy_tests_failed"


def test_the_time_a_case_took_is_told_in_microseconds(folder: Path) -> None:
    built = check(folder)
    ticks = iter(range(0, 10**9, 2_500))
    with ready(built.bundle) as engine:
        assert {one.us for one in run_cases(built.bundle, built.actions, engine, clock_ns=lambda: next(ticks))} == {2.5}


GLASS = """
@id("payments/large")
@approval("2 of security")
permit (principal, action == Action::"payments/send", resource)
when { context.asserted.params.amount_cents > 1000000 && !context.attested.breakglass };

@id("payments/emergency")
permit (principal, action == Action::"payments/send", resource)
when { context.asserted.params.amount_cents > 1000000 && context.attested.breakglass && context.attested.approvals.contains("board") };
"""
CASE = """
[[case]]
name = "{name}"
action = "send"
principal = "spiffe://dev/agent/billing"
resource = 'Account::"acct:acme-supplies"'
params = {{ to = "acct:acme-supplies", amount_cents = 2000000 }}
{facts}
expect = "{expect}"
by = [{by}]
"""


@pytest.mark.parametrize(
    ("facts", "expect", "by", "ok"),
    [
        ("approvals = { security = 2 }", "permit", '"payments/large"', True),
        ("approvals = { security = 1 }", "permit", '"payments/large"', False),
        ("approvals = { security = 1 }", "deny", '"payments/large"', True),
        ("", "deny", '"payments/large"', True),
        ("breakglass = true", "deny", "", True),
        ("breakglass = true\napprovals = { board = 1 }", "permit", '"payments/emergency"', True),
    ],
)
def test_a_case_says_who_approved_and_whether_the_glass_is_broken(folder: Path, facts: str, expect: str, by: str, ok: bool) -> None:
    (folder / "large.cedar").write_text(GLASS)
    (folder / "tests" / "large.toml").write_text(CASE.format(name="large", facts=facts, expect=expect, by=by))
    (folder / "send.cedar").unlink()
    (folder / "tests" / "send.toml").unlink()
    built = build(load_folder(folder))
    with ready(built.bundle) as engine:
        outcomes = {one.name: one for one in run_cases(built.bundle, built.actions, engine, clock_ns=lambda: 0)}
    assert outcomes["large"].ok is ok, outcomes["large"].said
    assert ("for want of 2 of security" in outcomes["large"].said) is (by == '"payments/large"' and "security = 2" not in facts)


def test_a_demand_that_nobody_can_read_is_said_at_the_check(folder: Path) -> None:
    (folder / "large.cedar").write_text(GLASS.replace("2 of security", "both of security"))
    assert any("written like '2 of security, 1 of finance'" in one for one in findings(check, folder))


# ---------------------------------------------------------------------------------------------------------- sealed parameters

SEALED = Path(__file__).parents[2] / "docs" / "examples" / "sealed"


def test_the_example_with_a_sealed_parameter_passes_its_checks_and_cases() -> None:
    built = check(SEALED)
    with ready(built.bundle) as engine:
        require_cases(built.bundle, built.actions, engine)
    (action,) = built.bundle.actions
    assert {param.name: (param.privacy, param.auditors) for param in action.params} == {
        "amount_cents": ("public", []),
        "iban": ("sealed", ["finance", "tax"]),
        "note": ("committed", []),
    }
    assert [auditor.name for auditor in built.bundle.auditors] == ["finance", "tax"]


def test_a_policy_that_reads_what_is_sealed_is_refused_before_anybody_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(SEALED, folder)
    edit(folder / "pay.cedar", ("amount_cents <= 1000000", 'iban like "DE*"'))
    with pytest.raises(PolicyRefused) as no:
        check(folder)
    assert no.value.code == "policy_reads_sealed"


def test_a_case_without_a_required_sealed_parameter_fails(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(SEALED, folder)
    edit(folder / "tests" / "pay.toml", (', iban = "DE02120300000000202051"', ""))
    built = check(folder)
    with ready(built.bundle) as engine:
        said = [one.said for one in run_cases(built.bundle, built.actions, engine, clock_ns=lambda: 0)]
    assert said == ["params_mismatch: iban is missing"] * 2


def test_auditors_of_a_policy_are_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(SEALED, folder)

    def auditors(count: int) -> str:
        return "".join(f'a{at} = "{SealKey(at.to_bytes(32)).public}"\n' for at in range(1, count + 1))

    edit(folder / "domain.toml", ("[entities.Employee]", auditors(AUDITORS_MAX - 2) + "\n[entities.Employee]"))
    assert len(check(folder).bundle.auditors) == AUDITORS_MAX
    edit(folder / "domain.toml", ("[entities.Employee]", f'more = "{SealKey(bytes(32)).public}"\n\n[entities.Employee]'))
    with pytest.raises(PolicyRefused) as no:
        check(folder)
    assert no.value.code == "malformed"
