"""A certificate of a former roster is worth what those have attested who are still there: nothing that removed keys can add to."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product
from typing import Final

import msgspec
import pytest

from mesh.core.bytes.envelope import Statement
from mesh.core.law.former import Remaining, final_under, still_there
from mesh.core.law.roster import Roster
from mesh.core.law.succession import Overlap
from mesh.core.log.certificate import Attested
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner
from mesh.core.log.note import Line, Signed
from mesh.errors import Refused
from tests.core.kit import refuses
from tests.support.rosters import member, roster, signed

FOUR: Final = ("a", "b", "c", "d")
FIRST: Final = signed(roster(FOUR, 1, 3))
SECOND: Final = signed(roster((*FOUR, "e"), 1, 4, after=FIRST))
THIRD: Final = signed(roster((*FOUR[1:], "e"), 1, 3, after=SECOND))


def _sound(n: int) -> list[tuple[int, int]]:
    """Every (f, k) that a roster of n members may have."""
    return [(f, k) for f in range(n) for k in range(1, n - f + 1) if 2 * k > n + f]


def _subsets(items: Sequence[int], *sizes: int) -> Iterator[frozenset[int]]:
    return map(frozenset, chain.from_iterable(combinations(items, size) for size in sizes))


# ------------------------------------------------------------------------------------------------------ the rules, by counting

_SIZES: Final = [(gone, both, new) for gone, both, new in product(range(5), range(5), range(4)) if 1 <= gone + both <= 5 and both + new]


@pytest.mark.parametrize("sizes", _SIZES, ids=str)
def test_it_is_believed_exactly_if_it_shares_an_honest_member_of_today_with_every_quorum_that_its_epoch_ever_had(
    sizes: tuple[int, int, int],
) -> None:
    """Whoever has left may lie by now, and f of those who are there: real sets of real members, all of them."""
    gone, both, new = sizes
    then, now = range(gone + both), range(gone, gone + both + new)
    for (_, k), (f_now, k_now) in product(_sound(len(then)), _sound(len(now))):
        quorums = list(_subsets(then, k))
        liars = [frozenset(range(gone)) | lie for lie in _subsets(now, *range(f_now + 1))]
        for attested in _subsets(then, *range(k, len(then) + 1)):
            there = attested & frozenset(now)
            honest = all(there & quorum - lie for quorum in quorums for lie in liars)
            numbers = Remaining(count=len(there), then=(len(then), k), now=(len(now), k_now, f_now))
            assert numbers.believed is honest, (sizes, k, f_now, attested)
            if numbers.believed:
                assert all(there - lie for lie in liars), "nobody honest of today vouches for it"


@pytest.mark.parametrize("sizes", [sizes for sizes in product(range(4), range(1, 5), range(4)) if sum(sizes[1:]) <= 5], ids=str)
def test_it_is_held_exactly_if_any_k_of_today_have_an_honest_one_among_them_who_attested_it(sizes: tuple[int, int, int]) -> None:
    gone, both, new = sizes
    now = range(gone, gone + both + new)
    for f_now, k_now in _sound(len(now)):
        liars = list(_subsets(now, *range(f_now + 1)))
        for there in _subsets(range(gone, gone + both), *range(both + 1)):
            honest = all(there & up - lie for up in _subsets(now, k_now) for lie in liars)
            numbers = Remaining(count=len(there), then=(gone + both, gone + both), now=(len(now), k_now, f_now))
            assert numbers.held is honest


def test_what_k_of_one_epoch_attested_is_held_in_the_next_whatever_step_the_overlap_rule_allows() -> None:
    tried = 0
    for gone, both, new in product(range(4), range(8), range(4)):
        if not gone + both or not both + new:
            continue
        for (f, k), (f_now, k_now) in product(_sound(gone + both), _sound(both + new)):
            if Overlap(old=gone, both=both, new=new, k=(k, k_now), f=(f, f_now)).safe:
                fewest = max(0, k - gone)
                assert Remaining(count=fewest, then=(gone + both, k), now=(both + new, k_now, f_now)).held
                tried += 1
    assert tried > 200


def test_a_quorum_of_the_trusted_roster_itself_is_always_enough() -> None:
    for n in range(1, 12):
        for f, k in _sound(n):
            numbers = Remaining(count=k, then=(n, k), now=(n, k, f))
            assert numbers.believed
            assert numbers.held


# --------------------------------------------------------------------------------------------------------------- who is still there


def _attested(by: Roster, *names: str) -> Attested:
    lines = [Signed(cosigner(attest_name(by.mesh, name), by.member(name).attest_key), Line("x", b"", b""), 0) for name in names]
    return Attested(Checkpoint("lab/a/e1", 5, bytes(32)), tuple(lines))


def _judge(rosters: Sequence[Statement[Roster]], trusted: int, of: int, *names: str) -> int:
    """The epoch as of which a certificate is believed that these members of that epoch have made."""
    by = rosters[of - 1].claims

    def check(keys: dict[str, str], k: int) -> Attested:
        if any(keys.get(attest_name(by.mesh, name)) != by.member(name).attest_key for name in names):
            raise Refused("bad_signature", "a stranger")
        if len(names) < k:
            raise Refused("not_final", "too few")
        return _attested(by, *names)

    return final_under([item.claims for item in rosters], check, trusted=trusted)[1].epoch  # type: ignore[arg-type]


CHAIN: Final = (FIRST, SECOND, THIRD)


@pytest.mark.parametrize(
    ("trusted", "of", "names", "as_of"),
    [
        (1, 1, "abc", 1),
        (2, 1, "abc", 1),
        (3, 1, "bcd", 3),
        (3, 1, "abcd", 2),
        (3, 2, "abcd", 2),
        (3, 2, "bce", 3),
        (1, 3, "bce", 3),
    ],
)
def test_what_enough_attested_is_final_as_of_the_newest_roster_of_which_it_can_be_said(
    trusted: int, of: int, names: str, as_of: int
) -> None:
    assert _judge(CHAIN, trusted, of, *names) == as_of


@pytest.mark.parametrize(
    ("trusted", "of", "names", "code"),
    [
        (3, 1, "abc", "former_certificate"),
        (3, 1, "ab", "not_final"),
        (3, 2, "abe", "not_final"),
        (3, 3, "bc", "not_final"),
    ],
)
def test_what_too_few_attested_who_are_still_there_says_so_and_what_too_few_attested_at_all_is_not_final(
    trusted: int, of: int, names: str, code: str
) -> None:
    # Three of the first roster are k there; of the second, which knows all of them too, they are none.
    with refuses(code):
        _judge(CHAIN, trusted, of, *names)


def test_without_a_roster_nothing_is_final() -> None:
    with refuses("wrong_epoch"):
        final_under([], lambda _keys, _k: _attested(FIRST.claims), trusted=1)


def test_the_other_rule_may_be_asked_for() -> None:
    by = FIRST.claims
    rosters = [item.claims for item in CHAIN]
    believed = final_under(rosters[:1], lambda _keys, _k: _attested(by, "a", "b", "c"), trusted=1, enough=lambda item: item.held)
    assert believed[1] == by
    with refuses("former_certificate"):
        final_under(rosters[:1], lambda _keys, _k: _attested(by, "a", "b", "c"), trusted=1, enough=lambda _: False)


def test_a_member_that_came_back_with_the_same_keys_was_not_there_all_the_time() -> None:
    without = signed(roster(("b", "c", "d", "e"), 1, 3, after=SECOND))
    back = signed(roster(("a", "b", "c", "d", "e"), 1, 4, after=without))
    rosters = [item.claims for item in (FIRST, SECOND, without, back)]
    assert [one.name for one in still_there([rosters[0], rosters[3]])] == ["a", "b", "c", "d"]
    assert [one.name for one in still_there(rosters)] == ["b", "c", "d"]
    with refuses("former_certificate"):
        _judge((FIRST, SECOND, without, back), 4, 1, "a", "b", "c")
    assert _judge((FIRST, SECOND, without, back), 4, 4, "a", "b", "c", "d") == 4


def test_who_moved_to_another_region_is_still_there_and_who_changed_a_key_is_not() -> None:
    moved = msgspec.structs.replace(member("a"), region="us")
    other = member("a", generation=1)
    assert len(still_there([FIRST.claims, signed(roster([moved, *FOUR[1:]], 1, 3, after=FIRST)).claims])) == 4
    assert [one.name for one in still_there([FIRST.claims, roster([other, *FOUR[1:]], 1, 3)])] == ["b", "c", "d"]
