"""What Cedar is shown is made here, from typed values only, and every bit of it has a type in the schema made beside it.

Rules
-----
1. Schema: principals (``Workload``) and groups are declared from the bundle's fields, entity types are the bundle's text,
   actions and their contexts are generated from the declared parameters. Nobody writes a context type by hand, so what is
   passed and what is typed cannot differ.
2. Context: ``{asserted: {params, measurements, purpose}, attested: {…}}``. Parameters of list type are sets to Cedar, so
   policy sees neither their order nor repetitions; ``measurements`` is a set of ``{name, digest}``.
3. An optional parameter is an optional attribute: strict validation makes policies ask ``has`` first.
4. The engine is shown, and its run-time schema declares, only those parts of the context that some policy of the action reads:
   parsing context is most of a decision's cost. What a policy does not read cannot change what it says; validation uses the
   whole schema.
5. A sealed parameter is in no context and in no schema: there is nobody who could show it.

Not here: the engine (:mod:`mesh.adapters.cedar`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from mesh.core.bytes import canonical
from mesh.core.law.policy import ActionSpec, Bundle, PolicyJson
from mesh.core.law.scope import PRINCIPAL_TYPE, action_id
from mesh.core.run.decision import Attested, EngineRequest, Entity
from mesh.errors import Refused
from mesh.protocol.decide import GROUP_TYPE

__all__ = ["RESERVED_TYPES", "Path", "Shape", "compose_schema", "entities_json", "leaves", "policy_set_json", "read_by", "sealed_leaves"]

Path = tuple[str, ...]
"""Names from the context downwards: ``("asserted", "params", "to")``."""
RESERVED_TYPES: Final = frozenset({PRINCIPAL_TYPE, GROUP_TYPE, "Action", "Bool", "Long", "String", "Set", "Record", "Entity", "Extension"})
_TYPES: Final = {
    "bool": "Bool",
    "int": "Long",
    "string": "String",
    "bools": "Set<Bool>",
    "ints": "Set<Long>",
    "strings": "Set<String>",
}
_PARAMS: Final = ("asserted", "params")
_ALWAYS: Final[dict[Path, str]] = {
    ("asserted", "measurements"): "Set<{digest: String, name: String}>",
    ("asserted", "purpose"): "String",
    ("attested", "approvals"): "Set<String>",
    ("attested", "breakglass"): "Bool",
    ("attested", "delegation_depth"): "Long",
    ("attested", "enforcer_class"): "String",
    ("attested", "frontier"): "String",
    ("attested", "now_s"): "Long",
    ("attested", "person"): "String",
    ("attested", "policy_epoch"): "Long",
    ("attested", "region"): "String",
    ("attested", "root"): "String",
}


def leaves(action: ActionSpec) -> frozenset[Path]:
    """All that there is in the context of an action."""
    return frozenset(_ALWAYS) | {(*_PARAMS, param.name) for param in action.params if param.privacy != "sealed"}


def sealed_leaves(action: ActionSpec) -> frozenset[Path]:
    """What would be there of an action if it were not sealed."""
    return frozenset((*_PARAMS, param.name) for param in action.params if param.privacy == "sealed")


def read_by(policies: Iterable[PolicyJson], all_: frozenset[Path]) -> frozenset[Path]:
    """Which of ``all_`` the conditions of these policies can read; never fewer.

    Raises:
        Refused: ``policy_invalid`` if one is not in Cedar's JSON form.
    """
    found: set[Path] = set()
    for policy in policies:
        try:
            form: Any = msgspec.json.decode(policy.json)
            found.update(path for condition in form["conditions"] for path in _paths(condition["body"]))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            raise Refused("policy_invalid", f"{policy.id[:80]}: not a policy in JSON form") from None
    return frozenset(leaf for leaf in all_ if any(leaf[: len(path)] == path or path[: len(leaf)] == leaf for path in found))


def _paths(node: Any) -> Iterator[Path]:
    """Each path that an expression takes from the context; a context used as a whole is the empty path."""
    path = _path(node)
    if path is not None:
        yield path
    elif isinstance(node, list):
        for one in node:
            yield from _paths(one)
    elif isinstance(node, dict):
        for operator, operands in node.items():
            path = _path(operands.get("left")) if operator == "has" else None
            if path is not None:
                yield (*path, operands["attr"])
            elif isinstance(operands, dict | list):
                yield from _paths(list(operands.values()) if isinstance(operands, dict) else operands)


def _path(node: Any) -> Path | None:
    names: list[str] = []
    while isinstance(node, dict) and isinstance(node.get("."), dict):
        names.append(node["."]["attr"])
        node = node["."]["left"]
    return tuple(reversed(names)) if isinstance(node, dict) and node.get("Var") == "context" else None


class Shape:
    """What the context of one action shows."""

    def __init__(self, shown: frozenset[Path]) -> None:
        self.shown = shown
        self._asserted = any(path[0] == "asserted" for path in shown)
        self._params = sorted(path[2] for path in shown if path[:2] == _PARAMS)
        self._measurements = ("asserted", "measurements") in shown
        self._purpose = ("asserted", "purpose") in shown
        self._attested = sorted(path[1] for path in shown if path[0] == "attested")

    def context(self, request: EngineRequest) -> str:
        """The context of a request in Cedar's JSON form."""
        context: dict[str, object] = {}
        if self._asserted:
            asserted: dict[str, object] = {}
            if self._params:
                given = request.asserted.params
                asserted["params"] = {name: given[name] for name in self._params if name in given}
            if self._measurements:
                asserted["measurements"] = request.asserted.measurements
            if self._purpose:
                asserted["purpose"] = request.asserted.purpose
            context["asserted"] = asserted
        if self._attested:
            context["attested"] = {name: _fact(request.attested, name) for name in self._attested}
        return canonical.encode(context).decode()


