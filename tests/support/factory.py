"""A small mesh as values, with real keys and real signatures: the same bytes in every run.

One domain, ``payments``: whoever is in the group ``payers`` may send up to 100; nobody may send to the account ``frozen``. From 101 on
only to the account ``vault``: with the approval of two of ``security``, or when the glass is broken.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.activation import Activation, Ring
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.policy import ActionSpec, Bundle, EntityType, Manifest, ParamSpec, PolicyJson, Terms, bundle_digest
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.core.messages import IntentRequest, OutcomeRequest
from mesh.core.run.approval import Approval, BreakGlass, Effect
from mesh.core.run.decision import EngineRequest, Entity, Verdict
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Audience, EntityRef, Intent
from mesh.core.run.kin import Parent
from mesh.core.run.outcome import CHECKS, Check, Event, Finished, Outcome, Started
from mesh.core.run.params import Opening, commit

__all__ = ["BOUNDS", "DOMAIN", "MESH", "T0", "Lab", "RuleEngine", "secret", "sign", "sign_draft"]

MESH: Final = "lab"
DOMAIN: Final = "payments"
BOUNDS: Final = Bounds(
    heartbeat_ms=500, stale_ms=3_000, skew_ms=300, certify_ms=250, attest_stall_ms=5_000, revocations_max=100_000, backlog_max=50_000
)
T0: Final = 1_760_000_000_000
"""When the mesh begins, ms."""
_DAY_MS: Final = 86_400_000
_REGIONS: Final = ("eu", "us", "ap", "sa", "af", "oc", "me")
_PERMIT: Final = (
    '{"action":{"entity":{"id":"payments/send","type":"Action"},"op":"=="},"conditions":[{"body":{"<=":{"left":{".":{"attr":"amount",'
    '"left":{".":{"attr":"params","left":{".":{"attr":"asserted","left":{"Var":"context"}}}}}}},"right":{"Value":100}}},"kind":"when"}],'
    '"effect":"permit","principal":{"entity":{"id":"payers","type":"Group"},"op":"in"},"resource":{"op":"All"}}'
)
_FORBID: Final = (
    '{"action":{"entity":{"id":"payments/send","type":"Action"},"op":"=="},"conditions":[],"effect":"forbid","principal":{"op":"All"},'
    '"resource":{"entity":{"id":"frozen","type":"Account"},"op":"=="}}'
)


def _vault(kind: str) -> str:
    """Who may send more to the vault, when or unless the glass is broken."""
    facts = '{".":{"attr":"breakglass","left":{".":{"attr":"attested","left":{"Var":"context"}}}}}'
    amount = '{".":{"attr":"amount","left":{".":{"attr":"params","left":{".":{"attr":"asserted","left":{"Var":"context"}}}}}}}'
    return (
        '{"action":{"entity":{"id":"payments/send","type":"Action"},"op":"=="},"conditions":['
        f'{{"body":{{">":{{"left":{amount},"right":{{"Value":100}}}}}},"kind":"when"}},{{"body":{facts},"kind":"{kind}"}}],'
        '"effect":"permit","principal":{"op":"All"},"resource":{"entity":{"id":"vault","type":"Account"},"op":"=="}}'
    )


def secret(name: str) -> SecretKey:
    """The same key for the same name, in every run."""
    return SecretKey(bytes.fromhex(canonical.sha256_hex(name.encode())))


def sign(value: Payload, *keys: SecretKey) -> bytes:
    """The envelope of ``value`` with the signatures of ``keys``."""
    return sign_draft(envelope.draft(value), *keys)


def sign_draft(draft: envelope.Draft, *keys: SecretKey) -> bytes:
    """The same, for what was drafted already."""
    return envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})


class RuleEngine:
    """The policies of :func:`_bundle` as a few lines of Python, so that tests need no Cedar. The verdicts are Cedar's."""

    profile: str = "cedar-4/1"
    build: str = "rules/1"
    limit: int = 100
    """Another one is another policy."""

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        """One verdict per request."""
        return [self._one(request) for request in requests]

    def _one(self, request: EngineRequest) -> Verdict:
        groups = {entity.id for entity in request.slice if entity.type == "Group"}
        amount = request.asserted.params["amount"]
        if request.resource.id == "frozen":
            return Verdict(allow=False, determining=("never-frozen",), errors=())
        if "payers" in groups and isinstance(amount, int) and amount <= self.limit:
            return Verdict(allow=True, determining=("small-payments",), errors=())
        if request.resource.id == "vault":
            return Verdict(allow=True, determining=("emergency" if request.attested.breakglass else "vault",), errors=())
        return Verdict(allow=False, determining=(), errors=())


