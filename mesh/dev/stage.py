"""Where the story is played: the running mesh, the gate of a program, and questions to the nodes themselves.

Everything a guarantee reports is read back from disk or bus through this object; a test replaces one method of it and sees the
guarantee fail.
"""

import asyncio
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from mesh.adapters import signer
from mesh.adapters.bus import Bus
from mesh.adapters.bus_table import bus_options
from mesh.adapters.clock import wall_ms
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.travel import Said, read_law
from mesh.core.log.record import Record, read_record
from mesh.core.messages import Asked as Question
from mesh.core.messages import Find, Found, LawAsked, LawBatch, NodeStatus, Offer, Offered, Prove, Proved, StatusAsked, pack, unpack
from mesh.core.run.identity import Identity
from mesh.core.run.intent import EntityRef, Measurement
from mesh.core.run.outcome import Finished
from mesh.core.run.params import Value
from mesh.dev.cluster import Cluster
from mesh.dev.link import Link
from mesh.errors import MeshError, Unavailable
from mesh.gate.connect import open_core
from mesh.gate.context import Context, Holder, load_context
from mesh.gate.core import Asked, Core, Wish, Work
from mesh.gate.errors import Denied

__all__ = ["Located", "Ran", "Stage", "wish"]

T = TypeVar("T")
Condition = Callable[[], Awaitable[bool]]

_ASK_MS = 2_000
_LOOK_S = 0.05
_COMMAND_S = 60
_HIRED_MS = 3_600_000


class Located(msgspec.Struct, frozen=True):
    """A record with where it stands."""

    origin: str
    index: int
    record: Record


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def intent(self) -> str:
        """The intent that `mesh run` named when it said what to ask next; nonsense if it named none."""
        found = re.search(r"mesh why ([0-9a-f]{8,64})", self.err)
        return found.group(1) if found else "f" * 64


