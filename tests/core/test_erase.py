"""The root threshold says what is erased, nobody else; what it said counts wherever it stands, and is never undone."""

from collections.abc import Sequence

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.erase import ERASURES, Erase, admit_erase
from mesh.core.law.fold import extend, restore
from mesh.core.law.reign import Handover
from mesh.core.law.roster import Role, Roster
from mesh.core.law.streams import Fork
from mesh.core.law.travel import read_law
from mesh.limits import ERASED_MAX
from tests.core.handing import FOUR, GENESIS, OTHER_ROOT, PLAIN, until_still
from tests.core.kit import refuses
from tests.support.erasures import erase
from tests.support.factory import Lab
from tests.support.rosters import ROOT, handing_over, roster, signed

LAB = Lab()
ONE, TWO, THREE = sorted(sha256_hex(name) for name in (b"one", b"two", b"three"))


def test_an_erasure_takes_the_root_threshold_and_nobody_besides() -> None:
    assert admit_erase(erase(LAB, ONE), LAB.roster).intents == [ONE]
    with refuses("threshold_not_met"):
        admit_erase(erase(LAB, ONE, by=LAB.root[:1]), LAB.roster)
    for others in (LAB.signers[:2], [LAB.revoker], [*LAB.root[:2], LAB.revoker]):
        with refuses("bad_signature"):
            admit_erase(erase(LAB, ONE, by=others), LAB.roster)
    with refuses("wrong_mesh"):
        admit_erase(erase(LAB, ONE, mesh="other"), LAB.roster)


@pytest.mark.parametrize("intents", [[TWO, ONE], [ONE, ONE]], ids=["out of order", "twice"])
def test_intents_are_named_each_once_in_their_order(intents: list[str]) -> None:
    with refuses("malformed"):
        admit_erase(erase(LAB, ONE, intents=intents), LAB.roster)


def test_an_erasure_names_one_intent_at_least_and_so_many_at_most() -> None:
    many = sorted(sha256_hex(bytes([number & 255, number >> 8])) for number in range(ERASED_MAX + 1))
    assert len(admit_erase(erase(LAB, *many[:-1]), LAB.roster).intents) == ERASED_MAX
    for intents in ([], many):
        with refuses("malformed"):
            erase(LAB, *intents)


def test_what_is_erased_follows_from_all_that_is_held_whatever_came_first_and_wherever_it_stands() -> None:
    first = erase(LAB, ONE)
    second, other = erase(LAB, TWO, after=first), erase(LAB, THREE, after=first)
    ahead = extend(LAB.governance, [second]).governance
    assert ahead.erased == {TWO}  # also before its predecessor came
    forked = extend(LAB.governance, [second, first, other]).governance
    assert isinstance(forked.streams[ERASURES], Fork)
    assert forked.erased == {ONE, TWO, THREE}
    assert extend(ahead, [other, first]).governance.erased == forked.erased
    assert forked.erasures == {first.id: (ONE,), second.id: (TWO,), other.id: (THREE,)}
    assert restore(LAB.governance, [other, second, first]).erased == forked.erased


def test_the_same_erasure_again_changes_nothing_and_another_one_may_name_the_same_intents() -> None:
    first = erase(LAB, ONE)
    held = extend(LAB.governance, [first, first]).governance
    again = extend(held, [first, envelope.read(Erase, first.envelope)])
    assert (again.new, again.refused, again.governance is held) == ((), {}, True)
    second = erase(LAB, ONE, TWO, after=first)
    assert extend(held, [second]).governance.erasures == {first.id: (ONE,), second.id: (ONE, TWO)}


def _by(keys: Sequence[SecretKey], *intents: str, since: str = "", after: Statement[Erase] | None = None) -> Statement[Erase]:
    return erase(LAB, *intents, by=keys[:2], after=after, mesh=PLAIN.roster.mesh, since=since)


def _other_root(*erasures: Statement[Erase]) -> Statement[Roster]:
    """A roster with another root, which goes on behind these erasures of the former one."""
    root = Role(keys=[one.public for one in OTHER_ROOT], threshold=2)
    plain = msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), root=root)
    claims = handing_over(GENESIS.claims, plain)
    upto = Handover(sequence=len(erasures), head=erasures[-1].id) if erasures else claims.handovers[ERASURES]
    return signed(msgspec.structs.replace(claims, handovers={**claims.handovers, ERASURES: upto}), *ROOT[:2], *OTHER_ROOT[:2])


def test_a_former_root_erases_nothing_more_and_what_it_erased_stays_erased() -> None:
    first = _by(ROOT, ONE)
    for erasures in ((), (first,)):
        after = _other_root(*erasures)
        held = until_still(PLAIN, (*erasures, after), 9)
        assert held.roster.epoch == 2
        late = _by(ROOT, TWO, after=first if erasures else None)
        taken = extend(held, [late])
        assert [refusal.code for refusal in taken.refused.values()] == ["handed_over"]
        assert taken.governance.erased == ({ONE} if erasures else set())
        mine = _by(OTHER_ROOT, THREE, since=after.id, after=first if erasures else None)
        assert extend(held, [mine]).governance.erased == {THREE, *([ONE] if erasures else [])}
        for order in ((*erasures, after, mine), (mine, after, *erasures)):  # who comes later learns the same
            assert until_still(PLAIN, order, 9).erased == {THREE, *([ONE] if erasures else [])}


def test_a_former_root_erases_nothing_where_it_is_not_known_yet_what_it_handed_over() -> None:
    """Whoever carries messages may keep that back from who was away."""
    first = _by(ROOT, ONE)
    held = until_still(PLAIN, (_other_root(first),), 9)
    assert (held.roster.epoch, held.erased) == (2, frozenset())
    for late in (_by(ROOT, TWO), _by(ROOT, TWO, after=first)):
        taken = extend(held, [late])
        assert [refusal.code for refusal in taken.refused.values()] == ["handed_over"]
        assert taken.governance.erased == frozenset()
        assert until_still(taken.governance, (first, late), 9).erased == {ONE}


def test_whoever_holds_an_erasure_says_so_in_its_frontier() -> None:
    first = erase(LAB, ONE)
    held = extend(LAB.governance, [first]).governance
    assert [(head.sequence, head.head) for head in held.frontier if head.stream == ERASURES] == [(1, first.id)]
    assert LAB.governance.erased == frozenset()


def test_an_erasure_is_one_of_the_kinds_that_travel() -> None:
    statement = erase(LAB, ONE)
    again = read_law(statement.envelope)
    assert isinstance(again.claims, Erase)
    assert (again.id, again.claims.link) == (statement.id, (ERASURES, 1, ""))
    claims = msgspec.structs.replace(statement.claims, since=LAB.pin)
    assert envelope.draft(claims).id != statement.id
    assert claims.link[0] == f"{ERASURES}@{LAB.pin[:16]}"