class Lab:
    """Everything that is signed before a mesh starts, and the means to sign more."""

    def __init__(self, *, members: int = 4, f: int = 1, k: int = 3) -> None:
        self.keys = {f"{region}-1": {use: secret(f"{region} {use}") for use in _USES} for region in _REGIONS[:members]}
        self.root = [secret(f"root {number}") for number in range(3)]
        self.operator = secret("operator")
        self.issuer = secret("issuer")
        self.revoker = secret("revoker")
        self.signers = [secret(f"policy {number}") for number in range(3)]
        self.approvers = [secret(f"security {number}") for number in range(3)]
        self.board = [secret(f"board {number}") for number in range(3)]
        self.roster = _roster(self, f, k)
        self.roster_envelope = self.seal(self.roster)
        self.pin = envelope.draft(self.roster).id
        self.bundle = _bundle()
        self.bundle_bytes = canonical.encode(self.bundle)
        self.place_key = secret("enforcer")
        self.manifest = Manifest(
            mesh=MESH,
            domain=DOMAIN,
            epoch=1,
            previous="",
            since="",
            digest=bundle_digest(self.bundle_bytes),
            actions={"send": Terms(assurance="local", authorization_ms=30_000, lease_ms=10_000, approvals={})},
            enforcers=["spiffe://lab/enforcer/till"],
            not_before_ms=T0,
            expires_ms=T0 + _DAY_MS,
            reason="",
            issued_ms=T0,
        )
        self.manifest_envelope = sign(self.manifest, *self.signers[:2])
        self.holder = secret("holder")
        self.identity_envelope = self.identity("spiffe://lab/agent/anna", self.holder, groups=["payers"])
        self.place = _identity("spiffe://lab/enforcer/till", self.place_key, role="enforcer", enforcer_class="sidecar")
        self.place_envelope = sign(self.place, self.issuer)
        self.engine = RuleEngine()
        self.governance: Governance = admit_governance(
            envelope.read(Roster, self.roster_envelope),
            pin=self.pin,
            manifests=[envelope.read(Manifest, self.manifest_envelope)],
            bundles=[self.bundle_bytes],
        )

    def seal(self, roster: Roster) -> bytes:
        """The envelope of a first roster, signed by whom it takes."""
        return sign(roster, *self.root[:2], self.operator)

    def next_policy(self, before: Statement[Manifest], **changed: object) -> Statement[Manifest]:
        """The next epoch, signed by the threshold."""
        claims = msgspec.structs.replace(before.claims, epoch=before.claims.epoch + 1, previous=before.id, **changed)
        return envelope.read(Manifest, sign(claims, *self.signers[:2]))

    def activation(
        self, of: Statement[Manifest], *rings: tuple[list[str], int], before: Statement[Activation] | None = None
    ) -> Statement[Activation]:
        """From when that epoch is in force, by (regions, ms), signed by the threshold; the next one after ``before``."""
        claims = Activation(
            mesh=MESH,
            domain=DOMAIN,
            sequence=1 if before is None else before.claims.sequence + 1,
            previous="" if before is None else before.id,
            since="",
            epoch=of.claims.epoch,
            manifest=of.id,
            rings=[Ring(regions=regions, not_before_ms=at_ms) for regions, at_ms in rings],
            reason="",
            issued_ms=T0,
        )
        return envelope.read(Activation, sign(claims, *self.signers[:2]))

    def identity(self, subject: str, key: SecretKey, *, groups: list[str]) -> bytes:
        """The envelope of a workload's identity document."""
        return sign(_identity(subject, key, groups=groups), self.issuer)

    def intent(
        self,
        number: int,
        *,
        amount: int = 10,
        account: str = "acme",
        memo: str | None = None,
        action: str = "send",
        purpose: str = "rent",
        at_ms: int = T0,
    ) -> tuple[str, bytes, list[Opening]]:
        """The statement id, envelope and openings of an intent; ``memo`` is a committed parameter."""
        openings = [] if memo is None else [Opening(name="memo", salt=f"{number:032x}", value=memo)]
        intent = Intent(
            mesh=MESH,
            domain=DOMAIN,
            subject="spiffe://lab/agent/anna",
            holder=self.holder.public,
            identity=envelope.identify(self.identity_envelope)[1],
            action=action,
            resource=EntityRef(type="Account", id=account),
            params={"amount": amount},
            committed={opening.name: commit(opening) for opening in openings},
            measurements=[],
            purpose=purpose,
            audience=Audience(enforcer=self.place_key.public, boot="b0" * 32),
            assurance_min="observe",
            within=[],
            after=[],
            nonce=f"{number:032x}",
            created_ms=at_ms,
            expires_ms=at_ms + 30_000,
        )
        return envelope.draft(intent).id, sign(intent, self.holder), openings

    def request(self, intent: bytes, openings: list[Opening], *approvals: bytes, parents: Sequence[Parent] = ()) -> bytes:
        """What a workload sends."""
        raw = msgspec.Raw
        return canonical.encode(
            IntentRequest(
                intent=raw(intent),
                identity=raw(self.identity_envelope),
                enforcer=raw(self.place_envelope),
                openings=openings,
                approvals=[raw(said) for said in approvals],
                parents=list(parents),
            )
        )

    def approval(self, intent: bytes, *keys: SecretKey, **changed: object) -> bytes:
        """The envelope of an approval of what ``intent`` would do, signed by these people; by two of security if none are named."""
        said = Approval(
            mesh=MESH,
            group="security",
            effect=Effect.of(envelope.read(Intent, intent).claims).digest,
            uses=1,
            reason="seen and agreed",
            not_before_ms=T0,
            expires_ms=T0 + 3_600_000,
        )
        return sign(msgspec.structs.replace(said, **changed), *(keys or self.approvers[:2]))

    def grant(self, *keys: SecretKey, **changed: object) -> bytes:
        """The envelope of a break-glass grant, signed by two of the board if nobody is named."""
        said = BreakGlass(
            mesh=MESH,
            group="board",
            domain=DOMAIN,
            subject="spiffe://lab/agent/anna",
            actions=["send"],
            uses=1,
            reason="the bank is closing",
            not_before_ms=T0,
            expires_ms=T0 + 3_600_000,
        )
        return sign(msgspec.structs.replace(said, **changed), *(keys or self.board[:2]))

    def outcome(self, intent: str, authorization: str, event: Event, *, sequence: int, previous: str, at_ms: int) -> bytes:
        """The envelope of an enforcer's outcome."""
        outcome = Outcome(
            mesh=MESH,
            enforcer=self.place_key.public,
            identity=envelope.draft(self.place).id,
            boot="b0" * 32,
            sequence=sequence,
            previous=previous,
            domain=DOMAIN,
            intent=intent,
            authorization=authorization,
            at_ms=at_ms,
            event=event,
        )
        return sign(outcome, self.place_key)

    def started(self) -> Started:
        """A start on the word of k members."""
        passed = [Check(name=name, passed=True) for name in CHECKS]
        return Started(checks=passed, heartbeats=[f"{number:064x}" for number in range(self.roster.k)], spend=1)

    def lived(self, intent: str, authorization: str, *, at_ms: int, sequence: int = 0, previous: str = "") -> list[bytes]:
        """The two outcomes of an execution that went well."""
        began = self.started()
        started = self.outcome(intent, authorization, began, sequence=sequence, previous=previous, at_ms=at_ms)
        ended = Finished(status=0, outputs=[], duration_ms=5)
        after = envelope.identify(started)[1]
        return [started, self.outcome(intent, authorization, ended, sequence=sequence + 1, previous=after, at_ms=at_ms + 5)]

    def report(self, outcomes: list[bytes]) -> bytes:
        """What an enforcer sends."""
        return canonical.encode(OutcomeRequest(identity=msgspec.Raw(self.place_envelope), outcomes=[msgspec.Raw(one) for one in outcomes]))


