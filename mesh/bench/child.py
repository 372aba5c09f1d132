"""The measured half, as a process of its own on a core of its own: a governor, or an echo that shows what the bus alone costs.

``python -m mesh.bench.child governor CORE NODE_TOML [PROFILE]`` and
``python -m mesh.bench.child echo CORE SERVER NKEY_FILE SUBJECT ANSWER_FILE``; both print ``ready …`` to standard error.

A profile is of the governor's loop and is written when it has ended; it distorts, so whoever asks for one measures nothing.
"""

import asyncio
import cProfile
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from mesh.adapters.bus import Bus, Message
from mesh.adapters.bus_options import BusOptions
from mesh.bench.cores import pin
from mesh.roles.run import run_governor

__all__ = ["main"]

_LOOP_THREAD = "decide"


def main(arguments: list[str]) -> None:
    """Be what the command line says, until SIGTERM."""
    role, core, *rest = arguments
    pin(int(core))
    if role == "echo":
        server, nkey_file, subject, answer_file = rest
        asyncio.run(_echo(server, nkey_file, subject, Path(answer_file).read_bytes()))
    elif len(rest) > 1:
        _run_profiled(Path(rest[0]), Path(rest[1]))
    else:
        run_governor(Path(rest[0]))


def _run_profiled(config: Path, target: Path) -> None:
    profile = cProfile.Profile()

    def begin(_frame: FrameType, _event: str, _argument: object) -> None:
        sys.setprofile(None)
        if threading.current_thread().name == _LOOP_THREAD:
            profile.enable()

    threading.setprofile(begin)
    try:
        run_governor(config)
    finally:
        profile.dump_stats(target)


async def _echo(server: str, nkey_file: str, subject: str, answer: bytes) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    tasks: set[asyncio.Task[None]] = set()

    def reply(message: Message) -> None:
        task = asyncio.get_running_loop().create_task(message.respond(answer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with await Bus.connect(BusOptions(servers=(server,), name="echo", nkey_file=nkey_file)) as bus:
        await bus.subscribe(subject, reply)
        print("ready echo", file=sys.stderr, flush=True)  # noqa: T201 -- whoever started it waits for it
        await stopped.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
