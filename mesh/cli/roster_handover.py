"""Up to where the word of former signers counts once a planned roster gives their streams to others: all that members hold by now.

Rules
-----
1. A stream whose signers change goes on behind the last statement of its history that k members hold, unless something else is asked for.
2. Who plans must have heard k members: what was acknowledged cannot be missed then.
3. When the roster is handed to members, what they hold behind it by then would be lost, denials too: that is refused, unless it is wanted.
   So is what fewer than k hold: one member that shows something once would make all wait for it.

Not here: what a handover does (:mod:`mesh.core.law.reign`).
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from mesh.cli import roster_held as held
from mesh.core.law.governance import Governance
from mesh.core.law.reign import Handover, base_of, in_reign
from mesh.core.law.roster import Roster
from mesh.core.law.streams import Chain, Fork, leading
from mesh.core.law.succession import lacking_handovers, voices
from mesh.errors import Refused, Unavailable

__all__ = ["check", "fill", "parse"]

_NOTHING = Handover(sequence=0, head="")


def parse(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Stream to the id, or how it begins, behind which it is to go on; or to ``nothing``.

    Raises:
        Refused: ``usage`` for a stream that is named twice.
    """
    if len({name for name, _ in given}) != len(given):
        raise Refused("usage", "--handover names a stream twice")
    return dict(given)


def fill(now: Roster, now_id: str, after: Roster, seen: held.Held | None, wanted: Mapping[str, str]) -> Roster:
    """The next roster with where each stream goes on that changes hands, and those that are to although their signers stay.

    Raises:
        Refused: ``usage``, ``not_found``, ``stream_forked``.
        Unavailable: ``unreachable`` if fewer than k members were heard (rule 2).
    """
    former = seen.governance.rosters.every if seen is not None else ()
    known = {name for roster in (now, after, *former) for name in voices(roster)}
    if strange := sorted(wanted.keys() - known):
        raise Refused("usage", f"--handover: there is no stream {strange[0][:40]!r}; there are {', '.join(sorted(known))[:400]}")
    streams = sorted({*lacking_handovers(now, after), *wanted})
    if not streams:
        return after
    spoken = {name for roster in (now, *former) for name in voices(roster)}  # also by who came, left, and comes again
    known_so = seen is not None or now.epoch == 1  # else an earlier roster may have let somebody speak there
    handovers = {
        name: _NOTHING if known_so and name not in spoken else _one(now, now_id, seen, name, wanted.get(name, "")) for name in streams
    }
    return msgspec.structs.replace(after, handovers=handovers)


def _one(now: Roster, now_id: str, seen: held.Held | None, name: str, wanted: str) -> Handover:
    if wanted == "nothing":
        return _NOTHING
    if seen is None or len(seen.beats) < seen.roster.k:
        told = "no member was heard" if seen is None else f"{len(seen.beats)} of {len(seen.roster.members)} members were heard"
        raise Unavailable("unreachable", f"{told}; behind which statement {name[:40]} goes on, {seen.roster.k if seen else 'k'} must say")
    if now_id not in seen.governance.rosters.ids and name in now.handovers:  # a draft after a draft: nothing was said between them
        return now.handovers[name]
    stream = _newest(seen.governance, name)
    if wanted:
        return _named(seen.governance, name, stream, wanted)
    ids = _history(seen.governance, name, stream)
    number = _held_by_k(seen, name, ids)
    return Handover(sequence=number, head=ids[number - 1]) if number else _NOTHING


def _newest(governance: Governance, name: str) -> str:
    """The stream under the signers whom the newest roster names, or the former one of which not all was taken over."""
    stream = in_reign(name, governance.rosters.since(name))
    return governance.lacks(stream) or stream


def _held_by_k(seen: held.Held, name: str, ids: Sequence[str]) -> int:
    """The last number of that history that k members sign that they hold: what fewer hold may never reach the others."""
    places = {identity: number for number, identity in enumerate(ids, 1)}
    reached = [
        max((places.get(head.head, 0) for head in beat.frontier if base_of(head.stream) == name and not head.forked), default=0)
        for beat in seen.beats.values()
    ]
    return sorted(reached, reverse=True)[seen.roster.k - 1]


def _named(governance: Governance, name: str, stream: str, wanted: str) -> Handover:
    """The one statement whose id begins so, in whichever history it stands."""
    held_ = governance.streams.get(stream, Chain())
    numbers = {link.id: link.sequence for link in held_.whole.values()} if isinstance(held_, Fork) else {}
    numbers |= {identity: number for number, identity in enumerate(held_.ids, 1)} if isinstance(held_, Chain) else {}
    found = [identity for identity in numbers if identity.startswith(wanted)]
    if len(found) != 1:
        raise Refused("not_found", f"{len(found)} statements of {name[:40]} begin with {wanted[:64]!r}")
    return Handover(sequence=numbers[found[0]], head=found[0])


def _history(governance: Governance, name: str, stream: str) -> tuple[str, ...]:
    """Ids of the one history of it that members show."""
    if governance.forked(stream):
        raise Refused("stream_forked", f"{stream[:60]} has two histories: say which one with --handover {name[:40]}=ID")
    if stream in governance.settled:
        return governance.settled[stream]
    chain = governance.streams.get(stream)
    return chain.ids if isinstance(chain, Chain) else ()


def check(now: Roster, after: Roster, seen: held.Held, lose: Collection[str]) -> None:
    """That k members hold all that is handed over, and nobody more, but for streams of which one wants to ``lose`` the rest (rule 3).

    Raises:
        Refused: ``handover_stale``; ``usage`` for a stream to lose of which nothing is handed over.
        Unavailable: ``not_acknowledged``.
    """
    if strange := sorted(set(lose) - after.handovers.keys()):
        raise Refused("usage", f"--lose: the roster does not hand over {strange[0][:60]!r}")
    for name, upto in after.handovers.items():
        stream = in_reign(name, seen.governance.rosters.since(name, now.epoch))
        head = next((head for head in seen.governance.frontier if head.stream == stream), None)
        more = head is not None and (
            head.forked or head.sequence > upto.sequence or (head.sequence == upto.sequence != 0 and head.head != upto.head)
        )
        if more and name not in lose:
            raise Refused(
                "handover_stale",
                f"{name[:40]} goes on behind number {upto.sequence}, and members hold more: that would count no more. Plan the roster"
                f" anew; or, if that is what you want, --lose {name}",
            )
        ids = leading(seen.governance.streams.get(stream, Chain()), upto.sequence, upto.head) if upto.sequence else ()
        holders = _reaching(seen, name, upto, ids)
        if upto.sequence and len(holders) < seen.roster.k:
            raise Unavailable(
                "not_acknowledged",
                f"{len(holders)} of {seen.roster.k} members hold number {upto.sequence} of {name[:40]}, behind which it goes on",
            )


def _reaching(seen: held.Held, name: str, upto: Handover, ids: Sequence[str]) -> list[str]:
    """Who signs that it holds what is handed over; of a fork, whoever holds the same set as was seen."""
    holders = list[str]()
    for member, beat in seen.beats.items():
        for head in beat.frontier:
            own = seen.governance.streams.get(head.stream)
            same = isinstance(own, Fork) and own.digest in {head.head, head.held}
            further = not head.forked and (head.sequence > upto.sequence or (head.sequence, head.head) == (upto.sequence, upto.head))
            if base_of(head.stream) == name and bool(ids) and (same or further):
                holders.append(member)
                break
    return holders
