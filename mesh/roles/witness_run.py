"""Runs a witness as this process: a signal ends it, one line says when it answers."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from mesh.roles.failpoints import failpoint_from
from mesh.roles.witness import WitnessNode
from mesh.roles.witness_config import load_witness_config

__all__ = ["run_witness"]


def run_witness(config: Path) -> None:
    """Serve until SIGTERM or SIGINT. Prints ``ready NAME PORT`` to standard error once requests are answered.

    Raises:
        MeshError: what keeps it from serving.
    """
    logging.basicConfig(
        level=os.environ.get("MESH_LOG", "WARNING"), stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    settings = load_witness_config(config)
    node = WitnessNode(settings, failpoint_from(os.environ.get("MESH_FAILPOINT", "")))
    asyncio.run(_serve(node, settings.witness.name))


async def _serve(node: WitnessNode, name: str) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    await node.run(lambda: print(f"ready {name} {node.port}", file=sys.stderr, flush=True))  # noqa: T201 -- whoever started it waits for it
