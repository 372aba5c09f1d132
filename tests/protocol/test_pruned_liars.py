"""Who sends a few records first, and hashes only then, keeps no member and no auditor from taking what leads to a certificate."""

from typing import Any

import pytest

from mesh.core.messages import LineageBatch, pack
from mesh.protocol.audit import Audit
from mesh.protocol.events import LineageArrived, NoteArrived
from mesh.protocol.step import Append, AppendHashes, Ask, SetHead
from tests.protocol.machines import LAB, batch, only
from tests.protocol.test_audit_far import Reader
from tests.protocol.test_catching import K
from tests.protocol.test_gone import _Late
from tests.protocol.test_proven import page
from tests.protocol.test_pruned import FINAL, LOG, OTHER, _late, hashed
from tests.support.retains import retaining

BELOW = 256


def _served(first: int) -> LineageBatch:
    """What every member answers that has pruned."""
    return hashed(LOG, first, min(first + 128, BELOW)) if first < BELOW else page(LOG, first, FINAL)


def _pulls(mine: _Late, turns: int = 20) -> list[Any]:
    return [effect for _ in range(turns) for ask in only(Ask, mine.tick()) for effect in mine.batch(_served(ask.first), helper=ask.member)]


@pytest.mark.parametrize("said", [LOG, OTHER], ids=["records of this log", "records of no history"])
@pytest.mark.parametrize("helper", ["", "eu-2"], ids=["published", "in an answer"])
def test_records_that_came_before_the_hashes_behind_them_stop_nobody(said: Any, helper: str) -> None:
    mine = _late(BELOW)
    mine.batch(batch(LOG, 0, 50, LOG.note(size=50)))
    mine.note(LOG.note(size=200))
    assert mine.batch(batch(said, 50, 10), helper=helper) == []
    assert (mine.state.frontier.size, mine.state.held) == (50, 60)
    effects = _pulls(mine)
    assert (mine.state.frontier, mine.state.certified) == (LOG.log.frontier, 300)
    assert sum(len(append.hashes) for append in only(AppendHashes, effects)) == BELOW - 50
    assert sum(len(append.leaves) for append in only(Append, effects)) == 300 - BELOW
    assert [item.use for item in only(SetHead, effects)] == ["witness", "attest"]


def test_an_auditor_that_hears_of_the_floor_last_goes_on_from_what_it_has_settled() -> None:
    reader = Reader()
    reader.feed(NoteArrived(LOG.note(*K)))
    reader.feed(LineageArrived(pack(batch(LOG, 0, 10)), pulled=False))
    reader.pull(lambda ask, _: _served(ask.first), rounds=20)
    assert (reader.log.frontier.size, reader.log.held) == (0, 10)
    reader.audit = Audit(retaining(LAB, {LOG.origin: BELOW}), LAB.engine)
    reader.pull(lambda ask, _: _served(ask.first), rounds=40)
    assert (reader.log.frontier, reader.log.pruned, reader.codes) == (LOG.log.frontier, BELOW, [])
