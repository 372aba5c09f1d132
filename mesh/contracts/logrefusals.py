"""Logs, notes and proofs that must be refused, as :mod:`mesh.contracts.refusals` has it for statements."""

from collections.abc import Iterator
from typing import Any

import msgspec

from mesh.contracts.example import AT_MS, MEMBERS, MESH, NODE, hex32, key
from mesh.contracts.refusals import Case, changed, text
from mesh.contracts.story import ORIGIN, story
from mesh.core.bytes.keys import SecretKey
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosignature_line, cosignature_message, log_line, witness_name
from mesh.core.log.lines import to_base64
from mesh.core.log.merkle import branch_hash, leaf_hash
from mesh.core.log.note import Line, Note, parse_note
from mesh.core.log.tlogproof import TlogProof

__all__ = ["log_cases"]


def log_cases() -> Iterator[Case]:
    """Everything about records, trees, notes, certificates and proofs."""
    yield from _records()
    yield from _trees()
    yield from _checkpoints()
    yield from _certificates()
    yield from _proofs()


def _records() -> Iterator[Case]:
    leaf = story().records[1]
    kind = b'"record":"decision"'
    yield Case(
        "unknown_record", "record", {"record": text(changed(leaf, kind, b'"record":"verdict"'))}, "malformed", "skipping what is new"
    )
    yield Case(
        "record_space",
        "record",
        {"record": text(changed(leaf, kind, b'"record": "decision"'))},
        "non_canonical",
        "one record, two leaf hashes",
    )


def _trees() -> Iterator[Case]:
    told = story()
    size = len(told.records)
    leaves = [leaf_hash(leaf) for leaf in told.records]

    def included(leaf: bytes, index: int, count: int, root: bytes, path: tuple[bytes, ...]) -> dict[str, Any]:
        return {"leaf": text(leaf), "index": index, "size": count, "root": root.hex(), "path": [value.hex() for value in path]}

    def grown(old: int, path: tuple[bytes, ...], old_root: bytes) -> dict[str, Any]:
        return {
            "old_size": old,
            "new_size": size,
            "old_root": old_root.hex(),
            "new_root": told.roots[size].hex(),
            "path": [value.hex() for value in path],
        }

    pair = leaves[0] + leaves[1]
    yield Case(
        "branch_as_leaf",
        "inclusion",
        included(pair, 0, 2, told.roots[4], (branch_hash(leaves[2], leaves[3]),)),
        "bad_proof",
        "leaves and branches hashed alike: a record that never was",
    )
    path = told.inclusion[1]
    yield Case(
        "other_index", "inclusion", included(told.records[1], 2, size, told.roots[size], path), "bad_proof", "position is not proved"
    )
    longer = (*path, bytes.fromhex(hex32("one hash more")))
    yield Case(
        "path_too_long", "inclusion", included(told.records[1], 1, size, told.roots[size], longer), "bad_proof", "hashes that nobody reads"
    )
    yield Case(
        "path_too_short",
        "inclusion",
        included(told.records[1], 1, size, told.roots[size], path[:-1]),
        "bad_proof",
        "stopping when hashes end",
    )
    yield Case("rewritten_past", "consistency", grown(5, told.consistency[5], told.roots[4]), "bad_proof", "a log that was rewritten")
    yield Case("from_nothing", "consistency", grown(0, (), told.roots[0]), "bad_proof", "taking an empty proof for a proof")


