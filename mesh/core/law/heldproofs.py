"""Proofs against members as the governance state holds them: which count under the roster in force, and which a frontier names.

Rules
-----
1. Two histories by one key are a proof for ever.
2. What members say counts as long as f + 1 of them are members under the same keys: old keys are kept in drawers, and stolen from
   there. So it is taken in by the roster in force, and asked again whenever that is another one. Who is there says it again.
3. What counts no more is as if it were not there: nobody names it, nobody waits for it, and it makes room for what counts.

Not here: what a proof proves (:mod:`mesh.core.law.fraud`, :mod:`mesh.core.law.unlawful`), the fold that asks (:mod:`mesh.core.law.fold`).
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

from mesh.core.bytes.envelope import Statement
from mesh.core.law.fraud import Fraud
from mesh.core.law.governance import Governance
from mesh.core.law.proof import PREFIX, accusable, fraud_stream
from mesh.core.law.roster import Roster, frauds_max
from mesh.core.law.streams import Stream
from mesh.core.law.travel import Said
from mesh.core.law.unlawful import Unlawful, counts
from mesh.errors import Refused

__all__ = ["beside", "check_counts", "counting", "proving"]


def check_counts(governance: Governance, statement: Statement[Said]) -> None:
    """That a proof by the word of members is by those who are there now.

    Raises:
        Refused: ``unknown_member``.
    """
    if isinstance(statement.claims, Unlawful) and not counts(cast("Statement[Unlawful]", statement), governance.roster):
        raise Refused("unknown_member", f"too few of those who refuse are members by roster epoch {governance.roster.epoch}")


def counting(said: Mapping[str, Stream], *, proven: AbstractSet[str], refuted: Mapping[str, Any]) -> Mapping[str, Stream]:
    """What is held, without proofs that count no more (rule 3)."""
    gone = {fraud_stream(key) for key in refuted.keys() - proven}
    return {name: stream for name, stream in said.items() if name not in gone} if gone else said


def proving(governance: Governance, new: Sequence[Statement[Said]]) -> dict[str, Any]:
    """The keys against which a proof counts now: two histories for ever, the word of members as long as they are there."""
    refuted = dict(governance.refuted)
    for item in new:
        if isinstance(item.claims, Unlawful) and item not in refuted.get(item.claims.key, ()):
            refuted[item.claims.key] = (*refuted.get(item.claims.key, ()), cast("Statement[Unlawful]", item))
    histories = governance.proven - governance.refuted.keys() | {item.claims.key for item in new if isinstance(item.claims, Fraud)}
    for key in histories & refuted.keys():
        del refuted[key]
    named = {key for key, proofs in refuted.items() if any(counts(proof, governance.roster) for proof in proofs)}
    return {"proven": histories | named, "refuted": refuted}


def beside(roster: Roster, streams: Mapping[str, Stream]) -> set[str]:
    """Proofs that no frontier names: against keys of who is no member any more or not yet, and beyond what one may name."""
    held = {name for name in streams if name.startswith(PREFIX)}
    if not held:
        return held
    named = sorted({fraud_stream(key) for member in roster.members for key in accusable(member)} & held)
    return held - set(named[: frauds_max(roster)])
