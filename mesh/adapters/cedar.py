"""Cedar decides here, and only here: the same bundle and request give the same verdict on every host, or none at all.

Rules
-----
1. Everything of Cedar's runs on a :class:`~mesh.adapters.decision_thread.DecisionThread`, whoever asks: another stack size
   could give another answer. A canary, a forbid as deep as any that is admitted, must deny without errors on that thread
   before the engine exists.
2. Policies and entities are only ever handed over with the schema: without it a string could pose as an entity.
3. Errors become stable words, ``<policy id>: <class>``. The engine's prose names values and changes between builds.
4. No answer is an answer of its own (``None``): the caller denies. One bad request never disturbs the others of its batch.
5. A policy that cannot match is left out (:mod:`mesh.core.law.scope`), and so is context that no policy reads
   (:mod:`mesh.adapters.cedar_shape`): the engine has no index, looks at each, and parses all.
6. Text or bundles that were not admitted yet are parsed in a child process (:mod:`mesh.adapters.cedar_child`).

Not here: what may be asked and what follows from the verdict (:mod:`mesh.protocol.decide`).
"""

import importlib.metadata
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import cedarpy
import msgspec
from cedarpy import _internal  # the public is_authorized decodes JSON twice, a sixth of a decision's time

from mesh.adapters.cedar_lint import Finding, lint
from mesh.adapters.cedar_shape import Shape, compose_schema, entities_json, leaves, policy_set_json, read_by
from mesh.adapters.decision_thread import DecisionThread
from mesh.core.bytes import canonical
from mesh.core.law.policy import ActionSpec, Bundle, PolicyJson
from mesh.core.law.scope import PRINCIPAL_TYPE, action_id, applies
from mesh.core.run.decision import EngineRequest, Entity, Verdict
from mesh.errors import Refused, Unavailable

__all__ = ["PROFILE", "CedarEngine", "convert", "examine", "render"]

PROFILE: Final = "cedar-4/1"
"""Language version, and the version of lint, limits and generated schema."""
_SLICES_MAX: Final = 4096
_CANARY_TERMS: Final = 64
_CANARY_BRACKETS: Final = 32
_ERROR: Final = re.compile(r"error while evaluating policy `([^`]*)`: (.*)", re.DOTALL)
_CLASSES: Final = (
    (re.compile(r"type error: "), "type_error"),
    (re.compile(r"integer overflow "), "overflow"),
    (re.compile(r"error while evaluating `\w+` extension function: "), "extension_error"),
    (re.compile(r"recursion limit"), "recursion_limit"),
    (re.compile(r"entity .* does not exist$", re.DOTALL), "entity_missing"),
    (re.compile(r".* does not have the (attribute|tag) ", re.DOTALL), "attribute_missing"),
)
_POSITION: Final = re.compile(r"^for policy `policy\d+`, ")
K = TypeVar("K")
T = TypeVar("T")


class _Diagnostics(msgspec.Struct, frozen=True):
    reason: list[str] = []
    errors: list[str] = []


class _Answer(msgspec.Struct, frozen=True):
    decision: str
    diagnostics: _Diagnostics


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class CedarEngine:
    """Decides by bundles that were loaded. Implements :class:`mesh.protocol.decide.Engine`.

    Args:
        thread: where everything runs; the caller closes it.

    Raises:
        Unavailable: ``engine_unavailable`` if the canary does not deny.
    """

    profile: str = PROFILE

    def __init__(self, thread: DecisionThread) -> None:
        self._thread = thread
        self._loaded: dict[str, _Loaded] = {}
        self.build = _build()
        thread.call(_check_canary)

    def load(self, bundle: Bundle, digest: str) -> None:
        """Make ready to decide by ``bundle``, which must have been admitted: see :mod:`mesh.policy.admission`.

        Raises:
            Refused: ``policy_invalid`` if the engine cannot take it, or it was made for another profile.
        """
        if bundle.profile != PROFILE:
            raise Refused("policy_invalid", f"made for engine profile {bundle.profile[:40]!r}, this one is {PROFILE!r}")
        if digest not in self._loaded:
            self._loaded[digest] = self._thread.call(_Loaded, bundle)

    def holds(self, digest: str) -> bool:
        """Whether that bundle is loaded."""
        return digest in self._loaded

    def drop(self, digest: str) -> None:
        """Forget that bundle."""
        self._loaded.pop(digest, None)

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        """One verdict per request, in order; all ``None`` if the bundle is not loaded."""
        loaded = self._loaded.get(bundle_digest)
        if loaded is None:
            return [None] * len(requests)
        return self._thread.call(loaded.evaluate, requests)


