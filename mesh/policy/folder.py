"""A policy folder as typed values, or everything that is wrong with it at once.

``domain.toml``::

    domain = "payments"
    floor = "local"                                  # no action here is decided more weakly
    enforcers = ["spiffe://dev/enforcer/gate"]       # whom authorizations may name as audience

    [principal]                                      # what policy may read of an identity document
    clearance = "int"

    [entities.Account]                               # resource types are closed: what is not listed does not exist
    open = true                                      # … unless they say so
    prefix = "acct:"

    [actions.send]
    resource = "Account"
    assurance = "quorum"                             # at least; permits may ask for more with @assurance
    authorization_ms = 30_000
    lease_ms = 10_000

    [actions.send.params]
    to = "string"                                    # bool, int, string, bools, ints, strings
    memo = { type = "string", privacy = "committed", required = false }
    payee = { type = "string", privacy = "sealed", auditors = ["finance"] }   # no governor sees it, and no policy reads it

    [auditors]                                       # for whom parameters are sealed: `mesh key gen FILE --use auditor-seal`
    finance = "3b6a27bc…"

Cases say who approved and whether the glass is broken: ``approvals = { security = 2 }``, ``breakglass = true``; and for whom
it runs: ``delegation_depth = 1``, ``root = "spiffe://…"`` (else the principal itself).

Not here: Cedar (:mod:`mesh.policy.build`), what cases mean (:mod:`mesh.policy.cases`).
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from mesh.adapters.cedar_child import Source
from mesh.adapters.cedar_lint import Finding, near
from mesh.adapters.cedar_text import gate_schema
from mesh.adapters.configfile import parse_toml
from mesh.core.bytes.canonical import Count, KeyHex, Millis, Name, Params, Spiffe, Text, Token
from mesh.core.law.policy import ActionSpec, Attribute, Auditor, Case, EntityType, ParamSpec, Terms
from mesh.core.law.scope import PRINCIPAL_TYPE
from mesh.core.run.decision import Effect, Entity
from mesh.core.run.identity import EnforcerClass
from mesh.core.run.intent import Assurance, EntityRef, strongest
from mesh.errors import Refused
from mesh.limits import APPROVALS_MAX, BUNDLE_BYTES_MAX

__all__ = ["Folder", "PolicyRefused", "load_folder"]

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
NOW_S: Final = 1_767_225_600
"""What cases that do not care take for the time: 2026-01-01."""
_UID: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)::("(?:[^"\\\x00-\x1f]|\\["\\])*")')
_ParamType = Literal["bool", "int", "string", "bools", "ints", "strings"]


class PolicyRefused(Refused):
    """A folder or bundle that will not do, with everything that is wrong with it."""

    def __init__(self, findings: list[Finding]) -> None:
        count = f"{len(findings)} findings, the first: " if len(findings) > 1 else ""
        super().__init__(findings[0].code, f"{count}{findings[0].where}: {findings[0].what}")
        self.findings = tuple(findings)


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a policy folder."""

    domain: str
    enforcers: list[str]
    principal: list[Attribute]
    types: list[EntityType]
    schema: str
    auditors: list[Auditor]
    actions: list[ActionSpec]
    terms: dict[str, Terms]
    """Per action, the domain's floor included, the permits' ``@assurance`` and ``@approval`` not yet."""
    sources: list[Source]
    entities: list[Entity]
    cases: list[Case]


