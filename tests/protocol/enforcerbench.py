"""Everything that an admission rests on, each part replaceable: for taking away one condition at a time."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Params
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.activation import Activation
from mesh.core.law.halt import Halt
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.revocation import Revocation
from mesh.core.run.authorization import Authorization, Possession
from mesh.core.run.intent import Audience, EntityRef, Intent, Measurement
from mesh.core.run.params import Opening, commit, params_digest
from mesh.errors import Refused
from mesh.protocol.documents import Documents
from mesh.protocol.enforcer import Actual, Grant, Place, Presented, View, admit
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerkit import ENFORCER, HOLDER, ISSUER, NOW_MS, PLACE, SUBJECT

__all__ = ["BOOT", "CHALLENGE", "MEASURED", "MEMO", "PARAMS", "RESOURCE", "STRANGER", "Bench", "refused"]

BOOT = "b0" * 32
CHALLENGE = "c4" * 32
MEMO = Opening(name="memo", salt="5a" * 16, value="rent")
PARAMS: Params = {"to": "bob", "amount": 5}
MEASURED = (Measurement(name="function", digest="blake3:" + "0f" * 32),)
RESOURCE = EntityRef(type="Thing", id="bob")
STRANGER = kit.secret(999)


class Bench:
    """Everything that an admission rests on, each part replaceable before :meth:`admit`."""

    def __init__(self) -> None:
        self.manifest: dict[str, Any] = {}
        self.revoked: list[Revocation | Halt | Activation] = []
        self.holder_document: dict[str, Any] = {}
        self.own_document: dict[str, Any] = {}
        self.issuer: SecretKey = ISSUER
        self.intent: dict[str, Any] = {}
        self.authorization: dict[str, Any] = {}
        self.signers = [kit.decision_key("anna")]
        self.possession: dict[str, Any] = {}
        self.presenter: SecretKey = HOLDER
        self.frontier: tuple[StreamHead, ...] | None = None
        self.actual: dict[str, Any] = {}
        self.boot = BOOT
        self.vouching: tuple[str, ...] = ("anna", "bert", "cleo")
        self.heard_ms = NOW_MS
        self.wall_ms = NOW_MS
        self.now_ms = NOW_MS
        self.obligations: frozenset[str] = frozenset()
        self.approvals: list[bytes] = []
        """Presented; the authorization names them unless it is told otherwise."""

    def place(self) -> Place:
        own = kit.identity(PLACE, ENFORCER, role="enforcer", enforcer_class="in-process")
        document = kit.read(msgspec.structs.replace(own, **self.own_document), ISSUER)
        return Place(document=document, boot=self.boot, obligations=self.obligations)

    def view(self) -> View:
        governance = kit.governance(kit.manifest(**self.manifest), revoked=tuple(self.revoked))
        fresh = kit.fresh_view(governance, BOOT, at_ms=self.heard_ms, names=self.vouching)
        return View(governance=governance, fresh=fresh, now_ms=self.now_ms, wall_ms=self.wall_ms)

    def documents(self) -> tuple[bytes, Intent, bytes]:
        identity = kit.read(msgspec.structs.replace(kit.identity(SUBJECT, HOLDER), **self.holder_document), self.issuer)
        fields: dict[str, Any] = {
            "mesh": kit.MESH,
            "domain": "ops",
            "subject": SUBJECT,
            "holder": HOLDER.public,
            "identity": identity.id,
            "action": "pay",
            "resource": RESOURCE,
            "params": PARAMS,
            "committed": {MEMO.name: commit(MEMO)},
            "sealed": {},
            "measurements": list(MEASURED),
            "purpose": "",
            "audience": Audience(enforcer=ENFORCER.public, boot=BOOT),
            "assurance_min": "local",
            "within": [],
            "after": [],
            "nonce": "00" * 16,
            "created_ms": NOW_MS - 10,
            "expires_ms": NOW_MS + 20_000,
        }
        return identity.envelope, Intent(**(fields | self.intent)), sign_intent(Intent(**(fields | self.intent)))

    def authorized(self, intent: Intent, view: View) -> Authorization:
        manifest = view.governance.laws["ops"][-1].manifest
        fields: dict[str, Any] = {
            "mesh": intent.mesh,
            "intent": envelope.draft(intent).id,
            "domain": intent.domain,
            "action": intent.action,
            "resource": intent.resource,
            "params": params_digest(intent.params, intent.committed),
            "measurements": intent.measurements,
            "subject": intent.subject,
            "holder": intent.holder,
            "identity": intent.identity,
            "person": "Ada",
            "audience": intent.audience,
            "enforcer_class": "in-process",
            "region": "eu",
            "policy_epoch": manifest.epoch,
            "bundle": manifest.digest,
            "frontier": view.governance.digest,
            "roster_epoch": 1,
            "not_before_ms": NOW_MS,
            "expires_ms": NOW_MS + 10_000,
            "lease_ms": 2_000,
            "uses": 1,
            "obligations": [],
            "assurance": "local",
            "approvals": sorted(envelope.identify(said)[1] for said in self.approvals),
            "ancestors": [],
            "decision": "dd" * 32,
            "issuer": "anna",
            "origin": f"{kit.MESH}/anna/e1",
            "index": 7,
        }
        return Authorization(**(fields | self.authorization))

    def admit(self) -> Grant:
        place, view = self.place(), self.view()
        identity, intent, intent_bytes = self.documents()
        authorization = kit.read(self.authorized(intent, view), *self.signers)
        possession: dict[str, Any] = {
            "mesh": kit.MESH,
            "intent": authorization.claims.intent,
            "enforcer": ENFORCER.public,
            "challenge": CHALLENGE,
        }
        presented = Presented(
            authorization=authorization.envelope,
            frontier=self.frontier if self.frontier is not None else view.governance.frontier,
            intent=intent_bytes,
            identity=identity,
            possession=kit.sign(Possession(**(possession | self.possession)), self.presenter),
            approvals=tuple(self.approvals),
        )
        actual: dict[str, Any] = {
            "domain": "ops",
            "action": "pay",
            "resource": RESOURCE,
            "params": PARAMS,
            "openings": (MEMO,),
            "measurements": MEASURED,
        }
        return admit(presented, Actual(**(actual | self.actual)), challenge=CHALLENGE, place=place, view=view, documents=Documents())


def sign_intent(intent: Intent) -> bytes:
    return kit.sign(intent, HOLDER)


def refused(bench: Bench) -> str:
    with pytest.raises(Refused) as caught:
        bench.admit()
    return caught.value.code
