"""How a governor starts: from what its storage holds, it takes up exactly where its signatures left off.

Rules
-----
1. The incarnation rises before anything is signed, so no heartbeat of this boot repeats one of an earlier boot.
2. A checkpoint that was persisted and has no certificate is outstanding: it is signed and announced again with the same bytes.
3. Nothing is fresh yet: freshness begins empty.
4. A start is a leap of time: nobody has borne out what the clock says. So nothing is recorded yet, not even the start.

Not here: collecting what peers know of this node's own signatures.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import restore, with_bundle
from mesh.core.law.policy import Bundle
from mesh.core.law.travel import Said
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.merkle import Frontier
from mesh.errors import Alarm
from mesh.protocol.freshness import Freshness, leap
from mesh.protocol.gossip import put, told
from mesh.protocol.governor import GovernorState, Machine
from mesh.protocol.hearing import NOBODY, Words
from mesh.protocol.lineage import LogState, Outstanding
from mesh.protocol.mirror import Mirror
from mesh.protocol.step import Head, PutBundle, SetMeta, Step

__all__ = ["INCARNATION", "Stored", "StoredLog", "begin"]

INCARNATION = "incarnation"


class StoredLog(msgspec.Struct, frozen=True, kw_only=True):
    """What storage knows of one log."""

    frontier: Frontier
    last_ms: int
    """Time of the last record; 0 without records."""
    certified: int
    log: Head | None = None
    witness: Head | None = None
    attest: Head | None = None
    marks: tuple[Frontier, ...] = ()
    """Frontiers at multiples of ``CHECKPOINT_RECORDS_MAX`` past the certificate; for the own log."""
    refused: int = -1
    conflicted: bool = False


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What storage knows."""

    incarnation: int
    """Of the last boot; 0 before the first."""
    own: StoredLog
    mirrors: Mapping[str, StoredLog]
    """By origin; a log never seen may be absent."""
    law: tuple[Statement[Said], ...] = ()
    """Governance statements, believed before they were stored."""
    heard: Words = NOBODY
    """What enforcers said last that they have heard."""


def begin(
    machine: Machine,
    stored: Stored,
    *,
    boot: str,
    now_ms: int,
    given: Sequence[Statement[Said]] = (),
    admitted: Mapping[str, Bundle] = MappingProxyType({}),
) -> Step[GovernorState]:
    """The first step of a boot.

    Args:
        machine: the governor.
        stored: what storage holds.
        boot: 32 fresh random bytes, hex.
        now_ms: steady time.
        given: governance statements that the node is configured with; ``machine.governance`` believes them.
        admitted: manifest id to the bundle that its engine can decide by already.

    Raises:
        Alarm: ``storage_rolled_back`` when more was signed than is held.
    """
    roster, me = machine.governance.roster, machine.me
    origin = roster.origin(me)
    log = _own_log(origin, stored.own, now_ms=now_ms)
    mirrors = {
        roster.origin(member): _mirror(roster.origin(member), stored.mirrors.get(roster.origin(member)))
        for member in roster.members
        if member.name != me.name
    }
    governance = restore(machine.governance, stored.law)
    for manifest, bundle in admitted.items():
        governance = with_bundle(governance, manifest, bundle)
    held, incarnation = {statement.id for statement in stored.law}, stored.incarnation + 1
    new = [statement for statement in given if statement.id not in held]
    state = GovernorState(
        incarnation=incarnation,
        sequence=0,
        governance=governance,
        asking={},
        untold=(("started", machine.governance.roster_id), *(told(statement) for statement in new)),
        news=False,
        log=log,
        mirrors=mirrors,
        # Where there are not more than f others nobody could ever bear this clock out: there it must do.
        fresh=leap(Freshness.begin(boot)) if len(roster.members) - 1 > roster.f else Freshness.begin(boot),
        was_fresh=False,
        beat_ms=0,
        noise={},
        noise_ms=0,
        heard=stored.heard,
    )
    kept = [PutBundle(law.manifest.digest, canonical.encode(law.bundle)) for laws in governance.laws.values() for law in laws if law.bundle]
    return Step(state, (SetMeta(INCARNATION, incarnation), *(put(statement) for statement in new), *kept))


def _own_log(origin: str, stored: StoredLog, *, now_ms: int) -> LogState:
    head, outstanding = stored.log, None
    if head is not None and head.size > stored.frontier.size:
        raise Alarm("storage_rolled_back", f"signed {head.size} records of {origin}, hold {stored.frontier.size}")
    if head is not None and head.size > stored.certified:
        outstanding = Outstanding(head, Checkpoint(origin, head.size, head.root).to_text(), {}, 0)
    return LogState(
        origin=origin,
        frontier=stored.frontier,
        last_ms=stored.last_ms,
        announced=stored.certified,
        outstanding=outstanding,
        certified=stored.certified,
        note=b"",
        tick_ms=min(now_ms, stored.last_ms),
        signed_s=head.time_s if head is not None else 0,
        marks=stored.marks,
        heads=(head,) if head is not None else (),
    )


def _mirror(origin: str, stored: StoredLog | None) -> Mirror:
    if stored is None:
        stored = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
    return Mirror(
        origin=origin,
        frontier=stored.frontier,
        last_ms=stored.last_ms,
        staged=(),
        witnessed=stored.witness,
        attested=stored.attest,
        wanted=stored.frontier.size,
        certified=stored.certified,
        asked_ms=0,
        asked=0,
        waiting_ms=0,
        missing=-1,
        refused=stored.refused,
        conflicted=stored.conflicted,
    )
