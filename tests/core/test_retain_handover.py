"""Once a roster has handed the stream over, a former root lets no record go any more, and what it let go stays so."""

from mesh.core.law.fold import extend
from tests.core.handing import OTHER_ROOT, PLAIN, until_still
from tests.core.test_erase import _other_root
from tests.support.factory import Lab
from tests.support.retains import retain
from tests.support.rosters import ROOT

LAB, MESH = Lab(), PLAIN.roster.mesh
A = f"{MESH}/a/e1"


def test_a_former_root_raises_no_floor_and_the_next_one_goes_on_from_what_was_handed_over() -> None:
    first = retain(LAB, {A: 5}, by=ROOT[:2], mesh=MESH)
    for handed in ((), (first,)):
        after = _other_root(*handed)
        held, before = until_still(PLAIN, (*handed, after), 9), 5 if handed else 0
        assert held.roster.epoch == 2
        for late in (
            retain(LAB, {A: 90}, by=ROOT[:2], mesh=MESH, after=first if handed else None),
            retain(LAB, {A: 91}, by=ROOT[:2], mesh=MESH, sequence=7, previous="ab" * 32),
        ):
            taken = extend(held, [late])
            assert [refusal.code for refusal in taken.refused.values()] == ["handed_over"]
            assert {origin: kept.below for origin, kept in taken.governance.floors.items()} == ({A: before} if before else {})
        mine = retain(LAB, {A: 9}, by=OTHER_ROOT[:2], mesh=MESH, since=after.id, after=first if handed else None)
        stolen = retain(LAB, {A: 99}, by=ROOT[:2], mesh=MESH, since=after.id, after=first if handed else None)
        taken = extend(held, [mine, stolen])
        assert (taken.governance.floors[A].below, len(taken.refused)) == (9, 1)
        for order in ((*handed, after, mine), (mine, after, *handed)):
            assert until_still(PLAIN, order, 9).floors[A].below == 9
