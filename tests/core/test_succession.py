"""One roster follows another only if both say so, and never so that a quorum of each could miss the honest members of the other."""

from collections.abc import Iterator
from functools import cache
from itertools import chain, combinations, product

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import admit_governance
from mesh.core.law.policy import Manifest, admit_manifest, check_succession
from mesh.core.law.roster import Member, Roster
from mesh.core.law.succession import Overlap, admit_successor, overlap, same_member
from mesh.errors import Refused
from tests.core.kit import refuses
from tests.support.factory import T0, Lab, secret, sign
from tests.support.rosters import ROOT, key, member, roster, signed

FOUR = ("a", "b", "c", "d")
FIVE = (*FOUR, "e")
GENESIS = signed(roster(FOUR, 1, 3))


def _follow(value: Roster, *keys: object) -> Roster:
    return admit_successor(GENESIS.claims, GENESIS.id, signed(value, *keys))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ the rule, by counting


@cache
def _sound(n: int) -> tuple[tuple[int, int], ...]:
    """Every (f, k) that a roster of n members may have."""
    return tuple((f, k) for f in range(n) for k in range(1, n - f + 1) if 2 * k > n + f)


def _sizes(n_max: int) -> Iterator[tuple[int, int, int]]:
    """(only old, both, only new) of any two rosters with up to n_max members."""
    for old, both, new in product(range(n_max + 1), repeat=3):
        if 1 <= old + both <= n_max and 1 <= both + new <= n_max:
            yield old, both, new


def _shared(old: int, both: int, new: int, k: int, k_new: int) -> int:
    """The fewest members that two quorums share, by trying how many of each come from those in both."""
    mine = [i for i in range(both + 1) if 0 <= k - i <= old]
    theirs = [j for j in range(both + 1) if 0 <= k_new - j <= new]
    return min(max(0, i + j - both) for i in mine for j in theirs)


def test_the_rule_holds_exactly_if_every_two_quorums_share_an_honest_member_while_one_of_the_bounds_holds() -> None:
    """Only sizes matter: i liars among the members in both rosters keep one of the bounds iff i <= f or i <= f'."""
    tried = 0
    for old, both, new in _sizes(10):
        for (f, k), (f_new, k_new) in product(_sound(old + both), _sound(both + new)):
            shared = _shared(old, both, new, k, k_new)
            liars = [i for i in range(both + 1) if i <= f or i <= f_new]
            step = Overlap(old=old, both=both, new=new, k=(k, k_new), f=(f, f_new))
            assert step.safe is all(shared > i for i in liars), step
            assert max(0, step.shared) == shared, step
            tried += 1
    assert tried > 10_000


def test_it_is_stricter_than_both_bounds_together_need_and_never_laxer() -> None:
    stricter = 0
    for old, both, new in _sizes(10):
        for (f, k), (f_new, k_new) in product(_sound(old + both), _sound(both + new)):
            needed = _shared(old, both, new, k, k_new) > min(f, f_new)
            safe = Overlap(old=old, both=both, new=new, k=(k, k_new), f=(f, f_new)).safe
            assert needed or not safe
            assert safe or not needed or f != f_new  # with one f it is exact here, too
            stricter += needed and not safe
    assert stricter > 0


def _subsets(items: tuple[int, ...], size: int) -> list[frozenset[int]]:
    return [frozenset(chosen) for chosen in combinations(items, size)]


@pytest.mark.parametrize("sizes", list(_sizes(4)), ids=str)
def test_sizes_are_all_that_matters_as_real_sets_of_real_members_show(sizes: tuple[int, int, int]) -> None:
    old, both, new = sizes
    everyone = tuple(range(old + both + new))
    before, after = everyone[: old + both], everyone[old:]
    lies = list(chain.from_iterable(_subsets(everyone, size) for size in range(len(everyone) + 1)))
    for (f, k), (f_new, k_new) in product(_sound(len(before)), _sound(len(after))):
        meetings = {one & other for one in _subsets(before, k) for other in _subsets(after, k_new)}
        bounded = [liars for liars in lies if len(liars & set(before)) <= f or len(liars & set(after)) <= f_new]
        honest = all(meeting - liars for meeting in meetings for liars in bounded)
        assert Overlap(old=old, both=both, new=new, k=(k, k_new), f=(f, f_new)).safe is honest


