"""A whole mesh in values: four members, an issuer, a revoker, one domain."""

from typing import TypeVar

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Params, Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.activation import Activation, Ring
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.policy import ActionSpec, Bundle, EntityType, Manifest, ParamSpec, PolicyJson, Terms, bundle_digest
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.core.law.travel import read_law
from mesh.core.run.identity import EnforcerClass, Identity
from mesh.core.run.identity import Role as IdentityRole
from mesh.core.run.intent import Assurance
from mesh.protocol.freshness import Freshness, hear

P = TypeVar("P", bound=Payload)

__all__ = [
    "APPROVERS",
    "BOUNDS",
    "BUNDLE",
    "ENFORCER",
    "HOLDER",
    "ISSUER",
    "MESH",
    "NOW_MS",
    "PLACE",
    "REGIONS",
    "SUBJECT",
    "beat",
    "decision_key",
    "fresh_view",
    "governance",
    "identity",
    "manifest",
    "member_key",
    "read",
    "revocation",
    "roster",
    "secret",
    "sign",
]

MESH = "m-test"
NOW_MS = 1_800_000_000_000
YEAR_MS = 365 * 86_400_000
REGIONS = {"anna": "eu", "bert": "us", "cleo": "ap", "dora": "sa"}
BOUNDS = Bounds(
    heartbeat_ms=500, stale_ms=3_000, skew_ms=300, certify_ms=100, attest_stall_ms=5_000, revocations_max=100_000, backlog_max=50_000
)
SUBJECT = "spiffe://m-test/agents/pay"
PLACE = "spiffe://m-test/enforcer"
_USES = ("log", "witness", "attest", "decision")


def secret(number: int) -> SecretKey:
    """The same key for the same number, in every run."""
    return SecretKey(number.to_bytes(32))


def member_key(name: str, use: str) -> SecretKey:
    """A member's key for a use."""
    return secret(1_000 + 10 * list(REGIONS).index(name) + _USES.index(use))


def decision_key(name: str) -> SecretKey:
    """What a member signs answers with."""
    return member_key(name, "decision")


ROOT, ISSUER, REVOKER, POLICY, HOLDER, ENFORCER = (secret(number) for number in range(1, 7))
APPROVERS = [secret(number) for number in range(7, 10)]
OPERATOR = secret(10)


def sign(value: Payload, *keys: SecretKey) -> bytes:
    """The envelope of ``value``, signed."""
    draft = envelope.draft(value)
    return envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})


def read(value: P, *keys: SecretKey) -> Statement[P]:
    """The same, read again."""
    return envelope.read(type(value), sign(value, *keys))


def roster(names: tuple[str, ...] = tuple(REGIONS), *, f: int = 1, k: int = 3) -> Roster:
    """Four members of whom one may lie, or fewer."""
    return Roster(
        mesh=MESH,
        epoch=1,
        previous="",
        not_before_ms=0,
        members=[
            Member(
                name=name,
                region=REGIONS[name],
                operator="one",
                log_epoch=1,
                log_key=member_key(name, "log").public,
                witness_key=member_key(name, "witness").public,
                attest_key=member_key(name, "attest").public,
                decision_key=member_key(name, "decision").public,
            )
            for name in names
        ],
        operators={"one": Operator(key=OPERATOR.public, jurisdiction="de")},
        f=f,
        k=k,
        root=Role(keys=[ROOT.public], threshold=1),
        issuers=Role(keys=[ISSUER.public], threshold=1),
        revoker=Role(keys=[REVOKER.public], threshold=1),
        policy={"ops": Role(keys=[POLICY.public], threshold=1)},
        approvers={"security": Role(keys=[key.public for key in APPROVERS], threshold=1)},
        handovers={},
        bounds=BOUNDS,
        reason="The first roster.",
        issued_ms=0,
    )


def _spec(name: str, **types: str) -> ActionSpec:
    params = [
        ParamSpec(
            name=key, type=kind.removesuffix("!"), privacy="committed" if kind.endswith("!") else "public", required=False, auditors=[]
        )
        for key, kind in types.items()
    ]
    return ActionSpec(name=name, resource="Thing", params=params)


def _policy(name: str, action: str, **annotations: str) -> PolicyJson:
    scope = {"op": "==", "entity": {"type": "Action", "id": f"ops/{action}"}}
    body = msgspec.json.encode({"effect": "permit", "principal": {"op": "All"}, "action": scope, "resource": {"op": "All"}})
    return PolicyJson(id=name, effect="permit", annotations=annotations, json=body.decode())


