"""What the one-off containers of `compose/` run: make the files of a mesh, make the streams of its bus.

``python -m mesh.deploy.container init FOLDER`` fills an empty folder; ``… streams FOLDER SERVER`` needs the provisioner's login
from it and nothing else.

Not here: the services (:mod:`mesh.deploy.compose`).
"""

import asyncio
import secrets
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from mesh.adapters import signer
from mesh.adapters.bus import Bus, BusOptions
from mesh.adapters.streams import provision
from mesh.core.log.checkpoint import cosigner
from mesh.deploy.devmesh import DevMeshFiles, Principal, create, point_at
from mesh.deploy.toml import to_toml
from mesh.errors import MeshError, Refused
from mesh.roles.config import OutsideTable, WitnessTable, load_config
from mesh.roles.witness import open_store
from mesh.roles.witness_config import MeshTable, WitnessConfig, WitnessNodeTable, load_witness_config

__all__ = ["AUDITOR", "DOOR_PORT", "NODES", "SERVER", "SHOWN", "init", "main", "streams"]

_POLICIES: Final = Path(str(resources.files("mesh"))) / "dev" / "policies"
NODES: Final = ("eu-1", "us-1", "ap-1", "sa-1")
SERVER: Final = "nats://nats:4222"
"""Where the bus is for containers."""
AUDITOR: Final = "auditor.toml"
"""The context of the auditor, who is a container too; ``context.toml`` is for programs on the host."""
SHOWN: Final = NODES[0]
"""Whose log people outside may read."""
DOOR_PORT: Final = 8080
_WITNESS: Final = "witness.example/compose"
_WITNESS_PORT: Final = 8081
_HOST_SERVER: Final = "nats://127.0.0.1:4222"
_WAIT_MS: Final = 30_000
_BASE: Final = frozenset({"base"})


def init(folder: Path) -> None:
    """Make keys, roster, policy, logins and configurations below ``folder``.

    Raises:
        Refused: ``key_exists`` if a mesh is there already.
    """
    billing = Principal(name="billing", subject="spiffe://dev/agent/billing", groups=["payers"])
    deployer = Principal(name="deployer", subject="spiffe://dev/job/deployer", groups=["deployers", "ops"])
    gate = Principal(name="gate", subject="spiffe://dev/enforcer/gate", role="enforcer", enforcer_class="in-process")
    files = create(
        folder,
        policies=[_POLICIES / domain for domain in ("ops", "payments")],
        principals=[billing, deployer],
        enforcer=gate,
        nodes=len(NODES),
        random=secrets.token_bytes,
        now_ms=time.time_ns() // 1_000_000,
    )
    point_at(files, [SERVER])
    inside = files.context.read_text(encoding="utf-8")
    (folder / AUDITOR).write_text(inside, encoding="utf-8")
    files.context.write_text(inside.replace(SERVER, _HOST_SERVER), encoding="utf-8")
    for own in ("auditor", "store", "witness"):
        (folder / own).mkdir(mode=0o700)
    _witness(files)


def _witness(files: DevMeshFiles) -> None:
    """A witness that is no member, and the governor that asks it."""
    own = files.folder / "witness"
    key = signer.generate(own / "witness.key", "witness", secrets.token_bytes(32)).key.public
    config = WitnessConfig(
        witness=WitnessNodeTable(name=_WITNESS, key="witness.key", data="data", listen=f"0.0.0.0:{_WITNESS_PORT}"),
        meshes={files.mesh: MeshTable(roster="../roster.json", pin=files.pin)},
    )
    (own / "witness.toml").write_text(to_toml(config, leave_out=_BASE), encoding="utf-8")
    asyncio.run(_remember(own / "witness.toml"))
    asked = WitnessTable(url=f"http://witness:{_WITNESS_PORT}", vkey=cosigner(_WITNESS, key).vkey)
    outside = OutsideTable(listen=f"0.0.0.0:{DOOR_PORT}", witnesses={"compose": asked})
    path = files.node(SHOWN)
    path.write_text(to_toml(msgspec.structs.replace(load_config(path), outside=outside), leave_out=_BASE), encoding="utf-8")


async def _remember(config: Path) -> None:
    await (await open_store(load_witness_config(config), create=True)).close()


async def streams(folder: Path, server: str) -> None:
    """Make the streams of every region, or find them as they should be.

    Raises:
        MeshError: as :func:`mesh.adapters.streams.provision`.
    """
    options = BusOptions(servers=(server,), name="provisioner", nkey_file=str(folder / "bus/provisioner.nk"))
    async with await Bus.connect(options, wait_ms=_WAIT_MS) as bus:
        await provision(bus, [name.partition("-")[0] for name in NODES])


def main(arguments: list[str]) -> int:
    """Run one of the two; the exit status."""
    try:
        match arguments:
            case ["init", folder]:
                init(Path(folder))
            case ["streams", folder, server]:
                asyncio.run(streams(Path(folder), server))
            case _:
                raise Refused("usage", __doc__ or "")
    except MeshError as error:
        sys.stderr.write(f"error[{error.code}]: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
