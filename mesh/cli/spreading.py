"""A signed statement on its way to the members: offered to all at once, watched until k cover it by their signed heartbeats, told.

Rules
-----
1. A member's answer that it holds a statement is its word. *Acknowledged* is k signed heartbeats that cover it.
2. What was not taken is signed all the same: whoever interrupts is told so.

Not here: signing (:mod:`mesh.cli.saying`, :mod:`mesh.cli.cosigning`).
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click
import msgspec

from mesh.cli import client, telling
from mesh.cli.hearing import Ears
from mesh.cli.output import Cli, fail
from mesh.cli.saying import Pen, Plan
from mesh.codes import CODES
from mesh.core.bytes.envelope import Statement
from mesh.core.law.heartbeat import Heartbeat, reaches
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said, link_of
from mesh.core.messages import Offer, Offered
from mesh.errors import MeshError, Refused, Unavailable

__all__ = ["HELD", "Live", "Spread", "ended", "registered", "report", "spread"]

_POLL_S: Final = 0.05
_LISTEN_S: Final = 0.2
HELD: Final = "held"
"""What stands for the answer of a member that says so."""


class Spread:
    """A statement on its way to the members."""

    def __init__(
        self,
        mesh: client.MeshClient,
        statement: Statement[Said],
        offered: Sequence[Statement[Said]],
        show: Callable[["Spread"], None],
        ears: Ears | None = None,
    ) -> None:
        """Offer ``offered``, and look for ``statement``; ``show`` is called whenever more is known; ``ears`` listen to enforcers."""
        self._mesh = mesh
        self._statement = statement
        self._offer_message = Offer(statements=[msgspec.Raw(item.envelope) for item in offered])
        self._show = show
        self.ears = ears
        self._names = [member.name for member in mesh.roster.members]
        self._end = asyncio.Event()
        self._over = False
        self._begun_s = 0.0
        self.answers: dict[str, str] = {}
        """Member to ``held``, or the code of its no."""
        self.covered_ms: dict[str, int] = {}
        """Member to ms from offering until its signed heartbeat covered it."""

    @property
    def roster(self) -> Roster:
        """Whose members these are."""
        return self._mesh.roster

    @property
    def held(self) -> list[str]:
        """Who says that it holds it."""
        return [name for name in self._names if self.answers.get(name) == HELD]

    @property
    def acknowledged_ms(self) -> int | None:
        """When k members' heartbeats covered it; None if they do not yet."""
        times = sorted(self.covered_ms.values())
        return times[self.roster.k - 1] if len(times) >= self.roster.k else None

    async def run(self, *, watch_s: float) -> None:
        """Offer to all members at once; then, unless ``watch_s`` is 0, until k cover it, nobody takes it, or so many seconds passed."""
        self._begun_s = time.monotonic()
        if not watch_s:
            await asyncio.gather(*(self.offer(name) for name in self._names))
            return
        try:
            async with asyncio.timeout(watch_s), asyncio.TaskGroup() as group:
                tasks = [group.create_task(work(name)) for name in self._names for work in (self.offer, self.poll)]
                if self.ears is not None:
                    tasks.append(group.create_task(self._listen(self.ears)))
                try:
                    await self._end.wait()
                finally:
                    self._over = True  # a cancellation that comes together with an answer can be lost
                    for task in tasks:
                        task.cancel()
        except TimeoutError:
            return

    async def offer(self, member: str) -> None:
        """Offer it to one member."""
        try:
            answer = await self._mesh.ask(member, self._offer_message, Offered)
        except MeshError as error:
            self.answers[member] = error.code
        else:
            code = answer.results.get(self._statement.id, "malformed")
            self.answers[member] = registered(code) if code else HELD
        if len(self.answers) == len(self._names) and not self.held and not self.covered_ms:
            self._end.set()
        self._show(self)

    async def poll(self, member: str) -> None:
        """Ask one member for its heartbeat until that covers it."""
        while not self._over:
            try:
                beat = await self._mesh.heartbeat(member)
            except MeshError:
                beat = None
            if beat is not None and self.covers(beat):
                self.covered_ms[member] = self._passed_ms()
                self._show(self)
                self._settle()
                return
            await self.missed(member)
            await asyncio.sleep(_POLL_S)

    async def missed(self, member: str) -> None:
        """A member does not have it yet; whoever wants to know why asks here."""

    async def _listen(self, ears: Ears) -> None:
        while not self._over:
            await ears.look(self._passed_ms)
            self._show(self)
            self._settle()
            await asyncio.sleep(_LISTEN_S)

    def _settle(self) -> None:
        """End once k members hold it, and no enforcer need be waited for."""
        at_ms = self.acknowledged_ms
        if at_ms is not None and (self.ears is None or self.ears.enough(self._passed_ms() - at_ms)):
            self._end.set()

    def covers(self, beat: Heartbeat) -> bool:
        """Whether a member that signs this has it."""
        stream, link = link_of(self._statement)
        return reaches(beat.frontier, stream, link.sequence, link.id)

    def _passed_ms(self) -> int:
        return int((time.monotonic() - self._begun_s) * 1_000)


# ----------------------------------------------------------------------------------------------------------------- to tell


