"""Whether an execution may begin here and now: every condition must hold, and the first that does not names the reason.

The order of :func:`admit`
--------------------------
 1. roster and keys: everything can be read; roster epoch, issuer and both identity documents are of this roster
 2. signatures: the issuer's, and those of as many distinct members as the authorization's own assurance says
 3. possession: the holder key of the identity document answered this enforcer's challenge, for this intent
 4. mesh, domain, audience: this enforcer's key, class and boot; the domain lists it; the policy in force is the one decided by
 5. assurance: as many members as the strongest of manifest, intent and authorization demands; ``observe`` never authorizes
 6. digests: what will actually run is what intent and authorization say, and it is recorded in its issuer's own log; the approvals
    and grants beside it are those that it rests on, each holds for this effect, and they are what every permit demands; the line of
    its ancestors begins with the parent that the intent names
 7. times: not before, not after; the manifest's and the intent's own limits hold whatever a governor wrote
 8. fresh: the clock agrees with its peers, k members vouch for this view
 9. frontier: this view is at least as new as the one the authorization was made in
10. revoked, halted, frozen: no key, subject, document, intent, authorization, approval or digest of the chain is revoked, nor what a
    revocation may name of any ancestor, nor a parent that it comes after; no domain of them is halted, and no signer of it is caught
11. obligations: each is understood here

Then the shell spends the intent durably and asks :func:`recheck` (the epoch of 1, and 4, 7, 8, 10 again): a wait for a disk is
time in which a revocation, a halt or another roster may have come. While it runs, :func:`watch` says when it must end.

The intent's own signature is not checked again: the holder's answer in step 3 names the intent's id, which is a hash over
all that it says. Not here: spending (:mod:`mesh.adapters.spent`), outcomes (:mod:`mesh.protocol.outcomechain`), running.
"""

from typing import Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Params
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance, Law
from mesh.core.law.heartbeat import Heartbeat, StreamHead, covers, frontier_digest
from mesh.core.law.roster import Roster
from mesh.core.run.approval import Backing, Demand, unmet, weigh
from mesh.core.run.authorization import Authorization, Possession, Receipt, RecordRef
from mesh.core.run.identity import Identity, check_identity
from mesh.core.run.intent import ASSURANCES, Assurance, EntityRef, Intent, Measurement, strongest
from mesh.core.run.outcome import CHECKS, Check, Started
from mesh.core.run.params import Opening, commit, params_digest
from mesh.errors import Refused
from mesh.protocol.adoption import check_view
from mesh.protocol.documents import Documents
from mesh.protocol.freshness import Freshness, hear

__all__ = ["Actual", "Grant", "Place", "Presented", "Running", "View", "admit", "check_receipt", "recheck", "take_heartbeat", "watch"]

_AT_ONCE: Final = frozenset({"revoked", "halted", "member_frozen", "policy_conflict", "identity_expired", "identity_mismatch"})
"""What ends running work at once; anything else is uncertainty, which the lease gives time to clear up."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """This enforcer in this boot."""

    document: Statement[Identity]
    """Its own identity document; its key is the audience of authorizations."""
    boot: str
    """32 random bytes in hex, drawn at the start."""
    obligations: frozenset[str]
    """Those that are understood here."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the mesh at one moment."""

    governance: Governance
    fresh: Freshness
    now_ms: int
    """Steady time."""
    wall_ms: int
    """What the wall clock says, to be compared with peers."""


class Presented(msgspec.Struct, frozen=True, kw_only=True):
    """What stands for the right to run; nothing in it is believed yet."""

    authorization: bytes
    frontier: tuple[StreamHead, ...]
    """The frontier whose digest the authorization names."""
    intent: bytes
    identity: bytes
    possession: bytes
    approvals: tuple[bytes, ...] = ()
    """Envelopes of approvals and break-glass grants."""


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """What will actually run, measured and taken apart by the enforcer itself."""

    domain: str
    action: str
    resource: EntityRef
    params: Params
    """Public ones."""
    openings: tuple[Opening, ...]
    """Committed ones."""
    measurements: tuple[Measurement, ...]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Everything was checked; spend, ask :func:`recheck`, run."""

    authorization: Statement[Authorization]
    intent: Statement[Intent]
    identity: Statement[Identity]
    signers: tuple[str, ...]
    """Decision keys whose signatures were counted."""
    expires_ms: int
    lease_ms: int
    heartbeats: tuple[str, ...]
    """Statement ids of the heartbeats that made the view fresh, at the last check."""
    backing: Backing
    """Approvals and grants: whoever spends the intent uses each of them once."""

    def started(self, spend: int) -> Started:
        """The event that says so, ``spend`` being the spent store's count."""
        return Started(checks=[Check(name=name, passed=True) for name in CHECKS], heartbeats=list(self.heartbeats), spend=spend)


