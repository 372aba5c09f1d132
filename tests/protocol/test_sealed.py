"""Governors take sealed parameters, keep their boxes where openings are, and never hold what is in them."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.sealkeys import SealKey
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.messages import Authorized, DeniedAnswer, IntentRequest, LineageBatch, Openings, Prove, Proved, Pull, pack, unpack
from mesh.core.run.authorization import Denial
from mesh.core.run.intent import Intent
from mesh.core.run.params import Opening, params_digest
from mesh.core.run.sealed import Box, Seal, open_box
from mesh.limits import SEAL_AUDITORS_MAX, SEALED_BOXES_MAX
from mesh.protocol.attester import Material, examine_records
from mesh.protocol.documents import Documents
from mesh.protocol.step import PutOpenings
from tests.core.kit import refuses
from tests.protocol.machines import LAB
from tests.support.factory import AUDITORS
from tests.support.littlemesh import LittleMesh
from tests.support.sealed import PAYEE, boxed, hidden

FINANCE, STRANGER = AUDITORS["finance"], SealKey(bytes(range(32)))
Boxes = Sequence[Box]


def _ask(data: bytes) -> tuple[LittleMesh, Authorized | str]:
    mesh = LittleMesh(LAB)
    answer = mesh.request("eu-1", data)
    if isinstance(answer, DeniedAnswer):
        return mesh, envelope.read(Denial, bytes(answer.denial)).claims.code
    assert isinstance(answer, Authorized)
    return mesh, answer


def _code(data: bytes) -> str:
    answer = _ask(data)[1]
    assert isinstance(answer, str)
    return answer


def _request(boxes: Callable[[Boxes], Boxes] = tuple, openings: Sequence[Opening] = (), **changed: Any) -> bytes:
    _, intent, sealed = boxed(LAB, at_ms=LittleMesh(LAB).now_ms, **changed)
    return LAB.request(intent, list(openings), boxes=boxes(sealed))


# ------------------------------------------------------------------------------------------------------------ governors


def test_a_governor_never_sees_the_clear_text_and_every_auditor_finds_it() -> None:
    mesh = LittleMesh(LAB)
    name, intent, boxes = boxed(LAB, at_ms=mesh.now_ms)
    answer = mesh.request("eu-1", LAB.request(intent, [], boxes=boxes))
    assert isinstance(answer, Authorized)
    mesh.run(6)
    claims = envelope.read(Intent, intent).claims
    for node in mesh.nodes.values():
        held = [*node.bodies.values(), *node.openings.values(), *(leaf for leaves in node.logs.values() for leaf in leaves)]
        assert held
        assert not any(PAYEE.encode() in data for data in held)
        kept = canonical.decode(Openings, node.openings[name], bytes_max=10**6)
        assert (kept.openings, kept.boxes) == ([], list(boxes))  # one row, so whatever erases openings erases these
        for key in AUDITORS.values():
            assert open_box(claims.sealed, claims.committed, kept.boxes, "payee", key, holder=claims.holder) == hidden()


def test_what_is_sealed_does_not_change_what_policy_is_asked() -> None:
    """The input of the decision holds the commitment; boxes differ from one sealing to the next, and for nobody who decides."""
    opening = hidden()
    one, other = (envelope.read(Intent, boxed(LAB, opening=opening)[1]).claims for _ in range(2))
    assert one.sealed != other.sealed
    assert params_digest(one.params, one.committed) == params_digest(other.params, other.committed)


def test_the_clear_text_of_a_sealed_parameter_is_refused() -> None:
    assert _code(_request(openings=[hidden()])) == "opening_mismatch"


@pytest.mark.parametrize(
    ("boxes", "code"),
    [
        (lambda _: (), "box_mismatch"),
        (lambda boxes: boxes[:1], "box_mismatch"),
        (lambda boxes: boxes[::-1], "box_mismatch"),
        (lambda boxes: [*boxes, boxes[0]], "box_mismatch"),
        (lambda boxes: [msgspec.structs.replace(boxes[0], box=boxes[1].box), boxes[1]], "box_mismatch"),
        (lambda boxes: [msgspec.structs.replace(boxes[0], box=boxes[0].box[2:]), boxes[1]], "box_malformed"),
    ],
    ids=["none", "one of two", "another order", "one too many", "swapped", "cut"],
)
def test_boxes_that_are_not_those_the_intent_names_are_denied(boxes: Callable[[Boxes], Boxes], code: str) -> None:
    assert _code(_request(boxes)) == code


@pytest.mark.parametrize(
    "keys",
    [
        {"finance": FINANCE},
        {**AUDITORS, "finance": STRANGER},
        {**AUDITORS, "another": STRANGER},
        {"finance": AUDITORS["tax"], "tax": FINANCE},
    ],
    ids=["too few", "another key", "one more", "exchanged"],
)
def test_who_seals_for_others_than_policy_names_is_denied(keys: dict[str, SealKey]) -> None:
    assert _code(_request(keys=keys)) == "seal_mismatch"


def test_what_is_sealed_must_be_declared_so_and_commit_to_something() -> None:
    memo = Opening(name="memo", salt="0" * 32, value="in the clear")
    assert _code(_request(opening=memo)) == "params_mismatch"
    assert _code(_request(committed={})) == "params_mismatch"
    assert _code(_request(boxes=lambda _: (), sealed={})) == "params_mismatch"  # committed only: governors would have to see it


def test_seals_and_boxes_are_bounded() -> None:
    seals = [Seal(auditor=f"a{at}", key="00" * 32, box="00" * 32) for at in range(SEAL_AUDITORS_MAX + 1)]
    intent = envelope.read(Intent, boxed(LAB)[1]).claims
    for count, ok in ((SEAL_AUDITORS_MAX, True), (SEAL_AUDITORS_MAX + 1, False), (0, False)):
        data = canonical.encode(msgspec.structs.replace(intent, sealed={"payee": seals[:count]}))
        if ok:
            canonical.decode(Intent, data, bytes_max=10**6)
        else:
            with refuses("malformed"):
                canonical.decode(Intent, data, bytes_max=10**6)
    box = Box(name="payee", auditor="finance", box="")
    for count, code in ((SEALED_BOXES_MAX, "box_mismatch"), (SEALED_BOXES_MAX + 1, "")):
        data = LAB.request(boxed(LAB, at_ms=LittleMesh(LAB).now_ms)[1], [], boxes=[box] * count)
        if code:
            assert _code(data) == code
        else:
            with refuses("malformed"):
                unpack(IntentRequest, data)


# ------------------------------------------------------------------------------------------------------------- attesters


def _recorded() -> tuple[LittleMesh, DecisionMade, Openings]:
    mesh = LittleMesh(LAB)
    name, intent, boxes = boxed(LAB, at_ms=mesh.now_ms)
    mesh.request("eu-1", LAB.request(intent, [], boxes=boxes))
    mesh.run(6)
    node = mesh.nodes["eu-1"]
    record = next(read for read in map(read_record, node.logs[node.origin]) if isinstance(read, DecisionMade) and read.intent == name)
    return mesh, record, canonical.decode(Openings, node.openings[name], bytes_max=10**6)


def test_attesters_hold_the_boxes_of_what_they_attest() -> None:
    mesh, record, opened = _recorded()
    node = mesh.nodes["eu-1"]
    answer = unpack(Proved, mesh.nodes["sa-1"].answer(pack(Prove(origin=record.origin, index=record.index))))
    assert answer.proof  # final: k members attested it
    assert answer.batch.openings == [opened]
    batch = unpack(LineageBatch, node.answer(pack(Pull(origin=record.origin, first=0, count=10))))
    assert opened in batch.openings


@pytest.mark.parametrize("spoil", ["none", "no boxes", "swapped", "cut", "flipped"])
def test_a_box_that_is_spoilt_on_its_way_is_missing_not_wrong(spoil: str) -> None:
    mesh, record, opened = _recorded()
    node = mesh.nodes["eu-1"]
    one, other = opened.boxes
    boxes = {
        "no boxes": [],
        "swapped": [msgspec.structs.replace(one, box=other.box), other],
        "cut": [msgspec.structs.replace(one, box=one.box[:-2]), other],
        "flipped": [msgspec.structs.replace(one, box=f"{int(one.box[0], 16) ^ 1:x}{one.box[1:]}"), other],
    }
    given = {} if spoil == "none" else {record.intent: msgspec.structs.replace(opened, boxes=boxes[spoil])}

    def examine(openings: dict[str, Openings]) -> tuple[str, bool, tuple[PutOpenings, ...]]:
        (item,) = examine_records(
            [node.logs[node.origin][record.index]], Material(node.bodies, openings), owner=LAB.roster.member("eu-1"),
            first=record.index, after_ms=0, governance=LAB.governance, documents=Documents(), engine=LAB.engine, now_ms=mesh.now_ms,
        )[:1]  # fmt: skip
        return item.code, item.incomplete, item.openings

    assert examine(given) == ("body_missing", True, ())
    assert examine({record.intent: opened}) == ("", False, (PutOpenings(record.intent, canonical.encode(opened)),))


def test_a_governor_that_takes_what_policy_seals_otherwise_has_recorded_what_is_wrong() -> None:
    """Boxes can be spoilt on their way; for whom the signed intent seals cannot."""
    mesh, record, opened = _recorded()
    node = mesh.nodes["eu-1"]
    name, intent, boxes = boxed(LAB, keys={"finance": FINANCE}, at_ms=mesh.now_ms)
    forged = msgspec.structs.replace(record, intent=name, at_ms=mesh.now_ms)
    (item,) = examine_records(
        [canonical.encode(forged)],
        Material({**node.bodies, name: intent}, {name: Openings(intent=name, openings=[], boxes=list(boxes))}),
        owner=LAB.roster.member("eu-1"), first=record.index, after_ms=0, governance=LAB.governance, documents=Documents(),
        engine=LAB.engine, now_ms=mesh.now_ms,
    )  # fmt: skip
    assert (item.code, item.incomplete) == ("seal_mismatch", False)
    assert opened.boxes != list(boxes)
