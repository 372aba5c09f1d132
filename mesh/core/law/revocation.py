"""A revocation is one signed, numbered, never undone no to one exact thing.

Not here: the streams that carry them.
"""

from typing import Annotated, Literal

import msgspec

from mesh.core.bytes.canonical import Count, KeyHex, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.roster import Roster
from mesh.errors import Refused

__all__ = ["Revocation", "Target", "admit_revocation", "stream_of"]


class Target(Payload):
    """What is revoked: a public key, a SPIFFE id, the id of a document, intent or authorization, or whatever was measured.

    Documents are identities, approvals and break-glass grants.
    """

    type: Literal["key", "subject", "document", "intent", "authorization", "digest"]
    value: Annotated[str, msgspec.Meta(pattern="^[ -~]{1,254}$(?!\\n)", min_length=1, max_length=254)]
    """Lowercase hex for a key or an id, a SPIFFE id, or the digest of something measured or of a policy bundle (``blake3:<hex>``)."""


@statement("revocation")
class Revocation(Payload):
    """Signed by the revoker key it names: any single one may revoke one subject, because a revocation can only deny.

    A key that the roster itself names (an issuer's, a member's) stands for more than one subject: that takes the threshold.
    """

    mesh: Token
    revoker: KeyHex
    sequence: Count
    """Dense per revoker key, from 1."""
    previous: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    target: Target
    reason: Reason
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return stream_of(self.revoker), self.sequence, self.previous


def stream_of(revoker: str) -> str:
    """The stream of a revoker key (hex)."""
    return f"revoke/{revoker}"


def admit_revocation(revocation: Statement[Revocation], roster: Roster) -> Revocation:
    """The revocation, believed because a revoker of ``roster`` signed it, or as many as it takes.

    Raises:
        Refused: ``wrong_mesh``, ``bad_signature``, ``threshold_not_met``.
    """
    claims = revocation.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.revoker not in roster.revoker.keys:
        raise Refused("bad_signature", "not a revoker of this roster")
    # Kept and handed on as it is: no line may be on it that somebody else could not check.
    if claims.revoker not in revocation.signatures or not revocation.sealed_by(roster.revoker.keys):
        raise Refused("bad_signature", "not signed by its revoker, or also by somebody who is none")
    if claims.target.type == "key" and claims.target.value in roster.keys:
        return revocation.verify_threshold(roster.revoker.keys, roster.revoker.threshold)
    return claims
