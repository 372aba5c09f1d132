"""A desk of one's own for every test of revoking or of policy."""

from pathlib import Path

import pytest

from tests.cli.lawmesh import Desk
from tests.cli.policymesh import PolicyDesk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> PolicyDesk:
    return PolicyDesk(tmp_path, monkeypatch, capsys)
