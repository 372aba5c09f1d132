"""A workload is revoked by one command: every governor denies it, the enforcer refuses what it was authorized before, all hold it."""

from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.gate.errors import Denied

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 500})
    subject = stage.hire("contractor", groups=["payers"])
    asked = await stage.authorize("contractor", wanted)
    revoked = await stage.revoke(subject)
    governor = enforcer = "ALLOWED"
    try:
        await stage.authorize("contractor", wanted)
    except Denied as refusal:
        governor = refusal.code
    try:
        await stage.present("contractor", wanted, asked)
    except Denied as refusal:
        enforcer = refusal.code

    async def alike() -> bool:
        return len({(await stage.status(node)).frontier for node in stage.nodes}) == 1

    await stage.until("one law on all nodes", alike)
    at_ms = revoked.get("acknowledged_ms")
    return Measured(
        at_ms is not None and governor == enforcer == "revoked",
        f"acknowledged by k after {at_ms} ms, held by {len(stage.nodes)} of {len(stage.nodes)}; governor: {governor}; "
        f"an authorization from before, at the enforcer: {enforcer}",
    )


GUARANTEE = Guarantee("revocation_everywhere", "who is revoked at one node is denied at all, at once and for good", _check)
