"""A small policy folder to begin with: it passes its own checks and cases as it stands."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from mesh.errors import Refused

__all__ = ["write_starter"]

_MESH: Final = "spiffe://MESH/"


def write_starter(path: Path, *, mesh: str) -> list[Path]:
    """Write the starter into the folder at ``path``, with SPIFFE ids of ``mesh``; returns the files written.

    Raises:
        Refused: ``usage`` if something is there already, or it cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Refused("usage", f"{path} is not empty")
    try:
        return [_write(file, path / name, mesh) for name, file in _walk(files("mesh.policy") / "starter", "")]
    except OSError as error:
        raise Refused("usage", f"{path}: {error.strerror}") from None


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        found += _walk(entry, f"{name}/") if entry.is_dir() else [(name, entry)]
    return found


def _write(source: Traversable, target: Path, mesh: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source.read_text(encoding="utf-8").replace(_MESH, f"spiffe://{mesh}/"), encoding="utf-8")
    return target
