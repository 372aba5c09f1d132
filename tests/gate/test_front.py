"""What a program sees: the body runs only after a yes, with what was signed, and how it ended is recorded."""

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from mesh.core.run.outcome import Aborted as AbortedEvent
from mesh.core.run.outcome import Blocked, Failed, Finished, Started
from mesh.errors import Refused
from mesh.gate.errors import Aborted, Denied
from mesh.gate.front import Gate
from tests.gate.wire import FakeBus, events_of, outcomes_of, revoked
from tests.support.factory import Lab

RESOURCE = ("Account", "acme")


def taken_in(gate: Gate, bus: FakeBus) -> list[str]:
    """What was recorded, once the gate has closed."""
    gate.close()
    return events_of(bus)


def test_a_guarded_function_runs_once_permitted_and_both_ends_are_recorded(gate: Gate, bus: FakeBus) -> None:
    ran = list[int]()

    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: int) -> str:
        ran.append(amount)
        return "paid"

    assert pay(10) == "paid"
    assert ran == [10]
    assert taken_in(gate, bus) == ["started", "finished"]
    started, finished = (outcome.event for outcome in outcomes_of(bus))
    assert isinstance(started, Started)
    assert len(started.heartbeats) >= 3
    assert isinstance(finished, Finished)


@pytest.mark.parametrize("runner", [asyncio.run, lambda coroutine: anyio.run(lambda: coroutine)], ids=["asyncio", "anyio"])
def test_a_guarded_async_function_runs_on_the_callers_own_loop(gate: Gate, bus: FakeBus, runner: Callable[[Any], str]) -> None:
    @gate.guard("payments/send", resource=lambda amount: ("Account", f"to-{amount}"))
    async def pay(amount: int) -> str:
        await anyio.lowlevel.checkpoint()
        return f"paid {amount} on {threading.current_thread().name}"

    async def main() -> str:
        return await pay(amount=7)

    assert runner(main()) == f"paid 7 on {threading.current_thread().name}"
    assert taken_in(gate, bus) == ["started", "finished"]


def test_a_denied_function_does_not_run_and_says_why_and_where(gate: Gate, bus: FakeBus) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: int) -> None:
        pytest.fail(f"paid {amount}")

    with pytest.raises(Denied) as caught:
        pay(101)
    assert caught.value.code == "policy_denied"
    assert caught.value.record is not None
    assert caught.value.record.origin == "lab/eu-1/e1"
    assert len(caught.value.intent) == 64
    assert taken_in(gate, bus) == []


def test_the_body_gets_copies_of_what_was_signed(gate: Gate) -> None:
    @gate.guard("payments/send", resource=RESOURCE, committed=("memo",))
    def pay(amount: int, memo: str = "none") -> tuple[int, str]:
        return amount, memo

    assert pay(5) == (5, "none")
    assert pay(memo="secret rent", amount=6) == (6, "secret rent")


def test_a_committed_argument_is_nowhere_in_the_logs(gate: Gate, bus: FakeBus) -> None:
    @gate.guard("payments/send", resource=RESOURCE, committed=("memo",))
    def pay(amount: int, memo: str) -> str:
        return f"{memo}: {amount}"

    assert pay(5, "very-secret") == "very-secret: 5"
    gate.close()
    for node in bus.mesh.nodes.values():
        for leaves in node.logs.values():
            assert not [leaf for leaf in leaves if b"very-secret" in leaf]


@pytest.mark.parametrize("amount", [1.5, b"1", (1,), {"a": 1}, [[1]], 2**53, "x" * 1_025, [1] * 65])
def test_what_cannot_be_signed_is_denied_before_anybody_is_asked(gate: Gate, bus: FakeBus, amount: Any) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: Any) -> None:
        pytest.fail(f"paid {amount}")

    asked = len([subject for subject in bus.asked if "intent" in subject])
    with pytest.raises(Denied) as caught:
        pay(amount)
    assert caught.value.code == "params_mismatch"
    assert len([subject for subject in bus.asked if "intent" in subject]) == asked


