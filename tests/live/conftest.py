"""One real mesh of four governors for all tests that do not harm it; a fresh one for those that do."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mesh.dev.cluster import Cluster
from tests.live.kit import Client, make_files


def _start(folder: Path, nodes: int) -> Cluster:
    cluster = Cluster(make_files(folder, nodes=nodes))
    cluster.start_bus()
    asyncio.run(cluster.provision())
    cluster.start()
    return cluster


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four governors that nobody may harm, and that are fresh: before, they rightly deny."""
    with _start(tmp_path_factory.mktemp("mesh"), 4) as cluster:
        asyncio.run(_fresh(cluster))
        yield cluster


async def _fresh(cluster: Cluster) -> None:
    client = await Client.connect(cluster.files.context)
    for name in cluster.files.nodes:
        await client.until_reachable(name)
        await client.until(name, "fresh", lambda status: status.fresh)
    await client.bus.close()


@pytest.fixture
def own_mesh(tmp_path: Path) -> Iterator[Cluster]:
    """Four governors of one's own."""
    with _start(tmp_path / "mesh", 4) as cluster:
        yield cluster


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Cluster]:
    """A mesh of one."""
    with _start(tmp_path / "mesh", 1) as cluster:
        yield cluster


@pytest.fixture
async def client(mesh: Cluster) -> AsyncIterator[Client]:
    """A client of the shared mesh."""
    connected = await Client.connect(mesh.files.context)
    yield connected
    await connected.bus.close()
