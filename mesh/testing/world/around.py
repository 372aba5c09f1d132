"""What a governor of a world lives among: the bus that it sends on, and whoever looks on."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from mesh.errors import Alarm
from mesh.protocol.events import Event
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import KeyUse, Persist, Step
from mesh.testing.world.disk import Disk
from mesh.testing.world.message import Message

__all__ = ["Bus", "Watcher"]

G_contra = TypeVar("G_contra", contravariant=True)


class Bus(Protocol):
    """Where a governor sends."""

    def publish(self, source: str, subject: str, data: bytes) -> None:
        """To whoever subscribes to the subject."""
        ...

    def send(self, message: Message) -> None:
        """To one end."""
        ...


class Watcher(Protocol[G_contra]):
    """Who looks on; raises :class:`Violation`."""

    def booted(self, governor: G_contra) -> None:
        """It is about to begin."""
        ...

    def received(self, governor: G_contra, message: Message) -> None:
        """A message reached the living process."""
        ...

    def stepped(self, governor: G_contra, before: GovernorState, events: Sequence[Event], facts: Facts, step: Step[GovernorState]) -> None:
        """The machine answered; nothing was performed yet."""
        ...

    def committed(self, governor: G_contra, effects: Sequence[Persist]) -> None:
        """These are durable."""
        ...

    def pruned(self, governor: G_contra, origin: str, end: int) -> None:
        """It keeps only hashes of the records of a log before ``end``."""
        ...

    def signing(self, governor: G_contra, use: KeyUse, message: bytes) -> None:
        """It is about to sign this."""
        ...

    def set_back(self, governor: G_contra, before: Disk) -> None:
        """Its disk is an older copy of ``before`` now."""
        ...

    def alarmed(self, governor: G_contra, alarm: Alarm) -> None:
        """It ends, and says why."""
        ...
