"""Whether a log has two histories, as far as one member can tell, and what proves it to others.

Rules
-----
1. Of each log the hashes of its last records are remembered, so that an older checkpoint that comes late is compared with the tree that is
   held: what others were shown instead may be of any size.
2. What is further back than that, or than the certificate that was held at the start, is not compared: somebody else's is.
3. A proof is made of notes that the log's own key has signed, and only of a member that is not caught yet.

Not here: what follows for the mirror (:mod:`mesh.protocol.mirror`), what a proof is (:mod:`mesh.core.law.fraud`).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.fraud import Fraud, accuse
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.merkle import Frontier, consistency_beyond
from mesh.core.log.note import parse_note

__all__ = ["RECENT_MAX", "Recent", "accused", "proof_of"]

RECENT_MAX: Final = 1_024
"""Hashes of one log: 32 kB; half of them are forgotten at once."""


class Recent(msgspec.Struct, frozen=True):
    """The last records of a log that are stored."""

    before: Frontier
    """Of the records before them."""
    hashes: tuple[bytes, ...]

    def grown(self, hashes: Sequence[bytes]) -> "Recent":
        """With these behind them."""
        longer = (*self.hashes, *hashes)
        if len(longer) <= RECENT_MAX:
            return Recent(self.before, longer)
        cut = len(longer) - RECENT_MAX // 2
        return Recent(self.before.extend(longer[:cut]), longer[cut:])

    def root(self, size: int) -> bytes | None:
        """Of the tree of that size, if it is known."""
        known = max(self.before.size, 1) <= size <= self.before.size + len(self.hashes)
        return self.before.extend(self.hashes[: size - self.before.size]).root() if known else None

    def path(self, old: int, new: int) -> tuple[bytes, ...]:
        """What leads from one that is known to a larger one."""
        return consistency_beyond(self.before, self.hashes, old, new)


def proof_of(
    origin: str, notes: Sequence[bytes], owner: Member, governance: Governance, *, root: bytes | None = None, path: Sequence[bytes] = ()
) -> list[Statement[Fraud]]:
    """What these two notes prove, with what leads from the smaller to the larger; nothing if that member is caught already."""
    return [] if governance.caught(owner) else [accused(origin, notes, owner, governance.roster.mesh, root=root, path=path)]


def accused(
    origin: str, notes: Sequence[bytes], owner: Member, mesh: str, *, root: bytes | None = None, path: Sequence[bytes] = ()
) -> Statement[Fraud]:
    """As :func:`proof_of`, whether it is caught or not. Beside the log's own line a note may carry any others, also under its name."""
    log = log_verifier(origin, owner.log_key)
    mine = log.name, log.key_id
    halves = [(note.text, line) for note in map(parse_note, notes) for line in note.lines if (line.name, line.key_id) == mine]
    return accuse(mesh, owner.log_key, halves, root=root or b"", path=path)
