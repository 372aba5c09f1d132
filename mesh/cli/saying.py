"""What commands that sign in a governance stream share: which keys, which number comes next, what is kept.

Rules
-----
1. The number after the furthest one that members can show, or that these keys are known to have signed: never one number twice.
2. What is signed is durable beside each key that signs before it is offered (:mod:`mesh.cli.signed`). What was signed and did not
   arrive is offered again; if it says the same, nothing new is signed.
3. Who does not know how far a stream has come hears k members first: what k hold cannot be missed then.

Not here: what members hold (:mod:`mesh.cli.gathering`), how it reaches them (:mod:`mesh.cli.spreading`), what is said
(:mod:`mesh.cli.revoke`, :mod:`mesh.cli.halt`), statements that several people sign one after the other
(:mod:`mesh.cli.cosigning`).
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click
import msgspec

from mesh.adapters.signer import KeyFile, load
from mesh.cli import client, signed
from mesh.cli.gathering import Frontiers, Head, furthest, gather_about, heartbeats
from mesh.cli.output import Cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.reign import in_reign
from mesh.core.law.roster import Role, Roster
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said, admit_law, read_law
from mesh.errors import Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, REASON_CHARS_MAX

__all__ = [
    "Pen",
    "Plan",
    "check_heard",
    "check_named",
    "check_reason",
    "frontiers_of",
    "hear",
    "keys_of",
    "options",
    "pen",
    "plan",
    "settled",
    "shown",
    "sign",
    "signing",
    "signing_options",
    "stamped",
    "standing",
    "taken_over",
    "watching",
]

F = TypeVar("F", bound=Callable[..., Any])


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
    since: str = ""
    """Id of the roster that made these keys the stream's signers; empty for the first."""
    handed: Head | None = None
    """Behind which statement they go on, if they took the stream over behind one."""


class Plan(NamedTuple):
    """What to offer."""

    statement: Statement[Said]
    """The one that says it."""
    offered: tuple[Statement[Said], ...]
    """That one, after all that were signed before and may have been lost."""
    again: bool
    """Whether it was signed before."""


_KEY_FILE: Final = click.Path(dir_okay=False, path_type=Path)


