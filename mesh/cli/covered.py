"""What an archive of proofs covers: of which logs which records, without which others; counted proof by proof, in bounded memory.

Whoever makes an archive may leave records out of it, so whoever knows which ones it should hold says so, and is told the first that lacks.

Not here: judging (:mod:`mesh.cli.offline`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from mesh.errors import Refused
from mesh.limits import AUDIT_LOGS_MAX

__all__ = ["Covered", "Span", "span_of"]

_WORST: Final = ("VERIFIED", "PARTIAL", "UNREADABLE", "FAILED")
_SPAN: Final = re.compile(r"([^=\s]{1,200})=([0-9]{1,15})\.\.([0-9]{1,15})")


class Span(msgspec.Struct, frozen=True):
    """Records of one log that must be there."""

    origin: str
    first: int
    last: int


def span_of(written: str) -> Span:
    """What ``lab/eu-1/e1=0..41`` says.

    Raises:
        Refused: ``usage``.
    """
    found = _SPAN.fullmatch(written)
    if found is None or int(found[2]) > int(found[3]):
        raise Refused("usage", f"--range {written[:80]!r}: written like lab/eu-1/e1=0..41")
    return Span(found[1], int(found[2]), int(found[3]))


class _Log(msgspec.Struct):
    first: int
    last: int
    records: int = 0
    gaps: int = 0
    lacks: int = -1
    """The first index that lacks between others; -1 if none does."""


class _Awaited(msgspec.Struct):
    span: Span
    index: int
    """The first one that has not been there yet."""


class Covered:
    """Counts verdicts, and runs of indices per log."""

    def __init__(self, spans: Iterable[Span] = (), *, whole: bool = False) -> None:
        """Nothing yet.

        Args:
            spans: records that must be there.
            whole: whether none may lack between others.
        """
        self._verdicts = Counter[str]()
        self._logs: dict[str, _Log] = {}
        self._awaited = [_Awaited(span, span.first) for span in spans]
        self._whole = whole
        self._uncounted = ""

    def add(self, value: Mapping[str, Any]) -> None:
        """One proof's report, as `mesh verify` says it.

        Raises:
            Refused: ``non_canonical`` for a record that is there already, or stands behind a later one of its log.
        """
        self._verdicts[value["verdict"]] += 1
        record = value.get("record")
        if value["verdict"] in {"FAILED", "UNREADABLE"} or not record:
            return
        origin, index = record["origin"], record["index"]
        if origin not in self._logs and len(self._logs) >= AUDIT_LOGS_MAX:
            self._uncounted = self._uncounted or origin
            return
        log = self._logs.setdefault(origin, _Log(index, index - 1))
        if index <= log.last:
            raise Refused("non_canonical", f"record {index} of {origin} stands behind record {log.last}")
        if index != log.last + 1:
            log.gaps += 1
            log.lacks = log.last + 1 if log.lacks < 0 else log.lacks
        log.last = index
        log.records += 1
        for awaited in self._awaited:
            if awaited.span.origin == origin and awaited.index == index:
                awaited.index += 1

    def lacking(self) -> list[str]:
        """What must be there and is not: of each span, or of each log, the first record."""
        found = [f"record {one.index} of {one.span.origin} is not there" for one in self._awaited if one.index <= one.span.last]
        if self._whole:
            found += [f"record {log.lacks} of {origin} is not there" for origin, log in sorted(self._logs.items()) if log.gaps]
            found += [f"more than {AUDIT_LOGS_MAX} logs: {self._uncounted} was not counted"] if self._uncounted else []
        return found

    @property
    def worst(self) -> str:
        """The verdict of all together; nothing proves nothing, and is PARTIAL. What lacks and must be there makes it FAILED."""
        if self.lacking():
            return "FAILED"
        return max(self._verdicts, key=_WORST.index, default="PARTIAL")

    def value(self) -> dict[str, Any]:
        """For programs."""
        logs = [
            {"log": origin, "first": log.first, "last": log.last, "records": log.records, "gaps": log.gaps, "lacks": log.lacks}
            for origin, log in sorted(self._logs.items())
        ]
        counts = {name.lower(): self._verdicts[name] for name in _WORST}
        return {"proofs": self._verdicts.total(), **counts, "logs": logs, "lacking": self.lacking()}

    def lines(self) -> list[str]:
        """For people."""
        value = self.value()
        told = [f"  {value['proofs']} proofs: " + ", ".join(f"{self._verdicts[name]} {name}" for name in _WORST if self._verdicts[name])]
        for log in value["logs"]:
            gaps = "none missing between" if not log["gaps"] else f"{log['gaps']} gaps between, the first at {log['lacks']}"
            told.append(f"  {log['log']}: {log['records']} records, {log['first']} to {log['last']}, {gaps}")
        return told + [f"  FAILED: {what}" for what in value["lacking"]]