# --------------------------------------------------------------------------------------------------------- who is the same one


@pytest.mark.parametrize("field", ["name", "operator", "log_epoch", "log_key", "witness_key", "attest_key", "decision_key"])
def test_a_member_with_anything_changed_that_it_signs_under_is_a_new_one(field: str) -> None:
    value = {"name": "z", "operator": "other", "log_epoch": 2}.get(field, key("other").public)
    other = msgspec.structs.replace(member("a"), **{field: value})
    assert not same_member(member("a"), other)
    step = overlap(GENESIS.claims, roster([other, *FOUR[1:]], 1, 3, after=GENESIS))
    assert (step.old, step.both, step.new) == (1, 3, 1)


def test_a_member_that_moves_to_another_region_is_the_same() -> None:
    moved = msgspec.structs.replace(member("a"), region="us")
    assert same_member(member("a"), moved)
    assert _follow(roster([moved, *FOUR[1:]], 1, 3, after=GENESIS)).member("a").region == "us"


# ---------------------------------------------------------------------------------------------------------------------- steps


STEPS: dict[str, tuple[Roster, bool]] = {
    "nothing but the epoch": (roster(FOUR, 1, 3, after=GENESIS), True),
    "one comes": (roster(FIVE, 1, 4, after=GENESIS), True),
    "one goes": (roster(FOUR[:3], 0, 3, after=GENESIS), True),
    "one goes and k with it": (roster(FOUR[:3], 0, 2, after=GENESIS), False),
    "one for another": (roster((*FOUR[:3], "e"), 1, 3, after=GENESIS), False),
    "one changes its keys": (roster((*FOUR[:3], member("d", generation=1)), 1, 3, after=GENESIS), False),
    "three come": (roster((*FIVE, "f", "g"), 1, 5, after=GENESIS), False),
    "three come and k is higher": (roster((*FIVE, "f", "g"), 1, 6, after=GENESIS), True),
    "all are others": (roster(("w", "x", "y", "z"), 1, 3, after=GENESIS), False),
}


@pytest.mark.parametrize("what", STEPS)
def test_members_come_and_go_as_far_as_quorums_meet(what: str) -> None:
    value, safe = STEPS[what]
    if safe:
        assert _follow(value) == value
    else:
        with refuses("roster_unsafe"):
            _follow(value)


def test_the_refusal_shows_the_arithmetic_and_the_way_out() -> None:
    with pytest.raises(Refused) as caught:
        _follow(STEPS["one for another"][0])
    assert caught.value.detail == (
        "k + k' - |old or new| = 3 + 3 - 5 = 1, not more than max(f, f') = max(1, 1) = 1: a step like this must be made in several"
    )


def test_what_one_step_may_not_do_two_may() -> None:
    wider = signed(roster(FIVE, 1, 4, after=GENESIS))
    narrower = signed(roster(FIVE[1:], 1, 3, after=wider))
    assert admit_governance(GENESIS, pin=GENESIS.id, said=[wider, narrower]).rosters.newest == narrower.claims
    with refuses("wrong_epoch"):
        admit_governance(GENESIS, pin=GENESIS.id, said=[narrower])
    with refuses("wrong_epoch"):
        admit_successor(wider.claims, wider.id, wider)


def test_a_chain_begins_with_what_is_pinned() -> None:
    assert admit_governance(GENESIS, pin=GENESIS.id).rosters.newest == GENESIS.claims
    with refuses("wrong_epoch"):
        admit_governance(GENESIS, pin="00" * 32)


# -------------------------------------------------------------------------------------------------------- who must have agreed


