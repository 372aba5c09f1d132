"""Erasures with real signatures."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.erase import Erase
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from tests.support.factory import MESH, T0, Lab, sign

__all__ = ["erase", "erasing"]


def erase(lab: Lab, *intents: str, after: Statement[Erase] | None = None, by: Sequence[SecretKey] = (), **changes: Any) -> Statement[Erase]:
    """The erasure behind ``after``, of these intents, by the root threshold or by others."""
    claims = Erase(
        mesh=MESH,
        sequence=after.claims.sequence + 1 if after is not None else 1,
        previous=after.id if after is not None else "",
        since="",
        intents=sorted(intents),
        reason="test",
        issued_ms=T0,
    )
    return envelope.read(Erase, sign(msgspec.structs.replace(claims, **changes), *(by or lab.root[:2])))


def erasing(lab: Lab, *intents: str) -> Governance:
    """What governs once these are to be erased."""
    taken = extend(lab.governance, [erase(lab, *intents)])
    assert taken.refused == {}
    return taken.governance
