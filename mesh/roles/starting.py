"""What the process does for a start that others must answer: answering theirs, and saying in the log what it waits for.

Not here: when a start is through (:mod:`mesh.protocol.barrier`), asking (:mod:`mesh.roles.peers`).
"""

import asyncio
import logging
from typing import Final

import msgspec

from mesh.adapters.signer import Signer
from mesh.core.bytes import envelope
from mesh.core.messages import BarrierAnswer, BarrierAsked, pack
from mesh.errors import Refused
from mesh.protocol import barrier
from mesh.protocol.members import logs_of
from mesh.protocol.stored import StoredLog
from mesh.roles.answers import shown
from mesh.roles.performer import Performer

__all__ = ["barrier_answer", "fewer_than_signed", "watch_start"]

_LOOK_S: Final = 0.1
_SAY_AGAIN_S: Final = 10.0

_log = logging.getLogger(__name__)


async def barrier_answer(performer: Performer, signer: Signer, asked: BarrierAsked) -> bytes:
    """The signed answer to another member's start: what is durable here, and what was heard since.

    Raises:
        Refused: ``unknown_member``.
    """
    state, me = performer.state, performer.machine.me
    roster = state.governance.roster
    notes, heartbeat = await shown(performer.store, roster, me, roster.member(asked.asker))
    notes += barrier.heard_notes(state.mirrors, state.log, roster.origin(roster.member(asked.asker)))
    draft = barrier.answer_draft(roster, me, asked, state.governance.frontier, notes=notes, heartbeat=heartbeat)
    signed = envelope.assemble(draft.payload_type, draft.payload, {me.decision_key: signer.sign("decision", draft.message)})
    kept = [await performer.store.note("certificate", origin, latest=True) for origin in logs_of(state.governance)]
    certificates = barrier.certificates_in((item.note for item in kept if item is not None), by=me.name, nonce=asked.nonce)
    beats = [msgspec.Raw(heartbeat)] if heartbeat else []
    return pack(BarrierAnswer(barrier=msgspec.Raw(signed), heartbeat=beats, certificates=certificates))


def fewer_than_signed(own: StoredLog) -> bool:
    """Whether the own log is shorter than what was signed of it."""
    return own.log is not None and own.log.size > own.frontier.size


async def watch_start(performer: Performer, name: str) -> None:
    """Until the start is through, say in the log what it waits for: at once if storage was set back, and again and again."""
    said, since_s = "", 0.0
    while not performer.failed and (waiting := performer.state.barrier) is not None:
        try:
            barrier.check(waiting, performer.state.governance, now_ms=performer.clock.now_ms())
        except Refused as refusal:
            if since_s >= _SAY_AGAIN_S or (refusal.code == "storage_rolled_back" != said):
                said, since_s = refusal.code, 0.0
                _log.error("%s signs nothing: %s", name, refusal)
        await asyncio.sleep(_LOOK_S)
        since_s += _LOOK_S
