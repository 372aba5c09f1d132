"""The vectors as they stand on disk, and how a refused one is run against the code."""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mesh.contracts.jsonschema import known_kinds
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import KINDS, Statement
from mesh.core.bytes.keys import admit_key
from mesh.core.bytes.sealkeys import SealKey
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import open_checkpoint
from mesh.core.log.merkle import leaf_hash, verify_consistency, verify_inclusion
from mesh.core.log.note import Verifier
from mesh.core.log.record import read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.params import Opening, open_all
from mesh.core.run.sealed import Box, Seal, open_box

__all__ = ["PROCEDURE", "SCHEMAS", "VECTORS", "attesters", "log_keys", "vector", "vectors"]

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas" / "v1"
VECTORS = SCHEMAS / "vectors"
known_kinds()


def vector(path: str) -> Any:
    """One JSON file."""
    return json.loads((VECTORS / path).read_bytes())


def vectors(folder: str) -> list[str]:
    """Paths of all files of a folder."""
    return sorted(path.relative_to(VECTORS).as_posix() for path in (VECTORS / folder).iterdir())


def log_keys() -> tuple[Verifier, int]:
    """Whose log it is, and k."""
    keys = vector("log/keys.json")
    return Verifier.from_vkey(keys["log"]), keys["k"]


def attesters() -> dict[str, str]:
    """Key name to public key."""
    return {one.name: one.key for one in map(Verifier.from_vkey, vector("log/keys.json")["attest"])}


def _read(data: Mapping[str, Any]) -> Statement[Any]:
    return envelope.read(KINDS[data["kind"]].payload, base64.b64decode(data["envelope"]))


def _verify(data: Mapping[str, Any]) -> None:
    _read(data).verify(data["key"])


def _threshold(data: Mapping[str, Any]) -> None:
    _read(data).verify_threshold(data["keys"], data["threshold"])


def _open(data: Mapping[str, Any]) -> None:
    open_all({}, data["committed"], [Opening(**opening) for opening in data["openings"]])


def _unseal(data: Mapping[str, Any]) -> None:
    sealed = {name: [Seal(**seal) for seal in seals] for name, seals in data["sealed"].items()}
    boxes = [Box(**box) for box in data["boxes"]]
    open_box(sealed, data["committed"], boxes, data["name"], SealKey(bytes.fromhex(data["seed"])), holder=data["holder"])


def _inclusion(data: Mapping[str, Any]) -> None:
    leaf = leaf_hash(base64.b64decode(data["leaf"]))
    verify_inclusion(leaf, data["index"], data["size"], bytes.fromhex(data["root"]), _hashes(data))


def _consistency(data: Mapping[str, Any]) -> None:
    roots = bytes.fromhex(data["old_root"]), bytes.fromhex(data["new_root"])
    verify_consistency(data["old_size"], data["new_size"], *roots, _hashes(data))


def _hashes(data: Mapping[str, Any]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(value) for value in data["path"])


def _certificate(data: Mapping[str, Any]) -> None:
    log, k = log_keys()
    verify_certificate(base64.b64decode(data["note"]), log=log, attesters=attesters(), k=k)


def _tlog_proof(data: Mapping[str, Any]) -> None:
    log, k = log_keys()
    proof = TlogProof.parse(base64.b64decode(data["proof"]))
    proof.verify(base64.b64decode(data["record"]), log=log, cosigners=attesters(), k=k)


PROCEDURE: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "read": _read,
    "verify": _verify,
    "threshold": _threshold,
    "admit_key": lambda data: admit_key(data["key"]),
    "open": _open,
    "unseal": _unseal,
    "record": lambda data: read_record(base64.b64decode(data["record"])),
    "inclusion": _inclusion,
    "consistency": _consistency,
    "checkpoint": lambda data: open_checkpoint(base64.b64decode(data["note"]), log_keys()[0]),
    "certificate": _certificate,
    "tlog-proof": _tlog_proof,
}
"""What a vector's ``procedure`` means, run on the code."""
