"""Many proofs in one file come out as they went in, in bounded memory; and the file says nothing that is not in one of them."""

import json
import time
import tracemalloc

import msgspec
import pytest

from mesh.core.bytes import canonical
from mesh.core.log.archive import BEGIN, Packer, Unpacker
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.errors import Refused
from mesh.limits import ARCHIVE_LINE_BYTES_MAX, ARCHIVE_SHELF_BYTES_MAX
from tests.core.kit import refuses
from tests.support.epochs import lived, proof
from tests.support.proofs import happened

PROOFS = [
    *(happened().proof(name) for name in (happened().permitted, happened().forbidden, happened().late)),
    *(proof(3, name, 1, 2, 3) for name in (lived(3).permitted, lived(3).late)),
]


def _packed(*proofs: bytes) -> bytes:
    packer = Packer()
    return b"".join([packer.begin(), *(packer.add(read_proof(data)) for data in proofs), packer.end()])


def _unpacked(data: bytes) -> list[bytes]:
    unpacker, found = Unpacker(), list[bytes]()
    for line in data.splitlines(keepends=True):
        whole = unpacker.take(line)
        if whole is not None:
            found.append(whole)
    unpacker.close()
    return found


def test_what_went_in_comes_out_to_the_byte() -> None:
    assert _unpacked(_packed(*PROOFS)) == PROOFS
    assert _unpacked(_packed()) == []


def test_what_proofs_share_stands_there_once() -> None:
    once, many = len(_packed(PROOFS[3])), len(_packed(*[PROOFS[3]] * 50))
    assert (many - once) / 49 < len(PROOFS[3]) / 4


def test_one_changed_byte_never_gives_another_proof() -> None:
    """Of a record it does, which the proof itself is judged for."""
    data = _packed(*PROOFS[:2])
    records = [bytes(read_proof(proof_).record) for proof_ in PROOFS[:2]]
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]
        try:
            found = _unpacked(changed)
        except Refused:
            continue
        assert found != PROOFS[:2]
        assert any(bytes(read_proof(one).record) != record for one, record in zip(found, records, strict=True)) or _differs_inside(found)


def _differs_inside(found: list[bytes]) -> bool:
    """Indexes, paths and openings stand in the proof's own line."""
    shared = ("bodies", "bundles", "manifests", "rosters", "activations")
    pairs = zip(found, PROOFS, strict=False)
    return all(json.loads(one)[part] == json.loads(other)[part] for one, other in pairs for part in shared)


def _lines() -> list[bytes]:
    return _packed(*PROOFS[:2]).splitlines(keepends=True)


def test_a_file_that_was_cut_short_is_not_read_to_its_end() -> None:
    lines = _lines()
    for count in range(len(lines)):
        with refuses("malformed"):
            _unpacked(b"".join(lines[:count]))
    with refuses("malformed"):
        _unpacked(b"".join(lines).removesuffix(b"\n"))


def test_lines_that_do_not_belong_are_refused() -> None:
    lines, stray = _lines(), canonical.encode({"json": {}, "line": "part"}) + b"\n"
    wrong = [
        lines[1:],
        [*lines, lines[-1]],
        [BEGIN, *lines],
        [lines[0], stray, *lines[1:]],
        [*lines[:-1], stray, lines[-1]],
        [lines[0], lines[1], *lines[1:]],
        [lines[0], *lines[2:]],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [*lines[:-1], lines[-1].replace(b"2", b"3")],
        [b"{}\n", *lines],
        [b" " + lines[0], *lines[1:]],
    ]
    for given in wrong:
        with refuses("malformed", "non_canonical"):
            _unpacked(b"".join(given))


def test_a_part_that_is_given_in_full_where_it_is_named_is_refused() -> None:
    line = {"bundle": json.loads(PROOFS[2]), "line": "proof"}
    with refuses("malformed"):
        _unpacked(BEGIN + canonical.encode(line) + b"\n")


def test_a_line_beyond_the_limit_is_refused_before_it_is_read() -> None:
    with refuses("malformed"):
        Unpacker().take(b"[" * ARCHIVE_LINE_BYTES_MAX + b"\n")
    unpacker = Unpacker()
    unpacker.take(BEGIN)
    with refuses("malformed"):
        unpacker.take(b"[" * ARCHIVE_LINE_BYTES_MAX + b"\n")
    with refuses("too_large"):
        unpacker.take(b"[" * (ARCHIVE_LINE_BYTES_MAX + 1) + b"\n")


def _large(number: int) -> bytes:
    """A proof with a part of a megabyte of its own; nothing in it is true."""
    part = canonical.encode({"number": number, "text": "x" * 1_000_000})
    return encode_proof(msgspec.structs.replace(read_proof(PROOFS[2]), bundles=[msgspec.Raw(part)]))


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_part_stays_on_the_shelf_until_others_have_filled_it(beyond: int) -> None:
    fits = ARCHIVE_SHELF_BYTES_MAX // 1_000_200  # besides the small ones that every proof uses
    packer = Packer()
    for number in range(fits + beyond):
        packer.add(read_proof(_large(number)))
    again = packer.add(read_proof(_large(0)))
    assert (len(again) > 1_000_000) == bool(beyond)


def test_memory_stays_flat_over_ten_thousand_proofs() -> None:
    """A shelf is what is held, whatever was packed; each of these has a record and an intent of its own."""
    base = json.loads(PROOFS[2])
    packer, unpacker = Packer(), Unpacker()
    unpacker.take(packer.begin())
    sizes = list[int]()
    tracemalloc.start()
    try:
        for number in range(10_000):
            base["record"]["index"] = number
            base["bodies"][0] = {"number": number, "text": "y" * 4_000}
            data = canonical.encode(base)
            found = [unpacker.take(line) for line in packer.add(read_proof(data)).splitlines(keepends=True)]
            assert found[-1] == data
            if number in {6_000, 9_999}:
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] < sizes[0] * 1.1
    assert sizes[1] < 4 * ARCHIVE_SHELF_BYTES_MAX


def test_a_note_that_is_no_text_is_refused() -> None:
    unpacker, part = Unpacker(), b'"\xff"'
    lines = Packer().add(read_proof(PROOFS[0])).splitlines(keepends=True)
    packed = json.loads(lines[-1])
    packed["bundle"]["proof"] = packed["bundle"]["proof"].partition("#")[0] + "#" + canonical.sha256_hex(part)
    for line in (BEGIN, *lines[:-1], b'{"json":' + part + b',"line":"part"}\n'):
        unpacker.take(line)
    with refuses("malformed"):
        unpacker.take(canonical.encode(packed) + b"\n")


def test_one_part_stands_there_once_however_large() -> None:
    unpacker, line = Unpacker(), b'{"json":"' + b"a" * 1_000_000 + b'","line":"part"}\n'
    unpacker.take(BEGIN)
    unpacker.take(line)
    with refuses("non_canonical"):
        unpacker.take(line)


def test_small_parts_are_counted_each_and_cost_no_more_than_they_are() -> None:
    unpacker, most = Unpacker(), ARCHIVE_LINE_BYTES_MAX // 128
    unpacker.take(BEGIN)
    begun = time.process_time()
    for number in range(most):
        unpacker.take(b'{"json":%d,"line":"part"}\n' % number)
    assert time.process_time() - begun < 20, "thirty times what it takes; each part once more for each before it would take an hour"
    with refuses("too_large"):
        unpacker.take(b'{"json":"more","line":"part"}\n')
