"""What a governor remembers from one batch to the next. It is small: what grows is in storage.

Not here: how it changes (:mod:`mesh.protocol.governor`), how it begins (:mod:`mesh.protocol.begin`).
"""

from collections.abc import Mapping

import msgspec

from mesh.core.law.governance import Governance
from mesh.core.run.authorization import RecordRef
from mesh.protocol.barrier import Pending
from mesh.protocol.freshness import Freshness
from mesh.protocol.gossip import Asking, Told
from mesh.protocol.hearing import NOBODY, Words
from mesh.protocol.holding import Mirror
from mesh.protocol.lineage import LogState

__all__ = ["Facts", "GovernorState"]


class Facts(msgspec.Struct, frozen=True):
    """What storage knows about the ids of a batch; empty on the first try, filled when a step found one already there."""

    intents: Mapping[str, bytes] = {}
    """Intent id to the leaf data of the record that permitted it."""
    outcomes: Mapping[str, RecordRef] = {}
    over: frozenset[str] = frozenset()
    """Authorizations of parents that are known to be over."""


class GovernorState(msgspec.Struct, frozen=True):
    """All that a governor remembers between batches besides its storage."""

    incarnation: int
    sequence: int
    """Of the next heartbeat."""
    governance: Governance
    asking: Mapping[str, Asking]
    """Member to what it was asked last about governance."""
    untold: tuple[Told, ...]
    """What was taken in and not recorded yet."""
    news: bool
    """Whether something was taken in that no heartbeat has said yet."""
    log: LogState
    mirrors: Mapping[str, Mirror]
    fresh: Freshness
    was_fresh: bool
    beat_ms: int
    noise: Mapping[str, int]
    noise_ms: int
    """Since when the noise was counted."""
    heard: Mapping[str, int] = {}
    """Other members' largest incarnations of which a heartbeat is kept."""
    barrier: Pending | None = None
    """The start, while it is not through (rule 6); the incarnation is 0 until then."""
    words: Words = NOBODY
    """What enforcers said last that they have heard."""
    over: int = 0
    """Epoch of the roster to begin anew under; 0 for none."""
