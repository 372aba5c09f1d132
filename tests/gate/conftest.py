"""A lab, its bus, a core on it, and a gate on a thread of its own."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from mesh.gate.core import Core
from mesh.gate.front import Gate
from mesh.gate.hall import Hall
from tests.gate.wire import FakeBus, FakeTime, opened
from tests.support.factory import Lab


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def bus(lab: Lab) -> FakeBus:
    return FakeBus(lab, FakeTime())


@pytest.fixture
async def core(lab: Lab, bus: FakeBus, tmp_path: Path) -> AsyncIterator[Core]:
    opened_core = await opened(lab, bus, tmp_path / "spent.db")
    yield opened_core
    await opened_core.close(wait_ms=500)


@pytest.fixture
def gate(lab: Lab, bus: FakeBus, tmp_path: Path) -> Iterator[Gate]:
    hall = Hall("test-gate")
    opened_core = hall.wait(opened(lab, bus, tmp_path / "spent.db"))
    hall.at_exit(partial(opened_core.close, wait_ms=0))
    with Gate(hall, opened_core) as front:
        yield front
