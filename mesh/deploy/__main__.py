"""``python -m mesh.deploy NODES COMPOSE``: render the two shelves into these folders, ``nodes compose`` in a checkout."""

import sys
from pathlib import Path

from mesh.contracts.shelf import write
from mesh.deploy.compose import compose_files
from mesh.deploy.shelves import node_files

__all__: list[str] = []

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write(Path(sys.argv[1]), node_files())
    write(Path(sys.argv[2]), compose_files())
