"""Everything a small mesh needs on one disk: keys, roster, identities, signed policies, configurations of bus, nodes and clients.

For development and tests: all keys lie in one folder, which no production mesh does. What is written is read by exactly the
code that reads production files.

Not here: starting anything (:mod:`mesh.dev`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mesh.adapters import signer
from mesh.adapters.bus_table import BusTable
from mesh.adapters.nkey import make_user
from mesh.adapters.trustfiles import Trust
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Params, Payload
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.core.run.identity import EnforcerClass, Identity
from mesh.core.run.identity import Role as IdentityRole
from mesh.deploy.nats import BusUsers, GovernorUser, TenantUser, nats_config
from mesh.deploy.toml import to_toml
from mesh.gate.context import Context, Holder
from mesh.policy.build import Built, check
from mesh.roles.config import NodeConfig, NodeTable

__all__ = ["DEV_BOUNDS", "DevMeshFiles", "Principal", "create", "enlist", "enlisted", "point_at"]

DEV_BOUNDS: Final = Bounds(
    heartbeat_ms=500, stale_ms=3_000, skew_ms=300, certify_ms=250, attest_stall_ms=5_000, revocations_max=10_000, backlog_max=50_000
)
_REGIONS: Final = ("eu", "us", "ap", "sa", "af", "oc", "me")
_OPERATOR: Final = "dev"
"""Who owns all of it, whatever the regions are called: one machine is one owner."""
_NOWHERE: Final = "local"
NOBODY: Final = "0" * 64
"""In the place of a roster's id: trusts none."""
_MESH: Final = "dev"
_YEAR_MS: Final = 365 * 24 * 3_600_000
_PASSWORD: Final = "bus/tenant.password"  # noqa: S105 -- where it is, not what it is
_USES: Final = ("log", "witness", "attest", "decision")
Random = Callable[[int], bytes]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody to make an identity for."""

    name: str
    """Short name in the context file."""
    subject: str
    groups: list[str] = []
    attributes: Params = {}
    person: str = ""
    role: IdentityRole = "workload"
    enforcer_class: EnforcerClass = ""


class DevMeshFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything is."""

    folder: Path
    mesh: str
    nodes: tuple[str, ...]
    spares: tuple[str, ...]
    """Governors that the first roster does not name."""
    regions: tuple[str, ...]
    context: Path
    roster: Path
    pin: str
    bus_config: Path
    provisioner: Path
    """nkey file of whoever makes the streams."""

    def node(self, name: str) -> Path:
        """A node's configuration file."""
        return self.folder / "nodes" / name / "node.toml"


class _Maker:
    """The working copy: one folder being filled."""

    def __init__(self, folder: Path, mesh: str, random: Random, now_ms: int) -> None:
        self.folder = folder
        self.mesh = mesh
        self.random = random
        self.now_ms = now_ms
        self.keys: dict[str, signer.KeyFile] = {}

    def key(self, path: str, use: str) -> str:
        """A new key file; answers its public key."""
        target = self.folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.keys[path] = signer.generate(target, use, self.random(32))
        return self.keys[path].key.public

    def login(self, path: str) -> str:
        """A new NATS login; answers its public nkey."""
        target = self.folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return make_user(target, self.random(32))

    def password(self, path: str) -> str:
        """A new random password, kept in a private file."""
        password = self.random(16).hex()
        self.write(path, password.encode()).chmod(0o600)
        return f'"{password}"'

    def signed(self, path: str, value: Payload, *signers: str) -> str:
        """Write ``value`` signed with the keys at ``signers``; answers its statement id."""
        draft = envelope.draft(value)
        signatures = {self.keys[name].key.public: self.keys[name].key.sign(draft.message) for name in signers}
        self.write(path, envelope.assemble(draft.payload_type, draft.payload, signatures))
        return draft.id

    def write(self, path: str, data: bytes) -> Path:
        """Write a file of the folder."""
        target = self.folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_bytes(data)
        return target


