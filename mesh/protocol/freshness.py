"""Whether this view of the mesh is new enough to allow anything: k members vouch for it by signed time, or nothing starts.

Rules
-----
1. A heartbeat is judged by its *signed* time, never by its arrival: it counts iff ``-ε <= now - signed <= Δ - ε``.
   One from the future neither counts nor replaces another.
2. A member vouches iff *some* counting heartbeat of it is covered by my frontier. One that claims to be ahead of me does not
   vouch by that heartbeat, and hinders nobody else: one liar stops nothing.
3. After a start nothing is fresh until k members have signed a heartbeat that echoes this boot's nonce: whatever was said
   before the start may be a replay.
4. Per member only heartbeats of the newest incarnation seen, in rising sequence, are kept.
5. A clock is judged by what *others* signed, whether that counted or not: their newest heartbeats with the time of arrival. Up to f
   of them may lie, so f+1 have an honest one among them, and nothing is said while no more than f were heard. Mine is not trusted

   * when the (f+1)-th largest signed time is ahead of the wall clock by more than ε: it is behind;
   * when all but f of them had more than ε and half the life of a heartbeat behind them as they arrived: it is ahead, or hears
     old news only, which is as bad. How long ago they arrived says nothing: that is what growing stale is for;
   * when the wall clock is ahead of the steady time by more than ε: it was set forward, and nobody has borne it out yet;
   * when time made a leap (:func:`leap`), until more than f were heard after it.
6. Who says that it is behind, because it lacks records that were final before it started, tells the time and that it lives, and
   nothing more: it does not vouch, does not answer a start, and does not count among those who hold a roster. So of k that are fresh,
   and of k by whom a roster is left, all but those that lie have what was final when they started; but for a log whose owner is proven
   to have two histories, of which some were shown the other one (:mod:`mesh.protocol.proven`).
7. Who is caught (:mod:`mesh.core.law.fraud`) does not vouch and answers no start. n, f and k stay. Of its clock and of the rosters that it
   holds it may still speak: it is one of the f who may lie there anyhow, and a mesh that removes it may need it to go over.

Not here: how heartbeats travel.
"""

from collections.abc import Container, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from mesh.core.law.heartbeat import NOTHING, Heartbeat, StreamHead, covers
from mesh.core.law.roster import ROSTERS, Bounds, Roster
from mesh.errors import Refused

__all__ = ["Freshness", "Heard", "answered", "check_clock", "check_fresh", "counts", "hear", "leap", "vouchers"]

_KEPT_MAX: Final = 16
"""Heartbeats kept per member: Δ/H of any sensible roster, and a bound on what a chatty liar can make us hold."""


_SHOWN_MAX: Final = 4
"""Rosters of which it is kept since when a member holds them. Whoever forgets only waits longer."""


class Heard(msgspec.Struct, frozen=True):
    """What is kept of one believed heartbeat."""

    id: str
    incarnation: int
    sequence: int
    signed_ms: int
    frontier: tuple[StreamHead, ...]
    roster_epoch: int = 0
    """Under which it was said."""
    behind: bool = False
    """Whether its member lacks what was final when it started (rule 6)."""


class Shown(msgspec.Struct, frozen=True):
    """That a member holds a roster."""

    epoch: int
    id: str
    signed_ms: int
    """When it signed that first, as far as was heard."""


class Timed(msgspec.Struct, frozen=True):
    """The newest heartbeat of a member, as a reading of its clock."""

    incarnation: int
    sequence: int
    signed_ms: int
    late_ms: int
    """How old it was when it came, by my steady time; negative if it was from the future."""


class Freshness(msgspec.Struct, frozen=True):
    """One node's view of who said what, when."""

    boot: str
    """This boot's nonce, hex."""
    heard: Mapping[str, tuple[Heard, ...]]
    """Member to its heartbeats, oldest first."""
    echoed: frozenset[str]
    """Members that have answered this boot."""
    timed: Mapping[str, Timed] = {}
    """Other members to the newest reading of their clock (rule 5)."""
    shown: Mapping[str, tuple[Shown, ...]] = {}
    """Member to the newest rosters that it has shown to hold, oldest first."""
    leapt: bool = False
    """Whether time made a leap, after which too few were heard yet."""

    @classmethod
    def begin(cls, boot: str) -> "Freshness":
        """Nothing heard yet."""
        return cls(boot, {}, frozenset())


def counts(signed_ms: int, now_ms: int, bounds: Bounds) -> bool:
    """Rule 1."""
    return -bounds.skew_ms <= now_ms - signed_ms <= bounds.stale_ms - bounds.skew_ms


