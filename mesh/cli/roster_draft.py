"""A roster that nobody has signed yet: from which one it follows, whether it may, and how it is written and shown.

Rules
-----
1. What members would refuse is refused here, before anybody signs: an unsound roster, an unsafe step; and what would do no good: a
   revoked key or governor, too little time.
   A refused step is shown with its arithmetic, and with the steps that lead there.
2. A draft is an envelope without signatures. Its id is what everybody signs; signing changes nothing in it.

Not here: what is to change (:mod:`mesh.cli.roster_plan`), signing (:mod:`mesh.cli.roster_sign`).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from mesh.adapters.clock import wall_ms
from mesh.adapters.signer import load
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, cosigning, telling
from mesh.cli import roster_held as held
from mesh.cli import roster_words as words
from mesh.cli.output import Cli
from mesh.cli.times import parse_when
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.planning import Change, Numbers, most_liars, safe_quorums, sound_quorums, way
from mesh.core.law.roster import Roster
from mesh.core.law.succession import check_step, overlap
from mesh.errors import Refused, Unavailable
from mesh.limits import CLOCK_MS_MAX, KEY_FILE_BYTES_MAX

__all__ = [
    "USES",
    "Base",
    "Wanted",
    "begins_ms",
    "check_ahead",
    "check_unrevoked",
    "complete",
    "current",
    "finish",
    "lead_ms",
    "numbers",
    "planning_options",
    "public_key",
    "unsigned",
    "write_first",
]

USES: Final = ("log", "witness", "attest", "decision")
"""A member has a key for each."""
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_BEGINS: Final = "+1h"
"""By default: signers sit elsewhere."""
_SPREAD_HEARTBEATS: Final = 10
"""How long a statement may take to all members: some heartbeats, and a question or two."""


Revoked = frozenset[tuple[str, str]]
"""(target type, value)."""


class Base(NamedTuple):
    """What the next roster follows."""

    claims: Roster
    id: str
    revoked: Revoked
    """What nobody may be given any more."""
    logs: Mapping[str, int]
    """Member's name to the newest log epoch that any roster gave it."""
    seen: held.Held | None
    """What members show; None if nobody was heard."""


class Wanted(NamedTuple):
    """What was asked for, whatever is to change."""

    source: Path | None
    f: int | None
    k: int | None
    begins: str
    reason: str
    out: Path | None


