"""From an intent to the engine's question, and from its verdict to the decision."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.cedar import PROFILE
from mesh.core.bytes import canonical
from mesh.core.law.policy import Manifest, PolicyJson, Terms
from mesh.core.law.scope import applies, approval_floors, check_terms, floors
from mesh.core.run.decision import Attested, Verdict, input_digest
from mesh.core.run.identity import Identity
from mesh.core.run.intent import ASSURANCES, Assurance, EntityRef, Intent, strongest
from mesh.errors import Refused, Unavailable
from mesh.limits import DETERMINING_MAX, POLICY_NAME_CHARS_MAX
from tests.core.kit import refuses
from tests.policy.kit import FORBID, PERMIT, attested, bundle, conclude, entity, identity, intent, law, opening, policies, prepare, rule

ALLOW = Verdict(allow=True, determining=("may",), errors=())
LAW = law(bundle())


def test_the_question_holds_the_slice_and_nothing_else() -> None:
    request = prepare(intent(), LAW)
    assert [(one.type, one.id) for one in request.slice] == [
        ("Account", "acct:acme"),
        ("Group", "payers"),
        ("Group", "staff"),
        ("List", "approved"),
        ("Workload", "spiffe://dev/agent/billing"),
    ]
    assert request.action == EntityRef(type="Action", id="pay/send")
    assert request.principal == EntityRef(type="Workload", id="spiffe://dev/agent/billing")
    assert request.slice[-1].parents == [EntityRef(type="Group", id="payers")]


def test_attributes_come_from_the_identity_and_only_those_that_the_domain_reads() -> None:
    who = identity(attributes={"limit": 5, "shoe_size": 43})
    assert prepare(intent(), LAW, who=who).slice[-1].attributes == {"limit": 5}


@pytest.mark.parametrize("value", [True, "5", [5]])
def test_an_attribute_of_another_type_is_refused_not_withheld(value: object) -> None:
    with refuses("attribute_mismatch"):
        prepare(intent(), LAW, who=identity(attributes={"limit": value}))


def test_an_action_that_is_not_declared_is_unknown() -> None:
    with refuses("action_unknown"):
        prepare(intent(action="steal"), LAW)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"cents": 1, "cent": 1},
        {"cents": "1"},
        {"cents": True},
        {"cents": [1]},
        {"cents": 1, "tags": "a"},
        {"cents": 1, "tags": ["a", 1]},
        {"cents": 1, "tags": [True]},
        {"cents": 1, "urgent": 1},
        {"cents": 1, "memo": "public, though it must be committed"},
        {"cents": 1, "__entity": "x"},
    ],
)
def test_parameters_that_are_not_exactly_the_declared_ones_are_refused(params: dict[str, object]) -> None:
    with refuses("params_mismatch"):
        prepare(intent(params), LAW)


def test_parameters_as_declared_are_shown() -> None:
    given_ = {"cents": -1, "tags": [], "urgent": False}
    assert prepare(intent(given_), LAW).asserted.params == given_


def test_policy_sees_an_opened_parameter_and_the_input_digest_can_do_without() -> None:
    made, committed = opening("memo", "for the beach house")
    asked = intent(committed=committed)
    request = prepare(asked, LAW, made)
    assert request.asserted.params == {"cents": 100, "memo": "for the beach house"}
    erased = msgspec.structs.replace(request, asserted=msgspec.structs.replace(request.asserted, params={}))
    digest = LAW.manifest.digest
    again = input_digest(erased, profile=PROFILE, bundle=digest, public=asked.params, committed=asked.committed)
    assert conclude(asked, LAW, ALLOW, made).input == again


def test_a_public_parameter_may_not_be_committed() -> None:
    made, committed = opening("cents", 100)
    with refuses("params_mismatch"):
        prepare(intent({}, committed=committed), LAW, made)


def test_a_committed_parameter_of_another_type_is_refused() -> None:
    made, committed = opening("memo", 7)
    with refuses("params_mismatch"):
        prepare(intent(committed=committed), LAW, made)


def test_a_required_committed_parameter_must_be_there() -> None:
    with refuses("params_mismatch"):
        prepare(intent({}, action="audit", resource=EntityRef(type="Vault", id="main")), LAW)


def test_openings_must_open_exactly_what_was_committed() -> None:
    made, committed = opening("memo", "a")
    other, _ = opening("memo", "b")
    spare, _ = opening("pin", "c")
    for openings in ([], [other], [made, made], [made, spare]):
        with refuses("opening_mismatch"):
            prepare(intent(committed=committed), LAW, *openings)


@pytest.mark.parametrize(
    "resource",
    [
        EntityRef(type="Account", id="no-such-prefix"),
        EntityRef(type="Vault", id="main"),
        EntityRef(type="Nothing", id="acct:acme"),
        EntityRef(type="Group", id="payers"),
    ],
)
def test_a_resource_that_the_action_cannot_act_on_is_missing(resource: EntityRef) -> None:
    with refuses("entity_missing"):
        prepare(intent(resource=resource), LAW)


def test_an_entity_of_a_closed_type_must_be_listed() -> None:
    made, committed = opening("why", "x")
    asked = intent({}, action="audit", committed=committed)
    assert prepare(msgspec.structs.replace(asked, resource=EntityRef(type="Vault", id="main")), LAW, made).slice
    with refuses("entity_missing"):
        prepare(msgspec.structs.replace(asked, resource=EntityRef(type="Vault", id="other")), LAW, made)


def test_an_unlisted_entity_of_an_open_type_is_bare() -> None:
    request = prepare(intent(resource=EntityRef(type="Account", id="acct:who")), LAW)
    assert request.slice[0] == entity("Account", "acct:who")


def test_a_group_that_the_bundle_does_not_list_is_missing() -> None:
    with refuses("entity_missing"):
        prepare(intent(), LAW, who=identity(groups=["payers", "kings"]))


def test_the_order_and_repetition_of_groups_change_nothing() -> None:
    one = prepare(intent(), LAW, who=identity(groups=["payers", "staff"]))
    assert one == prepare(intent(), LAW, who=identity(groups=["staff", "payers", "staff"]))


def test_without_the_bundle_there_is_no_answer() -> None:
    with pytest.raises(Unavailable) as no:
        prepare(intent(), msgspec.structs.replace(LAW, bundle=None))
    assert no.value.code == "engine_unavailable"


def test_two_bundles_under_one_digest_are_never_mixed_up() -> None:
    smaller = bundle(actions=bundle().actions[1:])
    assert prepare(intent(), law(bundle(), digest="blake3:" + "0" * 64)).action.id == "pay/send"
    with refuses("action_unknown"):
        prepare(intent(), law(smaller, digest="blake3:" + "0" * 64))


# ------------------------------------------------------------------------------------------------------------- conclusions


@pytest.mark.parametrize(
    ("verdict", "effect"),
    [
        (ALLOW, "permit"),
        (Verdict(allow=False, determining=(), errors=()), "deny"),
        (Verdict(allow=True, determining=("may",), errors=("never: overflow",)), "deny"),
        (Verdict(allow=True, determining=(), errors=()), "deny"),
        (Verdict(allow=False, determining=("never",), errors=()), "deny"),
    ],
)
def test_only_an_allow_without_any_error_that_rests_on_a_permit_permits(verdict: Verdict, effect: str) -> None:
    decision = conclude(intent(), law(bundle(PERMIT + FORBID)), verdict)
    assert decision.effect == effect
    assert decision.errors == list(verdict.errors)


BOTH = rule("plain", "permit", "true", obligation="tell") + rule("two", "permit", "true", approval="2 of security, 1 of finance")


@pytest.mark.parametrize(
    ("approvals", "needs"),
    [
        ({}, ["1 of finance", "2 of security"]),
        ({"security": 1, "finance": 3}, ["2 of security"]),
        ({"security": 2, "finance": 1}, []),
        ({"security": 9}, ["1 of finance"]),
    ],
)
def test_what_any_determining_permit_demands_must_have_come(approvals: dict[str, int], needs: list[str]) -> None:
    verdict = Verdict(allow=True, determining=("plain", "two"), errors=())
    decision = conclude(intent(), law(bundle(BOTH)), verdict, facts=attested(approvals=approvals))
    assert (decision.effect, decision.needs) == ("deny" if needs else "permit", needs)
    assert decision.obligations == ([] if needs else ["tell"])
    assert decision.determining == ["plain", "two"], "whose permits they were stays said"


def test_a_permit_that_did_not_determine_the_answer_demands_nothing() -> None:
    under = law(bundle(BOTH + FORBID))
    assert conclude(intent(), under, Verdict(allow=True, determining=("plain",), errors=())).effect == "permit"
    for no in (Verdict(allow=False, determining=("never",), errors=()), Verdict(allow=True, determining=("two",), errors=("x: overflow",))):
        decision = conclude(intent(), under, no)
        assert (decision.effect, decision.needs) == ("deny", [])


def test_a_demand_that_nobody_can_read_decides_nothing() -> None:
    with pytest.raises(Unavailable) as no:
        conclude(intent(), law(bundle(rule("odd", "permit", "true", approval="somebody"))), Verdict(True, ("odd",), ()))
    assert no.value.code == "engine_unavailable"


@pytest.mark.parametrize("determining", [("stranger",), ("may", "stranger"), ("never",)])
def test_a_verdict_that_this_bundle_cannot_give_is_no_verdict(determining: tuple[str, ...]) -> None:
    with pytest.raises(Unavailable) as no:
        conclude(intent(), law(bundle(PERMIT + FORBID)), Verdict(allow=True, determining=determining, errors=()))
    assert no.value.code == "engine_unavailable"


def test_more_policies_than_a_denial_can_name_decide_nothing() -> None:
    names = [f"many-{number}" for number in range(DETERMINING_MAX + 1)]
    under = law(bundle("".join(rule(name, "permit", "true") for name in names)))
    most = Verdict(allow=True, determining=tuple(names[:-1]), errors=())
    assert conclude(intent(), under, most).effect == "permit"
    with pytest.raises(Refused) as no:
        conclude(intent(), under, Verdict(allow=True, determining=tuple(names), errors=()))
    assert no.value.code == "too_large"


def test_a_policy_whose_name_would_not_fit_into_a_denial_is_in_no_bundle() -> None:
    policy = bundle(PERMIT).policies[0]
    for length, fits in ((POLICY_NAME_CHARS_MAX, True), (POLICY_NAME_CHARS_MAX + 1, False)):
        data = canonical.encode(msgspec.structs.replace(policy, id="p" * length))
        if fits:
            canonical.decode(PolicyJson, data, bytes_max=10**6)
            continue
        with pytest.raises(Refused) as no:
            canonical.decode(PolicyJson, data, bytes_max=10**6)
        assert no.value.code == "malformed"


def test_everything_listed_is_sorted_whatever_the_engine_s_order() -> None:
    text = rule("b", "permit", "true", obligation="tell,seal") + rule("a", "permit", "true", obligation="ask")
    under = law(bundle(text))
    one = conclude(intent(), under, Verdict(allow=True, determining=("b", "a"), errors=()))
    assert one == conclude(intent(), under, Verdict(allow=True, determining=("a", "b"), errors=()))
    assert (one.determining, one.obligations) == (["a", "b"], ["ask", "seal", "tell"])


def test_a_denial_carries_no_obligations() -> None:
    under = law(bundle(rule("a", "permit", "true", obligation="ask")))
    assert conclude(intent(), under, Verdict(allow=True, determining=("a",), errors=("a: other",))).obligations == []


@given(floor=st.sampled_from(ASSURANCES), wanted=st.sampled_from(ASSURANCES), demanded=st.sampled_from(ASSURANCES))
def test_assurance_is_the_strongest_of_floor_caller_and_permits(floor: Assurance, wanted: Assurance, demanded: Assurance) -> None:
    made = bundle().policies[0]
    under = law(bundle(policies=[msgspec.structs.replace(made, annotations={"assurance": demanded})]), floor=floor)
    decision = conclude(intent(assurance_min=wanted), under, ALLOW)
    assert decision.assurance == strongest(floor, wanted, demanded)


def test_an_assurance_that_nobody_knows_is_no_verdict() -> None:
    under = law(bundle(policies=[msgspec.structs.replace(bundle().policies[0], annotations={"assurance": "enormous"})]))
    with pytest.raises(Unavailable) as no:
        conclude(intent(), under, ALLOW)
    assert no.value.code == "engine_unavailable"


@pytest.mark.parametrize(
    ("asked", "who", "facts"),
    [
        (intent({"cents": 101}), identity(), attested()),
        (intent(purpose="lunch"), identity(), attested()),
        (intent(resource=EntityRef(type="Account", id="acct:who")), identity(), attested()),
        (intent(), identity(attributes={"limit": 1}), attested()),
        (intent(), identity(groups=["staff"]), attested()),
        (intent(), identity(), attested(now_s=1)),
        (intent(), identity(), attested(person="alice")),
        (intent(), identity(), attested(approvals={"security": 1})),
        (intent(), identity(), attested(approvals={"security": 2})),
        (intent(), identity(), attested(breakglass=True)),
    ],
)
def test_the_input_digest_changes_with_everything_the_engine_could_see(asked: Intent, who: Identity, facts: Attested) -> None:
    base = conclude(intent(), LAW, ALLOW)
    assert conclude(asked, LAW, ALLOW, who=who, facts=facts).input != base.input


# ------------------------------------------------------------------------------------------------------------------ scopes


@pytest.mark.parametrize(
    ("scope", "matches"),
    [
        ("principal, action, resource", True),
        ('principal, action == Action::"pay/send", resource', True),
        ('principal, action == Action::"pay/audit", resource', False),
        ('principal, action in [Action::"pay/audit", Action::"pay/send"], resource', True),
        ('principal, action in [Action::"pay/audit"], resource', False),
        ("principal is Workload, action, resource", True),
        ("principal is Robot, action, resource", False),
        ('principal is Workload in Group::"payers", action, resource', True),
        ('principal == Workload::"x", action, resource', True),
        ('principal == Robot::"x", action, resource', False),
        ('principal in Group::"payers", action, resource', True),
    ],
)
def test_a_policy_applies_unless_its_scope_cannot_match(scope: str, matches: bool) -> None:
    (policy,) = policies(f'@id("p") permit ({scope});')
    assert applies(policy, "pay/send") is matches


def test_what_is_not_a_policy_in_json_form_has_no_scope() -> None:
    for text in ("{}", "[", "null"):
        with refuses("policy_invalid"):
            applies(msgspec.structs.replace(bundle().policies[0], json=text), "pay/send")


def test_the_floor_is_the_strongest_assurance_of_any_permit_that_can_match() -> None:
    text = rule("a", "permit", "false", assurance="quorum") + '@id("b") @assurance("local") permit (principal, action, resource);'
    assert floors(bundle(text)) == {"send": "quorum", "audit": "local"}


def test_a_manifest_below_what_a_permit_demands_is_refused() -> None:
    made = bundle(rule("a", "permit", "true", assurance="quorum"))
    check_terms(law(made, floor="quorum").manifest, made)
    with refuses("policy_invalid"):
        check_terms(law(made, floor="local").manifest, made)


def test_the_floor_of_approvals_is_what_every_permit_demands_that_can_match() -> None:
    two, three = rule("a", "permit", "true", approval="2 of security, 1 of board"), rule("b", "permit", "false", approval="3 of security")
    assert approval_floors(bundle(two)) == {"send": {"security": 2, "board": 1}, "audit": {}}
    assert approval_floors(bundle(two + three + rule("n", "forbid", "true"))) == {"send": {"security": 2}, "audit": {}}
    assert approval_floors(bundle(two + rule("free", "permit", "context.attested.breakglass"))) == {"send": {}, "audit": {}}
    with refuses("policy_invalid"):
        approval_floors(bundle(rule("a", "permit", "true", approval="some")))


def test_a_manifest_that_says_other_approvals_than_every_permit_demands_is_refused() -> None:
    made = bundle(rule("a", "permit", "true", approval="2 of security"))
    manifest = law(made).manifest

    def stating(approvals: dict[str, int]) -> Manifest:
        terms = msgspec.structs.replace(manifest.actions["send"], approvals=approvals)
        return msgspec.structs.replace(manifest, actions={**manifest.actions, "send": terms})

    check_terms(stating({"security": 2}), made)
    for other in ({}, {"security": 1}, {"security": 3}, {"security": 2, "board": 1}):
        with refuses("policy_invalid"):
            check_terms(stating(other), made)


def test_a_manifest_must_state_terms_for_exactly_the_actions_of_its_bundle() -> None:
    made = bundle()
    manifest = law(made).manifest
    terms = Terms(assurance="final", authorization_ms=1, lease_ms=1, approvals={})
    for actions in ({"send": terms}, dict.fromkeys(("send", "audit", "more"), terms)):
        with refuses("policy_invalid"):
            check_terms(msgspec.structs.replace(manifest, actions=actions), made)
    with refuses("policy_invalid"):
        check_terms(msgspec.structs.replace(manifest, domain="other"), made)
