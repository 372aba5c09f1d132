"""Proofs against members, for tests of what follows from them."""

from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.fold import extend
from mesh.core.law.fraud import Fraud, accuse
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Roster
from mesh.core.log.checkpoint import Checkpoint, log_line

__all__ = ["frozen", "two_roots"]


def two_roots(roster: Roster, name: str, key: SecretKey, *, size: int = 3) -> Statement[Fraud]:
    """That this member's log key has signed two roots for one size."""
    origin = roster.origin(roster.member(name))
    texts = [Checkpoint(origin, size, bytes([number]) * 32).to_text() for number in (1, 2)]
    return accuse(roster.mesh, key.public, [(text, log_line(origin, key.public, key.sign(text))) for text in texts])


def frozen(governance: Governance, name: str, key: SecretKey) -> Governance:
    """The same with that member caught."""
    taken = extend(governance, [two_roots(governance.roster, name, key)])
    assert not taken.refused
    return taken.governance
