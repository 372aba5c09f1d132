"""What members hold of the streams that travel: their signed word says how far, the statements themselves say what.

Rules
-----
1. A claim counts only once its statements were seen: one lying member can neither make a command skip numbers, nor stop it by
   calling a stream forked.
2. Every statement is verified with the roster; a page with one that is not believed ends what that member is asked.
3. Members are asked one after the other, each only for what is still lacking.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from mesh.cli.client import MeshClient
from mesh.codes import CODES
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import unsaid
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.reign import base_of
from mesh.core.law.resolve import RESOLVES
from mesh.core.law.roster import ROSTERS
from mesh.core.law.streams import Chain, Cursor, Fork
from mesh.core.law.travel import Said, admit_law, link_of
from mesh.errors import MeshError, Refused, Unavailable
from mesh.protocol.gossip import rosters_first, wanted
from mesh.roles.pulling import pull_stream

__all__ = ["Frontiers", "Gathered", "Head", "furthest", "gather", "gather_about", "heartbeats", "holders"]

_LATER_EXIT: Final = 4
"""Of codes that say: not now."""
Frontiers = Mapping[str, Sequence[StreamHead]]
"""Member to what it signed that it holds."""


class Head(NamedTuple):
    """How far a stream goes: the last number, and the id under it."""

    sequence: int
    id: str


class Gathered(NamedTuple):
    """What was seen."""

    governance: Governance
    """All of it, folded."""
    statements: tuple[Statement[Said], ...]
    """Believed, in the order in which they came."""
    withheld: tuple[tuple[str, str], ...]
    """(member, stream) where the member claims more than it showed."""


async def heartbeats(mesh: MeshClient) -> tuple[dict[str, Heartbeat], dict[str, MeshError]]:
    """What each member signs now, and why nothing is believed of the others.

    Raises:
        Unavailable: ``unreachable`` if there is nothing to believe at all.
    """
    answers = await mesh.heartbeats()
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, MeshError)}
    if len(failed) == len(answers):
        raise Unavailable("unreachable", f"no heartbeat to believe: {_reasons(failed)}")
    return {name: answer for name, answer in answers.items() if not isinstance(answer, MeshError)}, failed


async def gather(mesh: MeshClient, claimed: Frontiers, governance: Governance, *, streams: Callable[[str], bool]) -> Gathered:
    """All that members claim to hold of these ``streams``, pulled from them and verified; ``governance`` says whom to believe.

    And of what the root has said about forks, without which nobody knows which history of a stream counts.
    """
    state = unsaid(governance)
    statements, withheld = list[Statement[Said]](), list[tuple[str, str]]()
    for member, frontier in claimed.items():
        of_these = [head for head in frontier if base_of(head.stream) in {RESOLVES, ROSTERS} or streams(head.stream)]
        asked = set[str]()
        while lacking := [stream for stream in rosters_first(wanted(state, of_these)) if stream not in asked]:
            asked.add(lacking[0])  # what it brings may say what else is lacking: other signers, or what was handed over to them
            state, new = await pull_stream(partial(mesh.law, member, lacking[0]), state, of_these, lacking[0])
            statements += new
        withheld += [(member, stream) for stream in sorted(wanted(state, of_these))]
    return Gathered(state, tuple(statements), tuple(withheld))


async def furthest(
    mesh: MeshClient, claimed: Frontiers, stream: str, governance: Governance, known: Head | None
) -> tuple[Head | None, tuple[str, ...]]:
    """How far the stream goes, as far as members can show; ``known`` needs not be shown.

    And the members that claim more, and could not be asked to show it: a claim that nobody looked at is not one that failed.

    Raises:
        Refused: ``stream_forked`` if members show that it is.
    """
    claims = dict[Head, list[str]]()
    for member, frontier in claimed.items():
        for claim in frontier:
            if claim.stream == stream and claim.forked:
                await _check_fork(mesh, member, claim, claimed, governance)
            elif claim.stream == stream:
                claims.setdefault(Head(claim.sequence, claim.head), []).append(member)
    found: Head | None = None
    unsure = list[str]()
    for head, members in sorted(claims.items(), reverse=True):
        if found is not None and head.sequence < found.sequence:
            break
        if head != known:
            shows, silent = await _any_shows(mesh, members, stream, head, governance)
            if not shows:
                unsure += silent
                continue
        if found is not None:
            raise Refused("stream_forked", f"number {head.sequence} is {found.id[:12]}… and {head.id[:12]}…")
        found = head
    return found, tuple(sorted(unsure))


async def gather_about(mesh: MeshClient, claimed: Frontiers, governance: Governance, stream: str) -> Gathered:
    """All that members claim to hold of one stream, and of what the root has said about forks."""
    return await gather(mesh, claimed, governance, streams=stream.__eq__)


async def _check_fork(mesh: MeshClient, member: str, head: StreamHead, claimed: Frontiers, governance: Governance) -> None:
    gathered = await gather(mesh, {member: [head]}, governance, streams=head.stream.__eq__)
    if isinstance(gathered.governance.streams.get(head.stream), Fork):
        gathered = await gather_about(mesh, claimed, governance, head.stream)
    if gathered.governance.forked(head.stream):
        raise Refused("stream_forked", f"{member} holds two statements of {head.stream[:19]}… that cannot both be")


async def _any_shows(mesh: MeshClient, members: Sequence[str], stream: str, head: Head, governance: Governance) -> tuple[bool, list[str]]:
    """Whether one of them shows that statement, and who gave no answer."""
    silent = list[str]()
    for member in members:
        try:
            page = await mesh.law(member, stream, Cursor(head.sequence))
            for statement in page:
                if statement.id == head.id:
                    admit_law(statement, governance.rosters)
                    name, link = link_of(statement)
                    if (name, link.sequence) == (stream, head.sequence):
                        return True, []
        except Unavailable:
            silent.append(member)
        except MeshError as error:
            if CODES[error.code].exit == _LATER_EXIT:
                silent.append(member)
    return False, silent


def holders(gathered: Gathered, claimed: Frontiers, stream: str, sequence: int) -> list[str]:
    """Who signed that it holds the stream that far; of one that is or was forked, who holds all of it that was seen."""
    held = gathered.governance.streams.get(stream, Chain())
    heads = {member: head for member, frontier in claimed.items() for head in frontier if head.stream == stream}
    if isinstance(held, Fork):
        return [member for member, head in heads.items() if (head.head if head.forked else head.held) == held.digest]
    return [member for member, head in heads.items() if not head.forked and head.sequence >= sequence]


def _reasons(failed: Mapping[str, MeshError]) -> str:
    return ", ".join(f"{name} {error.code}" for name, error in failed.items())
