"""Whom one trusted roster vouches for: those before it, because it names them, and those after it, because each was signed by both roots.

Rules
-----
1. What is shown, with the trusted one, is every epoch from the first to the last, once each, in order: a gap is where a stranger's
   roster would stand.
2. Each is judged as a node judges it (:func:`mesh.core.law.succession.admit_successor`), also those before the trusted one, and is
   signed by nobody else than its own root and the one before: a line that nobody checks would be a byte that nobody checks.
3. Where the trusted one is shown too, it is that one and no other of its epoch.

A root that was stolen after it was replaced can sign another second epoch: whoever trusts only the first one cannot tell. Whoever
trusts a later one can.

Not here: what is judged by them (:mod:`mesh.verify`), certificates of former ones (:mod:`mesh.core.law.former`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Manifest
from mesh.core.law.reign import base_of
from mesh.core.law.roster import Member, Roster, admit_roster, check_sealed
from mesh.core.law.succession import Rosters, admit_successor
from mesh.core.law.travel import Said
from mesh.errors import Refused

__all__ = ["Vouched", "newest_begun", "vouch"]

T = TypeVar("T")


class Vouched(msgspec.Struct, frozen=True):
    """Rosters that are believed because one of them is."""

    trusted: Statement[Roster]
    chain: tuple[Statement[Roster], ...]
    """Epoch after epoch. From the first on, or only the trusted one."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing before it."""
        return self.chain[0].claims.epoch == 1

    @property
    def rosters(self) -> tuple[Roster, ...]:
        """Epoch after epoch."""
        return tuple(statement.claims for statement in self.chain)

    def of(self, epoch: int) -> Roster | None:
        """The roster of that epoch, if it is among them."""
        return next((roster for roster in self.rosters if roster.epoch == epoch), None)

    def since(self, epoch: int) -> tuple[Roster, ...]:
        """Those from that epoch on."""
        return tuple(roster for roster in self.rosters if roster.epoch >= epoch)

    def owners(self, origin: str) -> list[Member]:
        """Whose log ``origin`` is, the newest first; more than one if its name came back with another key.

        Raises:
            Refused: ``unknown_member``.
        """
        found = list[Member]()
        for roster in reversed(self.rosters):
            for member in roster.members:
                if roster.origin(member) == origin and all(member.log_key != other.log_key for other in found):
                    found.append(member)
        if not found:
            raise Refused("unknown_member", origin[:80])
        return found

    def judged(self, check: Callable[[Roster], T], by: Callable[[Roster], object]) -> T:
        """What was right under one of them; as :meth:`mesh.core.law.succession.Rosters.judged`."""
        return self.rosters_held.judged(check, by=by)

    @property
    def rosters_held(self) -> Rosters:
        """The same, as a node holds them. The first need not be among them."""
        held = {statement.id: statement.claims for statement in self.chain}
        return Rosters(held, tuple(held))

    def appointed(self, said: Statement[Manifest]) -> Roster | None:
        """The roster that named the signers of that manifest, if it is among them.

        Raises:
            Refused: ``handed_over`` if they could not say it.
        """
        base, number, previous = said.claims.link
        held = self.rosters_held
        if not (said.claims.since in held.held or (self.whole and not said.claims.since)):
            return None
        return held.appointed(base_of(base), said.claims.since, number, previous)

    def governance(
        self, *, manifests: Iterable[Statement[Manifest]] = (), bundles: Iterable[bytes] = (), said: Iterable[Statement[Activation]] = ()
    ) -> Governance:
        """The state that these statements make under these rosters, the trusted one in force.

        Raises:
            Refused: ``wrong_epoch`` unless the first epoch is among them; as :func:`mesh.core.law.fold.admit_governance`.
        """
        later: list[Statement[Said]] = [*self.chain[1:], *said]
        return admit_governance(self.chain[0], pin=self.trusted.id, manifests=manifests, bundles=bundles, said=later)


def vouch(trusted: Statement[Roster], shown: Sequence[Statement[Roster]]) -> Vouched:
    """The rosters that ``trusted``, which is believed, vouches for among those that are shown: all of them, or none is believed.

    Raises:
        Refused: ``non_canonical`` if they are not in their order; ``wrong_epoch`` for a gap, or one that does not follow the one
            before; ``roster_conflict`` if another one is shown of the trusted epoch; ``bad_signature`` for a signature of a stranger;
            otherwise as :func:`mesh.core.law.succession.admit_successor`.
    """
    if not shown:
        return Vouched(trusted, (trusted,))
    epochs = [statement.claims.epoch for statement in shown]
    if epochs != sorted(frozenset(epochs)):
        raise Refused("non_canonical", "the rosters are not in their order")
    by_epoch = {statement.claims.epoch: statement for statement in (trusted, *shown)}
    if by_epoch[trusted.claims.epoch].id != trusted.id:
        raise Refused("roster_conflict", f"another roster of epoch {trusted.claims.epoch} is trusted")
    chain = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    lacking = next((at for at, epoch in enumerate(sorted(by_epoch), start=1) if epoch != at), 0)
    if lacking:
        raise Refused("wrong_epoch", f"nothing leads from epoch {trusted.claims.epoch} to all of them: epoch {lacking} is missing")
    _check_chain(chain, frozenset(statement.id for statement in shown))
    return Vouched(trusted, tuple(chain))


def _check_chain(chain: Sequence[Statement[Roster]], shown: frozenset[str]) -> None:
    before = chain[0]
    admit_roster(before, pin=before.id)
    for statement in chain:
        if statement is not chain[0]:
            admit_successor(before.claims, before.id, statement)
        if statement.id in shown:
            check_sealed(statement, before.claims)
        before = statement


def newest_begun(governance: Governance, now_ms: int) -> Governance:
    """The same with the newest roster in force that has begun, if the one in force leads to it."""
    ids, roster = governance.rosters.ids, governance.roster
    if ids[roster.epoch - 1 : roster.epoch] != (governance.roster_id,):
        return governance
    begun = [held.epoch for held in governance.rosters.chain if held.not_before_ms <= now_ms]
    return governance.under(max([roster.epoch, *begun]))
