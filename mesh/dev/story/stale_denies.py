"""Two of four governors are killed: what is left cannot show that its view is fresh, and denies past Δ, at governor and enforcer."""

import time

from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.gate.errors import Denied

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    bounds = (await stage.governance()).roster.bounds
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 100})
    asked = await stage.authorize("billing", wanted)
    for name in stage.nodes[2:]:
        stage.cluster.kill(name)
    killed = time.monotonic()
    codes: set[str] = set()

    async def denied() -> bool:
        try:
            await stage.authorize("billing", wanted)
        except Denied as refusal:
            codes.add(refusal.code)
        return "stale" in codes

    await stage.until("a denial", denied, wait_s=bounds.stale_ms / 1000 + 5)
    took_s = time.monotonic() - killed
    try:
        await stage.present("billing", wanted, asked)
        enforcer = "RAN"
    except Denied as refusal:
        enforcer = refusal.code
    return Measured(
        codes == {"stale"} and enforcer == "stale" and took_s <= (bounds.stale_ms + bounds.heartbeat_ms) / 1000,
        f"2 of {len(stage.nodes)} killed; governor: stale after {took_s:.1f} s (bound {bounds.stale_ms / 1000:.0f} s); "
        f"enforcer: {enforcer}",
    )


GUARANTEE = Guarantee("stale_denies", "what cannot prove that it is fresh denies", _check, settle_s=3.0)
