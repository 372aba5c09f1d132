"""Whether a governor may act: its view is fresh, it has caught up with what was final when it started, and others follow its log.

Rules
-----
1. Whoever starts is shown what was final (:mod:`mesh.protocol.barrier`). Until its mirrors hold that, its heartbeats say that it is
   *behind* and count for nobody; it decides nothing (``catching_up``), but records, mirrors and attests: that is how it catches up.
2. Everybody starts so, also after a restart or a restore: a mesh that starts cold hears of each other, catches up, and then counts.
3. A governor whose log runs too far ahead of its certificates decides nothing either (``backlog_full``): what others refuse to attest,
   or cannot, must not go on for ever. It still records outcomes; who asks is refused unsigned, and counted, or each no would lengthen it.

Why at the start, and in what a member says itself: whoever comes later or comes back is one and the same case, and an honest member
that says when it counts is enough, since f of k may lie anyhow. A roster is left by the heartbeats of k, so none is before all honest
ones of k have what they were shown at their start to be final.

Not here: what must be held (:mod:`mesh.protocol.together`).
"""

from collections.abc import Mapping
from typing import Final

from mesh.core.law.governance import Governance
from mesh.errors import Refused
from mesh.protocol.adoption import check_sure, check_view
from mesh.protocol.freshness import Freshness
from mesh.protocol.holding import Mirror
from mesh.protocol.lineage import LogState
from mesh.protocol.proven import behind

__all__ = ["FULL", "check_acts", "lagging"]

FULL: Final = "backlog_full"
"""Why nothing is decided, and that is not recorded (rule 3)."""


def lagging(mirrors: Mapping[str, Mirror]) -> list[Mirror]:
    """The mirrors that do not hold yet what was final when this node started; most is lacking of the first."""
    return sorted((held for held in mirrors.values() if behind(held)), key=lambda held: held.frontier.size - held.goal)


def check_acts(
    governance: Governance, fresh: Freshness, mirrors: Mapping[str, Mirror], log: LogState, *, wall_ms: int, now_ms: int
) -> None:
    """That a governor may decide; ``log`` is its own.

    Raises:
        Refused: as :func:`mesh.protocol.adoption.check_view`; ``catching_up``, which comes before ``stale``; ``backlog_full``.
    """
    check_sure(governance, fresh, wall_ms=wall_ms, now_ms=now_ms)
    for held in lagging(mirrors):
        raise Refused("catching_up", f"{held.frontier.size} of {held.goal} final records of {held.origin} are here")
    check_view(governance, fresh, wall_ms=wall_ms, now_ms=now_ms)
    waiting, most = log.frontier.size - log.certified, governance.roster.bounds.backlog_max
    if waiting > most:
        raise Refused(FULL, f"{waiting} records of {log.origin} are not final, at most {most} may be")
