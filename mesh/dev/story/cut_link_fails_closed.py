"""The link between a program's gate and the bus is cut: what it was authorized to start it starts no longer once Δ has passed."""

import asyncio

import msgspec

from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.errors import MeshError
from mesh.gate.connect import open_core
from mesh.gate.core import Core, Wish

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    bounds = (await stage.governance()).roster.bounds
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 700})
    link = await stage.link()
    try:
        bus = msgspec.structs.replace(stage.context.bus, servers=[link.url])
        core = await open_core(msgspec.structs.replace(stage.context, bus=bus), "billing")
        try:
            held = await core.request(wanted)
            await link.become("cut", "cut")
            governor = await _code(core, wanted)
            await asyncio.sleep((bounds.stale_ms + bounds.heartbeat_ms) / 1_000)
            try:
                await core.present(wanted, held, lambda: None)
                enforcer = "RAN"
            except MeshError as refusal:
                enforcer = refusal.code
            await link.become("pass", "pass")

            async def again() -> bool:
                return await _code(core, wanted) == ""

            healed_s = await stage.until("an authorization after the link is whole", again)
        finally:
            await core.close(wait_ms=1_000)
    finally:
        await link.close()
    return Measured(
        enforcer == "stale" and governor != "",
        f"link cut: asking is {governor}; what was authorized before is {enforcer} after {bounds.stale_ms / 1_000:.0f} s; "
        f"whole again, it is authorized after {healed_s:.1f} s",
    )


async def _code(core: Core, wanted: Wish) -> str:
    """Why it is not authorized; empty if it is."""
    try:
        await core.request(wanted)
    except MeshError as refusal:
        return refusal.code
    return ""


GUARANTEE = Guarantee("cut_link_fails_closed", "a program that is cut off from the mesh starts nothing", _check, settle_s=6.0)
