"""From an intent to what the engine is asked, and from the engine's verdict to the decision: the same on every node.

Rules
-----
1. The engine is asked only about complete inputs: a declared action, exactly its declared parameters in their privacy
   classes, entities that exist. Anything else is refused before the engine sees it. Of a sealed parameter nobody here sees more than
   that it is there, and sealed for whom the bundle says.
2. Nothing that the bundle does not declare reaches the engine: no parameter, no attribute, no entity.
3. Principal attributes come from the identity document, resource attributes and parents from the bundle, never from the intent.
4. Permit only if the verdict is allow *and* names no error *and* rests on a permit of this bundle.
5. Obligations and assurance come from the annotations of the determining permits; assurance is never below the manifest's
   floor nor below what the caller asked for.
6. What any determining permit demands with ``@approval`` must have come, or the effect is deny, and the decision says what is missing.

Not here: signatures, identity, freshness, times (the caller has checked them), and the engine itself
(:mod:`mesh.adapters.cedar`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from mesh.core.bytes.canonical import Params
from mesh.core.law.governance import Law
from mesh.core.law.policy import ActionSpec, Bundle, EntityType
from mesh.core.law.scope import PRINCIPAL_TYPE, action_id
from mesh.core.run.approval import demands, unmet
from mesh.core.run.decision import Asserted, Attested, Decision, Effect, EngineRequest, Entity, Verdict, input_digest
from mesh.core.run.identity import Identity
from mesh.core.run.intent import ASSURANCES, Assurance, EntityRef, Intent, strongest
from mesh.core.run.params import Opening, Value, open_all
from mesh.errors import Refused, Unavailable
from mesh.limits import DETERMINING_MAX

__all__ = ["GROUP_TYPE", "Engine", "conclude", "prepare"]

GROUP_TYPE: Final = "Group"
K = TypeVar("K")
V = TypeVar("V")
_INDEXES_MAX: Final = 64
_SLICES_MAX: Final = 4096
_SCALARS: Final[dict[str, type]] = {"bool": bool, "int": int, "string": str}


class Engine(Protocol):
    """Whoever evaluates policies. Pure: the same bundle and request give the same verdict."""

    @property
    def profile(self) -> str:
        """Language, lint and limits, as decisions name them; builds that agree byte for byte share one."""
        ...

    @property
    def build(self) -> str:
        """The engine's exact build, recorded beside decisions."""
        ...

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> Sequence[Verdict | None]:
        """One verdict per request, in order; ``None`` = no answer, and the caller denies ``engine_unavailable``.

        Never raises for one bad request.
        """
        ...


class _Action:
    """A declared action, ready for lookups."""

    def __init__(self, domain: str, spec: ActionSpec, auditors: Mapping[str, str]) -> None:
        self.ref = EntityRef(type="Action", id=action_id(domain, spec.name))
        self.resource = spec.resource
        self.public = {param.name: param.type for param in spec.params if param.privacy == "public"}
        self.committed = {param.name: param.type for param in spec.params if param.privacy == "committed"}
        self.sealed = {
            param.name: [(auditor, auditors.get(auditor, "")) for auditor in param.auditors]
            for param in spec.params
            if param.privacy == "sealed"
        }
        self.privacy = {param.name: param.privacy for param in spec.params}
        self.required = {
            privacy: frozenset(param.name for param in spec.params if param.required and param.privacy == privacy)
            for privacy in ("public", "committed", "sealed")
        }


class _End(msgspec.Struct, frozen=True, kw_only=True):
    """A decision but for what was decided about."""

    effect: Effect
    determining: list[str]
    errors: list[str]
    obligations: list[str]
    assurance: Assurance


