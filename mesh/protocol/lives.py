"""The life of each authorization, put together from all logs: who issued it, who used it, how it ended, and what of that cannot be.

Rules
-----
1. Parts of a life stand in different logs and come in any order; each is judged once the others that it takes are there.
2. Never lawful, and said at once: an outcome by another enforcer than the intent is meant for; one intent started twice, whoever
   authorized it; two ends; an end that its enforcer numbered before the beginning; a start that is not what its enforcer may sign.
3. What an enforcer signs as a start *matches* as far as records tell: all eight checks passed, k members vouched (heartbeats are named,
   and stand in no log), within the authorization's time and after the decision, give or take ε. It is *unverifiable* if the decision
   is, or is wrong: what a liar's record says of another's authorization accuses no enforcer. So it is if its authorization is in no log.
4. That something has not come is never a finding: it is an alarm while it lacks (:mod:`mesh.protocol.alarms`).
5. ``blocked`` is no part of a life: an enforcer may say it of whatever it is shown, forged papers too.
6. At most :data:`mesh.limits.AUDIT_LIVES_MAX` are kept: those that are over for :data:`mesh.limits.AUDIT_KEEP_MS_MAX` after they ended.
   If that is not enough, first what is over is forgotten, then what was not used, then the oldest; of what was forgotten unfinished
   nothing is missed any more, and it is counted.

Not here: signatures (verified by then), numbers of outcomes (:mod:`mesh.protocol.numbering`).
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, takewhile
from typing import Annotated, Final

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, KeyHex, Millis, Payload, Text, Token
from mesh.core.law.governance import Governance
from mesh.core.log.record import DecisionMade, Origin
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import CHECKS, Aborted, EventName, Failed, Finished, Started, event_name
from mesh.limits import AUDIT_KEEP_MS_MAX, AUDIT_LIVES_MAX, AUDIT_PARTS_MAX, INTENT_LIFE_MS_MAX
from mesh.protocol.belonging import Meant, misfit, said_by
from mesh.protocol.numbering import LoggedOutcome, Trouble

__all__ = ["ENDS", "Deed", "Life", "Lives", "Permit", "Starts", "by_intent", "deed_of", "permitted", "unsure"]

ENDS: Final = frozenset({"finished", "failed", "aborted", "unknown"})


class Permit(Payload):
    """An authorization, as its decision stands in a log."""

    authorization: Hex32
    origin: Origin
    index: Count
    at_ms: Millis
    expires_ms: Millis
    """When it is too late to begin."""
    lease_ms: Millis
    enforcer: KeyHex
    boot: Hex32
    domain: Token
    sound: bool
    """Whether repeating the decision gave this authorization again."""
    k: Count
    """Members whose heartbeats a start rests on."""
    skew_ms: Millis


class Deed(Payload):
    """What an enforcer says happened with an authorization."""

    event: EventName
    authorization: Hex32
    enforcer: KeyHex
    boot: Hex32
    of: Hex32
    """The boot it speaks of."""
    domain: Token
    sequence: Count
    at_ms: Millis
    """By the enforcer's clock."""
    lasted_ms: Millis
    """Since its start, for what has ended."""
    vouched: Count
    """Heartbeats that a start names."""
    lacks: Text
    """Which checks of a start did not pass; empty for anything else."""
    recorded_ms: Millis
    origin: Origin
    index: Count

    @property
    def ends(self) -> bool:
        """Whether it says that the execution is over."""
        return self.event in ENDS


class Life(Payload):
    """All that is known of one intent."""

    intent: Hex32
    permits: Annotated[list[Permit], msgspec.Meta(max_length=AUDIT_PARTS_MAX)]
    deeds: Annotated[list[Deed], msgspec.Meta(max_length=AUDIT_PARTS_MAX)]
    newest_ms: Millis
    """When the newest of this was recorded."""

    def permit_of(self, deed: Deed) -> Permit | None:
        """The authorization that was used, if it is known."""
        return next((permit for permit in self.permits if permit.authorization == deed.authorization), None)

    def has(self, deed: Deed, *events: str) -> bool:
        """Whether something like that was said of the same authorization."""
        return any(one.event in events and one.authorization == deed.authorization for one in self.deeds)

    @property
    def unused(self) -> bool:
        """Whether nothing was said of it yet."""
        return not self.deeds

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return bool(self.deeds) and all(self.permit_of(deed) and self._whole(deed) for deed in self.deeds)

    def _whole(self, deed: Deed) -> bool:
        if deed.event == "started":
            return self.has(deed, *ENDS)
        return deed.event == "unknown" or self.has(deed, "started")


