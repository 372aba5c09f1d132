"""Halts and resumes with real signatures, by two of the revokers of :mod:`tests.support.revocations`."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.halt import Halt, halt_stream
from tests.support.factory import MESH, T0, sign
from tests.support.revocations import REVOKERS

__all__ = ["DOMAIN", "SAID", "STREAM", "halt", "resume"]

DOMAIN: Final = "payments"
STREAM: Final = halt_stream(DOMAIN)


def halt(
    before: Statement[Halt] | None, *signers: SecretKey, lifts: Sequence[str] = (), reason: str = "test", **changes: Any
) -> Statement[Halt]:
    """The statement behind ``before``, signed by the first two revokers unless it is said by whom."""
    claims = Halt(
        mesh=MESH,
        domain=DOMAIN,
        sequence=before.claims.sequence + 1 if before is not None else 1,
        previous=before.id if before is not None else "",
        since="",
        lifts=list(lifts),
        reason=reason,
        issued_ms=T0,
    )
    return envelope.read(Halt, sign(msgspec.structs.replace(claims, **changes), *(signers or REVOKERS[:2])))


def resume(before: Statement[Halt], *lifted: Statement[Halt], **changes: Any) -> Statement[Halt]:
    """What lifts these, behind ``before``."""
    return halt(before, lifts=[item.id for item in lifted], **changes)


def _said() -> tuple[Statement[Halt], ...]:
    first = halt(None)
    second = halt(first)
    lifted = resume(second, first, second)
    third = halt(lifted)
    return (
        *(first, second, lifted, third, resume(third, third)),
        resume(first, first, reason="another after the first"),
        halt(None, sequence=8, previous=sha256_hex(b"a statement that nobody ever saw")),
        resume(first, first, sequence=9, previous=sha256_hex(b"nor this one")),
    )


SAID: Final = _said()
"""A chain of five, what forks it, and a halt and a resume behind a gap. Any part of it may be held."""
