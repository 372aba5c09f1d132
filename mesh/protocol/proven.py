"""Records of another's log are taken because they lead to a certificate, not because their owner says so.

Rules
-----
1. Up to the *aim*, the certificate that was shown at the start (the *goal*), or a later one of a log that is too far ahead or whose
   owner has left, records are stored that lead to its root, or to that of another certificate that is believed by the rosters held.
   An answer to a pull shows that by the consistency path from where it ends; so what one answer brings is stored at once, however far
   the certificate is, and one that proves nothing, or little, costs one pull.
2. Nothing is signed for it, and no head is kept, until the aim itself is reached. Then it is attested if every record was right.
3. A record that is wrong in my eyes is stored like the others: others have made it final. It is refused once, signed, and nothing of
   that log is attested from there on. One that is incomplete is waited for, but for openings that were erased
   (:mod:`mesh.protocol.gone`). One that cannot be read is refused and not stored: who cannot read what is final must not count.
4. Of records below a floor of its log (:mod:`mesh.core.law.retain`) the hashes are enough, if they lead there: whoever answers may have
   no more. They are attested with what comes after, as k members have attested them.
5. What the owner alone has signed for a size up to the aim neither stores nor conflicts. It may still prove its fraud.
6. An answer may show instead that the certified tree has another beginning than what is held here: its root where the answer begins,
   and the path from there. That is *split*: this log's owner has signed two histories, and this member was shown the other one. What
   it holds stays, nothing more of that log is taken or signed, the proof against the owner is handed on if its note is at hand, and
   the member is not waited for: nobody could ever give it the other records, and one liar would silence honest members for good.
7. Who was restored and has cosigned another history than the certified one stores it and signs nothing of it.

Not here: whose certificates are believed (:mod:`mesh.core.law.former`), which is the goal (:mod:`mesh.protocol.barrier`).
"""

from collections.abc import Sequence

import msgspec

from mesh.core.law.former import final_under
from mesh.core.law.governance import Governance
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import log_verifier, read_checkpoint
from mesh.core.log.merkle import leaf_hash, verify_consistency
from mesh.core.log.note import Note, parse_note
from mesh.core.messages import LineageBatch
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.attester import storing
from mesh.protocol.gone import passing
from mesh.protocol.histories import Recent, proof_of
from mesh.protocol.holding import (
    MOVED,
    PULL_MS,
    Aim,
    Mirror,
    MirrorContext,
    asked_last,
    conflict,
    examined_leaves,
    taken_sizes,
    to_attest,
    wait,
)
from mesh.protocol.leading import bare_hashes, leading
from mesh.protocol.members import is_current, rosters_of
from mesh.protocol.refusing import evidence, refused_key, say_refused
from mesh.protocol.step import AppendHashes, Ask, Effect, PutNote, SetHead, SetMeta
from mesh.protocol.witness import grown

__all__ = ["aimed_at", "attest_held", "behind", "leads_through", "lowered", "pin_attested", "pull_proven", "sought", "take_proven"]


def aimed_at(state: Mirror, certificate: bytes) -> Mirror:
    """The mirror that takes what leads to this certificate, which was believed, and no others up to there (rule 5)."""
    aim, parsed = Aim.of(certificate), parse_note(certificate)
    own = next(line for line in parsed.lines if line.name == state.origin)
    signed = {**state.signed, aim.size: Note(parsed.text, (own,)).encode()}
    return msgspec.structs.replace(state, aim=aim, signed=signed, staged=(), tail=(), waiting_ms=0, wanted=max(state.wanted, aim.size))


