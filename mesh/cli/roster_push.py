"""`mesh roster push`: a signed roster is offered to every member, watched until k hold it, and on until they act under it.

Rules
-----
1. What members would refuse is refused here first, and what nobody could go over to in time: once it begins, whoever holds it acts under
   the former one no more.
2. *Held* is a signed heartbeat that covers it, of a member of the roster before. *Gone over* is one of a member of the new one that names
   its epoch.

Not here: when a node goes over (:mod:`mesh.protocol.adoption`), signing (:mod:`mesh.cli.roster_sign`).
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from mesh.adapters.clock import wall_ms
from mesh.cli import client, saying, telling
from mesh.cli import roster_draft as drafts
from mesh.cli import roster_handover as handover
from mesh.cli import roster_held as held
from mesh.cli import roster_words as words
from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.cli.spreading import HELD, Live, Spread
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Roster, check_assents, check_sealed
from mesh.core.law.succession import check_place, check_step
from mesh.errors import MeshError, Refused, Unavailable

__all__ = ["push"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_POLL_S: Final = 0.2


class _Way(NamedTuple):
    """A roster on its way."""

    statement: Statement[Roster]
    before: Roster
    going: Spread
    over_ms: dict[str, int]
    """Member of the new roster to ms from its beginning until it said that it acts under it."""


@click.command()
@click.argument("file", type=_FILE)
@saying.watching("k members hold it")
@click.option("--follow", is_flag=True, help="Watch on until k of its members act under it; --wait counts anew from when it begins.")
@click.option(
    "--lose", multiple=True, metavar="STREAM", help="Of this stream members may hold more than it hands over: that counts no more."
)
@click.option("--late", is_flag=True, help="Offer it although it begins before all can have heard of it: nothing runs until they have.")
@format_option
@pass_cli
def push(cli: Cli, *, file: Path, watch: bool, wait_s: float, follow: bool, lose: tuple[str, ...], late: bool) -> int:
    """Hand the signed roster in FILE to every member; they pass it on.

    Each checks it by itself, and goes over once it has begun and k of the members before have held it for 2Δ. Ends with 0 once a member
    holds it; with --watch, once k do; with --follow, once k of the new ones act under it.
    """
    statement = words.read(file)

    async def work(mesh: client.MeshClient, library: client.Library) -> _Way:
        seen = await held.read(cli, mesh, library, whole=True)
        before = _check(cli, seen, statement, late=late, lose=lose)
        asked = mesh.under(seen.governance.under(before.epoch))
        names = [member.name for member in before.members]
        live = Live(cli, names) if watch or follow else None
        ids = seen.governance.rosters.ids
        earlier = [seen.statements[identity] for identity in ids[1 : before.epoch] if identity in seen.statements]
        going = Spread(asked, statement, [*earlier, statement], live.show if live else lambda _: None)
        try:
            await going.run(watch_s=wait_s if watch or follow else 0)
        finally:
            if live:
                live.clear()
        way = _Way(statement, before, going, {})
        if follow and going.acknowledged_ms is not None:
            cli.say(f"held by {before.k}; it begins at {telling.when(statement.claims.not_before_ms)}")
            grown = seen.governance.rosters.held.get(statement.id)
            governance = seen.governance if grown else (await held.read(cli, mesh, library)).governance
            await _follow(mesh.under(governance.under(statement.claims.epoch)), way, wait_s, cli.say)
        return way

    way = client.run(cli, work)
    _report(cli, way)
    return _ended(cli, way, watch=watch, follow=follow, wait_s=wait_s)


def _check(cli: Cli, seen: held.Held, statement: Statement[Roster], *, late: bool, lose: tuple[str, ...]) -> Roster:
    """Rule 1; the roster that it follows.

    Raises:
        Refused: ``wrong_epoch``, ``wrong_mesh``, ``threshold_not_met``, ``operator_unsigned``, ``bad_signature``, ``roster_unsafe``,
            ``revoked``, ``too_soon``, ``roster_conflict``, ``handover_missing``, ``handover_stale``.
    """
    claims, rosters = statement.claims, seen.governance.rosters
    held.check_one_history(seen.governance)
    if claims.epoch <= len(rosters.ids):
        if statement.id not in rosters.ids:
            raise Refused("wrong_epoch", f"members hold another roster of epoch {claims.epoch}, {rosters.ids[claims.epoch - 1][:12]}…")
        if claims.epoch == 1:
            raise Refused("usage", "the first roster is pinned, not pushed")
        cli.say(f"members hold epoch {claims.epoch} already; it is offered again")
        return rosters.of(claims.epoch - 1)
    before = rosters.newest
    check_place(before, rosters.ids[-1], claims)
    check_assents(statement, before)
    check_sealed(statement, before)
    check_step(before, claims)
    drafts.check_unrevoked(claims, before, frozenset(seen.governance.revoked))
    handover.check(before, claims, seen, lose)
    if not late:
        drafts.check_ahead(before, claims)
    return before


async def _follow(mesh: client.MeshClient, way: _Way, wait_s: float, say: Callable[[str], None]) -> None:
    """Until k of the new members say that they act under it, or ``wait_s`` seconds after it begins."""
    claims, over = way.statement.claims, way.over_ms
    end_s = time.monotonic() + max(0, claims.not_before_ms - wall_ms()) / 1_000 + wait_s
    while len(over) < claims.k and time.monotonic() < end_s:
        for name, beat in (await mesh.heartbeats()).items():
            if not isinstance(beat, MeshError) and beat.roster_epoch >= claims.epoch and name not in over:
                over[name] = max(0, wall_ms() - claims.not_before_ms)
                say(f"{name} acts under epoch {claims.epoch}, {over[name]} ms after it began")
        await asyncio.sleep(_POLL_S)


# ----------------------------------------------------------------------------------------------------------------- telling


def _report(cli: Cli, way: _Way) -> None:
    claims, going = way.statement.claims, way.going
    names = dict.fromkeys(member.name for roster in (way.before, claims) for member in roster.members)
    rows: list[dict[str, Any]] = [
        {
            "node": name,
            "member": _member_of(name, way.before, claims),
            "answer": going.answers.get(name, ""),
            "holds_ms": going.covered_ms.get(name),
            "acts_ms": way.over_ms.get(name),
        }
        for name in names
    ]
    if cli.format == "table":
        cli.say(f"epoch {claims.epoch} ({way.statement.id[:12]}…) begins at {telling.when(claims.not_before_ms)}")
        cli.rows(("node", "member", "answer", "holds_ms", "acts_ms"), rows)
        return
    cli.value(
        {
            "id": way.statement.id,
            "epoch": claims.epoch,
            "begins": telling.when(claims.not_before_ms),
            "members": rows,
            "held": len(going.covered_ms),
            "needed": way.before.k,
            "held_ms": going.acknowledged_ms,
            "acting": len(way.over_ms),
            "acting_needed": claims.k,
        }
    )


def _member_of(name: str, before: Roster, after: Roster) -> str:
    old, new = (any(member.name == name for member in roster.members) for roster in (before, after))
    return "of both" if old and new else "goes" if old else "comes"


def _ended(cli: Cli, way: _Way, *, watch: bool, follow: bool, wait_s: float) -> int:
    claims, going, k = way.statement.claims, way.going, way.before.k
    if not going.held and not going.covered_ms:
        told = ", ".join(f"{name} {code}" for name, code in going.answers.items())
        codes = [code for code in going.answers.values() if code != "unreachable"]
        return fail(cli, Refused(codes[0], f"nobody took it: {told}") if codes else Unavailable("unreachable", f"nobody took it: {told}"))
    if not (watch or follow):
        cli.say(f"{len(going.held)} of {len(way.before.members)} say that they hold it; {k} must, for 2Δ, before anybody goes over")
        cli.next("mesh roster ls")
        return 0
    if going.acknowledged_ms is None:
        lacking = ", ".join(
            f"{member.name} ({_why(going.answers.get(member.name, 'no answer'))})"
            for member in way.before.members
            if member.name not in going.covered_ms
        )
        return fail(cli, Unavailable("not_acknowledged", f"{len(going.covered_ms)} of {k} after {wait_s:g} s; lacking: {lacking}"))
    cli.say(f"held by {k} of {len(way.before.members)} after {going.acknowledged_ms} ms")
    if not follow:
        cli.say(
            f"members go over at {telling.when(claims.not_before_ms)}, or once {k} have held it for {2 * way.before.bounds.stale_ms} ms"
        )
        cli.next("mesh roster ls")
        return 0
    if len(way.over_ms) < claims.k:
        lacking = ", ".join(member.name for member in claims.members if member.name not in way.over_ms)
        return fail(
            cli, Unavailable("roster_pending", f"{len(way.over_ms)} of {claims.k} act under epoch {claims.epoch}; lacking: {lacking}")
        )
    cli.say(f"in force: {len(way.over_ms)} of {len(claims.members)} act under epoch {claims.epoch}")
    cli.next("mesh peer ls")
    return 0


def _why(answer: str) -> str:
    return "says that it holds it, its heartbeats do not" if answer == HELD else answer
