"""The tree equals RFC 6962's text, its proofs prove what they say, and no other proof passes."""

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.log.merkle import (
    EMPTY_ROOT,
    Branch,
    Frontier,
    branch_hash,
    completed,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root_from_inclusion,
    tree_get,
    verify_consistency,
    verify_inclusion,
)
from mesh.limits import PROOF_HASHES_MAX, TREE_SIZE_MAX
from tests.core.kit import VECTORS, needs_vectors, refuses, vectors

SIZES = range(71)
LEAVES = tuple(leaf_hash(b"record %d" % number) for number in range(max(SIZES)))
GET = tree_get(LEAVES)


# RFC 6962, section 2.1, word for word: the slow definition that everything here is compared with.
def mth(leaves: tuple[bytes, ...]) -> bytes:
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return branch_hash(mth(leaves[:k]), mth(leaves[k:]))


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, leaves: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if len(leaves) == 1:
        return ()
    k = split(len(leaves))
    return (*path(m, leaves[:k]), mth(leaves[k:])) if m < k else (*path(m - k, leaves[k:]), mth(leaves[:k]))


def subproof(m: int, leaves: tuple[bytes, ...], *, whole: bool) -> tuple[bytes, ...]:
    if m == len(leaves):
        return () if whole else (mth(leaves),)
    k = split(len(leaves))
    if m <= k:
        return (*subproof(m, leaves[:k], whole=whole), mth(leaves[k:]))
    return (*subproof(m - k, leaves[k:], whole=False), mth(leaves[:k]))


ROOTS = tuple(mth(LEAVES[:size]) for size in SIZES)


def refused(code: str, call: Callable[..., object], *args: object) -> None:
    with refuses(code):
        call(*args)


def test_the_frontier_has_the_roots_of_rfc_6962() -> None:
    frontier = Frontier.empty()
    for size, leaf in enumerate(LEAVES):
        assert frontier.root() == ROOTS[size]
        assert frontier.size == size
        frontier = frontier.append(leaf)
    assert frontier.root() == ROOTS[-1]


def test_appending_together_equals_appending_singly() -> None:
    for old in SIZES:
        frontier = Frontier.empty().extend(LEAVES[:old])
        for new in range(old, len(SIZES), 7):
            longer = frontier.extend(LEAVES[old:new])
            grown, _ = frontier.grow(LEAVES[old:new])
            assert longer == grown == Frontier.load(GET, new)
            assert longer.root() == ROOTS[new]


def test_the_rows_of_a_growing_log_are_all_its_perfect_subtrees() -> None:
    rows: dict[tuple[int, int], bytes] = {}
    frontier = Frontier.empty()
    for start in range(0, 70, 3):
        frontier, new = frontier.grow(LEAVES[start : start + 3])
        assert not rows.keys() & {(row.level, row.number) for row in new}, "a row never changes"
        rows |= {(row.level, row.number): row.hash for row in new}
    for level in range(7):
        for number in range(70 >> level):
            assert rows.pop((level, number)) == mth(LEAVES[number << level : (number + 1) << level])
    assert not rows


def test_completed_names_the_rows_that_grow_makes() -> None:
    assert completed(0) == [(0, 0)]
    assert completed(7) == [(0, 7), (1, 3), (2, 1), (3, 0)]
    frontier = Frontier.empty()
    for index in range(70):
        frontier, rows = frontier.grow(LEAVES[index : index + 1])
        assert [(row.level, row.number) for row in rows] == completed(index)
        assert rows[0] == Branch(0, index, LEAVES[index])


def test_a_frontier_survives_being_kept_as_its_fields() -> None:
    for size in SIZES:
        frontier = Frontier.load(GET, size)
        assert Frontier.restore(frontier.size, list(frontier.hashes)) == frontier


@pytest.mark.parametrize(
    ("size", "hashes"),
    [(1, ()), (0, (LEAVES[0],)), (3, (LEAVES[0],)), (1, (b"short",)), (-1, ()), (TREE_SIZE_MAX + 1, (LEAVES[0],))],
)
def test_what_cannot_be_a_frontier_is_refused(size: int, hashes: tuple[bytes, ...]) -> None:
    refused("malformed", Frontier.restore, size, hashes)


