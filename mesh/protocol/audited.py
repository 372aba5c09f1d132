"""What an auditor knows and what of it is kept: values only.

Not here: how it comes to know it (:mod:`mesh.protocol.audit`), the file (:mod:`mesh.adapters.auditstore`).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, Millis, Name, Payload, Text, Token
from mesh.core.bytes.envelope import Statement
from mesh.core.law.proofs import AnyProof
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import DecisionMade, Origin
from mesh.core.messages import NodeStatus
from mesh.limits import AUDIT_LOGS_MAX
from mesh.protocol.alarms import NOTHING, Kept, Watched
from mesh.protocol.attester import Examined
from mesh.protocol.entangled import Named
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.histories import Recent
from mesh.protocol.progress import IDLE, Pace

__all__ = [
    "FINDINGS_MAX",
    "AuditEvent",
    "AuditPosition",
    "AuditState",
    "Finding",
    "Followed",
    "LogPosition",
    "MembersTold",
    "PullFailed",
    "Tally",
    "beginning",
    "by_stranger",
    "excused",
    "kept_log",
    "last_epoch",
    "last_ms",
    "resumed",
    "tally",
]

FINDINGS_MAX: Final = 1_000
"""Kept findings; beyond, they are only counted: whoever has a thousand needs no more."""
_STRANGER: Final = "identity_unknown"


class PullFailed(msgspec.Struct, frozen=True):
    """A member did not answer a pull."""

    origin: str


class MembersTold(msgspec.Struct, frozen=True):
    """What members answered about themselves, by name; who is not there did not answer."""

    statuses: Mapping[str, NodeStatus]


AuditEvent = LineageArrived | NoteArrived | PullFailed | MembersTold | Tick


class Finding(Payload):
    """Something that must not be."""

    code: Name
    origin: Origin
    index: Count
    """Of the record; for a checkpoint, its size."""
    detail: Text


class LogPosition(Payload):
    """How far one log was followed."""

    origin: Origin
    size: Count
    """Records settled under a checkpoint of the log's own key."""
    hashes: Annotated[list[Hex32], msgspec.Meta(max_length=64)]
    """Of its frontier at that size."""
    last_ms: Millis
    epoch: Count
    """Of the roster of its last decision; 0 before the first."""
    certified: Count
    """Of these, final."""
    match: Count
    mismatch: Count
    unverifiable: Count
    breakglass: Count
    pruned: Count
    """Of these, only the hashes were to be had: they stand below a floor."""
    pace: Pace


class AuditPosition(Payload):
    """All that an auditor must not forget."""

    mesh: Token
    roster: Hex32
    """Statement id of the first roster, from which all others follow."""
    logs: Annotated[list[LogPosition], msgspec.Meta(max_length=AUDIT_LOGS_MAX)]
    findings: Annotated[list[Finding], msgspec.Meta(max_length=FINDINGS_MAX)]
    found: Count
    """How many there were, kept or not."""
    watched: Kept
    """What alarms follow from."""


class Followed(msgspec.Struct, frozen=True):
    """One log."""

    origin: str
    frontier: Frontier
    last_ms: int
    certified: int
    match: int
    mismatch: int
    unverifiable: int
    breakglass: int
    """Decisions with a broken glass: lawful, and for people to look at."""
    epoch: int = 0
    staged: tuple[Examined, ...] = ()
    notes: Mapping[int, bytes] = {}
    """Size to a note that the log signed, beyond what is settled."""
    roots: Mapping[int, tuple[bytes, int]] = {}
    """Settled sizes that are not final yet: their roots, and the roster epoch of the last decision up to there."""
    goal: int = 0
    """The largest size of a certificate seen."""
    wanted: int = 0
    """How many records there must be."""
    asking: str = ""
    """The member whose answer is awaited."""
    asked_ms: int = 0
    turn: int = 0
    """Whose turn it is to be asked: it passes on with each pull that did not help."""
    fruitless: int = 0
    """Pulls in a row that did not help."""
    without: frozenset[str] = frozenset()
    """Members that have answered since something last helped, and could not."""
    pruned: int = 0
    """Records of which only the hashes were to be had."""
    pace: Pace = IDLE
    noted: Mapping[int, bytes] = {}
    """Settled sizes, the newest of this run, to the note about each, if there was one: halves of proofs to come."""
    recent: Recent | None = None
    """The hashes of the last records settled in this run."""

    @property
    def held(self) -> int:
        """Records settled or staged."""
        return self.frontier.size + len(self.staged)

    @property
    def signed(self) -> int:
        """Records that there are, as a checkpoint under the log's own key says."""
        return max(self.goal, max(self.notes, default=0), self.frontier.size)

    @property
    def lacks_policy(self) -> bool:
        """Whether something was decided by a policy or under a roster that this auditor has not heard of."""
        return any(item.code == "policy_unknown" or by_stranger(item) for item in self.staged)

    @property
    def caught_up(self) -> bool:
        """Whether everything that is known to be final was settled."""
        return self.certified >= self.goal

    @property
    def ready(self) -> int:
        """Index of the first record that is not here, or could not be judged for lack of something."""
        return next((self.frontier.size + offset for offset, item in enumerate(self.staged) if item.incomplete), self.held)


