"""A revocation is one signed, numbered, never undone no to one exact thing.

Rules
-----
1. One revoker alone denies one subject. A key that a roster names, an issuer and a governor stand for many: that takes the threshold.
   So such a key has a target of its own, ``enrolled``; a plain ``key`` has no effect on one that any held roster names. What a
   revocation does must stand in it: how many have signed it can be changed by whoever carries it, and so can what comes first.
2. ``issuer`` kills every identity document that is signed by that key, for ever, also those that are yet to be found, except those
   that the revocation lists. Of several revocations of one issuer each must spare a document, or it is dead: so no order matters, and
   what is revoked only grows. A document that another issuer signs anew, without that key's line, lives.
3. ``governor`` kills every authorization that a member of that name has signed, issued or countersigned, under this roster or a later
   one. Its heartbeats, lines and records count as before: who counts is the roster's to say. Whoever replaces it takes another name.

4. ``ancestor`` denies one execution and all that runs within it or comes right after it, also what is running. One revoker does: whoever
   may end all that a subject does may end one thing that it does, with its parts; and they named it as their ancestor themselves.

Not here: the streams that carry them; where the chain of an intent or a start is put together (:mod:`mesh.protocol.examine`,
:mod:`mesh.protocol.enforcer`). Who attests does not ask: what was decided before a revocation was lawful.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, KeyHex, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.reign import MaybeId, in_reign
from mesh.core.law.roster import Roster
from mesh.errors import Refused
from mesh.limits import SPARED_MAX

__all__ = ["Revocation", "Spared", "Target", "admit_revocation", "needs_threshold", "spared_by", "stream_of"]

Spared = Mapping[str, frozenset[str]]
"""Revoked issuer key (hex) to the ids of its documents that are not revoked with it."""
_MANY: Final = frozenset({"enrolled", "issuer", "governor"})


class Target(Payload):
    """What is revoked: a key, a SPIFFE id, a document, intent or authorization, what was measured; an issuer, a governor.

    Documents are identities, approvals and break-glass grants. An ancestor is an authorization with all that runs within it.
    """

    type: Literal["key", "enrolled", "subject", "document", "intent", "authorization", "ancestor", "digest", "issuer", "governor"]
    value: Annotated[str, msgspec.Meta(pattern="^[ -~]{1,254}$(?!\\n)", min_length=1, max_length=254)]
    """Lowercase hex for a key or an id, a SPIFFE id, the digest of something measured or of a policy bundle
    (``blake3:<hex>``), or a member's name.
    """


@statement("revocation")
class Revocation(Payload):
    """Signed by the revoker key it names: any single one may revoke one subject, because a revocation can only deny.

    A key that the roster itself names (an issuer's, a member's), an issuer and a governor stand for more than one subject: that
    takes the threshold.
    """

    mesh: Token
    revoker: KeyHex
    sequence: Count
    """Dense per revoker key, from 1."""
    previous: MaybeId
    since: MaybeId
    """Id of the roster that made its signers the stream's; empty for the first one (:mod:`mesh.core.law.reign`)."""
    target: Target
    spares: Annotated[list[Hex32], msgspec.Meta(max_length=SPARED_MAX)]
    """Of an issuer, ids of the identity documents that stay valid, sorted; else empty."""
    reason: Reason
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return in_reign(stream_of(self.revoker), self.since), self.sequence, self.previous


def stream_of(revoker: str) -> str:
    """The stream of a revoker key (hex)."""
    return f"revoke/{revoker}"


def admit_revocation(revocation: Statement[Revocation], roster: Roster) -> Revocation:
    """The revocation, believed because a revoker of ``roster`` signed it, or as many as it takes.

    Raises:
        Refused: ``wrong_mesh``, ``bad_signature``, ``threshold_not_met``, ``stream_full``; ``malformed`` for spared documents of what is
            no issuer, or out of order.
    """
    claims = revocation.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.spares and (claims.target.type != "issuer" or claims.spares != sorted(set(claims.spares))):
        raise Refused("malformed", "only of an issuer documents are spared, each once, in their order")
    if claims.revoker not in roster.revoker.keys:
        raise Refused("bad_signature", "not a revoker of this roster")
    # Kept and handed on as it is: no line may be on it that somebody else could not check.
    if claims.revoker not in revocation.signatures or not revocation.sealed_by(roster.revoker.keys):
        raise Refused("bad_signature", "not signed by its revoker, or also by somebody who is none")
    if claims.target.type == "key" and claims.target.value in roster.keys:
        raise Refused("threshold_not_met", "the roster names that key: it is revoked as enrolled, by the threshold")
    upto = roster.handovers.get(stream_of(claims.revoker))
    if claims.sequence - (upto.sequence if upto else 0) > roster.bounds.revocations_max:
        raise Refused(
            "stream_full", f"number {claims.sequence}: a revoker says {roster.bounds.revocations_max} at most under these signers"
        )
    if needs_threshold(claims.target):
        return revocation.verify_threshold(roster.revoker.keys, roster.revoker.threshold)
    return claims


def needs_threshold(target: Target) -> bool:
    """Whether it stands for more than one subject (rule 1)."""
    return target.type in _MANY


def spared_by(spares: Sequence[frozenset[str]]) -> frozenset[str]:
    """What all revocations of one issuer, at least one, spare together (rule 2)."""
    return spares[0].intersection(*spares[1:])
