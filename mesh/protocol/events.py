"""What can happen to a governor: every event that its machine folds, and whoever feeds it may enqueue.

Not here: what follows from them (:mod:`mesh.protocol.governor`).
"""

import msgspec

from mesh.protocol.gossip import Judged, LawArrived, OfferArrived, OpeningsErased, PolicyAdmitted, PolicyRefused, RecordsPruned
from mesh.protocol.intake import IntentArrived
from mesh.protocol.outcomes import OutcomesArrived

__all__ = [
    "AccusationArrived",
    "BarrierArrived",
    "CosigArrived",
    "Event",
    "FromMember",
    "HeartbeatArrived",
    "IntentArrived",
    "Judged",
    "LawArrived",
    "LineageArrived",
    "NoteArrived",
    "OfferArrived",
    "OpeningsErased",
    "OutcomesArrived",
    "PolicyAdmitted",
    "PolicyRefused",
    "RecordsPruned",
    "Shed",
    "Stopping",
    "SyncArrived",
    "Tick",
]


class LineageArrived(msgspec.Struct, frozen=True):
    """Records of another member's log."""

    data: bytes
    pulled: bool
    """Whether I asked for them; a pull carries openings."""
    node: str = ""
    """Whom I asked, or on whose subject they came: the bus lets nobody else publish there."""


class NoteArrived(msgspec.Struct, frozen=True):
    """A note on a checkpoint subject: an announced checkpoint, or a certificate."""

    data: bytes


class AccusationArrived(msgspec.Struct, frozen=True):
    """What some member says of a record that it refuses; my own word comes so, too."""

    data: bytes


class CosigArrived(msgspec.Struct, frozen=True):
    """Lines on this node's own outstanding checkpoint."""

    data: bytes


class HeartbeatArrived(msgspec.Struct, frozen=True):
    """Somebody's heartbeat."""

    data: bytes


class SyncArrived(msgspec.Struct, frozen=True):
    """Somebody who has just started asks for a heartbeat that names its nonce."""

    waiter: int
    nonce: str


class BarrierArrived(msgspec.Struct, frozen=True):
    """Another member's answer to what this node asks at its start."""

    data: bytes


class Shed(msgspec.Struct, frozen=True):
    """Requests that the shell refused for load or failing storage."""

    code: str
    count: int


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


class Stopping(msgspec.Struct, frozen=True):
    """The node drains: record it as the last thing."""


FromMember = BarrierArrived | HeartbeatArrived | CosigArrived | LawArrived | NoteArrived | LineageArrived | AccusationArrived
"""What other members say, whether it was asked for or not."""
Event = (
    IntentArrived
    | OutcomesArrived
    | OfferArrived
    | LawArrived
    | Judged
    | LineageArrived
    | NoteArrived
    | CosigArrived
    | AccusationArrived
    | HeartbeatArrived
    | SyncArrived
    | BarrierArrived
    | Shed
    | Tick
    | Stopping
)
