"""How far each log has come, as what is published shows by itself: recorded, witnessed, final. Each state has its signature.

Rules
-----
1. *Recorded*: the log's own key signed a checkpoint over it. *Witnessed*: besides, a member that is not its owner cosigned such a
   checkpoint, as a witness or by attesting it. *Final*: k members attested one. What is *accepted* stands in the answer that its owner
   gave, and nowhere else.
2. An advance is one step of one log, ``[first, end)``, however many records that are. Of every record each state is said in this order;
   what a later one implies is said with it, if it was not said before.
3. A line counts if its own key made it, whoever sent it on whichever subject: one that is forged, spoilt or by nobody known costs
   nobody else's line. What comes twice, late or in another order changes nothing, and nothing ever goes back.
4. An advance is no promise and nobody signs it: it says what was seen. Whoever wants proof takes the certificate, or `mesh prove`.

Not here: what the records say, whether a log has two histories (auditors look for both), and how the messages come
(:mod:`mesh.roles.tail`).
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from mesh.core.bytes.canonical import Count, Millis, Payload
from mesh.core.law.former import final_under
from mesh.core.law.governance import Governance
from mesh.core.log.certificate import Attested, verify_certificate
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner, log_verifier, witness_name
from mesh.core.log.note import Note, Signed, Verifier, parse_note
from mesh.core.log.record import Origin
from mesh.core.messages import LineageBatch, unpack
from mesh.errors import Refused
from mesh.protocol.members import owner_of, rosters_of

__all__ = ["STATES", "Advance", "Enough", "Reached", "State", "advanced", "note_in"]

State = Literal["recorded", "witnessed", "final"]
STATES: Final[tuple[State, ...]] = ("recorded", "witnessed", "final")
"""In their order."""


class Advance(Payload):
    """Some records of a log came to a state."""

    state: State
    origin: Origin
    first: Count
    """Index of the first of them."""
    end: Count
    """Index behind the last."""
    at_ms: Millis
    """When, as those say who signed it, to the second: the first other member, or the one who made it k. A log does not say when: 0."""


class Enough(Exception):
    """Raised by who is told an advance and does not take it: to them it was not told."""


class Reached(Payload):
    """How many records of a log are in each state."""

    origin: Origin
    recorded: Count = 0
    witnessed: Count = 0
    final: Count = 0


def note_in(kind: str, data: bytes) -> bytes:
    """The signed note of a message on a subject of that kind (``lineage``, ``checkpoint``, ``cosig``); empty if it carries none.

    Raises:
        Refused: the codec's codes.
    """
    return unpack(LineageBatch, data).checkpoint.encode() if kind == "lineage" else data


def advanced(held: Mapping[str, Reached], note: bytes, governance: Governance) -> tuple[dict[str, Reached], list[Advance]]:
    """What a note shows beyond what is ``held``, by origin; nothing for one that nobody known has signed.

    Raises:
        Refused: for what is no note about a log of this mesh.
    """
    parsed = parse_note(note)
    checkpoint = Checkpoint.from_text(parsed.text)
    owner = owner_of(governance, checkpoint.origin)
    before = held.get(checkpoint.origin, Reached(origin=checkpoint.origin))
    if checkpoint.size <= before.final:
        return dict(held), []
    log = log_verifier(checkpoint.origin, owner.log_key)
    own, others = _signed(parsed, [log]), _signed(parsed, _others(governance, owner.name))
    final_ms = _final_ms(parsed, log, governance) if own else None
    at_ms: dict[State, int | None] = {
        "recorded": 0 if own else None,
        "witnessed": 1_000 * min(line.time_s for line in others) if others else None,
        "final": final_ms,
    }
    after, advances = before, list[Advance]()
    for state in STATES:
        when, reached = at_ms[state], getattr(before, state)
        # A witness that speaks before its log is waited for: of every record each state is said in order.
        end = checkpoint.size if when is not None and (state == "recorded" or after.recorded >= checkpoint.size) else 0
        if when is not None and end > reached:
            after = msgspec.structs.replace(after, **{state: end})
            advances.append(Advance(state=state, origin=checkpoint.origin, first=reached, end=end, at_ms=when))
    return {**held, checkpoint.origin: after}, advances


def _others(governance: Governance, owner: str) -> list[Verifier]:
    """The witness and attest keys of all members but the owner, of the roster in force."""
    roster = governance.roster
    names = [(witness_name(roster.mesh, item.name), item.witness_key) for item in roster.members if item.name != owner]
    names += [(attest_name(roster.mesh, item.name), item.attest_key) for item in roster.members if item.name != owner]
    return [cosigner(name, key) for name, key in names]


def _signed(note: Note, verifiers: Iterable[Verifier]) -> list[Signed]:
    """The lines that one of these keys made (rule 3)."""
    known, found = {verifier.name: verifier for verifier in verifiers}, list[Signed]()
    for line in note.lines:
        if line.name in known:
            try:
                found.append(known[line.name].verify(note.text, line))
            except Refused:
                continue
    return found


def _final_ms(note: Note, log: Verifier, governance: Governance) -> int | None:
    """When it was attested by the last of the first k; None if it is not certified."""

    def check(attesters: Mapping[str, str], k: int) -> Attested:
        keys = [log, *(cosigner(name, key) for name, key in attesters.items())]
        lines = tuple(dict.fromkeys(signed.line for signed in _signed(note, keys)))
        return verify_certificate(Note(note.text, lines).encode(), log=log, attesters=attesters, k=k)

    try:
        attested, roster = final_under(rosters_of(governance), check, trusted=governance.roster.epoch)
    except Refused:
        return None
    return 1_000 * sorted(line.time_s for line in attested.attestations)[roster.k - 1]
