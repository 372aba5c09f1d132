"""The files of a dev mesh: three domains of policy, four people who ask, one enforcer, throwaway keys.

Not here: its processes (:mod:`mesh.dev.cluster`).
"""

import secrets
import shutil
from pathlib import Path
from typing import Final

import msgspec

from mesh.adapters.clock import wall_ms
from mesh.deploy.devmesh import DevMeshFiles, Principal, create

__all__ = ["POLICIES", "made"]

POLICIES: Final = Path(__file__).parent / "policies"
_DOMAINS: Final = ("payments", "ops", "customers")
_PRINCIPALS: Final = (
    Principal(name="billing", subject="spiffe://dev/agent/billing", groups=["payers"], person="alice@example.org"),
    Principal(name="intern", subject="spiffe://dev/agent/intern"),
    Principal(name="deployer", subject="spiffe://dev/job/deployer", groups=["deployers", "ops"], person="bob@example.org"),
    Principal(name="crm", subject="spiffe://dev/service/crm", groups=["readers"], person="carol@example.org"),
)
_ENFORCER: Final = Principal(name="gate", subject="spiffe://dev/enforcer/gate", role="enforcer", enforcer_class="in-process")


def made(folder: Path, *, nodes: int, spares: int = 1) -> DevMeshFiles:
    """The files of the mesh in ``folder``: of a new one, or of the one that is there."""
    told = folder / "mesh.json"
    if told.exists():
        kept = msgspec.json.decode(told.read_bytes(), type=_Kept)
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
        spares=spares,
        random=secrets.token_bytes,
        now_ms=wall_ms(),
    )
    told.write_bytes(msgspec.json.encode(_Kept(list(files.nodes), list(files.spares), list(files.regions), files.pin)))
    return files


class _Kept(msgspec.Struct):
    """What a folder says of the mesh in it; written last, so that half a mesh is none."""

    nodes: list[str]
    spares: list[str]
    regions: list[str]
    pin: str
