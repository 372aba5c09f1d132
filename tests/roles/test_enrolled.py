"""A node signs only as the member that the roster in force names, with the keys that it names."""

import pytest

from mesh.errors import Alarm
from mesh.roles.loading import enrolled
from mesh.roles.performer import USES
from tests.support.rosters import member, roster

ROSTER = roster(("a", "b", "c", "d"), 1, 3)
KEYS = {use: getattr(member("a"), f"{use}_key") for use in USES}


def test_it_is_the_member_of_its_name_and_keys() -> None:
    assert enrolled(ROSTER, "a", KEYS) == ROSTER.members[0]


@pytest.mark.parametrize("use", USES)
def test_one_other_key_is_another_member(use: str) -> None:
    other = getattr(member("a", generation=1), f"{use}_key")
    with pytest.raises(Alarm, match=f"not_enrolled.*{use}"):
        enrolled(ROSTER, "a", {**KEYS, use: other})  # type: ignore[dict-item]


def test_who_is_not_named_signs_nothing() -> None:
    with pytest.raises(Alarm, match="not_enrolled"):
        enrolled(ROSTER, "e", KEYS)


def test_who_moves_begins_in_the_other_region_with_another_process() -> None:
    assert enrolled(ROSTER, "a", KEYS, heard="eu") == ROSTER.members[0]
    with pytest.raises(Alarm, match=r"not_enrolled.*moves from us to eu"):
        enrolled(ROSTER, "a", KEYS, heard="us")
