"""`mesh revoke`: one more signed no in the stream of a revoker key, handed to every member, and watched until k hold it.

Not here: numbers, keeping, offering and watching (:mod:`mesh.cli.saying`).
"""

import re
from pathlib import Path
from typing import Final, Literal, cast, get_args

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.cli import client, hearing, saying, signed, spreading
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes.canonical import Spiffe, Token
from mesh.core.law.revocation import Revocation, Target, needs_threshold, stream_of
from mesh.core.law.roster import Roster
from mesh.core.law.succession import Rosters
from mesh.errors import Refused
from mesh.limits import SPARED_MAX

__all__ = ["parse_target", "revoke"]

_Kind = Literal["key", "enrolled", "subject", "document", "intent", "authorization", "ancestor", "digest", "issuer", "governor"]
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"blake3:[0-9a-f]{64}")


@click.command()
@click.argument("target", metavar="TARGET")
@click.option("--except", "spared", multiple=True, metavar="ID", help="Of an issuer: an identity document that stays valid.")
@saying.options
@hearing.option
@format_option
@pass_cli
def revoke(
    cli: Cli,
    *,
    target: str,
    spared: tuple[str, ...],
    key_file: Path,
    reason: str,
    others: tuple[Path, ...],
    watch: bool,
    wait_s: float,
    enforcers: int,
) -> int:
    """Revoke TARGET, for ever: nothing that rests on it starts any more.

    TARGET is key:HEX, subject:SPIFFE-ID, document:ID, intent:ID, authorization:ID or digest:blake3:HEX; ancestor:ID is an authorization
    with all that runs within it. Or it is issuer:HEX, with it every
    identity document that it signed but those named with --except; or governor:NAME, with it all that it has authorized. These two,
    and a key that a roster names (enrolled:HEX), take the threshold of revokers (--co-sign). Ends with 0 once a member holds it; with
    --watch, once k members do.
    """
    wanted, spares = parse_target(target), _spared(target, spared)
    saying.check_reason(reason)
    hearing.check(enforcers, watch=watch)
    files = saying.keys_of((key_file, *others), "revoker")
    keys, paths = list(files.values()), [signed.path_of(key_file)]
    revoker = keys[0].key.public

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[saying.Pen, saying.Plan, spreading.Spread]:
        nonlocal wanted
        wanted = _named(wanted, mesh.rosters)
        by = saying.pen(stream_of(revoker), keys, paths, mesh.rosters, alone=True)
        _check_known(mesh.roster, wanted)
        _check_threshold(mesh.rosters.newest, len(keys), wanted)
        claimed = saying.frontiers_of(await saying.hear(cli, mesh))
        by = await saying.standing(mesh, library.governance, claimed, by)
        plan = await saying.plan(
            cli,
            mesh,
            library.governance,
            claimed,
            by,
            same=lambda said: isinstance(said, Revocation) and (said.target, said.spares) == (wanted, spares),
            draft=lambda number, previous: _draft(mesh.roster.mesh, revoker, (number, previous), wanted, spares, reason),
        )
        ears = hearing.Ears(mesh, library.governance, plan.statement, enforcers)
        return by, plan, await spreading.spread(cli, mesh, plan, watch=watch, wait_s=wait_s, ears=ears)

    with saying.signing(paths):
        by, plan, spread = client.run(cli, work)
    what = f"{wanted.type}:{wanted.value}"
    does = f"revokes {what}" + (f" except {len(spares)} documents" if spares else "")
    spreading.report(cli, plan, spread, by, watch=watch, does=does, facts={"revoker": revoker, "target": what, "spares": spares})
    stale_ms = spread.roster.bounds.stale_ms
    follows = f"from now every enforcer denies new starts within Δ = {stale_ms} ms"
    return spreading.ended(cli, plan, spread, watch=watch, wait_s=wait_s, follows=follows, then="mesh revocations ls")


def _draft(mesh: str, revoker: str, place: tuple[int, str], target: Target, spares: list[str], reason: str) -> Revocation:
    return Revocation(
        mesh=mesh,
        revoker=revoker,
        sequence=place[0],
        previous=place[1],
        since="",
        target=target,
        spares=spares,
        reason=reason,
        issued_ms=wall_ms(),
    )


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
    elif kind == "governor":
        _check_token(value)
    elif _HEX.fullmatch(value) is None:
        raise Refused("usage", f"{kind}:{value[:80]}: wanted are all 64 lowercase hex digits; what begins like another must not be revoked")
    return Target(type=cast("_Kind", kind), value=value)


def _check_token(value: str) -> None:
    try:
        msgspec.convert(value, Token)
    except msgspec.ValidationError:
        raise Refused("usage", f"governor:{value[:80]}: wanted is the name of a member") from None


def _spared(target: str, spared: tuple[str, ...]) -> list[str]:
    """The documents that stay valid, in the one order.

    Raises:
        Refused: ``usage``.
    """
    wrong = next((name for name in spared if _HEX.fullmatch(name) is None), None)
    if wrong is not None:
        raise Refused("usage", f"--except {wrong[:80]}: wanted are all 64 lowercase hex digits of a document's id")
    if spared and not target.startswith("issuer:"):
        raise Refused("usage", "--except names documents of an issuer; whatever else is revoked is revoked whole")
    if len(set(spared)) > SPARED_MAX:
        raise Refused("usage", f"--except names {len(set(spared))} documents, at most {SPARED_MAX}; have the others issued by another key")
    return sorted(set(spared))


def _check_known(roster: Roster, target: Target) -> None:
    """That a name means something here, since a revocation of many is not signed on a slip of the pen.

    Raises:
        Refused: ``unknown_member``; ``usage`` for a key that is no issuer's.
    """
    if target.type == "governor":
        roster.member(target.value)
    if target.type == "issuer" and target.value not in roster.issuers.keys:
        raise Refused(
            "usage", f"{target.value[:12]}… is no issuer of this roster; the documents of one that it does not name are worth nothing"
        )


def _named(target: Target, rosters: Rosters) -> Target:
    """A key that a roster names is revoked as such, or it would have no effect."""
    named = target.type == "key" and any(target.value in roster.keys for roster in rosters.every)
    return Target(type="enrolled", value=target.value) if named else target


def _check_threshold(roster: Roster, count: int, target: Target) -> None:
    needed = roster.revoker.threshold
    if needs_threshold(target) and count < needed:
        why = "a roster names that key" if target.type == "enrolled" else f"{target.type} stands for many"
        raise Refused("threshold_not_met", f"{why}, so {needed} revokers must sign, and {count} did; add --co-sign FILE for each")
