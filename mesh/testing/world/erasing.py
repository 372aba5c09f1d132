"""What the root has erased in a world: who says it of what, how each node deletes it, and what must have come of it in the end.

The rules of deleting are those of :mod:`mesh.roles.erasing`: what stands in the own log and is not final there stays until it is.

Not here: when it is said (:mod:`mesh.testing.world.faults`).
"""

from collections.abc import Iterable, Mapping, Sequence

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.erase import Erase
from mesh.protocol.events import OpeningsErased
from mesh.protocol.state import GovernorState
from mesh.testing.world import keys
from mesh.testing.world.disk import Disk
from mesh.testing.world.setting import EPOCH_MS, MESH

__all__ = ["Deleting", "Erasures", "hidden", "unerased"]


class Erasures:
    """The root's word, number after number."""

    def __init__(self) -> None:
        self._said = list[Statement[Erase]]()

    def say(self, intents: Iterable[str]) -> Statement[Erase]:
        """The next erasure, of these intents."""
        claims = Erase(
            mesh=MESH,
            sequence=len(self._said) + 1,
            previous=self._said[-1].id if self._said else "",
            since="",
            intents=sorted(intents),
            reason="a world's test",
            issued_ms=EPOCH_MS,
        )
        self._said.append(envelope.read(Erase, keys.signed(envelope.draft(claims), "root")))
        return self._said[-1]


def hidden(disks: Iterable[Disk], final: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Intents that somebody has openings of, and of which all that is known to have been decided is final."""
    found, early = set[str](), set[str]()
    for disk in disks:
        found |= disk.openings.keys()
        early |= {intent for intent, origin, index in disk.places if index >= len(final.get(origin, ()))}
    return sorted(found - early)


class Deleting:
    """What one process has deleted since it began."""

    def __init__(self) -> None:
        self._told = set[str]()

    def look(self, disk: Disk, state: GovernorState | None) -> list[OpeningsErased]:
        """Delete what can go now; what is to be recorded of it."""
        if state is None or state.barrier is not None:
            return []
        done = list[OpeningsErased]()
        for identity, intents in state.governance.erasures.items():
            if identity in self._told:
                continue
            own = {intent for intent, origin, index in disk.places if origin == state.log.origin and index >= state.log.certified}
            disk.erase(set(intents) - own)
            if own.isdisjoint(intents):
                self._told.add(identity)
                if all((place, origin) != (identity, state.log.origin) for place, origin, _ in disk.places):
                    done.append(OpeningsErased(identity))
        return done


def unerased(disk: Disk, state: GovernorState) -> str:
    """What an erasure names and is still there, or of what the own log does not say once that it is gone; empty if nothing."""
    for identity, intents in state.governance.erasures.items():
        if left := disk.openings.keys() & set(intents):
            return f"openings of {min(left)[:12]} are still there"
        count = sum((place, origin) == (identity, state.log.origin) for place, origin, _ in disk.places)
        if count != 1:
            return f"{state.log.origin} says {count} times that {identity[:12]} is erased"
    return ""
