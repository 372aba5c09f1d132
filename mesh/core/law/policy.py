"""A policy bundle is all that decides in one domain, named by its digest; a manifest is the threshold-signed word that it may.

The bundle is content: policies, schema, entities, actions, tests. The manifest is authority: domain, epoch, digest, and the
terms that enforcers must hold themselves (floors, lifetimes), so that no governor can lower them.
"""

from typing import Annotated

import blake3
import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, KeyHex, Millis, Name, Params, Payload, Reason, Spiffe, Text, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.reign import MaybeId, in_reign
from mesh.core.law.roster import Roster
from mesh.core.run.decision import Effect, Entity, PolicyName
from mesh.core.run.intent import Assurance, Digest, EntityRef
from mesh.errors import Refused
from mesh.limits import APPROVALS_MAX, AUDITORS_MAX, BUNDLE_BYTES_MAX, PARAMS_MAX, SEAL_AUDITORS_MAX

__all__ = [
    "ActionSpec",
    "Attribute",
    "Auditor",
    "Bundle",
    "Case",
    "EntityType",
    "Manifest",
    "ParamSpec",
    "PolicyJson",
    "Terms",
    "admit_manifest",
    "bundle_digest",
    "check_succession",
    "policy_stream",
    "read_bundle",
]

_ParamType = Annotated[str, msgspec.Meta(pattern="^(bool|int|string|bools|ints|strings)$(?!\\n)", max_length=7)]
_Privacy = Annotated[str, msgspec.Meta(pattern="^(public|committed|sealed)$(?!\\n)", max_length=9)]
_Source = Annotated[str, msgspec.Meta(max_length=BUNDLE_BYTES_MAX)]


class Auditor(Payload):
    """Somebody for whom parameters are sealed."""

    name: Token
    key: KeyHex
    """X25519 public key."""


class ParamSpec(Payload):
    """One declared parameter of an action."""

    name: Name
    type: _ParamType
    privacy: _Privacy
    required: bool
    auditors: Annotated[list[Token], msgspec.Meta(max_length=SEAL_AUDITORS_MAX)]
    """For whom it is sealed, sorted; nobody, unless it is sealed."""


class ActionSpec(Payload):
    """One declared action."""

    name: Name
    resource: Name
    """The entity type it acts on."""
    params: Annotated[list[ParamSpec], msgspec.Meta(max_length=PARAMS_MAX)]


class Attribute(Payload):
    """One attribute of an identity document that policy may read; it is optional, and always of this type."""

    name: Name
    type: _ParamType


class PolicyJson(Payload):
    """One Cedar policy in Cedar's JSON form (EST). Id and annotations stand beside it only, never in it."""

    id: PolicyName
    effect: Annotated[str, msgspec.Meta(pattern="^(permit|forbid)$(?!\\n)", max_length=6)]
    annotations: dict[Name, Text]
    json: _Source


class EntityType(Payload):
    """A type of resources.

    ``closed``: an entity must be listed in the bundle. Open: besides those listed, any id that begins with ``prefix`` exists,
    without attributes or parents. ``Workload`` (principals) and ``Group`` (closed) are always there and never among these.
    """

    name: Name
    closed: bool
    prefix: Text


class Case(Payload):
    """An embedded policy test: this request must have this effect, determined by exactly these policies."""

    name: Text
    action: Name
    principal: EntityRef
    groups: list[Text]
    attributes: Params
    resource: EntityRef
    params: Params
    purpose: Text
    enforcer_class: Text
    person: Text
    approvals: Annotated[dict[Token, Count], msgspec.Meta(max_length=APPROVALS_MAX)]
    """Group to how many of its keys approved."""
    breakglass: bool
    delegation_depth: Count
    root: Text
    now_s: Count
    effect: Effect
    determining: list[Text]


class Bundle(Payload):
    """Everything that decides in one domain."""

    domain: Token
    profile: Text
    schema: _Source
    """Cedar schema, human-readable form: the entity types of resources. Principals and actions are declared by the fields below."""
    policies: list[PolicyJson]
    principal: list[Attribute]
    """What policy may read of an identity document; what is not listed is not shown to it, so one document serves many domains."""
    types: list[EntityType]
    entities: list[Entity]
    auditors: Annotated[list[Auditor], msgspec.Meta(max_length=AUDITORS_MAX)]
    actions: list[ActionSpec]
    cases: list[Case]

    def action(self, name: str) -> ActionSpec:
        """The declared action.

        Raises:
            Refused: ``action_unknown``.
        """
        for action in self.actions:
            if action.name == name:
                return action
        raise Refused("action_unknown", f"{self.domain}/{name}"[:100])


