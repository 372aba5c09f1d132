"""A mesh of governors in this process, and commands run against it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mesh.cli import client, run
from tests.support.proofs import Happened

__all__ = ["Shell"]


class Shell:
    """Runs commands against a little mesh."""

    def __init__(self, story: Happened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.story, self.capsys = story, capsys
        self.manifests: tuple[bytes, ...] = (story.lab.manifest_envelope,)
        self.ask: client.Ask = story.mesh.ask
        monkeypatch.setattr(client, "open_client", self.opened)

    @asynccontextmanager
    async def opened(self, name: str | None) -> AsyncIterator[tuple[client.MeshClient, client.Library]]:
        lab = self.story.lab
        library = client.Library(
            governance=lab.governance, manifests=self.manifests, bundles=(lab.bundle_bytes,), roster=lab.roster_envelope
        )
        yield client.MeshClient(self.ask, lab.governance), library

    def run(self, *arguments: str) -> tuple[int, str, str]:
        status = run(arguments)
        shown = self.capsys.readouterr()
        return status, shown.out, shown.err

    def json(self, *arguments: str) -> Any:
        status, out, err = self.run("-o", "json", *arguments)
        assert status == 0, err
        return json.loads(out)
