"""A proof that one key of a member has signed two histories of one log: whoever holds the roster believes it, and nobody vouches for it.

Kinds
-----
``same-size``
    Two checkpoints of one log, of one size, with other roots, both signed by its log key.
``prefix``
    Two checkpoints of other sizes, both signed by its log key, and a consistency proof that leads from another root at the smaller size
    to the larger checkpoint: what was signed at the smaller size is no beginning of what was signed at the larger.
``witness-conflict``
    The same two cases, signed as cosignatures by one member's witness key, or both by its attest key.

Rules
-----
1. Belief comes from the two lines alone (:mod:`mesh.core.law.proof`).
2. Named is the one key that signed both, and the member to whom a held roster gives that key for that use. Lines of anybody else,
   external witnesses among them, prove nothing here.
3. The file has one spelling: the smaller size first, of one size the smaller root; one line in each note; no path where none is
   needed. What can be read from the notes (kind, origin, sizes, name) does not stand beside them.

Why no honest member is ever named
----------------------------------
* A log key signs sizes and roots of one array of records, which are durable before; so all it signs are prefixes of one history, also
  after a crash at any point. A consistency proof to a root that the key really signed shows nodes of that very tree (SHA-256), so the
  root at which it begins is the one that the tree has there: an honest key signed no other.
* Witness and attest keys sign what grew, record by record, from what they signed before, and that is durable before. So all of one key
  are prefixes of one history of that log, whatever its owner does. Several logs, or one log under several epochs, are several origins.
* Signing the same again, under the same time or a later one, is one tree twice: that is no conflict, however it is spelled.
* A clock that is set back changes times, which no kind looks at. That is why a *smaller size at a later time* is no kind here: a member
  whose disk was set back to before a cosignature that only that log's owner holds, and that starts while this owner is away, may
  cosign a size in between later on, without any second history.
* A start is told what was signed before (:mod:`mesh.protocol.barrier`) and signs nothing that contradicts it. If nobody told it, because
  its disk was set back and whoever knew is away, the same key goes on from less than it signed. Then there are two histories, and one
  of the f faults (design, section 9): nobody can tell that from a lie, and both end with other keys.
* A changed key is a new key: two lines are by one key or there is no proof. A roster that gives a key to somebody else makes another
  name of the line, and both lines must have one name.
* *Two decisions about one input* are no kind either: two builds of an engine at one honest governor, or a local tail that was lost with
  a disk, make them without any lie. Whoever attests or audits finds them wrong by replaying, and f + 1 of these prove it
  (:mod:`mesh.core.law.unlawful`).

Not here: what follows (:attr:`mesh.core.law.governance.Governance.frozen`), a decision that is wrong (:mod:`mesh.core.law.unlawful`), two
statements of one *stream* (:mod:`mesh.core.law.conflict`).
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Hex32
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.proof import Caught, Proof, Use, bare
from mesh.core.law.roster import Member, Roster
from mesh.core.law.succession import Rosters
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner, log_verifier, witness_name
from mesh.core.log.merkle import verify_consistency
from mesh.core.log.note import Line, Note, Verifier, parse_note
from mesh.errors import Refused
from mesh.limits import FRAUD_BYTES_MAX, FRAUD_NOTE_CHARS_MAX, PROOF_HASHES_MAX

__all__ = [
    "FORMAT",
    "Fraud",
    "accuse",
    "judge_fraud",
    "read_fraud",
]

FORMAT: Final = "govmesh/fraud/v1"
_Note = Annotated[str, msgspec.Meta(max_length=FRAUD_NOTE_CHARS_MAX)]


@statement("fraud", bytes_max=FRAUD_BYTES_MAX)
class Fraud(Proof):
    """The file, and what travels, in an envelope without signatures. The key has signed both notes."""

    first: _Note
    """Signed note of the smaller size; of two of one size, with the smaller root. One line."""
    format: Literal["govmesh/fraud/v1"]
    path: Annotated[list[Hex32], msgspec.Meta(max_length=PROOF_HASHES_MAX)]
    """Hashes that lead from ``root`` at the smaller size to the second note; none for one size."""
    root: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    """What the second note's tree has at the smaller size; empty for one size."""
    second: _Note


