"""A witness of ours that runs, in this process or as one of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.adapters import signer
from mesh.adapters.httpclient import Reply, ask
from mesh.roles.witness import WitnessNode, open_store
from mesh.roles.witness_config import load_witness_config
from tests.support.foreign import ForeignLog

__all__ = ["Process", "begin", "configure", "history", "post", "running", "until"]

ROOT = Path(__file__).resolve().parents[2]


def configure(folder: Path, *logs: str, name: str = "witness.example/w1", data: str = "data", more: str = "") -> Path:
    """A configuration in ``folder``, and a key if there is none yet."""
    folder.mkdir(exist_ok=True)
    if not (folder / "witness.key").exists():
        signer.generate(folder / "witness.key", "witness", bytes(range(32)))
    keys = ", ".join(f'"{log}"' for log in logs)
    text = f'logs = [{keys}]\n{more}\n[witness]\nname = "{name}"\nkey = "witness.key"\ndata = "{data}"\nlisten = "127.0.0.1:0"\n'
    path = folder / f"{data}.toml"
    path.write_text(text)
    return path


async def begin(config: Path) -> None:
    """Make its file, if there is none."""
    settings = load_witness_config(config)
    if not (settings.path(settings.witness.data) / "witness.db").exists():
        await (await open_store(settings, create=True)).close()


@asynccontextmanager
async def running(config: Path, *, first: bool = True) -> AsyncIterator[tuple[WitnessNode, str]]:
    """The witness of that configuration, and its address; ``first`` makes its file if there is none."""
    if first:
        await begin(config)
    node = WitnessNode(load_witness_config(config), lambda _name: None)
    ready = asyncio.Event()
    task = asyncio.create_task(node.run(ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    try:
        yield node, f"http://127.0.0.1:{node.port}"
    finally:
        node.stop()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never became so")


async def post(url: str, body: bytes) -> Reply:
    return await ask(f"{url}/add-checkpoint", method="POST", body=body, wait_ms=5_000, bytes_max=100_000)


class Process:
    """A witness started with the command, as an operator does."""

    def __init__(self, config: Path, *, failpoint: str = "") -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "MESH_FAILPOINT": failpoint}
        asyncio.run(begin(config))
        command = [sys.executable, "-m", "mesh.cli", "witness", "run", "--config", str(config)]
        self._process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        self.said = ""
        self.port = 0
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said += line
            if line.startswith("ready "):
                self.port = int(line.split()[2])
                break
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self, number: int = signal.SIGTERM) -> int:
        """How it ended; negative for a signal."""
        if self._process.poll() is None and number:
            self._process.send_signal(number)
        self.said += self._process.communicate(timeout=20)[1]
        return self._process.returncode


def history(log: ForeignLog, *sizes: int) -> list[bytes]:
    """Requests that follow one another as that log grows."""
    bodies, before = list[bytes](), 0
    for size in sizes:
        log.grow(size - before)
        bodies.append(log.ask(before))
        before = size
    return bodies