def hear(state: Freshness, beat: Heartbeat, beat_id: str, *, now_ms: int, bounds: Bounds, own: bool = False) -> Freshness:
    """The view after a heartbeat that was verified with its member's decision key; ``own`` ones say nothing about clocks."""
    if not own:
        state = _time(state, beat, now_ms)
    if not counts(beat.signed_ms, now_ms, bounds):
        return state
    kept = state.heard.get(beat.member, ())
    if kept and (beat.incarnation, beat.sequence) <= (kept[-1].incarnation, kept[-1].sequence):
        return state
    if kept and beat.incarnation != kept[-1].incarnation:
        kept = ()
    new = Heard(beat_id, beat.incarnation, beat.sequence, beat.signed_ms, tuple(beat.frontier), beat.roster_epoch, beat.behind)
    alive = tuple(item for item in kept if counts(item.signed_ms, now_ms, bounds))[-(_KEPT_MAX - 1) :]
    heard = {**state.heard, beat.member: (*alive, new)}
    if beat.behind:
        return msgspec.structs.replace(state, heard=heard)
    echoed = state.echoed | {beat.member} if state.boot in beat.echo else state.echoed
    return msgspec.structs.replace(state, heard=heard, echoed=echoed, shown=_show(state, beat))


def _show(state: Freshness, beat: Heartbeat) -> Mapping[str, tuple[Shown, ...]]:
    for head in beat.frontier:
        if head.stream == ROSTERS and not head.forked:
            known = state.shown.get(beat.member, ())
            if not known or (head.sequence, head.head) != (known[-1].epoch, known[-1].id):
                new = Shown(head.sequence, head.head, beat.signed_ms)
                return {**state.shown, beat.member: (*known[-(_SHOWN_MAX - 1) :], new)}
    return state.shown


def _time(state: Freshness, beat: Heartbeat, now_ms: int) -> Freshness:
    known = state.timed.get(beat.member)
    if known is not None and (beat.incarnation, beat.sequence) <= (known.incarnation, known.sequence):
        return state
    new = Timed(beat.incarnation, beat.sequence, beat.signed_ms, now_ms - beat.signed_ms)
    return msgspec.structs.replace(state, timed={**state.timed, beat.member: new})


def leap(state: Freshness) -> Freshness:
    """The view after a leap of time: a pause, or a clock that was set. Nobody has borne the new time out yet."""
    return msgspec.structs.replace(state, timed={}, leapt=True)


def vouchers(
    state: Freshness, frontier: tuple[StreamHead, ...], *, now_ms: int, bounds: Bounds, whole: Mapping[str, Container[str]] = NOTHING
) -> dict[str, str]:
    """Member to the id of its newest heartbeat by which it vouches for ``frontier``; ``whole`` as in :func:`covers`."""
    found: dict[str, str] = {}
    mine = list(frontier)
    for member, kept in state.heard.items():
        for item in reversed(kept):
            # Identity first: in a quiet mesh all frontiers are equal, and comparing them is the hot path.
            if (
                not item.behind
                and counts(item.signed_ms, now_ms, bounds)
                and (item.frontier == frontier or covers(mine, list(item.frontier), whole))
            ):
                found[member] = item.id
                break
    return found


def check_clock(state: Freshness, roster: Roster, *, wall_ms: int, now_ms: int) -> None:
    """Rule 5, for the wall clock and the steady time.

    Raises:
        Refused: ``clock_unsure``.
    """
    bounds = roster.bounds
    if wall_ms - now_ms > bounds.skew_ms:
        raise Refused("clock_unsure", f"set forward by {wall_ms - now_ms} ms")
    if len(state.timed) <= roster.f:
        if state.leapt:
            raise Refused("clock_unsure", "too few members heard since a leap of time")
        return
    signed_ms = sorted((item.signed_ms for item in state.timed.values()), reverse=True)[roster.f]
    if signed_ms > wall_ms + bounds.skew_ms:
        raise Refused("clock_unsure", f"{signed_ms - wall_ms} ms behind its peers")
    late_ms = sorted(item.late_ms for item in state.timed.values())[roster.f]
    if late_ms > bounds.skew_ms + (bounds.stale_ms - bounds.skew_ms) // 2:
        raise Refused("clock_unsure", f"{late_ms} ms ahead of its peers")


def answered(state: Freshness, roster: Roster, frozen: AbstractSet[str]) -> bool:
    """Whether k members have answered this boot that are not caught (rules 3 and 7): who is caught later must be made up for."""
    return len(state.echoed - frozen) >= roster.k


def check_fresh(
    state: Freshness,
    frontier: tuple[StreamHead, ...],
    roster: Roster,
    *,
    now_ms: int,
    whole: Mapping[str, Container[str]] = NOTHING,
    frozen: AbstractSet[str] = frozenset(),
) -> dict[str, str]:
    """That k members vouch for ``frontier`` now; answers who, by which heartbeat.

    Args:
        state: what was heard.
        frontier: what is held here.
        roster: in force.
        now_ms: steady time.
        whole: as in :func:`covers`.
        frozen: members that are caught (rule 7).

    Raises:
        Refused: ``stale``.
    """
    found = vouchers(state, frontier, now_ms=now_ms, bounds=roster.bounds, whole=whole)
    found = {member: beat for member, beat in found.items() if member not in frozen}
    if not answered(state, roster, frozen):
        raise Refused("stale", f"{len(state.echoed - frozen)} of {roster.k} members have answered since the start")
    if len(found) < roster.k:
        raise Refused("stale", f"{len(found)} of {roster.k} members vouch")
    return found
