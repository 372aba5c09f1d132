"""The governance state: a pure value made of believed statements; nodes that hold the same statements are in the same state.

Everything that decides or verifies is handed one of these. It is never changed, only replaced.
"""

from collections.abc import Iterable, Mapping

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.heartbeat import StreamHead, frontier_digest
from mesh.core.law.policy import Bundle, Manifest, admit_manifest, read_bundle
from mesh.core.law.revocation import Revocation, admit_revocation
from mesh.core.law.roster import Member, Roster, admit_roster
from mesh.errors import Refused

__all__ = ["Governance", "Law", "admit_governance"]


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch of one domain's policy, believed."""

    manifest: Manifest
    manifest_id: str
    bundle: Bundle | None
    """Enforcers hold manifests only."""


class Governance(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force."""

    roster: Roster
    roster_id: str
    laws: Mapping[str, tuple[Law, ...]]
    """Domain to its epochs, oldest first."""
    revoked: frozenset[tuple[str, str]]
    """(target type, value)."""
    frontier: tuple[StreamHead, ...]
    digest: str
    """Digest of the frontier."""
    keys: Mapping[str, Member]
    """Decision key (hex) to member."""

    def active(self, domain: str, at_ms: int) -> Law:
        """The law of ``domain`` at that time: the highest epoch begun by then, and only if it has not ended.

        Raises:
            Refused: ``domain_unknown`` if there is none, ``policy_expired`` if it is over. Nobody falls back to an older one.
        """
        begun = [law for law in self.laws.get(domain, ()) if law.manifest.not_before_ms <= at_ms]
        if not begun:
            raise Refused("domain_unknown", domain[:40])
        law = begun[-1]
        if at_ms >= law.manifest.expires_ms:
            raise Refused("policy_expired", f"{domain} epoch {law.manifest.epoch}")
        return law

    def check_unrevoked(self, *chain: tuple[str, str]) -> None:
        """That nothing of ``chain``, pairs of target type and value, is revoked.

        Raises:
            Refused: ``revoked``.
        """
        for link in chain:
            if link in self.revoked:
                raise Refused("revoked", f"{link[0]} {link[1][:80]}")


def admit_governance(
    roster: Statement[Roster],
    *,
    pin: str,
    manifests: Iterable[Statement[Manifest]],
    bundles: Iterable[bytes],
    revocations: Iterable[Statement[Revocation]],
) -> Governance:
    """The state that these statements make, each verified; unbelievable ones are refused, not skipped.

    Raises:
        Refused: whatever is wrong with the first one that is.
    """
    believed = admit_roster(roster, pin=pin)
    contents = list(bundles)
    laws: dict[str, list[Law]] = {}
    for manifest in manifests:
        claims = admit_manifest(manifest, believed)
        bundle = _find_bundle(contents, claims)
        laws.setdefault(claims.domain, []).append(Law(manifest=claims, manifest_id=manifest.id, bundle=bundle))
    for epochs in laws.values():
        epochs.sort(key=lambda law: law.manifest.epoch)
        if len({law.manifest.epoch for law in epochs}) != len(epochs):
            raise Refused("policy_invalid", f"two manifests for {epochs[0].manifest.domain} epoch {epochs[-1].manifest.epoch}")
    noes = [(admit_revocation(item, believed), item.id) for item in revocations]
    frontier = _frontier(believed, roster.id, laws, noes)
    return Governance(
        roster=believed,
        roster_id=roster.id,
        laws={domain: tuple(epochs) for domain, epochs in laws.items()},
        revoked=frozenset((item.target.type, item.target.value) for item, _ in noes),
        frontier=frontier,
        digest=frontier_digest(list(frontier)),
        keys={member.decision_key: member for member in believed.members},
    )


def _find_bundle(contents: list[bytes], manifest: Manifest) -> Bundle | None:
    for data in contents:
        try:
            bundle = read_bundle(data, digest=manifest.digest)
        except Refused as refusal:
            if refusal.code == "digest_mismatch":
                continue
            raise
        if bundle.domain != manifest.domain:
            raise Refused("policy_invalid", f"bundle of {bundle.domain} under a manifest of {manifest.domain}")
        return bundle
    return None


def _frontier(
    roster: Roster, roster_id: str, laws: Mapping[str, list[Law]], revocations: list[tuple[Revocation, str]]
) -> tuple[StreamHead, ...]:
    heads = [StreamHead(stream="roster", sequence=roster.epoch, head=roster_id)]
    heads += [
        StreamHead(stream=f"policy/{domain}", sequence=epochs[-1].manifest.epoch, head=epochs[-1].manifest_id)
        for domain, epochs in laws.items()
    ]
    newest: dict[str, tuple[Revocation, str]] = {}
    for item, identity in revocations:
        if item.revoker not in newest or newest[item.revoker][0].sequence < item.sequence:
            newest[item.revoker] = (item, identity)
    heads += [StreamHead(stream=f"revoke/{key}", sequence=item.sequence, head=head) for key, (item, head) in newest.items()]
    return tuple(sorted(heads, key=lambda head: head.stream))