def create(
    folder: Path,
    *,
    policies: Sequence[Path],
    principals: Sequence[Principal],
    enforcer: Principal,
    nodes: int,
    spares: int = 0,
    random: Random,
    now_ms: int,
    tenant: str = "demo",
    bounds: Bounds = DEV_BOUNDS,
) -> DevMeshFiles:
    """Fill the empty ``folder`` with a mesh of ``nodes`` governors.

    Args:
        folder: must not exist, or be empty.
        policies: policy folders, one per domain; each is checked.
        principals: workloads.
        enforcer: the enforcer of the context.
        nodes: n; f is the largest sound one, k the smallest.
        spares: governors that have keys and a login, and that no roster names yet: see :func:`enlist`.
        random: that many fresh random bytes.
        now_ms: wall time.
        tenant: whose workloads they are.
        bounds: the roster's times.

    Raises:
        Refused: what is wrong with a policy, or with ``nodes``.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    make = _Maker(folder, _MESH, random, now_ms)
    built = [check(path) for path in policies]
    places = _places(nodes + spares)
    every = list(places)
    names = every[:nodes]
    regions = [places[name] for name in names]
    roster = _roster(make, {name: places[name] for name in names}, [item.bundle.domain for item in built], bounds)
    pin = make.signed("roster.json", roster, "people/root-1.key", "people/root-2.key", f"people/operator-{_OPERATOR}.key")
    for item in built:
        _policy(make, item)
    manifests = [f"policy/{item.bundle.domain}.manifest.json" for item in built]
    bundles = [f"policy/{item.bundle.domain}.bundle.json" for item in built]
    trust = Trust(roster="roster.json", pin=pin, policy=manifests, bundles=bundles)
    for name in every:
        _node(make, name, trust if name in names else _spare(make, name, trust))
    context = _context(make, regions[0], tenant, trust, principals, enforcer)
    config = make.write("bus/nats.conf", nats_config(_users(make, places, tenant), name=_MESH).encode())
    return DevMeshFiles(
        folder=folder,
        mesh=_MESH,
        nodes=tuple(names),
        spares=tuple(every[nodes:]),
        regions=tuple(dict.fromkeys(regions)),
        context=context,
        roster=folder / "roster.json",
        pin=pin,
        bus_config=config,
        provisioner=folder / "bus/provisioner.nk",
    )


def _places(count: int) -> dict[str, str]:
    """Names of so many governors, and the region of each."""
    names = [f"{_REGIONS[index % len(_REGIONS)]}-{index // len(_REGIONS) + 1}" for index in range(count)]
    return {name: name.partition("-")[0] for name in names}


def _spare(make: _Maker, name: str, trust: Trust) -> Trust:
    """Keys for one whom no roster names yet; so it trusts none either."""
    _node_keys(make, name)
    return msgspec.structs.replace(trust, pin=NOBODY, statements=[NOBODY])


def point_at(files: DevMeshFiles, servers: Sequence[str], *, node: str | None = None) -> None:
    """Write where the bus is into every configuration, or into one node's: ports are known only once it listens."""
    everybody = [*(files.node(name) for name in (*files.nodes, *files.spares)), files.context]
    paths = everybody if node is None else [files.node(node)]
    wanted = "servers = [" + ", ".join(f'"{server}"' for server in servers) + "]"
    for path in paths:
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(wanted if line.startswith("servers = ") else line for line in lines) + "\n", encoding="utf-8")


def enlist(files: DevMeshFiles, name: str, rosters: Sequence[Path], pin: str) -> None:
    """Write into a spare's configuration the rosters after the first, and which of them it begins under: one that names it."""
    path = files.node(name)
    wanted = {"pin": f'"{pin}"', "statements": "[" + ", ".join(f'"{roster}"' for roster in rosters) + "]"}
    lines = path.read_text(encoding="utf-8").splitlines()
    words = (line.partition(" = ")[0] for line in lines)
    changed = [f"{word} = {wanted[word]}" if word in wanted else line for word, line in zip(words, lines, strict=True)]
    path.write_text("\n".join(changed) + "\n", encoding="utf-8")


def enlisted(files: DevMeshFiles, name: str) -> bool:
    """Whether a spare's configuration names a roster to begin under."""
    return f'pin = "{NOBODY}"' not in files.node(name).read_text(encoding="utf-8")


