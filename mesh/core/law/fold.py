"""From statements to the governance state: a pure fold. The order in which they came makes no difference.

A statement whose signers nobody knows yet, or a roster whose predecessor is missing, is refused, and believed when it comes again:
whoever lacks it sees that it does, and asks (:mod:`mesh.protocol.gossip`).

Not here: the state itself (:mod:`mesh.core.law.governance`), who may say what (:mod:`mesh.core.law.travel`).
"""

import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, cast

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, Rollout, activate_stream
from mesh.core.law.governance import Governance, Law
from mesh.core.law.halt import Halt, halt_stream, in_force
from mesh.core.law.heartbeat import NOTHING, StreamHead, frontier_digest
from mesh.core.law.policy import Bundle, Manifest, check_succession, read_bundle
from mesh.core.law.resolve import RESOLVES, Resolve, newest
from mesh.core.law.revocation import Revocation, sparing
from mesh.core.law.roster import ROSTERS, Roster, admit_roster
from mesh.core.law.streams import Chain, Fork, Growth, Stream, common, head_of, settle
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said, admit_law, admit_next, link_of
from mesh.errors import Refused

__all__ = ["Taken", "admit_governance", "extend", "restore", "unsaid", "with_bundle"]

_FORMER_MAX: Final = 32
"""Former frontiers that are remembered, for whoever asks for an authorization again that was made in one."""


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
    rosters = governance.rosters
    for statement in sorted(statements, key=_rosters_first):
        name, link = link_of(statement)
        growth = growing.get(name) or Growth(governance.streams.get(name, Chain()))
        if growth.holds(link):
            continue
        try:
            if isinstance(statement.claims, Roster):
                grown = admit_next(cast("Statement[Roster]", statement), rosters)
                growth.add(link)
                rosters = _chained(grown, growth.finish())
            else:
                admit_law(statement, rosters)  # so there are no more streams than the rosters have revokers and domains
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


def _rosters_first(statement: Statement[Said]) -> int:
    """Who may say the rest is said by them, and each by the one before."""
    return statement.claims.epoch if isinstance(statement.claims, Roster) else sys.maxsize


def _chained(rosters: Rosters, stream: Stream) -> Rosters:
    """These rosters, of which that chain counts; after a fork, what counted before it."""
    return Rosters(rosters.held, stream.ids) if isinstance(stream, Chain) else rosters


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
    """The same rosters, as if nothing had been said in any other stream."""
    genesis = governance.rosters.ids[0]
    bare = _silent(governance.rosters.held[genesis], genesis)
    stream = governance.streams[ROSTERS]
    streams = {ROSTERS: stream}
    whole, settled = _settling(bare, streams, (), {})
    frontier = _frontier(streams, settled)
    digest = frontier_digest(list(frontier))
    return msgspec.structs.replace(
        bare,
        roster=governance.roster,
        roster_id=governance.roster_id,
        rosters=governance.rosters,
        keys=governance.keys,
        streams=streams,
        whole=whole,
        frontier=frontier,
        digest=digest,
        former={digest: frontier},
    )


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
    said: Sequence[Statement[Said]] = (),
) -> Governance:
    """The state that these statements make, each verified; unbelievable ones are refused, not skipped.

    Args:
        roster: the genesis to begin with: epoch 1.
        pin: the statement id of the roster that is trusted and in force, the genesis or one that is ``said``. Those before it are
            believed because it names them, those after it because it signed them.
        manifests: of each domain, without gaps between them.
        bundles: canonical bytes of what they name.
        said: anything else.

    Raises:
        Refused: whatever is wrong with the first one that is.
    """
    later = {item.id: item for item in said if isinstance(item.claims, Roster)}
    state = _silent(admit_roster(roster, pin=roster.id if pin in later else pin), roster.id)
    given = sorted(manifests, key=lambda manifest: (manifest.claims.domain, manifest.claims.epoch))
    for now, after in pairwise(given):
        if now.claims.domain == after.claims.domain:
            check_succession(now.claims, now.id, after.claims)
    taken = extend(state, [*given, *said])
    for refusal in taken.refused.values():
        raise refusal
    contents = list(bundles)
    state = taken.governance.under(_pinned(taken.governance, pin))
    for manifest in given:
        bundle = _find_bundle(contents, manifest.claims)
        state = with_bundle(state, manifest.id, bundle) if bundle is not None else state
    return state


def _pinned(governance: Governance, pin: str) -> int:
    """The epoch that is pinned."""
    if pin not in governance.rosters.ids:
        raise Refused("roster_conflict", f"{pin[:12]}… is pinned, and another roster of its epoch is given too")
    return governance.rosters.ids.index(pin) + 1


def _silent(roster: Roster, roster_id: str) -> Governance:
    if roster.epoch != 1:
        raise Refused("wrong_epoch", f"a chain of rosters begins with epoch 1, this is {roster.epoch}")
    streams: dict[str, Stream] = {ROSTERS: Chain((roster_id,))}
    frontier = _frontier(streams, {})
    digest = frontier_digest(list(frontier))
    return Governance(
        roster=roster,
        roster_id=roster_id,
        rosters=Rosters.begin(roster, roster_id),
        laws={},
        activations={},
        rollouts={},
        revocations={},
        spared={},
        halts={},
        halted={},
        streams=streams,
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
    frontier = _frontier(streams, settled)
    digest = frontier_digest(list(frontier))
    former = {**governance.former, digest: frontier}
    halts, halted = _halting(governance, streams, settled, changed, new)
    activations, rollouts = _rolling_out(governance, streams, settled, changed, new)
    revocations = [item.claims for item in new if isinstance(item.claims, Revocation)]
    return msgspec.structs.replace(
        governance,
        rosters=_succeeding(governance.rosters, streams[ROSTERS], settled, new),
        laws=_legislating(governance.laws, new),
        activations=activations,
        rollouts=rollouts,
        revocations=_revoking(governance.revocations, new),
        spared=sparing(governance.spared, revocations),
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


def _frontier(streams: Mapping[str, Stream], settled: Mapping[str, tuple[str, ...]]) -> tuple[StreamHead, ...]:
    heads = (head_of(name, stream, settled.get(name, ())) for name, stream in streams.items())
    return tuple(sorted((head for head in heads if head is not None), key=lambda head: head.stream))


def _succeeding(rosters: Rosters, stream: Stream, settled: Mapping[str, tuple[str, ...]], new: Sequence[Statement[Said]]) -> Rosters:
    """The history that counts: all of it, or what a resolve chose, or what came before a fork."""
    held = {**rosters.held, **{item.id: item.claims for item in new if isinstance(item.claims, Roster)}}
    ids = stream.ids if isinstance(stream, Chain) else settled.get(ROSTERS) or common(stream)
    return Rosters(held, ids)


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
