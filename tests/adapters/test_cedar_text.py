"""Nothing that is too deep or too large reaches the parser, and the scanner sees brackets where the parser would."""

import cedarpy
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.cedar_child import Source, examine_bundles, parse_policies
from mesh.adapters.cedar_text import gate_json, gate_policies, gate_schema
from mesh.core.bytes import canonical
from mesh.errors import Refused
from mesh.limits import (
    BUNDLE_BYTES_MAX,
    POLICY_BYTES_MAX,
    POLICY_CHECK_MS_MAX,
    POLICY_DEPTH_MAX,
    POLICY_JSON_BYTES_MAX,
    POLICY_JSON_DEPTH_MAX,
    SCHEMA_BYTES_MAX,
)
from tests.core.kit import refuses
from tests.policy.kit import PERMIT, bundle, policies, rule


def when(condition: str) -> str:
    return f'@id("p") permit (principal, action, resource) when {{ {condition} }};'


@pytest.mark.parametrize("pair", ["()", "[]"])
def test_brackets_are_counted_to_the_limit(pair: str) -> None:
    def nested(depth: int) -> str:
        return when(pair[0] * depth + "true" + pair[1] * depth)

    gate_policies(nested(POLICY_DEPTH_MAX - 1), "p.cedar")  # the braces are the first
    with refuses("policy_too_deep"):
        gate_policies(nested(POLICY_DEPTH_MAX), "p.cedar")


@pytest.mark.parametrize(
    ("head", "tail"),
    [("if true then true else ", ""), ("if true then (", ") else true"), ("if true then [if true then true else true, ", "] else true")],
)
def test_ifs_are_counted_to_the_limit_wherever_they_nest(head: str, tail: str) -> None:
    with refuses("policy_too_deep"):
        gate_policies(when(head * (POLICY_DEPTH_MAX + 1) + "true" + tail * (POLICY_DEPTH_MAX + 1)), "p")


def test_ifs_one_after_the_other_do_not_nest() -> None:
    side_by_side = ", ".join(["if true then true else true"] * 100)
    gate_policies(when(f"[{side_by_side}].contains(true)"), "p")
    gate_policies(when("if true then true else " * POLICY_DEPTH_MAX + "true"), "p")
    gate_policies("".join(when("if true then true else true") for _ in range(100)), "p")
    gate_policies(when("(if true then true else true) && " * 40 + "true"), "p")


@pytest.mark.parametrize("hidden", ['"((((" ', "// (((( \n", '"\\"((((" ', '"\\\\" // "(((\n'])
def test_brackets_in_strings_and_comments_are_not_brackets(hidden: str) -> None:
    gate_policies(when(f'principal == principal || "x" == {hidden * 40 if hidden.startswith("/") else hidden} || true'), "p")


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n"])
def test_a_comment_ends_where_it_ends_for_the_parser(ending: str) -> None:
    text = when(f"// {ending} {'(' * POLICY_DEPTH_MAX}true{')' * POLICY_DEPTH_MAX} \n")
    with refuses("policy_too_deep"):
        gate_policies(text, "p")


@pytest.mark.parametrize("text", ['permit ("', "permit (", "permit )", "permit (]", "permit (principal) when { ( };", '"\\'])
def test_text_that_does_not_pair_up_is_refused(text: str) -> None:
    with refuses("policy_invalid"):
        gate_policies(text, "p")


PIECES = st.sampled_from(
    [
        *("true", "&&", "||", "(", ")", "(true)", "if true then", "else", ";"),
        *('"(" == "["', '"\\"(" == "}"', "// ( [ {\n", "// ) \r", '["{"].contains("a")'),
    ]
)


@given(st.lists(PIECES, max_size=9))
def test_whatever_the_parser_takes_and_is_not_deep_the_gate_takes(pieces: list[str]) -> None:
    text = when("true && " + " ".join(pieces))
    try:
        cedarpy.policies_to_json_str(text)
    except ValueError:
        return
    gate_policies(text, "p")


def test_one_policy_may_be_as_long_as_the_limit_and_many_together_longer() -> None:
    def sized(bytes_: int) -> str:
        return PERMIT.replace(";", f" // {'é' * ((bytes_ - len(PERMIT) - 5) // 2)}\n;").ljust(bytes_)

    fits = sized(POLICY_BYTES_MAX - 2)
    gate_policies(fits.rstrip() * 3, "p")
    with refuses("too_large"):
        gate_policies(sized(POLICY_BYTES_MAX + 20).rstrip(), "p")
    with refuses("too_large"):
        gate_policies(" " * (POLICY_BYTES_MAX + 1), "p")


