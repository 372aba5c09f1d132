"""A real nats-server as a child: ready when :meth:`NatsServer.start` returns, gone when we are.

Rules
-----
1. The binary is ``MESH_NATS_SERVER``, else the one beside this Python (extra ``embedded``), else the PATH's; older than 2.14
   is refused: it has known ways around its own authorization (advisories.nats.io, 2026).
2. It listens on loopback, on ports the kernel chose; we read them from its ports file and never guess. A configuration
   may say anything else.
3. Ready means that ``/healthz`` said so. Its log and store stand in the data folder it was given, never in a default one.
4. It dies with us, even after kill -9 (:mod:`mesh.adapters.launcher`); :meth:`NatsServer.stop` asks first and then insists.

Not here: what its configuration says (rendered by ``mesh.deploy``), and streams (:mod:`mesh.adapters.streams`).
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from mesh.adapters import launcher
from mesh.errors import Refused, Unavailable

__all__ = ["NatsServer", "find"]

_VERSION_MIN: Final = (2, 14)
_VERSION: Final = re.compile(r"nats-server: v(\d+)\.(\d+)\.(\d+)")
_VERSION_WAIT_S: Final = 10.0
_POLL_S: Final = 0.003
_HTTP_WAIT_S: Final = 1.0
_LOG_TAIL_CHARS: Final = 400


def find() -> Path:
    """The nats-server to use (rule 1).

    Raises:
        Refused: ``server_unusable``.
    """
    named = os.environ.get("MESH_NATS_SERVER")
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    path = Path(named) if named else beside if beside.exists() else Path(shutil.which("nats-server") or "")
    if not path.is_file():
        raise Refused("server_unusable", f"no program at {path}" if named else "not installed")
    version = _version(path)
    if version < _VERSION_MIN:
        raise Refused("server_unusable", f"{path} is {'.'.join(map(str, version))}, needed is 2.14 or newer")
    return path


class _Ports(NamedTuple):
    url: str
    monitor_url: str


class NatsServer:
    """A running nats-server; also a context manager that stops it."""

    def __init__(self, process: "subprocess.Popen[bytes]", ports: _Ports) -> None:
        self._process = process
        self.pid: int = process.pid
        self.url: str = ports.url
        """Where clients connect: ``nats://127.0.0.1:PORT``."""
        self.monitor_url: str = ports.monitor_url
        """Its HTTP monitoring: ``http://127.0.0.1:PORT``."""

    @classmethod
    def start(cls, data: Path, *, config: str | Path | None = None, port: int = -1, wait_ms: int = 10_000) -> Self:
        """Start a server with JetStream and wait until it is ready. Call it on the main thread.

        Args:
            data: a folder for its store, log, ports file, and for ``config`` when that is text; made if missing.
            config: a configuration file, or the text of one.
            port: of the clients; -1 takes a free one, a number is for a server that comes back where it was.
            wait_ms: how long it may take to become ready.

        Raises:
            Refused: ``server_unusable``, with the end of its log, when it is not there, too old, or ended at once.
            Unavailable: ``server_unusable`` when it is not ready in time.
        """
        binary = find()
        data.mkdir(parents=True, exist_ok=True)
        for stale in data.glob("nats-server_*.ports"):  # of a killed one; our child could be given that pid again
            stale.unlink(missing_ok=True)
        argv = [
            str(binary),
            "-a",
            "127.0.0.1",
            "-p",
            str(port),
            "-m",
            "-1",
            "--ports_file_dir",
            str(data),
            "-js",
            "-sd",
            str(data / "store"),
        ]
        if config is not None:
            argv += ["-c", str(_config_file(data, config))]
        log = data / "nats-server.log"
        with log.open("ab") as sink:
            process = launcher.spawn(argv, stdin=subprocess.DEVNULL, stdout=sink.fileno(), stderr=sink.fileno())
        try:
            return cls(process, _ready(process, data, log, wait_ms))
        except BaseException:
            _end(process, 0)
            raise

    @property
    def running(self) -> bool:
        """Whether the process still is."""
        return self._process.poll() is None

    def stop(self, *, grace_ms: int = 5_000) -> None:
        """End it: SIGTERM, and after ``grace_ms`` SIGKILL. Idempotent."""
        _end(self._process, grace_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


@cache
def _version(path: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_WAIT_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeError) as error:
        raise Refused("server_unusable", f"{path}: {error}") from None
    found = _VERSION.search(done.stdout)
    if found is None:
        raise Refused("server_unusable", f"{path} is no nats-server")
    return tuple(int(part) for part in found.groups())


def _config_file(data: Path, config: str | Path) -> Path:
    if isinstance(config, Path):
        return config
    path = data / "nats.conf"
    path.touch(mode=0o600)  # it may hold passwords
    path.write_text(config)
    return path


def _ready(process: "subprocess.Popen[bytes]", data: Path, log: Path, wait_ms: int) -> _Ports:
    end = time.monotonic() + wait_ms / 1000
    ports: _Ports | None = None
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Refused("server_unusable", f"it ended at once: {_tail(log)}")
        ports = ports or _ports(data / f"nats-server_{process.pid}.ports")
        if ports is not None and _healthy(ports.monitor_url):
            return ports
        time.sleep(_POLL_S)
    raise Unavailable("server_unusable", f"not ready within {wait_ms} ms: {_tail(log)}")


def _ports(path: Path) -> _Ports | None:
    try:
        found = json.loads(path.read_bytes())
        return _Ports(found["nats"][0], found["monitoring"][0])
    except (OSError, ValueError, KeyError, IndexError):  # not there yet, or half written
        return None


def _healthy(monitor_url: str) -> bool:
    where = urlsplit(monitor_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_HTTP_WAIT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_TAIL_CHARS:].strip()


def _end(process: "subprocess.Popen[bytes]", grace_ms: int) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM if grace_ms else signal.SIGKILL)
    try:
        process.wait(grace_ms / 1000 if grace_ms else None)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