def test_none_is_signed_as_absence_and_only_where_it_is_the_default(gate: Gate) -> None:
    @gate.guard("payments/send", resource=RESOURCE, committed=("memo",))
    def pay(amount: int, memo: str | None = None) -> str | None:
        return memo if amount else "nothing"

    @gate.guard("payments/send", resource=RESOURCE, committed=("memo",))
    def other(amount: int, memo: str | None = "rent") -> str | None:
        pytest.fail(f"{amount} {memo}")

    assert pay(5, None) is None
    with pytest.raises(Denied) as caught:
        other(5, None)
    assert caught.value.code == "params_mismatch"


def test_arguments_that_do_not_fit_are_pythons_own_error(gate: Gate) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: int) -> None:
        pytest.fail(f"paid {amount}")

    with pytest.raises(TypeError):
        pay(1, 2)  # type: ignore[call-arg]


def test_a_guarded_function_looks_like_itself_and_has_no_way_around(gate: Gate) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: int) -> None:
        """Pay."""

    assert (pay.__name__, pay.__doc__) == ("pay", "Pay.")
    assert list(inspect.signature(pay).parameters) == ["amount"]
    assert not hasattr(pay, "__wrapped__")


def test_what_would_run_later_or_take_unnamed_arguments_cannot_be_guarded(gate: Gate) -> None:
    def each(amount: int) -> Any:
        yield amount

    async def stream(amount: int) -> Any:
        yield amount

    def anything(*amounts: int) -> None:
        pytest.fail(str(amounts))

    def whatever(**amounts: int) -> None:
        pytest.fail(str(amounts))

    for function in (each, stream, anything, whatever, print, gate.close):
        with pytest.raises(TypeError):
            gate.guard("payments/send", resource=RESOURCE)(function)


def test_a_plain_wrapper_around_an_async_body_lets_nothing_run_after_the_end(gate: Gate, bus: FakeBus) -> None:
    ran: list[int] = []

    async def body(amount: int) -> None:
        ran.append(amount)

    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: int) -> Any:
        return body(amount)

    with pytest.raises(TypeError, match="runs later"):
        pay(5)
    assert ran == []
    assert taken_in(gate, bus) == ["started", "failed"]


def test_an_async_body_whose_result_would_run_later_lets_nothing_run_after_the_end(gate: Gate, bus: FakeBus) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    async def pay(amount: int) -> Any:
        async def one_by_one() -> AsyncIterator[int]:
            yield amount

        return one_by_one()

    with pytest.raises(TypeError, match="runs later"):
        asyncio.run(cast("Any", pay(5)))
    assert taken_in(gate, bus) == ["started", "failed"]


@pytest.mark.parametrize("hidden", ["committed", "sealed"])
def test_a_name_to_hide_that_is_no_parameter_is_found_when_it_is_written_not_when_its_value_has_been_sent(gate: Gate, hidden: str) -> None:
    def pay(iban: str) -> None:
        raise AssertionError(iban)

    with pytest.raises(TypeError, match="no parameter 'ibann' to hide"):
        gate.guard("payments/send", resource=RESOURCE, **{hidden: ("ibann",)})(pay)  # type: ignore[arg-type]


def test_an_exception_of_the_body_passes_and_only_its_type_is_recorded(gate: Gate, bus: FakeBus) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: int) -> None:
        raise KeyError(f"password of {amount}")

    with pytest.raises(KeyError, match="password"):
        pay(5)
    assert taken_in(gate, bus) == ["started", "failed"]
    failed = outcomes_of(bus)[1].event
    assert isinstance(failed, Failed)
    assert (failed.error, failed.status) == ("KeyError", 1)


async def test_a_block_offers_the_signed_parameters_and_records_digests_of_its_outputs(gate: Gate, bus: FakeBus) -> None:
    async with gate.execution("payments/send", RESOURCE, {"amount": 3}, committed={"memo": "rent"}) as run:
        assert run.params == {"amount": 3, "memo": "rent"}
        assert run.obligations == ("receipt",)
        run.output(b"bytes")
        run.output({"rows": 3}, "table")
        with pytest.raises(Refused) as caught:
            run.output(object())
        assert caught.value.code == "malformed"
    await gate.aclose()
    finished = outcomes_of(bus)[1].event
    assert isinstance(finished, Finished)
    assert [output.name for output in finished.outputs] == ["output", "table"]


def test_a_block_in_plain_code_is_the_same(gate: Gate, bus: FakeBus) -> None:
    with gate.execution("payments/send", RESOURCE, {"amount": 3}) as run:
        assert run.params == {"amount": 3}
        run.check()
    assert taken_in(gate, bus) == ["started", "finished"]


