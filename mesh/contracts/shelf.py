"""A rendered folder equals what its renderer says, to the byte: nothing is left over, nothing is edited by hand.

Not here: what stands in it (:mod:`mesh.contracts.files`, :mod:`mesh.deploy`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Files", "differences", "write"]

Files = Mapping[str, bytes]
"""POSIX path below the folder to content."""


def write(folder: Path, files: Files) -> None:
    """Make ``folder`` hold exactly ``files``: others in it are deleted, and folders left empty with them."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in files:
            path.unlink()


def differences(folder: Path, files: Files) -> Iterator[str]:
    """What is not as rendered, one line each."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    yield from (f"{name}: missing" for name in sorted(files.keys() - found))
    yield from (f"{name}: nobody rendered it" for name in sorted(found - files.keys()))
    yield from (f"{name}: differs" for name in sorted(found & files.keys()) if (folder / name).read_bytes() != files[name])
