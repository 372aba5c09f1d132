"""Every reason to say no is raised somewhere and provoked by a test; every bound bounds something and is tested."""

import ast
import re
from collections.abc import Iterable

import pytest

from mesh import limits
from mesh.codes import CODES
from tests.house.tree import modules, parsed, strings, text

RAISED = {"Refused", "Unavailable", "Alarm"}


def _code() -> list[str]:
    return [path for path in modules("mesh") if path != "mesh/limits.py" and not path.startswith("mesh/codes/")]


def _tests() -> list[str]:
    return [path for path in modules("tests") if not path.startswith("tests/house/")]


def test_every_code_is_raised_somewhere() -> None:
    assert _missing(CODES, _strings(_code())) == []


def test_every_code_is_provoked_by_a_test() -> None:
    assert _missing(CODES, _strings(_tests())) == []


def test_every_code_that_is_raised_is_registered() -> None:
    for path in modules("mesh"):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(code)), *_]) if (
                    name in RAISED
                ):
                    assert code in CODES, f"{path}:{node.lineno}: {code!r}"
                case _:
                    pass


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_one_word_with_advice(code: str) -> None:
    entry = CODES[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert entry.meaning
    assert not entry.meaning.endswith(".")
    assert entry.raised_by
    assert entry.fix.endswith(".")


def test_every_limit_bounds_something() -> None:
    assert _missing(limits.__all__, _words(_code())) == []


def test_every_limit_is_tested() -> None:
    assert _missing(limits.__all__, _words(_tests())) == []


def _missing(registered: Iterable[str], found: set[str]) -> list[str]:
    return sorted(set(registered) - found)


def _strings(paths: list[str]) -> set[str]:
    return {value for path in paths for value in strings(path)}


def _words(paths: list[str]) -> set[str]:
    return {word for path in paths for word in re.findall(r"[A-Z][A-Z0-9_]+", text(path))}
