"""`python -m mesh.cli`: the command `mesh` where no script is installed."""

from mesh.cli import main

__all__: list[str] = []

main()
