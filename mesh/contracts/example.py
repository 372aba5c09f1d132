"""One small world in fixed values: every vector is cut from it, so that they fit together as real ones would.

Keys, nonces and salts are SHA-256 of a name: everybody knows them, nobody may use them. Times are fixed. The policy is the
starter that ``mesh policy init`` writes; the verdicts are written down here and repeated by an engine in the tests.

Not here: which files it becomes (:mod:`mesh.contracts.vectors`).
"""

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Params, Payload
from mesh.core.bytes.envelope import Draft
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.core.run.approval import Approval, BreakGlass, Effect
from mesh.core.run.decision import Decision, Verdict
from mesh.core.run.identity import EnforcerClass, Identity
from mesh.core.run.identity import Role as IdentityRole
from mesh.core.run.intent import Audience, EntityRef, Intent
from mesh.core.run.params import Opening, commit
from mesh.policy.build import Built, check
from mesh.policy.init import write_starter
from mesh.protocol import decide
from mesh.protocol.documents import Documents
from mesh.protocol.examine import Authenticated, Question, authenticate, question

__all__ = [
    "AT_MS",
    "MEMBERS",
    "MESH",
    "NODE",
    "OPENING",
    "OWNERS",
    "Base",
    "Signed",
    "approvals",
    "asked",
    "base",
    "decided",
    "hex32",
    "key",
    "key_names",
    "sign",
    "start_ms",
]

P = TypeVar("P", bound=Payload)
MESH: Final = "example"
MEMBERS: Final = {"eu-1": "eu", "us-1": "us", "ap-1": "ap", "sa-1": "sa"}
"""Name to region."""
OWNERS: Final = {"eu-1": "north", "us-1": "north", "ap-1": "south", "sa-1": "south"}
"""Name to operator."""
NODE: Final = "eu-1"
"""The governor whose log is shown."""
AT_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""
_YEAR_MS: Final = 365 * 86_400_000
_USES: Final = ("log", "witness", "attest", "decision")
_PEOPLE: Final = (
    *("root-1", "root-2", "root-3", "operator-north", "operator-south", "issuer", "revoker"),
    *("policy-1", "policy-2", "policy-3", "security-1", "security-2", "workload", "enforcer"),
)
OPENING: Final = Opening(name="memo", salt=hashlib.sha256(b"govmesh example salt").hexdigest()[:32], value="invoice 4711")


