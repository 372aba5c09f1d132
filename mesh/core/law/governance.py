"""The governance state: a pure value made of believed statements; nodes that hold the same statements are in the same state.

Everything that decides or verifies is handed one of these. It is never changed, only replaced.

Not here: how it is made of statements (:mod:`mesh.core.law.fold`).
"""

from collections.abc import Container, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

import msgspec

from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, Rollout, activate_stream
from mesh.core.law.heartbeat import ENDED, Standing, StreamHead
from mesh.core.law.policy import Bundle, Manifest, policy_stream
from mesh.core.law.proof import accusable
from mesh.core.law.reign import in_reign
from mesh.core.law.resolve import Resolve
from mesh.core.law.retain import Floors
from mesh.core.law.revocation import Spared
from mesh.core.law.roster import ROSTERS, Member, Roster
from mesh.core.law.streams import Chain, Stream
from mesh.core.law.succession import Reign, Rosters
from mesh.core.law.unlawful import Unlawful
from mesh.errors import Refused

__all__ = ["DENYING", "Basis", "Governance", "Law"]

_NO_ROLLOUT: Final = Rollout()
DENYING: Final = "revoke/", "halt/"
"""Streams in which nothing is said that somebody who replays must read."""


class Basis(NamedTuple):
    """On which statements a decision says that its choice of policy rested."""

    manifest: str
    activation: str
    """The newest one of the domain that its governor held; empty for none."""


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch of one domain's policy, believed."""

    manifest: Manifest
    manifest_id: str
    bundle: Bundle | None
    """What decides, once this node has admitted it under this manifest. Enforcers hold manifests only."""


