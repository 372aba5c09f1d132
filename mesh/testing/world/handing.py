"""Streams that change hands in a world: who knows what through it, and what must have become of it in the end.

Not here: the rosters that hand over (:mod:`mesh.testing.world.rosters`), when what is said (:mod:`mesh.testing.world.changes`).
"""

from collections.abc import Iterable, Sequence

from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import ENDED, StreamHead, covers, reaches
from mesh.core.law.proof import PREFIX, fraud_stream
from mesh.core.law.reign import base_of
from mesh.core.law.revocation import Revocation
from mesh.core.law.travel import Said

__all__ = ["Handed", "running", "said_by", "told"]


def told(frontier: Sequence[StreamHead], statement: Statement[Said]) -> bool:
    """Whether whoever says this holds the statement: in its stream, or in one that took that over behind it."""
    stream, number, _ = statement.claims.link
    heads = [head for head in frontier if base_of(head.stream) == base_of(stream) and not head.held]
    return any(reaches(heads, head.stream, number, statement.id) for head in heads)


def said_by(governance: Governance, head: StreamHead) -> bool:
    """Whether whoever holds this may say so."""
    return covers(list(governance.frontier), [head], governance.whole)


def running(governance: Governance, heads: Iterable[StreamHead]) -> list[StreamHead]:
    """Those of streams that nobody has taken over: who lacks what was handed over says nothing of either, and does nothing.

    Nor of proofs against who is no member any more, or by who is none.
    """
    ended = {reign.former for reign in governance.reigns.values()}
    ended |= {name for name in governance.whole if name.startswith(PREFIX) and governance.whole[name] is ENDED}
    ended |= {fraud_stream(key) for key in governance.refuted.keys() - governance.proven}
    return [head for head in heads if head.stream not in ended]


class Handed:
    """What a revoker says in this world after a roster has handed its stream over, and what somebody says in the former name."""

    def __init__(self, later: Statement[Revocation], stray: Statement[Revocation]) -> None:
        self._later, self._stray = later, stray

    def lacking(self, governing: Iterable[Governance]) -> str:
        """What is not yet as it must be for whoever holds all rosters; the first thing found, empty if nothing."""
        for governance in governing:
            if governance.incomplete:
                return f"not all of {governance.incomplete[0][:20]} was taken over"
            for said, counts in ((self._later, True), (self._stray, False)):
                target = said.claims.target
                if governance.denies((target.type, target.value)) is not counts:
                    return f"{target.value} is {'not ' if counts else ''}revoked"
        return ""
