"""What commands that sign in a governance stream share: which number comes next, what is kept, who is told, who holds it.

Rules
-----
1. The number after the furthest one that members can show, or that these keys are known to have signed: never one number twice.
2. What is signed is durable beside each key that signs before it is offered (:mod:`mesh.cli.signed`). What was signed and did not
   arrive is offered again; if it says the same, nothing new is signed.
3. Who does not know how far a stream has come hears k members first: what k hold cannot be missed then.
4. A member's answer that it holds a statement is its word. *Acknowledged* is k signed heartbeats that cover it.

Not here: what members hold (:mod:`mesh.cli.gathering`), what is said (:mod:`mesh.cli.revoke`, :mod:`mesh.cli.halt`).
"""

import asyncio
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click
import msgspec

from mesh.adapters.signer import KeyFile, load
from mesh.cli import client, signed, telling
from mesh.cli.gathering import Frontiers, Head, frontiers, furthest
from mesh.cli.hearing import Ears
from mesh.cli.output import Cli, fail
from mesh.codes import CODES
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat, StreamHead, reaches
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said, admit_law, link_of, read_law
from mesh.core.messages import Offer, Offered
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, REASON_CHARS_MAX

__all__ = [
    "Pen",
    "Plan",
    "Spread",
    "check_reason",
    "ended",
    "hear",
    "options",
    "pen",
    "plan",
    "report",
    "revoker_keys",
    "signing",
    "spread",
]

F = TypeVar("F", bound=Callable[..., Any])

_POLL_S: Final = 0.05
_LISTEN_S: Final = 0.2
_HELD: Final = "held"


class Pen(NamedTuple):
    """What signs in a stream."""

    stream: str
    keys: Sequence[KeyFile]
    paths: Sequence[Path]
    """Where it is kept what the first so many of the keys have signed."""
    alone: bool
    """Whether nobody else signs in this stream, so that what is kept says how far it has come."""
    before: tuple[Statement[Said], ...]
    """What they signed last and may be lost, oldest first."""


class Plan(NamedTuple):
    """What to offer."""

    statement: Statement[Said]
    """The one that says it."""
    offered: tuple[Statement[Said], ...]
    """That one, after all that were signed before and may have been lost."""
    again: bool
    """Whether it was signed before."""


_KEY_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OPTIONS: Final = (
    click.option("--key", "key_file", required=True, type=_KEY_FILE, help="Key file of a revoker."),
    click.option("--co-sign", "others", multiple=True, type=_KEY_FILE, help="Another revoker's key file."),
    click.option("--reason", default="", help="Why, in your own words; everybody can read it."),
    click.option("--watch", is_flag=True, help="Wait until k members hold it, by their signed word."),
    click.option(
        "--wait", "wait_s", default=30.0, show_default=True, type=click.FloatRange(0.1, 86_400), help="With --watch: seconds at most."
    ),
)


