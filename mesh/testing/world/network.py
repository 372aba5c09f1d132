"""A bus in a world: it may delay, drop, double, reorder, change, hold back and say again whatever passes; it cannot sign.

Rules
-----
1. What is sent is delivered after a random time, if no cut lies between the two ends when it is sent.
2. Cuts are one-way pairs. Held pairs keep their messages until they are released, all at once, in any order.
3. Heartbeats to a lagging end all come late by the same time: news that is old, in good order.
4. A changed message has one byte changed anywhere; an old one said again is the same bytes at a later time.
5. A calm network (:data:`CALM`) is quick and loses nothing.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from mesh.testing.world.forger import forged
from mesh.testing.world.ground import Ground
from mesh.testing.world.message import Message

__all__ = ["CALM", "Conditions", "Network"]

_KEPT_MAX: Final = 400
"""Messages that are remembered, to be said again."""


class Conditions(msgspec.Struct, frozen=True):
    """How bad a network is; shares are of all messages."""

    delay_us: tuple[int, int] = (200, 6_000)
    slow: float = 0.0
    slow_us: tuple[int, int] = (100_000, 2_500_000)
    lost: float = 0.0
    twice: float = 0.0
    changed: float = 0.0
    again: float = 0.0
    """An old message of somebody is said again beside this one."""
    forged: float = 0.0
    """Records on their way are exchanged for invented ones, statements beside them left out."""


CALM: Final = Conditions()


class Network:
    """One world's bus."""

    def __init__(self, ground: Ground, deliver: Callable[[Message], None]) -> None:
        self._ground = ground
        self._deliver = deliver
        self._random = ground.random("network")
        self.conditions = CALM
        self._cuts: dict[tuple[str, str], int] = {}
        self._held: dict[tuple[str, str], list[Message]] = {}
        self._lags: dict[str, int] = {}
        self._kept: list[Message] = []

    def send(self, message: Message) -> None:
        """Take a message; whether it arrives is another matter."""
        pair, conditions, random = (message.source, message.target), self.conditions, self._random
        if len(self._kept) < _KEPT_MAX:
            self._kept.append(message)
        else:
            self._kept[random.randrange(_KEPT_MAX)] = message
        if pair in self._held:
            self._held[pair].append(message)
            return
        if pair in self._cuts:
            return
        if conditions is CALM:
            self._carry(message)
            return
        if random.random() < conditions.lost:
            return
        if random.random() < conditions.forged:
            message = forged(message, random)
        if random.random() < conditions.changed:
            message = _changed(message, random.randrange(1 << 30))
        self._carry(message)
        if random.random() < conditions.twice:
            self._carry(message)
        if random.random() < conditions.again:
            self._carry(random.choice(self._kept))

    def _carry(self, message: Message) -> None:
        conditions, random = self.conditions, self._random
        lag_us = self._lags.get(message.target, 0) if message.kind == "hb" and message.source != message.target else 0
        low, high = conditions.slow_us if conditions.slow and random.random() < conditions.slow else conditions.delay_us
        self._ground.after(lag_us + random.randrange(low, high), lambda: self._deliver(message))

    def cut(self, pairs: Iterable[tuple[str, str]]) -> Callable[[], None]:
        """Cut these one-way pairs; what is returned heals this cut. Cuts that overlap heal one by one."""
        mine = list(pairs)
        for pair in mine:
            self._cuts[pair] = self._cuts.get(pair, 0) + 1

        def heal() -> None:
            for pair in mine:
                left = self._cuts.get(pair, 0) - 1
                if left > 0:
                    self._cuts[pair] = left
                else:
                    self._cuts.pop(pair, None)

        return heal

    def lag(self, target: str, lag_us: int) -> Callable[[], None]:
        """Let this end hear only what was; what is returned ends it."""
        self._lags[target] = lag_us

        def end() -> None:
            self._lags.pop(target, None)

        return end

    def hold(self, pairs: Iterable[tuple[str, str]]) -> Callable[[], None]:
        """Keep back what these pairs say; what is returned lets all of it go."""
        mine = [pair for pair in pairs if pair not in self._held]
        for pair in mine:
            self._held[pair] = []

        def release() -> None:
            messages = [message for pair in mine for message in self._held.pop(pair, [])]
            self._random.shuffle(messages)
            for message in messages:
                self._carry(message)

        return release


def _changed(message: Message, chance: int) -> Message:
    """One byte becomes another; a digit or letter stays one, so that many changes are still well-formed."""
    if not message.data:
        return message
    data, at = bytearray(message.data), chance % len(message.data)
    for kind in (b"0123456789", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        found = kind.find(data[at])
        if found >= 0:
            data[at] = kind[(found + 1 + chance % (len(kind) - 1)) % len(kind)]
            return msgspec.structs.replace(message, data=bytes(data))
    data[at] ^= 1 << (chance >> 20) % 7
    return msgspec.structs.replace(message, data=bytes(data))
