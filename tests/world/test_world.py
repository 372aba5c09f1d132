import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import pytest

from mesh.cli import run as command
from mesh.core.bytes import envelope, keys
from mesh.protocol import mirror
from mesh.testing.world.faults import Faults
from mesh.testing.world.ground import Ground, Violation
from mesh.testing.world.keys import remembered
from mesh.testing.world.setting import quorum, setting
from mesh.testing.world.world import HEAL_US, Result, World, event_log, run_seed
from tests.house.tree import ROOT

SEEDS: Final = range(10)
TRACE: Final = "from mesh.testing.world.world import run_seed; print([run_seed(seed).digest for seed in (1, 2)])"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken_whatever_the_seed(seed: int) -> None:
    result = run_seed(seed)
    assert not result.promise, f"{result.promise}: {result.message}\n" + "\n".join(result.plan)
    assert result.ended_ms > HEAL_US // 1000


@pytest.mark.parametrize("nodes", [1, 4, 5, 7])
def test_meshes_of_every_size_permit_run_and_make_final(nodes: int) -> None:
    result = run_seed(1, nodes=nodes)
    assert not result.promise, result.message
    assert result.counts["permits"] >= nodes
    assert result.counts["started"] >= nodes
    assert result.counts["words"] >= 2, "each enforcer says what it has heard"
    assert result.counts["final"] > result.counts["permits"]


@pytest.mark.parametrize("kind", ["twins", "braggart", "turncoat"])
def test_a_liar_breaks_no_promise_to_the_honest(kind: str) -> None:
    for seed in range(3):
        result = run_seed(seed, nodes=4, trouble=(kind,))
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}"
        assert any(kind in line for line in result.plan)


def test_a_domain_is_halted_and_resumed_and_no_promise_is_broken() -> None:
    denied = 0
    for seed in range(8):
        result = run_seed(seed, trouble=("halt",))
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}\n" + "\n".join(result.plan)
        denied += result.counts.get("answer halted", 0)
    assert denied > 8, "and all of them permit again in the end, which I10 looks after"


def test_a_restored_disk_breaks_no_promise_and_its_member_works_again() -> None:
    restored = 0
    for seed in range(16):
        world = World(seed, nodes=4, trouble=("restore", "restore"))
        result = world.run()
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}\n" + "\n".join(result.plan)
        watch = world.stage.watch
        restored += len(watch.restored - watch.liars)
    assert restored > 3, "and all of them permit again in the end, which I10 looks after"


@pytest.mark.parametrize("trouble", [("restore", "restore"), ("isolate", "isolate", "pause", "partition"), ("roster", "crash"), ("twins",)])
def test_the_root_has_erased_what_is_final_and_no_promise_is_broken(trouble: tuple[str, ...]) -> None:
    erased = 0
    for seed in range(3):
        world = World(seed, nodes=4, trouble=(*["erase"] * 5, *trouble))
        result = world.run()
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}\n" + "\n".join(result.plan)
        erased += max(len(each.state.governance.erasures) for each in world.stage.governors.values() if each.state is not None)
    assert erased > 3, "and every honest log says so of each once, and no disk holds any of it, which I10 looks after"


@pytest.mark.parametrize(
    "trouble",
    [
        ("restore", "restore"),
        ("isolate", "isolate", "pause", "partition"),
        ("roster", "crash"),
        ("twins",),
        ("erase", "erase", "erase"),
        ("bit flip", "bit flip", "everybody"),
    ],
)
def test_the_root_lets_go_what_is_final_and_old_and_no_promise_is_broken(trouble: tuple[str, ...]) -> None:
    """I17 looks after what goes, I10 after that it goes, that its node says so, and that all hold the same."""
    gone = said = 0
    for seed in range(3):
        world = World(seed, nodes=4, trouble=(*["prune"] * 6, *trouble))
        result = world.run()
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}\n" + "\n".join(result.plan)
        disks = [each.disk for each in world.stage.watch.honest]
        gone += sum(not leaf for disk in disks for log in disk.logs.values() for leaf in log.leaves)
        said += sum(name.startswith("pruned ") for disk in disks for name in disk.meta)
    assert gone > 100
    assert said > 3