async def test_too_many_outputs_are_refused(gate: Gate) -> None:
    from mesh.limits import MEASUREMENTS_MAX

    async with gate.execution("payments/send", RESOURCE, {"amount": 3}) as run:
        for number in range(MEASUREMENTS_MAX):
            run.output(b"", f"o{number}")
        with pytest.raises(Refused) as caught:
            run.output(b"")
        assert caught.value.code == "too_large"


async def test_a_denied_block_is_not_entered(gate: Gate) -> None:
    with pytest.raises(Denied) as caught:
        async with gate.execution("payments/send", ("Account", "frozen"), {"amount": 3}):
            pytest.fail("entered")
    assert caught.value.code == "policy_denied"


def test_an_execution_is_entered_once_and_has_nothing_to_say_before(gate: Gate) -> None:
    run = gate.execution("payments/send", RESOURCE, {"amount": 3})
    with pytest.raises(RuntimeError):
        _ = run.params
    with run:
        pass
    with pytest.raises(RuntimeError), run:
        pytest.fail("entered twice")


@pytest.mark.parametrize(
    ("action", "resource"), [("send", RESOURCE), ("payments/", RESOURCE), ("Pay/send", RESOURCE), ("payments/send", ("Account",))],
    ids=str,
)  # fmt: skip
def test_a_wish_that_cannot_be_written_down_is_denied(gate: Gate, action: str, resource: Any) -> None:
    with pytest.raises(Denied) as caught:
        gate.execution(action, resource)
    assert caught.value.code == "malformed"


# ------------------------------------------------------------------------------------------------------------- ended while running


def _revoke(gate: Gate, lab: Lab) -> None:
    gate._core.outlook.governance = revoked(lab, "key", lab.holder.public)


