"""What Cedar is shown is made here, from typed values only, and every bit of it has a type in the schema made beside it.

Rules
-----
1. Schema: principals (``Workload``) and groups are declared from the bundle's fields, entity types are the bundle's text,
   actions and their contexts are generated from the declared parameters. Nobody writes a context type by hand, so what is
   passed and what is typed cannot differ.
2. Context: ``{asserted: {params, measurements, purpose}, attested: {…}}``. Parameters of list type are sets to Cedar, so
   policy sees neither their order nor repetitions; ``measurements`` is a set of ``{name, digest}``.
3. An optional parameter is an optional attribute: strict validation makes policies ask ``has`` first.

Not here: the engine (:mod:`mesh.adapters.cedar`).
"""

import json
from collections.abc import Iterable
from typing import Final

import msgspec

from mesh.core.bytes import canonical
from mesh.core.law.policy import ActionSpec, Bundle
from mesh.core.law.scope import PRINCIPAL_TYPE, action_id
from mesh.core.run.decision import EngineRequest, Entity
from mesh.protocol.decide import GROUP_TYPE

__all__ = ["RESERVED_TYPES", "compose_schema", "context_json", "entities_json", "policy_set_json"]

RESERVED_TYPES: Final = frozenset({PRINCIPAL_TYPE, GROUP_TYPE, "Action", "Bool", "Long", "String", "Set", "Record", "Entity", "Extension"})
_TYPES: Final = {
    "bool": "Bool",
    "int": "Long",
    "string": "String",
    "bools": "Set<Bool>",
    "ints": "Set<Long>",
    "strings": "Set<String>",
}
_ATTESTED: Final = "{enforcer_class: String, frontier: String, now_s: Long, person: String, policy_epoch: Long, region: String}"
_MEASUREMENTS: Final = "Set<{digest: String, name: String}>"


def compose_schema(bundle: Bundle) -> str:
    """The whole Cedar schema of a domain, in its human-readable form."""
    attributes = ", ".join(f"{_quote(one.name)}?: {_TYPES[one.type]}" for one in bundle.principal)
    head = f"entity {GROUP_TYPE} in [{GROUP_TYPE}];\nentity {PRINCIPAL_TYPE} in [{GROUP_TYPE}] {{{attributes}}};\n"
    return head + bundle.schema.rstrip() + "\n" + "".join(_action(bundle.domain, action) for action in bundle.actions)


def _action(domain: str, action: ActionSpec) -> str:
    params = ", ".join(f"{_quote(one.name)}{'' if one.required else '?'}: {_TYPES[one.type]}" for one in action.params)
    asserted = f"{{measurements: {_MEASUREMENTS}, params: {{{params}}}, purpose: String}}"
    applies = f"principal: [{PRINCIPAL_TYPE}], resource: [{action.resource}], context: {{asserted: {asserted}, attested: {_ATTESTED}}}"
    return f"action {_quote(action_id(domain, action.name))} appliesTo {{{applies}}};\n"


def _quote(name: str) -> str:
    return json.dumps(name)  # names are ASCII without quotes or backslashes: one spelling in JSON and in Cedar


class _Uid(msgspec.Struct, frozen=True):
    type: str
    id: str


class _Entity(msgspec.Struct, frozen=True):
    uid: _Uid
    attrs: object
    parents: object


def entities_json(entities: Iterable[Entity]) -> str:
    """The entities in Cedar's JSON form."""
    return canonical.encode([_Entity(_Uid(one.type, one.id), one.attributes, one.parents) for one in entities]).decode()


def context_json(request: EngineRequest) -> str:
    """The context of a request in Cedar's JSON form."""
    return canonical.encode({"asserted": request.asserted, "attested": request.attested}).decode()


def policy_set_json(policies: Iterable[tuple[str, str]]) -> str:
    """A policy set of (id, JSON form) pairs: explicit ids, because those of policy text depend on its order."""
    body = ",".join(f"{json.dumps(name)}:{text}" for name, text in policies)
    return f'{{"staticPolicies":{{{body}}},"templateLinks":[],"templates":{{}}}}'
