"""An activation says from when an admitted policy epoch decides, region by region; what is in force is computed from it.

Rules
-----
1. The first epoch of a domain begins when its manifest says. Every later one needs an activation: it replaces something, so it is
   signed only once enough members have shown that they can decide by it.
2. A domain's activations are one stream. In force is the highest epoch begun in the region, by the whole chain from the first to
   the one that a governor held when it decided. So a decision names that activation, and whoever replays it, having heard of a
   later one or not, finds the same policy.
3. Nothing is taken back. A rollback is older content under a new epoch; an epoch that never began anywhere is merely passed over.
4. An epoch whose manifest is not held, is another than the one that was activated, or cannot be run, is denied by. Nobody
   falls back to the one before.

Not here: who holds what (:mod:`mesh.core.law.governance`), admission (:mod:`mesh.policy.admission`).
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, Millis, Payload, Reason, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.reign import MaybeId, in_reign
from mesh.core.law.roster import Roster
from mesh.errors import Refused
from mesh.limits import ACTIVATIONS_MAX, MEMBERS_MAX

__all__ = ["Activation", "Ring", "Rollout", "activate_stream", "admit_activation"]


class Ring(Payload):
    """Some regions, and when the epoch begins there."""

    regions: Annotated[list[Token], msgspec.Meta(max_length=MEMBERS_MAX)]
    """Sorted; empty for all that no other ring names."""
    not_before_ms: Millis


@statement("activate")
class Activation(Payload):
    """Signed by the domain's policy role once k members report the epoch as admitted."""

    mesh: Token
    domain: Token
    sequence: Annotated[int, msgspec.Meta(ge=1, le=ACTIVATIONS_MAX)]
    """Dense per domain, from 1: few enough for a proof to carry all of them."""
    previous: MaybeId
    since: MaybeId
    """Id of the roster that made its signers the stream's; empty for the first one (:mod:`mesh.core.law.reign`)."""
    epoch: Count
    manifest: Hex32
    """Statement id of the manifest of that epoch."""
    rings: Annotated[list[Ring], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    """No region in two of them. A region that is in none keeps what it has."""
    reason: Reason
    issued_ms: Millis

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous)."""
        return in_reign(activate_stream(self.domain), self.since), self.sequence, self.previous

    def begins_ms(self, region: str) -> int | None:
        """When the epoch begins in ``region``; None if it does not."""
        everywhere = None
        for ring in self.rings:
            if region in ring.regions:
                return ring.not_before_ms
            if not ring.regions:
                everywhere = ring.not_before_ms
        return everywhere


def activate_stream(domain: str) -> str:
    """The stream of a domain's activations."""
    return f"activate/{domain}"


def admit_activation(activation: Statement[Activation], roster: Roster) -> Activation:
    """The activation, believed because the threshold of the domain's policy role signed it, and nobody else.

    Raises:
        Refused: ``wrong_mesh``, ``domain_unknown``, ``policy_invalid`` for rings that contradict one another, ``bad_signature``,
            ``threshold_not_met``.
    """
    claims = activation.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    role = roster.policy.get(claims.domain)
    if role is None:
        raise Refused("domain_unknown", claims.domain)
    named = [region for ring in claims.rings for region in ring.regions or [""]]
    if len(set(named)) != len(named) or any(ring.regions != sorted(ring.regions) for ring in claims.rings):
        raise Refused("policy_invalid", "a region stands in two rings, or not in its order")
    role.check_sealed(activation)
    return claims


class Rollout(msgspec.Struct, frozen=True):
    """A gapless chain of one domain's activations, from the first."""

    ids: tuple[str, ...] = ()
    steps: tuple[Activation, ...] = ()
    highest: tuple[int, ...] = ()
    """The highest epoch among the steps up to each."""

    @classmethod
    def of(cls, ids: Sequence[str], steps: Sequence[Activation]) -> "Rollout":
        """The chain of these, in their order."""
        highest, most = list[int](), 0
        for step in steps:
            most = max(most, step.epoch)
            highest.append(most)
        return cls(tuple(ids), tuple(steps), tuple(highest))

    @property
    def head(self) -> str:
        """Id of the last one; empty if there is none."""
        return self.ids[-1] if self.ids else ""

    def begun(self, region: str, at_ms: int) -> Activation | None:
        """The one that put the highest epoch in force that has begun in ``region`` by ``at_ms``; None if none has."""
        best: Activation | None = None
        for step, highest in zip(reversed(self.steps), reversed(self.highest), strict=True):
            if best is not None and highest <= best.epoch:
                break  # nothing before it is newer
            begins_ms = step.begins_ms(region)
            if begins_ms is not None and begins_ms <= at_ms and (best is None or step.epoch > best.epoch):
                best = step
        return best
