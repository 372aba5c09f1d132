"""Who rewrites a log contradicts all that have named its trees."""

from mesh.core.log.merkle import Frontier
from mesh.core.log.record import Cosigned, CosignedHead
from mesh.protocol.entangled import Contradiction, Named, name, settle

ONE, OTHER = "lab/eu-1/e1", "lab/us-1/e1"
LEAVES = [bytes([number]) * 32 for number in range(200)]
EMPTY = Frontier.empty()


def _root(size: int, leaves: list[bytes] = LEAVES) -> str:
    return EMPTY.extend(leaves[:size]).root().hex()


def _says(index: int, **sizes: str) -> Cosigned:
    """A record of one log about the other; ``s7`` is size 7."""
    heads = [CosignedHead(origin=OTHER, root=root, size=int(size[1:]), time_s=1) for size, root in sizes.items()]
    return Cosigned(mesh="lab", origin=ONE, index=index, at_ms=5, heads=heads)


def _grown(state: Named, first: int, size: int) -> tuple[Named, list[Contradiction]]:
    return settle(state, OTHER, EMPTY.extend(LEAVES[:first]), LEAVES[first:size])


def test_a_tree_that_the_log_had_is_right_whether_it_is_named_before_or_after() -> None:
    state, found = name(Named(), _says(3, s2=_root(2), s4=_root(4), s6=_root(6)), {OTHER: 0})
    assert found == []
    state, found = _grown(state, 0, 5)
    assert (found, [size for size, _ in state.waiting[OTHER]]) == ([], [6]), "recomputed also between two signed sizes"
    state, found = _grown(state, 5, 9)
    assert (found, state.waiting[OTHER]) == ([], ())
    assert name(state, _says(4, s5=_root(5)), {OTHER: 9})[1] == []


def test_another_tree_is_found_whichever_of_both_came_first() -> None:
    lie = "ab" * 32
    state, _ = name(Named(), _says(3, s2=lie, s5=lie, s9=lie), {OTHER: 0})
    state, found = _grown(state, 0, 5)
    assert found == [Contradiction(ONE, 3, OTHER, 2), Contradiction(ONE, 3, OTHER, 5)]
    assert "two histories" in str(found[0])
    assert name(state, _says(4, s5=lie), {OTHER: 5})[1] == [Contradiction(ONE, 4, OTHER, 5)]
    assert _grown(state, 5, 9)[1] == [Contradiction(ONE, 3, OTHER, 9)]


def test_what_is_not_followed_or_came_too_late_accuses_nobody() -> None:
    lie = "ab" * 32
    assert name(Named(), _says(3, s2=lie), {}) == (Named(waiting={}, roots={}), [])
    state = Named()
    for size in range(1, 101):
        state, _ = _grown(state, size - 1, size)
    assert name(state, _says(3, s2=lie), {OTHER: 100})[1] == []
    assert name(state, _says(3, s99=lie), {OTHER: 100})[1] != []


def test_sizes_that_never_come_are_forgotten_for_newer_ones() -> None:
    state = Named()
    for number in range(1_000):
        state, _ = name(state, _says(number, **{f"s{10**9 + number}": "ab" * 32}), {OTHER: 0})
    state, _ = name(state, _says(1_000, s3="ab" * 32), {OTHER: 0})
    assert len(state.waiting[OTHER]) == 256
    assert _grown(state, 0, 3)[1] == [Contradiction(ONE, 1_000, OTHER, 3)]
