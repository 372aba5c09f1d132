"""The root threshold says from where on records are kept, nobody else; a floor never falls, whatever comes first."""

from itertools import permutations

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.law.erase import ERASURES
from mesh.core.law.fold import extend, restore
from mesh.core.law.retain import Floor, Retain, admit_retain, outlived
from mesh.core.law.streams import Chain, Fork
from mesh.core.law.travel import read_law
from mesh.limits import (
    APPROVAL_LIFE_MS_MAX,
    FLOORS_MAX,
    GRANT_LIFE_MS_MAX,
    INTENT_LIFE_MS_MAX,
    PARENT_AGE_MS_MAX,
    PRUNE_AGE_MS_MIN,
    TREE_SIZE_MAX,
)
from tests.core.kit import refuses
from tests.support.erasures import erase
from tests.support.factory import MESH, T0, Lab
from tests.support.retains import retain

LAB = Lab()
A, B = f"{MESH}/gov-a/e1", f"{MESH}/gov-b/e1"


def test_a_retention_takes_the_root_threshold_and_nobody_besides() -> None:
    assert admit_retain(retain(LAB, {A: 5}), LAB.roster).floors == [Floor(origin=A, below=5)]
    with refuses("threshold_not_met"):
        admit_retain(retain(LAB, {A: 5}, by=LAB.root[:1]), LAB.roster)
    for others in (LAB.signers[:2], [LAB.revoker], [*LAB.root[:2], LAB.revoker]):
        with refuses("bad_signature"):
            admit_retain(retain(LAB, {A: 5}, by=others), LAB.roster)
    with refuses("wrong_mesh"):
        admit_retain(retain(LAB, {A: 5}, mesh="other"), LAB.roster)


@pytest.mark.parametrize("origins", [[B, A], [A, A], ["other/gov-a/e1"]], ids=["out of order", "twice", "another mesh"])
def test_logs_of_this_mesh_are_named_each_once_in_their_order(origins: list[str]) -> None:
    with refuses("malformed"):
        admit_retain(retain(LAB, {A: 5}, floors=[Floor(origin=origin, below=1) for origin in origins]), LAB.roster)


def test_a_retention_names_one_log_at_least_and_so_many_at_most_and_a_floor_that_is_one() -> None:
    many = {f"{MESH}/gov-{number:03}/e1": 1 for number in range(FLOORS_MAX + 1)}
    assert len(admit_retain(retain(LAB, dict(list(many.items())[:-1])), LAB.roster).floors) == FLOORS_MAX
    assert admit_retain(retain(LAB, {A: TREE_SIZE_MAX}), LAB.roster).floors[0].below == TREE_SIZE_MAX
    for floors in ({}, many, {A: 0}, {A: -1}, {A: TREE_SIZE_MAX + 1}):
        with refuses("malformed"):
            retain(LAB, floors)


def test_a_floor_never_falls_and_follows_from_all_that_is_held_whatever_came_first_and_wherever_it_stands() -> None:
    first = retain(LAB, {A: 5, B: 9})
    lower, beside = retain(LAB, {A: 3}, after=first, archive="elsewhere"), retain(LAB, {A: 7}, after=first, archive="disk 9")
    for said in permutations([first, lower, beside]):
        held = LAB.governance
        for item in said:
            held = extend(held, [item]).governance
        assert isinstance(held.streams[ERASURES], Fork)
        assert held.floors == {A: (7, beside.id, "disk 9"), B: (9, first.id, "tape 7")}
        assert restore(LAB.governance, said).floors == held.floors
    ahead = extend(LAB.governance, [lower]).governance  # also before its predecessor came
    assert ahead.floors == {A: (3, lower.id, "elsewhere")}
    assert extend(ahead, [first]).governance.floors[A].below == 5


def test_two_that_name_the_same_floor_are_the_same_for_everybody() -> None:
    first = retain(LAB, {A: 5})
    second = retain(LAB, {A: 5}, after=first, archive="elsewhere")
    one, other = extend(LAB.governance, [first]).governance, extend(LAB.governance, [second]).governance
    assert extend(one, [second]).governance.floors == extend(other, [first]).governance.floors


def test_a_retention_stands_in_the_stream_of_erasures_behind_one_of_these() -> None:
    gone = erase(LAB, "ab" * 32)
    kept = retain(LAB, {A: 5}, after=gone)
    held = extend(LAB.governance, [kept, gone]).governance
    assert isinstance(held.streams[ERASURES], Chain)
    assert [(head.sequence, head.head) for head in held.frontier if head.stream == ERASURES] == [(2, kept.id)]
    assert held.erased == {"ab" * 32}
    assert held.floors[A].below == 5
    assert LAB.governance.floors == {}


def test_a_retention_is_one_of_the_kinds_that_travel() -> None:
    statement = retain(LAB, {A: 5})
    again = read_law(statement.envelope)
    assert isinstance(again.claims, Retain)
    assert (again.id, again.claims.link) == (statement.id, (ERASURES, 1, ""))
    claims = msgspec.structs.replace(statement.claims, since=LAB.pin)
    assert envelope.draft(claims).id != statement.id
    assert claims.link[0] == f"{ERASURES}@{LAB.pin[:16]}"


def test_what_is_pruned_is_older_than_all_that_records_are_asked_for_to_decide() -> None:
    longest = max(INTENT_LIFE_MS_MAX, APPROVAL_LIFE_MS_MAX, GRANT_LIFE_MS_MAX, PARENT_AGE_MS_MAX)
    assert not outlived(T0, T0 + longest + 3_600_000)  # clocks differ, and whoever asks was on its way
    assert outlived(T0, T0 + PRUNE_AGE_MS_MIN)
    assert not outlived(T0, T0 + PRUNE_AGE_MS_MIN - 1)