def planning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command takes that plans the next roster; it is handed on as ``wanted``."""

    @wraps(command)
    def collected(
        *, source: Path | None, f: int | None, k: int | None, begins: str, reason: str, out: Path | None, **rest: object
    ) -> object:
        return command(wanted=Wanted(source, f, k, begins, reason, out), **rest)

    decorated: Callable[..., Any] = collected
    options = (
        click.option("--from", "source", type=_FILE, help="The roster before; by default the newest that is known. Also a draft."),
        click.option("--f", "f", type=click.IntRange(0), help="Liars to bear; by default as before."),
        click.option("--k", "k", type=click.IntRange(1), help="The quorum; by default the smallest that this step may have."),
        click.option("--begins", default=_BEGINS, show_default=True, metavar="WHEN", help="From when on: +2h, 2027-01-31T09:00:00Z."),
        click.option("--reason", default="", help="Why, in your own words; everybody can read it."),
        click.option("--out", type=_FILE, help="Write it there; by default roster-EPOCH.json."),
    )
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


# ------------------------------------------------------------------------------------------------------------------ before


def current(cli: Cli, source: Path | None) -> Base:
    """The roster that the next one follows: of that file, or the newest that the context's files and members show; and what is revoked.

    Raises:
        Refused: what is wrong with the files; ``roster_conflict`` if the root has said two things.
    """
    drawn = words.read(source) if source is not None else None
    if drawn is not None:
        cli.say(f"{source} is taken on its own word: epoch {drawn.claims.epoch}, {drawn.id}")
    try:
        governance = client.files(cli).governance
    except Refused:
        if drawn is None:
            raise
        cli.say("there is no context: nobody is asked which keys are revoked")
        return _base(drawn.claims, drawn.id, frozenset(), [], None)
    if drawn is not None and governance.roster.mesh != drawn.claims.mesh:
        cli.say(f"the context is of another mesh, {governance.roster.mesh}: nobody is asked which keys are revoked")
        return _base(drawn.claims, drawn.id, frozenset(), [], None)
    revoked, seen = frozenset(governance.revoked), None
    try:
        seen = client.run(cli, lambda mesh, library: held.read(cli, mesh, library, whole=True))
        governance = seen.governance
    except Unavailable as error:
        cli.say(f"rosters and revocations are those of the files, members were not heard: {error.code}")
    revoked |= governance.revoked
    if drawn is not None:
        return _base(drawn.claims, drawn.id, revoked, governance.rosters.held.values(), seen)
    held.check_one_history(governance)
    return _base(governance.rosters.newest, governance.rosters.ids[-1], revoked, governance.rosters.held.values(), seen)


def _base(claims: Roster, identity: str, revoked: Revoked, known: Iterable[Roster], seen: held.Held | None) -> Base:
    logs = dict[str, int]()
    for member in (member for roster in (*known, claims) for member in roster.members):
        logs[member.name] = max(member.log_epoch, logs.get(member.name, 0))
    return Base(claims, identity, revoked, logs, seen)


def public_key(reference: str, use: str, base: Path) -> str:
    """The public key that is written so: in hex, or as a file with it, or as a key file.

    Args:
        reference: hex, or a path.
        use: of the key, which a key file must name.
        base: what paths are relative to.

    Raises:
        Refused: ``config_invalid``, ``bad_key``, ``key_exposed``.
    """
    if _HEX.fullmatch(reference):
        return reference
    path = base / reference
    text = read_bounded(path, KEY_FILE_BYTES_MAX).decode("ascii", "replace").strip()
    if _HEX.fullmatch(text):
        return text
    found = load(path)
    if found.use != use:
        raise Refused("config_invalid", f"{path} is a key for {found.use}, not for {use}")
    return found.key.public


# ----------------------------------------------------------------------------------------------------------------- numbers


def numbers(now: Roster, n: int, wanted: Wanted, change: Change, what: str) -> tuple[int, int]:
    """(f, k) of the next roster with ``n`` members: as asked for, else f as before and the smallest k that this step may have.

    Args:
        now: the roster before.
        n: members afterwards.
        wanted: what was asked for.
        change: what happens to members.
        what: the command that does it, in the way that is shown.

    Raises:
        Refused: ``roster_unsound``, ``roster_unsafe``; with the way out.
    """
    before = Numbers(len(now.members), now.f, now.k)
    f = before.f if wanted.f is None else wanted.f
    sound = sound_quorums(n, f)
    if not sound:
        raise Refused(
            "roster_unsound",
            f"{n} members bear f={most_liars(n)} at most, f={f} takes {3 * f + 1}: add a member first, or plan it with --f {most_liars(n)}",
        )
    goes, comes = {"add": (0, 1), "remove": (1, 0), "rotate": (1, 1), "numbers": (0, 0)}[change]
    safe = safe_quorums(before, n, f, goes=goes, comes=comes)
    if wanted.k is not None:
        if wanted.k not in sound:
            raise Refused("roster_unsound", f"n={n} f={f} k={wanted.k}: k must be one of {sound.start} to {sound.stop - 1}")
        if wanted.k in safe:
            return f, wanted.k
    elif safe:
        return f, safe[0]
    k = wanted.k or sound[0]
    raise Refused("roster_unsafe", f"{_arithmetic(before, Numbers(n, f, k), change)}. {_way_out(before, change, f, k, what)}")


def _arithmetic(before: Numbers, after: Numbers, change: Change) -> str:
    union = max(before.n, after.n) + (change == "rotate")
    shared = before.k + after.k - union
    return (
        f"n={after.n} f={after.f} k={after.k}: k + k' - |old or new| = {before.k} + {after.k} - {union} = {shared},"
        f" not more than max(f, f') = max({before.f}, {after.f}) = {max(before.f, after.f)}"
    )


def _way_out(before: Numbers, change: Change, f: int, k: int, what: str) -> str:
    moves = way(before, change, f, k)
    if not moves:
        return "no way was found with two spare members"
    words_of = {
        "add a spare": "mesh roster add SPARE",
        "remove the spare": "mesh roster remove SPARE",
        "change": what,
        "numbers": "mesh roster set",
    }
    told = list[str]()
    at = before
    for number, move in enumerate(moves, 1):
        after = move.after
        options = (f" --f {after.f}" if after.f != at.f or move.does == "numbers" else "") + f" --k {after.k}"
        told.append(f"{number}. {words_of[move.does]}{options} ({at.k} + {after.k} - {move.overlap.union} = {move.overlap.shared})")
        at = after
    return "The way there, an epoch each: " + "; ".join(told)


def lead_ms(now: Roster, after: Roster) -> int:
    """How far ahead a roster must begin when it is handed over: 2Δ, and the time that it takes to spread."""
    bounds = [now.bounds, after.bounds]
    return 2 * max(one.stale_ms for one in bounds) + _SPREAD_HEARTBEATS * max(one.heartbeat_ms for one in bounds)


def begins_ms(now: Roster, wanted: Wanted) -> int:
    """When the next one is to begin; as late as the former one demands, if that itself begins later.

    Raises:
        Refused: ``usage``.
    """
    at_ms = parse_when(wanted.begins, where="--begins").moment_ms(wall_ms())
    if wanted.begins == _BEGINS:
        at_ms = max(at_ms, now.not_before_ms + parse_when(_BEGINS, where="--begins").moment_ms(0))
    if at_ms > CLOCK_MS_MAX:
        raise Refused("usage", "--begins: that is after the year 9999")
    return at_ms


def check_ahead(now: Roster, after: Roster) -> None:
    """That it begins late enough to be heard of by then.

    Raises:
        Refused: ``too_soon``.
    """
    ahead_ms, wanted_ms = after.not_before_ms - wall_ms(), lead_ms(now, after)
    if ahead_ms < wanted_ms:
        raise Refused(
            "too_soon",
            f"epoch {after.epoch} begins {ahead_ms} ms from now; 2Δ and the time to spread are {wanted_ms} ms, and people must sign before",
        )


# ------------------------------------------------------------------------------------------------------------------- after


def unsigned(claims: Roster) -> Statement[Roster]:
    """The draft, read again as everybody will read it (rule 2).

    Raises:
        Refused: ``malformed`` for a name that is none, ``roster_unsound``, ``bad_key``, ``too_large``.
    """
    draft = envelope.draft(claims)
    return envelope.read(Roster, envelope.assemble(draft.payload_type, draft.payload, {}))


def finish(cli: Cli, base: Base, claims: Roster, out: Path | None) -> None:
    """Judge the next roster (rule 1), write it, and tell what it changes and who must sign.

    Raises:
        Refused: ``revoked``, ``too_soon``, ``roster_unsafe``, and as :func:`unsigned`.
    """
    now = base.claims
    made = unsigned(claims)
    check_unrevoked(claims, now, base.revoked)
    check_step(now, claims)
    check_ahead(now, claims)
    _write(cli, made, now, out)
    for key in sorted(now.keys & claims.keys & _revoked_keys(base.revoked)):
        cli.say(f"key {key[:12]}… is revoked and stays in the roster: what it signs counts nowhere")


def check_unrevoked(claims: Roster, now: Roster | None, revoked: Revoked) -> None:
    """That nobody is given anew what is revoked: a key, or the name of a governor.

    A key counts as revoked also by a single revoker: whether it was named by a roster already when that was said, nobody can tell later.

    Raises:
        Refused: ``revoked``.
    """
    keys, names = _revoked_keys(revoked), {value for kind, value in revoked if kind == "governor"}
    for key in sorted((claims.keys - (now.keys if now else frozenset())) & keys):
        raise Refused("revoked", f"key {key} was revoked, for ever; make a new one")
    for member in claims.members:
        if member.name in names and (now is None or member not in now.members):
            raise Refused("revoked", f"governor {member.name} was revoked, for ever; who replaces it takes another name")


def _revoked_keys(revoked: Revoked) -> frozenset[str]:
    return frozenset(value for kind, value in revoked if kind in {"key", "enrolled", "issuer"})


def _write(cli: Cli, made: Statement[Roster], now: Roster | None, out: Path | None) -> None:
    claims = made.claims
    target = out or Path(f"roster-{claims.epoch}.json")
    _check_free(target, made)
    cosigning.write_file(target, made.envelope)
    signers = words.missing(made, now)
    value = {**words.facts(made), "begins": telling.when(claims.not_before_ms) if claims.not_before_ms else "at once"}
    del value["signed"]
    if now is not None:
        value |= {"changes": list(words.changes(now, claims)), "arithmetic": str(overlap(now, claims))}
    if cli.format == "table":
        cli.value({**value, "must sign": [f"{one['who']} ({one['needed']} of {len(one['open'])})" for one in signers], "file": str(target)})
    else:
        more = {"overlap": words.arithmetic(now, claims)} if now is not None else {}
        cli.value({**value, **more, "signatures": signers, "file": str(target)})
    cli.next(f"mesh roster sign {target} --key KEYFILE, by each of them")


def _check_free(target: Path, made: Statement[Roster]) -> None:
    """That no other roster, which somebody may have signed, is written over."""
    if not target.exists():
        return
    try:
        other = words.read(target)
    except Refused:
        raise Refused("usage", f"{target} is there and is no roster; --out FILE names another") from None
    if other.id != made.id and other.signatures:
        raise Refused("usage", f"{target} is another roster, signed by {len(other.signatures)}; --out FILE names another")


def write_first(cli: Cli, made: Statement[Roster], out: Path | None) -> None:
    """Write the first roster of a mesh, and tell who must sign."""
    _write(cli, made, None, out)


def complete(counts: Sequence[dict[str, Any]]) -> bool:
    """Whether everybody has signed whom it takes; of :func:`mesh.cli.roster_words.missing`."""
    return all(one["complete"] for one in counts)
