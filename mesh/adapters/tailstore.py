"""How far a reader of advances has come, in one small file that is either the old one or the new one.

Rules
-----
1. The file names its own reader of the streams, so that two never share one; one process at a time has it.
2. It carries a digest of itself. One that does not fit is refused: what was told is told again with another file, and nothing is lost.

Not here: what an advance is (:mod:`mesh.protocol.advancing`).
"""

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

from mesh.adapters.auditstore import write_whole
from mesh.adapters.store import hold
from mesh.adapters.trustfiles import read_bounded
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Hex32, Payload, Token
from mesh.errors import Alarm, Refused, Unavailable
from mesh.limits import AUDIT_LOGS_MAX
from mesh.protocol.advancing import Reached

__all__ = ["TailStore"]

_BYTES_MAX: Final = 1_000_000
"""Four hundred logs take a tenth."""
_WAY_OUT: Final = "name a file that is not there yet: all is told again, and nothing is lost"


class _Kept(Payload):
    reader: Token
    logs: Annotated[list[Reached], msgspec.Meta(max_length=AUDIT_LOGS_MAX)]


class _File(Payload):
    digest: Hex32
    """SHA-256 of what is kept, canonical."""
    kept: msgspec.Raw


class TailStore:
    """That file, open."""

    def __init__(self, path: Path, lock: int, kept: _Kept) -> None:
        self._path = path
        self._lock: int | None = lock
        self.reader = kept.reader
        """Name of this reader at the streams."""
        self.reached: Mapping[str, Reached] = {one.origin: one for one in kept.logs}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at ``path``, or begin one.

        Raises:
            Unavailable: ``storage_failed``, also when another process has it.
            Alarm: ``storage_corrupt``.
        """
        lock = hold(path.with_name(f"{path.name}.lock"))
        if lock is None:
            raise Unavailable("storage_failed", f"{path} is in use by another process")
        try:
            there = path.exists()
            store = cls(path, lock, _read(path) if there else _Kept(reader=f"tail-{secrets.token_hex(6)}", logs=[]))
            if not there:
                store.save([])  # before the streams hear of this reader: they remember it
        except BaseException:
            os.close(lock)
            raise
        return store

    def save(self, reached: Iterable[Reached]) -> None:
        """Keep that. Raises :class:`Unavailable` ``storage_failed``; the old one is kept then."""
        logs = sorted(reached, key=lambda one: one.origin)[:AUDIT_LOGS_MAX]
        body = canonical.encode(_Kept(reader=self.reader, logs=logs))
        write_whole(self._path, canonical.encode(_File(digest=canonical.sha256_hex(body), kept=msgspec.Raw(body))))
        self.reached = {one.origin: one for one in logs}

    def close(self) -> None:
        """Let go of the file. Closing twice is once."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _read(path: Path) -> _Kept:
    try:
        file = canonical.decode(_File, read_bounded(path, _BYTES_MAX), bytes_max=_BYTES_MAX)
        kept = canonical.decode(_Kept, bytes(file.kept), bytes_max=_BYTES_MAX)
    except Refused as refusal:
        raise Alarm("storage_corrupt", f"{path}: {refusal.detail}; {_WAY_OUT}") from None
    if canonical.sha256_hex(bytes(file.kept)) != file.digest:
        raise Alarm("storage_corrupt", f"{path}: it does not have the digest it says; {_WAY_OUT}")
    return kept
