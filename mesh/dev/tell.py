"""Tells the story: brings the mesh up, checks each guarantee, prints what was measured, and keeps serving.

Not here: what is checked (:mod:`mesh.dev.story`), processes (:mod:`mesh.dev.cluster`).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from mesh.dev.apart import fresh
from mesh.dev.cluster import Cluster
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.making import made
from mesh.dev.stage import Stage, wish
from mesh.dev.story import STORY
from mesh.errors import MeshError

__all__ = ["DevReport", "Told", "bring_up", "checked", "serve", "tell"]

_TRAFFIC_S: Final = 2.0


class Told(msgspec.Struct, frozen=True):
    """How one guarantee came out."""

    name: str
    ok: bool
    measured: str


class DevReport(msgspec.Struct, frozen=True):
    """The story as one value."""

    v: int
    kind: str
    guarantees: list[Told]


def bring_up(folder: Path, *, nodes: int) -> Cluster:
    """Start a mesh in ``folder``: a new one, or the one that is there. On the main thread."""
    files = made(folder, nodes=nodes)
    cluster = Cluster(files)
    try:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
    except BaseException:
        cluster.close()
        raise
    return cluster


async def tell(stage: Stage, say: Callable[[Guarantee, Told | None], None]) -> DevReport:
    """Check every guarantee in order; ``say`` is called before each and with each result."""
    told: list[Told] = []
    with suppress(MeshError):  # if that never comes, the guarantees say what does not hold
        await stage.until("every node to be fresh", lambda: fresh(stage, *stage.nodes))
    for guarantee in STORY:
        say(guarantee, None)
        told.append(await checked(guarantee, stage))
        say(guarantee, told[-1])
    return DevReport(1, "dev-report", told)


async def checked(guarantee: Guarantee, stage: Stage) -> Told:
    """Check one guarantee; what cannot be measured did not hold."""
    try:
        measured = await guarantee.check(stage)
    except (MeshError, OSError) as error:
        measured = Measured(False, f"{type(error).__name__}: {error}")
    return Told(guarantee.name, measured.ok, measured.measured)


async def serve(stage: Stage) -> None:
    """Light traffic until cancelled: something to look at."""
    amount = 0
    while True:
        amount = (amount + 100) % 2_000
        account = "acct:acme-supplies"
        wanted = wish("payments/send", ("Account", account), {"to": account, "amount_cents": amount}, purpose="light traffic")
        try:
            work = await stage.present("billing", wanted, await stage.authorize("billing", wanted))
            await stage.finish("billing", work)
        except MeshError:
            pass  # a denial is traffic too, and stands in the lineage
        await asyncio.sleep(_TRAFFIC_S)
