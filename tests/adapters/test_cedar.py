"""The engine says the same everywhere, and whatever it cannot say denies."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cedarpy
import msgspec
import pytest
from cedarpy import _internal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.adapters import cedar, cedar_child
from mesh.adapters.cedar import PROFILE, CedarEngine
from mesh.adapters.cedar_shape import compose_schema, entities_json, leaves, policy_set_json, read_by
from mesh.adapters.decision_thread import DecisionThread
from mesh.core.bytes import canonical
from mesh.core.law.policy import Bundle, PolicyJson
from mesh.core.run.decision import Verdict
from mesh.core.run.intent import EntityRef, Measurement
from mesh.errors import Refused, Unavailable
from tests.policy.kit import FORBID, PERMIT, bundle, entity, identity, intent, law, opening, policies, prepare, ready, rule


@pytest.fixture(scope="module")
def engine() -> Iterator[CedarEngine]:
    with ready() as made:
        yield made


def ask(engine: CedarEngine, made: Bundle, *asked: Any, **kwargs: Any) -> list[Verdict | None]:
    under = law(made)
    engine.load(made, under.manifest.digest)
    return engine.evaluate(under.manifest.digest, [prepare(one, under, **kwargs) for one in (asked or (intent(),))])


def test_the_engine_names_its_profile_and_its_build(engine: CedarEngine) -> None:
    assert engine.profile == "cedar-4/1"
    assert engine.build.startswith("cedar-policy/4.")
    assert "+cedarpy/4." in engine.build


def test_a_forbid_outweighs_every_permit_and_nothing_permits_by_itself(engine: CedarEngine) -> None:
    assert ask(engine, bundle(PERMIT)) == [Verdict(allow=True, determining=("may",), errors=())]
    assert ask(engine, bundle(PERMIT + FORBID)) == [Verdict(allow=False, determining=("never",), errors=())]
    assert ask(engine, bundle("")) == [Verdict(allow=False, determining=(), errors=())]


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("context.asserted.params.cents + 9223372036854775807 > 0", "overflow"),
        ("context.asserted.params.cents * 9223372036854775807 > 0", "overflow"),
        ("context.asserted.params.nothing", "attribute_missing"),
        ('principal.nothing == "a"', "attribute_missing"),
        ('principal.getTag("x") == 1', "attribute_missing"),
        ('Account::"acct:acme2".country == "NL"', "entity_missing"),
        ('context.asserted.params.cents < "a"', "type_error"),
        ("ip(context.asserted.purpose).isIpv4()", "extension_error"),
        ('decimal("integer overflow").lessThan(decimal("1.0"))', "extension_error"),
    ],
)
def test_a_forbid_that_errors_is_an_error_by_a_stable_word_never_a_silent_allow(engine: CedarEngine, condition: str, word: str) -> None:
    made = bundle(PERMIT + rule("guard", "forbid", condition))
    assert ask(engine, made, intent({"cents": 9})) == [Verdict(allow=True, determining=("may",), errors=(f"guard: {word}",))]


def test_error_words_do_not_depend_on_what_a_stranger_named_his_account(engine: CedarEngine) -> None:
    made = bundle(rule("guard", "forbid", 'resource.country == "NL"'))
    name = 'acct:x" type error: integer overflow recursion limit'
    (verdict,) = ask(engine, made, intent(resource=EntityRef(type="Account", id=name)))
    assert verdict is not None
    assert verdict.errors == ("guard: attribute_missing",)


@pytest.mark.parametrize(
    ("prose", "error"),
    [
        ("", "other"),
        ("something new", "other"),
        ("recursion limit reached", "other"),
        ("error while evaluating policy `x`: something new", "x: other"),
        ("error while evaluating policy `x`: recursion limit reached", "x: recursion_limit"),
    ],
)
def test_prose_that_nobody_knows_is_still_an_error(prose: str, error: str) -> None:
    text = msgspec.json.encode({"decision": "Allow", "diagnostics": {"reason": ["may"], "errors": [prose]}}).decode()
    assert cedar._verdict(text) == Verdict(allow=True, determining=("may",), errors=(error,))


def test_everything_in_a_verdict_is_sorted(engine: CedarEngine) -> None:
    many = "".join(rule(f"p{number:02}", "permit", "true") + rule(f"e{number:02}", "forbid", "principal.no") for number in range(20))
    (verdict,) = ask(engine, bundle(many))
    assert verdict is not None
    assert list(verdict.determining) == sorted(verdict.determining)
    assert list(verdict.errors) == sorted(verdict.errors)
    assert (len(verdict.determining), len(verdict.errors)) == (20, 20)


def test_policy_reads_each_part_of_the_context_as_it_is_typed(engine: CedarEngine) -> None:
    condition = (
        'context.asserted.params has memo && context.asserted.params.memo == "m" && context.asserted.params.urgent && '
        'context.asserted.params.tags.contains("t") && context.asserted.params.cents == 7 && context.asserted.purpose == "why" && '
        f'context.asserted.measurements.contains({{name: "exe", digest: "blake3:{"0" * 64}"}}) && '
        'context.attested.now_s == 1767225600 && context.attested.region == "eu" && context.attested.policy_epoch == 1 && '
        f'context.attested.frontier == "{"11" * 32}" && context.attested.enforcer_class == "gateway" && context.attested.person == "" && '
        'principal.limit == 5 && principal.teams.contains("blue") && resource.country == "NL" && resource in List::"approved" && '
        'principal in Group::"staff" && principal == Workload::"spiffe://dev/agent/billing"'
    )
    made, committed = opening("memo", "m")
    asked = intent(
        {"cents": 7, "urgent": True, "tags": ["s", "t"]},
        committed=committed,
        purpose="why",
        measurements=[Measurement(name="exe", digest="blake3:" + "0" * 64)],
    )
    under = law(bundle(rule("all", "permit", condition)))
    assert under.bundle is not None
    engine.load(under.bundle, under.manifest.digest)
    request = prepare(asked, under, made, who=identity(attributes={"limit": 5, "teams": ["blue"]}))
    assert engine.evaluate(under.manifest.digest, [request]) == [Verdict(allow=True, determining=("all",), errors=())]


# --------------------------------------------------------------------------------------------------------------- no answer


def test_a_bundle_that_is_not_loaded_gives_no_answer(engine: CedarEngine) -> None:
    digest = "blake3:" + "9" * 64
    assert not engine.holds(digest)
    assert engine.evaluate(digest, [prepare(intent(), law(bundle()))]) == [None]


def test_one_bad_request_gives_no_answer_and_leaves_the_others_alone(engine: CedarEngine) -> None:
    made = bundle(
        rule("small", "permit", 'context.asserted.params.cents < 1000 && context.asserted.purpose != "x" && resource has country')
    )
    under = law(made)
    engine.load(made, under.manifest.digest)
    good = prepare(intent(), under)
    alter = msgspec.structs.replace
    other = EntityRef(type="Robot", id="r2")
    bad = [
        alter(good, asserted=alter(good.asserted, params={"cents": "100"})),
        alter(good, asserted=alter(good.asserted, params={"cents": {"__entity": {"type": "Workload", "id": "x"}}})),
        alter(good, asserted=alter(good.asserted, params={"cents": {"__extn": {"fn": "decimal", "arg": "1.0"}}})),
        alter(good, asserted=alter(good.asserted, params={"cents": 2**63})),
        alter(good, asserted=alter(good.asserted, params={})),
        alter(good, slice=[*good.slice, entity("Account", "acct:acme", country={"__entity": {"type": "Account", "id": "x"}})]),
        alter(good, slice=[entity("Account", "acct:acme", colour="blue")]),
        alter(good, action=EntityRef(type="Action", id="pay/other")),
        alter(good, action=other),
        alter(good, principal=other),
        alter(good, resource=EntityRef(type="Vault", id="main")),
    ]
    verdicts = engine.evaluate(under.manifest.digest, [good, *bad, good])
    assert verdicts[0] == verdicts[-1] == Verdict(allow=True, determining=("small",), errors=())
    assert verdicts[1:-1] == [None] * len(bad)


def test_a_panic_of_the_engine_is_no_answer_and_an_interrupt_is_an_interrupt() -> None:
    class PanicError(BaseException):
        pass

    def panic(_: int) -> None:
        raise PanicError

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    assert cedar._contained(panic, 1) is None
    with pytest.raises(KeyboardInterrupt):
        cedar._contained(stop, 1)


def test_an_engine_whose_deep_forbid_stays_silent_refuses_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    said = '{"decision":"Allow","diagnostics":{"reason":["policy0"],"errors":["error while evaluating policy `policy1`: recursion limit"]}}'
    monkeypatch.setattr(_internal, "is_authorized", lambda *_: said)
    thread = DecisionThread()
    with pytest.raises(Unavailable) as no:
        CedarEngine(thread)
    thread.close()
    assert no.value.code == "engine_unavailable"


def test_a_bundle_of_another_profile_or_that_the_engine_cannot_take_is_not_loaded(engine: CedarEngine) -> None:
    one = bundle()
    broken = [
        bundle(profile="cedar-5/1"),
        bundle(schema="entity Account {"),
        bundle(policies=[msgspec.structs.replace(one.policies[0], json="{}")]),
        bundle(policies=[msgspec.structs.replace(one.policies[0], json=one.policies[0].json.replace("conditions", "condition"))]),
        bundle(policies=[msgspec.structs.replace(one.policies[0], json=one.policies[0].json.replace('"All"', '"Some"', 1))]),
    ]
    for made in broken:
        with pytest.raises(Refused) as no:
            engine.load(made, law(made).manifest.digest)
        assert no.value.code == "policy_invalid"
        assert not engine.holds(law(made).manifest.digest)


def test_the_engine_evaluates_on_its_own_thread_whoever_asks(engine: CedarEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = _internal.is_authorized

    def note(*args: Any) -> str:
        seen.append(threading.current_thread().name)
        return str(real(*args))

    monkeypatch.setattr(_internal, "is_authorized", note)
    ask(engine, bundle(PERMIT))
    engine._thread.call(ask, engine, bundle(PERMIT))
    assert seen == ["decide", "decide"]


def test_slices_are_kept_and_the_oldest_forgotten(engine: CedarEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar, "_SLICES_MAX", 3)
    made = bundle(rule("nl", "permit", 'resource has country && resource.country == "NL"'))
    asked = [intent(resource=EntityRef(type="Account", id=name)) for name in ("acct:acme", "acct:a", "acct:b", "acct:c", "acct:acme")]
    verdicts = ask(engine, made, *asked)
    assert [verdict is not None and verdict.allow for verdict in verdicts] == [True, False, False, False, True]
    assert len(engine._loaded[law(made).manifest.digest]._slices) == 3


# -------------------------------------------------------------------------------------------------- leaving things out is sound

SCOPES = st.tuples(
    st.sampled_from(["principal", "principal is Workload", 'principal in Group::"staff"', 'principal == Workload::"spiffe://dev/x"']),
    st.sampled_from(
        ["action", 'action == Action::"pay/send"', 'action in [Action::"pay/audit", Action::"pay/send"]', 'action == Action::"pay/audit"']
    ),
    st.sampled_from(["resource", "resource is Account", 'resource in List::"approved"', 'resource == Vault::"main"']),
)
ATOMS = st.sampled_from(
    [
        "context.asserted.params has cents && context.asserted.params.cents > 50",
        "context has asserted.params.urgent",
        "context.asserted.params has urgent && context.asserted.params.urgent",
        "context.asserted has purpose",
        'context.asserted.purpose like "*x*"',
        "context.attested.now_s > 100",
        'context.attested == {enforcer_class: "gateway", frontier: "", now_s: 1, person: "", policy_epoch: 1, region: "eu"}',
        '[context.asserted.purpose, "x"].contains(context.attested.region)',
        'context.asserted.params has tags && context.asserted.params.tags.containsAny(["a", context.asserted.purpose])',
        '{left: context.asserted.purpose, "has": context.attested.person} == {left: "x", "has": ""}',
        "context.asserted.params == context.asserted.params",
        "if context.asserted.measurements.isEmpty() then context.asserted.params has urgent else false",
        "principal has limit && principal.limit > 3",
        'resource has country && resource.country == "NL"',
        "context.asserted.params.cents + 9007199254740991 > 0",
        "context.asserted.params.urgent",
    ]
)
RULES = st.lists(st.tuples(SCOPES, st.sampled_from(["permit", "forbid"]), st.lists(ATOMS, max_size=2)), max_size=6)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rules=RULES,
    params=st.fixed_dictionaries({"cents": st.sampled_from([0, 51])}, optional={"urgent": st.booleans(), "tags": st.just(["a", "b"])}),
    purpose=st.sampled_from(["", "x", "eu"]),
    limit=st.sampled_from([None, 5]),
)
def test_leaving_out_policies_and_context_that_cannot_matter_changes_nothing(
    engine: CedarEngine, rules: list[Any], params: dict[str, Any], purpose: str, limit: int | None
) -> None:
    text = "".join(
        f'@id("p{number}") {effect} ({", ".join(scope)}) when {{ {" && ".join(f"({one})" for one in atoms) or "true"} }};'
        for number, (scope, effect, atoms) in enumerate(rules)
    )
    made = bundle(text)
    request = prepare(intent(params, purpose=purpose), law(made), who=identity(attributes={} if limit is None else {"limit": limit}))
    engine.load(made, law(made).manifest.digest)
    whole = engine._thread.call(_whole, made, request)
    assert whole is not None
    assert engine.evaluate(law(made).manifest.digest, [request]) == [whole]


def _whole(made: Bundle, request: Any) -> Verdict | None:
    """The same asked with every policy, the whole context and the whole schema."""
    schema = cedarpy.Schema.from_str(compose_schema(made))
    everything = policy_set_json((policy.id, policy.json) for policy in made.policies)
    uid = {name: msgspec.to_builtins(getattr(request, name)) for name in ("principal", "action", "resource")}
    attested = {path[1]: getattr(request.attested, path[1]) for path in leaves(made.actions[0]) if path[0] == "attested"}
    attested["approvals"] = sorted(request.attested.approvals)
    context = canonical.encode({"asserted": request.asserted, "attested": attested}).decode()
    handles = (
        cedarpy.PolicySet.from_json_str(everything),
        _internal.Entities.from_json_str(entities_json(request.slice), schema),
    )
    return cedar._verdict(_internal.is_authorized(uid | {"context": context}, *handles, schema))


def test_context_that_nobody_reads_is_not_shown() -> None:
    made = bundle(rule("a", "permit", "context.asserted.params.cents > 1 && context.asserted.params has urgent"))
    all_ = leaves(made.actions[0])
    assert read_by(made.policies, all_) == {("asserted", "params", "cents"), ("asserted", "params", "urgent")}
    assert read_by(policies(rule("b", "permit", "context == context")), all_) == all_


# ------------------------------------------------------------------------------------------------------- the same everywhere

SAME = """
import sys
from mesh.core.bytes import canonical
from mesh.core.law.policy import Bundle
from tests.policy.kit import conclude, intent, law, opening, prepare, ready
made = canonical.decode(Bundle, open(sys.argv[1], "rb").read(), bytes_max=1_000_000)
under = law(made)
with ready(made) as engine:
    for cents in (1, 60, 2_000):
        asked = intent({"cents": cents, "tags": ["a", "b", "c"]})
        (verdict,) = engine.evaluate(under.manifest.digest, [prepare(asked, under)])
        print(canonical.encode(conclude(asked, under, verdict)).decode())
