"""Whoever asked this node and waits: each is answered once, or told that nothing will come."""

from collections import Counter
from collections.abc import Iterator

import msgspec

from mesh.adapters.bus_message import NO_HEADERS, Message
from mesh.errors import MeshError

__all__ = ["Waiters", "reply"]


class Waiters:
    """By number, as the machine knows them."""

    def __init__(self, counters: Counter[str]) -> None:
        """Nobody waits; ``counters`` counts what could not be sent."""
        self._counters = counters
        self._messages: dict[int, Message] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def add(self, message: Message) -> int:
        """One more; its number."""
        self._next += 1
        self._messages[self._next] = msgspec.structs.replace(message, data=b"", headers=NO_HEADERS)  # enough to answer
        return self._next

    async def answer(self, waiter: int, data: bytes) -> None:
        """Answer that one, if it still waits."""
        message = self._messages.pop(waiter, None)
        if message is not None:
            await reply(message, data, self._counters)

    async def answer_all(self, data: bytes) -> None:
        """Answer everybody who waits now; who asks meanwhile is not among them."""
        messages, self._messages = self._messages, {}
        for message in messages.values():
            await reply(message, data, self._counters)


async def reply(message: Message, data: bytes, counters: Counter[str]) -> None:
    """Answer a message; ``counters`` counts it if it cannot be sent."""
    try:
        await message.respond(data)
    except MeshError:
        counters["unsent"] += 1
