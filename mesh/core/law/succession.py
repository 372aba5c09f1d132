"""How one roster follows another: the next epoch, signed by both roots, and never so different that two quorums may miss each other.

The overlap rule
----------------
``k + k' − |old ∪ new| > max(f, f')``, where a changed member is a new one. ``k + k' − |old ∪ new|`` (or 0) is the fewest members that a
quorum of the old roster and one of the new share; no bound is better. So the rule holds **if and only if** every two such quorums share
a member who does not lie, for every set of liars that keeps *at least one* of the two bounds: at most f of the old members, or at most f'
of the new. Where both bounds are kept, ``min`` in place of ``max`` would do; the rule is stricter because a change is often made when one
of the two is in doubt.

One node is one liar, in both rosters: who lied under the old one and is honest under the new counts as a liar all along (mend it with new
keys). If other nodes may lie in each epoch, it would take ``f + f'``, which this does not promise.

Not here: when a node goes over to the next one (:mod:`mesh.protocol.adoption`). There is no joint phase: what the rule refuses can
be reached in several steps, each of which it allows.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import activate_stream
from mesh.core.law.erase import ERASURES
from mesh.core.law.halt import halt_stream
from mesh.core.law.policy import policy_stream
from mesh.core.law.reign import Handover, in_reign
from mesh.core.law.resolve import RESOLVES
from mesh.core.law.revocation import stream_of
from mesh.core.law.roster import Member, Roster, check_assents, check_sealed
from mesh.errors import Refused

__all__ = [
    "Overlap",
    "Reign",
    "Rosters",
    "admit_successor",
    "check_place",
    "check_step",
    "lacking_handovers",
    "overlap",
    "same_member",
    "voices",
]

T = TypeVar("T")


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the overlap rule for one step, all counts of members."""

    old: int
    """Only in the old roster."""
    both: int
    new: int
    """Only in the new roster."""
    k: tuple[int, int]
    """Of the old and of the new roster."""
    f: tuple[int, int]

    @property
    def union(self) -> int:
        """Members of either roster."""
        return self.old + self.both + self.new

    @property
    def shared(self) -> int:
        """What two quorums share at least; below zero, that many members keep them apart."""
        return sum(self.k) - self.union

    @property
    def safe(self) -> bool:
        """Whether any two quorums share more members than may lie."""
        return self.shared > max(self.f)

    def __str__(self) -> str:
        """The rule with its numbers."""
        sides = f"{self.k[0]} + {self.k[1]} - {self.union} = {self.shared}", f"max({self.f[0]}, {self.f[1]}) = {max(self.f)}"
        return f"k + k' - |old or new| = {sides[0]}, {'more' if self.safe else 'not more'} than max(f, f') = {sides[1]}"


class Reign(NamedTuple):
    """What follows from one handover."""

    since: str
    """Id of the roster that says so."""
    stream: str
    """The stream from then on."""
    former: str
    """The stream until then."""
    upto: Handover


