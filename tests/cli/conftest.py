"""A desk of one's own for every test of revoking or of policy."""

from pathlib import Path

import pytest

from tests.cli.lawmesh import Desk
from tests.cli.policymesh import PolicyDesk
from tests.cli.rosterdesk import RosterDesk
from tests.cli.shell import Shell
from tests.support.proofs import Happened, happened


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(happened(), monkeypatch, capsys)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A mesh that the test may break."""
    return Shell(Happened(), monkeypatch, capsys)


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> PolicyDesk:
    return PolicyDesk(tmp_path, monkeypatch, capsys)


@pytest.fixture
def rosters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RosterDesk:
    return RosterDesk(tmp_path, monkeypatch, capsys)