def test_a_flipped_bit_is_found_nothing_is_signed_until_others_put_it_back_and_no_promise_is_broken() -> None:
    """I16 looks after both; that all work again in the end is I10."""
    counts = dict.fromkeys(("a bit flips", "alarm", "mended"), 0)
    for seed in range(12):
        more = ((), ("restore",), ("twins",), ("roster",), ("crash", "everybody"), ("weather", "hold"))[seed % 6]
        result = run_seed(seed, trouble=("bit flip", "bit flip", *more))
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}\n" + "\n".join(result.plan)
        for what in counts:
            counts[what] += sum(line[2] == what for line in result.events)
    assert counts["a bit flips"] > 16
    assert counts["mended"] > 12, "some rot twice on one disk, and are put back together"


def test_streams_fork_and_are_resolved_and_no_promise_is_broken() -> None:
    told, denied = set[str](), set[str]()
    for seed in range(14, 22):
        result = run_seed(seed, nodes=4, trouble=("resolve",))
        assert result.promise == "", f"seed {seed}: {result.promise} {result.message}"
        told |= {
            word
            for word in ("halt forks", "policy forks", "revoke forks", "a fork is resolved")
            if any(word in line for line in result.plan)
        }
        denied |= {answer for answer in ("answer halted", "answer policy_conflict") if result.counts.get(answer)}
    assert (len(told), len(denied)) == (4, 2), "and all of them permit again in the end, which I10 looks after"


@pytest.mark.parametrize(("nodes", "seeds"), [(1, 3), (4, 8), (5, 9), (7, 2)])
def test_rosters_change_and_no_promise_is_broken(nodes: int, seeds: int) -> None:
    under, left = set[str](), set[str]()
    for seed in range(seeds):
        world = World(seed, nodes=nodes, trouble=("roster",))
        result = world.run()
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}\n" + "\n".join(result.plan)
        under |= {about for _, _, what, about in result.events if what == "acts under"}
        left |= {who for _, who, what, _ in result.events if what == "leaves"}
        newest, final = world.stage.watch.epochs.newest, world.stage.watch.final
        assert all(final[newest.origin(member)] for member in newest.members if member.name not in world.stage.watch.liars)
    assert under == {"2", "3"}
    assert left


@pytest.mark.parametrize("trouble", [("twins",), ("restore", "restore"), ("partition", "hold", "old news"), ("crash", "everybody")])
def test_rosters_change_while_other_things_go_wrong(trouble: tuple[str, ...]) -> None:
    for seed in range(20, 24):
        result = run_seed(seed, nodes=4 + seed % 2, trouble=("roster", *trouble))
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}\n" + "\n".join(result.plan)


def test_every_kind_of_trouble_can_be_asked_for_and_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, planned = Faults._kinds, list[str]()

    def kinds(self: Faults) -> dict[str, tuple[int, Callable[[int], None]]]:
        def noted(name: str, plan: Callable[[int], None], at_us: int) -> None:
            planned.append(name)
            plan(at_us)

        return {name: (weight, partial(noted, name, plan)) for name, (weight, plan) in usual(self).items()}

    monkeypatch.setattr(Faults, "_kinds", kinds)
    names = list(kinds(Faults(World(0, nodes=4).stage)))
    for at in range(0, len(names), 4):
        trouble = names[at : at + 4]
        planned.clear()
        result = run_seed(0, nodes=4, trouble=trouble)
        assert not result.promise, f"{trouble}: {result.promise}: {result.message}"
        assert planned[-len(trouble) :] == trouble


def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    told = set()
    for hashing in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": str(ROOT)}
        told.add(
            subprocess.run([sys.executable, "-c", TRACE], check=True, capture_output=True, text=True, env=environment, cwd=ROOT).stdout
        )
    assert told == {str([run_seed(seed).digest for seed in (1, 2)]) + "\n"}


def test_other_seeds_give_other_worlds() -> None:
    assert len({run_seed(seed, nodes=4).digest for seed in range(5)}) == 5


def test_an_exception_of_a_machine_ends_the_world_as_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(mirror, "_accept", broken)
    result = run_seed(0, nodes=4)
    assert result.promise == "I12"
    assert "ZeroDivisionError" in result.message


