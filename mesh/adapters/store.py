"""A node's memory: what :meth:`Store.commit` returned from is on the disk, whole, and never becomes less.

Rules
-----
1. One file, one process: a lock beside the file is held for life. The file belongs to one node for ever.
2. One writer connection and one writer task (two tasks on one connection would share a transaction; two writing connections
   meet SQLite's WAL-reset race). A commit is one transaction, taken in the order of the calls.
3. Cancelling a caller cancels its waiting, not the commit.
4. A key that is not new is a :class:`Conflict`; what the file itself refuses (:mod:`mesh.adapters.store_schema`) is an alarm.
   Both leave nothing of the step and the store usable.
5. Any other failure ends the store: whether the last bytes are on the disk is unknown, and asking again would not tell (a
   failed fsync is reported once). Every call is then ``storage_failed`` until the file is opened again. Opening it again reads back
   what may stand in memory only, so the whole journal is written into the file and synced before anything is read.
6. Whoever waits when the store ends or is closed is answered.
7. What took no more can rest: it answers questions from what is durable, and writes nothing.

:class:`File` is the part of this that :mod:`mesh.adapters.spent` shares. Foreign exceptions become ours here and nowhere else.

Not here: the tables (:mod:`mesh.adapters.store_schema`), the index by id (:mod:`mesh.adapters.storeindex`), the questions
(:mod:`mesh.adapters.storequeries`, :mod:`mesh.adapters.storefind`).
"""

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import aiosqlite

from mesh.adapters.sqlite import PRIVATE, abandon, busy, connect, failure, hold
from mesh.adapters.store_schema import ADD_BODIES, ADD_ORIGINS, ADD_PLACES, ADD_USES, DROP_LAW, FORGET, SCHEMA, SET_FLOORS, rows
from mesh.adapters.storeerase import blank, emptied
from mesh.adapters.storefind import Finding
from mesh.adapters.storeindex import Index
from mesh.adapters.storelayout import Layout, bind, settle
from mesh.adapters.storeprune import floor_rows, overwrite
from mesh.adapters.storequeries import Queries
from mesh.core.log.merkle import Branch, Frontier
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.protocol.step import Append, AppendHashes, InsertOnce, Locate, Persist, PutNote, SetHead

__all__ = ["LAYOUT", "Conflict", "Duplicate", "File", "Layout", "Session", "Store", "failure", "hold"]

T = TypeVar("T")

_OVERWRITTEN: Final = "SELECT id FROM body WHERE n > ? AND envelope = zeroblob(length(envelope))"
_OF_A_LOG: Final = (Append, AppendHashes, SetHead, Locate, PutNote)


class Conflict(Refused):
    """A key of an :class:`~mesh.protocol.step.InsertOnce` is not new: nothing of the step was stored."""

    def __init__(self, space: str, key: str) -> None:
        super().__init__("intent_conflict", f"{space} {key}")
        self.space = space
        self.key = key


class Duplicate(Exception):
    """A row has a key that is already there."""

    def __init__(self, sql: str, position: int) -> None:
        super().__init__(sql, position)
        self.sql = sql
        """What was to insert it."""
        self.position = position


LAYOUT: Final = Layout(application=0x6D657368, version=6, journal="wal", synchronous="FULL", schema=SCHEMA, together=1)


