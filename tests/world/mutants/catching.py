"""Bugs about members that are caught, each small and real."""

from typing import Any

import msgspec
import pytest

from mesh.core.law import fraud, governance, heldproofs, proof, travel, unlawful
from mesh.core.law.roster import Roster
from mesh.protocol import accusing, adoption, freshness, gossip, lineage


def believes_any_proof(patch: pytest.MonkeyPatch) -> None:
    """Nothing in it is verified."""
    patch.setattr("mesh.core.law.travel.admit_proof", lambda *_: None)
    patch.setattr("mesh.protocol.gossip.admit_proof", lambda *_: "somebody")


def never_compares_the_trees(patch: pytest.MonkeyPatch) -> None:
    """Two notes of one log by one key are enough, whichever they are: so honest members are named."""
    patch.setattr(fraud, "_check_apart", lambda *_: None)


def _one_less(roster: Roster) -> Roster:
    return msgspec.structs.replace(roster, f=roster.f - 1)


def freezes_by_f_refusals(patch: pytest.MonkeyPatch) -> None:
    """Whoever lies alone has honest members frozen."""
    enough, take, count = unlawful._check_enough, accusing.take_accusation, unlawful.counts

    def check(refusals: Any, roster: Roster, owner: Any) -> None:
        enough(refusals, _one_less(roster), owner)

    def taken(state: Any, data: bytes, context: Any) -> Any:
        lax = msgspec.structs.replace(context.governance, roster=_one_less(context.governance.roster))
        return take(state, data, msgspec.structs.replace(context, governance=lax))

    patch.setattr(unlawful, "_check_enough", check)
    patch.setattr(heldproofs, "counts", lambda said, roster: count(said, _one_less(roster)))
    patch.setattr(accusing, "take_accusation", taken)


def counts_one_member_twice(patch: pytest.MonkeyPatch) -> None:
    """Two refusals by one member are those of two."""
    patch.setattr(unlawful, "_check_order", lambda *_: None)


def counts_lines_of_who_is_caught(patch: pytest.MonkeyPatch) -> None:
    real = lineage.certify
    patch.setattr(lineage, "certify", lambda state, roster, me, **_: real(state, roster, me))


def counts_heartbeats_of_who_is_caught(patch: pytest.MonkeyPatch) -> None:
    real = freshness.check_fresh

    def check(*arguments: Any, **named: Any) -> dict[str, str]:
        return real(*arguments, **{**named, "frozen": frozenset()})

    patch.setattr(adoption, "check_fresh", check)


def starts_on_the_word_of_who_is_caught(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(governance.Governance, "check_unfrozen", lambda *_: None)


def never_asks_for_proofs(patch: pytest.MonkeyPatch) -> None:
    """Who was away when one was published never holds it."""
    real = travel.is_known
    patch.setattr(gossip, "is_known", lambda stream, rosters: not stream.startswith(proof.PREFIX) and real(stream, rosters))
