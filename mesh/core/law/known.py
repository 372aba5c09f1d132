"""What a node that names its frontier is bound to have known: a revocation inside it was no secret to it.

Only frontiers that this node has been in itself are judged, and streams whose author said one thing. Whatever else there is may
have been unknown, and nobody is accused of it.

Not here: whether a frontier was new enough (heartbeats say that).
"""

from collections.abc import Iterable

from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.streams import Chain
from mesh.errors import Refused

__all__ = ["check_known"]


def check_known(governance: Governance, frontier: str, chain: Iterable[tuple[str, str]]) -> None:
    """That nothing of ``chain``, pairs of target type and value, is revoked by a statement that ``frontier`` (its digest) covers.

    Raises:
        Refused: ``revoked``.
    """
    heads = governance.former.get(frontier, ())
    for link in chain:
        if any(_covered(governance, identity, heads) for identity in governance.said_of(link)):
            raise Refused("revoked", f"{link[0]} {link[1][:80]}, as was known in that frontier")


def _covered(governance: Governance, identity: str, heads: Iterable[StreamHead]) -> bool:
    for head in heads:
        stream = governance.streams.get(head.stream)
        if isinstance(stream, Chain) and not head.forked and identity in stream.ids[: head.sequence]:
            return True
    return False
