"""A JSON Schema (2020-12) for everything that is signed, recorded or sent, made from the types that read it.

Rules
-----
1. Bounds, patterns and required members are those of the code; descriptions are its docstrings.
2. Envelopes inside messages are described by what they must hold (``x-statement``).
3. A schema cannot say what decides most: bytes have one spelling only, and statements are identified by hash. The README
   beside it does.

Not here: subjects (:mod:`mesh.contracts.asyncapi`).
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from mesh.contracts.words import about, field_words
from mesh.core import messages
from mesh.core.bytes.envelope import KINDS
from mesh.core.law.conflict import ConflictProof
from mesh.core.law.policy import Bundle
from mesh.core.log.bundle import ProofBundle
from mesh.core.log.certificate import Certificate
from mesh.core.log.record import Record
from mesh.core.run.paper import Paper
from mesh.limits import (
    CONFLICT_BYTES_MAX,
    ENVELOPE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PROOF_BUNDLE_BYTES_MAX,
    RECORD_BYTES_MAX,
    SIGNATURES_MAX,
)
from mesh.protocol.advancing import Advance
from mesh.protocol.intoto import PREDICATE_TYPE, Execution

__all__ = ["KIND_MODULES", "MESSAGES", "RAW", "json_text", "known_kinds", "record_tags", "schema_files"]

KIND_MODULES: Final = (
    "mesh.core.law.activation",
    "mesh.core.law.barrier",
    "mesh.core.law.erase",
    "mesh.core.law.retain",
    "mesh.core.law.halt",
    "mesh.core.law.fraud",
    "mesh.core.law.resolve",
    "mesh.core.law.heartbeat",
    "mesh.core.law.policy",
    "mesh.core.law.revocation",
    "mesh.core.law.unlawful",
    "mesh.core.law.roster",
    "mesh.core.log.record",
    "mesh.core.run.approval",
    "mesh.core.run.authorization",
    "mesh.core.run.heard",
    "mesh.core.run.identity",
    "mesh.core.run.intent",
    "mesh.core.run.outcome",
)
"""A kind registers itself when its module is imported."""

MESSAGES: Final[Mapping[str, object]] = {
    "IntentRequest": messages.IntentRequest,
    "Answer": messages.Answer,
    "OutcomeRequest": messages.OutcomeRequest,
    "OutcomeAnswer": messages.OutcomeAnswer,
    "HeardRequest": messages.HeardRequest,
    "HeardGiven": messages.HeardGiven,
    "LineageBatch": messages.LineageBatch,
    "LawBatch": messages.LawBatch,
    "BundleGiven": messages.BundleGiven,
    "Offered": messages.Offered,
    "Asked": messages.Asked,
    "Accusation": messages.Accusation,
    "SyncAnswer": messages.SyncAnswer,
    "BarrierAnswer": messages.BarrierAnswer,
    "Found": messages.Found,
    "Proved": messages.Proved,
    "NodeStatus": messages.NodeStatus,
    "RefusedAnswer": messages.RefusedAnswer,
}

RAW: Final[Mapping[tuple[str, str], str]] = {
    ("IntentRequest", "intent"): "intent",
    ("IntentRequest", "identity"): "identity",
    ("IntentRequest", "enforcer"): "identity",
    ("IntentRequest", "approvals"): "approval or grant",
    ("Authorized", "authorization"): "authorization",
    ("DeniedAnswer", "denial"): "denial",
    ("OutcomeRequest", "identity"): "identity",
    ("OutcomeRequest", "outcomes"): "outcome",
    ("OutcomeAnswer", "receipts"): "receipt",
    ("HeardRequest", "heard"): "heard",
    ("HeardRequest", "identity"): "identity",
    ("HeardWord", "heard"): "heard",
    ("HeardWord", "identity"): "identity",
    ("DecisionMade", "approvals"): "approval or grant",
    ("Parent", "authorization"): "authorization",
    ("Parent", "outcome"): "outcome",
    ("Paper", "statement"): "approval or grant",
    (
        "LawBatch",
        "statements",
    ): "roster, revocation, halt, policy, activate, resolve, erase, retain; or fraud or unlawful, without signatures",
    ("Offer", "statements"): "roster, revocation, halt, policy, activate, resolve, erase, retain; or fraud or unlawful, without signatures",
    ("BundleGiven", "bundle"): "policy-bundle",
    ("Supply", "bundle"): "policy-bundle",
    ("LineageBatch", "bodies"): "",
    ("LineageBatch", "records"): "record",
    ("SyncAnswer", "heartbeat"): "heartbeat",
    ("Accusation", "refusal"): "refusal",
    ("Unlawful", "refusals"): "refusal",
    ("BarrierAnswer", "barrier"): "barrier",
    ("BarrierAnswer", "heartbeat"): "heartbeat",
    ("ProofBundle", "record"): "record",
    ("ProofBundle", "bodies"): "",
    ("ProofBundle", "manifests"): "policy",
    ("ProofBundle", "bundles"): "policy-bundle",
    ("ProofBundle", "activations"): "activate",
    ("ConflictProof", "first"): "revocation, halt, policy, activate, resolve, erase or retain",
    ("ConflictProof", "second"): "revocation, halt, policy, activate, resolve, erase or retain",
    ("ProofBundle", "rosters"): "roster",
    ("Proven", "record"): "record",
    ("Proven", "bodies"): "",
}
"""(message, field) to the kind or kinds of statement inside; any if empty. What is in ``_BARE`` is no statement and stands there bare."""
_BARE: Final = ("record", "policy-bundle")

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def known_kinds() -> tuple[str, ...]:
    """Every kind of statement, sorted."""
    for module in KIND_MODULES:
        importlib.import_module(module)
    return tuple(sorted(name for name in KINDS if KINDS[name].payload.__module__.startswith("mesh.")))


def record_tags() -> dict[str, type[msgspec.Struct]]:
    """The word in a record's member ``record`` to its type, sorted."""
    return {str(kind.__struct_config__.tag): kind for kind in sorted(get_args(Record), key=lambda kind: str(kind.__struct_config__.tag))}


