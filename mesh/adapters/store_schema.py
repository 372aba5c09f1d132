"""What a node's file may hold, and what it refuses by itself, whoever writes into it.

Rules
-----
1. Records, branch hashes, bodies, governance statements, origins, first uses and places only ever appear: the file refuses to
   change or delete them.
2. A record takes the next index of its log; there is no gap and no second record at an index.
3. A head refuses a smaller size, another root at the same size, and an earlier time.
4. What no Merkle tree vouches for (bodies, governance statements, openings, notes, heads, meta) carries a checksum, because
   SQLite has none: it is against rot, not against an adversary, who would recompute it.
5. Branch hashes are kept at every eighth level only: one row per 256 records instead of one per record. A proof reads at
   most 255 siblings per such level in return.

Not here: connections and transactions (:mod:`mesh.adapters.store`), reads (:mod:`mesh.adapters.storequeries`).
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from mesh.core.log.merkle import Branch, leaf_hash
from mesh.errors import Alarm, Refused
from mesh.protocol.step import (
    Append,
    Head,
    InsertOnce,
    Locate,
    Persist,
    PutBody,
    PutLaw,
    PutNote,
    PutOpenings,
    SetHead,
    SetMeta,
)

__all__ = [
    "ADD_ORIGINS",
    "ADD_USES",
    "LEVELS",
    "SCHEMA",
    "Batch",
    "checksum",
    "fact_sum",
    "head_sum",
    "rows",
    "statement_key",
]

LEVELS: Final = 8
"""Only levels that are multiples of this have rows; level 0 is the records' own leaf hashes."""

_TABLES: Final = (
    "CREATE TABLE log (id INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE) STRICT",
    # Large rows stand in the order they came, so that they are only ever appended to the file's end.
    """CREATE TABLE record (n INTEGER PRIMARY KEY, log INTEGER NOT NULL REFERENCES log (id), idx INTEGER NOT NULL,
        leaf BLOB NOT NULL CHECK (length(leaf) = 32), data BLOB NOT NULL) STRICT""",
    # Proofs read up to 256 leaf hashes in a row: from this index alone, without touching the records.
    "CREATE UNIQUE INDEX record_at ON record (log, idx, leaf)",
    """CREATE TABLE branch (log INTEGER NOT NULL REFERENCES log (id), level INTEGER NOT NULL, number INTEGER NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32), PRIMARY KEY (log, level, number)) WITHOUT ROWID, STRICT""",
    """CREATE TABLE head (use TEXT NOT NULL, log INTEGER NOT NULL REFERENCES log (id), size INTEGER NOT NULL, root BLOB NOT NULL,
        time_s INTEGER NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (use, log)) WITHOUT ROWID, STRICT""",
    "CREATE TABLE body (n INTEGER PRIMARY KEY, id BLOB NOT NULL, kind TEXT NOT NULL, envelope BLOB NOT NULL, sum INTEGER NOT NULL) STRICT",
    "CREATE TABLE located (n INTEGER PRIMARY KEY, id BLOB NOT NULL, log INTEGER NOT NULL REFERENCES log (id), idx INTEGER NOT NULL) STRICT",
    # All that is found by a statement id, in one tree: ids are random, so each insertion writes a page of its own, and this
    # way what one statement needs shares that page. A place has its record's log and index here, everything else 0 and 0;
    # `at` is the row of `body` or `located`, or the index of the record that used the id up.
    """CREATE TABLE named (id BLOB NOT NULL, space TEXT NOT NULL, log INTEGER NOT NULL, idx INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (id, space, log, idx)) WITHOUT ROWID, STRICT""",
    """CREATE TABLE law (stream TEXT NOT NULL, sequence INTEGER NOT NULL, id BLOB NOT NULL, envelope BLOB NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (stream, sequence, id)) STRICT""",
    "CREATE TABLE opening (intent BLOB NOT NULL UNIQUE, openings BLOB NOT NULL, sum INTEGER NOT NULL) STRICT",
    """CREATE TABLE note (space TEXT NOT NULL, log INTEGER NOT NULL REFERENCES log (id), size INTEGER NOT NULL, note BLOB NOT NULL,
        sum INTEGER NOT NULL, PRIMARY KEY (space, log, size)) STRICT""",
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID, STRICT",
)
_TRIGGERS: Final = (
    """CREATE TRIGGER record_next BEFORE INSERT ON record
        WHEN NEW.idx <> (SELECT coalesce(max(idx) + 1, 0) FROM record WHERE log = NEW.log) OR EXISTS (SELECT 1 FROM record WHERE n = NEW.n)
        BEGIN SELECT RAISE(ABORT, 'a record takes the next index of its log'); END""",
    """CREATE TRIGGER body_new BEFORE INSERT ON body WHEN EXISTS (SELECT 1 FROM named WHERE id = NEW.id AND space = 'body')
        BEGIN SELECT RAISE(IGNORE); END""",
    "CREATE TRIGGER body_named AFTER INSERT ON body BEGIN INSERT INTO named VALUES (NEW.id, 'body', 0, 0, NEW.n); END",
    """CREATE TRIGGER located_named AFTER INSERT ON located
        BEGIN INSERT INTO named VALUES (NEW.id, 'place', NEW.log, NEW.idx, NEW.n) ON CONFLICT DO NOTHING; END""",
    # Before INSERT, because that also fires for an upsert and for REPLACE.
    """CREATE TRIGGER head_forward BEFORE INSERT ON head
        WHEN EXISTS (SELECT 1 FROM head WHERE use = NEW.use AND log = NEW.log AND
            (NEW.size < size OR NEW.time_s < time_s OR (NEW.size = size AND NEW.root <> root)))
        BEGIN SELECT RAISE(ABORT, 'a head moves forward only'); END""",
    """CREATE TRIGGER head_update BEFORE UPDATE ON head
        WHEN NEW.use <> OLD.use OR NEW.log <> OLD.log OR NEW.size < OLD.size OR NEW.time_s < OLD.time_s
            OR (NEW.size = OLD.size AND NEW.root <> OLD.root)
        BEGIN SELECT RAISE(ABORT, 'a head moves forward only'); END""",
    "CREATE TRIGGER head_kept BEFORE DELETE ON head BEGIN SELECT RAISE(ABORT, 'heads are kept'); END",
    *(
        f"CREATE TRIGGER {table}_{word} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{table}: rows are kept as they are'); END"
        for table in ("log", "record", "branch", "body", "located", "named", "law")
        for word, verb in (("fixed", "UPDATE"), ("kept", "DELETE"))
    ),
)
SCHEMA: Final = (*_TABLES, *_TRIGGERS)

