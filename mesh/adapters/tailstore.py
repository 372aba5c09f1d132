"""How far a reader of advances has come, in one small file that is either the old one or the new one.

Rules
-----
1. The file names its own reader of the streams, so that two never share one; one process at a time has it.
2. One that does not fit its digest is refused: what was told is told again with another file, and nothing is lost.

Not here: the file itself (:mod:`mesh.adapters.keptfile`), what an advance is (:mod:`mesh.protocol.advancing`).
"""

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

from mesh.adapters.keptfile import KeptFile
from mesh.core.bytes.canonical import Payload, Token
from mesh.limits import AUDIT_LOGS_MAX
from mesh.protocol.advancing import Reached

__all__ = ["TailStore"]

_BYTES_MAX: Final = 1_000_000
"""Four hundred logs take a tenth."""
_WAY_OUT: Final = "name a file that is not there yet: all is told again, and nothing is lost"


class _Kept(Payload):
    reader: Token
    logs: Annotated[list[Reached], msgspec.Meta(max_length=AUDIT_LOGS_MAX)]


class TailStore:
    """That file, open."""

    def __init__(self, file: KeptFile[_Kept]) -> None:
        self._file = file
        kept = file.kept or _Kept(reader=f"tail-{secrets.token_hex(6)}", logs=[])
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
        file = KeptFile[_Kept].open(path, _Kept, bytes_max=_BYTES_MAX, way_out=_WAY_OUT)
        try:
            store = cls(file)
            if file.kept is None:
                store.save([])  # before the streams hear of this reader: they remember it
        except BaseException:
            file.close()
            raise
        return store

    def save(self, reached: Iterable[Reached]) -> None:
        """Keep that. Raises :class:`Unavailable` ``storage_failed``; the old one is kept then."""
        logs = sorted(reached, key=lambda one: one.origin)[:AUDIT_LOGS_MAX]
        self._file.save(_Kept(reader=self.reader, logs=logs))
        self.reached = {one.origin: one for one in logs}

    def close(self) -> None:
        """Let go of the file. Closing twice is once."""
        self._file.close()
