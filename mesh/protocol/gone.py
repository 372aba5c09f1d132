"""Who comes late is let past a decision whose openings were erased, if it is known to be final: nobody repeats it any more.

Rules
-----
1. Only openings that an erasure names, of a record that stands below a certificate: k members of one roster, none older than the one it
   was decided under, attested it, as :mod:`mesh.core.law.former` believes it.
2. The certificate counts only if the records that are staged lead to *its* root. A log with two histories must not have one of them
   attested for the sake of the other.
3. Whose record is not final waits: its owner keeps the openings until it is (:mod:`mesh.roles.erasing`), and serves them.

Not here: what else makes a record incomplete (:mod:`mesh.protocol.attester`).
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from mesh.core.law.former import final_under
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import Checkpoint, log_verifier
from mesh.core.log.merkle import Frontier
from mesh.core.log.note import parse_note
from mesh.core.log.record import DecisionMade
from mesh.errors import Refused
from mesh.protocol.attester import Examined

__all__ = ["ERASED", "Certified", "certified", "passes", "reached"]

ERASED: Final = "erased"
"""The code of a record that lacks only openings that were erased."""
_KEPT_MAX: Final = 64


class Certified(NamedTuple):
    """That a log is final up to some size."""

    root: bytes
    epoch: int
    """Of the newest roster whose members said so."""


def certified(
    known: Mapping[int, Certified], note: bytes, checkpoint: Checkpoint, governance: Governance, owner: Member, *, stored: int
) -> Mapping[int, Certified]:
    """What is ``known`` of sizes beyond ``stored``, with this note of the log if it is a certificate; nothing where nothing is erased."""
    kept = {size: item for size, item in known.items() if size > stored}
    if governance.erased and checkpoint.size > stored and checkpoint.size not in kept and len(parse_note(note).lines) > 1:
        log, trusted = log_verifier(checkpoint.origin, owner.log_key), governance.roster.epoch
        try:
            _, roster = final_under(
                governance.rosters.chain, lambda keys, k: verify_certificate(note, log=log, attesters=keys, k=k), trusted=trusted
            )
        except Refused:
            return kept
        kept[checkpoint.size] = Certified(checkpoint.root, roster.epoch)
    return {size: kept[size] for size in sorted(kept)[:_KEPT_MAX]}


def reached(known: Mapping[int, Certified], frontier: Frontier, staged: Sequence[Examined], tail: Sequence[bytes]) -> dict[int, int]:
    """Size to epoch of what is final and to whose root the staged records lead (rule 2); nothing if no record needs it.

    Args:
        known: sizes of the log that are final.
        frontier: of the records in storage.
        staged: those behind them, in order.
        tail: leaf hashes of more behind those.
    """
    if all(item.code != ERASED for item in staged):
        return {}
    hashes, found, at = [*(item.hash for item in staged), *tail], dict[int, int](), frontier
    for size in sorted(size for size in known if frontier.size < size <= frontier.size + len(hashes)):
        at = at.extend(hashes[at.size - frontier.size : size - frontier.size])
        if at.root() == known[size].root:
            found[size] = known[size].epoch
    return found


def passes(item: Examined, index: int, reach: Mapping[int, int]) -> bool:
    """Whether the record at ``index``, incomplete as it is, is held as it is, where so much is final (rule 1)."""
    if item.code != ERASED or not isinstance(item.record, DecisionMade):
        return False
    epoch = item.record.roster_epoch
    return any(index < size and by >= epoch for size, by in reach.items())
