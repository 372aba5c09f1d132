"""A mesh with as many real records as one wants: real governors decide real intents, and enforcers' signed outcomes come in.

    python -m tests.bench.manyrecords FOLDER --records 100000

leaves a mesh in FOLDER that can be started again (:func:`stored`). Of 40 intents 34 are allowed and have two outcomes each, 4 are denied by
policy, 2 ask for an action that nobody declares. Four of five go to the first node's log. One in a thousand is of ``RARE``.

Not here: measuring anything with it (:mod:`tests.bench.measure`).
"""

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from mesh.adapters import signer
from mesh.adapters.bus import Bus
from mesh.adapters.bus_table import bus_options
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.keys import SecretKey
from mesh.core.messages import (
    Authorized,
    IntentRequest,
    NodeStatus,
    OutcomeAnswer,
    OutcomeRequest,
    StatusAsked,
    pack,
    unpack,
    unpack_answer,
)
from mesh.core.run.authorization import Authorization
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Audience, EntityRef, Intent
from mesh.core.run.outcome import CHECKS, Check, Event, Finished, Outcome, Started
from mesh.deploy.devmesh import DevMeshFiles, Principal, create
from mesh.dev.cluster import Cluster
from mesh.gate.context import Context, load_context
from mesh.limits import BATCH_RECORDS_MAX
from tests.live.kit import GATE, POLICIES, until_fresh

__all__ = ["RARE", "USUAL", "Filler", "fill", "make", "stored"]

USUAL: Final = "spiffe://dev/agent/billing"
RARE: Final = "spiffe://dev/agent/rare"
_WORKLOADS: Final = (
    Principal(name="billing", subject=USUAL, groups=["payers"], person="alice@example.org"),
    Principal(name="rare", subject=RARE, groups=["payers"], person="bob@example.org"),
)
_REGIONS: Final = ("eu", "eu", "eu", "eu", "us")
"""Where every fifth of the intents goes."""
_CHUNK: Final = 1_000
"""Intents that are signed and sent together: they live half a minute."""
_WIDTH: Final = 48
_RARE_EVERY: Final = 1_000
_DENIED_BY_POLICY: Final = frozenset({7, 17, 27, 37})
_DENIED_BEFORE: Final = frozenset({13, 33})
_OF: Final = 40
_BEATS: Final = [f"{number:064x}" for number in range(3)]
"""What each start says that it rests on; heartbeats stand in no log."""


class _Asked(NamedTuple):
    region: str
    intent: str
    data: bytes
    subject: str


class _Boot:
    """One chain of outcomes, reported in one region."""

    def __init__(self, region: str) -> None:
        self.region, self.boot = region, secrets.token_hex(32)
        self.sequence, self.previous = 0, ""


