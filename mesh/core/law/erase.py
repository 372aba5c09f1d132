"""An erasure names intents whose openings nobody keeps any more; every record and every proof about them stays as it is.

Rules
-----
1. The root threshold signs it, nobody else: whoever is judged by what is kept (policy signers, governors, workloads) does not do away
   with it. Erasures are one stream of their own, so nobody who was away misses one.
2. Erasing is never undone. What is held counts wherever it stands: in the chain, ahead of it, or in a fork. Of a root whose stream was
   handed over to another one nothing is taken in beyond what it handed over: keys that are found in a drawer destroy no evidence. Except
   on a node that has not got yet all that was handed over: there what claims to stand before its end counts.
3. It says nothing about records: those who have not repeated a decision when its openings go are let past it by a certificate over it
   only (:mod:`mesh.protocol.gone`).

Not here: when a node deletes, and how (:mod:`mesh.roles.erasing`, :mod:`mesh.adapters.store`).
"""

from typing import Annotated, Final

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.reign import MaybeId, in_reign
from mesh.core.law.roster import Roster
from mesh.errors import Refused
from mesh.limits import ERASED_MAX

__all__ = ["ERASURES", "Erase", "admit_erase"]

ERASURES: Final = "erase"
"""The stream of erasures, and of what need not be kept (:mod:`mesh.core.law.retain`)."""


@statement("erase")
class Erase(Payload):
    """Signed by the root threshold: the openings of these intents are to be deleted, and not kept again."""

    mesh: Token
    sequence: Count
    """Dense, from 1, together with retentions."""
    previous: MaybeId
    since: MaybeId
    """Id of the roster that made its signers the stream's; empty for the first one (:mod:`mesh.core.law.reign`)."""
    intents: Annotated[list[Hex32], msgspec.Meta(min_length=1, max_length=ERASED_MAX)]
    """Statement ids, sorted, each once."""
    reason: Reason
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return in_reign(ERASURES, self.since), self.sequence, self.previous


def admit_erase(erase: Statement[Erase], roster: Roster) -> Erase:
    """The erasure, believed because the root threshold of ``roster`` signed it, and nobody else.

    Raises:
        Refused: ``wrong_mesh``, ``bad_signature``, ``threshold_not_met``; ``malformed`` for intents out of order.
    """
    claims = erase.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.intents != sorted(set(claims.intents)):
        raise Refused("malformed", "intents are named each once, in their order")
    roster.root.check_sealed(erase)
    return claims
