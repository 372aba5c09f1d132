"""One procedure turns an intent into the question for the policy engine, for whoever asks: governor, attester, auditor.

Steps, in this order; the first failure is the answer:

1. the intent is signed by its holder, in this mesh
2. its identity document is the one it names, issued by an issuer, for this subject and key, valid at the time
3. the enforcer's document likewise, and its key is the intent's audience
4. the intent is alive at the time
5. the domain has a policy in force, which lists the enforcer and declares the action; the assurance can be given
6. every approval and grant that came with it holds, for this effect and time
7. every execution that it names as its parent is shown by its papers, and whoever asks may ask within it
8. parameters, openings and entities are those that the policy declares

Time and frontier are the *record's*, so a replay asks exactly the same question.

Not here: freshness, load, halts and revocations that came later, which need no justification afterwards
(:mod:`mesh.protocol.intake` asks :func:`check_open` and :func:`check_chain` before it decides).
"""

from collections.abc import Iterable, Sequence

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Draft, Statement
from mesh.core.law.governance import Basis, Governance, Law
from mesh.core.run.approval import Backing, weigh
from mesh.core.run.authorization import authorization_of
from mesh.core.run.decision import Attested, Decision, EngineRequest
from mesh.core.run.identity import Identity, check_identity
from mesh.core.run.intent import ASSURANCES, Intent, check_intent_times, strongest
from mesh.core.run.kin import Family, Parent, trace
from mesh.core.run.params import Opening
from mesh.errors import Refused
from mesh.protocol import decide
from mesh.protocol.documents import Documents

__all__ = ["Authenticated", "Question", "authenticate", "authorization_draft", "check_chain", "check_open", "question"]


class Authenticated(msgspec.Struct, frozen=True):
    """An intent whose sender is known."""

    intent: Statement[Intent]
    identity: Statement[Identity]


class Question(msgspec.Struct, frozen=True):
    """An intent with everything that decides it."""

    intent: Statement[Intent]
    identity: Statement[Identity]
    enforcer: Statement[Identity]
    law: Law
    attested: Attested
    request: EngineRequest
    backing: Backing
    family: Family


def authenticate(intent: bytes, identity: bytes, governance: Governance, documents: Documents, *, former: bool = False) -> Authenticated:
    """Steps 1 and the timeless part of 2: who sent this; ``former`` if it was sent once, under whichever roster that is held.

    Raises:
        Refused: the codec's codes, ``wrong_mesh``, ``unauthenticated``, ``identity_unknown``, ``identity_mismatch``.
    """
    statement = envelope.read(Intent, intent)
    claims = statement.claims
    if claims.mesh != governance.roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    document = documents.admit_former(identity, governance) if former else documents.admit(identity, governance)
    if document.id != claims.identity or document.claims.subject != claims.subject or document.claims.key != claims.holder:
        raise Refused("identity_mismatch", claims.subject)
    if not statement.sealed_by((claims.holder,)):
        raise Refused("unauthenticated", claims.subject)
    return Authenticated(statement, document)


