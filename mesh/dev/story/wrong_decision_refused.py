"""A governor permits what policy forbids: nobody attests that, f + 1 signed refusals prove it, and nothing starts on its word any more."""

import time

from mesh.core.bytes import envelope
from mesh.core.run.authorization import Authorization
from mesh.dev.apart import afterwards, apart, fresh, frozen_by_all, judged, lie
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish

__all__ = ["GUARANTEE"]

_AMOUNT = 66_666_666
"""For which :mod:`mesh.testing.liar` lies."""


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": _AMOUNT})
    async with apart(stage) as other:
        liar = other.nodes[1]
        await lie(other, liar, "permits")
        await other.until(f"{liar} to decide again", lambda: fresh(other, liar))
        region = (await other.status(liar)).region
        core = await other.core("billing", region=region)
        asked, begun = await core.request(wanted), time.monotonic()
        record = envelope.read(Authorization, bytes(asked.answer.authorization)).claims
        await frozen_by_all(other, liar)
        took_s = time.monotonic() - begun
        word, goes_on = await afterwards(other, liar, region, wanted, asked)
        mirrors = [mirror for name in other.nodes if name != liar for mirror in (await other.status(name)).mirrors]
        final = max(mirror.certified for mirror in mirrors if mirror.origin == record.origin)
        proof = await judged(other, liar)
    kept = final <= record.index and (word, proof.kind, proof.verdict) == ("member_frozen", "unlawful-decision", "PROVED")
    return Measured(
        kept and goes_on,
        f"{liar} permitted what policy forbids ({', '.join(proof.codes)}): record {record.index} is final nowhere, {proof.held_by} others "
        f"froze it {took_s:.1f} s later and go on, its word starts nothing ({word}); elsewhere {proof.size} bytes are {proof.verdict}",
    )


GUARANTEE = Guarantee("wrong_decision_refused", "who decides against policy is refused, proven to have, and frozen", _check, settle_s=6.0)
