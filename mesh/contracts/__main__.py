"""``python -m mesh.contracts FOLDER``: render the contracts into the folder, ``schemas`` in a checkout."""

import sys
from pathlib import Path

from mesh.contracts.files import contract_files
from mesh.contracts.shelf import write

__all__: list[str] = []

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]), contract_files())
