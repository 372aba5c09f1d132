"""A proof says for whom something was sealed, carries the boxes, and none of their bytes can be changed."""

from functools import cache
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.log.bundle import ProofBundle, encode_proof, read_proof
from mesh.core.messages import Authorized
from mesh.core.run.intent import Intent
from mesh.core.run.params import Opening, commit
from mesh.core.run.sealed import open_box
from mesh.errors import Refused
from mesh.verify import Report, verify
from tests.core.kit import refuses
from tests.support.factory import AUDITORS, sign
from tests.support.proofs import happened
from tests.support.sealed import PAYEE, TOLD, SealedStory, boxed, hidden


@cache
def _story() -> SealedStory:
    return SealedStory()


@cache
def _data() -> bytes:
    return _story().proof(_story().sealed)


def _verify(data: bytes) -> Report:
    return verify(data, trust=_story().lab.roster_envelope, engine=_story().lab.engine)


def _judged(data: bytes) -> str:
    try:
        return _verify(data).verdict
    except Refused as refusal:
        return refusal.code


def _check(report: Report, name: str) -> tuple[str, str, str]:
    return next((check.result, check.code, check.detail) for check in report.checks if check.name == name)


def _changed(**parts: Any) -> ProofBundle:
    return msgspec.structs.replace(read_proof(_data()), **parts)


def test_a_proof_with_boxes_is_verified_and_says_for_whom_they_are() -> None:
    report = _verify(_data())
    assert report.verdict == "VERIFIED", report.checks
    assert _check(report, "sealed") == ("passed", "", f"sealed: {TOLD}")
    assert _check(report, "replay")[0] == "passed"  # what nobody can see decides nothing
    assert PAYEE.encode() not in _data()


def test_an_auditor_opens_the_box_that_a_proof_carries() -> None:
    bundle = read_proof(_data())
    claims = envelope.read(Intent, bytes(bundle.bodies[0])).claims
    for key in AUDITORS.values():
        assert open_box(claims.sealed, claims.committed, bundle.boxes, "payee", key, holder=claims.holder) == hidden(number=31)


def test_every_changed_byte_of_a_box_is_found() -> None:
    data = _data()
    first, last = data.index(b'"boxes":['), data.index(b'"bundles":[')
    assert last - first > 2 * 600
    for at in range(first, last):
        changed = data[:at] + bytes([data[at] ^ (0x01, 0x20, 0x80)[at % 3]]) + data[at + 1 :]
        assert _judged(changed) not in {"VERIFIED", "PARTIAL"}, data[at - 20 : at + 20]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda one, other: [other, one], "box_mismatch"),
        (lambda one, _other: [one], "box_mismatch"),
        (lambda one, other: [one, other, other], "box_mismatch"),
        (lambda one, other: [msgspec.structs.replace(one, box=other.box), other], "box_mismatch"),
        (lambda one, other: [msgspec.structs.replace(one, box=one.box[:-2]), other], "box_malformed"),
    ],
    ids=["another order", "one of two", "one too many", "swapped", "cut"],
)
def test_other_boxes_than_those_the_intent_names_fail_the_proof(spoil: Any, code: str) -> None:
    report = _verify(encode_proof(_changed(boxes=spoil(*read_proof(_data()).boxes))))
    assert report.verdict == "FAILED"
    assert _check(report, "sealed")[:2] == ("failed", code)


def test_erased_boxes_count_like_erased_openings() -> None:
    report = _verify(encode_proof(_changed(boxes=[])))
    assert report.verdict == "PARTIAL"
    assert _check(report, "sealed") == ("skipped", "", "the boxes of its sealed parameters are not here")
    assert _check(report, "decision") == ("skipped", "", "the boxes of its sealed parameters are not here")
    assert [check for check in report.checks if check.result == "failed"] == []


def test_the_clear_text_has_no_place_in_a_proof() -> None:
    report = _verify(encode_proof(_changed(openings=[hidden(number=31)])))
    assert report.verdict == "FAILED"


def test_boxes_stand_in_no_other_proof() -> None:
    boxes = read_proof(_data()).boxes
    for name, check in ((happened().late, "policy"), (happened().forbidden, "sealed")):
        bundle = msgspec.structs.replace(read_proof(happened().proof(name)), boxes=boxes)
        report = verify(encode_proof(bundle), trust=happened().lab.roster_envelope)
        assert report.verdict == "FAILED"
        assert _check(report, check)[0] == "failed"


def test_a_proof_has_one_spelling_of_its_boxes() -> None:
    bundle = read_proof(_data())
    upper = [msgspec.structs.replace(box, box=box.box.upper()) for box in bundle.boxes]
    with refuses("malformed"):
        read_proof(canonical.encode(msgspec.structs.replace(bundle, boxes=upper)))


def test_what_is_committed_and_what_is_sealed_are_opened_apart() -> None:
    """A memo that governors see, and a payee that they do not, in one intent."""
    story = _story()
    memo = Opening(name="memo", salt="77" * 16, value="rent")
    _, intent, boxes = boxed(story.lab, 32, at_ms=story.mesh.now_ms)
    claims = envelope.read(Intent, intent).claims
    claims = msgspec.structs.replace(claims, committed={**claims.committed, "memo": commit(memo)})
    answer = story.mesh.request("eu-1", story.lab.request(sign(claims, story.lab.holder), [memo], boxes=boxes))
    assert isinstance(answer, Authorized)
    story.mesh.run(6)
    data = story.proof(envelope.draft(claims).id)
    assert _verify(data).verdict == "VERIFIED"
    cases: list[tuple[dict[str, Any], str]] = [({"openings": []}, "passed"), ({"boxes": []}, "skipped")]
    for parts, checks in cases:
        report = _verify(encode_proof(msgspec.structs.replace(read_proof(data), **parts)))
        assert report.verdict == "PARTIAL"
        assert _check(report, "sealed")[0] == checks
        assert _check(report, "decision")[0] == "skipped"
