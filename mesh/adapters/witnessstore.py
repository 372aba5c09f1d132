"""A witness's memory: the last checkpoint cosigned of each log, which the file itself refuses to take back.

Rules
-----
1. One file, one key, one process: the file belongs to a public key for ever, a lock beside it is held for life, and so is a lock
   on the key file: a second witness with the same key, wherever its own file is, does not start. It is made once, on request: a file
   that is missing or empty is a failure, because a witness that forgot would sign another history.
2. :meth:`WitnessStore.advance` compares and swaps in one transaction: it writes only if the file still holds what was judged.
3. The file refuses a smaller size, another root at one size, an earlier time and any deletion, whoever writes into it.
4. What contradicts a cosigned checkpoint under the log's own signature is kept: of each log,
   :data:`mesh.limits.WITNESS_EVIDENCE_MAX` at most.
5. Any failure ends the store; it is asked again only after it was opened again (:mod:`mesh.adapters.store`, rule 5).

An older copy must never be put back: what was signed since would be signed otherwise. A witness that lost its file retires its key.

Not here: what is cosigned (:mod:`mesh.protocol.witness`).
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mesh.adapters.store import File, Layout, Session, hold
from mesh.adapters.store_schema import checksum
from mesh.core.log.checkpoint import read_checkpoint
from mesh.errors import Alarm, Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, WITNESS_EVIDENCE_MAX
from mesh.protocol.step import Head, Persist, PutNote, SetHead

__all__ = ["Cosigned", "WitnessStore"]

_SCHEMA: Final = (
    """CREATE TABLE cosigned (origin TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL CHECK (length(root) = 32),
        time_s INTEGER NOT NULL, note BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID, STRICT""",
    "CREATE TABLE evidence (origin TEXT NOT NULL, note BLOB NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (origin, note)) STRICT",
    # Before INSERT, because that also fires for an upsert and for REPLACE.
    """CREATE TRIGGER cosigned_new BEFORE INSERT ON cosigned WHEN EXISTS (SELECT 1 FROM cosigned WHERE origin = NEW.origin)
        BEGIN SELECT RAISE(ABORT, 'a witness moves forward only'); END""",
    """CREATE TRIGGER cosigned_forward BEFORE UPDATE ON cosigned
        WHEN NEW.origin <> OLD.origin OR NEW.size < OLD.size OR NEW.time_s < OLD.time_s OR (NEW.size = OLD.size AND NEW.root <> OLD.root)
        BEGIN SELECT RAISE(ABORT, 'a witness moves forward only'); END""",
    "CREATE TRIGGER cosigned_kept BEFORE DELETE ON cosigned BEGIN SELECT RAISE(ABORT, 'what was cosigned is kept'); END",
    "CREATE TRIGGER evidence_kept BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is kept'); END",
    "CREATE TRIGGER evidence_fixed BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is kept'); END",
)
_LAYOUT: Final = Layout(application=0x77746E73, version=1, journal="wal", synchronous="FULL", schema=_SCHEMA, together=BATCH_EVENTS_MAX)
_ALL: Final = "SELECT origin, size, root, time_s, note, sum FROM cosigned"
_FIRST: Final = "INSERT INTO cosigned (origin, size, root, time_s, note, sum) VALUES (?, ?, ?, ?, ?, ?)"
_NEXT: Final = """UPDATE cosigned SET size = ?, root = ?, time_s = ?, note = ?, sum = ?
    WHERE origin = ? AND size = ? AND root = ? AND time_s = ? RETURNING 1"""
_KEEP: Final = "INSERT INTO evidence (origin, note, sum) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


class Cosigned(NamedTuple):
    """What was cosigned last of one log."""

    head: Head
    note: bytes
    """The checkpoint with the log's own signatures."""


class WitnessStore:
    """A witness's file, open."""

    def __init__(self, file: File, locks: Sequence[int]) -> None:
        """Take over what is open already."""
        self._file = file
        self._locks = list(locks)

    @classmethod
    async def open(cls, path: Path, *, key: str, key_file: Path, create: bool = False) -> "WitnessStore":
        """Open the file of the witness with the public key ``key`` (hex), or create it: only that (rule 1).

        Raises:
            Refused: ``config_invalid`` when it is another's, or there already and was to be created.
            Unavailable: ``storage_failed``, also when another process has the file or the key, or it is not there.
            Alarm: ``storage_corrupt``.
        """
        locks = list[int]()
        try:
            there = _there(path)
            if create and there:
                raise Refused("config_invalid", f"{path} is there already")
            if not create and not there:
                raise Unavailable("storage_failed", f"{path} is missing or empty; `mesh witness init` makes it, once for each key")
            locks.append(_lock_key(key_file))
            lock = hold(path.with_name(f"{path.name}.lock"))
            if lock is None:
                raise Unavailable("storage_failed", f"{path} is in use by another process")
            locks.append(lock)
            return cls(await File.open(path, _LAYOUT, owner=key, create=create), locks)
        except BaseException:
            for lock in locks:
                os.close(lock)
            raise

    async def all(self) -> dict[str, Cosigned]:
        """What was cosigned last, by origin.

        Raises:
            Unavailable: ``storage_failed``.
            Alarm: ``storage_corrupt``.
        """
        found = dict[str, Cosigned]()
        for origin, size, root, time_s, note, total in await self._file.read(_ALL):
            one = Cosigned(Head(size, root, time_s), note)
            if _sum(origin, one) != total:
                raise Alarm("storage_corrupt", f"what was cosigned of {origin}")
            found[origin] = one
        return found

    async def advance(self, origin: str, before: Head | None, effects: Sequence[Persist]) -> Cosigned:
        """Make the effects of one step durable if the file still holds ``before`` of that origin (rule 2); what it holds now.

        Raises:
            Alarm: ``storage_rolled_back``: it holds something else; nothing was written.
            Unavailable: ``storage_failed``: whether it was written is unknown until the file is opened again.
        """
        after = _of(origin, effects)
        row = _row(after)
        total = _sum(origin, after)

        async def swap(session: Session) -> Alarm | None:  # raising here would fail its neighbours
            if before is None:
                if await session.fetch("SELECT 1 FROM cosigned WHERE origin = ?", (origin,)):
                    return Alarm("storage_rolled_back", f"{origin} was cosigned before")
                await session.fetch(_FIRST, (origin, *row, total))
            elif not await session.fetch(_NEXT, (*row, total, origin, before.size, before.root, before.time_s)):
                return Alarm("storage_rolled_back", f"{origin} was not cosigned last at size {before.size}")
            return None

        alarm = await self._file.write(swap)
        if alarm is not None:
            raise alarm
        return after

    async def keep(self, origin: str, note: bytes) -> None:
        """Keep a checkpoint that contradicts a cosigned one (rule 4). Raises as :meth:`all`."""

        async def put(session: Session) -> None:
            ((count,),) = await session.fetch("SELECT count(*) FROM evidence WHERE origin = ?", (origin,))
            if count < WITNESS_EVIDENCE_MAX:
                await session.fetch(_KEEP, (origin, note, checksum(note)))

        await self._file.write(put)

    async def evidence(self) -> list[tuple[str, bytes]]:
        """(origin, note) of everything that was kept so. Raises as :meth:`all`."""
        found = await self._file.read("SELECT origin, note, sum FROM evidence ORDER BY rowid")
        for origin, note, total in found:
            if checksum(note) != total or _origin(note) != origin:
                raise Alarm("storage_corrupt", f"evidence against {origin}")
        return [(origin, note) for origin, note, _ in found]

    async def close(self) -> None:
        """Finish the running commit and let go of file and key."""
        await self._file.close()
        while self._locks:
            os.close(self._locks.pop())


def _of(origin: str, effects: Sequence[Persist]) -> Cosigned:
    match tuple(effects):
        case (SetHead(use="witness", origin=one, head=head), PutNote(space="checkpoint", origin=other, note=note)) if (
            one == other == origin
        ):
            return Cosigned(head, note)
        case _:
            raise Refused("malformed", f"not the step of a witness about {origin}")


def _row(one: Cosigned) -> tuple[Any, ...]:
    return one.head.size, one.head.root, one.head.time_s, one.note


def _sum(origin: str, one: Cosigned) -> int:
    return checksum(repr((origin, *_row(one))).encode())


def _origin(note: bytes) -> str:
    try:
        return read_checkpoint(note).origin
    except Refused:
        return ""


def _there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unavailable("storage_failed", f"{path}: {error.strerror}") from None


def _lock_key(path: Path) -> int:
    """Lock the key file itself: reading is enough, so it may lie in a folder that is not ours to write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable("storage_failed", f"{path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        why = "in use by another process" if isinstance(error, BlockingIOError) else error.strerror
        raise Unavailable("storage_failed", f"{path}: {why}") from None
    return descriptor
