"""Each intent is spent once, by whichever process of the audience comes first, and what came of it is kept until it is taken in.

Rules
-----
1. A spend is durable before it is answered; the second one of an intent is ``used``. One file per audience, shared by all its
   processes. A rollback journal, because SQLite's WAL has a race between several writing processes; ``synchronous=EXTRA``,
   because in that mode a commit lasts only once the directory forgot the journal.
2. Concurrent spends and outcomes of one process share a transaction; none can make its neighbours fail.
3. Outcomes of a boot are dense: number n + 1 is taken only after n.
4. The end of a spent intent is recorded in the transaction that keeps its outcome, so a crash can neither lose nor double it.
5. An approval or grant is used in the transaction that spends the intent resting on it, and never more often than it says.
6. Whoever lives holds a lock file beside the store. Spends without an end are *unfinished* only when their process is gone: the
   still running work of a sibling is never called unknown.

Not here: what an enforcer checks before it spends.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mesh.adapters.store import File, Layout, Session, hold
from mesh.adapters.store_schema import checksum, statement_key
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX

__all__ = ["Pending", "Spent", "SpentStore"]

_SCHEMA: Final = (
    # AUTOINCREMENT never gives a number twice: a lock file belongs to one process for ever.
    "CREATE TABLE process (n INTEGER PRIMARY KEY AUTOINCREMENT) STRICT",
    """CREATE TABLE spent (n INTEGER PRIMARY KEY, intent BLOB NOT NULL UNIQUE, process INTEGER NOT NULL, boot BLOB NOT NULL,
        domain TEXT NOT NULL, authorization BLOB NOT NULL, at_ms INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0) STRICT""",
    """CREATE TABLE approval_use (approval BLOB NOT NULL, number INTEGER NOT NULL, intent BLOB NOT NULL,
        PRIMARY KEY (approval, number)) WITHOUT ROWID, STRICT""",
    "CREATE INDEX spent_open ON spent (process) WHERE ended = 0",
    "CREATE TABLE chain (boot BLOB NOT NULL PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID, STRICT",
    """CREATE TABLE outcome (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, boot BLOB NOT NULL, sequence INTEGER NOT NULL,
        envelope BLOB NOT NULL, sum INTEGER NOT NULL) STRICT""",
    "CREATE TRIGGER spent_kept BEFORE DELETE ON spent BEGIN SELECT RAISE(ABORT, 'what is spent stays spent'); END",
    "CREATE TRIGGER use_kept BEFORE DELETE ON approval_use BEGIN SELECT RAISE(ABORT, 'what is used stays used'); END",
    "CREATE TRIGGER use_fixed BEFORE UPDATE ON approval_use BEGIN SELECT RAISE(ABORT, 'what is used stays used'); END",
    """CREATE TRIGGER spent_fixed BEFORE UPDATE ON spent WHEN NEW.ended <= OLD.ended OR NEW.n <> OLD.n OR NEW.intent <> OLD.intent
        BEGIN SELECT RAISE(ABORT, 'what is spent stays spent'); END""",
    """CREATE TRIGGER chain_forward BEFORE UPDATE ON chain WHEN NEW.next <= OLD.next
        BEGIN SELECT RAISE(ABORT, 'outcome numbers move forward only'); END""",
)
_LAYOUT: Final = Layout(application=0x73706E74, version=2, journal="delete", synchronous="EXTRA", schema=_SCHEMA, together=BATCH_EVENTS_MAX)
_SPEND: Final = """INSERT INTO spent (intent, process, boot, domain, authorization, at_ms) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (intent) DO NOTHING RETURNING n"""
_USED: Final = "SELECT count(*) FROM approval_use WHERE approval = ?"
_USE: Final = "INSERT INTO approval_use (approval, number, intent) VALUES (?, ?, ?)"
_OPEN: Final = "SELECT process, intent, boot, domain, authorization, at_ms FROM spent WHERE ended = 0 ORDER BY n"
_KEEP: Final = "INSERT INTO outcome (id, boot, sequence, envelope, sum) VALUES (?, ?, ?, ?, ?)"
_NEXT: Final = "INSERT INTO chain (boot, next) VALUES (?, ?) ON CONFLICT (boot) DO UPDATE SET next = excluded.next"


class Spent(NamedTuple):
    """A spent intent whose end is not known."""

    intent: str
    boot: str
    domain: str
    authorization: str
    at_ms: int


class Pending(NamedTuple):
    """An outcome that no governor has taken in yet."""

    id: str
    boot: str
    sequence: int
    envelope: bytes


class SpentStore:
    """What one process of an audience holds; all its methods raise :class:`~mesh.errors.Unavailable` ``storage_failed``."""

    def __init__(self, file: File, path: Path, process: int, life: int) -> None:
        self._file = file
        self._path = path
        self._process = process
        self._life: int | None = life

    @classmethod
    async def open(cls, path: Path, *, audience: str) -> "SpentStore":
        """Create the file of the enforcer ``audience`` (its key), or join its other processes.

        Raises:
            Refused: ``config_invalid`` when it is another's.
            Unavailable: ``storage_failed``.
            Alarm: ``storage_corrupt``.
        """
        file = await File.open(path, _LAYOUT, owner=audience)
        lives = list[int]()

        async def enter(session: Session) -> int:
            ((number,),) = await session.fetch("INSERT INTO process DEFAULT VALUES RETURNING n")
            life = hold(_life(path, number))  # before the commit: nobody may see the number of a process that seems dead
            if life is None:
                raise Unavailable("storage_failed", f"{_life(path, number)} is held by a stranger")
            lives.append(life)
            return int(number)

        try:
            store = cls(file, path, await file.write(enter), *lives)
            await store._bury()
        except BaseException:
            for life in lives:
                os.close(life)
            await file.close()
            raise
        return store

    async def spend(
        self, intent_id: str, *, boot: str, domain: str, authorization: str, at_ms: int, approvals: Sequence[tuple[str, int]] = ()
    ) -> int:
        """Spend the intent, durably, and use each of its approvals once; how many this audience has spent, this one included.

        Args:
            intent_id: the intent.
            boot: of this enforcer.
            domain: of the intent.
            authorization: its statement id.
            at_ms: now.
            approvals: ids of approvals and grants, each with how often it may be used.

        Raises:
            Refused: ``used``, ``approval_used``: then nothing was spent; ``malformed`` when an id is none.
        """
        key = statement_key(intent_id)
        row = (key, self._process, statement_key(boot), domain, statement_key(authorization), at_ms)
        wanted = [(statement_key(name), name, uses) for name, uses in approvals]

        async def take(session: Session) -> int | Refused:  # raising here would fail its neighbours (rule 2)
            numbers = list[int]()
            for approval, name, uses in wanted:
                ((used,),) = await session.fetch(_USED, (approval,))
                if used >= uses:
                    return Refused("approval_used", f"{name[:12]} was used {used} times, it is for {uses}")
                numbers.append(used + 1)
            counted = await session.fetch(_SPEND, row)
            if not counted:
                return Refused("used", intent_id)
            uses_ = [(approval, number, key) for (approval, _, _), number in zip(wanted, numbers, strict=True)]
            if uses_:
                await session.many(_USE, uses_)
            return int(counted[0][0])

        taken = await self._file.write(take)
        if isinstance(taken, Refused):
            raise taken
        return taken

    async def enqueue(self, outcome_id: str, *, boot: str, sequence: int, envelope: bytes, ends: str | None = None) -> None:
        """Keep an outcome until it is acknowledged; with ``ends``, it is the end of that spent intent.

        Raises:
            Refused: ``not_found`` when that intent was not spent here, ``intent_conflict`` when it has an end already.
            Alarm: ``log_conflict`` when ``sequence`` is not the next of the boot.
        """
        key, of = statement_key(outcome_id), statement_key(boot)
        intent = None if ends is None else statement_key(ends)

        async def keep(session: Session) -> MeshError | None:  # raising here would fail its neighbours (rule 2)
            after = await session.fetch("SELECT next FROM chain WHERE boot = ?", (of,))
            if [(sequence,)] != (after or [(0,)]):
                return Alarm("log_conflict", f"outcome {sequence} of boot {boot} where {after[0][0] if after else 0} is next")
            if intent is not None:
                spent = await session.fetch("SELECT ended FROM spent WHERE intent = ?", (intent,))
                if spent != [(0,)]:
                    return Refused("intent_conflict", f"{ends} has an end already") if spent else Refused("not_found", ends or "")
                await session.fetch("UPDATE spent SET ended = 1 WHERE intent = ?", (intent,))
            await session.fetch(_NEXT, (of, sequence + 1))
            await session.fetch(_KEEP, (key, of, sequence, envelope, checksum(envelope)))
            return None

        refusal = await self._file.write(keep)
        if refusal is not None:
            raise refusal

    async def pending(self, limit: int) -> list[Pending]:
        """The oldest outcomes that wait, of all boots.

        Raises:
            Alarm: ``storage_corrupt``.
        """
        found = await self._file.read("SELECT id, boot, sequence, envelope, sum FROM outcome ORDER BY n LIMIT ?", (limit,))
        for key, _, _, envelope, total in found:
            if checksum(envelope) != total:
                raise Alarm("storage_corrupt", f"outcome {key.hex()}")
        return [Pending(key.hex(), boot.hex(), sequence, envelope) for key, boot, sequence, envelope, _ in found]

    async def backlog(self) -> int:
        """How many outcomes wait."""
        return int((await self._file.read("SELECT count(*) FROM outcome"))[0][0])

    async def acknowledge(self, ids: Iterable[str]) -> None:
        """Forget outcomes that are safe elsewhere; unknown ids are ignored."""
        keys = [(statement_key(item),) for item in ids]
        await self._file.write(lambda session: session.many("DELETE FROM outcome WHERE id = ?", keys))

    async def unfinished(self, boot: str) -> list[Spent]:
        """Spends without an end whose process is gone, or which an earlier boot than ``boot`` made in this process; oldest first."""
        current = statement_key(boot)
        gone = dict[int, bool]()
        found = list[Spent]()
        for process, intent, made_by, domain, authorization, at_ms in await self._file.read(_OPEN):
            if process not in gone:
                gone[process] = process == self._process or self._dead(process)
            if gone[process] and made_by != current:
                found.append(Spent(intent.hex(), made_by.hex(), domain, authorization.hex(), at_ms))
        return found

    async def close(self) -> None:
        """Finish the running transaction, refuse what waits, and let go of the file."""
        await self._file.close()
        if self._life is not None:
            os.close(self._life)
            self._life = None

    def _dead(self, process: int, *, bury: bool = False) -> bool:
        life = hold(_life(self._path, process))
        if life is None:
            return False
        if bury:
            _life(self._path, process).unlink(missing_ok=True)
        os.close(life)
        return True

    async def _bury(self) -> None:
        """Remove the lock files of processes that are gone and left nothing open."""
        sql = "SELECT n FROM process WHERE n <> ? AND NOT EXISTS (SELECT 1 FROM spent WHERE process = process.n AND ended = 0)"
        gone = [row for row in await self._file.read(sql, (self._process,)) if self._dead(row[0], bury=True)]
        if gone:
            await self._file.write(lambda session: session.many("DELETE FROM process WHERE n = ?", gone))


def _life(path: Path, process: int) -> Path:
    return path.with_name(f"{path.name}.{process}.life")
