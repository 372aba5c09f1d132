"""What became durable since the last announcement is still at hand when it is announced: nothing is read back to be published.

Rules
-----
1. Only what a commit has made durable is kept here, as it was committed, until it was announced.
2. At most :data:`BYTES_MAX`: beyond, the oldest goes. What is not here is read from the file.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from mesh.protocol.step import Append, Persist, PutBody

__all__ = ["BYTES_MAX", "Recent"]

BYTES_MAX: Final = 16 << 20
"""Several times what a busy node records between two checkpoints."""


class _Commit(msgspec.Struct):
    first: int
    leaves: list[bytes]
    bodies: dict[str, bytes]
    size: int
    """In bytes."""


class Recent:
    """The newest records of the node's own log, with the statements that were stored beside them."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._commits: deque[_Commit] = deque()
        self._size = 0

    def keep(self, effects: Iterable[Persist]) -> None:
        """Take in what one commit made durable."""
        commit = _Commit(-1, [], {}, 0)
        for effect in effects:
            if isinstance(effect, PutBody):
                commit.bodies[effect.id] = effect.envelope
            elif isinstance(effect, Append) and effect.origin == self._origin:
                commit.first = effect.first - len(commit.leaves)
                commit.leaves += effect.leaves
        if not commit.leaves:
            return
        commit.size = sum(map(len, commit.leaves)) + sum(map(len, commit.bodies.values()))
        self._commits.append(commit)
        self._size += commit.size
        while self._size > BYTES_MAX:
            self._drop()

    def announced(self, first: int, size: int) -> tuple[list[bytes], dict[str, bytes]] | None:
        """Leaf data of the records ``[first, size)`` and the statements beside them, which are then forgotten; None if not all are here."""
        leaves = list[bytes]()
        bodies = dict[str, bytes]()
        for commit in self._commits:
            start = first + len(leaves) - commit.first
            if 0 <= start < len(commit.leaves) and commit.first < size:
                leaves += commit.leaves[start : size - commit.first]
                bodies |= commit.bodies
        while self._commits and self._commits[0].first + len(self._commits[0].leaves) <= size:
            self._drop()
        return (leaves, bodies) if len(leaves) == size - first else None

    def _drop(self) -> None:
        self._size -= self._commits.popleft().size
