"""How the rosters of a world change: one joins; then one leaves or gets new keys, while everything else goes on.

Not here: the rosters themselves (:mod:`mesh.testing.world.rosters`).
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said
from mesh.testing.world.governor import Governor
from mesh.testing.world.handing import Handed
from mesh.testing.world.rosters import APART_MS, behind, joined, reduced, rekeyed
from mesh.testing.world.stage import Stage

__all__ = ["change_rosters"]

_S: Final = 1_000_000
_LOOK_US: Final = 200_000
_PATIENCE_US: Final = 20 * _S
"""After a roster has begun that gives a member new keys: twice what going over takes in a world at most."""


def change_rosters(
    stage: Stage,
    random: Random,
    at_us: int,
    *,
    offered: Callable[[str, int, Statement[Said]], None],
    at: Callable[[int, str, Callable[[], None]], None],
) -> Callable[[], None]:
    """Plan a second epoch and perhaps a third; some begin before many hold them.

    Args:
        stage: the mesh.
        random: what chooses.
        at_us: about when, in µs.
        offered: plans that a statement is offered to a member or two.
        at: plans anything else.

    Returns:
        What sets up the process of who joins, if it is not there yet.
    """
    setting = stage.setting
    offered_us = random.choice((_S // 2, at_us // 3, at_us))
    begins_ms = offered_us // 1_000 + random.choice((0, 1_000, 4_000, 7_000))
    second, new = joined(setting, begins_ms, handing_over=random.random() < 0.5)
    stage.watch.epochs.sign(second)
    if second.claims.handovers:
        _hand_over(stage, random, second, offered_us, offered)
    offered(f"a roster with {new.name} too is signed", offered_us, second)
    start = partial(_start, stage, stage.join(new, (second,)))
    at(offered_us + random.randrange(8 * _S), f"{new.name} is set up", start)
    if random.random() < 0.35:
        return start
    name, later_ms = random.choice(setting.members), begins_ms + APART_MS + random.choice((0, 500, 2_000))
    again = rekeyed(second, name, later_ms) if name not in stage.watch.liars and random.random() < 0.5 else None
    third = again[0] if again is not None else reduced(second, name, later_ms)
    stage.watch.epochs.sign(third)
    what = f"new keys for {name}" if again is not None else f"no {name}"
    offered(f"a roster with {what} is signed", random.randrange(offered_us, offered_us + 5 * _S), third)
    if again is not None:
        _follow(stage, stage.join(again[1], (second, third)), stage.governors[name], 1_000 * later_ms + _PATIENCE_US)
    return start


def _hand_over(
    stage: Stage, random: Random, second: Statement[Roster], at_us: int, offered: Callable[[str, int, Statement[Said]], None]
) -> None:
    """What is handed over may be heard before the roster or after it; and so may what somebody says in the former signers' name."""
    setting = stage.setting
    later, stray = behind(setting, second.id), behind(setting, "")
    stage.handed = Handed(later, stray)
    for statement in random.sample(setting.revocations, len(setting.revocations)):
        offered("what is handed over", random.randrange(max(0, at_us - _S), at_us + 3 * _S), statement)
    offered("a revoker goes on", at_us + random.randrange(4 * _S), later)
    offered("a former revoker goes on as well", random.randrange(at_us // 2, at_us + 6 * _S), stray)


def _start(stage: Stage, governor: Governor) -> None:
    """Before its roster is in force or after, at the latest when the world heals."""
    if governor.absent and not governor.boots:
        stage.begin(governor)


def _follow(stage: Stage, governor: Governor, former: Governor, patient_us: int) -> None:
    """As soon as the former process has ended for good; its operator ends one that finds nobody any more to tell it so."""
    if not former.absent and stage.ground.now_us > patient_us:
        former.leave("its operator has waited long enough")
    if former.absent:
        stage.begin(governor)
    else:
        stage.ground.after(_LOOK_US, partial(_follow, stage, governor, former, patient_us))
