"""One real mesh of four governors for all tests that do not harm it; a fresh one for those that do."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.cli import run
from mesh.dev.cluster import Cluster
from tests.live.halves import Halves
from tests.live.kit import Client, Said, close_connections, make_files, make_payroll, until_fresh


def _start(folder: Path, nodes: int, *policies: Path) -> Cluster:
    cluster = Cluster(make_files(folder, nodes=nodes, policies=policies))
    cluster.start_bus()
    asyncio.run(cluster.provision())
    cluster.start()
    return cluster


@pytest.fixture(scope="session")
def payroll(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain of the shared mesh in which something is sealed: its policy, and ``finance.key`` of the auditor."""
    folder = tmp_path_factory.mktemp("payroll")
    make_payroll(folder)
    return folder


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, payroll: Path) -> Iterator[Cluster]:
    """Four governors that nobody may harm, and that are fresh: before, they rightly deny."""
    with _start(tmp_path_factory.mktemp("mesh"), 4, payroll / "payroll") as cluster:
        asyncio.run(until_fresh(cluster))
        yield cluster


@pytest.fixture
def own_mesh(tmp_path: Path) -> Iterator[Cluster]:
    """Four governors of one's own, that are fresh."""
    with _start(tmp_path / "mesh", 4) as cluster:
        asyncio.run(until_fresh(cluster))
        yield cluster


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[Halves]:
    """Five governors on two servers, none started yet."""
    made = Halves(tmp_path / "mesh")
    try:
        made.start_hub()
        asyncio.run(made.cluster.provision())
        yield made
    finally:
        made.close()


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Cluster]:
    """A mesh of one."""
    with _start(tmp_path / "mesh", 1) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
async def _no_connection_left() -> AsyncIterator[None]:
    """What a test that failed left open is closed here, or the next one would be blamed for it."""
    yield
    await close_connections()


@pytest.fixture
async def client(mesh: Cluster) -> AsyncIterator[Client]:
    """A client of the shared mesh."""
    connected = await Client.connect(mesh.files.context)
    yield connected
    await connected.bus.close()


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """A command about the mesh of this test: exit status, its object, standard error."""

    def command(*arguments: str) -> tuple[int, Any, str]:
        status = run(["--context", str(tmp_path / "mesh/context.toml"), "-o", "json", *arguments])
        shown = capsys.readouterr()
        return status, json.loads(shown.out) if shown.out else None, shown.err

    return command
