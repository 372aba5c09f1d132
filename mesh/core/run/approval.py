"""An approval is people's signed yes to one exact effect; a break-glass grant is their signed word that an emergency is on.

Rules
-----
1. An approval is bound to the *effect* (:class:`Effect`): an intent that is made again, with a new nonce, new times and a new
   enforcer boot, keeps it; whatever would run or be touched otherwise loses it.
2. Signed by keys of one group of the roster, and by nobody else. What counts is distinct public-key bytes, over all approvals of
   the group that came; fewer than the group's threshold count for nothing.
3. A grant takes its group's threshold, lives hours at most, and says for whom, for which actions and why. It is a fact that policy may
   ask for (``context.attested.breakglass``); it allows nothing by itself.
4. Both are short-lived and counted: an enforcer honours each as often as it says.
5. What came and does not hold is refused, never ignored: whoever sent it must learn of it.

Not here: which actions need approvals (policy says so with ``@approval``; :mod:`mesh.protocol.decide`), counting uses
(:mod:`mesh.adapters.spent`), revocations (:meth:`mesh.core.law.governance.Governance.check_unrevoked`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Hex32, Millis, Name, Params, Payload, Reason, Spiffe, Token, sha256_hex
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.roster import Role, Roster
from mesh.core.run.intent import EntityRef, Intent, Measurement
from mesh.core.run.params import Commitments, params_digest
from mesh.errors import Refused
from mesh.limits import (
    APPROVAL_BYTES_MAX,
    APPROVAL_LIFE_MS_MAX,
    APPROVAL_USES_MAX,
    APPROVALS_BYTES_MAX,
    APPROVALS_MAX,
    GRANT_ACTIONS_MAX,
    GRANT_LIFE_MS_MAX,
    MEASUREMENTS_MAX,
    REASON_CHARS_MAX,
)

__all__ = ["NOTHING", "Approval", "Backing", "BreakGlass", "Demand", "Effect", "check_life", "demands", "read_said", "unmet", "weigh"]

Uses = Annotated[int, msgspec.Meta(ge=1, le=APPROVAL_USES_MAX)]
_DEMAND: Final = re.compile(r"([1-9][0-9]?) of ([a-z0-9][a-z0-9-]{0,31})")


class _Bound(Payload):
    mesh: Token
    domain: Token
    subject: Spiffe
    action: Name
    resource: EntityRef
    params: Hex32
    measurements: Annotated[list[Measurement], msgspec.Meta(max_length=MEASUREMENTS_MAX)]


class Effect(Payload):
    """What would happen, in full: what people read before they sign."""

    mesh: Token
    domain: Token
    subject: Spiffe
    action: Name
    resource: EntityRef
    params: Params
    committed: Commitments
    measurements: Annotated[list[Measurement], msgspec.Meta(max_length=MEASUREMENTS_MAX)]

    @classmethod
    def of(cls, intent: Intent) -> "Effect":
        """The effect that an intent asks for."""
        return cls(**{name: getattr(intent, name) for name in cls.__struct_fields__})

    @property
    def bound(self) -> bytes:
        """What an approval is bound to, in its canonical form: parameters by their digest, so that it says nothing of their values."""
        return canonical.encode(
            _Bound(
                mesh=self.mesh,
                domain=self.domain,
                subject=self.subject,
                action=self.action,
                resource=self.resource,
                params=params_digest(self.params, self.committed),
                measurements=self.measurements,
            )
        )

    @property
    def digest(self) -> str:
        """SHA-256 of :attr:`bound`: computable by anyone who holds the intent."""
        return sha256_hex(self.bound)


@statement("approval", bytes_max=APPROVAL_BYTES_MAX)
class Approval(Payload):
    """Signed by keys of its group: this exact effect may happen so often."""

    mesh: Token
    group: Token
    """Of the roster's approvers."""
    effect: Hex32
    """:attr:`Effect.digest`."""
    uses: Uses
    reason: Reason
    not_before_ms: Millis
    expires_ms: Millis


@statement("grant", bytes_max=APPROVAL_BYTES_MAX)
class BreakGlass(Payload):
    """Signed by the threshold of its group: there is an emergency, and this workload is to mend it."""

    mesh: Token
    group: Token
    """Of the roster's approvers."""
    domain: Token
    subject: Spiffe
    actions: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=GRANT_ACTIONS_MAX)]
    uses: Uses
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_CHARS_MAX)]
    not_before_ms: Millis
    expires_ms: Millis


Said = Approval | BreakGlass


class Demand(NamedTuple):
    """What one permit demands."""

    least: int
    """Distinct keys."""
    group: str

    def __str__(self) -> str:
        """As policy spells it."""
        return f"{self.least} of {self.group}"


class Backing(msgspec.Struct, frozen=True):
    """What people said for one intent, as far as it counts."""

    said: tuple[Statement[Said], ...]
    """Sorted by id."""
    approvals: Mapping[str, int]
    """Group to how many of its keys approved, its threshold at least."""
    breakglass: bool

    @property
    def ids(self) -> list[str]:
        """What an authorization names."""
        return [item.id for item in self.said]

    @property
    def uses(self) -> tuple[tuple[str, int], ...]:
        """Each id with how often it may be used."""
        return tuple((item.id, item.claims.uses) for item in self.said)

    @property
    def chain(self) -> tuple[tuple[str, str], ...]:
        """What a revocation may name: every id, and every key that signed."""
        return tuple(link for item in self.said for link in (("document", item.id), *(("key", key) for key in item.signatures)))

    def check_times(self, *, now_ms: int, skew_ms: int) -> None:
        """That each is valid now, allowing its signers' clocks to be ahead by ``skew_ms``, never its end to slip.

        Raises:
            Refused: ``approval_expired``.
        """
        for item in self.said:
            _check_times(item.claims, item.id, now_ms=now_ms, skew_ms=skew_ms)


