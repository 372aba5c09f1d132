"""`mesh node`: a governor as this process, and its storage copied, looked at and put back from outside."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.telling import when

if TYPE_CHECKING:
    from mesh.adapters.storecheck import Held
    from mesh.roles.backup import Manifest

__all__ = ["node"]

_CONFIG = click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Its node.toml.")
_BACKUP = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group()
def node() -> None:
    """Run and look after a node of the mesh."""


@node.command()
@_CONFIG
def run(config: Path) -> None:
    """Serve as a governor until SIGTERM or Ctrl-C, then drain.

    Prints `ready NAME` to standard error once intents are taken.
    """
    from mesh.roles.run import run_governor

    run_governor(config)


@node.command()
@_CONFIG
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder; or one for a new one.")
@click.option("--with-keys", is_flag=True, help="The four secret keys, too. Whoever has them is this node.")
@format_option
@pass_cli
def backup(cli: Cli, config: Path, out: Path, *, with_keys: bool) -> None:
    """Copy the node's storage as it is at one moment, while it runs, and look at all of the copy.

    Where --out is a folder already, a new one is made in it, named after the node and the time.
    """
    from mesh.roles.backup import back_up
    from mesh.roles.config import load_config

    settings, now_ms = load_config(config), time.time_ns() // 1_000_000
    folder = out / f"{settings.node.name}-{now_ms}" if out.is_dir() else out
    manifest = asyncio.run(back_up(settings, folder, with_keys=with_keys, now_ms=now_ms))
    cli.value({"backup": str(folder), **_about(manifest)})
    if with_keys:
        cli.say(f"{folder}/keys are the node's secret keys: keep this copy as you keep them")
    cli.next(f"mesh node verify {folder}")


@node.command()
@_CONFIG
@click.argument("source", metavar="FROM", type=_BACKUP)
@click.option("--replace", is_flag=True, help="Move aside what is there.")
@click.option("--with-keys", is_flag=True, help="Put back the keys, too, where there are none.")
@format_option
@pass_cli
def restore(cli: Cli, config: Path, source: Path, *, replace: bool, with_keys: bool) -> None:
    """Put a backup back where no node runs, after looking at all of it. What is there is never overwritten."""
    from mesh.roles.backup import restore as put_back
    from mesh.roles.config import load_config

    now_ms = time.time_ns() // 1_000_000
    manifest, aside = asyncio.run(put_back(load_config(config), source, replace=replace, with_keys=with_keys, now_ms=now_ms))
    cli.value({"restored": str(source), "replaced": str(aside or ""), **_about(manifest)})
    cli.say("At its start the node asks every other member what it has signed, and signs nothing before.")
    cli.say("If it signed anything after this backup, it fetches those records from the members' mirrors, says storage_rolled_back")
    cli.say("meanwhile, and goes on once all of them are here and every other member has answered. So start all others first.")
    cli.next(f"mesh node run --config {config}")


@node.command()
@click.argument("source", metavar="[FROM]", required=False, type=_BACKUP)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="A node.toml: its own storage instead of a backup.")
@format_option
@pass_cli
def verify(cli: Cli, source: Path | None, config: Path | None) -> None:
    """Hash again everything that a backup holds, or a node's own storage. Ends with 5 if it is not as it was written.

    No network is used, and nothing is changed. The node may run meanwhile.
    """
    from mesh.roles.backup import check_backup, check_running
    from mesh.roles.config import load_config

    if (source is None) == (config is None):
        raise click.UsageError("name a backup, or --config for a node's own storage")
    if source is not None:
        cli.value({"verified": str(source), **_about(asyncio.run(check_backup(source)))})
    elif config is not None:
        cli.value({"verified": str(config), **_contents(asyncio.run(check_running(load_config(config))))})


def _about(manifest: "Manifest") -> dict[str, Any]:
    made = {
        "mesh": manifest.mesh,
        "node": manifest.node,
        "made": when(manifest.made_ms),
        "bytes": manifest.bytes,
        "digest": manifest.digest,
    }
    return {**made, "with_keys": manifest.with_keys, **_contents(manifest.held)}


def _contents(held: "Held") -> dict[str, Any]:
    return {
        "owner": held.owner,
        "incarnation": held.incarnation,
        "records": sum(log.size for log in held.logs),
        "statements": held.statements,
        "logs": [{"origin": log.origin, "size": log.size, "root": log.root} for log in held.logs],
    }
