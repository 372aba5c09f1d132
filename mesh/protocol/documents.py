"""Identity documents that were verified once are not verified again: an issuer's signature does not change, only time does.

A memo of a pure function, bounded; forgetting costs one signature check. Times are never part of it: they are checked at
every use.
"""

from typing import Final

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.run.identity import Identity, issued_by

__all__ = ["Documents"]

_KEPT_MAX: Final = 4_096


class Documents:
    """Verified identity documents by their bytes."""

    def __init__(self) -> None:
        """Nothing known yet."""
        self._known: dict[tuple[str, bytes], Statement[Identity]] = {}

    def admit(self, data: bytes, governance: Governance) -> Statement[Identity]:
        """The document in ``data``, signed by an issuer of the roster in force.

        Raises:
            Refused: the codec's codes, ``wrong_mesh``, ``identity_unknown``.
        """
        key = (governance.roster_id, data)
        found = self._known.get(key)
        if found is None:
            found = envelope.read(Identity, data)
            issued_by(found, governance.roster)
            if len(self._known) >= _KEPT_MAX:
                self._known.clear()
            self._known[key] = found
        return found