def options(command: F) -> F:
    """What every command takes that signs in a stream."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def revoker_keys(paths: Sequence[Path]) -> dict[Path, KeyFile]:
    """The revokers' keys in these files, each once.

    Raises:
        Refused: ``config_invalid`` for a key of another use, and as :func:`mesh.adapters.signer.load`.
    """
    keys = dict[Path, KeyFile]()
    for path in paths:
        key = load(path)
        if key.use != "revoker":
            raise Refused("config_invalid", f"{path} is a key for {key.use}, not for revoker")
        if all(key.key.public != other.key.public for other in keys.values()):
            keys[path] = key
    return keys


def check_reason(reason: str) -> None:
    """That it fits a statement.

    Raises:
        Refused: ``usage``.
    """
    if len(reason) > REASON_CHARS_MAX:
        raise Refused("usage", f"--reason has {len(reason)} characters, at most {REASON_CHARS_MAX}")


# ------------------------------------------------------------------------------------------------------------------ to sign


@contextmanager
def signing(paths: Sequence[Path]) -> Generator[None]:
    """Nobody else signs with these keys meanwhile; taken in one order by everybody. Raises as :func:`mesh.cli.signed.locked`."""
    with ExitStack() as stack:
        for path in sorted(paths):
            stack.enter_context(signed.locked(path))
        yield


def pen(stream: str, keys: Sequence[KeyFile], paths: Sequence[Path], roster: Roster, *, alone: bool) -> Pen:
    """Keys that sign in ``stream``, with what is kept beside the first so many of them.

    Raises:
        Refused: ``bad_signature`` for a key of no revoker; ``stream_forked`` if they kept two statements under one number; what is
            wrong with a file.
    """
    for key in keys:
        if key.key.public not in roster.revoker.keys:
            raise Refused("bad_signature", f"key {key.key.public[:12]}… is no revoker of this roster")
    found = dict[int, Statement[Said]]()
    for path, key in zip(paths, keys, strict=False):
        for item in signed.kept(path, stream=stream, key=key.key.public, mesh=roster.mesh):
            other = found.setdefault(item.claims.sequence, item)
            if other.id != item.id:
                raise Refused(
                    "stream_forked", f"number {item.claims.sequence} is {item.id[:12]}… in {path} and {other.id[:12]}… in another"
                )
    return Pen(stream, keys, paths, alone, tuple(found[number] for number in sorted(found)))


async def hear(cli: Cli, mesh: client.MeshClient) -> Frontiers:
    """What members sign now that they hold; who is not counted on is told."""
    claimed, failed = await frontiers(mesh)
    for name, error in failed.items():
        cli.say(f"{name} is not counted on: {error.code} {error.detail}".rstrip())
    return claimed


async def plan(
    cli: Cli,
    mesh: client.MeshClient,
    governance: Governance,
    claimed: Frontiers,
    by: Pen,
    *,
    same: Callable[[Said], bool],
    draft: Callable[[int, str], Said],
) -> Plan:
    """Sign what is to be offered, unless it is signed already; it is durable when this returns (rules 1 to 3).

    Args:
        cli: where to tell.
        mesh: whom to ask.
        governance: whom to believe.
        claimed: what members sign that they hold.
        by: what signs.
        same: whether a statement says already what is to be said.
        draft: what is to be said, by (number, id of the statement before).

    Raises:
        Refused: ``stream_forked``, ``threshold_not_met``.
        Unavailable: ``unreachable``, ``storage_failed``.
    """
    roster, before = mesh.roster, by.before
    newest = before[-1] if before else None
    if len(claimed) < roster.k and not (by.alone and newest is not None):
        why = f"{by.paths[0]} does not exist, and without it" if by.alone else "others sign in this stream too, so"
        raise Unavailable(
            "unreachable",
            f"{len(claimed)} of {len(roster.members)} members answered; {why} {roster.k} must say how far"
            f" {'this key' if by.alone else 'it'} has come. Without that many the mesh starts nothing anyway",
        )
    known = Head(newest.claims.sequence, newest.id) if newest else None
    shown, unsure = await furthest(mesh, claimed, by.stream, governance, known)
    if unsure and len(claimed) - len(unsure) < roster.k:
        raise Unavailable(
            "unreachable",
            f"{', '.join(unsure)} claim more than they could be asked to show, and fewer than {roster.k} others say how far it has come",
        )
    last = _last(known, shown, by.paths[0])
    if newest is not None and known == last and same(newest.claims):
        whose = "this key" if by.alone else by.stream
        cli.say(f"number {newest.claims.sequence} of {whose} says so already; it is offered again, and nothing new is signed")
        return Plan(newest, before, again=True)
    held = sorted((_reach(frontier, by.stream) for frontier in claimed.values()), reverse=True)
    settled = held[roster.f] if len(held) > roster.f else 0  # f of them may lie
    lasting = [item for item in before if item.claims.sequence > settled]
    if len(lasting) >= BATCH_EVENTS_MAX:
        raise Unavailable("unreachable", f"{len(lasting)} statements are signed and not safely held by any member yet; offer them first")
    new = _sign(by.keys, draft(last.sequence + 1 if last else 1, last.id if last else ""))
    admit_law(new, roster)
    for path in by.paths:
        signed.keep(path, [*lasting, new])
    return Plan(new, (*lasting, new), again=False)


def _last(known: Head | None, head: Head | None, path: Path) -> Head | None:
    """The statement to stand behind (rule 1)."""
    if known is None or head is None or head.sequence > known.sequence:
        return head or known
    if head.sequence == known.sequence and head != known:
        raise Refused("stream_forked", f"number {head.sequence} is {known.id[:12]}… in {path} and {head.id[:12]}… in the mesh")
    return known


def _reach(frontier: Sequence[StreamHead], stream: str) -> int:
    return max((head.sequence for head in frontier if head.stream == stream and not head.forked), default=0)


def _sign(keys: Sequence[KeyFile], claims: Said) -> Statement[Said]:
    draft = envelope.draft(claims)
    signatures = {key.key.public: key.key.sign(draft.message) for key in keys}
    return read_law(envelope.assemble(draft.payload_type, draft.payload, signatures))


# --------------------------------------------------------------------------------------------------------------- to spread


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
        return [name for name in self._names if self.answers.get(name) == _HELD]

    @property
    def acknowledged_ms(self) -> int | None:
        """When k members' heartbeats covered it; None if they do not yet."""
        times = sorted(self.covered_ms.values())
        return times[self.roster.k - 1] if len(times) >= self.roster.k else None

    async def run(self, *, watch_s: float) -> None:
        """Offer to all members at once; then, unless ``watch_s`` is 0, until k cover it, nobody takes it, or so many seconds passed."""
        self._begun_s = time.monotonic()
        if not watch_s:
            await asyncio.gather(*(self._offer(name) for name in self._names))
            return
        try:
            async with asyncio.timeout(watch_s), asyncio.TaskGroup() as group:
                tasks = [group.create_task(work(name)) for name in self._names for work in (self._offer, self._poll)]
                if self.ears is not None:
                    tasks.append(group.create_task(self._listen(self.ears)))
                await self._end.wait()
                for task in tasks:
                    task.cancel()
        except TimeoutError:
            return

    async def _offer(self, member: str) -> None:
        try:
            answer = await self._mesh.ask(member, self._offer_message, Offered)
        except MeshError as error:
            self.answers[member] = error.code
        else:
            code = answer.results.get(self._statement.id, "malformed")
            self.answers[member] = _registered(code) if code else _HELD
        if len(self.answers) == len(self._names) and not self.held and not self.covered_ms:
            self._end.set()
        self._show(self)

    async def _poll(self, member: str) -> None:
        while True:
            try:
                beat = await self._mesh.heartbeat(member)
            except MeshError:
                beat = None
            if beat is not None and self._covers(beat):
                self.covered_ms[member] = self._passed_ms()
                self._show(self)
                self._settle()
                return
            await asyncio.sleep(_POLL_S)

    async def _listen(self, ears: Ears) -> None:
        while True:
            await ears.look(self._passed_ms)
            self._show(self)
            self._settle()
            await asyncio.sleep(_LISTEN_S)

    def _settle(self) -> None:
        """End once k members hold it, and no enforcer need be waited for."""
        at_ms = self.acknowledged_ms
        if at_ms is not None and (self.ears is None or self.ears.enough(self._passed_ms() - at_ms)):
            self._end.set()

    def _covers(self, beat: Heartbeat) -> bool:
        stream, _ = link_of(self._statement)
        return reaches(beat.frontier, stream, self._statement.claims.sequence, self._statement.id)

    def _passed_ms(self) -> int:
        return int((time.monotonic() - self._begun_s) * 1_000)


