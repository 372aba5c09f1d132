"""What need not be kept in a world: how far the root says so, how each node prunes, and what must have come of it in the end (I17).

The rules of pruning are those of :mod:`mesh.roles.pruning`. A world is too short for days, so everything that a record may still be asked
for is over in seconds where records are pruned, and what is older than :data:`AGE_MS` goes.

Not here: when it is said (:mod:`mesh.testing.world.faults`), what a disk keeps (:mod:`mesh.testing.world.disk`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import read_record
from mesh.protocol.adoption import is_sure
from mesh.protocol.gossip import OpeningsErased, RecordsPruned, pruned_key
from mesh.protocol.state import GovernorState
from mesh.testing.world.clock import WorldClock
from mesh.testing.world.disk import Disk
from mesh.testing.world.erasing import Deleting
from mesh.testing.world.ground import Violation

__all__ = ["AGE_MS", "INTENT_MS", "REACH_US", "Archive", "Letting", "check_final", "final_in", "unpruned"]

AGE_MS: Final = 4_500
"""Of a record that is pruned: the sum of the two below, and of how far a clock that nobody doubts yet may be wrong here."""
INTENT_MS: Final = 1_000
"""Of an intent's life, where records are pruned."""
REACH_US: Final = 500_000
"""How long ago a parent began, there."""
_BATCH: Final = 16
"""Records in one tick."""
_LATE_MS: Final = 3_000
"""Within which it must have been done, once it could."""


def final_in(disk: Disk, origin: str) -> int:
    """How many records of a log are final by a certificate to whose root those that are held lead."""
    for size, note in sorted(disk.notes.get(("certificate", origin), {}).items(), reverse=True):
        if size <= disk.size(origin):
            leads = Frontier.empty().extend(disk.hashes(origin)[:size]).root() == read_checkpoint(note).root
            return size if leads else 0
    return 0


class Letting(Deleting):
    """What one process has deleted and pruned since it began."""

    def __init__(self) -> None:
        super().__init__()
        self._said = dict[str, int]()

    def look(
        self, disk: Disk, state: GovernorState | None, clock: WorldClock, pruned: Callable[[str, int], None]
    ) -> list[OpeningsErased | RecordsPruned]:
        """Let go what can go now; what is to be recorded of it. ``pruned`` is told of each log up to where.

        Raises:
            Alarm: ``storage_corrupt``.
        """
        done: list[OpeningsErased | RecordsPruned] = [*self.delete(disk, state)]
        if state is None or state.barrier is not None:
            return done
        if not is_sure(state.governance, state.fresh, wall_ms=clock.wall_ms(), now_ms=clock.now_ms()):
            return done
        for origin, kept in state.governance.floors.items():
            held = disk.size(origin) - (origin == state.log.origin)
            first = disk.floors.get(origin, (0, 0))[1]
            end = _old(disk, origin, first, min(first + _BATCH, kept.below, held, final_in(disk, origin)), clock.now_ms() - AGE_MS)
            if end > first:
                disk.prune(origin, first, end, below=kept.below)
                pruned(origin, end)
            through = disk.floors.get(origin, (0, 0))[1] >= kept.below > self._said.get(origin, 0)
            if through:
                self._said[origin] = kept.below
                if disk.meta.get(pruned_key(origin), 0) < kept.below:
                    done.append(RecordsPruned(kept.id, origin, kept.below))
        return done


def _old(disk: Disk, origin: str, first: int, end: int, than_ms: int) -> int:
    """Up to where all of these records have gone already, or are older than that time."""
    for index, leaf in enumerate(disk.verify(origin, first, max(0, end - first)), first):
        if leaf and read_record(leaf).at_ms > than_ms:
            return index
    return max(first, end)


def check_final(name: str, disk: Disk, origin: str, end: int, final: Sequence[bytes]) -> None:
    """I17, of what was just pruned; ``final`` are the hashes of all that ever was.

    Raises:
        Violation: I17.
    """
    if disk.hashes(origin)[:end] != list(final[:end]):
        raise Violation("I17", f"{name} prunes {origin} before {end}, and only {len(final)} records of it are final")


def unpruned(disk: Disk, state: GovernorState, now_ms: int, *, restored: bool) -> str:
    """What could have gone long since and is still there, or of what the own log does not say once that it is gone; empty if nothing."""
    for origin, kept in state.governance.floors.items():
        held = disk.size(origin) - (origin == state.log.origin)
        first = disk.floors.get(origin, (0, 0))[1]
        end = _old(disk, origin, first, min(first + 1, kept.below, held, final_in(disk, origin)), now_ms - AGE_MS - _LATE_MS)
        if end > first:
            return f"record {first} of {origin} is still there"
        count = sum((place, at) == (kept.id, state.log.origin) for place, at, _ in disk.places)
        if first >= kept.below and not 1 <= count <= 1 + restored:
            return f"{state.log.origin} says {count} times that {origin} was pruned below {kept.below}"
    return ""


class Archive:
    """All that honest nodes hold or have pruned: whoever looks on forgets nothing."""

    def __init__(self, disks: Iterable[Disk]) -> None:
        self.leaves = dict[bytes, bytes]()
        self.bodies = dict[str, bytes]()
        self.openings = dict[str, bytes]()
        for disk in disks:
            for log in disk.logs.values():
                self.leaves.update((hash_, leaf) for hash_, leaf in zip(log.hashes, log.leaves, strict=True) if leaf)
            self.bodies.update(disk.bodies)
            self.openings.update(disk.openings)
            for name, data in disk.archived.items():
                if isinstance(name, bytes):
                    self.leaves[name] = data
                elif name.startswith("opening "):
                    self.openings[name.removeprefix("opening ")] = data
                else:
                    self.bodies[name] = data

    def records(self, disk: Disk, origin: str) -> list[bytes]:
        """All records of that log on a disk, with what was pruned."""
        return [self.leaves[hash_] for hash_ in disk.hashes(origin)]
