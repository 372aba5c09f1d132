"""Reads the one style of YAML that we write, and nothing else: so that a test sees what a reader would."""

import json
import re
from typing import Any

__all__ = ["parse"]

_LINE = re.compile(r'( *)(- )?(?:("(?:[^"\\]|\\.)*"|[A-Za-z$][\w$-]*):(?: (.+))?|(.+))')


def parse(text: str) -> Any:
    """The document's value; AssertionError for any other style."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    value, rest = _block(lines, 0)
    assert not rest, rest[:1]
    return value


def _block(lines: list[str], indent: int) -> tuple[Any, list[str]]:
    sequence = lines[0].startswith(" " * indent + "- ")
    found: Any = [] if sequence else {}
    while lines and _depth(lines[0]) == indent and lines[0].startswith("- ", indent) is sequence:
        if sequence:
            item, lines = _item(lines, indent)
            found.append(item)
        else:
            name, item, lines = _pair(lines, indent)
            assert name not in found, name
            found[name] = item
    assert not lines or _depth(lines[0]) < indent, lines[0]
    return found, lines


def _item(lines: list[str], indent: int) -> tuple[Any, list[str]]:
    inner = " " * (indent + 2) + lines[0][indent + 2 :]
    match = _LINE.fullmatch(inner)
    assert match is not None, inner
    if match[3] is None:
        return json.loads(match[5]), lines[1:]
    return _block([inner, *lines[1:]], indent + 2)


def _pair(lines: list[str], indent: int) -> tuple[str, Any, list[str]]:
    match = _LINE.fullmatch(lines[0])
    assert match is not None, lines[0]
    assert match[3], lines[0]
    name = json.loads(match[3]) if match[3].startswith('"') else match[3]
    if match[4] is not None:
        return name, json.loads(match[4]), lines[1:]
    assert _depth(lines[1]) > indent, lines[0]
    value, rest = _block(lines[1:], _depth(lines[1]))
    return name, value, rest


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
