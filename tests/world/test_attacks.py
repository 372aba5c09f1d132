"""Single attacks in worlds that are calm but for them, each looked at from outside: what the promises do not say of themselves."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from mesh.protocol import enforcer as procedure
from mesh.testing.world import clients, setting, stage
from mesh.testing.world.clients import Enforcer
from mesh.testing.world.ground import Violation
from mesh.testing.world.keys import remembered
from mesh.testing.world.network import Conditions, Network
from mesh.testing.world.promises import Watch
from mesh.testing.world.setting import ENFORCERS, EPOCH_MS, WORKLOADS
from mesh.testing.world.world import HEAL_US, Result, World, run_seed
from tests.world.mutants.planted import MUTANTS

S: Final = 1_000_000
H_US: Final = S // 2
DELTA_US: Final = 3 * S
LEASE_US: Final = 2 * S
ROUND_US: Final = S // 4
"""One look at running work, and the rounding of clocks."""


def _calm(seed: int, plan: Callable[[World], None], *, nodes: int = 4) -> tuple[World, Result]:
    """A world in which nothing happens but what is planned here."""
    world = World(seed, nodes=nodes)
    world.faults.arrange = lambda *_: plan(world)  # type: ignore[method-assign]
    result = world.run()
    assert not result.promise, f"seed {seed}: {result.promise}: {result.message}"
    return world, result


def _said(result: Result, what: str, about: str = "") -> list[int]:
    """When (µs) that was said, whoever said it."""
    return [at_us for at_us, _, said, of in result.events if said == what and about in {"", of}]


# --------------------------------------------------------------------------------------------------------- used once, elsewhere


def test_threats_4_and_5_what_is_presented_again_and_elsewhere_is_refused_by_its_code() -> None:
    found = dict.fromkeys(("enforcer used", "enforcer audience"), 0)
    for seed in range(3):
        result = run_seed(seed, nodes=4)
        assert not result.promise, result.message
        found = {code: count + result.counts.get(code, 0) for code, count in found.items()}
    assert all(count > 2 for count in found.values()), found


# -------------------------------------------------------------------------------------------------------------------- revocation


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds an authorization waits with it, up to the end of its life."""
    real = Enforcer.present

    def present(self: Enforcer, *arguments: Any) -> None:
        wait_us = self._random.randrange(3_900_000)
        self._ground.after(wait_us if self._ground.now_us < HEAL_US else 0, lambda: real(self, *arguments))

    monkeypatch.setattr(Enforcer, "present", present)


SEEDS: Final = range(3)


@pytest.mark.usefixtures("late")
def test_threats_10_and_11_revoked_before_it_is_issued_governors_deny_and_revoked_after_enforcers_do() -> None:
    governors = enforcers = 0
    for seed in SEEDS:
        result = run_seed(seed, nodes=4, trouble=("revocation",))
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}"
        governors += result.counts.get("answer revoked", 0)
        enforcers += result.counts.get("enforcer revoked", 0)
    assert governors > 4, governors
    assert enforcers > 2, enforcers


