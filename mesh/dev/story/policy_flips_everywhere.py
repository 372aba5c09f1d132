"""A policy signed by two reaches all nodes, decides nothing yet, and then turns an answer round in every region at one moment."""

import asyncio
import time
from datetime import datetime

from mesh.adapters.clock import wall_ms
from mesh.dev import lawmaking
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage
from mesh.errors import Unavailable

__all__ = ["GUARANTEE"]

_AHEAD_MS = 200
"""More than 2Δ, so that the command still finds it far enough ahead."""
_CLOCK_MS = 100
"""How far the clocks of a node and of the story are apart at most, on one machine."""
_LOOK_S = 0.25
"""Between two rounds of questions; at the moment itself there is no pause."""
_NEAR_MS = 300
_LATE_MS = 1_000
"""How long a round of answers may take after it, on a busy machine."""


async def _check(stage: Stage) -> Measured:
    change = await lawmaking.change(stage)
    one, two, _ = map(str, lawmaking.people(stage))
    bundle, manifest = await change.bundle(stage), str(change.folder.with_suffix(".signed.json"))
    await stage.told("policy", "sign", str(await change.manifest(stage)), "--key", two, "--out", manifest)
    pushed = await stage.told("policy", "push", manifest, bundle, "--watch")
    stale_ms = (await stage.governance()).roster.bounds.stale_ms
    begun = await stage.told(
        "policy", "activate", lawmaking.DOMAIN, "--key", one, "--co-sign", two, "--ring", f"*@+{2 * stale_ms + _AHEAD_MS}ms", "--watch"
    )
    begins_ms = int(max(datetime.fromisoformat(at).timestamp() for at in begun["begins"].values()) * 1_000)
    early, asked, after_ms = await _watch(stage, change, begins_ms)
    return Measured(
        pushed["admitted_ms"] is not None and not early and after_ms <= _LATE_MS,
        f"epoch {change.epoch} admitted by k after {pushed['admitted_ms']} ms; {asked} answers of {len(begun['begins'])} regions before its"
        f" time, {early} of them by it; {change.before} became {change.after} in all of them {after_ms} ms after it",
    )


async def _watch(stage: Stage, change: lawmaking.Change, begins_ms: int) -> tuple[int, int, int]:
    """Answers by the new epoch before its time, answers before its time, and ms from then until all regions gave the new one."""
    early = asked = 0
    end = time.monotonic() + max(0, begins_ms - wall_ms()) / 1_000 + stage.patience_s
    while True:
        answers = await stage.everywhere("crm", lawmaking.request())
        now_ms = wall_ms()
        if now_ms < begins_ms - _CLOCK_MS:
            asked += len(answers)
            early += sum(code != change.before for code in answers.values())
        if set(answers.values()) == {change.after} and now_ms >= begins_ms - _CLOCK_MS:
            return early, asked, max(0, now_ms - begins_ms)
        if time.monotonic() > end:
            raise Unavailable("unreachable", f"not in every region: {answers}")
        await asyncio.sleep(_LOOK_S if now_ms < begins_ms - _NEAR_MS else 0.01)


GUARANTEE = Guarantee(
    "policy_flips_everywhere", "a policy signed by two decides everywhere from one moment on, and not before", _check, settle_s=9.0
)
