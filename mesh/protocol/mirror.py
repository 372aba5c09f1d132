"""A mirror holds another member's log, and says so: witnessed when it only grew, attested when I would have written it.

Rules
-----
1. Records are staged as they come, in order, and examined at once; nothing unsigned is stored. Only a checkpoint signed by the
   log's own key, whose root the staged records lead to, moves them into storage: what an operator of the bus injects is
   thrown away there. What was asked for replaces what is staged.
2. The checkpoint is cosigned as a witness because the tree was grown from the root cosigned before. It is attested only if
   every record is complete and right.
3. A wrong record is refused once, signed, and nothing of that log is attested from there on. A record that stays incomplete is
   refused once as missing, signed, and attested when it is complete after all. Either only once the log's own signature covers it:
   nobody else's words are held against an owner.
4. What is missing is pulled: from the owner first, then from the other members in turn; at most one pull per interval. Only what
   the log's own key has signed is known to be missing. Once staged records led nowhere, all are taken from one member at a time,
   until a checkpoint is reached: whoever sends what the log never signed delays, and no more.
5. A checkpoint seen before is answered with the same lines again: times were persisted with the head.
6. Of a note only what was verified is kept: the log's own line, and the lines of a certificate if they make one. A line that
   somebody added or spoilt costs that line.
7. Two roots signed for one size, or a signed root that another contradicts, are two histories: nothing more is cosigned for that
   log, the incident is recorded with both. Where both notes are at hand they are a proof (:mod:`mesh.core.law.fraud`) that is handed on.
8. A leaf that is no record at all is staged too. Once a signed root covers it, it is refused as wrong, and nothing of that log
   is stored from there on. It accuses nobody: a newer program may write what this one cannot read. Who refuses as wrong what it can
   read, and what is not final, shows that its owner signed it (:mod:`mesh.protocol.accusing`).
9. Where more was cosigned than is held, because storage was set back, records are taken in silence up to there, and must lead to
   the root that was cosigned.
10. An owner that has left is not asked, and told nothing: lines on its log are for all (:mod:`mesh.protocol.together`).
11. Of the log of a member that is caught, by whatever proof, no more is taken, cosigned or attested than is known to be final.
12. An owner whose own answers keep leading elsewhere than its signed roots is recorded as an incident, once; it proves nothing.
13. Up to a certificate that is aimed at, all this does not hold: there records are taken because they lead to it, and what the owner
    alone says is no more than a proof of its fraud (:mod:`mesh.protocol.proven`).
"""

from typing import Final

import msgspec

from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import Checkpoint, log_verifier, read_checkpoint
from mesh.core.log.merkle import Frontier, inclusion_beyond, leaf_hash
from mesh.core.log.note import Note, open_note, parse_note
from mesh.core.messages import LineageBatch
from mesh.errors import Refused
from mesh.protocol.attester import storing
from mesh.protocol.gone import lets_past
from mesh.protocol.histories import Recent
from mesh.protocol.holding import (
    MOVED,
    PULL_MS,
    STAGED_MAX,
    Mirror,
    MirrorContext,
    asked_last,
    conflict,
    examined_leaves,
    my_lines,
    prove,
    remembered,
    taken_sizes,
    to_attest,
    wait,
)
from mesh.protocol.proven import aimed_at, leads_through, lowered, pin_attested, pull_proven, take_proven
from mesh.protocol.refusing import accuse_of, evidence, refused_key, say_refused
from mesh.protocol.step import Ask, Effect, PutNote, SetHead, SetMeta
from mesh.protocol.witness import grown

__all__ = ["pull_due", "take_batch", "take_note"]

_ASTRAY_MIN: Final = 4
"""Answers of an owner that led nowhere before it is an incident: one may have been spoilt on its way."""


def take_batch(state: Mirror, batch: LineageBatch, context: MirrorContext, *, helper: str) -> tuple[Mirror, list[Effect]]:
    """Stage the records of ``batch``, then see whether they complete a checkpoint.

    Args:
        state: the mirror.
        batch: of its log.
        context: what to judge by.
        helper: who was asked for them; empty for what the log's owner has published.

    Raises:
        Refused: for a checkpoint that the log's key did not sign.
    """
    proven = list[Effect]()
    if helper and batch.pruned:
        state = lowered(state, batch, context)
    if state.seeking:
        if helper:  # what is published proves nothing
            state, proven = take_proven(state, batch, context)
    else:
        state = _stage(state, batch, context, helper=helper)
    state, effects = _noted(state, batch, context, helper=helper)
    return state, [*proven, *effects]


