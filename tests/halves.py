"""All tests in two runs side by side: those that start processes wait more than they compute, the others never wait.

What the first half prints is shown when it is through, behind the other's, so that each can be read.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

__all__: Sequence[str] = []

_HERE: Final = Path(__file__).parent
WAITING: Final = ("live", "dev", "bench")
"""Folders below this one whose tests start processes; every other one is in the other half."""


def _halves() -> tuple[list[str], list[str]]:
    waiting = [f"{_HERE.name}/{folder}" for folder in WAITING]
    missing = [path for path in waiting if not (_HERE.parent / path).is_dir()]
    if missing:
        sys.exit(f"no such folder: {', '.join(missing)}")
    return waiting, [f"--ignore={path}" for path in waiting]


def _main(arguments: Sequence[str]) -> int:
    waiting, computing = _halves()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or the first half would go on alone
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]  # one cache is not for two
    with tempfile.TemporaryFile() as kept:
        first = subprocess.Popen(
            [*run, *waiting],
            cwd=_HERE.parent,
            stdout=kept,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            second = subprocess.run([*run, *computing], cwd=_HERE.parent, check=False).returncode
            codes = (first.wait(), second)
        finally:
            if first.poll() is None:  # what it has started ends with it
                os.killpg(first.pid, signal.SIGTERM)
                first.wait()
            kept.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(kept.read())
            sys.stdout.flush()
    if arguments and set(codes) == {0, pytest.ExitCode.NO_TESTS_COLLECTED}:  # what was asked for is all in one half
        return 0
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