class Governance(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force."""

    roster: Roster
    """In force for whoever holds this; newer ones may be held."""
    roster_id: str
    rosters: Rosters
    laws: Mapping[str, tuple[Law, ...]]
    """Domain to its epochs, oldest first; where policy signers have signed two for one epoch, both."""
    activations: Mapping[str, Mapping[str, Activation]]
    """Domain to every activation that is held of it, by id."""
    rollouts: Mapping[str, Rollout]
    """Domain to the gapless chain of them, or to the history of them that a resolve chose."""
    revocations: Mapping[tuple[str, str], tuple[str, ...]]
    """(target type, value) of what was revoked to the ids of the statements that say so, also those that count no more."""
    spares: Mapping[str, frozenset[str]]
    """Of those that revoke an issuer: statement id to the ids of its documents that it spares."""
    spared: Spared
    halts: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Domain to every halt and resume that is held of it: its id, and what it lifts."""
    halted: Mapping[str, tuple[str, ...]]
    """Halted domain to the ids of the halts in force there."""
    said: Mapping[str, Stream]
    """What is held of the streams that travel, by name."""
    streams: Mapping[str, Stream]
    """The same, those that went to other signers with what was handed over."""
    frontier: tuple[StreamHead, ...]
    digest: str
    """Digest of the frontier."""
    resolves: Mapping[str, Resolve]
    """Every one that is held, by id."""
    verdicts: Mapping[str, Resolve]
    """Stream to the one that decides about it."""
    settled: Mapping[str, tuple[str, ...]]
    """Stream whose fork was resolved to the ids of the history that counts."""
    reigns: Mapping[str, Reign]
    """Stream that goes to other signers, by a roster that counts, to how; the oldest first. Some may not be in force yet."""
    proven: frozenset[str]
    """Keys (hex) against which a proof is held that counts under the roster in force (:mod:`mesh.core.law.heldproofs`)."""
    refuted: Mapping[str, tuple[Statement[Unlawful], ...]]
    """Key to the proofs against it that rest on the word of members, and count while these are there."""
    taken: frozenset[str]
    """Those of which all is held that was handed over."""
    void: frozenset[str]
    """Ids of halts and revocations that count no more: former signers said them behind what was handed over, or beside it."""
    whole: Mapping[str, Container[str]]
    """Stream that is or was forked to the ids that are held with all before them; see :func:`mesh.core.law.heartbeat.covers`."""
    erased: frozenset[str]
    """Ids of the intents whose openings are not kept any more, by any erasure that is held."""
    erasures: Mapping[str, tuple[str, ...]]
    """Every erasure that is held: its id, and the intents that it names."""
    floors: Floors
    """Of each log that any retention names: from where on its records are kept."""
    former: Mapping[str, tuple[StreamHead, ...]]
    """Digest to frontier, of this state and some before it, oldest first."""
    keys: Mapping[str, Member]
    """Decision key (hex) to member."""

    def active(self, domain: str, region: str, at_ms: int, basis: Basis | None = None) -> Law:
        """The law of ``domain`` in ``region`` at that time: the highest epoch begun there by then, and only if it has not ended.

        Args:
            domain: of which.
            region: of the governor who decides.
            at_ms: when it decides.
            basis: what it says it rested on; if not given, all that is held here counts.

        Raises:
            Refused: ``domain_unknown`` if there is none, ``policy_expired`` if it is over: nobody falls back to an older one.
                ``policy_unknown`` if a statement that says which it is is not held, ``policy_conflict`` if they contradict one another.
        """
        rollout = self.rollouts.get(domain, _NO_ROLLOUT) if basis is None else self._rollout(domain, basis.activation)
        step, laws = rollout.begun(region, at_ms), self.laws.get(domain, ())
        if step is None:
            first = (law for law in laws if law.manifest.epoch == 1)
            law = next((law for law in first if (self._stands(law) if basis is None else law.manifest_id == basis.manifest)), None)
        else:
            law = next((law for law in reversed(laws) if law.manifest_id == step.manifest), None)
            if law is None:
                raise Refused("policy_unknown", f"the manifest of {domain} epoch {step.epoch}")
            if law.manifest.epoch != step.epoch:
                raise Refused("policy_conflict", f"activated as {domain} epoch {step.epoch}, it is {law.manifest.epoch}")
            if basis is None and not self._stands(law):
                raise Refused("policy_conflict", f"activated is a manifest of {domain} epoch {step.epoch} that was resolved against")
        if law is None or at_ms < law.manifest.not_before_ms:
            raise Refused("domain_unknown", domain[:40])
        self._check_heeded(policy_stream(domain), law.manifest)
        if step is not None:
            self._check_heeded(activate_stream(domain), step)
        if at_ms >= law.manifest.expires_ms:
            raise Refused("policy_expired", f"{domain} epoch {law.manifest.epoch}")
        return law

    def standings(self, region: str, at_ms: int) -> list[Standing]:
        """How a node of ``region`` stands to the policy of each domain at that time."""
        found = list[Standing]()
        for domain, laws in self.laws.items():
            admitted = max((law.manifest.epoch for law in laws if law.bundle is not None and self._stands(law)), default=0)
            try:
                active = self.active(domain, region, at_ms).manifest.epoch
            except Refused:
                active = 0
            found.append(Standing(domain=domain, admitted=admitted, active=active))
        return found

    def current(self, base: str) -> str:
        """The stream of that name under the signers whom the roster in force lets speak there."""
        return in_reign(base, self.rosters.since(base, self.roster.epoch))

    def latest_activation(self, domain: str) -> str:
        """Id of the newest activation of ``domain`` that is held with all before it; empty if there is none."""
        return self.rollouts[domain].head if domain in self.rollouts else ""

    @property
    def revoked(self) -> AbstractSet[tuple[str, str]]:
        """(target type, value) of what somebody has revoked; whether that has an effect is :meth:`denies`'s to say."""
        if not self.void:
            return self.revocations.keys()
        return frozenset(link for link in self.revocations if self._said(link))

    @property
    def successor(self) -> Roster | None:
        """The roster that comes after the one in force, if it is held."""
        ids, epoch = self.rosters.ids, self.roster.epoch
        return self.rosters.held[ids[epoch]] if len(ids) > epoch and ids[epoch - 1] == self.roster_id else None

    @property
    def frozen(self) -> frozenset[str]:
        """Names of members of the roster in force who are caught: with other keys each is another member (:mod:`mesh.core.law.fraud`)."""
        return frozenset(member.name for member in self.roster.members if self.caught(member)) if self.proven else frozenset()

    def caught(self, member: Member) -> bool:
        """Whether a proof is held against a key of that member, of whichever roster."""
        keys = *accusable(member), member.decision_key  # which another roster may have given to somebody else as one of the others
        return bool(self.proven) and not self.proven.isdisjoint(keys)

    def check_unfrozen(self, keys: Iterable[str]) -> None:
        """That none of these decision keys (hex) is of a member who is caught.

        Raises:
            Refused: ``member_frozen``.
        """
        if self.proven:
            for key in keys:
                if key in self.keys and self.caught(self.keys[key]):
                    raise Refused("member_frozen", f"{self.keys[key].name}, against a key of which a proof is held")

    def check_roster(self, now_ms: int) -> None:
        """That whoever holds this may act under the roster in force.

        Raises:
            Refused: ``roster_pending`` before it begins, from when on its successor does, and as long as something is lacking that was
                handed over; ``roster_conflict`` if the root has signed two successors of one roster, or another one than this counts.
        """
        if self.forked(ROSTERS):
            raise Refused("roster_conflict", f"two rosters follow epoch {len(self.rosters.ids)}")
        if self.rosters.ids[self.roster.epoch - 1 : self.roster.epoch] != (self.roster_id,):
            raise Refused("roster_conflict", f"another epoch {self.roster.epoch} counts than the one in force here")
        if now_ms < self.roster.not_before_ms:
            raise Refused("roster_pending", f"epoch {self.roster.epoch} begins in {self.roster.not_before_ms - now_ms} ms")
        after = self.successor
        if after is not None and now_ms >= after.not_before_ms:
            raise Refused("roster_pending", f"epoch {after.epoch} has begun; it is not known yet that {self.roster.k} members hold it")
        # Nobody's frontier names the former stream any more: who lacks a denial in it would not see that others have it.
        if lacking := self.incomplete:
            raise Refused("roster_pending", f"not all of {lacking[0][:60]} is held that was handed over")

    def under(self, epoch: int) -> "Governance":
        """The same statements with the roster of that epoch in force.

        Raises:
            Refused: ``wrong_epoch`` if it is not held.
        """
        if epoch == self.roster.epoch:
            return self
        roster = self.rosters.of(epoch)
        keys = {member.decision_key: member for member in roster.members}
        return msgspec.structs.replace(self, roster=roster, roster_id=self.rosters.ids[epoch - 1], keys=keys)

    def forked(self, stream: str) -> bool:
        """Whether its author has said two things, and no resolve says which of them counts."""
        return stream in self.whole and stream not in self.settled and self.whole[stream] is not ENDED

    def _stands(self, law: Law) -> bool:
        """Whether it is of the history that counts, where there are others."""
        history = self.history(self.current(policy_stream(law.manifest.domain)))
        return history is None or law.manifest_id in history

    def history(self, stream: str) -> tuple[str, ...] | None:
        """Ids of what counts in a stream, if not all that is held does: it was resolved, or has gone to other signers."""
        if stream in self.settled or stream not in self.reigns:
            return self.settled.get(stream)
        held = self.streams.get(stream)
        return held.ids if isinstance(held, Chain) else ()

    def lacks(self, stream: str) -> str:
        """The former stream of which something that was handed over to ``stream`` is not held yet; empty if nothing is lacking."""
        lacking = ""
        while stream in self.reigns and stream not in self.taken:
            stream = lacking = self.reigns[stream].former
        return lacking

    @property
    def forgettable(self) -> frozenset[str]:
        """Streams of denials of which nothing counts any more under the roster in force, so that they need not be kept."""
        found = set[str]()
        for reign in self.reigns.values():
            if reign.upto.sequence == 0 and reign.since in self.rosters.ids[: self.roster.epoch] and reign.stream.startswith(DENYING):
                found |= self._formerly(reign)
        return frozenset(found)

    def _formerly(self, reign: Reign) -> set[str]:
        names = {reign.former}
        while (before := self.reigns.get(reign.former)) is not None:
            reign = before
            names.add(reign.former)
        return names

    @property
    def incomplete(self) -> list[str]:
        """Streams of which something is lacking that was handed over to those who speak there now, sorted."""
        if len(self.taken) == len(self.reigns):
            return []
        reigning = [reign for reign in self.reigns.values() if reign.since in self.rosters.ids[: self.roster.epoch]]
        former = {reign.former for reign in reigning}
        return sorted(reign.stream for reign in reigning if reign.stream not in former and reign.stream not in self.taken)

    def _check_heeded(self, base: str, said: Manifest | Activation) -> None:
        """That its signers' word still counts there under the roster in force; ``handed_over``."""
        self.rosters.check_heeded(base, said.since, said.sequence, self.roster.epoch)

    def _rollout(self, domain: str, activation: str) -> Rollout:
        """The chain from the first activation to that one, also after a fork."""
        known = self.rollouts.get(domain, _NO_ROLLOUT)
        if activation == known.head:
            return known
        held, chain = self.activations.get(domain, {}), list[tuple[str, Activation]]()
        at = activation
        while at:
            step = held.get(at)
            if step is None:
                raise Refused("policy_unknown", f"an activation of {domain}, {at[:12]}")
            chain.append((at, step))
            at = step.previous
        chain.reverse()
        return Rollout.of([identity for identity, _ in chain], [step for _, step in chain])

    def check_unrevoked(self, *chain: tuple[str, str]) -> None:
        """That nothing of ``chain``, pairs of target type and value, is revoked.

        Raises:
            Refused: ``revoked``.
        """
        for link in chain:
            if self.denies(link):
                raise Refused("revoked", f"{link[0]} {link[1][:80]}")

    def denies(self, link: tuple[str, str]) -> bool:
        """Whether that target type and value are revoked, a key that a roster names by the threshold."""
        kind, value = link
        if kind == "key" and self._said(("enrolled", value)):
            return True
        return bool(self._said(link)) and not (kind == "key" and self._names(value))

    def said_of(self, link: tuple[str, str]) -> tuple[str, ...]:
        """Ids of the statements by which :meth:`denies`."""
        if not self.denies(link):
            return ()
        plain = () if link[0] == "key" and self._names(link[1]) else self._said(link)
        return (*plain, *self._said(("enrolled", link[1]))) if link[0] == "key" else plain

    def _said(self, link: tuple[str, str]) -> tuple[str, ...]:
        """Ids of the statements that revoke it, as far as they count."""
        ids = self.revocations.get(link, ())
        return tuple(identity for identity in ids if identity not in self.void) if self.void else ids

    def _names(self, key: str) -> bool:
        return any(key in roster.keys for roster in self.rosters.every)

    def check_issued(self, *documents: Statement[Payload]) -> None:
        """That no issuer that signed one of these identity documents is revoked, unless the document is spared.

        Raises:
            Refused: ``revoked``.
        """
        for document in documents:
            for key in document.signatures:
                if key in self.spared and document.id not in self.spared[key]:
                    raise Refused("revoked", f"issuer {key} of document {document.id[:12]}…")

    def check_open(self, domain: str) -> None:
        """That no halt of ``domain`` is in force, and that its policy signers have not contradicted themselves.

        Raises:
            Refused: ``halted``, ``policy_conflict``.
        """
        if domain in self.halted:
            halts = self.halted[domain]
            raise Refused("halted", f"{domain} by {halts[0][:12]}" + (f" and {len(halts) - 1} more" if len(halts) > 1 else ""))
        for stream in (self.current(policy_stream(domain)), self.current(activate_stream(domain))):
            if self.forked(stream):
                raise Refused("policy_conflict", stream)
