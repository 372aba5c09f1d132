"""A proof that a member has recorded a decision that the law does not make: f + 1 members who repeated it say so, each signed.

Kind
----
``unlawful-decision``
    A checkpoint signed by the member's log key, a path that shows the record in it, and refusals to attest that record as ``wrong``
    (:class:`mesh.core.log.record.Refusal`) by f + 1 other members of one roster.

What it means: *of f + 1 members at least one does not lie; it has repeated the decision from what the record names, and came to another
result*. Nothing else: the file holds no intent and no policy, so whoever verifies it repeats nothing.

Rules
-----
1. Its owner is bound by its own signature: what its log key did not sign cannot be held against it, whoever refuses it.
2. Each refusal is about this record: its log, its index, its leaf hash. The reason is ``wrong``; what somebody only lacks
   (``missing``) proves nothing.
3. Each is signed by the decision key that one and the same held roster gives to the member who says so; one a member, and none by whom it
   is about. How many it takes is that roster's f + 1. Whoever holds more rosters believes no less.
4. The file has one spelling: refusals by member, each with its one line.
5. Which checks failed is what the members say; they need not agree.

Who can be named
----------------
* Not who decided by what others do not hold: a body, an opening, a policy or a roster that is lacking, an engine that is not there or
  of another profile, and a time that is still to come, make a record incomplete, which is no ``wrong``.
* f members that lie name nobody: one more signature is needed, and an honest member signs a refusal only of what it found wrong.
* An honest member whose program differs from that of f + 1 others, who are honest too. That is a bug in one of the two,
  which cannot be told from a lie by anybody who does not have both. Records that are known to be final are therefore not
  brought forward by those who find them wrong later (:mod:`mesh.protocol.accusing`).
* Not whom f + 1 members of a former roster name, whose keys were replaced or who are gone: nobody is frozen by their word any more
  (:func:`counts`). Who is there says it again. What a file proves of a former roster it goes on to prove to a reader.

Not here: who collects refusals (:mod:`mesh.protocol.accusing`), what follows (:attr:`mesh.core.law.governance.Governance.frozen`).
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Count, Hex32
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.proof import Caught, Proof, Wrong, bare
from mesh.core.law.roster import Member, Roster
from mesh.core.law.succession import Rosters
from mesh.core.log.checkpoint import Checkpoint, log_verifier
from mesh.core.log.merkle import verify_inclusion
from mesh.core.log.note import Note, parse_note
from mesh.core.log.record import Refusal
from mesh.errors import Refused
from mesh.limits import FRAUD_NOTE_CHARS_MAX, MEMBERS_MAX, PROOF_HASHES_MAX, UNLAWFUL_BYTES_MAX

__all__ = ["FORMAT", "Unlawful", "check_signed", "counts", "judge_unlawful", "read_unlawful", "unlawful_of"]

FORMAT: Final = "govmesh/unlawful/v1"


@statement("unlawful", bytes_max=UNLAWFUL_BYTES_MAX)
class Unlawful(Proof):
    """The file, and what travels, in an envelope without signatures."""

    checkpoint: Annotated[str, msgspec.Meta(max_length=FRAUD_NOTE_CHARS_MAX)]
    """Signed note of the log, with the key's line alone, of a size that covers the record."""
    format: Literal["govmesh/unlawful/v1"]
    index: Count
    """Of the record."""
    leaf: Hex32
    """Its hash."""
    path: Annotated[list[Hex32], msgspec.Meta(max_length=PROOF_HASHES_MAX)]
    """Inclusion proof (RFC 9162, 2.1.3) from the record to the checkpoint."""
    refusals: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MEMBERS_MAX)]
    """Envelopes, sorted by who says so."""


def judge_unlawful(said: Statement[Unlawful], rosters: Rosters) -> Caught:
    """What it proves, by the keys of these rosters alone, whatever is on the envelope.

    Raises:
        Refused: ``no_conflict`` for refusals of something else, for another reason, or for too few; ``wrong_mesh``;
            ``unknown_member`` for a key that no held roster gives to such a member; ``bad_signature``, ``bad_checkpoint``,
            ``bad_proof`` for what is not shown; ``malformed``, ``non_canonical``.
    """
    claims = said.claims
    if any(roster.mesh != claims.mesh for roster in rosters.every):
        raise Refused("wrong_mesh", claims.mesh)
    owners = [(roster, member) for roster in rosters.every for member in roster.members if member.log_key == claims.key]
    if not owners:
        raise Refused("unknown_member", f"no roster that is held gives the key {claims.key[:12]}… to a member for its log")
    roster, owner = owners[0]
    leaf, path = bytes.fromhex(claims.leaf), [bytes.fromhex(value) for value in claims.path]
    checkpoint = check_signed(claims.checkpoint.encode(), roster.origin(owner), claims.key, claims.index, leaf, path)
    refusals = [envelope.read(Refusal, bytes(raw)) for raw in claims.refusals]
    for refusal in refusals:
        _check_about(refusal.claims, claims, checkpoint.origin)
    _check_order(refusals)
    roster = _roster_of(refusals, owners)
    return Caught(
        id=said.id,
        kind="unlawful-decision",
        member=owner.name,
        use="log",
        key=claims.key,
        origin=checkpoint.origin,
        sizes=(checkpoint.size,),
        roots=(checkpoint.root.hex(),),
        epoch=roster.epoch,
        wrong=Wrong(
            index=claims.index,
            leaf=claims.leaf,
            codes=tuple(sorted({refusal.claims.code for refusal in refusals})),
            members=tuple(refusal.claims.member for refusal in refusals),
        ),
    )


