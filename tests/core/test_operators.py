"""Nobody is named the owner of a member who did not agree: an operator countersigns whatever a roster says new about it."""

import msgspec
import pytest

from mesh.core.bytes.keys import SecretKey
from mesh.core.law.roster import Member, Operator, Roster, admit_roster, assents
from mesh.core.law.succession import Rosters, admit_successor, overlap
from tests.core.kit import refuses
from tests.support.rosters import ROOT, key, member, roster, seal, signed

ACME, GLOBEX = key("operator acme"), key("operator globex")
OF_BOTH = (member("a", operator="acme"), member("b", operator="acme"), member("c", operator="globex"), member("d", operator="globex"))
FIRST = signed(roster(OF_BOTH, 1, 3))


def _next(*members: Member, f: int = 1, k: int = 3, **changed: object) -> Roster:
    return msgspec.structs.replace(roster(members or OF_BOTH, f, k, after=FIRST), **changed)


def _follow(value: Roster, *owners: SecretKey) -> Roster:
    """After the first one, signed by two of the root and these."""
    return admit_successor(FIRST.claims, FIRST.id, seal(value, *ROOT[:2], *owners))


def _asked(value: Roster) -> list[str]:
    return [assent.who for assent in assents(value, FIRST.claims)][2:]


def test_every_operator_signs_the_first_roster() -> None:
    value = FIRST.claims
    assert admit_roster(seal(value, *ROOT[:2], ACME, GLOBEX), pin=FIRST.id) == value
    for some in ((), (ACME,), (GLOBEX,), (ACME, key("operator other"))):
        with refuses("operator_unsigned"):
            admit_roster(seal(value, *ROOT[:2], *some), pin=FIRST.id)
    with refuses("threshold_not_met"):
        admit_roster(seal(value, ROOT[0], ACME, GLOBEX), pin=FIRST.id)


def test_nothing_new_about_an_operator_needs_no_word_of_it() -> None:
    assert _asked(_next()) == []
    assert _follow(_next()).epoch == 2
    assert _asked(_next(*OF_BOTH[:3], f=0)) == [], "who is let go is not asked"


NEWS = {
    "a new member": (*OF_BOTH, member("e", operator="acme")),
    "a member with new keys": (member("a", generation=1, operator="acme"), *OF_BOTH[1:]),
    "a member in another region": (msgspec.structs.replace(OF_BOTH[0], region="us"), *OF_BOTH[1:]),
    "a member with a new log": (msgspec.structs.replace(OF_BOTH[0], log_epoch=2), *OF_BOTH[1:]),
}


@pytest.mark.parametrize("what", NEWS)
def test_an_operator_signs_what_is_new_about_its_members_and_no_other_does(what: str) -> None:
    value = _next(*NEWS[what], k=4 if len(NEWS[what]) > 4 else 3)
    assert _asked(value) == ["operator acme"]
    for others in ((), (GLOBEX,)):
        with refuses("operator_unsigned"):
            _follow(value, *others)
    if overlap(FIRST.claims, value).safe:
        assert _follow(value, ACME) == value
    else:
        with refuses("roster_unsafe"):
            _follow(value, ACME)


def test_an_operator_says_itself_where_it_is_at_home() -> None:
    moved = _next(operators={**FIRST.claims.operators, "acme": Operator(key=ACME.public, jurisdiction="ch")})
    with refuses("operator_unsigned"):
        _follow(moved)
    assert _follow(moved, ACME) == moved


def test_nobody_takes_over_the_name_of_an_operator() -> None:
    fresh = key("new key of acme")
    rotated = _next(operators={**FIRST.claims.operators, "acme": Operator(key=fresh.public, jurisdiction="de")})
    assert _asked(rotated) == ["operator acme", "operator acme with its former key"]
    for alone in (fresh, ACME):
        with refuses("operator_unsigned"):
            _follow(rotated, alone)
    assert _follow(rotated, fresh, ACME) == rotated


def test_a_member_changes_hands_only_with_new_keys() -> None:
    spare = roster((*OF_BOTH, member("e", operator="globex")), 1, 4, after=FIRST)
    held = seal(spare, *ROOT[:2], GLOBEX)
    wide = admit_successor(FIRST.claims, FIRST.id, held)
    for generation, code in ((0, "roster_unsafe"), (1, "")):
        sold = msgspec.structs.replace(member("b", generation=generation, operator="globex"), log_epoch=2)
        value = roster((OF_BOTH[0], sold, *spare.members[2:]), 1, 4, after=held)
        if code:
            with refuses(code):
                admit_successor(wide, held.id, seal(value, *ROOT[:2], GLOBEX))
        else:
            assert admit_successor(wide, held.id, seal(value, *ROOT[:2], GLOBEX)) == value


@pytest.mark.parametrize("names", [{"acme"}, {"acme", "globex", "other"}], ids=["one is not described", "one owns nothing"])
def test_operators_are_exactly_those_who_own_members(names: set[str]) -> None:
    operators = {name: Operator(key=key(f"operator {name}").public, jurisdiction="de") for name in names}
    with refuses("roster_unsound"):
        msgspec.structs.replace(FIRST.claims, operators=operators)


def test_the_key_of_an_operator_is_no_other_key() -> None:
    with refuses("bad_key"):
        msgspec.structs.replace(
            FIRST.claims, operators={**FIRST.claims.operators, "acme": Operator(key=OF_BOTH[0].decision_key, jurisdiction="de")}
        )


def test_of_a_later_roster_that_is_pinned_only_its_root_is_asked() -> None:
    later = seal(_next(), *ROOT[:2])
    assert admit_roster(later, pin=later.id) == later.claims
    short = seal(_next(), ROOT[0], ACME, GLOBEX)
    with refuses("threshold_not_met"):
        admit_roster(short, pin=short.id)


def test_what_is_handed_on_has_no_line_of_anybody_else() -> None:
    held, value = Rosters.begin(FIRST.claims, FIRST.id), _next()
    assert held.admit(seal(value, *ROOT[:2], GLOBEX)).held.keys() == {FIRST.id, seal(value).id}
    for stranger in (key("stranger"), key("issuer")):
        with refuses("bad_signature"):
            held.admit(seal(value, *ROOT[:2], stranger))
