"""Proofs against members, for `mesh fraud`: as rows, in words, and as what verifying a file says.

Not here: what such a proof is (:mod:`mesh.core.law.fraud`), asking members (:mod:`mesh.cli.conflicts`).
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.proof import PREFIX, Caught, Proof
from mesh.core.law.proofs import AnyProof, judge_proof
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said

__all__ = ["Accused", "accused_of", "facts", "is_meant", "told"]

_AFTER: Final = "whoever holds this counts nothing of it any more; take it out, or give it other keys: `mesh roster remove {}`"


class Accused(NamedTuple):
    """One proof that members hold."""

    proof: Statement[AnyProof]
    caught: Caught
    frozen: bool
    """Whether the roster in force still gives the key to that member."""
    held_by: list[str]
    """Members that sign that they hold a proof against that key."""


def accused_of(statements: Sequence[Statement[Said]], rosters: Rosters, now: Governance, held_by: dict[str, list[str]]) -> list[Accused]:
    """The proofs among these statements, by key; ``held_by`` has stream to members."""
    found = dict[str, Accused]()
    for statement in statements:
        if isinstance(statement.claims, Proof) and statement.claims.key not in found:
            proof = cast("Statement[AnyProof]", statement)
            caught = judge_proof(proof, rosters)
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
        "numbers": list(caught.sizes) if caught.wrong is None else [caught.wrong.index],
        "signers": [caught.key],
        "member": caught.member,
        "use": caught.use,
        "origin": caught.origin,
        "roots": list(caught.roots),
        "epoch": caught.epoch,
        "id": caught.id,
        **({} if caught.wrong is None else msgspec.to_builtins(caught.wrong)),
    }


def told(caught: Caught) -> list[str]:
    """For people."""
    if caught.wrong is not None:
        return [
            f"{caught.kind} of {caught.origin}",
            f"record {caught.wrong.index}, leaf {caught.wrong.leaf}, signed by the {caught.use} key of {caught.member}, {caught.key}",
            f"not what they would have decided, by their signed word: {', '.join(caught.wrong.members)} (roster epoch {caught.epoch})",
            f"the check that failed: {', '.join(caught.wrong.codes)}",
            _AFTER.format(caught.member),
        ]
    return [
        f"{caught.kind} of {caught.origin}",
        *(f"at {size} records root {root}" for size, root in zip(caught.sizes, caught.roots, strict=True)),
        f"signed both: the {caught.use} key of {caught.member}, {caught.key} (roster epoch {caught.epoch})",
        _AFTER.format(caught.member),
    ]
