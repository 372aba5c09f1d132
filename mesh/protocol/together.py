"""Certificates that members make together, of logs whose owner collects no lines: it has left, or is not there.

Rules
-----
1. Each member sees to it that it holds, of every other log, a certificate by the roster in force over all that it knows to have been
   final (its *goal*) and over what it has attested itself. The owner makes them as long as it is a member. It has ``attest_stall_ms``
   from when a size began to lack one, however far it has gone on by then.
2. Who lacks one then says its attest line on the largest size that it has attested, with the lines that it has heard, so that every
   member hears it; ever more rarely while nothing is stored. k lines on one checkpoint, of whose root the records are here, are a
   certificate. A line names no epoch: those of a former certificate count on, as far as their members are there with the same key.
3. An attest key never signs a smaller size than before. Who has attested less is shown the larger size by that, pulls the records from
   any mirror, and attests them if they are right. Nobody attests further than two checkpoints beyond the last certificate; so if an
   owner goes on without ever showing one, its members stand still at last, and meet at the largest size that one of them attested.
   Each line is verified, and every pull is made from one member after the other; but an owner that shows k members different sizes, each
   too late for the others, delays this for as long as that bound reaches.
4. Who has a certificate shows it, once a second, to whoever says a line that is one. That is no line of its own and delays none.
5. Of a log whose owner has left no more is taken beyond the goal than one checkpoint covers, whatever is certified since, and nothing once
   this node has started with a certificate by the roster in force; but for what k members attest. So each change of the roster lets
   a former owner add one checkpoint at most.
6. Who was shown a goal takes what leads to it and nothing else up to there (:mod:`mesh.protocol.proven`). Its note, and that of what was
   attested last, stay known however many sizes are signed; lines are kept by size and root; and what they make is judged as a
   certificate before it is kept.
7. Lines of members that are caught count for no new certificate; one that is shown was made before, or by who did not know.
8. Who cosigns the own log's tree, and another one of that size for it, has proven that itself.

Not here: what a former certificate is worth (:mod:`mesh.core.law.former`), examining records (:mod:`mesh.protocol.holding`).
"""

from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fraud import accuse
from mesh.core.law.governance import Governance
from mesh.core.law.proofs import AnyProof
from mesh.core.law.roster import Roster
from mesh.core.log.certificate import certificate_note
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner, log_verifier, read_checkpoint
from mesh.core.log.note import Line, Note, Verifier, parse_note, verify_lines
from mesh.errors import Refused
from mesh.protocol.holding import Aim, Mirror, MirrorContext
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX, LogState, as_is
from mesh.protocol.members import is_current, was_certificate
from mesh.protocol.proven import sought
from mesh.protocol.step import Effect, NoteDraft, PutNote, Send, Sign, Signed
from mesh.protocol.stored import StoredLog, mirror_of

__all__ = ["cosigned_twice", "lines_due", "resumed", "seek", "take_shared"]

_AGAIN_MS: Final = 1_000
"""Between my line and the same again; twice as long after each."""
_AGAIN_MS_MAX: Final = 32_000
_SIZES_MAX: Final = 4
"""Checkpoints of one log on which lines are collected: the largest ones, and the goal."""


def resumed(origin: str, stored: StoredLog | None, governance: Governance) -> Mirror:
    """Another's log as it goes on under the roster in force."""
    held, roster = mirror_of(origin, stored), governance.roster
    left = all(roster.origin(member) != origin for member in roster.members)
    held = msgspec.structs.replace(held, left=left, goal=held.certified, room=CHECKPOINT_RECORDS_MAX)
    if stored is None:
        return held
    if stored.certificate and not was_certificate(stored.certificate, governance):
        held, stored = msgspec.structs.replace(held, goal=0, certified=0), msgspec.structs.replace(stored, certificate=b"")
    for note in (stored.attested, stored.checkpoint):
        if note:
            held = _knowing(held, note)
    if not stored.certificate:
        return held
    held = msgspec.structs.replace(_knowing(held, stored.certificate), aim=Aim.of(stored.certificate))
    if is_current(stored.certificate, governance):
        return msgspec.structs.replace(held, certificate=stored.certificate, room=0)
    return msgspec.structs.replace(_seeded(held, stored.certificate, roster), certified=0)


