"""Rosters in words: what one says, what changes between two, the arithmetic of a step, whose signatures are there and whose are missing.

Not here: whether it may be believed (:mod:`mesh.core.law.succession`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from mesh.adapters.trustfiles import read_bounded
from mesh.cli import telling
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Member, Operator, Role, Roster, assents
from mesh.core.law.succession import overlap
from mesh.limits import ENVELOPE_BYTES_MAX

__all__ = ["arithmetic", "changes", "facts", "missing", "read", "roles", "tell"]

_SHOWN: Final = 12
_STREAM: Final = 40
"""Characters of a key or id in a sentence."""


def read(path: Path) -> Statement[Roster]:
    """The roster in that file. Nothing in it is believed.

    Raises:
        Refused: ``config_invalid``, the codec's codes.
    """
    return envelope.read(Roster, read_bounded(path, ENVELOPE_BYTES_MAX))


def facts(statement: Statement[Roster]) -> dict[str, Any]:
    """What it says about itself, and how many of its own root signed it."""
    claims = statement.claims
    signed = sum(map(statement.signed_by, claims.root.keys))
    return {
        "mesh": claims.mesh,
        "epoch": claims.epoch,
        "previous": claims.previous,
        "id": statement.id,
        "reason": claims.reason,
        "issued": telling.when(claims.issued_ms) if claims.issued_ms else "-",
        "begins": telling.when(claims.not_before_ms) if claims.not_before_ms else "at once",
        "n": len(claims.members),
        "f": claims.f,
        "k": claims.k,
        "signed": f"by {signed} of its own root's {len(claims.root.keys)} keys, {claims.root.threshold} needed",
    }


def arithmetic(now: Roster, after: Roster) -> dict[str, Any]:
    """The overlap of two rosters in numbers."""
    numbers = overlap(now, after)
    parts: dict[str, Any] = msgspec.structs.asdict(numbers)
    return {**parts, "k": list(numbers.k), "f": list(numbers.f), "union": numbers.union, "shared": numbers.shared, "safe": numbers.safe}


def missing(statement: Statement[Roster], now: Roster | None) -> list[dict[str, Any]]:
    """For each whose signature it takes: how many of its keys signed, how many must, and which have not."""
    found = list[dict[str, Any]]()
    for assent in assents(statement.claims, now):
        signed = [key for key in assent.role.keys if statement.signed_by(key)]
        found.append(
            {
                "who": assent.who,
                "signed": len(signed),
                "needed": assent.role.threshold,
                "complete": len(signed) >= assent.role.threshold,
                "open": [key for key in assent.role.keys if key not in signed],
            }
        )
    return found


def tell(count: dict[str, Any]) -> str:
    """One of :func:`missing` in a sentence."""
    told = f"{count['who']}: {count['signed']} of {count['needed']}"
    if not count["complete"]:
        told += f"; still to sign: {count['needed'] - count['signed']} of {', '.join(f'{key[:_SHOWN]}…' for key in count['open'])}"
    return told


# ---------------------------------------------------------------------------------------------------------------- changes


def changes(now: Roster, after: Roster) -> Iterator[str]:
    """What is different, a line each."""
    yield from _members({member.name: member for member in now.members}, {member.name: member for member in after.members})
    yield from _operators(now.operators, after.operators)
    for name, one, other in (("mesh", now.mesh, after.mesh), ("f", now.f, after.f), ("k", now.k, after.k)):
        if one != other:
            yield f"{name}: {one} to {other}"
    before, later = roles(now), roles(after)
    for name in [*before, *(name for name in later if name not in before)]:
        yield from _role(name, before.get(name), later.get(name))
    for field in now.bounds.__struct_fields__:
        one, other = getattr(now.bounds, field), getattr(after.bounds, field)
        if one != other:
            yield f"{field}: {one} to {other}"
    for name, upto in sorted(after.handovers.items()):
        yield (
            f"{name[:_STREAM]} goes on behind number {upto.sequence}, {upto.head[:_SHOWN]}…"
            if upto.head
            else f"{name[:_STREAM]} begins anew"
        )


def _members(before: dict[str, Member], later: dict[str, Member]) -> Iterator[str]:
    yield from (f"member {name} goes" for name in before if name not in later)
    for name, member in later.items():
        former = before.get(name)
        if former is None:
            yield f"member {name} comes, in {member.region}, of {member.operator}"
            continue
        new = [field for field in member.__struct_fields__ if field != "region" and getattr(member, field) != getattr(former, field)]
        if new:
            yield f"member {name} is another one: new {', '.join(new)}"
        if member.region != former.region:
            yield f"member {name} moves: {former.region} to {member.region}"


def _operators(before: dict[str, Operator], later: dict[str, Operator]) -> Iterator[str]:
    yield from (f"operator {name} goes" for name in sorted(before) if name not in later)
    for name, operator in sorted(later.items()):
        former = before.get(name)
        if former is None:
            yield f"operator {name} comes, in {operator.jurisdiction}"
            continue
        if operator.key != former.key:
            yield f"operator {name}: key {former.key[:_SHOWN]}… to {operator.key[:_SHOWN]}…"
        if operator.jurisdiction != former.jurisdiction:
            yield f"operator {name} moves: {former.jurisdiction} to {operator.jurisdiction}"


def roles(claims: Roster) -> dict[str, Role]:
    """Every role by name, ``policy/DOMAIN`` for each domain and ``approvers/GROUP`` for each group."""
    fixed = {"root": claims.root, "issuers": claims.issuers, "revoker": claims.revoker}
    policy = {f"policy/{domain}": role for domain, role in sorted(claims.policy.items())}
    return {**fixed, **policy, **{f"approvers/{group}": role for group, role in sorted(claims.approvers.items())}}


def _role(name: str, now: Role | None, after: Role | None) -> Iterator[str]:
    if after is None:
        yield f"role {name} goes"
        return
    if now is None:
        yield f"role {name} comes: {after.threshold} of {len(after.keys)}"
        return
    if (now.threshold, len(now.keys)) != (after.threshold, len(after.keys)):
        yield f"role {name}: {now.threshold} of {len(now.keys)} to {after.threshold} of {len(after.keys)}"
    yield from (f"role {name}: key {key[:_SHOWN]}… goes" for key in now.keys if key not in after.keys)
    yield from (f"role {name}: key {key[:_SHOWN]}… comes" for key in after.keys if key not in now.keys)
