"""What Cedar's validator lets through, and must not reach a decision."""

from typing import Any

import msgspec
import pytest

from mesh.adapters.cedar import PROFILE
from mesh.adapters.cedar_lint import lint, near
from mesh.core.law.policy import ActionSpec, Attribute, Auditor, Bundle, Case, EntityType, ParamSpec
from mesh.core.run.intent import EntityRef
from tests.policy.kit import BILLING, PERMIT, bundle, entity, policies, rule
from tests.support.factory import AUDITORS


def found(made: Bundle) -> list[str]:
    return [f"{one.where}: {one.what}" for one in lint(made, profile=PROFILE)]


def test_a_sound_bundle_has_no_findings() -> None:
    assert found(bundle()) == []


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("context.asserted.params.cents + 1 > 3", "may not compute (+)"),
        ("context.asserted.params.cents - 1 > 3", "may not compute (-)"),
        ("context.asserted.params.cents * 2 > 3", "may not compute (*)"),
        ("-context.asserted.params.cents > 3", "may not compute (neg)"),
        ("[true, (context.asserted.params.cents + 1 > 3)].contains(true)", "may not compute (+)"),
        ("if context.asserted.params.cents + 1 > 3 then true else true", "may not compute (+)"),
        ("{a: context.asserted.params.cents + 1} == {a: 2}", "may not compute (+)"),
        ('datetime("2026-01-01").offset(duration("1d")) < datetime("2026-01-02")', "may not compute (offset)"),
    ],
)
def test_a_forbid_does_no_arithmetic_and_a_permit_may(condition: str, says: str) -> None:
    assert says in found(bundle(rule("r", "forbid", condition)))[0]
    assert found(bundle(rule("r", "permit", condition))) == []


def test_numbers_below_zero_are_not_arithmetic() -> None:
    assert found(bundle(rule("r", "forbid", "context.asserted.params.cents == -5"))) == []


@pytest.mark.parametrize(
    "condition",
    [
        'Account::"acct:acme".country == "NL"',
        'Account::"acct:acme" has country',
        'Group::"payers" in Group::"staff"',
        '(if true then Account::"acct:acme" else resource).country == "NL"',
        '{"x": principal}.x == principal',
        'Account::"acct:acme" is Account in List::"approved"',
        'Group::"payers".hasTag("x")',
    ],
)
def test_nothing_is_asked_of_an_entity_that_the_engine_is_not_shown(condition: str) -> None:
    assert any("is asked of something else" in one for one in found(bundle(rule("r", "permit", condition))))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (rule("r", "permit", 'principal in Group::"payres"'), "Group::\"payres\" does not exist; did you mean 'payers'?"),
        ('@id("r") permit (principal in Group::"payres", action, resource);', "did you mean 'payers'?"),
        ('@id("r") permit (principal is Workload in Group::"payres", action, resource);', "did you mean 'payers'?"),
        ('@id("r") permit (principal, action == Action::"pay/sned", resource);', "did you mean 'pay/send'?"),
        ('@id("r") permit (principal, action in [Action::"pay/send", Action::"pay/adit"], resource);', "did you mean 'pay/audit'?"),
        ('@id("r") permit (principal, action, resource == Vault::"mian");', "did you mean 'main'?"),
        ('@id("r") permit (principal, action, resource == Account::"act:x");', 'Account::"act:x" does not exist'),
        ('@id("r") permit (principal == Workload::"billing", action, resource);', "a workload's id is a SPIFFE id"),
        (rule("r", "permit", '[Group::"payers", Group::"x"].contains(resource)'), 'Group::"x" does not exist'),
    ],
)
def test_what_a_policy_names_must_exist(text: str, says: str) -> None:
    (finding,) = found(bundle(text))
    assert says in finding


