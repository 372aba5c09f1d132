"""The governance state: a pure value made of believed statements; nodes that hold the same statements are in the same state.

Everything that decides or verifies is handed one of these. It is never changed, only replaced: :func:`extend` answers the state
after more statements. The order in which they came makes no difference.
"""

import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.halt import Halt, halt_stream, in_force
from mesh.core.law.heartbeat import NOTHING, StreamHead, frontier_digest
from mesh.core.law.policy import Bundle, Manifest, admit_manifest, check_succession, read_bundle
from mesh.core.law.revocation import Revocation
from mesh.core.law.roster import Member, Roster, admit_roster
from mesh.core.law.streams import Chain, Fork, Growth, Stream, head_of
from mesh.core.law.travel import Said, admit_law, link_of
from mesh.errors import Refused

__all__ = ["Governance", "Law", "Taken", "admit_governance", "extend", "restore", "unsaid"]

_FORMER_MAX: Final = 32
"""Former frontiers that are remembered, for whoever asks for an authorization again that was made in one."""


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
    halts: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Domain to every halt and resume that is held of it: its id, and what it lifts."""
    halted: Mapping[str, tuple[str, ...]]
    """Halted domain to the ids of the halts in force there."""
    streams: Mapping[str, Stream]
    """What is held of the streams that travel, by name."""
    frontier: tuple[StreamHead, ...]
    digest: str
    """Digest of the frontier."""
    whole: Mapping[str, Container[str]]
    """Forked stream to the ids that are held with all before them."""
    former: Mapping[str, tuple[StreamHead, ...]]
    """Digest to frontier, of this state and some before it, oldest first."""
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

    def check_unhalted(self, domain: str) -> None:
        """That no halt of ``domain`` is in force.

        Raises:
            Refused: ``halted``.
        """
        if domain in self.halted:
            halts = self.halted[domain]
            raise Refused("halted", f"{domain} by {halts[0][:12]}" + (f" and {len(halts) - 1} more" if len(halts) > 1 else ""))


class Taken(msgspec.Struct, frozen=True):
    """What became of statements that were offered."""

    governance: Governance
    new: tuple[Statement[Said], ...]
    """Those that were not held before, in the order in which they came."""
    refused: Mapping[str, Refused]
    """Statement id to why it was not believed."""


def extend(governance: Governance, statements: Sequence[Statement[Said]]) -> Taken:
    """The state after these statements, each verified; what cannot be believed is left out, and named.

    The cost is that of verifying what is new, and of one copy of what is revoked or said about the same domains.
    """
    growing, new, refused = dict[str, Growth](), list[Statement[Said]](), dict[str, Refused]()
    for statement in statements:
        name, link = link_of(statement)
        growth = growing.get(name) or Growth(governance.streams.get(name, Chain()))
        if growth.holds(link):
            continue
        try:
            admit_law(statement, governance.roster)  # so there are no more streams than the roster has revokers and domains
            growth.add(link)
        except Refused as refusal:
            refused[statement.id] = refusal
            continue
        growing[name] = growth
        new.append(statement)
        refused.pop(statement.id, None)  # it came before with signatures that do not hold, which say nothing about it
    if not new:
        return Taken(governance, (), refused)
    return Taken(_with(governance, growing, new), tuple(new), refused)


def restore(governance: Governance, statements: Iterable[Statement[Said]]) -> Governance:
    """The state after statements that were believed before they were stored: what was taken in once is taken up again, however much."""
    growing, new = dict[str, Growth](), list[Statement[Said]]()
    for statement in statements:
        name, link = link_of(statement)
        growth = growing.setdefault(name, Growth(governance.streams.get(name, Chain()), most=sys.maxsize))
        if not growth.holds(link):
            growth.add(link)
            new.append(statement)
    return _with(governance, growing, new) if new else governance


def unsaid(governance: Governance) -> Governance:
    """The same roster and laws, as if nothing had been said in any stream; its frontier is not made anew."""
    return msgspec.structs.replace(governance, streams={}, revoked=frozenset(), halts={}, halted={}, whole=NOTHING)


def admit_governance(
    roster: Statement[Roster],
    *,
    pin: str,
    manifests: Iterable[Statement[Manifest]],
    bundles: Iterable[bytes],
    revocations: Iterable[Statement[Said]],
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
        for law, after in pairwise(epochs):
            check_succession(law.manifest, law.manifest_id, after.manifest)
    frontier = _fixed(believed, roster.id, laws)
    plain = Governance(
        roster=believed,
        roster_id=roster.id,
        laws={domain: tuple(epochs) for domain, epochs in laws.items()},
        revoked=frozenset(),
        halts={},
        halted={},
        streams={},
        frontier=frontier,
        digest=frontier_digest(list(frontier)),
        whole=NOTHING,
        former={frontier_digest(list(frontier)): frontier},
        keys={member.decision_key: member for member in believed.members},
    )
    taken = extend(plain, list(revocations))
    for refusal in taken.refused.values():
        raise refusal
    return taken.governance


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


def _fixed(roster: Roster, roster_id: str, laws: Mapping[str, list[Law]]) -> tuple[StreamHead, ...]:
    heads = [StreamHead(stream="roster", sequence=roster.epoch, head=roster_id, forked=False)]
    heads += [
        StreamHead(stream=f"policy/{domain}", sequence=epochs[-1].manifest.epoch, head=epochs[-1].manifest_id, forked=False)
        for domain, epochs in laws.items()
    ]
    return tuple(sorted(heads, key=lambda head: head.stream))


def _with(governance: Governance, growing: Mapping[str, Growth], new: Sequence[Statement[Said]]) -> Governance:
    streams = {**governance.streams, **{name: growth.finish() for name, growth in growing.items()}}
    heads = [head for head in governance.frontier if head.stream not in streams]
    heads += [head for name, stream in streams.items() if (head := head_of(name, stream)) is not None]
    frontier = tuple(sorted(heads, key=lambda head: head.stream))
    digest = frontier_digest(list(frontier))
    former = {**governance.former, digest: frontier}
    halts, halted = _halting(governance, streams, new)
    return msgspec.structs.replace(
        governance,
        revoked=governance.revoked | {(said.target.type, said.target.value) for item in new if isinstance(said := item.claims, Revocation)},
        halts=halts,
        halted=halted,
        streams=streams,
        frontier=frontier,
        digest=digest,
        whole={name: stream.whole for name, stream in streams.items() if isinstance(stream, Fork)},
        former=dict(list(former.items())[-_FORMER_MAX:]),
    )


def _halting(
    governance: Governance, streams: Mapping[str, Stream], new: Sequence[Statement[Said]]
) -> tuple[Mapping[str, Mapping[str, tuple[str, ...]]], Mapping[str, tuple[str, ...]]]:
    """What is held of each domain's halts, and which are in force."""
    touched = dict[str, dict[str, tuple[str, ...]]]()
    for item in new:
        if isinstance(item.claims, Halt):
            domain = item.claims.domain
            said = touched.get(domain)
            if said is None:
                said = touched[domain] = dict(governance.halts.get(domain, {}))
            said[item.id] = tuple(item.claims.lifts)
    if not touched:
        return governance.halts, governance.halted
    halted = {domain: halts for domain, halts in governance.halted.items() if domain not in touched}
    for domain, said in touched.items():
        if halts := in_force(said, streams[halt_stream(domain)]):
            halted[domain] = halts
    return {**governance.halts, **touched}, dict(sorted(halted.items()))
