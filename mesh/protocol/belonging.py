"""Whether an outcome may speak of an authorization: only the one enforcer that the intent was meant for can say how it ended.

Rules
-----
1. An outcome belongs iff it names this intent and this authorization, and its enforcer, domain and boot are the intent's audience.
   The end of a former boot is said by a later one: then the boot that ``unknown`` names is the one that counts.
2. Any enforcer to which an authorization is shown may say ``blocked``: that it did not start it. That is true of itself and of
   nobody else, so it is lawful and belongs only if it comes from the audience.

Not here: signatures and documents (:mod:`mesh.protocol.attester` has verified them by then), keeping one until the other comes
(:mod:`mesh.protocol.lives`).
"""

from collections.abc import Mapping

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.log.record import OutcomeRecorded, read_record
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Aborted, Failed, Finished, Outcome, Unknown
from mesh.errors import Refused

__all__ = ["Meant", "belongs", "check_belongs", "ends", "meant_by", "misfit", "said_by"]


class Meant(msgspec.Struct, frozen=True):
    """For whom an authorization was made out."""

    intent: str
    domain: str
    enforcer: str
    boot: str


def meant_by(intent: Statement[Intent]) -> Meant:
    """For whom an authorization of this intent is."""
    claims = intent.claims
    return Meant(intent.id, claims.domain, claims.audience.enforcer, claims.audience.boot)


def said_by(outcome: Outcome) -> Meant:
    """Of whom an outcome speaks (rule 1)."""
    boot = outcome.event.boot if isinstance(outcome.event, Unknown) else outcome.boot
    return Meant(outcome.intent, outcome.domain, outcome.enforcer, boot)


def misfit(said: Meant, meant: Meant) -> str:
    """In what an outcome differs from what it should be about; empty if in nothing."""
    for what in ("intent", "enforcer", "domain", "boot"):
        one, other = getattr(said, what), getattr(meant, what)
        if one != other:
            return f"the outcome is of {what} {one[:16]}, the intent is meant for {other[:16]}"
    return ""


def check_belongs(outcome: Outcome, meant: Meant) -> None:
    """Rule 1.

    Raises:
        Refused: ``record_invalid``.
    """
    found = misfit(said_by(outcome), meant)
    if found:
        raise Refused("record_invalid", found)


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
