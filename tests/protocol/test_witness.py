"""A witness cosigns growth only, and its times never run backwards."""

import pytest

from mesh.core.log.checkpoint import AddCheckpoint, Checkpoint, log_line
from mesh.core.log.note import Note, Verifier
from mesh.errors import Unavailable
from mesh.protocol.step import Head, PutNote, Send, SetHead, Sign
from mesh.protocol.witness import BEHIND_S, RENEW_S, STATUS, add_checkpoint, asked, grown
from tests.core.kit import refuses, secret
from tests.core.log.logs import LOG, LOG_KEY, ORIGIN, checkpoint_of, signed

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


@pytest.mark.parametrize(("time_s", "after_s"), [(10, 10), (10 + RENEW_S - 1, 10), (10 + RENEW_S, 10 + RENEW_S), (3, 10)])
def test_the_same_tree_gets_a_new_time_only_after_a_while(time_s: int, after_s: int) -> None:
    assert grown(Head(2, B, 10), Checkpoint("log", 2, B), time_s=time_s, renew_s=RENEW_S) == Head(2, B, after_s)


@pytest.mark.parametrize(("behind_s", "signs"), [(BEHIND_S, True), (BEHIND_S + 1, False)])
def test_a_clock_far_behind_what_was_signed_last_signs_nothing(behind_s: int, *, signs: bool) -> None:
    body = AddCheckpoint(2, (), signed(checkpoint_of(2))).encode()
    head = Head(2, checkpoint_of(2).root, 1_000)
    if signs:
        assert add_checkpoint(head, asked(body), (LOG,), name="w", time_s=1_000 - behind_s).state == head
    else:
        with pytest.raises(Unavailable, match="clock_unsure"):
            add_checkpoint(head, asked(body), (LOG,), name="w", time_s=1_000 - behind_s)


@pytest.mark.parametrize(("size", "root"), [(1, A), (2, A), (0, A)])
def test_a_second_history_is_not(size: int, root: bytes) -> None:
    with refuses("log_conflict"):
        grown(Head(2, B, 10), Checkpoint("log", size, root), time_s=11)


# Each request is wrong in all that follows as well, so that it shows which check comes first.
ORDER = [
    ("not_found", 9, (), False, 7),
    ("bad_signature", 9, (LOG,), False, 7),
    ("malformed", 9, (LOG,), True, 7),
    ("wrong_size", 3, (LOG,), True, 7),
    ("bad_proof", 5, (LOG,), True, 7),
    ("log_conflict", 5, (LOG,), True, 5),
]


@pytest.mark.parametrize(("code", "old", "log", "genuine", "size"), ORDER)
def test_a_request_is_judged_in_the_order_of_the_specification(
    code: str, old: int, log: tuple[Verifier, ...], *, genuine: bool, size: int
) -> None:
    checkpoint = Checkpoint(ORIGIN, size, A)
    text = checkpoint.to_text()
    key = LOG_KEY if genuine else secret(9)
    note = Note(text, (log_line(ORIGIN, LOG_KEY.public, key.sign(text)),)).encode()
    body = AddCheckpoint(old, (B,), note).encode()
    with refuses(code):
        add_checkpoint(Head(5, B, 10), asked(body), log, name="w", time_s=11)
    assert STATUS.get(code, 400) == {"not_found": 404, "bad_signature": 403, "malformed": 400, "wrong_size": 409}.get(code, 422)


def test_what_grew_is_kept_before_it_is_signed_and_what_did_not_is_only_signed() -> None:
    first = add_checkpoint(None, asked(AddCheckpoint(0, (), signed(checkpoint_of(5))).encode()), (LOG,), name="w", time_s=11)
    assert [type(effect) for effect in first.effects] == [SetHead, PutNote, Sign, Send]
    again = add_checkpoint(first.state, asked(AddCheckpoint(5, (), signed(checkpoint_of(5))).encode()), (LOG,), name="w", time_s=12)
    assert (again.state, [type(effect) for effect in again.effects]) == (first.state, [Sign, Send])
    assert again.effects[0] == first.effects[2]
