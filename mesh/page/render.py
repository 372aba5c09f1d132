"""A proof bundle and the program that judges it, as one page: it needs no network, and can be handed to anybody.

Rules
-----
1. The page holds the bundle's exact bytes and one roster, in base64: nothing in them can end the element that they stand in.
2. It may run this one script and use this one style, by hash; it may load, send and frame nothing (Content-Security-Policy).
3. The same bundle and roster make the same page, so whoever has this version can tell whether a page is one of ours (:func:`inside`).
4. What a statement may hold is made from the types that the mesh itself reads by, so the page has no second list of fields.

Not here: belief. The page judges as :mod:`mesh.verify` does, but for the policy engine; and whoever made a page may have put another
program into it, so a page from a stranger is judged with ``mesh verify``, which reads the bundle and runs nothing.
"""

import hashlib
import importlib
import json
import re
from importlib import resources
from typing import Any, Final, NamedTuple, get_args

import msgspec

from mesh import limits
from mesh.core.bytes.envelope import KINDS
from mesh.core.law.policy import Bundle
from mesh.core.log.bundle import ProofBundle
from mesh.core.log.lines import from_base64, to_base64
from mesh.core.log.record import Record
from mesh.errors import Refused
from mesh.protocol.serving import BODIES

__all__ = ["Inside", "inside", "is_page", "render"]

_KINDS: Final = {
    "activate": "mesh.core.law.activation",
    "approval": "mesh.core.run.approval",
    "authorization": "mesh.core.run.authorization",
    "grant": "mesh.core.run.approval",
    "heard": "mesh.core.run.heard",
    "identity": "mesh.core.run.identity",
    "intent": "mesh.core.run.intent",
    "outcome": "mesh.core.run.outcome",
    "policy": "mesh.core.law.policy",
    "roster": "mesh.core.law.roster",
}
"""The kinds that stand in proofs; each registers itself when its module is imported."""
_BEGIN: Final = b"<!doctype html>\n"
_HELD: Final = '<script type="application/octet-stream" id="{}">\n([A-Za-z0-9+/=]*)\n</script>'
_LIMITS: Final = {
    "activations": limits.ACTIVATIONS_MAX,
    "ancestors": limits.ANCESTORS_MAX,
    "approval_ms": limits.APPROVAL_LIFE_MS_MAX,
    "approvals": limits.APPROVALS_MAX,
    "approvals_bytes": limits.APPROVALS_BYTES_MAX,
    "boxes": limits.SEALED_BOXES_BYTES_MAX,
    "bundle": limits.PROOF_BUNDLE_BYTES_MAX,
    "determining": limits.DETERMINING_MAX,
    "envelope": limits.ENVELOPE_BYTES_MAX,
    "grant_ms": limits.GRANT_LIFE_MS_MAX,
    "hashes": limits.PROOF_HASHES_MAX,
    "intent_ms": limits.INTENT_LIFE_MS_MAX,
    "lines": limits.NOTE_SIGNATURES_MAX,
    "note": limits.NOTE_BYTES_MAX,
    "parent_ms": limits.PARENT_AGE_MS_MAX,
    "parents_bytes": limits.PARENTS_BYTES_MAX,
    "policy": limits.BUNDLE_BYTES_MAX,
    "record": limits.RECORD_BYTES_MAX,
    "said": limits.STREAM_STATEMENTS_MAX,
    "streams": limits.FRONTIER_STREAMS_MAX,
    "time_s": limits.CLOCK_MS_MAX // 1000,
    "tlog": limits.TLOG_PROOF_BYTES_MAX,
    "tree": limits.TREE_SIZE_MAX,
}


class Inside(NamedTuple):
    """What a page carries."""

    bundle: bytes
    genuine: bool
    """Whether the rest of the page is, byte for byte, what this version writes."""


def render(bundle: bytes, roster: bytes) -> bytes:
    """The page that carries ``bundle`` and judges it by ``roster`` (its envelope), the id of which the reader is asked for."""
    script, style = _part("proof.js"), _part("proof.css")
    filled = {
        "SCRIPT_HASH": _hash(script),
        "STYLE_HASH": _hash(style),
        "STYLE": style,
        "ANCHOR": to_base64(roster),
        "BUNDLE": to_base64(bundle),
        "SCHEMAS": json.dumps(_schemas(), sort_keys=True, separators=(",", ":")).replace("<", "\\u003c"),
        "SCRIPT": script,
    }
    return re.sub("@([A-Z_]+)@", lambda match: filled[match[1]], _part("proof.html")).encode()


def is_page(data: bytes) -> bool:
    """Whether it may be a page, and not a bundle."""
    return data.startswith(_BEGIN)


def inside(data: bytes) -> Inside:
    """What a page carries. Nothing of it is run or believed.

    Raises:
        Refused: ``malformed`` if it carries no bundle.
    """
    bundle, roster = _held(data, "bundle"), _held(data, "anchor")
    return Inside(bundle, render(bundle, roster) == data)


def _held(data: bytes, name: str) -> bytes:
    found = re.findall(_HELD.format(name).encode(), data)
    if len(found) != 1:
        raise Refused("malformed", f"a page that carries {len(found)} of what it should carry once: {name}")
    held = from_base64(found[0].decode())
    if to_base64(held).encode() != found[0]:  # stray bits would be a second spelling
        raise Refused("malformed", f"{name} is not base64")
    return held


def _part(name: str) -> str:
    return resources.files("mesh.page").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return to_base64(hashlib.sha256(text.encode()).digest())


def _schemas() -> dict[str, Any]:
    """What the script reads by: the kinds of statement, the records with the statements that they name, and limits."""
    for module in _KINDS.values():
        importlib.import_module(module)
    kinds = {name: KINDS[name] for name in _KINDS}
    records = get_args(Record)
    _, parts = msgspec.json.schema_components(
        [*(kind.payload for kind in kinds.values()), Bundle, ProofBundle, *records], ref_template="#/$defs/{name}"
    )
    hex32 = {"type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64}
    line = _closed({"keyid": hex32, "sig": {"type": "string", "minLength": 88, "maxLength": 88}})
    signatures = {"type": "array", "maxItems": limits.SIGNATURES_MAX, "items": line}
    envelope = _closed({"payload": {"type": "string"}, "payloadType": {"type": "string"}, "signatures": signatures})
    return {
        "bodies": {str(tag): list(names) for tag, names in BODIES.items()},
        "defs": {"Envelope": envelope, **parts},
        "kinds": {name: {"def": kind.payload.__name__, "max": kind.bytes_max, "type": kind.payload_type} for name, kind in kinds.items()},
        "limits": _LIMITS,
        "records": [f"#/$defs/{record.__name__}" for record in records],
    }


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