def question(  # noqa: PLR0913 -- all that decides
    sender: Authenticated,
    enforcer: bytes,
    openings: Iterable[Opening],
    governance: Governance,
    documents: Documents,
    *,
    region: str,
    at_ms: int,
    frontier: str,
    basis: Basis | None = None,
    approvals: Sequence[bytes] = (),
    parents: Sequence[Parent] = (),
) -> Question:
    """Steps 2 to 8: the one question that this intent puts to policy at ``at_ms`` in ``region``, in the state ``frontier``.

    With ``basis``, it is asked again of what was decided on that basis; without, by all that is held now.

    Raises:
        Refused: the first step's code that fails.
    """
    intent, identity = sender.intent.claims, sender.identity.claims
    check_identity(identity, role="workload", subject=intent.subject, key=intent.holder, now_ms=at_ms)
    place = documents.admit(enforcer, governance)
    check_identity(place.claims, role="enforcer", subject=None, key=intent.audience.enforcer, now_ms=at_ms)
    check_intent_times(intent, now_ms=at_ms, skew_ms=governance.roster.bounds.skew_ms)
    law = governance.active(intent.domain, region, at_ms, basis)
    if place.claims.subject not in law.manifest.enforcers:
        raise Refused("audience_unknown", place.claims.subject)
    # The manifest's floor too: an authorization that no enforcer may honour must not look like a permit.
    wanted = strongest(law.manifest.terms(intent.action).assurance, intent.assurance_min)
    if ASSURANCES.index(wanted) > ASSURANCES.index("local"):
        raise Refused("assurance_unavailable", wanted)
    backing = weigh(approvals, intent, governance.roster, at_ms=at_ms)
    family = trace(parents, sender.intent, governance.rosters, epoch=governance.roster.epoch, at_ms=at_ms)
    attested = Attested(
        now_s=at_ms // 1000,
        region=region,
        policy_epoch=law.manifest.epoch,
        manifest=law.manifest_id,
        activation=governance.latest_activation(intent.domain) if basis is None else basis.activation,
        frontier=frontier,
        enforcer_class=place.claims.enforcer_class,
        person=identity.person,
        approvals=dict(backing.approvals),
        breakglass=backing.breakglass,
        delegation_depth=len(family.ancestors),
        root=family.ancestors[-1].subject if family.ancestors else intent.subject,
    )
    request = decide.prepare(intent, identity, openings, law, attested)
    return Question(sender.intent, sender.identity, place, law, attested, request, backing, family)


def check_open(sender: Authenticated, governance: Governance, *, at_ms: int) -> None:
    """That the intent's domain is not shut now. Asked before all else, so no policy, or lack of one, has a say in it.

    Raises:
        Refused: ``halted``, ``policy_conflict``; ``intent_too_long`` or ``intent_expired`` for an intent that is not alive, which
            anybody may send again.
    """
    intent = sender.intent.claims
    try:
        governance.check_open(intent.domain)
    except Refused:
        check_intent_times(intent, now_ms=at_ms, skew_ms=governance.roster.bounds.skew_ms)
        raise


def check_chain(asked: Question, governance: Governance, *, me: str) -> None:
    """That nothing this intent rests on is revoked now, nor the member ``me`` that would authorize it; nor is a parent's domain shut.

    Nor is that member caught, or one that authorized a parent.

    Raises:
        Refused: ``revoked``, ``halted``, ``policy_conflict``, ``member_frozen``.
    """
    for domain in asked.family.domains:
        governance.check_open(domain)
    mine = governance.roster.member(me).decision_key
    governance.check_unfrozen((mine, *(key for one in asked.family.kin for key in one.authorization.signatures)))
    if not governance.revocations:
        return
    governance.check_issued(asked.identity, asked.enforcer)
    intent, place = asked.intent.claims, asked.enforcer
    governance.check_unrevoked(
        ("key", intent.holder),
        ("subject", intent.subject),
        ("document", intent.identity),
        ("intent", asked.intent.id),
        ("key", place.claims.key),
        ("subject", place.claims.subject),
        ("document", place.id),
        *(("key", key) for document in (asked.identity, place) for key in document.signatures),
        *(("digest", item.digest) for item in intent.measurements),
        ("digest", asked.law.manifest.digest),
        ("governor", me),
        *asked.backing.chain,
        *asked.family.chain,
    )


def authorization_draft(
    asked: Question, decision: Decision, governance: Governance, *, issuer: str, place: tuple[str, int], at_ms: int
) -> Draft:
    """The authorization that a permitting decision stands for, recorded at ``at_ms`` at ``place`` (origin, index), to be signed."""
    intent = asked.intent.claims
    return envelope.draft(
        authorization_of(
            asked.intent,
            asked.identity.claims,
            decision,
            asked.attested,
            asked.law.manifest.terms(intent.action),
            issuer=issuer,
            place=place,
            at_ms=at_ms,
            roster_epoch=governance.roster.epoch,
            approvals=asked.backing.ids,
            ancestors=list(asked.family.ancestors),
        )
    )
