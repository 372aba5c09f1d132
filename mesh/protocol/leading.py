"""Records that come on a page belong to what is certified if the page shows how they lead there (RFC 9162, 2.1.4.2), however far it is.

Who holds a log up to some size believes nobody who sends it more: it hashes the records onto what it holds, and the path of the page
leads from there to the root that k members attested. So what one page brings is taken at once, and nothing has to wait until the
certificate is reached.

Not here: whose certificates are believed (:mod:`mesh.core.law.former`), what becomes of the records (:mod:`mesh.protocol.proven` for
members, :mod:`mesh.protocol.audit` for auditors).
"""

from collections.abc import Sequence

from mesh.core.law.governance import Governance
from mesh.core.law.retain import NOWHERE
from mesh.core.log.merkle import Frontier, verify_consistency
from mesh.core.messages import LineageBatch
from mesh.errors import Refused
from mesh.protocol.holding import Aim

__all__ = ["bare_hashes", "leading"]


def bare_hashes(batch: LineageBatch, first: int, governance: Governance) -> list[bytes]:
    """The hashes of an answer without records, if it has those of record ``first`` and all of them stand below a floor of the log."""
    below = governance.floors.get(batch.origin, NOWHERE).below
    end = batch.first + len(batch.pruned)
    return [bytes.fromhex(value) for value in batch.pruned] if not batch.records and batch.first <= first < end <= below else []


def leading(frontier: Frontier, hashes: Sequence[bytes], path: Sequence[str], *, aim: Aim, shown: Aim | None) -> tuple[int, Aim]:
    """How many of the records behind what is held lead to a certificate, at most up to the aim; and to which one.

    Args:
        frontier: of what is held.
        hashes: of the records that came behind it.
        path: of the page: from where it ends to ``shown``, in hex.
        aim: a certificate that was believed before.
        shown: the one that the page carries, if that is believed.
    """
    base = frontier.size
    for reached in (aim, shown):
        if reached is not None and base < reached.size <= min(base + len(hashes), aim.size):
            count = reached.size - base
            return (count if frontier.extend(hashes[:count]).root() == reached.root else 0), reached
    if shown is None or not hashes or base + len(hashes) > shown.size:
        return 0, aim
    end = frontier.extend(hashes)
    return (min(len(hashes), aim.size - base) if _leads(end, shown, path) else 0), shown


def _leads(begun: Frontier, to: Aim, path: Sequence[str]) -> bool:
    try:
        verify_consistency(begun.size, to.size, begun.root(), to.root, [bytes.fromhex(value) for value in path])
    except Refused:
        return False
    return True
