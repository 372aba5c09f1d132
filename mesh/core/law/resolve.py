"""A resolve says which of the histories of a forked stream counts from now on; nothing that any of them denied is taken back.

Rules
-----
1. The root threshold signs it, nobody else. Resolves are one stream of their own, and only its gapless chain decides: a fork of
   *that* stream resolves nothing. Of several that name a stream, the newest decides, whatever came first.
2. It names the statement up to which the stream's history counts, and the last statements of all others: they stand *aside*.
   It has no effect before all these are held with everything before them, so nobody who acts by it lacks what it leaves aside.
3. The history goes on with whatever follows that statement, one after the other. Two statements behind one of it are a fork again,
   until the next resolve. What stands beside it, heard before or after, is aside: it denies as ever, and allows nothing.

Not here: the histories themselves (:func:`mesh.core.law.streams.settle`), what follows from them for a domain
(:mod:`mesh.core.law.governance`).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.heartbeat import StreamName
from mesh.core.law.reign import MaybeId, in_reign
from mesh.core.law.roster import Roster
from mesh.errors import Refused
from mesh.limits import ASIDE_MAX

__all__ = ["RESOLVES", "Resolve", "admit_resolve", "newest"]

RESOLVES: Final = "resolve"
"""The stream of resolves."""


@statement("resolve")
class Resolve(Payload):
    """Signed by the root threshold: this history of a forked stream counts."""

    mesh: Token
    sequence: Count
    """Dense, from 1, whichever streams they name."""
    previous: MaybeId
    since: MaybeId
    """Id of the roster that made its signers the stream's; empty for the first one (:mod:`mesh.core.law.reign`)."""
    stream: StreamName
    """Which stream is resolved."""
    head: Hex32
    """Id of the statement up to which its history counts for certain."""
    aside: Annotated[list[Hex32], msgspec.Meta(max_length=ASIDE_MAX)]
    """Ids of the last statements of the other histories. Whoever acts by this resolve holds them and all before them."""
    reason: Reason
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return in_reign(RESOLVES, self.since), self.sequence, self.previous


def admit_resolve(resolve: Statement[Resolve], roster: Roster) -> Resolve:
    """The resolve, believed because the root threshold of ``roster`` signed it, and nobody else.

    What it names is not judged: whoever does not hold that cannot, and a resolve that names nothing has no effect.

    Raises:
        Refused: ``wrong_mesh``, ``bad_signature``, ``threshold_not_met``.
    """
    claims = resolve.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    roster.root.check_sealed(resolve)
    return claims


def newest(chain: Iterable[str], held: Mapping[str, Resolve]) -> dict[str, Resolve]:
    """Stream to the resolve that decides about it.

    Args:
        chain: ids of the gapless chain of resolves, oldest first; of a fork, none.
        held: every resolve that is held, by id.
    """
    return {held[identity].stream: held[identity] for identity in chain}
