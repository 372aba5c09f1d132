"""Files and names that a power cut does not take back.

Not here: who may have such a file (:func:`mesh.adapters.store.hold`), what is in it (:mod:`mesh.adapters.keptfile`), databases.
"""

import os
from pathlib import Path
from typing import Final

from mesh.errors import Unavailable

__all__ = ["replace_file", "sync_folder"]

_PRIVATE: Final = 0o600


def replace_file(path: Path, data: bytes) -> None:
    """Make these bytes the file at ``path``, which only its owner can read: whatever happens, it is the old one or this one.

    A new file is written beside, synced, and renamed over the old one; then the folder is synced. One process at a time.

    Raises:
        Unavailable: ``storage_failed``.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
        with open(handle, "wb") as file:  # noqa: PTH123 -- a descriptor, not a path
            os.fchmod(handle, _PRIVATE)  # what was left of an earlier try has the rights that it has
            file.write(data)
            file.flush()
            os.fsync(handle)
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise Unavailable("storage_failed", f"{path}: {error.strerror}") from None


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: without it, a file that was synced may be gone after a power cut. Raises :class:`OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
