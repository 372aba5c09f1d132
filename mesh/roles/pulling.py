"""A governance stream, page by page, from one member, by somebody who is none: what cannot be believed, or leads nowhere, ends it.

Not here: who is asked, and which streams (:mod:`mesh.roles.learning`, :mod:`mesh.cli.gathering`).
"""

from collections.abc import Awaitable, Callable, Sequence

from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import Said, cursor_of, link_of
from mesh.errors import MeshError
from mesh.protocol.gossip import wanted

__all__ = ["pull_stream"]

Page = Callable[[Cursor], Awaitable[Sequence[Statement[Said]]]]
"""What the member answers behind a place; raises a :class:`MeshError` if it does not."""


async def pull_stream(
    page: Page, governance: Governance, frontier: Sequence[StreamHead], stream: str
) -> tuple[Governance, list[Statement[Said]]]:
    """The state with all of ``stream`` that whoever claims ``frontier`` shows, and what was new."""
    new, after = list[Statement[Said]](), wanted(governance, frontier).get(stream)
    while after is not None and stream in wanted(governance, frontier):
        try:
            shown = [item for item in await page(after) if link_of(item)[0] == stream]
        except MeshError:
            break
        taken = extend(governance, shown)
        governance = taken.governance
        new += taken.new
        last = max(map(cursor_of, shown), default=after)
        if taken.refused or last <= after:  # a member that brings nothing further would be asked for ever
            break
        after = last
    return governance, new
