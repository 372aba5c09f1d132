"""Every kind of proof against a member, for whoever takes, keeps or judges one, whichever it is.

Not here: the kinds (:mod:`mesh.core.law.fraud`, :mod:`mesh.core.law.unlawful`), what they share (:mod:`mesh.core.law.proof`).
"""

from typing import Final, cast

from mesh.core.bytes.envelope import Statement
from mesh.core.law import fraud, unlawful
from mesh.core.law.fraud import Fraud, judge_fraud, read_fraud
from mesh.core.law.proof import Caught, check_unsigned
from mesh.core.law.succession import Rosters
from mesh.core.law.unlawful import Unlawful, judge_unlawful, read_unlawful

__all__ = ["PROOFS", "AnyProof", "admit_proof", "encode_proof", "is_proof", "judge_proof", "read_proof"]

AnyProof = Fraud | Unlawful
PROOFS: Final = (Fraud, Unlawful)


def is_proof(data: bytes) -> bool:
    """Whether a file says that it is one; nothing in it is believed."""
    return any(f'"format":"{name}"'.encode() in data for name in (fraud.FORMAT, unlawful.FORMAT))


def read_proof(data: bytes) -> Statement[AnyProof]:
    """What a file says. Nothing in it is believed.

    Raises:
        Refused: the codec's codes.
    """
    return read_unlawful(data) if f'"format":"{unlawful.FORMAT}"'.encode() in data else read_fraud(data)


def encode_proof(said: Statement[AnyProof]) -> bytes:
    """The file's bytes."""
    return said.payload


def judge_proof(said: Statement[AnyProof], rosters: Rosters) -> Caught:
    """What it proves by these rosters, whatever is on the envelope.

    Raises:
        Refused: as the function that judges its kind.
    """
    if isinstance(said.claims, Unlawful):
        return judge_unlawful(cast("Statement[Unlawful]", said), rosters)
    return judge_fraud(cast("Statement[Fraud]", said), rosters)


def admit_proof(said: Statement[AnyProof], rosters: Rosters) -> Caught:
    """As :func:`judge_proof`; ``bad_signature`` also if its envelope has somebody's line."""
    check_unsigned(said)
    return judge_proof(said, rosters)
