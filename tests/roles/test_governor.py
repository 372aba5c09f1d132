"""The governor's door: what it does not take it says so at once and keeps nothing of; the mesh's own traffic has its own places."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from mesh.adapters.bus_message import Message
from mesh.adapters.decision_thread import DecisionThread
from mesh.core.messages import Offer, RefusedAnswer, StatusAsked, Sync, pack, unpack
from mesh.errors import Alarm, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, QUESTIONS_MAX, QUEUE_BYTES_MAX, QUEUE_LAW_MAX, QUEUE_OUTCOMES_MAX, QUEUE_SYNCS_MAX
from mesh.protocol.events import HeartbeatArrived, LawArrived
from mesh.roles.config import load_config
from mesh.roles.governor import GovernorNode
from tests.live.kit import make_files


class Wire:
    """Where answers go."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.said: list[tuple[str, str]] = []

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        self.said.append((subject, unpack(RefusedAnswer, data).code))
        await asyncio.sleep(0)

    def message(self, data: bytes, name: str = "x") -> Message:
        return Message("s", data, f"_INBOX.{name}", {"a": "b"}, self)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = make_files(tmp_path_factory.mktemp("node") / "mesh", nodes=1)
    return files.node(files.nodes[0])


@pytest.fixture(scope="module")
def thread() -> Iterator[DecisionThread]:
    made = DecisionThread()
    yield made
    made.close()


@pytest.fixture
async def node(config: Path, thread: DecisionThread) -> GovernorNode:
    return GovernorNode(load_config(config), lambda _: None, thread)


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_flood_of_outcomes_is_told_overloaded_holds_no_waiters_and_leaves_heartbeats_their_places(node: GovernorNode) -> None:
    wire = Wire()
    for _ in range(QUEUE_OUTCOMES_MAX + 3):
        node._outcomes(wire.message(b"o"))
    await _settled()
    assert [code for _, code in wire.said] == ["overloaded"] * 3
    assert len(node._waiters) == QUEUE_OUTCOMES_MAX
    node._take(HeartbeatArrived, wire.message(b"beat"))
    assert HeartbeatArrived(b"beat") in node._inbox.take(1)


async def test_large_outcomes_are_bounded_by_their_bytes(node: GovernorNode) -> None:
    wire, large = Wire(), bytes(1_000_000)
    for _ in range(100):
        node._outcomes(wire.message(large))
    assert len(node._waiters) == QUEUE_BYTES_MAX // 1_000_000
    assert all(not waiter.data and not waiter.headers for waiter in node._waiters), "a waiter is only where to answer"


async def test_a_flood_of_syncs_is_told_overloaded_and_holds_no_waiters(node: GovernorNode) -> None:
    wire = Wire()
    for number in range(QUEUE_SYNCS_MAX + 2):
        node._asked(wire.message(pack(Sync(nonce=f"{number:064x}"))))
    await _settled()
    assert [code for _, code in wire.said] == ["overloaded"] * 2
    assert len(node._waiters) == QUEUE_SYNCS_MAX


async def test_a_flood_of_offers_is_told_overloaded_holds_no_waiters_and_leaves_what_members_say_its_places(node: GovernorNode) -> None:
    wire = Wire()
    offer = pack(Offer(statements=[msgspec.Raw(b"1")]))
    for _ in range(QUEUE_LAW_MAX + 3):
        node._asked(wire.message(offer))
    await _settled()
    assert [code for _, code in wire.said] == ["overloaded"] * 3
    assert len(node._inbox.offers) == len(node._waiters) == QUEUE_LAW_MAX
    for _ in range(QUEUE_LAW_MAX + 2):
        node._take(LawArrived, wire.message(b"published"))
    assert len(node._inbox.law) == QUEUE_LAW_MAX
    assert node.counters["system_dropped"] == 2
    node._take(HeartbeatArrived, wire.message(b"beat"))
    assert HeartbeatArrived(b"beat") in node._inbox.take(BATCH_EVENTS_MAX)


async def test_whatever_comes_while_draining_is_told_so(node: GovernorNode) -> None:
    wire = Wire()
    node.stop()
    node._intent(wire.message(b"i"))
    node._outcomes(wire.message(b"o"))
    node._asked(wire.message(pack(Sync(nonce="00" * 32))))
    node._asked(wire.message(pack(Offer(statements=[msgspec.Raw(b"1")]))))
    await _settled()
    assert [code for _, code in wire.said] == ["draining"] * 4
    assert not node._waiters


async def test_an_intent_that_comes_while_others_are_told_that_storage_failed_is_kept(node: GovernorNode) -> None:
    wire = Wire()
    for number in range(3):
        node._intent(wire.message(b"early", str(number)))
    telling = asyncio.create_task(node._tell_waiters())
    await asyncio.sleep(0)
    assert len(wire.said) == 1, "the late one must fall into the telling"
    node._intent(wire.message(b"late", "late"))
    await telling
    assert wire.said == [(f"_INBOX.{number}", "unavailable") for number in range(3)]
    assert [waiter.reply for waiter in node._waiters] == ["_INBOX.late"]
    assert len(node._inbox.intents) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(Alarm("storage_corrupt", "a bit"), "storage_corrupt"), (ZeroDivisionError("who knows"), "internal_error")],
)
async def test_what_goes_wrong_in_the_background_ends_the_loop(node: GovernorNode, error: Exception, code: str) -> None:
    async def fails() -> None:
        raise error

    node._spawn(fails())
    await _settled()
    assert node._wake.is_set()
    with pytest.raises(Alarm) as alarm:
        node._check()
    assert alarm.value.code == code


async def test_a_question_that_meets_an_error_nobody_foresaw_is_told_so_and_stops_nothing(
    node: GovernorNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("who knows")

    monkeypatch.setattr(node, "_performing", broken)
    wire = Wire()
    node._asked(wire.message(pack(StatusAsked())))
    await _settled()
    assert [code for _, code in wire.said] == ["internal_error"]
    assert "ZeroDivisionError: who knows" in caplog.text
    assert node._fatal is None
    assert set(node._looking.values()) == {0}


async def test_a_node_whose_storage_fails_while_it_drains_ends(node: GovernorNode) -> None:
    class Gone:
        store: "Gone"

        async def stop(self) -> None: ...
        async def close(self) -> None: ...
        async def rest(self) -> None: ...

    gone = Gone()
    gone.store = gone
    node.performer = gone  # type: ignore[assignment]  # only what is asked of it here
    node.stop()
    with pytest.raises(Unavailable, match="no space"):
        await asyncio.wait_for(node._recover(Unavailable("storage_failed", "no space"), None), 1)  # type: ignore[arg-type]


async def test_only_so_many_questions_are_looked_up_at_once_and_the_next_is_told_so(
    node: GovernorNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, gate = Wire(), asyncio.Event()

    async def waits(*_: object) -> None:
        await gate.wait()

    monkeypatch.setattr(node, "_look_up", waits)
    for _ in range(QUESTIONS_MAX):
        node._asked(wire.message(pack(StatusAsked())))
    await _settled()
    assert wire.said == []
    node._asked(wire.message(pack(StatusAsked())))
    await _settled()
    assert [code for _, code in wire.said] == ["overloaded"]
    gate.set()