_USES: Final = ("log", "witness", "attest", "decision")


def _identity(
    subject: str, key: SecretKey, *, role: str = "workload", enforcer_class: str = "", groups: list[str] | None = None
) -> Identity:
    value = {
        "mesh": MESH,
        "subject": subject,
        "key": key.public,
        "role": role,
        "enforcer_class": enforcer_class,
        "person": "Anna Muster",
        "groups": groups or [],
        "attributes": {},
        "not_before_ms": T0,
        "expires_ms": T0 + _DAY_MS,
    }
    return msgspec.convert(value, Identity)


def _roster(lab: Lab, f: int, k: int) -> Roster:
    members = [
        Member(
            name=name,
            region=name.partition("-")[0],
            operator="lab",
            log_epoch=1,
            log_key=keys["log"].public,
            witness_key=keys["witness"].public,
            attest_key=keys["attest"].public,
            decision_key=keys["decision"].public,
        )
        for name, keys in lab.keys.items()
    ]
    return Roster(
        mesh=MESH,
        epoch=1,
        previous="",
        not_before_ms=0,
        members=members,
        operators={"lab": Operator(key=lab.operator.public, jurisdiction="de")},
        f=f,
        k=k,
        root=Role(keys=[key.public for key in lab.root], threshold=2),
        issuers=Role(keys=[lab.issuer.public], threshold=1),
        revoker=Role(keys=[lab.revoker.public], threshold=1),
        policy={DOMAIN: Role(keys=[key.public for key in lab.signers], threshold=2)},
        approvers={
            "security": Role(keys=[key.public for key in lab.approvers], threshold=1),
            "board": Role(keys=[key.public for key in lab.board], threshold=2),
        },
        handovers={},
        bounds=BOUNDS,
        reason="The first roster.",
        issued_ms=0,
    )


def _bundle() -> Bundle:
    return Bundle(
        domain=DOMAIN,
        profile="cedar-4/1",
        schema="entity Account;",
        policies=[
            PolicyJson(id="small-payments", effect="permit", annotations={"obligation": "receipt"}, json=_PERMIT),
            PolicyJson(id="vault", effect="permit", annotations={"approval": "2 of security"}, json=_vault("unless")),
            PolicyJson(id="emergency", effect="permit", annotations={}, json=_vault("when")),
            PolicyJson(id="never-frozen", effect="forbid", annotations={}, json=_FORBID),
        ],
        principal=[],
        types=[EntityType(name="Account", closed=False, prefix="")],
        entities=[Entity(type="Group", id="payers", attributes={}, parents=[])],
        actions=[
            ActionSpec(
                name="send",
                resource="Account",
                params=[
                    ParamSpec(name="amount", type="int", privacy="public", required=True),
                    ParamSpec(name="memo", type="string", privacy="committed", required=False),
                ],
            )
        ],
        cases=[],
    )
