"""Times as people write them on a command line: ``+30s`` from now on, or a moment with its time zone."""

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from mesh.cli.spans import read_span
from mesh.errors import Refused

__all__ = ["When", "parse_ago", "parse_when"]

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


def parse_ago(text: str, *, where: str, now_ms: int) -> int:
    """``24h`` ago or ``2027-01-31T09:00:00Z``, in ms since the epoch; ``where`` it stands is told in errors.

    Raises:
        Refused: ``usage``.
    """
    ago_ms = read_span(text)
    if ago_ms is not None:
        return max(now_ms - ago_ms, 0)
    try:
        at_ms = parse_when(text, where=where).at_ms
    except Refused:
        at_ms = None
    if at_ms is None:
        raise Refused(
            "usage", f"{where}: {text[:40]!r} is neither 90s, 30m, 24h or 7d ago nor a time with its zone, such as 2027-01-31T09:00:00Z"
        )
    return at_ms
