"""Plain values as YAML 1.2 text, in the one style that no reader can take for something else.

Block style; every string in double quotes, which YAML shares with JSON; so no version number becomes a float, no "no" a
boolean, no time a number of seconds. Comments stand above a key.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

__all__ = ["to_yaml"]

_KEY = re.compile(r"[A-Za-z$][A-Za-z0-9_$-]*")
_TAKEN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def to_yaml(value: Mapping[str, object], *, comments: Mapping[str, str] | None = None) -> str:
    """``value`` as a YAML document.

    Args:
        value: mappings with string keys, sequences, strings, integers and booleans.
        comments: dotted path of a key to what stands above it.
    """
    return "\n".join(_mapping(value, "", "", comments or {})) + "\n"


def _mapping(value: Mapping[str, object], indent: str, path: str, comments: Mapping[str, str]) -> Iterator[str]:
    for name, item in value.items():
        here = f"{path}.{name}" if path else name
        if here in comments:
            yield from (f"{indent}# {line}" for line in comments[here].splitlines())
        yield from _entry(f"{indent}{_key(name)}:", item, indent + "  ", here, comments)


def _entry(head: str, item: object, indent: str, path: str, comments: Mapping[str, str]) -> Iterator[str]:
    if isinstance(item, Mapping) and item:
        yield head
        yield from _mapping(cast("Mapping[str, object]", item), indent, path, comments)
    elif isinstance(item, Sequence) and not isinstance(item, str) and item:
        yield head
        for one in cast("Sequence[object]", item):
            yield from _item(one, indent, path, comments)
    else:
        yield f"{head} {json.dumps(item, ensure_ascii=False)}"


def _item(item: object, indent: str, path: str, comments: Mapping[str, str]) -> Iterator[str]:
    if isinstance(item, Mapping) and item:
        first, *rest = _mapping(cast("Mapping[str, object]", item), indent + "  ", path, comments)
        yield f"{indent}- {first.lstrip()}"
        yield from rest
    else:
        yield f"{indent}- {json.dumps(item, ensure_ascii=False)}"


def _key(name: str) -> str:
    return name if _KEY.fullmatch(name) and name.lower() not in _TAKEN else json.dumps(name)
