"""The files of the project as git sees them: tracked ones, and new ones that are not ignored."""

import ast
import subprocess
from functools import cache
from pathlib import Path

__all__ = ["ROOT", "files", "modules", "parsed", "strings", "text"]

ROOT = Path(__file__).resolve().parents[2]


@cache
def files(pattern: str = "**") -> tuple[str, ...]:
    """Paths below the root, POSIX spelling, sorted; ``pattern`` is a git pathspec."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", f":(glob){pattern}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(sorted(path for path in set(listed.split("\0")) if path and (ROOT / path).is_file()))


def modules(folder: str) -> tuple[str, ...]:
    """The Python files below ``folder``."""
    return files(f"{folder}/**/*.py")


@cache
def text(path: str) -> str:
    """A file's text; what is not UTF-8 has none."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@cache
def parsed(path: str) -> ast.Module:
    """A Python file's syntax tree."""
    return ast.parse(text(path), path)


@cache
def strings(path: str) -> frozenset[str]:
    """Every string that stands alone in a Python file's code: not docstrings' words, not parts of longer strings."""
    return frozenset(node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str))
