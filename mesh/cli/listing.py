"""`mesh lineage ls`: the newest records of all logs that are meant, each final by proof or marked as the word of whoever serves it.

Rules
-----
1. Logs are read backwards (:mod:`mesh.cli.backward`), that one first whose next record may be the newest; so nothing is read that is older
   than what is listed, and of many records none is kept but those that are listed.
2. Also those logs are read whose nodes are no members any more.
3. What could not be had is named, and is an exit status; so is how many records could not be judged because a statement is withheld.

Not here: what a record says (:mod:`mesh.cli.sifting`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.cli import client, telling
from mesh.cli.backward import ALWAYS, Backward, Span, Stretch
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.reaching import witnesses
from mesh.cli.sifting import KINDS, About, Sieve, about
from mesh.cli.times import parse_ago
from mesh.core.log.record import DecisionMade, OutcomeRecorded, Record
from mesh.core.messages import NodeStatus
from mesh.errors import MeshError
from mesh.limits import LISTED_RECORDS_MAX

__all__ = ["ls"]

_INCOMPLETE: Final = 4
Row = dict[str, Any]


class _Asked(msgspec.Struct, frozen=True):
    count: int
    only: str | None
    span: Span
    sieve: Sieve


@click.command("ls")
@click.option("-n", "--count", default=20, show_default=True, type=click.IntRange(1, LISTED_RECORDS_MAX), help="How many, newest first.")
@click.option("--node", "only", metavar="NODE", help="Of this node's logs only.")
@click.option("--actor", metavar="SUBJECT", help="Who acted: a SPIFFE id, or what it begins with and a *.")
@click.option("--action", metavar="[DOMAIN/]VERB", help="What was asked for.")
@click.option("--domain", metavar="DOMAIN", help="Where.")
@click.option("--effect", type=click.Choice(["permit", "deny"]), help="How it was decided; a denial without a decision is a deny.")
@click.option("--kind", type=click.Choice(KINDS), help="Which kind of record.")
@click.option("--code", metavar="CODE", help="Why it was denied, blocked or ended, or what was wrong.")
@click.option("--since", metavar="TIME", help="Recorded then or later: 24h ago, or at 2027-01-31T09:00:00Z.")
@click.option("--until", metavar="TIME", help="Recorded before then, likewise.")
@format_option
@pass_cli
def ls(cli: Cli, /, count: int, only: str | None, *, since: str | None, until: str | None, **asked: str | None) -> int:
    """The newest records of all logs that are meant.

    What is marked final was proved to be. Ends with 4 if a log could not be read, or a statement that decides is held back.
    """
    now_ms = wall_ms()
    span = Span(
        since_ms=ALWAYS.since_ms if since is None else parse_ago(since, where="--since", now_ms=now_ms),
        until_ms=ALWAYS.until_ms if until is None else parse_ago(until, where="--until", now_ms=now_ms),
    )
    wanted = _Asked(count, only, span, Sieve.of(**asked))

    async def work(mesh: client.MeshClient, _library: client.Library) -> "_Listing":
        listing = _Listing(cli, mesh, wanted)
        await listing.read()
        return listing

    listing = client.run(cli, work)
    cli.rows(("at", "record", "kind", "about", "what", "state"), listing.rows)
    if unproved := sum(not row["final"] for row in listing.rows):
        cli.say(f"{unproved} of these are not final yet: that they are so is the word of whoever serves them")
    if listing.lacking:
        cli.say(f"{listing.lacking} records could not be judged: nobody who was asked gives the statements that they name")
    about_ = next((row["intent"] for row in listing.rows if row["intent"]), "")
    cli.next(f"mesh why {about_[:12]}" if about_ else "mesh status")
    return 0 if listing.complete and not listing.lacking else _INCOMPLETE


class _Log:
    """One log on its way back: what is meant of it and was not listed yet, and how old what comes next can be at most."""

    def __init__(self, log: Backward, span: Span, sift: Callable[[Backward, Stretch], Awaitable[list[Row]]]) -> None:
        self.log = log
        self.looked_at = 0
        self.ended = False
        self._stretches: AsyncIterator[Stretch] = log.stretches(span)
        self._sift = sift
        self._rows: list[Row] = []
        self._oldest_ms = span.until_ms

    @property
    def next_ms(self) -> int:
        """No row to come is newer."""
        return int(self._rows[-1]["at_ms"]) if self._rows else self._oldest_ms

    def take(self) -> Row | None:
        """The newest row that is at hand."""
        return self._rows.pop() if self._rows else None

    async def more(self) -> None:
        """Read on."""
        stretch = await anext(self._stretches, None)
        if stretch is None:
            self.ended = True
            return
        self.looked_at += len(stretch.records)
        if stretch.records:
            self._oldest_ms = min(self._oldest_ms, stretch.records[0].at_ms)
        self._rows = await self._sift(self.log, stretch)


class _Listing:
    """The working copy."""

    def __init__(self, cli: Cli, mesh: client.MeshClient, asked: _Asked) -> None:
        self.rows: list[Row] = []
        self.lacking = 0
        self.complete = True
        self._cli, self._mesh, self._asked = cli, mesh, asked
        self._said: dict[str, NodeStatus | MeshError] = {}
        self._known: dict[str, str] = {}
        """Identity documents that were read, by id, to whom they name."""

    async def read(self) -> None:
        """Rule 1.

        Raises:
            Refused: ``unknown_member`` for a node that never was one.
            Unavailable: ``unreachable``.
        """
        asked, mesh = self._asked, self._mesh
        self._said = await mesh.status()
        if asked.only is not None:
            mesh.member(asked.only)
        answers = client.answers_in(self._said)
        origins = [origin for origin, name in mesh.naming.logs.items() if asked.only in {None, name}]
        logs = [_Log(Backward(mesh, answers, origin, self._cli.say, bare=asked.sieve.bare), asked.span, self._sift) for origin in origins]
        total = sum(log.log.size for log in logs)
        while len(self.rows) < asked.count and (going := [log for log in logs if not log.ended]):
            newest = max(going, key=lambda log: (log.next_ms, log.log.origin))
            row = newest.take()
            if row is not None:
                self.rows.append(row)
                continue
            await newest.more()
            self._cli.progress(f"{sum(log.looked_at for log in logs):,} of at most {total:,} records read, {len(self.rows)} found")
        self._cli.progress("")
        self.complete = all(log.log.complete for log in logs)

    async def _sift(self, log: Backward, stretch: Stretch) -> list[Row]:
        """What is meant, oldest first."""
        sieve = self._asked.sieve
        chosen = [record for record in stretch.records if sieve.may(record, self._known)]
        bodies = await log.statements(stretch, chosen)
        rows = list[Row]()
        for record in chosen:
            said = about(record, bodies)
            if isinstance(record, DecisionMade | OutcomeRecorded) and said.actor:
                self._known[record.identity] = said.actor
            if sieve.takes(said):
                rows.append(self._row(record, said, final=stretch.final))
            elif said.lacking and sieve.reads:
                self.lacking += 1
        return rows

    def _row(self, record: Record, said: About, *, final: bool) -> Row:
        intent = client.intent_of(record)
        return {
            "at": telling.when(record.at_ms),
            "at_ms": record.at_ms,
            "record": self._mesh.naming.place(record.origin, record.index),
            "kind": telling.kind_of_record(record),
            "about": intent[:12],
            "what": telling.told(record),
            "state": "final" if final else "witnessed" if witnesses(self._said, record.origin, record.index) else "recorded",
            "final": final,
            "intent": intent,
            "actor": said.actor,
            "domain": said.domain,
            "action": said.action,
            "effect": said.effect,
            "code": said.code,
        }