def test_a_log_ends_at_its_greatest_size() -> None:
    last = Frontier.restore(TREE_SIZE_MAX - 1, [LEAVES[0]] * (TREE_SIZE_MAX - 1).bit_count())
    full = last.append(LEAVES[1])
    assert full.size == TREE_SIZE_MAX
    assert full == last.extend([LEAVES[1]])
    refused("too_large", full.append, LEAVES[2])
    refused("too_large", full.extend, [LEAVES[2]])
    refused("too_large", full.grow, [LEAVES[2]])


def test_inclusion_paths_are_those_of_rfc_6962_and_lead_to_the_root() -> None:
    for size in SIZES:
        for index in range(size):
            proof = inclusion_path(GET, index, size)
            assert proof == path(index, LEAVES[:size])
            assert root_from_inclusion(LEAVES[index], index, size, proof) == ROOTS[size]
            verify_inclusion(LEAVES[index], index, size, ROOTS[size], proof)


def test_consistency_paths_are_those_of_rfc_6962_and_link_the_roots() -> None:
    for new in SIZES[1:]:
        for old in range(1, new + 1):
            proof = consistency_path(GET, old, new)
            assert proof == subproof(old, LEAVES[:new], whole=True)
            verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


def test_proving_looks_up_a_logarithm_of_hashes() -> None:
    looked_up: list[tuple[int, int]] = []

    def counting(level: int, number: int) -> bytes:
        looked_up.append((level, number))
        return leaf_hash(b"%d/%d" % (level, number))

    size = (1 << 40) + 12345
    for path_length in (len(inclusion_path(counting, 99, size)), len(consistency_path(counting, 77, size))):
        assert path_length <= 42
    assert len(looked_up) <= 2 * 50
    assert all((number + 1) << level <= size for level, number in looked_up), "only complete subtrees are asked for"


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (5, 3)])
def test_no_path_is_made_to_a_leaf_that_is_not_there(index: int, size: int) -> None:
    refused("not_found", inclusion_path, GET, index, size)


@pytest.mark.parametrize(("old", "new"), [(0, 5), (6, 5), (-1, 5), (0, 0)])
def test_no_path_is_made_between_sizes_that_have_none(old: int, new: int) -> None:
    refused("not_found", consistency_path, GET, old, new)


def test_an_inclusion_proof_proves_nothing_else() -> None:
    for size in (1, 2, 3, 7, 8, 13):
        for index in range(size):
            proof = inclusion_path(GET, index, size)
            for other in range(-1, size + 2):
                if other != index:
                    refused("bad_proof", verify_inclusion, LEAVES[index], other, size, ROOTS[size], proof)
            for bad in mangled(proof):
                refused("bad_proof", verify_inclusion, LEAVES[index], index, size, ROOTS[size], bad)
            refused("bad_proof", verify_inclusion, LEAVES[20], index, size, ROOTS[size], proof)
            refused("bad_proof", verify_inclusion, LEAVES[index][:31], index, size, ROOTS[size], proof)


def test_a_consistency_proof_proves_nothing_else() -> None:
    for new in (2, 3, 7, 8, 13):
        for old in range(1, new + 1):
            proof = consistency_path(GET, old, new)
            for bad in mangled(proof):
                refused("bad_proof", verify_consistency, old, new, ROOTS[old], ROOTS[new], bad)
            refused("bad_proof", verify_consistency, old, new, ROOTS[20], ROOTS[new], proof)
            refused("bad_proof", verify_consistency, old, new, ROOTS[old], ROOTS[20], proof)
            refused("bad_proof", verify_consistency, old, new, ROOTS[old][:31], ROOTS[new], proof)


def test_nothing_is_proved_consistent_with_the_empty_or_a_shorter_tree() -> None:
    refused("bad_proof", verify_consistency, 0, 5, EMPTY_ROOT, ROOTS[5], ())
    refused("bad_proof", verify_consistency, 0, 0, EMPTY_ROOT, EMPTY_ROOT, ())
    refused("bad_proof", verify_consistency, 6, 5, ROOTS[6], ROOTS[5], consistency_path(GET, 5, 6))
    refused("bad_proof", verify_consistency, 5, 5, ROOTS[5], ROOTS[6], ())


