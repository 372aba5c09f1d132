"""Resolves with real signatures, and a world of streams that fork, are resolved, and fork again."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.policy import Manifest
from mesh.core.law.resolve import Resolve
from mesh.core.law.travel import Said, link_of
from tests.support import revocations
from tests.support.factory import MESH, T0, Lab, sign
from tests.support.halts import halt, resume
from tests.support.revocations import branch

__all__ = ["LAB", "WORLD", "resolve"]

LAB: Final = Lab()


def resolve(
    before: Statement[Resolve] | None, head: Statement[Said], *aside: Statement[Said], by: Sequence[SecretKey] = (), **changes: Any
) -> Statement[Resolve]:
    """The resolve behind ``before``: the stream of ``head`` counts up to there, and ``aside`` end its other histories."""
    claims = Resolve(
        mesh=MESH,
        sequence=before.claims.sequence + 1 if before is not None else 1,
        previous=before.id if before is not None else "",
        since="",
        stream=link_of(head)[0],
        head=head.id,
        aside=sorted(item.id for item in aside),
        reason="test",
        issued_ms=T0,
    )
    return envelope.read(Resolve, sign(msgspec.structs.replace(claims, **changes), *(by or LAB.root[:2])))


def _world() -> dict[str, Statement[Said]]:
    first, other = halt(None), halt(None, reason="another first")
    second, beside = halt(first), halt(other, reason="behind the other")
    lifted = resume(second, first, second, other, beside)
    trunk = revocations.chained(3)
    manifest = envelope.read(Manifest, LAB.manifest_envelope)
    next_one, twin = LAB.next_policy(manifest), LAB.next_policy(manifest, reason="another second")
    begins, late = (LAB.activation(next_one, ([], T0 + ms)) for ms in (1_000, 7_000))
    choose_first = resolve(None, first, other)
    choose_policy = resolve(choose_first, next_one, twin)
    choose_begins = resolve(choose_policy, begins, late)
    choose_lifted = resolve(choose_begins, lifted, beside)
    choose_other = resolve(choose_lifted, beside, lifted, reason="on second thoughts")
    return {
        "first": first,
        "second": second,
        "lifted": lifted,
        "other": other,
        "beside": beside,
        "again": halt(lifted, reason="again"),
        "and again": halt(lifted, reason="and again"),
        "loose": halt(None, sequence=8, previous=sha256_hex(b"a statement that nobody ever saw")),
        **{f"revoked {at}": item for at, item in enumerate(trunk)},
        "revoked beside": branch([2], trunk[0], "another second")[0],
        "manifest": manifest,
        "next": next_one,
        "twin": twin,
        "behind the twin": LAB.next_policy(twin),
        "begins": begins,
        "late": late,
        "choose first": choose_first,
        "choose policy": choose_policy,
        "choose begins": choose_begins,
        "choose lifted": choose_lifted,
        "choose other": choose_other,
        "choose revoked": resolve(choose_other, trunk[1]),
        "forked resolve": resolve(choose_begins, other, second, reason="a second fourth"),
    }


WORLD: Final = _world()
"""By name. Any part of it may be held."""
