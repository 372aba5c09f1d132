"""A real nats-server as a child."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mesh.adapters import natsserver
from mesh.adapters.natsserver import NatsServer
from mesh.errors import Refused, Unavailable

ROOT = Path(natsserver.__file__).parents[2]
PARENT = """
import sys, time
from pathlib import Path
from mesh.adapters.natsserver import NatsServer
server = NatsServer.start(Path(sys.argv[1]))
print(server.pid, flush=True)
time.sleep(300)
"""


def gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def fake(tmp_path: Path, script: str) -> Path:
    path = tmp_path / "fake-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def greeting(url: str) -> bytes:
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=5) as link:
        return link.recv(4)


def varz(server: NatsServer) -> dict[str, Any]:
    with urllib.request.urlopen(server.monitor_url + "/varz", timeout=5) as answer:  # noqa: S310 -- our own loopback server
        found: dict[str, Any] = json.load(answer)
        return found


def test_it_is_ready_on_loopback_when_start_returns_and_gone_after_stop(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path / "n") as server:
        assert urlsplit(server.url).hostname == "127.0.0.1"
        assert greeting(server.url) == b"INFO"
        assert "store_dir" in varz(server)["jetstream"]["config"]
        assert server.running
    assert not server.running
    assert gone(server.pid)
    server.stop()


def test_its_store_and_log_stand_where_it_was_told(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path / "n"):
        assert (tmp_path / "n" / "store" / "jetstream").is_dir()
        assert "Server is ready" in (tmp_path / "n" / "nats-server.log").read_text()


def test_two_servers_do_not_meet(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path / "a") as a, NatsServer.start(tmp_path / "b") as b:
        assert a.url != b.url


def test_a_configuration_is_taken_as_text_or_as_a_file_but_loopback_stays(tmp_path: Path) -> None:
    text = 'server_name: mine\nlisten: "0.0.0.0:4222"\n'
    path = tmp_path / "given.conf"
    path.write_text(text)
    for config in (text, path):
        with NatsServer.start(tmp_path / "n", config=config) as server:
            assert urlsplit(server.url).hostname == "127.0.0.1"
            assert varz(server)["server_name"] == "mine"
    assert (tmp_path / "n" / "nats.conf").stat().st_mode & 0o077 == 0


def test_a_server_comes_back_on_the_port_it_had(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path / "n") as server:
        url = server.url
        os.kill(server.pid, signal.SIGKILL)
        assert gone(server.pid)
    with NatsServer.start(tmp_path / "n", port=urlsplit(url).port or 0) as again:
        assert again.url == url


def test_the_ports_of_a_killed_server_are_not_taken_for_those_of_the_next(tmp_path: Path) -> None:
    stale = tmp_path / "nats-server_1.ports"
    stale.write_text('{"nats":["nats://127.0.0.1:1"],"monitoring":["http://127.0.0.1:1"]}')
    with NatsServer.start(tmp_path):
        assert not stale.exists()


def test_a_bad_configuration_is_refused_with_what_the_server_says(tmp_path: Path) -> None:
    with pytest.raises(Refused) as no:
        NatsServer.start(tmp_path / "n", config="no_such_field: {")
    assert no.value.code == "server_unusable"
    assert "Parse error on line 1" in no.value.detail


def test_it_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "n")], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert gone(server)


def test_a_stopped_server_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path) -> None:
    server = NatsServer.start(tmp_path / "n")
    os.kill(server.pid, signal.SIGSTOP)
    server.stop(grace_ms=50)
    assert gone(server.pid)


@pytest.mark.parametrize(
    ("script", "says"),
    [("echo 'nats-server: v2.9.10'", "2.9.10"), ("echo 'nats-server: v1.99.0'", "1.99.0"), ("echo hello", "no nats-server")],
)
def test_an_old_server_or_another_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str) -> None:
    monkeypatch.setenv("MESH_NATS_SERVER", str(fake(tmp_path, script)))
    with pytest.raises(Refused) as no:
        NatsServer.start(tmp_path / "n")
    assert no.value.code == "server_unusable"
    assert says in no.value.detail


def test_the_named_server_is_used_or_refused_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_NATS_SERVER", str(tmp_path / "missing"))
    with pytest.raises(Refused) as no:
        natsserver.find()
    assert no.value.code == "server_unusable"
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x7fELF")
    garbage.chmod(0o755)
    monkeypatch.setenv("MESH_NATS_SERVER", str(garbage))
    with pytest.raises(Refused) as no:
        natsserver.find()
    assert no.value.code == "server_unusable"


def test_without_a_name_it_is_the_one_beside_this_python_then_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESH_NATS_SERVER", raising=False)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(scripts))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(Refused) as no:
        natsserver.find()
    assert no.value.detail == "not installed"
    on_path = tmp_path / "bin"
    on_path.mkdir()
    fake(on_path, "echo 'nats-server: v2.14.0'").rename(on_path / "nats-server")
    monkeypatch.setenv("PATH", f"{on_path}:/usr/bin:/bin")
    assert natsserver.find() == on_path / "nats-server"
    fake(scripts, "echo 'nats-server: v3.0.0'").rename(scripts / "nats-server")
    assert natsserver.find() == scripts / "nats-server"


def test_a_server_that_never_gets_ready_is_ended_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'test "$1" = --version && echo "nats-server: v2.15.1" && exit; echo $$ > "$0.pid"; exec sleep 300'
    monkeypatch.setenv("MESH_NATS_SERVER", str(fake(tmp_path, script)))
    with pytest.raises(Unavailable) as no:
        NatsServer.start(tmp_path / "n", wait_ms=300)
    assert no.value.code == "server_unusable"
    assert gone(int((tmp_path / "fake-server.pid").read_text()))
