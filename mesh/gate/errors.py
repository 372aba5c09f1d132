"""What governed programs catch: denied before anything ran, or aborted while it ran. The two are never mixed up.

Rules
-----
1. ``detail`` and ``reason`` are for people who operate the mesh: a policy's author, or whoever sent the parameters, may have put words
   into them. ``safe`` is made of the registry's words only, so it may be shown to whoever asked, a language model among them.
2. What needs people to agree is a kind of its own: it is no accident, trying again changes nothing, and it says what to approve.

Not here: the codes (:mod:`mesh.codes`), and the signed denials behind them (:class:`mesh.core.run.authorization.Denial`).
"""

from typing import Final, Self

from mesh.codes import CODES, again
from mesh.core.run.authorization import RecordRef
from mesh.errors import MeshError

__all__ = ["Aborted", "ApprovalRequired", "Denied"]

_LATER_S: Final = 2
"""About as long as a view takes to become fresh, or a governor to start."""
_LATER_BY_CODE_S: Final = {"halted": 60}
"""What ends by people's hands ends later."""
_ADVICE: Final = {
    "later": "It may be tried again later.",
    "anew": "It may be tried again.",
    "no": "Trying again as it is does not help.",
}
_APPROVAL: Final = "approval_needed"


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

    @property
    def retry_after(self) -> int | None:
        """After how many seconds trying again may help, 0 for at once; None where it does not."""
        match again(self.code):
            case "later":
                return _LATER_BY_CODE_S.get(self.code, _LATER_S)
            case "anew":
                return 0
            case "no":
                return None

    @property
    def safe(self) -> str:
        """What happened and whether to try again, in words that nobody but this package wrote (rule 1)."""
        return f"{self._what} ({self.code}): {CODES[self.code].meaning}. {self._advice}"

    @property
    def _what(self) -> str:
        return "Denied"

    @property
    def _advice(self) -> str:
        return _ADVICE[again(self.code)]


class Denied(_Ended):
    """It may not run, and did not: by policy, by what could not be verified, or because nobody could be asked."""

    def __new__(cls, code: str, reason: str = "", record: RecordRef | None = None, *, intent: str = "") -> Self:
        """The kind that the code says, wherever it is raised (rule 2)."""
        del reason, record, intent
        kind = ApprovalRequired if cls is Denied and code == _APPROVAL else cls
        return super().__new__(kind)  # type: ignore[return-value]  # where it is not cls, cls is Denied, which it is a kind of


class ApprovalRequired(Denied):
    """It may not run, and did not, before people have approved exactly this: ``mesh approve INTENT``, then ask again with its file."""

    @property
    def _advice(self) -> str:
        return "People have to approve exactly this effect first; it cannot be reached another way."


class Aborted(_Ended):
    """It was running, and the enforcer ended it: something was revoked, or its right to go on could not be shown any more."""

    @property
    def _what(self) -> str:
        return "Ended while it ran"
