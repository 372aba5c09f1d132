"""Parameters of an intent: public ones stand in it, committed ones only as salted commitments.

A committed parameter's *opening* (name, salt, value) travels beside the intent, is stored apart, and can be erased: the
intent, the record and every proof stay valid, because they only ever contained the commitment. After erasure a replay is
*unverifiable*, never a mismatch.

Not here: which parameter must be committed (:mod:`mesh.core.law.policy`, per action).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Hex16, Hex32, Name, Params, Payload, Scalar, sha256_hex
from mesh.errors import Refused
from mesh.limits import LIST_ITEMS_MAX, PARAMS_MAX

__all__ = ["Commitments", "Opening", "Value", "commit", "open_all", "params_digest"]

Value = Scalar | Annotated[list[Scalar], msgspec.Meta(max_length=LIST_ITEMS_MAX)]
Commitments = Annotated[dict[Name, Hex32], msgspec.Meta(max_length=PARAMS_MAX)]
"""Parameter name to commitment."""


class Opening(Payload):
    """What a commitment hides."""

    name: Name
    salt: Hex16
    value: Value


def commit(opening: Opening) -> str:
    """The commitment: SHA-256 over the canonical opening, lowercase hex. The 128-bit salt stops guessing."""
    return sha256_hex(canonical.encode(opening))


def open_all(public: Params, committed: Mapping[str, str], openings: Iterable[Opening]) -> Params:
    """All parameters as policy sees them.

    Raises:
        Refused: ``opening_mismatch`` if an opening is missing, doubled, superfluous, or does not match its commitment;
            ``params_mismatch`` if one name is both public and committed.
    """
    values = dict(public)
    left = dict(committed)
    for opening in openings:
        if left.pop(opening.name, None) != commit(opening):
            raise Refused("opening_mismatch", opening.name)
        if opening.name in values:
            raise Refused("params_mismatch", f"{opening.name} is public and committed")
        values[opening.name] = opening.value
    if left:
        raise Refused("opening_mismatch", f"no opening for {min(left)}")
    return values


class _Digestible(Payload):
    params: Params
    committed: Commitments


def params_digest(params: Params, committed: Commitments) -> str:
    """One digest of all parameters, from what the intent contains: computable by anyone, also after erasure."""
    return sha256_hex(canonical.encode(_Digestible(params=params, committed=committed)))