class Filler:
    """Asks and reports, as a workload and its enforcer."""

    def __init__(self, context: Context, bus: Bus) -> None:
        self.context, self.bus = context, bus
        self.holders = {name: self._holder(name) for name in context.identities}
        self.place = envelope.read(Identity, context.path(context.enforcer.document).read_bytes())
        self.place_key: SecretKey = signer.load(context.path(context.enforcer.key)).key
        self.boots = {region: _Boot(region) for region in sorted(set(_REGIONS))}
        self.made = 0
        self.intents = 0

    def _holder(self, name: str) -> tuple[envelope.Statement[Identity], SecretKey]:
        holder = self.context.identities[name]
        return envelope.read(Identity, self.context.path(holder.document).read_bytes()), signer.load(self.context.path(holder.key)).key

    async def chunk(self, count: int) -> None:
        """So many intents, and what becomes of them."""
        asked = [self._intent(number) for number in range(self.intents, self.intents + count)]
        self.intents += count
        gate = asyncio.Semaphore(_WIDTH)

        async def one(item: _Asked) -> tuple[_Asked, str]:
            async with gate:
                answer = unpack_answer((await self.bus.request(item.subject, item.data, timeout_ms=30_000)).data)
            if not isinstance(answer, Authorized):
                return item, ""
            return item, envelope.read(Authorization, bytes(answer.authorization)).id

        answers = await asyncio.gather(*map(one, asked))
        self.made += len(answers)
        for region, boot in self.boots.items():
            lived = [(item.intent, found) for item, found in answers if found and item.region == region]
            await self._report(boot, list(self._outcomes(boot, lived)))

    def _intent(self, number: int) -> _Asked:
        region, now_ms, turn = _REGIONS[number % len(_REGIONS)], time.time_ns() // 1_000_000, number % _OF
        document, key = self.holders["rare" if number % _RARE_EVERY == 0 else "billing"]
        account = "acct:acme-supplies"
        intent = Intent(
            mesh=self.context.mesh,
            domain="payments",
            subject=document.claims.subject,
            holder=key.public,
            identity=document.id,
            action="nothing" if turn in _DENIED_BEFORE else "send",
            resource=EntityRef(type="Account", id=account),
            params={"to": account, "amount_cents": 90_000_000 if turn in _DENIED_BY_POLICY else 1_000 + number % 1_000},
            committed={},
            sealed={},
            measurements=[],
            purpose=f"invoice {number}",
            audience=Audience(enforcer=self.place.claims.key, boot=self.boots[region].boot),
            assurance_min="local",
            within=[],
            after=[],
            nonce=secrets.token_hex(16),
            created_ms=now_ms,
            expires_ms=now_ms + 60_000,
        )
        draft = envelope.draft(intent)
        raw = msgspec.Raw
        request = IntentRequest(
            intent=raw(envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message)})),
            identity=raw(document.envelope),
            enforcer=raw(self.place.envelope),
            openings=[],
            boxes=[],
            approvals=[],
            parents=[],
        )
        subject = subjects.intent(region, self.context.tenant, subjects.short(document.claims.subject))
        return _Asked(region, draft.id, pack(request), subject)

    def _outcomes(self, boot: _Boot, lived: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        passed = [Check(name=name, passed=True) for name in CHECKS]
        for intent, authorization in lived:
            yield self._outcome(boot, intent, authorization, Started(checks=passed, heartbeats=_BEATS, spend=boot.sequence))
            yield self._outcome(boot, intent, authorization, Finished(status=0, outputs=[], duration_ms=5))

    def _outcome(self, boot: _Boot, intent: str, authorization: str, event: Event) -> bytes:
        outcome = Outcome(
            mesh=self.context.mesh,
            enforcer=self.place.claims.key,
            identity=self.place.id,
            boot=boot.boot,
            sequence=boot.sequence,
            previous=boot.previous,
            domain="payments",
            intent=intent,
            authorization=authorization,
            at_ms=time.time_ns() // 1_000_000,
            event=event,
        )
        draft = envelope.draft(outcome)
        boot.sequence, boot.previous = boot.sequence + 1, draft.id
        return envelope.assemble(draft.payload_type, draft.payload, {self.place_key.public: self.place_key.sign(draft.message)})

    async def _report(self, boot: _Boot, outcomes: Sequence[bytes]) -> None:
        subject = subjects.outcome(boot.region, subjects.short(self.place.claims.subject))
        for first in range(0, len(outcomes), BATCH_RECORDS_MAX):
            some = [msgspec.Raw(data) for data in outcomes[first : first + BATCH_RECORDS_MAX]]
            request = OutcomeRequest(identity=msgspec.Raw(self.place.envelope), outcomes=some)
            answer = unpack(OutcomeAnswer, (await self.bus.request(subject, pack(request), timeout_ms=30_000)).data)
            assert len(answer.receipts) == len(some)
            self.made += len(some)

    async def until_final(self, nodes: Sequence[str]) -> None:
        """Until every record of every log is final."""
        for node in nodes:
            while True:
                status = unpack(NodeStatus, (await self.bus.request(subjects.sync(node), pack(StatusAsked()), timeout_ms=30_000)).data)
                if status.certified >= status.size:
                    break
                await asyncio.sleep(0.3)


def make(folder: Path, *, nodes: int = 4) -> DevMeshFiles:
    """The files of a mesh, and beside them what :func:`stored` reads."""
    files = create(
        folder,
        policies=[POLICIES / "payments", POLICIES / "ops"],
        principals=list(_WORKLOADS),
        enforcer=GATE,
        nodes=nodes,
        random=secrets.token_bytes,
        now_ms=time.time_ns() // 1_000_000,
    )
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in msgspec.structs.asdict(files).items()}
    (folder / "mesh.json").write_text(json.dumps(plain), encoding="utf-8")
    return files


def stored(folder: Path) -> DevMeshFiles:
    """The files that :func:`make` left there."""
    return msgspec.convert(
        json.loads((folder / "mesh.json").read_text(encoding="utf-8")), DevMeshFiles, dec_hook=lambda kind, text: kind(text)
    )


async def fill(cluster: Cluster, records: int, *, chunk: int = _CHUNK) -> int:
    """Let so many records come into being, a chunk more at most; how many were asked for. Returns once all are final."""
    context = load_context(str(cluster.files.context))
    async with await Bus.connect(bus_options(context.bus, name="filler", base=context.path("."))) as bus:
        filler = Filler(context, bus)
        while filler.made < records:
            await filler.chunk(chunk)
        await filler.until_final(cluster.files.nodes)
        return filler.made


def _main() -> None:
    parser = argparse.ArgumentParser(description="Fill a mesh with records.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=100_000)
    given = parser.parse_args()
    with Cluster(make(given.folder)) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        asyncio.run(until_fresh(cluster))
        began = time.monotonic()
        made = asyncio.run(fill(cluster, given.records))
        took_s = time.monotonic() - began
        print(f"{made} records in {took_s:.0f} s, {made / took_s:.0f} a second, until the last was final")  # noqa: T201 -- a script


if __name__ == "__main__":
    _main()
