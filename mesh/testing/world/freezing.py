"""Who is caught is caught rightly, by everybody, and counts for nothing from then on (I8, I14).

Not here: who lies (:mod:`mesh.testing.world.liars`).
"""

from collections.abc import Callable, Collection, Sequence
from typing import cast

from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.proof import PREFIX
from mesh.core.law.proofs import AnyProof, judge_proof
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import read_law
from mesh.core.log.note import parse_note
from mesh.core.run.authorization import Authorization
from mesh.errors import Refused
from mesh.protocol.step import Persist, PutLaw, PutNote
from mesh.testing.world.governor import Governor
from mesh.testing.world.ground import Violation

__all__ = ["Freezing"]


class Freezing:
    """Every proof that an honest member ever kept."""

    def __init__(self, rosters: Callable[[], Rosters]) -> None:
        """``rosters`` are all that there are by then."""
        self._rosters = rosters
        self.keys: set[str] = set()
        """That are caught."""

    def kept(self, governor: Governor, effects: Sequence[Persist], liars: Collection[str]) -> None:
        """What an honest member makes durable: proofs that name liars, and certificates without lines of whom it knows to be caught."""
        origin = governor.roster.origin(governor.member)
        for effect in effects:
            if isinstance(effect, PutLaw) and effect.stream.startswith(PREFIX):
                self._proof(governor, cast("Statement[AnyProof]", read_law(effect.envelope)), liars)
            elif isinstance(effect, PutNote) and effect.space == "certificate" and effect.origin == origin and governor.state is not None:
                roster, frozen = governor.roster, governor.state.governance.frozen
                lines = roster.attest_keys(without=frozen).keys() & {line.name for line in parse_note(effect.note).lines}
                if frozen and len(lines) < roster.k and governor.state.barrier is None:
                    raise Violation("I14", f"{governor.name} certifies {origin} at {effect.size} by lines of {sorted(frozen)}")

    def _proof(self, governor: Governor, proof: Statement[AnyProof], liars: Collection[str]) -> None:
        try:
            caught = judge_proof(proof, self._rosters())
        except Refused as refusal:
            raise Violation("I8", f"{governor.name} keeps a proof that proves nothing: {refusal}") from None
        if caught.member not in liars:
            raise Violation("I8", f"{governor.name} keeps a proof against {caught.member}, who is honest: {caught}")
        self.keys.add(caught.key)

    def starts(self, place: str, authorization: Authorization, governance: Governance, members: Collection[str]) -> None:
        """An enforcer starts this by what it holds, and by heartbeats of these decision keys."""
        frozen = governance.frozen
        if authorization.issuer in frozen:
            raise Violation("I14", f"{place} starts on the word of {authorization.issuer}, who is caught")
        heard = {governance.keys[key].name for key in members if key in governance.keys}
        if heard & frozen:
            raise Violation("I14", f"{place} starts by heartbeats of {sorted(heard & frozen)}, who are caught")

    def missing(self, governing: dict[str, Governance]) -> str:
        """Who has not frozen a member whom some honest member has caught."""
        for name, governance in governing.items():
            wanted = {
                member.name
                for member in governance.roster.members
                if not self.keys.isdisjoint((member.log_key, member.witness_key, member.attest_key))
            }
            if lacking := wanted - governance.frozen:
                return f"{name} has not frozen {sorted(lacking)}, who are caught"
        return ""