class Rosters(msgspec.Struct, frozen=True):
    """All rosters that are held, each believed because of the one before it, down to the genesis that is pinned."""

    held: Mapping[str, Roster]
    """By statement id."""
    ids: tuple[str, ...]
    """Of the one history that counts: epoch n stands at n-1. Where a root has signed two successors, those before them."""

    @classmethod
    def begin(cls, genesis: Roster, genesis_id: str) -> "Rosters":
        """Only the genesis, which is believed."""
        return cls({genesis_id: genesis}, (genesis_id,))

    @property
    def newest(self) -> Roster:
        """The last of the chain. It may not be in force yet."""
        return self.held[self.ids[-1]]

    @property
    def chain(self) -> tuple[Roster, ...]:
        """Epoch after epoch, from the first on."""
        return tuple(self.held[identity] for identity in self.ids)

    def chain_with(self, roster: Roster) -> tuple[Roster, ...]:
        """The chain, and behind it that roster if it is none of it: where a root has signed two successors, one of them is in force."""
        return self.chain if roster in self.chain else (*self.chain, roster)

    @property
    def every(self) -> tuple[Roster, ...]:
        """All that are held: those of the chain first, the newest before the others."""
        aside = sorted((roster.epoch, identity) for identity, roster in self.held.items() if identity not in self.ids)
        return (*reversed(self.chain), *(self.held[identity] for _, identity in reversed(aside)))

    def of(self, epoch: int) -> Roster:
        """The roster of that epoch.

        Raises:
            Refused: ``wrong_epoch`` if it is not held.
        """
        if not 1 <= epoch <= len(self.ids):
            raise Refused("wrong_epoch", f"roster epoch {epoch}, held are 1 to {len(self.ids)}")
        return self.held[self.ids[epoch - 1]]

    def since(self, base: str, epoch: int | None = None) -> str:
        """Id of the roster that named the signers of that stream, as of ``epoch`` or the newest of the chain; empty for the first."""
        for identity in reversed(self.ids[:epoch]):
            if base in self.held[identity].handovers:
                return identity
        return ""

    def reigns(self) -> list[Reign]:
        """What the rosters that count hand over, in the order in which they do."""
        found, current = list[Reign](), dict[str, str]()
        for identity in self.ids:
            for base, upto in sorted(self.held[identity].handovers.items()):
                reign = Reign(identity, in_reign(base, identity), current.get(base, base), upto)
                current[base] = reign.stream
                found.append(reign)
        return found

    def appointed(self, base: str, since: str, sequence: int, previous: str) -> Roster:
        """The roster that named the signers who may say number ``sequence`` of that stream behind ``previous`` in that reign of it.

        Raises:
            Refused: ``wrong_epoch`` if it is not held; ``handed_over`` if that roster hands the stream over to nobody, or behind another
                statement.
        """
        roster = self.held.get(since or self.ids[0])
        if roster is None or (not since and roster.epoch != 1):
            raise Refused("wrong_epoch", f"{base[:40]} since {since[:12] or 'the first roster'}, which is not held")
        if not since:
            return roster
        upto = roster.handovers.get(base)
        if upto is None:
            raise Refused("handed_over", f"epoch {roster.epoch} hands {base[:40]} over to nobody")
        if sequence <= upto.sequence or (sequence == upto.sequence + 1 and previous != upto.head):
            behind = f"number {upto.sequence}, {upto.head[:12]}…" if upto.head else "nothing"
            raise Refused(
                "handed_over", f"{base[:40]} goes on behind {behind}; this is number {sequence}, behind {previous[:12] or 'nothing'}"
            )
        return roster

    def check_heeded(self, base: str, since: str, sequence: int, epoch: int) -> None:
        """That number ``sequence``, said under the signers named by ``since``, still counts under the roster of ``epoch``.

        Raises:
            Refused: ``handed_over`` if the stream went to other signers before that number; ``policy_unknown`` if their roster does not
                count, or not yet.
        """
        if since and since not in self.ids[:epoch]:
            raise Refused("policy_unknown", f"{base[:40]} since {since[:12]}…, which is no roster that counts under epoch {epoch}")
        start = self.ids.index(since) + 1 if since else 1
        for identity in self.ids[start:epoch]:
            upto = self.held[identity].handovers.get(base)
            if upto is not None and sequence > upto.sequence:
                later = self.held[identity].epoch
                raise Refused("handed_over", f"number {sequence} of {base[:40]}: from epoch {later} on that counts up to {upto.sequence}")

    def owner(self, origin: str) -> Member:
        """The member whose log is ``origin``, as the newest epoch that knows it says.

        Raises:
            Refused: ``unknown_member``.
        """
        return self.judged(lambda roster: roster.owner(origin), by=lambda roster: roster.members)

    def admit(self, statement: Statement[Roster]) -> "Rosters":
        """With one more, whose predecessor is held; which history counts is not said by that.

        Raises:
            Refused: ``wrong_epoch`` if the predecessor is not held, ``bad_signature`` for a line of somebody else; as
                :func:`admit_successor`.
        """
        before = self.held.get(statement.claims.previous)
        if before is None:
            raise Refused("wrong_epoch", f"it follows {statement.claims.previous[:12] or 'nothing'}…, which is not held")
        admit_successor(before, statement.claims.previous, statement)
        check_sealed(statement, before)
        self._check_logs(statement.claims)
        self._check_named(statement.claims)
        return Rosters({**self.held, statement.id: statement.claims}, self.ids)

    def _check_logs(self, after: Roster) -> None:
        """That no log comes back under another key: whoever holds its records could never attest it."""
        at = after.previous
        while at in self.held:
            check_logs(self.held[at], after)
            at = self.held[at].previous

    def _check_named(self, after: Roster) -> None:
        """That only streams are handed over in which somebody speaks or has spoken, by rosters before this one."""
        known, at = {*voices(after)}, after.previous
        while at in self.held:
            known |= voices(self.held[at]).keys()
            at = self.held[at].previous
        if strange := sorted(after.handovers.keys() - known):
            raise Refused("roster_unsound", f"there is no stream {strange[0][:40]} to hand over")

    def judged(self, check: Callable[[Roster], T], by: Callable[[Roster], object]) -> T:
        """What ``check`` answers for the newest of all that are held that it passes for: what was right under a roster stays right.

        Also under one that a resolve has set aside since: who heard of that first must not believe less than others.

        Args:
            check: raises :class:`Refused` for one that it does not pass for.
            by: what it depends on; of those with the same only one is tried.

        Raises:
            Refused: why it does not pass for the newest.
        """
        refusal = Refused("wrong_epoch", "no roster is held")
        tried = list[object]()
        for roster in self.every:
            if by(roster) in tried:
                continue
            tried.append(by(roster))
            try:
                return check(roster)
            except Refused as refused:
                refusal = refused if len(tried) == 1 else refusal
        raise refusal


