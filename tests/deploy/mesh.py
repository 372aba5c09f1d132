"""A rendered development mesh to look at: made once, and the nats-server that its configuration runs."""

import os
import subprocess
from pathlib import Path

from mesh.adapters.natsserver import find
from mesh.deploy.devmesh import DevMeshFiles, Principal, create

__all__ = ["NOW_MS", "POLICIES", "accepted", "dev_mesh"]

POLICIES = Path(__file__).resolve().parents[2] / "mesh" / "dev" / "policies"
NOW_MS = 1_800_000_000_000


def dev_mesh(folder: Path, *, nodes: int = 4) -> DevMeshFiles:
    """A mesh in ``folder``."""
    billing = Principal(name="billing", subject="spiffe://dev/agent/billing", groups=["payers"], person="Ada Example")
    gate = Principal(name="gate", subject="spiffe://dev/enforcer/gate", role="enforcer", enforcer_class="in-process")
    return create(
        folder, policies=[POLICIES / "payments"], principals=[billing], enforcer=gate, nodes=nodes, random=os.urandom, now_ms=NOW_MS
    )


def accepted(config: Path, **environ: str) -> str:
    """What nats-server has against a configuration: nothing, or its complaint."""
    command = [str(find()), "-t", "-c", str(config)]
    done = subprocess.run(command, env={**os.environ, **environ}, check=False, capture_output=True, text=True, timeout=30)
    return "" if done.returncode == 0 else done.stderr + done.stdout
