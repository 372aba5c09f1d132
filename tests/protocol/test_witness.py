"""A witness cosigns growth only, and its times never run backwards."""

import pytest

from mesh.core.log.checkpoint import Checkpoint
from mesh.protocol.step import Head
from mesh.protocol.witness import grown
from tests.core.kit import refuses

A, B = b"a" * 32, b"b" * 32


@pytest.mark.parametrize(
    ("head", "size", "root", "time_s", "after"),
    [
        (None, 1, A, 10, Head(1, A, 10)),
        (Head(1, A, 10), 2, B, 12, Head(2, B, 12)),
        (Head(1, A, 10), 2, B, 7, Head(2, B, 10)),  # a clock that is behind borrows the last time
        (Head(2, B, 10), 2, B, 99, Head(2, B, 10)),  # again: the same bytes
    ],
)
def test_a_tree_that_grew_is_cosigned(head: Head | None, size: int, root: bytes, time_s: int, after: Head) -> None:
    assert grown(head, Checkpoint("log", size, root), time_s=time_s) == after


@pytest.mark.parametrize(("size", "root"), [(1, A), (2, A), (0, A)])
def test_a_second_history_is_not(size: int, root: bytes) -> None:
    with refuses("log_conflict"):
        grown(Head(2, B, 10), Checkpoint("log", size, root), time_s=11)
