"""`import mesh` is light, and what it offers is there when it is used."""

import subprocess
import sys

import pytest

import mesh
from tests.house.tree import ROOT

HEAVY = ("anyio", "asyncio", "msgspec", "nacl", "nats", "sqlite3", "ssl", "tempfile")


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_importing_costs_nothing() -> None:
    assert _python(f"import mesh, sys; print([name for name in {HEAVY!r} if name in sys.modules])") == "[]"


@pytest.mark.parametrize("name", mesh.__all__)
def test_every_name_offered_is_there(name: str) -> None:
    assert getattr(mesh, name).__name__ == name
    assert name in dir(mesh)


def test_a_name_not_offered_is_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = mesh.nothing_such  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "before", ["", "import mesh.verify", "from mesh.verify import Check", "mesh.verify; import mesh.verify", "import mesh.gate.front"]
)
def test_verify_is_the_function_whatever_was_imported_before(before: str) -> None:
    assert _python(f"import mesh; {before}\nprint(type(mesh.verify).__name__)") == "function"
