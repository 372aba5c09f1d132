"""How far a record has come: accepted, recorded, witnessed, final.

* ``accepted``: a governor has taken the statement in. It is answered only after the record stands, so nobody sees this stage alone.
* ``recorded``: it stands in the governor's log, at a place of its own.
* ``witnessed``: others have cosigned a checkpoint over it: the log cannot lose it unseen. Who attests has witnessed.
* ``final``: k members have attested a checkpoint over it, by proof.

What is final is proved here. Who has witnessed what is not final yet is the members' own word, and is told as that.
"""

from collections.abc import Iterable, Mapping

import msgspec

from mesh.cli import client
from mesh.cli.naming import node_of
from mesh.core.log.record import Record
from mesh.core.messages import NodeStatus, Proved
from mesh.errors import MeshError, Refused
from mesh.protocol.advancing import State
from mesh.protocol.proving import record_of

__all__ = ["Reach", "Said", "Standing", "attesters", "reach_of", "witnesses"]

Said = Mapping[str, NodeStatus | MeshError]
"""What nodes answered about themselves, by name."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far one record has come."""

    attested_by: list[str]
    """Proved; empty while it is not final."""
    witnessed_by: list[str]
    """Those, and who says so."""

    @property
    def reached(self) -> State:
        """The last stage."""
        return "final" if self.attested_by else "witnessed" if self.witnessed_by else "recorded"

    @property
    def told(self) -> str:
        """All stages up to that, in words."""
        stages = ["accepted", "recorded"]
        more = len(self.witnessed_by) - len(self.attested_by)
        if self.attested_by:
            stages.append(f"witnessed by {len(self.attested_by)}" + (f", and as they say by {more} more" if more else ""))
        elif more:
            stages.append(f"witnessed by {more}, as they say")
        return " > ".join([*stages, "final"] if self.attested_by else [*stages, "not final yet"])


class Reach(msgspec.Struct, frozen=True):
    """How far each of some records has come, and what each is called."""

    mesh: client.MeshClient
    standings: Mapping[tuple[str, int], Standing]

    def of(self, record: Record) -> Standing:
        """That record's."""
        return self.standings.get((record.origin, record.index), Standing(attested_by=[], witnessed_by=[]))

    def name(self, record: Record) -> str:
        """As commands take it."""
        return self.mesh.naming.place(record.origin, record.index)


async def reach_of(mesh: client.MeshClient, answers: Iterable[Proved]) -> Reach:
    """How far the records of these answers have come."""
    held = list(answers)
    final = {(record.origin, record.index): attesters(mesh, answer) for answer in held for record in [record_of(answer)]}
    said = await mesh.status()
    return Reach(
        mesh,
        {
            (origin, index): Standing(attested_by=by, witnessed_by=list(dict.fromkeys([*by, *witnesses(said, origin, index)])))
            for (origin, index), by in final.items()
        },
    )


def attesters(mesh: client.MeshClient, answer: Proved) -> list[str]:
    """Who made the record final, by proof; nobody while it is not."""
    try:
        attested = mesh.attested(answer)
    except Refused:
        return []
    return [node_of(signed.verifier.name) for signed in attested.attestations]


def witnesses(said: Said, origin: str, index: int) -> list[str]:
    """Members other than the owner who say that they have cosigned a checkpoint over it."""
    return [
        name
        for name, answer in said.items()
        if isinstance(answer, NodeStatus) and any(mirror.origin == origin and mirror.witnessed > index for mirror in answer.mirrors)
    ]
