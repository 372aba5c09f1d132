"""How many owners, not keys, would have to act together to break what a roster promises: counted, per kind of owner.

What it takes, in members of n, with the roster's f and k
----------------------------------------------------------
* **exceed**, f + 1: more lie than the roster says it can bear, and it promises nothing any more. They can stop everybody by lying about
  the time (a node that f + 1 others contradict trusts its clock no longer and denies), and during a change of rosters two quorums may
  meet in nobody else. This is *the* collusion number.
* **contradict**, 2k - n: any two quorums share that many members at least, and may share no more. If all of those lie, the honest ones
  of either side, kept apart, help to make two histories of one log final, or to start what k members hold to be revoked. Never less than
  f + 1, because 2k > n + f.
* **forge**, k: they need no honest member for anything: what nobody would have decided becomes final.
* **silence**, n - k + 1: the others are no quorum, so nothing becomes final and nothing starts. Never less than f + 1, because k <= n - f.

Owners are counted, not weighed: whoever owns members can make all of them act. Who signs as root is in no dimension here: the root
threshold can exchange all members, one step after the other, whoever owns them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, get_args

from mesh.core.law.roster import Member, Roster

__all__ = ["ATTACKS", "DIMENSIONS", "Attack", "Collusion", "Dimension", "collusion", "fewest", "members_needed"]

Dimension = Literal["member", "operator", "jurisdiction", "region"]
Attack = Literal["exceed", "contradict", "forge", "silence"]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
ATTACKS: Final[tuple[Attack, ...]] = get_args(Attack)


class Collusion(NamedTuple):
    """What owners of one kind could do together."""

    dimension: Dimension
    owns: Mapping[str, int]
    """Owner to its members, most first."""
    fewest: Mapping[Attack, tuple[str, ...]]
    """For each attack, the fewest owners who could do it together: one such set, those with most members first."""

    @property
    def number(self) -> int:
        """The collusion number: how many of them it takes to break what the roster promises."""
        return len(self.fewest["exceed"])


def members_needed(roster: Roster) -> dict[Attack, int]:
    """How many members each attack takes."""
    n = len(roster.members)
    return {"exceed": roster.f + 1, "contradict": 2 * roster.k - n, "forge": roster.k, "silence": n - roster.k + 1}


def collusion(roster: Roster) -> list[Collusion]:
    """For each kind of owner the fewest of them who could do each of the attacks together."""
    owner_of: Mapping[Dimension, Callable[[Member], str]] = {
        "member": lambda member: member.name,
        "operator": lambda member: member.operator,
        "jurisdiction": lambda member: roster.operators[member.operator].jurisdiction,
        "region": lambda member: member.region,
    }
    needed = members_needed(roster)
    found = list[Collusion]()
    for dimension in DIMENSIONS:
        owns = dict(sorted(Counter(map(owner_of[dimension], roster.members)).items(), key=lambda item: (-item[1], item[0])))
        found.append(Collusion(dimension, owns, {attack: fewest(owns, needed[attack]) for attack in ATTACKS}))
    return found


def fewest(owns: Mapping[str, int], members: int) -> tuple[str, ...]:
    """The fewest owners who have so many members together; all of them if even those do not.

    Taking the largest first is exact: owners share no member, so what a set of them has is the sum of what each has, and among all
    sets of j owners the j largest have most. If they have too few, every set of j has.
    """
    taken, total = list[str](), 0
    for owner, count in sorted(owns.items(), key=lambda item: (-item[1], item[0])):
        if total >= members:
            break
        taken.append(owner)
        total += count
    return tuple(taken)
