"""Refusals of f + 1 members become a proof against the owner of a log, whoever was there when each was said.

Rules
-----
1. Who finds a record wrong says so with what shows that it is its owner's (:func:`mesh.protocol.refusing.accuse_of`), and says it again
   after :data:`AGAIN_MS`, then ever more rarely, every :data:`AGAIN_MS_MAX` at last, also after a restart, until a proof against its owner
   is held here: a message lost delays, and whoever starts late hears it. That is one signature and one message of some 2 kB for each
   log that is refused, and nothing else.
2. Not of what is known to be final, and of no owner who has left: there is nothing to freeze, or others have agreed to it.
3. Of each member the newest refusal of a log is kept, so all of them are as many as there are members, whatever they say. One that was
   heard already is read and compared; none of its signatures is checked again.
4. Those of f + 1 members about one record, my own among them like any other's, are a proof. I need not find it wrong myself: one of them is
   honest, and did.
5. A refusal is believed by the roster in force, and the record by its log's own signature: nobody can refuse what was never written.

Not here: what the proof proves, and to whom (:mod:`mesh.core.law.unlawful`), what follows (:mod:`mesh.protocol.gossip`).
"""

from typing import Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.law.unlawful import check_signed, unlawful_of
from mesh.core.log.record import Refusal
from mesh.core.messages import Accusation, unpack
from mesh.errors import Refused
from mesh.limits import ENVELOPE_BYTES_MAX
from mesh.protocol.holding import Mirror, MirrorContext
from mesh.protocol.refusing import say_again
from mesh.protocol.step import Effect

__all__ = ["AGAIN_MS", "AGAIN_MS_MAX", "accused_log", "again_due", "take_accusation"]

AGAIN_MS: Final = 5_000
"""Between a refusal and the same again, well within what a person waits for; twice as long after each."""
AGAIN_MS_MAX: Final = 40_000
"""What is not proven by then lacks members; streams keep what is said, and must not be filled by it."""


def again_due(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Say my refusal again (rule 1)."""
    if not state.refusal or _over(state, context, state.refused):
        return state, []
    if context.now_ms - state.refusal_ms < min(AGAIN_MS << min(state.refusal_said, 8), AGAIN_MS_MAX):
        return state, []
    said = say_again(unpack(Accusation, state.refusal), context.me)
    return msgspec.structs.replace(state, refusal_ms=context.now_ms, refusal_said=state.refusal_said + 1), said


def accused_log(data: bytes) -> str:
    """Of which log an accusation is; nothing in it is believed.

    Raises:
        Refused: the codec's codes.
    """
    said = unpack(Accusation, data, bytes_max=ENVELOPE_BYTES_MAX)
    return envelope.read(Refusal, bytes(said.refusal)).claims.origin


def take_accusation(state: Mirror, data: bytes, context: MirrorContext) -> Mirror:
    """Take a member's refusal of a record of this log; with f others, the proof is added to what this step has found.

    Raises:
        Refused: ``unknown_member``, ``bad_signature`` for who says so; ``malformed``, ``bad_checkpoint``, ``bad_proof`` for what is not
            shown.
    """
    said = unpack(Accusation, data, bytes_max=ENVELOPE_BYTES_MAX)
    refusal = envelope.read(Refusal, bytes(said.refusal))
    claims, roster = refusal.claims, context.governance.roster
    if state.refusals.get(claims.member) == data or claims.reason != "wrong" or not said.note or _over(state, context, claims.index):
        return state
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    if not refusal.sealed_by((roster.member(claims.member).decision_key,)):
        raise Refused("bad_signature", f"a refusal in the name of {claims.member}")
    leaf, path = bytes.fromhex(claims.leaf), [bytes.fromhex(value) for value in said.path]
    check_signed(said.note.encode(), state.origin, context.owner.log_key, claims.index, leaf, path)
    state = msgspec.structs.replace(state, refusals={**state.refusals, claims.member: data})
    alike = list[bytes]()
    for member, kept in sorted(state.refusals.items()):
        other = envelope.read(Refusal, bytes(unpack(Accusation, kept).refusal))
        if (other.claims.index, other.claims.leaf) == (claims.index, claims.leaf) and member != context.owner.name:
            alike.append(other.envelope)
    if len(alike) > roster.f:
        enough = alike[: roster.f + 1]
        proof = unlawful_of(roster.mesh, context.owner.log_key, said.note.encode(), claims.index, claims.leaf, said.path, enough)
        context.proofs.append(proof)
    return state


def _over(state: Mirror, context: MirrorContext, index: int) -> bool:
    """Whether nothing is to come of a refusal of that record any more (rule 2)."""
    return context.caught or state.left or index < max(state.goal, state.certified)
