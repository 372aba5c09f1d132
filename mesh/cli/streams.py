"""`mesh streams ls` and `mesh resolve`: which streams have forked, between what to choose, and the root's word on it.

Rules
-----
1. A resolve names every other history that members show, so that whoever acts by it holds them; what it chooses between is offered
   before it is, because what one member showed may be held by that member only.
2. The history that counts is named by the operator, and never guessed.

Not here: numbers, keeping, offering and watching (:mod:`mesh.cli.saying`), what members hold (:mod:`mesh.cli.gathering`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.cli import client, saying, signed, spreading, telling
from mesh.cli.gathering import Frontiers, Gathered, gather, gather_about
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import ENDED
from mesh.core.law.resolve import RESOLVES, Resolve
from mesh.core.law.streams import Fork, Stream, settle
from mesh.core.law.travel import Said
from mesh.core.messages import Offer, Offered
from mesh.errors import MeshError, Refused
from mesh.limits import ASIDE_MAX, BATCH_EVENTS_MAX

__all__ = ["resolve", "streams"]


@click.group()
def streams() -> None:
    """What is said in the mesh's streams."""


@streams.command("ls")
@format_option
@pass_cli
def ls(cli: Cli) -> None:
    """Every stream that any member holds: how far it goes, whether it has forked, and into what."""

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[Gathered, Frontiers]:
        claimed = saying.frontiers_of(await saying.hear(cli, mesh))
        gathered = await gather(mesh, claimed, library.governance, streams=lambda _: True)
        for member, stream in gathered.withheld:
            cli.say(f"{member} claims more of {stream[:40]} than it shows")
        return gathered, claimed

    gathered, claimed = client.run(cli, work)
    said = {item.id: item for item in gathered.statements}
    rows = [_row(gathered.governance, said, claimed, name) for name in sorted(gathered.governance.streams)]
    cli.rows(("stream", "length", "head", "state", "held"), rows)
    for row in rows:
        for tip in row["tips"]:
            cli.say(f"{row['stream']} ends in {tip['id']} (number {tip['number']}, {tip['at']}{tip['stands']}): {tip['reason']}")
        if row["tips"]:
            cli.say(f"{row['stream']}: its histories differ from number {row['differ_from']} on")
    if any(row["state"] == "forked" for row in rows):
        cli.next("mesh resolve STREAM --head ID --key FILE --co-sign FILE")


@click.command()
@click.argument("stream", metavar="STREAM")
@click.option("--head", required=True, help="Id of the statement up to which the history counts, or how it begins.")
@saying.signing_options("root key")
@saying.watching("k members hold it")
@format_option
@pass_cli
def resolve(cli: Cli, *, stream: str, head: str, key_file: Path, others: tuple[Path, ...], reason: str, watch: bool, wait_s: float) -> int:
    """End the fork of STREAM: the history that leads to --head counts from now on, and goes on behind it.

    What the other histories denied stays denied; nothing in them allows anything. Takes the root threshold (--co-sign).
    `mesh streams ls` shows what there is to choose between. Ends with 0 once a member holds it; with --watch, once k members do.
    """
    saying.check_reason(reason)
    files = saying.keys_of((key_file, *others), "root")
    keys, paths = list(files.values()), [signed.path_of(path, RESOLVES) for path in files]

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[saying.Pen, saying.Plan, spreading.Spread]:
        root = mesh.rosters.newest.root
        if len(keys) < root.threshold:
            raise Refused("threshold_not_met", f"{root.threshold} root keys must sign, and {len(keys)} did; add --co-sign FILE for each")
        by = saying.pen(RESOLVES, keys, paths, mesh.rosters, alone=False, role=root)
        claimed = saying.frontiers_of(await saying.hear(cli, mesh))
        gathered = await gather_about(mesh, claimed, library.governance, stream)
        chosen, aside = _choice(cli, gathered.governance.streams.get(stream), stream, head)
        plan = await saying.plan(
            cli,
            mesh,
            library.governance,
            claimed,
            by,
            same=lambda said: isinstance(said, Resolve) and (said.stream, said.head, said.aside) == (stream, chosen, aside),
            draft=lambda number, previous: Resolve(
                mesh=mesh.roster.mesh,
                sequence=number,
                previous=previous,
                since="",
                stream=stream,
                head=chosen,
                aside=aside,
                reason=reason,
                issued_ms=wall_ms(),
            ),
        )
        await _hand_out(mesh, claimed, gathered, stream)
        return by, plan, await spreading.spread(cli, mesh, plan, watch=watch, wait_s=wait_s)

    with saying.signing(paths):
        by, plan, spread = client.run(cli, work)
    said = plan.statement.claims
    chosen, aside = (said.head, said.aside) if isinstance(said, Resolve) else (head, [])
    does = f"resolves {stream}: the history with {chosen[:12]}… counts, {len(aside)} others stand aside"
    spreading.report(cli, plan, spread, by, watch=watch, does=does, facts={"stream": stream, "head": chosen, "aside": aside})
    follows = "whoever holds it and all that it chooses between goes by that history"
    return spreading.ended(cli, plan, spread, watch=watch, wait_s=wait_s, follows=follows, then="mesh streams ls")


