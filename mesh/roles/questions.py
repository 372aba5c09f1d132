"""A question to a governor to its answer, whoever asks: what it holds, how it is, what it knows of others.

Not here: who may ask how much at a time (:mod:`mesh.roles.governor`), what is read (:mod:`mesh.roles.answers`).
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from mesh.adapters.bus_message import Message
from mesh.adapters.signer import Signer
from mesh.core.messages import BarrierAsked, HeardAsked, NodeStatus, RefusedAnswer, StatusAsked, Supply, pack
from mesh.errors import Alarm, MeshError, Unavailable
from mesh.roles import answers
from mesh.roles.admission import Admission
from mesh.roles.performer import Performer
from mesh.roles.starting import barrier_answer
from mesh.roles.waiters import reply

__all__ = ["answered", "reply_with"]

_log = logging.getLogger(__name__)


async def answered(
    asked: answers.Question,
    performing: Callable[[], Performer],
    admission: Admission | None,
    signer: Signer,
    *,
    status: Callable[[], NodeStatus],
    openings: bool,
) -> bytes:
    """The answer.

    Args:
        asked: the question.
        performing: whose storage is asked; one that has failed answers what needs no signature.
        admission: takes policy bundles.
        signer: of this node.
        status: how it is.
        openings: whether the asker may see what committed parameters hide.

    Raises:
        MeshError: what is wrong with the question, or with storage.
    """
    performer = performing()
    if isinstance(asked, StatusAsked):
        return pack(status())
    if isinstance(asked, Supply):
        return admission.supplied(bytes(asked.bundle)) if admission is not None else b""
    if isinstance(asked, BarrierAsked):
        if performer.failed:  # what it would show may be less than it has heard
            raise Unavailable("unavailable", "its storage takes nothing")
        return await barrier_answer(performer, signer, asked)
    if isinstance(asked, HeardAsked):
        return await answers.heard(performer.store, performer.state.words, asked)
    return await answers.looked_up(performer.store, asked, performer.state, openings=openings)


async def reply_with(message: Message, answering: Awaitable[bytes], counters: Counter[str]) -> None:
    """Answer ``message`` with what comes, or with why nothing does.

    Raises:
        Alarm: what was met; whoever asked was told ``unavailable``.
    """
    try:
        answer = await answering
    except Alarm:
        await reply(message, pack(RefusedAnswer(code="unavailable", detail="")), counters)
        raise
    except MeshError as error:
        answer = pack(RefusedAnswer(code=error.code, detail=error.detail[:200]))
    except Exception:  # noqa: BLE001 -- it changed nothing, and nobody may stop a node by asking
        _log.exception("a question")
        counters["failed_questions"] += 1
        answer = pack(RefusedAnswer(code="internal_error", detail=""))
    await reply(message, answer, counters)
