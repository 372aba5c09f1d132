"""What a node answers from its file: records, places, proofs. Reading only; everything it says can be checked by whoever asks.

A question is cheap to ask, so its cost is bounded: one message out, at most :data:`FIND_MAX` places, one proof.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from mesh.adapters.store import Store
from mesh.adapters.storequeries import StoredNote
from mesh.core.law.governance import Governance
from mesh.core.law.retain import NOWHERE
from mesh.core.law.roster import Member, Roster
from mesh.core.log.checkpoint import attest_name
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import (
    BarrierAsked,
    BundleAsked,
    BundleGiven,
    Find,
    Found,
    HeardAsked,
    LawAsked,
    LawBatch,
    Leaves,
    LineageBatch,
    Location,
    Prove,
    Proved,
    Pull,
    StatusAsked,
    Supply,
    pack,
    unpack,
)
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol import hearing
from mesh.protocol.members import is_current
from mesh.protocol.serving import announce_batches, fitting, leaf_ids, pull_answer
from mesh.protocol.state import GovernorState
from mesh.roles.recent import Recent

__all__ = ["FIND_MAX", "Question", "announcement", "bundle", "found", "heard", "law", "looked_up", "proved", "pulled", "shown"]

Question = Pull | Leaves | Find | Prove | StatusAsked | LawAsked | BundleAsked | Supply | BarrierAsked | HeardAsked
"""What is answered without a step."""
FIND_MAX: Final = 1_000
_LAW_FRAME_BYTES: Final = 64
_CERTIFICATES_MAX: Final = 8
"""Of each log that are searched for somebody's line: it is not in all, for k make one."""


async def announcement(store: Store, recent: Recent, origin: str, first: int, size: int, note: bytes) -> list[bytes]:
    """The messages that publish the records ``[first, size)`` of the own log, those behind what was pruned."""
    at_hand = recent.announced(first, size)
    if at_hand is not None:
        return announce_batches(origin, first, *at_hand, note)
    while gone := await store.pruned(origin, first, min(BATCH_RECORDS_MAX, size - first)):
        first += len(gone)
    leaves: list[bytes] = []
    while first + len(leaves) < size:
        leaves += await store.records(origin, first + len(leaves), min(BATCH_RECORDS_MAX, size - first - len(leaves)))
    return announce_batches(origin, first, leaves, await store.bodies(_ids(leaves)), note)


async def looked_up(
    store: Store, asked: Pull | Leaves | Find | Prove | LawAsked | BundleAsked, state: GovernorState, *, openings: bool
) -> bytes:
    """The answer to a question.

    Args:
        store: the node's file.
        asked: the question.
        state: the node's.
        openings: whether the asker may see what committed parameters hide.

    Raises:
        Refused: ``not_found``, ``malformed``, ``record_pruned``.
    """
    match asked:
        case Pull(origin=origin):
            newest = state.log.note if origin == state.log.origin else b""
            return await pulled(store, asked, newest, state.governance, openings=openings)
        case Leaves(origin=origin, first=first, count=count):
            with _archived(origin, state.governance):
                return pull_answer(origin, first, await store.records(origin, first, min(count, BATCH_RECORDS_MAX)), {}, {}, b"")
        case Find():
            return await found(store, asked)
        case Prove():
            return await proved(store, asked, state.governance, openings=openings)
        case LawAsked():
            return await law(store, asked)
        case BundleAsked(digest=digest):
            return await bundle(store, digest)


async def shown(store: Store, roster: Roster, me: Member, asker: Member) -> tuple[list[bytes], bytes]:
    """What the file may show another member of what it has signed: notes, and its heartbeat of the largest incarnation, if any."""
    origin, notes = roster.origin(asker), list[bytes]()
    newest = (
        await store.note("checkpoint", origin, latest=True),
        await store.note("cosigned", roster.origin(me), member=asker.name, latest=True),
    )
    notes += [kept.note for kept in newest if kept is not None]
    mine = attest_name(roster.mesh, asker.name).encode()
    for member in roster.members:
        for note in await store.certificates(roster.origin(member), _CERTIFICATES_MAX):
            if mine in note or member.name == asker.name:
                notes.append(note)
                break
    beat = await store.note("heartbeat", origin, latest=True)
    return notes, beat.note if beat is not None else b""


