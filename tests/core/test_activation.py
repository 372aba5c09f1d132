"""Which policy epoch is in force is computed from statements alone: whoever replays a decision, having heard more or not, finds it too."""

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, Ring, Rollout, admit_activation
from mesh.core.law.fold import admit_governance, extend, with_bundle
from mesh.core.law.governance import Basis, Governance
from mesh.core.law.heartbeat import Standing
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said
from mesh.errors import Refused
from mesh.limits import ACTIVATIONS_MAX
from tests.support.factory import DOMAIN, T0, Lab, secret, sign

LAB: Final = Lab()
FIRST: Final = envelope.read(Manifest, LAB.manifest_envelope)
SECOND: Final = LAB.next_policy(FIRST)
THIRD: Final = LAB.next_policy(SECOND)
EU_FIRST: Final = LAB.activation(SECOND, (["eu"], T0 + 1_000), ([], T0 + 2_000))
ON_TO_THIRD: Final = LAB.activation(THIRD, (["us"], T0 + 3_000), before=EU_FIRST)
PLAIN: Final = admit_governance(envelope.read(Roster, LAB.roster_envelope), pin=LAB.pin)


def _held(*statements: Statement[Said], of: Governance = PLAIN) -> Governance:
    taken = extend(of, statements)
    assert taken.refused == {}
    return taken.governance


def _epoch(held: Governance, region: str, at_ms: int, basis: Basis | None = None) -> int:
    return held.active(DOMAIN, region, at_ms, basis).manifest.epoch


def _code(held: Governance, region: str, at_ms: int, basis: Basis | None = None) -> str:
    with pytest.raises(Refused) as caught:
        held.active(DOMAIN, region, at_ms, basis)
    return caught.value.code


# ------------------------------------------------------------------------------------------------------------- in force


def test_the_first_epoch_begins_when_its_manifest_says() -> None:
    held = _held(FIRST)
    assert _code(held, "eu", T0 - 1) == "domain_unknown"
    assert _epoch(held, "eu", T0) == 1


def test_a_later_epoch_decides_nothing_until_it_is_activated() -> None:
    assert _epoch(_held(FIRST, SECOND), "eu", T0 + 10_000) == 1


@pytest.mark.parametrize(
    ("region", "at_ms", "epoch"),
    [("eu", 999, 1), ("eu", 1_000, 2), ("us", 1_999, 1), ("us", 2_000, 2), ("us", 3_000, 3), ("eu", 3_000, 2), ("ap", 9_999, 2)],
)
def test_an_epoch_begins_ring_by_ring_and_a_region_in_no_ring_keeps_what_it_has(region: str, at_ms: int, epoch: int) -> None:
    assert _epoch(_held(FIRST, SECOND, THIRD, EU_FIRST, ON_TO_THIRD), region, T0 + at_ms) == epoch


def test_an_epoch_that_is_over_denies_and_nobody_falls_back() -> None:
    brief = LAB.next_policy(FIRST, expires_ms=T0 + 5_000)
    held = _held(FIRST, brief, LAB.activation(brief, ([], T0 + 1_000)))
    assert _epoch(held, "eu", T0 + 4_999) == 2
    assert _code(held, "eu", T0 + 5_000) == "policy_expired"


def test_an_activated_epoch_whose_manifest_is_not_held_denies_and_nobody_falls_back() -> None:
    assert _code(_held(FIRST, EU_FIRST), "eu", T0 + 1_000) == "policy_unknown"
    assert _epoch(_held(FIRST, EU_FIRST), "eu", T0 + 999) == 1


def test_a_manifest_that_was_activated_as_another_epoch_denies() -> None:
    wrong = msgspec.structs.replace(EU_FIRST.claims, epoch=3)
    held = _held(FIRST, SECOND, envelope.read(Activation, sign(wrong, *LAB.signers[:2])))
    assert _code(held, "eu", T0 + 1_000) == "policy_conflict"


