"""A desk of whoever names the nodes: root and operator keys each in a folder of its own, and a little mesh that may be asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters import signer
from mesh.cli import roster_words as words
from mesh.core.bytes.canonical import Payload, sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Roster
from mesh.errors import Unavailable
from tests.cli.policymesh import PolicyDesk
from tests.support.factory import secret

__all__ = ["USES", "RosterDesk"]

USES = ("log", "witness", "attest", "decision")


class RosterDesk(PolicyDesk):
    """A desk for rosters."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, monkeypatch, capsys)
        self.roots = [self._apart(f"root {number}", "root") for number in range(3)]
        self.operator = self._apart("operator", "operator")
        self.ask = self._asked

    def _apart(self, name: str, use: str) -> Path:
        place = self.folder / f"desk-of-{name.replace(' ', '-')}"
        place.mkdir()
        return self.key_file(name, use=use).rename(place / f"{use}.key")

    async def _asked(self, member: str, message: Payload) -> bytes:
        """Who was named just now does not run yet."""
        if member not in self.mesh.nodes:
            raise Unavailable("unreachable", member)
        return await self.mesh.ask(member, message)

    def member(self, name: str, *uses: str) -> str:
        """A folder with new keys for a member, or with some of them."""
        folder = self.folder / f"keys-{name}"
        folder.mkdir(exist_ok=True)
        for use in uses or USES:
            signer.generate(folder / f"{use}.key", use, bytes.fromhex(sha256_hex(f"{name} {use}".encode())))
        return str(folder)

    def public(self, name: str, use: str) -> str:
        """The public half of a key of such a folder."""
        return signer.load(self.folder / f"keys-{name}" / f"{use}.key").key.public

    def public_of(self, name: str) -> str:
        """Some public key."""
        return secret(name).public

    def plan(self, *arguments: str) -> tuple[int, Any, str]:
        """`mesh roster …`: exit status, its object (None if it printed none), standard error."""
        status, out, err = self.run("-o", "json", "roster", *arguments)
        return status, json.loads(out) if out else None, err

    def made(self, *arguments: str) -> Statement[Roster]:
        """The roster that this command wrote."""
        status, shown, err = self.plan(*arguments)
        assert status == 0, err
        return words.read(self.folder / shown["file"])

    def seal(self, file: str, *keys: Path, before: str = "") -> Statement[Roster]:
        """Signed by these one after the other."""
        for key in keys:
            status, _, err = self.plan("sign", file, "--key", str(key), *(["--from", before] if before else []))
            assert status == 0, err
        return words.read(self.folder / file)
