"""Whether an outcome may speak of an authorization: only the one enforcer that the intent was meant for can say how it ended.

Rules
-----
1. An outcome belongs iff it names this intent and this authorization, and its enforcer, domain and boot are the intent's audience.
   The end of a former boot is said by a later one: then the boot that ``unknown`` names is the one that counts.
2. Any enforcer to which an authorization is shown may say ``blocked``: that it did not start it. That is true of itself and of
   nobody else, so it is lawful and belongs only if it comes from the audience.
3. Decision and outcome stand in different logs and come in either order; whoever follows all logs keeps a bounded number of each
   until the other comes.

Not here: signatures and documents (:mod:`mesh.protocol.attester` has verified them by then).
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.log.record import OutcomeRecorded, read_record
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Aborted, Blocked, Failed, Finished, Outcome, Unknown
from mesh.errors import Refused

__all__ = ["Meant", "Misfit", "Pairs", "Said", "belongs", "check_belongs", "ends", "meant_by"]

T = TypeVar("T")
_KEPT_MAX: Final = 4_096
_EARLY_MAX: Final = 8
"""Outcomes kept of one authorization whose decision was not seen: an execution has two."""


class Meant(msgspec.Struct, frozen=True):
    """For whom an authorization was made out."""

    intent: str
    domain: str
    enforcer: str
    boot: str


class Said(msgspec.Struct, frozen=True):
    """An outcome that came before the decision it is about."""

    outcome: Outcome
    origin: str
    index: int


class Misfit(msgspec.Struct, frozen=True):
    """A record with an outcome that does not belong where it says."""

    origin: str
    index: int
    detail: str


def meant_by(intent: Statement[Intent]) -> Meant:
    """For whom an authorization of this intent is."""
    claims = intent.claims
    return Meant(intent.id, claims.domain, claims.audience.enforcer, claims.audience.boot)


def check_belongs(outcome: Outcome, meant: Meant) -> None:
    """Rule 1.

    Raises:
        Refused: ``record_invalid``.
    """
    boot = outcome.event.boot if isinstance(outcome.event, Unknown) else outcome.boot
    for what, said, wanted in (
        ("intent", outcome.intent, meant.intent),
        ("enforcer", outcome.enforcer, meant.enforcer),
        ("domain", outcome.domain, meant.domain),
        ("boot", boot, meant.boot),
    ):
        if said != wanted:
            raise Refused("record_invalid", f"the outcome is of {what} {said[:16]}, the intent is meant for {wanted[:16]}")


def belongs(record: OutcomeRecorded, bodies: Mapping[str, bytes]) -> bool:
    """Whether the outcome of ``record`` belongs to the intent it names, of both of which the envelopes are among ``bodies``.

    One whose statements are not there has nobody's word: it does not.

    Raises:
        Refused: ``malformed`` and what else can be wrong with an envelope.
    """
    intent, outcome = bodies.get(record.intent), bodies.get(record.outcome)
    if intent is None or outcome is None:
        return False
    try:
        check_belongs(envelope.read(Outcome, outcome).claims, meant_by(envelope.read(Intent, intent)))
    except Refused as refusal:
        if refusal.code != "record_invalid":
            raise
        return False
    return True


def ends(leaf: bytes, bodies: Mapping[str, bytes], authorization: str, enforcer: str) -> bool:
    """Whether the record in ``leaf`` says, in the words of that enforcer, that the execution is over."""
    record = read_record(leaf)
    if not isinstance(record, OutcomeRecorded) or record.authorization != authorization or record.outcome not in bodies:
        return False
    said = envelope.read(Outcome, bodies[record.outcome]).claims
    return said.enforcer == enforcer and isinstance(said.event, Finished | Failed | Aborted | Unknown)


class Pairs(msgspec.Struct, frozen=True):
    """What still waits for its other half; each mapping by authorization, oldest first."""

    permits: Mapping[str, Meant] = {}
    early: Mapping[str, tuple[Said, ...]] = {}

    def permit(self, authorization: str, meant: Meant) -> tuple["Pairs", list[Misfit]]:
        """After a permit, and which outcomes seen before do not belong to it."""
        waiting = self.early.get(authorization, ())
        early = {key: said for key, said in self.early.items() if key != authorization}
        found = [misfit for said in waiting if (misfit := _misfit(said, meant)) is not None]
        return Pairs(_bounded({**self.permits, authorization: meant}), early), found

    def outcome(self, said: Said) -> tuple["Pairs", list[Misfit]]:
        """After an outcome, which may not belong."""
        authorization = said.outcome.authorization
        meant = self.permits.get(authorization)
        if meant is None:
            waiting = (*self.early.get(authorization, ()), said)[-_EARLY_MAX:]
            return Pairs(self.permits, _bounded({**self.early, authorization: waiting})), []
        misfit = _misfit(said, meant)
        return self, [misfit] if misfit is not None else []


def _bounded(kept: dict[str, T]) -> dict[str, T]:
    while len(kept) > _KEPT_MAX:
        del kept[next(iter(kept))]
    return kept


def _misfit(said: Said, meant: Meant) -> Misfit | None:
    try:
        check_belongs(said.outcome, meant)
    except Refused as refusal:
        if isinstance(said.outcome.event, Blocked):  # rule 2
            return None
        return Misfit(said.origin, said.index, refusal.detail)
    return None
