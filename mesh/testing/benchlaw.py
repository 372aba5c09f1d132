"""What one governor needs to decide one kind of call, whichever it is that an adapter asks for: roster, policy, identities, all signed.

Not here: the governor (:mod:`mesh.testing.bench`).
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.sealkeys import SealKey
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt
from mesh.core.law.policy import ActionSpec, Auditor, Bundle, EntityType, Manifest, ParamSpec, PolicyJson, Terms, bundle_digest, read_bundle
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.core.run.identity import Identity
from mesh.core.run.identity import Role as IdentityRole
from mesh.core.run.params import Value
from mesh.testing.world import keys
from mesh.testing.world.engine import PROFILE, WorldEngine
from mesh.testing.world.setting import EPOCH_MS, USES

__all__ = ["ENFORCER", "MEMBER", "REGION", "TENANT", "WORKLOAD", "BenchLaw", "Engine", "bench_law"]

MEMBER: Final = "bench-1"
REGION: Final = "here"
TENANT: Final = "bench"
WORKLOAD: Final = "bench workload"
ENFORCER: Final = "bench enforcer"
"""Under which name the keys are made."""
_MESH: Final = "bench"
Privacy: TypeAlias = Literal["public", "committed", "sealed"]
_OPERATOR: Final = "bench"
_AUDITOR: Final = "auditor"
_DAY_MS: Final = 86_400_000
_PERMIT: Final = "permit"
_WITH_PEOPLE: Final = "permit-with-people"
_BOUNDS: Final = Bounds(
    heartbeat_ms=500, stale_ms=3_000, skew_ms=300, certify_ms=250, attest_stall_ms=5_000, revocations_max=100, backlog_max=1_000
)


class Engine(WorldEngine):
    """A policy engine that says what it is told, and gives no reason but one of the bundle's."""

    def __init__(self) -> None:
        """Permit."""
        super().__init__()
        self.answer = _PERMIT

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> Sequence[Verdict | None]:
        """One verdict per request, the same for all."""
        del bundle_digest
        return [Verdict(allow=bool(self.answer), determining=(self.answer,) if self.answer else (), errors=()) for _ in requests]

    def deny(self) -> None:
        """Permit nothing any more."""
        self.answer = ""

    def need_people(self) -> None:
        """Permit only what people have approved."""
        self.answer = _WITH_PEOPLE


class BenchLaw(msgspec.Struct, frozen=True):
    """All that is signed before the bench begins, and what may be said later."""

    governance: Governance
    library: Mapping[str, Bundle]
    identity: Statement[Identity]
    place: Statement[Identity]
    revocation: bytes
    """Of the workload's key."""
    halt: bytes
    """Of the domain."""


def bench_law(action: str, resource: str, params: Mapping[str, Value], committed: Sequence[str], sealed: Sequence[str] = ()) -> BenchLaw:
    """The law of a bench on which that action is done on that type of thing, with parameters of these types."""
    domain, _, verb = action.partition("/")
    roster = envelope.read(Roster, _signed(_roster(domain), "bench root", "bench operator"))
    privacy: dict[str, Privacy] = {**dict.fromkeys(committed, "committed"), **dict.fromkeys(sealed, "sealed")}
    specs = [_spec(name, value, privacy.get(name, "public")) for name, value in params.items()]
    bundle = canonical.encode(_bundle(domain, verb, resource, specs))
    digest = bundle_digest(bundle)
    manifest = Manifest(
        mesh=_MESH,
        domain=domain,
        epoch=1,
        previous="",
        since="",
        digest=digest,
        actions={verb: Terms(assurance="local", authorization_ms=4_000, lease_ms=2_000, approvals={})},
        enforcers=[_spiffe(ENFORCER)],
        not_before_ms=EPOCH_MS - _DAY_MS,
        expires_ms=EPOCH_MS + _DAY_MS,
        reason="",
        issued_ms=EPOCH_MS,
    )
    said = envelope.read(Manifest, _signed(manifest, "bench policy"))
    return BenchLaw(
        governance=admit_governance(roster, pin=roster.id, manifests=[said], bundles=[bundle]),
        library={digest: read_bundle(bundle, digest=digest)},
        identity=_identity(WORKLOAD, "workload"),
        place=_identity(ENFORCER, "enforcer"),
        revocation=_signed(_revocation(), "bench revoker"),
        halt=_signed(_halt(domain), "bench revoker"),
    )