async def pulled(store: Store, ask: Pull, newest: bytes, governance: Governance, *, openings: bool) -> bytes:
    """The answer to a pull.

    Args:
        store: the node's file.
        ask: the question.
        newest: the own log's newest signed checkpoint. Where there is no certificate beyond, it is shown; of others' logs, the newest
            certificate: who holds all records may still lack that.
        governance: by whose roster the smallest certificate beyond is chosen, as in :func:`proved`.
        openings: whether the asker may see what committed parameters hide.
    """
    gone = await store.pruned(ask.origin, ask.first, min(ask.count, BATCH_RECORDS_MAX)) if ask.origin in governance.floors else []
    leaves = [] if gone else await store.records(ask.origin, ask.first, min(ask.count, BATCH_RECORDS_MAX))
    bodies = await store.bodies(_ids(leaves))
    opened = await store.openings([key for leaf in leaves for key in leaf_ids(leaf)[1]]) if openings else {}
    certificate = await _certificate(store, ask.origin, ask.first + 1, governance)
    if certificate is None and not newest:
        certificate = await store.note("certificate", ask.origin, latest=True)
    note = certificate.note if certificate is not None else newest
    leaves = leaves[: fitting(leaves, bodies, opened, note)]
    end, path, start = ask.first + len(leaves) + len(gone), list[bytes](), list[bytes]()
    if certificate is not None and 0 < end < certificate.size:
        path += await store.consistency_path(ask.origin, end, certificate.size)
    if certificate is not None and 0 < ask.first < certificate.size:
        begun = await store.frontier_at(ask.origin, ask.first)
        start += [begun.root(), *await store.consistency_path(ask.origin, ask.first, certificate.size)]
    return pull_answer(ask.origin, ask.first, leaves, bodies, opened, note, path=path, start=start, pruned=gone)


async def _certificate(store: Store, origin: str, at_least: int, governance: Governance) -> StoredNote | None:
    """The smallest one over so many records by the roster in force, else the newest over so many."""
    found = await store.note("certificate", origin, at_least=at_least)
    if found is None or is_current(found.note, governance):
        return found
    return await store.note("certificate", origin, latest=True)


async def law(store: Store, ask: LawAsked) -> bytes:
    """Statements of a governance stream: as many as fit into one message."""
    kept, size = list[msgspec.Raw](), _LAW_FRAME_BYTES
    for data in await store.law(ask.stream, ask.sequence, ask.id, BATCH_RECORDS_MAX):
        size += len(data) + 1
        if size > MESSAGE_BYTES_MAX:
            break
        kept.append(msgspec.Raw(data))
    return pack(LawBatch(statements=kept))


async def heard(store: Store, words: hearing.Words, ask: HeardAsked) -> bytes:
    """What enforcers said last that they have heard: as many as fit into one message."""
    chosen = hearing.page(words, ask.after)
    return hearing.answer(chosen, await store.bodies([identity for _, _, word in chosen for identity in (word.id, word.identity)]))


async def bundle(store: Store, digest: str) -> bytes:
    """The policy bundle of that digest.

    Raises:
        Refused: ``not_found`` if this node has admitted none of that digest.
    """
    data = await store.bundle(digest)
    if data is None:
        raise Refused("not_found", f"bundle {digest[:40]}")
    return pack(BundleGiven(bundle=msgspec.Raw(data)))


async def found(store: Store, ask: Find) -> bytes:
    """The answer to a search."""
    places = await store.find(ask.prefix, min(ask.count, FIND_MAX))
    return pack(Found(records=[Location(id=identity, origin=origin, index=index) for identity, origin, index in places]))


async def proved(store: Store, ask: Prove, governance: Governance, *, openings: bool) -> bytes:
    """One record with its proof, which is empty while the record is not final; ``openings`` as in :func:`pulled`.

    The smallest certificate over it that the members of now have made, else the newest that there is.

    Raises:
        Refused: ``not_found``.
    """
    with _archived(ask.origin, governance):
        leaves = await store.records(ask.origin, ask.index, 1)
    if not leaves:
        raise Refused("not_found", f"{ask.origin} {ask.index}")
    certificate = await _certificate(store, ask.origin, ask.index + 1, governance)
    proof = b""
    if certificate is not None:
        path = await store.inclusion_path(ask.origin, ask.index, certificate.size)
        proof = TlogProof(index=ask.index, path=path, note=certificate.note).encode()
    answer = await pulled(store, Pull(origin=ask.origin, first=ask.index, count=1), b"", governance, openings=openings)
    return pack(Proved(batch=unpack(LineageBatch, answer), proof=proof.decode()))


@contextmanager
def _archived(origin: str, governance: Governance) -> Iterator[None]:
    """Say where an archive is meant to be, if what is read there was pruned."""
    try:
        yield
    except Refused as refusal:
        if refusal.code != "record_pruned":
            raise
        kept = governance.floors.get(origin, NOWHERE)
        raise Refused("record_pruned", f"{refusal.detail}, kept from {kept.below} on; archives: {kept.archive or 'nobody said'}") from None


def _ids(leaves: list[bytes]) -> list[str]:
    return list(dict.fromkeys(key for leaf in leaves for key in leaf_ids(leaf)[0]))
