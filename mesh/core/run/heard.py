"""What an enforcer says that it has heard: from now on, in this boot, it starts nothing that this state denies.

A heartbeat is a member's word on what it holds; this is the enforcer's on what it acts by. It is said only after the state is what
every start is checked against, so whoever sees it needs no bound on time. A start is its last check, after which the outcome
``started`` is signed: what passed that before the word is ended because of it, and not undone.

Not here: whether a frontier covers a statement (:func:`mesh.core.law.heartbeat.reaches`), who records it
(:mod:`mesh.protocol.hearing`).
"""

from itertools import pairwise

from mesh.core.bytes.canonical import Count, Hex32, KeyHex, Millis, Payload, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.heartbeat import Frontier
from mesh.errors import Refused

__all__ = ["Heard", "check_heard"]


@statement("heard")
class Heard(Payload):
    """Signed by the enforcer's key, whenever what governs it has changed, and once it is fresh in a boot."""

    mesh: Token
    enforcer: KeyHex
    identity: Hex32
    """Statement id of the enforcer's identity document."""
    boot: Hex32
    """The promise is this boot's: another one begins with what its files say, and is fresh before it starts anything."""
    sequence: Count
    """From 1, dense per boot. One that was superseded before a governor had it is in no log."""
    frontier: Frontier
    at_ms: Millis


def check_heard(said: Statement[Heard], *, mesh: str, document: str, key: str) -> Heard:
    """What the enforcer with this key and identity document says, and nobody else.

    Raises:
        Refused: ``wrong_mesh``, ``identity_mismatch``, ``bad_signature``; ``malformed`` for a number or a frontier that none has.
    """
    claims = said.claims
    if claims.mesh != mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.enforcer != key or claims.identity != document:
        raise Refused("identity_mismatch", "another enforcer's word")
    if not said.sealed_by((key,)):
        raise Refused("bad_signature", "heard")
    names = [head.stream for head in claims.frontier]
    if claims.sequence < 1 or any(one >= other for one, other in pairwise(names)) or any(head.sequence < 1 for head in claims.frontier):
        raise Refused("malformed", f"number {claims.sequence}, {len(names)} streams out of order or empty")
    return claims
