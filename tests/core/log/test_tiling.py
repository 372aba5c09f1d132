"""The files of a log are those that C2SP tlog-tiles names, whatever its size, and come back as the same records."""

import pytest

from mesh.core.log.merkle import branch_hash, leaf_hash
from mesh.core.log.tiles import TILE_WIDTH, entries_in
from mesh.core.log.tiling import Tiling, entry_tiles
from tests.core.kit import refuses


def _leaves(count: int) -> list[bytes]:
    return [b"record %d" % number for number in range(count)]


def _files(count: int, step: int) -> dict[str, bytes]:
    tiling, leaves = Tiling(), _leaves(count)
    files = [(tile.path, data) for at in range(0, count, step) for tile, data in tiling.add(leaves[at : at + step])]
    files += [(tile.path, data) for tile, data in tiling.finish()]
    assert len(dict(files)) == len(files)
    assert tiling.frontier.size == count
    return dict(files)


def _level(hashes: list[bytes]) -> list[bytes]:
    """The next level of tiles: roots of whole groups, by pairs."""
    roots = list[bytes]()
    for at in range(0, len(hashes) - TILE_WIDTH + 1, TILE_WIDTH):
        row = hashes[at : at + TILE_WIDTH]
        while len(row) > 1:
            row = [branch_hash(row[left], row[left + 1]) for left in range(0, len(row), 2)]
        roots += row
    return roots


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 600, 65_536, 65_793])
def test_tiles_of_every_level_hold_the_hashes_below_whole_ones_and_the_rest_is_partial(count: int) -> None:
    files, expected, hashes, level = _files(count, 128), dict[str, bytes](), [leaf_hash(leaf) for leaf in _leaves(count)], 0
    while hashes:
        for at in range(0, len(hashes), TILE_WIDTH):
            row, number = hashes[at : at + TILE_WIDTH], at // TILE_WIDTH
            partial = "" if len(row) == TILE_WIDTH else f".p/{len(row)}"
            expected[f"tile/{level}/{number:03}{partial}"] = b"".join(row)
        hashes, level = _level(hashes), level + 1
    assert {path: data for path, data in files.items() if "entries" not in path} == expected
    bundles = {tile.path: tile.width for tile in entry_tiles(count)}
    assert {path for path in files if "entries" in path} == set(bundles)
    assert [leaf for path, width in bundles.items() for leaf in entries_in(files[path], width)] == _leaves(count)


def test_how_records_come_makes_no_difference() -> None:
    assert _files(700, 1) == _files(700, 128) == _files(700, 700)


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x02a", b"\x00\x01a", b"\x00\x01a\x00\x01b\x00\x01c", b"\x00\x01a\x00\x01b\x00"])
def test_a_bundle_that_holds_more_or_less_than_it_should_is_none(data: bytes) -> None:
    with refuses("malformed"):
        entries_in(data, 2)
