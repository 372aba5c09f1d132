"""A little mesh whose governors also take, serve and pass on revocations and halts, and a desk from which an operator commands it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters import signer
from mesh.cli import client, run
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload, sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.policy import Manifest
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Role, Roster
from mesh.core.law.streams import Fork
from mesh.core.law.travel import Said, link_of, read_law
from mesh.core.messages import LawAsked, LawBatch, Offer, Sync, SyncAnswer, pack, unpack
from mesh.errors import Unavailable
from mesh.protocol.events import Event, LawArrived, OfferArrived, SyncArrived
from mesh.protocol.step import AskLaw, Outgoing
from tests.support.factory import DOMAIN, MESH, T0, Lab, secret, sign
from tests.support.littlemesh import LittleMesh, Node


class RevokersLab(Lab):
    """A lab with two revokers, who must both sign where a key of the roster is revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.second = secret("second revoker")
        revoker = Role(keys=[self.revoker.public, self.second.public], threshold=2)
        self.roster = msgspec.structs.replace(self.roster, revoker=revoker)
        self.roster_envelope = self.seal(self.roster)
        self.pin = envelope.draft(self.roster).id
        self.governance: Governance = admit_governance(
            envelope.read(Roster, self.roster_envelope),
            pin=self.pin,
            manifests=[envelope.read(Manifest, self.manifest_envelope)],
            bundles=[self.bundle_bytes],
        )

    def revocation(
        self, key: SecretKey, number: int, value: str, previous: str = "", *, mesh: str = MESH, since: str = ""
    ) -> Statement[Revocation]:
        """A revocation that no command signed."""
        claims = Revocation(
            mesh=mesh,
            revoker=key.public,
            sequence=number,
            previous=previous,
            since=since,
            target=Target(type="subject", value=value),
            spares=[],
            reason="",
            issued_ms=T0,
        )
        return envelope.read(Revocation, sign(claims, key))


class LawMesh(LittleMesh):
    """The real machines; what a governor has taken in it serves."""

    def __init__(self, lab: RevokersLab) -> None:
        self.law: dict[str, Statement[Said]] = {}
        """Everything that was ever offered, by id."""
        self.configured = read_law(lab.manifest_envelope)
        self.gossips = True
        """Whether members pull from each other."""
        super().__init__(lab)

    async def ask(self, node: str, message: Payload) -> bytes:
        """Ask a node on its sync subject, as a client does."""
        if not self.nodes[node].up:
            raise Unavailable("unreachable", node)
        match message:
            case Sync(nonce=nonce):
                return self._answer(node, partial(SyncArrived, nonce=nonce))
            case Offer(statements=statements):
                self.law |= {item.id: item for item in (read_law(bytes(raw)) for raw in statements)}
                return self._answer(node, partial(OfferArrived, data=pack(message)))
            case LawAsked():
                return self._served(self.nodes[node], message.stream, message.sequence, message.id)
            case _:
                return await super().ask(node, message)

    def revoked(self) -> dict[str, set[str]]:
        """What each member holds to be revoked."""
        return {name: {value for _, value in node.state.governance.revoked} for name, node in self.nodes.items()}

    def _answer(self, node: str, make: Callable[[int], Event]) -> bytes:
        answers: list[bytes] = []
        self._call(node, make, answers.append)
        self._drain()
        return answers[0]

    def _served(self, node: Node, stream: str, sequence: int, after: str) -> bytes:
        held = node.state.governance.streams.get(stream)
        ids = set[str]() if held is None else set(held.ids)
        if held is not None and not isinstance(held, Fork):
            ids |= {link.id for link in held.loose.values()}
        configured = [read_law(data) for data in (self.lab.manifest_envelope, self.lab.roster_envelope)]
        law = {link_of(item)[1].id: item for item in (*configured, *self.law.values())}
        items = sorted((law[key] for key in ids), key=lambda item: (item.claims.sequence, item.id))
        page = [item for item in items if (item.claims.sequence, item.id) > (sequence, after)]
        return pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in page[:2]]))  # short pages: there is always a next one

    def _deliver(self, node: Node, item: Outgoing, data: bytes) -> None:
        if not isinstance(item, AskLaw):
            super()._deliver(node, item, data)
        elif self.gossips and self.nodes[item.member].up:
            answer = self._served(self.nodes[item.member], item.stream, item.after.sequence, item.after.id)
            self._queue.append((node.name, LawArrived(answer, item.member)))


