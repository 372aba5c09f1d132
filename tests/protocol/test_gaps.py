"""A gap in a dense sequence is staleness, never "fine": whoever lacks a number that k members have does not act, and says so."""

from collections.abc import Sequence

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.law.revocation import Revocation
from mesh.errors import Refused
from mesh.protocol.enforcer import View, recheck
from mesh.protocol.freshness import Freshness, hear
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerbench import BOOT, Bench

MEMBERS = tuple(kit.REGIONS)


def _chain(count: int) -> list[Revocation]:
    """Revocations of subjects that have nothing to do with it, each behind the one before."""
    said, previous = list[Revocation](), ""
    for number in range(1, count + 1):
        said.append(kit.revocation("subject", f"spiffe://m-test/gone-{number}", sequence=number, previous=previous))
        previous = envelope.draft(said[-1]).id
    return said


SAID = _chain(4)


def _view(held: Sequence[Revocation], ahead: Sequence[Revocation], by: Sequence[str]) -> View:
    """An enforcer that holds some; these members say that they hold more, the others what it holds."""
    mine, theirs = (kit.governance(revoked=tuple(some)) for some in (held, ahead))
    fresh = Freshness.begin(BOOT)
    for name in MEMBERS:
        beat = kit.beat(theirs if name in by else mine, name, echo=(BOOT,))
        fresh = hear(fresh, beat, envelope.draft(beat).id, now_ms=kit.NOW_MS, bounds=kit.BOUNDS)
    return View(governance=mine, fresh=fresh, now_ms=kit.NOW_MS, wall_ms=kit.NOW_MS)


def _code(view: View) -> str:
    """What it says of a start that was granted before."""
    bench = Bench()
    try:
        recheck(bench.admit(), place=bench.place(), view=view)
    except Refused as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_whoever_lacks_one_number_that_k_members_hold_is_stale_wherever_the_gap_is(missing: int) -> None:
    held = [item for number, item in enumerate(SAID) if number != missing]
    assert _code(_view(SAID, SAID, MEMBERS)) == ""
    assert _code(_view(held, SAID, MEMBERS)) == "stale"
    assert _code(_view(held, SAID, MEMBERS[:2])) == "stale", "two of four that vouch are not k"
    assert _code(_view(held, SAID, MEMBERS[:1])) == "", "one that says so may be lying"


def test_what_stands_behind_a_gap_denies_already_and_is_not_said_to_be_held() -> None:
    target = kit.revocation("subject", kit.SUBJECT, sequence=3, previous=envelope.draft(SAID[1]).id)
    gap = kit.governance(revoked=(SAID[0], target))
    view = msgspec.structs.replace(_view(SAID[:1], SAID[:1], ()), governance=gap)
    assert gap.frontier == kit.governance(revoked=(SAID[0],)).frontier
    assert _code(view) == "revoked"
