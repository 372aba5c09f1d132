"""No policy, schema or JSON reaches Cedar's parser nested so deeply that it could take the process down.

The parser recurses without a bound of its own: about a thousand brackets end an 8 MB stack, ninety a 1 MB stack, with a
segmentation fault instead of an exception. So brackets and ifs are counted here first, by a scanner without recursion that
knows strings and comments and never guesses: what it cannot read is refused.

Not here: meaning (:mod:`mesh.adapters.cedar`).
"""

import re
from collections.abc import Iterator
from typing import Final

from mesh.errors import Refused
from mesh.limits import POLICY_BYTES_MAX, POLICY_DEPTH_MAX, POLICY_JSON_BYTES_MAX, POLICY_JSON_DEPTH_MAX, SCHEMA_BYTES_MAX

__all__ = ["gate_json", "gate_policies", "gate_schema"]

# Comments end where Cedar's end, at either line break: else a carriage return could hide brackets from this scanner only.
_POLICY: Final = re.compile(r'//[^\n\r]*|"(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_]*|[()\[\]{}]|[;,"]', re.DOTALL)
_SCHEMA: Final = re.compile(r'//[^\n\r]*|"(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_]*|[()\[\]{}<>]|[;,"]', re.DOTALL)
_JSON: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]|"', re.DOTALL)
_PAIRS: Final = {")": "(", "]": "[", "}": "{", ">": "<"}


def gate_policies(text: str, where: str) -> None:
    """That the policies of one file may be handed to the parser, in a child process, to begin with.

    Raises:
        Refused: ``too_large`` if one statement is, ``policy_too_deep``, ``policy_invalid``.
    """
    ifs = [0]
    start = 0
    for mark, depth, end in _walk(text, where, _POLICY):
        if mark in "([{":
            ifs.append(0)
        elif mark in ")]}":
            ifs.pop()
        elif mark == "if":
            ifs[-1] += 1  # all ifs between two commas count as nested: never too few
        elif mark == ",":
            ifs[-1] = 0
        if depth > POLICY_DEPTH_MAX or sum(ifs) > POLICY_DEPTH_MAX:
            raise Refused("policy_too_deep", f"{where}: more than {POLICY_DEPTH_MAX} nested brackets or ifs")
        if mark == ";" and depth == 0:
            _check_size(text[start:end], POLICY_BYTES_MAX, where)
            start, ifs = end, [0]
    _check_size(text[start:], POLICY_BYTES_MAX, where)


def gate_schema(text: str, where: str) -> list[str]:
    """The entity types that the schema declares, if it may be handed to the parser and declares nothing else.

    Raises:
        Refused: ``too_large``, ``policy_too_deep``, ``policy_invalid``.
    """
    _check_size(text, SCHEMA_BYTES_MAX, where)
    names: list[str] = []
    head: list[str] = []
    for mark, depth, _ in _walk(text, where, _SCHEMA):
        if depth > POLICY_DEPTH_MAX:
            raise Refused("policy_too_deep", f"{where}: more than {POLICY_DEPTH_MAX} nested brackets")
        if depth == 0 and mark == ";":
            names += _declared(head, where)
            head = []
        elif depth == 0 and mark not in ")]}>":
            head.append(mark)
    if head:
        _declared(head, where)
        raise Refused("policy_invalid", f"{where}: the last declaration does not end with ';'")
    return names


def gate_json(text: str, where: str) -> None:
    """That one policy in JSON form may be handed to the reader.

    Raises:
        Refused: ``too_large``, ``policy_too_deep``, ``policy_invalid``.
    """
    _check_size(text, POLICY_JSON_BYTES_MAX, where)
    depth = 0
    for match in _JSON.finditer(text):
        mark = match[0]
        if mark in "[{":
            depth += 1
            if depth > POLICY_JSON_DEPTH_MAX:
                raise Refused("policy_too_deep", f"{where}: more than {POLICY_JSON_DEPTH_MAX} nested JSON brackets")
        elif mark in "]}":
            depth -= 1
        elif mark == '"':
            raise Refused("policy_invalid", f"{where}: a string does not end")


def _walk(text: str, where: str, marks: re.Pattern[str]) -> Iterator[tuple[str, int, int]]:
    """Token, bracket depth after it (of an opening one) or at it, and where it ends; no strings, no comments."""
    open_brackets: list[str] = []
    for match in marks.finditer(text):
        mark = match[0]
        if mark == '"':
            raise Refused("policy_invalid", f"{where}: a string does not end")
        if mark.startswith(("//", '"')):
            continue
        if mark in "([{<":
            open_brackets.append(mark)
        elif mark in _PAIRS and (not open_brackets or open_brackets.pop() != _PAIRS[mark]):
            raise Refused("policy_invalid", f"{where}: {mark!r} closes nothing")
        yield mark, len(open_brackets), match.end()
    if open_brackets:
        raise Refused("policy_invalid", f"{where}: {open_brackets[-1]!r} is never closed")


def _check_size(text: str, bytes_max: int, where: str) -> None:
    if len(text.encode()) > bytes_max:
        raise Refused("too_large", f"{where}: more than {bytes_max} bytes")


def _declared(head: list[str], where: str) -> list[str]:
    """The names in ``entity A, B in … ;``, seen without what stands in brackets."""
    words = iter(head)
    if next(words, "") != "entity":
        raise Refused("policy_invalid", f"{where}: only entity types are declared here; actions stand in domain.toml")
    names: list[str] = []
    for word in words:
        if word in {"in", "tags", "enum"}:
            break
        if word != ",":
            names.append(word)
    return names
