"""What a governor of a world answers from its disk to whoever asks about the past, and what it makes of others' answers."""

from collections.abc import Sequence

import msgspec

from mesh.core.bytes import envelope
from mesh.core.law.roster import Member, Roster
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.record import read_record
from mesh.core.messages import BarrierAnswer, BarrierAsked, Pull, RefusedAnswer, SyncAnswer, pack, unpack
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.barrier import answer_draft, certificates_in, heard_notes
from mesh.protocol.events import Event, HeartbeatArrived, LawArrived, LineageArrived
from mesh.protocol.members import is_current, logs_of
from mesh.protocol.serving import body_ids, fitting, opening_ids, pull_answer, shown_paths
from mesh.protocol.state import GovernorState
from mesh.testing.world.disk import Disk
from mesh.testing.world.steps import Host

__all__ = ["bodies", "law_answered", "pulled", "records_answered", "sync_answered", "told"]


def told(asked: BarrierAsked, host: Host, roster: Roster, me: Member, state: GovernorState | None) -> bytes:
    """What another member that starts has signed."""
    if state is None:
        return pack(RefusedAnswer(code="unavailable", detail=""))
    try:
        asker = roster.member(asked.asker)
    except Refused as refusal:
        return pack(RefusedAnswer(code=refusal.code, detail=""))
    notes, heartbeat = host.disk.shown(roster, me, asker)
    notes += heard_notes(state.mirrors, state.log, roster.origin(asker))
    draft = answer_draft(roster, me, asked, state.governance.frontier, notes=notes, heartbeat=heartbeat)
    signature = host.sign("decision", draft.message)
    said = envelope.assemble(draft.payload_type, draft.payload, {me.decision_key: signature})
    kept = (host.disk.newest("certificate", origin) for origin in logs_of(state.governance))
    beats = [msgspec.Raw(heartbeat)] if heartbeat else []
    return pack(
        BarrierAnswer(
            barrier=msgspec.Raw(said), heartbeat=beats, certificates=certificates_in(filter(None, kept), by=me.name, nonce=asked.nonce)
        )
    )


def pulled(ask: Pull, disk: Disk, state: GovernorState | None) -> bytes:
    """Records of a log that is held, with what they name."""
    gone = disk.pruned(ask.origin, ask.first, min(ask.count, BATCH_RECORDS_MAX)) if ask.origin in disk.floors else []
    leaves = disk.records(ask.origin, ask.first, min(ask.count, BATCH_RECORDS_MAX)) if not gone else []
    records = [read_record(leaf) for leaf in leaves]
    openings = {key: disk.openings[key] for record in records for key in opening_ids(record) if key in disk.openings}
    note = disk.certificate(ask.origin, ask.first)
    if note and state is not None and not is_current(note, state.governance):
        note = disk.newest("certificate", ask.origin)
    if not note and state is not None and state.log.origin == ask.origin:
        note = state.log.note
    note = note or disk.newest("certificate", ask.origin)
    held = bodies(disk, leaves)
    leaves = leaves[: fitting(leaves, held, openings, note)]
    size = read_checkpoint(note).size if note else 0
    path, start = shown_paths(disk.hashes(ask.origin), ask.first, ask.first + len(leaves) + len(gone), size)
    return pull_answer(ask.origin, ask.first, leaves, held, openings, note, path=path, start=start, pruned=gone)


def bodies(disk: Disk, leaves: Sequence[bytes]) -> dict[str, bytes]:
    """The statements that these records name, as far as they are held."""
    return disk.held(dict.fromkeys(key for leaf in leaves for key in body_ids(read_record(leaf))))


def sync_answered(data: bytes) -> Event:
    """A heartbeat that was asked for."""
    return HeartbeatArrived(bytes(unpack(SyncAnswer, data).heartbeat))


def law_answered(member: str, data: bytes) -> Event:
    """Governance that ``member`` was asked for."""
    return LawArrived(data, node=member)


def records_answered(member: str, data: bytes) -> Event:
    """Records that ``member`` was asked for."""
    return LineageArrived(data, pulled=True, node=member)
