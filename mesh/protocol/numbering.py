"""An enforcer's outcomes are numbered without a gap, per boot, and each names the one before: whoever reads all logs sees what lacks.

Rules
-----
1. An outcome may stand in any governor's log, in several, late, and in any order. The highest number seen is how far a boot has come;
   every lower one that was not seen is part of a *hole*.
2. Each outcome is held to its neighbours that are known: it names the one before it. At the ends of a hole that is kept until it closes.
3. Another outcome under a number that was taken, or one that names another predecessor, is a second history: it is said at once.
4. What is remembered is bounded: of each boot the ids of the last :data:`mesh.limits.OUTBOX_OUTCOMES_MAX` numbers (no honest enforcer
   sends older ones again), of all together :data:`mesh.limits.AUDIT_OUTCOMES_MAX`; and :data:`mesh.limits.AUDIT_BOOTS_MAX` boots,
   those that spoke last. A boot that may have been forgotten begins anew where it is met again.
5. What may stand in records that were skipped, because nobody has more than their hashes any more, is in a hole and is not missed: what was
   said before a boot was met, what follows what was said before those records were kept, and what was missed where they were not read yet.

A swallowed outcome and a skipped one look the same here: who is to blame is for people. What was the last of a boot, and came to nobody,
is in no hole (:mod:`mesh.protocol.lives` misses the end of what has started).

Not here: after how long a hole is an alarm (:mod:`mesh.protocol.alarms`).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, KeyHex, Millis, Payload
from mesh.core.log.record import Origin
from mesh.core.run.outcome import Outcome
from mesh.limits import AUDIT_BOOTS_MAX, AUDIT_HOLES_MAX, AUDIT_OUTCOMES_MAX, OUTBOX_OUTCOMES_MAX

__all__ = ["Boot", "Hole", "LoggedOutcome", "Numbering", "Trouble", "keyed"]

_SHORT: Final = 32
"""Hex digits that are kept of an id: 16 bytes."""
_UNKNOWN: Final = "-" * _SHORT
_MaybeShort = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$(?!\\n)", max_length=_SHORT)]
_Shorts = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32}|-{32})*$(?!\\n)", max_length=_SHORT * OUTBOX_OUTCOMES_MAX)]


class LoggedOutcome(msgspec.Struct, frozen=True):
    """An outcome that stands in a log, verified."""

    id: str
    claims: Outcome
    origin: str
    index: int
    at_ms: int
    """When it was recorded."""


class Trouble(msgspec.Struct, frozen=True):
    """What must not be, and which record shows it."""

    code: str
    origin: str
    index: int
    detail: str


class Hole(Payload):
    """Numbers that no log has."""

    first: Count
    end: Count
    """The number after the last one that lacks."""
    after: _MaybeShort
    """Id of the outcome before the first, as far as it is kept; empty if there is none."""
    before: _MaybeShort
    """What the outcome at ``end`` names as the one before it."""
    since_ms: Millis
    """When the record was made that showed it; 0 if it may have been there, and was forgotten or skipped."""
    origin: Origin
    index: Count
    """That record."""


class Boot(Payload):
    """How far one boot of an enforcer has come."""

    enforcer: KeyHex
    boot: Hex32
    end: Count
    """The number after the highest one."""
    last_ms: Millis
    """When the newest of its outcomes was recorded."""
    ids: _Shorts
    """Of the last numbers, oldest first; what lacks among them is dashes."""
    holes: Annotated[list[Hole], msgspec.Meta(max_length=AUDIT_HOLES_MAX)]
    beyond: Count
    """Numbers that lack in holes that are not kept: there were too many."""

    def id_of(self, number: int) -> str:
        """Id of an outcome, as far as it is kept; empty otherwise."""
        at = number - (self.end - len(self.ids) // _SHORT)
        found = self.ids[at * _SHORT : (at + 1) * _SHORT] if at >= 0 else ""
        return "" if found == _UNKNOWN else found


class Numbering:
    """The working copy of all boots."""

    def __init__(self, boots: Mapping[str, Boot], forgotten: int, skipped_ms: int = 0) -> None:
        """Go on from ``boots``, by enforcer and boot; ``forgotten`` were given up so far, and records skipped up to ``skipped_ms``."""
        self.boots = dict(boots)
        self.forgotten = forgotten
        self.skipped_ms = skipped_ms
        self.troubles: list[Trouble] = []

    def take(self, heard: LoggedOutcome) -> bool:
        """Take an outcome in; whether it is new."""
        claims = heard.claims
        key = f"{claims.enforcer}{claims.boot}"
        boot = self.boots.pop(key, None)
        if boot is None:
            boot = _begun(heard, whole=not (self.forgotten or self.skipped_ms))
        found, new = self._numbered(boot, heard)
        self.boots[key] = msgspec.structs.replace(found, last_ms=max(found.last_ms, heard.at_ms))
        self._bound()
        return new

    def skip(self, after_ms: int, until_ms: int) -> None:
        """Records between these times were skipped (rule 5)."""
        self.skipped_ms = max(self.skipped_ms, until_ms)
        for key, boot in self.boots.items():
            holes = [msgspec.structs.replace(hole, since_ms=0) if hole.since_ms > after_ms else hole for hole in boot.holes]
            beyond = boot.beyond if holes == boot.holes else 0  # it is not known when these were seen
            self.boots[key] = msgspec.structs.replace(boot, holes=holes, beyond=beyond)

    def _numbered(self, boot: Boot, heard: LoggedOutcome) -> tuple[Boot, bool]:
        number, identity = heard.claims.sequence, heard.id[:_SHORT]
        if number >= boot.end:
            return self._further(boot, heard), True
        for at, hole in enumerate(boot.holes):
            if hole.first <= number < hole.end:
                return self._filled(boot, at, heard), True
        known = boot.id_of(number)
        if known and known != identity:
            self._conflict(heard, f"its enforcer has said another outcome {number} in the same boot")
            return boot, True
        return boot, False

    def _further(self, boot: Boot, heard: LoggedOutcome) -> Boot:
        number, previous = heard.claims.sequence, heard.claims.previous[:_SHORT]
        missing = number - boot.end
        if missing == 0:
            self._follows(boot.id_of(number - 1) if number else _UNKNOWN, heard)
        holes, beyond = boot.holes, boot.beyond
        if missing and len(holes) < AUDIT_HOLES_MAX:
            after = boot.id_of(boot.end - 1) if boot.end else ""
            since_ms = heard.at_ms if not self.skipped_ms or boot.last_ms > self.skipped_ms else 0
            found = Hole(
                first=boot.end, end=number, after=after, before=previous, since_ms=since_ms, origin=heard.origin, index=heard.index
            )
            holes = [*holes, found]
        elif missing:
            beyond += missing
        dashes = _UNKNOWN * min(missing, OUTBOX_OUTCOMES_MAX)
        ids = (boot.ids + dashes + heard.id[:_SHORT])[-_SHORT * OUTBOX_OUTCOMES_MAX :]
        return msgspec.structs.replace(boot, end=number + 1, ids=ids, holes=holes, beyond=beyond)

    def _filled(self, boot: Boot, at: int, heard: LoggedOutcome) -> Boot:
        number, identity, hole = heard.claims.sequence, heard.id[:_SHORT], boot.holes[at]
        if number == hole.first:
            self._follows(hole.after if number else _UNKNOWN, heard)
        if number == hole.end - 1 and hole.before != identity:
            self._conflict(heard, f"outcome {hole.end} of its enforcer follows another one")
        parts = [
            msgspec.structs.replace(hole, end=number, before=heard.claims.previous[:_SHORT]),
            msgspec.structs.replace(hole, first=number + 1, after=identity),
        ]
        holes = [*boot.holes[:at], *(part for part in parts if part.first < part.end), *boot.holes[at + 1 :]]
        beyond = boot.beyond
        if len(holes) > AUDIT_HOLES_MAX:
            last = holes.pop()
            beyond += last.end - last.first
        place = number - (boot.end - len(boot.ids) // _SHORT)
        ids = boot.ids if place < 0 else boot.ids[: place * _SHORT] + identity + boot.ids[(place + 1) * _SHORT :]
        return msgspec.structs.replace(boot, ids=ids, holes=holes, beyond=beyond)

    def _follows(self, before: str, heard: LoggedOutcome) -> None:
        """That it names the outcome before it, if that is known; the first one of a boot names none."""
        said = heard.claims.previous[:_SHORT]
        if (said != "" if before == _UNKNOWN else before not in {"", said}) or (said == "" and heard.claims.sequence > 0):
            self._conflict(heard, f"outcome {heard.claims.sequence} of its enforcer names another one before it")

    def _conflict(self, heard: LoggedOutcome, detail: str) -> None:
        self.troubles.append(Trouble("outcome_conflict", heard.origin, heard.index, detail))

    def _bound(self) -> None:
        while len(self.boots) > AUDIT_BOOTS_MAX:
            whole = next((key for key, boot in self.boots.items() if not boot.holes), next(iter(self.boots)))
            del self.boots[whole]
            self.forgotten += 1

    def trim(self) -> None:
        """Forget the ids of those that have been quiet for longest, as far as there are too many of all together."""
        room = AUDIT_OUTCOMES_MAX * _SHORT
        for key in reversed([*self.boots]):
            boot = self.boots[key]
            if len(boot.ids) > max(room, _SHORT):
                kept = max(room, _SHORT)  # the last one is what the next one must name
                self.boots[key] = msgspec.structs.replace(boot, ids=boot.ids[-kept:])
            room = max(0, room - len(boot.ids))


def _begun(heard: LoggedOutcome, *, whole: bool) -> Boot:
    """A boot of which nothing is known; of one that may have been forgotten nothing is missed before the number at which it is met."""
    claims = heard.claims
    end = 0 if whole else claims.sequence
    before = Hole(first=0, end=max(end, 1), after="", before=claims.previous[:_SHORT], since_ms=0, origin=heard.origin, index=heard.index)
    return Boot(enforcer=claims.enforcer, boot=claims.boot, end=end, last_ms=heard.at_ms, ids="", holes=[before] if end else [], beyond=0)


def keyed(boots: Iterable[Boot]) -> dict[str, Boot]:
    """Boots by what they are found under."""
    return {f"{boot.enforcer}{boot.boot}": boot for boot in boots}
