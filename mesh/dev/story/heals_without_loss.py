"""The killed governors come back: the mesh allows again by itself, and every record that was acknowledged is there and final."""

import time

from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.gate.errors import Denied

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    first = stage.nodes[0]
    before = await stage.status(first)
    begun = time.monotonic()
    stage.cluster.start([name for name in stage.nodes if not stage.cluster.alive(name)])
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 200})

    async def allowed() -> bool:
        try:
            await stage.authorize("billing", wanted)
        except Denied:
            return False
        return True

    await stage.until("an authorization", allowed)
    took_s = time.monotonic() - begun

    async def final() -> bool:
        return (await stage.status(first)).certified >= before.size

    await stage.until("old records to be final", final)
    held = 0

    async def held_everywhere() -> bool:
        nonlocal held
        sizes = [await _attested(stage, name, before.origin) for name in stage.nodes]
        held = sum(size >= before.size for size in sizes)
        return held == len(stage.nodes)

    await stage.until("every node to hold them", held_everywhere)
    return Measured(
        held == len(stage.nodes),
        f"allowed again {took_s:.1f} s after the restart; {before.size} records of {first} attested at {held} of {len(stage.nodes)} nodes",
    )


async def _attested(stage: Stage, node: str, origin: str) -> int:
    status = await stage.status(node)
    return {mirror.origin: mirror.attested for mirror in status.mirrors}.get(origin, status.certified)


GUARANTEE = Guarantee("heals_without_loss", "restarting heals without hand work, and nothing acknowledged is lost", _check)