def _choice(cli: Cli, held: Stream | None, stream: str, prefix: str) -> tuple[str, list[str]]:
    """The statement that is meant, and the last ones of all other histories.

    Raises:
        Refused: ``not_found`` if the stream is not forked or nothing in it is meant, ``stream_forked`` if two go on behind it.
    """
    if not isinstance(held, Fork):
        raise Refused("not_found", f"no member shows a fork of {stream[:80]}")
    meant = [identity for identity in held.whole if identity.startswith(prefix)] if prefix else []
    if len(meant) != 1:
        raise Refused("not_found", f"{len(meant)} statements of {stream} begin with {prefix[:64]!r} and are shown with all before them")
    history = settle(held, meant[0])
    if not history:
        raise Refused("stream_forked", f"two statements stand behind {meant[0][:12]}…: name one of those instead")
    aside = sorted(_tips(held) - {history[-1]}, key=lambda identity: (-held.whole[identity].sequence, identity))
    if len(aside) > ASIDE_MAX:
        cli.say(f"{len(aside)} other histories: the {ASIDE_MAX} longest are named; the others deny as well, and nobody waits for them")
    return meant[0], sorted(aside[:ASIDE_MAX])


def _tips(fork: Fork) -> set[str]:
    return fork.whole.keys() - {link.previous for link in fork.whole.values()}


async def _hand_out(mesh: client.MeshClient, claimed: Frontiers, gathered: Gathered, stream: str) -> None:
    """What it chooses between, to whoever does not say that it holds the same (rule 1). What fails is gossip's to mend."""
    held = gathered.governance.streams[stream]
    said = [item for item in gathered.statements if item.claims.link[0] == stream]
    for member in mesh.roster.members:
        heads = [head for head in claimed.get(member.name, ()) if head.stream == stream]
        if isinstance(held, Fork) and any((head.head if head.forked else head.held) == held.digest for head in heads):
            continue
        for first in range(0, len(said), BATCH_EVENTS_MAX):
            offer = Offer(statements=[msgspec.Raw(item.envelope) for item in said[first : first + BATCH_EVENTS_MAX]])
            try:
                await mesh.ask(member.name, offer, Offered)
            except MeshError:
                break


def _row(state: Governance, said: Mapping[str, Statement[Said]], claimed: Frontiers, name: str) -> dict[str, Any]:
    held, own = state.streams[name], {head.stream: head for head in state.frontier}.get(name)
    heads = [(member, head) for member, frontier in claimed.items() for head in frontier if head.stream == name]
    return {
        "stream": name,
        "length": own.sequence if own is not None else 0,
        "head": own.head if own is not None else "",
        "state": _state(state, name),
        "held": f"{sum(head == own for _, head in heads)} of {len(state.roster.members)}",
        "held_by": [member for member, head in heads if head == own],
        "tips": _ends(held, said, state.settled.get(name, ())) if isinstance(held, Fork) else [],
        "differ_from": _differ(held) if isinstance(held, Fork) else 0,
    }


def _state(state: Governance, name: str) -> str:
    if state.whole.get(name) is ENDED:
        return "ended"
    if state.lacks(name):
        return "incomplete"
    return "forked" if state.forked(name) else "resolved" if isinstance(state.streams[name], Fork) else "one history"


def _ends(fork: Fork, said: Mapping[str, Statement[Said]], history: Sequence[str]) -> list[dict[str, Any]]:
    """The last statement of each history."""
    tips = sorted(_tips(fork), key=lambda identity: (fork.whole[identity].sequence, identity))
    return [
        {
            "id": identity,
            "number": fork.whole[identity].sequence,
            "at": telling.when(said[identity].claims.issued_ms),
            "reason": said[identity].claims.reason,
            "signed_by": sorted(said[identity].signatures),
            "stands": (", counts" if identity in history else ", aside") if history else "",
        }
        for identity in tips
    ]


def _differ(fork: Fork) -> int:
    """The first number that two statements have; 0 if what they follow is not held."""
    numbers = Counter(link.sequence for link in fork.whole.values())
    return min((number for number, count in numbers.items() if count > 1), default=0)