class Terms(Payload):
    """What an enforcer must know about one action, whatever a governor says."""

    assurance: Assurance
    """The floor: at least the domain's, and every @assurance of a permit that can match."""
    authorization_ms: Millis
    """Life of an authorization."""
    lease_ms: Millis
    approvals: Annotated[dict[Token, Count], msgspec.Meta(max_length=APPROVALS_MAX)]
    """Group to the fewest keys that must approve: what every permit demands that can match."""


@statement("policy")
class Manifest(Payload):
    """Signed by the domain's policy role: this bundle decides here, on these terms, for this long."""

    mesh: Token
    domain: Token
    epoch: Count
    previous: MaybeId
    since: MaybeId
    """Id of the roster that made its signers the stream's; empty for the first one (:mod:`mesh.core.law.reign`)."""
    digest: Digest
    actions: Annotated[dict[Name, Terms], msgspec.Meta(max_length=256)]
    enforcers: Annotated[list[Spiffe], msgspec.Meta(max_length=256)]
    """Whom authorizations of this domain may name as audience."""
    not_before_ms: Millis
    """When the first epoch begins; later ones begin when an activation says, not before this."""
    expires_ms: Millis
    """Nothing is decided by it from then on. Nobody falls back to the one before."""
    reason: Reason
    """What changes and why, in the signers' words."""
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return in_reign(policy_stream(self.domain), self.since), self.epoch, self.previous

    @property
    def sequence(self) -> int:
        """Its number in the stream is its epoch."""
        return self.epoch

    def terms(self, action: str) -> Terms:
        """The terms of an action.

        Raises:
            Refused: ``action_unknown``.
        """
        terms = self.actions.get(action)
        if terms is None:
            raise Refused("action_unknown", f"{self.domain}/{action}"[:100])
        return terms


def policy_stream(domain: str) -> str:
    """The stream of a domain's manifests."""
    return f"policy/{domain}"


def bundle_digest(data: bytes) -> str:
    """``blake3:<hex>`` of a bundle's canonical bytes."""
    return "blake3:" + blake3.blake3(data).hexdigest()


def read_bundle(data: bytes, *, digest: str) -> Bundle:
    """The bundle that a manifest names.

    Raises:
        Refused: ``digest_mismatch``; ``policy_invalid`` if something is named twice, of which readers might take either; the codec's
            codes.
    """
    if bundle_digest(data) != digest:
        raise Refused("digest_mismatch", "policy bundle")
    bundle = canonical.decode(Bundle, data, bytes_max=BUNDLE_BYTES_MAX)
    for what, names in _names(bundle).items():
        if len(names) != len(set(names)):
            raise Refused("policy_invalid", f"one of its {what} stands there twice")
    return bundle


def _names(bundle: Bundle) -> dict[str, list[str]]:
    return {
        "policies": [policy.id for policy in bundle.policies],
        "attributes": [attribute.name for attribute in bundle.principal],
        "types": [kind.name for kind in bundle.types],
        "entities": [f"{entity.type}::{entity.id}" for entity in bundle.entities],
        "auditors": [auditor.name for auditor in bundle.auditors],
        "actions": [action.name for action in bundle.actions],
        **{f"parameters of {action.name}": [spec.name for spec in action.params] for action in bundle.actions},
    }


def admit_manifest(manifest: Statement[Manifest], roster: Roster) -> Manifest:
    """The manifest, believed because its domain's policy role signed it.

    Raises:
        Refused: ``wrong_mesh``, ``domain_unknown``, ``bad_signature``, ``threshold_not_met``.
    """
    claims = manifest.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    role = roster.policy.get(claims.domain)
    if role is None:
        raise Refused("domain_unknown", claims.domain)
    role.check_sealed(manifest)
    return claims


def check_succession(now: Manifest, now_id: str, after: Manifest) -> None:
    """That ``after`` follows ``now``, whose statement id is ``now_id``; both are believed already.

    Raises:
        Refused: ``wrong_mesh``; ``policy_invalid`` for another domain; ``wrong_epoch`` unless it is the next epoch and names its
            predecessor.
    """
    if after.mesh != now.mesh:
        raise Refused("wrong_mesh", after.mesh)
    if after.domain != now.domain:
        raise Refused("policy_invalid", f"a manifest of {after.domain} after one of {now.domain}")
    if after.epoch != now.epoch + 1:
        raise Refused("wrong_epoch", f"after {now.domain} epoch {now.epoch} comes {now.epoch + 1}, this is {after.epoch}")
    if after.previous != now_id:
        raise Refused("wrong_epoch", f"{now.domain} epoch {now.epoch} is {now_id[:12]}…, this follows {after.previous[:12] or 'nothing'}…")