def _checkpoints() -> Iterator[Case]:
    told = story()
    note = told.checkpoint
    count = b"\n%d\n" % len(told.records)

    def case(name: str, data: bytes, code: str, catches: str) -> Case:
        return Case(name, "checkpoint", {"note": text(data)}, code, catches)

    def signed(body: bytes) -> bytes:
        log = key(f"{NODE}/log")
        return Note(body, (log_line(ORIGIN, log.public, log.sign(body)),)).encode()

    body = parse_note(note).text
    yield case("extension_line", signed(body + b"extension\n"), "malformed", "lines that some cosignatures cover and some do not")
    yield case("leading_zero", signed(changed(body, count, b"\n0%d\n" % len(told.records))), "non_canonical", "two spellings of one tree")
    yield case("no_final_newline", note[:-1], "malformed", "a note cut short in transit")
    yield case("other_origin", signed(changed(body, ORIGIN.encode(), b"example/eu-1/e2")), "bad_checkpoint", "one key, two logs")
    stranger = key(f"{NODE}/decision")
    forged = Note(body, (log_line(ORIGIN, stranger.public, stranger.sign(body)),)).encode()
    yield case("strangers_checkpoint", forged, "bad_signature", "believing the name in the line")
    root = to_base64(told.roots[len(told.records)]).encode()
    yield case("other_root", changed(note, root, to_base64(told.roots[1]).encode()), "bad_signature", "a root beside its signature")


def _certificates() -> Iterator[Case]:
    note = parse_note(story().certificate)
    own, *attests = note.lines

    def case(name: str, lines: list[Line], code: str, catches: str) -> Case:
        return Case(name, "certificate", {"note": text(Note(note.text, tuple(lines)).encode())}, code, catches)

    outsider = key("workload")
    stranger = _cosigned(note.text, attest_name(MESH, "nn-1"), outsider)
    witness = _cosigned(note.text, witness_name(MESH, "sa-1"), key("sa-1/witness"))
    yield case("two_of_three", [own, *attests[:2]], "not_final", "finality by fewer than k")
    yield case("one_attester_twice", [own, *attests[:2], attests[1]], "malformed", "counting lines instead of keys")
    yield case("witness_for_attester", [own, *attests[:2], witness], "bad_signature", "a witness vouches for growth, not for content")
    yield case("strangers_line", [own, *attests, stranger], "bad_signature", "unread bytes inside of what was checked")
    yield case("no_line_of_the_log", attests, "bad_signature", "finality of a tree that its owner never signed")
    late = [*attests[:2], _late(attests[2])]
    yield case("changed_time", [own, *late], "bad_signature", "a time that nobody signed")


def _late(line: Line) -> Line:
    time_s = int.from_bytes(line.signature[:8]) + 1
    return msgspec.structs.replace(line, signature=time_s.to_bytes(8) + line.signature[8:])


def _cosigned(body: bytes, name: str, signer: SecretKey) -> Line:
    time_s = AT_MS // 1000
    return cosignature_line(name, signer.public, time_s, signer.sign(cosignature_message(body, time_s)))


def _proofs() -> Iterator[Case]:
    told = story()
    proof = TlogProof.parse(told.proof)

    def case(name: str, other: TlogProof, record: int, code: str, catches: str) -> Case:
        return Case(name, "tlog-proof", {"proof": text(other.encode()), "record": text(told.records[record])}, code, catches)

    replace = msgspec.structs.replace
    yield case("proof_of_another_record", proof, 2, "bad_proof", "a proof that is shown beside another record")
    yield case("extra_holds_another", replace(proof, extra=told.records[4]), 1, "bad_proof", "showing what was not proved")
    yield case("proof_at_another_index", replace(proof, index=3), 1, "bad_proof", "position is not proved")
    yield case("proof_not_final", replace(proof, note=told.checkpoint), 1, "not_final", "the owner's own word taken for finality")
    smaller = Checkpoint(ORIGIN, 4, told.roots[4])
    body = smaller.to_text()
    log = key(f"{NODE}/log")
    attests = [_cosigned(body, attest_name(MESH, name), key(f"{name}/attest")) for name in MEMBERS]
    short = Note(body, (log_line(ORIGIN, log.public, log.sign(body)), *attests)).encode()
    yield case("proof_of_another_tree", replace(proof, note=short), 1, "bad_proof", "a path that fits another size")