ADD_ORIGINS: Final = "INSERT INTO log (id, origin) VALUES (?, ?)"
ADD_USES: Final = "INSERT INTO named (id, space, log, idx, at) VALUES (?, ?, 0, 0, ?)"
_ADD_RECORDS: Final = "INSERT INTO record (log, idx, leaf, data) VALUES (?, ?, ?, ?)"
_ADD_BRANCHES: Final = "INSERT INTO branch (log, level, number, hash) VALUES (?, ?, ?, ?)"
_ADD_BODIES: Final = "INSERT INTO body (id, kind, envelope, sum) VALUES (?, ?, ?, ?)"
_ADD_OPENINGS: Final = "INSERT INTO opening (intent, openings, sum) VALUES (?, ?, ?) ON CONFLICT (intent) DO NOTHING"
_ADD_LAW: Final = "INSERT INTO law (stream, sequence, id, envelope, sum) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ADD_PLACES: Final = "INSERT INTO located (id, log, idx) VALUES (?, ?, ?)"
_SET_HEADS: Final = """INSERT INTO head (use, log, size, root, time_s, sum) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (use, log)
    DO UPDATE SET size = excluded.size, root = excluded.root, time_s = excluded.time_s, sum = excluded.sum"""
_SET_NOTES: Final = """INSERT INTO note (space, log, size, note, sum) VALUES (?, ?, ?, ?, ?) ON CONFLICT (space, log, size)
    DO UPDATE SET note = excluded.note, sum = excluded.sum"""
_DROP_CHECKPOINTS: Final = """DELETE FROM note WHERE space = 'checkpoint' AND log = ?1
    AND size < (SELECT max(size) FROM note WHERE space = 'checkpoint' AND log = ?1)"""
_SET_META: Final = """INSERT INTO meta (key, value, sum) VALUES (?, ?, ?) ON CONFLICT (key)
    DO UPDATE SET value = excluded.value, sum = excluded.sum"""

