"""How far an auditor has come, in one small file that is either the old one or the new one, whatever happens in between.

Rules
-----
1. Saving writes a new file beside, syncs it, renames it over the old one and syncs the folder.
2. The file carries a digest of itself. One that does not fit is an alarm: an auditor that starts anew because of rot would
   forget what it found.
3. One process at a time: a lock beside the file is held until :meth:`AuditStore.close`.
4. Each file names its own reader of the streams, so two auditors never share one.

Not here: what a position means (:mod:`mesh.protocol.audit`).
"""

import os
import secrets
from pathlib import Path
from typing import Final, Self

import msgspec

from mesh.adapters.store import hold
from mesh.adapters.trustfiles import read_bounded
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Hex32, Payload, Token
from mesh.errors import Alarm, Refused, Unavailable
from mesh.protocol.audited import AuditPosition

__all__ = ["AuditStore", "write_whole"]

_BYTES_MAX: Final = 32_000_000
"""A thousand findings and four hundred logs are 2 MB; executions and boots, as many as are ever kept, some 20."""
_PRIVATE: Final = 0o600


class _File(Payload):
    digest: Hex32
    """SHA-256 of what is kept, canonical."""
    kept: msgspec.Raw


class _Kept(Payload):
    reader: Token
    position: AuditPosition


class AuditStore:
    """An auditor's file, open."""

    def __init__(self, path: Path, lock: int, reader: str, position: AuditPosition | None) -> None:
        self._path = path
        self._lock: int | None = lock
        self.reader = reader
        """Name of this auditor's reader at the streams."""
        self.position = position
        """What was kept last; ``None`` at first."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at ``path``, or begin one.

        Raises:
            Unavailable: ``storage_failed``, also when another process has it.
            Alarm: ``storage_corrupt``.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable("storage_failed", f"{path.parent}: {error.strerror}") from None
        lock = hold(path.with_name(f"{path.name}.lock"))
        if lock is None:
            raise Unavailable("storage_failed", f"{path} is in use by another auditor")
        try:
            kept = _read(path) if path.exists() else None
        except BaseException:
            os.close(lock)
            raise
        reader = kept.reader if kept is not None else f"audit-{secrets.token_hex(6)}"
        return cls(path, lock, reader, kept.position if kept is not None else None)

    def save(self, position: AuditPosition) -> None:
        """Keep ``position`` (rule 1). Takes some milliseconds of disk.

        Raises:
            Unavailable: ``storage_failed``; the old one is kept then.
        """
        body = canonical.encode(_Kept(reader=self.reader, position=position))
        data = canonical.encode(_File(digest=canonical.sha256_hex(body), kept=msgspec.Raw(body)))
        write_whole(self._path, data)
        self.position = position

    def close(self) -> None:
        """Let go of the file. Closing twice is once."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def write_whole(path: Path, data: bytes) -> None:
    """Replace the file at ``path``, durably, or leave it as it was (rule 1).

    Raises:
        Unavailable: ``storage_failed``.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
        with open(handle, "wb") as file:  # noqa: PTH123 -- a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(handle)
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Unavailable("storage_failed", f"{path}: {error.strerror}") from None


def _read(path: Path) -> _Kept:
    try:
        file = canonical.decode(_File, read_bounded(path, _BYTES_MAX), bytes_max=_BYTES_MAX)
        kept = canonical.decode(_Kept, bytes(file.kept), bytes_max=_BYTES_MAX)
    except Refused as refusal:
        raise Alarm("storage_corrupt", f"{path}: {refusal.detail}") from None
    if canonical.sha256_hex(bytes(file.kept)) != file.digest:
        raise Alarm("storage_corrupt", f"{path}: it does not have the digest it says")
    return kept
