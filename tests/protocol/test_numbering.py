"""Of an enforcer's outcomes nothing can be swallowed, skipped or said twice unseen, in whichever logs and order they come."""

from collections.abc import Iterable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import canonical
from mesh.core.run.outcome import Blocked, Outcome
from mesh.limits import AUDIT_BOOTS_MAX, AUDIT_HOLES_MAX, AUDIT_OUTCOMES_MAX, OUTBOX_OUTCOMES_MAX
from mesh.protocol.numbering import Boot, LoggedOutcome, Numbering, keyed

KEY = "ee" * 32


def name_of(number: int, boot: int = 0) -> str:
    return canonical.sha256_hex(f"{boot} {number}".encode())


def heard(number: int, *, boot: int = 0, identity: str = "", previous: str | None = None, at_ms: int = 0) -> LoggedOutcome:
    before = (name_of(number - 1, boot) if number else "") if previous is None else previous
    claims = Outcome(
        mesh="lab",
        enforcer=KEY,
        identity="dd" * 32,
        boot=f"{boot:064x}",
        sequence=number,
        previous=before,
        domain="payments",
        intent="11" * 32,
        authorization="22" * 32,
        at_ms=1,
        event=Blocked(code="stale", detail=""),
    )
    return LoggedOutcome(identity or name_of(number, boot), claims, "lab/eu-1/e1", number, at_ms or number + 1)


def taken(numbers: Iterable[int | LoggedOutcome], before: Numbering | None = None) -> Numbering:
    numbering = before or Numbering({}, 0)
    for number in numbers:
        numbering.take(number if isinstance(number, LoggedOutcome) else heard(number))
    return numbering


def _holes(numbering: Numbering, boot: int = 0) -> list[tuple[int, int]]:
    found = numbering.boots[f"{KEY}{boot:064x}"]
    return [(hole.first, hole.end) for hole in found.holes]


def test_numbers_without_a_gap_leave_no_hole() -> None:
    numbering = taken(range(50))
    assert (_holes(numbering), numbering.troubles) == ([], [])


@pytest.mark.parametrize("missing", [0, 1, 7, 48])
def test_a_number_that_is_in_no_log_is_a_hole_wherever_it_is(missing: int) -> None:
    numbering = taken(number for number in range(50) if number != missing)
    assert (_holes(numbering), numbering.troubles) == ([(missing, missing + 1)], [])