@pytest.mark.usefixtures("late")
def test_an_enforcer_that_does_not_ask_what_is_revoked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedure, "_check_allowed", lambda *_, **__: None)
    assert any(run_seed(seed, nodes=4, trouble=("revocation", "revocation")).promise == "I2" for seed in range(20))


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work runs for longer than staleness and lease together, and whoever looks on asks whether it may."""
    real, begun = Enforcer._look, set[str]()

    def look(self: Enforcer, about: Any, running: Any, ends_ms: int) -> None:
        if about.intent not in begun and self._ground.now_us < HEAL_US:
            begun.add(about.intent)
            ends_ms += 9_000
        real(self, about, running, ends_ms)
        if about.intent in self._running:
            _may_run(self._watch, about.authorization, self._ground.now_us)

    monkeypatch.setattr(Enforcer, "_look", look)


def _may_run(watch: Watch, authorization: str, now_us: int) -> None:
    """I2, its second half: running work is ended by Δ and its lease after k members said that they know of the revocation."""
    lives, wanted, holders = watch.families._lives, [authorization], set[str]()
    while wanted:
        life = lives[wanted.pop()]
        holders.add(life.holder)
        wanted += life.line
    if not any(("key", holder) in watch._setting.revoking.revoked for holder in holders):
        return
    roster = watch._setting.governance.roster
    knowing = sorted(watch._knowing["revoked"].values())
    if len(knowing) >= roster.k and now_us > knowing[roster.k - 1] + DELTA_US + LEASE_US + ROUND_US:
        raise Violation("I2", f"revoked work runs on {now_us - knowing[roster.k - 1]} µs after {roster.k} members knew")


TROUBLES: Final = (("revocation",), ("revocation", "isolate", "isolate"), ("revocation", "partition", "hold"))


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_threat_12_what_is_revoked_while_it_runs_ends_by_staleness_and_lease_whatever_the_network_does(trouble: tuple[str, ...]) -> None:
    aborted = 0
    for seed in range(2):
        result = run_seed(seed, nodes=4, trouble=trouble)
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}"
        aborted += result.counts.get("enforcer revoked", 0)
    assert aborted > 0


@pytest.mark.usefixtures("long")
def test_an_enforcer_that_never_looks_at_running_work_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "watch", lambda running, **_: running)
    assert any(run_seed(seed, nodes=4, trouble=("revocation", "revocation")).promise == "I2" for seed in range(20))


# --------------------------------------------------------------------------------------------------------------------- partition


@pytest.mark.usefixtures("late")
def test_threat_13_silence_of_all_peers_is_stale_by_delta_at_every_enforcer_and_over_three_heartbeats_after_it() -> None:
    stop_us, length_us = 4 * S, 5 * S - H_US
    again_us, refused = stop_us + length_us, set[str]()

    def plan(world: World) -> None:
        for name in ("g1", "g2", "g3"):
            world.stage.ground.after(stop_us, partial(world.stage.governors[name].pause, length_us))

    for seed in range(3):
        _, result = _calm(seed, plan)
        starts, stale = _said(result, "starts"), _said(result, "refused", "stale")
        assert any(stop_us < at < stop_us + DELTA_US for at in starts), "what was heard last is good until then"
        assert not [at for at in starts if stop_us + DELTA_US + H_US < at < again_us]
        assert not [at for at in stale if at > again_us + 3 * H_US]
        assert any(at > again_us for at in starts)
        refused |= {who for _, who, said, of in result.events if (said, of) == ("refused", "stale")}
    assert refused == set(ENFORCERS)


@pytest.mark.parametrize("seed", range(3))
def test_threat_26_of_two_and_three_of_five_neither_side_makes_anything_final_or_permits_and_healing_loses_nothing(seed: int) -> None:
    cut_us, length_us = 2 * S, 6 * S
    kept = list[tuple[str, int]]()

    def plan(world: World) -> None:
        near, far = ("g0", "g1", "g2", "e0", "w0"), ("g3", "g4", "e1", "w1", "w2")
        pairs = [pair for one in near for other in far for pair in ((one, other), (other, one))]

        def cut() -> None:
            heal = world.stage.network.cut(pairs)
            world.stage.ground.after(length_us - 1, lambda: kept.extend(world.stage.watch.acknowledged))
            world.stage.ground.after(length_us, heal)

        world.stage.ground.after(cut_us, cut)

    world, result = _calm(seed, plan, nodes=5)
    quiet = range(cut_us + S // 10, cut_us + length_us)
    assert not [at for at in _said(result, "final") if at in quiet]
    assert [at for at in _said(result, "final") if at < cut_us], "there was finality before"
    denied = {who for at, who, said, of in result.events if (said, of) == ("denied", "stale") and at in quiet}
    assert {name for name in denied if name in {"g3", "g4"}}, "the minority says why"
    assert not [at for at in _said(result, "starts") if at in range(cut_us + DELTA_US + H_US, cut_us + length_us)]
    watch = world.stage.watch
    later = [ref for ref in kept if ref[1] >= 0]
    assert later
    assert all(index < len(watch.final[origin]) for origin, index in later), "what was acknowledged on either side is final"


# ------------------------------------------------------------------------------------------------------------------ duplication


def test_threat_27_everything_five_times_in_any_order_leaves_every_disk_with_the_same_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Network._carry

    def carry(self: Network, message: Any) -> None:
        for _ in range(5 if self._ground.now_us < HEAL_US else 1):
            real(self, message)

    monkeypatch.setattr(Network, "_carry", carry)

    def plan(world: World) -> None:
        world.stage.network.conditions = Conditions(delay_us=(200, 900_000))

    world, result = _calm(0, plan)
    disks = [each.disk for each in world.stage.watch.honest]
    for origin, final in world.stage.watch.final.items():
        assert len({tuple(disk.hashes(origin)[: len(final)]) for disk in disks}) == 1
        assert len(final) > 4
    states = [each.state for each in world.stage.watch.honest]
    assert len({state.governance.digest for state in states if state is not None}) == 1
    assert result.counts["started"] > 4


# ------------------------------------------------------------------------------------------------------------------------ policy


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> int:
    """The policy of the domain ends in the middle of the world: when (µs)."""
    ends_us, real = 5 * S, setting._manifest

    def manifest(digest: str) -> Any:
        return msgspec.structs.replace(real(digest), expires_ms=EPOCH_MS + ends_us // 1_000)

    monkeypatch.setattr(setting, "_manifest", manifest)
    monkeypatch.setattr(stage, "setting", setting.setting.__wrapped__)
    return ends_us


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("seed", range(3))
def test_threat_18_once_the_policy_has_ended_everything_is_denied_everywhere(over: int, seed: int) -> None:
    world = World(seed, nodes=4)
    world.faults.arrange = lambda *_: None  # type: ignore[method-assign]
    with remembered():
        for boot in (*(one.boot for one in world.stage.governors.values()), *(one.boot for one in world.stage.enforcers.values())):
            world.stage.ground.after(world.stage.random.randrange(S // 3), boot)
        world._traffic()
        world.stage.ground.run(HEAL_US, until=lambda: False)
    lines, skew_us = world.stage.ground.lines, 300_000
    starts = [at for at, _, said, _ in lines if said == "starts"]
    assert starts
    assert max(starts) <= over + skew_us
    refused = {who for at, who, said, of in lines if (said, of) == ("refused", "policy_expired") and at > over - skew_us}
    denied = {who for at, who, said, of in lines if (said, of) == ("denied", "policy_expired") and at > over - skew_us}
    assert refused == set(ENFORCERS)
    assert denied == set(world.stage.governors)
    late = [answer for name in WORKLOADS for answer in world.stage.workloads[name].answers]
    assert "policy_expired" in late


# -------------------------------------------------------------------------------------------------------------------- cold start


BACK_US: Final = 5 * S
HEARD_US: Final = 7 * S


@pytest.fixture
def old_words(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    """Everybody dies and comes back a second later; the bus says again what was said before, and holds back what is said now."""
    real, said = Network.send, list[Any]()

    def send(self: Network, message: Any) -> None:
        now_us = self._ground.now_us
        if message.kind == "hb" and now_us < BACK_US - S:
            said.append(message)
        if BACK_US - S <= now_us < HEARD_US and (message.kind == "hb" or (message.kind == "sync" and b'"ask":"sync"' in message.data)):
            return
        real(self, message)

    def again(network: Network) -> None:
        for message in said[-60:]:
            network._carry(message)

    monkeypatch.setattr(Network, "send", send)

    def plan(world: World) -> None:
        governors, enforcers = world.stage.governors.values(), world.stage.enforcers.values()
        for crash in (*(each.crash for each in governors), *(each.crash for each in enforcers)):
            world.stage.ground.after(BACK_US - S, partial(crash, S))
        for wait_us in range(S // 5, S, S // 5):
            world.stage.ground.after(BACK_US + wait_us, lambda: again(world.stage.network))

    return plan


def test_a_cold_start_of_everybody_neither_allows_early_nor_locks_up(old_words: Callable[[World], None]) -> None:
    for seed in range(3):
        _, result = _calm(seed, old_words)
        starts = _said(result, "starts")
        assert [at for at in starts if at < BACK_US - S]
        assert not [at for at in starts if BACK_US - S < at < HEARD_US], "what was said before the start makes nobody fresh"
        assert min(at for at in starts if at > HEARD_US) < HEARD_US + 2 * S


def test_a_cold_start_that_believes_what_was_said_before_it_is_found(
    old_words: Callable[[World], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS["no boot echo"].plant(monkeypatch)
    world = World(0, nodes=4)
    world.faults.arrange = lambda *_: old_words(world)  # type: ignore[method-assign]
    assert world.run().promise == "I1"
