"""An approval on its way from hand to hand: the signed statement, and in full what it approves, so that who signs next can read it.

The statement holds a digest only, because it will stand in records for ever. What stands beside it is believed only if it has that
digest. A grant says everything itself.

Not here: what counts (:mod:`mesh.core.run.approval`).
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.run.approval import Approval, Effect, Said, read_said
from mesh.core.run.decision import PolicyName
from mesh.errors import Refused
from mesh.limits import APPROVALS_MAX, ENVELOPE_BYTES_MAX

__all__ = ["Paper", "Unfolded", "fold", "statement_in", "unfold"]


class Unfolded(NamedTuple):
    """What was in a file."""

    statement: Statement[Said]
    """With claims of which nothing is believed."""
    effect: Effect | None
    """What it is about, if it is an approval."""
    needs: list[str]
    """What policy asked for, as whoever drew it up was told: advice."""


class Paper(Payload):
    """One file."""

    effect: Annotated[list[Effect], msgspec.Meta(max_length=1)]
    """What an approval approves; nothing for a grant."""
    needs: Annotated[list[PolicyName], msgspec.Meta(max_length=APPROVALS_MAX)]
    """What policy asked for when it was denied, such as ``2 of security``: for those who sign next, and believed by nobody else."""
    statement: msgspec.Raw
    """Envelope of the approval or grant, with the lines of those who have signed so far."""


def fold(statement: Statement[Said], effect: Effect | None, needs: Sequence[str] = ()) -> bytes:
    """The file's bytes."""
    shown = [] if effect is None else [effect]
    return canonical.encode(Paper(effect=shown, needs=list(needs), statement=msgspec.Raw(statement.envelope)))


def unfold(data: bytes) -> Unfolded:
    """What is in the file; only that statement and effect fit together is checked.

    Raises:
        Refused: the codec's codes; ``approval_mismatch`` if the statement is about another effect.
    """
    paper = canonical.decode(Paper, data, bytes_max=ENVELOPE_BYTES_MAX)
    statement = read_said(bytes(paper.statement))
    effect = paper.effect[0] if paper.effect else None
    wanted = statement.claims.effect if isinstance(statement.claims, Approval) else None
    if wanted != (None if effect is None else effect.digest):
        raise Refused("approval_mismatch", "the statement is not about the effect that stands beside it")
    return Unfolded(statement, effect, paper.needs)


def statement_in(data: bytes) -> bytes:
    """The envelope in such a file, or ``data`` itself if it is an envelope: what goes with an intent.

    Raises:
        Refused: as :func:`unfold`.
    """
    try:
        envelope.identify(data)
    except Refused:
        return unfold(data).statement.envelope
    return data
