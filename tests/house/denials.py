"""The page of all reasons to say no, made from the registry, the source and the tests.

``python -m tests.house.denials`` writes it, :file:`docs/denials.md`; a house test keeps it so.

Rules
-----
1. Who raises a code is read from the syntax trees of the package: where it is handed to an error, an answer or an event, or returned.
2. The test beside it is one in which the code stands, as for the test that every code is provoked: where a code is compared with it
   rather than in a table that a test goes through, there rather than where it is only mentioned; of these the first by name. Codes of
   the two orders of checks are provoked by the tests of these.
3. The order of checks comes from the tables that are tested.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mesh.codes import CODES, again
from mesh.protocol import enforcer
from tests.house.tree import ROOT, modules, parsed, strings
from tests.protocol.checkorder import GOVERNOR, STEPS
from tests.protocol.test_enforcer import TABLE

__all__ = ["PAGE", "enforcer_steps", "rendered"]

PAGE: Final = "docs/denials.md"
_SAYING: Final = frozenset({"Refused", "Unavailable", "Alarm", "Denied", "Aborted", "RefusedAnswer", "Blocked", "AbortedEvent", "Shed"})
_TOOLS: Final = ("mesh/bench/", "mesh/contracts/", "mesh/dev/", "mesh/testing/")
"""What shows and measures a mesh, and is none."""
_TELLING: Final = frozenset({"tests/gate/test_contract.py", "tests/gate/test_denials.py", "tests/gate/test_fakegate.py"})
"""Tests in which codes are told to somebody, not provoked."""
_SHOWN_MAX: Final = 3
_OF_GOVERNORS: Final = "tests/protocol/test_check_order.py::test_each_step_finds_what_is_its_own"
_OF_ENFORCERS: Final = "tests/protocol/test_enforcer.py::test_without_one_condition_it_is_refused_by_its_own_code"
_AGAIN: Final = {"later": "later", "anew": "as a new request", "no": "no"}

_HEAD: Final = """\
# Every reason to say no

For whoever gets a denial, or writes something that passes one on. This page is made by `python -m tests.house.denials` from the
registry (`mesh/codes/`), the source and the tests; what is missing or wrong here fails the build. `mesh explain CODE` says what to do.

## In a program

* `mesh.Denied`: it did not run. `code` is for programs, `reason` for people who operate the mesh, and `safe` for everybody else: a text
  of the registry's words only, so nobody who wrote a policy or a parameter speaks through it to a user or a language model.
* `mesh.ApprovalRequired`: a `Denied` of its own kind. People have to approve exactly this, by `mesh approve INTENT`, with `intent` in it.
* `mesh.Aborted`: it ran, and was ended.
* `retry_after`: after how many seconds trying again may help, 0 for at once, as a new request; None where it does not help. Whoever tries
  again asks for a new effect: what may have happened already (`used`) is never advised to be tried again.

The [ASGI middleware](../mesh/gate/asgi.py) answers 403 with `{"code", "detail", "retry_after"?}`, `detail` being `safe`, and
`Retry-After`; 428, with `intent` beside it, where people have to approve. Whoever writes another adapter shows with
[one suite](examples/test_my_adapter.py) that it fails closed.

## In which order

Of several things that are wrong the earliest step names the code, whatever else is wrong.

A governor, by `tests/protocol/test_check_order.py` (what cannot be read is refused before: `too_large`, `malformed`, `non_canonical`,
`wrong_kind`; a halt is not named for an intent that is not alive):

"""
_MIDDLE: Final = """
An enforcer, by `tests/protocol/test_enforcer.py`; what revokes and halts is asked again after the intent was spent, and after its start
was recorded:

"""
_TABLE: Final = """
## All codes

*Trying again* means: as it is, without anybody mending anything.

| code | what it means | who says so | raised in | trying again | a test that provokes it |
|---|---|---|---|---|---|
"""


def enforcer_steps() -> dict[int, str]:
    """The steps as the enforcer's own docstring has them, by number."""
    text = (enforcer.__doc__ or "").partition("The order of")[2].partition("Then the shell")[0]
    found = dict[int, str]()
    for line in text.splitlines():
        if match := re.match(r" ?(\d+)\. (.*)", line):
            found[int(match[1])] = match[2]
        elif found and line.startswith("    "):
            found[max(found)] += f" {line.strip()}"
    return {number: step.replace("``", "`") for number, step in found.items()}