def test_the_first_broken_promise_is_written_down_event_by_event(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mirror, "my_lines", lambda *_: [])
    arguments = ["-o", "json", "world", "run", "--seeds", "0..1", "--nodes", "4", "--jobs", "1", "--logs", str(tmp_path)]
    assert command(arguments) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["worlds"] == 2
    assert said["failed"] == [0, 1]
    log = json.loads(Path(said["events"]).read_text())
    assert (log["v"], log["kind"], log["seed"], log["nodes"], log["promise"]) == (1, "world-log", 0, 4, "I10")
    assert log["events"]
    assert [event[0] for event in log["events"]] == sorted(event[0] for event in log["events"])
    assert said["first"] == f"I10: {log['message']}"


def test_clean_worlds_exit_with_nothing_in_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["-o", "json", "world", "run", "--seeds", "3..4", "--nodes", "1", "--jobs", "2", "--logs", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["worlds"], said["failed"], said["first"], said["events"]) == (2, [], "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", ["4..3", "a..b", "", "1..", "-1..2", "1..2..3"])
def test_seeds_that_are_none_are_refused(seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["world", "run", f"--seeds={seeds}"]) == 64
    assert "A..B" in capsys.readouterr().err


def test_an_event_log_says_what_the_result_says() -> None:
    result = Result(
        seed=7, nodes=4, digest="d", promise="I3", message="m", ended_ms=5, counts={"final": 2}, plan=["p"], events=[(1, "g0", "crash", "")]
    )
    said = msgspec.json.decode(event_log(result))
    assert said == {
        "v": 1, "kind": "world-log", "seed": 7, "nodes": 4, "digest": "d", "promise": "I3", "message": "m", "ended_ms": 5,
        "counts": {"final": 2}, "plan": ["p"], "events": [[1, "g0", "crash", ""]],
    }  # fmt: skip


@pytest.mark.parametrize(("n", "f", "k"), [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 1, 3), (5, 1, 4), (7, 2, 5), (10, 3, 7), (13, 4, 9)])
def test_a_world_has_the_smallest_sound_quorum(n: int, f: int, k: int) -> None:
    assert quorum(n) == (f, k)
    roster = setting(n).governance.roster
    assert (len(roster.members), roster.f, roster.k) == (n, f, k)


def test_remembering_signatures_ends_with_the_world() -> None:
    before = vars(envelope)["verify"]
    assert keys.verify is before
    with remembered():
        assert keys.verify is not before
        assert keys.verify is vars(envelope)["verify"]
    assert vars(envelope)["verify"] is keys.verify is before


def test_events_of_one_time_happen_in_the_order_in_which_they_were_planned() -> None:
    ground, seen = Ground(0), list[int]()
    for number in range(20):
        ground.after(5, lambda number=number: seen.append(number))  # type: ignore[misc]  # a default argument binds it now
    ground.after(1, lambda: seen.append(-1))
    assert ground.run(10, until=lambda: len(seen) == 21)
    assert seen == [-1, *range(20)]


def test_a_violation_says_which_promise_and_how() -> None:
    violation = Violation("I6", "runs twice")
    assert (violation.promise, violation.message) == ("I6", "runs twice")


@pytest.mark.parametrize("seed", [197, 420])
def test_a_mesh_of_one_goes_on_after_a_pause_for_nobody_else_could_bear_its_clock_out(seed: int) -> None:
    result = run_seed(seed)
    assert (result.nodes, result.promise, result.message) == (1, "", "")


def test_an_incident_is_proven_by_what_the_same_commit_makes_durable() -> None:
    assert run_seed(81).promise == ""


def test_two_processes_with_the_keys_of_one_are_caught_and_frozen_by_everybody() -> None:
    caught = 0
    for seed in (3, 8, 9, 15):
        world = World(seed, nodes=4, trouble=("twins",))
        result = world.run()
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}"
        watch = world.stage.watch
        caught += bool(watch.freezing.keys)
        for state in [each.state for each in watch.honest]:
            assert state is not None
            assert state.governance.frozen == (watch.liars if watch.freezing.keys else frozenset())
        assert {each.governance.frozen for each in world.stage.enforcers.values()} <= {watch.liars, frozenset()}
    assert caught == 4


def test_who_accuses_everybody_all_the_time_freezes_nobody() -> None:
    for seed in range(3):
        world = World(seed, nodes=4, trouble=("slanderer",))
        result = world.run()
        assert not result.promise, f"seed {seed}: {result.promise}: {result.message}"
        assert world.stage.watch.freezing.keys == set()
