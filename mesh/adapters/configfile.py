"""TOML files into typed values: unknown keys are refused with "did you mean", and all that is wrong is said at once.

A key nobody reads would be a wish nobody grants; in a security product that is a hole. Not here: what the keys mean.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

import msgspec

from mesh.errors import Refused

__all__ = ["Located", "load_located", "load_toml", "parse_toml"]

T = TypeVar("T", bound=msgspec.Struct)


class Located(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file whose paths are relative to it, wherever the process was started."""

    base: str = ""
    """Where the file stood; filled in by :func:`load_located`, and no key of the file."""

    def path(self, name: str) -> Path:
        """A path named in the file."""
        return Path(self.base) / name


L = TypeVar("L", bound=Located)


def load_located(kind: type[L], path: Path) -> L:
    """Read the file at ``path`` as ``kind``, which remembers where it stood.

    Raises:
        Refused: ``config_invalid``, naming every wrong key of the file.
    """
    found = load_toml(kind, path)
    if found.base:
        raise Refused("config_invalid", f"{path}: unknown key base")
    return msgspec.structs.replace(found, base=str(path.resolve().parent))


def load_toml(kind: type[T], path: Path) -> T:
    """Read the file at ``path`` as ``kind``.

    Raises:
        Refused: ``config_invalid``, naming every wrong key of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused("config_invalid", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Refused("config_invalid", f"{path}: not UTF-8 at byte {error.start}") from None
    return parse_toml(kind, text, name=str(path))


def parse_toml(kind: type[T], text: str, *, name: str) -> T:
    """Read TOML ``text`` as ``kind``; ``name`` stands in errors.

    Raises:
        Refused: ``config_invalid``.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused("config_invalid", f"{name}: {error}") from None
    errors = _errors(kind, data, "")
    if errors:
        raise Refused("config_invalid", f"{name}: " + "; ".join(errors))
    return msgspec.convert(data, kind)


def _errors(kind: type[msgspec.Struct], data: Mapping[str, object], where: str) -> list[str]:
    hints = get_type_hints(kind, include_extras=True)
    names = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    found: list[str] = []
    for key, value in data.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            found.append(f"unknown key {where}{key}" + (f" (did you mean {near[0]}?)" if near else ""))
            continue
        found += _value_errors(hints[names[key].name], value, f"{where}{key}")
    found += [f"missing key {where}{key}" for key, field in names.items() if field.required and key not in data]
    return found


def _value_errors(hint: object, value: object, where: str) -> list[str]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        if not isinstance(value, Mapping):
            return [f"{where} must be a table"]
        return _errors(hint, value, where + ".")
    inner = get_args(hint)
    if isinstance(value, Mapping) and len(inner) == 2 and isinstance(inner[1], type) and issubclass(inner[1], msgspec.Struct):
        return [error for key, item in value.items() for error in _value_errors(inner[1], item, f"{where}.{key}")]
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        return [f"{where}: {error}"]
    return []
