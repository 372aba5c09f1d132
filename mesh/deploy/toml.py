"""Configuration structs as TOML text: what :mod:`mesh.adapters.configfile` reads is written here, from the same types.

Only what our configurations hold: tables, tables of tables, strings, numbers, booleans and lists of strings.
"""

import json
from collections.abc import Callable, Mapping
from typing import cast

import msgspec

__all__ = ["Words", "to_toml"]

Words = Callable[[type[msgspec.Struct]], Mapping[str, str]]
"""A struct to what is said of its fields; what is said of the name ``""`` stands above its table."""


def to_toml(value: msgspec.Struct, *, leave_out: frozenset[str] = frozenset(), words: Words | None = None) -> str:
    """``value`` as TOML; empty optional strings and lists, tables of nothing else, and the fields of ``leave_out``, are not written.

    ``words`` become comments above the keys.
    """
    plain = {name: item for name, item in _items(value).items() if name not in leave_out}
    return "\n".join(_table(plain, "", words(type(value)) if words else {}, words)).strip() + "\n"


def _table(items: Mapping[str, object], name: str, said: Mapping[str, str], words: Words | None) -> list[str]:
    lines = _comment(said.get("", ""))
    lines += [f"[{name}]"] if name and any(not _is_table(item) and not _is_empty(item) for item in items.values()) else []
    tables: list[str] = []
    for key, item in items.items():
        if _is_empty(item):
            continue
        if _is_table(item):
            inner = {"": said.get(key, "")}
            if words and isinstance(item, msgspec.Struct):
                inner |= words(type(item))
            tables += ["", *_table(_items(item), f"{name}.{key}" if name else key, inner, words)]
        else:
            lines += [*_comment(said.get(key, "")), f"{key} = {_scalar(item)}"]
    return [*lines, *tables]


def _is_empty(item: object) -> bool:
    return all(map(_is_empty, _items(item).values())) if _is_table(item) else item in ("", [])


def _is_table(item: object) -> bool:
    return isinstance(item, msgspec.Struct | Mapping)


def _items(item: object) -> Mapping[str, object]:
    return msgspec.structs.asdict(item) if isinstance(item, msgspec.Struct) else cast("Mapping[str, object]", item)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in text.splitlines()]


def _scalar(item: object) -> str:
    # A JSON string is a TOML basic string for everything that stands in our configurations.
    if isinstance(item, list):
        return "[" + ", ".join(_scalar(entry) for entry in cast("list[object]", item)) + "]"
    return json.dumps(item, ensure_ascii=False)