class Starts(Payload):
    """Enforcers' own verdicts, as far as they can be repeated."""

    match: Count
    mismatch: Count
    unverifiable: Count
    """The decision could not be repeated, or did not come before the start was forgotten."""


class Lives:
    """The working copy of all lives."""

    def __init__(self, lives: Mapping[str, Life], starts: Starts, lost_ms: int) -> None:
        """Go on from ``lives``, by intent, of which unfinished ones up to ``lost_ms`` were forgotten."""
        self.lives = dict(lives)
        self.starts = starts
        self.lost_ms = lost_ms
        self.troubles: list[Trouble] = []

    def permit(self, intent: str, permit: Permit) -> None:
        """An authorization was issued."""
        life = self._life(intent, permit.at_ms)
        known = next((one for one in life.permits if one.authorization == permit.authorization), None)
        others = [one for one in life.permits if one is not known]
        if (known is not None and (known.sound or not permit.sound)) or len(others) == AUDIT_PARTS_MAX:
            return
        for deed in life.deeds:
            if deed.authorization == permit.authorization:
                self._tally(unverifiable=-int(known is not None and deed.event == "started"))
                self._judge(deed, permit)
        self.lives[intent] = msgspec.structs.replace(life, permits=sorted([*others, permit], key=_place))

    def deed(self, intent: str, deed: Deed) -> None:
        """An enforcer has said something of it."""
        life = self._life(intent, deed.recorded_ms)
        self._order(life, deed)
        permit = life.permit_of(deed)
        if permit is not None:
            self._judge(deed, permit)
        if len(life.deeds) < AUDIT_PARTS_MAX:
            self.lives[intent] = msgspec.structs.replace(life, deeds=sorted([*life.deeds, deed], key=_place))

    def _life(self, intent: str, at_ms: int) -> Life:
        life = self.lives.pop(intent, None) or Life(intent=intent, permits=[], deeds=[], newest_ms=0)
        life = self.lives[intent] = msgspec.structs.replace(life, newest_ms=max(life.newest_ms, at_ms))
        return life

    def _order(self, life: Life, deed: Deed) -> None:
        """Rule 2, among what enforcers said."""
        for other in life.deeds:
            if deed.event == other.event == "started":
                self._find("started_twice", deed, f"the same intent began at {other.origin} {other.index}")
            elif deed.authorization != other.authorization:
                continue
            elif deed.ends and other.ends:
                self._find("order_impossible", deed, f"{deed.event}, and {other.event} at {other.origin} {other.index}")
            elif (deed.enforcer, deed.boot) == (other.enforcer, other.boot) and deed.ends != (deed.sequence > other.sequence):
                said = f"outcome {deed.sequence} says {deed.event}, outcome {other.sequence} {other.event}"
                self._find("order_impossible", deed, f"{said} at {other.origin} {other.index}")

    def _judge(self, deed: Deed, permit: Permit) -> None:
        """Rules 2 and 3, what was said beside what was authorized."""
        meant = Meant("", permit.domain, permit.enforcer, permit.boot)
        foreign = misfit(Meant("", deed.domain, deed.enforcer, deed.of), meant)
        if foreign:
            self._find("outcome_foreign", deed, foreign)
        if deed.event != "started":
            return
        wrong = foreign or (_unsound(deed, permit) if permit.sound else "")
        self._tally(match=int(not wrong and permit.sound), mismatch=int(bool(wrong)), unverifiable=int(not wrong and not permit.sound))
        if wrong and not foreign:
            self._find("start_invalid", deed, wrong)

    def _tally(self, *, match: int = 0, mismatch: int = 0, unverifiable: int = 0) -> None:
        had = self.starts
        self.starts = Starts(match=had.match + match, mismatch=had.mismatch + mismatch, unverifiable=had.unverifiable + unverifiable)

    def _find(self, code: str, deed: Deed, detail: str) -> None:
        self.troubles.append(Trouble(code, deed.origin, deed.index, detail))

    def forget(self, seen_ms: int) -> None:
        """Rule 6; ``seen_ms`` is up to when every log was read."""
        aged = takewhile(lambda item: item[1].newest_ms + AUDIT_KEEP_MS_MAX < seen_ms, self.lives.items())  # who was touched last is last
        for intent in [key for key, life in aged if life.over]:
            del self.lives[intent]
        excess = max(0, len(self.lives) - AUDIT_LIVES_MAX)
        for intent in list(islice(self._least(), excess)):
            life = self.lives.pop(intent)
            if not life.over:
                self.lost_ms = max(self.lost_ms, life.newest_ms)
                self._tally(unverifiable=sum(deed.event == "started" and life.permit_of(deed) is None for deed in life.deeds))

    def _least(self) -> Iterator[str]:
        """Intents in the order in which they are given up."""
        yield from (key for key, life in self.lives.items() if life.over)
        yield from (key for key, life in self.lives.items() if life.unused)
        yield from (key for key, life in self.lives.items() if not life.over and not life.unused)