class _Action:
    """One action's policies, and what they can read."""

    def __init__(self, bundle: Bundle, action: ActionSpec) -> None:
        name = action_id(bundle.domain, action.name)
        matching = [policy for policy in bundle.policies if applies(policy, name)]
        self.shape = Shape(read_by(matching, leaves(action)))
        self.policies = _ours(cedarpy.PolicySet.from_json_str, policy_set_json((policy.id, policy.json) for policy in matching))


class _Loaded:
    """A bundle as handles of the engine. Lives on the decision thread."""

    def __init__(self, bundle: Bundle) -> None:
        actions = {action.name: _Action(bundle, action) for action in bundle.actions}
        self._actions = {action_id(bundle.domain, name): action for name, action in actions.items()}
        self._schema = _ours(cedarpy.Schema.from_str, compose_schema(bundle, {name: action.shape for name, action in actions.items()}))
        self._slices: dict[str, Any] = {}
        self._lists: dict[int, tuple[list[Entity], Any]] = {}

    def evaluate(self, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        return [_contained(self._one, request) for request in requests]

    def _one(self, request: EngineRequest) -> Verdict | None:
        action = self._actions.get(request.action.id)
        if action is None or request.action.type != "Action" or request.principal.type != PRINCIPAL_TYPE:
            return None
        question = {
            "principal": {"type": request.principal.type, "id": request.principal.id},
            "action": {"type": request.action.type, "id": request.action.id},
            "resource": {"type": request.resource.type, "id": request.resource.id},
            "context": action.shape.context(request),
        }
        return _verdict(_internal.is_authorized(question, action.policies, self._entities(request.slice), self._schema))

    def _entities(self, slice_: list[Entity]) -> Any:
        found = self._lists.get(id(slice_))
        if (
            found is not None and found[0] is slice_
        ):  # whoever prepares requests hands over the same list for the same principal and resource
            return found[1]
        text = entities_json(slice_)
        known = self._slices.get(text)
        if known is None:
            known = _internal.Entities.from_json_str(text, self._schema)
            _remember(self._slices, text, known)
        _remember(self._lists, id(slice_), (slice_, known))
        return known


def _remember(cache: dict[K, T], key: K, value: T) -> None:
    if len(cache) >= _SLICES_MAX:
        cache.pop(next(iter(cache)))
    cache[key] = value


def _contained(ask: Callable[[T], Verdict | None], question: T) -> Verdict | None:
    """What ``ask`` returns; whatever it raises, a panic of the engine included, is no answer."""
    try:
        return ask(question)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            raise
        return None


def _verdict(text: str) -> Verdict | None:
    answer = _ANSWER.decode(text)
    if answer.decision not in {"Allow", "Deny"}:
        return None
    found = answer.diagnostics
    return Verdict(
        allow=answer.decision == "Allow",
        determining=tuple(sorted(found.reason)),
        errors=tuple(sorted(map(_error_class, found.errors))),
    )


def _error_class(prose: str) -> str:
    match = _ERROR.fullmatch(prose)
    if match is None:
        return "other"
    name = next((name for pattern, name in _CLASSES if pattern.match(match[2])), "other")
    return f"{match[1]}: {name}"


def _ours(make: Callable[[str], T], text: str) -> T:
    try:
        return make(text)
    except (ValueError, TypeError) as error:
        raise Refused("policy_invalid", str(error)[:300]) from None


def _build() -> str:
    ours = f"cedarpy/{importlib.metadata.version('cedarpy')}"
    for file in importlib.metadata.files("cedarpy") or ():
        if file.name.endswith(".cyclonedx.json"):  # the only place where the wheel says which engine is inside
            parts = json.loads(file.read_text())["components"]
            return next((f"cedar-policy/{part['version']}+{ours}" for part in parts if part["name"] == "cedar-policy"), ours)
    return ours


def _check_canary() -> None:
    terms = " || ".join([*(f"context has x{number}" for number in range(_CANARY_TERMS - 1)), "true"])
    condition = "(" * _CANARY_BRACKETS + terms + ")" * _CANARY_BRACKETS
    text = f"permit (principal, action, resource);\nforbid (principal, action, resource) when {{ {condition} }};"
    anyone = {"type": "Canary", "id": "canary"}
    question = {"principal": anyone, "action": {"type": "Action", "id": "sing"}, "resource": anyone, "context": "{}"}
    verdict = _contained(lambda policies: _verdict(_internal.is_authorized(question, cedarpy.PolicySet.from_str(policies), "[]")), text)
    if verdict is None or verdict.allow or verdict.errors:
        raise Unavailable("engine_unavailable", "a deep forbid did not deny on this host")


# --------------------------------------------------------------------------------------------- for the child process only


def convert(where: str, text: str) -> tuple[list[PolicyJson], list[Finding]]:
    """The policies of one file, in JSON form, by their ``@id``; and what is wrong with it. Gate the text first."""
    try:
        form = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        return [], [Finding("policy_invalid", where, str(error)[:300])]
    policies: list[PolicyJson] = []
    findings = [Finding("policy_invalid", where, "templates are not supported")] if form["templates"] or form["templateLinks"] else []
    for position, policy in form["staticPolicies"].items():
        annotations = {name: value or "" for name, value in policy.pop("annotations", {}).items()}
        name = annotations.pop("id", "")
        if not name:
            findings.append(Finding("policy_invalid", where, f"policy number {int(position.removeprefix('policy')) + 1} has no @id"))
        policies.append(PolicyJson(id=name, effect=policy["effect"], annotations=annotations, json=canonical.encode(policy).decode()))
    return policies, findings


def render(policies: Sequence[PolicyJson]) -> list[str]:
    """Each policy as Cedar's own text, with id and annotations: for people. Gate them first.

    Raises:
        Refused: ``policy_invalid``.
    """
    texts = list[str]()
    for policy in policies:
        annotated = {**json.loads(policy.json), "annotations": {"id": policy.id, **policy.annotations}}
        try:
            texts.append(cedarpy.format_policies(cedarpy.policies_from_json_str(policy_set_json([("policy0", json.dumps(annotated))]))))
        except ValueError as error:
            raise Refused("policy_invalid", f"{policy.id}: {error}"[:300]) from None
    return texts


def examine(bundle: Bundle) -> list[Finding]:
    """All that is wrong with ``bundle``: lint first, and if that finds nothing, what the engine says."""
    findings = lint(bundle, profile=PROFILE)
    if findings:
        return findings
    try:
        schema = cedarpy.Schema.from_str(compose_schema(bundle))
    except ValueError as error:
        return [Finding("policy_invalid", "schema", str(error)[:300])]
    return [*_check_entities(bundle, schema), *(finding for policy in bundle.policies for finding in _check_policy(policy, schema))]


def _check_entities(bundle: Bundle, schema: Any) -> list[Finding]:
    bare = [Entity(type=kind.name, id=f"{kind.prefix}any", attributes={}, parents=[]) for kind in bundle.types if not kind.closed]
    findings: list[Finding] = []
    for entity in [*bundle.entities, *bare]:
        try:
            cedarpy.Entities.from_json_str(entities_json([entity]), schema)
        except ValueError as error:
            why = "an open type may have no required attributes" if entity in bare else str(error)
            findings.append(Finding("policy_invalid", "entities", f'{entity.type}::"{entity.id}": {why}'[:300]))
    return findings


def _check_policy(policy: PolicyJson, schema: Any) -> list[Finding]:
    try:
        text = cedarpy.policies_from_json_str(policy_set_json([(policy.id, policy.json)]))
        (again,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    except ValueError as error:
        return [Finding("policy_invalid", policy.id, str(error)[:300])]
    if canonical.encode(again).decode() != policy.json:  # the engine read something else than what stands there
        return [Finding("policy_invalid", policy.id, "the engine reads it as another policy")]
    result = cedarpy.validate_policies(text, schema)
    return [Finding("policy_invalid", policy.id, _POSITION.sub("", error.error)[:300]) for error in result.errors]
