"""A page says of sealed parameters what `mesh verify` says: for whom they are, and whether their boxes are those that were signed."""

from collections.abc import Iterator
from functools import cache

import msgspec

from mesh.core.log.bundle import ProofBundle, encode_proof, read_proof
from tests.page.tab import Judge, said_here
from tests.support.sealed import SealedStory


@cache
def _story() -> SealedStory:
    return SealedStory()


def _bent() -> Iterator[ProofBundle]:
    """The proof of a sealed payment with other boxes, and other proofs with these."""
    bundle = read_proof(_story().proof(_story().sealed))
    one, other = bundle.boxes
    swapped, cut = msgspec.structs.replace(one, box=other.box), msgspec.structs.replace(one, box=one.box[:-2])
    flipped = msgspec.structs.replace(one, box=f"{int(one.box[0], 16) ^ 1:x}{one.box[1:]}")
    for boxes in ([one, other], [], [one], [other, one], [one, other, other], [swapped, other], [cut, other], [flipped, other]):
        yield msgspec.structs.replace(bundle, boxes=boxes)
    for name in (_story().permitted, _story().forbidden, _story().late):
        yield msgspec.structs.replace(read_proof(_story().proof(name)), boxes=[one, other])


def test_a_page_judges_boxes_as_mesh_verify_does(judge: Judge) -> None:
    roster = _story().lab.roster_envelope
    proofs = [encode_proof(bundle) for bundle in _bent()]
    here = [said_here(data, roster) for data in proofs]
    assert [said.verdict for said in here] == ["VERIFIED", "PARTIAL", *["FAILED"] * 9]
    for said, expected in zip(judge.all(proofs, roster), here, strict=True):
        assert (said.verdict, said.failure, said.results.get("sealed")) == (
            expected.verdict,
            expected.failure,
            expected.results.get("sealed"),
        )


def test_a_page_tells_people_for_whom_something_is_sealed(judge: Judge) -> None:
    judge.show(_story().proof(_story().sealed), _story().lab.roster_envelope, f"#pin={_story().lab.pin}")
    assert "payee: sealed for finance, tax" in judge.text("story")