def test_an_activation_behind_a_gap_changes_nothing_until_it_is_filled() -> None:
    held = _held(FIRST, SECOND, THIRD, ON_TO_THIRD)
    assert _epoch(held, "us", T0 + 9_000) == 1
    assert _epoch(_held(EU_FIRST, of=held), "us", T0 + 9_000) == 3


def test_an_older_epoch_activated_again_changes_nothing() -> None:
    held = _held(FIRST, SECOND, THIRD, EU_FIRST, ON_TO_THIRD)
    again = LAB.activation(SECOND, ([], T0 + 4_000), before=ON_TO_THIRD)
    assert _epoch(_held(again, of=held), "us", T0 + 9_000) == 3


RINGS: Final = st.lists(st.tuples(st.sampled_from(["", "eu", "us"]), st.integers(0, 9)), max_size=3)


@given(st.lists(st.tuples(st.integers(1, 5), RINGS), max_size=8), st.sampled_from(["eu", "us", "ap"]), st.integers(0, 10))
def test_the_highest_epoch_begun_is_found_like_by_trying_all(
    said: list[tuple[int, list[tuple[str, int]]]], region: str, at_ms: int
) -> None:
    steps = [
        msgspec.structs.replace(
            EU_FIRST.claims, epoch=epoch, rings=[Ring(regions=[name] if name else [], not_before_ms=ms) for name, ms in rings]
        )
        for epoch, rings in said
    ]
    begun = {step.epoch for step in steps if (ms := step.begins_ms(region)) is not None and ms <= at_ms}
    found = Rollout.of([sha256_hex(bytes([number])) for number in range(len(steps))], steps).begun(region, at_ms)
    assert (found.epoch if found else 0) == max(begun, default=0)


# ---------------------------------------------------------------------------------------------------------------- basis


def test_an_activation_that_came_late_does_not_change_what_was_in_force_for_who_had_not_heard_of_it() -> None:
    before, after = _held(FIRST, SECOND), _held(FIRST, SECOND, THIRD, EU_FIRST, ON_TO_THIRD)
    basis = Basis(before.active(DOMAIN, "us", T0 + 9_000).manifest_id, before.latest_activation(DOMAIN))
    assert basis.activation == ""
    assert (_epoch(after, "us", T0 + 9_000), _epoch(after, "us", T0 + 9_000, basis)) == (3, 1)
    assert _epoch(after, "us", T0 + 9_000, Basis(SECOND.id, EU_FIRST.id)) == 2


def test_who_lacks_what_a_decision_rested_on_waits_for_it() -> None:
    held = _held(FIRST, SECOND, EU_FIRST)
    assert _code(held, "us", T0 + 9_000, Basis(THIRD.id, ON_TO_THIRD.id)) == "policy_unknown"


def test_after_a_conflict_of_activations_what_rested_on_either_can_still_be_repeated_and_nothing_new_starts() -> None:
    other = LAB.activation(SECOND, ([], T0 + 7_000))
    held = _held(FIRST, SECOND, EU_FIRST, other)
    assert (
        _epoch(held, "eu", T0 + 1_000, Basis(SECOND.id, EU_FIRST.id)),
        _epoch(held, "eu", T0 + 1_000, Basis(FIRST.id, other.id)),
    ) == (2, 1)
    with pytest.raises(Refused) as caught:
        held.check_open(DOMAIN)
    assert caught.value.code == "policy_conflict"


def test_two_manifests_for_one_epoch_shut_the_domain_and_what_was_decided_by_either_can_be_repeated() -> None:
    twin = envelope.read(Manifest, sign(msgspec.structs.replace(LAB.manifest, expires_ms=T0 + 9), *LAB.signers[:2]))
    held = _held(FIRST, twin)
    with pytest.raises(Refused) as caught:
        held.check_open(DOMAIN)
    assert caught.value.code == "policy_conflict"
    for manifest in (FIRST, twin):
        assert held.active(DOMAIN, "eu", T0, Basis(manifest.id, "")).manifest_id == manifest.id


# ------------------------------------------------------------------------------------------------------------ admission


