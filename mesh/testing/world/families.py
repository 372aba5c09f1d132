"""Who runs within whom in one world, as it truly is: what workloads choose parents from, and what each start is held to.

Not here: promises about anything else (:mod:`mesh.testing.world.promises`).
"""

from random import Random
from typing import Final, Literal

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Draft
from mesh.core.run.intent import After
from mesh.core.run.kin import Parent
from mesh.core.run.outcome import Event, Finished, Started
from mesh.protocol.enforcer import Grant
from mesh.testing.world import keys
from mesh.testing.world.ground import Ground, Violation
from mesh.testing.world.setting import WORKLOADS

__all__ = ["Chosen", "Families", "Kind"]

Kind = Literal["", "within", "after"]
_RECENT: Final = 8
_HOLDERS: Final = {keys.public(name): name for name in WORKLOADS}


class _Life(msgspec.Struct):
    grant: Grant
    line: tuple[str, ...]
    """Authorizations within which it runs, the parent first."""
    begun_us: int
    started: bytes = b""
    finished: bytes = b""

    @property
    def holder(self) -> str:
        return self.grant.authorization.claims.holder


class Chosen(msgspec.Struct, frozen=True):
    """A parent for an intent, or none."""

    within: list[str] = []
    after: list[After] = []
    paper: Parent | None = None
    holder: str = ""

    def papers(self, child: Draft, own: str) -> list[Parent]:
        """What goes with the intent of whom the key ``own`` belongs to, countersigned where another holds the parent."""
        if self.paper is None:
            return []
        if not self.within or self.holder == own:
            return [self.paper]
        return [msgspec.structs.replace(self.paper, countersignature=keys.sign(_HOLDERS[self.holder], child.message).hex())]


class Families:
    """All executions of a world that have started."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._random: Random = ground.random("families")
        self.reach_us = 1 << 60
        """How long ago what began may still be chosen as a parent."""
        self._lives: dict[str, _Life] = {}

    def kind(self) -> Kind:
        """What an intent shall have."""
        return self._random.choices(("", "within", "after"), (12, 6, 2))[0]

    def choose(self, kind: Kind) -> Chosen:
        """A parent of late, whether it still runs or not."""
        able = [life for life in self._lives.values() if (life.started if kind == "within" else life.finished)]
        able = [life for life in able if self._ground.now_us - life.begun_us <= self.reach_us]
        if not kind or not able:
            return Chosen()
        life = self._random.choice(able[-_RECENT:])
        authorization = life.grant.authorization
        outcome = life.started if kind == "within" else life.finished
        paper = Parent(authorization=msgspec.Raw(authorization.envelope), outcome=msgspec.Raw(outcome), countersignature="")
        if kind == "within":
            return Chosen([authorization.id], [], paper, life.holder)
        return Chosen([], [After(authorization=authorization.id, outcome=envelope.identify(outcome)[1])], paper, life.holder)

    def begins(self, place: str, grant: Grant) -> frozenset[str]:
        """An enforcer starts this; the keys of all who hold it, or anything within which it runs (I1)."""
        authorization, line = grant.authorization, tuple[str, ...]()
        for parent in grant.intent.claims.within:
            if parent not in self._lives:
                raise Violation("I1", f"{place} starts what runs within {parent[:12]}, which has never started")
            line = (parent, *self._lives[parent].line)
        said = tuple(one.authorization for one in authorization.claims.ancestors)
        if said != line:
            raise Violation("I1", f"{place} starts {authorization.id[:12]} with {len(said)} ancestors, it has {len(line)}, or others")
        self._lives[authorization.id] = life = _Life(grant, line, self._ground.now_us)
        return frozenset((life.holder, *(self._lives[name].holder for name in line)))

    def said(self, authorization: str, event: Event, outcome: bytes) -> None:
        """Its enforcer has signed this of it."""
        life = self._lives.get(authorization)
        if life is not None and isinstance(event, Started):
            life.started = outcome
        elif life is not None and isinstance(event, Finished):
            life.finished = outcome
