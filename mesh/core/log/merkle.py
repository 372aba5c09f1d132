"""The append-only tree of RFC 6962 (section 2.1), with the proof checks of RFC 9162 (2.1.3.2 and 2.1.4.2).

Rules
-----
1. A leaf is SHA-256(0x00 ‖ data), a branch SHA-256(0x01 ‖ left ‖ right); a tree splits at the largest power of two below its
   size. The odd branch is never doubled: that is another tree, in which two record lists share a root.
2. A log is stored as its *perfect* subtrees: the one at ``level`` with ``number`` covers the leaves
   ``[number << level, (number + 1) << level)`` and never changes once complete. Level 0 is the leaf hashes.
3. Writing needs only the :class:`Frontier`; proving needs O(log n) lookups; checking needs neither.
4. Checking refuses any proof that is longer, shorter or of other hash lengths than the tree demands.
5. Nothing is consistent with the empty tree here: whoever starts from size 0 has no old root to protect
   (:func:`mesh.core.log.checkpoint.verify_growth` has the rule for that).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from mesh.core.log.lines import HASH_BYTES
from mesh.errors import Refused
from mesh.limits import PROOF_HASHES_MAX, TREE_SIZE_MAX

__all__ = [
    "EMPTY_ROOT",
    "Branch",
    "Frontier",
    "Get",
    "branch_hash",
    "completed",
    "consistency_beyond",
    "consistency_path",
    "inclusion_beyond",
    "inclusion_path",
    "leaf_hash",
    "root_from_inclusion",
    "tree_get",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree of size 0."""

Get = Callable[[int, int], bytes]
"""(level, number) to the hash of that perfect subtree. Asked only for complete ones of a log that holds them."""


class Branch(NamedTuple):
    """The hash of one perfect subtree: a row of the store."""

    level: int
    number: int
    hash: bytes


def leaf_hash(data: bytes) -> bytes:
    """The hash of one record's leaf data."""
    return hashlib.sha256(b"\x00" + data).digest()


def branch_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a branch over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed(index: int) -> list[tuple[int, int]]:
    """(level, number) of the perfect subtrees that appending leaf ``index`` completes, lowest first, the leaf included."""
    return [(level, index >> level) for level in range(_trailing_ones(index) + 1)]


