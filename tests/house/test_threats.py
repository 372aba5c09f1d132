"""The page of threats is shown, case by case: each test named there is one, each case has one of each kind, and what lacks is listed.

Not here: whether a test would fail if its promise were broken; whoever names it must have read it.
"""

import ast
import re
from typing import Final, NamedTuple

import pytest

from tests.house.tree import ROOT, files, parsed, text

PAGE: Final = "docs/threats.md"
ASKED: Final = (
    *("U", "U", "U", "U S", "U", "U", "U", "U", "U S", "U S", "S P", "S P", "S P", "U", "U", "U S", "U S", "U S", "S P"),
    *("U", "U", "S P", "S P", "P", "P", "S P", "S P", "P", "P", "U", "U", "U", "P", "P", "P S", "P", "U", "U"),
)
"""What kinds of test each case asks for, from the first on: nobody makes a case easier by changing its row."""
PROPERTIES: Final = 10
PROMISES: Final = tuple(f"I{number}" for number in range(1, 18))
NAMED: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
PLANTED: Final = re.compile(r"(?<!\*)\*([^*|]+)\*(?!\*)")
STARTING: Final = re.compile(r"\b(Cluster|Halves|NatsServer|Process|create_subprocess_exec|Popen)\b")
"""What starts real processes."""
OPEN: Final = re.compile(r"^\* \*\*(\d+) ([USP])\*\*, (missing|partly): \S", re.MULTILINE)


class Row(NamedTuple):
    """One case."""

    number: int
    words: tuple[str, ...]
    kinds: str
    shown: dict[str, str]
    """Kind to what shows it."""


def _section(title: str) -> str:
    return text(PAGE).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _table(title: str) -> list[list[str]]:
    rows = [line.strip().strip("|").split("|") for line in _section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def _cases() -> list[Row]:
    found = list[Row]()
    for number, *words, kinds, shown in _table("The cases"):
        parts = [part.partition(": ") for part in shown.split("<br>")]
        assert all(kind in {"U", "S", "P"} for kind, _, _ in parts), f"{number}: {shown}"
        found.append(Row(int(number), tuple(words), kinds, {kind: what for kind, _, what in parts}))
    return found


def _open() -> dict[tuple[int, str], str]:
    return {(int(number), kind): how for number, kind, how in OPEN.findall(_section("Open"))}


def _planted() -> dict[str, set[str]]:
    """Name of a planted bug to the promises that it may break."""
    for node in parsed("tests/world/mutants/planted.py").body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "MUTANTS":
            assert isinstance(node.value, ast.Dict)
            return {
                ast.literal_eval(key): {item.value for item in value.args if isinstance(item, ast.Constant)}  # type: ignore[misc]
                for key, value in zip(node.value.keys, node.value.values, strict=True)
                if key is not None and isinstance(value, ast.Call)
            }
    raise AssertionError


def _collected(path: str) -> set[str]:
    """Names of the tests that pytest finds in a file."""
    if path not in files() or not path.rpartition("/")[2].startswith("test_"):
        return set()
    return {node.name for node in parsed(path).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def _tests(words: str) -> set[tuple[str, str]]:
    return set(NAMED.findall(words))


def _is(kind: str, path: str) -> bool:
    match kind:
        case "S":
            return path.startswith("tests/world/")
        case "P":
            return path.startswith("tests/live/") or bool(STARTING.search(text(path)))
        case _:
            return True


def test_each_case_stands_there_once_and_asks_for_what_it_always_asked_for() -> None:
    cases = _cases()
    assert [case.number for case in cases] == list(range(1, len(ASKED) + 1))
    assert [case.kinds for case in cases] == list(ASKED)
    assert all(all(case.words) and len(case.words) == 3 for case in cases), "a cell is empty"


def test_every_test_that_is_named_is_a_test() -> None:
    named = re.findall(r"`(tests/[^`]+)`", text(PAGE))
    assert len(named) > len(ASKED)
    for one in named:
        path, _, name = one.partition("::")
        assert name in _collected(path), one


def test_every_planted_bug_that_is_named_is_planted() -> None:
    words = [what for case in _cases() for what in case.shown.values()] + [cell for row in _table(_WHATEVER) for cell in row]
    named = {name for what in words for name in PLANTED.findall(what)}
    assert named
    assert named <= _planted().keys(), named - _planted().keys()


@pytest.mark.parametrize("case", _cases(), ids=lambda case: str(case.number))
def test_a_case_is_shown_by_a_test_of_each_kind_or_is_open(case: Row) -> None:
    for kind in case.kinds.split():
        words, how = case.shown.get(kind, ""), _open().get((case.number, kind))
        tests = _tests(words)
        shown = bool(tests) or (kind == "S" and bool(PLANTED.findall(words)))
        assert shown != (how == "missing"), f"{case.number} {kind}: " + ("is said to be missing, and is there" if shown else "no test")
        assert how != "partly" or shown
    for kind, words in case.shown.items():
        for path, name in _tests(words):
            assert _is(kind, path), f"{case.number} {kind}: {path}::{name} is of another kind"


def test_what_is_open_is_a_short_list_of_cases_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    entries = _open()
    assert len(entries) == len(re.findall(r"^\* ", _section("Open"), re.MULTILINE)), "an entry that nobody can read"
    assert all(kind in ASKED[number - 1].split() for number, kind in entries)
    assert len(entries) <= 10
    with capsys.disabled():  # whoever runs the tests of the house reads it
        print("".join(f"\nopen: threat {number} {kind}, {how}" for (number, kind), how in entries.items()))  # noqa: T201


_WHATEVER: Final = "What holds whichever attack comes"


def test_every_property_has_a_test_beyond_the_table() -> None:
    of_cases = {test for case in _cases() for what in case.shown.values() for test in _tests(what)}
    rows = _table(_WHATEVER)
    assert len(rows) == PROPERTIES
    for words, shown in rows:
        assert words
        assert _tests(shown) - of_cases, words


def test_every_promise_of_the_worlds_is_checked_somewhere_and_broken_by_a_planted_bug() -> None:
    rows = _table("What is looked at after every event of a world")
    assert [row[0].partition(":")[0] for row in rows] == list(PROMISES)
    told = ast.get_docstring(parsed("mesh/testing/world/promises.py")) or ""
    assert re.findall(r"^(I\d+) ", told, re.MULTILINE) == list(PROMISES)
    for (promise, _, _), (_, where, bugs) in zip((row[0].partition(":") for row in rows), rows, strict=True):
        modules = re.findall(r"`(mesh/[\w/]+\.py)`", where)
        assert modules
        assert all((ROOT / module).exists() for module in modules)
        assert any(f'"{promise}"' in text(module) for module in modules), f"{promise} is checked in none of {modules}"
        named = PLANTED.findall(bugs)
        assert named
        assert all(_planted()[name] == {promise} for name in named), f"{promise}: {named} may break another one"