NOTHING: Final = Backing((), {}, breakglass=False)
"""Nobody was asked."""


def demands(annotation: str) -> tuple[Demand, ...]:
    """What ``@approval("2 of security, 1 of finance")`` demands: all of it.

    Raises:
        Refused: ``policy_invalid``.
    """
    found = list[Demand]()
    for part in annotation.split(","):
        match = _DEMAND.fullmatch(part.strip(" "))
        if match is None:
            raise Refused("policy_invalid", f"@approval({annotation[:80]!r}): written like '2 of security, 1 of finance'")
        found.append(Demand(int(match[1]), match[2]))
    if len(found) > APPROVALS_MAX:
        raise Refused("policy_invalid", f"@approval({annotation[:80]!r}) names {len(found)} groups: at most {APPROVALS_MAX} approvals come")
    if len({demand.group for demand in found}) != len(found):
        raise Refused("policy_invalid", f"@approval({annotation[:80]!r}) names a group twice")
    return tuple(found)


def read_said(data: bytes) -> Statement[Said]:
    """An approval or grant, with claims of which nothing is believed.

    Raises:
        Refused: the codec's codes.
    """
    return envelope.read_any((Approval, BreakGlass), data)


def check_life(claims: Said) -> None:
    """That it does not live longer than such a thing may.

    Raises:
        Refused: ``approval_too_long``.
    """
    most = GRANT_LIFE_MS_MAX if isinstance(claims, BreakGlass) else APPROVAL_LIFE_MS_MAX
    life_ms = claims.expires_ms - claims.not_before_ms
    if life_ms > most:
        raise Refused("approval_too_long", f"{life_ms} ms, at most {most}")


def weigh(envelopes: Sequence[bytes], intent: Intent, roster: Roster, *, at_ms: int) -> Backing:
    """What of ``envelopes`` counts for ``intent`` at that time: a pure function, the same on every node.

    Approvals of a group that does not reach its threshold count for nothing, and are not used up either.

    Raises:
        Refused: for the first that does not hold: the codec's codes, ``too_large``, ``wrong_mesh``, ``approver_unknown``,
            ``approval_mismatch``, ``approval_too_long``, ``approval_expired``, ``bad_signature``, ``threshold_not_met``.
    """
    if not envelopes:
        return NOTHING
    if len(envelopes) > APPROVALS_MAX or sum(map(len, envelopes)) > APPROVALS_BYTES_MAX:
        raise Refused("too_large", f"at most {APPROVALS_MAX} approvals, {APPROVALS_BYTES_MAX} bytes together")
    said = dict[str, Statement[Said]]()
    for data in envelopes:
        item = read_said(data)
        if item.id in said:  # two copies, perhaps with other lines: only one of them could be recorded
            raise Refused("approval_mismatch", f"{item.id[:12]} stands there twice")
        _check(item, intent, roster, at_ms=at_ms)
        said[item.id] = item
    signers = dict[str, set[str]]()
    for item in said.values():
        if isinstance(item.claims, Approval):
            signers.setdefault(item.claims.group, set()).update(item.signatures)
    counted = {group: len(keys) for group, keys in sorted(signers.items()) if len(keys) >= roster.approvers[group].threshold}
    counting = [said[name] for name in sorted(said) if _counts(said[name].claims, counted)]
    return Backing(tuple(counting), counted, any(isinstance(item.claims, BreakGlass) for item in counting))


def _counts(claims: Said, counted: Mapping[str, int]) -> bool:
    return isinstance(claims, BreakGlass) or claims.group in counted


def _check(item: Statement[Said], intent: Intent, roster: Roster, *, at_ms: int) -> None:
    claims = item.claims
    role = _role(claims, roster)
    if isinstance(claims, Approval):
        if claims.effect != Effect.of(intent).digest:
            raise Refused("approval_mismatch", f"{item.id[:12]} approves another effect, {claims.effect[:12]}")
        if not item.sealed_by(role.keys):
            raise Refused("bad_signature", f"approval {item.id[:12]} is not signed by {claims.group}, or also by somebody who is none")
    else:
        if (claims.domain, claims.subject) != (intent.domain, intent.subject) or intent.action not in claims.actions:
            raise Refused(
                "approval_mismatch", f"grant {item.id[:12]} is for {claims.subject} in {claims.domain}: {', '.join(claims.actions)}"
            )
        role.check_sealed(item)
    check_life(claims)
    _check_times(claims, item.id, now_ms=at_ms, skew_ms=roster.bounds.skew_ms)


def _role(claims: Said, roster: Roster) -> Role:
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    role = roster.approvers.get(claims.group)
    if role is None:
        raise Refused("approver_unknown", claims.group)
    return role


def _check_times(claims: Said, name: str, *, now_ms: int, skew_ms: int) -> None:
    if not claims.not_before_ms - skew_ms <= now_ms < claims.expires_ms:
        raise Refused("approval_expired", f"{name[:12]} is valid {claims.not_before_ms}..{claims.expires_ms}, now {now_ms}")


def unmet(wanted: Iterable[Demand], approvals: Mapping[str, int]) -> list[str]:
    """Those demands that ``approvals`` (group to keys) do not meet, sorted, of one group the largest only."""
    most = dict[str, int]()
    for demand in wanted:
        if approvals.get(demand.group, 0) < demand.least:
            most[demand.group] = max(demand.least, most.get(demand.group, 0))
    return [str(Demand(least, group)) for group, least in sorted(most.items())]