class _Index:
    """A bundle, ready for lookups."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        auditors = {auditor.name: auditor.key for auditor in bundle.auditors}
        self.actions = {spec.name: _Action(bundle.domain, spec, auditors) for spec in bundle.actions}
        self.attributes = {attribute.name: attribute.type for attribute in bundle.principal}
        self.types: dict[str, EntityType] = {kind.name: kind for kind in bundle.types}
        self.entities = {(entity.type, entity.id): entity for entity in bundle.entities}
        self.permits = {
            policy.id: (_obligations(policy.annotations.get("obligation", "")), policy.annotations.get("assurance", ASSURANCES[0]))
            for policy in bundle.policies
            if policy.effect == "permit"
        }
        self.demands = {
            policy.id: policy.annotations["approval"]
            for policy in bundle.policies
            if policy.effect == "permit" and "approval" in policy.annotations
        }
        self.policies = frozenset(policy.id for policy in bundle.policies)
        self._ends: dict[tuple[Verdict, Assurance, Assurance], _End] = {}
        self._groups: dict[tuple[str, ...], tuple[list[EntityRef], tuple[Entity, ...]]] = {}
        self._resources: dict[tuple[str, str], tuple[Entity, ...]] = {}
        self._slices: dict[tuple[int, str, str], tuple[Identity, list[Entity]]] = {}

    def slice(self, identity: Identity, ref: EntityRef) -> list[Entity]:
        """Principal, resource and all their ancestors, sorted; the same list for the same document and resource."""
        key = id(identity), ref.type, ref.id
        known = self._slices.get(key)
        if known is None or known[0] is not identity:  # the number finds it, the object itself proves it
            parents, groups = self.groups(tuple(identity.groups))
            attributes = _attributes(self.attributes, identity.attributes)
            principal = Entity(type=PRINCIPAL_TYPE, id=identity.subject, attributes=attributes, parents=parents)
            entities = {(entity.type, entity.id): entity for entity in (principal, *groups, *self.resource(ref))}
            known = identity, [entities[name] for name in sorted(entities)]
            _remember(self._slices, key, known)
        return known[1]

    def end(self, verdict: Verdict, floor: Assurance, least: Assurance) -> "_End":
        """What a verdict comes to where the manifest demands ``floor`` and the caller ``least``."""
        key = verdict, floor, least
        known = self._ends.get(key)
        if known is None:
            permits = [self.permits[name] for name in verdict.determining if name in self.permits]
            if not self.policies.issuperset(verdict.determining) or (verdict.allow and len(permits) != len(verdict.determining)):
                raise Unavailable("engine_unavailable", "the verdict names policies that cannot have determined it")
            obligations = {name for names, _ in permits for name in names}
            if max(len(verdict.determining), len(verdict.errors), len(obligations)) > DETERMINING_MAX:
                raise Refused("too_large", f"more than {DETERMINING_MAX} policies or obligations in one decision")
            permitted = verdict.allow and bool(permits) and not verdict.errors
            levels: list[Assurance] = [floor, least, *(_assurance(demanded) for _, demanded in permits)]
            known = _End(
                effect="permit" if permitted else "deny",
                determining=sorted(verdict.determining),
                errors=sorted(verdict.errors),
                obligations=sorted(obligations) if permitted else [],
                assurance=strongest(*levels),
            )
            _remember(self._ends, key, known)
        return known

    def lacking(self, verdict: Verdict, approvals: Mapping[str, int]) -> list[str]:
        """What the permits that determined ``verdict`` demand besides these approvals (rule 6)."""
        wanted = [self.demands[name] for name in verdict.determining if name in self.demands]
        try:
            return unmet([demand for annotation in wanted for demand in demands(annotation)], approvals) if wanted else []
        except Refused as refusal:
            raise Unavailable("engine_unavailable", refusal.detail) from None  # admission refuses such bundles

    def groups(self, names: tuple[str, ...]) -> tuple[list[EntityRef], tuple[Entity, ...]]:
        """The groups as parents, and they with all their ancestors."""
        known = self._groups.get(names)
        if known is None:
            parents = [EntityRef(type=GROUP_TYPE, id=name) for name in sorted(frozenset(names))]
            known = parents, self._closure(parents)
            _remember(self._groups, names, known)
        return known

    def resource(self, ref: EntityRef) -> tuple[Entity, ...]:
        """The resource and all its ancestors."""
        key = ref.type, ref.id
        known = self._resources.get(key)
        if known is None:
            known = self._closure([ref]) if key in self.entities else (self._open(ref),)
            _remember(self._resources, key, known)
        return known

    def _open(self, ref: EntityRef) -> Entity:
        kind = self.types.get(ref.type)
        if kind is None or kind.closed or not ref.id.startswith(kind.prefix):
            raise Refused("entity_missing", _uid(ref))
        return Entity(type=ref.type, id=ref.id, attributes={}, parents=[])

    def _closure(self, refs: Iterable[EntityRef]) -> tuple[Entity, ...]:
        found: dict[tuple[str, str], Entity] = {}
        waiting = list(refs)
        while waiting:
            ref = waiting.pop()
            key = ref.type, ref.id
            if key in found:
                continue
            entity = self.entities.get(key)
            if entity is None:
                raise Refused("entity_missing", _uid(ref))
            found[key] = entity
            waiting.extend(entity.parents)
        return tuple(found.values())


_INDEXES: Final[dict[str, _Index]] = {}


def prepare(intent: Intent, identity: Identity, openings: Iterable[Opening], law: Law, attested: Attested) -> EngineRequest:
    """What the engine is asked about ``intent``, if its inputs are complete.

    Args:
        intent: verified by the caller, and of the law's domain.
        identity: the document of its subject, verified by the caller.
        openings: of the intent's committed parameters that are not sealed.
        law: the active law of the domain.
        attested: the governor's facts, as they will be recorded.

    Raises:
        Refused: ``action_unknown``, ``params_mismatch``, ``seal_mismatch``, ``opening_mismatch``, ``attribute_mismatch``,
            ``entity_missing``.
        Unavailable: ``engine_unavailable`` if the bundle of the law is not held here.
    """
    index = _index(law)
    action = index.actions.get(intent.action)
    if action is None:
        raise Refused("action_unknown", f"{index.bundle.domain}/{intent.action}"[:100])
    params = _params(action, intent, openings)
    if intent.resource.type != action.resource:
        raise Refused("entity_missing", f"{intent.action} acts on {action.resource}, not on {intent.resource.type}"[:160])
    return EngineRequest(
        principal=EntityRef(type=PRINCIPAL_TYPE, id=identity.subject),
        action=action.ref,
        resource=intent.resource,
        asserted=Asserted(params=params, measurements=intent.measurements, purpose=intent.purpose),
        attested=attested,
        slice=index.slice(identity, intent.resource),
    )


def conclude(request: EngineRequest, verdict: Verdict, intent: Intent, law: Law, *, profile: str) -> Decision:
    """The decision that ``verdict`` on ``request`` makes.

    Raises:
        Unavailable: ``engine_unavailable`` if the verdict is none this bundle can give.
    """
    index = _index(law)
    end = index.end(verdict, law.manifest.terms(intent.action).assurance, intent.assurance_min)
    needs = index.lacking(verdict, request.attested.approvals) if end.effect == "permit" else []
    return Decision(
        effect="deny" if needs else end.effect,
        determining=end.determining,
        errors=end.errors,
        obligations=[] if needs else end.obligations,
        assurance=end.assurance,
        needs=needs,
        profile=profile,
        bundle=law.manifest.digest,
        input=input_digest(request, profile=profile, bundle=law.manifest.digest, public=intent.params, committed=intent.committed),
    )


def _index(law: Law) -> _Index:
    bundle = law.bundle
    if bundle is None:
        raise Unavailable("engine_unavailable", f"no bundle of {law.manifest.domain} epoch {law.manifest.epoch}")
    index = _INDEXES.get(law.manifest.digest)
    if index is None or index.bundle is not bundle:  # the digest finds it, identity proves it
        index = _Index(bundle)
        _remember(_INDEXES, law.manifest.digest, index, most=_INDEXES_MAX)
    return index


def _params(action: _Action, intent: Intent, openings: Iterable[Opening]) -> Params:
    committed = {name: commitment for name, commitment in intent.committed.items() if name not in intent.sealed}
    _check_declared(intent.params, action, "public")
    _check_declared(committed, action, "committed")
    _check_declared(intent.sealed, action, "sealed")
    for name, seals in intent.sealed.items():
        if name not in intent.committed:
            raise Refused("params_mismatch", f"{name} is sealed and commits to nothing")
        if [(seal.auditor, seal.key) for seal in seals] != action.sealed[name]:
            wanted = ", ".join(f"{auditor} {key[:12]}…" for auditor, key in action.sealed[name])
            raise Refused("seal_mismatch", f"{name} must be sealed for {wanted}"[:200])
    values = open_all(intent.params, committed, openings)
    for name, value in values.items():
        declared = action.public.get(name) or action.committed[name]
        if not _is(declared, value):
            raise Refused("params_mismatch", f"{name} must be {declared}")
    return values


def _check_declared(given: Mapping[str, object], action: _Action, privacy: str) -> None:
    for name in given:
        declared = action.privacy.get(name)
        if declared != privacy:
            why = "is not declared" if declared is None else f"must not be {privacy}"
            raise Refused("params_mismatch", f"{name} {why}")
    if not action.required[privacy] <= given.keys():
        missing = min(action.required[privacy] - given.keys())
        raise Refused("params_mismatch", f"{missing} is missing")


def _attributes(declared: dict[str, str], attributes: Params) -> Params:
    shown: Params = {}
    for name, kind in declared.items():
        value = attributes.get(name)
        if value is None:
            continue
        if not _is(kind, value):  # withholding it instead could silence a forbid
            raise Refused("attribute_mismatch", f"{name} must be {kind}")
        shown[name] = value
    return shown


def _is(declared: str, value: Value) -> bool:
    scalar = _SCALARS.get(declared)
    if scalar is not None:
        return type(value) is scalar  # not isinstance: a bool is an int there
    item = _SCALARS[declared[:-1]]
    return isinstance(value, list) and all(type(one) is item for one in value)


def _assurance(word: str) -> Assurance:
    for level in ASSURANCES:
        if level == word:
            return level
    raise Unavailable("engine_unavailable", f"no assurance is called {word[:40]!r}")  # admission refuses such bundles


def _uid(ref: EntityRef) -> str:
    return f'{ref.type}::"{ref.id}"'[:160]


def _obligations(annotation: str) -> tuple[str, ...]:
    return tuple(name for part in annotation.split(",") if (name := part.strip()))


def _remember(cache: dict[K, V], key: K, value: V, *, most: int = _SLICES_MAX) -> None:
    while len(cache) >= most:  # oldest first: whoever floods it with names of an open type only costs lookups
        cache.pop(next(iter(cache)), None)
    cache[key] = value
