"""`mesh witness`: a witness of its own as this process, what it is, and what it has caught."""

import asyncio
from pathlib import Path

import click

from mesh.cli.output import Cli, format_option, pass_cli

__all__ = ["witness"]

_CONFIG = click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Its witness.toml.")


@click.group()
def witness() -> None:
    """State for others' logs, and nothing else, that they only ever grew."""


@witness.command()
@_CONFIG
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Where its key is now, if not where the file says.")
def init(config: Path, key: Path | None) -> None:
    """Make its file, once for each key. Never for a key that has cosigned: a witness that forgot signs second histories."""
    from mesh.roles.witness import open_store
    from mesh.roles.witness_config import load_witness_config

    async def make() -> None:
        await (await open_store(load_witness_config(config), key=key, create=True)).close()

    asyncio.run(make())


@witness.command()
@_CONFIG
def run(config: Path) -> None:
    """Answer add-checkpoint over HTTP (C2SP tlog-witness) until SIGTERM or Ctrl-C.

    Prints `ready NAME PORT` to standard error once it answers.
    """
    from mesh.roles.witness_run import run_witness

    run_witness(config)


@witness.command()
@_CONFIG
@format_option
@pass_cli
def show(cli: Cli, *, config: Path) -> None:
    """Its key, as others write it into their configuration, and the logs that it watches."""
    from mesh.roles.witness import WitnessNode
    from mesh.roles.witness_config import load_witness_config

    node = WitnessNode(load_witness_config(config), lambda _name: None)
    logs = [{"origin": origin, "vkey": key.vkey} for origin, keys in sorted(node.logs.items()) for key in keys]
    if cli.format == "table":
        cli.value({"name": node.verifier.name, "vkey": node.verifier.vkey})
        cli.lines([""])
        cli.rows(("origin", "vkey"), logs)
    else:
        cli.value({"name": node.verifier.name, "vkey": node.verifier.vkey, "logs": logs})


@witness.command()
@_CONFIG
@format_option
@pass_cli
def evidence(cli: Cli, *, config: Path) -> int:
    """Which logs have signed a second history, with the signed checkpoints. The witness must not run meanwhile.

    Ends with 0 if there is nothing, with 5 if there is.
    """
    from mesh.roles.witness import open_store
    from mesh.roles.witness_config import load_witness_config

    settings = load_witness_config(config)

    async def read() -> list[dict[str, str]]:
        store = await open_store(settings)
        try:
            cosigned = await store.all()
            return [
                {"origin": origin, "cosigned": cosigned[origin].note.decode(), "signed_too": note.decode()}
                for origin, note in await store.evidence()
            ]
        finally:
            await store.close()

    found = asyncio.run(read())
    cli.rows(("origin", "cosigned", "signed_too"), found)
    return 5 if found else 0