class Signed(msgspec.Struct, frozen=True):
    """One statement of the world."""

    name: str
    """Of the vector."""
    kind: str
    draft: Draft
    envelope: bytes
    signers: tuple[str, ...]


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What was there before anybody asked for anything."""

    roster: Signed
    manifest: Signed
    built: Built
    workload: Signed
    enforcer: Signed
    governance: Governance


def hex32(name: str) -> str:
    """A value that is random in a real mesh."""
    return hashlib.sha256(f"govmesh example {name}".encode()).hexdigest()


def key_names() -> tuple[str, ...]:
    """Everybody who has a key."""
    return (*_PEOPLE, *(f"{member}/{use}" for member in MEMBERS for use in _USES))


@cache
def key(name: str) -> SecretKey:
    """The key of that name."""
    return SecretKey(bytes.fromhex(hex32(f"key {name}")))


def start_ms(minutes: int) -> int:
    """A time of the story."""
    return AT_MS + minutes * 60_000


def sign(name: str, value: Payload, *signers: str) -> Signed:
    """``value`` signed by these keys."""
    draft = envelope.draft(value)
    signatures = {key(signer).public: key(signer).sign(draft.message) for signer in signers}
    sealed = envelope.assemble(draft.payload_type, draft.payload, signatures)
    return Signed(name, envelope.kind_of(type(value)).name, draft, sealed, signers)


@cache
def base() -> Base:
    """Roster, policy and identities."""
    built = _starter()
    roster = sign("roster", _roster(), "root-1", "root-3", "operator-north", "operator-south")
    manifest = sign("policy", _manifest(built), "policy-1", "policy-2")
    governance = admit_governance(
        envelope.read(Roster, roster.envelope),
        pin=roster.draft.id,
        manifests=[envelope.read(Manifest, manifest.envelope)],
        bundles=[built.data],
    )
    return Base(
        roster=roster,
        manifest=manifest,
        built=built,
        workload=_identity("identity", "agent/billing", "workload", groups=["payers"], attributes={"limit_cents": 200_000}),
        enforcer=_identity("identity-of-an-enforcer", "enforcer/gate", "enforcer", enforcer_class="in-process"),
        governance=governance,
    )


def _starter() -> Built:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "payments"
        write_starter(path, mesh=MESH)
        return check(path)


def _roster() -> Roster:
    return Roster(
        mesh=MESH,
        epoch=1,
        previous="",
        not_before_ms=0,
        members=[
            Member(
                name=name,
                region=region,
                operator=OWNERS[name],
                log_epoch=1,
                log_key=key(f"{name}/log").public,
                witness_key=key(f"{name}/witness").public,
                attest_key=key(f"{name}/attest").public,
                decision_key=key(f"{name}/decision").public,
            )
            for name, region in MEMBERS.items()
        ],
        operators={
            name: Operator(key=key(f"operator-{name}").public, jurisdiction=jurisdiction)
            for name, jurisdiction in (("north", "de"), ("south", "br"))
        },
        f=1,
        k=3,
        root=Role(keys=[key(f"root-{number}").public for number in (1, 2, 3)], threshold=2),
        issuers=Role(keys=[key("issuer").public], threshold=1),
        revoker=Role(keys=[key("revoker").public], threshold=1),
        policy={"payments": Role(keys=[key(f"policy-{number}").public for number in (1, 2, 3)], threshold=2)},
        approvers={"security": Role(keys=[key(f"security-{number}").public for number in (1, 2)], threshold=1)},
        handovers={},
        bounds=Bounds(
            heartbeat_ms=1_000,
            stale_ms=5_000,
            skew_ms=500,
            certify_ms=250,
            attest_stall_ms=30_000,
            revocations_max=100_000,
            backlog_max=50_000,
        ),
        reason="The first roster.",
        issued_ms=0,
    )


def _manifest(built: Built) -> Manifest:
    return Manifest(
        mesh=MESH,
        domain="payments",
        epoch=1,
        previous="",
        since="",
        digest=built.digest,
        actions=built.actions,
        enforcers=built.enforcers,
        not_before_ms=AT_MS,
        expires_ms=AT_MS + _YEAR_MS,
        reason="",
        issued_ms=AT_MS,
    )


def _identity(
    name: str,
    path: str,
    role: IdentityRole,
    *,
    groups: list[str] | None = None,
    attributes: Params | None = None,
    enforcer_class: EnforcerClass = "",
) -> Signed:
    document = Identity(
        mesh=MESH,
        subject=f"spiffe://{MESH}/{path}",
        key=key(role).public,
        role=role,
        enforcer_class=enforcer_class,
        person="Ada Example" if role == "workload" else "",
        groups=groups or [],
        attributes=attributes or {},
        not_before_ms=AT_MS,
        expires_ms=AT_MS + _YEAR_MS,
    )
    return sign(name, document, "issuer")


def asked(name: str, account: str, amount_cents: int, *, minute: int) -> Signed:
    """An intent to pay."""
    intent = Intent(
        mesh=MESH,
        domain="payments",
        subject=f"spiffe://{MESH}/agent/billing",
        holder=key("workload").public,
        identity=base().workload.draft.id,
        action="send",
        resource=EntityRef(type="Account", id=account),
        params={"to": account, "amount_cents": amount_cents},
        committed={OPENING.name: commit(OPENING)},
        sealed={},
        measurements=[],
        purpose="pay what is due",
        audience=Audience(enforcer=key("enforcer").public, boot=hex32("boot")),
        assurance_min="local",
        within=[],
        after=[],
        nonce=hex32(f"nonce {name}")[:32],
        created_ms=start_ms(minute),
        expires_ms=start_ms(minute) + 30_000,
    )
    return sign(name, intent, "workload")


def approvals(unpaid: Signed) -> tuple[Signed, Signed]:
    """Two people agree to what was denied; and they say that there is an emergency."""
    asked_for = envelope.read(Intent, unpaid.envelope).claims
    approval = Approval(
        mesh=MESH,
        group="security",
        effect=Effect.of(asked_for).digest,
        uses=1,
        reason="called them back",
        not_before_ms=start_ms(8),
        expires_ms=start_ms(68),
    )
    grant = BreakGlass(
        mesh=MESH,
        group="security",
        domain="payments",
        subject=asked_for.subject,
        actions=["send"],
        uses=1,
        reason="the bank is closing",
        not_before_ms=start_ms(8),
        expires_ms=start_ms(23),
    )
    return sign("approval", approval, "security-1", "security-2"), sign("grant", grant, "security-1", "security-2")


def decided(intent: Signed, verdict: Verdict, *, at_ms: int) -> tuple[Question, Decision]:
    """What the governor asked its engine, and what followed from the verdict."""
    world = base()
    documents = Documents()
    sender: Authenticated = authenticate(intent.envelope, world.workload.envelope, world.governance, documents)
    region = MEMBERS[NODE]
    frontier = world.governance.digest
    put = question(sender, world.enforcer.envelope, [OPENING], world.governance, documents, region=region, at_ms=at_ms, frontier=frontier)
    return put, decide.conclude(put.request, verdict, put.intent.claims, put.law, profile=world.built.bundle.profile)