def test_workloads_and_ids_of_open_types_exist_without_being_listed() -> None:
    text = f'@id("r") permit (principal == Workload::"{BILLING}", action, resource == Account::"acct:any");'
    assert found(bundle(text)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PERMIT + PERMIT, "policy id 'may' stands there 2 times"),
        ('@id("Big") permit (principal, action, resource);', "an id is lowercase"),
        (rule("r", "permit", "true", assurence="quorum"), "no annotation is called @assurence; did you mean 'assurance'?"),
        (rule("r", "permit", "true", assurance="qorum"), "did you mean 'quorum'?"),
        (rule("r", "permit", "true", obligation="Tell Them"), "obligations are lowercase words"),
        (rule("r", "permit", "true", obligation="a,"), "obligations are lowercase words"),
        (rule("r", "forbid", "true", assurance="quorum"), "@assurance on a forbid has no meaning"),
        (rule("r", "permit", "true", approval="two of security"), "written like '2 of security"),
        (rule("r", "permit", "true", approval="1 of a, 2 of a"), "names a group twice"),
        (rule("r", "forbid", "true", approval="2 of security"), "@approval on a forbid has no meaning"),
        (rule("r", "forbid", "true", obligation="tell"), "@obligation on a forbid has no meaning"),
    ],
)
def test_ids_and_annotations_are_known_words(text: str, says: str) -> None:
    (finding,) = found(bundle(text))
    assert says in finding


def test_annotations_that_are_known_pass() -> None:
    assert found(bundle(rule("a/b-1.c_d", "permit", "true", assurance="final", obligation="tell, seal", description="Why not"))) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("{", "{ ", 1), "not in the one allowed JSON spelling"),
        (('"effect":"permit"', '"effect":"permit","effect":"permit"', 1), "not in the one allowed JSON spelling"),
        (('"effect":"permit"', '"effect":"forbid"', 1), "says 'forbid' inside and 'permit' beside"),
        (('{"action"', '{"annotations"', 1), "annotations stand beside"),
        (('{"action"', "{,", 1), "not JSON"),
    ],
)
def test_a_policy_has_one_spelling_and_says_nothing_twice(change: tuple[str, str, int], says: str) -> None:
    (policy,) = policies(PERMIT)
    altered = msgspec.structs.replace(policy, json=policy.json.replace(*change))
    assert altered != policy
    assert says in found(bundle(policies=[altered]))[0]


def test_json_of_any_other_shape_is_a_finding_or_left_to_the_engine_but_never_a_crash() -> None:
    (policy,) = policies(PERMIT)
    for text in ("[]", "1", '"x"', "null", "{}", '{"conditions":1,"effect":"permit"}', '{"conditions":[1,{"body":1}],"effect":"permit"}'):
        lint(bundle(policies=[msgspec.structs.replace(policy, json=text)]), profile=PROFILE)


def param(name: str) -> ParamSpec:
    return ParamSpec(name=name, type="int", privacy="public", required=True, auditors=[])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"profile": "cedar-4/0"}, "made for engine profile 'cedar-4/0'"),
        ({"principal": [Attribute(name="a", type="int")] * 2}, "principal attribute 'a' stands there 2 times"),
        ({"principal": [Attribute(name="__extn", type="int")]}, "names may not begin with '__'"),
        ({"schema": "entity Account, List, Vault, Workload;"}, "'Workload' of the schema is neither"),
        ({"schema": "entity Account, List;"}, "entity type 'Vault' is not in the schema"),
        ({"schema": "entity Account, List, Vault;\naction x;"}, "only entity types are declared here"),
        ({"types": [*bundle().types, bundle().types[0]]}, "entity type 'Account' stands there 2 times"),
        ({"entities": [*bundle().entities, entity("Group", "staff")]}, "entity 'Group::\"staff\"' stands there 2 times"),
        ({"entities": [*bundle().entities, entity("Workload", BILLING)]}, "identity documents only"),
        ({"entities": [*bundle().entities, entity("Vualt", "x")]}, "no such entity type; did you mean 'Vault'?"),
        ({"entities": [*bundle().entities, entity("List", "x", __entity="x")]}, "names may not begin with '__'"),
        ({"entities": [*bundle().entities, entity("List", "x", EntityRef(type="List", id="aproved"))]}, "did you mean"),
        ({"actions": [*bundle().actions, bundle().actions[0]]}, "action 'send' stands there 2 times"),
        ({"actions": [*bundle().actions, ActionSpec(name="x", resource="Vualt", params=[])]}, "did you mean 'Vault'?"),
        ({"actions": [*bundle().actions, ActionSpec(name="x", resource="Group", params=[])]}, "'Group' is not declared"),
        ({"actions": [*bundle().actions, ActionSpec(name="x", resource="Vault", params=[param("a"), param("a")])]}, "2 times"),
        ({"actions": [*bundle().actions, ActionSpec(name="x", resource="Vault", params=[param("__expr")])]}, "begin with '__'"),
    ],
)
def test_the_parts_of_a_bundle_fit_together(change: dict[str, Any], says: str) -> None:
    assert any(says in one for one in found(bundle(**change))), found(bundle(**change))


