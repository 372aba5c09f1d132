"""What one enforcer says happened in one boot: numbered without a gap, each outcome naming the one before it.

Rules
-----
1. The number after the last one is the only next number; a boot begins at 0 with no predecessor.
2. Outcomes go to the store in the order in which they are made, and nobody hears of one before it is durable.
3. If the store does not take one, the chain is broken for good and the boot with it: there is no second outcome of a number.

Not here: keeping and delivering (the gate), and taking in (:mod:`mesh.protocol.outcomes`).
"""

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Draft
from mesh.core.run.outcome import Event, Outcome
from mesh.protocol.enforcer import Place

__all__ = ["OutcomeChain", "Subject"]


class Subject(msgspec.Struct, frozen=True):
    """What an outcome is about."""

    domain: str
    intent: str
    authorization: str


class OutcomeChain(msgspec.Struct, frozen=True, kw_only=True):
    """How far one boot's outcomes go."""

    place: Place
    sequence: int = 0
    """Of the next one."""
    previous: str = ""
    """Statement id of the last one."""

    def next(self, about: Subject, event: Event, *, at_ms: int) -> tuple["OutcomeChain", Draft]:
        """The outcome that says so, ready to be signed with the enforcer's key, and the chain after it."""
        document = self.place.document
        draft = envelope.draft(
            Outcome(
                mesh=document.claims.mesh,
                enforcer=document.claims.key,
                identity=document.id,
                boot=self.place.boot,
                sequence=self.sequence,
                previous=self.previous,
                domain=about.domain,
                intent=about.intent,
                authorization=about.authorization,
                at_ms=at_ms,
                event=event,
            )
        )
        return msgspec.structs.replace(self, sequence=self.sequence + 1, previous=draft.id), draft
