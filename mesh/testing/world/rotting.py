"""Bits that flip in records on a disk: found, so that nothing more is signed, and put back from other members as they were (I16).

Rules
-----
1. What rots in a world is covered by a head of that disk, final, and on another honest disk too: nothing else can be put back by
   anybody (:mod:`mesh.roles.mending`).
2. It is found by whoever reads it, or by the walk over the whole disk, :data:`WALK` records at each tick. Then the process ends.
3. Before it starts again, members are asked for what rotted, one after the other. Only what has the hash that stood there is put back, and
   until all of it is, nothing begins. Of what members have pruned below a floor only the hash is kept.
4. I16: who has a rotten record on its disk ends within the time that a walk takes; and what is put back is to the byte what was there.

Not here: when it happens (:mod:`mesh.testing.world.faults`), reading (:mod:`mesh.testing.world.disk`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import Final, Protocol

from mesh.core.bytes.envelope import Statement
from mesh.core.law.erase import ERASURES
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.retain import NOWHERE
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import Said, read_law
from mesh.core.log.merkle import leaf_hash
from mesh.core.messages import LawAsked, LawBatch, LineageBatch, Pull, pack, unpack
from mesh.errors import Alarm, Refused
from mesh.testing.world.around import Bus
from mesh.testing.world.disk import Disk
from mesh.testing.world.ground import Ground, Violation
from mesh.testing.world.message import Message

__all__ = ["WALK", "Host", "Mender", "Walk", "fits", "flip", "readable"]

WALK: Final = 64
"""Records that are looked at in one tick."""
_AGAIN_US: Final = 300_000
_TICKS_US: Final = 100_000
_SLACK_US: Final = 1_500_000
"""For ticks that wait for a slow step."""
_CALL: Final = 1 << 40
"""Where the numbers of its questions begin: beyond those of any process."""


class Host(Protocol):
    """On whose disk it is."""

    name: str
    disk: Disk
    up: bool
    paused: bool
    boots: int

    @property
    def held(self) -> Governance:
        """What its disk says that governs."""
        ...

    def boot(self) -> None:
        """Start the process."""
        ...

    def alarmed(self, alarm: Alarm) -> None:
        """The process ends."""
        ...


class Walk:
    """Over all records of a disk, again and again."""

    def __init__(self) -> None:
        self._at = 0

    def on(self, disk: Disk) -> None:
        """A little further.

        Raises:
            Alarm: ``storage_corrupt``.
        """
        places = [(origin, index) for origin in sorted(disk.logs) for index in range(disk.size(origin))]
        for origin, index in places[self._at : self._at + WALK]:
            disk.verify(origin, index, 1)
        self._at = self._at + WALK if self._at + WALK < len(places) else 0


class Mender:
    """Asks for what rotted on one host while its process is down."""

    def __init__(self, host: Host, ground: Ground, bus: Bus) -> None:
        self._host, self._ground, self._bus = host, ground, bus
        self._asked = 0
        self._members: list[str] = []
        self._running = False
        self._heard: list[Statement[Said]] = []
        """What members have shown of the root's word on records that need not be kept."""

    def needed(self, members: Sequence[str]) -> bool:
        """Whether something must be put back before the process starts; then that begins, and it starts once all is."""
        if not self._host.disk.rotten():
            return False
        self._members = [name for name in members if name != self._host.name]
        if not self._running:
            self._running = True
            self._ground.say(self._host.name, "mends", str(len(self._host.disk.rotten())))
            self._ask()
        return True

    def _ask(self) -> None:
        lost = self._host.disk.rotten()
        if not lost:
            self._running = False
            self._ground.say(self._host.name, "mended")
            self._host.boot()
            return
        origin, index = lost[0]
        member = self._members[self._asked % len(self._members)]
        self._asked += 1
        ask = pack(Pull(origin=origin, first=index, count=1))
        self._bus.send(Message(self._host.name, member, "sync", ask, _CALL + self._asked))
        self._ground.after(_AGAIN_US, self._ask)

    def take(self, message: Message) -> None:
        """An answer, perhaps: of a member, of a liar, or spoilt on its way."""
        if not self._running or message.kind != "reply" or message.call <= _CALL:
            return
        with suppress(Refused):
            self._hear(message.source, unpack(LawBatch, message.data))
        try:
            batch = unpack(LineageBatch, message.data)
            leaf = b"" if batch.pruned else bytes(batch.records[0])
        except (Refused, IndexError):
            return
        disk = self._host.disk
        if batch.pruned:
            self._let_go(message.source, batch, disk)
        elif (batch.origin, batch.first) in disk.rotten() and fits(leaf, disk.hashes(batch.origin)[batch.first]):
            written = disk.put_back(batch.origin, batch.first, leaf)
            if written != leaf:
                raise Violation("I16", f"{self._host.name} puts back another record {batch.first} of {batch.origin} than was there")

    def _let_go(self, member: str, batch: LineageBatch, disk: Disk) -> None:
        """Members have pruned it; so does who knows the root's word on that, and the others ask for it (rule 3)."""
        place, below = (batch.origin, batch.first), self._known().floors.get(batch.origin, NOWHERE).below
        if place not in disk.rotten() or batch.pruned[0] != disk.hashes(batch.origin)[batch.first].hex():
            return
        if batch.first >= below:
            self._ask_law(member, Cursor(0))
            return
        disk.put_back(*place, disk.written(*place))
        disk.prune(*place, batch.first + 1, below=below)

    def _known(self) -> Governance:
        return extend(self._host.held, self._heard).governance

    def _ask_law(self, member: str, after: Cursor) -> None:
        self._asked += 1
        ask = pack(LawAsked(stream=ERASURES, sequence=after.sequence, id=after.id))
        self._bus.send(Message(self._host.name, member, "sync", ask, _CALL + self._asked))

    def _hear(self, member: str, shown: LawBatch) -> None:
        said = [read_law(bytes(raw)) for raw in shown.statements]
        self._heard += said
        if said:
            self._ask_law(member, Cursor(said[-1].claims.link[1], said[-1].id))


