"""How one stream takes over from another: what was handed over is put before what its own signers say, and what that leaves of the former.

Not here: which streams change hands (:mod:`mesh.core.law.succession`), the fold that asks (:mod:`mesh.core.law.fold`).
"""

import sys
from collections.abc import Container, Mapping, Sequence

from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import DENYING, Governance
from mesh.core.law.heartbeat import ENDED
from mesh.core.law.reign import base_of
from mesh.core.law.streams import Chain, Fork, Growth, Link, Stream, leading
from mesh.core.law.succession import Reign
from mesh.core.law.travel import Said, link_of

__all__ = ["ended_by", "seeded", "taking_over", "voiding"]


def taking_over(
    governance: Governance, said: Mapping[str, Stream], reigns: Mapping[str, Reign], new: Sequence[Statement[Said]]
) -> tuple[dict[str, Stream], frozenset[str]]:
    """All streams, those that went to other signers with what was handed over, once all of it is held; and which those are."""
    streams, taken, added = dict(said), set[str](), dict[str, list[Link]]()
    for statement in new:
        name, link = link_of(statement)
        added.setdefault(name, []).append(link)
    for reign in reigns.values():
        name = reign.stream
        if reign.upto.sequence == 0:
            taken.add(name)
        elif name in governance.taken and governance.reigns.get(name) == reign:  # as before, and what was said since
            growth = Growth(governance.streams[name], most=sys.maxsize, room=sys.maxsize)
            for link in added.get(name, ()):
                growth.add(link)
            streams[name] = growth.finish()
            taken.add(name)
        elif (whole := seeded(said.get(name, Chain()), reign, [*reigns.values()], streams)) is not None:
            streams[name] = whole
            taken.add(name)
    now = frozenset(taken)
    return streams, governance.taken if now == governance.taken else now


def seeded(held: Stream, reign: Reign, reigns: Sequence[Reign], streams: Mapping[str, Stream]) -> Stream | None:
    """The stream with what was handed over, if some former one holds all of that; the newest of them is asked first."""
    former: str | None = reign.former
    by_stream = {one.stream: one for one in reigns}
    while former is not None:
        ids = leading(streams.get(former, Chain()), reign.upto.sequence, reign.upto.head)
        if ids:
            growth = Growth(held, most=sys.maxsize, room=sys.maxsize)
            for number, identity in enumerate(ids, 1):
                growth.add(Link(number, identity, ids[number - 2] if number > 1 else ""))
            return growth.finish()
        before = by_stream.get(former)
        former = before.former if before is not None else None
    return None


def ended_by(reigns: Sequence[Reign], taken: Container[str]) -> dict[Reign, tuple[str, ...]]:
    """Of each stream the newest handover of which all is held, to the streams that have ended by it."""
    former, found = dict[str, tuple[str, ...]](), dict[str, Reign]()
    for reign in reigns:
        former[reign.stream] = (*former.get(reign.former, ()), reign.former)
        if reign.stream in taken:
            found[base_of(reign.stream)] = reign
    return {reign: former[reign.stream] for reign in found.values()}


def voiding(governance: Governance, streams: Mapping[str, Stream], complete: Mapping[Reign, tuple[str, ...]]) -> frozenset[str]:
    """Ids of halts and revocations of former signers that were not handed over. While it is not known which those are, all deny."""
    ended = [name for names in complete.values() for name in names]
    before = sum(value is ENDED for value in governance.whole.values())
    known = all(governance.whole.get(name) is ENDED and streams.get(name) is governance.streams.get(name) for name in ended)
    if known and before == len(ended):
        return governance.void
    void = set[str]()
    for reign, names in complete.items():
        if reign.stream.startswith(DENYING):
            kept = leading(streams.get(reign.stream, Chain()), reign.upto.sequence, reign.upto.head) if reign.upto.sequence else ()
            void |= frozenset[str]().union(*(_all_of(streams.get(name, Chain())) for name in names)) - frozenset(kept)
    now = frozenset(void)
    return governance.void if now == governance.void else now


def _all_of(stream: Stream) -> frozenset[str]:
    if isinstance(stream, Fork):
        return stream.ids
    return frozenset(stream.ids) | {link.id for link in stream.loose.values()}
