"""The floor of an authorization: the same cryptography, policy evaluation and durable storage in one plain loop, and nothing else.

One process, no bus, no tasks, no protocol: verify the intent, look its identity document up and check its times, decide by
cached policy handles, encode and sign an authorization, encode and hash a record, insert it into SQLite (WAL,
``synchronous=FULL``), commit every 64. No type is checked, nothing is compared with its canonical spelling, no index is kept,
no proof could be made of it: it is what all of that is measured against.

``python -m mesh.bench.floor CORE NODE_TOML REQUESTS FOLDER`` prints its times as JSON.
"""

import base64
import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from mesh.adapters import signer
from mesh.adapters.cedar import CedarEngine
from mesh.adapters.decision_thread import DecisionThread
from mesh.adapters.trustfiles import load_trust
from mesh.bench.cores import pin
from mesh.core.bytes.keys import SecretKey, verify
from mesh.core.law.scope import PRINCIPAL_TYPE
from mesh.core.run.decision import Asserted, Attested, EngineRequest, Entity
from mesh.core.run.intent import EntityRef
from mesh.protocol.decide import GROUP_TYPE
from mesh.roles.config import load_config

__all__ = ["GROUP", "Times", "main", "read_requests", "write_requests"]

GROUP: Final = 64
"""Decisions in one commit."""
_WARM: Final = 512
_ENCODE: Final = msgspec.json.Encoder(order="sorted").encode
_DECODE: Final = msgspec.json.Decoder().decode
_LENGTH_BYTES: Final = 4


class Times(msgspec.Struct, frozen=True):
    """What the loop took."""

    count: int
    seconds: float
    cpu_s: float


