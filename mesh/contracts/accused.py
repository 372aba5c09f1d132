"""Proofs against members of the example world: one has signed two roots for one size, another one a decision that nobody else would make.

Not here: what else was said there (:mod:`mesh.contracts.story`).
"""

import msgspec

from mesh.contracts.example import MESH, NODE, Signed, hex32, key, sign, start_ms
from mesh.core.law.fraud import accuse
from mesh.core.law.unlawful import unlawful_of
from mesh.core.log.checkpoint import Checkpoint, log_line, log_origin
from mesh.core.log.merkle import Frontier, inclusion_path, tree_get
from mesh.core.log.note import Note
from mesh.core.log.record import Refusal
from mesh.core.messages import Accusation

__all__ = ["REFUSED", "accusation", "refusal_by", "two_roots", "unlawful"]

_LIAR = "us-1"
_INDEX = 41
_ORIGIN = log_origin(MESH, _LIAR, 1)
REFUSED = Refusal(
    mesh=MESH,
    member=NODE,
    origin=_ORIGIN,
    index=_INDEX,
    leaf=hex32("another record"),
    reason="wrong",
    code="replay_mismatch",
    at_ms=start_ms(7),
)
"""What the governor whose log is shown says of a record of another one."""


def two_roots() -> Signed:
    """That a member's log key has signed two roots for one size: nobody's signature stands on the envelope."""
    liar = key("sa-1/log")
    origin = log_origin(MESH, "sa-1", 1)
    texts = [Checkpoint(origin, 2, bytes.fromhex(hex32(f"root {half}"))).to_text() for half in ("one", "other")]
    proof = accuse(MESH, liar.public, [(text, log_line(origin, liar.public, liar.sign(text))) for text in texts])
    return sign("fraud", proof.claims)


def refusal_by(member: str) -> Signed:
    """The same by some member."""
    return sign("refusal", msgspec.structs.replace(REFUSED, member=member), f"{member}/decision")


def unlawful() -> Signed:
    """That f + 1 members refuse what a log key has signed."""
    note, path = _signed()
    refusals = [refusal_by(member).envelope for member in (NODE, "ap-1")]
    proof = unlawful_of(MESH, key(f"{_LIAR}/log").public, note, _INDEX, REFUSED.leaf, path, refusals)
    return sign("unlawful", proof.claims)


def accusation() -> Accusation:
    """What one of them says on the bus."""
    note, path = _signed()
    return Accusation(note=note.decode(), path=path, refusal=msgspec.Raw(refusal_by(NODE).envelope))


def _signed() -> tuple[bytes, list[str]]:
    """The checkpoint over that record, and the path to it."""
    leaves = [bytes.fromhex(hex32("another record" if index == _INDEX else f"leaf {index}")) for index in range(_INDEX + 2)]
    liar, text = key(f"{_LIAR}/log"), Checkpoint(_ORIGIN, len(leaves), Frontier.empty().extend(leaves).root()).to_text()
    path = inclusion_path(tree_get(leaves), _INDEX, len(leaves))
    return Note(text, (log_line(_ORIGIN, liar.public, liar.sign(text)),)).encode(), [value.hex() for value in path]