class Running(msgspec.Struct, frozen=True):
    """Work under a lease."""

    grant: Grant
    uncertain_ms: int = -1
    """Since when the right to go on cannot be shown; -1 while it can."""


def admit(presented: Presented, actual: Actual, *, challenge: str, place: Place, view: View, documents: Documents) -> Grant:
    """Check everything that must hold before ``actual`` may run on the word of ``presented``.

    Args:
        presented: from whoever wants to run.
        actual: what would run.
        challenge: the fresh random nonce (32 bytes, hex) that the presenter had to sign.
        place: this enforcer.
        view: what it knows now.
        documents: memo of verified identity documents.

    Raises:
        Refused: the code of the first step that fails.
    """
    governance = view.governance
    authorization = envelope.read(Authorization, presented.authorization)  # (1)
    intent = envelope.read(Intent, presented.intent)
    claims = authorization.claims
    _check_epoch(claims, governance)
    issuer = governance.roster.member(claims.issuer)
    identity = documents.admit(presented.identity, governance)
    documents.admit(place.document.envelope, governance)
    authorization.verify(issuer.decision_key)  # (2)
    signers = _signers(authorization, issuer.decision_key, governance)
    if len(signers) < _demanded(claims.assurance, governance.roster):
        raise Refused("threshold_not_met", f"{len(signers)} members signed for {claims.assurance}")
    _check_possession(presented.possession, authorization, identity, place, challenge)  # (3)
    law = _check_place(claims, actual.domain, place, view)  # (4)
    terms = law.manifest.terms(claims.action)
    _check_assurance(strongest(terms.assurance, intent.claims.assurance_min, claims.assurance), len(signers), governance.roster)  # (5)
    _check_intent(authorization, intent)  # (6)
    _check_actual(claims, actual)
    if claims.origin != governance.roster.origin(issuer):
        raise Refused("unrecorded", f"recorded in {claims.origin}, which is not {issuer.name}'s log")
    backing = weigh(presented.approvals, intent.claims, governance.roster, at_ms=view.now_ms)
    if backing.ids != claims.approvals:
        raise Refused("digest_mismatch", "the approvals beside it are not those that it rests on")
    missing = unmet([Demand(least, group) for group, least in terms.approvals.items()], backing.approvals)
    if missing:
        raise Refused("approval_needed", f"every permit of {claims.action} demands {', '.join(missing)}")
    grant = Grant(
        authorization=authorization,
        intent=intent,
        identity=identity,
        signers=signers,
        expires_ms=min(claims.expires_ms, claims.not_before_ms + terms.authorization_ms, intent.claims.expires_ms),
        lease_ms=min(claims.lease_ms, terms.lease_ms),
        heartbeats=(),
        backing=backing,
    )
    _check_times(grant, place, view)  # (7)
    heartbeats = _check_fresh(view)  # (8)
    _check_frontier(claims, presented.frontier, governance)  # (9)
    _check_allowed(grant, place, governance, begins=True)  # (10)
    unknown = sorted(set(claims.obligations) - place.obligations)  # (11)
    if unknown:
        raise Refused("obligation_unknown", unknown[0][:80])
    return msgspec.structs.replace(grant, heartbeats=heartbeats)


def recheck(grant: Grant, *, place: Place, view: View) -> Grant:
    """What can change while a disk is waited for, again; the grant with the heartbeats that vouch now.

    Raises:
        Refused: as the steps 1, 4, 7, 8 and 10 of :func:`admit`.
    """
    _check_epoch(grant.authorization.claims, view.governance)  # it may have gone over meanwhile
    _check_place(grant.authorization.claims, grant.authorization.claims.domain, place, view)
    _check_times(grant, place, view)
    heartbeats = _check_fresh(view)
    _check_allowed(grant, place, view.governance, begins=True)
    return msgspec.structs.replace(grant, heartbeats=heartbeats)


def watch(running: Running, *, place: Place, view: View) -> Running:
    """The same work, if it may go on. The authorization's own end does not matter any more: that is for starting.

    Revocation, a halt, a conflict of policy signers and a governor that is caught end it at once. What merely cannot be shown
    (freshness, the clock, a policy in force) has the lease less one heartbeat interval, in which the watcher may look late, to come back.

    Raises:
        Refused: why it must end.
    """
    grant = running.grant
    try:
        _check_allowed(grant, place, view.governance, begins=False)
        _check_documents(grant, place, view.now_ms)
        claims = grant.authorization.claims
        view.governance.active(claims.domain, view.governance.roster.member(claims.issuer).region, view.now_ms)
        _check_fresh(view)
    except Refused as refusal:
        since_ms = running.uncertain_ms if running.uncertain_ms >= 0 else view.now_ms
        if refusal.code in _AT_ONCE or view.now_ms - since_ms >= grant.lease_ms - view.governance.roster.bounds.heartbeat_ms:
            raise
        return Running(grant, since_ms)
    return Running(grant)


