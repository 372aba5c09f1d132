"""A proof that two statements of one stream cannot both be: a file that shows it to whoever holds the roster and nothing else.

Rules
-----
1. Both are believed: those whom the roster lets speak in that stream signed them, as many as it takes, and nobody else.
2. They contradict one another if a node that holds nothing else of the stream would call it forked: two under one number, or one
   that names another predecessor than the one before it. The node's own code is asked, so proof and fork cannot differ.
3. Named is only who cannot have been honest. In a revoker's stream that is its key: nobody else speaks there. Where several sign, who
   signed both, and only if both stand behind the same statement: whoever the root resolved against signs that number again behind
   another, and whose draft was never completed goes on behind the one that was.
4. A proof may name nobody: two sets of signers without a common member prove that the stream has forked, and not by whom.
5. The file has one spelling: the two envelopes, byte for byte, the lower number first, then the lower id.

Not here: what follows for the stream (:mod:`mesh.core.law.streams`) and its domain (:mod:`mesh.core.law.governance`); two
histories of one *log* (:mod:`mesh.protocol.mirror`).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.policy import Manifest
from mesh.core.law.revocation import Revocation
from mesh.core.law.streams import Chain, Fork, Link, take
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said, admit_law, link_of, read_law
from mesh.errors import Refused
from mesh.limits import CONFLICT_BYTES_MAX

__all__ = ["FORMAT", "Conflict", "ConflictProof", "clash", "conflicts_of", "encode_conflict", "judge", "read_conflict"]

FORMAT: Final = "govmesh/conflict/v1"
ConflictKind = Literal["policy-conflict", "stream-conflict"]


class ConflictProof(Payload):
    """The file: two signed statements of one stream that cannot both be."""

    first: msgspec.Raw
    """Envelope of the one with the lower number; of two under one number, with the lower id."""
    format: Literal["govmesh/conflict/v1"]
    second: msgspec.Raw
    """Envelope of the other one."""


class Conflict(msgspec.Struct, frozen=True):
    """Two believed statements that contradict one another."""

    first: Statement[Said]
    second: Statement[Said]

    @property
    def stream(self) -> str:
        """In which stream."""
        return link_of(self.first)[0]

    @property
    def numbers(self) -> tuple[int, int]:
        """The numbers of both."""
        return self.first.claims.sequence, self.second.claims.sequence

    @property
    def kind(self) -> ConflictKind:
        """``policy-conflict`` for two manifests of one domain and epoch, else ``stream-conflict``."""
        same = self.first.claims.sequence == self.second.claims.sequence
        return "policy-conflict" if same and isinstance(self.first.claims, Manifest) else "stream-conflict"

    @property
    def signers(self) -> tuple[str, ...]:
        """The keys (hex) whose holders said both, sorted; may be empty (rules 3 and 4)."""
        if isinstance(self.first.claims, Revocation):
            return (self.first.claims.revoker,)
        if self.first.claims.link[1:] != self.second.claims.link[1:]:
            return ()
        return tuple(sorted(self.first.signatures.keys() & self.second.signatures.keys()))


def judge(first: Statement[Said], second: Statement[Said], rosters: Rosters) -> Conflict:
    """The conflict of these two, believed by the keys of one of ``rosters`` alone.

    Raises:
        Refused: ``no_conflict`` if both are genuine and can both be, or are one; ``wrong_mesh``, ``domain_unknown``,
            ``bad_signature``, ``threshold_not_met``, ``policy_invalid``, ``malformed`` for one that no node takes in.
    """
    for statement in (first, second):
        admit_law(statement, rosters)
    if first.id == second.id:
        raise Refused("no_conflict", f"both are {first.id[:12]}…: signatures are no part of what a statement says")
    (stream, one), (other_stream, other) = link_of(first), link_of(second)
    if stream != other_stream:
        raise Refused("no_conflict", f"one is of {stream[:40]}, the other of {other_stream[:40]}")
    if not _contradict(one, other):
        raise Refused("no_conflict", f"numbers {one.sequence} and {other.sequence} of {stream[:40]} can stand beside each other")
    return Conflict(*sorted((first, second), key=_order))


def read_conflict(data: bytes, rosters: Rosters) -> Conflict:
    """The conflict that the file proves. As :func:`judge`; no network, no clock, no other file.

    Raises:
        Refused: as :func:`judge`; the codec's codes, ``wrong_kind``, ``non_canonical`` also for two in the other order.
    """
    proof = canonical.decode(ConflictProof, data, bytes_max=CONFLICT_BYTES_MAX)
    first, second = read_law(bytes(proof.first)), read_law(bytes(proof.second))
    conflict = judge(first, second, rosters)
    if conflict.first.id != first.id:
        raise Refused("non_canonical", "the lower number comes first, then the lower id")
    return conflict


def encode_conflict(conflict: Conflict) -> bytes:
    """The file's bytes."""
    first, second = msgspec.Raw(conflict.first.envelope), msgspec.Raw(conflict.second.envelope)
    return canonical.encode(ConflictProof(first=first, format=FORMAT, second=second))


