"""External witnesses of a governor's log: asked about each published checkpoint, one round after the other.

Rules
-----
1. A round takes the newest certificate, asks every witness that is due at once, waits for none beyond
   :data:`mesh.limits.WITNESS_ASK_MS_MAX`, and publishes the certificate with the lines that came. Without any witness it is
   published as it is.
2. A witness that did not cosign is left alone for twice as long as before, up to :data:`_AWAY_S_MAX`; nobody waits for it then.
3. Lines are durable before they are published (:mod:`mesh.protocol.outside` says which are believed). No machine of the mesh sees them.
4. A log that stands still is shown to its witnesses again every :data:`_QUIET_S`, so that their times tell quiet from frozen.

Not here: the mesh's own witnesses, which are its members (:mod:`mesh.protocol.mirror`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from mesh.adapters.httpclient import ask
from mesh.adapters.store import Store
from mesh.core.log.checkpoint import AddCheckpoint, read_checkpoint
from mesh.core.log.note import Note, parse_note
from mesh.core.log.tlogpolicy import Outsider
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.limits import NOTE_BYTES_MAX, WITNESS_ASK_MS_MAX
from mesh.protocol.outside import cosigned, published, told_size
from mesh.protocol.step import PutNote

__all__ = ["Cosigners"]

_ROUND_S: Final = 1.0
"""Between two rounds."""
_AWAY_S: Final = 2.0
_AWAY_S_MAX: Final = 300.0
_QUIET_S: Final = 600.0
_OK: Final = 200
_CONFLICT: Final = 409

_log = logging.getLogger(__name__)


class _Witness:
    """How it stands with one of them."""

    def __init__(self, name: str, who: Outsider) -> None:
        self.name = name
        self.who = who
        self.old = 0
        """The size it cosigned last, as far as is known."""
        self.note = b""
        """The last text it cosigned, with its line."""
        self.away_s = 0.0
        self.due_s = 0.0

    def beneath(self, text: bytes) -> bool:
        """Whether it has cosigned that text."""
        return bool(self.note) and parse_note(self.note).text == text


class Cosigners:
    """What is published of one log; :meth:`run` keeps it new."""

    def __init__(
        self, origin: Callable[[], str], store: Callable[[], Store], witnesses: Mapping[str, Outsider], counters: Counter[str]
    ) -> None:
        """Of the log ``origin`` in ``store``; both may raise while the node is not open."""
        self._origin = origin
        self._store = store
        self._witnesses = [_Witness(name, who) for name, who in witnesses.items()]
        self._of = ""
        self._round_s = -_QUIET_S
        self.checkpoint = b""
        """What is published: empty before the log's first certificate."""
        self._counters = counters

    async def run(self) -> None:
        """Round after round, until cancelled.

        Raises:
            Alarm: what storage says.
        """
        while True:
            try:
                await self.round(asyncio.get_running_loop().time())
            except Alarm:
                raise
            except MeshError as error:
                _log.info("published nothing new: %s", error)
            await asyncio.sleep(_ROUND_S)

    async def round(self, now_s: float) -> None:
        """Rule 1. Raises as the store does."""
        origin, store = self._origin(), self._store()
        if origin != self._of:
            await self._look_up(origin, store)
        newest = await store.note("certificate", origin, latest=True)
        if newest is None:
            return
        text = parse_note(newest.note).text
        known = bool(self.checkpoint) and parse_note(self.checkpoint).text == text
        stale = now_s - self._round_s >= _QUIET_S
        due = [one for one in self._witnesses if one.due_s <= now_s and (stale or not one.beneath(text))]
        if known and not due:
            return
        self._round_s = now_s
        lines = await asyncio.gather(*(self._ask(one, origin, store, newest.note, now_s) for one in due))
        came = {one: line for one, line in zip(due, lines, strict=True) if line}
        if came:  # together: each commit of its own would be one more that the mesh's own commits stand behind
            await store.commit([PutNote("outside", origin, newest.size, line, one.name) for one, line in came.items()])
        for one, line in came.items():
            one.old, one.note, one.away_s, one.due_s = newest.size, line, 0.0, 0.0
            self._counters["witness_lines"] += 1
        self.checkpoint = published(newest.note, [one.note for one in self._witnesses if one.note])

    async def _look_up(self, origin: str, store: Store) -> None:
        """What was known when this node last ran."""
        for one in self._witnesses:
            kept = await store.note("outside", origin, member=one.name, latest=True)
            one.old, one.note = (kept.size, kept.note) if kept is not None else (0, b"")
        self._of, self.checkpoint = origin, b""

    async def _ask(self, one: _Witness, origin: str, store: Store, certificate: bytes, now_s: float) -> bytes:
        """Have it cosign: the text with its line; empty, and rule 2, if it does not."""
        size = read_checkpoint(certificate).size
        try:
            async with asyncio.timeout(WITNESS_ASK_MS_MAX / 1000):
                return await self._cosigned(one, origin, store, certificate, size)
        except TimeoutError:
            self._leave(one, now_s, "no answer in time")
        except Refused as refusal:
            self._leave(one, now_s, str(refusal))
        except Unavailable as error:
            if error.code != "unreachable":  # our own file
                raise
            self._leave(one, now_s, str(error))
        return b""

    def _leave(self, one: _Witness, now_s: float, why: str) -> None:
        one.away_s = min(max(2 * one.away_s, _AWAY_S), _AWAY_S_MAX)
        one.due_s = now_s + one.away_s
        self._counters["witness_failures"] += 1
        _log.warning("witness %s: %s", one.name, why)

    async def _cosigned(self, one: _Witness, origin: str, store: Store, certificate: bytes, size: int) -> bytes:
        """Its line on what ``certificate`` is about; asked once more from the size that it tells.

        Raises:
            Unavailable: ``unreachable``.
            Refused: ``not_cosigned``.
        """
        note = parse_note(certificate)
        log_signed = Note(note.text, tuple(line for line in note.lines if line.name == origin)).encode()
        old = min(one.old, size)
        for last in (False, True):
            path = await store.consistency_path(origin, old, size) if old else ()
            body = AddCheckpoint(old, path, log_signed).encode()
            url = f"{one.who.url.rstrip('/')}/add-checkpoint"
            reply = await ask(url, method="POST", body=body, wait_ms=WITNESS_ASK_MS_MAX, bytes_max=NOTE_BYTES_MAX)
            if reply.status == _OK:
                return cosigned(log_signed, reply.body, one.who.verifier)
            if reply.status != _CONFLICT or last:
                break
            old = told_size(reply.kind, reply.body, size)
        raise Refused("not_cosigned", f"it answers {reply.status}")
