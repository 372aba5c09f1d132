"""Where each field of a value stands in its canonical bytes: the fields come from the types themselves, so a new one is there by itself."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

__all__ = ["Field", "fields_of", "spans"]

Field = tuple[str, str]
"""Name of the struct, and of its field on the wire."""


class Span(NamedTuple):
    """The bytes of one field's value."""

    field: Field
    start: int
    end: int


def fields_of(*kinds: Any) -> set[Field]:
    """Every field of every struct that values of these types may hold."""
    found, seen, waiting = set[Field](), set[type](), [msgspec.inspect.type_info(kind) for kind in kinds]
    while waiting:
        info: Any = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls not in seen:
                seen.add(info.cls)
                found |= {(info.cls.__name__, field.encode_name) for field in info.fields}
                waiting += [field.type for field in info.fields]
        else:
            waiting += [
                *getattr(info, "types", ()),
                *(getattr(info, name) for name in ("item_type", "value_type", "type") if hasattr(info, name)),
            ]
    return found


def spans(value: Any, data: bytes) -> list[Span]:
    """The fields of ``value``, which ``data`` is the canonical encoding of; inner ones after those around them."""
    found = list[Span]()
    end = _walk(value, data, 0, found)
    assert end == len(data)
    return found


def _walk(value: Any, data: bytes, at: int, found: list[Span]) -> int:
    if isinstance(value, msgspec.Struct):
        names = {field.encode_name: getattr(value, field.name) for field in msgspec.structs.fields(value)}
        for name, start in _members(data, at):
            mark = len(found)
            end = _walk(names[name], data, start, found) if name in names else _skip(data, start)
            if name in names:
                found.insert(mark, Span((type(value).__name__, name), start, end))
    elif isinstance(value, dict):
        for name, start in _members(data, at):
            _walk(value.get(name), data, start, found)
    elif isinstance(value, list):
        at += 1
        for item in value:
            at = _walk(item, data, at, found) + 1
        return at if value else at + 1
    return _skip(data, at) if not isinstance(value, list) else at


def _members(data: bytes, at: int) -> Iterator[tuple[str, int]]:
    """Names of an object's members, and where their values begin."""
    at += 1
    while data[at : at + 1] != b"}":
        end = _skip(data, at)
        yield msgspec.json.decode(data[at:end]), end + 1
        at = _skip(data, end + 1)
        at += data[at : at + 1] == b","


def _skip(data: bytes, at: int) -> int:
    """Where the value that begins at ``at`` ends."""
    if data[at : at + 1] == b'"':
        at += 1
        while data[at : at + 1] != b'"':
            at += 2 if data[at : at + 1] == b"\\" else 1
        return at + 1
    if data[at : at + 1] in {b"{", b"["}:
        depth = 0
        while True:
            char = data[at : at + 1]
            if char == b'"':
                at = _skip(data, at)
                continue
            depth += char in {b"{", b"["}
            depth -= char in {b"}", b"]"}
            at += 1
            if depth == 0:
                return at
    while at < len(data) and data[at : at + 1] not in {b",", b"}", b"]"}:
        at += 1
    return at