async def test_a_revocation_cancels_a_running_block_and_the_record_says_so(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    cleaned = list[bool]()
    begun = time.monotonic()

    async def body() -> None:
        async with gate.execution("payments/send", RESOURCE, {"amount": 3}):
            _revoke(gate, lab)
            try:
                await asyncio.sleep(30)
            finally:
                cleaned.append(True)

    with pytest.raises(Aborted) as caught:
        await body()
    assert caught.value.code == "revoked"
    assert cleaned == [True]
    assert time.monotonic() - begun < 5
    await gate.aclose()
    assert events_of(bus) == ["started", "aborted"]
    event = outcomes_of(bus)[1].event
    assert isinstance(event, AbortedEvent)
    assert event.code == "revoked"


async def test_a_revocation_cancels_a_guarded_async_function(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    async def pay(amount: int) -> None:
        _revoke(gate, lab)
        await anyio.sleep(30 * amount)

    with pytest.raises(Aborted):
        await pay(1)
    with pytest.raises(Denied) as caught:
        await pay(1)
    assert caught.value.code == "revoked"
    await gate.aclose()
    assert events_of(bus) == ["started", "aborted", "blocked"]
    blocked = outcomes_of(bus)[2].event
    assert isinstance(blocked, Blocked)
    assert blocked.code == "revoked"


async def test_silence_ends_running_work_after_the_lease_and_not_before(gate: Gate, bus: FakeBus) -> None:
    reached = list[bool]()

    async def body() -> None:
        async with gate.execution("payments/send", RESOURCE, {"amount": 3}):
            bus.silent = True
            bus.time.ahead_ms += 4_000  # past Δ, well within the lease of 10 s
            await asyncio.sleep(0.8)
            reached.append(True)
            bus.time.ahead_ms += 9_000
            await asyncio.sleep(30)

    with pytest.raises(Aborted) as caught:
        await body()
    assert reached == [True]
    assert caught.value.code == "stale"
    bus.silent = False
    await gate.aclose()
    assert events_of(bus) == ["started", "aborted"]


async def test_a_short_silence_ends_nothing(gate: Gate, bus: FakeBus) -> None:
    async with gate.execution("payments/send", RESOURCE, {"amount": 3}):
        bus.silent = True
        bus.time.ahead_ms += 4_000
        await asyncio.sleep(0.6)
        bus.silent = False
        await asyncio.sleep(1.2)
        bus.time.ahead_ms += 2_000
        await asyncio.sleep(0.6)
    await gate.aclose()
    assert events_of(bus) == ["started", "finished"]


def test_a_plain_body_can_ask_whether_it_may_go_on(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    def body() -> None:
        with gate.execution("payments/send", RESOURCE, {"amount": 3}) as run:
            run.check()
            _revoke(gate, lab)
            while True:
                run.check()
                time.sleep(0.01)

    with pytest.raises(Aborted):
        body()
    assert taken_in(gate, bus) == ["started", "aborted"]


def test_a_plain_body_that_does_not_ask_is_recorded_as_it_ended_never_as_aborted(gate: Gate, bus: FakeBus, lab: Lab) -> None:
    stopped = threading.Event()
    with gate.execution("payments/send", RESOURCE, {"amount": 3}) as run:
        run.on_stop(stopped.set)
        _revoke(gate, lab)
        assert stopped.wait(5)
    assert taken_in(gate, bus) == ["started", "finished"]


def test_a_body_that_is_cancelled_from_outside_has_failed(gate: Gate, bus: FakeBus) -> None:
    async def main() -> None:
        inside = asyncio.Event()

        async def body() -> None:
            async with gate.execution("payments/send", RESOURCE, {"amount": 3}):
                inside.set()
                await asyncio.sleep(30)

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert taken_in(gate, bus) == ["started", "failed"]


def test_a_yes_that_comes_when_nobody_waits_any_more_is_given_back(gate: Gate, bus: FakeBus) -> None:
    """The work is there, and its asker is cancelled before it hears of it."""

    async def main() -> None:
        task = asyncio.create_task(gate.execution("payments/send", RESOURCE, {"amount": 3}).__aenter__())
        await asyncio.sleep(0)
        for _ in range(500):
            if gate._core._works:
                break
            time.sleep(0.01)  # noqa: ASYNC251 -- this loop must not hear of it
        time.sleep(0.1)  # noqa: ASYNC251 -- as above
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert taken_in(gate, bus) == ["started", "aborted"]
    assert not gate._core._works


def test_an_anyio_scope_of_the_program_still_leaves_an_end(gate: Gate, bus: FakeBus) -> None:
    async def main() -> None:
        with anyio.move_on_after(0.4):
            async with gate.execution("payments/send", RESOURCE, {"amount": 3}):
                await anyio.sleep(30)

    anyio.run(main)
    assert taken_in(gate, bus) == ["started", "failed"]


# ------------------------------------------------------------------------------------------------------------------------- the thread


def test_a_closed_gate_denies(gate: Gate) -> None:
    gate.close()
    gate.close()
    with pytest.raises(Denied) as caught, gate.execution("payments/send", RESOURCE, {"amount": 3}):
        pytest.fail("entered")
    assert caught.value.code == "draining"


def test_after_a_fork_the_child_is_refused_instead_of_waiting_for_ever(gate: Gate) -> None:
    mine, gate._hall._pid = gate._hall._pid, -1
    with pytest.raises(Denied) as caught, gate.execution("payments/send", RESOURCE, {"amount": 3}):
        pytest.fail("entered")
    assert caught.value.code == "unavailable"
    gate._hall._pid = mine


def test_many_threads_share_a_gate(gate: Gate, bus: FakeBus) -> None:
    @gate.guard("payments/send", resource=RESOURCE)
    def pay(amount: int) -> int:
        return amount

    results = list[int]()
    threads = [threading.Thread(target=lambda number=number: results.append(pay(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))
    assert sorted(taken_in(gate, bus)) == ["finished"] * 8 + ["started"] * 8
    assert [outcome.sequence for outcome in outcomes_of(bus)] == list(range(16))


def test_a_request_gives_the_authorization_and_runs_nothing(gate: Gate, bus: FakeBus) -> None:
    answer = gate.request("payments/send", RESOURCE, {"amount": 3})
    assert b"payload" in bytes(answer.authorization)
    with pytest.raises(Denied):
        gate.request("payments/send", RESOURCE, {"amount": 300})
    assert taken_in(gate, bus) == []


def test_a_gate_with_nobody_to_ask_denies(gate: Gate, bus: FakeBus) -> None:
    for node in bus.mesh.nodes.values():
        node.up = False
    with pytest.raises(Denied) as caught, gate.execution("payments/send", RESOURCE, {"amount": 3}):
        pytest.fail("entered")
    assert caught.value.code == "unreachable"