def judge_fraud(said: Statement[Fraud], rosters: Rosters) -> Caught:
    """What it proves, by the keys of these rosters alone, whatever is on the envelope.

    Raises:
        Refused: ``no_conflict`` if both are genuine and can both be; ``wrong_mesh``; ``unknown_member`` for a key that no held roster
            gives to a member for such lines; ``bad_signature``, ``bad_checkpoint``, ``bad_proof`` for what is not shown;
            ``malformed``, ``non_canonical``.
    """
    claims = said.claims
    if any(roster.mesh != claims.mesh for roster in rosters.every):
        raise Refused("wrong_mesh", claims.mesh)
    notes = parse_note(claims.first.encode()), parse_note(claims.second.encode())
    if any(len(note.lines) != 1 for note in notes):
        raise Refused("malformed", "each note has the one line that matters")
    one, other = (Checkpoint.from_text(note.text) for note in notes)
    roster, member, use, verifier = _signer(claims.key, notes, rosters)
    for note in notes:
        verifier.verify(note.text, note.lines[0])
    if use == "log" and (one.origin != verifier.name or other.origin != verifier.name):
        raise Refused("bad_checkpoint", f"of {one.origin[:80]!r}, signed by {verifier.name[:80]!r}")
    if not all(each.origin.startswith(f"{claims.mesh}/") for each in (one, other)):
        raise Refused("wrong_mesh", one.origin[:80])
    _check_apart(claims, one, other)
    return Caught(
        id=said.id,
        kind="witness-conflict" if use != "log" else "same-size" if one.size == other.size else "prefix",
        member=member.name,
        use=use,
        key=claims.key,
        origin=one.origin,
        sizes=(one.size, other.size),
        roots=(one.root.hex(), other.root.hex()),
        epoch=roster.epoch,
    )


def _signer(key: str, notes: Sequence[Note], rosters: Rosters) -> tuple[Roster, Member, Use, Verifier]:
    """To whom the newest held roster gives that key under the name of both lines (rule 2)."""
    known = [found for roster in rosters.every for found in _uses(key, roster)]
    if not known:
        raise Refused("unknown_member", f"no roster that is held gives the key {key[:12]}… to a member for checkpoints")
    names = {note.lines[0].name for note in notes}
    for found in known:
        if names == {found[3].name}:
            return found
    raise Refused("bad_signature", f"lines of {min(names)[:80]!r}, the key {key[:12]}… is {known[0][3].name[:80]!r}")


def _uses(key: str, roster: Roster) -> Iterator[tuple[Roster, Member, Use, Verifier]]:
    for member in roster.members:
        if key == member.log_key:
            yield roster, member, "log", log_verifier(roster.origin(member), key)
        elif key == member.witness_key:
            yield roster, member, "witness", cosigner(witness_name(roster.mesh, member.name), key)
        elif key == member.attest_key:
            yield roster, member, "attest", cosigner(attest_name(roster.mesh, member.name), key)


def _check_apart(claims: Fraud, one: Checkpoint, other: Checkpoint) -> None:
    """That no log has both."""
    if one.origin != other.origin:
        raise Refused("no_conflict", f"{one.origin[:80]} and {other.origin[:80]} are two logs")
    if (one.size, one.root) == (other.size, other.root):
        raise Refused("no_conflict", f"one tree of {one.size} records, signed twice")
    if (one.size, one.root) > (other.size, other.root):
        raise Refused("non_canonical", "the smaller size comes first, then the smaller root")
    path, root = [bytes.fromhex(value) for value in claims.path], bytes.fromhex(claims.root)
    if one.size == other.size:
        if path or root:
            raise Refused("malformed", "two roots of one size need no proof")
        return
    if not root or root == one.root:
        raise Refused("no_conflict", f"nothing shows that {one.size} records are no beginning of {other.size}")
    verify_consistency(one.size, other.size, root, other.root, path)


def accuse(mesh: str, key: str, notes: Sequence[tuple[bytes, Line]], *, root: bytes = b"", path: Sequence[bytes] = ()) -> Statement[Fraud]:
    """The proof that ``key`` signed these two, not judged yet.

    Args:
        mesh: of the key's member.
        key: hex.
        notes: text and line of each, in any order.
        root: what the larger one's tree has at the smaller size; for two of one size nothing.
        path: of the consistency proof from there.

    Raises:
        Refused: for a text that is no checkpoint.
    """
    first, second = sorted(notes, key=lambda note: _order(Checkpoint.from_text(note[0])))
    claims = Fraud(
        first=Note(first[0], (first[1],)).encode().decode(),
        format=FORMAT,
        key=key,
        mesh=mesh,
        path=[value.hex() for value in path],
        root=root.hex(),
        second=Note(second[0], (second[1],)).encode().decode(),
    )
    return bare(Fraud, canonical.encode(claims))


def _order(checkpoint: Checkpoint) -> tuple[int, bytes]:
    return checkpoint.size, checkpoint.root


def read_fraud(data: bytes) -> Statement[Fraud]:
    """What a file says. Nothing in it is believed.

    Raises:
        Refused: the codec's codes.
    """
    canonical.decode(Fraud, data, bytes_max=FRAUD_BYTES_MAX)
    return bare(Fraud, data)