# ----------------------------------------------------------------------------------------------------------------- to tell


class _Live:
    """The table while it fills: drawn over itself where a person looks on, else a line for each change."""

    def __init__(self, cli: Cli, names: Sequence[str]) -> None:
        self._cli = cli
        self._names = names
        self._told = set[str]()
        self._drawn = False
        self._draws = cli.format == "table" and cli.color and not cli.quiet and sys.stderr.isatty()

    def show(self, spread: Spread) -> None:
        if not self._draws:
            for name in spread.covered_ms.keys() - self._told:
                self._told.add(name)
                self._cli.say(f"{name} holds it after {spread.covered_ms[name]} ms")
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
        if self._drawn:
            click.echo(f"\x1b[{len(self._names)}F\x1b[J", err=True, nl=False)
            self._drawn = False


async def spread(cli: Cli, mesh: client.MeshClient, made: Plan, *, watch: bool, wait_s: float, ears: Ears | None = None) -> Spread:
    """Offer it to every member, and watch who holds it if so wished, ``wait_s`` seconds at most."""
    live = _Live(cli, [member.name for member in mesh.roster.members]) if watch else None
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
    return f"{member} ({'says that it holds it, its heartbeats do not' if answer == _HELD else answer})"


def _nobody(answers: Mapping[str, str], made: Plan) -> MeshError:
    told = ", ".join(f"{name} {code}" for name, code in answers.items())
    detail = f"nobody took it: {told}. Number {made.statement.claims.sequence} is signed and kept: run the same command again"
    codes = [code for code in answers.values() if code != "unreachable"]
    return Unavailable("unreachable", detail) if not codes else Refused(codes[0], detail)


def _registered(code: str) -> str:
    return code if code in CODES else "unavailable"