def readable(host: Host, read: Callable[[], None]) -> bool:
    """Whether nothing rotten was read; else the process has ended (rule 2)."""
    try:
        read()
    except Alarm as alarm:
        host.alarmed(alarm)
        return False
    return True


def fits(leaf: bytes, hash_: bytes) -> bool:
    """Whether it is what stood there."""
    return leaf_hash(leaf) == hash_


def flip(host: Host, others: Sequence[Host], final: Mapping[str, list[bytes]], random: Random, ground: Ground) -> None:
    """One bit of one record on that disk flips, if there is one that others can put back (rule 1); and is looked for (rule 4)."""
    covered = dict[str, int]()
    for (use, origin), head in host.disk.heads.items():
        if use != "witness":
            covered[origin] = max(covered.get(origin, 0), head.size)
    places = [
        (origin, index)
        for origin, size in sorted(covered.items())
        for index in range(min(size, len(final.get(origin, ())), host.disk.size(origin)))
        if host.disk.logs[origin].leaves[index]
        and any(other is not host and _has(other.disk, origin, index, final[origin][index]) for other in others)
    ]
    if not places:
        return
    origin, index = random.choice(places)
    leaf = bytearray(host.disk.logs[origin].leaves[index])
    leaf[random.randrange(len(leaf))] ^= 1 << random.randrange(8)
    host.disk.rot(origin, index, bytes(leaf))
    ground.say(host.name, "a bit flips", f"{origin} {index}")
    _watched(host, host.boots, (origin, index), ground, 0)


def _has(disk: Disk, origin: str, index: int, leaf: bytes) -> bool:
    """Whether that disk holds the record with this hash, and more of it than that."""
    return disk.hashes(origin)[index : index + 1] == [leaf] and bool(disk.logs[origin].leaves[index])


def _watched(host: Host, boots: int, place: tuple[str, int], ground: Ground, waited_us: int) -> None:
    """Time counts while the process runs and could look."""
    if place not in host.disk.damaged() or not host.up or host.boots != boots:
        return
    records = sum(host.disk.size(origin) for origin in host.disk.logs)
    if waited_us > 2 * _TICKS_US * (2 + records // WALK) + _SLACK_US:
        raise Violation("I16", f"{host.name} goes on with record {place[1]} of {place[0]}, which rotted {waited_us} µs ago")
    more_us = 0 if host.paused else _TICKS_US
    ground.after(_TICKS_US, partial(_watched, host, boots, place, ground, waited_us + more_us))