BUNDLE = Bundle(
    domain="ops",
    profile="test/1",
    schema="",
    policies=[_policy("may-pay", "pay"), _policy("may-run", "run"), _policy("may-log", "audit", obligation="notify")],
    principal=[],
    types=[EntityType(name="Thing", closed=False, prefix="")],
    entities=[],
    auditors=[],
    actions=[
        _spec("pay", to="string", amount="int", urgent="bool", tags="strings", memo="string!"),
        _spec("audit"),
        _spec("run", argv="strings", cwd="string", env="strings", uid="int"),
    ],
    cases=[],
)


def manifest(
    *,
    epoch: int = 1,
    floor: Assurance = "local",
    enforcers: tuple[str, ...] = (PLACE,),
    start_ms: int = 0,
    end_ms: int = NOW_MS + YEAR_MS,
    authorization_ms: int = 30_000,
    lease_ms: int = 2_000,
    approvals: dict[str, int] | None = None,
) -> Manifest:
    """The terms of the domain ``ops``."""
    terms = Terms(assurance=floor, authorization_ms=authorization_ms, lease_ms=lease_ms, approvals=approvals or {})
    return Manifest(
        mesh=MESH,
        domain="ops",
        epoch=epoch,
        previous="" if epoch == 1 else "ab" * 32,
        since="",
        digest=bundle_digest(canonical.encode(BUNDLE)),
        actions={action.name: terms for action in BUNDLE.actions},
        enforcers=list(enforcers),
        not_before_ms=start_ms,
        expires_ms=end_ms,
        reason="",
        issued_ms=NOW_MS,
    )


def activation(of: Manifest) -> Activation:
    """It begins everywhere when its manifest does; the first one of the domain."""
    rings = [Ring(regions=[], not_before_ms=of.not_before_ms)]
    identity = envelope.draft(of).id
    return Activation(
        mesh=MESH,
        domain=of.domain,
        sequence=1,
        previous="",
        since="",
        epoch=of.epoch,
        manifest=identity,
        rings=rings,
        reason="",
        issued_ms=NOW_MS,
    )


def revocation(kind: str, value: str, *, sequence: int = 1, previous: str = "", spares: tuple[str, ...] = ()) -> Revocation:
    """A revoker's no to one thing."""
    return Revocation(
        mesh=MESH,
        revoker=REVOKER.public,
        sequence=sequence,
        previous=previous,
        since="",
        target=msgspec.convert({"type": kind, "value": value}, Target),
        spares=list(spares),
        reason="stolen",
        issued_ms=NOW_MS,
    )


def governance(
    *manifests: Manifest,
    revoked: tuple[Revocation | Halt | Activation, ...] = (),
    of: Roster | None = None,
    bundles: tuple[bytes, ...] = (),
) -> Governance:
    """What is in force; without manifests, the plain one."""
    believed = envelope.read(Roster, sign(of or roster(), ROOT, OPERATOR))
    later = [activation(item) for item in manifests if item.epoch > 1]
    return admit_governance(
        believed,
        pin=believed.id,
        manifests=[envelope.read(Manifest, sign(item, POLICY)) for item in manifests or (manifest(),)],
        bundles=bundles,
        said=[read_law(sign(item, POLICY if isinstance(item, Activation) else REVOKER)) for item in (*revoked, *later)],
    )


def identity(
    subject: str,
    key: SecretKey,
    *,
    role: IdentityRole = "workload",
    enforcer_class: EnforcerClass = "",
    start_ms: int = 0,
    end_ms: int = NOW_MS + YEAR_MS,
    attributes: Params | None = None,
) -> Identity:
    """An identity document."""
    return Identity(
        mesh=MESH,
        subject=subject,
        key=key.public,
        role=role,
        enforcer_class=enforcer_class,
        person="Ada",
        groups=[],
        attributes=attributes or {},
        not_before_ms=start_ms,
        expires_ms=end_ms,
    )


def beat(
    state: Governance, name: str, *, sequence: int = 0, at_ms: int = NOW_MS, incarnation: int = 1, echo: tuple[str, ...] = ()
) -> Heartbeat:
    """A member's heartbeat about ``state``."""
    return Heartbeat(
        mesh=MESH,
        member=name,
        incarnation=incarnation,
        sequence=sequence,
        signed_ms=at_ms,
        roster_epoch=1,
        frontier=list(state.frontier),
        policies=[],
        checkpoint="",
        behind=False,
        echo=sorted(echo),
    )


def fresh_view(
    state: Governance, boot: str, *, at_ms: int = NOW_MS, names: tuple[str, ...] = tuple(REGIONS), now_ms: int | None = None
) -> Freshness:
    """A view for which these members vouch by heartbeats signed at ``at_ms``."""
    fresh = Freshness.begin(boot)
    for name in names:
        heartbeat = beat(state, name, at_ms=at_ms, echo=(boot,))
        now = at_ms if now_ms is None else now_ms
        fresh = hear(fresh, heartbeat, envelope.draft(heartbeat).id, now_ms=now, bounds=state.roster.bounds)
    return fresh
