"""A bundle that passes here cannot fail in the ways that Cedar's own validator lets through.

Rules
-----
1. Every policy has a unique id, a known effect, known annotations, one canonical JSON spelling.
2. A forbid does no arithmetic: an overflow would skip it. (A failing permit only denies.)
3. Attributes, tags and ancestry are asked of principal, resource and context only, never of an entity named in the policy:
   the engine is shown a slice that holds principal, resource and their ancestors, nothing else.
4. Every entity, group and action that a policy names exists. A misspelt group would otherwise never match, in silence.
5. Entities name declared types and existing parents; principals are never among them.
6. No policy reads a sealed parameter of an action that it can match; sealed parameters name declared auditors with sound keys.
7. No name begins with two underscores: Cedar's JSON gives such keys a meaning of their own.

All findings are listed, not the first one. Not here: types (the validator's), text (:mod:`mesh.adapters.cedar_text`).
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from mesh.adapters.cedar_shape import RESERVED_TYPES, Path, read_by, sealed_leaves
from mesh.adapters.cedar_text import gate_json, gate_schema
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Spiffe, Token
from mesh.core.bytes.sealkeys import admit_seal_key
from mesh.core.law.policy import Bundle, ParamSpec, PolicyJson
from mesh.core.law.scope import PRINCIPAL_TYPE, action_id, applies
from mesh.core.run.approval import demands
from mesh.core.run.intent import ASSURANCES
from mesh.errors import Refused
from mesh.protocol.decide import GROUP_TYPE

__all__ = ["ANNOTATIONS", "Finding", "lint", "near"]

ANNOTATIONS: Final = frozenset({"approval", "assurance", "description", "obligation"})
"""Besides ``@id``, which every policy has."""
_ID: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,99}")
_TYPE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ARITHMETIC: Final = frozenset({"+", "-", "*", "neg", "offset", "durationSince", "toDate", "toTime"})
_ASKS: Final = frozenset({".", "has", "in", "is", "getTag", "hasTag"})
_LEAVES: Final = frozenset({"Value", "Var", "Slot"})


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong with a bundle."""

    code: str
    where: str
    """A policy id, or the part of the bundle."""
    what: str


def near(word: str, known: Iterable[str]) -> str:
    """``"; did you mean …?"`` if something known resembles ``word``, else nothing."""
    found = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def lint(bundle: Bundle, *, profile: str) -> list[Finding]:
    """All that is wrong with ``bundle`` as far as can be seen without the engine."""
    return [
        *_findings("bundle", _bundle(bundle, profile)),
        *_findings("entities", _entities(bundle)),
        *_findings("auditors", _auditors(bundle)),
        *_findings("actions", _actions(bundle)),
        *(finding for policy in bundle.policies for finding in _policy(bundle, policy)),
        *_findings("cases", _twice("case", [case.name for case in bundle.cases])),
    ]


def _findings(where: str, problems: Iterable[str]) -> list[Finding]:
    return [Finding("policy_invalid", where, what) for what in problems]


