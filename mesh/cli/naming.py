"""Records by name: ``NODE/INDEX`` in the log that a node keeps now, ``NODE@eN/INDEX`` in one that it kept before.

A node whose log key was rotated goes on in a log of the next epoch; of one that is no member any more the last log counts as the one it
keeps. What :meth:`Naming.place` prints, :meth:`Naming.find` takes.

Not here: whether such a record exists.
"""

import re
from typing import Final

from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member, Roster
from mesh.errors import Refused

__all__ = ["Naming", "node_of"]

_PLACE: Final = re.compile(r"([a-z0-9-]{1,32})(?:@(e[0-9]{1,15}))?/([0-9]{1,15})")


class Naming:
    """The logs of whoever is or was a member, by the rosters that are held."""

    def __init__(self, governance: Governance) -> None:
        self._roster = governance.roster
        self._chain = governance.rosters.chain
        logs = [(roster.origin(member), member.name) for roster in (self._roster, *self._chain) for member in roster.members]
        self.logs: dict[str, str] = dict(logs)
        """Every log, to its node."""
        self._current: dict[str, str] = {}

    def current(self, node: str) -> str:
        """The log that the node keeps now, or kept last.

        Raises:
            Refused: ``unknown_member``.
        """
        if node not in self._current:
            roster, member = self._newest(node)
            self._current[node] = roster.origin(member)
        return self._current[node]

    def place(self, origin: str, index: int) -> str:
        """What that record is called."""
        path, _, epoch = origin.rpartition("/")
        node = path.rpartition("/")[2]
        current = self.current(node) if origin in self.logs else f"{path}/e1"  # of a log that no roster here names, its name tells
        return f"{node}/{index}" if origin == current else f"{node}@{epoch}/{index}"

    def find(self, name: str) -> tuple[str, int] | None:
        """Log and index of what is called so; none if it is no name of a record.

        Raises:
            Refused: ``unknown_member``, also for a log that the node never had.
        """
        match = _PLACE.fullmatch(name)
        if match is None:
            return None
        node, epoch, index = match[1], match[2], int(match[3])
        origin = self.current(node)
        if epoch is not None:
            origin = f"{origin.rpartition('/')[0]}/{epoch}"
            if origin not in self.logs:
                raise Refused("unknown_member", f"{node} has kept no log {epoch}: no roster names it")
        return origin, index

    def _newest(self, node: str) -> tuple[Roster, Member]:
        for roster in (self._roster, *reversed(self._chain)):
            for member in roster.members:
                if member.name == node:
                    return roster, member
        raise Refused("unknown_member", node[:40])


def node_of(origin: str) -> str:
    """The node whose log or key is called so."""
    return origin.split("/")[1] if origin.count("/") == 2 else origin
