"""A little mesh whose governors also admit policies, and a desk with the keys of three policy signers, each in a folder of its own."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.cli import client
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.policy import Manifest, bundle_digest, read_bundle
from mesh.core.messages import BundleAsked, BundleGiven, Offered, RefusedAnswer, Supply, pack
from mesh.errors import Refused, Unavailable
from mesh.policy.init import write_starter
from mesh.protocol.events import PolicyAdmitted, PolicyRefused
from mesh.roles.admission import waiting
from tests.cli.lawmesh import Desk, LawMesh, RevokersLab
from tests.support.factory import DOMAIN

ALL = ("eu-1", "us-1", "ap-1", "sa-1")


class PolicyMesh(LawMesh):
    """A governor that is given the bundle of a manifest that it holds admits it, unless it is told to refuse."""

    def __init__(self, lab: RevokersLab) -> None:
        self.bundles = {bundle_digest(lab.bundle_bytes): lab.bundle_bytes}
        self.refusing: dict[str, str] = {}
        """Member to the code by which it refuses every bundle."""
        super().__init__(lab)

    async def ask(self, node: str, message: Payload) -> bytes:
        if not self.nodes[node].up:
            raise Unavailable("unreachable", node)
        match message:
            case Supply(bundle=raw):
                return self._supplied(node, bytes(raw))
            case BundleAsked(digest=digest):
                found = self.bundles.get(digest)
                return pack(BundleGiven(bundle=msgspec.Raw(found)) if found else RefusedAnswer(code="not_found", detail=""))
            case _:
                return await super().ask(node, message)

    def _supplied(self, node: str, data: bytes) -> bytes:
        digest = bundle_digest(data)
        law = next((law for law in waiting(self.nodes[node].state.governance) if law.manifest.digest == digest), None)
        if law is None:
            return pack(RefusedAnswer(code="not_found", detail=""))
        code = self.refusing.get(node, "")
        if code:
            self.deliver(node, PolicyRefused(law.manifest_id, code))
        else:
            self.bundles[digest] = data
            self.deliver(node, PolicyAdmitted(law.manifest_id, read_bundle(data, digest=digest), data))
        return pack(Offered(results={digest: code}))


class PolicyDesk(Desk):
    """A desk for policy."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, monkeypatch, capsys)
        self.mesh: PolicyMesh = PolicyMesh(self.lab)
        self.ask = self.mesh.ask
        self.signers = [self._machine(number) for number in range(3)]
        self.roster = folder / "roster.json"
        self.roster.write_bytes(self.lab.roster_envelope)
        self.library = client.Library(
            governance=self.lab.governance, manifests=(self.lab.manifest_envelope,), bundles=(), roster=self.lab.roster_envelope
        )
        monkeypatch.setattr(client, "files", lambda _: self.library)
        monkeypatch.chdir(folder)
        self.policy = folder / "policy"
        write_starter(self.policy, mesh="lab")
        self.first = envelope.read(Manifest, self.lab.manifest_envelope)
        self.mesh.law[self.first.id] = self.first

    def _machine(self, number: int) -> Path:
        (self.folder / f"machine-{number}").mkdir()
        return self.key_file(f"policy {number}", use="policy").rename(self.folder / f"machine-{number}" / "policy.key")

    def say(self, *arguments: str) -> tuple[int, Any, str]:
        """`mesh policy …`: exit status, its object (None if it printed none), standard error."""
        status, out, err = self.run("-o", "json", "policy", *arguments)
        return status, json.loads(out) if out else None, err

    def keys(self, *numbers: int) -> list[str]:
        """The options by which these signers sign."""
        first, *others = [str(self.signers[number]) for number in numbers]
        return ["--key", first, *[part for other in others for part in ("--co-sign", other)]]

    def build(self) -> Path:
        """The bundle of the desk's folder."""
        target = self.folder / "bundle.json"
        status, _, err = self.say("build", str(self.policy), "-o", str(target))
        assert status == 0, err
        return target

    def sign(self, *numbers: int) -> Path:
        """The next manifest, signed by these."""
        status, shown, err = self.say("sign", str(self.policy), *self.keys(*numbers))
        assert status == 0, err
        return self.folder / str(shown["file"])

    def pushed(self) -> Statement[Manifest]:
        """The next epoch, admitted everywhere."""
        manifest = self.sign(0, 1)
        status, _, err = self.say("push", str(manifest), str(self.build()), "--watch")
        assert status == 0, err
        return envelope.read(Manifest, manifest.read_bytes())

    def change(self) -> None:
        """Change the folder, so that it makes another bundle."""
        extra = self.policy / "extra.cedar"
        lines = extra.read_text() if extra.exists() else ""
        extra.write_text(
            lines + f'@id("payments/extra-{len(lines)}") forbid (principal == Workload::"spiffe://lab/agent/none", action, resource);\n'
        )

    def held(self) -> dict[str, tuple[int, ...]]:
        """The epochs that each member holds."""
        return {name: tuple(law.manifest.epoch for law in node.state.governance.laws[DOMAIN]) for name, node in self.mesh.nodes.items()}

    def kept(self, number: int, stream: str = f"policy-{DOMAIN}") -> list[int]:
        """The numbers that this signer's key has signed in the stream."""
        path = self.signers[number].with_name(f"policy.key.{stream}.signed")
        with suppress(Refused, FileNotFoundError):
            return [entry["sequence"] for entry in json.loads(path.read_bytes())["signed"]]
        return []
