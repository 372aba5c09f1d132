"""Whether a log that was written into plain files is the one that k members attested, with all that its records name.

The steps
---------
1. the rosters in the folder lead to the trusted one or from it
2. each bundle of entries is read, each record stands at its place of this log, times do not decrease, and no decision is of an older roster
   than the one before
3. every tile is the one that these records make; their root is the checkpoint's
4. the checkpoint is signed by the log, and k members of one roster attested it, which is not older than the last decision's
5. every statement that a record names is there under its id, signed by whom it names, or by issuers, and by nobody besides
6. nothing else is there

PARTIAL: a statement is not there, a file is there that nothing names, or too few of those who attested are members still. Decisions are
not repeated here: `mesh audit export` and `mesh verify` do that record by record. Openings are never in such a folder.

Not here: files (:mod:`mesh.cli.tilefolder`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Literal

import msgspec

from mesh.core.bytes import envelope
from mesh.core.law.vouched import Vouched
from mesh.core.log.checkpoint import Checkpoint, read_checkpoint
from mesh.core.log.record import DecisionMade, Record, read_record
from mesh.core.log.tiles import Tile
from mesh.core.log.tiling import Tiling, entries_in, entry_tiles
from mesh.errors import Refused
from mesh.protocol.evidence import certified, in_order, sealed_body
from mesh.protocol.serving import body_ids

__all__ = ["CHECKPOINT", "Judgement", "judge_tiles", "statement_path"]

CHECKPOINT: Final = "checkpoint"
_UNSURE: Final = frozenset({"body_missing", "file_foreign", "former_certificate", "not_final"})
_NAMED_MAX: Final = 3

Read = Callable[[str], bytes | None]
"""Path below the folder to the bytes of that file; None if it is not there."""


class Judgement(msgspec.Struct, frozen=True):
    """What came of it: (name, result, detail, code) of each step."""

    checks: tuple[tuple[str, Literal["passed", "failed", "skipped"], str, str], ...]
    origin: str
    size: int

    @property
    def verdict(self) -> Literal["VERIFIED", "PARTIAL", "FAILED"]:
        """The worst of them."""
        results = {result for _, result, _, _ in self.checks}
        return "FAILED" if "failed" in results else "PARTIAL" if "skipped" in results else "VERIFIED"


def statement_path(identity: str) -> str:
    """Where the envelope of that statement stands."""
    return f"statements/{identity[:2]}/{identity}.json"


def judge_tiles(read: Read, rosters: Vouched, files: Collection[str]) -> Judgement:
    """Steps 2 to 6, of a folder with these files besides its rosters. The first that fails is the last."""
    work = _Work(read, rosters, files)
    checks = list[tuple[str, Literal["passed", "failed", "skipped"], str, str]]()
    for name, step in (("tree", work.tree), ("final", work.final), ("statements", work.statements), ("files", work.nothing_else)):
        try:
            checks.append((name, "passed", step(), ""))
        except Refused as refusal:
            unsure = refusal.code in _UNSURE
            checks.append((name, "skipped" if unsure else "failed", refusal.detail, refusal.code))
            if not unsure:
                break
    origin, size = (work.checkpoint.origin, work.checkpoint.size) if work.checkpoint is not None else ("", 0)
    return Judgement(tuple(checks), origin, size)


class _Work:
    def __init__(self, read: Read, rosters: Vouched, files: Collection[str]) -> None:
        self._reader = read
        self._left = set(files)
        self._rosters = rosters
        self._note = b""
        self._epoch = 0
        self._named = dict[str, None]()
        self.checkpoint: Checkpoint | None = None

    def tree(self) -> str:
        """Steps 2 and 3."""
        self._note = self._file(CHECKPOINT)
        checkpoint = self.checkpoint = read_checkpoint(self._note)
        tiling, after_ms, index = Tiling(), 0, 0
        for tile in entry_tiles(checkpoint.size):
            leaves = entries_in(self._file(tile.path), tile.width)
            for leaf in leaves:
                record = read_record(leaf)
                self._check_place(record, checkpoint.origin, index, after_ms)
                self._named.update(dict.fromkeys(body_ids(record)))
                index, after_ms = index + 1, record.at_ms
            self._check_tiles(tiling.add(leaves))
        self._check_tiles(tiling.finish())
        if tiling.frontier.root() != checkpoint.root:
            raise Refused("bad_proof", "the records do not lead to the root of the checkpoint")
        return f"{checkpoint.size} records of {checkpoint.origin}"

    def final(self) -> str:
        """Step 4."""
        if self.checkpoint is None:
            raise Refused("malformed", "no checkpoint")
        origin = self.checkpoint.origin
        in_order(self._note, origin)
        owners, since = self._rosters.owners(origin), self._rosters.since(self._epoch)
        attested, as_of = certified(self._note, origin, owners, since, self._rosters.trusted.claims.epoch)
        return f"{len(attested.attestations)} attested it, {as_of.k} needed, roster epoch {as_of.epoch}"

    def statements(self) -> str:
        """Step 5."""
        lacking = list[str]()
        for identity in self._named:
            data = self._read(statement_path(identity))
            if data is None:
                lacking.append(identity)
            elif envelope.identify(data)[1] != identity:
                raise Refused("digest_mismatch", f"what stands as {identity[:16]}… is another statement")
            else:
                sealed_body(data, self._rosters)
        if lacking:
            shown = ", ".join(f"{identity[:16]}…" for identity in lacking[:_NAMED_MAX])
            raise Refused("body_missing", f"{len(lacking)} of {len(self._named)} are not here: {shown}")
        return f"{len(self._named)}, signed"

    def nothing_else(self) -> str:
        """Step 6."""
        if self._left:
            shown = ", ".join(sorted(self._left)[:_NAMED_MAX])
            raise Refused("file_foreign", f"{len(self._left)} files that nothing names: {shown}")
        return "nothing else is here"

    def _check_place(self, record: Record, origin: str, index: int, after_ms: int) -> None:
        if (record.origin, record.index) != (origin, index) or record.mesh != self._rosters.trusted.claims.mesh:
            raise Refused("record_invalid", f"says {record.origin[:60]} {record.index}, stands at {index}")
        if record.at_ms < after_ms:
            raise Refused("record_invalid", f"{index}: time {record.at_ms} after {after_ms}")
        if isinstance(record, DecisionMade):
            if record.roster_epoch < self._epoch:
                raise Refused("record_invalid", f"{index}: decided under roster epoch {record.roster_epoch} after {self._epoch}")
            self._epoch = record.roster_epoch

    def _check_tiles(self, tiles: Iterator[tuple[Tile, bytes]] | Sequence[tuple[Tile, bytes]]) -> None:
        for tile, data in tiles:
            if self._file(tile.path) != data:
                raise Refused("bad_proof", f"{tile.path} is not what the records make")

    def _read(self, path: str) -> bytes | None:
        self._left.discard(path)
        return self._reader(path)

    def _file(self, path: str) -> bytes:
        data = self._read(path)
        if data is None:
            raise Refused("not_found", f"{path} is not here")
        return data
