"""`mesh revoke`: one more signed no in the stream of a revoker key, handed to every member, and watched until k hold it.

Rules
-----
1. The number after the furthest one that members can show, or that this key is known to have signed: never one number twice.
2. What is signed is durable beside the key before it is offered (:mod:`mesh.cli.signed`). What was signed and did not arrive is
   offered again; if it says the same, nothing new is signed.
3. A key that has signed nothing here hears k members first: what k hold cannot be missed then.
4. A member's answer that it holds a revocation is its word. *Acknowledged* is k signed heartbeats that cover it.

Not here: what members hold (:mod:`mesh.cli.gathering`).
"""

import asyncio
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast, get_args

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.adapters.signer import KeyFile, load
from mesh.cli import client, signed, telling
from mesh.cli.gathering import Head, frontiers, furthest
from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.codes import CODES
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Spiffe
from mesh.core.bytes.envelope import Statement
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.revocation import Revocation, Target, admit_revocation, stream_of
from mesh.core.law.roster import Roster
from mesh.core.messages import Offer, Offered
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, STRING_CHARS_MAX

__all__ = ["Spread", "parse_target", "revoke"]

_POLL_S: Final = 0.05
_HELD: Final = "held"
_Kind = Literal["key", "subject", "document", "intent", "authorization", "digest"]
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"blake3:[0-9a-f]{64}")


class _Plan(NamedTuple):
    """What to offer."""

    statement: Statement[Revocation]
    """The one that names the target."""
    offered: tuple[Statement[Revocation], ...]
    """That one, after all that were signed before and may have been lost."""
    again: bool
    """Whether it was signed before."""


@click.command()
@click.argument("target", metavar="TARGET")
@click.option("--key", "key_file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Key file of a revoker.")
@click.option("--reason", default="", help="Why, in your own words; everybody can read it.")
@click.option("--co-sign", "others", multiple=True, type=click.Path(dir_okay=False, path_type=Path), help="Another revoker's key file.")
@click.option("--watch", is_flag=True, help="Wait until k members hold it, by their signed word.")
@click.option(
    "--wait", "wait_s", default=30.0, show_default=True, type=click.FloatRange(0.1, 86_400), help="With --watch: seconds at most."
)
@format_option
@pass_cli
def revoke(cli: Cli, *, target: str, key_file: Path, reason: str, others: tuple[Path, ...], watch: bool, wait_s: float) -> int:
    """Revoke TARGET, for ever: nothing that rests on it starts any more.

    TARGET is key:HEX, subject:SPIFFE-ID, document:ID, intent:ID, authorization:ID or digest:blake3:HEX. A key that the roster
    names takes the threshold of revokers (--co-sign). Ends with 0 once a member holds it; with --watch, once k members do.
    """
    wanted = parse_target(target)
    if len(reason) > STRING_CHARS_MAX:
        raise Refused("usage", f"--reason has {len(reason)} characters, at most {STRING_CHARS_MAX}")
    keys = [_revoker_key(path) for path in (key_file, *others)]
    path = signed.path_of(key_file)

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[_Plan, Spread]:
        plan = await _plan(cli, mesh, library, keys, wanted, reason, path)
        live = _Live(cli, [member.name for member in mesh.roster.members]) if watch else None
        spread = Spread(mesh, plan.statement, plan.offered, live.show if live else lambda _: None)
        await spread.run(watch_s=wait_s if watch else 0)
        if live:
            live.clear()
        return plan, spread

    with signed.locked(path):
        plan, spread = client.run(cli, work)
    _report(cli, plan, spread, watch=watch, path=path)
    return _ended(cli, plan, spread, watch=watch, wait_s=wait_s)


def parse_target(text: str) -> Target:
    """What is to be revoked.

    Raises:
        Refused: ``usage``.
    """
    kind, _, value = text.partition(":")
    if text.startswith("spiffe://"):
        kind, value = "subject", text
    if kind not in get_args(_Kind):
        raise Refused("usage", f"{text[:80]!r}: a target begins with {', '.join(f'{name}:' for name in get_args(_Kind))} or spiffe://")
    if kind == "subject":
        try:
            msgspec.convert(value, Spiffe)
        except msgspec.ValidationError:
            raise Refused("usage", f"{value[:80]!r} is no SPIFFE id such as spiffe://mesh/agent/name") from None
    elif kind == "digest":
        if _DIGEST.fullmatch(value) is None:
            raise Refused("usage", f"digest:{value[:80]}: wanted is digest:blake3: and 64 lowercase hex digits, as it was measured")
    elif _HEX.fullmatch(value) is None:
        raise Refused("usage", f"{kind}:{value[:80]}: wanted are all 64 lowercase hex digits; what begins like another must not be revoked")
    return Target(type=cast("_Kind", kind), value=value)


