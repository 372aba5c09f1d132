"""Proofs against members, for `mesh fraud`: as rows, in words, and as what verifying a file says.

Not here: what such a proof is (:mod:`mesh.core.law.fraud`), asking members (:mod:`mesh.cli.conflicts`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from mesh.core.bytes.envelope import Statement
from mesh.core.law.fraud import PREFIX, Caught, Fraud, judge_fraud
from mesh.core.law.governance import Governance
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said

__all__ = ["Accused", "accused_of", "facts", "is_meant", "told"]


class Accused(NamedTuple):
    """One proof that members hold."""

    proof: Statement[Fraud]
    caught: Caught
    frozen: bool
    """Whether the roster in force still gives the key to that member."""
    held_by: list[str]
    """Members that sign that they hold a proof against that key."""


def accused_of(statements: Sequence[Statement[Said]], rosters: Rosters, now: Governance, held_by: dict[str, list[str]]) -> list[Accused]:
    """The proofs among these statements, by key; ``held_by`` has stream to members."""
    found = dict[str, Accused]()
    for statement in statements:
        if isinstance(statement.claims, Fraud) and statement.claims.key not in found:
            proof = cast("Statement[Fraud]", statement)
            caught = judge_fraud(proof, rosters)
            stream = f"{PREFIX}{caught.key}"
            found[caught.key] = Accused(proof, caught, caught.member in now.frozen, held_by.get(stream, []))
    return [found[key] for key in sorted(found)]


def is_meant(item: Accused, name: str) -> bool:
    """Whether somebody who says ``name`` means that proof: the member, its log, the stream."""
    return name in {item.caught.member, item.caught.origin, f"{PREFIX}{item.caught.key}"}


def facts(caught: Caught, mesh: str) -> dict[str, Any]:
    """For programs."""
    return {
        "kind": caught.kind,
        "mesh": mesh,
        "stream": f"{PREFIX}{caught.key}",
        "numbers": list(caught.sizes),
        "signers": [caught.key],
        "member": caught.member,
        "use": caught.use,
        "origin": caught.origin,
        "roots": list(caught.roots),
        "epoch": caught.epoch,
        "id": caught.id,
    }


def told(caught: Caught) -> list[str]:
    """For people."""
    return [
        f"{caught.kind} of {caught.origin}",
        *(f"at {size} records root {root}" for size, root in zip(caught.sizes, caught.roots, strict=True)),
        f"signed both: the {caught.use} key of {caught.member}, {caught.key} (roster epoch {caught.epoch})",
        f"whoever holds this counts nothing of it any more; take it out, or give it other keys: `mesh roster remove {caught.member}`",
    ]
