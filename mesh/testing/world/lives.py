"""I11 over all logs together: what honest enforcers and governors wrote accuses nobody, and without liars nothing of it is missing.

Not here: single records (:mod:`mesh.testing.world.healing`).
"""

from collections.abc import Iterable
from typing import Final

from mesh.core.bytes import envelope
from mesh.core.law.governance import Governance
from mesh.core.log.record import DecisionMade, OutcomeRecorded, read_record
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from mesh.protocol.alarms import NOTHING, Watch, standing
from mesh.protocol.lives import permitted
from mesh.protocol.numbering import LoggedOutcome
from mesh.testing.world.governor import Governor
from mesh.testing.world.ground import Violation
from mesh.testing.world.pruning import Archive

__all__ = ["check_lives"]

_EVER: Final = 1 << 50
"""Long after everything, ms."""


def check_lives(governors: Iterable[Governor], governance: Governance, archive: Archive, *, whole: bool) -> None:
    """Judge the logs of these honest governors; ``whole`` if there are no others and none lost anything. What still runs has no end yet.

    Raises:
        Violation: I11.
    """
    watch = Watch(NOTHING)
    for governor in governors:
        origin = governor.roster.origin(governor.member)
        leaves, bodies = archive.records(governor.disk, origin), archive.bodies
        for index, record in enumerate(map(read_record, leaves)):
            if isinstance(record, DecisionMade) and record.authorization:
                intent = envelope.read(Intent, bodies[record.intent]).claims
                watch.permit(record.intent, permitted(record, intent, governance, sound=True))
            elif isinstance(record, OutcomeRecorded):
                said = envelope.read(Outcome, bodies[record.outcome])
                watch.outcome(LoggedOutcome(said.id, said.claims, origin, index, record.at_ms))
    for trouble in watch.troubles():
        raise Violation("I11", f"an auditor of all logs finds {trouble.code} at {trouble.origin} {trouble.index}: {trouble.detail}")
    stands = standing(watch.finish(_EVER), {}, {}, seen_ms=_EVER, now_ms=_EVER, stale_ms=0) if whole else []
    for alarm in stands:
        if alarm.code != "end_missing":
            raise Violation("I11", f"an auditor of all logs misses {alarm.code} at {alarm.origin} {alarm.index}: {alarm.detail}")