def conflicts_of(statements: Iterable[Statement[Said]]) -> list[Conflict]:
    """What proves that one stream has forked, as little of it as names everybody who can be named; by number.

    Per place where histories part, one pair for each key that said two things there, or one pair if none did. If no such place
    is held, the first two that contradict one another. Of one history: none.

    Args:
        statements: all that are held of the stream, each believed.
    """
    ordered = sorted(statements, key=_order)
    places = dict[tuple[int, str], list[Statement[Said]]]()
    for statement in ordered:
        _, number, previous = statement.claims.link
        places.setdefault((number, previous), []).append(statement)
    found = [pair for place in places.values() if len(place) > 1 for pair in _blaming(place)]
    if found:
        return found
    parted = (Conflict(one, two) for one, two in pairwise(ordered) if _contradict(link_of(one)[1], link_of(two)[1]))
    return [pair for pair in (next(parted, None),) if pair is not None]


def clash(fork: Fork, new: Collection[str]) -> tuple[str, str]:
    """Ids of two statements that contradict one another in a stream that ``new`` ones have just forked, one of them new if any is.

    Two behind one statement are preferred to two under one number, and these to one that follows another.
    """
    links = sorted((*fork.whole.values(), *fork.broken), key=lambda link: (link.sequence, link.id))
    fresh = [link for link in links if link.id in new]
    for by in (_place, _number):
        beside = _grouped(links, by)
        for link in fresh:
            for other in beside[by(link)]:
                if other.id != link.id:
                    return _ids(link, other)
    numbers = _grouped(links, _number)
    for link in fresh:
        for other in (*numbers.get((link.sequence - 1, ""), ()), *numbers.get((link.sequence + 1, ""), ())):
            if _contradict(link, other):
                return _ids(link, other)
    return next(_ids(one, two) for one, two in pairwise(links) if _contradict(one, two))


def _contradict(one: Link, other: Link) -> bool:
    return isinstance(take(Chain(), (one, other)), Fork)


def _blaming(place: Sequence[Statement[Said]]) -> list[Conflict]:
    said = dict[str, list[Statement[Said]]]()
    for statement in place:
        claims = statement.claims
        for key in (claims.revoker,) if isinstance(claims, Revocation) else sorted(statement.signatures):
            said.setdefault(key, []).append(statement)
    pairs = {(items[0].id, items[1].id): Conflict(items[0], items[1]) for items in said.values() if len(items) > 1}
    return [pairs[ids] for ids in sorted(pairs)] or [Conflict(place[0], place[1])]


def _order(statement: Statement[Said]) -> tuple[int, str]:
    return statement.claims.sequence, statement.id


def _place(link: Link) -> tuple[int, str]:
    return link.sequence, link.previous


def _number(link: Link) -> tuple[int, str]:
    return link.sequence, ""


def _grouped(links: Iterable[Link], by: Callable[[Link], tuple[int, str]]) -> dict[tuple[int, str], list[Link]]:
    groups = dict[tuple[int, str], list[Link]]()
    for link in links:
        groups.setdefault(by(link), []).append(link)
    return groups


def _ids(one: Link, other: Link) -> tuple[str, str]:
    first, second = sorted((one, other), key=lambda link: (link.sequence, link.id))
    return first.id, second.id