def _revoker_key(path: Path) -> KeyFile:
    key = load(path)
    if key.use != "revoker":
        raise Refused("config_invalid", f"{path} is a key for {key.use}, not for revoker")
    return key


# ------------------------------------------------------------------------------------------------------------------ to sign


async def _plan(
    cli: Cli, mesh: client.MeshClient, library: client.Library, keys: Sequence[KeyFile], target: Target, reason: str, path: Path
) -> _Plan:
    """Sign what is to be offered, unless it is signed already; it is durable when this returns (rules 1 to 3).

    Raises:
        Refused: ``threshold_not_met``, ``stream_forked``, ``bad_signature`` for keys of no revoker, and what is wrong with the file.
        Unavailable: ``unreachable``, ``storage_failed``.
    """
    roster, revoker = mesh.roster, keys[0].key.public
    _check_signers(roster, keys, target)
    before = signed.kept(path, revoker=revoker, mesh=roster.mesh)
    newest = before[-1] if before else None
    claimed, failed = await frontiers(mesh)
    for name, error in failed.items():
        cli.say(f"{name} is not counted on: {error.code} {error.detail}".rstrip())
    if newest is None and len(claimed) < roster.k:
        raise Unavailable(
            "unreachable",
            f"{len(claimed)} of {len(roster.members)} members answered; {path} does not exist, and without it {roster.k} must say how far"
            " this key has come. Without that many the mesh starts nothing anyway",
        )
    known = Head(newest.claims.sequence, newest.id) if newest else None
    head = await furthest(mesh, claimed, stream_of(revoker), library.governance, known)
    last = _last(known, head, path)
    if newest is not None and known == last and newest.claims.target == target:
        cli.say(f"number {newest.claims.sequence} of this key says so already; it is offered again, and nothing new is signed")
        return _Plan(newest, tuple(before), again=True)
    held = sorted((_reach(frontier, stream_of(revoker)) for frontier in claimed.values()), reverse=True)
    settled = held[roster.f] if len(held) > roster.f else 0  # f of them may lie
    lasting = [item for item in before if item.claims.sequence > settled]
    if len(lasting) >= BATCH_EVENTS_MAX:
        raise Unavailable("unreachable", f"{len(lasting)} revocations are signed and not safely held by any member yet; offer them first")
    new = _sign(roster, keys, target, reason, last)
    admit_revocation(new, roster)
    signed.keep(path, [*lasting, new])
    return _Plan(new, (*lasting, new), again=False)


def _check_signers(roster: Roster, keys: Sequence[KeyFile], target: Target) -> None:
    for key in keys:
        if key.key.public not in roster.revoker.keys:
            raise Refused("bad_signature", f"key {key.key.public[:12]}… is no revoker of this roster")
    count, needed = len({key.key.public for key in keys}), roster.revoker.threshold
    if target.type == "key" and target.value in roster.keys and count < needed:
        raise Refused(
            "threshold_not_met", f"the roster names that key, so {needed} revokers must sign, and {count} did; add --co-sign FILE for each"
        )


def _last(known: Head | None, head: Head | None, path: Path) -> Head | None:
    """The statement to stand behind (rule 1)."""
    if known is None or head is None or head.sequence > known.sequence:
        return head or known
    if head.sequence == known.sequence and head != known:
        raise Refused("stream_forked", f"number {head.sequence} is {known.id[:12]}… in {path} and {head.id[:12]}… in the mesh")
    return known


def _reach(frontier: Sequence[StreamHead], stream: str) -> int:
    return max((head.sequence for head in frontier if head.stream == stream and not head.forked), default=0)


def _sign(roster: Roster, keys: Sequence[KeyFile], target: Target, reason: str, last: Head | None) -> Statement[Revocation]:
    draft = envelope.draft(
        Revocation(
            mesh=roster.mesh,
            revoker=keys[0].key.public,
            sequence=last.sequence + 1 if last else 1,
            previous=last.id if last else "",
            target=target,
            reason=reason,
            issued_ms=wall_ms(),
        )
    )
    signatures = {key.key.public: key.key.sign(draft.message) for key in keys}
    return envelope.read(Revocation, envelope.assemble(draft.payload_type, draft.payload, signatures))