class _Floor:
    def __init__(self, config: Path, folder: Path, thread: DecisionThread) -> None:
        node = load_config(config)
        governance = load_trust(node.trust, node.path("."))
        (law,) = governance.laws["payments"]
        if law.bundle is None:
            msg = "a node's configuration names its bundles"
            raise AssertionError(msg)
        self.digest, self.manifest = law.manifest.digest, law.manifest_id
        self.engine = CedarEngine(thread)
        self.engine.load(law.bundle, self.digest)
        self.frontier = governance.digest
        self.key: SecretKey = signer.load(node.path(node.node.keys) / "decision.key").key
        self.entities = {(entity.type, entity.id): entity for entity in law.bundle.entities}
        self.identities: dict[str, tuple[str, dict[str, Any]]] = {}
        self.root = b""
        self.index = 0
        self.store = sqlite3.connect(folder / "floor.db", isolation_level=None)
        self.store.execute("PRAGMA journal_mode = WAL")
        self.store.execute("PRAGMA synchronous = FULL")
        self.store.execute("CREATE TABLE record (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, data BLOB NOT NULL)")

    def run(self, requests: Sequence[bytes]) -> None:
        for start in range(0, len(requests), GROUP):
            rows = [self.authorize(request) for request in requests[start : start + GROUP]]
            self.store.execute("BEGIN IMMEDIATE")
            self.store.executemany("INSERT INTO record (idx, leaf, data) VALUES (?, ?, ?)", rows)
            self.store.execute("COMMIT")

    def authorize(self, data: bytes) -> tuple[int, bytes, bytes]:
        request = _DECODE(data)
        intent_id, message, claims = _statement(request["intent"])
        (signature,) = request["intent"]["signatures"]
        if not verify(bytes.fromhex(claims["holder"]), message, base64.b64decode(signature["sig"])):
            raise _Wrong
        identity_id, identity = self.identity(request["identity"])
        place_id, place = self.identity(request["enforcer"])
        now_ms = time.time_ns() // 1_000_000
        for document in (identity, place):
            if not document["not_before_ms"] <= now_ms < document["expires_ms"]:
                raise _Wrong
        if (
            identity_id != claims["identity"]
            or identity["key"] != claims["holder"]
            or not claims["created_ms"] <= now_ms < claims["expires_ms"]
        ):
            raise _Wrong
        (verdict,) = self.engine.evaluate(self.digest, [self.question(claims, identity, now_ms)])
        if verdict is None or not verdict.allow or verdict.errors:
            raise _Wrong
        authorization = {
            "action": claims["action"], "audience": claims["audience"], "bundle": self.digest, "domain": claims["domain"],
            "enforcer_class": place["enforcer_class"], "expires_ms": now_ms + 30_000, "frontier": self.frontier, "holder": claims["holder"],
            "identity": claims["identity"], "intent": intent_id, "lease_ms": 10_000, "mesh": claims["mesh"], "not_before_ms": now_ms,
            "params": hashlib.sha256(_ENCODE(claims["params"])).hexdigest(), "person": identity["person"], "resource": claims["resource"],
            "subject": claims["subject"], "uses": 1,
        }  # fmt: skip
        payload = _ENCODE(authorization)
        signed = _pae("application/vnd.govmesh.authorization.v1+json", payload)
        base64.b64encode(self.key.sign(signed))
        record = _ENCODE(
            {
                "at_ms": now_ms, "authorization": hashlib.sha256(signed).hexdigest(), "determining": verdict.determining,
                "enforcer": place_id, "identity": identity_id, "index": self.index, "intent": intent_id, "mesh": claims["mesh"],
            }
        )  # fmt: skip
        row = (self.index, hashlib.sha256(b"\x00" + record).digest(), record)
        self.index += 1
        return row

    def identity(self, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        known = self.identities.get(document["payload"])
        if known is None:
            identity, message, claims = _statement(document)
            (signature,) = document["signatures"]
            if not verify(bytes.fromhex(signature["keyid"]), message, base64.b64decode(signature["sig"])):
                raise _Wrong
            known = self.identities[document["payload"]] = identity, claims
        return known

    def question(self, claims: dict[str, Any], identity: dict[str, Any], now_ms: int) -> EngineRequest:
        principal = EntityRef(type=PRINCIPAL_TYPE, id=claims["subject"])
        groups = [EntityRef(type=GROUP_TYPE, id=name) for name in identity["groups"]]
        resource = self.entities[claims["resource"]["type"], claims["resource"]["id"]]
        return EngineRequest(
            principal=principal,
            action=EntityRef(type="Action", id=f"{claims['domain']}/{claims['action']}"),
            resource=EntityRef(type=resource.type, id=resource.id),
            asserted=Asserted(params=claims["params"], measurements=[], purpose=claims["purpose"]),
            attested=Attested(
                now_s=now_ms // 1000,
                region="eu",
                policy_epoch=1,
                manifest=self.manifest,
                activation="",
                frontier=self.frontier,
                enforcer_class="in-process",
                person=identity["person"],
                approvals={},
                breakglass=False,
                delegation_depth=0,
                root=principal.id,
            ),
            slice=[
                Entity(type=principal.type, id=principal.id, attributes=identity["attributes"], parents=groups),
                resource,
                *(self.entities[parent.type, parent.id] for parent in (*resource.parents, *groups)),
            ],
        )


class _Wrong(Exception):
    """A request of the benchmark was not what it should be."""


def _statement(envelope: dict[str, Any]) -> tuple[str, bytes, dict[str, Any]]:
    payload = base64.b64decode(envelope["payload"])
    message = _pae(envelope["payloadType"], payload)
    return hashlib.sha256(message).hexdigest(), message, _DECODE(payload)


def _pae(kind: str, payload: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    """Keep requests for another process."""
    path.write_bytes(b"".join(len(item).to_bytes(_LENGTH_BYTES, "big") + item for item in requests))


def read_requests(path: Path) -> list[bytes]:
    """What :func:`write_requests` kept."""
    data, at, found = path.read_bytes(), 0, list[bytes]()
    while at < len(data):
        end = at + _LENGTH_BYTES + int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        found.append(data[at + _LENGTH_BYTES : end])
        at = end
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure once and print a :class:`Times`."""
    core, config, requests, folder = arguments
    pin(int(core))
    work = read_requests(Path(requests))
    thread = DecisionThread()

    def measure() -> Times:
        floor = _Floor(Path(config), Path(folder), thread)
        warm = min(_WARM, len(work) // 4)
        floor.run(work[:warm])
        began, began_cpu = time.perf_counter(), time.process_time()
        floor.run(work[warm:])
        return Times(len(work) - warm, time.perf_counter() - began, time.process_time() - began_cpu)

    times = thread.call(measure)
    thread.close()
    print(json.dumps(msgspec.structs.asdict(times)))  # noqa: T201 -- its result, for whoever started it


if __name__ == "__main__":
    main(sys.argv[1:])
