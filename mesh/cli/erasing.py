"""`mesh lineage erase`: the root's word that openings of some intents are kept no more, and each node's word that they are gone.

Rules
-----
1. Only what is final is named: before that, members still repeat the decisions, and a node keeps what it has not certified yet.
2. A node's word is the record `erased` in its own log, once k members have attested it: proved here, believed of nobody else.
3. It ends with 0 only if all members gave theirs, or k of them with --quorum. What was said is signed all the same, and whoever comes
   later hears of it: run again, the command says what is left.

Not here: numbers, keeping, offering (:mod:`mesh.cli.saying`), what was in files that left the nodes (proofs, exports, backups).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from mesh.adapters.clock import wall_ms
from mesh.cli import client, recorded, saying, signed, spreading
from mesh.cli.gathering import gather_about
from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.cli.times import parse_when
from mesh.core.bytes import envelope
from mesh.core.law.erase import ERASURES, Erase
from mesh.core.log.record import DecisionMade, GovernanceChanged
from mesh.core.messages import Find, Found
from mesh.core.run.intent import Intent
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import AUDIT_LOGS_MAX, ERASED_MAX
from mesh.protocol.proving import bodies_of, record_of

__all__ = ["erase"]

_LOOK_S: Final = 0.2
"""Between two rounds, each of one question to every member that is left: they still have to delete, and to have their record attested."""
_MORE: Final = 2


class _Wish(NamedTuple):
    """What is to be erased, as it was written."""

    names: tuple[str, ...]
    subject: str
    before_ms: int


class _Going(NamedTuple):
    """What came of it."""

    erasures: Sequence[str]
    """Ids of all that name what was wished."""
    intents: Sequence[str]
    left: int
    """How many more were meant than one erasure names."""
    gone: Mapping[str, Mapping[str, str]]
    """Erasure to member to the place of its record."""
    members: Sequence[str]
    needed: int


@click.command()
@click.argument("names", nargs=-1, metavar="[INTENT]...")
@click.option("--subject", default="", metavar="SPIFFE-ID", help="All of this workload, as far as they are final.")
@click.option("--before", "before", metavar="TIME", help="With --subject: decided before then, such as 2027-01-31T09:00:00Z.")
@click.option("--quorum", is_flag=True, help="Be content with k members; those who are away erase when they are back.")
@click.option("--dry-run", is_flag=True, help="Show which intents, and sign nothing.")
@saying.signing_options("root key")
@saying.watching("all members have erased it, or k with --quorum")
@format_option
@pass_cli
def erase(  # noqa: PLR0913 -- one for each option
    cli: Cli,
    *,
    names: tuple[str, ...],
    subject: str,
    before: str | None,
    quorum: bool,
    dry_run: bool,
    key_file: Path,
    others: tuple[Path, ...],
    reason: str,
    watch: bool,
    wait_s: float,
) -> int:
    """Erase what committed parameters hid: every node deletes these openings and never keeps them again. Nothing brings them back.

    Takes the root threshold (--co-sign). Records and proofs stay; decisions about them are *unverifiable* from then on. Nobody reaches
    what was copied before: proofs and exports that people hold, and backups. Ends with 0 once all members have erased, with 4
    before, with 2 if more are meant than one erasure names.
    """
    saying.check_reason(reason)
    wish = _Wish(names, subject, wall_ms() if before is None else parse_when(before, where="--before").moment_ms(wall_ms()))
    if bool(names) == bool(subject):
        raise Refused("usage", "name intents, or a workload by --subject")
    if before is not None and not subject:
        raise Refused("usage", "--before is for --subject: intents that are named are erased whenever they were decided")
    files = saying.keys_of((key_file, *others), "root")
    paths = [signed.path_of(path, ERASURES) for path in files]

    async def work(mesh: client.MeshClient, library: client.Library) -> _Going:
        found = sorted({item async for item in _meant(cli, mesh, wish)})
        if not found:
            raise Refused("not_found", "no final decision with committed parameters is meant by that")
        if dry_run:
            return _Going((), found, max(len(found) - ERASED_MAX, 0), {}, (), 0)
        erasures, intents, left = await _say(cli, mesh, library, files, paths, found, reason)
        going = _Going(erasures, intents, left, {}, [member.name for member in mesh.roster.members], _needed(mesh, quorum=quorum))
        return going._replace(gone=await _watched(cli, mesh, going, wait_s=wait_s if watch else 0))

    with saying.signing(paths):
        going = client.run(cli, work)
    return _report(cli, going, dry_run=dry_run)


def _needed(mesh: client.MeshClient, *, quorum: bool) -> int:
    return mesh.roster.k if quorum else len(mesh.roster.members)


# ------------------------------------------------------------------------------------------------------------- which intents


async def _meant(cli: Cli, mesh: client.MeshClient, wish: _Wish) -> AsyncIterator[str]:
    """The intents that are meant; each has committed parameters, and all decisions about it are final (rule 1)."""
    for name in wish.names:
        for answer in await mesh.execution(name):
            record = record_of(answer)
            if isinstance(record, DecisionMade):
                mesh.attested(answer)
                if _hides(bodies_of(answer), record):
                    yield record.intent
    if wish.subject:
        async for intent in _of_subject(cli, mesh, wish):
            yield intent


async def _of_subject(cli: Cli, mesh: client.MeshClient, wish: _Wish) -> AsyncIterator[str]:
    answers = await mesh.answering()
    for origin in sorted(mesh.origins()):
        head = await recorded.head_of(mesh, answers, origin)
        if head is None:
            continue
        if head.beyond:
            cli.say(f"{origin}: {head.beyond} records are not final yet and are left out")
        for intent in await _in_log(mesh, head, recorded.readers(mesh, answers, head), wish):
            yield intent


async def _in_log(mesh: client.MeshClient, head: recorded.Head, members: Iterable[str], wish: _Wish) -> list[str]:
    failure: MeshError = Unavailable("unreachable", head.origin)
    for member in members:
        found = list[str]()
        try:
            async for page in recorded.pages(mesh, member, head, 0):
                for record in page.records:
                    if isinstance(record, DecisionMade) and record.at_ms < wish.before_ms and _hides(page.bodies, record, wish.subject):
                        found.append(record.intent)
        except MeshError as error:
            failure = error
        else:
            return found
    raise failure


def _hides(bodies: Mapping[str, bytes], record: DecisionMade, subject: str = "") -> bool:
    """Whether the intent has committed parameters, and is that subject's if one is named."""
    if record.intent not in bodies:
        raise Unavailable("body_missing", f"intent {record.intent[:12]}…: whoever answered does not hold it")
    intent = envelope.read(Intent, bodies[record.intent]).claims
    return bool(intent.committed) and subject in {"", intent.subject}


