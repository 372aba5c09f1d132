"""`mesh revocations ls`: every revocation that any member holds, verified here, with how many hold it."""

from typing import Any

import click

from mesh.cli import client, saying, telling
from mesh.cli.gathering import gather, holders
from mesh.cli.hearing import call_roll
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.law.revocation import Revocation, stream_of

__all__ = ["revocations"]


@click.group()
def revocations() -> None:
    """What has been revoked."""


@revocations.command("ls")
@format_option
@pass_cli
def ls(cli: Cli) -> None:
    """All revocations that any member holds, how many of the members hold each, and how many enforcers act by it, by their signed words."""

    async def work(mesh: client.MeshClient, library: client.Library) -> list[dict[str, Any]]:
        claimed = saying.frontiers_of(await saying.hear(cli, mesh))
        gathered = await gather(mesh, claimed, library.governance, streams=lambda name: name.startswith(stream_of("")))
        for member, stream in gathered.withheld:
            cli.say(f"{member} claims more of {stream[:19]}… than it shows")
        roll = await call_roll(mesh, library.governance)
        rows: list[dict[str, Any]] = []
        for statement in gathered.statements:
            claims = statement.claims
            if not isinstance(claims, Revocation):
                continue
            stream = gathered.governance.current(stream_of(claims.revoker))
            counts = statement.id not in gathered.governance.void
            held = holders(gathered, claimed, stream, claims.sequence) if counts else []
            forked = gathered.governance.forked(stream)
            confirmed = roll.confirmed(statement, stream)
            rows.append(
                {
                    "number": claims.sequence,
                    "by": claims.revoker[:12],
                    "target": f"{claims.target.type}:{claims.target.value}",
                    "spares": claims.spares,
                    "reason": claims.reason,
                    "at": telling.when(claims.issued_ms),
                    "held": f"{len(held)} of {len(mesh.roster.members)}" + (", forked" if forked else "") if counts else "counts no more",
                    "held_by": held,
                    "heard": f"{len(confirmed)} of {roll.count(statement)}",
                    "heard_by": confirmed,
                    "counts": counts,
                    "forked": forked,
                    "revoker": claims.revoker,
                    "id": statement.id,
                    "signed_by": sorted(statement.signatures),
                }
            )
        return sorted(rows, key=lambda row: (row["revoker"], row["number"], row["id"]))

    rows = client.run(cli, work)
    for row in rows if cli.format == "table" else ():
        row["target"] += f" except {len(row['spares'])}" if row["spares"] else ""
    cli.rows(("number", "by", "target", "reason", "at", "held", "heard"), rows)
    if any(row["forked"] for row in rows):
        cli.say("forked: this key has said two things under one number. All of it denies; `mesh explain stream_forked` says what to do")
    cli.next("mesh revoke TARGET --key FILE --watch")