def test_a_type_that_the_mesh_declares_itself_cannot_be_declared() -> None:
    one = bundle()
    made = bundle(schema=one.schema + "entity Group;", types=[*one.types, EntityType(name="Group", closed=True, prefix="")])
    assert any("declared by the mesh itself" in finding for finding in found(made))


def test_two_cases_of_one_name_are_a_finding() -> None:
    case = Case(
        name="twice",
        action="send",
        principal=EntityRef(type="Workload", id=BILLING),
        groups=[],
        attributes={},
        resource=EntityRef(type="Vault", id="main"),
        params={},
        purpose="",
        enforcer_class="",
        person="",
        approvals={},
        breakglass=False,
        delegation_depth=0,
        root=BILLING,
        now_s=0,
        effect="deny",
        determining=[],
    )
    assert found(bundle(cases=[case, case])) == ["cases: case 'twice' stands there 2 times"]


def test_a_word_that_resembles_nothing_gets_no_suggestion() -> None:
    assert near("zzz", ["send"]) == ""


# ---------------------------------------------------------------------------------------------------------- sealed parameters


def _sealing(text: str = PERMIT, *, auditors: list[Auditor] | None = None, who: list[str] | None = None, privacy: str = "sealed") -> Bundle:
    """The domain with an ``iban`` that ``send`` seals."""
    made = bundle(text, auditors=auditors if auditors is not None else [Auditor(name="tax", key=AUDITORS["tax"].public)])
    send, audit = made.actions
    hidden = ParamSpec(name="iban", type="string", privacy=privacy, required=False, auditors=["tax"] if who is None else who)
    return msgspec.structs.replace(made, actions=[msgspec.structs.replace(send, params=[*send.params, hidden]), audit])


@pytest.mark.parametrize(
    "condition",
    [
        'context.asserted.params.iban == "x"',
        "context.asserted.params has iban",
        'context.asserted.params has iban && context.asserted.params.iban like "DE*"',
        'context["asserted"]["params"]["iban"] == "x"',
        "context.asserted.params == context.asserted.params",
        "context.asserted == context.asserted",
        "context == context",
    ],
)
def test_no_policy_reads_what_is_sealed(condition: str) -> None:
    for effect in ("permit", "forbid"):
        findings = lint(_sealing(rule("r", effect, condition)), profile=PROFILE)
        assert {finding.code for finding in findings} == {"policy_reads_sealed"}
        assert findings[0].what == "reads 'iban', which send seals for auditors: no governor sees it"


def test_a_policy_of_another_action_may_use_the_same_name() -> None:
    """What that action calls so is not sealed there; what is not declared there at all is the validator's."""
    text = '@id("r") permit (principal, action == Action::"pay/audit", resource) when { context.asserted.params has iban };'
    assert lint(_sealing(text), profile=PROFILE) == []
    assert lint(_sealing(rule("r", "permit", "context.asserted.params.cents < 3")), profile=PROFILE) == []


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (_sealing(who=[]), "send: iban is sealed for nobody"),
        (_sealing(privacy="committed"), "send: iban is committed and names auditors"),
        (_sealing(who=["tax", "tax"]), "send: iban names auditors twice, or not in their order"),
        (_sealing(who=["tex"]), "send: iban is sealed for 'tex', who is no auditor here; did you mean 'tax'?"),
        (_sealing(auditors=[Auditor(name="tax", key="01" + "00" * 31)]), "auditor 'tax': 0100000000000000… is no X25519 key"),
        (_sealing(auditors=[Auditor(name=name, key=AUDITORS["tax"].public) for name in ("tax", "tex")]), "auditor's key"),
        (_sealing(auditors=[Auditor(name="tax", key=key.public) for key in AUDITORS.values()]), "auditor 'tax' stands there 2 times"),
    ],
    ids=["nobody", "not sealed", "twice", "unknown", "small order", "one key", "one name"],
)
def test_sealed_parameters_name_auditors_with_sound_keys(made: Bundle, says: str) -> None:
    assert any(says in what for what in found(made)), found(made)
    assert found(_sealing()) == []
