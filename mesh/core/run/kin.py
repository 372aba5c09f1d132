"""Executions have parents: one *within* which they run, and some *after* which they come; each is shown by its own papers.

The papers of a parent are its authorization, as it was issued, and what its enforcer signed of it: that it has started, or that it has
finished. They travel with the intent and stand whole in the record, so whoever holds the record judges them again, and nothing beside.

The order of :func:`trace`
--------------------------
1. the papers are those of the executions that the intent names, in its order, each once and nothing besides
2. the authorization is of this mesh, signed by its issuer and as many members as its assurance demands, of a roster that has been in
   force here, and by nobody else
3. its enforcer, and nobody else, signed the outcome, in the boot for which it was authorized, and of this very execution
4. within: it started while it might, and not longer ago than anything is remembered; after: it finished, with the result that the
   intent quotes
5. within: whoever holds the parent's key asks, or has countersigned this very intent
6. no deeper than :data:`~mesh.limits.ANCESTORS_MAX`

A parent lends no rights: what runs within it is decided by itself. But policy, and whoever reads the record, may believe that it runs
for its root: so nobody else may say so. A circle cannot be: the name of an authorization is a hash over the names of its ancestors.

Not here: whether one of them is revoked or halted (:mod:`mesh.protocol.examine`), whether it is known to be over
(:mod:`mesh.protocol.intake`).
"""

from collections.abc import Sequence
from typing import Annotated, Final, NoReturn

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload, sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import verify
from mesh.core.law.succession import Rosters
from mesh.core.run.authorization import Ancestor, Authorization
from mesh.core.run.intent import ASSURANCES, Intent
from mesh.core.run.outcome import Finished, Outcome, Started
from mesh.errors import Refused
from mesh.limits import ANCESTORS_MAX, PARENT_AGE_MS_MAX, PARENTS_BYTES_MAX

__all__ = ["ALONE", "Family", "Kin", "Parent", "below", "read_parent", "trace"]


class Parent(Payload):
    """The papers of one execution."""

    authorization: msgspec.Raw
    """Envelope of its authorization, as it was issued."""
    outcome: msgspec.Raw
    """Envelope of what its enforcer signed: ``started`` of one that runs, ``finished`` of one that is over."""
    countersignature: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{128})?$(?!\\n)", max_length=128)]
    """The parent's holder on the intent of a part that somebody else holds, over the same bytes as that one's own signature, lowercase
    hex. Empty where the holders are the same, and for what is over."""

    @property
    def named(self) -> tuple[str, str]:
        """Statement ids of authorization and outcome, of which nothing is believed."""
        return envelope.identify(bytes(self.authorization))[1], envelope.identify(bytes(self.outcome))[1]


class Kin(msgspec.Struct, frozen=True):
    """One parent, believed."""

    authorization: Statement[Authorization]
    outcome: Statement[Outcome]

    @property
    def chain(self) -> tuple[tuple[str, str], ...]:
        """What a revocation may name of it, of who vouches for it, and of its own ancestors."""
        claims, said = self.authorization.claims, self.outcome.claims
        line = (Ancestor.of(self.authorization), *claims.ancestors)
        return (
            *(link for one in line for link in one.links(begins=True)),
            *(("key", key) for key in self.authorization.signatures),
            ("key", said.enforcer),
            ("document", said.identity),
            *(("document", name) for name in claims.approvals),
            *(("digest", item.digest) for item in claims.measurements),
            ("digest", claims.bundle),
        )


class Family(msgspec.Struct, frozen=True):
    """All parents of one intent."""

    papers: tuple[Parent, ...] = ()
    """As they stand in the record."""
    kin: tuple[Kin, ...] = ()
    ancestors: tuple[Ancestor, ...] = ()
    """Within what it runs: the parent first, the root last."""

    @property
    def chain(self) -> tuple[tuple[str, str], ...]:
        """What a revocation may name."""
        return tuple(link for one in self.kin for link in one.chain)

    @property
    def parent(self) -> Kin | None:
        """That within which it runs."""
        return self.kin[0] if self.ancestors else None

    @property
    def domains(self) -> tuple[str, ...]:
        """Of everything within which it runs."""
        return tuple(dict.fromkeys(one.domain for one in self.ancestors))

    @property
    def told(self) -> str:
        """In words."""
        within = [f"within {len(self.ancestors)}, begun by {self.ancestors[-1].subject}"] if self.ancestors else []
        after = len(self.kin) - len(within)
        return ", ".join([*within, *([f"after {after}"] if after else [])])


ALONE: Final = Family()
"""No parents."""


def below(authorization: str) -> str:
    """Under which id the decisions of all that names this execution as its parent are found; a statement never has it."""
    return sha256_hex(b"below " + authorization.encode())


def read_parent(data: bytes) -> Parent:
    """A file of papers, as ``mesh run --papers`` writes it; nothing in it is believed.

    Raises:
        Refused: the codec's codes.
    """
    paper = canonical.decode(Parent, data, bytes_max=PARENTS_BYTES_MAX)
    envelope.read(Authorization, bytes(paper.authorization))
    envelope.read(Outcome, bytes(paper.outcome))
    return paper


