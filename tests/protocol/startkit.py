"""A governor that starts, and what it is told."""

from typing import Any

import pytest

from mesh.core.log.merkle import Frontier
from mesh.errors import Refused
from mesh.protocol import barrier
from mesh.protocol.barrier import Pending
from mesh.protocol.begin import begin
from mesh.protocol.events import BarrierArrived, Tick
from mesh.protocol.stored import Stored, StoredLog
from tests.protocol.machines import BOOT, LAB, ME, Governor

__all__ = ["NEW", "OTHERS", "PATIENCE_MS", "Start"]

OTHERS = [member.name for member in LAB.roster.members if member.name != ME.name]
NEW = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
PATIENCE_MS = LAB.roster.bounds.heartbeat_ms


class Start(Governor):
    """The lab's first governor as it starts."""

    def __init__(self, stored: StoredLog = NEW, *, incarnation: int = 0, refilled: int = 0, **named: Any) -> None:
        super().__init__(**named)
        held = Stored(incarnation=incarnation, own=stored, mirrors={}, refilled=refilled)
        step = begin(self.machine, held, boot=BOOT, now_ms=self.now_ms)
        self.state, self.begun = step.state, step.effects

    @property
    def waiting(self) -> Pending:
        """What it waits for."""
        assert self.state.barrier is not None, "it is through"
        return self.state.barrier

    def code(self) -> str:
        """Why it waits."""
        with pytest.raises(Refused) as caught:
            barrier.check(self.waiting, self.state.governance, now_ms=self.now_ms)
        return caught.value.code

    def hear(self, *answers_: bytes) -> list[Any]:
        """Take what others answer."""
        return self.take(*(BarrierArrived(data) for data in answers_))

    def pass_time(self, length_ms: int = PATIENCE_MS) -> list[Any]:
        """Some time later; by default as long as whoever else can answer is waited for."""
        self.now_ms += length_ms
        return self.take(Tick())
