"""One governor on a real file, whose machine, keys and commits are the real ones, and one step of it that is interrupted somewhere."""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from mesh.adapters.clock import Clock, Reading
from mesh.adapters.signer import KeyFile, Signer
from mesh.adapters.store import Store
from mesh.errors import Unavailable
from mesh.protocol.begin import begin
from mesh.protocol.events import BarrierArrived, Event, HeartbeatArrived, Tick
from mesh.protocol.governor import Machine
from mesh.protocol.state import GovernorState
from mesh.protocol.step import FAILPOINTS, Append, InsertOnce, Outgoing, Persist, PutNote, Reply, Send, SetHead, SetMeta, Step
from mesh.roles.loading import load_governance, load_state
from mesh.roles.performer import Performer
from tests.protocol.machines import BOOT, LAB, ME, NOW, beat, told

__all__ = ["FAULTS", "Desk", "Stopped", "kind", "rows"]

OTHERS: Final = [member.name for member in LAB.roster.members if member.name != ME.name]
FAULTS: Final = {
    "persist.before": False,
    "the commit fails, nothing written": False,
    "the commit fails, all written": True,
    "persist.after": True,
    "sign.after": True,
    "send.after": True,
}
"""Where a step is interrupted, and whether it is durable then: the named failpoints, and a commit that says it failed."""
assert set(FAILPOINTS) <= set(FAULTS)


class Stopped(Exception):
    """The process ended here, as far as its step can tell."""


def kind(effect: Persist) -> str:
    """An effect as the table names it."""
    match effect:
        case Append(origin=origin):
            return f"Append {_whose(origin)}"
        case SetHead(use=use, origin=origin):
            return f"SetHead {use} {_whose(origin)}"
        case PutNote(space=space):
            return f"PutNote {space}"
        case InsertOnce(space=space):
            return f"InsertOnce {space}"
        case SetMeta(key=key):
            return f"SetMeta {'roster epoch' if key == 'roster epoch' else key.split(' ')[0]}"
        case _:
            return type(effect).__name__


def _whose(origin: str) -> str:
    return "own" if origin == LAB.roster.origin(ME) else "other"


def rows(path: Path) -> dict[str, str]:
    """Everything in the file: a digest of the rows of each table."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        return {
            name: hashlib.sha256(repr(sorted(map(repr, file.execute(f"SELECT * FROM {name}").fetchall()))).encode()).hexdigest()  # noqa: S608 -- our own names
            for name in tables
        }


class Desk:
    """That governor. :meth:`start` is a boot, :meth:`take` a step, :meth:`end` a kill."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "node.db"
        self.now_ms = NOW
        self.signed: list[tuple[str, bytes]] = []
        self.sent: list[tuple[object, bytes]] = []
        self._point = ""
        self._signer = _Recording(self.signed)
        self.performer: Performer = None  # type: ignore[assignment]  # there is none before the first start

    @property
    def kinds(self) -> Sequence[str]:
        """Of the effects of the last step that was handed to storage."""
        assert isinstance(self.performer.store, _Noting)
        return self.performer.store.kinds

    @property
    def state(self) -> GovernorState:
        return self.performer.state

    async def start(self, *, fresh: bool = True) -> None:
        """Open the file, begin, and hear all others, who know nothing of what was signed here."""
        store = await _Noting.open(self.path, owner=ME.name)
        governance = await load_governance(store, LAB.governance)
        machine = Machine(governance, ME, LAB.engine)
        clock = Clock(source=lambda: Reading(self.now_ms, self.now_ms))
        self.performer = Performer(
            machine,
            store,
            self._signer,
            clock,
            deliver=self._deliver,
            failpoint=self._fail,
            wake=lambda: None,
        )
        await self.performer.begin(begin(machine, await load_state(store, governance, ME), boot=BOOT, now_ms=self.now_ms))
        if fresh:
            await self.take(*self.answers())
            await self.take(*self.beats(), Tick())

    def answers(self) -> list[Event]:
        """What the others say to a start."""
        heads = self.state.governance.frontier
        return [BarrierArrived(told(name, frontier=heads)) for name in OTHERS]

    def beats(self, sequence: int = 1) -> list[Event]:
        """A heartbeat of each other member, which holds what is held here."""
        heads = list(self.state.governance.frontier)
        return [HeartbeatArrived(beat(name, sequence, self.now_ms, echo=[BOOT], frontier=heads)) for name in OTHERS]

    async def take(self, *events: Event) -> None:
        """One step."""
        await self.performer.take(events)

    async def perform(self, effects: Sequence[Persist]) -> None:
        """A step of the shell's own."""
        await self.performer.begin(Step(self.state, tuple(effects)))

    async def interrupted(self, fault: str, step: "Callable[[Desk], Any]", monkeypatch: pytest.MonkeyPatch) -> None:
        """Run ``step``, which ``fault`` interrupts, and let go of the file."""
        if fault in FAILPOINTS:
            self._point = fault
            with pytest.raises(Stopped):
                await step(self)
        else:
            writer = self.performer.store._file._writer
            commit = writer.commit

            async def fails() -> None:
                if fault == "the commit fails, all written":
                    await commit()
                raise sqlite3.OperationalError("disk I/O error")

            with monkeypatch.context() as patch:
                patch.setattr(writer, "commit", fails)
                with pytest.raises(Unavailable, match="storage_failed"):
                    await step(self)
        self._point = ""
        await self.end()

    async def end(self) -> None:
        """Sign and send nothing more; what is durable is in the file."""
        await self.performer.stop()
        await self.performer.store.close()

    async def _deliver(self, item: Outgoing, data: bytes) -> None:
        self.sent.append((item.to if isinstance(item, Send) and isinstance(item.to, Reply) else type(item).__name__, data))

    def _fail(self, name: str) -> None:
        if name == self._point:
            raise Stopped(name)


class _Recording(Signer):
    """A signer that remembers what it signed."""

    def __init__(self, signed: list[tuple[str, bytes]]) -> None:
        super().__init__([KeyFile(use, key) for use, key in LAB.keys[ME.name].items()])
        self._signed = signed

    def sign(self, use: str, message: bytes) -> bytes:
        self._signed.append((use, message))
        return super().sign(use, message)


class _Noting(Store):
    """Storage that remembers what it was last asked to make durable."""

    kinds: Sequence[str] = ()

    async def commit(self, effects: Sequence[Persist]) -> None:
        self.kinds = sorted({kind(effect) for effect in effects})
        await super().commit(effects)