class _Param(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: _ParamType
    privacy: Literal["public", "committed", "sealed"] = "public"
    required: bool = True
    auditors: list[Token] = []


class _Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    resource: Name
    assurance: Assurance = "observe"
    authorization_ms: Millis = 30_000
    lease_ms: Millis = 10_000
    params: dict[Name, _ParamType | _Param] = {}


class _Type(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    open: bool = False
    prefix: Text = ""


class _Domain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    domain: Token
    floor: Assurance = "local"
    enforcers: list[Spiffe]
    principal: dict[Name, _ParamType] = {}
    entities: dict[Name, _Type] = {}
    auditors: dict[Token, KeyHex] = {}
    actions: dict[Name, _Action]


class _Entity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    uid: EntityRef
    attrs: Params = {}
    parents: list[EntityRef] = []


class _Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Text
    action: Name
    principal: Spiffe
    groups: list[Text] = []
    attributes: Params = {}
    resource: str
    params: Params = {}
    purpose: Text = ""
    enforcer_class: EnforcerClass = "gateway"
    person: Text = ""
    approvals: Annotated[dict[Token, Count], msgspec.Meta(max_length=APPROVALS_MAX)] = {}
    breakglass: bool = False
    delegation_depth: Count = 0
    root: Text = ""
    now_s: Count = NOW_S
    expect: Effect
    by: list[Text]


def load_folder(path: Path) -> Folder:
    """Read the folder at ``path``.

    Raises:
        PolicyRefused: with every finding of every file; nothing of Cedar is parsed here.
    """
    found: list[Finding] = []
    if not path.is_dir():
        raise PolicyRefused([Finding("policy_invalid", str(path), "no such folder")])
    domain = _caught(found, "domain.toml", lambda: parse_toml(_Domain, _text(path / "domain.toml"), name="domain.toml"))
    schema = _caught(found, "schema.cedarschema", lambda: _text(path / "schema.cedarschema"))
    types = _caught(found, "schema.cedarschema", lambda: gate_schema(schema or "", "schema.cedarschema")) or []
    sources = list(_sources(path, found))
    if not sources:
        found.append(Finding("policy_invalid", str(path), "no *.cedar file: everything would be denied"))
    entities = list(_entities(path / "entities.json", found))
    cases = [case for file in sorted(path.glob("tests/*.toml")) for case in _cases(file, found)]
    if domain is not None:
        found += _unknown_types(domain, types)
    if domain is None or schema is None or found:
        raise PolicyRefused(found)
    return Folder(
        domain=domain.domain,
        enforcers=sorted(set(domain.enforcers)),
        principal=[Attribute(name=name, type=kind) for name, kind in sorted(domain.principal.items())],
        types=[_type(name, domain.entities.get(name, _Type())) for name in sorted(set(types))],
        schema=schema,
        auditors=[Auditor(name=name, key=key) for name, key in sorted(domain.auditors.items())],
        actions=[_action(name, action) for name, action in sorted(domain.actions.items())],
        terms={name: _terms(domain, action) for name, action in domain.actions.items()},
        sources=sources,
        entities=sorted(entities, key=lambda entity: (entity.type, entity.id)),
        cases=cases,
    )


def _caught(found: list[Finding], where: str, read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Refused as refusal:
        code = "policy_invalid" if refusal.code == "config_invalid" else refusal.code
        found += [Finding(code, where, what) for what in refusal.detail.removeprefix(f"{where}: ").split("; ")]
        return None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(BUNDLE_BYTES_MAX + 1)
        if len(data) > BUNDLE_BYTES_MAX:
            raise Refused("too_large", f"more than {BUNDLE_BYTES_MAX} bytes")
        return data.decode()
    except OSError as error:
        raise Refused("policy_invalid", error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise Refused("policy_invalid", "not UTF-8") from None


def _sources(path: Path, found: list[Finding]) -> Iterator[Source]:
    for file in sorted(path.glob("*.cedar")):
        text = _caught(found, file.name, partial(_text, file))
        if text is not None:
            yield Source(file.name, text)


def _unknown_types(domain: _Domain, types: list[str]) -> Iterator[Finding]:
    for name in domain.entities:
        if name not in types:
            yield Finding("policy_invalid", "domain.toml", f"entities.{name}: schema.cedarschema has no such type{near(name, types)}")
    for name, action in domain.actions.items():
        if action.resource not in types:
            what = f"actions.{name}.resource: schema.cedarschema has no type {action.resource!r}{near(action.resource, types)}"
            yield Finding("policy_invalid", "domain.toml", what)


def _type(name: str, declared: _Type) -> EntityType:
    return EntityType(name=name, closed=not declared.open, prefix=declared.prefix)


def _action(name: str, action: _Action) -> ActionSpec:
    declared = {key: _Param(type=value) if isinstance(value, str) else value for key, value in action.params.items()}
    params = [
        ParamSpec(name=key, type=one.type, privacy=one.privacy, required=one.required, auditors=sorted(one.auditors))
        for key, one in sorted(declared.items())
    ]
    return ActionSpec(name=name, resource=action.resource, params=params)


def _terms(domain: _Domain, action: _Action) -> Terms:
    floor = strongest(domain.floor, action.assurance)
    return Terms(assurance=floor, authorization_ms=action.authorization_ms, lease_ms=action.lease_ms, approvals={})


def _entities(path: Path, found: list[Finding]) -> Iterator[Entity]:
    text = _caught(found, path.name, lambda: _text(path))
    if text is None:
        return
    try:
        listed = msgspec.json.decode(text, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, RecursionError) as error:
        found.append(Finding("policy_invalid", path.name, str(error)[:200]))
        return
    for number, one in enumerate(listed, start=1):
        read = _convert(one, _Entity, path.name, f"entity {number}", found)
        if read is not None:
            yield Entity(type=read.uid.type, id=read.uid.id, attributes=read.attrs, parents=read.parents)


class _CaseFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    case: list[dict[str, Any]]


def _cases(path: Path, found: list[Finding]) -> Iterator[Case]:
    where = f"tests/{path.name}"
    file = _caught(found, where, lambda: parse_toml(_CaseFile, _text(path), name=where))
    for number, one in enumerate(file.case if file is not None else [], start=1):
        title = f"case {one.get('name', number)!r}"
        read = _convert(one, _Case, where, title, found)
        if read is None:
            continue
        uid = _UID.fullmatch(read.resource)
        if uid is None:
            found.append(Finding("policy_invalid", where, f'{title}: resource is written Type::"id", not {read.resource[:80]!r}'))
            continue
        yield Case(
            name=read.name,
            action=read.action,
            principal=EntityRef(type=PRINCIPAL_TYPE, id=read.principal),
            groups=read.groups,
            attributes=read.attributes,
            resource=EntityRef(type=uid[1], id=json.loads(uid[2])),
            params=read.params,
            purpose=read.purpose,
            enforcer_class=read.enforcer_class,
            person=read.person,
            approvals=read.approvals,
            breakglass=read.breakglass,
            delegation_depth=read.delegation_depth,
            root=read.root or read.principal,
            now_s=read.now_s,
            effect=read.expect,
            determining=sorted(read.by),
        )


def _convert(value: dict[str, Any], kind: type[S], where: str, title: str, found: list[Finding]) -> S | None:
    names = [field.name for field in msgspec.structs.fields(kind)]
    unknown = [key for key in value if key not in names]
    found += [Finding("policy_invalid", where, f"{title}: unknown key {key}{near(key, names)}") for key in unknown]
    if unknown:
        return None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        found.append(Finding("policy_invalid", where, f"{title}: {error}"))
        return None