def _twice(kind: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{kind} {name!r} stands there {count} times" for name, count in Counter(names).items() if count > 1)


def _reserved(kind: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{kind} {name!r}: names may not begin with '__'" for name in names if name.startswith("__"))


def _bundle(bundle: Bundle, profile: str) -> Iterator[str]:
    if bundle.profile != profile:
        yield f"made for engine profile {bundle.profile!r}, this one is {profile!r}"
    yield from _twice("policy id", [policy.id for policy in bundle.policies])
    yield from _twice("principal attribute", [attribute.name for attribute in bundle.principal])
    yield from _reserved("principal attribute", [attribute.name for attribute in bundle.principal])
    try:
        declared = gate_schema(bundle.schema, "schema")
    except Refused as refusal:
        yield str(refusal)
        return
    listed = [kind.name for kind in bundle.types]
    yield from _twice("entity type", listed)
    yield from (f"entity type {name!r} is not in the schema{near(name, declared)}" for name in listed if name not in declared)
    yield from (f"entity type {name!r} of the schema is neither open nor closed" for name in declared if name not in listed)
    for name in declared:
        if name in RESERVED_TYPES or not _TYPE.fullmatch(name) or name.startswith("__"):
            yield f"entity type {name!r} is declared by the mesh itself, or is no name"


def _entities(bundle: Bundle) -> Iterator[str]:
    types = {kind.name for kind in bundle.types} | {GROUP_TYPE}
    known = {(entity.type, entity.id) for entity in bundle.entities}
    yield from _twice("entity", [_uid(entity.type, entity.id) for entity in bundle.entities])
    for entity in bundle.entities:
        uid = _uid(entity.type, entity.id)
        if entity.type == PRINCIPAL_TYPE:
            yield f"{uid}: principals are known by their identity documents only"
        elif entity.type not in types:
            yield f"{uid}: no such entity type{near(entity.type, types)}"
        yield from _reserved(f"{uid}: attribute", entity.attributes)
        for parent in entity.parents:
            if (parent.type, parent.id) not in known:
                name = _uid(parent.type, parent.id)
                yield f"{uid}: parent {name} is not listed{near(name, (_uid(*one) for one in known))}"


def _actions(bundle: Bundle) -> Iterator[str]:
    types = {kind.name for kind in bundle.types}
    yield from _twice("action", [action.name for action in bundle.actions])
    for action in bundle.actions:
        if action.resource not in types:
            yield f"{action.name}: resource type {action.resource!r} is not declared{near(action.resource, types)}"
        yield from _twice(f"{action.name}: parameter", [param.name for param in action.params])
        yield from _reserved(f"{action.name}: parameter", [param.name for param in action.params])
        for param in action.params:
            yield from (f"{action.name}: {param.name} {what}" for what in _sealing(bundle, param))


def _sealing(bundle: Bundle, param: ParamSpec) -> Iterator[str]:
    known = [auditor.name for auditor in bundle.auditors]
    if (param.privacy == "sealed") != bool(param.auditors):
        yield "is sealed for nobody" if not param.auditors else f"is {param.privacy} and names auditors"
    if param.auditors != sorted(set(param.auditors)):
        yield "names auditors twice, or not in their order"
    yield from (f"is sealed for {name!r}, who is no auditor here{near(name, known)}" for name in param.auditors if name not in known)


def _auditors(bundle: Bundle) -> Iterator[str]:
    yield from _twice("auditor", [auditor.name for auditor in bundle.auditors])
    yield from _twice("auditor's key", [auditor.key for auditor in bundle.auditors])
    for auditor in bundle.auditors:
        try:
            admit_seal_key(auditor.key)
        except Refused:
            yield f"auditor {auditor.name!r}: {auditor.key[:16]}… is no X25519 key; make one with `mesh key gen FILE --use auditor-seal`"


def _policy(bundle: Bundle, policy: PolicyJson) -> list[Finding]:
    where = policy.id[:100]
    try:
        gate_json(policy.json, where)
    except Refused as refusal:
        return [Finding(refusal.code, where, refusal.detail)]
    return [
        *_findings(where, [*_beside(policy), *_inside(bundle, policy)]),
        *(Finding("policy_reads_sealed", where, what) for what in _reads_sealed(bundle, policy)),
    ]


def _reads_sealed(bundle: Bundle, policy: PolicyJson) -> Iterator[str]:
    for action in bundle.actions:
        hidden = sealed_leaves(action)
        try:
            found = read_by([policy], hidden) if hidden and applies(policy, action_id(bundle.domain, action.name)) else frozenset[Path]()
        except Refused:
            return  # said above
        yield from (f"reads {path[-1]!r}, which {action.name} seals for auditors: no governor sees it" for path in sorted(found))


def _beside(policy: PolicyJson) -> Iterator[str]:
    if not _ID.fullmatch(policy.id):
        yield "an id is lowercase letters, digits and . _ / -, at most 100"
    for name, value in policy.annotations.items():
        if name not in ANNOTATIONS:
            yield f"no annotation is called @{name}{near(name, ANNOTATIONS)}"
        elif name == "assurance" and value not in ASSURANCES:
            yield f"@assurance({value!r}) is none of {', '.join(ASSURANCES)}{near(value, ASSURANCES)}"
        elif name == "obligation" and not all(_is(Token, part.strip()) for part in value.split(",")):
            yield f"@obligation({value!r}): obligations are lowercase words, separated by commas"
        elif name == "approval":
            try:
                demands(value)
            except Refused as refusal:
                yield refusal.detail
        if name != "description" and policy.effect != "permit":
            yield f"@{name} on a forbid has no meaning"


def _inside(bundle: Bundle, policy: PolicyJson) -> Iterator[str]:
    try:
        form: Any = msgspec.json.decode(policy.json)
        spelled = canonical.encode(form).decode() == policy.json
    except (msgspec.MsgspecError, ValueError):
        yield "not JSON"
        return
    if not spelled or not isinstance(form, dict):
        yield "not in the one allowed JSON spelling"
        return
    if form.get("effect") != policy.effect:
        yield f"says {form.get('effect')!r} inside and {policy.effect!r} beside"
    if "annotations" in form:
        yield "annotations stand beside a policy, not in it"
    yield from _Reader(bundle, forbids=policy.effect == "forbid").problems(form)


class _Reader:
    """Walks one policy in JSON form; its depth is bounded by the gate before it."""

    def __init__(self, bundle: Bundle, *, forbids: bool) -> None:
        self._forbids = forbids
        self._known = {(entity.type, entity.id) for entity in bundle.entities}
        self._actions = {action_id(bundle.domain, action.name) for action in bundle.actions}
        self._open = {kind.name: kind.prefix for kind in bundle.types if not kind.closed}

    def problems(self, form: dict[str, Any]) -> Iterator[str]:
        for part in ("principal", "action", "resource"):
            scope = form.get(part)
            if isinstance(scope, dict):
                scope = scope | (scope["in"] if isinstance(scope.get("in"), dict) else {})
                named = scope.get("entities")
                yield from self._named([scope.get("entity"), *(named if isinstance(named, list) else [])])
        conditions = form.get("conditions")
        for condition in conditions if isinstance(conditions, list) else []:
            if isinstance(condition, dict):
                yield from self._expression(condition.get("body"))

    def _expression(self, node: Any) -> Iterator[str]:
        if isinstance(node, list):
            for one in node:
                yield from self._expression(one)
        if not isinstance(node, dict):
            return
        for operator, operands in node.items():
            if self._forbids and operator in _ARITHMETIC:
                yield f"a forbid may not compute ({operator}): an overflow would skip it"
            if operator in _ASKS and isinstance(operands, dict) and not _rooted(operands.get("left")):
                yield f"{operator!r} is asked of something else than principal, resource or context, which the engine does not see"
            if operator == "Value":
                yield from self._named([operands.get("__entity")] if isinstance(operands, dict) else [])
            elif operator not in _LEAVES:
                parts = operands.values() if isinstance(operands, dict) else operands
                for part in parts if isinstance(parts, Iterable) and not isinstance(parts, str) else []:
                    yield from self._expression(part)

    def _named(self, uids: Iterable[Any]) -> Iterator[str]:
        for uid in uids:
            if isinstance(uid, dict):
                kind, name = str(uid.get("type")), str(uid.get("id"))
                known = self._names(kind)
                if known is not None and name not in known and not (kind in self._open and name.startswith(self._open[kind])):
                    yield f"{_uid(kind, name)} does not exist{near(name, known)}"
                elif known is None and not _is(Spiffe, name):
                    yield f"{_uid(kind, name)}: a workload's id is a SPIFFE id"

    def _names(self, kind: str) -> set[str] | None:
        if kind == PRINCIPAL_TYPE:
            return None
        return self._actions if kind == "Action" else {name for known, name in self._known if known == kind}


def _rooted(node: Any) -> bool:
    while isinstance(node, dict) and isinstance(node.get("."), dict):
        node = node["."].get("left")
    return isinstance(node, dict) and "Var" in node


def _is(kind: Any, value: str) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _uid(kind: str, name: str) -> str:
    return f'{kind}::"{name}"'[:160]