def test_epochs_do_not_overtake_one_another() -> None:
    value = roster(FOUR, 1, 3, after=GENESIS)
    assert _follow(msgspec.structs.replace(value, not_before_ms=6_000)).not_before_ms == 6_000
    with refuses("too_soon"):
        _follow(msgspec.structs.replace(value, not_before_ms=5_999))


def test_a_log_keeps_its_key() -> None:
    five = signed(roster(FIVE, 1, 4))
    other = member("e", generation=1)
    for changed, code in ((other, "roster_unsafe"), (msgspec.structs.replace(other, log_epoch=2), "")):
        value = signed(roster((*FOUR, changed), 1, 4, after=five))
        assert overlap(five.claims, value.claims).safe
        if code:
            with refuses(code):
                admit_successor(five.claims, five.id, value)
        else:
            assert admit_successor(five.claims, five.id, value) == value.claims


def test_every_sound_roster_is_reached_from_every_other_by_steps_that_the_rule_allows() -> None:
    """So no joint phase is needed: one comes, or one goes, or the numbers change."""
    every = {(n, f, k) for n in range(1, 11) for f, k in _sound(n)}

    def steps(at: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
        for after in every:
            old, new = max(at[0] - after[0], 0), max(after[0] - at[0], 0)
            step = Overlap(old=old, both=min(at[0], after[0]), new=new, k=(at[2], after[2]), f=(at[1], after[1]))
            if old + new <= 1 and step.safe:
                yield after

    for start in ((1, 0, 1), (10, 3, 7), (4, 1, 3)):
        reached, edge = {start}, [start]
        while edge:
            edge = [after for at in edge for after in steps(at) if after not in reached]
            reached.update(edge)
        assert reached == every


NEXT = tuple(key(f"next root {number}") for number in range(3))


def test_the_root_changes_hands_only_if_both_agree() -> None:
    value = roster(FOUR, 1, 3, after=GENESIS, root=NEXT)
    assert _follow(value, *ROOT[:2], *NEXT[1:]) == value
    assert _follow(value, *ROOT, *NEXT) == value


@pytest.mark.parametrize(
    ("signers", "whose"),
    [(ROOT, "epoch 2"), (NEXT, "epoch 1"), ((*ROOT, NEXT[0]), "epoch 2"), ((ROOT[0], *NEXT), "epoch 1"), ((key("issuer"),), "epoch 1")],
    ids=["the old alone", "the new alone", "the new one short", "the old one short", "somebody else"],
)
def test_one_root_does_not_speak_for_the_other(signers: tuple[object, ...], whose: str) -> None:
    with pytest.raises(Refused) as caught:
        _follow(roster(FOUR, 1, 3, after=GENESIS, root=NEXT), *signers)
    assert caught.value.code == "threshold_not_met"
    assert caught.value.detail.endswith(f"of the root of {whose}")


def test_a_key_in_both_roots_signs_for_both() -> None:
    root = (ROOT[0], ROOT[1], NEXT[0])
    assert _follow(roster(FOUR, 1, 3, after=GENESIS, root=root), *ROOT[:2]).root.keys == [one.public for one in root]


def test_a_higher_threshold_binds_the_roster_that_names_it() -> None:
    value = roster(FOUR, 1, 3, after=GENESIS, threshold=3)
    with refuses("threshold_not_met"):
        _follow(value, *ROOT[:2])
    assert _follow(value, *ROOT).root.threshold == 3


WRONG: dict[str, tuple[str, dict[str, object]]] = {
    "of another mesh": ("wrong_mesh", {"mesh": "other"}),
    "of the same epoch": ("wrong_epoch", {"epoch": 1}),
    "of an earlier epoch": ("wrong_epoch", {"epoch": 0}),
    "that skips an epoch": ("wrong_epoch", {"epoch": 3}),
    "that follows another one": ("wrong_epoch", {"previous": "ab" * 32}),
    "that follows nothing": ("wrong_epoch", {"previous": ""}),
}


@pytest.mark.parametrize("what", WRONG)
def test_no_roster_follows(what: str) -> None:
    code, changed = WRONG[what]
    with refuses(code):
        _follow(msgspec.structs.replace(roster(FOUR, 1, 3, after=GENESIS), **changed), *ROOT)


def test_who_may_be_missed_is_asked_only_of_what_is_signed() -> None:
    strangers: list[Member | str] = ["w", "x", "y", "z"]
    with refuses("threshold_not_met"):
        _follow(roster(strangers, 1, 3, after=GENESIS), ROOT[0])


# ------------------------------------------------------------------------------------------------------------------- manifests

LAB = Lab()


def _manifest(*signers: int, **changed: object) -> Statement[Manifest]:
    value = {"epoch": 2, "previous": envelope.draft(LAB.manifest).id, **changed}
    return envelope.read(Manifest, sign(msgspec.structs.replace(LAB.manifest, **value), *(LAB.signers[at] for at in signers)))


def _next(statement: Statement[Manifest]) -> Manifest:
    law = LAB.governance.active("payments", "eu", T0)
    check_succession(law.manifest, law.manifest_id, admit_manifest(statement, LAB.governance.roster))
    return statement.claims


def test_the_next_manifest_follows_the_one_before() -> None:
    assert _next(_manifest(0, 1)).epoch == 2


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("wrong_epoch", {"epoch": 3}),
        ("wrong_epoch", {"epoch": 1}),
        ("wrong_epoch", {"epoch": 0}),
        ("wrong_epoch", {"previous": ""}),
        ("wrong_epoch", {"previous": "ab" * 32}),
        ("wrong_mesh", {"mesh": "other"}),
        ("domain_unknown", {"domain": "other"}),
    ],
    ids=str,
)
def test_no_manifest_follows_that_skips_goes_back_or_belongs_elsewhere(code: str, changed: dict[str, object]) -> None:
    with refuses(code):
        _next(_manifest(0, 1, **changed))


