"""What the mesh holds of its rosters: pulled from members and verified down to the one that is trusted, and who acts under which.

Rules
-----
1. A roster counts once it was seen and follows from the trusted one. A member is believed by the key of any epoch that names it.
2. A later epoch is *in force* once more members of the one before say by signed heartbeats that they act under it than may lie.

Not here: planning (:mod:`mesh.cli.roster_draft`), offering (:mod:`mesh.cli.roster_push`).
"""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

from mesh.cli import client
from mesh.cli.gathering import gather
from mesh.cli.output import Cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import unsaid
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat, reaches
from mesh.core.law.proof import PREFIX
from mesh.core.law.roster import ROSTERS, Member, Roster
from mesh.errors import MeshError, Refused, Unavailable

__all__ = ["Held", "check_one_history", "read", "statements_of"]


_OF_MEMBERS: Final = "revoke/", PREFIX


class Held(NamedTuple):
    """What was seen."""

    governance: Governance
    """With all rosters and revocations that members show."""
    statements: Mapping[str, Statement[Roster]]
    """By id; of the genesis and of what the context's files have, too."""
    beats: Mapping[str, Heartbeat]
    """Member to what it signs now."""
    keys: Mapping[str, str]
    """Member to the decision key by which that is believed."""
    failed: Mapping[str, MeshError]
    """Member to why it is not counted on."""

    @property
    def in_force(self) -> int:
        """The epoch (rule 2)."""
        epoch = self.governance.roster.epoch
        for roster in self.governance.rosters.chain[epoch - 1 : -1]:
            gone = sum(self._acts(member) > roster.epoch for member in roster.members)
            if gone <= roster.f:
                break
            epoch = roster.epoch + 1
        return epoch

    @property
    def roster(self) -> Roster:
        """The one in force."""
        return self.governance.rosters.of(self.in_force)

    def holders(self, epoch: int, identity: str) -> list[str]:
        """Who signs that it holds that roster."""
        return [name for name, beat in self.beats.items() if reaches(beat.frontier, ROSTERS, epoch, identity)]

    def acting(self, epoch: int) -> list[str]:
        """Who signs that it acts under that epoch."""
        return [name for name, beat in self.beats.items() if beat.roster_epoch == epoch]

    def members(self) -> list[Member]:
        """Everybody whom the roster in force or a later one names, as the newest says."""
        found: dict[str, Member] = {}
        for roster in self.governance.rosters.chain[self.in_force - 1 :]:
            found |= {member.name: member for member in roster.members}
        return list(found.values())

    def _acts(self, member: Member) -> int:
        """The epoch that this one says; with other keys it is another one."""
        return self.beats[member.name].roster_epoch if self.keys.get(member.name) == member.decision_key else 0


def statements_of(library: client.Library) -> dict[str, Statement[Roster]]:
    """The rosters of the context's files, by id."""
    read = [envelope.read(Roster, data) for data in (library.roster, *library.rosters)]
    return {item.id: item for item in read}


def check_one_history(governance: Governance) -> None:
    """That the root has said one thing, as far as members show.

    Raises:
        Refused: ``roster_conflict``.
    """
    if governance.forked(ROSTERS):
        raise Refused("roster_conflict", "members show two rosters of one epoch; `mesh streams ls` shows them")


async def read(cli: Cli, mesh: client.MeshClient, library: client.Library, *, whole: bool = False) -> Held:
    """What members show, of all epochs that they lead to: rosters, revocations and proofs against members, or the ``whole``.

    Raises:
        Unavailable: ``unreachable`` if there is no heartbeat to believe.
    """
    governance, statements = unsaid(library.governance), statements_of(library)
    beats, keys, failed, asked = dict[str, Heartbeat](), dict[str, str](), dict[str, MeshError](), set[tuple[str, str]]()
    while True:
        new = [
            (roster, member)
            for roster in reversed(governance.rosters.chain)
            for member in roster.members
            if (member.name, member.decision_key) not in asked
        ]
        if not new:
            break
        asked |= {(member.name, member.decision_key) for _, member in new}
        for (name, key), answer in (await _hear(mesh, governance, new)).items():  # of a name with two keys the newest counts
            if isinstance(answer, MeshError):
                failed.setdefault(name, answer)
            elif name not in beats:
                beats[name], keys[name] = answer, key
        if not beats:
            raise Unavailable("unreachable", "no heartbeat to believe: " + ", ".join(f"{name} {no.code}" for name, no in failed.items()))
        frontiers = {name: beat.frontier for name, beat in beats.items()}
        gathered = await gather(mesh, frontiers, governance, streams=lambda name: whole or name == ROSTERS or name.startswith(_OF_MEMBERS))
        governance = gathered.governance
        shown = [cast("Statement[Roster]", item) for item in gathered.statements if isinstance(item.claims, Roster)]
        statements |= {item.id: item for item in shown}
        for member, stream in gathered.withheld:
            cli.say(f"{member} claims more of {stream[:40]} than it shows")
    return Held(governance, statements, beats, keys, {name: error for name, error in failed.items() if name not in beats})


async def _hear(
    mesh: client.MeshClient, governance: Governance, new: list[tuple[Roster, Member]]
) -> dict[tuple[str, str], Heartbeat | MeshError]:
    """By name and decision key the heartbeat of each, asked under a roster that names it so; in the order of ``new``."""

    async def one(roster: Roster, member: Member) -> Heartbeat | MeshError:
        try:
            return await mesh.under(governance.under(roster.epoch)).heartbeat(member.name)
        except MeshError as error:
            return error

    once = dict[tuple[str, str], tuple[Roster, Member]]()
    for roster, member in new:
        once.setdefault((member.name, member.decision_key), (roster, member))
    return dict(zip(once, await asyncio.gather(*(one(roster, member) for roster, member in once.values())), strict=True))
