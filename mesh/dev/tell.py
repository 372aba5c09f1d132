"""Tells the story: brings the mesh up, checks each guarantee, prints what was measured, and keeps serving.

Not here: what is checked (:mod:`mesh.dev.story`), processes (:mod:`mesh.dev.cluster`).
"""

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from mesh.deploy.devmesh import DevMeshFiles, Principal, create
from mesh.dev.cluster import Cluster
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.dev.story import STORY
from mesh.errors import MeshError

__all__ = ["DevReport", "Told", "bring_up", "checked", "serve", "tell"]

POLICIES: Final = Path(__file__).parent / "policies"
_DOMAINS: Final = ("payments", "ops", "customers")
_PRINCIPALS: Final = (
    Principal(name="billing", subject="spiffe://dev/agent/billing", groups=["payers"], person="alice@example.org"),
    Principal(name="intern", subject="spiffe://dev/agent/intern"),
    Principal(name="deployer", subject="spiffe://dev/job/deployer", groups=["deployers", "ops"], person="bob@example.org"),
    Principal(name="crm", subject="spiffe://dev/service/crm", groups=["readers"], person="carol@example.org"),
)
_ENFORCER: Final = Principal(name="gate", subject="spiffe://dev/enforcer/gate", role="enforcer", enforcer_class="in-process")
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
    files = _files(folder, nodes)
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


def _files(folder: Path, nodes: int) -> DevMeshFiles:
    made = folder / "mesh.json"
    if made.exists():
        kept = msgspec.json.decode(made.read_bytes(), type=_Kept)
        return DevMeshFiles(
            folder=folder,
            mesh="dev",
            nodes=tuple(kept.nodes),
            spares=tuple(kept.spares),
            regions=tuple(kept.regions),
            context=folder / "context.toml",
            roster=folder / "roster.json",
            pin=kept.pin,
            bus_config=folder / "bus/nats.conf",
            provisioner=folder / "bus/provisioner.nk",
        )
    shutil.rmtree(folder, ignore_errors=True)  # what a killed start left half made
    files = create(
        folder,
        policies=[POLICIES / domain for domain in _DOMAINS],
        principals=_PRINCIPALS,
        enforcer=_ENFORCER,
        nodes=nodes,
        spares=1,
        random=secrets.token_bytes,
        now_ms=time.time_ns() // 1_000_000,
    )
    made.write_bytes(msgspec.json.encode(_Kept(list(files.nodes), list(files.spares), list(files.regions), files.pin)))
    return files


class _Kept(msgspec.Struct):
    """What a folder says of the mesh in it; written last, so that half a mesh is none."""

    nodes: list[str]
    spares: list[str]
    regions: list[str]
    pin: str
