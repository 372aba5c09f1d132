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
from mesh.core.bytes.canonical import Spiffe
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.roster import Roster
from mesh.errors import Refused

__all__ = ["parse_target", "revoke"]

_Kind = Literal["key", "subject", "document", "intent", "authorization", "digest"]
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"blake3:[0-9a-f]{64}")


@click.command()
@click.argument("target", metavar="TARGET")
@saying.options
@hearing.option
@format_option
@pass_cli
def revoke(
    cli: Cli, *, target: str, key_file: Path, reason: str, others: tuple[Path, ...], watch: bool, wait_s: float, enforcers: int
) -> int:
    """Revoke TARGET, for ever: nothing that rests on it starts any more.

    TARGET is key:HEX, subject:SPIFFE-ID, document:ID, intent:ID, authorization:ID or digest:blake3:HEX. A key that the roster
    names takes the threshold of revokers (--co-sign). Ends with 0 once a member holds it; with --watch, once k members do.
    """
    wanted = parse_target(target)
    saying.check_reason(reason)
    hearing.check(enforcers, watch=watch)
    files = saying.keys_of((key_file, *others), "revoker")
    keys, paths = list(files.values()), [signed.path_of(key_file)]
    revoker = keys[0].key.public

    def draft(mesh: str, number: int, previous: str) -> Revocation:
        return Revocation(mesh=mesh, revoker=revoker, sequence=number, previous=previous, target=wanted, reason=reason, issued_ms=wall_ms())

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[saying.Pen, saying.Plan, spreading.Spread]:
        by = saying.pen(stream_of(revoker), keys, paths, mesh.roster, alone=True)
        _check_threshold(mesh.roster, len(keys), wanted)
        claimed = saying.frontiers_of(await saying.hear(cli, mesh))
        by = await saying.standing(mesh, library.governance, claimed, by)
        plan = await saying.plan(
            cli,
            mesh,
            library.governance,
            claimed,
            by,
            same=lambda said: isinstance(said, Revocation) and said.target == wanted,
            draft=lambda number, previous: draft(mesh.roster.mesh, number, previous),
        )
        ears = hearing.Ears(mesh, library.governance, plan.statement, enforcers)
        return by, plan, await spreading.spread(cli, mesh, plan, watch=watch, wait_s=wait_s, ears=ears)

    with saying.signing(paths):
        by, plan, spread = client.run(cli, work)
    what = f"{wanted.type}:{wanted.value}"
    spreading.report(cli, plan, spread, by, watch=watch, does=f"revokes {what}", facts={"revoker": revoker, "target": what})
    stale_ms = spread.roster.bounds.stale_ms
    follows = f"from now every enforcer denies new starts within Δ = {stale_ms} ms"
    return spreading.ended(cli, plan, spread, watch=watch, wait_s=wait_s, follows=follows, then="mesh revocations ls")


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


def _check_threshold(roster: Roster, count: int, target: Target) -> None:
    needed = roster.revoker.threshold
    if target.type == "key" and target.value in roster.keys and count < needed:
        raise Refused(
            "threshold_not_met", f"the roster names that key, so {needed} revokers must sign, and {count} did; add --co-sign FILE for each"
        )