class AuditState(msgspec.Struct, frozen=True):
    """All that an auditor knows."""

    logs: Mapping[str, Followed]
    findings: tuple[Finding, ...]
    found: int
    garbage: int
    """Messages that were none; anyone on the bus can send them."""
    watched: Watched = NOTHING
    """What alarms follow from."""
    named: Named = Named()
    """What logs of this run have said of one another's trees."""
    proofs: tuple[Statement[AnyProof], ...] = ()
    """That members have signed two histories, one a key: what this run has seen both halves of."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor has judged, in numbers."""

    records: int
    final: int
    match: int
    """Decisions that a repetition gives again."""
    mismatch: int
    unverifiable: int
    breakglass: int
    pruned: int
    """Records below a floor of which only the hashes were to be had."""
    findings: int
    garbage: int
    starts_match: int
    """Starts that an enforcer may sign, as far as records tell."""
    starts_mismatch: int
    starts_unverifiable: int


def tally(state: AuditState) -> Tally:
    """The numbers of all logs together."""
    logs = state.logs.values()
    return Tally(
        records=sum(log.frontier.size for log in logs),
        final=sum(log.certified for log in logs),
        match=sum(log.match for log in logs),
        mismatch=sum(log.mismatch for log in logs),
        unverifiable=sum(log.unverifiable for log in logs),
        breakglass=sum(log.breakglass for log in logs),
        pruned=sum(log.pruned for log in logs),
        findings=state.found,
        garbage=state.garbage,
        starts_match=state.watched.starts.match,
        starts_mismatch=state.watched.starts.mismatch,
        starts_unverifiable=state.watched.starts.unverifiable,
    )


def by_stranger(item: Examined) -> bool:
    """Whether its signer is nobody whom a roster knows that is held here."""
    return item.code == "body_missing" and item.detail.startswith(_STRANGER)


def beginning(origin: str) -> Followed:
    """A log of which nothing is known."""
    return Followed(origin, Frontier.empty(), 0, 0, 0, 0, 0, 0)


def resumed(kept: LogPosition) -> Followed:
    """A log from where it was kept; raises :class:`Refused` ``malformed`` for what cannot be."""
    frontier = Frontier.restore(kept.size, [bytes.fromhex(value) for value in kept.hashes])
    return Followed(
        kept.origin,
        frontier,
        kept.last_ms,
        kept.certified,
        kept.match,
        kept.mismatch,
        kept.unverifiable,
        kept.breakglass,
        kept.epoch,
        pruned=kept.pruned,
        pace=kept.pace,
    )


def kept_log(log: Followed) -> LogPosition:
    """How far a log was followed, to be kept."""
    return LogPosition(
        origin=log.origin,
        size=log.frontier.size,
        hashes=[value.hex() for value in log.frontier.hashes],
        last_ms=log.last_ms,
        epoch=log.epoch,
        certified=log.certified,
        match=log.match,
        mismatch=log.mismatch,
        unverifiable=log.unverifiable,
        breakglass=log.breakglass,
        pruned=log.pruned,
        pace=log.pace,
    )


def excused(item: Examined) -> bool:
    """Whether what could not be checked may lawfully be gone (openings), or it is we who cannot."""
    if not isinstance(item.record, DecisionMade):
        return False
    return item.code in {"engine_unavailable", "erased"} or (item.code == "body_missing" and item.detail.startswith("opening"))


def last_ms(items: Sequence[Examined], otherwise: int) -> int:
    """When the last of these records was made."""
    return items[-1].record.at_ms if items else otherwise


def last_epoch(items: Sequence[Examined], otherwise: int) -> int:
    """Of the newest roster under which one of these was decided."""
    return max((item.record.roster_epoch for item in items if isinstance(item.record, DecisionMade)), default=otherwise)
