"""The import contracts bite: each is shown one import that it must refuse."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

PLANTED = {
    "a core that reads the clock": ("mesh/core/planted.py", "import time", "pure"),
    "a clock inside a function": ("mesh/protocol/planted.py", "def f() -> None:\n    import datetime", "pure"),
    "a new part that reads the disk": ("mesh/planted.py", "import pathlib", "pure"),
    "a part without a place": ("mesh/planted.py", "", "downwards"),
    "a core that knows the machines": ("mesh/core/planted.py", "import mesh.protocol", "downwards"),
    "bytes that know statements": ("mesh/core/bytes/planted.py", "import mesh.core.run", "bytes-first"),
    "a second door to NATS": ("mesh/adapters/planted.py", "import nats", "nats-door"),
    "a second door to HTTP": ("mesh/adapters/planted.py", "import h11", "http-door"),
    "a second door to SQLite": ("mesh/adapters/planted.py", "import sqlite3", "sqlite-door"),
    "a second door to Cedar": ("mesh/adapters/planted.py", "import cedarpy", "cedar-door"),
    "a second signature check": ("mesh/adapters/planted.py", "import nacl.signing", "signature-door"),
    "a gate that knows the nodes": ("mesh/gate/planted.py", "import mesh.roles", "strangers"),
    "a world with a real network": ("mesh/testing/world/planted.py", "import mesh.adapters", "world"),
    "a node that leans on a test tool": ("mesh/roles/planted.py", "import mesh.testing", "downwards"),
}


@pytest.mark.parametrize("what", sorted(PLANTED))
def test_is_refused(tmp_path: Path, what: str) -> None:
    path, source, contract = PLANTED[what]
    shutil.copytree(ROOT / "mesh", tmp_path / "mesh", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("mesh", "mesh/adapters", "mesh/gate", "mesh/roles", "mesh/testing", "mesh/testing/world", str(Path(path).parent)):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / path).write_text(f"{source}\n")
    lint = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache", "--contract", contract]
    done = subprocess.run(lint, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 broken" in done.stdout, done.stdout + done.stderr
