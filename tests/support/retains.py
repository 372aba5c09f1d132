"""Retentions with real signatures."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.erase import Erase
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.retain import Floor, Retain
from tests.support.factory import MESH, T0, Lab, sign

__all__ = ["retain", "retaining"]


def retain(
    lab: Lab,
    below: Mapping[str, int],
    *,
    after: Statement[Retain] | Statement[Erase] | None = None,
    by: Sequence[SecretKey] = (),
    **changes: Any,
) -> Statement[Retain]:
    """The retention behind ``after``, with a floor for each of these logs, by the root threshold or by others."""
    claims = Retain(
        mesh=MESH,
        sequence=after.claims.sequence + 1 if after is not None else 1,
        previous=after.id if after is not None else "",
        since="",
        floors=[Floor(origin=origin, below=index) for origin, index in sorted(below.items())],
        archive="tape 7",
        reason="test",
        issued_ms=T0,
    )
    return envelope.read(Retain, sign(msgspec.structs.replace(claims, **changes), *(by or lab.root[:2])))


def retaining(lab: Lab, floors: Mapping[str, int]) -> Governance:
    """What governs once records below these floors need not be kept."""
    taken = extend(lab.governance, [retain(lab, floors)])
    assert taken.refused == {}
    return taken.governance