def sought(state: Mirror, certificate: bytes, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """The mirror after it was shown at its start that so much was final; what is held may be another history already (rule 6)."""
    aim = Aim.of(certificate)
    before, root = state.signed.get(aim.size), _root_at(state, aim.size)
    if before is not None and read_checkpoint(before).root != aim.root:
        context.proofs.extend(proof_of(state.origin, (before, certificate), context.owner, context.governance))
    held = msgspec.structs.replace(aimed_at(state, certificate), goal=max(state.goal, aim.size))
    if root in {None, aim.root}:
        return held, []
    size = max((size for size in state.signed if aim.size < size <= state.frontier.size), default=0)
    if size and state.recent is not None:
        notes, path = (certificate, state.signed[size]), state.recent.path(aim.size, size)
        context.proofs.extend(proof_of(state.origin, notes, context.owner, context.governance, root=root, path=path))
    return _split(held, aim, context)


def behind(state: Mirror) -> bool:
    """Whether it does not hold what was final when it started; who is split is not waited for (rule 6)."""
    return state.frontier.size < state.goal and not state.split


def pull_proven(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Ask for what leads to the aim."""
    if context.now_ms - state.asked_ms < PULL_MS:
        return state, []
    asked = msgspec.structs.replace(state, asked_ms=context.now_ms, asked=state.asked + 1)
    return asked, [Ask(asked_last(asked, context), state.origin, asked.frontier.size)]


def take_proven(state: Mirror, batch: LineageBatch, context: MirrorContext, *, quiet: bool = False) -> tuple[Mirror, list[Effect]]:
    """Store what leads to a certificate; ``quiet`` while nothing may be signed or recorded here."""
    size = state.frontier.size
    if not state.seeking or state.aim is None or batch.first > size:
        return state, []
    shown = _believed(state, batch, context)
    leaves = [bytes(raw) for raw in batch.records[size - batch.first :]]
    hashes = [leaf_hash(leaf) for leaf in leaves] or _bare(state, batch, context)
    count, by = leading(state.frontier, hashes, batch.path, aim=state.aim, shown=shown)
    if count and not leaves:
        return _store_hashes(state, hashes[:count], context, quiet=quiet)
    if count:
        return _store(state, leaves[:count], batch, context, by=by, quiet=quiet)
    if shown is not None and _shows_another(state, shown, batch):
        return _other(state, shown, batch, context)
    return msgspec.structs.replace(state, asked=state.asked + state.asked % 2), []  # the next member is asked


def lowered(state: Mirror, batch: LineageBatch, context: MirrorContext) -> Mirror:
    """The mirror that aims at the certificate of an answer which has only hashes of what comes next, if these are enough (rule 4).

    Also where they begin behind what is staged: nobody may have the records that would complete it.
    """
    first = max(batch.first, state.frontier.size)
    if state.seeking or state.frozen or state.split or first > state.held or not bare_hashes(batch, first, context.governance):
        return state
    shown = _believed(state, batch, context)
    return aimed_at(state, shown.note) if shown is not None and shown.size > state.frontier.size else state


def _bare(state: Mirror, batch: LineageBatch, context: MirrorContext) -> list[bytes]:
    """The hashes of what comes next in an answer without records, as far as a floor lets them be enough (rule 4)."""
    return bare_hashes(batch, state.frontier.size, context.governance)[state.frontier.size - batch.first :]


def _believed(state: Mirror, batch: LineageBatch, context: MirrorContext) -> Aim | None:
    """The certificate that an answer carries, if it is one (rule 1)."""
    note, governance = batch.checkpoint.encode(), context.governance
    try:
        shown = Aim.of(note)
        if state.aim is not None and parse_note(note).text == parse_note(state.aim.note).text:
            return state.aim
        rosters, log = rosters_of(governance), log_verifier(state.origin, context.owner.log_key)
        final_under(
            rosters,
            lambda attesters, k: verify_certificate(note, log=log, attesters=attesters, k=k),
            trusted=governance.roster.epoch,
        )
    except Refused:
        return None
    return shown


def _store(
    state: Mirror, leaves: list[bytes], batch: LineageBatch, context: MirrorContext, *, by: Aim, quiet: bool
) -> tuple[Mirror, list[Effect]]:
    """Rules 2 and 3: these leaves are final, as that certificate says."""
    first = state.frontier.size
    found, code = examined_leaves(leaves, batch, context, first=first, after_ms=state.last_ms)
    past = passing(found, {by.note, batch.checkpoint.encode()} if _same(by, batch) else {by.note}, context.governance, context.owner)
    whole = next((at for at, (item, let) in enumerate(zip(found, past, strict=True)) if item.incomplete and not let), len(found))
    records = found[:whole]
    if not records:
        state = msgspec.structs.replace(state, asked=state.asked + state.asked % 2)
        if found:
            return (state, []) if quiet else wait(state, found[0], first, context)
        return (state, []) if quiet else _unreadable(state, leaf_hash(leaves[0]), code, context)
    effects: list[Effect] = [*storing(state.origin, first, records)]
    wrong = next((offset for offset, item in enumerate(records) if item.code and not item.incomplete), None)
    if wrong is not None and state.refused < 0:
        item = records[wrong]
        state = msgspec.structs.replace(state, refused=first + wrong, unsaid=(first + wrong, item.hash, item.code))
        effects += [SetMeta(refused_key(state.origin), first + wrong), *pin_attested(state)]
    state, more = _further(
        msgspec.structs.replace(state, last_ms=records[-1].record.at_ms), [item.hash for item in records], context, quiet=quiet
    )
    return state, [*effects, *more]


def _store_hashes(state: Mirror, hashes: list[bytes], context: MirrorContext, *, quiet: bool) -> tuple[Mirror, list[Effect]]:
    """Rule 4: these are hashes of records that are final, as a certificate says."""
    below = context.governance.floors[state.origin].below
    append = AppendHashes(state.origin, state.frontier.size, tuple(hashes), below)
    state, effects = _further(state, hashes, context, quiet=quiet)
    return state, [append, *effects]


def _further(state: Mirror, hashes: list[bytes], context: MirrorContext, *, quiet: bool) -> tuple[Mirror, list[Effect]]:
    """The mirror once these are stored."""
    effects, frontier = list[Effect](), state.frontier.extend(hashes)
    clash = not leads_through(state, hashes, frontier.size)
    state = msgspec.structs.replace(
        state,
        frontier=frontier,
        recent=(state.recent or Recent(state.frontier, ())).grown(hashes),
        asked_ms=0,
        **{**MOVED, "asked": _asked_after(state, len(hashes))},
    )
    if clash:
        state, more = _cosigned_other(state, context)
        effects += more
    if not state.seeking:
        state, more = _reached(state, context.governance)
        effects += more
    if quiet:
        return state, effects
    state, more = attest_held(state, context)
    return state, [*effects, *more]


def _same(by: Aim, batch: LineageBatch) -> bool:
    """Whether an answer carries a certificate over the same tree: it may be by a newer roster."""
    return bool(batch.checkpoint) and parse_note(batch.checkpoint.encode()).text == parse_note(by.note).text


def _asked_after(state: Mirror, count: int) -> int:
    """Who brings a whole page is asked again; who brings less may be one that wants this to take for ever."""
    return state.asked - 1 + state.asked % 2 if state.asked and count >= BATCH_RECORDS_MAX else state.asked + state.asked % 2


def _cosigned_other(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 7."""
    head = state.witnessed
    if head is None:
        return state, []
    said = f"what is certified, and root {head.root.hex()} at size {head.size}, which was cosigned"
    state, effects = conflict(state, head.size, said, context)
    if state.refused >= 0:
        return state, effects
    return msgspec.structs.replace(state, refused=head.size - 1), [*effects, SetMeta(refused_key(state.origin), head.size - 1)]


def _reached(state: Mirror, governance: Governance) -> tuple[Mirror, list[Effect]]:
    """What is kept of the certificate whose records are all here."""
    aim = state.aim
    if aim is None or state.frontier.size != aim.size:
        return state, []
    if aim.size > state.certified and is_current(aim.note, governance):
        state = msgspec.structs.replace(state, certified=aim.size, certificate=aim.note)
    lone = PutNote("checkpoint", state.origin, aim.size, state.signed[aim.size])
    return state, [lone, PutNote("certificate", state.origin, aim.size, aim.note)]


def attest_held(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Attest what is stored and led to a certificate or a note of its owner's, and say what was found wrong while nothing could be signed.

    Not before its time has come: it may have been stored under a clock that was ahead.
    """
    effects = list[Effect]()
    if state.unsaid is not None:
        index, leaf, code = state.unsaid
        effects += say_refused(state.origin, leaf, index, "wrong", code, me=context.me, writer=context.writer)
        state = msgspec.structs.replace(state, unsaid=None)
    size, head = state.frontier.size, state.attested
    if state.refused >= 0 or state.split or (state.conflicted and size > state.aimed) or not to_attest(state, size):
        return state, effects
    if size not in state.signed or (head is not None and head.size >= size):
        return state, effects
    if size not in taken_sizes(state, context) or state.last_ms > context.now_ms + context.governance.roster.bounds.skew_ms:
        return state, effects
    checkpoint = read_checkpoint(state.signed[size])
    if checkpoint.root != state.frontier.root() or (state.witnessed is not None and state.witnessed.size > size):
        return state, effects
    head = grown(state.witnessed, checkpoint, time_s=context.now_ms // 1000)
    effects += [SetHead("witness", state.origin, head), SetHead("attest", state.origin, head)]
    return msgspec.structs.replace(state, witnessed=head, attested=head), effects


def pin_attested(state: Mirror) -> list[Effect]:
    """Keep the note of what was attested last: from now on newer ones take its place that are not attested."""
    head = state.attested
    if head is None or head.size not in state.signed or read_checkpoint(state.signed[head.size]).root != head.root:
        return []
    return [PutNote("attested", state.origin, head.size, state.signed[head.size])]


def leads_through(state: Mirror, hashes: Sequence[bytes], size: int) -> bool:
    """Whether records with these hashes lead to the root that was cosigned among them, if one was."""
    first, head = state.frontier.size, state.witnessed
    if head is None or not first < head.size <= size:
        return True
    return state.frontier.extend(hashes[: head.size - first]).root() == head.root


def _unreadable(state: Mirror, leaf: bytes, code: str, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 3."""
    if state.refused >= 0:
        return state, []
    index = state.frontier.size
    said = say_refused(state.origin, leaf, index, "wrong", code, me=context.me, writer=context.writer)
    pinned = pin_attested(state)
    return msgspec.structs.replace(state, refused=index), [SetMeta(refused_key(state.origin), index), *pinned, *said]


def _shows_another(state: Mirror, shown: Aim, batch: LineageBatch) -> bool:
    """Rule 6."""
    begun = state.frontier.size
    if not batch.start or not 0 < begun == batch.first < shown.size or batch.start[0] == state.frontier.root().hex():
        return False
    root, *path = [bytes.fromhex(value) for value in batch.start]
    try:
        verify_consistency(begun, shown.size, root, shown.root, path)
    except Refused:
        return False
    return True


def _other(state: Mirror, shown: Aim, batch: LineageBatch, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 6: it is proven."""
    begun = state.signed.get(state.frontier.size)
    if begun is not None and read_checkpoint(begun).root == state.frontier.root():
        root, *path = [bytes.fromhex(value) for value in batch.start]
        notes = begun, shown.note
        context.proofs.extend(proof_of(state.origin, notes, context.owner, context.governance, root=root, path=path))
    return _split(state, shown, context)


def _split(state: Mirror, shown: Aim, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    said = f"{evidence(shown.note)}, which is certified, and another history, of which {state.frontier.size} records are held"
    state, effects = conflict(state, state.frontier.size, said, context)
    return msgspec.structs.replace(state, split=True, staged=(), tail=()), effects


def _root_at(state: Mirror, size: int) -> bytes | None:
    """The root of what is stored at that size, if it is known."""
    if state.frontier.size == size:
        return state.frontier.root()
    return state.recent.root(size) if state.recent is not None else None
