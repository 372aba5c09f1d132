"""Certificates that members make together, of logs whose owner collects no lines: it has left, or is not there.

Rules
-----
1. Each member sees to it that it holds, of every other log, a certificate by the roster in force over all that was ever final of it
   (its *goal*) and that it has attested itself. The owner makes them as long as it is a member; it is waited for no longer than
   ``attest_stall_ms``.
2. Who lacks one says its attest line on the largest size that it has attested, with the lines that it has heard, so that every member
   hears it; ever more rarely while nothing changes. k lines on one checkpoint, of which it holds the records, are a certificate. A line
   names no epoch: those of a former certificate count on, as far as their members are there.
3. An attest key never signs a smaller size than before. Who has attested less is shown the larger size by that, pulls the records from
   any mirror, and attests them as always; so all who can come to the largest one. What one member says or withholds changes nothing
   for the others: each line is verified, and every pull is made from one after the other.
4. Who has a certificate shows it to whoever says a line.
5. Of a log whose owner has left no more is taken beyond the goal than one checkpoint covers, and nothing once this node has started
   with a certificate by the roster in force; but for what k members attest. A former owner cannot grow its log for ever.
6. A member is *behind* until its mirrors hold what others showed it, at its start, to have been final. A log that it refuses or of which it
   holds another history is left out: what it holds of that does not lead there, whoever is asked.
7. While nothing may be signed, because a clock is not trusted or the next roster has begun, records are stored all the same as far as
   a member is behind: or nobody would ever hold what those wait for who would go over. They are attested later.

8. Who cosigns the own log's tree, and another one of that size for it, has proven that itself.
9. Lines of members that are caught count for no new certificate; one that is shown was made before, or by who did not know.

Not here: what a former certificate is worth (:mod:`mesh.core.law.former`), examining records (:mod:`mesh.protocol.mirror`).
"""

from functools import partial
from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fraud import Fraud, accuse
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member, Roster
from mesh.core.log.certificate import certificate_note, verify_certificate
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner, log_verifier, read_checkpoint
from mesh.core.log.note import Line, Note, Verifier, parse_note, verify_lines
from mesh.core.messages import LineageBatch
from mesh.errors import Refused
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX, LogState
from mesh.protocol.mirror import Mirror, MirrorContext, take_batch, taken_sizes
from mesh.protocol.step import Append, Effect, Locate, NoteDraft, PutBody, PutNote, PutOpenings, Send, SetHead, Sign, Signed
from mesh.protocol.stored import StoredLog, mirror_of
from mesh.protocol.witness import grown

__all__ = [
    "attest_held",
    "behind",
    "cosigned_twice",
    "is_current",
    "lines_due",
    "logs_of",
    "owner_of",
    "resumed",
    "rosters_of",
    "seek",
    "take_quietly",
    "take_shared",
]

_AGAIN_MS: Final = 1_000
"""Between my line and the same again; twice as long after each."""
_AGAIN_MS_MAX: Final = 32_000
_STORED: Final = (Append, Locate, PutBody, PutNote, PutOpenings)
_SIZES_MAX: Final = 4
"""Sizes of one log on which lines are collected: the largest ones."""


def rosters_of(governance: Governance) -> tuple[Roster, ...]:
    """From the first one to the one in force, without a gap; only that, if it is aside."""
    chain = governance.rosters.chain[: governance.roster.epoch]
    return chain if chain and chain[-1] == governance.roster else (governance.roster,)


def logs_of(governance: Governance) -> tuple[str, ...]:
    """The origins of all logs of all who are or were members: those of now first."""
    rosters = reversed(rosters_of(governance))
    return tuple(dict.fromkeys(roster.origin(member) for roster in rosters for member in roster.members))


def owner_of(governance: Governance, origin: str) -> Member:
    """Whose log it is, as the newest roster up to the one in force says that knows it.

    Raises:
        Refused: ``unknown_member``.
    """
    for roster in reversed(rosters_of(governance)):
        for member in roster.members:
            if roster.origin(member) == origin:
                return member
    raise Refused("unknown_member", origin[:80])


def is_current(note: bytes, governance: Governance) -> bool:
    """Whether it is a certificate by the roster in force."""
    roster = governance.roster
    try:
        origin = read_checkpoint(note).origin
        log = log_verifier(origin, owner_of(governance, origin).log_key)
        verify_certificate(note, log=log, attesters=roster.attest_keys(), k=roster.k)
    except Refused:
        return False
    return True