def test_a_leaf_cannot_pass_for_a_branch() -> None:
    two = LEAVES[0] + LEAVES[1]
    assert leaf_hash(two) != branch_hash(LEAVES[0], LEAVES[1])
    refused("bad_proof", verify_inclusion, leaf_hash(two), 0, 1, ROOTS[2], ())


def test_the_odd_branch_is_never_doubled() -> None:
    doubled = branch_hash(branch_hash(LEAVES[0], LEAVES[1]), branch_hash(LEAVES[2], LEAVES[2]))
    assert Frontier.empty().extend(LEAVES[:3]).root() != doubled


def test_proofs_have_at_most_63_hashes() -> None:
    size = 1 << 63
    most = [LEAVES[0]] * PROOF_HASHES_MAX
    assert len(root_from_inclusion(LEAVES[1], 0, size, most)) == 32
    refused("bad_proof", root_from_inclusion, LEAVES[1], 0, size * 2, [*most, LEAVES[0]])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1 << 53), st.data())
def test_proofs_in_vast_trees_agree_with_each_other(size: int, data: st.DataObject) -> None:
    """With made-up subtrees: the path of one leaf and the frontier must lead to one root."""

    def get(level: int, number: int) -> bytes:
        # Perfect subtrees of equal leaves: consistent at every level, at any size.
        value = LEAVES[0]
        for _ in range(level):
            value = branch_hash(value, value)
        return value

    root = Frontier.load(get, min(size, TREE_SIZE_MAX)).root()
    size = min(size, TREE_SIZE_MAX)
    index = data.draw(st.integers(0, size - 1))
    verify_inclusion(LEAVES[0], index, size, root, inclusion_path(get, index, size))
    old = data.draw(st.integers(1, size))
    verify_consistency(old, size, Frontier.load(get, old).root(), root, consistency_path(get, old, size))


def cases_of(kind: str) -> list[dict[str, object]]:
    lines = (VECTORS / "merkle" / "merkle-vectors.jsonl").read_text().splitlines()
    cases: list[dict[str, object]] = [json.loads(line) for line in lines]
    return [case for case in cases if str(case["_path"]).startswith(f"{kind}/")]


def unbase64(value: object) -> bytes:
    return base64.b64decode(value) if isinstance(value, str) else b""


def hashes(value: object) -> list[bytes]:
    return [unbase64(item) for item in value] if isinstance(value, list) else []


@needs_vectors
def test_published_inclusion_vectors_hold() -> None:
    cases = cases_of("inclusion")
    assert len(cases) > 90
    for case in cases:
        index, size = case["leafIdx"], case["treeSize"]
        assert isinstance(index, int)
        assert isinstance(size, int)
        args = unbase64(case["leafHash"]), index, size, unbase64(case["root"]), hashes(case["proof"])
        if case["wantErr"]:
            refused("bad_proof", verify_inclusion, *args)
        else:
            verify_inclusion(*args)


@needs_vectors
def test_published_consistency_vectors_hold() -> None:
    cases = cases_of("consistency")
    assert len(cases) > 90
    for case in cases:
        old, new = case["size1"], case["size2"]
        assert isinstance(old, int)
        assert isinstance(new, int)
        args = old, new, unbase64(case["root1"]), unbase64(case["root2"]), hashes(case["proof"])
        if case["wantErr"]:
            refused("bad_proof", verify_consistency, *args)
        else:
            verify_consistency(*args)


@needs_vectors
def test_published_roots_hold() -> None:
    rfc6962 = vectors("notes/tlog-notes.json")["rfc6962"]
    frontier = Frontier.empty()
    roots = [frontier.root().hex()]
    for leaf in rfc6962["leaf_inputs_hex"]:
        frontier = frontier.append(leaf_hash(bytes.fromhex(leaf)))
        roots.append(frontier.root().hex())
    assert roots == rfc6962["roots_by_size_hex"]


def mangled(proof: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    flipped = [(*proof[:i], bytes([value[0] ^ 1]) + value[1:], *proof[i + 1 :]) for i, value in enumerate(proof)]
    left_out = [(*proof[:i], *proof[i + 1 :]) for i in range(len(proof))]
    shortened = [(*proof[:i], value[:31], *proof[i + 1 :]) for i, value in enumerate(proof)]
    return [*flipped, *left_out, *shortened, (*proof, LEAVES[30]), (LEAVES[30], *proof)]
