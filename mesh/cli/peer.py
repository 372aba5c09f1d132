"""`mesh peer ls` and `mesh peer ping`: who the members are, and how each stands to the mesh.

Not here: what else a node says of itself (`mesh status`).
"""

import time
from typing import Any, Final

import click

from mesh.cli import client
from mesh.cli import roster_held as held
from mesh.cli.evidence import lag_of, sizes_of
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.law.roster import ROSTERS
from mesh.core.messages import NodeStatus, StatusAsked
from mesh.errors import MeshError, Refused

__all__ = ["peer"]

_STALE: Final = 4


@click.group(no_args_is_help=True)
def peer() -> None:
    """The members of the mesh."""


@peer.command("ls")
@format_option
@pass_cli
def ls(cli: Cli) -> int:
    """Every member of the roster in force, and of one that is held already. Ends with 4 when fewer than k of them are fresh.

    Epochs are signed word: the roster by which a member acts, and the newest that it holds. The rest it says of itself.
    """

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[held.Held, dict[str, NodeStatus | MeshError]]:
        seen = await held.read(cli, mesh, library)
        return seen, {member.name: await _status(mesh, member.name) for member in seen.members()}

    seen, answers = client.run(cli, work)
    sizes = sizes_of(answers.values())
    frozen = seen.governance.under(seen.in_force).frozen
    rows = [_row(seen, name, answer, sizes) | ({"state": "frozen"} if name in frozen else {}) for name, answer in answers.items()]
    cli.rows(("node", "region", "operator", "state", "acts_under", "holds", "lag", "up"), rows)
    names = {member.name for member in seen.roster.members}
    fresh = sum(isinstance(answer, NodeStatus) and answer.fresh for name, answer in answers.items() if name in names)
    cli.say(f"epoch {seen.in_force} is in force: {fresh} of {len(names)} fresh, {seen.roster.k} needed")
    newest = seen.governance.rosters.newest
    if newest.epoch > seen.in_force:
        cli.say(f"epoch {newest.epoch} is held by {len(seen.holders(newest.epoch, seen.governance.rosters.ids[-1]))}: `mesh roster ls`")
    for name in sorted(frozen):
        cli.say(f"{name} is frozen: a proof is held against a key of it: `mesh fraud ls`")
    cli.next(f"mesh roster remove {min(frozen)}" if frozen else "mesh peer ping NAME")
    return 0 if fresh >= seen.roster.k else _STALE


async def _status(mesh: client.MeshClient, name: str) -> NodeStatus | MeshError:
    try:
        return await mesh.ask(name, StatusAsked(), NodeStatus)
    except MeshError as error:
        return error


def _row(seen: held.Held, name: str, answer: NodeStatus | MeshError, sizes: dict[str, tuple[str, int]]) -> dict[str, Any]:
    member = next(member for member in seen.members() if member.name == name)
    beat = seen.beats.get(name)
    row: dict[str, Any] = {
        "node": name,
        "region": member.region,
        "operator": member.operator,
        "in_force": any(other.name == name for other in seen.roster.members),
        "reachable": beat is not None,
        "acts_under": beat.roster_epoch if beat is not None else None,
        "holds": next((head.sequence for head in beat.frontier if head.stream == ROSTERS), None) if beat is not None else None,
    }
    if beat is None:
        no = seen.failed.get(name)
        return {**row, "state": no.code if no is not None else "unreachable"}
    if isinstance(answer, MeshError):
        return {**row, "state": answer.code}
    return {**row, "state": "fresh" if answer.fresh else answer.code, "lag": lag_of(answer, sizes), "up": f"{answer.uptime_ms // 1000} s"}


@peer.command("ping")
@click.argument("name")
@click.option("--count", "-c", default=5, show_default=True, type=click.IntRange(1, 1_000), help="How often.")
@format_option
@pass_cli
def ping(cli: Cli, name: str, count: int) -> int:
    """How long member NAME takes to answer with a heartbeat that it signs now; each is verified.

    Ends with 4 when it answers none.
    """

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[list[float], MeshError | None]:
        try:
            seen = await held.read(cli, mesh, library)
        except MeshError:
            mesh.roster.member(name)  # a name that nobody has is another mistake
            raise
        known = {member.name for member in seen.members()}
        if name not in known:
            raise Refused("unknown_member", f"{name[:40]}: members are {', '.join(sorted(known))}")
        epoch = max(roster.epoch for roster in seen.governance.rosters.chain if any(member.name == name for member in roster.members))
        asked, took, failure = mesh.under(seen.governance.under(epoch)), list[float](), None
        for _ in range(count):
            begun_s = time.monotonic()
            try:
                await asked.heartbeat(name)
                took.append((time.monotonic() - begun_s) * 1_000)
            except MeshError as error:
                failure = error
        return took, failure

    took, failure = client.run(cli, work)
    if failure is not None and not took:
        raise failure
    ordered = sorted(took)
    cli.value(
        {
            "node": name,
            "asked": count,
            "answered": len(took),
            "least_ms": round(ordered[0], 2),
            "median_ms": round(ordered[len(ordered) // 2], 2),
            "most_ms": round(ordered[-1], 2),
        }
    )
    return 0
