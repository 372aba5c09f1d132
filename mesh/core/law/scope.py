"""Which policies can match a request, read from their scopes alone: never fewer than those that would match.

A Cedar policy whose scope (the part between the parentheses) cannot match has no say and cannot fail, so leaving it out
changes neither answer nor errors. Whatever this module does not understand counts as a match.

Not here: conditions, entities, evaluation (the engine's).
"""

import msgspec

from mesh.core.law.policy import Bundle, Manifest, PolicyJson
from mesh.core.run.approval import demands
from mesh.core.run.intent import ASSURANCES, Assurance, strongest
from mesh.errors import Refused

__all__ = ["PRINCIPAL_TYPE", "action_id", "applies", "approval_floors", "check_terms", "floors"]

PRINCIPAL_TYPE = "Workload"


class _Uid(msgspec.Struct, frozen=True):
    type: str
    id: str


class _Constraint(msgspec.Struct, frozen=True):
    op: str
    entity: _Uid | None = None
    entities: list[_Uid] | None = None
    entity_type: str | None = None


class _Scope(msgspec.Struct, frozen=True):
    principal: _Constraint
    action: _Constraint


_DECODER = msgspec.json.Decoder(_Scope)


def action_id(domain: str, action: str) -> str:
    """What Cedar calls an action: ``Action::"<domain>/<action>"``."""
    return f"{domain}/{action}"


def applies(policy: PolicyJson, action: str, *, principal_type: str = PRINCIPAL_TYPE) -> bool:
    """Whether ``policy`` can match requests for ``action`` (as :func:`action_id` spells it) by principals of that type.

    Raises:
        Refused: ``policy_invalid`` if the policy is not in Cedar's JSON form.
    """
    try:
        scope = _DECODER.decode(policy.json)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise Refused("policy_invalid", f"{policy.id[:80]}: not a policy in JSON form") from None
    return _action_matches(scope.action, action) and _principal_matches(scope.principal, principal_type)


def _action_matches(scope: _Constraint, action: str) -> bool:
    # `in` is equality here: the schema that is made from a bundle has no groups of actions.
    if scope.op == "All" or (scope.entity is None and scope.entities is None):
        return True
    named = ([] if scope.entity is None else [scope.entity]) + (scope.entities or [])
    return any(uid.type == "Action" and uid.id == action for uid in named)


def _principal_matches(scope: _Constraint, principal_type: str) -> bool:
    if scope.op == "is":
        return scope.entity_type == principal_type
    if scope.op == "==" and scope.entity is not None:
        return scope.entity.type == principal_type
    return True


def floors(bundle: Bundle) -> dict[str, Assurance]:
    """Per action the strongest ``@assurance`` among the permits that can match it, whatever their conditions say.

    Raises:
        Refused: ``policy_invalid``.
    """
    weakest = ASSURANCES[0]
    found: dict[str, Assurance] = dict.fromkeys((action.name for action in bundle.actions), weakest)
    for policy in bundle.policies:
        wanted = policy.annotations.get("assurance", weakest)
        if policy.effect != "permit" or wanted == weakest:
            continue
        if wanted not in ASSURANCES:
            raise Refused("policy_invalid", f"{policy.id[:80]}: no assurance is called {wanted[:40]!r}")
        for action, floor in found.items():
            if applies(policy, action_id(bundle.domain, action)):
                found[action] = strongest(floor, wanted)
    return found


def approval_floors(bundle: Bundle) -> dict[str, dict[str, int]]:
    """Per action what every permit demands with ``@approval`` that can match it: without that much, no governor can have allowed it.

    Raises:
        Refused: ``policy_invalid``.
    """
    found, permits = dict[str, dict[str, int]](), [policy for policy in bundle.policies if policy.effect == "permit"]
    for policy in permits if any("approval" in policy.annotations for policy in permits) else ():
        noted = policy.annotations.get("approval")
        wanted = {} if noted is None else {demand.group: demand.least for demand in demands(noted)}
        for action in bundle.actions:
            if applies(policy, action_id(bundle.domain, action.name)):
                floor = found.get(action.name, wanted)
                found[action.name] = {group: min(least, floor[group]) for group, least in wanted.items() if group in floor}
    return {action.name: found.get(action.name, {}) for action in bundle.actions}


def check_terms(manifest: Manifest, bundle: Bundle) -> None:
    """That a manifest's terms are those of exactly the bundle's actions, no floor below what a permit demands, approvals what all do.

    Raises:
        Refused: ``policy_invalid``.
    """
    demanded, approvals = floors(bundle), approval_floors(bundle)
    if bundle.domain != manifest.domain or demanded.keys() != manifest.actions.keys():
        raise Refused("policy_invalid", f"manifest and bundle of {manifest.domain} declare different actions")
    for action, floor in demanded.items():
        stated = manifest.actions[action].assurance
        if strongest(stated, floor) != stated:
            raise Refused("policy_invalid", f"{action}: the manifest says {stated}, a permit demands {floor}")
        if manifest.actions[action].approvals != approvals[action]:
            raise Refused("policy_invalid", f"{action}: the manifest says other approvals than every permit demands")
