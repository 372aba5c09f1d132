"""When a node goes over to the next roster: once enough members are known to hold it, so that no two epochs are ever acted under at once.

Rules
-----
1. From ``not_before_ms`` on nobody who holds the next roster acts under the former one, whatever else is known. Between the two
   nothing is decided, attested or started (``roster_pending``); heartbeats go on, because they are what is waited for.
2. A node goes over when k members of the roster in force have shown for 2Δ that they hold the next one. So whoever does not hold it
   yet has not been fresh for Δ, and a quorum of the former epoch that still acts would need an honest member that has stopped.
3. Or when f+1 of them say that they have gone over: one of them is honest, and has seen that. So whoever was away does not
   wait for people who are no longer there.
4. One epoch after the other. A new member begins under the roster that names it; nobody answers it before going over too.
5. Going over is a start: what is remembered of others under the former roster is not taken along.

Why not simply at a time: a root that signs in haste, or a bus that holds the roster back from half of the mesh, would have two
rosters act at once. Two that follow one another share an honest member in every two quorums; with one between them that
need not be so.

Not here: what makes a step safe (:mod:`mesh.core.law.succession`), the restart (:mod:`mesh.protocol.begin`).
"""

from contextlib import suppress

from mesh.core.law.governance import Governance
from mesh.core.law.roster import Roster
from mesh.core.law.succession import same_member
from mesh.errors import Refused
from mesh.protocol.freshness import Freshness, check_clock, check_fresh

__all__ = ["check_sure", "check_view", "go_over", "is_sure", "next_roster"]


def check_sure(governance: Governance, fresh: Freshness, *, wall_ms: int, now_ms: int) -> None:
    """That what was seen may be signed now, fresh or not: this is the time, and this the roster.

    Raises:
        Refused: ``clock_unsure``, ``roster_pending``, ``roster_conflict``, the first of these.
    """
    check_clock(fresh, governance.roster, wall_ms=wall_ms, now_ms=now_ms)
    governance.check_roster(now_ms)


def is_sure(governance: Governance, fresh: Freshness, *, wall_ms: int, now_ms: int) -> bool:
    """Whether :func:`check_sure` lets pass."""
    with suppress(Refused):
        check_sure(governance, fresh, wall_ms=wall_ms, now_ms=now_ms)
        return True
    return False


def check_view(governance: Governance, fresh: Freshness, *, wall_ms: int, now_ms: int) -> dict[str, str]:
    """That this view may be acted by now; member to the heartbeat by which it vouches.

    Raises:
        Refused: as :func:`check_sure`; then ``stale``.
    """
    check_sure(governance, fresh, wall_ms=wall_ms, now_ms=now_ms)
    return check_fresh(fresh, governance.frontier, governance.roster, now_ms=now_ms, whole=governance.whole, frozen=governance.frozen)


def next_roster(governance: Governance, fresh: Freshness, *, now_ms: int) -> Roster | None:
    """The roster to go over to now, if there is one (rules 2 and 3)."""
    after = governance.successor
    if after is None or now_ms < after.not_before_ms:
        return None
    roster = governance.roster
    names = {member.name for member in roster.members}
    before_ms = now_ms - 2 * roster.bounds.stale_ms
    long = {name: [item for item in fresh.shown.get(name, ()) if item.signed_ms <= before_ms] for name in names}
    holding = sum(any(_holds(governance, after, item.epoch, item.id) for item in shown) for shown in long.values())
    gone = sum(bool(kept) and kept[-1].roster_epoch >= after.epoch for name, kept in fresh.heard.items() if name in names)
    return after if holding >= roster.k or gone > roster.f else None


def go_over(fresh: Freshness, former: Roster, roster: Roster) -> Freshness:
    """What counts on of what was heard: the word of those who are members of both (rule 5)."""
    kept = {one.name for one in former.members for other in roster.members if same_member(one, other)}
    return Freshness(
        fresh.boot,
        {name: heard for name, heard in fresh.heard.items() if name in kept},
        fresh.echoed & kept,
        {name: timed for name, timed in fresh.timed.items() if name in kept},
        {name: shown for name, shown in fresh.shown.items() if name in kept},
        fresh.leapt,
    )


def _holds(governance: Governance, after: Roster, epoch: int, identity: str) -> bool:
    """Whether whoever shows that holds ``after``: what comes after what I hold names it, if it counts."""
    ids = governance.rosters.ids
    return epoch >= after.epoch and (epoch > len(ids) or ids[epoch - 1] == identity)