def schema_files() -> dict[str, bytes]:
    """Path to content of every schema."""
    files = {"envelope.schema.json": _envelope(), "record.schema.json": _titled("record", Record, {"x-bytes-max": RECORD_BYTES_MAX}, up="")}
    for name in known_kinds():
        kind = KINDS[name]
        extra = {"x-payload-type": kind.payload_type, "x-bytes-max": kind.bytes_max}
        files[f"statement/{name}.schema.json"] = _titled(name, kind.payload, extra)
    for tag, record in record_tags().items():
        files[f"record/{tag}.schema.json"] = _titled(tag, record, {"x-bytes-max": RECORD_BYTES_MAX})
    for name, message in MESSAGES.items():
        files[f"message/{name}.schema.json"] = _titled(name, message, {"x-bytes-max": MESSAGE_BYTES_MAX})
    files["policy-bundle.schema.json"] = _titled("policy bundle", Bundle, {})
    files["proof-bundle.schema.json"] = _titled("proof bundle", ProofBundle, {"x-bytes-max": PROOF_BUNDLE_BYTES_MAX}, up="")
    files["conflict.schema.json"] = _titled("conflict", ConflictProof, {"x-bytes-max": CONFLICT_BYTES_MAX}, up="")
    files["approval-file.schema.json"] = _titled("approval file", Paper, {"x-bytes-max": ENVELOPE_BYTES_MAX}, up="")
    files["in-toto/execution.schema.json"] = _titled("execution", Execution, {"x-predicate-type": PREDICATE_TYPE})
    files["advance.schema.json"] = _titled("advance", Advance, {})
    files["certificate.schema.json"] = _titled("certificate", Certificate, {})
    return {name: json_text(schema) for name, schema in files.items()}


def json_text(value: object) -> bytes:
    """A value as a JSON file for people and tools; members stay in their order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _titled(title: str, kind: object, extra: Mapping[str, object], *, up: str = "../") -> Schema:
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for struct in _structs(msgspec.inspect.type_info(kind), set()):
        name = struct.__name__
        part = components[name]
        part["description"] = about(struct)
        for field, words in field_words(struct).items():
            part["properties"][field] = {"description": words, **part["properties"][field]}
        _fill_raw(name, part, up)
    head = {"$schema": _DRAFT, "title": title}
    if isinstance(kind, type):
        head["description"] = about(kind)
    return {**head, **extra, **schema, "$defs": dict(sorted(components.items()))}


def _structs(info: object, seen: set[type]) -> Sequence[type[msgspec.Struct]]:
    match info:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            if cls in seen:
                return ()
            seen.add(cls)
            return (cls, *(one for field in fields for one in _structs(field.type, seen)))
        case msgspec.inspect.UnionType(types=types):
            return [one for each in types for one in _structs(each, seen)]
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.DictType(value_type=item):
            return _structs(item, seen)
        case _:
            return ()


def _fill_raw(name: str, part: Schema, up: str) -> None:
    for (message, field), kind in RAW.items():
        if message != name:
            continue
        bare = kind in _BARE
        inside = {"$ref": f"{up}{kind if bare else 'envelope'}.schema.json"} | ({} if bare else {"x-statement": kind or "any"})
        schema = part["properties"][field]
        if "items" in schema:
            schema["items"] = inside
        else:
            schema.update(inside)


def _envelope() -> Schema:
    hex32 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    base64 = {"type": "string", "contentEncoding": "base64"}
    signature = {
        "type": "object",
        "properties": {
            "keyid": {"description": "The Ed25519 public key itself, lowercase hex.", **hex32},
            "sig": {"description": "64 bytes over DSSE's PAE of payloadType and payload.", "minLength": 88, "maxLength": 88, **base64},
        },
        "required": ["keyid", "sig"],
        "additionalProperties": False,
    }
    return {
        "$schema": _DRAFT,
        "title": "envelope",
        "description": "DSSE in one spelling: exactly these members in this order, no spaces, signatures sorted by keyid, one per key.",
        "x-bytes-max": ENVELOPE_BYTES_MAX,
        "type": "object",
        "properties": {
            "payload": {"description": "The statement's canonical JSON.", **base64},
            "payloadType": {"type": "string", "enum": [KINDS[name].payload_type for name in known_kinds()]},
            "signatures": {"type": "array", "maxItems": SIGNATURES_MAX, "items": signature},
        },
        "required": ["payload", "payloadType", "signatures"],
        "additionalProperties": False,
    }
