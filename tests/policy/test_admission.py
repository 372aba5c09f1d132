"""A node decides by no bundle that it did not check itself."""

from collections.abc import Callable

import msgspec
import pytest

from mesh.adapters import cedar_child
from mesh.core.law.governance import Law
from mesh.core.law.policy import Case
from mesh.core.run.intent import EntityRef
from mesh.errors import Unavailable
from mesh.policy.admission import admit_laws
from tests.core.kit import refuses
from tests.policy.kit import BILLING, PERMIT, bundle, law, ready, rule

CASE = Case(
    name="anybody sends",
    action="send",
    principal=EntityRef(type="Workload", id=BILLING),
    groups=["payers"],
    attributes={},
    resource=EntityRef(type="Account", id="acct:acme"),
    params={"cents": 1, "memo": "opened for the case"},
    purpose="",
    enforcer_class="gateway",
    person="",
    approvals={},
    breakglass=False,
    delegation_depth=0,
    root=BILLING,
    now_s=1,
    effect="permit",
    determining=["may"],
)
SUM = rule("sum", "forbid", "context.asserted.params.cents + 1 > 3")
DEEP = msgspec.structs.replace(bundle().policies[0], json="[" * 130 + "]" * 130)


def test_sound_laws_are_admitted_by_one_child_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = law(bundle(PERMIT, cases=[CASE])), law(bundle(domain="other", policies=[]))
    seen: list[str] = []
    real = cedar_child.parse_in_child

    def note(verb: str, data: bytes) -> cedar_child.Answer:
        seen.append(verb)
        return real(verb, data)

    monkeypatch.setattr(cedar_child, "parse_in_child", note)
    with ready() as engine:
        admit_laws([first, second, msgspec.structs.replace(first, bundle=None)], engine)
        admit_laws([second, first], engine)
        assert engine.holds(first.manifest.digest)
        assert engine.holds(second.manifest.digest)
    assert seen == ["examine"]


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("policy_invalid", lambda: law(bundle(PERMIT + SUM))),
        ("policy_too_deep", lambda: law(bundle(policies=[DEEP]))),
        ("policy_invalid", lambda: law(bundle(rule("a", "permit", "true", assurance="quorum")), floor="local")),
    ],
    ids=["lint", "gate", "floor"],
)
def test_what_fails_a_check_is_refused_and_not_loaded(code: str, make: Callable[[], Law]) -> None:
    made = make()
    with ready() as engine:
        with refuses(code):
            admit_laws([made], engine)
        assert not engine.holds(made.manifest.digest)


def test_a_law_whose_cases_fail_is_refused_again_and_again() -> None:
    made = law(bundle(PERMIT, cases=[msgspec.structs.replace(CASE, effect="deny", determining=[])]))
    with ready() as engine:
        for _ in range(2):
            with refuses("policy_tests_failed"):
                admit_laws([made], engine)
            assert not engine.holds(made.manifest.digest)


def test_without_a_check_there_is_no_admission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar_child, "_START", "raise SystemError")
    with ready() as engine, pytest.raises(Unavailable) as no:
        admit_laws([law(bundle())], engine)
    assert no.value.code == "engine_unavailable"
