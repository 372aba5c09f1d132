"""A seeded world: first it is troubled, then it is left alone, and all the while it is watched.

Rules
-----
1. The seed decides everything: size, traffic, faults, liars, delays. The same seed gives the same trace in every process.
2. The first broken promise ends the world and is reported with the trace.
3. Trouble ends at :data:`HEAL_US`. Within :data:`BOUND_US` after that, and more where rosters change, the mesh must be whole again
   (I10).
"""

import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Final

import msgspec

from mesh.testing.world.faults import Faults
from mesh.testing.world.ground import Violation
from mesh.testing.world.healing import Healing
from mesh.testing.world.keys import remembered
from mesh.testing.world.network import CALM
from mesh.testing.world.pruning import INTENT_MS, REACH_US
from mesh.testing.world.setting import WORKLOADS
from mesh.testing.world.stage import Stage

__all__ = ["BOUND_US", "HEAL_US", "Result", "World", "event_log", "run_seed"]

HEAL_US: Final = 9_000_000
BOUND_US: Final = 14_000_000
_EPOCH_US: Final = 9_000_000
"""Longer for each change of the roster: it is held for 2Δ before anybody goes over, and then everybody starts again."""
_TRAFFIC_US: Final = 800_000
_SIZES: Final = (4, 4, 4, 4, 4, 4, 4, 5, 7, 1)
"""How often a world has how many governors."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a world ended."""

    seed: int
    nodes: int
    digest: str
    """SHA-256 of the trace."""
    promise: str
    """Which one was broken; empty if none was."""
    message: str
    ended_ms: int
    """True time since the beginning."""
    counts: dict[str, int]
    plan: list[str]
    events: list[tuple[int, str, str, str]]
    """(µs, who, what, about what)."""


class World:
    """One seed's life."""

    def __init__(self, seed: int, *, nodes: int | None = None, trouble: Sequence[str] = ()) -> None:
        self.nodes = nodes if nodes is not None else Random(f"{seed} size").choice(_SIZES)
        self.stage = Stage(seed, self.nodes)
        self.faults = Faults(self.stage)
        self.trouble = trouble

    def run(self) -> Result:
        """Live through all of it."""
        promise = message = ""
        ground = self.stage.ground
        with remembered():
            try:
                self._live()
            except Violation as violation:
                promise, message = violation.promise, violation.message
            except Exception:  # noqa: BLE001 -- whatever a machine raises, it must not
                promise, message = "I12", traceback.format_exc(limit=-8)
        return Result(
            seed=ground.seed,
            nodes=self.nodes,
            digest=ground.digest(),
            promise=promise,
            message=message,
            ended_ms=ground.now_ms,
            counts=self._counts(),
            plan=self.faults.plan,
            events=ground.lines,
        )

    def _live(self) -> None:
        stage, ground = self.stage, self.stage.ground
        if "prune" in self.trouble:
            self._hurry()
        self.faults.arrange(HEAL_US, self.trouble)
        for start in (*(each.boot for each in stage.governors.values()), *(each.boot for each in stage.enforcers.values())):
            ground.after(stage.random.randrange(400_000), start)
        self._traffic()
        ground.run(HEAL_US, until=lambda: False)
        self.faults.heal()
        stage.network.conditions = CALM
        healing = Healing(stage)
        bound_us = BOUND_US + _EPOCH_US * (len(stage.watch.epochs.chain) - 1)
        if not ground.run(HEAL_US + bound_us, until=healing.whole):
            raise Violation("I10", f"{bound_us // 1_000_000} s after healing: {healing.missing()}")
        healing.robbed()
        healing.audit()

    def _hurry(self) -> None:
        """Nothing is asked of a record for longer than its age."""
        self.stage.watch.families.reach_us = REACH_US
        for workload in self.stage.workloads.values():
            workload.life_ms = INTENT_MS

    def _traffic(self) -> None:
        stage, at_us = self.stage, _TRAFFIC_US
        while at_us < HEAL_US:
            at_us += stage.random.randrange(20_000, 400_000)
            workload, wish = stage.workloads[stage.random.choice(WORKLOADS)], stage.wish()
            stage.ground.after(at_us, partial(workload.want, wish))

    def _counts(self) -> dict[str, int]:
        stage, counts = self.stage, Counter[str]()
        counts.update(permits=stage.watch.permits, started=len(stage.watch.started), words=stage.watch.words, lines=len(stage.ground.lines))
        counts.update(final=sum(len(leaves) for leaves in stage.watch.final.values()))
        for workload in stage.workloads.values():
            counts.update({f"answer {answer}": count for answer, count in workload.answers.items()})
        for enforcer in stage.enforcers.values():
            counts.update({f"enforcer {code}": count for code, count in enforcer.refusals.items()})
        return dict(sorted(counts.items()))


def run_seed(seed: int, *, nodes: int | None = None, trouble: Sequence[str] = ()) -> Result:
    """Live through the world of one seed.

    Args:
        seed: which.
        nodes: governors, instead of as many as the seed says.
        trouble: what must happen on top of what the seed says: names as in :mod:`mesh.testing.world.faults`.
    """
    return World(seed, nodes=nodes, trouble=trouble).run()


def event_log(result: Result) -> bytes:
    """A world's end as one JSON document, with every event in order."""
    return msgspec.json.format(msgspec.json.encode({"v": 1, "kind": "world-log", **msgspec.structs.asdict(result)}), indent=1)
