"""A governor's storage is put back to an older copy: it is told what it has signed since, fetches that, and signs no second history."""

import shutil
import time
from typing import Any

from mesh.core.messages import NodeStatus
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.errors import Unavailable

__all__ = ["GUARANTEE"]

_ROUNDS = 5


async def _check(stage: Stage) -> Measured:
    cluster, name = stage.cluster, stage.nodes[1]
    config, copy = str(cluster.files.node(name)), stage.folder / "backup"
    shutil.rmtree(copy, ignore_errors=True)
    taken = await stage.told("node", "backup", "--config", config, "--out", str(copy))
    origin = (await stage.status(name)).origin
    copied = _size(taken, origin)
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 400})
    for _ in range(_ROUNDS):
        await stage.everywhere("billing", wanted)

    async def final() -> bool:
        status = await stage.status(name)
        return copied + _ROUNDS <= status.certified == status.size

    await stage.until("what was decided since to be final", final)
    before = await stage.status(name)
    cluster.kill(name)
    begun = time.monotonic()
    await stage.told("node", "restore", "--config", config, str(copy), "--replace")
    put_back = _size(await stage.told("node", "verify", "--config", config), origin)
    cluster.start([name])

    async def whole() -> bool:
        status = await stage.status(name)
        return status.fresh and status.size >= before.size and (await stage.everywhere("billing", wanted)).get(before.region) == "permit"

    await stage.until(f"{name} to go on", whole)
    took_s = time.monotonic() - begun
    after = await stage.status(name)

    async def agreed() -> bool:
        return all(_attested(status, origin) >= before.size for status in [await stage.status(other) for other in stage.nodes])

    await stage.until("every node to hold its records", agreed)
    statuses = [await stage.status(other) for other in stage.nodes if other != name]
    doubted = [status.node for status in statuses for mirror in status.mirrors if mirror.origin == origin and mirror.conflicted]
    return Measured(
        put_back == copied < before.size and after.incarnation > before.incarnation and not doubted,
        f"{name}: a copy of {put_back} records put back over {before.size}; it decides again after {took_s:.1f} s in incarnation "
        f"{after.incarnation}, and {', '.join(doubted) or 'nobody'} has seen a second history",
    )


def _size(told: dict[str, Any], origin: str) -> int:
    """How much of that log a command found on the disk."""
    return int(next(log["size"] for log in told["logs"] if log["origin"] == origin))


def _attested(status: NodeStatus, origin: str) -> int:
    if status.origin == origin:
        return status.certified
    for mirror in status.mirrors:
        if mirror.origin == origin:
            return mirror.attested
    raise Unavailable("unreachable", origin)


GUARANTEE = Guarantee("restored_backup_heals", "a restored node refills what it signed, and signs no second history", _check)
