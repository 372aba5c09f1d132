"""A real small mesh for live tests, and a client of it that speaks the wire directly."""

import asyncio
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from mesh.adapters import signer
from mesh.adapters.bus import Bus
from mesh.adapters.bus_table import bus_options
from mesh.adapters.trustfiles import load_trust
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, DeniedAnswer, IntentRequest, NodeStatus, RefusedAnswer, StatusAsked, pack, unpack, unpack_answer
from mesh.core.run.authorization import Authorization, Denial
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Audience, EntityRef, Intent
from mesh.core.run.params import Opening
from mesh.deploy.devmesh import DevMeshFiles, Principal, create
from mesh.dev.cluster import Cluster
from mesh.errors import Unavailable
from mesh.gate.context import Context, load_context

POLICIES = Path(__file__).parents[2] / "mesh" / "dev" / "policies"
BILLING = Principal(name="billing", subject="spiffe://dev/agent/billing", groups=["payers"], person="alice@example.org")
GATE = Principal(name="gate", subject="spiffe://dev/enforcer/gate", role="enforcer", enforcer_class="in-process")


def make_payroll(folder: Path) -> Path:
    """The policy of the documentation in which an IBAN is sealed, with an auditor's key of one's own beside it."""
    policy = folder / "payroll"
    shutil.copytree(Path(__file__).parents[2] / "docs" / "examples" / "sealed", policy)
    key = signer.generate_seal(folder / "finance.key", secrets.token_bytes(32))
    domain = (policy / "domain.toml").read_text()
    (policy / "domain.toml").write_text(re.sub(r'(?m)^finance = "[0-9a-f]{64}"$', f'finance = "{key.public}"', domain))
    return policy


def make_files(folder: Path, *, nodes: int = 4, spares: int = 0, policies: Sequence[Path] = ()) -> DevMeshFiles:
    """Everything a mesh of ``nodes`` governors needs, in ``folder``."""
    return create(
        folder,
        policies=[POLICIES / "payments", POLICIES / "ops", *policies],
        principals=[BILLING],
        enforcer=GATE,
        nodes=nodes,
        spares=spares,
        random=secrets.token_bytes,
        now_ms=time.time_ns() // 1_000_000,
    )


NOT_NOW: Final = frozenset({"barrier_pending", "catching_up", "clock_unsure", "stale", "unreachable"})
"""Why a node that starts, or that a busy machine keeps from its heartbeats, says no: nothing that the request could help."""

_connected: Final[list[Bus]] = []
"""Every connection of the test that runs."""


async def close_connections() -> None:
    """Close those that the test has not closed: it failed."""
    while _connected:
        bus = _connected.pop()
        if bus._client is not None:
            await bus.close()


Said = Callable[..., tuple[int, Any, str]]
"""A command about the mesh of a test: exit status, its object, standard error."""


async def until_fresh(cluster: Cluster) -> None:
    """Until every node is, by the word of all others: before, they rightly deny, and would as soon as one of those goes who spoke first."""
    client = await Client.connect(cluster.files.context)
    for name in cluster.files.nodes:
        await client.until(
            name, "fresh by all", lambda status: status.fresh and len(status.vouchers) == len(cluster.files.nodes), wait_s=30
        )
    await client.bus.close()


