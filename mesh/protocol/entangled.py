"""Whether the trees that logs name of one another are those that these logs had: what an auditor sees who follows all of them.

Rules
-----
1. A tree that is named of what was not settled yet waits until the named log has come that far; then its root is recomputed.
2. Of what was settled before, the newest :data:`_ROOTS_MAX` checkpoints of each log are remembered. A name for another size is not
   judged: it came too late, or no honest witness ever signed that size.
3. A contradiction says that one of two lied, the log or who named it, not which: both stand in it. Whoever forged a whole history, with
   however many keys, contradicts every log that named the true one.
4. It is of one run: what an auditor has forgotten in between is not judged. Waiting names are bounded for each log, so that nobody can make
   it remember sizes that never come.

Not here: the records themselves (:mod:`mesh.protocol.entangling`), proofs by keys alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from mesh.core.log.merkle import Frontier
from mesh.core.log.record import Cosigned

__all__ = ["Contradiction", "Named", "name", "settle"]

_ROOTS_MAX: Final = 64
_WAITING_MAX: Final = 256
"""Names of one log that wait; the oldest make room."""


class _Name(msgspec.Struct, frozen=True):
    """What one record says of one log."""

    root: str
    origin: str
    """Of the log in which it is said."""
    index: int


class Contradiction(msgspec.Struct, frozen=True):
    """A tree that was named, and that the named log did not have."""

    origin: str
    """Of the log that names it."""
    index: int
    named: str
    """The log of which it is said."""
    size: int

    def __str__(self) -> str:
        """In one line."""
        return f"names a tree of {self.named} at size {self.size} that this log did not have: one of them has two histories, or lies"


class Named(msgspec.Struct, frozen=True):
    """What is remembered."""

    waiting: Mapping[str, tuple[tuple[int, _Name], ...]] = {}
    """Origin to (size, who says what), oldest first."""
    roots: Mapping[str, Mapping[int, str]] = {}
    """Origin to the roots of the sizes that were settled last."""


def name(state: Named, record: Cosigned, sizes: Mapping[str, int]) -> tuple[Named, list[Contradiction]]:
    """After a record that names trees; ``sizes`` is how far each followed log is settled. Logs that are not followed are left out."""
    waiting, found = dict(state.waiting), list[Contradiction]()
    for head in record.heads:
        said = _Name(head.root, record.origin, record.index)
        if head.origin not in sizes:
            continue
        if head.size > sizes[head.origin]:
            waiting[head.origin] = (*waiting.get(head.origin, ()), (head.size, said))[-_WAITING_MAX:]
        elif state.roots.get(head.origin, {}).get(head.size, head.root) != head.root:
            found.append(Contradiction(record.origin, record.index, head.origin, head.size))
    return msgspec.structs.replace(state, waiting=waiting), found


def settle(state: Named, origin: str, before: Frontier, hashes: Sequence[bytes]) -> tuple[Named, list[Contradiction]]:
    """After a log has grown by these leaf hashes, up to a size that its key has signed."""
    size, found = before.size + len(hashes), list[Contradiction]()
    roots = {**state.roots.get(origin, {}), size: before.extend(hashes).root().hex()}
    left = list[tuple[int, _Name]]()
    for at, said in state.waiting.get(origin, ()):
        if at > size:
            left.append((at, said))
        elif roots.get(at, "") != said.root and _root(before, hashes, at) != said.root:
            found.append(Contradiction(said.origin, said.index, origin, at))
    kept = {at: roots[at] for at in _newest(roots)}
    return Named({**state.waiting, origin: tuple(left)}, {**state.roots, origin: kept}), found


def _root(before: Frontier, hashes: Sequence[bytes], size: int) -> str:
    return before.extend(hashes[: size - before.size]).root().hex()


def _newest(sizes: Iterable[int]) -> list[int]:
    return sorted(sizes)[-_ROOTS_MAX:]
