"""A witness as a process of its own: C2SP tlog-witness over HTTP, one key, one file, and no other part in any mesh.

Rules
-----
1. What is cosigned is decided by :mod:`mesh.protocol.witness`; here it is performed by the mesh's own runner: kept, then signed, then
   answered (:func:`mesh.protocol.step.phases`).
2. One request per log at a time: what was judged is what the file still holds, or nothing is written.
3. Storage that fails answers 503; the file is opened again, and what it holds then is what is known, unless that is less than was
   known before, or something else: that is an alarm (``storage_rolled_back``), and an alarm ends the witness.
4. A log's own signature under another root for a size that was cosigned is kept as evidence, and said in the log.
5. ``GET /<sha256 of origin>/checkpoint`` shows what was cosigned last, with the line that was answered.

Not here: HTTP (:mod:`mesh.adapters.httpserver`), the file (:mod:`mesh.adapters.witnessstore`).
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from mesh.adapters.clock import Clock
from mesh.adapters.httpserver import TEXT, Answer, HttpServer, Request
from mesh.adapters.signer import Signer, load
from mesh.adapters.witnessstore import Cosigned, WitnessStore
from mesh.core.log.checkpoint import cosigner
from mesh.core.log.note import Verifier
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.limits import WITNESS_REQUEST_BYTES_MAX
from mesh.protocol.step import Commit, Head, KeyUse, Step, phases
from mesh.protocol.witness import SIZE_TYPE, STATUS, Forked, add_checkpoint, asked, shown
from mesh.roles.witness_config import WitnessConfig, watched

__all__ = ["WitnessNode", "open_store"]

T = TypeVar("T")

_USE: Final[KeyUse] = "witness"
_REOPEN_S: Final = 0.5
_CONFLICT: Final = 409
_CHECKPOINT: Final = "/checkpoint"
_AGAIN: Final = {"Cache-Control": "no-cache"}

_log = logging.getLogger(__name__)


async def open_store(config: WitnessConfig, *, key: Path | None = None, create: bool = False) -> WitnessStore:
    """The file of that witness, open; with ``create`` it is made, folder and all.

    Args:
        config: whose.
        key: where its key is now, if not where the configuration says.
        create: as in :meth:`WitnessStore.open`.

    Raises:
        MeshError: as :meth:`WitnessStore.open`, and what is wrong with the key.
    """
    folder = config.path(config.witness.data)
    key_file = key or config.path(config.witness.key)
    if create:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable("storage_failed", f"{folder}: {error.strerror}") from None
    return await WitnessStore.open(folder / "witness.db", key=load(key_file).key.public, key_file=key_file, create=create)


class WitnessNode:
    """One witness. :meth:`run` lives until :meth:`stop`."""

    def __init__(self, config: WitnessConfig, failpoint: Callable[[str], None]) -> None:
        """Read what the configuration names; nothing is opened yet.

        Raises:
            Refused: ``config_invalid`` and whatever is wrong with the key or a file.
        """
        self._config = config
        self._failpoint = failpoint
        self._signer = Signer([load(config.path(config.witness.key))])
        self._key = self._signer.public(_USE)
        self.logs: Mapping[str, tuple[Verifier, ...]] = watched(config)
        """Origin to keys."""
        self.verifier = cosigner(config.witness.name, self._key)
        """Who it is, for those whose logs it watches."""
        self._by_hash = {hashlib.sha256(origin.encode()).hexdigest(): origin for origin in self.logs}
        self._turns = {origin: asyncio.Lock() for origin in self.logs}
        self._nobody = asyncio.Lock()
        self._clock = Clock()
        self._store: WitnessStore | None = None
        self._cosigned: dict[str, Cosigned] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._fatal: Alarm | None = None
        self.counters: Counter[str] = Counter()
        self.port = 0

    def stop(self) -> None:
        """Answer nothing more; :meth:`run` returns once the file is closed."""
        self._stopping = True
        self._wake.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until stopped; ``ready`` is called once requests are answered.

        Raises:
            Refused: ``config_invalid``: the address cannot be had, or the file is another's.
            Unavailable: ``storage_failed``, at the start: also when another witness has the key or the file.
            Alarm: rule 3.
        """
        door = HttpServer(self._answer, body_bytes_max=WITNESS_REQUEST_BYTES_MAX, fatal=self._alarm, counters=self.counters)
        await self._open()
        try:
            await door.listen(self._config.witness.listen)
            self.port = door.port
            ready()
            while not self._stopping and self._fatal is None:
                await self._wake.wait()
                self._wake.clear()
                if self._store is None:
                    await self._reopen()
        finally:
            await door.close()
            await self._let_go()
        if self._fatal is not None:
            raise self._fatal

    async def _open(self) -> None:
        store = await open_store(self._config)
        try:
            found = await store.all()
            _not_less(self._cosigned, found)
        except BaseException:
            await store.close()
            raise
        self._store, self._cosigned = store, found

    async def _reopen(self) -> None:
        """Rule 3."""
        while not self._stopping and self._fatal is None:
            try:
                await self._open()
                return
            except Alarm as alarm:
                self._alarm(alarm)
            except MeshError as error:
                _log.error("storage: %s", error)
                await asyncio.sleep(_REOPEN_S)

    async def _let_go(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    def _alarm(self, alarm: Alarm) -> None:
        _log.critical("stopped: %s", alarm)
        self._fatal = self._fatal or alarm
        self._wake.set()

    # --------------------------------------------------------------------------------------------------------- requests

    async def _answer(self, request: Request) -> Answer:
        self._open_store()
        if request.path == "/add-checkpoint":
            if request.method != "POST":
                return Answer(405, headers={"Allow": "POST"})
            return await self._add(request.body)
        origin = self._by_hash.get(request.path.removeprefix("/").removesuffix(_CHECKPOINT))
        if origin is None or not request.path.endswith(_CHECKPOINT):
            return Answer(404)
        if request.method not in {"GET", "HEAD"}:
            return Answer(405, headers={"Allow": "GET, HEAD"})
        return await self._show(origin)

    async def _add(self, body: bytes) -> Answer:
        known: Cosigned | None = None
        try:
            ask = asked(body)
            origin = ask.checkpoint.origin
            async with self._turns.get(origin, self._nobody):  # rule 2
                known = self._cosigned.get(origin)
                now_s = self._clock.now_ms() // 1000
                log = self.logs.get(origin, ())
                step = add_checkpoint(known.head if known else None, ask, log, name=self.verifier.name, time_s=now_s)
                return Answer(200, await self._perform(origin, step))
        except Forked as fork:
            _log.error("%s", fork)
            await self._durably(self._open_store().keep(fork.origin, fork.note))
            return _refused(fork)
        except Refused as refusal:
            if STATUS.get(refusal.code) == _CONFLICT:
                return Answer(_CONFLICT, b"%d\n" % (known.head.size if known else 0), SIZE_TYPE)
            return _refused(refusal)

    async def _show(self, origin: str) -> Answer:
        known = self._cosigned.get(origin)
        if known is None:
            return Answer(404)
        body = await self._perform(origin, shown(known.head, known.note, name=self.verifier.name))
        return Answer(200, body, TEXT, _AGAIN)

    async def _perform(self, origin: str, step: Step[Head]) -> bytes:
        """Rule 1: the bytes that the step answers."""
        runner = phases(step, sign=self._signer.sign, public={_USE: self._key}, failpoint=self._failpoint)
        try:
            phase = next(runner)
            if isinstance(phase, Commit):
                known = self._cosigned.get(origin)
                before = known.head if known else None
                self._cosigned[origin] = await self._durably(self._open_store().advance(origin, before, phase.effects))
                phase = next(runner)
            if isinstance(phase, Commit):
                raise Alarm("internal_error", "a step commits twice")
            ((_, answer),) = phase.messages
            next(runner, None)
            return answer
        finally:
            runner.close()

    async def _durably(self, writing: Awaitable[T]) -> T:
        """Rule 3."""
        store = self._store
        try:
            return await writing
        except Unavailable:
            if self._store is store:
                await self._let_go()
            self._wake.set()
            raise

    def _open_store(self) -> WitnessStore:
        if self._store is None or self._fatal is not None:
            raise Unavailable("storage_failed", "the file is not open")
        return self._store


def _not_less(known: Mapping[str, Cosigned], found: Mapping[str, Cosigned]) -> None:
    """Rule 3: an older copy, or an empty disk, may stand where the file was."""
    for origin, (before, _) in known.items():
        now = found[origin].head if origin in found else None
        if now is None or now.size < before.size or now.time_s < before.time_s or (now.size == before.size and now.root != before.root):
            raise Alarm("storage_rolled_back", f"{origin} was cosigned at size {before.size}, and the file does not say so any more")


def _refused(refusal: Refused) -> Answer:
    return Answer(STATUS.get(refusal.code, 400), f"{refusal}\n".encode())
