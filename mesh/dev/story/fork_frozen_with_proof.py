"""A governor shows two histories of its log: whoever sees both proves it, all freeze it, and what it had authorized starts nothing."""

import time

from mesh.dev.apart import afterwards, apart, frozen_by_all, judged, lie
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 600})
    async with apart(stage) as other:
        liar = other.nodes[1]
        region = (await other.status(liar)).region
        core = await other.core("billing", region=region)
        asked, begun = await core.request(wanted), time.monotonic()
        await lie(other, liar, "forks")
        await frozen_by_all(other, liar)
        took_s = time.monotonic() - begun
        word, goes_on = await afterwards(other, liar, region, wanted, asked)
        proof = await judged(other, liar)
    kept = (word, proof.verdict) == ("member_frozen", "PROVED") and proof.kind in {"same-size", "prefix"}
    return Measured(
        kept and goes_on,
        f"{liar} showed two histories ({proof.kind}): {proof.held_by} others froze it {took_s:.1f} s after it was started and go on, "
        f"what it had authorized starts nothing ({word}); elsewhere {proof.size} bytes are {proof.verdict}",
    )


GUARANTEE = Guarantee("fork_frozen_with_proof", "who shows two histories is proven to have, and frozen everywhere", _check, settle_s=6.0)
