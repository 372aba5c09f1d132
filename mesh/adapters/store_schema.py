"""What a node's file may hold, and what it refuses by itself, whoever writes into it.

Rules
-----
1. Records, branch hashes, bodies, governance statements, policy bundles, origins, first uses and places only ever appear: the
   file refuses to change or delete them; but for the statements of a stream of which, by a roster, nothing counts any more.
   Openings can be overwritten with nothing, and the file does not take back those of an intent whose openings were erased. So can
   the data of records below the log's floor, and bodies once there is a floor; a row that came without its data stands only there.
2. A record takes the next index of its log; there is no gap and no second record at an index.
3. A head refuses a smaller size, another root at the same size, and an earlier time.
4. What no Merkle tree vouches for (bodies, governance statements, bundles, openings, notes, heads, meta) carries a checksum, because
   SQLite has none: it is against rot, not against an adversary, who would recompute it.
5. Branch hashes are kept at every eighth level only: one row per 256 records instead of one per record. A proof reads at
   most 255 siblings per such level in return.
6. Ids are random, so no table that every decision writes is ordered by them: a first use stands under the time that its own
   statement says, and bodies and places stand as they came and are found by an index that can be made again from them
   (:mod:`mesh.adapters.storeindex`), the only rows here that may be rewritten. Documents, which are few, are found by id directly.

Not here: connections and transactions (:mod:`mesh.adapters.store`), reads (:mod:`mesh.adapters.storequeries`,
:mod:`mesh.adapters.storefind`).
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from mesh.core.log.merkle import Branch, leaf_hash
from mesh.errors import Alarm, Refused
from mesh.protocol.step import (
    Append,
    AppendHashes,
    Head,
    InsertOnce,
    Locate,
    Persist,
    PutBody,
    PutBundle,
    PutLaw,
    PutNote,
    PutOpenings,
    SetHead,
    SetMeta,
)

__all__ = [
    "ADD_BODIES",
    "ADD_ORIGINS",
    "ADD_PLACES",
    "ADD_USES",
    "DROP_LAW",
    "FORGET",
    "LEVELS",
    "SCHEMA",
    "SET_FLOORS",
    "Batch",
    "checksum",
    "fact_sum",
    "floor_sum",
    "head_sum",
    "is_gone",
    "note_sum",
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
    # From where on all of a log is kept, and up to where all was pruned: below, a row may have its hash only.
    """CREATE TABLE floor (log INTEGER PRIMARY KEY REFERENCES log (id), below INTEGER NOT NULL, done INTEGER NOT NULL, sum INTEGER NOT NULL)
        STRICT""",
    # What many records name, like identities: each is here once.
    """CREATE TABLE document (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, envelope BLOB NOT NULL,
        sum INTEGER NOT NULL) STRICT""",
    # The time is the statement's own, so an id has one, and is new if it is new there; and rows come nearly in order.
    """CREATE TABLE used (at_ms INTEGER NOT NULL, space TEXT NOT NULL, id BLOB NOT NULL, idx INTEGER NOT NULL,
        PRIMARY KEY (at_ms, space, id)) WITHOUT ROWID, STRICT""",
    # The index by id, which follows from `body` and `located`: see mesh/adapters/storeindex.py.
    """CREATE TABLE run (run INTEGER PRIMARY KEY, level INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
        target INTEGER NOT NULL, size INTEGER NOT NULL, body INTEGER NOT NULL, place INTEGER NOT NULL) STRICT""",
    "CREATE TABLE part (n INTEGER PRIMARY KEY, entries BLOB NOT NULL, sum INTEGER NOT NULL) STRICT",
    """CREATE TABLE law (stream TEXT NOT NULL, sequence INTEGER NOT NULL, id BLOB NOT NULL, envelope BLOB NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (stream, sequence, id)) STRICT""",
    # Streams of which nothing counts any more: only what was said there may be deleted.
    "CREATE TABLE forgotten (stream TEXT NOT NULL PRIMARY KEY) STRICT",
    "CREATE TABLE bundle (digest TEXT NOT NULL PRIMARY KEY, data BLOB NOT NULL, sum INTEGER NOT NULL) STRICT",
    "CREATE TABLE opening (intent BLOB NOT NULL UNIQUE, openings BLOB NOT NULL, sum INTEGER NOT NULL) STRICT",
    # Intents whose openings are not kept any more; what stands in `opening` under them is zeros.
    "CREATE TABLE erased (intent BLOB NOT NULL PRIMARY KEY) WITHOUT ROWID, STRICT",
    """CREATE TABLE note (space TEXT NOT NULL, log INTEGER NOT NULL REFERENCES log (id), size INTEGER NOT NULL, note BLOB NOT NULL,
        sum INTEGER NOT NULL, PRIMARY KEY (space, log, size)) STRICT""",
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID, STRICT",
)
_TRIGGERS: Final = (
    """CREATE TRIGGER record_next BEFORE INSERT ON record
        WHEN NEW.idx <> (SELECT coalesce(max(idx) + 1, 0) FROM record WHERE log = NEW.log) OR EXISTS (SELECT 1 FROM record WHERE n = NEW.n)
        BEGIN SELECT RAISE(ABORT, 'a record takes the next index of its log'); END""",
    """CREATE TRIGGER record_hash BEFORE INSERT ON record
        WHEN length(NEW.data) = 0 AND NEW.idx >= coalesce((SELECT below FROM floor WHERE log = NEW.log), 0)
        BEGIN SELECT RAISE(ABORT, 'a record comes with its data'); END""",
    """CREATE TRIGGER record_fixed BEFORE UPDATE ON record
        WHEN NEW.n <> OLD.n OR NEW.log <> OLD.log OR NEW.idx <> OLD.idx OR NEW.leaf <> OLD.leaf OR NEW.data <> zeroblob(length(OLD.data))
            OR OLD.idx >= coalesce((SELECT below FROM floor WHERE log = OLD.log), 0)
        BEGIN SELECT RAISE(ABORT, 'record: rows are kept as they are'); END""",
    """CREATE TRIGGER body_fixed BEFORE UPDATE ON body
        WHEN NEW.n <> OLD.n OR NEW.id <> OLD.id OR NEW.kind <> OLD.kind OR NEW.sum <> OLD.sum
            OR NEW.envelope <> zeroblob(length(OLD.envelope)) OR NOT EXISTS (SELECT 1 FROM floor)
        BEGIN SELECT RAISE(ABORT, 'body: rows are kept as they are'); END""",
    """CREATE TRIGGER floor_forward BEFORE INSERT ON floor
        WHEN EXISTS (SELECT 1 FROM floor WHERE log = NEW.log AND (NEW.below < below OR NEW.done < done))
        BEGIN SELECT RAISE(ABORT, 'a floor only rises'); END""",
    """CREATE TRIGGER floor_update BEFORE UPDATE ON floor WHEN NEW.log <> OLD.log OR NEW.below < OLD.below OR NEW.done < OLD.done
        BEGIN SELECT RAISE(ABORT, 'a floor only rises'); END""",
    "CREATE TRIGGER floor_kept BEFORE DELETE ON floor BEGIN SELECT RAISE(ABORT, 'floors are kept'); END",
    # Not a conflict clause: REPLACE overrides that.
    """CREATE TRIGGER document_new BEFORE INSERT ON document WHEN EXISTS (SELECT 1 FROM document WHERE id = NEW.id OR n = NEW.n)
        BEGIN SELECT RAISE(IGNORE); END""",
    """CREATE TRIGGER body_next BEFORE INSERT ON body WHEN NEW.n <> (SELECT coalesce(max(n), 0) + 1 FROM body)
        BEGIN SELECT RAISE(ABORT, 'a body takes the next row'); END""",
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
        for table in ("log", "record", "branch", "body", "document", "located", "used", "law", "bundle", "forgotten", "erased")
        for word, verb in (("fixed", "UPDATE"), ("kept", "DELETE"))
        if (table, verb) not in {("law", "DELETE"), ("record", "UPDATE"), ("body", "UPDATE")}
    ),
    """CREATE TRIGGER opening_erased BEFORE INSERT ON opening WHEN EXISTS (SELECT 1 FROM erased WHERE intent = NEW.intent)
        BEGIN SELECT RAISE(IGNORE); END""",
    """CREATE TRIGGER law_kept BEFORE DELETE ON law WHEN NOT EXISTS (SELECT 1 FROM forgotten WHERE stream = OLD.stream)
        BEGIN SELECT RAISE(ABORT, 'law: rows are kept as they are'); END""",
)
SCHEMA: Final = (*_TABLES, *_TRIGGERS)

ADD_ORIGINS: Final = "INSERT INTO log (id, origin) VALUES (?, ?)"
ADD_USES: Final = "INSERT INTO used (at_ms, space, id, idx) VALUES (?, ?, ?, ?)"
ADD_BODIES: Final = "INSERT INTO body (n, id, kind, envelope, sum) VALUES (?, ?, ?, ?, ?)"
ADD_PLACES: Final = "INSERT INTO located (n, id, log, idx) VALUES (?, ?, ?, ?)"
_ADD_RECORDS: Final = "INSERT INTO record (log, idx, leaf, data) VALUES (?, ?, ?, ?)"
_ADD_BRANCHES: Final = "INSERT INTO branch (log, level, number, hash) VALUES (?, ?, ?, ?)"
_ADD_DOCUMENTS: Final = "INSERT INTO document (id, kind, envelope, sum) VALUES (?, ?, ?, ?)"
_ADD_OPENINGS: Final = """INSERT INTO opening (intent, openings, sum) VALUES (?, ?, ?) ON CONFLICT (intent)
    DO UPDATE SET openings = excluded.openings, sum = excluded.sum WHERE openings = zeroblob(length(openings))"""
_ADD_LAW: Final = "INSERT INTO law (stream, sequence, id, envelope, sum) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
FORGET: Final = "INSERT INTO forgotten (stream) VALUES (?) ON CONFLICT DO NOTHING"
DROP_LAW: Final = "DELETE FROM law WHERE stream = ?"
_ADD_BUNDLES: Final = "INSERT INTO bundle (digest, data, sum) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
SET_FLOORS: Final = """INSERT INTO floor (log, below, done, sum) VALUES (?, ?, ?, ?) ON CONFLICT (log)
    DO UPDATE SET below = excluded.below, done = excluded.done, sum = excluded.sum"""
_SET_HEADS: Final = """INSERT INTO head (use, log, size, root, time_s, sum) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (use, log)
    DO UPDATE SET size = excluded.size, root = excluded.root, time_s = excluded.time_s, sum = excluded.sum"""
_SET_NOTES: Final = """INSERT INTO note (space, log, size, note, sum) VALUES (?, ?, ?, ?, ?) ON CONFLICT (space, log, size)
    DO UPDATE SET note = excluded.note, sum = excluded.sum"""
_DROP_NOTES: Final = """DELETE FROM note WHERE space = ?1 AND log = ?2
    AND size < (SELECT max(size) FROM note WHERE space = ?1 AND log = ?2)"""
_SET_META: Final = """INSERT INTO meta (key, value, sum) VALUES (?, ?, ?) ON CONFLICT (key)
    DO UPDATE SET value = excluded.value, sum = excluded.sum"""

_OF_ONE_RECORD: Final = frozenset({"intent", "outcome", "heard"})
"""Kinds of bodies; all others are documents."""

Row = tuple[object, ...]
Keyed = tuple[bytes, *tuple[object, ...]]
"""A row that begins with a statement id."""


def checksum(data: bytes) -> int:
    """CRC-32 of stored bytes."""
    return zlib.crc32(data)


def head_sum(use: str, origin: str, head: Head) -> int:
    """The checksum of a head's row."""
    return checksum(repr((use, origin, head.size, head.root, head.time_s)).encode())