def test_the_schema_declares_entity_types_and_nothing_else() -> None:
    assert gate_schema("// none\n", "s") == []
    text = 'entity A, B in [A, C] = { "x;y": String, z?: Set<Long> };\nentity C;\nentity D enum ["a", "b"];\nentity E tags String;'
    assert gate_schema(text, "s") == ["A", "B", "C", "D", "E"]
    for other in ('action "x";', "namespace N { entity A; }", "type T = Long;", "entity A", "entity A; action x"):
        with refuses("policy_invalid"):
            gate_schema(other, "s")


def test_a_schema_is_bounded_in_size_and_depth() -> None:
    def nested(depth: int) -> str:
        return f"entity A {{ x: {'Set<' * depth}Long{'>' * depth} }};"

    gate_schema(nested(POLICY_DEPTH_MAX - 1), "s")
    with refuses("policy_too_deep"):
        gate_schema(nested(POLICY_DEPTH_MAX), "s")
    gate_schema("entity A;".ljust(SCHEMA_BYTES_MAX), "s")
    with refuses("too_large"):
        gate_schema("entity A;".ljust(SCHEMA_BYTES_MAX + 1), "s")


def test_json_is_bounded_in_size_and_depth() -> None:
    def nested(depth: int) -> str:
        return "[" * depth + '"[[[["' + "]" * depth

    gate_json(nested(POLICY_JSON_DEPTH_MAX), "p")
    with refuses("policy_too_deep"):
        gate_json(nested(POLICY_JSON_DEPTH_MAX + 1), "p")
    gate_json('"'.ljust(POLICY_JSON_BYTES_MAX - 1) + '"', "p")
    with refuses("too_large"):
        gate_json('"'.ljust(POLICY_JSON_BYTES_MAX) + '"', "p")
    with refuses("policy_invalid"):
        gate_json('{"', "p")


def test_the_deepest_policy_that_passes_is_one_that_the_engine_can_read() -> None:
    terms = (POLICY_JSON_DEPTH_MAX - 6) // 2
    (policy,) = policies(rule("deep", "forbid", " || ".join(["context.asserted.params.urgent"] * (terms - 3))))
    gate_json(policy.json, "deep")
    assert cedarpy.PolicySet.from_json_str(f'{{"staticPolicies":{{"deep":{policy.json}}},"templateLinks":[],"templates":{{}}}}')
    with refuses("policy_too_deep"):
        gate_json(policies(rule("deeper", "forbid", " || ".join(["context.asserted.params.urgent"] * (terms + 1))))[0].json, "deeper")


def test_files_that_the_gate_stops_do_not_keep_the_others_from_being_read() -> None:
    answer = parse_policies(
        [Source("deep.cedar", when("(" * 40 + "true" + ")" * 40)), Source("fine.cedar", PERMIT), Source("bad.cedar", "permit")]
    )
    assert [policy.id for policy in answer.policies] == ["may"]
    assert [(one.code, one.where) for one in answer.findings] == [("policy_too_deep", "deep.cedar"), ("policy_invalid", "bad.cedar")]
    assert answer.findings[0].what == f"more than {POLICY_DEPTH_MAX} nested brackets or ifs"


def test_a_bundle_that_the_gate_stops_never_starts_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.adapters.cedar_child.parse_in_child", None)
    made = bundle()
    (policy,) = made.policies
    deep = msgspec.structs.replace(policy, json="[" * 130 + "]" * 130)
    found = examine_bundles([canonical.encode(bundle(policies=[deep], schema="action x;"))])
    assert [(one.code, one.where) for one in found] == [("policy_invalid", "schema"), ("policy_too_deep", "may")]


def test_a_bundle_is_bounded_in_size() -> None:
    with refuses("too_large"):
        examine_bundles([b" " * (BUNDLE_BYTES_MAX + 1)])
    with refuses("malformed"):
        examine_bundles([b" " * BUNDLE_BYTES_MAX])


def test_a_candidate_may_not_keep_its_child_for_ever() -> None:
    assert 1_000 <= POLICY_CHECK_MS_MAX <= 60_000  # that it is kept: test_cedar.py, a child that takes too long


def test_templates_and_policies_without_an_id_are_findings() -> None:
    text = f"{PERMIT} permit (principal == ?principal, action, resource); permit (principal, action, resource);"
    findings = parse_policies([Source("t.cedar", text)]).findings
    assert [one.what for one in findings] == ["templates are not supported", "policy number 3 has no @id"]


def test_a_refusal_names_the_file() -> None:
    with pytest.raises(Refused) as no:
        gate_policies("(", "send.cedar")
    assert "send.cedar" in no.value.detail
