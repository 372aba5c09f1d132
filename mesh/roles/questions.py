"""A question to a governor to its answer, whoever asks: what it holds, how it is, what it knows of others.

Not here: who may ask how much at a time (:mod:`mesh.roles.governor`), what is read (:mod:`mesh.roles.answers`).
"""

from collections.abc import Callable

from mesh.adapters.signer import Signer
from mesh.core.messages import BarrierAsked, HeardAsked, NodeStatus, StatusAsked, Supply, pack
from mesh.errors import Unavailable
from mesh.roles import answers
from mesh.roles.admission import Admission
from mesh.roles.performer import Performer
from mesh.roles.starting import barrier_answer

__all__ = ["answered"]


async def answered(
    asked: answers.Question,
    performer: Performer,
    admission: Admission | None,
    signer: Signer,
    *,
    status: Callable[[], NodeStatus],
    openings: bool,
) -> bytes:
    """The answer.

    Args:
        asked: the question.
        performer: whose storage is asked; one that has failed answers what needs no signature.
        admission: takes policy bundles.
        signer: of this node.
        status: how it is.
        openings: whether the asker may see what committed parameters hide.

    Raises:
        MeshError: what is wrong with the question, or with storage.
    """
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
