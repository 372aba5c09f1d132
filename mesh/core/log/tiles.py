"""A log as static files: the paths and bytes of C2SP tlog-tiles (c2sp.org/tlog-tiles).

Rules
-----
1. A path has one spelling: numbers without leading zeros but for the three digits of each part, all parts but the last with an x.
   Another spelling of the same tile is no path.
2. A tile is up to 256 hashes; one of level L covers 256^L records per hash, and these must be whole.
3. A bundle of entries is each record's leaf data behind its length in two bytes.

Not here: where hashes and records come from (:mod:`mesh.roles.tiles`).
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from mesh.errors import Refused

__all__ = ["TILE_WIDTH", "Tile", "entries_in", "entry_bundle", "tile_of"]

TILE_WIDTH: Final = 256
_ENTRIES: Final = "entries"
_PATH: Final = re.compile(
    r"tile/(?P<level>0|[1-9][0-9]?|entries)/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?", re.ASCII
)
_LEVEL_MAX: Final = 63
_LENGTH_BYTES: Final = 2


class Tile(msgspec.Struct, frozen=True):
    """What one path names."""

    level: int
    """0 to 63; 0 also for a bundle of entries, which is as wide as a tile of the lowest level."""
    number: int
    width: int
    """Of 256 if it is full."""
    entries: bool

    @property
    def first(self) -> int:
        """Number of its first hash at its level."""
        return self.number * TILE_WIDTH

    @property
    def end(self) -> int:
        """How many records a log must have that has this tile."""
        return (self.first + self.width) << (8 * self.level)

    @property
    def path(self) -> str:
        """The one spelling of its path, below the log's prefix."""
        digits = f"{self.number:0{-(-len(str(self.number)) // 3) * 3}}"
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        level = _ENTRIES if self.entries else self.level
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join([*(f'x{part}' for part in parts[:-1]), parts[-1]])}{partial}"


def tile_of(path: str) -> Tile:
    """What a path below the log's prefix names.

    Raises:
        Refused: ``malformed`` (rule 1).
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise Refused("malformed", "not the path of a tile")
    level, number, width = match["level"], match["number"], match["width"]
    entries = level == _ENTRIES
    tile = Tile(0 if entries else int(level), int(re.sub("[x/]", "", number)), int(width or TILE_WIDTH), entries)
    if tile.level > _LEVEL_MAX or tile.path != path:
        raise Refused("malformed", "not the path of a tile")
    return tile


def entry_bundle(leaves: Iterable[bytes]) -> bytes:
    """The bundle of these records' leaf data (rule 3)."""
    return b"".join(len(leaf).to_bytes(_LENGTH_BYTES) + leaf for leaf in leaves)


def entries_in(data: bytes, width: int) -> list[bytes]:
    """The leaf data of the records in a bundle of that many (rule 3).

    Raises:
        Refused: ``malformed``.
    """
    leaves, at = list[bytes](), 0
    while at + _LENGTH_BYTES <= len(data):
        end = at + _LENGTH_BYTES + int.from_bytes(data[at : at + _LENGTH_BYTES])
        leaves.append(data[at + _LENGTH_BYTES : end])
        at = end
    if at != len(data) or len(leaves) != width:
        raise Refused("malformed", f"a bundle of {len(leaves)} entries, {width} are expected")
    return leaves
