"""One thread with a stack of known size."""

import asyncio
import threading

import pytest

from mesh.adapters import decision_thread
from mesh.adapters.decision_thread import STACK_BYTES, DecisionThread
from mesh.errors import Refused, Unavailable


def deep(levels: int) -> int:
    return 0 if levels == 0 else 1 + deep(levels - 1)


def test_the_thread_has_its_stack_and_other_threads_keep_theirs() -> None:
    before = threading.stack_size()
    thread = DecisionThread()
    assert thread.call(decision_thread._stack_bytes) >= STACK_BYTES
    assert threading.stack_size() == before
    thread.close()


def test_a_thread_that_did_not_get_its_stack_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_thread, "STACK_BYTES", 256 << 10)
    monkeypatch.setattr(decision_thread, "_stack_bytes", lambda: 0)
    with pytest.raises(Unavailable) as no:
        DecisionThread()
    assert no.value.code == "engine_unavailable"


def test_work_runs_on_the_one_thread_in_order_and_its_errors_come_back() -> None:
    thread = DecisionThread()
    names = [thread.call(lambda: threading.current_thread().name) for _ in range(3)]
    assert names == ["decide"] * 3

    def fail() -> None:
        raise Refused("policy_invalid", "x")

    with pytest.raises(Refused):
        thread.call(fail)
    assert thread.call(deep, 200) == 200
    thread.close()


def test_work_that_asks_for_more_work_on_the_thread_does_not_wait_for_itself() -> None:
    thread = DecisionThread()
    assert thread.call(lambda: thread.inside and thread.call(deep, 3)) == 3
    assert not thread.inside
    thread.close()


async def test_asyncio_code_awaits_it_and_goes_on_meanwhile() -> None:
    thread = DecisionThread()
    held = threading.Event()
    first = asyncio.create_task(thread.run(held.wait, 30))
    second = asyncio.create_task(thread.run(deep, 5))
    await asyncio.sleep(0)
    assert not second.done()
    held.set()
    assert await first
    assert await second == 5
    thread.close()


async def test_work_that_nobody_awaits_any_more_does_not_end_the_thread() -> None:
    thread = DecisionThread()
    held = threading.Event()
    running = asyncio.create_task(thread.run(held.wait, 30))
    waiting = asyncio.create_task(thread.run(deep, 1))
    await asyncio.sleep(0.01)
    running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    held.set()
    assert await thread.run(deep, 2) == 2
    thread.close()


async def test_a_closed_thread_gives_no_answer_and_what_was_asked_before_is_answered() -> None:
    thread = DecisionThread()
    before = asyncio.create_task(thread.run(deep, 7))
    await asyncio.sleep(0)
    thread.close()
    thread.close()
    assert await before == 7
    for ask in (thread.run(deep, 1), asyncio.to_thread(thread.call, deep, 1)):
        with pytest.raises(Unavailable) as no:
            await ask
        assert no.value.code == "engine_unavailable"


def test_closing_from_inside_does_not_wait_for_itself() -> None:
    thread = DecisionThread()
    thread.call(thread.close)
    with pytest.raises(Unavailable):
        thread.call(deep, 1)
