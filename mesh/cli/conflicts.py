"""`mesh fraud ls` and `mesh fraud show`: what members hold that cannot both be, verified here, as files that anybody can judge.

Rules
-----
1. Only streams of which two members say different things, or one that it has forked, are asked for: in a quiet mesh that is none.
2. A conflict counts only once both statements were seen, from whichever members, and believed by the context's roster; a proof
   against a member once it was verified here.
3. Conflicts are numbered by stream and place, proofs against members behind them, by key. One that becomes known later may come between.

Not here: what a conflict is, and whom it names (:mod:`mesh.core.law.conflict`), what is proved against a member
(:mod:`mesh.cli.caught`).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from mesh.cli import caught, client, saying
from mesh.cli.caught import Accused, accused_of
from mesh.cli.fraud import facts, told
from mesh.cli.gathering import Frontiers, gather, holders
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.law.conflict import Conflict, conflicts_of, encode_conflict
from mesh.core.law.proof import PREFIX
from mesh.core.law.proofs import encode_proof
from mesh.core.law.streams import Fork
from mesh.errors import Refused

__all__ = ["ls", "show"]


class _Found(NamedTuple):
    conflict: Conflict
    resolved: bool
    held_by: list[str]
    """Members that sign that they hold all that was seen of the stream."""


@click.command("ls")
@format_option
@pass_cli
def ls(cli: Cli) -> None:
    """All conflicts that members can show: whose keys said both, whether the root has resolved them, who holds both halves.

    And every proof that a member's key has signed two histories of one log, or a decision that f + 1 others find wrong: whoever
    holds it has frozen that member.
    """
    found, members = client.run(cli, lambda mesh, library: _search(cli, mesh, library))
    rows = [_row(number, item, members) for number, item in enumerate(found, 1)]
    cli.rows(("n", "kind", "stream", "numbers", "said_both", "state", "held"), rows)
    if not rows:
        cli.say("no conflict is shown by any member that answered")
        return
    open_ = next((f"mesh resolve {item.conflict.stream} --head ID" for item in found if isinstance(item, _Found) and not item.resolved), "")
    frozen = next((f"mesh roster remove {item.caught.member}" for item in found if isinstance(item, Accused) and item.frozen), "")
    cli.next("; then: ".join(filter(None, ("mesh fraud show N -o FILE", open_, frozen))))


@click.command("show")
@click.argument("name", metavar="STREAM|MEMBER|N")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file; by default to standard output.")
@pass_cli
def show(cli: Cli, name: str, out: Path | None) -> None:
    """Write the proof of a conflict: of the only one in STREAM or against MEMBER, or of number N in `mesh fraud ls`."""
    found, _ = client.run(cli, lambda mesh, library: _search(cli, mesh, library))
    chosen = _chosen(found, name)
    data = encode_proof(chosen.proof) if isinstance(chosen, Accused) else encode_conflict(chosen.conflict)
    if out is None:
        click.echo(data, nl=False)
    else:
        try:
            out.write_bytes(data)
        except OSError as error:
            raise Refused("config_invalid", f"{out}: {error.strerror}") from None
        cli.say(f"{out}: {len(data):,} bytes")
    for line in caught.told(chosen.caught) if isinstance(chosen, Accused) else told(chosen.conflict):
        cli.say(line)
    cli.next(f"mesh fraud verify {out or 'FILE'} --trust ROSTER")


def _chosen(found: Sequence[_Found | Accused], name: str) -> _Found | Accused:
    """The one that is meant.

    Raises:
        Refused: ``not_found``, ``ambiguous``.
    """
    if name.isascii() and name.isdecimal():
        if not 1 <= int(name[:9]) <= len(found):
            raise Refused("not_found", f"members show {len(found)} conflicts, none of them is number {name[:9]}")
        return found[int(name[:9]) - 1]
    meant = [
        number
        for number, item in enumerate(found, 1)
        if (caught.is_meant(item, name) if isinstance(item, Accused) else item.conflict.stream == name)
    ]
    if not meant:
        raise Refused("not_found", f"no member shows a conflict in {name[:80]}, or a proof against a member of that name")
    if len(meant) > 1:
        raise Refused(
            "ambiguous", f"{len(meant)} conflicts in {name}: say which, {', '.join(map(str, meant[:8]))}, as `mesh fraud ls` does"
        )
    return found[meant[0] - 1]


async def _search(cli: Cli, mesh: client.MeshClient, library: client.Library) -> tuple[list[_Found | Accused], int]:
    """Every conflict, in order, and how many members there are."""
    claimed = saying.frontiers_of(await saying.hear(cli, mesh))
    doubtful = _doubtful(claimed)
    gathered = await gather(mesh, claimed, library.governance, streams=lambda name: name in doubtful or name.startswith(PREFIX))
    for member, stream in gathered.withheld:
        cli.say(f"{member} claims more of {stream[:40]} than it shows")
    found = list[_Found | Accused]()
    for name, held in sorted(gathered.governance.streams.items()):
        if isinstance(held, Fork):
            resolved, by = not gathered.governance.forked(name), holders(gathered, claimed, name, 0)
            conflicts = conflicts_of(item for item in gathered.statements if item.claims.link[0] == name)
            found += [_Found(conflict, resolved, by) for conflict in conflicts]
    held_by = {name: holders(gathered, claimed, name, 1) for name in gathered.governance.streams if name.startswith(PREFIX)}
    found += accused_of(gathered.statements, gathered.governance.rosters, gathered.governance, held_by)
    return found, len(mesh.roster.members)


def _doubtful(claimed: Frontiers) -> set[str]:
    """Streams of which two who answered say different things, or one that it is or was forked (rule 1)."""
    heads = {head for frontier in claimed.values() for head in frontier}
    count = Counter(head.stream for head in heads)
    return {head.stream for head in heads if head.forked or head.held or count[head.stream] > 1}


def _row(number: int, item: _Found | Accused, members: int) -> dict[str, Any]:
    if isinstance(item, Accused):
        who = item.caught
        return {
            **caught.facts(who, item.proof.claims.mesh),
            "n": number,
            "state": "frozen" if item.frozen else "over",
            "said_both": [f"{who.member} ({who.use})"],
            "held": f"{len(item.held_by)} of {members}",
            "held_by": item.held_by,
        }
    conflict = item.conflict
    return {
        "n": number,
        "state": "resolved" if item.resolved else "open",
        "said_both": [f"{key[:12]}…" for key in conflict.signers],
        "held": f"{len(item.held_by)} of {members}",
        "held_by": item.held_by,
        **facts(conflict),
    }