def take_heartbeat(fresh: Freshness, data: bytes, roster: Roster, *, now_ms: int) -> Freshness:
    """The view after a heartbeat as it came from the bus.

    Raises:
        Refused: the codec's codes, ``wrong_mesh``, ``unknown_member``, ``bad_signature``.
    """
    statement = envelope.read(Heartbeat, data)
    if statement.claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", statement.claims.mesh)
    beat = statement.verify(roster.member(statement.claims.member).decision_key)
    return hear(fresh, beat, statement.id, now_ms=now_ms, bounds=roster.bounds)


def check_receipt(data: bytes, statement: str, governance: Governance) -> RecordRef:
    """Where the statement of that id stands, on the word of a member about its own log.

    Raises:
        Refused: the codec's codes, ``unknown_member``, ``bad_signature``; ``member_frozen``, for nothing in that log becomes final any
            more; ``unrecorded`` when the receipt is for something else.
    """
    receipt, roster = envelope.read(Receipt, data), governance.roster
    member = roster.member(receipt.claims.issuer)
    governance.check_unfrozen((member.decision_key,))
    claims = receipt.verify(member.decision_key)
    if (claims.mesh, claims.statement, claims.record.origin) != (roster.mesh, statement, roster.origin(member)):
        raise Refused("unrecorded", "the receipt is for something else")
    return claims.record


def _signers(authorization: Statement[Authorization], issuer: str, governance: Governance) -> tuple[str, ...]:
    found = [issuer]  # verified by the caller
    for key in authorization.signatures:
        if len(found) == governance.roster.k:
            break  # more say no more, and each costs a verification
        if key != issuer and key in governance.keys and not governance.caught(governance.keys[key]) and authorization.signed_by(key):
            found.append(key)
    return tuple(found)


def _demanded(assurance: Assurance, roster: Roster) -> int:
    return roster.k if ASSURANCES.index(assurance) >= ASSURANCES.index("quorum") else 1


def _check_epoch(claims: Authorization, governance: Governance) -> None:
    """What was authorized under another roster is asked for again: a name may stand for somebody else there."""
    if claims.roster_epoch != governance.roster.epoch:
        raise Refused("wrong_epoch", f"roster epoch {claims.roster_epoch}, in force is {governance.roster.epoch}")


def _check_possession(
    data: bytes, authorization: Statement[Authorization], identity: Statement[Identity], place: Place, challenge: str
) -> None:
    claims, document = authorization.claims, identity.claims
    if (identity.id, document.role, document.subject, document.key) != (claims.identity, "workload", claims.subject, claims.holder):
        raise Refused("identity_mismatch", document.subject)
    answer = envelope.read(Possession, data)
    asked = Possession(mesh=claims.mesh, intent=claims.intent, enforcer=place.document.claims.key, challenge=challenge)
    if answer.claims != asked or not answer.signed_by(claims.holder):
        raise Refused("possession", claims.subject)


def _check_place(claims: Authorization, domain: str, place: Place, view: View) -> Law:
    governance, own = view.governance, place.document.claims
    if claims.mesh != governance.roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.domain != domain:
        raise Refused("domain_mismatch", f"for {claims.domain}, asked in {domain}")
    # The issuer's clock may be ahead of mine by ε, and an epoch may begin in between: then the later one decides.
    at_ms = min(max(view.now_ms, claims.not_before_ms), view.now_ms + governance.roster.bounds.skew_ms)
    law = governance.active(domain, governance.roster.member(claims.issuer).region, at_ms)
    if own.subject not in law.manifest.enforcers:
        raise Refused("audience_unknown", own.subject)
    if (claims.policy_epoch, claims.bundle) != (law.manifest.epoch, law.manifest.digest):
        raise Refused("wrong_epoch", f"{domain} epoch {claims.policy_epoch}, in force is {law.manifest.epoch}")
    if (claims.audience.enforcer, claims.audience.boot, claims.enforcer_class) != (own.key, place.boot, own.enforcer_class):
        raise Refused("audience", f"for enforcer {claims.audience.enforcer[:8]}…, boot {claims.audience.boot[:8]}…")
    return law


def _check_assurance(required: Assurance, signed: int, roster: Roster) -> None:
    # `final` also needs a certificate, which no governor hands out with an authorization so far: it is never reached.
    reached: Assurance = "quorum" if signed >= roster.k else "local"
    if required == "observe" or ASSURANCES.index(required) > ASSURANCES.index(reached):
        raise Refused("assurance_too_low", f"{required} is demanded, {signed} of {roster.k} members signed")