def _noted(state: Mirror, batch: LineageBatch, context: MirrorContext, *, helper: str) -> tuple[Mirror, list[Effect]]:
    if batch.checkpoint:
        return take_note(state, batch.checkpoint.encode(), context, answer=not helper)
    return _accept(state, context)


def take_note(state: Mirror, note: bytes, context: MirrorContext, *, answer: bool) -> tuple[Mirror, list[Effect]]:
    """Consider a checkpoint or certificate of this log; ``answer`` whether one that I have cosigned is answered again.

    Raises:
        Refused: for a note that the log's key did not sign.
    """
    shown, (note, checkpoint) = note, _believed(state, note, context)
    lone = len(parse_note(note).lines) == 1
    if lone and state.left and checkpoint.size > state.goal + state.room:
        return state, []  # its former owner goes on alone
    known = _root_at(state, checkpoint.size)
    if known not in {None, checkpoint.root}:
        return _two_roots(state, note, context)
    if known is None and state.recent is not None and state.recent.root(checkpoint.size) not in {None, checkpoint.root}:
        return _older(state, note, checkpoint, state.recent, context)
    if lone and state.frontier.size < checkpoint.size <= state.aimed:
        return state, []  # rule 13
    if lone and context.caught and checkpoint.size > max(state.goal, state.certified):
        return state, []  # rule 11
    if state.witnessed is not None and checkpoint.size == state.witnessed.size <= state.frontier.size:
        state, effects = _certificate(state, note, checkpoint.size)
        return state, effects or (my_lines(state, checkpoint, context) if answer else [])
    if checkpoint.size > state.frontier.size:
        state = msgspec.structs.replace(state, wanted=max(state.wanted, checkpoint.size), signed=remembered(state, note, checkpoint.size))
        if not lone:
            state = _aimed(state, note)
        state = _past_erased(state, shown, context)
    return _accept(state, context)


def _aimed(state: Mirror, certificate: bytes) -> Mirror:
    """With this certificate as the aim, where its owner's word is not enough, or the next of its sizes is too far ahead (rule 13)."""
    near = any(state.frontier.size < other <= state.frontier.size + STAGED_MAX for other in state.signed)
    return aimed_at(state, certificate) if not state.seeking and (state.left or not near) and not state.frozen else state


def _past_erased(state: Mirror, note: bytes, context: MirrorContext) -> Mirror:
    """With this note as the aim, if it is a certificate and lets pass what stops here because its openings were erased."""
    if state.seeking or state.frozen or not lets_past(state.staged, state.frontier.size, note, context.governance, context.owner):
        return state
    return aimed_at(state, note)


def _root_at(state: Mirror, size: int) -> bytes | None:
    """The root that the log's key is known to have signed for that size."""
    if state.witnessed is not None and state.witnessed.size == size:
        return state.witnessed.root
    return read_checkpoint(state.signed[size]).root if size in state.signed else None


def _believed(state: Mirror, note: bytes, context: MirrorContext) -> tuple[bytes, Checkpoint]:
    """Rule 6."""
    roster, log = context.governance.roster, log_verifier(state.origin, context.owner.log_key)
    opened = open_note(note, (log,))
    checkpoint = Checkpoint.from_text(opened.text)
    if checkpoint.origin != state.origin:
        raise Refused("bad_checkpoint", f"of {checkpoint.origin[:80]!r}, signed by {state.origin[:80]!r}")
    if opened.strangers >= roster.k and checkpoint.size > state.certified:
        try:
            verify_certificate(note, log=log, attesters=roster.attest_keys(), k=roster.k)
        except Refused:
            pass
        else:
            return note, checkpoint
    return Note(opened.text, tuple(signed.line for signed in opened.signed)).encode(), checkpoint