def _fact(attested: Attested, name: str) -> object:
    # Policy sees which groups approved; how many of each is for @approval.
    return sorted(attested.approvals) if name == "approvals" else getattr(attested, name)


def compose_schema(bundle: Bundle, shapes: Mapping[str, Shape] | None = None) -> str:
    """The whole Cedar schema of a domain, in its human-readable form; with ``shapes`` contexts are cut down to these, by action."""
    attributes = ", ".join(f"{_quote(one.name)}?: {_TYPES[one.type]}" for one in bundle.principal)
    head = f"entity {GROUP_TYPE} in [{GROUP_TYPE}];\nentity {PRINCIPAL_TYPE} in [{GROUP_TYPE}] {{{attributes}}};\n"
    actions = (_action(bundle.domain, action, leaves(action) if shapes is None else shapes[action.name].shown) for action in bundle.actions)
    return head + bundle.schema.rstrip() + "\n" + "".join(actions)


def _action(domain: str, action: ActionSpec, shown: frozenset[Path]) -> str:
    types = dict(_ALWAYS) | {(*_PARAMS, param.name): _TYPES[param.type] for param in action.params}
    optional: set[Path] = {(*_PARAMS, param.name) for param in action.params if not param.required}
    context = _record({path: types[path] for path in shown}, optional, ())
    applies = f"principal: [{PRINCIPAL_TYPE}], resource: [{action.resource}], context: {context}"
    return f"action {_quote(action_id(domain, action.name))} appliesTo {{{applies}}};\n"


def _record(types: Mapping[Path, str], optional: set[Path], at: Path) -> str:
    fields: list[str] = []
    for name in sorted({path[len(at)] for path in types if path[: len(at)] == at}):
        here = (*at, name)
        kind = types.get(here) or _record(types, optional, here)
        fields.append(f"{_quote(name)}{'?' if here in optional else ''}: {kind}")
    return "{" + ", ".join(fields) + "}"


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


def policy_set_json(policies: Iterable[tuple[str, str]]) -> str:
    """A policy set of (id, JSON form) pairs: explicit ids, because those of policy text depend on its order."""
    body = ",".join(f"{json.dumps(name)}:{text}" for name, text in policies)
    return f'{{"staticPolicies":{{{body}}},"templateLinks":[],"templates":{{}}}}'
