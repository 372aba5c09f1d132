"""No byte of what a log shows outside (tiles, bundles of entries, checkpoint, lines of witnesses) can be changed unseen by who reads it."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet

from mesh.adapters.httpserver import Request
from mesh.adapters.store import Store
from mesh.core.log.checkpoint import (
    Checkpoint,
    attest_name,
    cosignature_line,
    cosignature_message,
    cosigner,
    log_line,
    log_verifier,
    open_checkpoint,
    read_checkpoint,
    witness_name,
)
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.note import Line, Note, append_lines, format_lines, open_note, parse_lines, parse_note
from mesh.core.log.tiles import TILE_WIDTH, Tile
from mesh.errors import Refused
from mesh.protocol.lineage import LogState, Outstanding, take_lines
from mesh.protocol.outside import cosigned, published
from mesh.protocol.step import Append, Head, PutNote
from mesh.roles.tiles import Tiles
from tests.core.kit import flips, secret
from tests.protocol.machines import LAB, ME, empty_log, line

ORIGIN = "dev/a/e1"
SIZE = 520
KEYS = {attest_name("dev", name): secret(number) for number, name in enumerate("abc", 1)}
LOG, WITNESS = secret(100), secret(77)
OUTSIDER = cosigner("witness.example/w1", WITNESS.public)
TIME_S = 1_700_000_000


def _leaf(index: int) -> bytes:
    return f"record {index} ".encode() * (1 + index % 3)


def _note(size: int, root: bytes, *, origin: str = ORIGIN) -> bytes:
    """A checkpoint with the lines of its log, of three members and of a witness outside."""
    text = Checkpoint(origin, size, root).to_text()
    lines = [cosignature_line(name, key.public, TIME_S, key.sign(cosignature_message(text, TIME_S))) for name, key in KEYS.items()]
    outside = cosignature_line(OUTSIDER.name, WITNESS.public, TIME_S, WITNESS.sign(cosignature_message(text, TIME_S)))
    return Note(text, (log_line(origin, LOG.public, LOG.sign(text)), *lines, outside)).encode()


class Files(NamedTuple):
    """What is served, by path; tlog_scales reads it as it would read files."""

    served: dict[str, bytes]

    def get(self, *path: str) -> bytes | None:
        return self.served.get("/".join(path))

    def with_(self, path: str, data: bytes) -> "Files":
        return Files({**self.served, path: data})


def _paths(size: int) -> Iterator[str]:
    level, count = 0, size
    while count:
        for number in range(-(-count // TILE_WIDTH)):
            width = min(TILE_WIDTH, count - number * TILE_WIDTH)
            yield Tile(level, number, width, entries=False).path
            if level == 0:
                yield Tile(0, number, width, entries=True).path
        level, count = level + 1, count // TILE_WIDTH


async def _served(folder: Path, size: int) -> Files:
    """All that the door shows of a log of that size."""
    store = await Store.open(folder / f"{size}.db", owner="a")
    leaves = tuple(map(_leaf, range(size)))
    await store.commit([Append(ORIGIN, 0, leaves, tuple(map(leaf_hash, leaves)))])
    note = _note(size, (await store.frontier(ORIGIN)).root())
    tiles = Tiles(lambda: store, lambda: note)
    served = dict[str, bytes]()
    for path in ("checkpoint", *_paths(size)):
        answer = await tiles.answer(Request("GET", f"/{ORIGIN}/{path}", b""))
        assert answer.status == 200, path
        served[path] = answer.body
    await store.close()
    return Files(served)


VKEYS = VkeySet(
    *map(
        Vkey.from_string,
        [log_verifier(ORIGIN, LOG.public).vkey, OUTSIDER.vkey, *(cosigner(name, key.public).vkey for name, key in KEYS.items())],
    )
)


def _believes(files: Files, *, known: tuple[int, bytes] = (0, b"")) -> bool:
    """Whether a reader by another maker, who reads all there is and remembers what it knew before, finds that it all fits."""
    reader = TilesReader(files)
    try:
        shown = reader.get_checkpoint()
        if shown.origin != ORIGIN or len(VKEYS.verify(shown.signatures, shown)) != len(KEYS) + 2 or shown.size < known[0]:
            return False
        for index in range(shown.size):
            if hashlib.sha256(b"\x00" + reader.get_entry(index)).digest() != reader.mth(index, index + 1):
                return False
        for number in range(shown.size // TILE_WIDTH):  # what stands a level above, from what stands below
            first = number * TILE_WIDTH
            halves = [reader.mth(first + at, first + at + TILE_WIDTH // 2) for at in (0, TILE_WIDTH // 2)]
            if hashlib.sha256(b"\x01" + halves[0] + halves[1]).digest() != reader.mth(first, first + TILE_WIDTH):
                return False
        if known[0] and reader.mth(0, known[0]) != known[1]:
            return False
        return bool(reader.calculate_root_hash() == shown.root_hash) and _as_many(files, shown.size)
    except Exception:  # noqa: BLE001 -- of a foreign reader: whatever it raises, it does not believe
        return False


def _as_many(files: Files, size: int) -> bool:
    """Whether each bundle ends where its last entry ends, and holds as many as its path says."""
    for path, data in files.served.items():
        if "/entries/" in path:
            count, rest = 0, data
            while rest:
                count, rest = count + 1, rest[2 + int.from_bytes(rest[:2]) :]
            if count != min(TILE_WIDTH, size - TILE_WIDTH * int(path.removeprefix("tile/entries/")[:3])):
                return False
        elif path != "checkpoint" and len(data) % 32:
            return False
    return True


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return asyncio.run(_served(tmp_path_factory.mktemp("log"), SIZE))


def _flip(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


# -------------------------------------------------------------------------------------------------------------------- tiles


def test_one_changed_byte_of_any_hash_any_entry_and_any_length_that_is_served_is_seen(files: Files) -> None:
    assert _believes(files)
    random, changed = Random(1), 0
    for path, data in sorted(files.served.items()):
        if path == "checkpoint":
            continue
        if "/entries/" in path:
            starts = [0]
            while starts[-1] < len(data):
                starts.append(starts[-1] + 2 + int.from_bytes(data[starts[-1] : starts[-1] + 2]))
            chosen = random.sample(list(pairwise(starts)), min(len(starts) - 1, 150))
            places = [at for start, end in chosen for at in (start, start + 1, random.randrange(start + 2, end))]
        else:
            places = [start + random.randrange(32) for start in range(0, len(data), 32)]
        for at in places:
            changed += 1
            assert not _believes(files.with_(path, _flip(data, at, random))), (path, at)
    assert changed > 1_000


def test_one_changed_byte_of_the_checkpoint_that_is_served_is_seen(files: Files) -> None:
    """By a reader of ours: one of another maker lets stray bits of base64 pass, as C2SP does."""
    shown, log = files.served["checkpoint"], log_verifier(ORIGIN, LOG.public)
    others = (OUTSIDER, *(cosigner(name, key.public) for name, key in KEYS.items()))
    assert len(open_checkpoint(shown, log, others).cosignatures) == len(others)
    for data in flips(shown):
        with suppress(Refused):
            assert len(open_checkpoint(data, log, others).cosignatures) < len(others), data


def _swapped(data: bytes, width: int) -> bytes:
    return data[width : 2 * width] + data[:width] + data[2 * width :]


MOVED: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "two hashes change places": lambda held: {"tile/0/000": _swapped(held["tile/0/000"], 32)},
    "two hashes above change places": lambda held: {"tile/1/000.p/2": _swapped(held["tile/1/000.p/2"], 32)},
    "two tiles change places": lambda held: {"tile/0/000": held["tile/0/001"], "tile/0/001": held["tile/0/000"]},
    "two bundles change places": lambda held: {"tile/entries/000": held["tile/entries/001"], "tile/entries/001": held["tile/entries/000"]},
    "a hash is gone": lambda held: {"tile/0/000": held["tile/0/000"][:-32]},
    "the first hash is gone": lambda held: {"tile/0/000": held["tile/0/000"][32:]},
    "half a hash is gone": lambda held: {"tile/0/002.p/8": held["tile/0/002.p/8"][:-16]},
    "the last entry is gone": lambda held: {"tile/entries/002.p/8": held["tile/entries/002.p/8"][: -2 - len(_leaf(SIZE - 1))]},
    "an entry ends too early": lambda held: {"tile/entries/002.p/8": held["tile/entries/002.p/8"][:-1]},
    "an entry more": lambda held: {"tile/entries/002.p/8": held["tile/entries/002.p/8"] + b"\x00\x01x"},
    "a tile is gone": lambda held: {"tile/0/001": b""},
    "an entry that was never there, and its hash": lambda held: {
        "tile/entries/002.p/8": held["tile/entries/002.p/8"].replace(_leaf(SIZE - 1), _leaf(SIZE - 2)[:-1] + b"!"),
        "tile/0/002.p/8": held["tile/0/002.p/8"][:-32] + leaf_hash(_leaf(SIZE - 2)[:-1] + b"!"),
    },
}


@pytest.mark.parametrize("what", MOVED)
def test_what_was_removed_moved_or_cut_off_is_seen(files: Files, what: str) -> None:
    changes = MOVED[what](files.served)
    assert changes.items() - files.served.items()
    assert not _believes(Files({**files.served, **changes}))


async def test_a_log_that_is_shown_as_it_was_before_is_seen_by_who_remembers(files: Files, tmp_path: Path) -> None:
    now = read_checkpoint(files.served["checkpoint"])
    old = await _served(tmp_path, SIZE - 30)
    before = read_checkpoint(old.served["checkpoint"])
    assert _believes(old), "alone it is as good as any other"
    assert not _believes(old, known=(now.size, now.root))
    assert _believes(files, known=(before.size, before.root))
    assert not _believes(files, known=(before.size, now.root)), "it does not continue what was known"


# ------------------------------------------------------------------------------------------------------------ lines of witnesses

NOTE = _note(7, bytes(range(32)))
TEXT = parse_note(NOTE).text


def _outside(*, time_s: int = TIME_S, text: bytes = TEXT) -> Line:
    return cosignature_line(OUTSIDER.name, WITNESS.public, time_s, WITNESS.sign(cosignature_message(text, time_s)))


def test_one_changed_byte_of_what_an_external_witness_answers_costs_its_line() -> None:
    whole, changed = format_lines([_outside()]), 0
    assert cosigned(NOTE, whole, OUTSIDER) == Note(TEXT, (_outside(),)).encode()
    for answer in flips(whole):
        with pytest.raises(Refused, match="not_cosigned"):
            cosigned(NOTE, answer, OUTSIDER)
        changed += 1
    assert changed > 300


def test_an_external_witness_line_on_another_tree_or_from_before_is_not_this_ones() -> None:
    for other in (_note(6, bytes(32)), _note(7, bytes(32)), _note(7, bytes(range(32)), origin="dev/b/e1")):
        with pytest.raises(Refused, match="not_cosigned"):
            cosigned(NOTE, format_lines([_outside(text=parse_note(other).text)]), OUTSIDER)
    signed = Note(TEXT, parse_note(NOTE).lines[:1]).encode()
    kept = Note(parse_note(_note(6, bytes(32))).text, (_outside(),)).encode()
    assert published(signed, [kept]) == signed, "what is kept of another tree is not published beneath this one"
    times = {OUTSIDER.verify(TEXT, line).time_s for line in (_outside(), _outside(time_s=TIME_S - 9))}
    assert times == {TIME_S, TIME_S - 9}, "its time is part of what it signed"


def test_one_changed_byte_of_a_line_beneath_what_is_published_makes_it_nobodys() -> None:
    (own, *lines) = parse_note(NOTE).lines
    verifiers = {one.name: one for one in (OUTSIDER, *(cosigner(name, key.public) for name, key in KEYS.items()))}
    alone, changed = Note(TEXT, (own,)).encode(), 0
    for shown in lines:
        for data in flips(format_lines([shown])):
            try:
                opened = open_note(append_lines(alone, parse_lines(data)), (log_verifier(ORIGIN, LOG.public), verifiers[shown.name]))
            except Refused:
                pass
            else:
                assert [signed.line for signed in opened.signed] == [own]
            changed += 1
    assert changed > 1_000


def _pending() -> LogState:
    """A log that has a checkpoint out, with the owner's own lines and those of one other member: one less than k."""
    head = Head(7, bytes(range(32)), TIME_S)
    state = empty_log(LAB.roster.origin(ME))
    text = Checkpoint(state.origin, head.size, head.root).to_text()
    other = LAB.roster.member("us-1")
    lines = [line(ME, use, text) for use in ("log", "witness", "attest")] + [line(other, use, text) for use in ("witness", "attest")]
    return LogState(
        origin=state.origin,
        frontier=state.frontier,
        last_ms=0,
        announced=0,
        outstanding=Outstanding(head, text, {one.name: one for one in lines}, 0),
        certified=0,
        note=b"",
        tick_ms=0,
        signed_s=0,
        marks=(),
    )


def test_one_changed_byte_of_what_a_member_says_of_a_checkpoint_makes_nothing_final() -> None:
    state, member = _pending(), LAB.roster.member("ap-1")
    assert state.outstanding is not None
    text, genuine_of = state.outstanding.text, witness_name(LAB.roster.mesh, member.name)
    whole, changed = Note(text, tuple(line(member, use, text) for use in ("witness", "attest"))).encode(), 0
    _, effects = take_lines(state, LAB.roster, ME, whole)
    kept = [effect for effect in effects if isinstance(effect, PutNote)]
    assert any(note.space == "certificate" for note in kept)
    for data in flips(whole):
        changed += 1
        try:
            after, effects = take_lines(state, LAB.roster, ME, data)
        except Refused:
            continue
        lines = [one for effect in effects if isinstance(effect, PutNote) for one in parse_note(effect.note).lines]
        said = {*lines, *(after.outstanding or after.closed or state.outstanding).lines.values()}
        genuine = {*state.outstanding.lines.values(), *parse_note(whole).lines}
        assert said <= genuine, data
        # Where its other line was changed, so that it is nobody's, the one that makes it final is whole.
        assert not effects or genuine_of not in {one.name for one in lines}
    assert changed > 800