class Client:
    """Signs and sends intents; asks nodes how they are."""

    def __init__(self, context: Context, bus: Bus) -> None:
        self.context = context
        self.bus = bus
        self.governance = load_trust(context.trust, context.path("."))
        holder = context.identities["billing"]
        self.document = envelope.read(Identity, context.path(holder.document).read_bytes())
        self.key = signer.load(context.path(holder.key)).key
        self.enforcer = envelope.read(Identity, context.path(context.enforcer.document).read_bytes())
        self.boot = secrets.token_hex(32)

    @classmethod
    async def connect(cls, context_file: Path) -> "Client":
        context = load_context(str(context_file))
        bus = await Bus.connect(bus_options(context.bus, name="test", base=context.path(".")))
        _connected.append(bus)
        return cls(context, bus)

    def intent(self, *, amount: int = 1_000, to: str = "acct:acme-supplies", **changes: Any) -> Intent:
        now = time.time_ns() // 1_000_000
        intent = Intent(
            mesh=self.context.mesh,
            domain="payments",
            subject=self.document.claims.subject,
            holder=self.key.public,
            identity=self.document.id,
            action="send",
            resource=EntityRef(type="Account", id=to),
            params={"to": to, "amount_cents": amount},
            committed={},
            sealed={},
            measurements=[],
            purpose="test",
            audience=Audience(enforcer=self.enforcer.claims.key, boot=self.boot),
            assurance_min="local",
            within=[],
            after=[],
            nonce=secrets.token_hex(16),
            created_ms=now,
            expires_ms=now + 30_000,
        )
        return msgspec.structs.replace(intent, **changes)

    def request(self, intent: Intent, openings: Sequence[Opening] = ()) -> tuple[str, bytes]:
        """The intent's id and the request for it."""
        draft = envelope.draft(intent)
        signed = envelope.assemble(draft.payload_type, draft.payload, {self.key.public: self.key.sign(draft.message)})
        request = IntentRequest(
            intent=msgspec.Raw(signed),
            identity=msgspec.Raw(self.document.envelope),
            enforcer=msgspec.Raw(self.enforcer.envelope),
            openings=list(openings),
            boxes=[],
            approvals=[],
            parents=[],
        )
        return draft.id, pack(request)

    async def send(self, data: bytes, *, region: str | None = None, timeout_ms: int = 5_000) -> Authorized | DeniedAnswer | RefusedAnswer:
        subject = subjects.intent(region or self.context.region, self.context.tenant, subjects.short(self.document.claims.subject))
        return unpack_answer((await self.bus.request(subject, data, timeout_ms=timeout_ms)).data)

    async def ask(self, *, region: str | None = None, **changes: Any) -> Authorized | DeniedAnswer | RefusedAnswer:
        return await self.send(self.request(self.intent(**changes))[1], region=region)

    async def until_answers(self, regions: Iterable[str], wanted: str, *, within_s: float, before: str = "", **changes: Any) -> None:
        """Ask in each region until the answer is ``wanted``; till then it may be ``before``, or that a node cannot say now."""
        end = time.monotonic() + within_s
        for region in regions:
            while (code := await self._asked(region, **changes)) != wanted:
                assert code in {before, *NOT_NOW}, f"{region} answers {code}"
                assert time.monotonic() < end, f"{region} answers {code}, not {wanted}"
                await asyncio.sleep(0.02)

    async def _asked(self, region: str, **changes: Any) -> str:
        try:
            return code_of(await self.ask(region=region, **changes))
        except Unavailable as error:
            return error.code

    async def flood(self, requests: Sequence[bytes], *, width: int = 32) -> list[Authorized | DeniedAnswer | RefusedAnswer]:
        """Ask all of it, ``width`` at a time. What got no answer because the bus cut us off is asked again, as gates do."""
        gate = asyncio.Semaphore(width)

        async def one(data: bytes) -> Authorized | DeniedAnswer | RefusedAnswer:
            async with gate:
                end = time.monotonic() + 60
                while True:
                    cuts = self.bus.counters["disconnects"]
                    try:
                        return await self.send(data, timeout_ms=20_000)
                    except Unavailable:
                        if (self.bus.healthy and self.bus.counters["disconnects"] == cuts) or time.monotonic() > end:
                            raise
                    await asyncio.sleep(0.05)

        return list(await asyncio.gather(*(one(data) for data in requests)))

    async def status(self, node: str) -> NodeStatus:
        answer = await self.bus.request(subjects.sync(node), pack(StatusAsked()), timeout_ms=2_000)
        return unpack(NodeStatus, answer.data)

    async def until_reachable(self, node: str, *, wait_s: float = 15.0) -> None:
        """Wait until the node answers at all."""
        end = time.monotonic() + wait_s
        while True:
            try:
                await self.status(node)
            except Unavailable:
                assert time.monotonic() < end, f"{node} is unreachable"
                await asyncio.sleep(0.1)
            else:
                return

    async def until(self, node: str, what: str, condition: Callable[[NodeStatus], bool], *, wait_s: float = 15.0) -> NodeStatus:
        """Wait until the node's status meets ``condition``; one that is not back on the bus yet does not."""
        end = time.monotonic() + wait_s
        while True:
            status: NodeStatus | Unavailable
            try:
                status = await self.status(node)
                if condition(status):
                    return status
            except Unavailable as error:
                status = error
            assert time.monotonic() < end, f"{node} did not become {what}: {status}"
            await asyncio.sleep(0.05)


async def settled(mesh: Cluster, client: Client, name: str) -> int:
    """Wait until that node's log is final and all others that live hold it; its size."""
    status = await client.until(name, "certified", lambda now: now.fresh and now.certified == now.size > 0)
    for other in mesh.files.nodes:
        if other != name and mesh.alive(other):
            await client.until(
                other, "a mirror", lambda held: any(one.origin == status.origin and one.size >= status.size for one in held.mirrors)
            )
    return status.size


def code_of(answer: Authorized | DeniedAnswer | RefusedAnswer) -> str:
    """``authorized``, or the reason why not."""
    match answer:
        case Authorized():
            return "authorized"
        case DeniedAnswer():
            return envelope.read(Denial, bytes(answer.denial)).claims.code
        case RefusedAnswer():
            return answer.code


def authorization_in(answer: Authorized) -> envelope.Statement[Authorization]:
    """The statement of a yes."""
    return envelope.read(Authorization, bytes(answer.authorization))


async def command(cluster: Cluster, *arguments: str) -> tuple[int, Any, str]:
    """A command against that mesh: exit status, its object (None if it printed none), standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "mesh.cli", "--context", str(cluster.files.context), "-o", "json", *arguments),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, json.loads(out) if out else None, err.decode()
