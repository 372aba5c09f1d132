"""What one process keeps in one small file, which is either the old one or the new one, whatever happens in between.

Rules
-----
1. The file carries a digest of itself. One that does not fit is an alarm.
2. One process at a time: a lock beside the file is held until :meth:`KeptFile.close`.

Not here: what is kept (:mod:`mesh.adapters.auditstore`, :mod:`mesh.adapters.tailstore`), replacing a file (:mod:`mesh.adapters.durable`).
"""

import os
from pathlib import Path
from typing import Generic, Self, TypeVar

import msgspec

from mesh.adapters.durable import replace_file
from mesh.adapters.store import hold
from mesh.adapters.trustfiles import read_bounded
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Hex32, Payload
from mesh.errors import Alarm, Refused, Unavailable

__all__ = ["KeptFile"]

T = TypeVar("T", bound=Payload)


class _File(Payload):
    digest: Hex32
    """SHA-256 of what is kept, canonical."""
    kept: msgspec.Raw


class KeptFile(Generic[T]):
    """That file, open."""

    def __init__(self, path: Path, lock: int, kept: T | None) -> None:
        self._path = path
        self._lock: int | None = lock
        self.kept = kept
        """What was kept last; ``None`` before anything was."""

    @classmethod
    def open(cls, path: Path, kind: type[T], *, bytes_max: int, way_out: str) -> Self:
        """Open the file at ``path``, or begin one; ``way_out`` is what to do with one that is damaged.

        Raises:
            Unavailable: ``storage_failed``, also when another process has it.
            Alarm: ``storage_corrupt``.
        """
        lock = hold(path.with_name(f"{path.name}.lock"))
        if lock is None:
            raise Unavailable("storage_failed", f"{path} is in use by another process")
        try:
            return cls(path, lock, _read(path, kind, bytes_max, way_out) if path.exists() else None)
        except BaseException:
            os.close(lock)
            raise

    def save(self, value: T) -> None:
        """Keep ``value``. Takes some milliseconds of disk.

        Raises:
            Unavailable: ``storage_failed``; the old one is kept then.
        """
        body = canonical.encode(value)
        replace_file(self._path, canonical.encode(_File(digest=canonical.sha256_hex(body), kept=msgspec.Raw(body))))
        self.kept = value

    def close(self) -> None:
        """Let go of the file. Closing twice is once."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _read(path: Path, kind: type[T], bytes_max: int, way_out: str) -> T:
    try:
        file = canonical.decode(_File, read_bounded(path, bytes_max), bytes_max=bytes_max)
        kept = canonical.decode(kind, bytes(file.kept), bytes_max=bytes_max)
    except Refused as refusal:
        raise Alarm("storage_corrupt", f"{path}: {refusal.detail}; {way_out}") from None
    if canonical.sha256_hex(bytes(file.kept)) != file.digest:
        raise Alarm("storage_corrupt", f"{path}: it does not have the digest it says; {way_out}")
    return kept
