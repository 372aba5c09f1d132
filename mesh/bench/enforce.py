"""P3: what an enforcer's offline verification costs beside the bare signature checks in it."""

import asyncio
import gc
import secrets
import time
from collections.abc import Sequence
from typing import Final

from mesh.adapters.bus import Message
from mesh.adapters.clock import wall_ms
from mesh.adapters.trustfiles import load_trust
from mesh.bench.load import Asker, Workload, connect, read_answer
from mesh.bench.report import Pair, Row, row
from mesh.bench.setting import Setting
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.keys import verify
from mesh.core.law.governance import Governance
from mesh.core.messages import IntentRequest, Sync, SyncAnswer, pack, unpack
from mesh.core.run.authorization import Authorization, Possession
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.protocol.documents import Documents
from mesh.protocol.enforcer import Actual, Place, Presented, View, admit, take_heartbeat
from mesh.protocol.freshness import Freshness

__all__ = ["verification"]

_COUNT: Final = 1_000
_COUNT_QUICK: Final = 32
_CHALLENGE: Final = "c0" * 32
_TIMEOUT_MS: Final = 5_000
_TURN: Final = 20

Signed = tuple[bytes, bytes, bytes]
"""Key, message, signature."""


def verification(setting: Setting, *, rounds: int, quick: bool) -> list[Row]:
    """P3: microseconds to check one authorization that is presented, beside one bare check of each signature it carries."""
    workload = Workload(setting.context)
    governance = load_trust(setting.context.trust, setting.context.path("."))
    place = Place(document=envelope.read(Identity, workload.place), boot=workload.boot, obligations=frozenset())
    pairs = list[Pair]()
    presented = list[tuple[Presented, Actual]]()
    for _ in range(rounds):
        requests = workload.requests(_COUNT_QUICK if quick else _COUNT)
        answers, fresh = asyncio.run(_authorized(setting, workload, requests, governance))
        presented = [_presented(workload, request, answer) for request, answer in zip(requests, answers, strict=True)]
        view = View(governance=governance, fresh=fresh, now_ms=wall_ms(), wall_ms=wall_ms())
        pairs.append(_pair(presented, place, view))
    what = "verify one authorization offline, beside bare signature checks"
    detail = {"signatures": len(_signed(presented[0])), "authorizations": _COUNT_QUICK if quick else _COUNT}
    return [row("P3", what, pairs, unit="us", most=1.5, detail=detail)]


async def _authorized(
    setting: Setting, workload: Workload, requests: Sequence[bytes], governance: Governance
) -> tuple[list[bytes], Freshness]:
    """One answer per request, in order, and a view that the mesh vouches for."""
    async with await connect(setting.context) as bus:
        asker = Asker(bus, workload.subject)
        await asker.until_served(workload)
        answers = [await asker.one(request) for request in requests]
        fresh = Freshness.begin(secrets.token_hex(32))
        for member in governance.roster.members:
            answer: Message = await bus.request(subjects.sync(member.name), pack(Sync(nonce=fresh.boot)), timeout_ms=_TIMEOUT_MS)
            fresh = take_heartbeat(fresh, bytes(unpack(SyncAnswer, answer.data).heartbeat), governance.roster, now_ms=wall_ms())
        return answers, fresh


def _presented(workload: Workload, request: bytes, answer: bytes) -> tuple[Presented, Actual]:
    asked, given = unpack(IntentRequest, request), read_answer(answer)
    intent = envelope.read(Intent, bytes(asked.intent))
    claims = intent.claims
    draft = envelope.draft(Possession(mesh=claims.mesh, intent=intent.id, enforcer=claims.audience.enforcer, challenge=_CHALLENGE))
    presented = Presented(
        authorization=bytes(given.authorization),
        frontier=tuple(given.frontier),
        intent=bytes(asked.intent),
        identity=bytes(asked.identity),
        possession=envelope.assemble(draft.payload_type, draft.payload, {workload.key.public: workload.key.sign(draft.message)}),
    )
    actual = Actual(
        domain=claims.domain, action=claims.action, resource=claims.resource, params=claims.params, openings=(), measurements=()
    )
    return presented, actual


def _signed(item: tuple[Presented, Actual]) -> list[Signed]:
    """Every signature that must be checked each time; identity documents were checked before."""
    presented, _ = item
    statements = (
        envelope.read(Authorization, presented.authorization),
        envelope.read(Possession, presented.possession),
    )
    return [(bytes.fromhex(key), one.message, signature) for one in statements for key, signature in one.signatures.items()]


def _pair(presented: Sequence[tuple[Presented, Actual]], place: Place, view: View) -> Pair:
    """Microseconds for one authorization: ours and bare, in turns of a few so that both see the same neighbours."""
    documents = Documents()
    admit(*presented[0], challenge=_CHALLENGE, place=place, view=view, documents=documents)
    signed = [_signed(item) for item in presented]
    ours = bare = 0.0
    gc.collect()
    gc.freeze()  # an enforcer does not hold a thousand authorizations for the collector to walk through, as this does
    for start in range(0, len(presented), _TURN):
        began = time.perf_counter()
        for one, actual in presented[start : start + _TURN]:
            admit(one, actual, challenge=_CHALLENGE, place=place, view=view, documents=documents)
        between = time.perf_counter()
        good = [verify(*item) for items in signed[start : start + _TURN] for item in items]
        ours, bare = ours + between - began, bare + time.perf_counter() - between
        if not all(good):
            msg = "a signature of the benchmark is wrong"
            raise AssertionError(msg)
    gc.unfreeze()
    return Pair(1e6 * ours / len(presented), 1e6 * bare / len(presented))
