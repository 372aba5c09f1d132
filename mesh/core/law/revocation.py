"""A revocation is one signed, numbered, never undone no to one exact thing.

Not here: the streams that carry them.
"""

from typing import Annotated, Literal

import msgspec

from mesh.core.bytes.canonical import Count, KeyHex, Millis, Payload, Text, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.roster import Roster
from mesh.errors import Refused

__all__ = ["Revocation", "Target", "admit_revocation"]


class Target(Payload):
    """What is revoked: a public key, a SPIFFE id, or the id of an identity document, intent or authorization."""

    type: Literal["key", "subject", "document", "intent", "authorization"]
    value: Text


@statement("revocation")
class Revocation(Payload):
    """Signed by the revoker key it names: any single one may revoke, because a revocation can only deny."""

    mesh: Token
    revoker: KeyHex
    sequence: Count
    """Dense per revoker key, from 1."""
    previous: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    target: Target
    reason: Text
    issued_ms: Millis


def admit_revocation(revocation: Statement[Revocation], roster: Roster) -> Revocation:
    """The revocation, believed because a revoker of ``roster`` signed it.

    Raises:
        Refused: ``wrong_mesh``, ``bad_signature``.
    """
    claims = revocation.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.revoker not in roster.revoker.keys:
        raise Refused("bad_signature", "not a revoker of this roster")
    return revocation.verify(claims.revoker)
