"""Runs a governor as this process: signals drain it, the loop lives on the decision thread, one line says when it is ready."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Final

from mesh.adapters.decision_thread import DecisionThread
from mesh.errors import Unavailable
from mesh.roles.config import load_config
from mesh.roles.failpoints import failpoint_from
from mesh.roles.governor import GovernorNode
from mesh.roles.outside import outside
from mesh.roles.performer import Performer

__all__ = ["run_governor"]

_COLLECT_AFTER: Final = 50_000
"""Objects made and not gone again before the collector looks for cycles."""


def run_governor(config: Path) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Prints ``ready NAME`` to standard error once intents are taken.

    Raises:
        MeshError: what keeps it from serving.
    """
    logging.basicConfig(
        level=os.environ.get("MESH_LOG", "WARNING"), stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    settings = load_config(config)
    failpoint = failpoint_from(os.environ.get("MESH_FAILPOINT", ""))
    thread = DecisionThread()

    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    async def serve() -> None:
        node = GovernorNode(settings, failpoint, thread)
        stop.arm(asyncio.get_running_loop(), node.stop)
        shown = outside(
            settings.outside,
            node.governance.roster,
            origin=lambda: _open(node).state.log.origin,
            store=lambda: _open(node).store,
            alarm=node.alarm,
            counters=node.counters,
        )
        async with shown:
            await node.run(lambda: _ready(node.me.name))

    try:
        # The loop runs where policy may be evaluated: no hop between threads for a decision.
        thread.call(_with_uvloop, serve)
    finally:
        thread.close()


def _open(node: GovernorNode) -> Performer:
    if node.performer is None:
        raise Unavailable("storage_failed", "the node is not open")
    return node.performer


def _ready(name: str) -> None:
    # What stands now stays, and decisions make no cycles: with Python's own threshold the collector would walk through all of it
    # every few hundred decisions.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    print(f"ready {name}", file=sys.stderr, flush=True)  # noqa: T201 -- the launcher waits for it


class _Stop:
    """A signal handler that reaches a loop on another thread; one that comes before the loop is not lost."""

    def __init__(self) -> None:
        self._armed: Callable[[], object] | None = None
        self._early = False

    def arm(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        """From now on signals call ``stop`` on ``loop``."""
        self._armed = lambda: loop.call_soon_threadsafe(stop)
        if self._early:
            stop()

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._armed is None:
            self._early = True
        else:
            self._armed()


def _with_uvloop(serve: Callable[[], Coroutine[None, None, None]]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
