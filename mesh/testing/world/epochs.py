"""What a world knows of its rosters, and what nobody may do around a change of them (I13).

Rules
-----
1. Nobody goes over before k members, less those that lie, have said for 2Δ that they hold the next roster; or after somebody honest.
2. Whoever holds the next roster acts under the former one no more from its beginning and ε on.
3. Once anybody has acted under a roster, nobody acts under one before it who does not hold it. Whoever holds it is judged by rule 2: its
   clock may be behind that of who went over, by no more than honest clocks differ.

Not here: what troubles a change (:mod:`mesh.testing.world.faults`).
"""

from typing import Final

from mesh.core.bytes.envelope import Statement
from mesh.core.law.former import final_under
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.roster import ROSTERS, Member, Roster
from mesh.core.law.succession import Rosters
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import Checkpoint, log_verifier
from mesh.errors import Refused
from mesh.testing.world.ground import Ground, Violation
from mesh.testing.world.setting import EPOCH_MS

__all__ = ["ROUNDING_MS", "Epochs"]

ROUNDING_MS: Final = 3


class Epochs:
    """The rosters of one world, and who did what under which."""

    def __init__(self, ground: Ground, genesis: Statement[Roster]) -> None:
        self._ground = ground
        self.chain = [genesis.claims]
        """Epoch after epoch, also those that nobody has heard of yet."""
        self._ids = [genesis.id]
        self.slack_us = 0
        """By how much times that members say may be wrong, in worlds where clocks are."""
        self._holding: dict[str, dict[int, int]] = {}
        """Decision key to epoch to since when (true µs) its member says that it holds that."""
        self._gone = 1
        """The newest epoch to which somebody honest has gone over."""
        self._acted = (1, "")
        """The newest epoch under which somebody has acted, and who."""

    def sign(self, statement: Statement[Roster]) -> None:
        """There is one more."""
        self.chain.append(statement.claims)
        self._ids.append(statement.id)

    @property
    def rosters(self) -> Rosters:
        """All of them, believed."""
        return Rosters(dict(zip(self._ids, self.chain, strict=True)), tuple(self._ids))

    @property
    def newest(self) -> Roster:
        """The last."""
        return self.chain[-1]

    def owner(self, origin: str) -> Member:
        """Whose log it is, whether or not it is a member now.

        Raises:
            Refused: ``unknown_member``.
        """
        for roster in reversed(self.chain):
            for member in roster.members:
                if roster.origin(member) == origin:
                    return member
        raise Refused("unknown_member", origin[:80])

    def certified(self, origin: str, note: bytes) -> tuple[Checkpoint, Roster]:
        """What a certificate says, and the roster by which it is one.

        Raises:
            Refused: if it is none by any.
        """
        log, refusal = log_verifier(origin, self.owner(origin).log_key), Refused("wrong_epoch", "")
        for roster in reversed(self.chain):
            try:
                return verify_certificate(note, log=log, attesters=roster.attest_keys(), k=roster.k).checkpoint, roster
            except Refused as refused:
                refusal = refused
        raise refusal

    def believed(self, origin: str, note: bytes) -> tuple[Checkpoint, Roster]:
        """What a certificate says to whoever trusts the newest roster, and as of which.

        Raises:
            Refused: if it says nothing.
        """
        log = log_verifier(origin, self.owner(origin).log_key)
        attested, roster = final_under(
            self.chain, lambda attesters, k: verify_certificate(note, log=log, attesters=attesters, k=k), trusted=self.newest.epoch
        )
        return attested.checkpoint, roster

    def said(self, key: str, frontier: list[StreamHead]) -> None:
        """A member says what it holds."""
        for head in frontier:
            if head.stream == ROSTERS and not head.forked and self._ids[head.sequence - 1 : head.sequence] == [head.head]:
                since = self._holding.setdefault(key, {})
                for epoch in range(2, head.sequence + 1):
                    since.setdefault(epoch, self._ground.now_us)

    def goes_over(self, name: str, epoch: int, faulty: frozenset[str]) -> None:
        """Rule 1; ``faulty`` are decision keys of members whose word is worth nothing."""
        former, after = self.chain[epoch - 2], self.chain[epoch - 1]
        bounds, keys = former.bounds, {member.decision_key for member in former.members}
        if self._ground.now_us < 1_000 * (after.not_before_ms - EPOCH_MS - bounds.skew_ms - ROUNDING_MS) - self.slack_us:
            raise Violation("I13", f"{name} goes over to epoch {epoch} before it begins")
        latest_us = self._ground.now_us - 1_000 * (2 * bounds.stale_ms - bounds.skew_ms - ROUNDING_MS) + self.slack_us
        long = sum(self._holding.get(key, {}).get(epoch, 1 << 60) <= latest_us for key in keys - faulty)
        if self._gone < epoch and long < former.k - len(faulty & keys):
            raise Violation("I13", f"{name} goes over to epoch {epoch}, which {long} of {former.k} members have held for long enough")
        self._gone = max(self._gone, epoch)

    def attests(self, name: str, governance: Governance, *, slow_ms: int = 0) -> None:
        """Rule 2; ``slow_ms`` is how far behind its clock is."""
        after = governance.successor
        if after is None:
            return
        since_us = self._ground.now_us - 1_000 * (after.not_before_ms - EPOCH_MS + after.bounds.skew_ms + slow_ms + ROUNDING_MS)
        if since_us > 0:
            raise Violation("I13", f"{name} acts under epoch {after.epoch - 1} {since_us} µs after the next one began, which it holds")

    def acts(self, name: str, governance: Governance, *, slow_ms: int = 0) -> None:
        """Rules 2 and 3: it decides or starts something."""
        self.attests(name, governance, slow_ms=slow_ms)
        epoch = governance.roster.epoch
        if epoch < self._acted[0] and (governance.successor is None or epoch < self._acted[0] - 1):
            raise Violation("I13", f"{name} acts under epoch {epoch}, {self._acted[1]} has acted under epoch {self._acted[0]}")
        if epoch > self._acted[0]:
            self._ground.say(name, "acts under", str(epoch))
            self._acted = (epoch, name)
