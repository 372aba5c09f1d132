"""What troubles a world: for each seed another few of these, at other times, on other nodes.

Rules
-----
1. Everything is planned before the world begins, from the seed alone; the plan stands in the report.
2. What troubles a node ends by itself or at the latest when the world heals: no disk is lost and no clock stays wrong.
3. One member in some worlds lies, where the roster tolerates it (:mod:`mesh.testing.world.liars`); the bus is an enemy in all.

Not here: what may never happen because of it (:mod:`mesh.testing.world.promises`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.travel import Said
from mesh.core.messages import Offer, Sync, pack
from mesh.protocol.step import FAILPOINTS
from mesh.testing.world import keys, rotting
from mesh.testing.world.changes import change_rosters
from mesh.testing.world.disk import Disk
from mesh.testing.world.erasing import Erasures
from mesh.testing.world.governor import QUEUE_MAX, Governor
from mesh.testing.world.liars import KINDS
from mesh.testing.world.message import Message
from mesh.testing.world.network import CALM, Conditions
from mesh.testing.world.setting import ENFORCERS, REVOKED, WORKLOADS
from mesh.testing.world.stage import Stage

__all__ = ["Faults"]

_S: Final = 1_000_000
_WRONG_US: Final = 2_700_000
"""A heartbeat of another time than this counts for nobody."""
_PLACES: Final = (*FAILPOINTS, "send.each")
_WEATHER: Final = (
    CALM,
    Conditions(lost=0.02, twice=0.02),
    Conditions(slow=0.05, twice=0.1, again=0.02),
    Conditions(lost=0.1, twice=0.1, slow=0.1),
    Conditions(changed=0.04, again=0.02),
    Conditions(changed=0.15, lost=0.02),
    Conditions(forged=0.3),
    Conditions(forged=0.6, again=0.05),
    Conditions(delay_us=(5_000, 120_000), slow=0.02),
    Conditions(lost=0.2, twice=0.2, slow=0.1, changed=0.05, again=0.05),
)


class Faults:
    """The trouble of one world."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._random = stage.ground.random("faults")
        self._ends: list[Callable[[], None]] = []
        self._offers: list[Callable[[], None]] = []
        """What operators do not give up to offer."""
        self._healed = False
        self._wrong_clock: Governor | None = None
        self._restored: Governor | None = None
        self._erasures = Erasures(stage, self._random)
        self._changing = False
        self.plan: list[str] = []

    def _kinds(self) -> dict[str, tuple[int, Callable[[int], None]]]:
        """Name of a fault to how often it is chosen, and how it is planned for a time."""
        return {
            "askers": (1, self._askers),
            "clock": (1, self._clock),
            "crash": (2, self._crash),
            "disk fails": (1, self._disk_fails),
            "disk full": (1, self._disk_full),
            "enforcer": (1, self._enforcer),
            "engine": (1, self._engine),
            "erase": (0, partial(self._let_go, "something is erased", self._erasures.erasing)),  # as all with 0: where it is asked for
            "everybody": (1, self._everybody),
            "failpoint": (2, self._failpoint),
            "halt": (1, self._halt),
            "hold": (1, self._hold),
            "isolate": (1, self._isolate),
            "mended clock": (1, self._mended_clock),
            "old news": (2, self._old_news),
            "one way": (1, self._one_way),
            "partition": (1, self._partition),
            "pause": (2, self._pause),
            "policy": (2, self._policy),
            "reload": (1, self._reload),
            "restore": (1, self._restore),
            "resolve": (1, self._resolve),
            "revocation": (1, self._revocation),
            "revoker forks": (1, self._forked_revoker),
            "roster": (2, self._roster),
            "slow disk": (1, self._slow_disk),
            "storm": (1, self._storm),
            "weather": (1, self._weather),
            "bit flip": (0, self._bit_flip),
            "prune": (0, partial(self._let_go, "records need not be kept", self._erasures.keeping)),
        }

    def arrange(self, end_us: int, trouble: Sequence[str]) -> None:
        """Plan everything that happens before ``end_us``.

        Args:
            end_us: when the world heals, in µs.
            trouble: faults, or one kind of liar, that certainly come on top of what the seed says.
        """
        random, kinds = self._random, self._kinds()
        self._liars([kind for kind in trouble if kind not in kinds])
        self._weather(0)
        weights = [weight for weight, _ in kinds.values()]
        names = random.choices(list(kinds), weights, k=random.randint(1, 9))
        for name in (*names, *(kind for kind in trouble if kind in kinds)):
            kinds[name][1](random.randrange(_S, end_us - _S // 2))
        self.plan.sort()

    def heal(self) -> None:
        """End everything, and let nothing planned happen any more."""
        self._healed = True
        for end in self._ends:
            end()
        self._ends.clear()
        for at_us in range(0, 6 * _S, 2 * _S):  # once everything has ended; and again, for whoever is still down
            for offer in self._offers:
                self._stage.ground.after(at_us + 1, offer)
        for governor in self._stage.governors.values():
            governor.crash_at, governor.failing, governor.slow_us, governor.disk.full = None, 0, 0, False
            governor.engine.down = False
            ahead_ms = governor.clock.ahead_ms()
            governor.clock.step_ms = 0
            if ahead_ms > 0:
                # Steady time never runs backwards: whose clock was mended starts again once its own last word is in the past.
                self._stage.ground.after(_S // 2, partial(governor.crash, 2_000 * ahead_ms))

    # ------------------------------------------------------------------------------------------------------------ tools

    def _at(self, at_us: int, what: str, act: Callable[[], None]) -> None:
        self.plan.append(f"{at_us / _S:9.6f} {what}")

        def happen() -> None:
            if not self._healed:
                self._stage.ground.say("fault", what)
                act()

        self._stage.ground.after(at_us, happen)

    def _until(self, at_us: int, what: str, begin: Callable[[], Callable[[], None]], *, least_us: int = 0) -> None:
        """Something that begins, lasts, and ends by itself or when the world heals."""
        length_us = max(least_us, self._length_us())

        def act() -> None:
            end = begin()
            self._ends.append(end)

            def over() -> None:
                if end in self._ends:
                    self._ends.remove(end)
                    self._stage.ground.say("fault", f"over: {what}")
                    end()

            self._stage.ground.after(length_us, over)

        self._at(at_us, f"{what} for {length_us / _S:.1f} s", act)

    def _length_us(self) -> int:
        return self._random.choice((_S // 5, _S, 2 * _S, 4 * _S, 6 * _S)) + self._random.randrange(_S // 4)

    def _governor(self) -> Governor:
        return self._random.choice(list(self._stage.governors.values()))

    def _everyone(self) -> list[str]:
        return [*self._stage.governors, *ENFORCERS, *WORKLOADS]

    # ------------------------------------------------------------------------------------------------------------ liars

    def _liars(self, wanted: Sequence[str]) -> None:
        """In one world of three, up to f members lie."""
        roster, random = self._stage.setting.governance.roster, self._random
        if not roster.f or (random.random() < 0.66 and not wanted):
            return
        for name in random.sample(self._stage.setting.members, random.randint(1, roster.f)):
            kind = random.choice(wanted or KINDS)
            self.plan.append(f"{0.0:9.6f} {name} lies: {kind}")
            stage = self._stage
            kinds = {"twins": stage.twin, "braggart": stage.brag, "turncoat": stage.turn}
            {**kinds, "poisoner": stage.poison, "slanderer": stage.slander}[kind](name)

    # ---------------------------------------------------------------------------------------------------------- network

    def _weather(self, at_us: int) -> None:
        weather = self._random.choice(_WEATHER)

        def change() -> None:
            self._stage.network.conditions = weather

        self._at(at_us, f"weather {_WEATHER.index(weather)}", change)

    def _partition(self, at_us: int) -> None:
        ends = self._everyone()
        self._random.shuffle(ends)
        at = self._random.randrange(1, len(ends))
        self._cut(at_us, "partition", ends[:at], ends[at:])

    def _isolate(self, at_us: int) -> None:
        alone = self._governor().name
        self._cut(at_us, "isolate", [alone], [end for end in self._everyone() if end != alone])

    def _one_way(self, at_us: int) -> None:
        alone = self._governor().name
        others = [end for end in self._stage.governors if end != alone and self._random.random() < 0.7]
        pairs = [(alone, other) if self._random.random() < 0.5 else (other, alone) for other in others]
        self._until(at_us, f"one way {pairs}", lambda: self._stage.network.cut(pairs))

    def _cut(self, at_us: int, what: str, some: Sequence[str], others: Sequence[str]) -> None:
        pairs = [pair for one in some for other in others for pair in ((one, other), (other, one))]
        self._until(at_us, f"{what} {','.join(some)} | {','.join(others)}", lambda: self._stage.network.cut(pairs))

    def _hold(self, at_us: int) -> None:
        """Everything that some say is held back and comes later all at once, heartbeats from before a start among it."""
        sources = [name for name in self._stage.governors if self._random.random() < 0.6]
        targets = [end for end in self._everyone() if self._random.random() < 0.6]
        pairs = [(source, target) for source in sources for target in targets if source != target]
        self._until(at_us, f"hold {','.join(sources)} > {','.join(targets)}", lambda: self._stage.network.hold(pairs))

    def _old_news(self, at_us: int) -> None:
        """Somebody hears only old heartbeats, all well signed and in order; it may start in the middle of that."""
        crash = {name: governor.crash for name, governor in self._stage.governors.items()}
        crash.update({name: enforcer.crash for name, enforcer in self._stage.enforcers.items()})
        target = self._random.choice(list(crash))
        lag_us = self._random.choice((_S, 3_500_000, 5 * _S))
        self._until(
            at_us, f"{target} hears what was {lag_us / _S:.1f} s ago", lambda: self._stage.network.lag(target, lag_us), least_us=6 * _S
        )
        if self._random.random() < 0.5:
            self._at(at_us + self._random.randrange(2 * _S), f"crash {target}", partial(crash[target], _S // 5))

    # ------------------------------------------------------------------------------------------------------------ nodes

    def _crash(self, at_us: int) -> None:
        governor, down_us = self._governor(), self._length_us()
        self._at(at_us, f"crash {governor.name} for {down_us / _S:.1f} s", lambda: governor.crash(down_us))

    def _everybody(self, at_us: int) -> None:
        """A power cut in every data centre at once."""
        for governor in self._stage.governors.values():
            down_us = self._length_us() // 2
            self._at(at_us + self._random.randrange(1_000), f"crash {governor.name}", partial(governor.crash, down_us))

    def _failpoint(self, at_us: int) -> None:
        governor, down_us = self._governor(), self._length_us() // 2
        place, count = self._random.choice(_PLACES), self._random.choice((0, 0, 1, 2, 5, 20))

        def arm() -> None:
            governor.crash_at = (place, count, down_us)

        self._at(at_us, f"crash {governor.name} at {place} after {count}", arm)

    def _reload(self, at_us: int) -> None:
        governor = self._governor()
        self._at(at_us, f"reload {governor.name}", lambda: governor.reload(_S // 5))

    def _restore(self, at_us: int) -> None:
        """Somebody puts an old copy of a disk in place: one of the f faults, so always the same, and nobody where all f lie."""
        watch, setting = self._stage.watch, self._stage.setting
        if len(watch.liars) >= setting.governance.roster.f:
            return
        honest = [governor for governor in watch.honest if governor is not self._wrong_clock]
        self._restored = self._restored or self._random.choice(honest)
        governor, age_us, down_us = self._restored, self._random.choice((_S // 10, _S // 2, 2 * _S, 5 * _S)), self._length_us() // 2
        copies = list[Disk]()
        calm_us = self._random.choice((0, _S // 2))

        def isolated() -> None:
            """Nothing new reaches it just before: so others know what it has signed."""
            governor.pause(calm_us + _S // 10)

        def restore() -> None:
            if copies:
                governor.set_back(copies.pop(), down_us)

        self._at(max(0, at_us - age_us), f"copy the disk of {governor.name}", lambda: copies.append(governor.disk.copy()))
        if calm_us:
            self._at(at_us - calm_us, f"pause {governor.name} before", isolated)
        self._at(at_us, f"restore the copy of {governor.name}", restore)

    def _pause(self, at_us: int) -> None:
        governor, length_us = self._governor(), self._length_us()
        self._at(at_us, f"pause {governor.name} for {length_us / _S:.1f} s", lambda: governor.pause(length_us))

    def _disk_full(self, at_us: int) -> None:
        governor = self._governor()

        def begin() -> Callable[[], None]:
            governor.disk.full = True

            def end() -> None:
                governor.disk.full = False

            return end

        self._until(at_us, f"disk of {governor.name} full", begin)

    def _disk_fails(self, at_us: int) -> None:
        governor, count = self._governor(), self._random.choice((1, 1, 2, 4))

        def fail() -> None:
            governor.failing = count

        self._at(at_us, f"disk of {governor.name} fails {count} times", fail)

    def _bit_flip(self, at_us: int) -> None:
        """In a record on somebody's disk, whom others can help."""
        watch = self._stage.watch
        governor = self._random.choice(watch.honest)
        act = partial(rotting.flip, governor, watch.honest, watch.final, self._random, self._stage.ground)
        self._at(at_us, f"a bit flips on the disk of {governor.name}", act)

    def _slow_disk(self, at_us: int) -> None:
        governor, slow_us = self._governor(), self._random.choice((20_000, 200_000, 900_000))

        def begin() -> Callable[[], None]:
            governor.slow_us = slow_us

            def end() -> None:
                governor.slow_us = 0

            return end

        self._until(at_us, f"disk of {governor.name} slow by {slow_us} µs", begin)

    def _alone(self) -> bool:
        return len(self._stage.governors) == 1

    def _clock(self, at_us: int) -> None:
        """Set wrong: back by any time, ahead by so little that it is true again before the world must be whole."""
        governor = self._governor()
        step_ms = self._random.choice((-3_600_000, -20_000, -4_000, -1_000, -250, 250, 1_000, 2_500))
        if self._alone() and step_ms > 0:
            return  # whose clock nobody can doubt must be right: a mesh of one promises nothing otherwise
        self._stage.watch.epochs.slack_us = _WRONG_US
        if step_ms > self._stage.setting.governance.roster.bounds.skew_ms:
            self._stage.watch.astray |= {governor.member.name}

        def begin() -> Callable[[], None]:
            governor.clock.step_ms = step_ms

            def end() -> None:
                governor.clock.step_ms = 0

            return end

        self._until(at_us, f"clock of {governor.name} {step_ms:+} ms", begin)

    def _mended_clock(self, at_us: int) -> None:
        """Ahead for a while, then set right while the process is down: what it signs next must not be older than what it signed."""
        self._wrong_clock = self._wrong_clock or self._governor()  # always the same: more than f of them are more than promises bear
        governor, step_ms = self._wrong_clock, self._random.choice((900, 1_500, 2_500))
        if self._alone():
            return  # as above
        self._stage.watch.astray |= {governor.member.name}
        self._stage.watch.epochs.slack_us = _WRONG_US

        reboots = self._random.random() < 0.5

        def wrong() -> None:
            governor.clock.step_ms = step_ms
            if reboots:  # it starts with a clock that is wrong already
                governor.crash(_S // 10)

        def right() -> None:
            governor.clock.step_ms = 0
            governor.crash(_S // 5)

        self._at(at_us, f"clock of {governor.name} {step_ms:+} ms", wrong)
        self._at(at_us + self._random.randrange(_S // 2, 2 * _S), f"clock of {governor.name} mended", right)

    def _engine(self, at_us: int) -> None:
        governor = self._governor()

        def begin() -> Callable[[], None]:
            governor.engine.down = True

            def end() -> None:
                governor.engine.down = False

            return end

        self._until(at_us, f"engine of {governor.name} down", begin)

    # ---------------------------------------------------------------------------------------------------------- clients

    def _enforcer(self, at_us: int) -> None:
        enforcer, down_us = self._stage.enforcers[self._random.choice(ENFORCERS)], self._length_us() // 2
        self._at(at_us, f"crash {enforcer.name} for {down_us / _S:.1f} s", lambda: enforcer.crash(down_us))

    def _storm(self, at_us: int) -> None:
        """More intents at one governor than it may queue."""
        name, count = self._governor().member.name, self._random.randint(QUEUE_MAX, 3 * QUEUE_MAX)

        def storm() -> None:
            for _ in range(count):
                wish = self._stage.wish()
                self._stage.workloads[self._random.choice(WORKLOADS)].want(wish.only(name))

        self._at(at_us, f"storm of {count} at {name}", storm)

    def _askers(self, at_us: int) -> None:
        """Many processes start while a governor is held up, and each asks it for a heartbeat that names its nonce."""
        governor, count = self._governor(), self._random.choice((10, 64, 100))
        name = governor.member.name

        def ask() -> None:
            governor.pause(_S // 10)
            for asker in range(count):
                nonce = keys.nonce("asker", self._stage.ground.seed, at_us, asker)
                self._stage.send(Message(WORKLOADS[0], name, "sync", pack(Sync(nonce=nonce)), -1 - asker))

        self._at(at_us, f"{count} processes ask {name}", ask)

    def _revocation(self, at_us: int) -> None:
        """An operator revokes a key: each statement is offered to a member or two, in any order; the rest is gossip."""
        for statement in self._random.sample(self._stage.setting.revocations, 3):
            self._offered(f"{REVOKED} is revoked", at_us + self._random.randrange(_S), statement)

    def _halt(self, at_us: int) -> None:
        """Operators halt the domain, twice, and lift both halts: in some worlds the second halt is heard of long after the resume."""
        first, second, resume = self._stage.setting.halts
        later_us = [at_us + self._random.randrange(_S, 8 * _S) for _ in range(2)]
        self._offered("the domain is halted", at_us // 2, first)
        self._offered("the domain is halted again", later_us[0], second)
        self._offered("the domain is resumed", later_us[1], resume)

    def _forked_revoker(self, at_us: int) -> None:
        """A revoker says two things under one number, to different members."""
        for statement in self._stage.setting.forked:
            self._offered("a revoker forks", at_us + self._random.randrange(_S), statement)

    def _resolve(self, at_us: int) -> None:
        """Streams fork, and the root says what counts: later, or before all is heard that it chooses between."""
        random, contested = self._random, self._stage.setting.contested
        for stream in random.sample(list(contested), random.randint(1, len(contested))):
            *early, late = contested[stream]
            for statement in early:
                self._offered(f"{stream.split('/')[0]} forks", random.randrange(at_us // 4, at_us // 2), statement)
            self._offered(f"{stream.split('/')[0]} goes on", random.randrange(at_us, 9 * _S), late)
        later_us = random.choice((0, _S, 4 * _S))
        for statement in self._stage.setting.resolves:
            self._offered("a fork is resolved", at_us // 2 + later_us + random.randrange(_S), statement)

    def _offered(self, what: str, at_us: int, statement: Statement[Said], *, once: Callable[[], bool] = lambda: True) -> None:
        """To one member, and to others when all is whole, for that one may lie: an operator asks until k say that they hold it.

        It is signed ``once`` that holds, or when all is whole.
        """
        target, offer = self._governor().member.name, self._offering(statement, once)
        self._at(at_us, f"{what} at {target}", partial(offer, target))

    def _offering(self, statement: Statement[Said], once: Callable[[], bool]) -> Callable[[str], None]:
        data, number = pack(Offer(statements=[msgspec.Raw(statement.envelope)])), -1 - self._random.randrange(1 << 30)

        def offer(member: str) -> None:
            if not self._healed and not once():
                self._stage.ground.after(_S // 5, partial(offer, member))
                return
            self._stage.watch.offered.add(statement.id)
            self._stage.send(Message(WORKLOADS[0], member, "sync", data, number))

        self._offers += [partial(offer, member) for member in self._stage.members]
        return offer

    def _let_go(self, what: str, saying: Callable[[], Statement[Said] | None], at_us: int) -> None:
        """The root says what need not be kept, of what is there by then; it is offered like anything else that somebody has said."""

        def say() -> None:
            if (said := saying()) is not None:
                self._offering(said, lambda: True)(self._governor().member.name)

        self._at(at_us, what, say)

    def _policy(self, at_us: int) -> None:
        """A second policy epoch, and its activation: once k have admitted it, which may be after it should have begun."""
        setting, later_us = self._stage.setting, self._random.randrange(at_us, 9 * _S)
        self._offered("a second policy is signed", at_us // 2, setting.renewal)
        self._offered("the second policy is activated", later_us, setting.activation, once=self._admitted)

    def _admitted(self) -> bool:
        """Whether k members could decide by the second policy."""
        wanted = self._stage.setting.renewal.id
        states = [governor.state for governor in self._stage.governors.values() if governor.state is not None]
        held = [law for state in states for laws in state.governance.laws.values() for law in laws if law.manifest_id == wanted]
        return sum(law.bundle is not None for law in held) >= self._stage.setting.governance.roster.k

    def _roster(self, at_us: int) -> None:
        """Only once in a world: a root that signs two histories is another story."""
        if not self._changing:
            self._changing = True
            self._ends.append(change_rosters(self._stage, self._random, at_us, offered=self._offered, at=self._at))
