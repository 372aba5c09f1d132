"""`mesh dev`: a whole mesh on this machine, its promises checked live, then light traffic until Ctrl-C."""

import asyncio
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from mesh.cli.output import Cli, pass_cli
from mesh.errors import Unavailable

if TYPE_CHECKING:
    from mesh.dev.cluster import Cluster
    from mesh.dev.guarantee import Guarantee
    from mesh.dev.tell import Told

__all__ = ["dev"]

_BROKEN: Final = 2
_STORY_NODES_MIN: Final = 4


@click.command()
@click.option("--once", is_flag=True, help="End after the story; exit 0 only if every guarantee held.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on standard output.")
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(1, 7), help="How many governors.")
@click.option(
    "--persist", type=click.Path(path_type=Path, file_okay=False), help="Keep the mesh in this folder, and take up one that is there."
)
@click.option("--no-story", is_flag=True, help="Only serve.")
@pass_cli
def dev(cli: Cli, *, once: bool, as_json: bool, nodes: int, persist: Path | None, no_story: bool) -> int:
    """Start a nats-server and governors, check what the mesh promises, and keep serving.

    Throwaway keys, loopback only: not for production.
    """
    from mesh.adapters.store import hold
    from mesh.dev.tell import bring_up

    if nodes < _STORY_NODES_MIN and not no_story:
        raise click.UsageError("the story needs at least 4 nodes; use --no-story")
    begun = time.monotonic()
    folder = persist or Path(".mesh/dev")
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = hold(folder.with_name(f"{folder.name}.lock"))
    if lock is None:
        raise Unavailable("unavailable", f"a mesh already runs in {folder}")
    if persist is None:
        shutil.rmtree(folder, ignore_errors=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = bring_up(folder.resolve(), nodes=nodes)
    with cluster:
        _introduce(cli, cluster, folder, time.monotonic() - begun)
        try:
            return asyncio.run(_play(cli, cluster, once=once, as_json=as_json, story=not no_story))
        except KeyboardInterrupt:
            cli.say("\nstopping: draining every node")
            return 0


async def _play(cli: Cli, cluster: "Cluster", *, once: bool, as_json: bool, story: bool) -> int:
    from mesh.dev.stage import Stage
    from mesh.dev.tell import serve, tell

    stage = Stage(cluster, cluster.files.folder / "story")
    await stage.open()
    try:
        status = 0
        if story:
            begun = time.monotonic()
            report = await tell(stage, lambda guarantee, told: _say(cli, guarantee, told, time.monotonic() - begun))
            kept = [told for told in report.guarantees if told.ok]
            status = 0 if len(kept) == len(report.guarantees) else _BROKEN
            if as_json:
                click.echo(msgspec.json.encode(report).decode())
            cli.say(f"\n{len(kept)} of {len(report.guarantees)} guarantees held.")
        if not once:
            cli.say("Serving light traffic. Ctrl-C stops every process.")
            cli.next(f"mesh --context {cluster.files.context} lineage ls")
            await serve(stage)
        return status
    finally:
        await stage.close()


def _introduce(cli: Cli, cluster: "Cluster", folder: Path, took_s: float) -> None:
    files = cluster.files
    n = len(files.nodes)
    f = (n - 1) // 3
    cli.say("DEV MESH: throwaway keys, loopback only. Not for production.")
    cli.say(f"  bus      {cluster.url}")
    cli.say(f"  nodes    {' '.join(files.nodes)}")
    cli.say(f"  quorum   {(n + f) // 2 + 1} of {n}, {f} may lie; one owner holds all keys, so one owner could forge everything")
    cli.say(f"  policy   {', '.join(sorted(path.name.partition('.')[0] for path in (files.folder / 'policy').glob('*.manifest.json')))}")
    cli.say(f"  files    {folder}")
    cli.say(f"  up in    {took_s:.1f} s\n")


def _say(cli: Cli, guarantee: "Guarantee", told: "Told | None", at_s: float) -> None:
    if told is None:
        if guarantee.settle_s:
            cli.say(f"        … {guarantee.promise} (takes about {guarantee.settle_s:.0f} s)")
        return
    if not cli.quiet:
        mark = click.style("ok  ", fg="green") if told.ok else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{at_s:6.1f}s {mark} {guarantee.promise}", err=True, color=None if cli.color else False)
    cli.say(f"             {told.measured}")
