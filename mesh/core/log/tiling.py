"""All files of a log as C2SP tlog-tiles has them, record after record, in the memory of one tile per level.

Not here: the path and the bytes of one (:mod:`mesh.core.log.tiles`), writing and reading them (:mod:`mesh.cli.tilefolder`).
"""

from collections.abc import Iterator

from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.tiles import TILE_WIDTH, Tile, entry_bundle

__all__ = ["Tiling", "entry_tiles"]


class Tiling:
    """Takes leaf data in order; says each tile once it is full, and the partial ones at the end."""

    def __init__(self) -> None:
        """Of no record yet."""
        self.frontier = Frontier.empty()
        self._entries = list[bytes]()
        self._levels = list[list[bytes]]()
        self._full = list[int]()
        """Tiles of each level that are full."""

    def add(self, leaves: list[bytes]) -> Iterator[tuple[Tile, bytes]]:
        """Take these records; the tiles that they fill, with their bytes."""
        hashes = [leaf_hash(leaf) for leaf in leaves]
        self.frontier = self.frontier.extend(hashes)
        for leaf, digest in zip(leaves, hashes, strict=True):
            self._entries.append(leaf)
            if len(self._entries) == TILE_WIDTH:
                yield Tile(0, self._full[0], TILE_WIDTH, entries=True), entry_bundle(self._entries)
                self._entries.clear()
            yield from self._push(0, digest)

    def finish(self) -> Iterator[tuple[Tile, bytes]]:
        """The partial tiles."""
        if self._entries:
            yield Tile(0, self._full[0], len(self._entries), entries=True), entry_bundle(self._entries)
        for level, hashes in enumerate(self._levels):
            if hashes:
                yield Tile(level, self._full[level], len(hashes), entries=False), b"".join(hashes)

    def _push(self, level: int, digest: bytes) -> Iterator[tuple[Tile, bytes]]:
        if level == len(self._levels):
            self._levels.append([])
            self._full.append(0)
        hashes = self._levels[level]
        hashes.append(digest)
        if len(hashes) == TILE_WIDTH:
            yield Tile(level, self._full[level], TILE_WIDTH, entries=False), b"".join(hashes)
            self._full[level] += 1
            above = Frontier.empty().extend(hashes).root()
            hashes.clear()
            yield from self._push(level + 1, above)


def entry_tiles(size: int) -> Iterator[Tile]:
    """The bundles of entries of a log of that many records."""
    for number in range(size // TILE_WIDTH):
        yield Tile(0, number, TILE_WIDTH, entries=True)
    if size % TILE_WIDTH:
        yield Tile(0, size // TILE_WIDTH, size % TILE_WIDTH, entries=True)
