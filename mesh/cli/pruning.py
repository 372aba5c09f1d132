"""`mesh lineage prune`: the root's word that records of a log need not be kept any more, and each node's word that they are gone.

Rules
-----
1. Signed is only a floor over what is final and old: whoever comes later and takes hashes there relies on that. Nor does one reach the
   end of what is final: of each log nodes keep the newest record, for its time.
2. An archive that is named is judged before anything is signed: it must be whole, of this log, and reach the floor.
3. A node's word is the record `pruned` in its own log, once k members have attested it: proved here, believed of nobody else.
4. It ends with 0 only if all members gave theirs, or k of them with --quorum. What was said is signed all the same.

Not here: numbers, keeping, offering (:mod:`mesh.cli.saying`), making an archive (:mod:`mesh.cli.tilefolder`).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.cli import client, recorded, saying, signed, spreading
from mesh.cli.gathering import gather_about
from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.cli.tilefolder import judge_folder
from mesh.core.bytes import envelope
from mesh.core.law.erase import ERASURES
from mesh.core.law.retain import NOWHERE, Floor, Kept, Retain, outlived
from mesh.core.log.record import GovernanceChanged
from mesh.core.messages import Find, Found, Location, NodeStatus
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import AUDIT_LOGS_MAX, PRUNE_AGE_MS_MIN, TREE_SIZE_MAX
from mesh.protocol.proving import record_of

__all__ = ["prune"]

_LOOK_S: Final = 0.2
"""Between two rounds, each of a few questions to every member that is left: they still have to overwrite, and to have it attested."""


class _Going(NamedTuple):
    """What came of it."""

    origin: str
    kept: Kept
    """What counts of that log."""
    said: frozenset[str]
    """Every retention of that floor: a node names the one that it heard first."""
    gone: Mapping[str, str]
    """Member to the place of its record."""
    members: Sequence[str]
    needed: int


@click.command()
@click.option("--log", "node", required=True, metavar="NODE", help="Whose log.")
@click.option("--below", required=True, type=click.IntRange(1, TREE_SIZE_MAX), help="Index of the first record that is kept.")
@click.option("--archive", default="", metavar="TEXT", help="Where the rest can still be read, for people.")
@click.option(
    "--archived",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="An archive of that log, judged before anything is signed.",
)
@click.option("--quorum", is_flag=True, help="Be content with k members; those who are away prune when they are back.")
@saying.signing_options("root key")
@saying.watching("all members have pruned it, or k with --quorum")
@format_option
@pass_cli
def prune(  # noqa: PLR0913 -- one for each option
    cli: Cli,
    *,
    node: str,
    below: int,
    archive: str,
    archived: Path | None,
    quorum: bool,
    key_file: Path,
    others: tuple[Path, ...],
    reason: str,
    watch: bool,
    wait_s: float,
) -> int:
    """Let every node reduce the records of NODE's log below an index to their hashes. Nothing brings them back but an archive.

    Takes the root threshold (--co-sign). Roots and proofs stay valid; what was decided there can be repeated from an archive only. Records
    must be final and eight days old. Ends with 0 once all members have pruned, with 4 before.
    """
    saying.check_reason(reason)
    saying.check_reason(archive)
    files = saying.keys_of((key_file, *others), "root")
    paths = [signed.path_of(path, ERASURES) for path in files]

    async def work(mesh: client.MeshClient, library: client.Library) -> _Going:
        origin = mesh.roster.origin(mesh.member(node))
        if archived is not None:
            _check_archive(archived, origin, below, library)
        kept, said = await _say(cli, mesh, library, files, paths, Retain(
            mesh=mesh.roster.mesh, sequence=1, previous="", since="", floors=[Floor(origin=origin, below=below)],
            archive=archive, reason=reason, issued_ms=wall_ms(),
        ))  # fmt: skip
        needed = mesh.roster.k if quorum else len(mesh.roster.members)
        going = _Going(origin, kept, said, {}, [member.name for member in mesh.roster.members], needed)
        return going._replace(gone=await _watched(cli, mesh, going, wait_s=wait_s if watch else 0))

    with saying.signing(paths):
        going = client.run(cli, work)
    return _report(cli, going)


def _check_archive(folder: Path, origin: str, below: int, library: client.Library) -> None:
    """Rule 2."""
    pinned = next(data for data in (library.roster, *library.rosters) if envelope.identify(data)[1] == library.governance.roster_id)
    judged = judge_folder(folder, pinned, None)
    if judged.verdict != "VERIFIED":
        name, _, detail, code = next(check for check in judged.checks if check[1] != "passed")
        raise Refused(code, f"{folder} is no whole archive: {name}: {detail}")
    if judged.origin != origin or judged.size < below:
        raise Refused("not_found", f"{folder} holds {judged.size} records of {judged.origin}, not {below} of {origin}")


async def _check_old(mesh: client.MeshClient, origin: str, below: int) -> None:
    """Rule 1."""
    answers = {name: answer for name, answer in (await mesh.status()).items() if isinstance(answer, NodeStatus)}
    if not answers:
        raise Unavailable("unreachable", "no member of the roster answers")
    head = await recorded.head_of(mesh, answers, origin)
    if head is None or head.size <= below:  # the newest one stays, and nobody could say that it has gone
        raise Refused("not_final", f"{head.size if head is not None else 0} records of {origin} are final, not more than {below}")
    answer = await mesh.prove(client.Place(origin, below - 1))
    mesh.attested(answer)
    at_ms = record_of(answer).at_ms
    if not outlived(at_ms, wall_ms()):
        raise Refused("record_young", f"record {below - 1} of {origin} is {wall_ms() - at_ms} ms old, {PRUNE_AGE_MS_MIN} it must be")


async def _say(
    cli: Cli, mesh: client.MeshClient, library: client.Library, files: Mapping[Path, Any], paths: Sequence[Path], said: Retain
) -> tuple[Kept, frozenset[str]]:
    """What counts of that log once this is said, or was before, and all that say so."""
    root, keys, floor = mesh.rosters.newest.root, list(files.values()), said.floors[0]
    if len(keys) < root.threshold:
        raise Refused("threshold_not_met", f"{root.threshold} root keys must sign, and {len(keys)} did; add --co-sign FILE for each")
    by = saying.pen(ERASURES, keys, paths, mesh.rosters, alone=False, role=root)
    claimed = saying.frontiers_of(await saying.hear(cli, mesh))
    by = await saying.standing(mesh, library.governance, claimed, by)
    gathered = await gather_about(mesh, claimed, library.governance, by.stream)
    kept = gathered.governance.floors.get(floor.origin, NOWHERE)
    if kept.below > floor.below:
        raise Refused("floor_falls", f"{floor.origin} is kept from {kept.below} on by {kept.id[:12]}…; a floor only rises")
    if kept.below == floor.below:
        cli.say("that is said already; nothing new is signed")
        said_so = (item.id for item in gathered.statements if isinstance(item.claims, Retain) and floor in item.claims.floors)
        return kept, frozenset((kept.id, *said_so))
    await _check_old(mesh, floor.origin, floor.below)
    plan = await saying.plan(
        cli, mesh, library.governance, claimed, by,
        same=lambda other: isinstance(other, Retain) and other.floors == said.floors,
        draft=lambda number, previous: msgspec.structs.replace(said, sequence=number, previous=previous),
    )  # fmt: skip
    spread = await spreading.spread(cli, mesh, plan, watch=False, wait_s=0)
    if not spread.held:
        raise Unavailable("unreachable", f"nobody took number {plan.statement.claims.sequence}; it is kept: run the same command again")
    return Kept(floor.below, plan.statement.id, said.archive), frozenset((plan.statement.id,))


async def _watched(cli: Cli, mesh: client.MeshClient, going: _Going, *, wait_s: float) -> dict[str, str]:
    """Member to the place of its record (rule 3), until enough have said so, or so many seconds passed."""
    gone, end = dict[str, str](), time.monotonic() + wait_s
    while True:
        waiting = [name for name in going.members if name not in gone]
        for name, place in zip(waiting, await asyncio.gather(*(_record(mesh, name, going) for name in waiting)), strict=True):
            if place:
                gone[name] = place
                cli.say(f"{name} has pruned {going.origin} below {going.kept.below}: {place}")
        if len(gone) >= going.needed or time.monotonic() >= end:
            return gone
        await asyncio.sleep(_LOOK_S)


async def _record(mesh: client.MeshClient, name: str, going: _Going) -> str:
    """Where the member's own log says that it has pruned, proved; empty if it does not say so yet."""
    origin = mesh.roster.origin(mesh.roster.member(name))
    try:
        for said in sorted(going.said):
            found = await mesh.ask(name, Find(prefix=said, count=AUDIT_LOGS_MAX), Found)
            for place in found.records:
                if (place.id, place.origin) == (said, origin) and await _pruned(mesh, place, f"{said} {going.origin} {going.kept.below}"):
                    return mesh.naming.place(place.origin, place.index)
    except MeshError:
        return ""
    return ""


