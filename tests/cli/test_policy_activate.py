"""An epoch begins only where k members have admitted it, never before all can have heard of it, and by the threshold."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mesh.cli.policy_activate import Wave, parse_ring
from mesh.core.bytes import envelope
from mesh.core.law.activation import Activation, activate_stream
from mesh.core.messages import Offer, Supply
from mesh.errors import Refused
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL, PolicyDesk
from tests.support.factory import DOMAIN

REGIONS = ("ap", "eu", "sa", "us")
STREAM = f"activate-{DOMAIN}"


def _activations(policy: PolicyDesk) -> dict[str, int]:
    return {name: len(node.state.governance.activations.get(DOMAIN, {})) for name, node in policy.mesh.nodes.items()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _activate(policy: PolicyDesk, *more: str, keys: tuple[int, ...] = (0, 1)) -> tuple[int, Any, str]:
    return policy.say("activate", DOMAIN, *policy.keys(*keys), *more)


def test_an_admitted_epoch_begins_everywhere_at_once_and_all_have_heard_of_it(policy: PolicyDesk) -> None:
    manifest, before_ms = policy.pushed(), _now_ms()
    status, shown, err = _activate(policy, "--reason", "approved", "--watch")
    assert (status, shown["epoch"], shown["manifest"], shown["sequence"]) == (0, 2, manifest.id, 1), err
    assert (shown["acknowledged"], shown["held"] >= 3, shown["reason"]) == (True, True, "approved")
    assert set(shown["begins"]) == set(REGIONS)
    assert len(set(shown["begins"].values())) == 1
    steps = [step for node in policy.mesh.nodes.values() for step in node.state.governance.rollouts[DOMAIN].steps]
    assert {step.begins_ms("eu") for step in steps} == {steps[0].rings[0].not_before_ms}
    assert steps[0].rings[0].not_before_ms - before_ms >= 2 * policy.lab.roster.bounds.stale_ms
    assert policy.kept(0, STREAM) == policy.kept(1, STREAM) == [1]


def test_rings_say_where_it_begins_when_and_the_rest_keeps_what_it_has(policy: PolicyDesk) -> None:
    policy.pushed()
    status, shown, err = _activate(policy, "--ring", "us,eu@+30s", "--ring", "ap@2090-01-31T09:00:00Z")
    assert (status, set(shown["begins"])) == (0, {"eu", "us", "ap"}), err
    assert shown["begins"]["ap"] == "2090-01-31T09:00:00.000Z"
    assert shown["begins"]["eu"] == shown["begins"]["us"]
    status, later, err = _activate(policy, "--ring", "*@+2m")
    assert (status, later["sequence"], later["previous"], set(later["begins"])) == (0, 2, shown["id"], set(REGIONS)), err


def test_without_k_that_have_admitted_it_nothing_is_signed(policy: PolicyDesk) -> None:
    policy.losing(Supply, ["us-1", "sa-1"])
    manifest, bundle = policy.sign(0, 1), policy.build()
    policy.say("push", str(manifest), str(bundle))
    status, shown, err = _activate(policy)
    assert (status, shown, code_of(err)) == (4, None, "not_admitted")
    assert "lacking: us-1, sa-1" in err
    assert (policy.kept(0, STREAM), set(_activations(policy).values())) == ([], {0})


@pytest.mark.parametrize("ring", ["*@+5s", "eu@+1m,us@+1s", "*@2020-01-01T00:00:00Z"])
def test_what_begins_before_all_can_have_heard_of_it_is_not_signed(policy: PolicyDesk, ring: str) -> None:
    policy.pushed()
    rings = [part for text in ring.replace(",us", " us").split() for part in ("--ring", text)]
    status, _, err = _activate(policy, *rings)
    assert (status, code_of(err), policy.kept(0, STREAM)) == (3, "too_soon", [])


@pytest.mark.parametrize("rings", [["mars@+1m"], ["eu@+1m", "eu,us@+2m"], ["*@+1m", "*@+2m"], ["eu@tomorrow"], ["*@+999999999d"]])
def test_rings_that_make_no_sense_are_refused(policy: PolicyDesk, rings: list[str]) -> None:
    policy.pushed()
    status, _, err = _activate(policy, *[part for text in rings for part in ("--ring", text)])
    assert (status, code_of(err), policy.kept(0, STREAM)) == (3, "usage", [])


def test_less_than_the_threshold_signs_nothing(policy: PolicyDesk) -> None:
    policy.pushed()
    status, _, err = _activate(policy, keys=(0,))
    assert (status, code_of(err), policy.kept(0, STREAM)) == (5, "threshold_not_met", [])


def test_an_older_epoch_is_not_activated_and_the_way_back_is_said(policy: PolicyDesk) -> None:
    policy.pushed()
    _activate(policy)
    policy.change()
    policy.pushed()
    assert _activate(policy)[1]["epoch"] == 3
    status, _, err = _activate(policy, "--epoch", "2")
    assert (status, code_of(err)) == (2, "wrong_epoch")
    assert "mesh policy rollback payments --to 2" in err
    assert code_of(_activate(policy, "--epoch", "9")[2]) == "not_found"


def test_the_first_epoch_begins_by_itself(policy: PolicyDesk) -> None:
    assert code_of(_activate(policy)[2]) == "wrong_epoch"


def test_two_signers_on_two_machines_and_a_third_person_without_a_key(policy: PolicyDesk) -> None:
    policy.pushed()
    status, shown, err = _activate(policy, "--ring", "*@+1h", "--out", "step.json", keys=(0,))
    assert (status, shown["complete"], shown["sequence"]) == (0, False, 1), err
    assert set(_activations(policy).values()) == {0}
    assert code_of(policy.say("activate", "step.json")[2]) == "threshold_not_met"
    assert policy.say("sign", "step.json", *policy.keys(1), "--trust", str(policy.roster))[1]["complete"]
    status, shown, err = policy.say("activate", "step.json", "--watch")
    assert (status, shown["acknowledged"]) == (0, True), err
    assert set(_activations(policy).values()) == {1}
    assert policy.kept(0, STREAM) == policy.kept(1, STREAM) == [1]


def test_the_last_signer_adds_a_line_and_offers_at_once(policy: PolicyDesk) -> None:
    policy.pushed()
    _activate(policy, "--out", "step.json", keys=(0,))
    status, shown, err = policy.say("activate", "step.json", *policy.keys(2), "--watch")
    assert (status, shown["acknowledged"]) == (0, True), err
    assert code_of(policy.say("activate", "step.json", "--epoch", "2")[2]) == "usage"
    assert code_of(policy.say("activate", DOMAIN)[2]) == "usage"


def test_what_did_not_arrive_is_offered_again_and_nothing_new_is_signed(policy: PolicyDesk) -> None:
    policy.pushed()
    honest = policy.ask
    policy.losing(Offer, ALL)
    status, shown, err = _activate(policy, "--ring", "*@+1m")
    assert (status, code_of(err)) == (4, "unreachable")
    policy.ask = honest
    status, again, err = _activate(policy, "--ring", "*@+1m", "--watch")
    assert (status, again["id"], again["signed_before"]) == (0, shown["id"], True), err
    assert _activate(policy, "--watch")[1]["id"] == shown["id"], "also when all hold it"


def test_a_key_never_signs_two_activations_under_one_number(policy: PolicyDesk) -> None:
    policy.pushed()
    _activate(policy, "--ring", "*@+1m", "--out", "one.json", keys=(0,))
    assert code_of(_activate(policy, "--ring", "eu@+1m", "--out", "two.json")[2]) == "already_signed"
    assert policy.say("activate", DOMAIN, *policy.keys(1), "--ring", "eu@+1m", "--out", "two.json")[0] == 0
    assert code_of(policy.say("sign", "two.json", *policy.keys(0))[2]) == "already_signed"


def test_what_became_late_on_its_way_is_offered_only_on_purpose(policy: PolicyDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    policy.pushed()
    _activate(policy, "--out", "step.json")
    shift = 60_000
    monkeypatch.setattr("mesh.cli.policy_activate.wall_ms", lambda: _now_ms() + shift)
    status, _, err = policy.say("activate", "step.json")
    assert (status, code_of(err), set(_activations(policy).values())) == (3, "too_soon", {0})
    assert policy.say("activate", "step.json", "--late")[0] == 0
    assert set(_activations(policy).values()) == {1}
    policy.change()
    policy.pushed()
    assert code_of(_activate(policy, "--ring", "*@+1s", "--late")[2]) == "too_soon", "nothing new is made late"


def test_an_activation_that_is_not_the_next_is_not_offered(policy: PolicyDesk) -> None:
    policy.pushed()
    _activate(policy, "--ring", "*@+1h", "--out", "old.json", keys=(2,))
    assert _activate(policy, "--ring", "*@+1h")[0] == 0
    assert code_of(policy.say("activate", "old.json", *policy.keys(0))[2]) == "wrong_epoch"
    read = envelope.read(Activation, Path("old.json").read_bytes())
    assert read.claims.link[0] == activate_stream(DOMAIN)


def test_people_are_told_region_by_region_when_it_begins(policy: PolicyDesk) -> None:
    policy.pushed()
    status, out, err = policy.run("policy", "activate", DOMAIN, *policy.keys(0, 1), "--watch")
    assert status == 0
    for region in REGIONS:
        assert f"{region}: epoch 2 from 20" in err
    assert "activates payments epoch 2" in err
    assert "node" in out
    assert json.dumps(policy.held())


@pytest.mark.parametrize(
    ("text", "wave"),
    [
        ("*", Wave(())),
        ("us,eu", Wave(("eu", "us"))),
        ("eu@+30s", Wave(("eu",), after_ms=30_000)),
        ("*@+2m", Wave((), after_ms=120_000)),
        ("*@+1h", Wave((), after_ms=3_600_000)),
        ("eu@2026-01-01T00:00:00Z", Wave(("eu",), at_ms=1_767_225_600_000)),
        ("eu@2026-01-01T01:00:00+01:00", Wave(("eu",), at_ms=1_767_225_600_000)),
    ],
)
def test_a_ring_is_read_as_it_is_meant(text: str, wave: Wave) -> None:
    assert parse_ring(text) == wave


@pytest.mark.parametrize("text", ["", "@+1s", "eu,@+1s", "eu@", "eu@+1", "eu@-1s", "eu@2026-01-01T00:00:00", "eu@1767225600", "EU@+1s"])
def test_a_ring_that_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_ring(text)
    assert refused.value.code == "usage"
