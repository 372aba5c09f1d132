"""Work is running when its workload is revoked: the enforcer ends it, and the record says why."""

import time

from mesh.core.log.record import OutcomeRecorded
from mesh.core.run.outcome import Aborted
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 600})
    subject = stage.hire("temp", groups=["payers"])
    core = await stage.core("temp")
    stopped: list[float] = []
    work = await core.begin(wanted, lambda: stopped.append(time.monotonic()))
    begun = time.monotonic()
    revoked = await stage.revoke(subject)

    async def ended() -> bool:
        return bool(stopped)

    await stage.until("the end of running work", ended)
    code = work.refusal.code if work.refusal is not None else ""
    await core.end(work, Aborted(code=code, duration_ms=core.duration_ms(work)))

    async def recorded() -> bool:
        events = [item.record.event for item in await stage.about(work.about.intent) if isinstance(item.record, OutcomeRecorded)]
        return events[-1:] == ["aborted"]

    await stage.until("its record", recorded)
    signed_s = float(revoked.get("acknowledged_ms") or 0) / 1_000
    return Measured(
        code == "revoked" and signed_s > 0,
        f"it ran for {(stopped[0] - begun) * 1_000:.0f} ms, until it was ended: {code}; recorded as aborted",
    )


GUARANTEE = Guarantee("running_execution_cancelled", "what is running ends when its right to run is revoked", _check)
