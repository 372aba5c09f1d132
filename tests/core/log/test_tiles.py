"""A tile has one path, and only a log that has it whole has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_scales.tiles import tile_path

from mesh.core.log.tiles import Tile, entry_bundle, tile_of
from tests.core.kit import refuses


@given(st.integers(-1, 63), st.integers(0, 10**17 - 1), st.integers(1, 256))
def test_a_path_is_the_one_that_others_make_and_is_read_back(level: int, number: int, width: int) -> None:
    tile = Tile(max(level, 0), number, width, level < 0)
    assert tile.path == "/".join(tile_path(level, number, width % 256))
    assert tile_of(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        *("", "checkpoint", "tile", "tile/0", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/00/000", "tile/64/000", "tile/-1/000"),
        *("tile/0/x000/001", "tile/0/001/002", "tile/0/x001", "tile/0/x001/x002", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01"),
        *(
            "tile/0/000.p/",
            "tile/0/000.p",
            "tile/0/000/",
            "/tile/0/000",
            "tile/0/\u0660\u0660\u0660",
            "tile/entries/",
            "tile/data/000",
            "tile/0/000\n",
        ),
        "tile/0/" + "x001/" * 6 + "001",
    ],
)
def test_another_spelling_is_no_path(path: str) -> None:
    with refuses("malformed"):
        tile_of(path)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("tile/0/000", 256),
        ("tile/0/001.p/1", 257),
        ("tile/1/000.p/17", 17 * 256),
        ("tile/2/000.p/1", 65_536),
        ("tile/entries/273.p/112", 70_000),
    ],
)
def test_a_tile_says_how_long_a_log_must_be(path: str, end: int) -> None:
    assert tile_of(path).end == end


def test_a_bundle_is_each_entry_behind_its_length() -> None:
    assert entry_bundle([b"", b"a", bytes(65_535)]) == b"\x00\x00" + b"\x00\x01a" + b"\xff\xff" + bytes(65_535)