"""


def test_decision_bytes_are_the_same_under_other_hash_seeds_and_on_small_stacks(tmp_path: Path) -> None:
    deep = "(" * 32 + " || ".join(["context.asserted.params.cents > 1000"] * 55) + ")" * 32
    text = rule("deep", "forbid", deep)
    text += "".join(
        rule(f"p{number}", "permit", f"context.asserted.params.cents >= {number}", obligation=f"o-{number}") for number in range(30)
    )
    text += "".join(rule(f"e{number}", "permit", "context.asserted.params.urgent") for number in range(3))
    file = tmp_path / "bundle"
    said: set[str] = set()
    for errors in (False, True):
        kept = [policy for policy in policies(text) if errors or not policy.id.startswith("e")]
        file.write_bytes(canonical.encode(bundle(policies=kept)))
        runs = {_run_same(file, seed, stack) for seed, stack in (("0", "8192"), ("1", "8192"), ("7", "512"))}
        assert len(runs) == 1
        said |= runs
    lines = "".join(said).splitlines()
    assert len(lines) == 6
    assert sum('"effect":"permit"' in line for line in lines) == 2
    assert sum('"determining":["deep"]' in line for line in lines) == 2
    assert sum("attribute_missing" in line for line in lines) == 3


def _run_same(file: Path, seed: str, stack: str) -> str:
    command = ["bash", "-c", 'ulimit -s "$0" && exec "$@"', stack, sys.executable, "-c", SAME, str(file)]
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
    return done.stdout


# ----------------------------------------------------------------------------------------------------------------- admission


def test_text_that_kills_the_parser_kills_only_the_child() -> None:
    deadly = f"permit (principal, action, resource) when {{ {'(' * 60_000}true{')' * 60_000} }};"
    with pytest.raises(Refused) as no:
        cedar_child.parse_in_child("convert", canonical.encode([cedar_child.Source("deadly.cedar", deadly)]))
    assert no.value.code == "policy_invalid"
    assert "signal" in no.value.detail


def test_a_child_that_takes_too_long_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar_child, "_START", "import time; time.sleep(60)")
    monkeypatch.setattr(cedar_child, "POLICY_CHECK_MS_MAX", 200)
    with pytest.raises(Refused) as no:
        cedar_child.parse_in_child("examine", b"")
    assert no.value.code == "policy_invalid"


def test_a_child_that_cannot_work_is_no_verdict_on_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar_child, "_START", "raise SystemError('no such module')")
    with pytest.raises(Unavailable) as no:
        cedar_child.parse_in_child("examine", b"")
    assert no.value.code == "engine_unavailable"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Unavailable) as no:
        cedar_child.parse_in_child("examine", b"")
    assert no.value.code == "engine_unavailable"


def examined(made: Bundle) -> set[str]:
    return {f"{finding.where}: {finding.what}" for finding in cedar.examine(made)}


def test_the_engine_s_own_validation_is_strict() -> None:
    text = rule("unguarded", "permit", 'resource.country == "NL"') + rule("unknown", "permit", "principal.nothing == 1")
    text += rule("typed", "permit", 'context.asserted.params.cents == "a"') + rule("fine", "permit", "true")
    text += rule("missing-param", "permit", "context.asserted.params.urgent") + rule(
        "dynamic", "permit", "ip(context.asserted.purpose).isIpv4()"
    )
    found = {what.partition(":")[0] for what in examined(bundle(text))}
    assert found == {"unguarded", "unknown", "typed", "missing-param", "dynamic"}


def test_entities_and_open_types_must_fit_the_schema() -> None:
    one = bundle()
    wrong = [entity("Vault", "v", level="high"), entity("Vault", "w"), entity("Vault", "x", level=1, more=1)]
    assert len(examined(bundle(entities=one.entities + wrong))) == 3
    opened = [msgspec.structs.replace(kind, closed=False) if kind.name == "Vault" else kind for kind in one.types]
    (finding,) = examined(bundle(types=opened))
    assert "an open type may have no required attributes" in finding


def test_a_schema_that_the_engine_cannot_read_is_a_finding() -> None:
    (finding,) = examined(bundle(schema="entity Account, List, Vault { level: Lon };\n"))
    assert finding.startswith("schema: ")


def test_json_that_the_engine_reads_as_another_policy_is_refused() -> None:
    def alter(old: str, new: str) -> PolicyJson:
        (policy,) = policies(rule("p", "permit", "context.asserted.params.cents == 1"))
        assert old in policy.json
        form = msgspec.json.decode(policy.json.replace(old, new))
        return msgspec.structs.replace(policy, json=canonical.encode(form).decode())

    for made in (
        alter('{"Value":1}', '{"Value":[1]}'),
        alter('{"Value":1}', '{"Value":{"__expr":"1 + 1"}}'),
        alter('{"Value":1}', '{"Unknown":{"name":"x"}}'),
        alter('"effect":"permit"', '"effect":"permit","extra":1'),
        alter('"resource":{"op":"All"}', '"resource":{"op":"==","slot":"?resource"}'),
    ):
        assert examined(bundle(policies=[made])), made.json


def test_the_profile_is_the_one_that_bundles_are_built_for() -> None:
    assert bundle().profile == PROFILE


def test_the_text_that_people_are_shown_is_the_policy_that_decides() -> None:
    from mesh.policy.build import check

    for name in ("payments", "ops", "customers"):
        bundle = check(Path(cedar.__file__).parents[1] / "dev" / "policies" / name).bundle
        texts = cedar_child.policy_texts(bundle)
        again = [policy for text in texts for policy in cedar.convert("shown", text)[0]]
        assert again == bundle.policies


def test_what_would_kill_the_reader_of_policies_is_not_shown() -> None:
    deep = PolicyJson(id="deep", effect="permit", annotations={}, json="[" * 500 + "]" * 500)
    broken = PolicyJson(id="broken", effect="permit", annotations={}, json="{}")
    for policy, code in ((deep, "policy_too_deep"), (broken, "policy_invalid")):
        with pytest.raises(Refused) as refused:
            cedar_child.policy_texts(_bundle_of(policy))
        assert refused.value.code == code


def _bundle_of(*policies: PolicyJson) -> Bundle:
    return msgspec.structs.replace(bundle(), policies=list(policies))
