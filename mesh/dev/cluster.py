"""A whole mesh as child processes: one nats-server, one process per governor, files in one folder; nothing outlives the parent.

Rules
-----
1. Children are started from the main thread through the launcher, so that none survives even a kill -9 of this process.
2. A node is ready when its log says so; one that ends before is reported with the last lines of that log.
3. The bus listens on a free port of its own choosing, and on the same one again after a restart.

Not here: what is shown with it (:mod:`mesh.dev.story`).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from mesh.adapters import launcher
from mesh.adapters.bus import Bus
from mesh.adapters.bus_options import BusOptions
from mesh.adapters.natsserver import NatsServer
from mesh.adapters.streams import provision
from mesh.deploy.devmesh import DevMeshFiles, enlisted, point_at
from mesh.errors import Unavailable

__all__ = ["Cluster"]

_READY_S: Final = 30.0
_POLL_S: Final = 0.01
_STOP_S: Final = 10.0
_GOVERNOR: Final = ("mesh.cli", "node", "run", "--config")


class Cluster:
    """The running processes of a mesh; also a context manager that ends them all."""

    def __init__(self, files: DevMeshFiles, *, env: Mapping[str, str] | None = None) -> None:
        """Prepare for the mesh in ``files``; ``env`` is added to the nodes' environment."""
        self.files = files
        self.server: NatsServer | None = None
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._env = {**os.environ, **(env or {})}
        self._port = -1

    @property
    def url(self) -> str:
        """Where clients connect."""
        if self.server is None:
            raise Unavailable("unreachable", "the bus is not running")
        return self.server.url

    # ------------------------------------------------------------------------------------------------------------- bus

    def start_bus(self) -> None:
        """Start the nats-server, on the former port if it ran before, and tell every configuration where it is."""
        self.server = NatsServer.start(self.files.folder / "bus", config=self.files.bus_config, port=self._port)
        port = urlsplit(self.server.url).port or -1
        if port != self._port:
            self._port = port
            point_at(self.files, [self.server.url])

    def kill_bus(self) -> None:
        """End the nats-server as a power cut would: kill -9."""
        if self.server is not None:
            os.kill(self.server.pid, signal.SIGKILL)
            self.server.stop(grace_ms=0)

    async def provision(self) -> None:
        """Make the streams: what a region's operator does before any node starts."""
        options = BusOptions(servers=(self.url,), name="provisioner", nkey_file=str(self.files.provisioner))
        async with await Bus.connect(options) as bus:
            await provision(bus, self.files.regions)

    # ----------------------------------------------------------------------------------------------------------- nodes

    def start(
        self, names: Iterable[str] | None = None, *, env: Mapping[str, str] | None = None, program: Sequence[str] = _GOVERNOR
    ) -> None:
        """Start the nodes, all that a roster names by default, and wait until each is ready.

        Args:
            names: which.
            env: added to their environment.
            program: the module, and its arguments before the configuration.

        Raises:
            Unavailable: ``unreachable``, with the end of its log, for a node that is not.
        """
        wanted = list(names) if names is not None else [*self.files.nodes, *filter(partial(enlisted, self.files), self.files.spares)]
        marks = {name: self._spawn(name, env or {}, program) for name in wanted}
        deadline = time.monotonic() + _READY_S
        for name, mark in marks.items():
            while not self._ready(name, mark):
                if self.nodes[name].poll() is not None or time.monotonic() > deadline:
                    raise Unavailable("unreachable", f"{name} did not start: {self.log_tail(name)}")
                time.sleep(_POLL_S)

    def kill(self, name: str) -> None:
        """End a node as a power cut would: kill -9."""
        self.nodes[name].kill()
        self.nodes[name].wait()

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Drain nodes, all by default; one that does not end in time is killed."""
        wanted = [self.nodes[name] for name in (names if names is not None else self.nodes) if name in self.nodes]
        for process in wanted:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in wanted:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a node: SIGSTOP and SIGCONT freeze and thaw it."""
        self.nodes[name].send_signal(number)

    def alive(self, name: str) -> bool:
        """Whether the node's process runs."""
        return name in self.nodes and self.nodes[name].poll() is None

    def log(self, name: str) -> Path:
        """Where a node's standard error goes."""
        return self.files.folder / "nodes" / name / "node.log"

    def log_tail(self, name: str) -> str:
        """The last lines of a node's log."""
        with suppress(OSError):
            return " | ".join(self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        return "no log"

    def close(self) -> None:
        """End everything, nodes first."""
        self.stop()
        if self.server is not None:
            self.server.stop()

    def __enter__(self) -> Self:
        """Nothing is started by entering."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything."""
        self.close()

    def _spawn(self, name: str, env: Mapping[str, str], program: Sequence[str]) -> int:
        path = self.log(name)
        mark = path.stat().st_size if path.exists() else 0
        argv = [sys.executable, "-m", *program, str(self.files.node(name))]
        with path.open("ab") as sink:
            self.nodes[name] = launcher.spawn(
                argv, env={**self._env, **env}, stdin=subprocess.DEVNULL, stdout=sink.fileno(), stderr=sink.fileno()
            )
        return mark

    def _ready(self, name: str, mark: int) -> bool:
        with self.log(name).open("rb") as file:
            file.seek(mark)
            return f"ready {name}\n".encode() in file.read()