def _activation(*signers: int, **changed: Any) -> Statement[Activation]:
    return envelope.read(Activation, sign(msgspec.structs.replace(EU_FIRST.claims, **changed), *(LAB.signers[at] for at in signers)))


@pytest.mark.parametrize(
    ("code", "activation"),
    [
        ("threshold_not_met", _activation(0)),
        ("wrong_mesh", _activation(0, 1, mesh="other")),
        ("domain_unknown", _activation(0, 1, domain="other")),
        ("policy_invalid", _activation(0, 1, rings=[Ring(regions=["eu"], not_before_ms=1), Ring(regions=["eu"], not_before_ms=2)])),
        ("policy_invalid", _activation(0, 1, rings=[Ring(regions=[], not_before_ms=1), Ring(regions=[], not_before_ms=2)])),
        ("policy_invalid", _activation(0, 1, rings=[Ring(regions=["us", "eu"], not_before_ms=1)])),
        ("bad_signature", envelope.read(Activation, sign(EU_FIRST.claims, *LAB.signers[:2], secret("a stranger")))),
    ],
    ids=str,
)
def test_an_activation_that_is_not_its_roles_word_is_not_believed(code: str, activation: Statement[Activation]) -> None:
    with pytest.raises(Refused) as caught:
        admit_activation(activation, LAB.roster)
    assert caught.value.code == code


def test_there_are_no_more_activations_than_a_proof_can_carry() -> None:
    assert _activation(0, 1, sequence=ACTIVATIONS_MAX, previous="ab" * 32).claims.sequence == ACTIVATIONS_MAX
    for sequence in (0, ACTIVATIONS_MAX + 1):
        with pytest.raises(Refused) as caught:
            _activation(0, 1, sequence=sequence)
        assert caught.value.code == "malformed"


def test_how_a_node_stands_to_a_policy_is_what_it_admitted_and_what_decides() -> None:
    held = _held(FIRST, SECOND, EU_FIRST)
    assert held.standings("eu", T0 + 1_000) == [Standing(domain=DOMAIN, admitted=0, active=2)]
    held = with_bundle(with_bundle(held, FIRST.id, LAB.bundle), SECOND.id, LAB.bundle)
    assert held.standings("us", T0 + 1_000) == [Standing(domain=DOMAIN, admitted=2, active=1)]
    assert held.standings("us", T0 - 1) == [Standing(domain=DOMAIN, admitted=2, active=0)]


# ------------------------------------------------------------------------------------------------------- a function of the set

TWIN: Final = LAB.next_policy(FIRST, reason="another second")
OTHER_RING: Final = LAB.activation(SECOND, ([], T0 + 7_000))
WORLD: Final[tuple[Statement[Said], ...]] = (FIRST, SECOND, THIRD, EU_FIRST, ON_TO_THIRD, TWIN, OTHER_RING)


def _state(held: Governance) -> tuple[object, ...]:
    laws = {domain: [law.manifest_id for law in laws] for domain, laws in held.laws.items()}
    return held.digest, held.frontier, laws, dict(held.activations), held.rollouts, dict(held.streams)


@given(st.sets(st.sampled_from(range(len(WORLD)))), st.data())
def test_what_is_in_force_is_a_function_of_the_set_of_statements(chosen: set[int], data: st.DataObject) -> None:
    said = [WORLD[number] for number in sorted(chosen)]
    heard: Sequence[Statement[Said]] = data.draw(st.permutations(said + said[:2]))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(heard)), max_size=3))), len(heard)]
    held = PLAIN
    for first, last in pairwise(cuts):
        held = _held(*heard[first:last], of=held)
    assert _state(held) == _state(_held(*said))


SCRIPT = """
from tests.core.test_activation import PLAIN, WORLD, _held, _state
held = PLAIN
for statement in reversed(WORLD):
    held = _held(statement, of=held)
print(held.digest, list(held.laws), list(held.rollouts), held.frontier)
"""


def test_two_processes_with_other_hash_seeds_are_in_the_same_state() -> None:
    root = str(Path(__file__).parents[2])
    said = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert said.pop().startswith(_held(*WORLD).digest)
