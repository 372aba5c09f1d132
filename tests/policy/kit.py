"""A small domain to decide in, made in this process from policy text that is known to be harmless."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from mesh.adapters.cedar import PROFILE, CedarEngine, convert
from mesh.adapters.decision_thread import DecisionThread
from mesh.core.bytes import canonical
from mesh.core.law.governance import Law
from mesh.core.law.policy import ActionSpec, Attribute, Bundle, EntityType, Manifest, ParamSpec, PolicyJson, Terms, bundle_digest
from mesh.core.run.decision import Attested, Decision, EngineRequest, Entity, Verdict
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Assurance, Audience, EntityRef, Intent
from mesh.core.run.params import Opening, commit
from mesh.protocol import decide

__all__ = [
    "BILLING",
    "FORBID",
    "PERMIT",
    "attested",
    "bundle",
    "conclude",
    "entity",
    "identity",
    "intent",
    "law",
    "opening",
    "policies",
    "prepare",
    "ready",
    "rule",
]

BILLING = "spiffe://dev/agent/billing"
PERMIT = '@id("may") permit (principal, action, resource);'
FORBID = '@id("never") forbid (principal, action, resource);'
KEY = "11" * 32


def policies(text: str) -> list[PolicyJson]:
    """Policies from text."""
    found, findings = convert("kit", text)
    assert not findings, findings
    return found


def rule(name: str, effect: str, condition: str, **annotations: str) -> str:
    """One policy about any payment."""
    notes = "".join(f'@{key}("{value}") ' for key, value in annotations.items())
    return f'@id("{name}") {notes}{effect} (principal, action == Action::"pay/send", resource) when {{ {condition} }};\n'


def entity(kind: str, name: str, *parents: EntityRef, **attributes: Any) -> Entity:
    return Entity(type=kind, id=name, attributes=attributes, parents=list(parents))


def bundle(text: str = PERMIT, **changes: Any) -> Bundle:
    """A domain ``pay`` with the actions ``send`` and ``audit``."""
    made = Bundle(
        domain="pay",
        profile=PROFILE,
        schema="entity List;\nentity Account in [List] { country?: String };\nentity Vault { level: Long };\n",
        policies=policies(text),
        principal=[Attribute(name="limit", type="int"), Attribute(name="teams", type="strings")],
        types=[
            EntityType(name="Account", closed=False, prefix="acct:"),
            EntityType(name="List", closed=True, prefix=""),
            EntityType(name="Vault", closed=True, prefix=""),
        ],
        entities=[
            entity("Group", "staff"),
            entity("Group", "payers", EntityRef(type="Group", id="staff")),
            entity("List", "approved"),
            entity("Account", "acct:acme", EntityRef(type="List", id="approved"), country="NL"),
            entity("Vault", "main", level=3),
        ],
        auditors=[],
        actions=[
            ActionSpec(
                name="send",
                resource="Account",
                params=[
                    ParamSpec(name="cents", type="int", privacy="public", required=True, auditors=[]),
                    ParamSpec(name="memo", type="string", privacy="committed", required=False, auditors=[]),
                    ParamSpec(name="pin", type="string", privacy="committed", required=False, auditors=[]),
                    ParamSpec(name="tags", type="strings", privacy="public", required=False, auditors=[]),
                    ParamSpec(name="urgent", type="bool", privacy="public", required=False, auditors=[]),
                ],
            ),
            ActionSpec(
                name="audit",
                resource="Vault",
                params=[ParamSpec(name="why", type="string", privacy="committed", required=True, auditors=[])],
            ),
        ],
        cases=[],
    )
    return msgspec.structs.replace(made, **changes)


def law(made: Bundle, *, floor: Assurance = "local", digest: str = "") -> Law:
    manifest = Manifest(
        mesh="dev",
        domain=made.domain,
        epoch=1,
        previous="",
        since="",
        digest=digest or bundle_digest(canonical.encode(made)),
        actions={action.name: Terms(assurance=floor, authorization_ms=30_000, lease_ms=10_000, approvals={}) for action in made.actions},
        enforcers=[],
        not_before_ms=0,
        expires_ms=0,
        reason="",
        issued_ms=0,
    )
    return Law(manifest=manifest, manifest_id=KEY, bundle=made)


def intent(params: Mapping[str, Any] | None = None, **changes: Any) -> Intent:
    made = Intent(
        mesh="dev",
        domain="pay",
        subject=BILLING,
        holder=KEY,
        identity=KEY,
        action="send",
        resource=EntityRef(type="Account", id="acct:acme"),
        params=dict(params if params is not None else {"cents": 100}),
        committed={},
        sealed={},
        measurements=[],
        purpose="",
        audience=Audience(enforcer=KEY, boot=KEY),
        assurance_min="observe",
        within=[],
        after=[],
        nonce="22" * 16,
        created_ms=1_767_225_600_000,
        expires_ms=1_767_225_630_000,
    )
    return msgspec.structs.replace(made, **changes)


def opening(name: str, value: Any) -> tuple[Opening, dict[str, str]]:
    """An opening, and what the intent says instead."""
    made = Opening(name=name, salt="33" * 16, value=value)
    return made, {name: commit(made)}


def identity(**changes: Any) -> Identity:
    made = Identity(
        mesh="dev",
        subject=BILLING,
        key=KEY,
        role="workload",
        enforcer_class="",
        person="",
        groups=["payers"],
        attributes={},
        not_before_ms=0,
        expires_ms=1_800_000_000_000,
    )
    return msgspec.structs.replace(made, **changes)


def attested(**changes: Any) -> Attested:
    made = Attested(
        now_s=1_767_225_600, region="eu", policy_epoch=1, manifest=KEY, activation="", frontier=KEY, enforcer_class="gateway", person="",
        approvals={}, breakglass=False, delegation_depth=0, root=BILLING,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def prepare(asked: Intent, under: Law, *openings: Opening, who: Identity | None = None, facts: Attested | None = None) -> EngineRequest:
    return decide.prepare(asked, who or identity(), openings, under, facts or attested())


def conclude(asked: Intent, under: Law, verdict: Verdict, *openings: Opening, **kwargs: Any) -> Decision:
    return decide.conclude(prepare(asked, under, *openings, **kwargs), verdict, asked, under, profile=PROFILE)


@contextmanager
def ready(*bundles: Bundle) -> Iterator[CedarEngine]:
    """A real engine that holds these bundles."""
    thread = DecisionThread()
    try:
        engine = CedarEngine(thread)
        for made in bundles:
            engine.load(made, law(made).manifest.digest)
        yield engine
    finally:
        thread.close()
