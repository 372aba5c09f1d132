"""What holds of everything that is signed and of everything that is read, whichever attack comes: no row of a table, a property.

Not here: properties of the machines (``tests/protocol``) and of whole meshes (``tests/world``).
"""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import combinations
from typing import Any, Final

import msgspec
import pytest

from mesh.core import messages
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import KINDS
from mesh.core.law.conflict import read_conflict
from mesh.core.law.fraud import read_fraud
from mesh.core.law.policy import read_bundle
from mesh.core.law.travel import read_law
from mesh.core.log.archive import Unpacker
from mesh.core.log.bundle import read_proof
from mesh.core.log.checkpoint import AddCheckpoint, read_checkpoint
from mesh.core.log.note import parse_lines, parse_note
from mesh.core.log.record import read_record
from mesh.core.log.tlogpolicy import read_logs
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.intent import Intent
from mesh.errors import Refused
from tests.contracts.kit import vector, vectors
from tests.core.kit import refuses
from tests.support.factory import Lab
from tests.support.rosters import roster

STATEMENTS: Final = [path for path in vectors("statement") if vector(path)["signers"]]
LAB: Final = Lab()


# ------------------------------------------------------------------------------------ nothing signed is good for anything else


def test_every_kind_names_its_mesh() -> None:
    for kind in KINDS.values():
        assert "mesh" in {field.name for field in msgspec.structs.fields(kind.payload)}, kind.payload


@pytest.mark.parametrize("path", STATEMENTS)
def test_what_was_signed_as_one_kind_is_read_as_no_other(path: str) -> None:
    example = vector(path)
    for name, kind in KINDS.items():
        if name != example["kind"]:
            with refuses("wrong_kind"):
                envelope.read(kind.payload, example["envelope"].encode())


@pytest.mark.parametrize("path", STATEMENTS)
def test_what_was_signed_as_one_kind_is_signed_as_no_other(path: str) -> None:
    """Somebody calls it another kind: wherever that can be read at all, nobody has signed it."""
    example = vector(path)
    for name, kind in KINDS.items():
        if name == example["kind"]:
            continue
        renamed = json.dumps({**json.loads(example["envelope"]), "payloadType": kind.payload_type}, separators=(",", ":")).encode()
        try:
            statement: Any = envelope.read(kind.payload, renamed)
        except Refused:
            continue
        assert not any(statement.signed_by(public) for public in example["signers"].values())


@pytest.mark.parametrize("path", STATEMENTS)
def test_what_was_signed_for_one_mesh_is_signed_for_no_other(path: str) -> None:
    example = vector(path)
    kind = KINDS[example["kind"]]
    before = envelope.read(kind.payload, example["envelope"].encode())
    draft = envelope.draft(msgspec.structs.replace(before.claims, mesh="another"))
    statement: Any = envelope.read(kind.payload, envelope.assemble(draft.payload_type, draft.payload, before.signatures))
    assert statement.id != before.id
    assert not any(statement.signed_by(public) for public in example["signers"].values())


@pytest.mark.parametrize("path", STATEMENTS)
def test_what_one_has_signed_is_another_ones_word_in_no_envelope(path: str) -> None:
    example = vector(path)
    kind, stranger = KINDS[example["kind"]], LAB.holder.public
    before = envelope.read(kind.payload, example["envelope"].encode())
    stolen = dict.fromkeys([stranger], next(iter(before.signatures.values())))
    statement: Any = envelope.read(kind.payload, envelope.assemble(kind.payload_type, canonical.encode(before.claims), stolen))
    with refuses("bad_signature"):
        statement.verify(stranger)


# ------------------------------------------------------------------------------------------- any two quorums share an honest one


@pytest.mark.parametrize("n", range(1, 8))
def test_a_roster_is_taken_exactly_if_any_two_quorums_share_an_honest_member_and_the_honest_ones_are_a_quorum(n: int) -> None:
    names = [f"m{number}" for number in range(n)]
    taken = 0
    for f in range(n + 1):
        for k in range(1, n + 1):
            quorums = [set(some) for some in combinations(names, k)]
            share = min(len(one & other) for one in quorums for other in quorums)
            safe = share > f and n - f >= k
            with nullcontext() if safe else refuses("roster_unsound"):
                taken += bool(roster(names, f, k))
    assert taken > 0


# --------------------------------------------------------------------------------------------- what refusing costs is bounded


DOORS: Final[dict[str, Callable[[bytes], object]]] = {
    "an envelope": lambda data: envelope.read(Intent, data),
    "a payload": lambda data: canonical.decode(Intent, data, bytes_max=KINDS["intent"].bytes_max),
    "a governance statement": read_law,
    "a record": read_record,
    "a request": lambda data: messages.unpack(messages.IntentRequest, data),
    "an answer": messages.unpack_answer,
    "a question": messages.unpack_asked,
    "records on their way": lambda data: messages.unpack(messages.LineageBatch, data),
    "a note": parse_note,
    "lines of a note": parse_lines,
    "a checkpoint": read_checkpoint,
    "a witness request": AddCheckpoint.parse,
    "a tlog-proof": TlogProof.parse,
    "a tlog policy": read_logs,
    "a proof": read_proof,
    "a line of an archive": lambda data: Unpacker().take(data + b"\n"),
    "a policy bundle": lambda data: read_bundle(data, digest="blake3:" + "0" * 64),
    "a fraud proof": read_fraud,
    "a proof of a conflict": lambda data: read_conflict(data, LAB.governance.rosters),
}
DEEP: Final = 1_000_000
BOMBS: Final[dict[str, bytes]] = {
    "a million lists": b"[" * DEEP,
    "a million lists that end": b"[" * (DEEP // 2) + b"]" * (DEEP // 2),
    "a million maps": b'{"a":' * (DEEP // 5),
    "lists in a member": b'{"payload":' + b"[" * (DEEP - 11),
    "a million empty lines": b"\n" * DEEP,
    "a million digits": b"9" * DEEP,
    "a string without an end": b'"' + b"x" * (DEEP - 1),
    "a million backslashes": b'"' + b"\\" * (DEEP - 1),
}
REFUSED_IN_S: Final = 0.005


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("door", DOORS)
def test_threat_30_a_million_levels_are_refused_in_less_than_five_milliseconds(door: str, bomb: str) -> None:
    took_s = list[float]()
    for _ in range(5):
        began_s = time.thread_time()
        with pytest.raises(Refused):
            DOORS[door](BOMBS[bomb])
        took_s.append(time.thread_time() - began_s)
        if took_s[-1] < REFUSED_IN_S:
            return
    pytest.fail(f"the quickest of five took {min(took_s) * 1_000:.1f} ms")
