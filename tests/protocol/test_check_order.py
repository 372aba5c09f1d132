"""Of several things that are wrong with an intent the earliest step is named, whatever else is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, DeniedAnswer, RefusedAnswer, unpack_answer
from mesh.core.run.authorization import Denial
from mesh.protocol.documents import Documents
from mesh.protocol.intake import Intake, IntentArrived
from mesh.protocol.lineage import Writer
from tests.protocol.checkorder import GOVERNOR, STEPS, Case
from tests.protocol.machines import LAB, ME, MESH, NOW, answers, empty_log


def code_of(case: Case) -> str:
    writer = Writer(empty_log(LAB.roster.origin(ME)), mesh=MESH, now_ms=NOW)
    intake = Intake(governance=case.governance, me=ME, writer=writer, documents=Documents(), engine=LAB.engine, known={})
    intake.take([IntentArrived(0, case.request)], case.stale)
    writer.finish(empty_log(LAB.roster.origin(ME)))
    match unpack_answer(answers(intake.effects)[0]):
        case Authorized():
            return ""
        case RefusedAnswer(code=code):
            return code
        case DeniedAnswer(denial=denial):
            return envelope.read(Denial, bytes(denial)).claims.code


def test_with_nothing_wrong_it_is_permitted() -> None:
    assert code_of(Case()) == ""


@pytest.mark.parametrize("what", GOVERNOR)
def test_each_step_finds_what_is_its_own(what: str) -> None:
    step, code, change = GOVERNOR[what]
    case = Case()
    change(case)
    assert code_of(case) == code
    assert 1 <= step <= len(STEPS)


def test_every_step_is_shown() -> None:
    assert {step for step, _, _ in GOVERNOR.values()} == set(range(1, len(STEPS) + 1))


@settings(max_examples=300)
@given(st.lists(st.sampled_from(sorted(GOVERNOR)), min_size=2, max_size=5, unique=True))
def test_of_several_the_earliest_step_is_named(names: list[str]) -> None:
    case = Case()
    for name in names:
        GOVERNOR[name][2](case)
    step = min(GOVERNOR[name][0] for name in names)
    first = {code for at, code, _ in GOVERNOR.values() if at == step}
    # An intent that is not alive may be sent again by anybody: it is turned away unrecorded before a halt is named, and by nothing else.
    if step == 5 and "an intent that is over" in names:
        first = {"intent_expired"}
    assert code_of(case) in first
