"""An authorization is one governor's signed, short-lived, single-use word that one exact intent may run at one enforcer.

It is a pure function of the recorded decision, so whoever holds the record recomputes it byte for byte:
:func:`authorization_of`. The lifecycle's nine fields of an authorization artifact are here as

===================== ==================================================================
scope                 domain, action, resource, params, uses
initiator             subject, holder, identity, person
runtime bindings      audience, measurements
policy state          policy_epoch, bundle, frontier
environment           region, enforcer_class
temporal validity     not_before_ms, expires_ms, lease_ms
governance metadata   roster_epoch, assurance, obligations, approvals, ancestors, decision
signatures            the envelope's
attribution           issuer, intent, origin, index
===================== ==================================================================

Not here: verification at the enforcer (:mod:`mesh.protocol.enforcer`).
"""

from typing import Annotated, Literal

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, KeyHex, Millis, Name, Payload, Spiffe, Text, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.policy import Terms
from mesh.core.run.decision import Attested, Decision, PolicyName, decision_digest
from mesh.core.run.identity import EnforcerClass, Identity
from mesh.core.run.intent import Assurance, Audience, Digest, EntityRef, Intent, Measurement
from mesh.core.run.params import params_digest
from mesh.limits import ANCESTORS_MAX, APPROVALS_MAX, DETERMINING_MAX, MEASUREMENTS_MAX

__all__ = ["Ancestor", "Authorization", "Denial", "Possession", "Receipt", "RecordRef", "authorization_of"]

_Origin = Annotated[str, msgspec.Meta(max_length=160)]


class Ancestor(Payload):
    """One execution within which another runs: what a revocation may name of it, so that no paper of it is needed to find that out."""

    authorization: Hex32
    intent: Hex32
    domain: Token
    subject: Spiffe
    holder: KeyHex
    identity: Hex32
    issuer: Token

    @classmethod
    def of(cls, authorization: Statement["Authorization"]) -> "Ancestor":
        """That which was authorized so."""
        claims = authorization.claims
        return cls(
            authorization=authorization.id,
            intent=claims.intent,
            domain=claims.domain,
            subject=claims.subject,
            holder=claims.holder,
            identity=claims.identity,
            issuer=claims.issuer,
        )

    def links(self, *, begins: bool) -> tuple[tuple[str, str], ...]:
        """What ends all that runs within it, as pairs of target type and value; with ``begins`` also what only lets nothing begin there.

        An authorization or an intent is one execution: whoever revokes it as such has not spoken of its parts, which have been
        authorized each by itself. Who is to end them too revokes it as an ancestor.
        """
        whole = (
            ("ancestor", self.authorization),
            ("key", self.holder),
            ("subject", self.subject),
            ("document", self.identity),
            ("governor", self.issuer),
        )
        return (*whole, ("authorization", self.authorization), ("intent", self.intent)) if begins else whole


@statement("authorization")
class Authorization(Payload):
    """Signed by the issuer's decision key."""

    mesh: Token
    intent: Hex32
    """Statement id of the intent; also the key under which it is spent."""
    domain: Token
    action: Name
    resource: EntityRef
    params: Hex32
    """:func:`mesh.core.run.params.params_digest`."""
    measurements: Annotated[list[Measurement], msgspec.Meta(max_length=MEASUREMENTS_MAX)]
    subject: Spiffe
    holder: KeyHex
    identity: Hex32
    person: Text
    audience: Audience
    enforcer_class: EnforcerClass
    region: Token
    policy_epoch: Count
    bundle: Digest
    frontier: Hex32
    roster_epoch: Count
    not_before_ms: Millis
    expires_ms: Millis
    lease_ms: Millis
    uses: Literal[1]
    obligations: Annotated[list[PolicyName], msgspec.Meta(max_length=DETERMINING_MAX)]
    assurance: Assurance
    approvals: Annotated[list[Hex32], msgspec.Meta(max_length=APPROVALS_MAX)]
    """Ids of the approvals and grants that it rests on, sorted; each start uses each of them once."""
    ancestors: Annotated[list[Ancestor], msgspec.Meta(max_length=ANCESTORS_MAX)]
    """Within what it runs: its parent first, the root last. All of them, signed: who carries it cannot shorten the line."""
    decision: Hex32
    """Digest of the decision bytes."""
    issuer: Token
    origin: _Origin
    index: Count
    """The record of the decision: the authorization is also its issuer's promise that it stands there. (The leaf hash is not
    here: the record names the authorization's id.)"""


class RecordRef(Payload):
    """Where a record stands."""

    origin: _Origin
    index: Count
    leaf: Hex32
    """RFC 6962 leaf hash; never a statement id."""


@statement("receipt", bytes_max=2_048)
class Receipt(Payload):
    """A governor's promise that somebody else's statement is durably in its log."""

    mesh: Token
    issuer: Token
    statement: Hex32
    record: RecordRef


@statement("denial", bytes_max=8_192)
class Denial(Payload):
    """A signed no. Signed by the issuer's decision key, recorded like a yes."""

    mesh: Token
    issuer: Token
    intent: Hex32
    code: Name
    detail: Text
    determining: Annotated[list[PolicyName], msgspec.Meta(max_length=DETERMINING_MAX)]
    """Policies that decided, when policy did."""
    at_ms: Millis
    record: RecordRef


@statement("possession", bytes_max=2_048)
class Possession(Payload):
    """The holder key's answer to an enforcer's challenge: whoever presents the authorization holds the key now."""

    mesh: Token
    intent: Hex32
    enforcer: KeyHex
    challenge: Hex32


def authorization_of(  # noqa: PLR0913 -- all that it is a function of
    asked: Statement[Intent],
    identity: Identity,
    decision: Decision,
    attested: Attested,
    terms: Terms,
    *,
    issuer: str,
    place: tuple[str, int],
    at_ms: int,
    roster_epoch: int,
    approvals: list[str],
    ancestors: list[Ancestor],
) -> Authorization:
    """The one authorization that a permitting ``decision`` stands for, recorded at ``at_ms`` at ``place``: (origin, index)."""
    intent = asked.claims
    return Authorization(
        mesh=intent.mesh,
        intent=asked.id,
        domain=intent.domain,
        action=intent.action,
        resource=intent.resource,
        params=params_digest(intent.params, intent.committed),
        measurements=intent.measurements,
        subject=intent.subject,
        holder=intent.holder,
        identity=intent.identity,
        person=identity.person,
        audience=intent.audience,
        enforcer_class=attested.enforcer_class,
        region=attested.region,
        policy_epoch=attested.policy_epoch,
        bundle=decision.bundle,
        frontier=attested.frontier,
        roster_epoch=roster_epoch,
        not_before_ms=at_ms,
        # Never beyond what the workload itself asked for.
        expires_ms=min(at_ms + terms.authorization_ms, intent.expires_ms),
        lease_ms=terms.lease_ms,
        uses=1,
        obligations=decision.obligations,
        assurance=decision.assurance,
        approvals=approvals,
        ancestors=ancestors,
        decision=decision_digest(decision),
        issuer=issuer,
        origin=place[0],
        index=place[1],
    )