def _all(*wanted: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(wanted):
            command = option(command)
        return command

    return decorate


def signing_options(who: str, *, required: bool = True) -> Callable[[F], F]:
    """With which keys, and why; ``who`` in words."""
    one = f"an {who}" if who[0] in "aeiou" else f"a {who}"
    return _all(
        click.option("--key", "key_file", required=required, type=_KEY_FILE, help=f"Key file of {one}."),
        click.option("--co-sign", "others", multiple=True, type=_KEY_FILE, help=f"Another {who}'s key file."),
        click.option("--reason", default="", help="Why, in your own words; everybody can read it."),
    )


def watching(until: str) -> Callable[[F], F]:
    """Whether to watch, and for how long."""
    return _all(
        click.option("--watch", is_flag=True, help=f"Wait until {until}, by their signed word."),
        click.option(
            "--wait", "wait_s", default=30.0, show_default=True, type=click.FloatRange(0.1, 86_400), help="With --watch: seconds at most."
        ),
    )


def options(command: F) -> F:
    """What every command takes by which revokers sign and offer at once."""
    return signing_options("revoker")(watching("k members hold it")(command))


def keys_of(paths: Sequence[Path], use: str) -> dict[Path, KeyFile]:
    """The keys for ``use`` in these files, each once.

    Raises:
        Refused: ``config_invalid`` for a key of another use, and as :func:`mesh.adapters.signer.load`.
    """
    keys = dict[Path, KeyFile]()
    for path in paths:
        key = load(path)
        if key.use != use:
            raise Refused("config_invalid", f"{path} is a key for {key.use}, not for {use}")
        if all(key.key.public != other.key.public for other in keys.values()):
            keys[path] = key
    return keys


def check_named(keys: Sequence[KeyFile], role: Role, who: str) -> None:
    """That the roster names all of these keys for that.

    Raises:
        Refused: ``bad_signature``.
    """
    for key in keys:
        if key.key.public not in role.keys:
            raise Refused("bad_signature", f"key {key.key.public[:12]}… is no {who} of this roster")


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


def pen(base: str, keys: Sequence[KeyFile], paths: Sequence[Path], rosters: Rosters, *, alone: bool, role: Role | None = None) -> Pen:
    """Keys that sign in the stream ``base``, with what is kept beside the first so many of them.

    Raises:
        Refused: ``bad_signature`` for a key that ``role``, the revokers' by default, does not name; ``stream_forked`` if they kept
            two statements under one number; what is wrong with a file.
    """
    check_named(keys, role or rosters.newest.revoker, keys[0].use if keys else "signer")
    since, handed = taken_over(rosters, base)
    stream, paths = in_reign(base, since), [signed.since_path(path, since) for path in paths]
    found = dict[int, Statement[Said]]()
    for path, key in zip(paths, keys, strict=False):
        for item in signed.kept(path, stream=stream, key=key.key.public, mesh=rosters.newest.mesh):
            other = found.setdefault(item.claims.sequence, item)
            if other.id != item.id:
                raise Refused(
                    "stream_forked", f"number {item.claims.sequence} is {item.id[:12]}… in {path} and {other.id[:12]}… in another"
                )
    return Pen(stream, keys, paths, alone, tuple(found[number] for number in sorted(found)), since, handed)


def taken_over(rosters: Rosters, base: str) -> tuple[str, Head | None]:
    """Which roster named the signers of that stream, and behind which statement of others they go on, if behind any."""
    since = rosters.since(base)
    upto = rosters.held[since].handovers[base] if since else None
    return since, Head(upto.sequence, upto.head) if upto is not None and upto.sequence else None


async def standing(mesh: client.MeshClient, governance: Governance, claimed: Frontiers, by: Pen) -> Pen:
    """The same without what it has signed and the root has resolved against: nothing may follow that."""
    if not by.before or all(
        not (head.forked or head.held) for frontier in claimed.values() for head in frontier if head.stream == by.stream
    ):
        return by
    shown = await gather_about(mesh, claimed, governance, by.stream)
    history = extend(shown.governance, by.before).governance.settled.get(by.stream)
    return by if history is None else by._replace(before=tuple(item for item in by.before if item.id in history))


async def hear(cli: Cli, mesh: client.MeshClient) -> dict[str, Heartbeat]:
    """What members sign now; who is not counted on is told.

    Raises:
        Unavailable: ``unreachable`` if there is nothing to believe at all.
    """
    beats, failed = await heartbeats(mesh)
    for name, error in failed.items():
        cli.say(f"{name} is not counted on: {error.code} {error.detail}".rstrip())
    return beats


def frontiers_of(beats: Mapping[str, Heartbeat]) -> Frontiers:
    """What these members signed that they hold."""
    return {name: beat.frontier for name, beat in beats.items()}


def check_heard(roster: Roster, claimed: Frontiers) -> None:
    """That enough members were heard to know how far a stream has come in which others sign too (rule 3).

    Raises:
        Unavailable: ``unreachable``.
    """
    if len(claimed) < roster.k:
        raise Unavailable(
            "unreachable",
            f"{len(claimed)} of {len(roster.members)} members answered; others sign in this stream too, so {roster.k} must say how far it"
            " has come. Without that many the mesh starts nothing anyway",
        )


async def shown(mesh: client.MeshClient, claimed: Frontiers, stream: str, governance: Governance, known: Head | None) -> Head | None:
    """How far the stream goes, as members can show; ``known`` needs not be shown.

    Raises:
        Refused: ``stream_forked`` if members show that it is.
        Unavailable: ``unreachable`` if so many claim more and cannot be asked that what k hold might be missed.
    """
    head, unsure = await furthest(mesh, claimed, stream, governance, known)
    if unsure and len(claimed) - len(unsure) < mesh.roster.k:
        raise Unavailable(
            "unreachable",
            f"{', '.join(unsure)} claim more than they could be asked to show, and fewer than {mesh.roster.k} others say how far it goes",
        )
    return head


def settled(claimed: Frontiers, stream: str, roster: Roster) -> int:
    """The last number of the stream that an honest member holds for certain: f of them may lie."""
    reached = [[head.sequence for head in frontier if head.stream == stream and not head.forked] for frontier in claimed.values()]
    held = sorted((max(numbers, default=0) for numbers in reached), reverse=True)
    return held[roster.f] if len(held) > roster.f else 0


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
    if not by.alone:
        check_heard(roster, claimed)
    elif len(claimed) < roster.k and newest is None:
        raise Unavailable(
            "unreachable",
            f"{len(claimed)} of {len(roster.members)} members answered; {by.paths[0]} does not exist, and without it {roster.k} must say"
            " how far this key has come. Without that many the mesh starts nothing anyway",
        )
    known = Head(newest.claims.sequence, newest.id) if newest else by.handed
    head = await shown(mesh, claimed, by.stream, governance, known)
    last = _last(known, head, by.paths[0])
    if newest is not None and known == last and same(newest.claims):
        whose = "this key" if by.alone else by.stream
        cli.say(f"number {newest.claims.sequence} of {whose} says so already; it is offered again, and nothing new is signed")
        return Plan(newest, before, again=True)
    safe = settled(claimed, by.stream, roster)
    lasting = [item for item in before if item.claims.sequence > safe]
    if len(lasting) >= BATCH_EVENTS_MAX:
        raise Unavailable("unreachable", f"{len(lasting)} statements are signed and not safely held by any member yet; offer them first")
    claims = draft(last.sequence + 1 if last else 1, last.id if last else "")
    new = sign(by.keys, stamped(claims, by.since))
    admit_law(new, mesh.rosters)
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


def stamped(claims: Said, since: str) -> Said:
    """The same, by signers whom that roster named; a roster itself goes by another rule."""
    return claims if isinstance(claims, Roster) else msgspec.structs.replace(claims, since=since)


def sign(keys: Sequence[KeyFile], claims: Said) -> Statement[Said]:
    """These claims, signed with these keys; nothing is kept yet."""
    draft = envelope.draft(claims)
    signatures = {key.key.public: key.key.sign(draft.message) for key in keys}
    return read_law(envelope.assemble(draft.payload_type, draft.payload, signatures))
