"""What the root has erased in a world: who says it of what, how each node deletes it, and what must have come of it in the end.

In the same stream it says from where on records are kept (:mod:`mesh.testing.world.pruning`).

The rules of deleting are those of :mod:`mesh.roles.erasing`: what stands in the own log and is not final there stays until it is.

Not here: when it is said (:mod:`mesh.testing.world.faults`).
"""

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol, TypeVar

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.erase import Erase
from mesh.core.law.retain import Floor, Retain
from mesh.protocol.events import OpeningsErased
from mesh.protocol.state import GovernorState
from mesh.testing.world import keys
from mesh.testing.world.disk import Disk
from mesh.testing.world.setting import EPOCH_MS, MESH

C = TypeVar("C", Erase, Retain)

_BEYOND: Final = 60
"""Records that are not there yet when a floor is put above them."""

__all__ = ["Deleting", "Erasures", "hidden", "unerased"]


class _Host(Protocol):
    @property
    def disk(self) -> Disk: ...


class _Watch(Protocol):
    @property
    def final(self) -> Mapping[str, Sequence[bytes]]: ...


class Stage(Protocol):
    """Of what it speaks."""

    @property
    def governors(self) -> Mapping[str, _Host]:
        """All that there are."""
        ...

    @property
    def watch(self) -> _Watch:
        """Who looks on."""
        ...


class Erasures:
    """The root's word, number after number."""

    def __init__(self, stage: Stage, random: Random) -> None:
        self._stage, self._random = stage, random
        self._ids = [""]
        """Of what was said so far, behind the empty one that the first names."""
        self._floors = set[tuple[str, int]]()

    def erasing(self) -> Statement[Erase] | None:
        """The next one: an erasure, of some of what is final; none if there is nothing to erase."""
        found = hidden([each.disk for each in self._stage.governors.values()], self._stage.watch.final)
        if not found:
            return None
        intents = sorted(self._random.sample(found, min(len(found), 9)))
        return self._next(Erase(**self._place(), intents=intents, reason="a world's test", issued_ms=EPOCH_MS))

    def keeping(self) -> Statement[Retain] | None:
        """The next one: from where on some log is kept; what is final by now goes, or what will be, too."""
        able = sorted(origin for origin, leaves in self._stage.watch.final.items() if leaves)
        if not able:
            return None
        origin = self._random.choice(able)
        below = max(1, len(self._stage.watch.final[origin]) + self._random.choice((-9, 0, _BEYOND)))
        while (origin, below) in self._floors:  # of two that say the same one counts, and a node may have done what the other one said
            below += 1
        self._floors.add((origin, below))
        floors = [Floor(origin=origin, below=below)]
        return self._next(Retain(**self._place(), floors=floors, archive="nowhere", reason="a world's test", issued_ms=EPOCH_MS))

    def _place(self) -> dict[str, Any]:
        return {"mesh": MESH, "sequence": len(self._ids), "previous": self._ids[-1], "since": ""}

    def _next(self, claims: C) -> Statement[C]:
        said = envelope.read(type(claims), keys.signed(envelope.draft(claims), "root"))
        self._ids.append(said.id)
        return said


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

    def delete(self, disk: Disk, state: GovernorState | None) -> list[OpeningsErased]:
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
