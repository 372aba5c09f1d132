"""The roster says who the nodes are and what counts as enough; an unsound one cannot be built or read.

One number, k, decides everything: final, decided, fresh and acknowledged each mean *k distinct members*. A roster is sound
only if ``2k > n + f`` (any two such sets share an honest member) and ``k <= n - f`` (f silent liars stop nobody).

An *operator* owns members. It countersigns every roster that says something new about them, so nobody is named an owner who did not
agree, and ``mesh trust`` can count owners instead of keys.

Not here: the chain from one epoch to the next (:mod:`mesh.core.law.succession`), what owners could do together
(:mod:`mesh.core.law.collusion`).
"""

from collections.abc import Container
from typing import Annotated, Final, NamedTuple

import msgspec

from mesh.core.bytes.canonical import Count, KeyHex, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, kind_of, statement
from mesh.core.bytes.keys import admit_key
from mesh.core.law.reign import BaseName, Handover, MaybeId
from mesh.core.log.checkpoint import attest_name, log_origin, witness_name
from mesh.errors import Refused
from mesh.limits import ACTIVATIONS_MAX, FRONTIER_STREAMS_MAX, MEMBERS_MAX, STREAM_STATEMENTS_MAX

__all__ = [
    "ROSTERS",
    "Assent",
    "Bounds",
    "Member",
    "Operator",
    "Role",
    "Roster",
    "admit_roster",
    "assents",
    "check_assents",
    "check_sealed",
    "frauds_max",
]

ROSTERS: Final = "roster"
"""The stream of the mesh's rosters."""


class Role(Payload):
    """Keys of people or services, and how many of them must sign."""

    keys: Annotated[list[KeyHex], msgspec.Meta(max_length=MEMBERS_MAX)]
    threshold: Count

    def check_sealed(self, said: Statement[Payload]) -> None:
        """That enough of these keys signed, and nobody else: what is kept and handed on carries no line that cannot be checked.

        Raises:
            Refused: ``bad_signature``, ``threshold_not_met``.
        """
        name = kind_of(type(said.claims)).name
        if not said.sealed_by(self.keys):
            raise Refused("bad_signature", f"{name} is not signed by its role, or also by somebody who is none of it")
        if len(said.signatures) < self.threshold:  # each is valid, and no two are by one key
            raise Refused("threshold_not_met", f"{name} has {len(said.signatures)} of {self.threshold}")


class Member(Payload):
    """One governor: a key for each thing it says, so that no signature can be taken for another."""

    name: Token
    region: Token
    operator: Token
    """Who owns it, by the roster's name for them."""
    log_epoch: Count
    log_key: KeyHex
    """Signs checkpoints of its own log, nothing else."""
    witness_key: KeyHex
    """C2SP cosignatures: this log only grew."""
    attest_key: KeyHex
    """I hold every record and would have decided so."""
    decision_key: KeyHex
    """Authorizations, denials, receipts, refusals, heartbeats, answers to a start."""


class Operator(Payload):
    """An owner of members: whoever it is could make all of them lie."""

    key: KeyHex
    """Countersigns rosters, and nothing else."""
    jurisdiction: Token
    """Whose courts can order it about, such as ``de``; in its own words."""


class Bounds(Payload):
    """What is signed here so that nobody can stretch it locally; times in ms."""

    heartbeat_ms: Millis
    stale_ms: Millis
    """Δ: a heartbeat older than this vouches for nothing."""
    skew_ms: Millis
    """ε: the largest clock difference of two honest nodes."""
    certify_ms: Millis
    """A log has a new checkpoint at most this often."""
    attest_stall_ms: Millis
    """An attestation that is missing for longer is reported."""
    revocations_max: Count
    """How much a revoker key may say until a roster hands its stream over, and twice as much if it forks: what a stolen one can deny."""
    backlog_max: Count
    """Records of a governor's own log that are not final, beyond which it decides nothing."""