def resumed(origin: str, stored: StoredLog | None, governance: Governance, *, now_ms: int) -> Mirror:
    """Another's log as it goes on under the roster in force."""
    held, roster = mirror_of(origin, stored), governance.roster
    left = all(roster.origin(member) != origin for member in roster.members)
    held = msgspec.structs.replace(held, left=left, goal=held.certified, room=CHECKPOINT_RECORDS_MAX, moved_ms=now_ms)
    if stored is None:
        return held
    if stored.checkpoint:
        held = _knowing(held, stored.checkpoint)
    if not stored.certificate:
        return held
    if is_current(stored.certificate, governance):
        return msgspec.structs.replace(_knowing(held, stored.certificate), certificate=stored.certificate, room=0)
    return msgspec.structs.replace(_seeded(held, stored.certificate, roster), certified=0)


def seek(state: Mirror, certificate: bytes, governance: Governance) -> Mirror:
    """The mirror after it was shown that so much was final (rule 6)."""
    size = read_checkpoint(certificate).size
    sought = _seeded(msgspec.structs.replace(state, goal=max(state.goal, size)), certificate, governance.roster)
    return sought if size <= state.frontier.size else msgspec.structs.replace(sought, wanted=max(state.wanted, size))


def _knowing(state: Mirror, note: bytes) -> Mirror:
    """With what the log itself has signed of a believed note."""
    parsed = parse_note(note)
    own = next(line for line in parsed.lines if line.name == state.origin)
    size = Checkpoint.from_text(parsed.text).size
    return msgspec.structs.replace(state, signed={size: Note(parsed.text, (own,)).encode(), **state.signed})


def _seeded(state: Mirror, certificate: bytes, roster: Roster) -> Mirror:
    """With the lines of a former certificate whose members are there (rule 2)."""
    note, size = parse_note(certificate), read_checkpoint(certificate).size
    seeds = {signed.line.name: signed.line for signed in verify_lines(note.text, note.lines, _attesters(roster))}
    known = _knowing(state, certificate)
    if read_checkpoint(known.signed[size]).to_text() != note.text:
        return known  # of another history than the one that is known here
    return msgspec.structs.replace(known, lines={**state.lines, size: {**seeds, **state.lines.get(size, {})}})


def behind(state: Mirror, *, stall_ms: int, now_ms: int) -> bool:
    """Rule 6."""
    if state.frontier.size >= state.goal or state.frozen:
        return False
    other = state.alone and state.frontier.size > 0 and now_ms - state.moved_ms > stall_ms
    return not other


def take_quietly(state: Mirror, batch: LineageBatch, context: MirrorContext, *, helper: str) -> tuple[Mirror, list[Effect]]:
    """As :func:`mesh.protocol.mirror.take_batch`, but nothing is signed or recorded for it (rule 7).

    Raises:
        Refused: for a checkpoint that the log's key did not sign.
    """
    held, effects = take_batch(state, batch, context, helper=helper)
    if held.conflicted or held.refused != state.refused:  # to be found again, and said, by the next start
        return msgspec.structs.replace(state, conflicted=held.conflicted, refused=held.refused), []
    kept: list[Effect] = [effect for effect in effects if isinstance(effect, _STORED)]
    return msgspec.structs.replace(held, witnessed=state.witnessed, attested=state.attested, missing=state.missing), kept