class Desk:
    """Where an operator sits: key files in a folder, commands that run against the mesh."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.lab = RevokersLab()
        self.mesh = LawMesh(self.lab)
        self.ask: client.Ask = self.mesh.ask
        self.known: Governance = self.lab.governance
        """What commands know of the mesh before they ask."""
        self.folder, self._capsys = folder, capsys
        self.key = self.key_file("revoker")
        self.second = self.key_file("second revoker")
        monkeypatch.setattr(client, "open_client", self._opened)

    @property
    def signed(self) -> Path:
        """What the first revoker's key has signed."""
        return self.key.with_name(f"{self.key.name}.signed")

    def key_file(self, name: str, *, use: str = "revoker") -> Path:
        """A file with the key of that name in the lab."""
        path = self.folder / f"{name.replace(' ', '-')}.key"
        signer.generate(path, use, bytes.fromhex(sha256_hex(name.encode())))
        return path

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """A command's exit status, standard output and standard error."""
        status = run(arguments)
        shown = self._capsys.readouterr()
        return status, shown.out, shown.err

    def revoke(self, target: str, *more: str, key: Path | None = None) -> tuple[int, Any, str]:
        """`mesh revoke`: exit status, its object (None if it printed none), standard error."""
        status, out, err = self.run("-o", "json", "revoke", target, "--key", str(key or self.key), *more)
        return status, json.loads(out) if out else None, err

    def halting(self, command: str, *more: str, keys: Sequence[Path] = ()) -> tuple[int, Any, str]:
        """`mesh halt` or `mesh resume` of the lab's domain by both revokers; as :meth:`revoke`."""
        first, *others = keys or (self.key, self.second)
        signing = [part for path in others for part in ("--co-sign", str(path))]
        status, out, err = self.run("-o", "json", command, DOMAIN, "--key", str(first), *signing, *more)
        return status, json.loads(out) if out else None, err

    def halted(self) -> dict[str, int]:
        """How many halts of the lab's domain are in force for each member."""
        return {name: len(node.state.governance.halted.get(DOMAIN, ())) for name, node in self.mesh.nodes.items()}

    def ls(self) -> list[dict[str, Any]]:
        """`mesh revocations ls`."""
        status, out, err = self.run("-o", "json", "revocations", "ls")
        assert status == 0, err
        rows: list[dict[str, Any]] = json.loads(out)
        return rows

    def offer(self, *statements: Statement[Said], to: str = "eu-1") -> None:
        """Hand a member statements that no command made."""
        asyncio.run(self.mesh.ask(to, Offer(statements=[msgspec.Raw(item.envelope) for item in statements])))

    def losing(self, kind: type[Payload], members: Sequence[str]) -> None:
        """From now on these members do not answer such questions."""
        honest = self.ask

        async def ask(member: str, message: Payload) -> bytes:
            if isinstance(message, kind) and member in members:
                raise Unavailable("unreachable", member)
            return await honest(member, message)

        self.ask = ask

    def lying(self, member: str, *heads: StreamHead, key: SecretKey | None = None) -> None:
        """From now on the member's heartbeats claim this, signed with its own key or another one."""
        honest, signing = self.ask, key or self.lab.keys[member]["decision"]

        async def ask(name: str, message: Payload) -> bytes:
            data = await honest(name, message)
            if name != member or not isinstance(message, Sync):
                return data
            beat = envelope.read(Heartbeat, bytes(unpack(SyncAnswer, data).heartbeat)).claims
            claimed = msgspec.structs.replace(beat, frontier=sorted([*beat.frontier, *heads], key=lambda head: head.stream))
            return pack(SyncAnswer(heartbeat=msgspec.Raw(sign(claimed, signing))))

        self.ask = ask

    @asynccontextmanager
    async def _opened(self, name: str | None) -> AsyncIterator[tuple[client.MeshClient, client.Library]]:
        del name
        library = client.Library(
            governance=self.known, manifests=(self.lab.manifest_envelope,), bundles=(), roster=self.lab.roster_envelope
        )

        async def ask(member: str, message: Payload) -> bytes:
            return await self.ask(member, message)

        yield client.MeshClient(ask, self.known), library


def code_of(err: str) -> str:
    """The code that a command ended with, printed as JSON on its last line of standard error."""
    code: str = json.loads(err.strip().splitlines()[-1])["error"]["code"]
    return code
