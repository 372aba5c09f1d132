"""A fifth governor is taken in by commands: it catches up, and counts, so that another one may freeze and nothing stops."""

import asyncio
import signal
import time

from mesh.core.bytes import envelope
from mesh.core.law.roster import Roster
from mesh.core.run.authorization import Authorization
from mesh.deploy.devmesh import enlist
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.errors import MeshError

__all__ = ["GUARANTEE"]

_AHEAD_S = 16
"""2Δ and what the command asks for spreading, 11 s; the rest is for three commands on a machine that is busy."""


async def _check(stage: Stage) -> Measured:
    (spare,) = stage.cluster.files.spares
    told = "" if stage.cluster.alive(spare) else await _take_in(stage, spare)
    everybody = (*stage.nodes, spare)
    final = {status.origin: status.certified for status in [await stage.status(name) for name in stage.nodes]}
    caught_s = await stage.until(f"{spare} to catch up", lambda: _caught_up(stage, everybody, final))
    status = await stage.status(spare)
    records = sum(mirror.attested for mirror in status.mirrors)
    frozen = stage.nodes[-1]
    stage.cluster.signal(frozen, signal.SIGSTOP)
    try:
        bounds = (await stage.governance()).roster.bounds
        await asyncio.sleep((bounds.stale_ms + bounds.heartbeat_ms) / 1_000)  # its last word is over
        final_s = await _final(stage)
    finally:
        stage.cluster.signal(frozen, signal.SIGCONT)
    return Measured(
        len(status.mirrors) == len(stage.nodes) and status.roster_epoch > 1,
        f"{told}{spare} has attested {records} records of {len(status.mirrors)} others and vouches {caught_s:.1f} s later; "
        f"with {frozen} frozen, authorized and final by the other {len(everybody) - 1} after {final_s:.1f} s",
    )


async def _take_in(stage: Stage, spare: str) -> str:
    files = stage.cluster.files
    people, target = files.folder / "people", files.folder / "roster-2.json"
    keys = str(files.folder / "nodes" / spare / "keys")
    if not target.exists():
        region = spare.partition("-")[0]
        draft = str(stage.folder / "roster-2.json")
        await stage.told("roster", "add", spare, "--region", region, "--keys", keys, "--begins", f"+{_AHEAD_S}s", "--out", draft)
        signers = [argument for name in ("root-2", "operator-dev") for argument in ("--co-sign", str(people / f"{name}.key"))]
        await stage.told("roster", "sign", draft, "--key", str(people / "root-1.key"), *signers, "--out", str(target))
    begun = time.monotonic()
    pushed = await stage.told("roster", "push", str(target), "--follow", "--wait", str(_AHEAD_S + int(stage.patience_s)))
    roster = envelope.read(Roster, target.read_bytes())
    enlist(files, spare, [target], roster.id)
    stage.cluster.start([spare])
    return f"{pushed['held']} hold the roster and {pushed['acting']} act under it {time.monotonic() - begun:.1f} s after it was pushed; "


async def _caught_up(stage: Stage, everybody: tuple[str, ...], final: dict[str, int]) -> bool:
    """Whether each vouches for all, and the last one has attested whatever was final before."""
    statuses = [await stage.status(name) for name in everybody]
    attested = {mirror.origin: mirror.attested for mirror in statuses[-1].mirrors}
    return all(status.fresh and set(status.vouchers) == set(everybody) for status in statuses) and all(
        attested.get(origin, 0) >= size for origin, size in final.items()
    )


async def _final(stage: Stage) -> float:
    """How long it takes until something is authorized and final."""
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 300})

    async def final() -> bool:
        try:
            asked = await stage.authorize("billing", wanted)
        except MeshError:
            return False
        claims = envelope.read(Authorization, bytes(asked.answer.authorization)).claims
        begun = time.monotonic()
        while time.monotonic() - begun < stage.patience_s:
            if (await stage.proof(claims.origin, claims.index)).proof:
                return True
            await asyncio.sleep(0.05)
        return False

    return await stage.until("a record that is final", final)


GUARANTEE = Guarantee("node_joins_live", "a node joins a live mesh, catches up, and counts", _check, settle_s=25.0)
