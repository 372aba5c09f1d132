"""The records of a span of time, as k members attested them, from whichever member serves them.

Rules
-----
1. Only what is final is read: each log up to the largest certificate that any member proves. What came later is counted by the
   members' unsigned word, and left out.
2. A log is read from one member, from its first record of the span to that certificate. The tree before that record is taken from
   the record's inclusion proof; the root over both must be the certified one. So no record is invented, changed, moved or left out.
3. Where the span begins is searched with single records, since times in a log never decrease. The record before is read too: it
   must be older than the span, or the member hid some.
4. Pages are handed on before their log's root is known. Whoever takes them keeps what follows from them apart until the last
   page was taken without an error, and throws it away otherwise.
5. Statements and openings beside records are named by what they say, so a member can withhold or spoil them, never replace them.

Not here: what the records are for.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from mesh.cli.client import MeshClient
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.record import Record, read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import LineageBatch, NodeStatus, Prove, Proved
from mesh.core.run.params import Opening
from mesh.errors import MeshError, Refused
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.proving import by_id, record_of

__all__ = ["Head", "Page", "before", "first_since", "head_of", "held", "material", "pages", "readers", "tree_before"]

_NOTHING: Final = Frontier.empty()


class Head(msgspec.Struct, frozen=True):
    """How far a log is final, proved."""

    origin: str
    size: int
    root: bytes
    beyond: int
    """Records that are not final yet, as some member says."""


class Page(msgspec.Struct, frozen=True):
    """Consecutive records of a log that are in the span (rule 4)."""

    first: int
    """Index of the first."""
    records: Sequence[Record]
    bodies: Mapping[str, bytes]
    """Statement id to envelope."""
    openings: Mapping[str, Sequence[Opening]]
    """Intent id to openings."""


async def head_of(mesh: MeshClient, answers: Mapping[str, NodeStatus], origin: str) -> Head | None:
    """The largest certificate of a log that anybody can prove; None if nobody claims one.

    Args:
        mesh: whom to ask.
        answers: how the members say they are; of these words only what is proved counts.
        origin: the log.

    Raises:
        Refused: what is wrong with the proof of the last one who claimed to have one.
        Unavailable: ``unreachable``.
    """
    claims = {member: _certified(answer, origin) for member, answer in answers.items()}
    sizes = [held(answer, origin) for answer in answers.values()]
    failure: MeshError | None = None
    for member, claimed in sorted(claims.items(), key=lambda claim: -claim[1]):
        if claimed == 0:
            break
        try:
            answer = await mesh.ask(member, Prove(origin=origin, index=claimed - 1), Proved)
            checkpoint = _proved(mesh, answer, origin, claimed - 1)[1]
        except MeshError as error:
            failure = error
            continue
        return Head(origin, checkpoint[0], checkpoint[1], max(max(sizes) - checkpoint[0], 0))
    if failure is not None:
        raise failure
    return None


def readers(mesh: MeshClient, answers: Mapping[str, NodeStatus], head: Head) -> list[str]:
    """Whom to read a log from, in this order: its owner, those who say that they hold it, whoever else answers."""
    owner = mesh.owner(head.origin).name
    return sorted(answers, key=lambda member: (member != owner, held(answers[member], head.origin) < head.size))


def held(answer: NodeStatus, origin: str) -> int:
    """How many records of a log a member says that it holds."""
    known = {answer.origin: answer.size, **{mirror.origin: mirror.size for mirror in answer.mirrors}}
    return known.get(origin, 0)


async def pages(mesh: MeshClient, member: str, head: Head, since_ms: int) -> AsyncIterator[Page]:
    """The final records of a log from ``since_ms`` on, as ``member`` serves them (rule 4).

    Raises:
        Refused: ``bad_proof`` if they are not the certified ones, and what else is wrong with what it answers.
        Unavailable: ``unreachable``.
    """
    start = await first_since(mesh, member, head, since_ms)
    at = first = max(start - 1, 0)
    frontier = await tree_before(mesh, member, head, first)
    while at < head.size:
        batch, leaves = await _pulled(mesh, member, head, at)
        records = [read_record(leaf) for leaf in leaves]
        if at == first and start > 0 and records[0].at_ms >= since_ms:
            raise Refused("bad_proof", f"{member} said that {head.origin} {start} is the first record of that time, and it is not")
        frontier = frontier.extend(map(leaf_hash, leaves))
        skip = sum(record.at_ms < since_ms for record in records)
        yield Page(at + skip, records[skip:], *material(batch))
        at += len(leaves)
    if frontier.root() != head.root:
        raise Refused("bad_proof", f"what {member} serves of {head.origin} does not lead to the certified root")


def material(batch: LineageBatch) -> tuple[dict[str, bytes], dict[str, Sequence[Opening]]]:
    """Statements by id and openings by intent id, of what came with records."""
    return by_id(batch.bodies), {item.intent: item.openings for item in batch.openings}


def before(index: int, size: int, path: Iterable[bytes]) -> Frontier:
    """The tree of the first ``index`` leaves, from the inclusion path of leaf ``index`` in a tree of ``size``, verified already.

    The left siblings on the way up are just its perfect subtrees, the smallest first (RFC 9162, section 2.1.3.2).

    Raises:
        Refused: ``malformed`` if it is the path of another leaf.
    """
    left, at, last = list[bytes](), index, size - 1
    for sibling in path:
        if at & 1 or at == last:
            left.append(sibling)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    return Frontier.restore(index, reversed(left))


async def first_since(mesh: MeshClient, member: str, head: Head, since_ms: int) -> int:
    """Index of the first record that is not older than the span, as ``member`` says; the log's size if all are.

    Raises:
        Refused: ``not_found``, and what else is wrong with what it answers.
        Unavailable: ``unreachable``.
    """
    low, high = 0, head.size
    while low < high:
        middle = (low + high) // 2
        try:
            leaves = (await mesh.leaves(member, head.origin, middle, 1)).records
        except Refused as refusal:
            if refusal.code != "record_pruned":
                raise
            low = middle + 1  # older than all that is kept; nobody is believed that without the one before
            continue
        if len(leaves) != 1:
            raise Refused("not_found", f"{member} does not serve {head.origin} {middle}")
        if read_record(bytes(leaves[0])).at_ms < since_ms:
            low = middle + 1
        else:
            high = middle
    return low


async def tree_before(mesh: MeshClient, member: str, head: Head, first: int) -> Frontier:
    """The tree of the records before that one, which k members have attested, by the proof that ``member`` gives.

    Raises:
        Refused: ``bad_proof`` and what else is wrong with the proof.
        Unavailable: ``unreachable``.
    """
    if first == 0:
        return _NOTHING
    answer = await mesh.ask(member, Prove(origin=head.origin, index=first), Proved)
    proof, (size, _) = _proved(mesh, answer, head.origin, first)
    return before(first, size, proof.path)


async def _pulled(mesh: MeshClient, member: str, head: Head, first: int) -> tuple[LineageBatch, list[bytes]]:
    batch = await mesh.records(member, head.origin, first, min(BATCH_RECORDS_MAX, head.size - first))
    leaves = [bytes(raw) for raw in batch.records][: head.size - first]
    if (batch.origin, batch.first) != (head.origin, first) or not leaves:
        raise Refused("not_found", f"{member} does not serve {head.origin} {first}")
    return batch, leaves


def _proved(mesh: MeshClient, answer: Proved, origin: str, index: int) -> tuple[TlogProof, tuple[int, bytes]]:
    """The proof of that very record, with size and root of the certificate under it."""
    attested, record, proof = mesh.attested(answer), record_of(answer), TlogProof.parse(answer.proof.encode())
    if (record.origin, record.index, proof.index) != (origin, index, index):
        raise Refused("bad_proof", f"not of {origin} {index}")
    return proof, (attested.checkpoint.size, attested.checkpoint.root)


def _certified(answer: NodeStatus, origin: str) -> int:
    known = {answer.origin: answer.certified, **{mirror.origin: mirror.certified for mirror in answer.mirrors}}
    return known.get(origin, 0)