def trace(papers: Sequence[Parent], intent: Statement[Intent], rosters: Rosters, *, epoch: int, at_ms: int) -> Family:
    """What the papers of ``intent``'s parents are worth at that time: a pure function, the same on every node.

    Args:
        papers: as they came.
        intent: verified by the caller, with its signature.
        rosters: all that are held.
        epoch: of the roster under which is decided.
        at_ms: when.

    Raises:
        Refused: the codec's codes; in the order above ``too_large``, ``parent_unknown``, ``wrong_mesh``, ``wrong_epoch``,
            ``unknown_member``, ``bad_signature``, ``threshold_not_met``, ``parent_mismatch``, ``parent_over``, ``parent_unfinished``,
            ``parent_foreign``, ``too_deep``.
    """
    claims = intent.claims
    named = [*claims.within, *(item.authorization for item in claims.after)]
    if not named and not papers:
        return ALONE
    if sum(len(bytes(item.authorization)) + len(bytes(item.outcome)) for item in papers) > PARENTS_BYTES_MAX:
        raise Refused("too_large", f"at most {PARENTS_BYTES_MAX} bytes of papers of parents")
    kin = [Kin(envelope.read(Authorization, bytes(item.authorization)), envelope.read(Outcome, bytes(item.outcome))) for item in papers]
    if [item.authorization.id for item in kin] != named:  # (1)
        raise Refused("parent_unknown", f"{len(named)} executions are named, and the papers are not theirs")
    if len(set(named)) != len(named):
        raise Refused("parent_mismatch", "one execution is named twice")
    skew_ms = rosters.of(epoch).bounds.skew_ms
    for item in kin:
        _check_issued(item.authorization, claims, rosters, epoch)
        _check_said(item)
    ancestors = tuple[Ancestor, ...]()
    if claims.within:
        parent, paper = kin[0], papers[0]
        _check_running(parent, at_ms=at_ms, skew_ms=skew_ms)
        _check_entitled(paper, parent.authorization.claims.holder, intent)
        ancestors = (Ancestor.of(parent.authorization), *parent.authorization.claims.ancestors)
        if len(ancestors) > ANCESTORS_MAX:  # (6)
            raise Refused("too_deep", f"within {len(ancestors)} executions, at most {ANCESTORS_MAX}")
    for item, paper, quoted in zip(kin[len(claims.within) :], papers[len(claims.within) :], claims.after, strict=True):
        if not isinstance(item.outcome.claims.event, Finished) or item.outcome.id != quoted.outcome:
            raise Refused("parent_unfinished", f"{item.authorization.id[:12]} has not finished with {quoted.outcome[:12]}")
        if paper.countersignature:
            _mismatch(item, "what is over needs no countersignature")
    return Family(tuple(papers), tuple(kin), ancestors)


def _check_issued(authorization: Statement[Authorization], child: Intent, rosters: Rosters, epoch: int) -> None:  # (2)
    claims = authorization.claims
    if claims.mesh != child.mesh:
        raise Refused("wrong_mesh", f"a parent of {claims.mesh}")
    if claims.roster_epoch > epoch:
        raise Refused("wrong_epoch", f"a parent of roster epoch {claims.roster_epoch}, in force is {epoch}")
    then = rosters.of(claims.roster_epoch)
    keys = {member.decision_key for member in then.members}
    if not authorization.sealed_by(keys):
        raise Refused("bad_signature", f"parent {authorization.id[:12]} is not signed by members, or also by somebody who is none")
    authorization.verify(then.member(claims.issuer).decision_key)
    needed = then.k if ASSURANCES.index(claims.assurance) >= ASSURANCES.index("quorum") else 1
    authorization.verify_threshold(keys, needed)


def _check_said(item: Kin) -> None:  # (3)
    claims, said = item.authorization.claims, item.outcome.claims
    if not item.outcome.sealed_by((claims.audience.enforcer,)):
        raise Refused("bad_signature", f"of parent {item.authorization.id[:12]} its enforcer has said nothing")
    about = (said.mesh, said.domain, said.intent, said.authorization, said.enforcer, said.boot)
    if about != (claims.mesh, claims.domain, claims.intent, item.authorization.id, claims.audience.enforcer, claims.audience.boot):
        _mismatch(item, "the outcome is of another execution")


def _check_running(item: Kin, *, at_ms: int, skew_ms: int) -> None:  # (4)
    claims, said = item.authorization.claims, item.outcome.claims
    if not isinstance(said.event, Started):
        raise Refused("parent_over", f"{item.authorization.id[:12]} is not running")
    if not claims.not_before_ms - skew_ms <= said.at_ms < claims.expires_ms + skew_ms or said.at_ms > at_ms + skew_ms:
        raise Refused("parent_over", f"{item.authorization.id[:12]} says that it started at {said.at_ms}, when it must not have")
    if at_ms - said.at_ms > PARENT_AGE_MS_MAX:
        raise Refused("parent_over", f"{item.authorization.id[:12]} started {at_ms - said.at_ms} ms ago, at most {PARENT_AGE_MS_MAX}")


def _check_entitled(paper: Parent, holder: str, intent: Statement[Intent]) -> None:  # (5)
    if holder == intent.claims.holder:
        if paper.countersignature:
            raise Refused("parent_mismatch", "who holds both needs no countersignature")
        return
    if not paper.countersignature or not verify(bytes.fromhex(holder), intent.message, bytes.fromhex(paper.countersignature)):
        raise Refused("parent_foreign", f"{intent.claims.subject} neither holds the parent's key nor has its holder's countersignature")


def _mismatch(item: Kin, what: str) -> NoReturn:
    raise Refused("parent_mismatch", f"{item.authorization.id[:12]}: {what}")