def seek(state: Mirror, certificate: bytes, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """The mirror after it was shown at its start that so much was final (rule 6)."""
    state, effects = sought(state, certificate, context)
    return _seeded(state, certificate, context.governance.roster), effects


def _knowing(state: Mirror, note: bytes) -> Mirror:
    """With what the log itself has signed of a believed note."""
    parsed = parse_note(note)
    own = next(line for line in parsed.lines if line.name == state.origin)
    size = Checkpoint.from_text(parsed.text).size
    return msgspec.structs.replace(state, signed={size: Note(parsed.text, (own,)).encode(), **state.signed})


def _seeded(state: Mirror, certificate: bytes, roster: Roster) -> Mirror:
    """With the lines of a former certificate whose members are there (rule 2), each for itself: one whose key has changed is none."""
    note, checkpoint, attesters = parse_note(certificate), read_checkpoint(certificate), _attesters(roster)
    seeds = dict[str, Line]()
    for line in note.lines:
        with suppress(Refused):
            seeds.update((signed.line.name, signed.line) for signed in verify_lines(note.text, [line], attesters))
    place = checkpoint.size, checkpoint.root
    return msgspec.structs.replace(state, lines={**state.lines, place: {**seeds, **state.lines.get(place, {})}})


def lines_due(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Say my line, if a certificate is lacking (rules 1 and 2)."""
    head, now_ms, me = state.attested, context.now_ms, context.me
    if head is None or state.split or state.certified >= max(state.goal, head.size):
        return msgspec.structs.replace(state, lacking=(0, 0)) if state.lacking[0] else state, []
    if state.certified >= state.lacking[0]:  # the owner has certified what was waited for: the next
        state = msgspec.structs.replace(state, lacking=(max(state.goal, head.size), now_ms))
    if not state.left and now_ms - state.lacking[1] <= context.governance.roster.bounds.attest_stall_ms:
        return state, []
    if head.size not in state.signed or now_ms - state.said_ms < min(_AGAIN_MS << min(state.said, 8), _AGAIN_MS_MAX):
        return state, []
    state, effects = _completed(state, context)
    if state.certified >= head.size:
        return state, effects
    text = Checkpoint(state.origin, head.size, head.root).to_text()
    log = next(line for line in parse_note(state.signed[head.size]).lines if line.name == state.origin)
    draft = NoteDraft(attest_name(context.governance.roster.mesh, me.name), text, head.time_s)
    heard = [line for name, line in state.lines.get((head.size, head.root), {}).items() if name != draft.name]
    build = partial(_shared, text, (log, *heard), draft.id)
    effects += [Sign("attest", draft), Send(subjects.checkpoint(me.region, me.name), build)]
    return msgspec.structs.replace(state, said=state.said + 1, said_ms=now_ms), effects


def take_shared(state: Mirror, data: bytes, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Take the lines of members in a note that its log has signed, as was checked (rules 2 and 4).

    Raises:
        Refused: for a bad line of a member's.
    """
    roster, note = context.governance.roster, parse_note(data)
    names = roster.attest_keys().keys() & {line.name for line in note.lines}
    checkpoint = Checkpoint.from_text(note.text)
    if not names:
        return state, []
    if checkpoint.size <= state.certified:
        if len(names) >= roster.k or not state.certificate or context.now_ms - state.shown_ms < _AGAIN_MS:
            return state, []
        if not verify_lines(note.text, note.lines, _attesters(roster)):
            return state, []
        return msgspec.structs.replace(state, shown_ms=context.now_ms), [_show(state.certificate, context, durable=False)]
    if not _holds(state, checkpoint):
        return state, []
    place = checkpoint.size, checkpoint.root
    known = state.lines.get(place, {})
    new = [line for line in note.lines if line.name in names and line.name not in known]
    verified = {signed.line.name: signed.line for signed in verify_lines(note.text, new, _attesters(roster))}
    if not verified:
        return state, []
    lines = {**state.lines, place: {**known, **verified}}
    log = log_verifier(state.origin, context.owner.log_key)  # anybody can put its name on a line
    own = next(line for line in note.lines if (line.name, line.key_id) == (log.name, log.key_id))
    signed = {**state.signed, checkpoint.size: state.signed.get(checkpoint.size, Note(note.text, (own,)).encode())}
    kept = {*sorted(lines)[-_SIZES_MAX:], *([(state.aim.size, state.aim.root)] if state.aim is not None else [])}
    lines = {at: found for at, found in lines.items() if at in kept}
    return _completed(msgspec.structs.replace(state, lines=lines, signed=signed), context)


def cosigned_twice(log: LogState, data: bytes, governance: Governance) -> list[Statement[AnyProof]]:
    """What lines on another tree of the own log prove of members who have cosigned the one of that size that there is; not judged yet.

    Raises:
        Refused: for a note that is malformed.
    """
    note, roster, found = parse_note(data), governance.roster, list[Statement[AnyProof]]()
    said, keys = Checkpoint.from_text(note.text), {**roster.attest_keys(), **roster.witness_keys()}
    for known in (log.outstanding, log.closed):
        if known is None or known.text == note.text or (said.origin, said.size) != (log.origin, known.head.size):
            continue
        both = [line for line in note.lines if line.name in keys and line.name in known.lines and keys[line.name] not in governance.proven]
        found += [accuse(roster.mesh, keys[line.name], [(known.text, known.lines[line.name]), (note.text, line)]) for line in both]
    return found


def _completed(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """With k lines on one checkpoint of members that are not caught, the certificate."""
    roster = context.governance.roster
    names = roster.attest_keys(without=context.governance.frozen).keys()
    full = [
        (size, root)
        for (size, root), lines in state.lines.items()
        if size > state.certified and len(lines.keys() & names) >= roster.k and _stands(state, size, root)
    ]
    if not full:
        return state, []
    size, root = max(full)
    text = parse_note(state.signed[size])
    own = next(line for line in text.lines if line.name == state.origin)
    counting = [line for name, line in state.lines[size, root].items() if name in names]
    note = certificate_note(Note(text.text, (own,)).encode(), counting)
    if not is_current(note, context.governance):
        return msgspec.structs.replace(state, lines={at: lines for at, lines in state.lines.items() if at != (size, root)}), []
    rest = {at: lines for at, lines in state.lines.items() if at[0] > size}
    done = msgspec.structs.replace(state, certified=size, certificate=note, lines=rest, said=0)
    return done, [PutNote("certificate", state.origin, size, note), _show(note, context, durable=True)]


def _holds(state: Mirror, checkpoint: Checkpoint) -> bool:
    """Whether the records are stored that this checkpoint is about."""
    if state.attested is not None and checkpoint.size == state.attested.size:
        return checkpoint.root == state.attested.root
    note = state.signed.get(checkpoint.size)
    return note is not None and checkpoint.size <= state.frontier.size and read_checkpoint(note).root == checkpoint.root


def _stands(state: Mirror, size: int, root: bytes) -> bool:
    """Whether what is stored is this, and its log's own line on it is at hand."""
    if size > state.frontier.size or size not in state.signed or read_checkpoint(state.signed[size]).root != root:
        return False
    known = state.recent.root(size) if state.recent is not None else None
    if size == state.frontier.size:
        known = state.frontier.root()
    elif state.attested is not None and size == state.attested.size:
        known = state.attested.root
    return known == root


def _attesters(roster: Roster) -> list[Verifier]:
    return [cosigner(name, key) for name, key in roster.attest_keys().items()]


def _show(certificate: bytes, context: MirrorContext, *, durable: bool) -> Send:
    return Send(subjects.checkpoint(context.me.region, context.me.name), partial(as_is, certificate), durable=durable)


def _shared(text: bytes, lines: tuple[Line, ...], mine: tuple[str, bytes], signed: Signed) -> bytes:
    return Note(text, (*lines, signed.lines[mine])).encode()