def _check_intent(authorization: Statement[Authorization], intent: Statement[Intent]) -> None:
    claims, asked = authorization.claims, intent.claims
    authorized = (
        claims.intent, claims.mesh, claims.domain, claims.subject, claims.holder, claims.identity, claims.action, claims.resource,
        claims.params, claims.measurements, claims.audience,
    )  # fmt: skip
    wanted = (
        intent.id, asked.mesh, asked.domain, asked.subject, asked.holder, asked.identity, asked.action, asked.resource,
        params_digest(asked.params, asked.committed), asked.measurements, asked.audience,
    )  # fmt: skip
    if authorized != wanted:
        raise Refused("digest_mismatch", "the authorization is not for this intent")
    if [one.authorization for one in claims.ancestors[:1]] != asked.within:
        raise Refused("digest_mismatch", "its ancestors do not begin with the parent that the intent names")


def _check_actual(claims: Authorization, actual: Actual) -> None:
    committed = {opening.name: commit(opening) for opening in actual.openings}
    if len(committed) != len(actual.openings) or committed.keys() & actual.params.keys():
        raise Refused("digest_mismatch", "one parameter twice")
    for name, authorized, present in (
        ("action", claims.action, actual.action),
        ("resource", claims.resource, actual.resource),
        ("parameters", claims.params, params_digest(actual.params, committed)),
        ("measurements", tuple(claims.measurements), actual.measurements),
    ):
        if authorized != present:
            raise Refused("digest_mismatch", f"other {name}")


def _check_times(grant: Grant, place: Place, view: View) -> None:
    now_ms, claims = view.now_ms, grant.authorization.claims
    if claims.not_before_ms > now_ms + view.governance.roster.bounds.skew_ms:
        raise Refused("not_yet_valid", f"begins {claims.not_before_ms}, now {now_ms}")
    if now_ms >= grant.expires_ms:
        raise Refused("expired", f"ended {grant.expires_ms}, now {now_ms}")
    grant.backing.check_times(now_ms=now_ms, skew_ms=view.governance.roster.bounds.skew_ms)
    _check_documents(grant, place, now_ms)


def _check_documents(grant: Grant, place: Place, now_ms: int) -> None:
    claims, own = grant.authorization.claims, place.document.claims
    check_identity(grant.identity.claims, role="workload", subject=claims.subject, key=claims.holder, now_ms=now_ms)
    check_identity(own, role="enforcer", subject=None, key=own.key, now_ms=now_ms)


def _check_fresh(view: View) -> tuple[str, ...]:
    vouchers = check_view(view.governance, view.fresh, wall_ms=view.wall_ms, now_ms=view.now_ms)
    return tuple(vouchers[member] for member in sorted(vouchers))


def _check_frontier(claims: Authorization, frontier: tuple[StreamHead, ...], governance: Governance) -> None:
    if frontier == governance.frontier and claims.frontier == governance.digest:
        return  # the quiet mesh: nothing to hash
    theirs = list(frontier)
    if frontier_digest(theirs) != claims.frontier:
        raise Refused("frontier_behind", "the frontier beside it is not the one it names")
    if not covers(list(governance.frontier), theirs, governance.whole):
        raise Refused("frontier_behind", "the governor knew more")


def _check_allowed(grant: Grant, place: Place, governance: Governance, *, begins: bool) -> None:
    claims, own = grant.authorization.claims, place.document
    for domain in (claims.domain, *(one.domain for one in claims.ancestors)):
        governance.check_open(domain)
    governance.check_unfrozen(grant.signers)
    if not governance.revocations:
        return
    governance.check_issued(grant.identity, own)
    issuers = [key for document in (grant.identity, own) for key in document.signatures]
    governance.check_unrevoked(
        ("key", claims.holder),
        ("subject", claims.subject),
        ("document", claims.identity),
        ("intent", claims.intent),
        ("authorization", grant.authorization.id),
        ("ancestor", grant.authorization.id),
        *(link for one in claims.ancestors for link in one.links(begins=begins)),
        *(("ancestor", item.authorization) for item in grant.intent.claims.after),
        *(("authorization", item.authorization) for item in grant.intent.claims.after if begins),
        ("key", own.claims.key),
        ("subject", own.claims.subject),
        ("document", own.id),
        *(("key", key) for key in (*grant.signers, *issuers)),
        *(("governor", governance.keys[key].name) for key in grant.signers if key in governance.keys),
        *(("digest", item.digest) for item in claims.measurements),
        ("digest", claims.bundle),
        *grant.backing.chain,
    )