def _signed(value: Payload, *names: str) -> bytes:
    return keys.signed(envelope.draft(value), *names)


def _spec(name: str, value: Value, privacy: Privacy) -> ParamSpec:
    one, kind = (value[0] if value else "", "{}s") if isinstance(value, list) else (value, "{}")
    word = "bool" if isinstance(one, bool) else "int" if isinstance(one, int) else "string"
    return ParamSpec(name=name, type=kind.format(word), privacy=privacy, required=True, auditors=[_AUDITOR] if privacy == "sealed" else [])


def _bundle(domain: str, verb: str, resource: str, params: list[ParamSpec]) -> Bundle:
    return Bundle(
        domain=domain,
        profile=PROFILE,
        schema="",
        policies=[
            PolicyJson(id=_PERMIT, effect="permit", annotations={}, json="{}"),
            PolicyJson(id=_WITH_PEOPLE, effect="permit", annotations={"approval": "1 of people"}, json="{}"),
        ],
        principal=[],
        types=[EntityType(name=resource, closed=False, prefix="")],
        entities=[],
        auditors=[Auditor(name=_AUDITOR, key=SealKey(bytes(range(32))).public)],
        actions=[ActionSpec(name=verb, resource=resource, params=sorted(params, key=lambda spec: spec.name))],
        cases=[],
    )


def _roster(domain: str) -> Roster:
    keys_of = {f"{use}_key": keys.public(f"{MEMBER} {use}") for use in USES}
    return Roster(
        mesh=_MESH,
        epoch=1,
        previous="",
        not_before_ms=0,
        members=[Member(name=MEMBER, region=REGION, operator=_OPERATOR, log_epoch=1, **keys_of)],
        operators={_OPERATOR: Operator(key=keys.public("bench operator"), jurisdiction="nowhere")},
        f=0,
        k=1,
        root=_role("bench root"),
        issuers=_role("bench issuer"),
        revoker=_role("bench revoker"),
        policy={domain: _role("bench policy")},
        approvers={"people": _role("bench approver")},
        handovers={},
        bounds=_BOUNDS,
        reason="The first roster.",
        issued_ms=0,
    )


def _role(name: str) -> Role:
    return Role(keys=[keys.public(name)], threshold=1)


def _identity(name: str, role: IdentityRole) -> Statement[Identity]:
    document = Identity(
        mesh=_MESH,
        subject=_spiffe(name),
        key=keys.public(name),
        role=role,
        enforcer_class="in-process" if role == "enforcer" else "",
        person="",
        groups=[],
        attributes={},
        not_before_ms=EPOCH_MS - _DAY_MS,
        expires_ms=EPOCH_MS + _DAY_MS,
    )
    return envelope.read(Identity, _signed(document, "bench issuer"))


def _revocation() -> Revocation:
    return Revocation(
        mesh=_MESH,
        revoker=keys.public("bench revoker"),
        sequence=1,
        previous="",
        since="",
        target=Target(type="key", value=keys.public(WORKLOAD)),
        spares=[],
        reason="stolen",
        issued_ms=EPOCH_MS,
    )


def _halt(domain: str) -> Halt:
    return Halt(mesh=_MESH, domain=domain, sequence=1, previous="", since="", lifts=[], reason="an accident", issued_ms=EPOCH_MS)


def _spiffe(name: str) -> str:
    return f"spiffe://{_MESH}/{name.replace(' ', '/')}"
