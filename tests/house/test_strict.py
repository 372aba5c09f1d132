"""Under CI a test that is left out counts as a failure; at a desk it is listed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.house.tree import ROOT

LEFT_OUT = {
    "skipped": "import pytest\n@pytest.mark.skip(reason='no wings')\ndef test_it(): ...\n",
    "skipped_inside": "import pytest\ndef test_it(): pytest.skip('no wings')\n",
    "whole_file": "import pytest\npytest.skip('no wings', allow_module_level=True)\n",
    "expected_to_fail": "import pytest\n@pytest.mark.xfail(reason='no wings')\ndef test_it(): assert False\n",
}


def _run(folder: Path, sources: dict[str, str], *args: str, strict: bool) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests/conftest.py", folder)
    for name, source in sources.items():
        (folder / f"test_{name}.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environ = {name: value for name, value in os.environ.items() if name != "MESH_STRICT"} | ({"MESH_STRICT": "1"} if strict else {})
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
    return subprocess.run(command, cwd=folder, env=environ, check=False, capture_output=True, text=True)


def test_a_test_that_is_left_out_fails_a_strict_run(tmp_path: Path) -> None:
    done = _run(tmp_path, LEFT_OUT, "--continue-on-collection-errors", strict=True)
    assert done.returncode == 1
    assert "2 failed, 2 errors" in done.stdout
    assert done.stdout.count("left out, which MESH_STRICT forbids: ") >= len(LEFT_OUT)


def test_a_deselected_test_fails_a_strict_run(tmp_path: Path) -> None:
    done = _run(tmp_path, {"one": "def test_it(): pass\ndef test_another(): pass\n"}, "-k", "another", strict=True)
    assert done.returncode == 1
    assert "test_it: deselected" in done.stdout


def test_a_test_that_is_left_out_is_listed_at_a_desk(tmp_path: Path) -> None:
    done = _run(tmp_path, LEFT_OUT | {"whole": "def test_it(): pass\n"}, strict=False)
    assert done.returncode == 0
    assert "left out: 4" in done.stdout
    assert "test_skipped.py::test_it: Skipped: no wings" in done.stdout
