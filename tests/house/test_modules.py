"""Every module says what it promises, names what it offers, and is short enough to be read at once."""

import ast

import pytest

from tests.house.tree import modules, parsed, text

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60


@pytest.mark.parametrize("folder", ["mesh", "tests"])
def test_every_module_is_short(folder: str) -> None:
    assert not [path for path in modules(folder) if len(text(path).splitlines()) > MODULE_LINES_MAX]


@pytest.mark.parametrize("folder", ["mesh", "tests"])
def test_every_function_is_short(folder: str) -> None:
    found = [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for path in modules(folder)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not found, "\n".join(found)


def test_every_module_begins_with_its_promise() -> None:
    assert not [path for path in modules("mesh") if not (ast.get_docstring(parsed(path)) or "").splitlines()[:1]]


def test_every_module_that_has_anything_names_what_it_offers() -> None:
    bare = [path for path in modules("mesh") if len(parsed(path).body) > 1 and _offered(path) is None]
    assert not bare, "\n".join(bare)


def test_every_name_offered_is_there_once() -> None:
    for path in modules("mesh"):
        offered = _offered(path) or []
        assert len(offered) == len(set(offered)), path
        if path.endswith("__init__.py"):
            continue  # a front door may open lazily; its own tests import each name
        assert set(offered) <= _bound(parsed(path)), f"{path}: {sorted(set(offered) - _bound(parsed(path)))}"


def _offered(path: str) -> list[str] | None:
    for node in parsed(path).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                return list(ast.literal_eval(value))
            case _:
                pass
    return None


def _bound(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=asname):
                names.add(asname or name)
            case _:
                pass
    return names
