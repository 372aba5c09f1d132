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
from mesh.core.law.erase import ERASURES, Erase
from mesh.core.law.governance import DENYING, Governance, Law
from mesh.core.law.halt import Halt, halt_stream, in_force
from mesh.core.law.heartbeat import ENDED, StreamHead, frontier_digest
from mesh.core.law.heldproofs import beside, check_counts, counting, proving
from mesh.core.law.policy import Bundle, Manifest, check_succession, read_bundle
from mesh.core.law.proof import Proof
from mesh.core.law.reign import base_of, in_reign
from mesh.core.law.resolve import RESOLVES, Resolve, newest
from mesh.core.law.retain import Floors, Retain, raised
from mesh.core.law.revocation import Revocation, Spared, spared_by
from mesh.core.law.roster import ROSTERS, Roster, admit_roster
from mesh.core.law.streams import Chain, Fork, Growth, Link, Stream, common, head_of, onward, settle
from mesh.core.law.succession import Reign, Rosters
from mesh.core.law.taking import ended_by, seeded, taking_over, voiding
from mesh.core.law.travel import Said, admit_law, admit_next, link_of
from mesh.errors import Refused
from mesh.limits import STREAM_STATEMENTS_MAX

__all__ = ["Taken", "admit_governance", "extend", "put_in_force", "restore", "unsaid", "with_bundle"]

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
        growth = growing.get(name) or Growth(governance.said.get(name, Chain()), room=_room(statement.claims, rosters))
        if growth.holds(link):
            continue
        try:
            if isinstance(statement.claims, Roster):
                grown = admit_next(cast("Statement[Roster]", statement), rosters)
                _check_ahead(governance, statement.claims)
                growth.add(link)
                rosters = _chained(grown, growth.finish())
            else:
                admit_law(statement, rosters)  # so there are no more streams than the rosters have revokers, domains and handovers
                _check_open(governance, name, link)
                check_counts(governance, statement)
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


def _room(claims: Said, rosters: Rosters) -> int:
    """How much there may be of one history in a stream."""
    named_by = rosters.held.get(claims.since) if isinstance(claims, Revocation) and claims.since else rosters.held[rosters.ids[0]]
    return named_by.bounds.revocations_max if isinstance(claims, Revocation) and named_by is not None else STREAM_STATEMENTS_MAX


def _check_ahead(governance: Governance, roster: Roster) -> None:
    """That no other roster comes up for an epoch that this node has gone over to: its root may be one that was replaced since.

    Raises:
        Refused: ``roster_conflict``.
    """
    if roster.epoch <= governance.roster.epoch:
        raise Refused("roster_conflict", f"epoch {governance.roster.epoch} is in force here, and this is another epoch {roster.epoch}")


def _check_open(governance: Governance, stream: str, link: Link) -> None:
    """That something there may still deny or erase: in what has ended, former signers fill nothing up, and a former root erases nothing.

    What denies counts until it is known what was handed over. What erases cannot be undone: where it can be no part of that, it never does.

    Raises:
        Refused: ``handed_over``.
    """
    if not stream.startswith((*DENYING, ERASURES)):
        return
    begun = governance.rosters.ids[: governance.roster.epoch]
    after = next((reign for reign in governance.reigns.values() if reign.former == stream and reign.since in begun), None)
    if after is None:
        return
    beyond = link.sequence > after.upto.sequence or (link.sequence == after.upto.sequence and link.id != after.upto.head)
    if governance.whole.get(stream) is ENDED or (beyond and stream.startswith(ERASURES)):
        epoch = governance.rosters.held[after.since].epoch
        raise Refused("handed_over", f"{stream[:40]} ended at number {after.upto.sequence}, with roster epoch {epoch}")


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
        growth = growing.setdefault(name, Growth(governance.said.get(name, Chain()), most=sys.maxsize, room=sys.maxsize))
        known = growth.holds(link)
        if not known:
            growth.add(link)
        if not known or isinstance(statement.claims, Proof):  # of several against one key some may count no more
            new.append(statement)
    return _with(governance, growing, new) if new else governance


def unsaid(governance: Governance) -> Governance:
    """The same rosters, as if nothing had been said in any other stream."""
    genesis = governance.rosters.ids[0]
    bare = _silent(governance.rosters.held[genesis], genesis)
    bare = msgspec.structs.replace(bare, roster=governance.roster, roster_id=governance.roster_id, keys=governance.keys)
    said = msgspec.structs.replace(bare, rosters=governance.rosters, said={ROSTERS: governance.said[ROSTERS]})
    silent = _with(said, {}, ())
    return msgspec.structs.replace(silent, former={silent.digest: silent.frontier})


