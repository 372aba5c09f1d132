"""A witness goes on by nothing less than it knew, and by nothing that was never made durable."""

import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.cli import run
from mesh.errors import Unavailable
from tests.adapters.storekit import child
from tests.roles.witnesskit import begin, configure, history, post, running, until
from tests.support.foreign import ForeignLog

# ------------------------------------------------------------------------------------------------------- what it forgot


def _empty(data: Path, _old: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


def _older(data: Path, old: Path) -> None:
    shutil.rmtree(data)
    shutil.copytree(old, data)


def _no_bytes(data: Path, _old: Path) -> None:
    _empty(data, _old)
    (data / "witness.db").touch()


LOST: dict[str, Callable[[Path, Path], None]] = {
    "the folder is gone": lambda data, _old: shutil.rmtree(data),
    "an empty disk is mounted there": _empty,
    "the file is empty": _no_bytes,
    "an older copy was put back": _older,
}


async def _commit(*_arguments: Any, **_more: Any) -> None:
    raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize("what", LOST)
async def test_a_witness_that_finds_less_than_it_knew_signs_no_second_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    log, fork = ForeignLog(tmp_path / "log"), ForeignLog(tmp_path / "fork")  # one key, one origin, other leaves
    config, data, old = configure(tmp_path, log.vkey), tmp_path / "data", tmp_path / "old"
    one, two, three = history(log, 2, 5, 9)
    (other,) = history(fork, 5)
    await begin(config)
    shutil.copytree(data, old)
    async with running(config) as (node, url):
        assert (await post(url, one)).status == 200
        assert (await post(url, two)).status == 200
        assert node._store is not None
        with monkeypatch.context() as patch:
            patch.setattr(node._store._file._writer, "commit", _commit)
            LOST[what](data, old)
            assert (await post(url, three)).status == 503
        if LOST[what] is _older:
            await until(lambda: node._fatal is not None)
            assert node._fatal is not None
            assert node._fatal.code == "storage_rolled_back"
            return
        for body in (other, three):
            assert (await post(url, body)).status == 503
        assert node._cosigned[log.origin].head.size == 5


@pytest.mark.parametrize("what", ["missing", "empty"])
async def test_a_witness_without_its_file_does_not_start_and_makes_none(tmp_path: Path, what: str) -> None:
    config = configure(tmp_path, ForeignLog(tmp_path / "log").vkey)
    path = tmp_path / "data" / "witness.db"
    if what == "empty":
        path.parent.mkdir()
        path.touch()
    with pytest.raises(Unavailable, match="mesh witness init"):
        async with running(config, first=False):
            pytest.fail("it has forgotten everything and answers")
    assert not path.exists() or path.stat().st_size == 0


def test_the_file_is_made_once_and_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(configure(tmp_path, ForeignLog(tmp_path / "log").vkey))
    assert run(["witness", "evidence", "--config", config]) == 1
    assert "mesh witness init" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    elsewhere = tmp_path / "elsewhere.key"
    (tmp_path / "witness.key").rename(elsewhere)
    assert run(["witness", "init", "--config", config, "--key", str(elsewhere)]) == 0
    assert run(["witness", "init", "--config", config, "--key", str(elsewhere)]) == 3
    elsewhere.rename(tmp_path / "witness.key")
    assert run(["witness", "evidence", "--config", config]) == 0


# -------------------------------------------------------------------------------------------------- what was never durable

UNSYNCED = """
import asyncio, ctypes, json, platform, sys
from pathlib import Path
from tests.roles.witnesskit import post, running

def fail_every_sync():
    "From here on the kernel answers fsync and fdatasync of this process with EIO, without doing them."
    numbers = {"x86_64": (74, 75), "aarch64": (82, 83)}[platform.machine()]
    class Line(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32)]
    class Program(ctypes.Structure):
        _fields_ = [("count", ctypes.c_uint16), ("lines", ctypes.POINTER(Line))]
    lines = (Line * 5)(Line(0x20, 0, 0, 0), Line(0x15, 2, 0, numbers[0]), Line(0x15, 1, 0, numbers[1]), Line(0x06, 0, 0, 0x7FFF0000),
        Line(0x06, 0, 0, 0x00050005))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    assert libc.syscall(number, 1, 1, ctypes.byref(Program(5, lines))) == 0, ctypes.get_errno()  # SECCOMP_SET_MODE_FILTER, all threads

async def main(config, bodies):
    statuses = []
    async with running(config) as (node, url):
        statuses.append((await post(url, bodies[0])).status)
        fail_every_sync()
        for body in bodies[1:]:
            statuses.append((await post(url, body)).status)
            await asyncio.sleep(1.2)  # it has tried to open the file again
    print(json.dumps(statuses))

folder = Path(sys.argv[1])
asyncio.run(main(folder / "data.toml", [(folder / str(number)).read_bytes() for number in range(4)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="failing fsync is asked of the Linux kernel")
def test_nothing_is_signed_that_the_disk_never_took(tmp_path: Path) -> None:
    log = ForeignLog(tmp_path / "log")
    configure(tmp_path, log.vkey)
    first, second = history(log, 2, 5)
    for number, body in enumerate([first, second, second, log.ask(5)]):
        (tmp_path / str(number)).write_bytes(body)
    process = child(UNSYNCED, str(tmp_path))
    said, complaints = process.communicate(timeout=60)
    assert said.strip() == "[200, 503, 503, 503]", complaints
