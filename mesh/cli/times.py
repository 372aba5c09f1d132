"""Times as people write them on a command line: ``+30s`` from now on, or a moment with its time zone."""

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from mesh.errors import Refused

__all__ = ["When", "parse_when"]

_AFTER: Final = re.compile(r"\+([0-9]{1,9})(ms|s|m|h|d)")
_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class When(NamedTuple):
    """One of both, in ms."""

    after_ms: int | None
    """From now on."""
    at_ms: int | None
    """Since the epoch."""

    def moment_ms(self, now_ms: int) -> int:
        """When that is."""
        return self.at_ms if self.at_ms is not None else now_ms + (self.after_ms or 0)


def parse_when(text: str, *, where: str) -> When:
    """``+30s``, ``+2m``, ``+1h`` or ``2027-01-31T09:00:00Z``; ``where`` it stands is told in errors.

    Raises:
        Refused: ``usage``.
    """
    after = _AFTER.fullmatch(text)
    if after is not None:
        return When(int(after[1]) * _UNITS[after[2]], None)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refused("usage", f"{where}: {text[:40]!r} is neither +30s, +2m, +1h nor a time such as 2027-01-31T09:00:00Z") from None
    if at.tzinfo is None:
        raise Refused("usage", f"{where}: say which time zone, Z for UTC")
    return When(None, int(at.astimezone(UTC).timestamp() * 1_000))