class Live:
    """The table while it fills: drawn over itself where a person looks on, else a line for each change."""

    def __init__(self, cli: Cli, names: Sequence[str], *, does: str = "holds it") -> None:
        self._cli = cli
        self._does = does
        self._names = names
        self._told = set[str]()
        self._drawn = False
        self._draws = cli.format == "table" and cli.color and not cli.quiet and sys.stderr.isatty()

    def show(self, spread: Spread) -> None:
        """Tell what is known now."""
        if not self._draws:
            for name in spread.covered_ms.keys() - self._told:
                self._told.add(name)
                self._cli.say(f"{name} {self._does} after {spread.covered_ms[name]} ms")
            for row in [] if spread.ears is None else spread.ears.rows():
                if row["covers_ms"] is not None and row["key"] not in self._told:
                    self._told.add(row["key"])
                    self._cli.say(f"{row['enforcer']} has heard it after {row['covers_ms']} ms")
            return
        self.clear()
        self._drawn = True
        width = max(len(name) for name in self._names)
        for name in self._names:
            ms = f"{spread.covered_ms[name]:>6} ms" if name in spread.covered_ms else "     …   "
            click.echo(f"{name.ljust(width)}  {ms}  {spread.answers.get(name, '')}", err=True)

    def clear(self) -> None:
        """Take the table away again."""
        if self._drawn:
            click.echo(f"\x1b[{len(self._names)}F\x1b[J", err=True, nl=False)
            self._drawn = False


async def spread(cli: Cli, mesh: client.MeshClient, made: Plan, *, watch: bool, wait_s: float, ears: Ears | None = None) -> Spread:
    """Offer it to every member, and watch who holds it if so wished, ``wait_s`` seconds at most."""
    live = Live(cli, [member.name for member in mesh.roster.members]) if watch else None
    going = Spread(mesh, made.statement, made.offered, live.show if live else lambda _: None, ears if watch else None)
    try:
        await going.run(watch_s=wait_s if watch else 0)
    except asyncio.CancelledError:  # Ctrl-C: whoever pressed it must not believe that nothing was said
        cli.say("interrupted: it is signed and stays so; run the same command again to offer it again and watch on")
        raise
    finally:
        if live:
            live.clear()
    return going


def report(cli: Cli, made: Plan, going: Spread, by: Pen, *, watch: bool, does: str, facts: Mapping[str, Any]) -> None:
    """What was said and who holds it; ``does`` in words, ``facts`` for programs."""
    claims, roster = made.statement.claims, going.roster
    rows = [
        {"node": member.name, "answer": going.answers.get(member.name, ""), "covers_ms": going.covered_ms.get(member.name)}
        for member in roster.members
    ]
    enforcers = going.ears.rows() if going.ears is not None else []
    if cli.format == "table":
        cli.say(
            f"number {claims.sequence} of {by.keys[0].key.public[:12] + '…' if by.alone else by.stream} ({made.statement.id[:12]}…) {does}"
        )
        cli.rows(("node", "answer", *(["covers_ms"] if watch else [])), rows)
        if enforcers:
            cli.rows(("enforcer", "covers_ms", "record"), enforcers)
        return
    cli.value(
        {
            "id": made.statement.id,
            **facts,
            "sequence": claims.sequence,
            "previous": claims.previous,
            "reason": claims.reason,
            "issued": telling.when(claims.issued_ms),
            "signed_by": sorted(made.statement.signatures),
            "signed_before": made.again,
            "kept_in": [str(path) for path in by.paths] if not by.alone else str(by.paths[0]),
            "members": rows,
            "held": len(going.held),
            "covered": len(going.covered_ms),
            "needed": roster.k,
            "acknowledged": going.acknowledged_ms is not None,
            "acknowledged_ms": going.acknowledged_ms,
            "stale_ms": roster.bounds.stale_ms,
            "enforcers": enforcers,
            "enforcers_confirmed": going.ears.confirmed if going.ears is not None else [],
            "enforcers_needed": going.ears.needed if going.ears is not None else 0,
        }
    )


def ended(cli: Cli, made: Plan, going: Spread, *, watch: bool, wait_s: float, follows: str, then: str) -> int:
    """The exit status, after saying what ``follows`` once it is acknowledged, and which command to run ``then``."""
    roster = going.roster
    k, n, at_ms = roster.k, len(roster.members), going.acknowledged_ms
    if not going.held and not going.covered_ms:
        return fail(cli, _nobody(going.answers, made))
    if not watch:
        cli.say(f"{len(going.held)} of {n} say that they hold it; it is acknowledged once {k} do by their signed heartbeats")
        cli.next(then)
        return 0
    if at_ms is None:
        lacking = ", ".join(_lacking(going, member.name) for member in roster.members if member.name not in going.covered_ms)
        return fail(cli, Unavailable("not_acknowledged", f"{len(going.covered_ms)} of {k} after {wait_s:g} s; lacking: {lacking}"))
    confirmed = going.ears.told() if going.ears is not None else ""
    if going.ears is not None and len(going.ears.confirmed) < going.ears.needed:
        return fail(cli, Unavailable("not_acknowledged", f"{confirmed}, {going.ears.needed} were asked for, after {wait_s:g} s"))
    cli.say(f"acknowledged by {k} of {n} after {at_ms} ms; {follows}")
    if confirmed:
        cli.say(confirmed)
    cli.next(then)
    return 0


def _lacking(going: Spread, member: str) -> str:
    answer = going.answers.get(member, "no answer")
    return f"{member} ({'says that it holds it, its heartbeats do not' if answer == HELD else answer})"


def _nobody(answers: Mapping[str, str], made: Plan) -> MeshError:
    told = ", ".join(f"{name} {code}" for name, code in answers.items())
    detail = f"nobody took it: {told}. Number {made.statement.claims.sequence} is signed and kept: run the same command again"
    codes = [code for code in answers.values() if code != "unreachable"]
    return Unavailable("unreachable", detail) if not codes else Refused(codes[0], detail)


def registered(code: str) -> str:
    """A code as a member says it, if it is one of ours."""
    return code if code in CODES else "unavailable"
