"""What the bytes that are signed in a world say, what incidents prove, and whether two steps do the same."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar, cast

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.conflict import judge
from mesh.core.law.proof import Proof
from mesh.core.law.proofs import AnyProof, admit_proof
from mesh.core.law.revocation import Revocation
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said, read_law
from mesh.core.log.record import DecisionMade, Incident, read_record
from mesh.core.run.authorization import Authorization
from mesh.errors import Refused
from mesh.limits import STATEMENT_BYTES_MAX
from mesh.protocol.state import GovernorState
from mesh.protocol.step import Send, Step
from mesh.testing.world.disk import Disk

__all__ = ["decided_at", "expected", "known_to", "read", "same_step", "unpae", "what_it_denies"]

P = TypeVar("P", bound=Payload)


def read(kind: type[P], payload: bytes) -> P:
    """The payload of a kind."""
    return canonical.decode(kind, payload, bytes_max=2 * STATEMENT_BYTES_MAX)


def unpae(message: bytes) -> tuple[str, bytes]:
    """(kind, payload) of the bytes that a signature on a statement covers."""
    _, length, rest = message.split(b" ", 2)
    payload_type, rest = rest[: int(length)].decode(), rest[int(length) + 1 :]
    return payload_type.removeprefix("application/vnd.govmesh.").removesuffix(".v1+json"), rest.partition(b" ")[2]


def same_step(one: Step[GovernorState], other: Step[GovernorState]) -> bool:
    """Whether two answers of a machine are the same, but for how messages are put together from what they name."""
    parts = [[effect if not isinstance(effect, Send) else (effect.to, effect.durable) for effect in step.effects] for step in (one, other)]
    return parts[0] == parts[1] and one.state == other.state


def expected(incident: Incident, liars: Collection[str], held: Mapping[str, bytes], rosters: Rosters) -> bool:
    """Whether it is about a liar (one that is caught: with the proof), or names two statements that, as anybody can see, cannot both be.

    Args:
        incident: as recorded.
        liars: members that lie.
        held: envelopes of governance statements by id.
        rosters: all that there are.
    """
    if incident.code == "member_frozen":
        return bool(_caught(incident.detail.partition(":")[0], held, rosters) & frozenset(liars))
    stream, *ids = incident.detail.split(" ")
    if any(part in liars for part in incident.detail.split("/")):
        return True
    try:
        one, other = (read_law(held[identity]) for identity in ids)
        return judge(one, other, rosters).stream == stream
    except (KeyError, ValueError, Refused):
        return False


def _caught(identity: str, held: Mapping[str, bytes], rosters: Rosters) -> frozenset[str]:
    """Whom the proof of that id names, if it is one."""
    try:
        proof = read_law(held[identity])
        return frozenset({admit_proof(cast("Statement[AnyProof]", proof), rosters).member} if isinstance(proof.claims, Proof) else ())
    except (KeyError, Refused):
        return frozenset()


def what_it_denies(statement: Statement[Said]) -> tuple[str, str]:
    """What a statement denies; or which it is."""
    claims = statement.claims
    return (claims.target.type, claims.target.value) if isinstance(claims, Revocation) else ("halt", statement.id)


def decided_at(disk: Disk, authorization: Authorization, identity: str) -> str | None:
    """The leaf hash of the record that an authorization says it has, if its issuer's disk has that record there."""
    log = disk.logs.get(authorization.origin)
    if log is None or authorization.index >= len(log.leaves):
        return None
    leaf = disk.written(authorization.origin, authorization.index)
    if not leaf:  # it came back as a hash: nobody has more of it
        return log.hashes[authorization.index].hex()
    record = read_record(leaf)
    fits = isinstance(record, DecisionMade) and record.authorization == identity
    return log.hashes[authorization.index].hex() if fits else None


def known_to(sizes: Sequence[int], enough: int) -> int:
    """What at least ``enough`` know."""
    return sorted(sizes, reverse=True)[enough - 1] if len(sizes) >= enough else 0
