"""An identity document binds a SPIFFE id to a key, for a time, on an issuer's word: who somebody is, never what they may.

Workloads sign intents with the holder key; enforcers *are* their key (the audience of authorizations). Principal attributes
that policy reads come from this document only, never from the intent.
"""

from typing import Annotated, Literal

import msgspec

from mesh.core.bytes.canonical import KeyHex, Millis, Params, Payload, Spiffe, Text, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.roster import Roster
from mesh.errors import Refused
from mesh.limits import LIST_ITEMS_MAX

__all__ = ["EnforcerClass", "Identity", "Role", "check_identity", "issued_by"]

Role = Literal["workload", "enforcer"]
EnforcerClass = Literal["", "in-process", "sidecar", "gateway"]
"""``in-process`` guards against mistakes and stale code, not against a hostile workload; the others do. Empty for workloads."""


@statement("identity", bytes_max=16_384)
class Identity(Payload):
    """Who holds a key. Signed by an issuer of the roster."""

    mesh: Token
    subject: Spiffe
    key: KeyHex
    """The holder's public key."""
    role: Role
    enforcer_class: EnforcerClass
    person: Text
    """Who answers for it, for people; empty when nobody does."""
    groups: Annotated[list[Text], msgspec.Meta(max_length=LIST_ITEMS_MAX)]
    """``Group`` entities of the policy bundle that are parents of this principal."""
    attributes: Params
    not_before_ms: Millis
    expires_ms: Millis


def issued_by(document: Statement[Identity], roster: Roster) -> Identity:
    """The document, believed because issuers of ``roster`` signed it, and nobody else.

    Times are not checked: see :func:`check_identity`.

    Raises:
        Refused: ``wrong_mesh``, ``identity_unknown``.
    """
    claims = document.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if not document.sealed_by(roster.issuers.keys):
        raise Refused("identity_unknown", claims.subject)
    return claims


def check_identity(document: Identity, *, role: Role, subject: str | None, key: str, now_ms: int) -> None:
    """That ``document`` says who presents ``key`` now; checked again at every use, since documents are cached.

    Raises:
        Refused: ``identity_mismatch``, ``identity_expired``.
    """
    if document.role != role or document.key != key or (subject is not None and document.subject != subject):
        raise Refused("identity_mismatch", document.subject)
    if not document.not_before_ms <= now_ms < document.expires_ms:
        raise Refused("identity_expired", document.subject)
