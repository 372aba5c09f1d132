"""As much of JSON Schema (2020-12) as our schemas use; any other keyword is an AssertionError, so that nothing is passed over."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["violations"]

_WORDS = {
    "$schema",
    "$defs",
    "type",
    "title",
    "description",
    "discriminator",
    "contentEncoding",
    "x-payload-type",
    "x-predicate-type",
    "x-bytes-max",
    "x-statement",
}
_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}


def violations(path: Path, value: Any) -> list[str]:
    """Where ``value`` does not fit the schema at ``path``."""
    return list(_check(json.loads(path.read_bytes()), value, path, ""))


def _check(schema: dict[str, Any], value: Any, path: Path, at: str) -> Iterator[str]:
    if "type" in schema and not _is(schema["type"], value):
        yield f"{at}: no {schema['type']}"
        return
    for word, demand in schema.items():
        match word:
            case "$ref":
                yield from _check(value=value, at=at, **_target(demand, path))
            case "anyOf":
                if all(list(_check(one, value, path, at)) for one in demand):
                    yield f"{at}: fits nothing of anyOf"
            case "properties" | "items" | "additionalProperties" | "propertyNames":
                yield from _inside(word, demand, schema, value, path, at)
            case _:
                if word not in _WORDS and not _bounded(word, demand, value):
                    yield f"{at}: {value!r} against {word} {demand!r}"


def _is(kind: str, value: Any) -> bool:
    return isinstance(value, _TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))


def _target(reference: str, path: Path) -> dict[str, Any]:
    file, _, pointer = reference.partition("#")
    target = (path.parent / file).resolve() if file else path
    found = json.loads(target.read_bytes())
    for part in pointer.strip("/").split("/") if pointer else ():
        found = found[part]
    return {"schema": found, "path": target}


def _bounded(word: str, demand: Any, value: Any) -> bool:
    match word:
        case "enum":
            return bool(value in demand)
        case "required":
            return bool(set(demand) <= value.keys())
        case "pattern":
            return re.search(demand, value) is not None
        case "minimum" | "minLength" | "minItems":
            return bool((value if word == "minimum" else len(value)) >= demand)
        case "maximum" | "maxLength" | "maxItems" | "maxProperties":
            return bool((value if word == "maximum" else len(value)) <= demand)
        case _:
            raise AssertionError(word)


def _inside(word: str, demand: Any, schema: dict[str, Any], value: Any, path: Path, at: str) -> Iterator[str]:
    match word:
        case "properties":
            for name in demand.keys() & value.keys():
                yield from _check(demand[name], value[name], path, f"{at}/{name}")
        case "items":
            for index, item in enumerate(value):
                yield from _check(demand, item, path, f"{at}/{index}")
        case "propertyNames":
            for name in value:
                yield from _check(demand, name, path, f"{at}/{name}")
        case _:
            for name in value.keys() - schema.get("properties", {}).keys():
                yield from [f"{at}: unknown {name}"] if demand is False else _check(demand, value[name], path, f"{at}/{name}")
