"""What is installed is pinned by hash, the same wherever it is installed, and names no place it comes from."""

import re
import tomllib
from typing import Any

import pytest

from tests.house.tree import files, text

PROJECT: dict[str, Any] = tomllib.loads(text("pyproject.toml"))
FILES = ("base", "runtime", "dev")
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;]+)", re.MULTILINE)


def _pins(name: str) -> dict[str, str]:
    return dict(PIN.findall(text(f"requirements/{name}.txt")))


def _named(requirements: list[Any]) -> set[str]:
    names = {re.split(r"[^A-Za-z0-9_.-]", one)[0].lower().replace("_", "-") for one in requirements if isinstance(one, str)}
    return names - {"govmesh"}


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_by_hash(name: str) -> None:
    for block in re.split(r"\n(?=\S)", text(f"requirements/{name}.txt").strip()):
        assert PIN.match(block), block
        assert "--hash=sha256:" in block, block


def test_each_file_holds_the_one_before_it() -> None:
    base, runtime, dev = map(_pins, FILES)
    assert base.items() <= runtime.items() <= dev.items()


def test_every_dependency_is_pinned() -> None:
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    extras = _named([one for extra in project["optional-dependencies"].values() for one in extra])
    assert _named(project["dependencies"]) <= _pins("base").keys()
    assert extras | _named(groups["build"]) <= _pins("runtime").keys()
    assert _named(groups["dev"]) <= _pins("dev").keys()


def test_the_base_install_stays_small() -> None:
    assert _named(PROJECT["project"]["dependencies"]) == {"blake3", "click", "msgspec", "pynacl"}


def test_the_wheel_shows_the_readme() -> None:
    assert PROJECT["project"].get("readme") == ("README.md" if "README.md" in files() else None)
