"""Bugs about members that are caught, each small and real."""

from typing import Any

import pytest

from mesh.core.law import fraud, governance, proof, travel
from mesh.protocol import adoption, freshness, gossip, lineage


def believes_any_proof(patch: pytest.MonkeyPatch) -> None:
    """Nothing in it is verified."""
    patch.setattr("mesh.core.law.travel.admit_proof", lambda *_: None)
    patch.setattr("mesh.protocol.gossip.admit_proof", lambda *_: "somebody")


def never_compares_the_trees(patch: pytest.MonkeyPatch) -> None:
    """Two notes of one log by one key are enough, whichever they are: so honest members are named."""
    patch.setattr(fraud, "_check_apart", lambda *_: None)


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
