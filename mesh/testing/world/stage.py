"""A whole mesh on one ground: governors, enforcers, workloads, and the bus between them. It stands still until events are planned.

Not here: what happens on it (:mod:`mesh.testing.world.faults`, :mod:`mesh.testing.world.healing`).
"""

from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Member, Roster
from mesh.testing.world.clients import Enforcer, Wish, Workload
from mesh.testing.world.clock import WorldClock
from mesh.testing.world.governor import Governor
from mesh.testing.world.ground import Ground
from mesh.testing.world.handing import Handed
from mesh.testing.world.liars import Braggart, Poisoner, Slanderer
from mesh.testing.world.message import Message
from mesh.testing.world.network import Network
from mesh.testing.world.promises import Watch
from mesh.testing.world.rosters import pinned
from mesh.testing.world.setting import ENFORCERS, WORKLOADS, setting

__all__ = ["Stage"]

_DRIFT_PPM: Final = 2_000


class Stage:
    """One seed's mesh."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.ground = Ground(seed)
        self.random = self.ground.random("stage")
        self.setting = setting(nodes)
        self.watch = Watch(self.ground, self.setting)
        self.network = Network(self.ground, self._deliver)
        ground, watch, governance = self.ground, self.watch, self.setting.governance
        self.governors = {
            member.name: Governor(
                member.name, member, governance, self.setting.bundles, ground=ground, bus=self, watcher=watch, clock=self._clock()
            )
            for member in governance.roster.members
        }
        self.enforcers = {
            name: Enforcer(name, self.setting, governance, ground=ground, bus=self, watch=watch, clock=self._clock()) for name in ENFORCERS
        }
        self.workloads = {
            name: Workload(name, self.setting, self.enforcers, ground=ground, bus=self, watch=watch, clock=self._clock())
            for name in WORKLOADS
        }
        self.members = list(self.setting.members)
        """Names of all governors that there are or will be."""
        self._moved: dict[str, str] = {}
        """Member to the host that it lives on now."""
        self.handed: Handed | None = None
        """If a stream changes hands in this world."""
        self.braggarts: dict[str, Braggart] = {}
        self.poisoners: dict[str, Poisoner] = {}
        self.slanderers: dict[str, Slanderer] = {}
        self._sides: dict[str, dict[str, str]] = {}
        """Member with a twin to (end to the host that it talks with; both, if it is not there)."""
        self.watch.honest = list(self.governors.values())

    def _liar(self, name: str) -> None:
        self.watch.liars |= {name}
        self.watch.honest = [governor for governor in self.watch.honest if governor.member.name != name]

    def brag(self, name: str) -> None:
        """This member's heartbeats lie."""
        self._liar(name)
        self.braggarts[name] = Braggart(name, self.setting.governance.roster, self.ground.random("braggart"))

    def poison(self, name: str) -> None:
        """This member invents records of others."""
        self._liar(name)
        self.poisoners[name] = Poisoner(name, self.setting.governance.roster, self.ground.random("poisoner"))

    def slander(self, name: str) -> None:
        """This member accuses others."""
        self._liar(name)
        self.slanderers[name] = Slanderer(name, self.setting.governance.roster, self.ground.random("slanderer"))

    def _accuse(self, name: str) -> None:
        """As often as it says that it lives."""
        state, genesis = self.governors[name].state, self.setting.governance.roster
        for member in genesis.members if state is not None else ():
            origin = genesis.origin(member)
            held = state.mirrors.get(origin) if state is not None else None
            said = self.slanderers[name].slander(origin, list(held.signed.values())) if held is not None else b""
            if said:
                self.publish(name, subjects.law(subjects.short(origin)), said)
            hashes, notes = self.governors[name].disk.hashes(origin), list(held.signed.values()) if held is not None else []
            refusal, proof = self.slanderers[name].refuse(origin, hashes, notes)
            if refusal:
                self.publish(name, subjects.fraud(self.governors[name].member.region, name), refusal)
                self.publish(name, subjects.law(subjects.short(origin)), proof)

    def _invent(self, name: str) -> None:
        """As often as it says that it lives."""
        governor = self.governors[name]
        for origin, held in governor.state.mirrors.items() if governor.state is not None else ():
            data = self.poisoners[name].invented(origin, held.held, governor.clocks_ms()[0])
            self.publish(name, subjects.lineage(governor.member.region, name), data)

    def turn(self, name: str) -> None:
        """This member decides the opposite of policy."""
        self._liar(name)
        self.governors[name].engine.lies = True

    def twin(self, name: str) -> None:
        """This member is two."""
        self._liar(name)
        first = self.governors[name]
        ground, watch = self.ground, self.watch
        second = Governor(
            f"{name}~", first.member, first.governance, first.library, ground=ground, bus=self, watcher=watch, clock=self._clock()
        )
        self.governors[second.name] = second
        first.asks = second.asks = False  # or each would learn of the other, and be silent
        ends = [end for end in (*self.governors, *self.enforcers, *self.workloads) if end not in {first.name, second.name}]
        random = self.ground.random("twins")
        sides = {end: random.choice((first.name, second.name)) for end in ends if random.random() < 0.8}
        self._sides[name] = {**sides, first.name: first.name, second.name: second.name}

    def join(self, member: Member, said: tuple[Statement[Roster], ...]) -> Governor:
        """A new member, or an old one with new keys, whose process is not there yet; the last of ``said`` is what its files pin."""
        again = member.name in self.members
        host = f"{member.name}+" if again else member.name
        governor = Governor(
            host, member, pinned(self.setting, said), self.setting.bundles,
            ground=self.ground, bus=self, watcher=self.watch, clock=self._clock(), label=host, given=said,
        )  # fmt: skip
        governor.absent = True
        self.watch.honest.append(governor)
        if not again:
            self.members.append(host)
            self.governors[host] = governor
        return governor

    def begin(self, governor: Governor) -> None:
        """The process of a new member, in place of a former one of that name."""
        if governor.name != governor.member.name:
            self._moved[governor.member.name] = governor.name
            del self.governors[governor.member.name]
            self.governors[governor.name] = governor
        governor.absent = False
        governor.boot()

    def _clock(self) -> WorldClock:
        half_ms = self.setting.governance.roster.bounds.skew_ms // 2 - 1
        return WorldClock(
            lambda: self.ground.now_us,
            skew_ms=half_ms,
            error_ms=self.random.randint(-half_ms, half_ms),
            drift_ppm=self.random.randint(-_DRIFT_PPM, _DRIFT_PPM),
        )

    def send(self, message: Message) -> None:
        """To one end; to the half of a liar that the sender knows."""
        if message.kind == "reply" and message.source in self.poisoners:
            at_ms = self.governors[message.source].clocks_ms()[0]
            message = msgspec.structs.replace(message, data=self.poisoners[message.source].answer(message.data, at_ms))
        if message.kind == "reply" and message.source in self.braggarts:
            message = msgspec.structs.replace(message, data=self.braggarts[message.source].answer(message.data))
        if message.target in self._moved and message.kind != "reply":
            message = msgspec.structs.replace(message, target=self._moved[message.target])
        sides = self._sides.get(message.target)
        if sides is not None and message.kind != "reply":
            message = msgspec.structs.replace(message, target=sides.get(message.source, message.target))
        self.network.send(message)

    def publish(self, source: str, subject: str, data: bytes) -> None:
        """To whoever subscribes to the subject, the sender included."""
        _, _, place, *rest = subject.split(".")
        everybody = place in {"hb", "law"}
        kind, ends = (place, [*self.governors, *self.enforcers]) if everybody else (rest[0], list(self.governors))
        if kind == "cosig":
            ends = [rest[1]]
        said = self.braggarts[source].heartbeat(data) if kind == "hb" and source in self.braggarts else data
        sides = self._sides.get(source.removesuffix("~"), {})
        for end in ends:
            if sides.get(end, source) == source:
                self.send(Message(source, end, kind, data if end == source else said))
        if kind == "hb" and source in self.poisoners:
            self._invent(source)
        if kind == "hb" and source in self.slanderers:
            self._accuse(source)

    def _deliver(self, message: Message) -> None:
        end = self.governors.get(message.target) or self.enforcers.get(message.target) or self.workloads.get(message.target)
        if end is not None:
            end.take(message)

    def wish(self) -> Wish:
        """Something a workload may want."""
        random = self.random
        governors = list(self.members)
        random.shuffle(governors)
        return Wish(
            enforcer=random.choice(ENFORCERS),
            allow=random.random() < 0.8,
            fail=random.random() < 0.05,
            memo=f"memo {random.randrange(1000)}" if random.random() < 0.3 else "",
            twice=random.random() < 0.2,
            governors=tuple(governors),
            kin=self.watch.families.kind(),
        )
