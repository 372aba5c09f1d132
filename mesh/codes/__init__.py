"""Every reason this mesh can say no, once: the same word on the wire, in records, in errors and in ``mesh explain``.

A code is added with the line that raises it and the test that provokes it (``tests/house`` fails otherwise), and is never
renamed or reused: auditors keep records for years.
"""

from typing import Final, Literal

from mesh.codes.asked import REQUESTS
from mesh.codes.code import RESEND, Code, Exit
from mesh.codes.logged import LOGS
from mesh.codes.operating import OPERATING
from mesh.codes.running import RUNNING
from mesh.codes.said import BYTES_AND_ROLES

__all__ = ["CODES", "Again", "Code", "Exit", "again"]

Again = Literal["no", "anew", "later"]
"""Whether trying again helps, without anybody mending anything: not, at once as a new request, or after a while."""
CODES: Final[dict[str, Code]] = {**BYTES_AND_ROLES, **REQUESTS, **RUNNING, **LOGS, **OPERATING}
_NO_ANSWER: Final = 4
_ANEW: Final = frozenset({"cancelled", "intent_conflict"})
"""A new request is another question; beside those whose advice is to send one."""
_LATER: Final = frozenset({"halted", "not_yet_valid"})
"""Time, or people who lift it; beside everything that says that there is no answer *now*."""
_RAN: Final = frozenset({"used"})
"""The effect may have happened: a new request would be a second one."""


def again(code: str) -> Again:
    """Whether whoever gets this code may try again as it is, and when."""
    entry = CODES[code]
    if code in _RAN:
        return "no"
    if code in _ANEW or entry.fix == RESEND:
        return "anew"
    return "later" if code in _LATER or entry.exit == _NO_ANSWER else "no"
