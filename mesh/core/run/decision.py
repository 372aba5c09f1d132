"""A decision is what policy says to complete inputs: the same inputs give the same bytes on every node.

Rules
-----
1. The engine sees *asserted* facts (from the signed intent) and *attested* facts (from the governor) in separate records;
   everything it sees is recorded or derivable from what is recorded.
2. Permit only if the engine says Allow **and reports no error at all**: Cedar skips a policy that errors, even a forbid.
3. The input digest holds commitments, not openings, so it can be recomputed after an erasure.
4. Lists are sorted here, never in the engine's order, which differs per process.

Not here: calling an engine (:mod:`mesh.protocol.decide`), denials without a decision (they have no decision bytes).
"""

from typing import Annotated, Literal

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, Hex32, Name, Params, Payload, Spiffe, Text, Token, sha256_hex
from mesh.core.run.identity import EnforcerClass
from mesh.core.run.intent import Assurance, Digest, EntityRef, Measurement
from mesh.core.run.params import Commitments
from mesh.limits import APPROVALS_MAX, DETERMINING_MAX, POLICY_NAME_CHARS_MAX

__all__ = [
    "Asserted",
    "Attested",
    "Decision",
    "Effect",
    "EngineRequest",
    "Entity",
    "PolicyName",
    "Verdict",
    "decision_digest",
    "input_digest",
]

Effect = Literal["permit", "deny"]
PolicyName = Annotated[str, msgspec.Meta(max_length=POLICY_NAME_CHARS_MAX)]
"""The id of a policy, or an obligation: many of them must fit into one record, one denial, one authorization."""


class Entity(Payload):
    """One Cedar entity with flat attributes."""

    type: Name
    id: Text
    attributes: Params
    parents: list[EntityRef]


class Asserted(Payload):
    """What the workload says, from the signed intent."""

    params: Params
    measurements: list[Measurement]
    purpose: Text


class Attested(Payload):
    """What the governor says, recorded with the decision."""

    now_s: Count
    """Floor of the record's at_ms; the engine never reads a clock."""
    region: Token
    policy_epoch: Count
    manifest: Hex32
    """Statement id of that epoch's manifest."""
    activation: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    """Id of the domain's newest activation that the governor held; empty for none. By these two anybody finds the same epoch."""
    frontier: Hex32
    """Digest of the governor's frontier."""
    enforcer_class: EnforcerClass
    person: Text
    approvals: Annotated[dict[Token, Count], msgspec.Meta(max_length=APPROVALS_MAX)]
    """Group of approvers to how many of its keys approved exactly this effect, its threshold at least. Policy sees the groups."""
    breakglass: bool
    """Whether a break-glass grant came with the intent."""
    delegation_depth: Count
    """Within how many executions this one runs; 0 for one that stands alone."""
    root: Spiffe
    """Subject of the outermost of them; the intent's own for one that stands alone."""


class EngineRequest(Payload):
    """All that an engine needs besides the bundle."""

    principal: EntityRef
    action: EntityRef
    resource: EntityRef
    asserted: Asserted
    attested: Attested
    slice: list[Entity]
    """Principal, resource and their ancestors, sorted by (type, id)."""


class Verdict(msgspec.Struct, frozen=True):
    """An engine's answer for complete inputs; no answer is an ``Unavailable``, never a verdict."""

    allow: bool
    determining: tuple[str, ...]
    errors: tuple[str, ...]
    """Error classes, one per erroring policy: stable words, not the engine's prose."""


class Decision(Payload):
    """What was decided and by what right; its canonical form are *the decision bytes*."""

    effect: Effect
    determining: Annotated[list[PolicyName], msgspec.Meta(max_length=DETERMINING_MAX)]
    errors: Annotated[list[Text], msgspec.Meta(max_length=DETERMINING_MAX)]
    obligations: Annotated[list[PolicyName], msgspec.Meta(max_length=DETERMINING_MAX)]
    assurance: Assurance
    needs: Annotated[list[PolicyName], msgspec.Meta(max_length=DETERMINING_MAX)]
    """Approvals that a determining permit demands and that did not come, such as ``2 of security``: then the effect is deny."""
    profile: Text
    """Engine profile: language, lint and limits; builds that agree byte for byte share one."""
    bundle: Digest
    input: Hex32

    @property
    def code(self) -> str:
        """Why it denies; empty for a permit."""
        if self.effect == "permit":
            return ""
        return "approval_needed" if self.needs else "policy_error" if self.errors else "policy_denied"


class _Input(Payload):
    profile: Text
    bundle: Digest
    principal: EntityRef
    action: EntityRef
    resource: EntityRef
    params: Params
    committed: Commitments
    measurements: Annotated[list[Measurement], msgspec.Meta(max_length=64)]
    purpose: Text
    slice: list[Entity]
    attested: Attested


def input_digest(request: EngineRequest, *, profile: str, bundle: str, public: Params, committed: Commitments) -> str:
    """SHA-256 over everything the decision depends on, with committed parameters as their commitments."""
    return sha256_hex(
        canonical.encode(
            _Input(
                profile=profile,
                bundle=bundle,
                principal=request.principal,
                action=request.action,
                resource=request.resource,
                params=public,
                committed=committed,
                measurements=request.asserted.measurements,
                purpose=request.asserted.purpose,
                slice=request.slice,
                attested=request.attested,
            )
        )
    )


def decision_digest(decision: Decision) -> str:
    """SHA-256 of the decision bytes."""
    return sha256_hex(canonical.encode(decision))
