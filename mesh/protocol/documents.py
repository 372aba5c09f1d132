"""Identity documents that were verified once are not verified again: an issuer's signature does not change, only time does.

A memo of a pure function, bounded; forgetting costs one signature check. Times are never part of it: they are checked at
every use.
"""

from collections.abc import Callable
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
        return self._admit((governance.roster_id, data), lambda found: issued_by(found, governance.roster))

    def admit_former(self, data: bytes, governance: Governance) -> Statement[Identity]:
        """The document in ``data``, signed by an issuer of any roster that is held: for what lies in the past. Raises as :meth:`admit`."""
        rosters = governance.rosters

        def issued(found: Statement[Identity]) -> None:
            rosters.judged(lambda roster: issued_by(found, roster), by=lambda roster: roster.issuers)

        return self._admit((rosters.ids[-1], data), issued)

    def _admit(self, key: tuple[str, bytes], check: Callable[[Statement[Identity]], object]) -> Statement[Identity]:
        found = self._known.get(key)
        if found is None:
            found = envelope.read(Identity, key[1])
            check(found)
            if len(self._known) >= _KEPT_MAX:
                self._known.clear()
            self._known[key] = found
        return found
