"""An auditor's file is the old one or the new one, and rot in it is an alarm, never a fresh start."""

from pathlib import Path

import msgspec
import pytest

from mesh.adapters.auditstore import AuditStore
from mesh.errors import Alarm, Unavailable
from mesh.protocol.alarms import NOTHING, kept_of
from mesh.protocol.audited import AuditPosition, Finding, LogPosition
from mesh.protocol.progress import IDLE

LOG = LogPosition(
    origin="lab/eu-1/e1",
    size=1,
    hashes=["ab" * 32],
    last_ms=5,
    epoch=1,
    certified=1,
    match=1,
    mismatch=0,
    breakglass=0,
    unverifiable=0,
    pruned=0,
    pace=IDLE,
)
FOUND = Finding(code="replay_mismatch", origin="lab/eu-1/e1", index=0, detail="permit recorded, deny replayed")
POSITION = AuditPosition(mesh="lab", roster="cd" * 32, logs=[LOG], findings=[FOUND], found=1, watched=kept_of(NOTHING))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auditor" / "audit.json"


def _saved(path: Path, position: AuditPosition = POSITION) -> str:
    store = AuditStore.open(path)
    store.save(position)
    store.close()
    return store.reader


def test_what_was_saved_is_there_after_opening_again(path: Path) -> None:
    first = AuditStore.open(path)
    assert first.position is None
    first.close()
    _saved(path, msgspec.structs.replace(POSITION, found=7))
    reader = _saved(path)
    store = AuditStore.open(path)
    assert (store.position, store.reader) == (POSITION, reader)
    store.close()
    store.close()


def test_each_file_names_a_reader_of_its_own(tmp_path: Path) -> None:
    assert _saved(tmp_path / "a") != _saved(tmp_path / "b")
    assert _saved(tmp_path / "a") == _saved(tmp_path / "a")


def test_one_process_at_a_time(path: Path) -> None:
    store = AuditStore.open(path)
    with pytest.raises(Unavailable) as caught:
        AuditStore.open(path)
    assert caught.value.code == "storage_failed"
    store.close()
    AuditStore.open(path).close()


def test_every_changed_byte_is_an_alarm(path: Path) -> None:
    _saved(path)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(Alarm) as caught:
            AuditStore.open(path)
        assert caught.value.code == "storage_corrupt"
    path.write_bytes(data)
    AuditStore.open(path).close()


def test_a_save_that_broke_off_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _saved(path)
    store = AuditStore.open(path)

    def broken(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(Unavailable) as caught:
        store.save(msgspec.structs.replace(POSITION, found=9))
    assert caught.value.code == "storage_failed"
    monkeypatch.undo()
    store.close()
    again = AuditStore.open(path)
    assert again.position == POSITION
    again.save(msgspec.structs.replace(POSITION, found=9))
    again.close()


def test_a_place_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable) as caught:
        AuditStore.open(tmp_path / "file" / "audit.json")
    assert caught.value.code == "storage_failed"


def test_the_file_is_nobody_elses(path: Path) -> None:
    _saved(path)
    assert path.stat().st_mode & 0o077 == 0