@statement("roster")
class Roster(Payload):
    """Signed by the root threshold of itself (and, after genesis, of its predecessor)."""

    mesh: Token
    epoch: Count
    previous: MaybeId
    """Statement id of the former epoch; empty at genesis."""
    not_before_ms: Millis
    """Nobody acts under it earlier, and nobody who holds it acts under the former one any more from then on."""
    members: Annotated[list[Member], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    operators: Annotated[dict[Token, Operator], msgspec.Meta(max_length=MEMBERS_MAX)]
    """Who owns members, and nobody else, by name."""
    f: Count
    k: Count
    root: Role
    issuers: Role
    """Each key alone may issue identity documents."""
    revoker: Role
    policy: Annotated[dict[Token, Role], msgspec.Meta(max_length=MEMBERS_MAX)]
    """Domain to the people who sign its policy."""
    approvers: Annotated[dict[Token, Role], msgspec.Meta(max_length=MEMBERS_MAX)]
    """Group to the people who approve single effects and grant exceptions; the threshold is the fewest that ever count."""
    handovers: Annotated[dict[BaseName, Handover], msgspec.Meta(max_length=FRONTIER_STREAMS_MAX)]
    """Stream whose signers are others than before, or that is to begin anew, to where the former word ends; none in a first roster."""
    bounds: Bounds
    reason: Reason
    """What changes and why, in the signers' words."""
    issued_ms: Millis

    def __post_init__(self) -> None:
        """Refuse what is unsound: ``roster_unsound``, ``bad_key``."""
        _check_quorum(len(self.members), self.f, self.k)
        _check_names(self)
        _check_operators(self)
        _check_roles(self)
        _check_bounds(self.bounds)
        _check_handovers(self)

    def member(self, name: str) -> Member:
        """The member of that name.

        Raises:
            Refused: ``unknown_member``.
        """
        for member in self.members:
            if member.name == name:
                return member
        raise Refused("unknown_member", name[:40])

    def origin(self, member: Member) -> str:
        """The name of that member's log."""
        return log_origin(self.mesh, member.name, member.log_epoch)

    def owner(self, origin: str) -> Member:
        """The member whose log is ``origin``.

        Raises:
            Refused: ``unknown_member``.
        """
        for member in self.members:
            if self.origin(member) == origin:
                return member
        raise Refused("unknown_member", origin[:80])

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return ROSTERS, self.epoch, self.previous

    @property
    def sequence(self) -> int:
        """Its number in the stream is its epoch."""
        return self.epoch

    @property
    def keys(self) -> frozenset[str]:
        """Every key that the roster names (hex)."""
        return frozenset(_all_keys(self))

    def attest_keys(self, *, without: Container[str] = ()) -> dict[str, str]:
        """Note key name to public key (hex) of every member's attest key, but of these members."""
        return {attest_name(self.mesh, member.name): member.attest_key for member in self.members if member.name not in without}

    def witness_keys(self, *, without: Container[str] = ()) -> dict[str, str]:
        """The same of every member's witness key."""
        return {witness_name(self.mesh, member.name): member.witness_key for member in self.members if member.name not in without}


def frauds_max(roster: Roster) -> int:
    """How many proofs against its members a frontier names: each of f liars may be caught with three keys; where f is 0, one may."""
    return 3 * max(roster.f, 1)


def admit_roster(statement: Statement[Roster], *, pin: str) -> Roster:
    """A roster to begin with, believed because its id is pinned and its own root threshold signed it; a first one by its operators, too.

    Args:
        statement: the roster as read.
        pin: the statement id that the operator trusts, lowercase hex.

    Raises:
        Refused: ``wrong_epoch`` if it is not the pinned one; ``threshold_not_met``, ``operator_unsigned``.
    """
    if statement.id != pin:
        raise Refused("wrong_epoch", f"pinned is {pin[:12]}…, this is {statement.id[:12]}…")
    check_assents(statement, None)
    return statement.claims


class Assent(NamedTuple):
    """Somebody without whose signature a roster is not believed."""

    who: str
    """``root of epoch 2``, ``operator acme``."""
    role: Role
    code: str
    """What a roster without it is refused with."""


def assents(after: Roster, now: Roster | None) -> list[Assent]:
    """Whose signatures ``after`` needs to follow ``now``; if that is not known, to be the first of all, or a later one that is pinned.

    The root thresholds of both. Every operator of whom it says something that ``now`` does not: that a member is its own, with such
    keys, in such a region; or where it is at home. And of an operator that takes another key the former one as well: nobody but itself
    speaks under a name that a roster has given it. Who lost its key comes back under another name, with new members. Of a later one
    that is pinned no operator is asked: each has signed the epoch that said something new of it, and whoever pins vouches for the rest.
    """
    roots = [] if now is None else [_root(now)]
    needed = [*roots, _root(after)]
    if now is None and after.previous:
        return needed
    before, owners = ({}, {}) if now is None else ({member.name: member for member in now.members}, now.operators)
    for name, owner in sorted(after.operators.items()):
        former = owners.get(name)
        if former != owner or any(before.get(member.name) != member for member in after.members if member.operator == name):
            needed.append(_owner(f"operator {name}", owner))
        if former is not None and former.key != owner.key:
            needed.append(_owner(f"operator {name} with its former key", former))
    return needed


def check_assents(statement: Statement[Roster], now: Roster | None) -> None:
    """That all have signed it whom it takes to follow ``now``, or to be the first.

    Raises:
        Refused: ``threshold_not_met`` for a root, ``operator_unsigned``.
    """
    for assent in assents(statement.claims, now):
        try:
            statement.verify_threshold(assent.role.keys, assent.role.threshold)
        except Refused as refusal:
            raise Refused(assent.code, f"{refusal.detail} of the {assent.who}") from None


def check_sealed(statement: Statement[Roster], now: Roster) -> None:
    """That nobody else has a line on it: what is kept and handed on carries none that cannot be checked.

    Raises:
        Refused: ``bad_signature``.
    """
    if not statement.sealed_by([key for one in (now, statement.claims) for key in _signers(one)]):
        raise Refused("bad_signature", "roster is signed also by somebody who is neither a root nor an operator, or not validly")


def _signers(roster: Roster) -> list[str]:
    return [*roster.root.keys, *(owner.key for owner in roster.operators.values())]


def _root(roster: Roster) -> Assent:
    return Assent(f"root of epoch {roster.epoch}", roster.root, "threshold_not_met")


def _owner(who: str, owner: Operator) -> Assent:
    return Assent(who, Role(keys=[owner.key], threshold=1), "operator_unsigned")


def _check_quorum(n: int, f: int, k: int) -> None:
    if not (2 * k > n + f and k <= n - f):
        raise Refused("roster_unsound", f"n={n} f={f} k={k}: 2k={2 * k} must exceed n+f={n + f}, and k must be at most n-f={n - f}")


def _check_names(roster: Roster) -> None:
    names = [member.name for member in roster.members]
    if len(set(names)) != len(names):
        raise Refused("roster_unsound", "two members have one name")
    if any(member.region in {"hb", "law", "sync", "ctl"} for member in roster.members):
        raise Refused("roster_unsound", "no region may be called hb, law, sync or ctl: those are subjects")


def _check_operators(roster: Roster) -> None:
    owners = {member.operator for member in roster.members}
    for name in owners ^ set(roster.operators):
        told = "owns a member and is not described" if name in owners else "owns no member"
        raise Refused("roster_unsound", f"operator {name} {told}")


def _all_keys(roster: Roster) -> list[str]:
    roles = [roster.root, roster.issuers, roster.revoker, *roster.policy.values(), *roster.approvers.values()]
    keys = [key for role in roles for key in role.keys] + [owner.key for owner in roster.operators.values()]
    for member in roster.members:
        keys += [member.log_key, member.witness_key, member.attest_key, member.decision_key]
    return keys


def _check_roles(roster: Roster) -> None:
    roles = [roster.root, roster.issuers, roster.revoker, *roster.policy.values(), *roster.approvers.values()]
    if any(not 1 <= role.threshold <= len(role.keys) for role in roles):
        raise Refused("roster_unsound", "a role's threshold is outside 1..number of its keys")
    streams = 3 + 3 * len(roster.policy) + len(roster.revoker.keys) + frauds_max(roster)
    if streams > FRONTIER_STREAMS_MAX:  # what nobody can say in a heartbeat nobody can be fresh in
        raise Refused(
            "roster_unsound",
            f"{streams} governance streams, at most {FRONTIER_STREAMS_MAX}: three per domain, one per revoker, three per liar",
        )
    keys = _all_keys(roster)
    if len(set(keys)) != len(keys):
        raise Refused("bad_key", "one key stands twice in the roster")
    for key in keys:
        admit_key(key)


def _check_bounds(bounds: Bounds) -> None:
    if not 1 <= bounds.revocations_max <= STREAM_STATEMENTS_MAX:
        raise Refused("roster_unsound", f"revocations_max is 1 to {STREAM_STATEMENTS_MAX}")
    if bounds.backlog_max < 1:
        raise Refused("roster_unsound", "backlog_max is at least 1: a decision is not final at once")
    if bounds.stale_ms <= 2 * bounds.skew_ms + bounds.heartbeat_ms or bounds.heartbeat_ms == 0 or bounds.certify_ms == 0:
        raise Refused("roster_unsound", "stale_ms must exceed 2·skew_ms + heartbeat_ms, or nothing would ever be fresh")


def _check_handovers(roster: Roster) -> None:
    if roster.epoch <= 1 and roster.handovers:
        raise Refused("roster_unsound", "the first roster takes nothing over from anybody")
    if ROSTERS in roster.handovers:
        raise Refused("roster_unsound", "the stream of the rosters goes by its own rule: nobody hands it over")
    for name, handover in roster.handovers.items():
        if handover.sequence >= (ACTIVATIONS_MAX if name.startswith("activate/") else STREAM_STATEMENTS_MAX):
            raise Refused("roster_unsound", f"behind number {handover.sequence} of {name[:40]} there is no room")
        if (handover.sequence == 0) != (handover.head == ""):
            raise Refused(
                "roster_unsound", f"{name[:40]} goes on behind number {handover.sequence}, which is {handover.head[:12] or 'nothing'}"
            )