def put_in_force(governance: Governance, epoch: int) -> Governance:
    """The same statements, acted by under the roster of that epoch: what it hands over has changed hands.

    Raises:
        Refused: ``wrong_epoch`` if it is not held.
    """
    return governance if epoch == governance.roster.epoch else _with(governance.under(epoch), {}, (), again=True)


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
    state = put_in_force(taken.governance, _pinned(taken.governance, pin))
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
        spares={},
        spared={},
        halts={},
        halted={},
        said=streams,
        streams=streams,
        frontier=frontier,
        digest=digest,
        resolves={},
        verdicts={},
        settled={},
        reigns={},
        proven=frozenset(),
        refuted={},
        taken=frozenset(),
        void=frozenset(),
        whole={},
        erased=frozenset(),
        erasures={},
        floors={},
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


def _with(governance: Governance, growing: Mapping[str, Growth], new: Sequence[Statement[Said]], *, again: bool = False) -> Governance:
    """The state with what has grown; all that depends on the roster in force is made ``again`` if that is another one."""
    proven, refuted = proving(governance, new)
    said = counting({**governance.said, **{name: growth.finish() for name, growth in growing.items()}}, proven, refuted)
    resolves = {**governance.resolves, **{item.id: item.claims for item in new if isinstance(item.claims, Resolve)}}
    rosters, verdicts = _ruling(governance, said, resolves, new)
    erased, erasures = _erasing(governance, new)
    reigns = {reign.stream: reign for reign in rosters.reigns()}
    streams, taken = taking_over(governance, said, reigns, new)
    whole, settled = _settling(governance, streams, verdicts)
    complete = ended_by([reign for reign in reigns.values() if reign.since in rosters.ids[: governance.roster.epoch]], taken)
    ended = {name for names in complete.values() for name in names}
    void = voiding(governance, streams, complete)
    again = again or reigns.keys() != governance.reigns.keys() or void is not governance.void or taken != governance.taken
    changed = None if again else {name for name in streams if _differs(governance, streams, settled, name)}
    ended |= beside(governance.roster, streams)
    frontier = _frontier(_shown(rosters, governance.roster.epoch, streams, reigns, ended), settled)
    digest = frontier_digest(list(frontier))
    former = {**governance.former, digest: frontier}
    grown = msgspec.structs.replace(
        governance,
        rosters=rosters,
        laws=_legislating(governance.laws, new),
        revocations=_revoking(governance.revocations, new),
        said=said,
        streams=streams,
        frontier=frontier,
        digest=digest,
        resolves=resolves,
        verdicts=verdicts,
        settled=settled,
        reigns=reigns,
        proven=proven,
        refuted=refuted,
        taken=taken,
        void=void,
        whole={**whole, **dict.fromkeys(ended, ENDED)},
        former=dict(list(former.items())[-_FORMER_MAX:]),
        erased=erased,
        erasures=erasures,
        floors=_retaining(governance, new),
    )
    spares, spared = _sparing(grown, new, again=again)
    halts, halted = _halting(grown, changed, new)
    activations, rollouts = _rolling_out(grown, changed, new)
    return msgspec.structs.replace(
        grown, spares=spares, spared=spared, halts=halts, halted=halted, activations=activations, rollouts=rollouts
    )


def _differs(governance: Governance, streams: Mapping[str, Stream], settled: Mapping[str, tuple[str, ...]], name: str) -> bool:
    return streams[name] is not governance.streams.get(name) or settled.get(name) != governance.settled.get(name)


def _shown(
    rosters: Rosters, epoch: int, streams: Mapping[str, Stream], reigns: Mapping[str, Reign], ended: Container[str]
) -> dict[str, Stream]:
    """What a frontier names: all that may count now, or under the next roster; no more, or a heartbeat could not name all."""
    near = rosters.ids[: epoch + 1]
    return {
        name: stream
        for name, stream in streams.items()
        if name not in ended and (base_of(name) == name or (name in reigns and reigns[name].since in near))
    }


