"""The file of a reader of advances is the old one or the new one, and rot in it is an alarm."""

from pathlib import Path

import pytest

from mesh.adapters.tailstore import TailStore
from mesh.errors import Alarm, Unavailable
from mesh.protocol.advancing import Reached

REACHED = [Reached(origin="lab/eu-1/e1", recorded=9, witnessed=5, final=3), Reached(origin="lab/us-1/e1", recorded=2)]


def _saved(path: Path) -> str:
    store = TailStore.open(path)
    store.save(REACHED)
    store.close()
    return store.reader


def test_what_was_saved_is_there_after_opening_again_under_the_same_name(tmp_path: Path) -> None:
    first = TailStore.open(tmp_path / "tail")
    assert first.reached == {}
    first.close()
    assert first.reader == _saved(tmp_path / "tail"), "its name is kept before anybody hears it"
    store = TailStore.open(tmp_path / "tail")
    assert store.reached == {one.origin: one for one in REACHED}
    store.close()
    store.close()
    assert _saved(tmp_path / "other") != first.reader


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = TailStore.open(tmp_path / "tail")
    with pytest.raises(Unavailable, match="storage_failed"):
        TailStore.open(tmp_path / "tail")
    store.close()
    TailStore.open(tmp_path / "tail").close()


def test_every_changed_byte_is_an_alarm_and_so_is_a_file_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "tail"
    _saved(path)
    data = path.read_bytes()
    for changed in (*(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))), b"", data[:-1]):
        path.write_bytes(changed)
        with pytest.raises(Alarm, match=r"storage_corrupt.*name a file that is not there yet"):
            TailStore.open(path)
    path.write_bytes(data)
    TailStore.open(path).close()


def test_a_place_that_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="storage_failed"):
        TailStore.open(tmp_path / "nowhere" / "tail")
