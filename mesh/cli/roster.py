"""`mesh roster`: what a roster file says, and whether one roster may follow another. From files alone, without any mesh.

Not here: making and signing rosters. No node follows a chain of rosters yet; this judges a change that is planned.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from mesh.adapters.trustfiles import read_bounded
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Member, Role, Roster, admit_roster
from mesh.core.law.succession import admit_successor, overlap
from mesh.errors import Refused
from mesh.limits import ENVELOPE_BYTES_MAX

__all__ = ["roster"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_SHOWN = 12
"""Characters of a key or id in a sentence."""


@click.group(no_args_is_help=True)
def roster() -> None:
    """Read rosters, and judge a planned change."""


@roster.command()
@click.argument("file", type=_FILE)
@format_option
@pass_cli
def show(cli: Cli, file: Path) -> None:
    """What the roster in FILE says: members, quorum, roles, bounds, and the id to pin. Nothing here vouches for it."""
    statement = _read(file)
    claims = statement.claims
    signed = sum(map(statement.signed_by, claims.root.keys))
    head: dict[str, Any] = {
        "mesh": claims.mesh,
        "epoch": claims.epoch,
        "previous": claims.previous,
        "id": statement.id,
        "n": len(claims.members),
        "f": claims.f,
        "k": claims.k,
        "signed": f"by {signed} of its own root's {len(claims.root.keys)} keys, {claims.root.threshold} needed",
    }
    members = [msgspec.to_builtins(member) for member in claims.members]
    roles = [{"role": name, "threshold": role.threshold, "of": len(role.keys), "keys": role.keys} for name, role in _roles(claims).items()]
    bounds: dict[str, Any] = msgspec.to_builtins(claims.bounds)
    if cli.format != "table":
        cli.value({**head, "members": members, "roles": roles, "bounds": bounds})
    else:
        cli.value({**head, **bounds})
        cli.lines([""])
        cli.rows(("name", "region", "log_epoch", "decision_key"), members)
        cli.lines([""])
        cli.rows(("role", "threshold", "of"), roles)
    cli.say("whoever pins it takes the id from two of its signers, by two ways")


@roster.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE, nargs=-1, required=True)
@click.option("--pin", metavar="ID", help="The statement id of OLD that is trusted.")
@format_option
@pass_cli
def check(cli: Cli, old: Path, new: tuple[Path, ...], pin: str | None) -> None:
    """Whether each NEW may follow the one before it, beginning with OLD: what changes, who signed, and whether quorums still meet."""
    first = _read(old)
    if pin is None:
        cli.say(f"{old} is taken on its own word; --pin ID says which one is trusted")
    now, now_id = admit_roster(first, pin=pin or first.id), first.id
    steps: list[dict[str, Any]] = []
    refusal: Refused | None = None
    for path in new:
        statement = _read(path)
        steps.append(_step(now, path, statement))
        try:
            now, now_id = admit_successor(now, now_id, statement), statement.id
        except Refused as refused:
            steps[-1]["verdict"] = refused.code
            refusal = Refused(refused.code, f"{path}: {refused.detail}")
            break
    if cli.format == "table":
        for step in steps:
            cli.lines(_story(step))
    else:
        cli.rows((), steps)
    if refusal is not None:
        raise refusal
    cli.say("nodes do not change rosters while they run: this judges the plan, and changes no mesh")


def _read(path: Path) -> Statement[Roster]:
    return envelope.read(Roster, read_bounded(path, ENVELOPE_BYTES_MAX))


def _step(now: Roster, path: Path, statement: Statement[Roster]) -> dict[str, Any]:
    after, numbers = statement.claims, overlap(now, statement.claims)
    return {
        "file": str(path),
        "from": now.epoch,
        "to": after.epoch,
        "id": statement.id,
        "changes": list(_changes(now, after)),
        "overlap": {**msgspec.to_builtins(numbers), "union": numbers.union, "shared": numbers.shared, "safe": numbers.safe},
        "arithmetic": str(numbers),
        "verdict": "may follow",
    }


def _story(step: dict[str, Any]) -> Iterator[str]:
    yield f"epoch {step['from']} to {step['to']}: {step['file']}"
    yield f"  id       {step['id']}"
    yield from (f"  changes  {change}" for change in step["changes"] or ["nothing"])
    yield f"  overlap  {step['arithmetic']}"
    yield f"  verdict  {step['verdict']}"


# ---------------------------------------------------------------------------------------------------------------- changes


def _changes(now: Roster, after: Roster) -> Iterator[str]:
    yield from _members({member.name: member for member in now.members}, {member.name: member for member in after.members})
    for name, one, other in (("mesh", now.mesh, after.mesh), ("f", now.f, after.f), ("k", now.k, after.k)):
        if one != other:
            yield f"{name}: {one} to {other}"
    before, later = _roles(now), _roles(after)
    for name in [*before, *(name for name in later if name not in before)]:
        yield from _role(name, before.get(name), later.get(name))
    for field in now.bounds.__struct_fields__:
        one, other = getattr(now.bounds, field), getattr(after.bounds, field)
        if one != other:
            yield f"{field}: {one} to {other}"


def _members(before: dict[str, Member], later: dict[str, Member]) -> Iterator[str]:
    yield from (f"member {name} goes" for name in before if name not in later)
    for name, member in later.items():
        former = before.get(name)
        if former is None:
            yield f"member {name} comes, in {member.region}"
            continue
        new = [field for field in member.__struct_fields__ if field != "region" and getattr(member, field) != getattr(former, field)]
        if new:
            yield f"member {name} is another one: new {', '.join(new)}"
        if member.region != former.region:
            yield f"member {name} moves: {former.region} to {member.region}"


def _roles(claims: Roster) -> dict[str, Role]:
    fixed = {"root": claims.root, "issuers": claims.issuers, "revoker": claims.revoker}
    approvers = {f"approvers/{group}": role for group, role in sorted(claims.approvers.items())}
    return {**fixed, **{f"policy/{domain}": role for domain, role in sorted(claims.policy.items())}} | approvers


def _role(name: str, now: Role | None, after: Role | None) -> Iterator[str]:
    if after is None:
        yield f"role {name} goes"
        return
    if now is None:
        yield f"role {name} comes: {after.threshold} of {len(after.keys)}"
        return
    if (now.threshold, len(now.keys)) != (after.threshold, len(after.keys)):
        yield f"role {name}: {now.threshold} of {len(now.keys)} to {after.threshold} of {len(after.keys)}"
    yield from (f"role {name}: key {key[:_SHOWN]}… goes" for key in now.keys if key not in after.keys)
    yield from (f"role {name}: key {key[:_SHOWN]}… comes" for key in after.keys if key not in now.keys)
