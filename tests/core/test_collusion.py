"""The collusion number counts owners, exactly: no smaller set of them could do it, and the one that is named can."""

from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.law.collusion import ATTACKS, collusion, fewest, members_needed
from mesh.core.law.planning import most_liars, sound_quorums
from mesh.core.law.roster import Operator, Roster
from tests.support.rosters import key, member, roster

OWNS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=1)


@given(OWNS, st.integers(1, 80))
def test_no_smaller_set_of_owners_has_so_many_members(owns: dict[str, int], members: int) -> None:
    """Brute force over every set of owners."""
    found = fewest(owns, members)
    sizes = [size for size in range(len(owns) + 1) for chosen in combinations(owns, size) if sum(owns[one] for one in chosen) >= members]
    if sizes:
        assert len(found) == min(sizes)
        assert sum(owns[one] for one in found) >= members
    else:
        assert set(found) == set(owns), "even all of them are too few"


@pytest.mark.parametrize("n", range(1, 14))
def test_what_each_attack_takes_follows_from_any_sound_roster(n: int) -> None:
    """Counted over quorums as sets: the fewest liars without whom two of them share nobody, and without whom none is left."""
    for f in range(most_liars(n) + 1):
        for k in sound_quorums(n, f):
            needed = members_needed(_sized(n, f, k))
            shared = max(0, k + k - n)
            assert needed == {"exceed": f + 1, "contradict": shared, "forge": k, "silence": n - k + 1}
            assert f + 1 <= needed["contradict"] <= needed["forge"], "nothing is broken by f"
            assert f + 1 <= needed["silence"]


def _sized(n: int, f: int, k: int) -> Roster:
    return roster([f"m{number}" for number in range(n)], f, k)


def test_two_quorums_can_meet_in_exactly_so_many_and_never_in_fewer() -> None:
    for n, f, k in ((4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5)):
        meetings = {len(set(one) & set(other)) for one in combinations(range(n), k) for other in combinations(range(n), k)}
        assert min(meetings) == members_needed(_sized(n, f, k))["contradict"]


def _owned(*owners: str) -> Roster:
    members = [member(f"m{number}", operator=owner) for number, owner in enumerate(owners)]
    places = ("eu", "eu", "us", "us", "ap", "ap", "sa")
    members = [msgspec.structs.replace(one, region=place) for one, place in zip(members, places, strict=False)]
    return roster(members, 1, (len(members) + 1) // 2 + 1)


def _numbers(value: Roster) -> dict[str, int]:
    return {one.dimension: one.number for one in collusion(value)}


def test_one_owner_is_one_however_many_members_it_has() -> None:
    assert _numbers(_owned("x", "x", "x", "x")) == {"member": 2, "operator": 1, "jurisdiction": 1, "region": 1}
    one = next(one for one in collusion(_owned("x", "x", "x", "x")) if one.dimension == "operator")
    assert {attack: one.fewest[attack] for attack in ATTACKS} == dict.fromkeys(ATTACKS, ("x",))


def test_four_owners_of_one_each_are_as_good_as_the_members() -> None:
    value = _owned("w", "x", "y", "z")
    assert _numbers(value) == {"member": 2, "operator": 2, "jurisdiction": 1, "region": 1}
    homes = {name: Operator(key=key(f"operator {name}").public, jurisdiction=name) for name in value.operators}
    assert _numbers(msgspec.structs.replace(value, operators=homes))["jurisdiction"] == 2


def test_who_owns_most_is_named_first() -> None:
    found = {one.dimension: one for one in collusion(_owned("x", "y", "y", "z", "w", "v"))}
    assert (found["operator"].number, found["operator"].fewest["exceed"]) == (1, ("y",))
    assert found["operator"].fewest["forge"] == ("y", "v", "w")
    assert dict(found["operator"].owns) == {"y": 2, "v": 1, "w": 1, "x": 1, "z": 1}
    assert found["region"].fewest["silence"] == ("ap", "eu")
