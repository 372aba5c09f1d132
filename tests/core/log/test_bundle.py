"""A proof bundle has one spelling, and hostile bytes are refused in our words."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given

from mesh.core.log.bundle import FORMAT, Proven, encode_proof, make_proof, read_proof
from mesh.errors import Refused
from mesh.limits import LIST_ITEMS_MAX, PROOF_BUNDLE_BYTES_MAX
from tests.core.kit import HOSTILE, refuses
from tests.support.proofs import happened


def test_survives_its_own_encoding() -> None:
    story = happened()
    for name in (story.permitted, story.forbidden, story.late):
        data = story.proof(name)
        assert encode_proof(read_proof(data)) == data


def test_is_plain_json_down_to_the_statements() -> None:
    story = happened()
    value = json.loads(story.proof(story.permitted))
    assert value["format"] == FORMAT
    assert value["record"]["decision"]["effect"] == "permit"
    assert value["bundles"][0]["domain"] == "payments"
    assert [body["payloadType"].split(".")[2] for body in value["bodies"]] == ["intent", "identity", "identity"]


@given(HOSTILE)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    with suppress(Refused):
        read_proof(data)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"format":', b' "format":', "non_canonical"),
        (b'"outcomes":[]', b'"outcomes":[],"note":1', "malformed"),
        (b"proof-bundle/v1", b"proof-bundle/v2", "malformed"),
        (b'"openings":[]', b'"openings":[],"openings":[]', "non_canonical"),
    ],
)
def test_another_spelling_is_refused(old: bytes, new: bytes, code: str) -> None:
    data = happened().proof(happened().forbidden)
    assert old in data
    with refuses(code):
        read_proof(data.replace(old, new, 1))


def test_size_is_judged_before_anything_is_read() -> None:
    with refuses("malformed"):
        read_proof(b"[" * PROOF_BUNDLE_BYTES_MAX)
    with refuses("too_large"):
        read_proof(b"[" * (PROOF_BUNDLE_BYTES_MAX + 1))


@pytest.mark.parametrize(("count", "fits"), [(LIST_ITEMS_MAX, True), (LIST_ITEMS_MAX + 1, False)])
def test_outcomes_are_bounded(count: int, *, fits: bool) -> None:
    bundle = read_proof(happened().proof(happened().permitted))
    data = encode_proof(msgspec.structs.replace(bundle, outcomes=[bundle.outcomes[0]] * count))
    if fits:
        assert len(read_proof(data).outcomes) == count
    else:
        with refuses("malformed"):
            read_proof(data)


def test_parts_come_into_the_one_order() -> None:
    bundle = read_proof(happened().proof(happened().permitted))
    backwards = make_proof(
        bundle.proven,
        manifests=[bytes(raw) for raw in bundle.manifests],
        bundles=[bytes(raw) for raw in bundle.bundles],
        openings=reversed(bundle.openings),
        outcomes=reversed(bundle.outcomes),
    )
    assert encode_proof(backwards) == encode_proof(bundle)


def test_a_part_that_is_no_record_is_refused() -> None:
    bundle = read_proof(happened().proof(happened().permitted))
    wrong = Proven(record=bundle.bodies[0], proof="", bodies=[])
    with refuses("malformed"):
        make_proof(bundle.proven, manifests=[], bundles=[], openings=[], outcomes=[wrong])