Row = tuple[object, ...]


def checksum(data: bytes) -> int:
    """CRC-32 of stored bytes."""
    return zlib.crc32(data)


def head_sum(use: str, origin: str, head: Head) -> int:
    """The checksum of a head's row."""
    return checksum(repr((use, origin, head.size, head.root, head.time_s)).encode())


def fact_sum(key: str, value: int) -> int:
    """The checksum of a small fact's row."""
    return checksum(repr((key, value)).encode())


def statement_key(text: str) -> bytes:
    """The 32 bytes that a statement id stands for.

    Raises:
        Refused: ``malformed``.
    """
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32 or key.hex() != text:  # fromhex also takes spaces and capitals, under which one id would have two rows
        raise Refused("malformed", f"not a statement id: {text[:80]!r}")
    return key


class Batch(NamedTuple):
    """The rows of one step, in the order in which they are written."""

    writes: tuple[tuple[str, Sequence[Row]], ...]
    """SQL and its rows; first uses are not among them."""
    uses: Sequence[Row]
    """Rows of :data:`ADD_USES`, which alone may already be there."""


def rows(  # noqa: C901 -- one branch for each kind of effect
    effects: Iterable[Persist], ids: Mapping[str, int], branches: Iterable[tuple[str, Branch]]
) -> Batch:
    """What the effects of one step are as rows.

    Args:
        effects: the step's, in order.
        ids: every origin that they name, and its number in the file.
        branches: what the appended records complete in the trees of their origins.

    Raises:
        Refused: ``malformed``.
        Alarm: ``storage_corrupt`` when a record does not have the hash it comes with.
    """
    records, openings, uses, places, heads, notes, dropped, facts, law = [list[Row]() for _ in range(9)]
    bodies = dict[str, Row]()  # a batch of intents names the same identity documents again and again
    key = cache(statement_key)
    for effect in effects:
        match effect:
            case Append():
                records += _records(effect, ids[effect.origin])
            case PutBody():
                if effect.id not in bodies:
                    bodies[effect.id] = (key(effect.id), effect.kind, effect.envelope, checksum(effect.envelope))
            case PutLaw():
                law.append((effect.stream, effect.sequence, key(effect.id), effect.envelope, checksum(effect.envelope)))
            case PutOpenings():
                openings.append((key(effect.intent), effect.openings, checksum(effect.openings)))
            case InsertOnce():
                uses.append((key(effect.key), effect.space, effect.index))
            case Locate():
                places.append((key(effect.id), ids[effect.origin], effect.index))
            case SetHead():
                head = effect.head
                total = head_sum(effect.use, effect.origin, head)
                heads.append((effect.use, ids[effect.origin], head.size, head.root, head.time_s, total))
            case PutNote():
                notes.append((effect.space, ids[effect.origin], effect.size, effect.note, checksum(effect.note)))
                if effect.space == "checkpoint":
                    dropped.append((ids[effect.origin],))
            case SetMeta():
                facts.append((effect.key, effect.value, fact_sum(effect.key, effect.value)))
    kept = [(ids[origin], *branch) for origin, branch in branches if branch.level and branch.level % LEVELS == 0]
    writes = (
        (_ADD_RECORDS, records),
        (_ADD_BRANCHES, kept),
        (_ADD_BODIES, list(bodies.values())),
        (_ADD_LAW, law),
        (_ADD_OPENINGS, openings),
        (_ADD_PLACES, list(dict.fromkeys(places))),
        (_SET_NOTES, notes),
        (_DROP_CHECKPOINTS, dropped),
        (_SET_META, facts),
        (_SET_HEADS, heads),
    )
    return Batch(tuple((sql, values) for sql, values in writes if values), uses)


def _records(append: Append, log: int) -> Iterable[Row]:
    if len(append.leaves) != len(append.hashes):
        raise Refused("malformed", f"{len(append.leaves)} records with {len(append.hashes)} hashes")
    for index, (data, leaf) in enumerate(zip(append.leaves, append.hashes, strict=True), append.first):
        if leaf_hash(data) != leaf:  # it would be found on every later read, when it can no longer be mended
            raise Alarm("storage_corrupt", f"record {index} of {append.origin} comes with another record's hash")
        yield log, index, leaf, data
