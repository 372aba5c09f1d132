"""What an archive of proofs covers: of which logs which records, without which others; counted proof by proof, in bounded memory.

Not here: judging (:mod:`mesh.cli.offline`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from mesh.limits import AUDIT_LOGS_MAX

__all__ = ["Covered"]

_WORST: Final = ("VERIFIED", "PARTIAL", "UNREADABLE", "FAILED")


class Covered:
    """Counts verdicts, and runs of indices per log."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._verdicts = Counter[str]()
        self._logs: dict[str, list[int]] = {}
        """Origin to first and last index, records, holes and the first index that lacks (or -1), in the order of the file."""

    def add(self, value: Mapping[str, Any]) -> None:
        """One proof's report, as `mesh verify` says it."""
        self._verdicts[value["verdict"]] += 1
        record = value.get("record")
        if value["verdict"] in {"FAILED", "UNREADABLE"} or not record:
            return
        origin, index = record["origin"], record["index"]
        if origin not in self._logs and len(self._logs) >= AUDIT_LOGS_MAX:
            return
        log = self._logs.setdefault(origin, [index, index - 1, 0, 0, -1])
        if index != log[1] + 1:
            log[3] += 1
            log[4] = log[1] + 1 if log[4] < 0 else log[4]
        log[1] = index
        log[2] += 1

    @property
    def worst(self) -> str:
        """The verdict of all together; nothing proves nothing, and is PARTIAL."""
        return max(self._verdicts, key=_WORST.index, default="PARTIAL")

    def value(self) -> dict[str, Any]:
        """For programs."""
        logs = [
            {"log": origin, "first": first, "last": last, "records": records, "gaps": gaps, "lacks": lacks}
            for origin, (first, last, records, gaps, lacks) in sorted(self._logs.items())
        ]
        return {"proofs": self._verdicts.total(), **{name.lower(): self._verdicts[name] for name in _WORST}, "logs": logs}

    def lines(self) -> list[str]:
        """For people."""
        value = self.value()
        told = [f"  {value['proofs']} proofs: " + ", ".join(f"{self._verdicts[name]} {name}" for name in _WORST if self._verdicts[name])]
        for log in value["logs"]:
            gaps = "none missing between" if not log["gaps"] else f"{log['gaps']} gaps between, the first at {log['lacks']}"
            told.append(f"  {log['log']}: {log['records']} records, {log['first']} to {log['last']}, {gaps}")
        return told