# ------------------------------------------------------------------------------------------------------------------ to say


async def _say(
    cli: Cli,
    mesh: client.MeshClient,
    library: client.Library,
    files: Mapping[Path, Any],
    paths: Sequence[Path],
    found: list[str],
    reason: str,
) -> tuple[list[str], list[str], int]:
    """The erasures that name what is meant, one more if it takes one; the intents; how many are left for another."""
    root, keys = mesh.rosters.newest.root, list(files.values())
    if len(keys) < root.threshold:
        raise Refused("threshold_not_met", f"{root.threshold} root keys must sign, and {len(keys)} did; add --co-sign FILE for each")
    by = saying.pen(ERASURES, keys, paths, mesh.rosters, alone=False, role=root)
    claimed = saying.frontiers_of(await saying.hear(cli, mesh))
    by = await saying.standing(mesh, library.governance, claimed, by)
    held = (await gather_about(mesh, claimed, library.governance, by.stream)).governance
    fresh = [intent for intent in found if intent not in held.erased]
    named, left = fresh[:ERASED_MAX], max(len(fresh) - ERASED_MAX, 0)
    before = [identity for identity, intents in held.erasures.items() if not set(found).isdisjoint(intents)]
    lost = [item for item in by.before if isinstance(item.claims, Erase) and not set(found).isdisjoint(item.claims.intents)]
    if not named:
        cli.say("erasures that members hold name all of them already; nothing new is signed")
        return before, found, 0
    plan = await saying.plan(
        cli,
        mesh,
        library.governance,
        claimed,
        by,
        same=lambda said: isinstance(said, Erase) and said.intents == named,
        draft=lambda number, previous: Erase(
            mesh=mesh.roster.mesh, sequence=number, previous=previous, since="", intents=named, reason=reason, issued_ms=wall_ms()
        ),
    )
    spread = await spreading.spread(cli, mesh, plan, watch=False, wait_s=0)
    if not spread.held:
        refused = [code for code in spread.answers.values() if code in {"malformed", "bad_signature", "threshold_not_met", "handed_over"}]
        detail = f"nobody took number {plan.statement.claims.sequence}; it is signed and kept: run the same command again"
        raise Refused(refused[0], detail) if refused else Unavailable("unreachable", detail)
    erasures = dict.fromkeys([*before, *(item.id for item in lost), plan.statement.id])
    return list(erasures), [intent for intent in found if intent in held.erased or intent in named], left


