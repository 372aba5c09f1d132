"""Two kinds of no, and one kind of never: every deliberate exception of govmesh is one of these.

::

    MeshError
    ├── Refused      evidence was read and the answer is no (malformed, unauthentic, stale, conflicting, …)
    ├── Unavailable  no answer could be had; whoever asked must deny
    ├── Alarm        a state that must not exist: stop signing, say why, keep the evidence
    ├── Denied       what a governed program gets: it may not run, and did not (:mod:`mesh.gate.errors`)
    │   └── ApprovalRequired  … before people have approved exactly this
    └── Aborted      it was running, and the enforcer ended it (as above)

Each carries a stable ``code`` of :mod:`mesh.codes`. The code is the reason on the wire, in the records, in
``mesh explain CODE`` and here. A *denial* on the wire is none of these: it is a signed value.

Names end without ``Error`` on purpose: they name what happened, as ``asyncio.Cancelled`` does.
"""

from mesh.codes import CODES

__all__ = ["Alarm", "MeshError", "Refused", "Unavailable", "unforeseen"]


class MeshError(Exception):
    """Base of all deliberate failures.

    Args:
        code: a key of :data:`mesh.codes.CODES`.
        detail: what was wrong with *this* input, for people; never secret, never parsed by a program.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        if code not in CODES:  # a typo here would put an unknown word on the wire
            msg = f"unregistered code {code!r}"
            raise AssertionError(msg)
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        """``code: what it means (detail)``."""
        tail = f" ({self.detail})" if self.detail else ""
        return f"{self.code}: {CODES[self.code].meaning}{tail}"


class Refused(MeshError):
    """Evidence was read; the answer is no."""


class Unavailable(MeshError):
    """No answer could be had. The caller denies."""


class Alarm(MeshError):
    """A state that must not exist was seen. The node stops signing and keeps the evidence."""


def unforeseen(error: Exception) -> Alarm:
    """The alarm, ``internal_error``, for an error that nobody foresaw."""
    return Alarm("internal_error", f"{type(error).__name__}: {error}"[:500])
