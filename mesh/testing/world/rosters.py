"""The rosters that follow the first one of a world: one joins; then one leaves, or gets new keys.

Rules
-----
1. Each is made when a world is planned, for the seed says when it begins; the same keys sign it.
2. Only what the overlap rule allows is made: a mesh in which new keys would be unsafe loses a member instead.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.reign import Handover
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Member, Roster
from mesh.core.law.succession import overlap
from mesh.testing.world import keys
from mesh.testing.world.setting import EPOCH_MS, USES, Setting, quorum

__all__ = ["APART_MS", "behind", "joined", "pinned", "reduced", "rekeyed"]

APART_MS: Final = 6_000
"""2Δ of a world: no epoch begins sooner after the one before."""


def joined(setting: Setting, begins_ms: int, *, handing_over: bool) -> tuple[Statement[Roster], Member]:
    """The second epoch, and who joins; it begins ``begins_ms`` after the world began.

    It may hand over the stream of the revoker, behind all that this has to say in this world.
    """
    now, last = setting.genesis, setting.revocations[-1]
    name = f"g{len(now.claims.members)}"
    new = msgspec.structs.replace(now.claims.members[0], name=name, **_keys(name))
    handovers = {last.claims.link[0]: Handover(sequence=last.claims.sequence, head=last.id)} if handing_over else {}
    return _next(now, [*now.claims.members, new], begins_ms, handovers), new


def behind(setting: Setting, since: str) -> Statement[Revocation]:
    """What the revoker says next, in the reign that this roster began; without one what it may say no more."""
    last = setting.revocations[-1].claims
    target = Target(type="subject", value=f"spiffe://{last.mesh}/agent/{'later' if since else 'stray'}")
    claims = msgspec.structs.replace(last, sequence=last.sequence + 1, previous=setting.revocations[-1].id, since=since, target=target)
    return envelope.read(Revocation, keys.signed(envelope.draft(claims), "revoker"))


def reduced(now: Statement[Roster], name: str, begins_ms: int) -> Statement[Roster]:
    """The same without that member."""
    return _next(now, [member for member in now.claims.members if member.name != name], begins_ms)


def rekeyed(now: Statement[Roster], name: str, begins_ms: int) -> tuple[Statement[Roster], Member] | None:
    """The same with new keys and a new log for that member, who is answered; none if that is more than one safe step."""
    former = now.claims.member(name)
    new = msgspec.structs.replace(former, log_epoch=former.log_epoch + 1, **_keys(f"{name}+"))
    after = _next(now, [new if member is former else member for member in now.claims.members], begins_ms)
    return (after, new) if overlap(now.claims, after.claims).safe else None


def pinned(setting: Setting, said: tuple[Statement[Roster], ...]) -> Governance:
    """What the files of a new member say: the last of ``said`` is pinned."""
    bundles = [canonical.encode(bundle) for bundle in setting.bundles.values()]
    return admit_governance(setting.genesis, pin=said[-1].id, manifests=[setting.manifest], bundles=bundles, said=said)


def _keys(label: str) -> Mapping[str, str]:
    return {f"{use}_key": keys.public(f"{label} {use}") for use in USES}


def _next(
    now: Statement[Roster], members: list[Member], begins_ms: int, handovers: Mapping[str, Handover] | None = None
) -> Statement[Roster]:
    f, k = quorum(len(members))
    claims = msgspec.structs.replace(
        now.claims,
        epoch=now.claims.epoch + 1,
        previous=now.id,
        not_before_ms=EPOCH_MS + begins_ms,
        members=members,
        f=f,
        k=k,
        handovers=dict(handovers or {}),
        reason="a world's test",
        issued_ms=EPOCH_MS,
    )
    return envelope.read(Roster, keys.signed(envelope.draft(claims), "root", "operator"))