def attest_held(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Attest what was stored quietly (rule 7). It is what I would have written, or it would not have been stored so."""
    size, head = state.frontier.size, state.attested
    if state.refused >= 0 or state.conflicted or size not in state.signed or (head is not None and head.size >= size):
        return state, []
    checkpoint = read_checkpoint(state.signed[size])
    if size not in taken_sizes(state, context):
        return state, []
    if checkpoint.root != state.frontier.root() or (state.witnessed is not None and state.witnessed.size > size):
        return state, []
    head = grown(state.witnessed, checkpoint, time_s=context.now_ms // 1000)
    effects: list[Effect] = [SetHead("witness", state.origin, head), SetHead("attest", state.origin, head)]
    return msgspec.structs.replace(state, witnessed=head, attested=head), effects


def lines_due(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Say my line, if a certificate is lacking (rules 1 and 2)."""
    head, now_ms, me = state.attested, context.now_ms, context.me
    if head is None or state.certified >= max(state.goal, head.size):
        return state, []
    if not state.left and now_ms - state.moved_ms <= context.governance.roster.bounds.attest_stall_ms:
        return state, []
    if head.size not in state.signed or now_ms - state.said_ms < min(_AGAIN_MS << min(state.said, 8), _AGAIN_MS_MAX):
        return state, []
    state, effects = _completed(state, context)
    if state.certified >= head.size:
        return state, effects
    text = Checkpoint(state.origin, head.size, head.root).to_text()
    log = next(line for line in parse_note(state.signed[head.size]).lines if line.name == state.origin)
    draft = NoteDraft(attest_name(context.governance.roster.mesh, me.name), text, head.time_s)
    heard = [line for name, line in state.lines.get(head.size, {}).items() if name != draft.name]
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
        if len(names) >= roster.k or not state.certificate or context.now_ms - state.said_ms < _AGAIN_MS:
            return state, []
        return msgspec.structs.replace(state, said_ms=context.now_ms), [_show(state.certificate, context)]
    if not _holds(state, checkpoint):
        return state, []
    known = state.lines.get(checkpoint.size, {})
    new = [line for line in note.lines if line.name in names and line.name not in known]
    verified = {signed.line.name: signed.line for signed in verify_lines(note.text, new, _attesters(roster))}
    if not verified:
        return state, []
    lines = {**state.lines, checkpoint.size: {**known, **verified}}
    own = next(line for line in note.lines if line.name == state.origin)
    signed = {**state.signed, checkpoint.size: state.signed.get(checkpoint.size, Note(note.text, (own,)).encode())}
    kept = sorted(lines)[-_SIZES_MAX:]
    return _completed(msgspec.structs.replace(state, lines={size: lines[size] for size in kept}, signed=signed), context)


def cosigned_twice(log: LogState, data: bytes, governance: Governance) -> list[Statement[Fraud]]:
    """What lines on another tree of the own log prove of members who have cosigned the one of that size that there is; not judged yet.

    Raises:
        Refused: for a note that is malformed.
    """
    note, roster, found = parse_note(data), governance.roster, list[Statement[Fraud]]()
    said, keys = Checkpoint.from_text(note.text), {**roster.attest_keys(), **roster.witness_keys()}
    for known in (log.outstanding, log.closed):
        if known is None or known.text == note.text or (said.origin, said.size) != (log.origin, known.head.size):
            continue
        both = [line for line in note.lines if line.name in keys and line.name in known.lines and keys[line.name] not in governance.proven]
        found += [accuse(roster.mesh, keys[line.name], [(known.text, known.lines[line.name]), (note.text, line)]) for line in both]
    return found


def _completed(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """With k lines on one checkpoint of members that are not caught, the certificate."""
    roster, frozen = context.governance.roster, context.governance.frozen
    names = {attest_name(roster.mesh, member.name) for member in roster.members if member.name not in frozen}
    full = [
        size
        for size, lines in state.lines.items()
        if len(lines.keys() & names) >= roster.k and state.certified < size <= state.frontier.size and size in state.signed
    ]
    if not full:
        return state, []
    size = max(full)
    text = parse_note(state.signed[size])
    own = next(line for line in text.lines if line.name == state.origin)
    counting = [line for name, line in state.lines[size].items() if name in names]
    note = certificate_note(Note(text.text, (own,)).encode(), counting)
    rest = {other: lines for other, lines in state.lines.items() if other > size}
    done = msgspec.structs.replace(state, certified=size, certificate=note, lines=rest, said=0)
    return done, [PutNote("certificate", state.origin, size, note), _show(note, context)]


def _holds(state: Mirror, checkpoint: Checkpoint) -> bool:
    """Whether the records are stored that this checkpoint is about."""
    if state.attested is not None and checkpoint.size == state.attested.size:
        return checkpoint.root == state.attested.root
    note = state.signed.get(checkpoint.size)
    return note is not None and checkpoint.size <= state.frontier.size and read_checkpoint(note).root == checkpoint.root


def _attesters(roster: Roster) -> list[Verifier]:
    return [cosigner(name, key) for name, key in roster.attest_keys().items()]


def _show(certificate: bytes, context: MirrorContext) -> Send:
    return Send(subjects.checkpoint(context.me.region, context.me.name), partial(_as_is, certificate), durable=True)


def _as_is(data: bytes, _signed: Signed) -> bytes:
    return data


def _shared(text: bytes, lines: tuple[Line, ...], mine: tuple[str, bytes], signed: Signed) -> bytes:
    return Note(text, (*lines, signed.lines[mine])).encode()
