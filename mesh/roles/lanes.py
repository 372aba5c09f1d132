"""Two connections of one node: what keeps the mesh safe does not wait behind what anybody may send.

Heartbeats, governance statements and questions have a connection to themselves. On one connection they would share its order: a
flood of intents in front of a revocation would have to be read first, and a server that cuts a slow reader would cut both.
"""

from collections.abc import Mapping
from typing import Self

from mesh.adapters.bus import Bus
from mesh.adapters.bus_options import BusOptions
from mesh.core import subjects

__all__ = ["Lanes"]


class Lanes:
    """Both connections; close them with :meth:`close`."""

    def __init__(self, bulk: Bus, urgent: Bus) -> None:
        """Take over what is connected already."""
        self.bulk = bulk
        """Intents, outcomes, records, checkpoints, cosignatures."""
        self.urgent = urgent
        """Whatever no stream may bind: heartbeats, governance statements, questions."""

    @classmethod
    async def connect(cls, options: BusOptions, *, wait_ms: int) -> Self:
        """Connect both, each within ``wait_ms``. Raises as :meth:`mesh.adapters.bus.Bus.connect`."""
        urgent = await Bus.connect(options, wait_ms=wait_ms)
        try:
            return cls(await Bus.connect(options, wait_ms=wait_ms), urgent)
        except BaseException:
            await urgent.close()
            raise

    @property
    def counters(self) -> Mapping[str, int]:
        """What happened so far on both."""
        return {name: count + self.urgent.counters[name] for name, count in self.bulk.counters.items()}

    async def publish(self, subject: str, data: bytes) -> None:
        """On the connection of the subject's kind. Raises as :meth:`mesh.adapters.bus.Bus.publish`."""
        await (self.urgent if subjects.is_urgent(subject) else self.bulk).publish(subject, data)

    async def close(self) -> None:
        """Close both."""
        await self.bulk.close()
        await self.urgent.close()
