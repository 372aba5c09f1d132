"""The page of all reasons to say no is what registry, source and tests say."""

import ast
import re

from mesh.codes import CODES
from tests.house.denials import PAGE, _said, enforcer_steps, rendered
from tests.house.tree import ROOT, text
from tests.protocol.checkorder import GOVERNOR
from tests.protocol.test_enforcer import TABLE


def test_the_page_of_denials_is_what_registry_source_and_tests_say() -> None:
    assert text(PAGE) == rendered(), "python -m tests.house.denials"


def test_every_code_has_a_row_with_a_place_that_raises_it_and_a_test_that_is_there() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line.split("|")
        for line in text(PAGE).partition("## All codes")[2].splitlines()
        if "| `" in line[:3]
    }
    assert set(rows) == set(CODES)
    for code, row in rows.items():
        assert re.search(r"`mesh/[\w/]+\.py`", row[4]), code
        path, _, name = row[6].strip(" `").partition("::")
        assert (ROOT / path).is_file(), code
        assert not name or f"def {name}(" in text(path), code


def test_every_step_of_both_orders_is_in_it_with_its_codes() -> None:
    assert sorted(enforcer_steps()) == sorted({step for step, _, _ in TABLE.values()}) == list(range(1, 12))
    for _, code, _ in [*TABLE.values(), *GOVERNOR.values()]:
        assert f"`{code}`" in text(PAGE).partition("## All codes")[0]


def test_who_raises_a_code_is_read_from_the_source_and_not_where_it_is_only_compared_with() -> None:
    said = list(_said(ast.parse("raise Refused('a', x)\ndef f():\n return 'b' if y else 'c'\nif code == 'd':\n  Blocked(code='e')\n")))
    assert sorted(said) == ["a", "b", "c", "e"]


def test_the_page_names_no_code_that_is_none() -> None:
    named = set(re.findall(r"^\| `(\w+)`", text(PAGE), re.MULTILINE))
    assert named <= set(CODES)
