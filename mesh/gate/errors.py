"""What governed programs catch: denied before anything ran, or aborted while it ran. The two are never mixed up.

Not here: the codes (:mod:`mesh.codes`), and the signed denials behind them (:class:`mesh.core.run.authorization.Denial`).
"""

from mesh.codes import CODES
from mesh.core.run.authorization import RecordRef
from mesh.errors import MeshError

__all__ = ["Aborted", "Denied"]


class _Ended(MeshError):
    def __init__(self, code: str, reason: str = "", record: RecordRef | None = None, *, intent: str = "") -> None:
        if code not in CODES:  # a newer governor's word: still a no, and nothing to act on
            code, reason = "malformed", f"an unknown reason: {code[:64]} {reason}"
        super().__init__(code, reason)
        self.reason = reason
        """For people; the code is for programs."""
        self.record = record
        """Where the decision stands, if one was recorded."""
        self.intent = intent
        """Statement id of the intent, for ``mesh why``; empty if none was sent."""


class Denied(_Ended):
    """It may not run, and did not: by policy, by what could not be verified, or because nobody could be asked."""


class Aborted(_Ended):
    """It was running, and the enforcer ended it: something was revoked, or its right to go on could not be shown any more."""
