"""Configuration structs as TOML text: what :mod:`mesh.adapters.configfile` reads is written here, from the same types.

Only what our configurations hold: tables, tables of tables, strings, numbers, booleans and lists of strings.
"""

import json
from collections.abc import Mapping

import msgspec

__all__ = ["to_toml"]


def to_toml(value: msgspec.Struct, *, leave_out: frozenset[str] = frozenset()) -> str:
    """``value`` as TOML; empty optional strings and lists, and the fields of ``leave_out``, are not written."""
    plain = {name: item for name, item in msgspec.structs.asdict(value).items() if name not in leave_out}
    return "\n".join(_table(plain, "")).strip() + "\n"


def _table(items: Mapping[str, object], name: str) -> list[str]:
    lines = [f"[{name}]"] if name and any(not _is_table(item) for item in items.values()) else []
    tables: list[str] = []
    for key, item in items.items():
        if _is_table(item):
            inner = msgspec.structs.asdict(item) if isinstance(item, msgspec.Struct) else item
            if isinstance(inner, Mapping):
                tables += ["", *_table(inner, f"{name}.{key}" if name else key)]
        elif item not in ("", []):
            lines.append(f"{key} = {_scalar(item)}")
    return [*lines, *tables]


def _is_table(item: object) -> bool:
    return isinstance(item, msgspec.Struct | Mapping)


def _scalar(item: object) -> str:
    # A JSON string is a TOML basic string for everything that stands in our configurations.
    if isinstance(item, list):
        return "[" + ", ".join(_scalar(entry) for entry in item) + "]"
    return json.dumps(item, ensure_ascii=False)
