"""Who was shown what is final takes no other records up to there, and counts only once it holds them (I15).

Not here: what is shown at a start (:mod:`mesh.protocol.barrier`).
"""

from collections.abc import Collection, Mapping, Sequence

from mesh.core.law.heartbeat import Heartbeat
from mesh.core.log.checkpoint import read_checkpoint
from mesh.protocol.step import Append, Persist
from mesh.testing.world.governor import Governor
from mesh.testing.world.ground import Violation

__all__ = ["Goals"]


class Goals:
    """Looks at what honest members store and say."""

    def __init__(self, final: Mapping[str, list[bytes]]) -> None:
        """``final`` are the leaf hashes of the longest final prefix of each log, as the world goes on."""
        self._final = final

    def kept(self, governor: Governor, effects: Sequence[Persist]) -> None:
        """These records are on its disk now."""
        state = governor.state
        if state is None:
            return
        mirrors = state.mirrors
        for effect in effects:
            if not isinstance(effect, Append) or effect.origin not in mirrors:
                continue
            known = self._final.get(effect.origin, [])[: mirrors[effect.origin].goal]
            beyond = known[effect.first : effect.first + len(effect.hashes)]
            if list(effect.hashes[: len(beyond)]) != beyond:
                raise Violation("I15", f"{governor.name} stores other records of {effect.origin} from {effect.first} on than are final")

    def said(self, governor: Governor, beat: Heartbeat, liars: Collection[str]) -> None:
        """It signs a heartbeat."""
        state = governor.state
        if state is None or beat.behind or governor.member.name in liars:
            return
        goals = {origin: held.goal for origin, held in state.mirrors.items() if not held.split}
        if state.barrier is not None:  # it is through with this very step, which also says who is split
            owners = {governor.roster.origin(member) for member in governor.roster.members if member.name not in liars}
            goals = {origin: read_checkpoint(note).size for origin, note in state.barrier.goals.items() if origin in owners}
        for origin, goal in goals.items():
            known = self._final.get(origin, [])[:goal]
            if governor.disk.hashes(origin)[: len(known)] != known:
                raise Violation("I15", f"{governor.name} counts, and does not hold the {goal} final records of {origin}")
