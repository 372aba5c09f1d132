"""Up to where the word of former signers counts once a planned roster gives their streams to others: all that members hold by now.

Rules
-----
1. A stream whose signers change goes on behind the last statement that members show of its one history, unless something else is asked for.
2. Who plans must have heard k members: what was acknowledged cannot be missed then.
3. When the roster is handed to members, what they hold behind it by then would be lost, denials too: that is refused, unless it is wanted.

Not here: what a handover does (:mod:`mesh.core.law.reign`).
"""

from collections.abc import Mapping, Sequence

import msgspec

from mesh.cli import roster_held as held
from mesh.core.law.governance import Governance
from mesh.core.law.reign import Handover, in_reign
from mesh.core.law.roster import Roster
from mesh.core.law.streams import Chain
from mesh.core.law.succession import lacking_handovers, voices
from mesh.errors import Refused, Unavailable

__all__ = ["check_nothing_lost", "fill", "parse"]

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
    new = streams if seen is None and now.epoch == 1 else [name for name in streams if seen is not None and name not in spoken]
    new = [name for name in new if name not in voices(now)]
    handovers = {name: _NOTHING if name in new else _one(now, now_id, seen, name, wanted.get(name, "")) for name in streams}
    return msgspec.structs.replace(after, handovers=handovers)


def _one(now: Roster, now_id: str, seen: held.Held | None, name: str, wanted: str) -> Handover:
    if wanted == "nothing":
        return _NOTHING
    if seen is None or len(seen.beats) < seen.roster.k:
        told = "no member was heard" if seen is None else f"{len(seen.beats)} of {len(seen.roster.members)} members were heard"
        raise Unavailable("unreachable", f"{told}; behind which statement {name[:40]} goes on, {seen.roster.k if seen else 'k'} must say")
    if now_id not in seen.governance.rosters.ids and name in now.handovers:  # a draft after a draft: nothing was said between them
        return now.handovers[name]
    ids = _history(seen.governance, name)
    if not wanted:
        return Handover(sequence=len(ids), head=ids[-1]) if ids else _NOTHING
    found = [number for number, identity in enumerate(ids, 1) if identity.startswith(wanted)]
    if len(found) != 1:
        raise Refused("not_found", f"{len(found)} statements of {name[:40]} begin with {wanted[:64]!r}")
    return Handover(sequence=found[0], head=ids[found[0] - 1])


def _history(governance: Governance, name: str) -> tuple[str, ...]:
    """Ids of the one history of it that members show."""
    stream = governance.current(name)
    if lacking := governance.lacks(stream):
        raise Unavailable("unreachable", f"no member shows all of {lacking[:60]}, behind which {name[:40]} goes on")
    if governance.forked(stream):
        raise Refused(
            "stream_forked", f"{stream[:60]} has two histories: `mesh resolve` it first, or say which with --handover {name[:40]}=nothing"
        )
    history = governance.history(stream)
    if history is not None:
        return history
    chain = governance.streams.get(stream)
    return chain.ids if isinstance(chain, Chain) else ()


def check_nothing_lost(now: Roster, after: Roster, governance: Governance) -> None:
    """That members hold nothing behind what the roster hands over (rule 3).

    Raises:
        Refused: ``handover_stale``.
    """
    for name, upto in after.handovers.items():
        stream = in_reign(name, governance.rosters.since(name, now.epoch))
        head = next((head for head in governance.frontier if head.stream == stream), None)
        if head is not None and (head.sequence, head.head) != (upto.sequence, upto.head):
            raise Refused(
                "handover_stale",
                f"{name[:40]} goes on behind number {upto.sequence}, members hold {head.sequence}: what lies between would count no more."
                " Plan the roster anew; or, if that is what you want, --lose",
            )
