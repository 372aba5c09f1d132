"""`mesh roster`: what rosters say, which of them the mesh holds, and whether one may follow another.

Not here: planning the next one (:mod:`mesh.cli.roster_plan`), the first one (:mod:`mesh.cli.roster_init`), signing
(:mod:`mesh.cli.roster_sign`), handing over (:mod:`mesh.cli.roster_push`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from mesh.cli import Entry, LazyGroup, client, telling
from mesh.cli import roster_held as held
from mesh.cli import roster_words as words
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import ROSTERS, Roster, admit_roster
from mesh.core.law.succession import admit_successor, overlap
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.tlogpolicy import Outsider, tlog_policy
from mesh.errors import Refused

__all__ = ["check", "ls", "roster", "show"]

_FILE = click.Path(dir_okay=False, path_type=Path)

_COMMANDS: Final[Mapping[str, Entry]] = {
    "add": Entry("mesh.cli.roster_plan:add", "Plan the next roster: one member more."),
    "check": Entry("mesh.cli.roster:check", "Whether rosters may follow one another."),
    "init": Entry("mesh.cli.roster_init:init", "Draw up the first roster from a description."),
    "ls": Entry("mesh.cli.roster:ls", "The rosters that the mesh holds, and who acts under which."),
    "push": Entry("mesh.cli.roster_push:push", "Hand a signed roster to every member."),
    "remove": Entry("mesh.cli.roster_plan:remove", "Plan the next roster: one member less."),
    "rotate": Entry("mesh.cli.roster_plan:rotate", "Plan the next roster: new keys for a member."),
    "set": Entry("mesh.cli.roster_plan:set_", "Plan the next roster: other roles, operators, f, k or bounds."),
    "show": Entry("mesh.cli.roster:show", "What a roster says, and the id to pin."),
    "sign": Entry("mesh.cli.roster_sign:sign", "Sign a roster, or add a signature to what others signed."),
}


class _Roster(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_Roster, no_args_is_help=True)
def roster() -> None:
    """Read, plan, sign and hand out rosters.

    The life of one: `init`, or `add`, `remove`, `rotate`, `set` after the one before · `sign`, by each root key and each operator
    whom it takes, on machines of their own · `push`, until k members hold it, and go over when it begins · `ls`, `show`, `check`.
    """


@click.command()
@click.argument("what", metavar="FILE|EPOCH")
@click.option("--format", "shape", type=click.Choice(["roster", "tlog-policy"]), default="roster", show_default=True, help="Of what.")
@click.option("--log", "node", metavar="NODE|ORIGIN", help="With tlog-policy: of which member's log.")
@click.option("--outside", type=_FILE, help="With tlog-policy: a node.toml whose external witnesses are named too. They never count.")
@format_option
@pass_cli
def show(cli: Cli, *, what: str, shape: str, node: str | None, outside: Path | None) -> None:
    """What a roster says: members, quorum, operators, roles, bounds, and the id to pin.

    Nothing here vouches for what a FILE says. An EPOCH is one that members hold: it follows from the roster that the context trusts.
    As a tlog-policy it says to any C2SP verifier which cosignatures make a checkpoint of NODE's log final.
    """
    if (shape == "tlog-policy") != (node is not None) or (outside is not None and node is None):
        raise Refused("usage", "--format tlog-policy and --log NODE go together: such a policy is about one log")
    statement = words.read(Path(what)) if not what.isdecimal() or Path(what).is_file() else _held(cli, int(what))
    if node is not None:
        cli.text(_policy(statement.claims, node, outside))
        return
    claims, head = statement.claims, words.facts(statement)
    members = [msgspec.to_builtins(member) for member in claims.members]
    operators = [
        {"operator": name, **msgspec.to_builtins(owner), "members": [member.name for member in claims.members if member.operator == name]}
        for name, owner in sorted(claims.operators.items())
    ]
    roles = [
        {"role": name, "threshold": role.threshold, "of": len(role.keys), "keys": role.keys} for name, role in words.roles(claims).items()
    ]
    bounds: dict[str, Any] = msgspec.to_builtins(claims.bounds)
    if cli.format != "table":
        cli.value({**head, "members": members, "operators": operators, "roles": roles, "bounds": bounds})
    else:
        cli.value({**head, **bounds})
        cli.lines([""])
        cli.rows(("name", "region", "operator", "log_epoch", "decision_key"), members)
        cli.lines([""])
        cli.rows(("operator", "jurisdiction", "members", "key"), operators)
        cli.lines([""])
        cli.rows(("role", "threshold", "of"), roles)
    cli.say("whoever pins it takes the id from two of its signers, by two ways")


def _policy(claims: Roster, node: str, outside: Path | None) -> str:
    """What makes a checkpoint of that member's log final; the log is named by its member or its origin."""
    member = claims.owner(node) if "/" in node else claims.member(node)
    others: Mapping[str, Outsider] = {}
    if outside is not None:
        from mesh.roles.config import load_config
        from mesh.roles.outside import outsiders

        others = outsiders(load_config(outside).outside, claims)
    return tlog_policy(log_verifier(claims.origin(member), member.log_key), claims.attest_keys(), claims.k, others)