class Stage:
    """One running dev mesh."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Play on ``cluster``; ``folder`` is where the story writes its effects."""
        self.cluster = cluster
        self.folder = folder
        self.context: Context = load_context(str(cluster.files.context))
        self.cores: dict[str, Core] = {}
        self.patience_s = 15.0
        """How long to wait for what must come."""
        self._bus: Bus | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def open(self) -> None:
        """Connect."""
        options = bus_options(self.context.bus, name="story", base=self.context.path("."))
        self._bus = await Bus.connect(options)

    async def close(self) -> None:
        """Let go of everything but the mesh."""
        for core in self.cores.values():
            await core.close(wait_ms=2_000)
        self.cores.clear()
        if self._bus is not None:
            await self._bus.close()

    # ------------------------------------------------------------------------------------------------------- executions

    async def core(self, identity: str, *, region: str = "") -> Core:
        """The gate of a program that acts as ``identity``, at home or in another region."""
        name = f"{identity} {region}".rstrip()
        if name not in self.cores:
            self.cores[name] = await open_core(msgspec.structs.replace(self.context, region=region or self.context.region), identity)
        return self.cores[name]

    async def link(self) -> Link:
        """A way to the bus that can be cut."""
        link = Link("story", urlsplit(self.cluster.url).port or 0)
        await link.open()
        return link

    def hire(self, name: str, *, groups: list[str]) -> str:
        """A new workload with a new document: what is revoked stays so, and a story may be told again. Answers its SPIFFE id."""
        subject, now_ms = f"spiffe://{self.context.mesh}/temp/{name}-{secrets.token_hex(4)}", wall_ms()
        issuer = signer.load(self.cluster.files.folder / "people" / "issuer.key").key
        paths = self.folder / f"{name}-{now_ms}.json", self.folder / f"{name}-{now_ms}.key"
        draft = envelope.draft(
            Identity(
                mesh=self.context.mesh,
                subject=subject,
                key=signer.generate(paths[1], "workload", secrets.token_bytes(32)).key.public,
                role="workload",
                enforcer_class="",
                person="",
                groups=groups,
                attributes={},
                not_before_ms=now_ms,
                expires_ms=now_ms + _HIRED_MS,
            )
        )
        paths[0].write_bytes(envelope.assemble(draft.payload_type, draft.payload, {issuer.public: issuer.sign(draft.message)}))
        holder = Holder(document=str(paths[0].resolve()), key=str(paths[1].resolve()))
        self.context = msgspec.structs.replace(self.context, identities={**self.context.identities, name: holder})
        return subject

    async def revoke(self, subject: str) -> dict[str, Any]:
        """Revoke it as a person would, and wait until that is acknowledged; what the command told."""
        key = str(self.cluster.files.folder / "people" / "revoker.key")
        told = await self.command(
            "--context", str(self.cluster.files.context), "-o", "json", "revoke", subject, "--key", key, "--reason", "the story", "--watch"
        )
        try:
            return msgspec.json.decode(told.out, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise Unavailable("unavailable", told.err[-300:]) from None

    async def told(self, *arguments: str) -> dict[str, Any]:
        """What a `mesh` command told, which ended well.

        Raises:
            Unavailable: it did not.
        """
        told = await self.command("--context", str(self.cluster.files.context), "-o", "json", *arguments)
        try:
            said = msgspec.json.decode(told.out, type=dict[str, Any])
        except msgspec.MsgspecError:
            said = None
        if told.status or said is None:
            raise Unavailable("unavailable", told.err[-300:])
        return said

    async def offer(self, data: bytes) -> dict[str, str]:
        """Offer a statement to every node, past all commands; node to the code of its no, empty if it holds it."""
        identity = envelope.identify(data)[1]
        offer = Offer(statements=[msgspec.Raw(data)])
        return {node: (await self._ask(node, offer, Offered)).results.get(identity, "malformed") for node in self.nodes}

    async def law(self, stream: str) -> list[Statement[Said]]:
        """What the first node holds of a governance stream."""
        batch = await self._ask(self.nodes[0], LawAsked(stream=stream, sequence=0, id=""), LawBatch)
        return [read_law(bytes(raw)) for raw in batch.statements]

    async def everywhere(self, identity: str, wanted: Wish) -> dict[str, str]:
        """What the governors of each region say to it now: ``permit``, or the code of the no."""

        async def one(region: str) -> str:
            try:
                await (await self.core(identity, region=region)).request(wanted)
            except Denied as refusal:
                return refusal.code
            return "permit"

        regions = self.cluster.files.regions
        return dict(zip(regions, await asyncio.gather(*map(one, regions)), strict=True))

    async def authorize(self, identity: str, wanted: Wish) -> Asked:
        """Ask for an authorization; nothing is spent."""
        return await (await self.core(identity)).request(wanted)

    async def present(self, identity: str, wanted: Wish, asked: Asked) -> Work:
        """Present an authorization to the enforcer, which spends it and says go, or refuses."""
        return await (await self.core(identity)).present(wanted, asked, lambda: None)

    async def finish(self, identity: str, work: Work) -> None:
        """Record that the work ended well."""
        await (await self.core(identity)).end(work, Finished(status=0, outputs=[], duration_ms=0))

    async def command(self, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
        """Run a `mesh` command as its user would, in a process of its own."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mesh.cli",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=cwd,
            env=env,
        )
        out, err = await asyncio.wait_for(process.communicate(), _COMMAND_S)
        return Ran(process.returncode or 0, out.decode(), err.decode())

    # -------------------------------------------------------------------------------------------------------- questions

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the governors."""
        return self.cluster.files.nodes

    async def governance(self) -> Governance:
        """What is in force."""
        return (await self.core("billing")).outlook.governance

    async def status(self, node: str) -> NodeStatus:
        """How a node says it is."""
        return await self._ask(node, StatusAsked(), NodeStatus)

    async def about(self, prefix: str) -> list[Located]:
        """All records of all logs about an id, oldest first."""
        places: dict[tuple[str, int], None] = {}
        for node in self.nodes:
            try:
                found = await self._ask(node, Find(prefix=prefix, count=100), Found)
            except MeshError:
                continue
            places.update(dict.fromkeys((item.origin, item.index) for item in found.records))
        records: list[Located] = []
        for origin, index in places:
            batch = (await self.proof(origin, index)).batch
            records.append(Located(origin, index, read_record(bytes(batch.records[0]))))
        return sorted(records, key=lambda item: item.record.at_ms)

    async def proof(self, origin: str, index: int) -> Proved:
        """A record with its proof, from whichever node has it."""
        last: MeshError = Unavailable("unreachable")
        for node in self.nodes:
            try:
                return await self._ask(node, Prove(origin=origin, index=index), Proved)
            except MeshError as error:
                last = error
        raise last

    async def until(self, what: str, condition: Condition, *, wait_s: float | None = None) -> float:
        """Wait until ``condition`` holds; how many seconds that took.

        Raises:
            Unavailable: ``unreachable``, naming ``what``, if it does not in time.
        """
        begun = time.monotonic()
        patience_s = self.patience_s if wait_s is None else wait_s
        while True:
            try:
                if await condition():
                    return time.monotonic() - begun
            except MeshError:
                pass  # a node that is away answers nothing; that is what may be waited for
            if time.monotonic() - begun > patience_s:
                raise Unavailable("unreachable", f"waited {patience_s:.0f} s for {what}")
            await asyncio.sleep(_LOOK_S)

    async def _ask(self, node: str, question: Question, kind: type[T]) -> T:
        if self._bus is None:
            raise Unavailable("unreachable", "the stage is not open")
        answer = await self._bus.request(subjects.sync(node), pack(question), timeout_ms=_ASK_MS)
        return unpack(kind, answer.data)


def wish(
    action: str,
    resource: tuple[str, str],
    params: dict[str, Value],
    *,
    purpose: str = "",
    measurements: Sequence[Measurement] = (),
) -> Wish:
    """What somebody in the story wants to run."""
    domain, _, verb = action.partition("/")
    return Wish(
        domain=domain,
        action=verb,
        resource=EntityRef(type=resource[0], id=resource[1]),
        params=params,
        committed={},
        purpose=purpose,
        assurance="local",
        measure=lambda: tuple(measurements),
    )
