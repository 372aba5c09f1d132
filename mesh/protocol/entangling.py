"""Each log names what its owner has cosigned of the others: a history that is rewritten later contradicts all of them.

Rules
-----
1. At most one such record per :data:`ENTANGLE_MS`, with every tree that was cosigned since the last one, the newest of each log.
2. It never comes alone: only where other records wait for a certificate already, one of them newer than the last such record. So
   nodes that have nothing to say do not make each other speak.
3. What it names is its owner's own word, under its log's key. That another's log had that tree is judged by whoever holds both
   (:mod:`mesh.protocol.entangled`): no single record proves who of them lied.

Not here: the cosignatures themselves (:mod:`mesh.protocol.mirror`).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from mesh.core.log.record import Cosigned, CosignedHead
from mesh.limits import COSIGNED_HEADS_MAX
from mesh.protocol.holding import Mirror
from mesh.protocol.lineage import Entangled, LogState, Writer

__all__ = ["ENTANGLE_MS", "entangle"]

ENTANGLE_MS: Final = 10_000
"""Between two of these records."""


def entangle(state: LogState, mirrors: Mapping[str, Mirror], writer: Writer, *, now_ms: int) -> LogState:
    """Append such a record to ``writer`` if one is due (rules 1 and 2); the log as it remembers that."""
    last = state.entangled
    if now_ms - last.at_ms < ENTANGLE_MS or writer.index <= max(state.certified, last.size):
        return state
    new = {
        origin: held.witnessed
        for origin, held in sorted(mirrors.items())
        if held.witnessed is not None and held.witnessed.size > last.sizes.get(origin, 0)
    }
    chosen = list(new.items())[:COSIGNED_HEADS_MAX]
    if not chosen:
        return state
    heads = [CosignedHead(origin=origin, root=head.root.hex(), size=head.size, time_s=head.time_s) for origin, head in chosen]
    writer.append(Cosigned(mesh=writer.mesh, origin=writer.origin, index=writer.index, at_ms=writer.at_ms, heads=heads))
    sizes = {**last.sizes, **{origin: head.size for origin, head in chosen}}
    return msgspec.structs.replace(state, entangled=Entangled(now_ms, writer.index, sizes))