# --------------------------------------------------------------------------------------------------------------- to spread


class Spread:
    """A revocation on its way to the members."""

    def __init__(
        self,
        mesh: client.MeshClient,
        statement: Statement[Revocation],
        offered: Sequence[Statement[Revocation]],
        show: Callable[["Spread"], None],
    ) -> None:
        """Offer ``offered``, and look for ``statement``; ``show`` is called whenever more is known."""
        self._mesh = mesh
        self._statement = statement
        self._offer_message = Offer(statements=[msgspec.Raw(item.envelope) for item in offered])
        self._show = show
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
                if self.acknowledged_ms is not None:
                    self._end.set()
                return
            await asyncio.sleep(_POLL_S)

    def _covers(self, beat: Heartbeat) -> bool:
        place = Head(self._statement.claims.sequence, self._statement.id)
        for head in beat.frontier:
            if head.stream == stream_of(self._statement.claims.revoker) and not head.forked:
                return head.sequence > place.sequence or Head(head.sequence, head.head) == place
        return False

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


def _report(cli: Cli, plan: _Plan, spread: Spread, *, watch: bool, path: Path) -> None:
    claims, roster = plan.statement.claims, spread.roster
    rows = [
        {"node": member.name, "answer": spread.answers.get(member.name, ""), "covers_ms": spread.covered_ms.get(member.name)}
        for member in roster.members
    ]
    target = f"{claims.target.type}:{claims.target.value}"
    if cli.format == "table":
        cli.say(f"number {claims.sequence} of {claims.revoker[:12]}… ({plan.statement.id[:12]}…) revokes {target}")
        cli.rows(("node", "answer", *(["covers_ms"] if watch else [])), rows)
        return
    cli.value(
        {
            "id": plan.statement.id,
            "revoker": claims.revoker,
            "sequence": claims.sequence,
            "previous": claims.previous,
            "target": target,
            "reason": claims.reason,
            "issued": telling.when(claims.issued_ms),
            "signed_by": sorted(plan.statement.signatures),
            "signed_before": plan.again,
            "kept_in": str(path),
            "members": rows,
            "held": len(spread.held),
            "covered": len(spread.covered_ms),
            "needed": roster.k,
            "acknowledged": spread.acknowledged_ms is not None,
            "acknowledged_ms": spread.acknowledged_ms,
            "stale_ms": roster.bounds.stale_ms,
        }
    )


def _ended(cli: Cli, plan: _Plan, spread: Spread, *, watch: bool, wait_s: float) -> int:
    roster = spread.roster
    k, n, at_ms = roster.k, len(roster.members), spread.acknowledged_ms
    if not spread.held and not spread.covered_ms:
        return fail(cli, _nobody(spread.answers, plan))
    if not watch:
        cli.say(f"{len(spread.held)} of {n} say that they hold it; it is acknowledged once {k} do by their signed heartbeats")
        cli.next("mesh revocations ls")
        return 0
    if at_ms is None:
        lacking = ", ".join(_lacking(spread, member.name) for member in roster.members if member.name not in spread.covered_ms)
        return fail(cli, Unavailable("not_acknowledged", f"{len(spread.covered_ms)} of {k} after {wait_s:g} s; lacking: {lacking}"))
    stale_ms = roster.bounds.stale_ms
    cli.say(f"acknowledged by {k} of {n} after {at_ms} ms; from now every enforcer denies new starts within Δ = {stale_ms} ms")
    cli.next("mesh revocations ls")
    return 0


def _lacking(spread: Spread, member: str) -> str:
    answer = spread.answers.get(member, "no answer")
    return f"{member} ({'says that it holds it, its heartbeats do not' if answer == _HELD else answer})"


def _nobody(answers: Mapping[str, str], plan: _Plan) -> MeshError:
    told = ", ".join(f"{name} {code}" for name, code in answers.items())
    detail = f"nobody took it: {told}. Number {plan.statement.claims.sequence} is signed and kept: run the same command again"
    codes = [code for code in answers.values() if code != "unreachable"]
    return Unavailable("unreachable", detail) if not codes else Refused(codes[0], detail)


def _registered(code: str) -> str:
    return code if code in CODES else "unavailable"