def unsure(deed: Deed, lost_ms: int) -> bool:
    """Whether what belongs to it may have been forgotten, if unfinished lives up to ``lost_ms`` were; 0 if none were.

    When that began of which a later boot knows no end, it does not say.
    """
    if deed.event == "unknown":
        return lost_ms > 0
    return lost_ms > 0 and deed.at_ms - deed.lasted_ms <= lost_ms + INTENT_LIFE_MS_MAX


def deed_of(heard: LoggedOutcome) -> Deed:
    """An outcome as part of a life."""
    claims, event = heard.claims, heard.claims.event
    lacks = ""
    if isinstance(event, Started):
        passed = [check.name for check in event.checks if check.passed]
        lacks = "" if tuple(passed) == CHECKS else ", ".join(sorted(set(CHECKS) - set(passed))) or "their order"
    return Deed(
        event=event_name(event),
        authorization=claims.authorization,
        enforcer=claims.enforcer,
        boot=claims.boot,
        of=said_by(claims).boot,
        domain=claims.domain,
        sequence=claims.sequence,
        at_ms=claims.at_ms,
        lasted_ms=min(event.duration_ms, claims.at_ms) if isinstance(event, Finished | Failed | Aborted) else 0,
        vouched=len(set(event.heartbeats)) if isinstance(event, Started) else 0,
        lacks=lacks,
        recorded_ms=heard.at_ms,
        origin=heard.origin,
        index=heard.index,
    )


def by_intent(lives: Iterable[Life]) -> dict[str, Life]:
    """Lives by what they are found under."""
    return {life.intent: life for life in lives}


def _place(part: Permit | Deed) -> tuple[str, int]:
    return part.origin, part.index


def _unsound(deed: Deed, permit: Permit) -> str:
    """Why no enforcer that follows the rules signs this start; empty if one may."""
    if deed.lacks:
        return f"it began without {deed.lacks}"
    if deed.vouched < permit.k:
        return f"it began when {deed.vouched} members vouched, {permit.k} are needed"
    if deed.at_ms + permit.skew_ms < permit.at_ms:
        return f"it began at {deed.at_ms}, and was authorized at {permit.at_ms}"
    if deed.at_ms > permit.expires_ms + permit.skew_ms:
        return f"it began at {deed.at_ms}, and the authorization ended at {permit.expires_ms}"
    return ""


def permitted(record: DecisionMade, intent: Intent, governance: Governance, *, sound: bool) -> Permit:
    """What a permit of ``intent`` allows an enforcer, as its record says; by the policy it names, if that is held."""
    manifests = [law.manifest for law in governance.laws.get(intent.domain, ()) if law.manifest_id == record.attested.manifest]
    terms = manifests[0].actions.get(intent.action) if manifests else None
    epoch = record.roster_epoch
    roster = governance.rosters.of(epoch) if 0 < epoch <= len(governance.rosters.ids) else governance.roster
    return Permit(
        authorization=record.authorization,
        origin=record.origin,
        index=record.index,
        at_ms=record.at_ms,
        expires_ms=min(record.at_ms + terms.authorization_ms, intent.expires_ms) if terms is not None else intent.expires_ms,
        lease_ms=terms.lease_ms if terms is not None else 0,
        enforcer=intent.audience.enforcer,
        boot=intent.audience.boot,
        domain=intent.domain,
        sound=sound,
        k=roster.k,
        skew_ms=roster.bounds.skew_ms,
    )
