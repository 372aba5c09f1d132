"""A mesh of one on this machine: real keys, real policy, a real nats-server, the governor in a process of its own.

Not here: what is measured in it.
"""

import asyncio
import secrets
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from mesh.adapters import launcher
from mesh.adapters.bus import Bus
from mesh.adapters.bus_options import BusOptions
from mesh.adapters.clock import wall_ms
from mesh.adapters.natsserver import NatsServer
from mesh.adapters.streams import provision
from mesh.bench.cores import Cores
from mesh.deploy.devmesh import DevMeshFiles, Principal, create, point_at
from mesh.errors import Unavailable
from mesh.gate.context import Context, load_context

__all__ = ["ENFORCER", "WORKLOAD", "Setting", "mesh_of_one", "started"]

WORKLOAD: Final = "billing"
ENFORCER: Final = "gate"
_POLICY: Final = Path(__file__).resolve().parents[1] / "dev" / "policies" / "payments"
_READY_S: Final = 30.0
_STOP_S: Final = 15.0
_POLL_S: Final = 0.01


class Setting(msgspec.Struct, frozen=True):
    """Where everything is while it runs."""

    files: DevMeshFiles
    context: Context
    server: str
    cores: Cores
    governor: int
    """Process id."""

    @property
    def node(self) -> Path:
        """The one governor's configuration."""
        return self.files.node(self.files.nodes[0])


@contextmanager
def mesh_of_one(folder: Path, cores: Cores, *, profile: Path | None = None) -> Generator[Setting]:
    """Make a mesh in the empty ``folder`` and run it. Call it on the main thread.

    Args:
        folder: stays behind.
        cores: the governor goes to ``measured``; the caller is already where the rest belongs.
        profile: where the governor leaves a profile of itself when it ends.

    Raises:
        Refused: ``server_unusable``.
        Unavailable: what did not start in time.
    """
    files = create(
        folder,
        policies=[_POLICY],
        principals=[
            Principal(
                name=WORKLOAD,
                subject="spiffe://dev/agent/billing",
                groups=["payers"],
                person="alice",
                attributes={"limit_cents": 50_000},
            )
        ],
        enforcer=Principal(name=ENFORCER, subject="spiffe://dev/enforcer/gate", role="enforcer", enforcer_class="in-process"),
        nodes=1,
        random=secrets.token_bytes,
        now_ms=wall_ms(),
    )
    with NatsServer.start(folder / "bus", config=files.bus_config) as server:
        point_at(files, [server.url])
        asyncio.run(_provision(server.url, files))
        config = str(files.node(files.nodes[0]))
        wanted = ["governor", str(cores.measured), config, *([str(profile)] if profile else [])]
        with started(wanted, folder / "governor.log") as process:
            yield Setting(files, load_context(str(files.context)), server.url, cores, process.pid)


@contextmanager
def started(arguments: Sequence[str], log: Path) -> Generator["subprocess.Popen[bytes]"]:
    """A :mod:`mesh.bench.child` that has said ``ready``; asked to end afterwards, and waited for.

    Raises:
        Unavailable: ``not_started``, with the end of its log.
    """
    with log.open("wb") as sink:
        process = launcher.spawn([sys.executable, "-m", "mesh.bench.child", *arguments], stderr=sink.fileno())
    try:
        end = time.monotonic() + _READY_S
        while b"ready " not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > end:
                raise Unavailable("unavailable", f"{arguments[0]} did not start: {log.read_text(errors='replace')[-300:].strip()}")
            time.sleep(_POLL_S)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _provision(server: str, files: DevMeshFiles) -> None:
    async with await Bus.connect(BusOptions(servers=(server,), name="provisioner", nkey_file=str(files.provisioner))) as bus:
        await provision(bus, files.regions)
