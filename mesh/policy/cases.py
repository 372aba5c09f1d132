"""A policy's cases, asked of the real engine through the same code that decides: a case that passes here passes on a node.

Rules
-----
1. A case names its effect and *exactly* the policies that determined it: a permit by the wrong policy is a failure.
2. Parameters that the action declares committed are committed, so their openings are exercised too; those that it declares sealed are
   sealed, in boxes of nothing, since nobody who decides opens one.
3. A case that is refused before the engine (a missing parameter, an unknown group) fails, and says the code.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mesh.core.bytes import canonical
from mesh.core.law.governance import Law
from mesh.core.law.policy import Bundle, Case, Manifest, Terms, bundle_digest
from mesh.core.run.decision import Attested, Verdict
from mesh.core.run.identity import EnforcerClass, Identity
from mesh.core.run.intent import Audience, Intent
from mesh.core.run.params import Opening, commit
from mesh.core.run.sealed import Seal
from mesh.errors import MeshError, Refused, Unavailable
from mesh.protocol import decide

__all__ = ["Outcome", "require_cases", "run_cases"]

_MESH: Final = "cases"
_KEY: Final = "00" * 32


class Outcome(msgspec.Struct, frozen=True):
    """How one case went."""

    name: str
    ok: bool
    said: str
    """What was decided, as the case would be written; or the code of a refusal."""
    us: float
    """Microseconds the decision took."""


def run_cases(bundle: Bundle, actions: Mapping[str, Terms], engine: decide.Engine, *, clock_ns: Callable[[], int]) -> list[Outcome]:
    """Every case of ``bundle``, which ``engine`` must hold."""
    law = _law(bundle, actions)
    return [_run(case, law, engine, clock_ns) for case in bundle.cases]


def require_cases(bundle: Bundle, actions: Mapping[str, Terms], engine: decide.Engine) -> None:
    """That every case gives what it must: the last check before a node admits a bundle.

    Raises:
        Refused: ``policy_tests_failed``.
    """
    for outcome in run_cases(bundle, actions, engine, clock_ns=lambda: 0):
        if not outcome.ok:
            raise Refused("policy_tests_failed", f"{outcome.name}: {outcome.said}"[:300])


def _run(case: Case, law: Law, engine: decide.Engine, clock_ns: Callable[[], int]) -> Outcome:
    start = clock_ns()
    try:
        intent, openings = _intent(case, law)
        request = decide.prepare(intent, _identity(case), openings, law, _attested(case))
        verdict: Verdict | None = engine.evaluate(law.manifest.digest, [request])[0]
        if verdict is None:
            raise Unavailable("engine_unavailable", "no answer: do the entities have the attributes that the schema requires?")
        decision = decide.conclude(request, verdict, intent, law, profile=engine.profile)
    except MeshError as error:
        return Outcome(case.name, False, f"{error.code}: {error.detail}", (clock_ns() - start) / 1000)
    us = (clock_ns() - start) / 1000
    said = f"{decision.effect} by {', '.join(decision.determining) or 'no policy'}"
    if decision.errors:
        said += f" with errors ({', '.join(decision.errors)})"
    if decision.needs:
        said += f", for want of {', '.join(decision.needs)}"
    ok = decision.effect == case.effect and decision.determining == sorted(case.determining) and not decision.errors
    if not ok:
        said += f"; expected {case.effect} by {', '.join(sorted(case.determining)) or 'no policy'}"
    return Outcome(case.name, ok, said, us)


def _law(bundle: Bundle, actions: Mapping[str, Terms]) -> Law:
    manifest = Manifest(
        mesh=_MESH,
        domain=bundle.domain,
        epoch=1,
        previous="",
        since="",
        digest=bundle_digest(canonical.encode(bundle)),
        actions=dict(actions),
        enforcers=[],
        not_before_ms=0,
        expires_ms=0,
        reason="",
        issued_ms=0,
    )
    return Law(manifest=manifest, manifest_id=_KEY, bundle=bundle)


def _intent(case: Case, law: Law) -> tuple[Intent, list[Opening]]:
    bundle = law.bundle
    declared = {param.name: param for param in bundle.action(case.action).params} if bundle is not None else {}
    hidden = {name: param for name, param in declared.items() if param.privacy != "public" and name in case.params}
    keys = {auditor.name: auditor.key for auditor in bundle.auditors} if bundle is not None else {}
    openings = [Opening(name=name, salt="00" * 16, value=case.params[name]) for name in hidden]
    intent = Intent(
        mesh=_MESH,
        domain=law.manifest.domain,
        subject=case.principal.id,
        holder=_KEY,
        identity=_KEY,
        action=case.action,
        resource=case.resource,
        params={name: value for name, value in case.params.items() if name not in hidden},
        committed={opening.name: commit(opening) for opening in openings},
        sealed={
            name: [Seal(auditor=auditor, key=keys.get(auditor, _KEY), box=_KEY) for auditor in param.auditors]
            for name, param in hidden.items()
            if param.privacy == "sealed"
        },
        measurements=[],
        purpose=case.purpose,
        audience=Audience(enforcer=_KEY, boot=_KEY),
        assurance_min="observe",
        within=[],
        after=[],
        nonce="00" * 16,
        created_ms=case.now_s * 1000,
        expires_ms=case.now_s * 1000,
    )
    return intent, [opening for opening in openings if opening.name not in intent.sealed]


def _identity(case: Case) -> Identity:
    return Identity(
        mesh=_MESH,
        subject=case.principal.id,
        key=_KEY,
        role="workload",
        enforcer_class="",
        person=case.person,
        groups=case.groups,
        attributes=case.attributes,
        not_before_ms=0,
        expires_ms=0,
    )


def _attested(case: Case) -> Attested:
    return Attested(
        now_s=case.now_s,
        region="cases",
        policy_epoch=1,
        manifest=_KEY,
        activation="",
        frontier=_KEY,
        enforcer_class=msgspec.convert(case.enforcer_class, type=EnforcerClass),
        person=case.person,
        approvals=case.approvals,
        breakglass=case.breakglass,
        delegation_depth=case.delegation_depth,
        root=case.root,
    )