def counts(said: Statement[Unlawful], roster: Roster) -> bool:
    """Whether f + 1 of those who refuse are members of ``roster`` under the same keys, beside the owner, who is one too.

    For the roster in force: keys of who is no member any more, or that were replaced, may be anybody's by now.
    """
    owner = next((member for member in roster.members if member.log_key == said.claims.key), None)
    if owner is None:
        return False
    keys = {member.name: member.decision_key for member in roster.members if member.name != owner.name}
    read = [envelope.read(Refusal, bytes(raw)) for raw in said.claims.refusals]
    return sum(keys.get(item.claims.member, "") in item.signatures for item in read) > roster.f


def check_signed(note: bytes, origin: str, key: str, index: int, leaf: bytes, path: Sequence[bytes]) -> Checkpoint:
    """The checkpoint by which that log key has signed that this leaf hash stands at ``index`` (rule 1).

    Args:
        note: with the key's line alone.
        origin: of the log.
        key: hex.
        index: of the record.
        leaf: its hash.
        path: from there to the root.

    Raises:
        Refused: ``malformed``, ``bad_signature``, ``bad_checkpoint``, ``bad_proof``.
    """
    parsed, verifier = parse_note(note), log_verifier(origin, key)
    if len(parsed.lines) != 1:
        raise Refused("malformed", "the note has the one line that matters")
    checkpoint = Checkpoint.from_text(parsed.text)
    verifier.verify(parsed.text, parsed.lines[0])
    if checkpoint.origin != origin:
        raise Refused("bad_checkpoint", f"of {checkpoint.origin[:80]!r}, signed by {origin[:80]!r}")
    verify_inclusion(leaf, index, checkpoint.size, checkpoint.root, path)
    return checkpoint


def _check_about(refusal: Refusal, claims: Unlawful, origin: str) -> None:
    """Rule 2."""
    if refusal.mesh != claims.mesh:
        raise Refused("wrong_mesh", refusal.mesh)
    if (refusal.origin, refusal.index, refusal.leaf) != (origin, claims.index, claims.leaf):
        raise Refused("no_conflict", f"{refusal.member} refuses {refusal.leaf[:12]}… at {refusal.index} of {refusal.origin[:80]}")
    if refusal.reason != "wrong":
        raise Refused("no_conflict", f"{refusal.member} only lacks it: {refusal.code}")


def _check_order(refusals: Sequence[Statement[Refusal]]) -> None:
    """Rules 3 and 4."""
    if any(one.claims.member >= other.claims.member for one, other in pairwise(refusals)):
        raise Refused("non_canonical", "refusals stand in the order of who says them, one a member")


def _roster_of(refusals: Sequence[Statement[Refusal]], owners: Iterable[tuple[Roster, Member]]) -> Roster:
    """The first of these rosters that makes enough of these who refuse members besides its owner (rule 3)."""
    failed = Refused("no_conflict", "nobody refuses it")
    for roster, owner in owners:
        try:
            _check_enough(refusals, roster, owner)
        except Refused as refusal:
            failed = refusal
        else:
            return roster
    raise failed


def _check_enough(refusals: Sequence[Statement[Refusal]], roster: Roster, owner: Member) -> None:
    if len(refusals) <= roster.f:
        raise Refused("no_conflict", f"{len(refusals)} of {roster.f + 1} members refuse it")
    for refusal in refusals:
        member = roster.member(refusal.claims.member)
        if member.name == owner.name:
            raise Refused("no_conflict", f"{owner.name} refuses its own record")
        if not refusal.sealed_by((member.decision_key,)):
            raise Refused("bad_signature", f"a refusal in the name of {member.name}")


def unlawful_of(
    mesh: str, key: str, note: bytes, index: int, leaf: str, path: Sequence[str], refusals: Iterable[bytes]
) -> Statement[Unlawful]:
    """The proof against the owner of that log key, not judged yet.

    Args:
        mesh: of the key's member.
        key: hex.
        note: signed by it; its line alone is taken.
        index: of the record.
        leaf: its hash, hex.
        path: inclusion proof, hex.
        refusals: envelopes, in any order.

    Raises:
        Refused: for what is no note, or no refusal.
    """
    parsed = parse_note(note)
    origin = Checkpoint.from_text(parsed.text).origin
    lone = Note(parsed.text, tuple(line for line in parsed.lines if line.name == origin))
    read = [envelope.read(Refusal, data) for data in refusals]
    claims = Unlawful(
        checkpoint=lone.encode().decode(),
        format=FORMAT,
        index=index,
        key=key,
        leaf=leaf,
        mesh=mesh,
        path=list(path),
        refusals=[msgspec.Raw(item.envelope) for item in sorted(read, key=lambda item: item.claims.member)],
    )
    return bare(Unlawful, canonical.encode(claims))


def read_unlawful(data: bytes) -> Statement[Unlawful]:
    """What a file says. Nothing in it is believed.

    Raises:
        Refused: the codec's codes.
    """
    canonical.decode(Unlawful, data, bytes_max=UNLAWFUL_BYTES_MAX)
    return bare(Unlawful, data)
