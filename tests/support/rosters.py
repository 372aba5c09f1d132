"""Rosters by the names of their members: the same name is the same member, with the same keys, in every roster."""

from collections.abc import Sequence
from functools import cache

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.reign import Handover
from mesh.core.law.roster import Member, Operator, Role, Roster
from mesh.core.law.succession import lacking_handovers
from tests.support.factory import BOUNDS, MESH, secret, sign

__all__ = ["ROOT", "handing_over", "key", "member", "owners", "roster", "seal", "signed"]


@cache
def key(name: str) -> SecretKey:
    """The key of that name."""
    return secret(name)


ROOT = tuple(key(f"root {number}") for number in range(3))


@cache
def member(name: str, *, generation: int = 0, operator: str = "own") -> Member:
    """A member; another generation has the same name and other keys."""
    uses = {f"{use}_key": key(f"{name} {use} {generation}").public for use in ("log", "witness", "attest", "decision")}
    return Member(name=name, region="eu", operator=operator, log_epoch=1, **uses)


def roster(
    members: Sequence[Member | str],
    f: int,
    k: int,
    *,
    after: Statement[Roster] | None = None,
    root: Sequence[SecretKey] = ROOT,
    threshold: int = 2,
    mesh: str = MESH,
) -> Roster:
    """The next epoch after another one, or the first."""
    everyone = [member(one) if isinstance(one, str) else one for one in members]
    made = Roster(
        mesh=mesh,
        epoch=after.claims.epoch + 1 if after else 1,
        previous=after.id if after else "",
        not_before_ms=after.claims.not_before_ms + 10_000 if after else 0,
        members=everyone,
        operators={one.operator: Operator(key=key(f"operator {one.operator}").public, jurisdiction="de") for one in everyone},
        f=f,
        k=k,
        root=Role(keys=[one.public for one in root], threshold=threshold),
        issuers=Role(keys=[key("issuer").public], threshold=1),
        revoker=Role(keys=[key("revoker").public], threshold=1),
        policy={"payments": Role(keys=[key("policy").public], threshold=1)},
        approvers={},
        handovers={},
        bounds=BOUNDS,
        reason="The first roster.",
        issued_ms=0,
    )
    return handing_over(after.claims, made) if after else made


def handing_over(before: Roster, after: Roster) -> Roster:
    """The same, and every stream whose signers change begins anew, unless it says something else."""
    anew = dict.fromkeys(lacking_handovers(before, after), Handover(sequence=0, head=""))
    return msgspec.structs.replace(after, handovers={**after.handovers, **anew})


def owners(value: Roster) -> list[SecretKey]:
    """The keys of its operators."""
    return [key(f"operator {name}") for name in value.operators]


def signed(value: Roster, *keys: SecretKey) -> Statement[Roster]:
    """As read, with the signatures of its operators and these; without any named, with two of the root."""
    return seal(value, *(keys or ROOT[:2]), *owners(value))


def seal(value: Roster, *keys: SecretKey) -> Statement[Roster]:
    """As read, with exactly these signatures."""
    return envelope.read(Roster, sign(value, *keys))