async def _pruned(mesh: client.MeshClient, place: Location, about: str) -> bool:
    """Whether that record, proved, says so."""
    answer = await mesh.prove(client.Place(place.origin, place.index))
    mesh.attested(answer)
    record = record_of(answer)
    return isinstance(record, GovernanceChanged) and (record.change, record.about) == ("pruned", about)


def _report(cli: Cli, going: _Going) -> int:
    rows = [{"node": name, "pruned": name in going.gone, "record": going.gone.get(name, "")} for name in going.members]
    if cli.format == "table":
        cli.rows(("node", "pruned", "record"), rows)
    else:
        facts = {"log": going.origin, "below": going.kept.below, "retain": going.kept.id, "archive": going.kept.archive}
        cli.value({**facts, "members": rows, "pruned": len(going.gone), "needed": going.needed})
    if len(going.gone) < going.needed:
        lacking = ", ".join(name for name in going.members if name not in going.gone)
        told = f"{len(going.gone)} of {going.needed} have pruned; not yet: {lacking}. Run the same command again to watch on"
        return fail(cli, Unavailable("not_acknowledged", told))
    cli.say(f"{going.origin} below {going.kept.below}: pruned by {len(going.gone)} of {len(going.members)}; archives: {going.kept.archive}")
    cli.next(f"mesh lineage show {going.kept.id[:12]}")
    return 0