def voices(roster: Roster) -> Mapping[str, object]:
    """Every stream in which a roster lets somebody speak, to who that is; the stream of the rosters goes by another rule."""
    found: dict[str, object] = {RESOLVES: roster.root, ERASURES: roster.root}
    found |= {stream_of(key): (roster.revoker, roster.bounds.revocations_max) for key in roster.revoker.keys}
    for domain, role in roster.policy.items():
        found |= {policy_stream(domain): role, activate_stream(domain): role, halt_stream(domain): roster.revoker}
    return found


def lacking_handovers(now: Roster, after: Roster) -> list[str]:
    """The streams whose signers differ and that ``after`` does not hand over, sorted."""
    before, then = voices(now), voices(after)
    return sorted(base for base in {*before, *then} if before.get(base) != then.get(base) and base not in after.handovers)


def same_member(one: Member, other: Member) -> bool:
    """Whether it is the same in both rosters: same name, operator, log epoch and keys. Its region may differ, which it signs nothing under.

    Another operator makes another member: f counts owners who lie, and who was honest under one may lie under the next. It also takes
    new keys then (:func:`admit_successor`): the former owner may have kept the old ones, and would go on lying for it.
    """
    return msgspec.structs.replace(one, region=other.region) == other


def overlap(now: Roster, after: Roster) -> Overlap:
    """The overlap of two rosters; it does not matter which one is older."""
    both = sum(same_member(member, other) for member in now.members for other in after.members)
    sizes = {"old": len(now.members) - both, "both": both, "new": len(after.members) - both}
    return Overlap(**sizes, k=(now.k, after.k), f=(now.f, after.f))


def admit_successor(now: Roster, now_id: str, statement: Statement[Roster]) -> Roster:
    """The next roster, believed because the one in force and the new one itself agree to it.

    Args:
        now: the roster in force, believed.
        now_id: its statement id, lowercase hex.
        statement: the next one, as read.

    Raises:
        Refused: ``wrong_mesh``; ``wrong_epoch`` unless it is the next epoch and names ``now_id`` as its predecessor;
            ``threshold_not_met`` unless both root thresholds signed, ``operator_unsigned`` unless every operator did of whom it says
            something new; ``roster_unsafe`` if the overlap rule does not hold, a log would go on under another key, or a member under
            another operator with the former keys; ``too_soon`` if it begins less than 2Δ after the former one.
    """
    claims = statement.claims
    check_place(now, now_id, claims)
    check_assents(statement, now)
    check_step(now, claims)
    return claims


def check_place(now: Roster, now_id: str, claims: Roster) -> None:
    """That it is the next epoch of the same mesh, behind that one. Raises: ``wrong_mesh``, ``wrong_epoch``."""
    if claims.mesh != now.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if claims.epoch != now.epoch + 1:
        raise Refused("wrong_epoch", f"after epoch {now.epoch} comes {now.epoch + 1}, this is {claims.epoch}")
    if claims.previous != now_id:
        raise Refused("wrong_epoch", f"epoch {now.epoch} is {now_id[:12]}…, this follows {claims.previous[:12] or 'nothing'}…")


def check_logs(before: Roster, after: Roster) -> None:
    """That every log which both name has one key.

    Raises:
        Refused: ``roster_unsafe``.
    """
    logs = {before.origin(member): member.log_key for member in before.members}
    for member in after.members:
        if logs.get(after.origin(member), member.log_key) != member.log_key:
            raise Refused("roster_unsafe", f"{after.origin(member)} under another key: a new log key begins a new log epoch")


def check_step(now: Roster, after: Roster) -> None:
    """That quorums meet, that every log keeps its key and every key its owner, and that epochs do not overtake one another.

    And that every stream whose signers change is handed over: else the word of the former ones would count for ever.

    Raises:
        Refused: ``roster_unsafe``, ``too_soon``, ``handover_missing``.
    """
    step = overlap(now, after)
    if not step.safe:
        raise Refused("roster_unsafe", f"{step}: a step like this must be made in several")
    apart_ms = 2 * max(now.bounds.stale_ms, after.bounds.stale_ms)
    if after.not_before_ms < now.not_before_ms + apart_ms:
        raise Refused("too_soon", f"epoch {after.epoch} begins less than {apart_ms} ms (2Δ) after epoch {now.epoch}")
    if lacking := lacking_handovers(now, after):
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise Refused(
            "handover_missing", f"{lacking[0][:40]}{more}: its signers change, and nothing says up to where the former word counts"
        )
    check_logs(now, after)
    owners = {key: member.operator for member in now.members for key in _keys(member)}
    for member in after.members:
        if any(owners.get(key, member.operator) != member.operator for key in _keys(member)):
            raise Refused(
                "roster_unsafe", f"{member.name} goes to operator {member.operator} with keys that another one had: make new ones"
            )


def _keys(member: Member) -> tuple[str, ...]:
    return member.log_key, member.witness_key, member.attest_key, member.decision_key
