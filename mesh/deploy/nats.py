"""nats-server configurations: accounts and permissions per role, deny by default.

Rules
-----
1. Nodes, auditors and the provisioner are users of the account ``MESH``; each may publish only under its own name.
2. A tenant's workloads live in an account of their own. It imports three services (intents under its own name, outcomes, sync)
   and two streams (heartbeats, governance statements); so the server rewrites their reply subjects, and a forged one cannot reach
   a governor's subjects. What they may hear is bounded by the account itself, in which there is nothing but those imports and
   their own inboxes; and they may not listen to each other's requests, which carry openings.
3. Nobody online may create, change or delete a stream but the provisioner, which runs before and apart from the nodes.
4. Auditors hear what is published and never what is asked: as one of a governor's queue group they could swallow requests.
5. Slow readers are cut off rather than slowing the governors; payloads are bounded.

Nodes, auditors and the provisioner log in with nkeys, of which this file holds the public halves. Tenants log in with a
password, so that a client in any language can; what they send is signed anyway.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from mesh.limits import MESSAGE_BYTES_MAX

__all__ = ["BusUsers", "GovernorUser", "TenantUser", "auditor_user", "governor_user", "nats_config", "tenant_account", "tenant_exports"]

_PUBLISHED: Final = ("lineage", "checkpoint", "cosig", "law", "fraud")
_ASKED: Final = ("mesh.v1.*.intent.>", "mesh.v1.*.outcome.>", "mesh.v1.sync.>")


class GovernorUser(msgspec.Struct, frozen=True, kw_only=True):
    """One governor's login."""

    name: str
    region: str
    nkey: str
    """Public user nkey."""


class TenantUser(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's account with its login."""

    tenant: str
    """Also the user name."""
    password: str
    """In the clear for a mesh on one disk, or ``$NAME`` of an environment variable of the server."""


class BusUsers(msgspec.Struct, frozen=True, kw_only=True):
    """Everyone who may log in."""

    governors: list[GovernorUser]
    tenants: list[TenantUser]
    auditor: str
    provisioner: str


def nats_config(users: BusUsers, *, name: str) -> str:
    """The configuration of one server. Addresses and storage are given on its command line or by the platform."""
    regions = sorted({governor.region for governor in users.governors})
    mesh_users = [
        *(governor_user(governor) for governor in users.governors),
        auditor_user(users.auditor, regions),
        f"      {{ nkey: {users.provisioner} }}",
    ]
    lines = [
        f"server_name: {name}",
        f"max_payload: {MESSAGE_BYTES_MAX + 4096}",
        "max_pending: 16MB",
        'write_deadline: "2s"',
        "no_fast_producer_stall: true",
        'ping_interval: "10s"',
        "ping_max: 2",
        "accounts {",
        "  MESH {",
        "    jetstream: enabled",
        "    users: [",
        *mesh_users,
        "    ]",
        "    exports: [",
        *tenant_exports(users.tenants),
        "    ]",
        "  }",
        *(line for tenant in users.tenants for line in tenant_account(tenant)),
        "  SYS { }",
        "}",
        "system_account: SYS",
    ]
    return "\n".join(lines) + "\n"


def governor_user(user: GovernorUser) -> str:
    """A governor in the list of users of the account ``MESH``."""
    region, name = user.region, user.name
    publish = [
        f"mesh.v1.{region}.lineage.{name}",
        f"mesh.v1.{region}.checkpoint.{name}",
        f"mesh.v1.{region}.fraud.{name}",
        "mesh.v1.*.cosig.*",
        f"mesh.v1.hb.{name}",
        "mesh.v1.law.*",
        "mesh.v1.sync.*",
    ]
    subscribe = [
        "mesh.v1.hb.*",
        "mesh.v1.law.*",
        "mesh.v1.*.lineage.*",
        "mesh.v1.*.checkpoint.*",
        "mesh.v1.*.fraud.*",
        f"mesh.v1.{region}.cosig.{name}",
        f"mesh.v1.sync.{name}",
        f"mesh.v1.{region}.outcome.* gov-{region}",
        f"mesh.v1.{region}.intent.*.* gov-{region}",
        f"_INBOX_gov-{name}.>",
    ]
    return _user(f"nkey: {user.nkey}", publish=publish, subscribe=subscribe, answers=True)


def auditor_user(nkey: str, regions: Iterable[str]) -> str:
    """An auditor in the list of users of the account ``MESH``."""
    subscribe = ["_INBOX_auditor.>", "mesh.v1.hb.*", "mesh.v1.law.*", *(f"mesh.v1.*.{word}.*" for word in _PUBLISHED)]
    return _user(f"nkey: {nkey}", publish=_auditor_publish(regions), subscribe=subscribe)


def _auditor_publish(regions: Iterable[str]) -> list[str]:
    allowed = ["mesh.v1.sync.*"]
    for region in regions:
        stream = f"LINEAGE_{region}"
        allowed += [
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.INFO.{stream}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>",
            f"$JS.ACK.{stream}.>",
        ]
    return allowed


def tenant_exports(users: Iterable[TenantUser]) -> list[str]:
    """What the account ``MESH`` exports to its tenants, each its own intents."""
    tenants = [user.tenant for user in users]
    everyone = ", ".join(tenant.upper() for tenant in tenants)
    return [
        *(f'      {{ service: "mesh.v1.*.intent.{tenant}.*", accounts: [{tenant.upper()}] }}' for tenant in tenants),
        f'      {{ service: "mesh.v1.*.outcome.*", accounts: [{everyone}] }}',
        f'      {{ service: "mesh.v1.sync.*", accounts: [{everyone}] }}',
        f'      {{ stream: "mesh.v1.hb.*", accounts: [{everyone}] }}',
        f'      {{ stream: "mesh.v1.law.*", accounts: [{everyone}] }}',
    ]


def tenant_account(user: TenantUser) -> list[str]:
    """The lines of a tenant's account."""
    tenant = user.tenant
    publish = [f"mesh.v1.*.intent.{tenant}.*", "mesh.v1.*.outcome.*", "mesh.v1.sync.*"]
    return [
        f"  {tenant.upper()} {{",
        "    users: [",
        _user(f"user: {tenant}, password: {user.password}", publish=publish, subscribe=[">"], deaf=_ASKED),
        "    ]",
        "    imports: [",
        f'      {{ service: {{ account: MESH, subject: "mesh.v1.*.intent.{tenant}.*" }} }}',
        '      { service: { account: MESH, subject: "mesh.v1.*.outcome.*" } }',
        '      { service: { account: MESH, subject: "mesh.v1.sync.*" } }',
        '      { stream: { account: MESH, subject: "mesh.v1.hb.*" } }',
        '      { stream: { account: MESH, subject: "mesh.v1.law.*" } }',
        "    ]",
        "  }",
    ]


def _user(login: str, *, publish: list[str], subscribe: list[str], deaf: Iterable[str] = (), answers: bool = False) -> str:
    hear = f"allow: {_list(subscribe)}" + (f", deny: {_list(deaf)}" if deaf else "")
    answer = ' allow_responses: { max: 1, expires: "10s" }' if answers else ""
    return f"      {{ {login}, permissions: {{ publish: {{ allow: {_list(publish)} }}, subscribe: {{ {hear} }},{answer} }} }}"


def _list(subjects: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{subject}"' for subject in subjects) + "]"