def test_a_manifest_of_another_domain_follows_nothing_here() -> None:
    policy = {**LAB.roster.policy, "other": msgspec.structs.replace(LAB.roster.policy["payments"], keys=[secret("o").public], threshold=1)}
    both = msgspec.structs.replace(LAB.roster, policy=policy)
    value = msgspec.structs.replace(_manifest(0).claims, domain="other")
    with refuses("policy_invalid"):
        check_succession(LAB.manifest, value.previous, admit_manifest(envelope.read(Manifest, sign(value, secret("o"))), both))


def test_a_manifest_one_signature_short_is_not_believed() -> None:
    with refuses("threshold_not_met"):
        _next(_manifest(0))


def _governed(*manifests: Statement[Manifest]) -> list[int]:
    held = admit_governance(envelope.read(Roster, LAB.roster_envelope), pin=LAB.pin, manifests=manifests, bundles=[LAB.bundle_bytes])
    return [law.manifest.epoch for law in held.laws["payments"]]


FIRST = envelope.read(Manifest, LAB.manifest_envelope)
SECOND = _manifest(0, 1)
THIRD = _manifest(1, 2, epoch=3, previous=SECOND.id)


def test_what_is_in_force_is_a_chain_of_manifests_that_may_begin_late() -> None:
    assert _governed(THIRD, FIRST, SECOND) == [1, 2, 3]
    assert _governed(SECOND, THIRD) == [2, 3]
    assert _governed(THIRD) == [3]


@pytest.mark.parametrize(
    "manifests", [(FIRST, THIRD), (FIRST, _manifest(0, 1, previous="ab" * 32)), (_manifest(0, 1, expires_ms=T0 + 1), THIRD)]
)
def test_nothing_is_in_force_where_a_manifest_does_not_follow_the_one_before(manifests: tuple[Statement[Manifest], ...]) -> None:
    with refuses("wrong_epoch"):
        _governed(*manifests)


def test_a_manifest_of_another_mesh_follows_nothing_though_its_own_roster_believes_it() -> None:
    with refuses("wrong_mesh"):
        check_succession(LAB.manifest, FIRST.id, msgspec.structs.replace(SECOND.claims, mesh="other"))
