"""How far an auditor has come, in one small file that is either the old one or the new one, whatever happens in between.

Rules
-----
1. A file that does not fit its digest is an alarm: an auditor that starts anew because of rot would forget what it found.
2. Each file names its own reader of the streams, so two auditors never share one.

Not here: the file itself (:mod:`mesh.adapters.keptfile`), what a position means (:mod:`mesh.protocol.audit`).
"""

import secrets
from pathlib import Path
from typing import Final, Self

from mesh.adapters.keptfile import KeptFile
from mesh.core.bytes.canonical import Payload, Token
from mesh.errors import Unavailable
from mesh.protocol.audited import AuditPosition

__all__ = ["AuditStore"]

_BYTES_MAX: Final = 32_000_000
"""A thousand findings and four hundred logs are 2 MB; executions and boots, as many as are ever kept, some 20."""
_WAY_OUT: Final = "name a file that is not there yet: all is judged again"


class _Kept(Payload):
    reader: Token
    position: AuditPosition


class AuditStore:
    """An auditor's file, open."""

    def __init__(self, file: KeptFile[_Kept]) -> None:
        self._file = file
        kept = file.kept
        self.reader = kept.reader if kept is not None else f"audit-{secrets.token_hex(6)}"
        """Name of this auditor's reader at the streams."""
        self.position = kept.position if kept is not None else None
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
        return cls(KeptFile[_Kept].open(path, _Kept, bytes_max=_BYTES_MAX, way_out=_WAY_OUT))

    def save(self, position: AuditPosition) -> None:
        """Keep ``position``. Takes some milliseconds of disk.

        Raises:
            Unavailable: ``storage_failed``; the old one is kept then.
        """
        self._file.save(_Kept(reader=self.reader, position=position))
        self.position = position

    def close(self) -> None:
        """Let go of the file. Closing twice is once."""
        self._file.close()
