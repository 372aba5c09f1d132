"""An approval on its way from hand to hand: the signed statement, and in full what it approves, so that who signs next can read it.

The statement holds a digest only, because it will stand in records for ever. What stands beside it is believed only if it has that
digest. A grant says everything itself.

Not here: what counts (:mod:`mesh.core.run.approval`).
"""

from typing import Annotated

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.run.approval import Approval, Effect, Said, read_said
from mesh.errors import Refused
from mesh.limits import ENVELOPE_BYTES_MAX

__all__ = ["Paper", "fold", "statement_in", "unfold"]


class Paper(Payload):
    """One file."""

    effect: Annotated[list[Effect], msgspec.Meta(max_length=1)]
    """What an approval approves; nothing for a grant."""
    statement: msgspec.Raw
    """Envelope of the approval or grant, with the lines of those who have signed so far."""


def fold(statement: Statement[Said], effect: Effect | None) -> bytes:
    """The file's bytes."""
    return canonical.encode(Paper(effect=[] if effect is None else [effect], statement=msgspec.Raw(statement.envelope)))


def unfold(data: bytes) -> tuple[Statement[Said], Effect | None]:
    """The statement, with claims of which nothing is believed, and the effect that it is about.

    Raises:
        Refused: the codec's codes; ``approval_mismatch`` if the statement is about another effect.
    """
    paper = canonical.decode(Paper, data, bytes_max=ENVELOPE_BYTES_MAX)
    statement = read_said(bytes(paper.statement))
    effect = paper.effect[0] if paper.effect else None
    wanted = statement.claims.effect if isinstance(statement.claims, Approval) else None
    if wanted != (None if effect is None else effect.digest):
        raise Refused("approval_mismatch", "the statement is not about the effect that stands beside it")
    return statement, effect


def statement_in(data: bytes) -> bytes:
    """The envelope in such a file, or ``data`` itself if it is an envelope: what goes with an intent.

    Raises:
        Refused: as :func:`unfold`.
    """
    try:
        envelope.identify(data)
    except Refused:
        return unfold(data)[0].envelope
    return data
