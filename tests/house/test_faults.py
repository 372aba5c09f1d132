"""Every way in which a governor makes something durable is in the fault table, and the table for readers is that one."""

import ast
from typing import get_args

from mesh.protocol.step import FAILPOINTS, HeadUse, InsertOnce, Persist, PutNote
from tests.house.tree import modules, parsed, text
from tests.roles.faultdesk import FAULTS
from tests.roles.faults import STEPS, rendered

FACTS = {
    "INCARNATION": "SetMeta incarnation",
    "REFILLED": "SetMeta refilled",
    "ROSTER_EPOCH": "SetMeta roster epoch",
    "refused_key(state.origin)": "SetMeta refused",
    "conflict_key(state.origin)": "SetMeta conflict",
    "_meta(origin, key)": "SetMeta heard",
    "pruned_key(origin)": "SetMeta pruned",
    "_meta(origin, oldest)": "SetMeta heard",
}
"""How the machines name the small facts that they keep."""
NEVER = {"SetHead log other"}
"""Only its owner signs a log."""
SPLIT = {"Append", "SetHead", "PutNote", "InsertOnce", "SetMeta"}
"""Effects of which the table has a row for each use."""


def _facts() -> set[str]:
    return {
        ast.unparse(node.args[0])
        for path in modules("mesh/protocol")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SetMeta"
    }


def _literals(kind: type, name: str) -> tuple[str, ...]:
    return get_args(kind.__annotations__[name])


def test_every_effect_that_a_machine_can_ask_for_is_in_the_fault_table() -> None:
    effects = {kind.__name__ for kind in get_args(Persist)} - SPLIT
    effects |= {f"Append {whose}" for whose in ("own", "other")}
    effects |= {f"SetHead {use} {whose}" for use in get_args(HeadUse) for whose in ("own", "other")}
    effects |= {f"PutNote {space}" for space in _literals(PutNote, "space")}
    effects |= {f"InsertOnce {space}" for space in _literals(InsertOnce, "space")}
    assert _facts() == set(FACTS), "a fact is kept that the table does not know"
    effects |= set(FACTS.values())
    assert effects - NEVER == {item for row in STEPS for item in row.writes}


def test_every_failpoint_is_in_the_fault_table_and_each_step_fails_persisted_and_not() -> None:
    assert set(FAILPOINTS) <= set(FAULTS)
    assert set(FAULTS.values()) == {True, False}


def test_the_fault_table_for_readers_is_the_one_that_is_tested() -> None:
    assert text("docs/faults.md") == rendered()
