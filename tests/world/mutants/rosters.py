"""Bugs in how rosters follow one another, and in what former ones are worth."""

from typing import Any

import pytest

from mesh.core.law import fold, former, governance
from mesh.errors import Refused
from mesh.protocol import adoption, attester, catching, governor, together
from mesh.testing.world import clients, disk


def goes_over_by_the_clock(patch: pytest.MonkeyPatch) -> None:
    """At the time, whoever holds it."""

    def due(governance: Any, fresh: Any, *, now_ms: int) -> Any:
        del fresh
        after = governance.successor
        return after if after is not None and now_ms >= after.not_before_ms else None

    _everywhere(patch, "next_roster", due)


def goes_on_under_the_former(patch: pytest.MonkeyPatch) -> None:
    """Until it goes over itself."""
    real = governance.Governance.check_roster

    def check(self: Any, now_ms: int) -> None:
        after = self.successor
        real(self, min(now_ms, after.not_before_ms - 1) if after is not None else now_ms)

    patch.setattr(governance.Governance, "check_roster", check)


def takes_all_words_along(patch: pytest.MonkeyPatch) -> None:
    """Of those who are gone, too."""
    patch.setattr(clients, "go_over", lambda fresh, _former, _roster: fresh)


def counts_any_holder(patch: pytest.MonkeyPatch) -> None:
    """Whichever roster it is that others hold."""
    patch.setattr(adoption, "_holds", lambda *_: True)


def judges_by_the_newest_roster(patch: pytest.MonkeyPatch) -> None:
    """What was decided under a former one is refused."""

    def as_of(record: Any, held: Any, _owner: Any) -> Any:
        if record.roster_epoch != held.roster.epoch:
            raise Refused("wrong_epoch", f"roster epoch {record.roster_epoch}")
        return held

    patch.setattr(attester, "_as_of", as_of)


def believes_removed_keys(patch: pytest.MonkeyPatch) -> None:
    """k of one epoch attested it, whoever they are now."""
    patch.setattr(former.Remaining, "believed", property(lambda _: True))


def counts_at_once(patch: pytest.MonkeyPatch) -> None:
    """Whatever it does not hold yet."""
    for module in (catching, governor):
        patch.setattr(module, "lagging", lambda *_, **__: [])


def leaves_the_logs_of_who_left(patch: pytest.MonkeyPatch) -> None:
    """Nobody says a line but to an owner."""
    patch.setattr(together, "lines_due", lambda state, _: (state, []))


def stays_where_it_is(patch: pytest.MonkeyPatch) -> None:
    _everywhere(patch, "next_roster", lambda *_, **__: None)


def forgets_where_it_went(patch: pytest.MonkeyPatch) -> None:
    """It starts under the roster of its files, whichever it went over to."""
    patch.setattr(disk, "ROSTER_EPOCH", "another")


def heeds_former_signers(patch: pytest.MonkeyPatch) -> None:
    """Whatever a revoker ever said denies, also behind what a roster took over of it."""
    patch.setattr(fold, "_voiding", lambda *_: frozenset())


def never_asks_for_what_was_handed_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(governance.Governance, "lacks", lambda *_: "")


def _everywhere(patch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    for module in (governor, clients):
        patch.setattr(module, name, value)