def _held(cli: Cli, epoch: int) -> Statement[Roster]:
    """The roster of that epoch, from the context's files or from members."""
    library = client.files(cli)
    rosters, found = library.governance.rosters, held.statements_of(library)
    if epoch > len(rosters.ids):
        seen = client.run(cli, lambda mesh, library: held.read(cli, mesh, library))
        rosters, found = seen.governance.rosters, dict(seen.statements)
    rosters.of(epoch)
    return found[rosters.ids[epoch - 1]]


@click.command()
@format_option
@pass_cli
def ls(cli: Cli) -> None:
    """Every epoch that members hold: when it begins, who signs that it holds it, and who acts under it."""
    seen = client.run(cli, lambda mesh, library: held.read(cli, mesh, library))
    rosters, in_force = seen.governance.rosters, seen.in_force
    rows = [
        {
            "epoch": roster.epoch,
            "id": identity,
            "begins": telling.when(roster.not_before_ms) if roster.not_before_ms else "at once",
            "state": "former" if roster.epoch < in_force else "in force" if roster.epoch == in_force else "held",
            "n": len(roster.members),
            "f": roster.f,
            "k": roster.k,
            "held_by": seen.holders(roster.epoch, identity),
            "acting": seen.acting(roster.epoch),
            "reason": roster.reason,
        }
        for identity, roster in zip(rosters.ids, rosters.chain, strict=True)
    ]
    cli.rows(("epoch", "state", "begins", "n", "f", "k", "held_by", "acting", "reason"), rows)
    for name in (member.name for member in seen.members() if member.name in seen.failed):  # who was let go is not missed
        cli.say(f"{name} is not counted on: {seen.failed[name].code} {seen.failed[name].detail}".rstrip())
    if seen.governance.forked(ROSTERS):
        cli.say("the root has said two things: nothing is allowed until `mesh resolve roster` says which counts")
    cli.next(f"mesh roster show {rosters.newest.epoch}")


@click.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE, nargs=-1, required=True)
@click.option("--pin", metavar="ID", help="The statement id of OLD that is trusted.")
@format_option
@pass_cli
def check(cli: Cli, old: Path, new: tuple[Path, ...], pin: str | None) -> None:
    """Whether each NEW may follow the one before it, beginning with OLD: what changes, who signed, and whether quorums still meet."""
    first = words.read(old)
    if pin is None:
        cli.say(f"{old} is taken on its own word; --pin ID says which one is trusted")
    now, now_id = admit_roster(first, pin=pin or first.id), first.id
    steps: list[dict[str, Any]] = []
    refusal: Refused | None = None
    for path in new:
        statement = words.read(path)
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
    cli.say("this judges files, and changes no mesh")


def _step(now: Roster, path: Path, statement: Statement[Roster]) -> dict[str, Any]:
    after = statement.claims
    return {
        "file": str(path),
        "from": now.epoch,
        "to": after.epoch,
        "id": statement.id,
        "changes": list(words.changes(now, after)),
        "overlap": words.arithmetic(now, after),
        "arithmetic": str(overlap(now, after)),
        "signatures": words.missing(statement, now),
        "verdict": "may follow",
    }


def _story(step: dict[str, Any]) -> Iterator[str]:
    yield f"epoch {step['from']} to {step['to']}: {step['file']}"
    yield f"  id       {step['id']}"
    yield from (f"  changes  {change}" for change in step["changes"] or ["nothing"])
    yield f"  overlap  {step['arithmetic']}"
    yield f"  verdict  {step['verdict']}"
