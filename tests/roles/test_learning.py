"""Whoever learns from members what governs learns the rosters first, and asks those whom the newer ones name."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from mesh.adapters.cedar import CedarEngine
from mesh.adapters.decision_thread import DecisionThread
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.roster import ROSTERS
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import cursor_of
from mesh.core.messages import LawAsked, LawBatch, RefusedAnswer, Sync, SyncAnswer, pack
from mesh.errors import Unavailable
from mesh.roles.learning import Learning
from tests.support.epochs import ROSTERS as CHAIN
from tests.support.epochs import EpochLab
from tests.support.factory import MESH, T0, secret, sign

FRONTIER = EpochLab(3).governance.frontier


@pytest.fixture
def thread() -> Iterator[DecisionThread]:
    made = DecisionThread()
    yield made
    made.close()


def _learning(thread: DecisionThread, asked: list[str], *up: str, epochs: int = 3) -> Learning:
    """By somebody whose files know the first roster; these members answer, and show that many rosters."""

    async def ask(name: str, message: Payload) -> bytes:
        asked.append(name)
        if name not in up:
            raise Unavailable("unreachable", name)
        if isinstance(message, Sync):
            beat = Heartbeat(
                mesh=MESH,
                member=name,
                incarnation=1,
                sequence=1,
                signed_ms=T0,
                roster_epoch=3,
                frontier=list(FRONTIER),
                policies=[],
                checkpoint="",
                behind=False,
                echo=[message.nonce],
            )
            return pack(SyncAnswer(heartbeat=msgspec.Raw(sign(beat, secret(f"{name.partition('-')[0]} decision")))))
        if isinstance(message, LawAsked) and message.stream == ROSTERS:
            after = Cursor(message.sequence, message.id)
            shown = [item for item in CHAIN[:epochs] if cursor_of(item) > after][:1]
            return pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in shown]))
        return pack(RefusedAnswer(code="not_found", detail=""))

    return Learning(EpochLab(1).governance, ask, CedarEngine(thread), thread)


def test_one_old_member_leads_to_the_newer_ones_and_the_newest_roster_that_has_begun_is_in_force(thread: DecisionThread) -> None:
    asked = list[str]()
    learning = _learning(thread, asked, "sa-1", "af-1")
    governance = asyncio.run(learning.go_on(now_ms=T0))
    assert governance.roster == CHAIN[2].claims
    assert list(dict.fromkeys(asked)) == ["eu-1", "us-1", "ap-1", "sa-1", "af-1"]
    asked.clear()
    asyncio.run(learning.go_on(now_ms=T0))
    assert "eu-1" not in asked


def test_a_joiner_is_believed_by_the_roster_that_names_it(thread: DecisionThread) -> None:
    """It alone shows the third one."""
    asked = list[str]()
    learning = _learning(thread, asked, "sa-1", epochs=2)
    assert asyncio.run(learning.go_on(now_ms=T0)).roster == CHAIN[1].claims
    further = _learning(thread, asked, "af-1")
    further.governance = learning.governance
    assert asyncio.run(further.go_on(now_ms=T0)).roster == CHAIN[2].claims


def test_a_roster_that_has_not_begun_is_held_and_not_in_force(thread: DecisionThread) -> None:
    governance = asyncio.run(_learning(thread, [], "sa-1").go_on(now_ms=CHAIN[2].claims.not_before_ms - 1))
    assert (governance.roster, governance.rosters.newest) == (CHAIN[1].claims, CHAIN[2].claims)