def fact_sum(key: str, value: int) -> int:
    """The checksum of a small fact's row."""
    return checksum(repr((key, value)).encode())


def floor_sum(origin: str, below: int, done: int) -> int:
    """The checksum of a floor's row."""
    return checksum(repr((origin, below, done)).encode())


def is_gone(data: bytes) -> bool:
    """Whether nothing but its length is left of what was stored: no record and no statement is all zeros, or empty."""
    return data.count(0) == len(data)


def note_sum(place: str, origin: str, size: int, note: bytes) -> int:
    """The checksum of a note's row: where it stands is as much what it says as its text."""
    return checksum(repr((place, origin, size, note)).encode())


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
    """SQL and its rows, without those below."""
    uses: Sequence[Row]
    """Rows of :data:`ADD_USES`, which alone may already be there."""
    bodies: Sequence[Keyed]
    """Rows of :data:`ADD_BODIES`, before they have numbers."""
    places: Sequence[Keyed]
    """The same of :data:`ADD_PLACES`."""


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
    records, openings, uses, heads, notes, dropped, facts, law, bundles = [list[Row]() for _ in range(9)]
    bodies, documents = dict[str, Keyed](), dict[str, Row]()  # a batch of intents names the same identity documents again and again
    places = list[Keyed]()
    key = cache(statement_key)
    for effect in effects:
        match effect:
            case Append() | AppendHashes():
                records += _records(effect, ids[effect.origin])
            case PutBody():
                group = bodies if effect.kind in _OF_ONE_RECORD else documents
                if effect.id not in group:
                    group[effect.id] = (key(effect.id), effect.kind, effect.envelope, checksum(effect.envelope))
            case PutLaw():
                law.append((effect.stream, effect.sequence, key(effect.id), effect.envelope, checksum(effect.envelope)))
            case PutBundle():
                bundles.append((effect.digest, effect.data, checksum(effect.data)))
            case PutOpenings():
                openings.append((key(effect.intent), effect.openings, checksum(effect.openings)))
            case InsertOnce():
                uses.append((effect.at_ms, effect.space, key(effect.key), effect.index))
            case Locate():
                places.append((key(effect.id), ids[effect.origin], effect.index))
            case SetHead():
                heads.append(_head(effect, ids[effect.origin]))
            case PutNote():
                total = note_sum(effect.place, effect.origin, effect.size, effect.note)
                notes.append((effect.place, ids[effect.origin], effect.size, effect.note, total))
                if effect.space != "certificate":
                    dropped.append((effect.place, ids[effect.origin]))
            case SetMeta():
                facts.append((effect.key, effect.value, fact_sum(effect.key, effect.value)))
    kept = [(ids[origin], *branch) for origin, branch in branches if branch.level and branch.level % LEVELS == 0]
    writes = (
        (_ADD_RECORDS, records),
        (_ADD_BRANCHES, kept),
        (_ADD_DOCUMENTS, list(documents.values())),
        (_ADD_LAW, law),
        (_ADD_BUNDLES, bundles),
        (_ADD_OPENINGS, openings),
        (_SET_NOTES, notes),
        (_DROP_NOTES, dropped),
        (_SET_META, facts),
        (_SET_HEADS, heads),
    )
    written = tuple((sql, values) for sql, values in writes if values)
    return Batch(written, uses, list(bodies.values()), list(dict.fromkeys(places)))


def _head(effect: SetHead, log: int) -> Row:
    head = effect.head
    return effect.use, log, head.size, head.root, head.time_s, head_sum(effect.use, effect.origin, head)


def _records(append: Append | AppendHashes, log: int) -> Iterable[Row]:
    if isinstance(append, AppendHashes):
        yield from [(log, index, leaf, b"") for index, leaf in enumerate(append.hashes, append.first)]
        return
    if len(append.leaves) != len(append.hashes):
        raise Refused("malformed", f"{len(append.leaves)} records with {len(append.hashes)} hashes")
    for index, (data, leaf) in enumerate(zip(append.leaves, append.hashes, strict=True), append.first):
        if leaf_hash(data) != leaf:  # it would be found on every later read, when it can no longer be mended
            raise Alarm("storage_corrupt", f"record {index} of {append.origin} comes with another record's hash")
        yield log, index, leaf, data
