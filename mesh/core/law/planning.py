"""Which numbers a planned roster may have, and by which safe steps a change is reached that no single step may make.

Not here: the rule itself (:mod:`mesh.core.law.succession`), who is in a roster.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from mesh.core.law.succession import Overlap
from mesh.limits import MEMBERS_MAX

__all__ = ["Change", "Move", "Numbers", "most_liars", "safe_quorums", "sound_quorums", "way"]

Change = Literal["add", "remove", "rotate", "numbers"]
"""One member more, one less, one with other keys, or only f and k."""
_SPARES_MAX: Final = 2
_EXCHANGED: Final = {"add": (0, 1), "remove": (1, 0), "rotate": (1, 1), "numbers": (0, 0)}
"""How many members go, and how many come."""


class Numbers(NamedTuple):
    """What a roster counts with."""

    n: int
    f: int
    k: int


class Move(NamedTuple):
    """One step of a way."""

    does: Literal["add a spare", "remove the spare", "change", "numbers"]
    after: Numbers
    overlap: Overlap


class _At(NamedTuple):
    """A place on the way."""

    f: int
    k: int
    changed: bool
    spares: int


def most_liars(n: int) -> int:
    """The largest f that n members can bear: n >= 3f + 1."""
    return (n - 1) // 3


def sound_quorums(n: int, f: int) -> range:
    """Every k for which 2k > n + f and k <= n - f, smallest first; none if n < 3f + 1."""
    return range((n + f) // 2 + 1, n - f + 1)


def safe_quorums(now: Numbers, n: int, f: int, *, goes: int, comes: int) -> list[int]:
    """Every sound k of the next roster that may follow in one step in which so many members go and come, smallest first."""
    return [k for k in sound_quorums(n, f) if _overlap(now, Numbers(n, f, k), goes, comes).safe]


def way(now: Numbers, change: Change, f: int, k: int) -> list[Move]:
    """The fewest safe steps to the change and to these f and k, with spare members on the way if it takes them; empty if there is none.

    Each step does one thing: a spare comes or goes, or the change is made; f and k may change with it. A search over all that is sound,
    breadth first, so no other way is shorter.
    """
    goes, comes = _EXCHANGED[change]

    def numbers(at: _At) -> Numbers:
        return Numbers(now.n + at.spares + ((comes - goes) if at.changed else 0), at.f, at.k)

    def moves(at: _At) -> Iterator[tuple[_At, Move]]:
        here = numbers(at)
        options: list[tuple[Literal["add a spare", "remove the spare", "change", "numbers"], bool, int, int, int]] = [
            ("numbers", at.changed, at.spares, 0, 0)
        ]
        if not at.changed:
            options.append(("change", True, at.spares, goes, comes))
        if at.spares < _SPARES_MAX:
            options.append(("add a spare", at.changed, at.spares + 1, 0, 1))
        if at.spares:
            options.append(("remove the spare", at.changed, at.spares - 1, 1, 0))
        for does, changed, spares, gone, come in options:
            n = numbers(_At(at.f, at.k, changed, spares)).n
            for liars in dict.fromkeys((at.f, f)):
                for quorum in sound_quorums(n, liars) if 0 < n <= MEMBERS_MAX else ():
                    after = Numbers(n, liars, quorum)
                    step = _overlap(here, after, gone, come)
                    if step.safe:
                        yield _At(liars, quorum, changed, spares), Move(does, after, step)

    start, goal = _At(now.f, now.k, changed=change == "numbers", spares=0), _At(f, k, changed=True, spares=0)
    found: dict[_At, tuple[_At, Move] | None] = {start: None}
    edge = [start]
    while edge and goal not in found:
        edge = [after for at in edge for after in _new(found, at, moves(at))]
    return _back(found, goal) if goal in found else []


def _new(found: dict[_At, tuple[_At, Move] | None], at: _At, moves: Iterable[tuple[_At, Move]]) -> Iterator[_At]:
    for after, move in moves:
        if after not in found:
            found[after] = at, move
            yield after


def _back(found: dict[_At, tuple[_At, Move] | None], goal: _At) -> list[Move]:
    steps = list[Move]()
    before = found[goal]
    while before is not None:
        at, move = before
        steps.append(move)
        before = found[at]
    return steps[::-1]


def _overlap(now: Numbers, after: Numbers, goes: int, comes: int) -> Overlap:
    return Overlap(old=goes, both=now.n - goes, new=comes, k=(now.k, after.k), f=(now.f, after.f))
