"""How logs come along, and who lags: since when what is known to exist cannot be read, is not final, or is not held by a member.

Rules
-----
1. A log is *behind* while a checkpoint signed by its own key covers records that are not settled here: they could not be had or judged.
2. It *waits* while settled records are not final; the time is that of the first size that waits, so new records do not begin it anew.
3. A member *lags* while it says that it has not witnessed, or not attested, of a log what was final when it was asked before. That is
   its own unsigned word, and so is that it is up: good for an alarm, and for nothing else.
4. Whoever is idle neither waits nor lags: a log in which nothing is written stands still rightly.

All times are the auditor's own, in ms, and are kept: what stands still while no auditor runs has stood still.

Not here: after how long that is an alarm (:mod:`mesh.protocol.alarms`).
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from mesh.core.bytes.canonical import Count, Millis, Payload, Token
from mesh.core.log.record import Origin
from mesh.core.messages import NodeStatus
from mesh.limits import AUDIT_LAGS_MAX

__all__ = ["IDLE", "Lag", "Pace", "Silence", "lagging", "moved", "silent"]


class Pace(Payload):
    """How one log comes along; 0 where there is nothing to wait for."""

    behind_ms: Millis
    """Since when there is more than could be settled, and nothing more was."""
    size: Count
    """How much was settled then."""
    waits: Count
    """The first size that was settled and is not final."""
    waits_ms: Millis
    """Since when."""


IDLE: Final = Pace(behind_ms=0, size=0, waits=0, waits_ms=0)


class Lag(Payload):
    """A member that has not what was final."""

    member: Token
    origin: Origin
    what: Literal["witnessed", "attested"]
    size: Count
    """What was final then."""
    since_ms: Millis


class Silence(Payload):
    """A member that does not answer."""

    member: Token
    since_ms: Millis


def moved(pace: Pace, *, settled: int, certified: int, known: int, now_ms: int) -> Pace:
    """The pace of a log of whose ``known`` records ``settled`` were judged and ``certified`` are final."""
    behind_ms = pace.behind_ms
    if known <= settled:
        behind_ms = 0
    elif not behind_ms or settled > pace.size:
        behind_ms = now_ms
    waits, waits_ms = pace.waits, pace.waits_ms
    if settled <= certified:
        waits, waits_ms = 0, 0
    elif certified >= waits or not waits_ms:
        waits, waits_ms = settled, now_ms
    return Pace(behind_ms=behind_ms, size=settled, waits=waits, waits_ms=waits_ms)


def lagging(
    lags: Iterable[Lag], statuses: Mapping[str, NodeStatus], final: Mapping[str, int], *, owners: Mapping[str, str], now_ms: int
) -> tuple[Lag, ...]:
    """Who lags now.

    Args:
        lags: who did before; of those who did not answer it stays.
        statuses: what members answered, by name.
        final: origin to the size that is known to be final.
        owners: origin to the member whose log it is: nobody lags behind itself.
        now_ms: the auditor's time.
    """
    before = {(lag.member, lag.origin, lag.what): lag for lag in lags}
    found = [lag for lag in before.values() if lag.member not in statuses]
    for name, status in statuses.items():
        for mirror in status.mirrors:
            if owners.get(mirror.origin) in {None, name}:
                continue
            said: tuple[tuple[Literal["witnessed", "attested"], int], ...] = (
                ("witnessed", mirror.witnessed),
                ("attested", mirror.attested),
            )
            for what, size in said:
                lag = before.get((name, mirror.origin, what))
                if lag is not None and size < lag.size:
                    found.append(lag)
                elif size < final.get(mirror.origin, 0):
                    found.append(Lag(member=name, origin=mirror.origin, what=what, size=final[mirror.origin], since_ms=now_ms))
    return tuple(found[:AUDIT_LAGS_MAX])


def silent(before: Iterable[Silence], statuses: Mapping[str, NodeStatus], members: Iterable[str], *, now_ms: int) -> tuple[Silence, ...]:
    """Which of ``members`` did not answer, and since when."""
    since = {one.member: one.since_ms for one in before}
    return tuple(Silence(member=name, since_ms=since.get(name, now_ms)) for name in members if name not in statuses)