def pull_due(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Ask for what is missing (rule 4)."""
    incomplete = next((offset for offset, item in enumerate(state.staged) if item.incomplete), None)
    if state.seeking:
        return pull_proven(state, context)
    if state.frozen or (incomplete is None and state.wanted <= state.held):
        return state, []
    if context.caught and max(taken_sizes(state, context), default=0) <= state.frontier.size:
        return state, []
    if context.now_ms - state.asked_ms < PULL_MS:
        return state, []
    if incomplete is not None:
        state = msgspec.structs.replace(state, staged=state.staged[:incomplete], tail=())
    if state.alone and state.asked % 2 == 0:
        state = msgspec.structs.replace(state, staged=(), tail=())
    asked = msgspec.structs.replace(state, asked_ms=context.now_ms, asked=state.asked + 1)
    return asked, [Ask(asked_last(asked, context), state.origin, asked.held)]


def _stage(state: Mirror, batch: LineageBatch, context: MirrorContext, *, helper: str) -> Mirror:
    have, place = state.held - state.frontier.size, batch.first - state.frontier.size
    start = min(max(place, 0), have) if helper else have
    leaves = [bytes(raw) for raw in batch.records[max(start - place, 0) :]][: STAGED_MAX - start]
    if place > have or not leaves or state.frozen:
        return state  # a gap: once a checkpoint says that it is one, what is between is pulled
    asked = asked_last(state, context)
    if state.alone and helper not in {"", context.owner.name, asked}:
        return state
    kept, unread = state.staged[:start], state.tail[: max(start - len(state.staged), 0)]
    if unread:
        grown_ = msgspec.structs.replace(state, tail=(*unread, *map(leaf_hash, leaves)))
    else:
        examined, code = examined_leaves(
            leaves, batch, context, first=state.frontier.size + start, after_ms=kept[-1].record.at_ms if kept else state.last_ms
        )
        before = state.staged[start : start + len(examined)]
        tail = tuple(leaf_hash(leaf) for leaf in leaves[len(examined) :])
        if not tail and [item.hash for item in before] == [item.hash for item in examined]:
            # The same again: what was complete stays so, and what follows stays.
            better = (old if new.incomplete else new for old, new in zip(before, examined, strict=True))
            grown_ = msgspec.structs.replace(state, staged=(*kept, *better, *state.staged[start + len(examined) :]))
        else:
            grown_ = msgspec.structs.replace(state, staged=(*kept, *examined), tail=tail, tail_code=code)
    progress = helper == asked != "" and grown_.held > state.held and not any(item.incomplete for item in grown_.staged)
    # Who brings what is next is asked again.
    return msgspec.structs.replace(grown_, asked=state.asked - 1 + state.asked % 2) if progress else grown_


def _accept(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rules 1, 7 and 8: the nearest signed size that the staged records lead to."""
    if state.frozen or state.seeking:
        return state, []
    base, frontier, other = state.frontier.size, state.frontier, 0
    hashes = [*(item.hash for item in state.staged), *state.tail]
    for size in taken_sizes(state, context):
        if not base < size <= state.held:
            continue
        frontier = frontier.extend(hashes[frontier.size - base : size - base])
        if frontier.root() != read_checkpoint(state.signed[size]).root:
            other = other or size
        elif other:
            said = f"{evidence(state.signed[other])} and, of another history, {evidence(state.signed[size])}"
            tree = Recent(state.frontier, tuple(hashes))
            prove(state, (state.signed[other], state.signed[size]), context, root=tree.root(other), path=tree.path(other, size))
            return conflict(state, other, said, context)
        elif size > base + len(state.staged):
            return _unreadable(state, context)
        else:
            return _take_in(state, frontier, context)
    return _astray(state, context) if other else (state, [])


def _take_in(state: Mirror, frontier: Frontier, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rules 1 and 2: these staged records are what the log has signed."""
    first, note, before = state.frontier.size, state.signed[frontier.size], state.frontier
    checkpoint, records = read_checkpoint(note), state.staged[: frontier.size - first]
    incomplete = next((offset for offset, item in enumerate(records) if item.incomplete), None)
    if incomplete is not None:
        return wait(state, records[incomplete], first + incomplete, context)
    if not leads_through(state, [item.hash for item in records], frontier.size):
        return conflict(state, frontier.size, f"{evidence(note)}, which does not continue what was cosigned before", context)
    silent = state.witnessed is not None and frontier.size < state.witnessed.size  # rule 9
    head = state.witnessed if silent else grown(state.witnessed, checkpoint, time_s=context.now_ms // 1000)
    effects: list[Effect] = [*storing(state.origin, first, records), PutNote("checkpoint", state.origin, frontier.size, note)]
    if not silent and head is not None:
        effects.append(SetHead("witness", state.origin, head))
    state = msgspec.structs.replace(
        state,
        frontier=frontier,
        recent=(state.recent or Recent(state.frontier, ())).grown([item.hash for item in records]),
        last_ms=records[-1].record.at_ms,
        staged=state.staged[len(records) :],
        witnessed=head,
        **MOVED,
    )
    wrong = next((offset for offset, item in enumerate(records) if item.code), None)
    if wrong is not None and state.refused < 0:
        effects += pin_attested(state)
        hashes = [item.hash for item in records]
        state, said = _refuse(state, hashes, wrong, records[wrong].code, context, before=before, size=frontier.size)
        effects += said
    state, certificate = _certificate(state, note, checkpoint.size)
    if state.refused < 0 and not silent and head is not None and to_attest(state, head.size):
        state = msgspec.structs.replace(state, attested=head)
        effects.append(SetHead("attest", state.origin, head))
    effects += [*certificate, *my_lines(state, checkpoint, context)]
    state, more = _accept(state, context)
    return state, [*effects, *more]


def _astray(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """What is staged is not what the log signed, whoever sent it: fetch it again, from one member at a time (rules 4 and 12)."""
    reach = max(size for size in state.signed if size <= state.frontier.size + STAGED_MAX)
    if state.alone and state.held < reach:
        return state, []  # a root that lies further on may show that the one before it is the lie
    if state.alone and state.astray >= 0 and asked_last(state, context) == context.owner.name:
        count, since_ms = state.astray + 1, state.astray_ms if state.astray else context.now_ms
        if count >= _ASTRAY_MIN and context.now_ms - since_ms > context.governance.roster.bounds.attest_stall_ms:
            said = f"what {context.owner.name} answers does not lead to its signed root: {evidence(state.note)}"
            context.writer.alarm("bad_checkpoint", f"{state.origin}: {said}")
            count = -1
        state = msgspec.structs.replace(state, astray=count, astray_ms=since_ms)
    return msgspec.structs.replace(state, staged=(), tail=(), waiting_ms=0, alone=True, asked=state.asked + state.asked % 2), []


def _unreadable(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 8."""
    index = state.frontier.size + len(state.staged)
    effects: list[Effect] = [SetMeta(refused_key(state.origin), index)]
    if state.refused < 0:
        effects += say_refused(state.origin, state.tail[0], index, "wrong", state.tail_code, me=context.me, writer=context.writer)
    # Nothing before it is stored either: the frontier must be where a signed size is, and none lies between.
    return msgspec.structs.replace(state, refused=index, staged=(), tail=(), waiting_ms=0), effects


def _refuse(
    state: Mirror, hashes: list[bytes], wrong: int, code: str, context: MirrorContext, *, before: Frontier, size: int
) -> tuple[Mirror, list[Effect]]:
    """Say that this record behind ``before`` is wrong, which the log has signed for ``size``: as a part of a proof, unless it is final."""
    origin, leaf, index, note = state.origin, hashes[wrong], before.size + wrong, state.signed[size]
    marked = SetMeta(refused_key(state.origin), index)
    refused = msgspec.structs.replace(state, refused=index)
    if index < max(state.goal, state.certified) or len(parse_note(note).lines) > 1:
        return refused, [marked, *say_refused(origin, leaf, index, "wrong", code, me=context.me, writer=context.writer)]
    path = inclusion_beyond(before, hashes, index, size)
    kept, said = accuse_of(origin, leaf, index, code, note=note, path=path, me=context.me, writer=context.writer)
    return msgspec.structs.replace(refused, refusal=kept, refusal_ms=context.now_ms), [marked, *said]


def _certificate(state: Mirror, note: bytes, size: int) -> tuple[Mirror, list[Effect]]:
    """Keep the note, which is believed, as a certificate if it is a new one: with the log's line stand others then."""
    if size <= state.certified or len(parse_note(note).lines) == 1:
        return state, []
    return msgspec.structs.replace(state, certified=size, certificate=note), [PutNote("certificate", state.origin, size, note)]


def _two_roots(state: Mirror, note: bytes, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 7, for one size."""
    checkpoint = read_checkpoint(note)
    size, head = checkpoint.size, state.witnessed
    before = evidence(state.signed[size]) if size in state.signed else f"root {head.root.hex() if head is not None else ''}"
    if size in state.signed:
        prove(state, (state.signed[size], note), context)
    if _beside(state, note, size):
        return state, []
    return conflict(state, size, f"{evidence(note)} and, of another history, {before}", context)


def _older(state: Mirror, note: bytes, checkpoint: Checkpoint, recent: Recent, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 7, for a size that was passed long ago: what is held was signed, and does not begin so."""
    old, before = checkpoint.size, f"root {state.frontier.root().hex()} at {state.frontier.size}"
    if size := max((size for size in state.signed if old < size <= state.frontier.size), default=0):
        before = evidence(state.signed[size])
        prove(state, (note, state.signed[size]), context, root=recent.root(old), path=recent.path(old, size))
    if _beside(state, note, old):
        return state, []
    return conflict(state, old, f"{evidence(note)} and, of another history, {before}", context)


def _beside(state: Mirror, note: bytes, size: int) -> bool:
    """Whether its owner alone says so, of what is certified otherwise (rule 13)."""
    return size <= state.aimed and len(parse_note(note).lines) == 1