def rendered() -> str:
    """The whole page."""
    governor = _order(dict(enumerate(STEPS, 1)), [(step, code) for step, code, _ in GOVERNOR.values()])
    enforcing = _order(enforcer_steps(), [(step, code) for step, code, _ in TABLE.values()])
    raised, tests = _raised(), _tests()
    rows = [_row(code, raised[code], tests.get(code, "")) for code in CODES]
    return "".join([_HEAD, *governor, _MIDDLE, *enforcing, _TABLE, *rows])


def _order(steps: Mapping[int, str], found: Sequence[tuple[int, str]]) -> Iterator[str]:
    yield "| step | what must hold | codes |\n|---|---|---|\n"
    for number, step in steps.items():
        codes = dict.fromkeys(code for at, code in found if at == number)
        yield f"| {number} | {step} | {', '.join(f'`{code}`' for code in codes)} |\n"


def _row(code: str, places: Sequence[str], test: str) -> str:
    entry = CODES[code]
    shown = ", ".join(f"`{place}`" for place in places[:_SHOWN_MAX]) + (
        f" and {len(places) - _SHOWN_MAX} more" if len(places) > _SHOWN_MAX else ""
    )
    return f"| `{code}` | {entry.meaning} | {entry.raised_by} | {shown} | {_AGAIN[again(code)]} | `{test}` |\n"


def _raised() -> dict[str, list[str]]:
    """Rule 1; where a code is said in no such way, wherever it stands."""
    said: dict[str, list[str]] = {code: [] for code in CODES}
    paths = [path for path in modules("mesh") if not path.startswith("mesh/codes/") and not path.startswith(_TOOLS)]
    for path in paths:
        for code in sorted(set(_said(parsed(path))) & CODES.keys()):
            said[code].append(path)
    return {code: places or [path for path in paths if code in strings(path)] for code, places in said.items()}


def _said(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords):
                yield from _words([*args[:1]] if name in _SAYING else [])
                yield from _words([keyword.value for keyword in keywords if keyword.arg == "code"])
            case ast.Return(value=ast.expr() as value):
                yield from _words([value])
            case _:
                pass


def _words(values: Sequence[ast.expr]) -> Iterator[str]:
    """Constants among them, also of conditional expressions."""
    for value in values:
        match value:
            case ast.Constant(value=str(word)):
                yield word
            case ast.IfExp(body=body, orelse=other):
                yield from _words([body, other])
            case ast.Tuple(elts=parts):
                yield from _words(parts)
            case _:
                pass


def _tests() -> dict[str, str]:
    """Rule 2."""
    found = dict[str, tuple[int, str]]()
    for path in modules("tests"):
        if path.startswith("tests/house/") or path in _TELLING or not path.rpartition("/")[2].startswith("test_"):
            continue
        for rank, word, name in _mentions(parsed(path)):
            if word in CODES:
                found[word] = min(found.get(word, (9, "")), (rank, f"{path}::{name}" if name else path))
    ordered = dict.fromkeys((code for _, code, _ in GOVERNOR.values()), _OF_GOVERNORS)
    ordered.update(dict.fromkeys((code for _, code, _ in TABLE.values()), _OF_ENFORCERS))
    return {**{code: place for code, (_, place) in found.items()}, **ordered}


def _mentions(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(how little it says, word, name of the test function or nothing)."""
    tables = {name: _constants(top) for top in tree.body for name in _bound(top)}
    for top in tree.body:
        if not isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef) or not top.name.startswith("test_"):
            yield from ((3, word, "") for word in _constants(top))
            continue
        compared = [
            node
            for node in ast.walk(top)
            if isinstance(node, ast.Compare) and _constants(node) & CODES.keys() and "code" in ast.unparse(node)
        ]
        through = {name.id for decorator in top.decorator_list for name in ast.walk(decorator) if isinstance(name, ast.Name)}
        listed = [*map(_constants, top.decorator_list), *(tables[name] for name in through if name in tables)]
        yield from ((0, word, top.name) for node in compared for word in _constants(node))
        yield from ((1, word, top.name) for words in listed for word in words)
        yield from ((2, word, top.name) for word in _constants(top))


def _bound(top: ast.stmt) -> list[str]:
    match top:
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def _constants(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


if __name__ == "__main__":
    (ROOT / PAGE).write_text(rendered(), encoding="utf-8")
