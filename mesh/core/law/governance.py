"""The governance state: a pure value made of believed statements; nodes that hold the same statements are in the same state.

Everything that decides or verifies is handed one of these. It is never changed, only replaced: :func:`extend` answers the state
after more statements. The order in which they came makes no difference.
"""

import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, Rollout, activate_stream
from mesh.core.law.halt import Halt, halt_stream, in_force
from mesh.core.law.heartbeat import NOTHING, Standing, StreamHead, frontier_digest
from mesh.core.law.policy import Bundle, Manifest, check_succession, policy_stream, read_bundle
from mesh.core.law.resolve import RESOLVES, Resolve, newest
from mesh.core.law.revocation import Revocation
from mesh.core.law.roster import Member, Roster, admit_roster
from mesh.core.law.streams import Chain, Fork, Growth, Stream, head_of, settle
from mesh.core.law.travel import Said, admit_law, link_of
from mesh.errors import Refused

__all__ = ["Basis", "Governance", "Law", "Taken", "admit_governance", "extend", "restore", "unsaid", "with_bundle"]

_NO_ROLLOUT: Final = Rollout()
_FORMER_MAX: Final = 32
"""Former frontiers that are remembered, for whoever asks for an authorization again that was made in one."""


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
    roster_id: str
    laws: Mapping[str, tuple[Law, ...]]
    """Domain to its epochs, oldest first; where policy signers have signed two for one epoch, both."""
    activations: Mapping[str, Mapping[str, Activation]]
    """Domain to every activation that is held of it, by id."""
    rollouts: Mapping[str, Rollout]
    """Domain to the gapless chain of them, or to the history of them that a resolve chose."""
    revoked: frozenset[tuple[str, str]]
    """(target type, value)."""
    revocations: Mapping[tuple[str, str], tuple[str, ...]]
    """The same to the ids of the statements that say so."""
    halts: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Domain to every halt and resume that is held of it: its id, and what it lifts."""
    halted: Mapping[str, tuple[str, ...]]
    """Halted domain to the ids of the halts in force there."""
    streams: Mapping[str, Stream]
    """What is held of the streams that travel, by name."""
    frontier: tuple[StreamHead, ...]
    digest: str
    """Digest of the frontier."""
    resolves: Mapping[str, Resolve]
    """Every one that is held, by id."""
    verdicts: Mapping[str, Resolve]
    """Stream to the one that decides about it."""
    settled: Mapping[str, tuple[str, ...]]
    """Stream whose fork was resolved to the ids of the history that counts."""
    whole: Mapping[str, Container[str]]
    """Stream that is or was forked to the ids that are held with all before them; see :func:`mesh.core.law.heartbeat.covers`."""
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

    def latest_activation(self, domain: str) -> str:
        """Id of the newest activation of ``domain`` that is held with all before it; empty if there is none."""
        return self.rollouts[domain].head if domain in self.rollouts else ""

    def forked(self, stream: str) -> bool:
        """Whether its author has said two things, and no resolve says which of them counts."""
        return stream in self.whole and stream not in self.settled

    def _stands(self, law: Law) -> bool:
        """Whether nothing was resolved against it."""
        history = self.settled.get(policy_stream(law.manifest.domain))
        return history is None or law.manifest_id in history

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
            if link in self.revoked:
                raise Refused("revoked", f"{link[0]} {link[1][:80]}")

    def check_open(self, domain: str) -> None:
        """That no halt of ``domain`` is in force, and that its policy signers have not contradicted themselves.

        Raises:
            Refused: ``halted``, ``policy_conflict``.
        """
        if domain in self.halted:
            halts = self.halted[domain]
            raise Refused("halted", f"{domain} by {halts[0][:12]}" + (f" and {len(halts) - 1} more" if len(halts) > 1 else ""))
        for stream in (policy_stream(domain), activate_stream(domain)):
            if self.forked(stream):
                raise Refused("policy_conflict", stream)


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
    """The same roster, as if nothing had been said in any stream."""
    return _silent(governance.roster, governance.roster_id)


def with_bundle(governance: Governance, manifest: str, bundle: Bundle) -> Governance:
    """The state once this node has admitted ``bundle`` under the manifest of that id."""
    epochs = governance.laws.get(bundle.domain, ())
    laws = tuple(msgspec.structs.replace(law, bundle=bundle) if law.manifest_id == manifest else law for law in epochs)
    return msgspec.structs.replace(governance, laws={**governance.laws, bundle.domain: laws}) if epochs else governance


def admit_governance(
    roster: Statement[Roster],
    *,
    pin: str,
    manifests: Iterable[Statement[Manifest]] = (),
    bundles: Iterable[bytes] = (),
    said: Iterable[Statement[Said]] = (),
) -> Governance:
    """The state that these statements make, each verified; unbelievable ones are refused, not skipped.

    Args:
        roster: the genesis to begin with.
        pin: its statement id.
        manifests: of each domain, without gaps between them.
        bundles: canonical bytes of what they name.
        said: anything else.

    Raises:
        Refused: whatever is wrong with the first one that is.
    """
    state = _silent(admit_roster(roster, pin=pin), roster.id)
    given = sorted(manifests, key=lambda manifest: (manifest.claims.domain, manifest.claims.epoch))
    for now, after in pairwise(given):
        if now.claims.domain == after.claims.domain:
            check_succession(now.claims, now.id, after.claims)
    taken = extend(state, [*given, *said])
    for refusal in taken.refused.values():
        raise refusal
    contents = list(bundles)
    state = taken.governance
    for manifest in given:
        bundle = _find_bundle(contents, manifest.claims)
        state = with_bundle(state, manifest.id, bundle) if bundle is not None else state
    return state


def _silent(roster: Roster, roster_id: str) -> Governance:
    frontier = (StreamHead(stream="roster", sequence=roster.epoch, head=roster_id, forked=False, held=""),)
    digest = frontier_digest(list(frontier))
    return Governance(
        roster=roster,
        roster_id=roster_id,
        laws={},
        activations={},
        rollouts={},
        revoked=frozenset(),
        revocations={},
        halts={},
        halted={},
        streams={},
        frontier=frontier,
        digest=digest,
        resolves={},
        verdicts={},
        settled={},
        whole=NOTHING,
        former={digest: frontier},
        keys={member.decision_key: member for member in roster.members},
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


def _with(governance: Governance, growing: Mapping[str, Growth], new: Sequence[Statement[Said]]) -> Governance:
    streams = {**governance.streams, **{name: growth.finish() for name, growth in growing.items()}}
    resolves = {**governance.resolves, **{item.id: item.claims for item in new if isinstance(item.claims, Resolve)}}
    verdicts = newest(_gapless(streams.get(RESOLVES)), resolves) if RESOLVES in growing else governance.verdicts
    whole, settled = _settling(governance, streams, growing, verdicts)
    changed = {name for name in {*settled, *governance.settled} if settled.get(name) != governance.settled.get(name)}
    heads = [head for head in governance.frontier if head.stream not in streams]
    heads += [head for name, stream in streams.items() if (head := head_of(name, stream, settled.get(name, ()))) is not None]
    frontier = tuple(sorted(heads, key=lambda head: head.stream))
    digest = frontier_digest(list(frontier))
    former = {**governance.former, digest: frontier}
    halts, halted = _halting(governance, streams, settled, changed, new)
    activations, rollouts = _rolling_out(governance, streams, settled, changed, new)
    return msgspec.structs.replace(
        governance,
        laws=_legislating(governance.laws, new),
        activations=activations,
        rollouts=rollouts,
        revoked=governance.revoked | {(said.target.type, said.target.value) for item in new if isinstance(said := item.claims, Revocation)},
        revocations=_revoking(governance.revocations, new),
        halts=halts,
        halted=halted,
        streams=streams,
        frontier=frontier,
        digest=digest,
        resolves=resolves,
        verdicts=verdicts,
        settled=settled,
        whole=whole,
        former=dict(list(former.items())[-_FORMER_MAX:]),
    )


def _gapless(stream: Stream | None) -> tuple[str, ...]:
    return stream.ids if isinstance(stream, Chain) else ()


def _settling(
    governance: Governance, streams: Mapping[str, Stream], growing: Container[str], verdicts: Mapping[str, Resolve]
) -> tuple[Mapping[str, Container[str]], Mapping[str, tuple[str, ...]]]:
    """What is held gaplessly of each stream that is or was forked, and the history of each that is resolved."""
    whole, settled = dict[str, Container[str]](), dict[str, tuple[str, ...]]()
    for name, stream in sorted(streams.items()):
        if not isinstance(stream, Fork):
            continue
        verdict = verdicts.get(name)
        if verdict is None or not stream.whole.keys() >= {verdict.head, *verdict.aside}:
            whole[name] = stream.whole if verdict is None else ()
            continue
        whole[name] = stream.whole
        known = governance.settled.get(name, ()) if name not in growing and governance.verdicts.get(name) is verdict else ()
        if history := known or settle(stream, verdict.head):
            settled[name] = history
    return whole, settled


def _legislating(laws: Mapping[str, tuple[Law, ...]], new: Sequence[Statement[Said]]) -> Mapping[str, tuple[Law, ...]]:
    grown = dict[str, list[Law]]()
    for item in new:
        if isinstance(claims := item.claims, Manifest):
            epochs = grown.setdefault(claims.domain, list(laws.get(claims.domain, ())))
            epochs.append(Law(manifest=claims, manifest_id=item.id, bundle=None))
    if not grown:
        return laws
    ordered = {domain: tuple(sorted(epochs, key=lambda law: (law.manifest.epoch, law.manifest_id))) for domain, epochs in grown.items()}
    return dict(sorted({**laws, **ordered}.items()))


def _revoking(
    revocations: Mapping[tuple[str, str], tuple[str, ...]], new: Sequence[Statement[Said]]
) -> Mapping[tuple[str, str], tuple[str, ...]]:
    said = [(item.claims.target, item.id) for item in new if isinstance(item.claims, Revocation)]
    if not said:
        return revocations
    grown = dict(revocations)
    for target, identity in said:
        link = target.type, target.value
        grown[link] = tuple(sorted({*grown.get(link, ()), identity}))
    return grown


def _rolling_out(
    governance: Governance,
    streams: Mapping[str, Stream],
    settled: Mapping[str, tuple[str, ...]],
    changed: Container[str],
    new: Sequence[Statement[Said]],
) -> tuple[Mapping[str, Mapping[str, Activation]], Mapping[str, Rollout]]:
    """All activations of each domain, and the gapless chain of them. A fork has none: then only what named one can be replayed."""
    grown = {domain: dict(held) for domain, held in governance.activations.items() if activate_stream(domain) in changed}
    for item in new:
        if isinstance(claims := item.claims, Activation):
            held = grown.get(claims.domain)
            if held is None:
                held = grown[claims.domain] = dict(governance.activations.get(claims.domain, {}))
            held[item.id] = claims
    if not grown:
        return governance.activations, governance.rollouts
    rollouts = dict(governance.rollouts)
    for domain, held in grown.items():
        name = activate_stream(domain)
        ids = settled.get(name) or _gapless(streams[name])
        rollouts[domain] = Rollout.of(ids, [held[identity] for identity in ids])
    return {**governance.activations, **grown}, dict(sorted(rollouts.items()))


def _halting(
    governance: Governance,
    streams: Mapping[str, Stream],
    settled: Mapping[str, tuple[str, ...]],
    changed: Container[str],
    new: Sequence[Statement[Said]],
) -> tuple[Mapping[str, Mapping[str, tuple[str, ...]]], Mapping[str, tuple[str, ...]]]:
    """What is held of each domain's halts, and which are in force."""
    touched = {domain: dict(said) for domain, said in governance.halts.items() if halt_stream(domain) in changed}
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
        name = halt_stream(domain)
        if halts := in_force(said, streams[name], settled.get(name, ())):
            halted[domain] = halts
    return {**governance.halts, **touched}, dict(sorted(halted.items()))
