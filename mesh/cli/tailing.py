"""`mesh lineage tail`: how far each log comes, line by line, as those say who sign it.

Rules
-----
1. One line for each advance of a log, however many records it has; of every record the states come in their order.
2. From now on; or with a file, from where this file was last, told at least once.
3. It ends by Ctrl-C, SIGTERM, or after as many lines as were asked for.

Not here: what is an advance (:mod:`mesh.protocol.advancing`), reading (:mod:`mesh.roles.tail`).
"""

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mesh.adapters.clock import wall_ms
from mesh.cli import client, telling
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import canonical
from mesh.core.messages import NodeStatus
from mesh.errors import MeshError
from mesh.protocol.advancing import STATES, Advance, Enough, Reached

if TYPE_CHECKING:
    from mesh.roles.tail import Tail

__all__ = ["claimed", "tail"]

_LEARN_S: Final = 10.0
"""Members and their keys change: so often somebody is asked for newer rosters."""


class _Printing:
    """Prints what is meant, and knows when it was enough."""

    def __init__(self, cli: Cli, mesh: client.MeshClient, state: str | None, only: str | None, count: int | None) -> None:
        self.mesh = mesh
        self.over = asyncio.Event()
        self._cli, self._state, self._only, self._left = cli, state, only, count

    def tell(self, advance: Advance) -> None:
        """One line.

        Raises:
            Enough: it is over, and this was not printed.
        """
        if self.over.is_set():
            raise Enough
        node = self.mesh.origins().get(advance.origin, "")
        if self._state not in {None, advance.state} or self._only not in {None, node}:
            return
        if self._cli.format == "table":
            at = telling.when(advance.at_ms) if advance.at_ms else "-"
            records = f"{self.mesh.naming.place(advance.origin, advance.first)}..{advance.end - 1}"
            self._cli.lines([f"{at}  {advance.state:9}  {records}"])
        else:
            click.echo(canonical.encode(advance).decode())
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.over.set()


@click.command("tail")
@click.option("--state", type=click.Choice(STATES), help="Only what comes to this state.")
@click.option("--node", "only", metavar="NODE", help="Of this node's logs only.")
@click.option("--keep", type=click.Path(dir_okay=False, path_type=Path), help="Read the streams from where this file was last.")
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many lines.")
@format_option
@pass_cli
def tail(cli: Cli, state: str | None, only: str | None, keep: Path | None, count: int | None) -> None:
    """Records on their way: recorded by their log, witnessed by another member, final by k.

    Each line is what was seen under the keys of the roster, and proves nothing to anybody else: `mesh prove` does.
    """
    asyncio.run(_tail(cli, state, only, keep, count))


async def _tail(cli: Cli, state: str | None, only: str | None, keep: Path | None, count: int | None) -> None:
    from mesh.adapters.bus import Bus
    from mesh.adapters.bus_table import bus_options
    from mesh.adapters.tailstore import TailStore
    from mesh.gate.context import load_context
    from mesh.roles.tail import Tail

    context = load_context(cli.context)
    library = client.library_of(context.trust, context.path("."))
    async with await Bus.connect(bus_options(context.auditor, name="auditor", base=context.path("."))) as bus:
        mesh, library = await client.learn(cli, client.client_of(bus, library), library, now_ms=wall_ms())
        if only is not None:
            mesh.member(only)
        printing = _Printing(cli, mesh, state, only, count)
        store = TailStore.open(keep) if keep is not None else None
        reached = store.reached if store is not None else claimed(await mesh.status(), mesh.roster.f)
        reader = Tail(library.governance, bus, printing.tell, reached)
        try:
            await _until_over(
                printing.over, reader.listen() if store is None else reader.read(store), _learning(cli, reader, printing, library)
            )
        finally:
            if store is not None:
                store.close()


async def _until_over(over: asyncio.Event, *works: Coroutine[None, None, None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    tasks = [loop.create_task(work) for work in (_wait(over), *works)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with suppress(Enough):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(over: asyncio.Event) -> None:
    await over.wait()


async def _learning(cli: Cli, reader: "Tail", printing: _Printing, library: client.Library) -> None:
    while True:
        await asyncio.sleep(_LEARN_S)
        printing.mesh, library = await client.learn(cli, printing.mesh, library, now_ms=wall_ms())
        reader.governance = library.governance


def claimed(answers: Mapping[str, NodeStatus | MeshError], f: int) -> dict[str, Reached]:
    """Where to begin to listen: as much of each log as f + 1 members say to be final, of whom one is honest."""
    claims = dict[str, list[int]]()
    for answer in answers.values():
        if isinstance(answer, NodeStatus):
            for origin, size in {answer.origin: answer.certified, **{one.origin: one.certified for one in answer.mirrors}}.items():
                claims.setdefault(origin, []).append(size)
    sizes = {origin: sorted(said, reverse=True)[f] for origin, said in claims.items() if len(said) > f}
    return {origin: Reached(origin=origin, recorded=size, witnessed=size, final=size) for origin, size in sizes.items()}
