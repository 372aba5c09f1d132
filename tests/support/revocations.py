"""Revocations with real signatures, and a lab whose revokers are three, two of which make the threshold."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.governance import Governance
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.roster import Role
from mesh.core.law.succession import Rosters
from tests.support.factory import MESH, T0, Lab, secret, sign

__all__ = ["REVOKERS", "STREAM", "WORLD", "branch", "chained", "governance", "revocation"]

REVOKERS: Final = tuple(secret(f"revoker of the law {number}") for number in range(3))
STREAM: Final = stream_of(REVOKERS[0].public)
"""Of the first."""


def governance(lab: Lab) -> Governance:
    """The lab's, with these revokers; nothing is revoked."""
    roster = msgspec.structs.replace(lab.roster, revoker=Role(keys=[key.public for key in REVOKERS], threshold=2))
    rosters = Rosters.begin(roster, lab.governance.roster_id)
    return msgspec.structs.replace(lab.governance, roster=roster, rosters=rosters)


def revocation(
    sequence: int, previous: str, *signers: SecretKey, key: SecretKey = REVOKERS[0], target: Target | None = None, **changes: Any
) -> Statement[Revocation]:
    """One statement of the stream of ``key``, signed by it unless it is said by whom."""
    claims = Revocation(
        mesh=MESH,
        revoker=key.public,
        sequence=sequence,
        previous=previous,
        since="",
        target=target or Target(type="subject", value=f"spiffe://lab/agent/{key.public[:4]}-{sequence}"),
        spares=[],
        reason="test",
        issued_ms=T0,
    )
    return envelope.read(Revocation, sign(msgspec.structs.replace(claims, **changes), *(signers or (key,))))


def branch(
    numbers: Sequence[int], before: Statement[Revocation] | None, name: str, key: SecretKey = REVOKERS[0]
) -> list[Statement[Revocation]]:
    """Consecutive statements behind ``before``."""
    made = list[Statement[Revocation]]()
    for number in numbers:
        last = made[-1] if made else before
        made.append(revocation(number, last.id if last is not None else "", key=key, reason=name))
    return made


def chained(count: int, key: SecretKey = REVOKERS[0]) -> list[Statement[Revocation]]:
    """The first statements of a stream."""
    return branch(range(1, count + 1), None, "one history", key)


def _world() -> tuple[Statement[Revocation], ...]:
    trunk = chained(5)
    lost = sha256_hex(b"a statement that nobody ever saw")
    return (
        *trunk,
        *branch([3, 4, 5], trunk[1], "another from the third on"),
        *branch([3, 4], trunk[1], "yet another"),
        *branch([1, 2], None, "another from the first on"),
        revocation(7, lost, reason="behind a gap"),
        *chained(3, REVOKERS[1]),
        revocation(5, lost, key=REVOKERS[1], reason="behind a gap"),
    )


WORLD: Final = _world()
"""What two revokers said: one with four histories, one honestly. Any part of it may be held."""
