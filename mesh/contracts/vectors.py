"""The example world as files that any implementation can read: what must come out byte for byte, and what must be refused.

Not here: the world (:mod:`mesh.contracts.example`, :mod:`mesh.contracts.story`), the refusals themselves.
"""

from collections.abc import Mapping
from typing import Any

from mesh.contracts.boxed import boxed_files, boxed_intent, boxed_request, unseal_cases
from mesh.contracts.example import MEMBERS, MESH, NODE, OPENING, Signed, base, hex32, key, key_names
from mesh.contracts.jsonschema import json_text
from mesh.contracts.logrefusals import log_cases
from mesh.contracts.part import part
from mesh.contracts.readme import vectors_readme
from mesh.contracts.refusals import Case, statement_cases, text
from mesh.contracts.story import ORIGIN, Story, story
from mesh.core.bytes import canonical
from mesh.core.log.checkpoint import attest_name, cosigner, log_verifier, witness_name
from mesh.core.log.merkle import leaf_hash
from mesh.core.run.approval import Effect
from mesh.core.run.decision import Decision, decision_digest
from mesh.core.run.params import commit, params_digest
from mesh.protocol.advancing import Reached, advanced
from mesh.protocol.examine import Question

__all__ = ["cases", "vector_files"]


def cases() -> tuple[Case, ...]:
    """Everything that must be refused, in the order of the README."""
    return (*statement_cases(), *unseal_cases(), *log_cases())


def vector_files() -> dict[str, bytes]:
    """Path to content."""
    told, (intent, authorization, request) = story(), part()
    files = {"README.md": vectors_readme(cases()), "keys.json": json_text(_keys()), "digests.json": json_text(_digests(told))}
    files |= {
        f"statement/{item.name}.json": json_text(_statement(item)) for item in (*told.statements, intent, authorization, boxed_intent())
    }
    requests = {"IntentRequest-within": request, "IntentRequest-sealed": boxed_request()}
    files |= {f"message/{name}.json": data for name, data in (told.messages | requests).items()}
    files["sealed.json"] = json_text(boxed_files())
    files |= {f"log/{name}": data for name, data in _log(told).items()}
    files["policy/payments.bundle.json"] = base().built.data
    files |= {case.file: json_text(_case(case)) for case in cases()}
    return files


def _keys() -> Mapping[str, Any]:
    return {name: {"seed": hex32(f"key {name}"), "public": key(name).public} for name in key_names()}


def _statement(item: Signed) -> Mapping[str, Any]:
    return {
        "kind": item.kind,
        "payload_type": item.draft.payload_type,
        "payload": item.draft.payload.decode(),
        "pae": text(item.draft.message),
        "id": item.draft.id,
        "signers": {name: key(name).public for name in item.signers},
        "envelope": item.envelope.decode(),
    }


def _digests(told: Story) -> Mapping[str, Any]:
    question, decision = told.permitted
    intent = question.intent.claims
    return {
        "commitment": {"opening": canonical.encode(OPENING).decode(), "sha256": commit(OPENING)},
        "params": {
            "canonical": canonical.encode({"committed": intent.committed, "params": intent.params}).decode(),
            "sha256": params_digest(intent.params, intent.committed),
        },
        "effect": {"canonical": Effect.of(intent).bound.decode(), "sha256": Effect.of(intent).digest},
        "frontier": {
            "canonical": canonical.encode(list(base().governance.frontier)).decode(),
            "sha256": base().governance.digest,
        },
        "bundle": {"file": "policy/payments.bundle.json", "digest": base().built.digest},
        "permitted": _decision(question, decision),
        "denied": _decision(*told.denied),
    }


def _decision(question: Question, decision: Decision) -> Mapping[str, Any]:
    return {
        "intent": question.intent.id,
        "request": canonical.encode(question.request).decode(),
        "input_sha256": decision.input,
        "decision": canonical.encode(decision).decode(),
        "decision_sha256": decision_digest(decision),
    }


def _log(told: Story) -> Mapping[str, bytes]:
    tree = {
        "origin": ORIGIN,
        "leaf_hashes": [leaf_hash(record).hex() for record in told.records],
        "roots": [root.hex() for root in told.roots],
        "inclusion": {str(index): [value.hex() for value in path] for index, path in told.inclusion.items()},
        "consistency": {str(old): [value.hex() for value in path] for old, path in told.consistency.items()},
    }
    keys = {
        "log": log_verifier(ORIGIN, key(f"{NODE}/log").public).vkey,
        "attest": [cosigner(attest_name(MESH, name), key(f"{name}/attest").public).vkey for name in MEMBERS],
        "witness": [cosigner(witness_name(MESH, name), key(f"{name}/witness").public).vkey for name in MEMBERS],
        "k": base().governance.roster.k,
    }
    return {
        "records.ndjson": b"".join(record + b"\n" for record in told.records),
        "tree.json": json_text(tree),
        "keys.json": json_text(keys),
        "checkpoint.note": told.checkpoint,
        "certificate.note": told.certificate,
        "add-checkpoint.txt": told.add_checkpoint,
        "advances.json": json_text(_advances({"checkpoint.note": told.checkpoint, "certificate.note": told.certificate})),
        "decision.tlog-proof": told.proof,
        "decision.proof.json": told.bundle,
    }


def _advances(notes: Mapping[str, bytes]) -> list[Mapping[str, Any]]:
    """What each of these notes shows after those before it."""
    held, shown = dict[str, Reached](), list[Mapping[str, Any]]()
    for name, note in notes.items():
        held, advances = advanced(held, note, base().governance)
        shown.append({"note": name, "advances": [canonical.encode(advance).decode() for advance in advances]})
    return shown


def _case(case: Case) -> Mapping[str, Any]:
    return {"procedure": case.procedure, "input": case.input, "code": case.code, "catches": case.catches}
