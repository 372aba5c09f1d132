"""A retention says from where on the records of some logs are kept: what is final, old, and below that may be reduced to its hash.

Rules
-----
1. The root threshold signs it, in the stream of erasures: whoever is judged by what is kept does not do away with it, and whom the root
   hands that stream over to may say both (:mod:`mesh.core.law.erase`).
2. A *floor* only rises. What counts of a log is the largest index that any retention names, wherever it stands: in the chain, ahead of
   it, or in a fork. A smaller one changes nothing, so the order in which they came makes no difference.
3. It says nothing about what a node holds: that prunes only what it knows to be final and older than anything that may still be
   asked for (:mod:`mesh.roles.pruning`). Hashes stay, so every root, path and proof that was made before holds on.

Not here: what a node keeps of a pruned record (:mod:`mesh.adapters.storeprune`), who takes hashes (:mod:`mesh.protocol.proven`).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, NamedTuple

import msgspec

from mesh.core.bytes.canonical import Count, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.erase import ERASURES
from mesh.core.law.reign import MaybeId, in_reign
from mesh.core.law.roster import Roster
from mesh.core.log.record import Origin
from mesh.errors import Refused
from mesh.limits import FLOORS_MAX, PRUNE_AGE_MS_MIN, TREE_SIZE_MAX

__all__ = ["NOWHERE", "Floor", "Floors", "Kept", "Retain", "admit_retain", "outlived", "raised"]

Floors = Mapping[str, "Kept"]
"""Origin to from where on its records are kept."""


class Floor(Payload):
    """From where on the records of one log are kept."""

    origin: Origin
    below: Annotated[int, msgspec.Meta(ge=1, le=TREE_SIZE_MAX)]
    """Index of the first record that is kept whatever its age."""


@statement("retain")
class Retain(Payload):
    """Signed by the root threshold: records below these floors need not be kept."""

    mesh: Token
    sequence: Count
    """Dense, from 1, together with erasures."""
    previous: MaybeId
    since: MaybeId
    """Id of the roster that made its signers the stream's; empty for the first one (:mod:`mesh.core.law.reign`)."""
    floors: Annotated[list[Floor], msgspec.Meta(min_length=1, max_length=FLOORS_MAX)]
    """Sorted by origin, each once."""
    archive: Reason
    """Where what is pruned can still be read, for people."""
    reason: Reason
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return in_reign(ERASURES, self.since), self.sequence, self.previous


class Kept(NamedTuple):
    """What counts of one log."""

    below: int
    """Index of the first record that everybody keeps."""
    id: str
    """The retention that says so; of several, the one with the smallest id."""
    archive: str
    """Its word on where the rest can be read."""


NOWHERE: Final = Kept(0, "", "")
"""Of a log of which all is kept."""


def admit_retain(retain: Statement[Retain], roster: Roster) -> Retain:
    """The retention, believed because the root threshold of ``roster`` signed it, and nobody else.

    Raises:
        Refused: ``wrong_mesh``, ``bad_signature``, ``threshold_not_met``; ``malformed`` for floors out of order, or of another mesh's logs.
    """
    claims = retain.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    origins = [floor.origin for floor in claims.floors]
    if origins != sorted(set(origins)) or not all(origin.startswith(f"{claims.mesh}/") for origin in origins):
        raise Refused("malformed", "logs of this mesh are named each once, in their order")
    roster.root.check_sealed(retain)
    return claims


def outlived(at_ms: int, now_ms: int) -> bool:
    """Whether a record of that time is older than anything for which a record may still be asked to decide something.

    An intent is answered with what its record says while it lives, a minute; an authorization is as short. Approvals and grants are good
    for a week at most, and so are the papers of a parent, whose end is looked for among the records about it. Leases are counted by
    enforcers, uses by their spent store: for these no record is asked.
    """
    return now_ms - at_ms >= PRUNE_AGE_MS_MIN


def raised(floors: Floors, new: Iterable[Statement[Retain]]) -> Floors:
    """The floors with what these say (rule 2)."""
    grown = dict(floors)
    for item in new:
        for floor in item.claims.floors:
            said, held = Kept(floor.below, item.id, item.claims.archive), grown.get(floor.origin, NOWHERE)
            if (-said.below, said.id) < (-held.below, held.id):
                grown[floor.origin] = said
    return grown
