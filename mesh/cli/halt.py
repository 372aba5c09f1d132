"""`mesh halt` and `mesh resume`: nothing starts in a domain until it is resumed, by the threshold of revokers.

A resume lifts every halt in force that members can show, or that these keys are known to have signed: by name, so that a halt that
nobody here knows of stays in force.

Not here: numbers, keeping, offering and watching (:mod:`mesh.cli.saying`).
"""

from collections.abc import Sequence
from pathlib import Path

import click

from mesh.adapters.clock import wall_ms
from mesh.cli import client, hearing, saying, signed, spreading
from mesh.cli.gathering import Frontiers, gather_about
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt, halt_stream
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said
from mesh.errors import Refused
from mesh.limits import LIFTS_MAX

__all__ = ["halt", "resume"]


@click.command()
@click.argument("domain", metavar="DOMAIN")
@saying.options
@hearing.option
@format_option
@pass_cli
def halt(
    cli: Cli, *, domain: str, key_file: Path, others: tuple[Path, ...], reason: str, watch: bool, wait_s: float, enforcers: int
) -> int:
    """Halt DOMAIN: nothing starts there, and what runs is ended, until `mesh resume`.

    Takes the threshold of revokers (--co-sign). Ends with 0 once a member holds it; with --watch, once k members do.
    """
    return _say(cli, domain, (key_file, *others), reason, lifting=False, watch=watch, wait_s=wait_s, enforcers=enforcers)


@click.command()
@click.argument("domain", metavar="DOMAIN")
@saying.options
@hearing.option
@format_option
@pass_cli
def resume(
    cli: Cli, *, domain: str, key_file: Path, others: tuple[Path, ...], reason: str, watch: bool, wait_s: float, enforcers: int
) -> int:
    """Resume DOMAIN: lift every halt in force there that members can show.

    Takes the threshold of revokers (--co-sign). Ends with 0 once a member holds it; with --watch, once k members do.
    """
    return _say(cli, domain, (key_file, *others), reason, lifting=True, watch=watch, wait_s=wait_s, enforcers=enforcers)


def _say(
    cli: Cli, domain: str, key_files: Sequence[Path], reason: str, *, lifting: bool, watch: bool, wait_s: float, enforcers: int
) -> int:
    saying.check_reason(reason)
    hearing.check(enforcers, watch=watch)
    files, stream = saying.keys_of(key_files, "revoker"), halt_stream(domain)
    keys, paths = list(files.values()), [signed.path_of(path, stream) for path in files]

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[saying.Pen, saying.Plan, spreading.Spread]:
        _check(mesh.rosters.newest, domain, len(keys))
        by = saying.pen(stream, keys, paths, mesh.rosters, alone=False)
        claimed = saying.frontiers_of(await saying.hear(cli, mesh))
        by = await saying.standing(mesh, library.governance, claimed, by)
        state = await _held(mesh, library, claimed, by)
        lifts = _in_force(cli, state, by, domain) if lifting else []
        plan = await saying.plan(
            cli,
            mesh,
            library.governance,
            claimed,
            by,
            same=lambda said: bool(_lifts(said)) is lifting and not lifts,
            draft=lambda number, previous: Halt(
                mesh=mesh.roster.mesh,
                domain=domain,
                sequence=number,
                previous=previous,
                since="",
                lifts=lifts,
                reason=reason,
                issued_ms=wall_ms(),
            ),
        )
        ears = hearing.Ears(mesh, library.governance, plan.statement, enforcers)
        return by, plan, await spreading.spread(cli, mesh, plan, watch=watch, wait_s=wait_s, ears=ears)

    with saying.signing(paths):
        by, plan, spread = client.run(cli, work)
    lifted = _lifts(plan.statement.claims)
    does = f"resumes {domain}, lifting {', '.join(f'{each[:12]}…' for each in lifted)}" if lifting else f"halts {domain}"
    spreading.report(cli, plan, spread, by, watch=watch, does=does, facts={"domain": domain, "lifts": lifted})
    follows = f"from now every enforcer denies new starts there within Δ = {spread.roster.bounds.stale_ms} ms"
    if lifting:
        follows = "whoever holds it lets work start there again"
    return spreading.ended(cli, plan, spread, watch=watch, wait_s=wait_s, follows=follows, then="mesh status")


def _check(roster: Roster, domain: str, count: int) -> None:
    if domain not in roster.policy:
        raise Refused("domain_unknown", f"{domain[:40]}: this roster names {', '.join(sorted(roster.policy))}")
    needed = roster.revoker.threshold
    if count < needed:
        raise Refused("threshold_not_met", f"{needed} revokers must sign, and {count} did; add --co-sign FILE for each")


async def _held(mesh: client.MeshClient, library: client.Library, claimed: Frontiers, by: saying.Pen) -> Governance:
    """All that members show of the stream, and what these keys have signed; that it is one history.

    Raises:
        Refused: ``stream_forked``.
    """
    shown = (await gather_about(mesh, claimed, library.governance, by.stream)).governance
    if shown.forked(by.stream):
        raise Refused("stream_forked", f"members hold two histories of {by.stream}: every halt in it is in force, and no resume counts")
    both = extend(shown, by.before).governance
    if both.forked(by.stream):
        names = ", ".join(str(path) for path in by.paths)
        raise Refused("stream_forked", f"what is kept in {names} contradicts what members hold; nothing was signed or offered")
    return both


def _in_force(cli: Cli, state: Governance, by: saying.Pen, domain: str) -> list[str]:
    """Which halts to lift; none if these keys have lifted all of them already.

    Raises:
        Refused: ``not_found`` if there is nothing to lift.
    """
    halts = list(state.halted.get(domain, ()))
    if not halts and not (by.before and _lifts(by.before[-1].claims)):
        raise Refused("not_found", f"no member shows a halt of {domain} that is in force")
    if len(halts) > LIFTS_MAX:
        cli.say(f"{len(halts)} halts are in force; {LIFTS_MAX} are lifted now, run the same command again for the rest")
    return halts[:LIFTS_MAX]


def _lifts(said: Said) -> list[str]:
    return said.lifts if isinstance(said, Halt) else []
