"""Statements of streams that change hands, with real signatures."""

from collections.abc import Sequence

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.activation import Activation, Ring, activate_stream
from mesh.core.law.fold import admit_governance, extend, put_in_force
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt, halt_stream
from mesh.core.law.policy import Manifest, policy_stream
from mesh.core.law.reign import Handover
from mesh.core.law.resolve import Resolve
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.roster import ROSTERS, Role, Roster
from mesh.core.law.travel import Said, read_law
from tests.support.factory import MESH, sign
from tests.support.rosters import ROOT, handing_over, key, roster, signed

FOUR = ("a", "b", "c", "d")
DOMAIN = "payments"
POLICY, ACTIVATE, HALT = policy_stream(DOMAIN), activate_stream(DOMAIN), halt_stream(DOMAIN)
REVOKE = stream_of(key("revoker").public)
GENESIS = signed(roster(FOUR, 1, 3))
PLAIN = admit_governance(GENESIS, pin=GENESIS.id)


def manifest(epoch: int, previous: str, by: str, since: str = "", reason: str = "") -> Statement[Manifest]:
    claims = Manifest(
        mesh=MESH,
        domain=DOMAIN,
        epoch=epoch,
        previous=previous,
        since=since,
        digest="blake3:" + "ab" * 32,
        actions={},
        enforcers=[],
        not_before_ms=0,
        expires_ms=1_000_000,
        reason=reason,
        issued_ms=0,
    )
    return envelope.read(Manifest, sign(claims, key(by)))


def activation(number: int, previous: str, of: Statement[Manifest], by: str, since: str = "") -> Statement[Activation]:
    rings = [Ring(regions=[], not_before_ms=0)]
    claims = Activation(
        mesh=MESH,
        domain=DOMAIN,
        sequence=number,
        previous=previous,
        since=since,
        epoch=of.claims.epoch,
        manifest=of.id,
        rings=rings,
        reason="",
        issued_ms=0,
    )
    return envelope.read(Activation, sign(claims, key(by)))


def revocation(number: int, previous: str, name: str, by: str = "revoker", since: str = "") -> Statement[Said]:
    target = Target(type="subject", value=f"spiffe://{MESH}/agent/{name}")
    claims = Revocation(
        mesh=MESH,
        revoker=key(by).public,
        sequence=number,
        previous=previous,
        since=since,
        target=target,
        spares=[],
        reason="",
        issued_ms=0,
    )
    return read_law(sign(claims, key(by)))


def halting(number: int, previous: str, lifts: Sequence[str], by: str, since: str = "") -> Statement[Said]:
    claims = Halt(mesh=MESH, domain=DOMAIN, sequence=number, previous=previous, since=since, lifts=list(lifts), reason="", issued_ms=0)
    return read_law(sign(claims, key(by)))


def behind(*last: Statement[Said]) -> dict[str, Handover]:
    return {said.claims.link[0].partition("@")[0]: Handover(sequence=said.claims.sequence, head=said.id) for said in last}


def role(*names: str, threshold: int = 1) -> Role:
    return Role(keys=[key(name).public for name in names], threshold=threshold)


def following(before: Statement[Roster], *last: Statement[Said], **changed: object) -> Statement[Roster]:
    """The next roster, with other roles; streams are handed over behind these, or behind nothing."""
    plain = roster(FOUR, 1, 3, after=before)
    kept = {name: getattr(before.claims, name) for name in ("root", "revoker", "policy")}
    after = msgspec.structs.replace(plain, **{**kept, **changed}, handovers=behind(*last))
    return signed(handing_over(before.claims, after))


FIRST = manifest(1, "", "policy")
SECOND = manifest(2, FIRST.id, "policy")
BEGUN = activation(1, "", SECOND, "policy")
SINCE = following(GENESIS, SECOND, BEGUN, policy={DOMAIN: role("new policy")})
"""Behind two epochs and an activation, the domain has another signer."""
STOLEN = manifest(3, SECOND.id, "policy", reason="by who was let go")
STOLEN_BEGUN = activation(2, BEGUN.id, STOLEN, "policy")
THIRD = manifest(3, SECOND.id, "new policy", SINCE.id)
THIRD_BEGUN = activation(2, BEGUN.id, THIRD, "new policy", SINCE.id)
LAWS: tuple[Statement[Said], ...] = (FIRST, SECOND, BEGUN, SINCE, STOLEN, STOLEN_BEGUN, THIRD, THIRD_BEGUN)


def epoch_of(held: Governance) -> int:
    return held.active(DOMAIN, "eu", 1_000).manifest.epoch


def hear(held: Governance, heard: Sequence[Statement[Said]], size: int) -> Governance:
    """So many at once, and again as long as anything is new: as gossip does."""
    while True:
        before = held
        for at in range(0, len(heard), size):
            held = extend(held, heard[at : at + size]).governance
        if held is before:
            return held


def until_still(held: Governance, heard: Sequence[Statement[Said]], size: int) -> Governance:
    """The same, and then the newest roster is in force."""
    held = hear(held, heard, size)
    return put_in_force(held, len(held.rosters.ids))


GONE = revocation(1, "", "gone")
LATE = revocation(2, GONE.id, "late")
WITHOUT = following(GENESIS, GONE, revoker=role("new revoker"))


def resolve(
    keys: Sequence[SecretKey], stream: str, head: str, aside: str, number: int = 1, previous: str = "", since: str = ""
) -> Statement[Said]:
    claims = Resolve(
        mesh=MESH, sequence=number, previous=previous, since=since, stream=stream, head=head, aside=[aside], reason="", issued_ms=0
    )
    return read_law(sign(claims, *keys))


OTHER_ROOT = tuple(key(f"other root {number}") for number in range(3))
TWIN = following(GENESIS, GONE, policy={DOMAIN: role("another policy")}, revoker=role("another revoker"))
"""Another second roster."""
CHOSEN = resolve(ROOT[:2], ROSTERS, SINCE.id, TWIN.id)
HALTED = halting(1, "", (), "revoker")
LIFTED = halting(2, HALTED.id, (HALTED.id,), "revoker")