@given(st.randoms(use_true_random=False), st.sets(st.integers(0, 30), max_size=8))
def test_in_whatever_order_and_however_often_they_come_exactly_what_lacks_is_a_hole(random: Random, missing: set[int]) -> None:
    numbers = [number for number in range(31) if number not in missing]
    numbering = taken(random.sample(numbers, len(numbers)) + random.sample(numbers, len(numbers) // 2))
    lacking = {number for first, end in (_holes(numbering) if numbers else []) for number in range(first, end)}
    assert lacking == {number for number in missing if number < max(numbers, default=0)}
    assert numbering.troubles == []


def test_what_comes_late_closes_the_hole_and_what_comes_twice_is_not_new() -> None:
    numbering = taken([0, 1, 5])
    assert [numbering.take(heard(number)) for number in (3, 3, 2, 5, 4, 0)] == [True, False, True, False, True, False]
    assert (_holes(numbering), numbering.troubles) == ([], [])


@pytest.mark.parametrize(
    "lie",
    [
        [heard(3, identity="ff" * 32)],  # a number twice
        [heard(6, previous="ff" * 32)],  # after another one than the one before it
        [heard(6, previous="")],
        [heard(7), heard(6, identity="ff" * 32)],  # before another one than the one after it
        [heard(8), heard(6, previous="ff" * 32)],
        [heard(0, boot=1, previous="ff" * 32)],  # a first one that follows something
        [heard(5, boot=1), heard(0, boot=1, previous="ff" * 32)],
    ],
)
def test_a_second_history_is_found_at_once(lie: Sequence[LoggedOutcome]) -> None:
    numbering = taken([*range(6), *lie])
    assert [trouble.code for trouble in numbering.troubles] == ["outcome_conflict"]
    assert numbering.troubles[0].index == lie[-1].index


def test_each_boot_has_numbers_of_its_own() -> None:
    numbering = taken([heard(0), heard(0, boot=1), heard(2, boot=1), heard(1)])
    assert (_holes(numbering), _holes(numbering, 1), numbering.troubles) == ([], [(1, 2)], [])


@given(st.randoms(use_true_random=False), st.integers(0, 30))
def test_a_restart_in_between_changes_nothing(random: Random, cut: int) -> None:
    numbers = random.sample([number for number in range(31) if number not in {4, 17}], 29)
    whole, first = taken(numbers), taken(numbers[:cut])
    kept = canonical.decode(list[Boot], canonical.encode(list(first.boots.values())), bytes_max=1_000_000)
    assert taken(numbers[cut:], Numbering(keyed(kept), first.forgotten)).boots == whole.boots


# ---------------------------------------------------------------------------------------------------------------------- bounds


def test_ids_are_kept_of_as_many_numbers_as_an_outbox_holds() -> None:
    numbering = taken(range(OUTBOX_OUTCOMES_MAX + 10))
    numbering.take(heard(10, identity="ff" * 32))
    assert [trouble.index for trouble in numbering.troubles] == [10]
    numbering.take(heard(9, identity="ff" * 32))
    assert len(numbering.troubles) == 1, "older than whatever an honest enforcer would send"


def test_holes_beyond_as_many_as_are_kept_are_counted() -> None:
    numbering = taken(range(0, 2 * AUDIT_HOLES_MAX + 1, 2))
    boot = numbering.boots[f"{KEY}{0:064x}"]
    assert (len(boot.holes), boot.beyond) == (AUDIT_HOLES_MAX, 0)
    numbering.take(heard(2 * AUDIT_HOLES_MAX + 4))
    boot = numbering.boots[f"{KEY}{0:064x}"]
    assert (len(boot.holes), boot.beyond) == (AUDIT_HOLES_MAX, 3)
    taken([heard(3, previous=name_of(2))], numbering)
    wide = taken([0, 100, *(heard(number) for number in range(102, 102 + 2 * AUDIT_HOLES_MAX - 2, 2)), heard(50)])
    assert wide.boots[f"{KEY}{0:064x}"].beyond > 0
    assert len(wide.boots[f"{KEY}{0:064x}"].holes) == AUDIT_HOLES_MAX


def test_of_too_many_boots_those_that_were_quiet_for_longest_are_forgotten_and_accuse_nobody() -> None:
    numbering = taken(heard(number, boot=boot) for boot in range(AUDIT_BOOTS_MAX) for number in (0, 1))
    assert (len(numbering.boots), numbering.forgotten) == (AUDIT_BOOTS_MAX, 0)
    taken([heard(2, boot=0), heard(0, boot=AUDIT_BOOTS_MAX)], numbering)
    assert (len(numbering.boots), numbering.forgotten) == (AUDIT_BOOTS_MAX, 1)
    assert f"{KEY}{1:064x}" not in numbering.boots
    taken([heard(2, boot=1)], numbering)
    (hole,) = numbering.boots[f"{KEY}{1:064x}"].holes
    assert (hole.since_ms, numbering.troubles) == (0, []), "nobody misses what may have been there"


def test_ids_of_all_together_are_bounded_and_those_that_spoke_last_keep_theirs() -> None:
    boots = AUDIT_OUTCOMES_MAX // OUTBOX_OUTCOMES_MAX + 2
    numbering = taken(heard(number, boot=boot) for boot in range(boots) for number in range(OUTBOX_OUTCOMES_MAX))
    numbering.trim()
    kept = [len(boot.ids) // 32 for boot in numbering.boots.values()]
    assert sum(kept) <= AUDIT_OUTCOMES_MAX + boots
    assert (kept[0], kept[-1]) == (1, OUTBOX_OUTCOMES_MAX)
    taken([heard(OUTBOX_OUTCOMES_MAX, boot=0, previous="ff" * 32)], numbering)
    assert [trouble.code for trouble in numbering.troubles] == ["outcome_conflict"], "the last one is kept of each"