class Session:
    """What a job can do inside its transaction."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        return [tuple(row) for row in await self._connection.execute_fetchall(sql, values)]

    async def many(self, sql: str, values: Sequence[Sequence[object]]) -> None:
        """One statement for each of the rows.

        Raises:
            Duplicate: with the position of the first row whose key is there already.
        """
        taken = count()
        try:
            await self._connection.executemany(sql, (row for _, row in zip(taken, values)))  # noqa: B905 -- one of them has no end
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode in {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE}:
                raise Duplicate(sql, next(taken) - 1) from None
            raise

    async def together(self, writes: Iterable[tuple[str, Sequence[Sequence[object]]]]) -> None:
        """:meth:`many` for each, in order, without coming back to the loop in between: a busy loop would take its time each time.

        Raises:
            Duplicate: as :meth:`many`. What stands behind the first that fails may have been written; the transaction must end.
        """
        for answer in await asyncio.gather(*(self.many(sql, values) for sql, values in writes if values), return_exceptions=True):
            if answer is not None:
                raise answer


Job = Callable[[Session], Awaitable[T]]


class _Waiting(NamedTuple, Generic[T]):
    job: Job[T]
    done: "asyncio.Future[T]"
    empty_wal: bool

    def refuse(self, error: MeshError) -> None:
        self.done.set_exception(error)
        self.done.exception()  # seen: a caller that was cancelled will not ask, and the loop would complain


class File:
    """One SQLite file: transactions in order, reads beside them, one failure for all."""

    def __init__(self, path: Path, layout: Layout, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._path = path
        self._layout = layout
        self._writer = writer
        self._reader = reader
        self._waiting = deque[_Waiting[Any]]()
        self._wake = asyncio.Event()
        self.over = ""  # why it takes nothing any more; empty while it does
        self._resting = asyncio.Event()
        """Nothing is written any more, and the writing connection is closed."""
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"writer of {path.name}")

    @classmethod
    async def open(cls, path: Path, layout: Layout, *, owner: str, create: bool = True) -> "File":
        """Create the file, or open one of this layout and owner; without ``create`` one that is missing or empty is a failure.

        Raises:
            Refused: ``config_invalid`` when it is another's.
            Unavailable: ``storage_failed``.
            Alarm: ``storage_corrupt``.
        """
        opened = list[aiosqlite.Connection]()
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            os.close(os.open(path, flags, PRIVATE))  # SQLite would let others read it
            writer = await connect(path, opened)
            await bind(writer, layout, owner, create=create)
            await settle(writer, layout)
            reader = await connect(path, opened)
            await reader.execute("PRAGMA query_only = ON")  # and so it never checkpoints: see rule 2
            return cls(path, layout, writer, reader)
        except BaseException as error:
            await abandon(*opened)
            if isinstance(error, OSError | sqlite3.Error | UnicodeDecodeError):
                raise failure(error) from None
            raise

    async def write(self, job: Job[T], *, empty_wal: bool = False) -> T:
        """Run ``job`` in a transaction, after all jobs handed in before; what it returned, once that is durable.

        With ``empty_wal``, only once nothing of what it has overwritten is left in the WAL either.

        Raises:
            Unavailable: ``storage_failed``; ``unavailable`` if it is durable, and a reader has kept the WAL as it was.
            MeshError: what the job raised; nothing of its transaction remains.
        """
        self._require()
        item = _Waiting(job, asyncio.get_running_loop().create_future(), empty_wal)
        self._waiting.append(item)
        self._wake.set()
        return await asyncio.shield(item.done)

    async def read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query over what is durable.

        Raises:
            Unavailable: ``storage_failed``.
            Alarm: ``storage_corrupt`` when SQLite itself finds the file broken.
        """
        self._require()
        try:
            return [tuple(row) for row in await self._reader.execute_fetchall(sql, values)]
        except (sqlite3.Error, ValueError) as error:
            self._require()  # closed in the meantime
            raise (failure(error) if busy(error) else self._end(failure(error))) from None

    async def read_on(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The same, whatever became of writing, until it is closed."""
        try:
            return [tuple(row) for row in await self._reader.execute_fetchall(sql, values)]
        except (sqlite3.Error, ValueError) as error:
            raise failure(error) from None

    async def rest(self) -> None:
        """End writing: a running transaction is finished, who waits behind it is refused."""
        self.over = self.over or "it was closed"
        self._wake.set()
        await self._resting.wait()

    async def close(self) -> None:
        """End reading, too."""
        self.over = self.over or "it was closed"
        self._wake.set()
        self._closing.set()
        await asyncio.shield(self._task)

    def _require(self) -> None:
        if self.over:
            raise Unavailable("storage_failed", f"{self._path.name}: {self.over}")

    def _end(self, error: MeshError) -> MeshError:
        self.over = self.over or error.detail
        self._wake.set()
        return error

    async def _run(self) -> None:
        try:
            await self._write_on()
            await self._closing.wait()  # with the last connection goes what a full disk would let nobody make again, and so read
        finally:  # also when the loop is torn down and cancels its tasks
            await abandon(self._reader)

    async def _write_on(self) -> None:
        group = list[_Waiting[Any]]()
        try:
            while not self.over:
                while self._waiting and len(group) < self._layout.together:
                    group.append(self._waiting.popleft())
                if group:
                    await self._transact(group)
                    group.clear()
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:  # as above
            self.over = self.over or "its writer was stopped"
            for item in (*group, *self._waiting):
                if not item.done.done():
                    item.refuse(Unavailable("storage_failed", f"{self._path.name}: {self.over}"))
            self._waiting.clear()
            await abandon(self._writer)
            self._resting.set()

    async def _transact(self, group: Sequence[_Waiting[Any]]) -> None:
        session, begun = Session(self._writer), False
        try:
            await self._writer.execute("BEGIN IMMEDIATE")
            begun = True
            results = [await item.job(session) for item in group]
            await self._writer.commit()
            whole = not any(item.empty_wal for item in group) or await emptied(session.fetch)
        except Exception as error:  # noqa: BLE001 -- whatever it was, somebody waits for an answer
            ours = await self._undo(error, begun=begun)
            for item in group:
                item.refuse(ours)
            return
        for item, result in zip(group, results, strict=True):
            if item.empty_wal and not whole:
                item.refuse(Unavailable("unavailable", "the WAL could not be emptied while somebody reads"))
            else:
                item.done.set_result(result)

    async def _undo(self, error: Exception, *, begun: bool) -> MeshError:
        ours = error if isinstance(error, MeshError) else failure(error)
        try:
            if self._writer.in_transaction:
                await self._writer.rollback()
        except (sqlite3.Error, ValueError) as second:
            return self._end(failure(second))
        harmless = isinstance(error, MeshError) or (isinstance(ours, Alarm) and ours.code == "storage_rolled_back")
        return ours if harmless or (not begun and busy(error)) else self._end(ours)


class Store(Finding):
    """A node's file."""

    def __init__(self, file: File, lock: int, ids: dict[str, int], index: Index) -> None:
        super().__init__(file.read, index)
        self._file = file
        self._lock: int | None = lock
        self._ids = ids
        self._frontiers: dict[str, Frontier] = {}

    @classmethod
    async def open(cls, path: Path, *, owner: str) -> "Store":
        """Create the file of the node ``owner``, or open it.

        Raises:
            Refused: ``config_invalid`` when it is another's.
            Unavailable: ``storage_failed``, also when another process has it.
            Alarm: ``storage_corrupt``.
        """
        lock = hold(path.with_name(f"{path.name}.lock"))
        if lock is None:
            raise Unavailable("storage_failed", f"{path} is in use by another process")
        file: File | None = None
        try:
            file = await File.open(path, LAYOUT, owner=owner)
            index = Index()
            await file.write(lambda session: index.load(session.fetch))
            written = index.bodies
            while await file.write(lambda session: _catch_up(session, index)):
                pass
            index.forget([key for (key,) in await file.read(_OVERWRITTEN, (written,))])
            return cls(file, lock, dict(await file.read("SELECT origin, id FROM log")), index)
        except BaseException:
            if file is not None:
                await file.close()
            os.close(lock)
            raise

    async def commit(self, effects: Sequence[Persist]) -> None:
        """Make the effects of one step durable, all or none.

        Raises:
            Conflict: a key is not new; nothing was stored.
            Refused: ``malformed``: an id is none; nothing was stored.
            Alarm: ``storage_rolled_back`` (a record out of order, a head that moves back) or ``storage_corrupt``; nothing was stored.
            Unavailable: ``storage_failed``: whether it was stored is unknown until the file is opened again.
        """
        await self._file.write(lambda session: self._apply(session, effects))

    @property
    def ended(self) -> bool:
        """Whether nothing is written any more."""
        return bool(self._file.over)

    async def close(self) -> None:
        """Finish the running commit, refuse the waiting ones, and let go of the file."""
        await self._file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def rest(self) -> None:
        """Let go of the file but for a connection that reads (rule 7), until :meth:`close`; it may be opened again meanwhile.

        Raises:
            Unavailable: ``storage_failed``: nor can it be read.
            Alarm: ``storage_corrupt``.
        """
        await self._file.rest()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        index = Index()
        await index.remember(self._file.read_on)
        self._fetch, self._index = self._file.read_on, index

    async def forget(self, streams: Collection[str]) -> None:
        """Delete what was said in these streams, of which nothing counts any more.

        Raises:
            Unavailable: ``storage_full``, ``storage_failed``.
        """

        async def job(session: Session) -> None:
            rows = [(stream,) for stream in sorted(streams)]
            await session.many(FORGET, rows)
            await session.many(DROP_LAW, rows)

        await self._file.write(job)

    async def erase(self, intents: Collection[str]) -> None:
        """Overwrite the openings of these intents, and take none of them in again; then no byte of them is in the file or its WAL.

        Raises:
            Refused: ``malformed``: an id is none.
            Unavailable: ``storage_failed``; ``unavailable`` if that is done and a reader has kept the WAL as it was: ask again.
        """
        await self._file.write(lambda session: blank(session.many, intents), empty_wal=True)

    async def prune(self, origin: str, *, below: int, first: int, end: int) -> None:
        """Overwrite the records ``[first, end)`` of a log but for their hashes, and what only they named; its floor is at ``below``.

        What it overwrites may be in the WAL until :meth:`cut`.

        Raises:
            Alarm: ``storage_rolled_back``: they stand above the floor; nothing was done.
            Unavailable: ``storage_failed``.
        """
        room = await self.room(origin, first, end)

        async def job(session: Session) -> None:
            self._index.forget(await overwrite(session.fetch, session.many, self._ids[origin], room, below=below))

        await self._file.write(job)

    async def cut(self) -> None:
        """Leave nothing of what was overwritten in the WAL. Raises as :meth:`erase`."""
        await self.erase(())

    async def _apply(self, session: Session, effects: Sequence[Persist]) -> None:
        ids = dict(self._ids)
        named = [effect.origin for effect in effects if isinstance(effect, _OF_A_LOG)]
        for origin in dict.fromkeys(named):
            if origin not in ids:
                ids[origin] = len(ids) + 1
        frontiers = dict(self._frontiers)
        branches = list[tuple[str, Branch]]()
        for effect in effects:
            if isinstance(effect, Append | AppendHashes):
                grown, completed = await self._grow(session, effect, frontiers.get(effect.origin))
                frontiers[effect.origin] = grown
                branches += [(effect.origin, branch) for branch in completed]
        batch = rows(effects, ids, branches)
        origins = [(number, origin) for origin, number in ids.items() if origin not in self._ids]
        index = self._index
        fresh = [row for row in batch.bodies if not index.holds(row[0])]
        bodies = [(number, *row) for number, row in enumerate(fresh, index.bodies + 1)]
        places = [(number, *row) for number, row in enumerate(batch.places, index.places + 1)]
        turn = await index.turn(session.fetch, [row[0] for row in fresh], [row[0] for row in batch.places])
        try:
            await session.together(
                [
                    (ADD_ORIGINS, origins),
                    (SET_FLOORS, await floor_rows(session.fetch, effects, ids)),
                    (ADD_USES, batch.uses),
                    *batch.writes,
                    (ADD_BODIES, bodies),
                    (ADD_PLACES, places),
                    *turn.writes,
                ]
            )
        except Duplicate as duplicate:
            if duplicate.sql != ADD_USES:
                raise Alarm("storage_corrupt", f"{duplicate.sql}: somebody else wrote into the file") from None
            used = [(effect.space, effect.key) for effect in effects if isinstance(effect, InsertOnce)]
            raise Conflict(*used[duplicate.position]) from None
        # Last: should the COMMIT that follows fail, the store ends and this is forgotten with it.
        self._ids, self._frontiers = ids, frontiers
        index.adopt(turn)

    async def _grow(
        self, session: Session, append: Append | AppendHashes, frontier: Frontier | None
    ) -> tuple[Frontier, tuple[Branch, ...]]:
        if frontier is None:
            frontier = await Queries(session.fetch).frontier(append.origin)
        if append.first != frontier.size:
            raise Alarm("storage_rolled_back", f"{append.origin}: record {append.first} where {frontier.size} is next")
        return frontier.grow(append.hashes)


async def _catch_up(session: Session, index: Index) -> bool:
    """Take some rows into the index that it does not have yet; whether there were any."""
    turn = await index.behind(session.fetch)
    if turn is not None:
        await session.together(turn.writes)
        index.adopt(turn)
    return turn is not None
