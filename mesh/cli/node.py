"""`mesh node run`: a governor as this process."""

from pathlib import Path

import click

__all__ = ["node"]


@click.group()
def node() -> None:
    """Run a node of the mesh."""


@node.command()
@click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Its node.toml.")
def run(config: Path) -> None:
    """Serve as a governor until SIGTERM or Ctrl-C, then drain.

    Prints `ready NAME` to standard error once intents are taken.
    """
    from mesh.roles.run import run_governor

    run_governor(config)