def _ruling(
    governance: Governance, said: Mapping[str, Stream], resolves: Mapping[str, Resolve], new: Sequence[Statement[Said]]
) -> tuple[Rosters, Mapping[str, Resolve]]:
    """Which rosters count, and what the root has resolved.

    All rosters count, or those before a fork, and what a resolve chose behind it: one by the root of those that count so far. Which may
    be another root in turn, that has resolved a later fork. Each round makes the history longer, or is the last.
    """
    held = {**governance.rosters.held, **{item.id: item.claims for item in new if isinstance(item.claims, Roster)}}
    stream = said[ROSTERS]
    ids = stream.ids if isinstance(stream, Chain) else common(stream)
    chosen: Resolve | None = None
    while True:
        rosters = Rosters(held, ids)
        reigns = [reign for reign in rosters.reigns() if base_of(reign.stream) == RESOLVES]
        names = [reign.former for reign in reigns] + [in_reign(RESOLVES, rosters.since(RESOLVES))]
        seen = {name: said[name] for name in names if name in said}
        for reign in reigns:
            seen[reign.stream] = seeded(seen.get(reign.stream, Chain()), reign, reigns, seen) or seen.get(reign.stream, Chain())
        verdicts = newest(_gapless(seen.get(names[-1])), resolves)
        verdict = verdicts.get(ROSTERS)
        if chosen is not None and verdict is None:
            verdicts = {**verdicts, ROSTERS: chosen}  # what led here stands, also if another root goes on behind it
        if not isinstance(stream, Fork) or verdict is None or not stream.whole.keys() >= {verdict.head, *verdict.aside}:
            return rosters, verdicts
        further, _ = onward(stream, verdict.head)
        if len(further) <= len(ids):
            return rosters, verdicts
        ids, chosen = further, verdict


def _sparing(governance: Governance, new: Sequence[Statement[Said]], *, again: bool) -> tuple[Mapping[str, frozenset[str]], Spared]:
    """What each revocation of an issuer spares, and what all of them together do."""
    said = {
        item.id: frozenset(item.claims.spares)
        for item in new
        if isinstance(item.claims, Revocation) and item.claims.target.type == "issuer"
    }
    if not said and not again:
        return governance.spares, governance.spared
    spares = {**governance.spares, **said}
    issuers = (value for kind, value in governance.revocations if kind == "issuer")
    counting = ((issuer, governance.said_of(("issuer", issuer))) for issuer in issuers)
    return spares, {issuer: spared_by([spares[identity] for identity in ids]) for issuer, ids in counting if ids}


def _frontier(streams: Mapping[str, Stream], settled: Mapping[str, tuple[str, ...]]) -> tuple[StreamHead, ...]:
    heads = (head_of(name, stream, settled.get(name, ())) for name, stream in streams.items())
    return tuple(sorted((head for head in heads if head is not None), key=lambda head: head.stream))


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


def _erasing(governance: Governance, new: Sequence[Statement[Said]]) -> tuple[frozenset[str], Mapping[str, tuple[str, ...]]]:
    """The intents that are erased with these statements, and by which erasures."""
    said = {item.id: tuple(item.claims.intents) for item in new if isinstance(item.claims, Erase)}
    return (governance.erased.union(*said.values()), {**governance.erasures, **said}) if said else (governance.erased, governance.erasures)


def _retaining(governance: Governance, new: Sequence[Statement[Said]]) -> Floors:
    """From where on records are kept with these statements."""
    said = [cast("Statement[Retain]", item) for item in new if isinstance(item.claims, Retain)]
    return raised(governance.floors, said) if said else governance.floors


def _gapless(stream: Stream | None) -> tuple[str, ...]:
    return stream.ids if isinstance(stream, Chain) else ()


def _settling(
    governance: Governance, streams: Mapping[str, Stream], verdicts: Mapping[str, Resolve]
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
        same = stream is governance.streams.get(name) and governance.verdicts.get(name) is verdict
        known = governance.settled.get(name, ()) if same else ()
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
    governance: Governance, changed: Container[str] | None, new: Sequence[Statement[Said]]
) -> tuple[Mapping[str, Mapping[str, Activation]], Mapping[str, Rollout]]:
    """All activations of each domain, and the gapless chain of them. A fork has none: then only what named one can be replayed."""
    current = {domain: governance.current(activate_stream(domain)) for domain in governance.activations}
    grown = {domain: dict(held) for domain, held in governance.activations.items() if changed is None or current[domain] in changed}
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
        name = governance.current(activate_stream(domain))
        ids = governance.settled.get(name) or _gapless(governance.streams.get(name))
        rollouts[domain] = Rollout.of(ids, [held[identity] for identity in ids])
    return {**governance.activations, **grown}, dict(sorted(rollouts.items()))


def _halting(
    governance: Governance, changed: Container[str] | None, new: Sequence[Statement[Said]]
) -> tuple[Mapping[str, Mapping[str, tuple[str, ...]]], Mapping[str, tuple[str, ...]]]:
    """What is held of each domain's halts, and which are in force."""
    current = {domain: governance.current(halt_stream(domain)) for domain in governance.halts}
    touched = {domain: dict(said) for domain, said in governance.halts.items() if changed is None or current[domain] in changed}
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
        name = governance.current(halt_stream(domain))
        counting = {identity: lifts for identity, lifts in said.items() if identity not in governance.void}
        if halts := in_force(counting, governance.streams.get(name, Chain()), governance.settled.get(name, ())):
            halted[domain] = halts
    return {**governance.halts, **touched}, dict(sorted(halted.items()))
