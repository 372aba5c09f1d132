"""A program's view learns of every revocation: as it is published, or from whoever says that it holds more; and ends what is running."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters.bus_message import NO_HEADERS, Message
from mesh.adapters.spent import SpentStore
from mesh.core import subjects
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import restore
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Bounds, Roster
from mesh.core.messages import LawAsked, LawBatch, pack, unpack
from mesh.core.run.outcome import Aborted
from mesh.errors import Unavailable
from mesh.gate.core import Core
from mesh.gate.errors import Denied
from mesh.gate.outlook import Outlook
from mesh.protocol.gossip import _PATIENCE_MS, _WAIT_MS, _WAIT_MS_MAX
from tests.gate.wire import FakeBus, FakeTime, events_of, settings, wish
from tests.protocol.machines import LAB, beat
from tests.support.factory import Lab, secret
from tests.support.revocations import STREAM, WORLD, branch, chained, governance, revocation

PLAIN = governance(LAB)
BOOT = "b1" * 32


class Wire:
    """A bus on which members hold governance statements, or do not answer."""

    def __init__(self) -> None:
        self.ears = dict[str, Callable[[Message], None]]()
        self.asked = list[tuple[str, LawAsked]]()
        self.held = dict[str, list[Statement[Revocation]]]()

    async def subscribe(self, subject: str, handler: Callable[[Message], None]) -> None:
        self.ears[subject] = handler

    async def request(self, subject: str, data: bytes, *, timeout_ms: int) -> Message:
        asked, member = unpack(LawAsked, data), subject.rpartition(".")[2]
        self.asked.append((member, asked))
        await asyncio.sleep(0)
        if member not in self.held:
            raise Unavailable("unreachable", subject)
        later = [item for item in self.held[member] if (item.claims.sequence, item.id) > (asked.sequence, asked.id)]
        return Message("", _batch(*later[:1]), "", NO_HEADERS, self)  # type: ignore[arg-type]  # nobody answers an answer

    def say(self, subject: str, data: bytes) -> None:
        self.ears[subject](Message("x", data, "", NO_HEADERS, self))  # type: ignore[arg-type]


class View:
    """An outlook that follows."""

    def __init__(self) -> None:
        self.wire, self.time, self.learnt = Wire(), FakeTime(), 0
        self.outlook = Outlook(PLAIN, self.time.clock(), BOOT, self.time.now_ms, learnt=self._count)
        self._beats = 0

    def _count(self) -> None:
        self.learnt += 1

    def publish(self, data: bytes) -> None:
        self.wire.say(subjects.law(subjects.ANY), data)

    def hear(self, member: str, frontier: tuple[StreamHead, ...], *echo: str) -> None:
        """A heartbeat of now."""
        self._beats += 1
        said = beat(member, self._beats, self.outlook.clock.now_ms(), echo=echo, frontier=list(frontier))
        self.wire.say(subjects.hb(subjects.ANY), said)

    async def settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)


@pytest.fixture
async def view() -> View:
    made = View()
    await made.outlook.follow(made.wire)  # type: ignore[arg-type]  # all that it uses
    return made


def _batch(*statements: Statement[Revocation]) -> bytes:
    return pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in statements]))


async def test_what_is_published_denies_at_once_and_is_learnt_once(view: View) -> None:
    view.publish(_batch(*WORLD))
    assert view.outlook.governance.digest == restore(PLAIN, WORLD).digest
    assert view.outlook.view().governance.revoked == restore(PLAIN, WORLD).revoked
    view.publish(_batch(*WORLD))
    assert view.learnt == 1
    assert view.wire.asked == []


async def test_garbage_is_counted_and_changes_nothing(view: View) -> None:
    view.publish(b"junk")
    view.publish(_batch(revocation(1, "", secret("mallory")), revocation(1, "", mesh="other"), revocation(2, "")))
    view.publish(pack(LawBatch(statements=[msgspec.Raw(b"1")])))
    assert view.outlook.counters == {"malformed": 3, "bad_signature": 1, "wrong_mesh": 1}
    assert view.outlook.governance is PLAIN
    assert view.learnt == 0
    view.publish(_batch(revocation(1, "", secret("mallory")), *chained(1)))
    assert view.outlook.governance.digest == restore(PLAIN, chained(1)).digest


async def test_who_says_that_it_holds_more_is_asked_until_it_is_held_here(view: View) -> None:
    said = chained(5)
    view.wire.held["us-1"] = said
    view.publish(_batch(said[0]))
    view.hear("ap-1", restore(PLAIN, said[:1]).frontier)
    view.hear("us-1", restore(PLAIN, said).frontier)
    await view.settle()
    assert view.outlook.governance.digest == restore(PLAIN, said).digest
    assert [member for member, _ in view.wire.asked] == ["us-1"] * 4
    assert view.wire.asked[0][1] == LawAsked(stream=STREAM, sequence=2, id="")
    view.hear("us-1", restore(PLAIN, said).frontier)
    await view.settle()
    assert len(view.wire.asked) == 4


async def test_a_fork_is_asked_for_until_all_of_it_is_held(view: View) -> None:
    said = sorted((item for item in WORLD if item.claims.link[0] == STREAM), key=lambda item: (item.claims.sequence, item.id))
    view.wire.held["us-1"] = said
    view.publish(_batch(*said[:3]))
    view.hear("us-1", restore(PLAIN, said).frontier)
    await view.settle()
    assert view.outlook.governance.streams == restore(PLAIN, said).streams


async def test_who_does_not_answer_is_not_asked_again_too_soon_and_another_that_is_ahead_is(view: View) -> None:
    ahead = restore(PLAIN, chained(1)).frontier
    times = list[int]()
    for _ in range(200):
        before = len(view.wire.asked)
        view.hear("us-1", ahead)
        await view.settle()
        if len(view.wire.asked) > before:
            times.append(view.outlook.clock.now_ms())
        view.time.ahead_ms += 100
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert min(waits) >= _WAIT_MS
    assert waits[-1] in range(_WAIT_MS_MAX, _WAIT_MS_MAX + 1_000)
    assert len(times) <= 8
    assert view.outlook.counters["unreachable"] == len(times)
    view.wire.held["ap-1"] = chained(1)
    view.time.ahead_ms += _PATIENCE_MS
    view.hear("ap-1", ahead)
    await view.settle()
    assert view.outlook.governance.digest == restore(PLAIN, chained(1)).digest


async def test_what_cannot_be_asked_for_is_not(view: View) -> None:
    for stream, sequence in ((STREAM, 0), ("revoke/" + "ab" * 32, 3), ("rosters", 9)):
        view.hear("us-1", (StreamHead(stream=stream, sequence=sequence, head="ab" * 32, forked=False, held=""),))
    await view.settle()
    assert view.wire.asked == []


async def test_once_closed_it_asks_for_nothing(view: View) -> None:
    view.wire.held["us-1"] = chained(3)
    view.hear("us-1", restore(PLAIN, chained(3)).frontier)
    view.outlook.close()
    await view.settle()
    view.hear("us-1", restore(PLAIN, chained(3)).frontier)
    await view.settle()
    assert len(view.wire.asked) <= 1
    assert view.outlook.governance is PLAIN


async def test_it_is_ready_once_k_members_have_answered_and_it_holds_what_they_hold(view: View) -> None:
    ahead = restore(PLAIN, chained(1)).frontier
    view.hear("us-1", ahead, BOOT)
    view.hear("ap-1", ahead, BOOT)
    view.publish(_batch(*chained(1)))
    assert not await view.outlook.wait_ready(10), "two of k = 3"
    view.hear("sa-1", ahead)
    assert not await view.outlook.wait_ready(10), "a third that has not answered this boot"
    view.hear("sa-1", ahead, BOOT)
    assert await view.outlook.wait_ready(0)


async def test_who_has_all_answers_but_not_what_they_speak_of_is_not_ready(view: View) -> None:
    for member in ("us-1", "ap-1", "sa-1"):
        view.hear(member, restore(PLAIN, chained(1)).frontier, BOOT)
    assert not await view.outlook.wait_ready(10)
    waiting = asyncio.create_task(view.outlook.wait_ready(5_000))
    await view.settle()
    view.publish(_batch(*chained(1)))
    assert await waiting, "without another heartbeat"
    assert set(view.outlook.counters) <= {"unreachable"}, "not being ready yet is no fault of anybody"


# ------------------------------------------------------------------------------------------------------------ what is running


class _Patient(Core):
    """Looks at what is running once in half an hour, if nothing wakes it."""

    @property
    def _roster(self) -> Roster:
        slow = Bounds(
            heartbeat_ms=3_600_000,
            stale_ms=7_200_000,
            skew_ms=300,
            certify_ms=250,
            attest_stall_ms=5_000,
            revocations_max=100_000,
            backlog_max=50_000,
        )
        return msgspec.structs.replace(super()._roster, bounds=slow)


@pytest.fixture
async def patient(lab: Lab, bus: FakeBus, tmp_path: Path) -> Any:
    store = await SpentStore.open(tmp_path / "spent.db", audience=lab.place_key.public)
    core = _Patient(settings(lab), bus, store, bus.time.clock(), bus.time.now_ms)  # type: ignore[arg-type]  # all that it uses
    await core.open_(wait_ms=5_000)
    yield core
    await core.close(wait_ms=500)


TARGETS: dict[str, Callable[[Lab], Target]] = {
    "its key": lambda lab: Target(type="key", value=lab.holder.public),
    "its name": lambda lab: Target(type="subject", value="spiffe://lab/agent/anna"),
    "its enforcer's key": lambda lab: Target(type="key", value=lab.place_key.public),
}


@pytest.mark.parametrize("what", TARGETS)
async def test_what_is_running_ends_at_once_when_it_is_revoked_and_nothing_starts_again(
    patient: Core, lab: Lab, bus: FakeBus, what: str
) -> None:
    stopped = asyncio.Event()
    work = await patient.begin(wish(), stopped.set)
    (tell,) = bus.law
    tell(_batch(revocation(1, "", key=lab.revoker, target=Target(type="subject", value="spiffe://lab/agent/otto"))))
    await asyncio.sleep(0.05)
    assert not stopped.is_set()
    tell(_batch(revocation(2, "aa" * 32, key=lab.revoker, target=TARGETS[what](lab))))
    await asyncio.wait_for(stopped.wait(), 10)
    assert work.refusal is not None
    assert work.refusal.code == "revoked"
    await patient.end(work, Aborted(code=work.refusal.code, duration_ms=1))
    with pytest.raises(Denied) as caught:
        await patient.begin(wish(), lambda: None)
    assert caught.value.code == "revoked"
    await patient.outbox.wait_taken_in(2_000)
    assert events_of(bus)[:2] == ["started", "aborted"]


@pytest.mark.parametrize("said_by_the_thief", [2, 9])
@pytest.mark.parametrize("forked_for_all", [False, True])
async def test_a_fork_that_a_thief_shows_to_one_program_hides_no_revocation_from_it(
    view: View, said_by_the_thief: int, *, forked_for_all: bool
) -> None:
    """One stolen revoker key, one lying member: before the program has heard anybody else it is shown a fork of that key's stream."""
    honest = chained(5)
    if forked_for_all:
        honest += branch([5], honest[3], "known to all")
    shown = [item for number in range(said_by_the_thief) for item in branch([1], None, f"shown to one {number}")]
    view.wire.held = {"eu-1": honest, "us-1": honest, "sa-1": honest, "ap-1": shown}
    frontier = restore(PLAIN, honest).frontier
    view.hear("ap-1", frontier)
    await view.settle()
    for _ in range(20):
        for member in ("eu-1", "us-1", "ap-1", "sa-1"):
            view.hear(member, frontier)
        await view.settle()
        view.time.ahead_ms += _WAIT_MS_MAX // 4
    wanted = {(item.claims.target.type, item.claims.target.value) for item in honest}
    assert wanted <= view.outlook.governance.revoked


async def test_a_member_that_always_has_one_thing_more_keeps_nobody_else_from_being_asked(view: View) -> None:
    honest = chained(5)
    endless = [item for number in range(200) for item in branch([1], None, f"one more {number}")]
    view.wire.held = {"eu-1": honest, "us-1": honest, "sa-1": honest, "ap-1": sorted(endless, key=lambda item: item.id)}
    frontier = restore(PLAIN, honest).frontier
    for _ in range(6):
        for member in ("ap-1", "eu-1", "sa-1", "us-1"):
            view.hear(member, frontier)
        await view.settle()
        view.time.ahead_ms += _PATIENCE_MS
    assert {member for member, _ in view.wire.asked} >= {"ap-1", "eu-1"}
    assert {item.claims.target.value for item in honest} <= {value for _, value in view.outlook.governance.revoked}
