"""A desk of one's own for every test of revoking."""

from pathlib import Path

import pytest

from tests.cli.lawmesh import Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)
