"""What the documentation shows about adapters and programs runs as it stands."""

import subprocess
import sys

from tests.house.tree import ROOT


def test_the_example_of_an_adapter_and_a_program_passes_as_it_stands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", "test_my_adapter.py"],
        cwd=ROOT / "docs" / "examples",
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert "18 passed" in done.stdout, done.stdout + done.stderr