# ------------------------------------------------------------------------------------------------------------ who has erased


async def _watched(cli: Cli, mesh: client.MeshClient, going: _Going, *, wait_s: float) -> dict[str, dict[str, str]]:
    """Erasure to member to the place of its record (rule 2), until enough have said so of each, or so many seconds passed."""
    gone: dict[str, dict[str, str]] = {identity: {} for identity in going.erasures}
    end = time.monotonic() + wait_s
    while True:
        for identity, places in gone.items():
            waiting = [name for name in going.members if name not in places]
            for name, place in zip(waiting, await asyncio.gather(*(_record(mesh, name, identity) for name in waiting)), strict=True):
                if place:
                    places[name] = place
                    cli.say(f"{name} has erased what {identity[:12]}… names: {place}")
        if all(len(places) >= going.needed for places in gone.values()) or time.monotonic() >= end:
            return gone
        await asyncio.sleep(_LOOK_S)


async def _record(mesh: client.MeshClient, name: str, identity: str) -> str:
    """Where the member's own log says that it has erased, proved; empty if it does not say so yet."""
    origin = mesh.roster.origin(mesh.roster.member(name))
    try:
        found = await mesh.ask(name, Find(prefix=identity, count=AUDIT_LOGS_MAX), Found)
        for place in found.records:
            if (place.id, place.origin) == (identity, origin):
                answer = await mesh.prove(client.Place(place.origin, place.index))
                mesh.attested(answer)
                record = record_of(answer)
                if isinstance(record, GovernanceChanged) and (record.change, record.about) == ("erased", identity):
                    return mesh.naming.place(record.origin, record.index)
    except MeshError:
        return ""
    return ""


def _report(cli: Cli, going: _Going, *, dry_run: bool) -> int:
    done = [name for name in going.members if all(name in places for places in going.gone.values())]
    rows = [
        {"node": name, "erased": name in done, "records": [places[name] for places in going.gone.values() if name in places]}
        for name in going.members
    ]
    if cli.format == "table":
        cli.rows(("intent",), [{"intent": intent} for intent in going.intents]) if dry_run else cli.rows(
            ("node", "erased", "records"), rows
        )
    else:
        facts = {"erasures": list(going.erasures), "intents": list(going.intents), "members": rows, "erased": len(done)}
        cli.value({**facts, "needed": going.needed, "left": going.left, "signed": bool(going.erasures)})
    if dry_run:
        cli.say(f"{len(going.intents)} intents; nothing was signed")
        return 0
    lacking = [name for name in going.members if name not in done]
    if len(done) < going.needed:
        told = f"{len(done)} of {going.needed} have erased; not yet: {', '.join(lacking)}. Run the same command again to watch on"
        return fail(cli, Unavailable("not_acknowledged", told))
    cli.say(
        f"{len(going.intents)} intents: erased by {len(done)} of {len(going.members)}"
        + (f"; left: {', '.join(lacking)}" if lacking else "")
    )
    cli.say("proofs, exports and backups that were made before still hold what they hold")
    if going.left:
        cli.say(f"{going.left} more are meant: run the same command again")
        return _MORE
    cli.next(f"mesh lineage show {going.erasures[0][:12]}")
    return 0
