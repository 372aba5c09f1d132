"""Calls and parameters are each other's inverse, and a function's digest is that of what runs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Refused
from mesh.gate.arguments import Call, measure_code, measure_output, values
from mesh.limits import INT_MAX, LIST_ITEMS_MAX, STRING_CHARS_MAX
from tests.house.tree import ROOT

SCALARS = st.booleans() | st.integers(-INT_MAX, INT_MAX) | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = SCALARS | st.lists(SCALARS, max_size=5)


def function(first: Any, /, second: Any, third: Any = 3, *, fourth: Any = "4", fifth: Any = None) -> tuple[Any, ...]:
    return first, second, third, fourth, fifth


@given(st.lists(VALUES, min_size=2, max_size=3), st.dictionaries(st.sampled_from(["fourth", "fifth"]), VALUES))
def test_the_body_gets_what_the_caller_gave(args: list[Any], kwargs: dict[str, Any]) -> None:
    call = Call(function)
    positional, named = call.unbind(call.bind(tuple(args), kwargs))
    got, wanted = function(*positional, **named), function(*args, **kwargs)
    assert got == wanted
    assert [type(item) for item in got] == [type(item) for item in wanted]  # True is not 1


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), VALUES, max_size=6))
def test_a_copy_is_signed(given_: dict[str, Any]) -> None:
    copy = values(given_)
    assert copy == given_
    for name, value in given_.items():
        if isinstance(value, list):
            value.append(0)
            assert copy[name] != value


class Sneaky(str):
    """Equal today."""

    __slots__ = ()


@pytest.mark.parametrize("value", [None, 1.0, b"", (), {}, set(), [None], [[]], Sneaky("x"), [Sneaky("x")], object(), "\ud800"], ids=repr)
def test_only_plain_values_are_signed(value: Any) -> None:
    with pytest.raises(Refused) as caught:
        values({"value": value})
    assert caught.value.code == "params_mismatch"


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        (INT_MAX, True),
        (INT_MAX + 1, False),
        (-INT_MAX, True),
        (-INT_MAX - 1, False),
        ("x" * STRING_CHARS_MAX, True),
        ("x" * (STRING_CHARS_MAX + 1), False),
        ([0] * LIST_ITEMS_MAX, True),
        ([0] * (LIST_ITEMS_MAX + 1), False),
    ],
    ids=lambda value: str(value)[:24],
)
def test_limits_hold_at_the_gate(value: Any, allowed: bool) -> None:
    if allowed:
        assert values({"value": value}) == {"value": value}
        return
    with pytest.raises(Refused) as caught:
        values({"value": value})
    assert caught.value.code == "params_mismatch"


def test_a_name_that_cannot_stand_in_an_intent_is_refused_when_decorated() -> None:
    scope: dict[str, Any] = {}
    exec("def umlaut(gr\u00f6\u00dfe): ...", scope)  # noqa: S102 -- our own text
    with pytest.raises(TypeError):
        Call(scope["umlaut"])


SOURCE = """
def one(x):
    return x in {"a", "b", "c", "d"} and [y + 1.5 for y in (1, 2, None, ..., b"z")]
"""


def _measured(source: str) -> str:
    scope: dict[str, Any] = {}
    exec(compile(source, "anywhere.py", "exec"), scope)  # noqa: S102 -- our own text above
    return measure_code(scope["one"]).digest


def test_the_same_code_has_one_digest_wherever_it_stands() -> None:
    assert _measured(SOURCE) == _measured("\n\n\n" + SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("+ 1.5", "+ 1.25"), ("+ 1.5", "- 1.5"), ('"d"', '"e"'), ("x in", "x not in"), ("def one(x)", "def one(x, y=0)"), ("None", "1")],
)
def test_other_code_has_another_digest(old: str, new: str) -> None:
    assert _measured(SOURCE) != _measured(SOURCE.replace(old, new))


def test_a_digest_is_the_same_under_every_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(SOURCE)
    code = "from measured import one; from mesh.gate.arguments import measure_code; print(measure_code(one).digest)"
    path = os.pathsep.join((str(ROOT), str(tmp_path)))
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": path, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout.strip()
        for seed in ("0", "1", "2")
    }
    assert found == {_measured(SOURCE)}


def test_an_output_is_measured_by_its_bytes_or_its_canonical_form() -> None:
    assert measure_output("o", b"x").digest == measure_output("o", bytearray(b"x")).digest
    assert measure_output("o", {"b": 1, "a": 2}).digest == measure_output("o", {"a": 2, "b": 1}).digest
    assert measure_output("o", "x").digest != measure_output("o", b"x").digest


@pytest.mark.parametrize(("name", "value"), [("", 1), ("a b", 1), ("o", object()), ("o", "\ud800")], ids=repr)
def test_an_output_without_a_form_or_a_name_is_refused(name: str, value: object) -> None:
    with pytest.raises(Refused) as caught:
        measure_output(name, value)
    assert caught.value.code == "malformed"