def _roster(make: _Maker, places: Mapping[str, str], domains: Sequence[str], bounds: Bounds) -> Roster:
    """The genesis roster of nodes (name to region), with people who sign two of three."""
    n = len(places)
    f = (n - 1) // 3
    return Roster(
        mesh=make.mesh,
        epoch=1,
        previous="",
        not_before_ms=0,
        members=[_member(make, name, region) for name, region in places.items()],
        operators={_OPERATOR: Operator(key=make.key(f"people/operator-{_OPERATOR}.key", "operator"), jurisdiction=_NOWHERE)},
        f=f,
        k=(n + f) // 2 + 1,
        root=Role(keys=[make.key(f"people/root-{number}.key", "root") for number in (1, 2, 3)], threshold=2),
        issuers=Role(keys=[make.key("people/issuer.key", "issuer")], threshold=1),
        revoker=Role(keys=[make.key("people/revoker.key", "revoker")], threshold=1),
        policy={
            domain: Role(keys=[make.key(f"people/policy-{domain}-{number}.key", "policy") for number in (1, 2, 3)], threshold=2)
            for domain in domains
        },
        approvers={"security": Role(keys=[make.key(f"people/security-{number}.key", "approver") for number in (1, 2, 3)], threshold=1)},
        handovers={},
        bounds=bounds,
        reason="The first roster.",
        issued_ms=0,
    )


def _users(make: _Maker, places: Mapping[str, str], tenant: str) -> BusUsers:
    return BusUsers(
        governors=[GovernorUser(name=name, region=region, nkey=make.login(f"nodes/{name}/bus.nk")) for name, region in places.items()],
        tenants=[TenantUser(tenant=tenant, password=make.password(_PASSWORD))],
        auditor=make.login("bus/auditor.nk"),
        provisioner=make.login("bus/provisioner.nk"),
    )


def _policy(make: _Maker, item: Built) -> None:
    domain = item.bundle.domain
    make.write(f"policy/{domain}.bundle.json", item.data)
    manifest = Manifest(
        mesh=make.mesh,
        domain=domain,
        epoch=1,
        previous="",
        since="",
        digest=item.digest,
        actions=item.actions,
        enforcers=item.enforcers,
        not_before_ms=make.now_ms,
        expires_ms=make.now_ms + _YEAR_MS,
        reason="",
        issued_ms=make.now_ms,
    )
    make.signed(f"policy/{domain}.manifest.json", manifest, f"people/policy-{domain}-1.key", f"people/policy-{domain}-2.key")


def _member(make: _Maker, name: str, region: str) -> Member:
    return Member(name=name, region=region, operator=_OPERATOR, log_epoch=1, **_node_keys(make, name))


def _node_keys(make: _Maker, name: str) -> dict[str, str]:
    return {f"{use}_key": make.key(f"nodes/{name}/keys/{use}.key", use) for use in _USES}


def _node(make: _Maker, name: str, trust: Trust) -> None:
    """A node's configuration, two folders further down than what ``trust`` names."""
    (roster,), policy, bundles = ([f"../../{path}" for path in paths] for paths in ([trust.roster], trust.policy, trust.bundles))
    trust = msgspec.structs.replace(trust, roster=roster, policy=policy, bundles=bundles)
    config = NodeConfig(
        node=NodeTable(name=name, data="data", keys="keys"),
        bus=BusTable(servers=["nats://127.0.0.1:4222"], nkey_file="bus.nk"),
        trust=trust,
    )
    make.write(f"nodes/{name}/node.toml", to_toml(config, leave_out=frozenset({"base"})).encode())


def _context(make: _Maker, region: str, tenant: str, trust: Trust, principals: Sequence[Principal], enforcer: Principal) -> Path:
    holders = {principal.name: _identity(make, principal) for principal in (*principals, enforcer)}
    servers = ["nats://127.0.0.1:4222"]
    context = Context(
        mesh=make.mesh,
        region=region,
        tenant=tenant,
        bus=BusTable(servers=servers, user=tenant, password_file=_PASSWORD),
        trust=trust,
        spent="enforcer/spent.db",
        enforcer=holders.pop(enforcer.name),
        identities=holders,
        auditor=BusTable(servers=servers, nkey_file="bus/auditor.nk"),
        audit="auditor/audit.db",
    )
    return make.write("context.toml", to_toml(context, leave_out=frozenset({"base"})).encode())


def _identity(make: _Maker, principal: Principal) -> Holder:
    key = f"identities/{principal.name}.key"
    document = Identity(
        mesh=make.mesh,
        subject=principal.subject,
        key=make.key(key, principal.role),
        role=principal.role,
        enforcer_class=principal.enforcer_class,
        person=principal.person,
        groups=principal.groups,
        attributes=principal.attributes,
        not_before_ms=make.now_ms,
        expires_ms=make.now_ms + _YEAR_MS,
    )
    path = f"identities/{principal.name}.json"
    make.signed(path, document, "people/issuer.key")
    return Holder(document=path, key=key)
