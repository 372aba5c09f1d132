"""What one step may not do, several may: the way that is told is safe in every step, arrives, and none is shorter."""

from itertools import pairwise, product

import msgspec
import pytest

from mesh.core.law.planning import Change, Move, Numbers, most_liars, safe_quorums, sound_quorums, way
from mesh.core.law.roster import Member, Roster
from mesh.core.law.succession import check_step
from mesh.errors import Refused
from tests.support.rosters import member, roster, signed

CHANGES: tuple[Change, ...] = ("add", "remove", "rotate", "numbers")
GONE = {"add": (0, 1), "remove": (1, 0), "rotate": (1, 1), "numbers": (0, 0)}


def _every(n_max: int) -> list[Numbers]:
    return [numbers for n in range(1, n_max + 1) for numbers in _of(n)]


def _of(n: int) -> list[Numbers]:
    return [Numbers(n, f, k) for f in range(most_liars(n) + 1) for k in sound_quorums(n, f)] if n else []


def test_sound_is_what_a_roster_says_is_sound() -> None:
    for n, f, k in product(range(1, 9), range(9), range(1, 10)):
        try:
            sound = roster([f"m{number}" for number in range(n)], f, k).k == k
        except Refused:
            sound = False
        assert (k in sound_quorums(n, f)) is sound, (n, f, k)


def _renewed() -> Member:
    """The first member with new keys, and so with a new log."""
    return msgspec.structs.replace(member("m0", generation=1), log_epoch=2)


def _names(now: Numbers, change: Change, moves: list[Move]) -> list[Roster]:
    """The rosters that the way goes through, with members by name."""
    held = [member(f"m{number}") for number in range(now.n)]
    last = signed(roster(held, now.f, now.k))
    found, spares = [last.claims], 0
    for move in moves:
        if move.does == "add a spare":
            spares += 1
            held = [*held, member(f"spare{spares}")]
        elif move.does == "remove the spare":
            held = [one for one in held if one.name != f"spare{spares}"]
            spares -= 1
        elif move.does == "change":
            held = held[1:] if change == "remove" else held
            held = [*held, member("new")] if change == "add" else held
            held = [_renewed(), *held[1:]] if change == "rotate" else held
        last = signed(roster(held, move.after.f, move.after.k, after=last))
        found.append(last.claims)
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_every_step_of_a_way_is_one_that_members_allow_and_the_last_is_what_was_asked(change: Change) -> None:
    gone, come = GONE[change]
    tried = 0
    for now in _every(7):
        n = now.n - gone + come
        for _, f, k in _of(n):
            moves = way(now, change, f, k)
            assert moves or (change == "numbers" and (f, k) == now[1:]), "there always is one"
            if tried % 7 == 0:
                path = _names(now, change, moves)
                for before, after in pairwise(path):
                    check_step(before, after)
            if moves:
                assert moves[-1].after == (n, f, k)
                assert all(move.overlap.safe for move in moves)
                assert (len(moves) == 1) is (k in safe_quorums(now, n, f, goes=gone, comes=come))
            tried += 1
    assert tried > 30


def test_the_quorum_that_is_chosen_is_the_smallest_that_is_sound_and_safe() -> None:
    assert safe_quorums(Numbers(4, 1, 3), 5, 1, goes=0, comes=1) == [4]
    assert safe_quorums(Numbers(4, 1, 3), 3, 0, goes=1, comes=0) == [3], "2 is sound, and not safe"
    assert safe_quorums(Numbers(4, 1, 3), 4, 1, goes=1, comes=1) == []
    assert safe_quorums(Numbers(4, 1, 3), 3, 1, goes=1, comes=0) == []
