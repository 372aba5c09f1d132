"""`mesh roster init`: the first roster of a mesh, from a description that people can read, unsigned.

Not here: every later one (:mod:`mesh.cli.roster_plan`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.adapters.configfile import load_toml
from mesh.cli import roster_draft as drafts
from mesh.cli import saying
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.law.planning import most_liars, sound_quorums
from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from mesh.errors import Refused

__all__ = ["init", "member_keys"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_TEMPLATE: Final = """\
# The first roster of a mesh. A key is written in hex, or as a file: a key file, or one with nothing but the public key in hex.
# Only public keys go into the roster; secret ones stay where they were made: `mesh key gen FILE --use USE`, `mesh key show FILE`.

mesh = "example"
# f = 1                  # liars to bear; by default as many as the members can
# k = 3                  # the quorum; by default the smallest sound one

[operators.acme]         # whoever owns members; countersigns what is new about them
key = "acme/operator.key"
jurisdiction = "de"

[members.eu-1]
region = "eu"
operator = "acme"
keys = "eu-1"            # a folder with log, witness, attest and decision, each .key or .pub; or:
# log_key = "…"
# witness_key = "…"
# attest_key = "…"
# decision_key = "…"

[roles.root]             # names rosters
keys = ["root-1.key", "root-2.key", "root-3.key"]
threshold = 2

[roles.issuers]          # each alone issues identity documents
keys = ["issuer.key"]
threshold = 1

[roles.revoker]          # each alone revokes one subject; the threshold halts
keys = ["revoker-1.key", "revoker-2.key"]
threshold = 2

[roles.policy.payments]  # signs the policy of a domain
keys = ["policy-1.key", "policy-2.key"]
threshold = 2

# [roles.approvers.security]   # whom policy can ask for: @approval("2 of security")
# keys = ["security-1.key", "security-2.key"]
# threshold = 1          # fewer never count

# [bounds]               # milliseconds; these are the defaults
# heartbeat_ms = 1000
# stale_ms = 5000
# skew_ms = 500
# certify_ms = 250
# attest_stall_ms = 30000
# revocations_max = 10000
# backlog_max = 50000     # records of a governor that are not final, beyond which it decides nothing
"""


class _Operator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str
    jurisdiction: str


class _Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    region: str
    operator: str
    keys: str = ""
    log_key: str = ""
    witness_key: str = ""
    attest_key: str = ""
    decision_key: str = ""


class _Role(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keys: list[str]
    threshold: int


class _Roles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    root: _Role
    issuers: _Role
    revoker: _Role
    policy: dict[str, _Role] = {}
    approvers: dict[str, _Role] = {}


class _Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    heartbeat_ms: int = 1_000
    stale_ms: int = 5_000
    skew_ms: int = 500
    certify_ms: int = 250
    attest_stall_ms: int = 30_000
    revocations_max: int = 10_000
    backlog_max: int = 50_000


class _Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mesh: str
    f: int = -1
    k: int = 0
    operators: dict[str, _Operator]
    members: dict[str, _Member]
    roles: _Roles
    bounds: _Bounds = _Bounds()


@click.command()
@click.argument("description", type=_FILE, required=False)
@click.option("--out", type=_FILE, help="Write it there; by default roster-1.json.")
@click.option("--reason", default="", help="Why, in your own words; everybody can read it.")
@click.option("--template", is_flag=True, help="Print a description to begin with.")
@format_option
@pass_cli
def init(cli: Cli, *, description: Path | None, out: Path | None, reason: str, template: bool) -> None:
    """Draw up the first roster of a mesh from DESCRIPTION, a TOML file (--template shows one), and write it unsigned.

    It is believed once the root threshold and every operator have signed it, and by whoever pins its id.
    """
    if template:
        cli.text(_TEMPLATE)
        return
    if description is None:
        raise Refused("usage", "DESCRIPTION is missing; `mesh roster init --template` prints one to begin with")
    saying.check_reason(reason)
    drafts.write_first(cli, drafts.unsigned(_roster(load_toml(_Description, description), description.parent, reason)), out)


def member_keys(given: Mapping[str, str], folder: str, base: Path, who: str) -> dict[str, str]:
    """The public keys of a member by use: those that are given, else those of the folder.

    Raises:
        Refused: ``usage`` if one is missing; as :func:`mesh.cli.roster_draft.public_key`.
    """
    found = dict[str, str]()
    for use in drafts.USES:
        reference = given.get(use, "") or _in(folder, use, base)
        if not reference:
            raise Refused("usage", f"{who}: no {use} key; give a folder of keys, or each of {', '.join(drafts.USES)}")
        found[use] = drafts.public_key(reference, use, base)
    return found


def _in(folder: str, use: str, base: Path) -> str:
    if not folder:
        return ""
    names = [f"{folder}/{use}.pub", f"{folder}/{use}.key"]
    return next((name for name in names if (base / name).exists()), names[-1])


def _roster(told: _Description, base: Path, reason: str) -> Roster:
    n = len(told.members)
    f = most_liars(n) if told.f < 0 else told.f
    sound = sound_quorums(n, f)
    if not sound:
        raise Refused("roster_unsound", f"{n} members bear f={most_liars(n)} at most, f={f} takes {3 * f + 1}")
    return Roster(
        mesh=told.mesh,
        epoch=1,
        previous="",
        reason=reason,
        issued_ms=wall_ms(),
        not_before_ms=0,
        members=[_member(name, member, base) for name, member in told.members.items()],
        operators={
            name: Operator(key=drafts.public_key(owner.key, "operator", base), jurisdiction=owner.jurisdiction)
            for name, owner in told.operators.items()
        },
        f=f,
        k=told.k or sound[0],
        root=_role(told.roles.root, "root", base),
        issuers=_role(told.roles.issuers, "issuer", base),
        revoker=_role(told.roles.revoker, "revoker", base),
        policy={domain: _role(role, "policy", base) for domain, role in told.roles.policy.items()},
        approvers={group: _role(role, "approver", base) for group, role in told.roles.approvers.items()},
        handovers={},
        bounds=Bounds(**msgspec.structs.asdict(told.bounds)),
    )


def _member(name: str, told: _Member, base: Path) -> Member:
    given = {use: getattr(told, f"{use}_key") for use in drafts.USES}
    keys = member_keys(given, told.keys, base, f"members.{name}")
    return Member(
        name=name,
        region=told.region,
        operator=told.operator,
        log_epoch=1,
        log_key=keys["log"],
        witness_key=keys["witness"],
        attest_key=keys["attest"],
        decision_key=keys["decision"],
    )


def _role(told: _Role, use: str, base: Path) -> Role:
    return Role(keys=[drafts.public_key(reference, use, base) for reference in told.keys], threshold=told.threshold)
