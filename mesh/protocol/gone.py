"""Who comes too late is let past a decision whose openings were erased, if it is known to be final: nobody repeats it any more.

Rules
-----
1. Only openings that an erasure names, of a record that stands below a certificate: k members of one roster, none older than the one it
   was decided under, attested it, as :mod:`mesh.core.law.former` believes it.
2. The certificate counts only if the records that are stored with it lead to *its* root (:mod:`mesh.protocol.proven`). A log with two
   histories must not have one of them attested for the sake of the other. So it becomes the aim, and its owner's word is not enough.
3. Whose record is not final waits: its owner keeps the openings until it is (:mod:`mesh.roles.erasing`), and serves them.

Not here: what else makes a record incomplete (:mod:`mesh.protocol.attester`).
"""

from collections.abc import Collection, Sequence
from typing import Final

from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.note import parse_note
from mesh.core.log.record import DecisionMade
from mesh.errors import Refused
from mesh.protocol.attester import Examined
from mesh.protocol.evidence import certified
from mesh.protocol.members import rosters_of

__all__ = ["ERASED", "lets_past", "passing"]

ERASED: Final = "erased"
"""The code of a record that lacks only openings that were erased."""


def lets_past(staged: Sequence[Examined], first: int, note: bytes, governance: Governance, owner: Member) -> bool:
    """Whether what stops these records, the first of which has the index ``first``, is one that this note of their log lets pass."""
    stopped = next((at for at, item in enumerate(staged) if item.incomplete), None)
    if stopped is None or staged[stopped].code != ERASED or read_checkpoint(note).size <= first + stopped:
        return False
    return _passes(staged[stopped], _epoch(note, governance, owner))


def passing(records: Sequence[Examined], notes: Collection[bytes], governance: Governance, owner: Member) -> list[bool]:
    """Of each of these records, which lead to the root of the notes, whether it is held as it is though it is incomplete."""
    if all(item.code != ERASED for item in records):
        return [False] * len(records)
    epoch = max((_epoch(note, governance, owner) for note in notes), default=0)
    return [_passes(item, epoch) for item in records]


def _passes(item: Examined, epoch: int) -> bool:
    return item.code == ERASED and isinstance(item.record, DecisionMade) and item.record.roster_epoch <= epoch


def _epoch(note: bytes, governance: Governance, owner: Member) -> int:
    """Of the newest roster whose members make this note of that log a certificate that is believed; 0 if it is none."""
    if len(parse_note(note).lines) == 1:
        return 0
    try:
        _, roster = certified(note, read_checkpoint(note).origin, [owner], rosters_of(governance), governance.roster.epoch)
    except Refused:
        return 0
    return roster.epoch