class Frontier(msgspec.Struct, frozen=True):
    """All a writer must remember of a tree: its size and the roots of its maximal perfect subtrees, largest first."""

    size: int
    hashes: tuple[bytes, ...]

    @classmethod
    def empty(cls) -> "Frontier":
        """The frontier of a log without records."""
        return cls(0, ())

    @classmethod
    def restore(cls, size: int, hashes: Iterable[bytes]) -> "Frontier":
        """The frontier that was kept as its two fields.

        Raises:
            Refused: ``malformed`` when these cannot be the hashes of a tree of that size.
        """
        kept = tuple(hashes)
        if not 0 <= size <= TREE_SIZE_MAX or len(kept) != size.bit_count() or any(len(value) != HASH_BYTES for value in kept):
            raise Refused("malformed", f"{len(kept)} hashes are no frontier of size {size}")
        return cls(size, kept)

    @classmethod
    def load(cls, get: Get, size: int) -> "Frontier":
        """The frontier of the first ``size`` leaves of a stored tree."""
        return cls(size, tuple(get(level, number) for level, number in _cover(0, size)))

    def append(self, leaf: bytes) -> "Frontier":
        """The frontier after one more leaf hash.

        Raises:
            Refused: ``too_large`` past :data:`mesh.limits.TREE_SIZE_MAX`.
        """
        size, hashes = self.size, self.hashes
        kept = len(hashes) - _trailing_ones(size)
        top = leaf
        for left in reversed(hashes[kept:]):
            top = branch_hash(left, top)
        return _bounded(size + 1, (*hashes[:kept], top))

    def extend(self, leaves: Iterable[bytes]) -> "Frontier":
        """The frontier after these leaf hashes; faster than appending them one by one.

        Raises:
            Refused: ``too_large``, as :meth:`append`.
        """
        size, hashes = self.size, list(self.hashes)
        for leaf in leaves:
            top, number = leaf, size
            while number & 1:
                top = hashlib.sha256(b"\x01" + hashes.pop() + top).digest()
                number >>= 1
            hashes.append(top)
            size += 1
        return _bounded(size, hashes)

    def grow(self, leaves: Iterable[bytes]) -> tuple["Frontier", tuple[Branch, ...]]:
        """The frontier after these leaf hashes, and the rows of the store they complete (those of :func:`completed`).

        Raises:
            Refused: ``too_large``, as :meth:`append`.
        """
        size, hashes, rows = self.size, list(self.hashes), list[Branch]()
        for leaf in leaves:
            top, level, number = leaf, 0, size
            rows.append(Branch(0, size, leaf))
            while number & 1:
                top = hashlib.sha256(b"\x01" + hashes.pop() + top).digest()
                level, number = level + 1, number >> 1
                rows.append(Branch(level, number, top))
            hashes.append(top)
            size += 1
        return _bounded(size, hashes), tuple(rows)

    def root(self) -> bytes:
        """The root of the tree."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT


def _bounded(size: int, hashes: Iterable[bytes]) -> Frontier:
    if size > TREE_SIZE_MAX:
        raise Refused("too_large", "the log is full")
    return Frontier(size, tuple(hashes))


def tree_get(leaf_hashes: Sequence[bytes]) -> Get:
    """The lookups of a tree held in memory: for batches, bundles and other small ones."""
    _, rows = Frontier.empty().grow(leaf_hashes)
    known = {(row.level, row.number): row.hash for row in rows}
    return lambda level, number: known[level, number]


def inclusion_path(get: Get, index: int, size: int) -> tuple[bytes, ...]:
    """The hashes that lead from leaf ``index`` to the root of the first ``size`` leaves, the leaf's sibling first.

    Raises:
        Refused: ``not_found`` when that tree has no such leaf.
    """
    if not 0 <= index < size:
        raise Refused("not_found", f"leaf {index} in a tree of {size}")
    path, start, end = list[bytes](), 0, size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            path.append(_range_hash(get, split, end))
            end = split
        else:
            path.append(_range_hash(get, start, split))
            start = split
    return tuple(reversed(path))


def consistency_path(get: Get, old: int, new: int) -> tuple[bytes, ...]:
    """The hashes which show that the tree of the first ``old`` leaves is a prefix of that of the first ``new``.

    Raises:
        Refused: ``not_found`` unless ``0 < old <= new``.
    """
    if not 0 < old <= new:
        raise Refused("not_found", f"a tree of {old} in one of {new}")
    path, start, end = list[bytes](), 0, new
    while old != end:
        split = start + _split(end - start)
        if old <= split:
            path.append(_range_hash(get, split, end))
            end = split
        else:
            path.append(_range_hash(get, start, split))
            start = split
    if start:  # otherwise the rest is the old tree itself, whose root the checker knows
        path.append(_range_hash(get, start, end))
    return tuple(reversed(path))


def consistency_beyond(frontier: Frontier, leaves: Sequence[bytes], old: int, new: int) -> tuple[bytes, ...]:
    """As :func:`consistency_path`, for whoever holds no tree: from ``frontier`` and the leaf hashes behind it.

    Raises:
        Refused: ``not_found`` unless ``frontier.size <= old <= new <= frontier.size + len(leaves)`` and ``old`` is not 0.
    """
    if not frontier.size <= old <= new <= frontier.size + len(leaves):
        raise Refused("not_found", f"a tree of {old} in one of {new}, from {frontier.size} on")
    return consistency_path(_beyond(frontier, leaves), old, new)


def inclusion_beyond(frontier: Frontier, leaves: Sequence[bytes], index: int, size: int) -> tuple[bytes, ...]:
    """As :func:`inclusion_path`, for whoever holds no tree: from ``frontier`` and the leaf hashes behind it.

    Raises:
        Refused: ``not_found`` unless ``frontier.size <= index < size <= frontier.size + len(leaves)``.
    """
    if not frontier.size <= index < size <= frontier.size + len(leaves):
        raise Refused("not_found", f"leaf {index} in a tree of {size}, from {frontier.size} on")
    return inclusion_path(_beyond(frontier, leaves), index, size)


def _beyond(frontier: Frontier, leaves: Sequence[bytes]) -> Get:
    known = dict(zip(_cover(0, frontier.size), frontier.hashes, strict=True))
    known |= {(row.level, row.number): row.hash for row in frontier.grow(leaves)[1]}
    return lambda level, number: known[level, number]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that a tree of ``size`` must have if ``path`` shows the hash ``leaf`` at ``index`` (RFC 9162, 2.1.3.2).

    Raises:
        Refused: ``bad_proof`` when no tree of that size has such a path.
    """
    _check_hashes((leaf,), path)
    if not 0 <= index < size:
        raise Refused("bad_proof", f"leaf {index} in a tree of {size}")
    fn, sn, root = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            raise Refused("bad_proof", "hashes too many")
        if fn & 1 or fn == sn:
            root = branch_hash(sibling, root)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = branch_hash(root, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Refused("bad_proof", "hashes too few")
    return root


def verify_inclusion(leaf: bytes, index: int, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """Believe that the tree of ``size`` with ``root`` has the hash ``leaf`` at ``index``.

    Raises:
        Refused: ``bad_proof``.
    """
    if root_from_inclusion(leaf, index, size, path) != root:
        raise Refused("bad_proof", f"leaf {index} is not under this root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Believe that the tree of size ``old`` is a prefix of that of size ``new`` (RFC 9162, 2.1.4.2).

    Raises:
        Refused: ``bad_proof``, also for ``old`` 0 (rule 5) and ``old`` > ``new``.
    """
    if not 0 < old <= new:
        raise Refused("bad_proof", f"no proof leads from size {old} to {new}")
    if old == new:
        if path or old_root != new_root:
            raise Refused("bad_proof", "one size, but two roots or a path")
        return
    _check_hashes((old_root, new_root), path)
    whole = old & (old - 1) == 0  # the old tree is itself a subtree of the new one, so its root starts the path
    hashes = (old_root, *path) if whole else tuple(path)
    level = _trailing_ones(old - 1)
    if _consistent_roots((old - 1) >> level, (new - 1) >> level, hashes) != (old_root, new_root):
        raise Refused("bad_proof", f"size {old} is no prefix of size {new}")


def _consistent_roots(fn: int, sn: int, hashes: Sequence[bytes]) -> tuple[bytes, bytes]:
    if not hashes:
        raise Refused("bad_proof", "hashes too few")
    old = new = hashes[0]
    for value in hashes[1:]:
        if sn == 0:
            raise Refused("bad_proof", "hashes too many")
        if fn & 1 or fn == sn:
            old, new = branch_hash(value, old), branch_hash(value, new)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = branch_hash(new, value)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Refused("bad_proof", "hashes too few")
    return old, new


def _check_hashes(ends: Sequence[bytes], path: Sequence[bytes]) -> None:
    # A hash of another length would shift the border between left and right inside the branch's preimage.
    if len(path) > PROOF_HASHES_MAX or any(len(value) != HASH_BYTES for value in (*ends, *path)):
        raise Refused("bad_proof", f"at most {PROOF_HASHES_MAX} hashes of {HASH_BYTES} bytes")


def _trailing_ones(number: int) -> int:
    return (~number & (number + 1)).bit_length() - 1


def _split(size: int) -> int:
    """The largest power of two below ``size`` (>= 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _cover(start: int, end: int) -> list[tuple[int, int]]:
    # `start` is a multiple of every power of two up to the range's length, wherever RFC 6962 splits.
    cover = list[tuple[int, int]]()
    while start < end:
        level = (end - start).bit_length() - 1
        cover.append((level, start >> level))
        start += 1 << level
    return cover


def _range_hash(get: Get, start: int, end: int) -> bytes:
    return _fold([get(level, number) for level, number in _cover(start, end)])


def _fold(hashes: Sequence[bytes]) -> bytes:
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = branch_hash(left, root)
    return root
