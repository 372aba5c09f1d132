"""What a world is governed by: a sound roster of n members, one domain with one action, workloads and enforcers with documents.

The same for the same n, whatever the seed, so it is made once per process.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, Ring
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt
from mesh.core.law.policy import ActionSpec, Bundle, EntityType, Manifest, ParamSpec, PolicyJson, Terms, bundle_digest, read_bundle
from mesh.core.law.resolve import Resolve
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.core.law.travel import Said, link_of
from mesh.core.run.identity import Identity
from mesh.core.run.identity import Role as IdentityRole
from mesh.protocol.step import KeyUse
from mesh.testing.world import keys
from mesh.testing.world.engine import PROFILE

__all__ = [
    "ACTION",
    "DOMAIN",
    "ENFORCERS",
    "EPOCH_MS",
    "MESH",
    "RENEWED_MS",
    "RESOURCE",
    "REVOKED",
    "USES",
    "WORKLOADS",
    "Setting",
    "quorum",
    "setting",
]

MESH: Final = "world"
DOMAIN: Final = "lab"
ACTION: Final = "act"
RESOURCE: Final = "Thing"
EPOCH_MS: Final = 1_800_000_000_000
"""True time at the beginning of every world, in ms since the Unix epoch."""
DAY_MS: Final = 86_400_000
USES: Final[tuple[KeyUse, ...]] = ("log", "witness", "attest", "decision")
WORKLOADS: Final = ("w0", "w1", "w2")
ENFORCERS: Final = ("e0", "e1")
RENEWED_MS: Final = 7_000
"""When the second policy epoch begins everywhere in worlds that have one, in ms since the world began."""
REVOKED: Final = "w2"
"""The workload that is revoked in worlds with a revocation."""
_BOUNDS: Final = Bounds(
    heartbeat_ms=500, stale_ms=3_000, skew_ms=300, certify_ms=250, attest_stall_ms=2_000, revocations_max=100_000, backlog_max=50_000
)


class Setting(msgspec.Struct, frozen=True):
    """All that is signed before a world begins."""

    genesis: Statement[Roster]
    manifest: Statement[Manifest]
    governance: Governance
    revoking: Governance
    """The same with :data:`REVOKED`'s key revoked."""
    revocations: tuple[Statement[Revocation], ...]
    """A stream of three, the second of which revokes that key."""
    forked: tuple[Statement[Revocation], ...]
    """Two by another revoker under one number."""
    halting: Governance
    """The same with :data:`DOMAIN` halted."""
    halts: tuple[Statement[Halt], ...]
    """A stream of three: two halts of that domain, and the resume that lifts both."""
    renewal: Statement[Manifest]
    """A second policy epoch."""
    activation: Statement[Activation]
    """From when it is in force, region by region: the last from :data:`RENEWED_MS` on."""
    contested: Mapping[str, tuple[Statement[Said], ...]]
    """By stream, what forks :attr:`halts`, the policy or :attr:`forked`, and what its resolve makes of it: who halts otherwise is
    lifted behind the resume, and the revoker goes on."""
    resolves: tuple[Statement[Resolve], ...]
    """One for each of these streams."""
    bundles: Mapping[str, Bundle]
    """By digest."""
    identities: Mapping[str, Statement[Identity]]
    """Of workloads and enforcers, by name."""

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the governors."""
        return tuple(member.name for member in self.governance.roster.members)


def quorum(n: int) -> tuple[int, int]:
    """(f, k) for ``n`` members: as many liars as n allows, and the smallest sound quorum."""
    f = (n - 1) // 3
    return f, (n + f) // 2 + 1


@lru_cache(maxsize=16)
def setting(n: int) -> Setting:
    """The setting of a world with ``n`` governors."""
    roster = envelope.read(Roster, keys.signed(envelope.draft(_roster(n)), "root", "operator"))
    bundle = canonical.encode(_bundle())
    manifest = envelope.read(Manifest, keys.signed(envelope.draft(_manifest(bundle_digest(bundle))), "policy"))
    revocations = list[Statement[Revocation]]()
    for target in (_spiffe("left"), keys.public(REVOKED), _spiffe("gone")):
        revocations.append(_revocation("revoker", target, revocations[-1:]))
    forked = tuple(_revocation("second revoker", _spiffe(name), []) for name in ("one", "other"))
    halts = [_halt([])]
    halts.append(_halt(halts))
    halts.append(_halt(halts, lifts=[item.id for item in halts]))
    second = canonical.encode(msgspec.structs.replace(_bundle(), schema="// the second"))
    claims = msgspec.structs.replace(manifest.claims, epoch=2, previous=manifest.id, digest=bundle_digest(second))
    renewal = envelope.read(Manifest, keys.signed(envelope.draft(claims), "policy"))
    plain, revoking, halting = (
        admit_governance(roster, pin=roster.id, manifests=[manifest], bundles=[bundle], said=held)
        for held in ((), revocations[:2], halts[:1])
    )
    bundles = {bundle_digest(data): read_bundle(data, digest=bundle_digest(data)) for data in (bundle, second)}
    identities = {name: _identity(name, "workload") for name in WORKLOADS} | {name: _identity(name, "enforcer") for name in ENFORCERS}
    contested, resolves = _contests(halts, renewal, forked)
    return Setting(
        *(roster, manifest, plain, revoking, tuple(revocations), forked, halting, tuple(halts), renewal, _activation(renewal)),
        *(contested, resolves, bundles, identities),
    )


def _contests(
    halts: Sequence[Statement[Halt]], renewal: Statement[Manifest], forked: Sequence[Statement[Revocation]]
) -> tuple[dict[str, tuple[Statement[Said], ...]], tuple[Statement[Resolve], ...]]:
    other = _halt([], reason="a second first")
    lifted = _halt(halts, lifts=[other.id])
    twin = envelope.read(Manifest, keys.signed(envelope.draft(msgspec.structs.replace(renewal.claims, reason="a twin")), "policy"))
    one, two = forked
    further = _revocation("second revoker", _spiffe("further"), [one])
    resolves = list[Statement[Resolve]]()
    for head, aside in ((halts[0], other), (renewal, twin), (one, two)):
        claims = Resolve(
            mesh=MESH,
            sequence=len(resolves) + 1,
            previous=resolves[-1].id if resolves else "",
            since="",
            stream=link_of(head)[0],
            head=head.id,
            aside=[aside.id],
            reason="a world's test",
            issued_ms=EPOCH_MS,
        )
        resolves.append(envelope.read(Resolve, keys.signed(envelope.draft(claims), "root")))
    said: list[tuple[Statement[Said], ...]] = [(*halts, other, lifted), (renewal, twin), (one, two, further)]
    return {link_of(items[0])[0]: items for items in said}, tuple(resolves)


def _revocation(revoker: str, value: str, before: Sequence[Statement[Revocation]]) -> Statement[Revocation]:
    """The next one after those before, of a key or a subject."""
    claims = Revocation(
        mesh=MESH,
        revoker=keys.public(revoker),
        sequence=before[-1].claims.sequence + 1 if before else 1,
        previous=before[-1].id if before else "",
        since="",
        target=Target(type="subject" if value.startswith("spiffe:") else "key", value=value),
        spares=[],
        reason="a world's test",
        issued_ms=EPOCH_MS,
    )
    return envelope.read(Revocation, keys.signed(envelope.draft(claims), revoker))


def _halt(before: Sequence[Statement[Halt]], *, lifts: Sequence[str] = (), reason: str = "a world's test") -> Statement[Halt]:
    """The next one after those before: a halt, or what lifts these."""
    claims = Halt(
        mesh=MESH,
        domain=DOMAIN,
        sequence=len(before) + 1,
        previous=before[-1].id if before else "",
        since="",
        lifts=list(lifts),
        reason=reason,
        issued_ms=EPOCH_MS,
    )
    return envelope.read(Halt, keys.signed(envelope.draft(claims), "revoker"))


def _activation(renewal: Statement[Manifest]) -> Statement[Activation]:
    """The second epoch begins in one region first."""
    claims = Activation(
        mesh=MESH,
        domain=DOMAIN,
        sequence=1,
        previous="",
        since="",
        epoch=2,
        manifest=renewal.id,
        rings=[
            Ring(regions=["r0"], not_before_ms=EPOCH_MS + RENEWED_MS - 1_500),
            Ring(regions=[], not_before_ms=EPOCH_MS + RENEWED_MS),
        ],
        reason="a world's test",
        issued_ms=EPOCH_MS,
    )
    return envelope.read(Activation, keys.signed(envelope.draft(claims), "policy"))


def _roster(n: int) -> Roster:
    f, k = quorum(n)
    members = [
        Member(
            name=f"g{at}", region=f"r{at % 3}", operator="world", log_epoch=1, **{f"{use}_key": keys.public(f"g{at} {use}") for use in USES}
        )
        for at in range(n)
    ]
    return Roster(
        mesh=MESH,
        epoch=1,
        previous="",
        not_before_ms=0,
        members=members,
        operators={"world": Operator(key=keys.public("operator"), jurisdiction="nowhere")},
        f=f,
        k=k,
        root=_role("root"),
        issuers=_role("issuer"),
        revoker=Role(keys=[keys.public("revoker"), keys.public("second revoker")], threshold=1),
        policy={DOMAIN: _role("policy")},
        approvers={},
        handovers={},
        bounds=_BOUNDS,
        reason="The first roster.",
        issued_ms=0,
    )


def _role(name: str) -> Role:
    return Role(keys=[keys.public(name)], threshold=1)


def _bundle() -> Bundle:
    params = [
        ParamSpec(name="allow", type="bool", privacy="public", required=True, auditors=[]),
        ParamSpec(name="fail", type="bool", privacy="public", required=False, auditors=[]),
        ParamSpec(name="memo", type="string", privacy="committed", required=False, auditors=[]),
    ]
    return Bundle(
        domain=DOMAIN,
        profile=PROFILE,
        schema="",
        policies=[PolicyJson(id="permit-allowed", effect="permit", annotations={}, json="{}")],
        principal=[],
        types=[EntityType(name=RESOURCE, closed=False, prefix="")],
        entities=[],
        auditors=[],
        actions=[ActionSpec(name=ACTION, resource=RESOURCE, params=params)],
        cases=[],
    )


def _manifest(digest: str) -> Manifest:
    return Manifest(
        mesh=MESH,
        domain=DOMAIN,
        epoch=1,
        previous="",
        since="",
        digest=digest,
        actions={ACTION: Terms(assurance="local", authorization_ms=4_000, lease_ms=2_000, approvals={})},
        enforcers=[_spiffe(name) for name in ENFORCERS],
        not_before_ms=EPOCH_MS - DAY_MS,
        expires_ms=EPOCH_MS + DAY_MS,
        reason="",
        issued_ms=EPOCH_MS,
    )


def _identity(name: str, role: IdentityRole) -> Statement[Identity]:
    document = Identity(
        mesh=MESH,
        subject=_spiffe(name),
        key=keys.public(name),
        role=role,
        enforcer_class="sidecar" if role == "enforcer" else "",
        person="",
        groups=[],
        attributes={},
        not_before_ms=EPOCH_MS - DAY_MS,
        expires_ms=EPOCH_MS + DAY_MS,
    )
    return envelope.read(Identity, keys.signed(envelope.draft(document), "issuer"))


def _spiffe(name: str) -> str:
    return f"spiffe://{MESH}/{name}"
