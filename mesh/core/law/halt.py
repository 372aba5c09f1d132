"""A halt is one signed no to everything in one domain, until a resume lifts it.

One kind has both forms, because they stand in one stream and are believed alike: a statement that lifts nothing halts, one that
lifts halts nothing. So there is one numbering, in which it can be seen that nothing is missing, and one rule of who may say it.

Rules
-----
1. A halt counts wherever it stands: in the gapless chain, loose, or in a fork. What denies is honoured in any case.
2. A resume counts only in the gapless chain of an unforked stream, or in the history that a resolve chose: what allows must be
   complete. It lifts the halts it names, no others, so one that was signed without knowing of a second halt does not lift it.
3. Both take the threshold of the roster's revokers, and a domain that the roster names: a stream belongs to a domain, not to a key.

Not here: the streams that carry them (:mod:`mesh.core.law.streams`), what a halted domain denies
(:meth:`mesh.core.law.governance.Governance.check_open`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.reign import MaybeId, in_reign
from mesh.core.law.roster import Roster
from mesh.core.law.streams import Fork, Stream
from mesh.errors import Refused
from mesh.limits import LIFTS_MAX

__all__ = ["Halt", "admit_halt", "halt_stream", "in_force"]


@statement("halt")
class Halt(Payload):
    """Signed by the threshold of revokers: nothing starts in the domain, or what these halts denied is allowed again."""

    mesh: Token
    domain: Token
    sequence: Count
    """Dense per domain, from 1."""
    previous: MaybeId
    since: MaybeId
    """Id of the roster that made its signers the stream's; empty for the first one (:mod:`mesh.core.law.reign`)."""
    lifts: Annotated[list[Hex32], msgspec.Meta(max_length=LIFTS_MAX)]
    """Empty: a halt. Else a resume: the ids of the halts that it lifts; it halts nothing."""
    reason: Reason
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return in_reign(halt_stream(self.domain), self.since), self.sequence, self.previous


def halt_stream(domain: str) -> str:
    """The stream of a domain's halts."""
    return f"halt/{domain}"


def admit_halt(halt: Statement[Halt], roster: Roster) -> Halt:
    """The halt or resume, believed because the threshold of revokers of ``roster`` signed it, and nobody else.

    Raises:
        Refused: ``wrong_mesh``, ``domain_unknown``, ``bad_signature``, ``threshold_not_met``.
    """
    claims = halt.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.domain not in roster.policy:
        raise Refused("domain_unknown", claims.domain)
    roster.revoker.check_sealed(halt)
    return claims


def in_force(said: Mapping[str, Sequence[str]], stream: Stream, settled: Sequence[str] = ()) -> tuple[str, ...]:
    """The ids of the halts that nothing lifts, sorted.

    Args:
        said: id to what it lifts, of every statement that is held of the stream.
        stream: how they stand in it.
        settled: of a fork that was resolved, the history that counts.
    """
    complete: Iterable[str] = settled if isinstance(stream, Fork) else stream.ids
    lifted = {halt for resume in complete for halt in said[resume]}
    return tuple(sorted(identity for identity, lifts in said.items() if not lifts and identity not in lifted))
