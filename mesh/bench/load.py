"""A workload that asks without pause: its intents are signed before the clock starts, and it always has as many in flight as told.

Every answer is looked at: what was not authorized is an error of the benchmark, never a fast result.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from mesh.adapters import signer
from mesh.adapters.bus import Bus
from mesh.adapters.bus_table import bus_options
from mesh.adapters.clock import wall_ms
from mesh.bench.setting import WORKLOAD
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.keys import SecretKey
from mesh.core.messages import Authorized, IntentRequest, pack, unpack
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Audience, EntityRef, Intent
from mesh.errors import Unavailable
from mesh.gate.context import Context
from mesh.limits import INTENT_LIFE_MS_MAX

__all__ = ["IN_FLIGHT", "Asker", "Workload", "connect", "read_answer"]

IN_FLIGHT: Final = 64
_TIMEOUT_MS: Final = 20_000
_AUTHORIZED: Final = b'{"answer":"authorized",'
_WAIT_S: Final = 10.0


class Workload:
    """Makes signed requests as the context's workload to its enforcer."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.boot = secrets.token_hex(32)
        """The enforcer's, of this run."""
        holder = context.identities[WORKLOAD]
        self.document = context.path(holder.document).read_bytes()
        self.place = context.path(context.enforcer.document).read_bytes()
        self.key: SecretKey = signer.load(context.path(holder.key)).key
        self.identity = envelope.read(Identity, self.document)
        self.subject = subjects.intent(context.region, context.tenant, subjects.short(self.identity.claims.subject))
        self._enforcer = envelope.read(Identity, self.place).claims.key

    def requests(self, count: int) -> list[bytes]:
        """So many requests, each with an intent of its own that lives a minute from now."""
        now_ms = wall_ms()
        return [self._request(number, now_ms) for number in range(count)]

    def _request(self, number: int, now_ms: int) -> bytes:
        claims = self.identity.claims
        account = "acct:acme-supplies"
        intent = Intent(
            mesh=claims.mesh,
            domain="payments",
            subject=claims.subject,
            holder=claims.key,
            identity=self.identity.id,
            action="send",
            resource=EntityRef(type="Account", id=account),
            params={"to": account, "amount_cents": 1_000 + number % 40_000},
            committed={},
            sealed={},
            measurements=[],
            purpose=f"invoice {number}",
            audience=Audience(enforcer=self._enforcer, boot=self.boot),
            assurance_min="local",
            within=[],
            after=[],
            nonce=secrets.token_hex(16),
            created_ms=now_ms,
            expires_ms=now_ms + INTENT_LIFE_MS_MAX,
        )
        draft = envelope.draft(intent)
        signed = envelope.assemble(draft.payload_type, draft.payload, {self.key.public: self.key.sign(draft.message)})
        raw = msgspec.Raw
        return pack(
            IntentRequest(
                intent=raw(signed), identity=raw(self.document), enforcer=raw(self.place), openings=[], boxes=[], approvals=[], parents=[]
            )
        )


async def connect(context: Context) -> Bus:
    """The tenant's connection."""
    return await Bus.connect(bus_options(context.bus, name="bench", base=Path(context.base)))


class Asker:
    """Sends requests to one subject and keeps what came back."""

    def __init__(self, bus: Bus, subject: str) -> None:
        self._bus = bus
        self._subject = subject

    async def one(self, request: bytes) -> bytes:
        """The answer to one request.

        Raises:
            Unavailable: ``unavailable`` if it was not authorized.
        """
        answer = await self._bus.request(self._subject, request, timeout_ms=_TIMEOUT_MS)
        if not answer.data.startswith(_AUTHORIZED):
            raise Unavailable("unavailable", f"the mesh under test said {answer.data[:200].decode(errors='replace')}")
        return answer.data

    async def all(self, requests: Sequence[bytes], in_flight: int = IN_FLIGHT) -> list[bytes]:
        """The answers to all of them, ``in_flight`` at a time."""
        waiting = iter(requests)
        answers: list[bytes] = []

        async def worker() -> None:
            for request in waiting:
                answers.append(await self.one(request))  # noqa: PERF401 -- workers take turns

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return answers

    async def until_served(self, workload: Workload) -> None:
        """Return once a request is authorized: a mesh needs its first heartbeats."""
        end = time.monotonic() + _WAIT_S
        while True:
            try:
                await self.one(workload.requests(1)[0])
            except Unavailable:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)
            else:
                return


def read_answer(data: bytes) -> Authorized:
    """An answer of :class:`Asker`."""
    return unpack(Authorized, data)
