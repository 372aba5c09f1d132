"""What an auditor sees only because it reads all logs: what lacks, what stands still, and what cannot be, each under its own code.

Rules
-----
1. A *finding* is what must not be and stays for ever (:mod:`mesh.protocol.numbering` and :mod:`mesh.protocol.lives` say which). An *alarm*
   is what lacks: it stands as long as it lacks, and is gone when it came.
2. Something lacks once :attr:`Patience.late_ms` have gone by since the record that showed it, **and** every log was read up to then: what
   a log that is behind may still hold is waited for ten times as long.
3. An end lacks once the lease, Δ, and both spans of :class:`Patience` have gone by since the start.
4. What stands still (:mod:`mesh.protocol.progress`) is an alarm after :attr:`Patience.still_ms`.
5. All that alarms follow from is kept in the auditor's position, bounded: a restart neither forgets nor repeats.

Not here: who is told (``mesh audit run``).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Protocol

import msgspec

from mesh.core.bytes.canonical import Count, Millis, Payload
from mesh.core.law.roster import Roster
from mesh.core.messages import NodeStatus
from mesh.limits import AUDIT_BOOTS_MAX, AUDIT_LAGS_MAX, AUDIT_LIVES_MAX, MEMBERS_MAX, PRUNE_AGE_MS_MIN
from mesh.protocol.lives import ENDS, Life, Lives, Permit, Starts, by_intent, deed_of, unsure
from mesh.protocol.numbering import Boot, LoggedOutcome, Numbering, Trouble, keyed
from mesh.protocol.progress import Lag, Pace, Silence, lagging, silent

__all__ = ["NOTHING", "PATIENT", "Kept", "Patience", "Standing", "Watch", "Watched", "kept_of", "standing", "watched"]

_LONGER: Final = 10


class _Late(Protocol):
    """Whether what was shown at that time is late by now, after so much more."""

    def __call__(self, since_ms: int, more_ms: int = 0) -> bool: ...


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """After how long something is missed, ms."""

    late_ms: int = 120_000
    """An enforcer tries each region for ``attest_stall_ms`` of the roster; a governor that was cut off brings what it has later."""
    still_ms: int = 60_000
    """Certificates come every ``certify_ms`` of the roster."""
    longest_ms: int = 0
    """How long executions may run beyond their lease."""


PATIENT: Final = Patience()


class Standing(msgspec.Struct, frozen=True, order=True):
    """An alarm that stands now."""

    code: str
    origin: str
    """The log that shows it, or that stands still."""
    index: int
    """Of the record that shows it; for what stands still, its size."""
    since_ms: int
    detail: str


class Kept(Payload):
    """What alarms follow from, as it is kept."""

    boots: Annotated[list[Boot], msgspec.Meta(max_length=AUDIT_BOOTS_MAX)]
    """Who spoke last stands last."""
    forgotten: Count
    """Boots that were given up."""
    lives: Annotated[list[Life], msgspec.Meta(max_length=AUDIT_LIVES_MAX)]
    """The newest stands last."""
    starts: Starts
    lost_ms: Millis
    """Up to when unfinished lives were forgotten; 0 if none was."""
    skipped_ms: Millis
    """Up to when records were skipped of which nobody had more than hashes; 0 if none was."""
    lags: Annotated[list[Lag], msgspec.Meta(max_length=AUDIT_LAGS_MAX)]
    silent: Annotated[list[Silence], msgspec.Meta(max_length=MEMBERS_MAX)]


class Watched(msgspec.Struct, frozen=True):
    """The same as it is used."""

    boots: Mapping[str, Boot]
    forgotten: int
    lives: Mapping[str, Life]
    starts: Starts
    lost_ms: int
    lags: tuple[Lag, ...] = ()
    silent: tuple[Silence, ...] = ()
    skipped_ms: int = 0


NOTHING: Final = Watched({}, 0, {}, Starts(match=0, mismatch=0, unverifiable=0), 0)


def watched(kept: Kept) -> Watched:
    """What was kept, to go on from."""
    return Watched(
        keyed(kept.boots),
        kept.forgotten,
        by_intent(kept.lives),
        kept.starts,
        kept.lost_ms,
        tuple(kept.lags),
        tuple(kept.silent),
        kept.skipped_ms,
    )


def kept_of(state: Watched) -> Kept:
    """What to keep."""
    return Kept(
        boots=sorted(state.boots.values(), key=lambda boot: (boot.last_ms, boot.enforcer, boot.boot)),
        forgotten=state.forgotten,
        lives=sorted(state.lives.values(), key=lambda life: (life.newest_ms, life.intent)),
        starts=state.starts,
        lost_ms=state.lost_ms,
        skipped_ms=state.skipped_ms,
        lags=list(state.lags),
        silent=list(state.silent),
    )


class Watch:
    """The working copy of one step; of a step in which nothing is taken it costs nothing."""

    def __init__(self, state: Watched) -> None:
        """Go on from ``state``."""
        self._state = state
        self._numbering: Numbering | None = None
        self._lives: Lives | None = None
        self._lags, self._silent = state.lags, state.silent

    def permit(self, intent: str, permit: Permit) -> None:
        """An authorization stands in a log."""
        self.lives.permit(intent, permit)

    def outcome(self, heard: LoggedOutcome) -> None:
        """An outcome stands in a log; one that was taken before, from whichever log, changes nothing."""
        if self.numbering.take(heard) and (deed := deed_of(heard)).event != "blocked":
            self.lives.deed(heard.claims.intent, deed)

    def pruned(self, now_ms: int, *, read_ms: int) -> None:
        """Records were skipped that nobody has any more, of a log that was read up to ``read_ms``.

        What lacks because of that is not missed (:mod:`mesh.core.law.retain`).
        """
        until_ms = max(now_ms - PRUNE_AGE_MS_MIN, 1)
        self.numbering.skip(read_ms - _LONGER * PATIENT.late_ms, until_ms)
        self.lives.lost_ms = max(self.lives.lost_ms, until_ms)

    def told(self, statuses: Mapping[str, NodeStatus], final: Mapping[str, int], roster: Roster, *, now_ms: int) -> None:
        """What members of ``roster`` answered about themselves."""
        owners = {roster.origin(member): member.name for member in roster.members}
        members = [member.name for member in roster.members]
        answers = {name: status for name, status in statuses.items() if name in members}
        self._lags = lagging((lag for lag in self._lags if lag.member in members), answers, final, owners=owners, now_ms=now_ms)
        self._silent = silent(self._silent, answers, members, now_ms=now_ms)

    @property
    def numbering(self) -> Numbering:
        """The working copy of boots."""
        if self._numbering is None:
            self._numbering = Numbering(self._state.boots, self._state.forgotten, self._state.skipped_ms)
        return self._numbering

    @property
    def lives(self) -> Lives:
        """The working copy of lives."""
        if self._lives is None:
            self._lives = Lives(self._state.lives, self._state.starts, self._state.lost_ms)
        return self._lives

    def troubles(self) -> Iterator[Trouble]:
        """What was found, once each."""
        for part in (self._numbering, self._lives):
            if part is not None:
                yield from part.troubles
                part.troubles.clear()

    def finish(self, seen_ms: int) -> Watched:
        """The state after the step; all logs were read up to ``seen_ms``."""
        state = self._state
        if self._numbering is not None:
            self._numbering.trim()
            numbers = self._numbering
            state = msgspec.structs.replace(state, boots=numbers.boots, forgotten=numbers.forgotten, skipped_ms=numbers.skipped_ms)
        if self._lives is not None:
            self._lives.forget(seen_ms)
            state = msgspec.structs.replace(state, lives=self._lives.lives, starts=self._lives.starts, lost_ms=self._lives.lost_ms)
        return msgspec.structs.replace(state, lags=self._lags, silent=self._silent)


# ---------------------------------------------------------------------------------------------------------------- what stands


def standing(
    state: Watched,
    paces: Mapping[str, Pace],
    origins: Mapping[str, str],
    *,
    seen_ms: int,
    now_ms: int,
    stale_ms: int,
    patience: Patience = PATIENT,
) -> list[Standing]:
    """The alarms that stand now, sorted.

    Args:
        state: what was seen.
        paces: of each log.
        origins: member to its log.
        seen_ms: up to when all logs were read.
        now_ms: the auditor's time.
        stale_ms: Δ.
        patience: after how long something is missed.
    """

    def late(since_ms: int, more_ms: int = 0) -> bool:
        wait_ms = patience.late_ms + more_ms
        return since_ms + wait_ms < min(seen_ms, now_ms) or since_ms + _LONGER * patience.late_ms + more_ms < now_ms

    found = [
        *_numbers(state, late),
        *(item for life in state.lives.values() for item in _life(state, life, late, stale_ms + patience.longest_ms)),
        *_still(state, paces, origins, now_ms - patience.still_ms),
    ]
    return sorted(found)


def _numbers(state: Watched, late: _Late) -> Iterator[Standing]:
    for boot in state.boots.values():
        who = f"enforcer {boot.enforcer[:12]}, boot {boot.boot[:12]}"
        for hole in boot.holes:
            if hole.since_ms and late(hole.since_ms):
                what = f"outcome {hole.first}" if hole.end - hole.first == 1 else f"outcomes {hole.first} to {hole.end - 1}"
                yield Standing("outcome_missing", hole.origin, hole.index, hole.since_ms, f"{what} of {who} stands in no log")
        if boot.beyond and boot.holes:
            last = boot.holes[-1]
            yield Standing("outcome_missing", last.origin, last.index, last.since_ms, f"{boot.beyond} more outcomes of {who}")


def _life(state: Watched, life: Life, late: _Late, more_ms: int) -> Iterator[Standing]:
    for deed in life.deeds:
        missed = late(deed.recorded_ms) and not unsure(deed, state.lost_ms)
        permit, about = life.permit_of(deed), f"{deed.event}, intent {life.intent[:16]}"
        if permit is None and missed:
            yield Standing("authorization_missing", deed.origin, deed.index, deed.recorded_ms, f"{about}: authorized in no log")
        if deed.ends and deed.event != "unknown" and not life.has(deed, "started") and missed:
            yield Standing("start_missing", deed.origin, deed.index, deed.recorded_ms, f"{about}: its start stands in no log")
        over = deed.event != "started" or life.has(deed, *ENDS)
        if (
            not over
            and not unsure(deed, state.lost_ms)
            and late(deed.recorded_ms, more_ms + (permit.lease_ms if permit is not None else 0))
        ):
            yield Standing("end_missing", deed.origin, deed.index, deed.recorded_ms, f"{about}: its end stands in no log")


def _still(state: Watched, paces: Mapping[str, Pace], origins: Mapping[str, str], before_ms: int) -> Iterator[Standing]:
    for origin, pace in paces.items():
        if 0 < pace.behind_ms < before_ms:
            yield Standing("log_behind", origin, pace.size, pace.behind_ms, "its signed records could not be had or judged")
        if 0 < pace.waits_ms < before_ms:
            yield Standing("finality_stalled", origin, pace.waits, pace.waits_ms, "fewer than k members have attested it")
    for lag in state.lags:
        if lag.since_ms < before_ms:
            code = "witness_lag" if lag.what == "witnessed" else "attest_lag"
            yield Standing(code, lag.origin, lag.size, lag.since_ms, f"{lag.member} has not {lag.what} what is final")
    for silence in state.silent:
        if silence.since_ms < before_ms and silence.member in origins:
            origin = origins[silence.member]
            size = paces[origin].size if origin in paces else 0
            yield Standing("log_silent", origin, size, silence.since_ms, f"{silence.member} does not answer: what it alone holds is unseen")
