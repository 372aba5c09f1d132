"""Whatever fails, and wherever: a body is entered only with a durable start, and what was spent gets exactly one end."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters.spent import SpentStore
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.messages import Answer, Authorized, DeniedAnswer, IntentRequest, RefusedAnswer, pack, unpack
from mesh.core.run.authorization import Authorization, Denial
from mesh.core.run.outcome import Aborted, Blocked, Finished, Started, Unknown
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.gate.core import Core, Work
from mesh.gate.errors import Denied
from mesh.limits import OUTBOX_OUTCOMES_MAX
from tests.gate.wire import FakeBus, events_of, opened, outcomes_of, revoked, settings, wish
from tests.support.factory import Lab, secret, sign_draft

DONE = Finished(status=0, outputs=[], duration_ms=1)


class Faulty:
    """A spent store of which one call fails, before or after it was done."""

    def __init__(self, store: SpentStore, method: str, number: int, *, done: bool, error: MeshError) -> None:
        self._store = store
        self._method = method
        self._left = number
        self._done = done
        self._error = error
        self.enqueued = list[Any]()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in {"spend", "enqueue", "backlog"}:
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name == self._method:
                self._left -= 1
                if self._left == 0:
                    if self._done:
                        await method(*args, **kwargs)
                    raise self._error
            result = await method(*args, **kwargs)
            if name == "enqueue":
                self.enqueued.append(envelope.identify(kwargs["envelope"]))
            return result

        return call


async def _run(core: Core, entered: list[Work]) -> None:
    work = await core.begin(wish(), lambda: None)
    entered.append(work)
    await core.end(work, DONE)


FAULTS: dict[str, tuple[str, int, bool, MeshError, int]] = {
    # the call, which one of them, whether it was done all the same, with what error, and how often the body may have run
    "the backlog cannot be counted": ("backlog", 1, False, Unavailable("storage_failed"), 0),
    "the spend fails": ("spend", 1, False, Unavailable("storage_failed"), 0),
    "the spend is done and not answered": ("spend", 1, True, Unavailable("storage_failed"), 0),
    "the spend finds a broken file": ("spend", 1, False, Alarm("storage_corrupt"), 0),
    "the start is not durable": ("enqueue", 1, False, Unavailable("storage_failed"), 0),
    "the start is durable and not answered": ("enqueue", 1, True, Unavailable("storage_failed"), 0),
    "the numbers of outcomes do not fit": ("enqueue", 1, False, Alarm("log_conflict"), 0),
    "the end is not durable": ("enqueue", 2, False, Unavailable("storage_failed"), 1),
}


@pytest.mark.parametrize("what", FAULTS)
async def test_without_a_durable_start_the_body_is_not_entered_and_nothing_starts_after_a_fault(
    lab: Lab, bus: FakeBus, tmp_path: Path, what: str
) -> None:
    method, number, done, error, ran = FAULTS[what]
    store = await SpentStore.open(tmp_path / "spent.db", audience=lab.place_key.public)
    core = await opened(lab, bus, tmp_path / "spent.db", store=Faulty(store, method, number, done=done, error=error))  # type: ignore[arg-type]
    entered = list[Work]()
    with pytest.raises((Unavailable, Alarm)):
        await _run(core, entered)
    assert len(entered) == ran
    if method != "backlog":
        with pytest.raises(Unavailable) as caught:
            await _run(core, entered)
        assert caught.value.code == "storage_failed"
        assert len(entered) == ran
    await core.close(wait_ms=0)
    again = await opened(lab, bus, tmp_path / "spent.db", boot="b2" * 32)
    await again.outbox.wait_taken_in(2_000)
    await again.close(wait_ms=2_000)
    ends = [event for event in events_of(bus) if event in {"finished", "aborted", "blocked", "unknown"}]
    assert len(ends) <= 1
    if method == "enqueue" or done:
        assert ends == ["unknown"]


Spoil = Callable[[Authorized], Authorized]


def _resigned(raw: msgspec.Raw, kind: type[Any], key: str, **changes: Any) -> msgspec.Raw:
    claims: Any = envelope.read(kind, bytes(raw)).claims
    return msgspec.Raw(sign_draft(envelope.draft(msgspec.structs.replace(claims, **changes)), secret(key)))


FORGERIES: dict[str, tuple[str, Spoil]] = {
    "signed by a stranger": (
        "bad_signature",
        lambda answer: msgspec.structs.replace(answer, authorization=_resigned(answer.authorization, Authorization, "mallory")),
    ),
    "for another enforcer's boot": (
        "audience",
        lambda answer: msgspec.structs.replace(
            answer,
            authorization=_resigned(
                answer.authorization,
                Authorization,
                "eu decision",
                audience=msgspec.structs.replace(envelope.read(Authorization, bytes(answer.authorization)).claims.audience, boot="00" * 32),
            ),
        ),
    ),
    "over already": (
        "expired",
        lambda answer: msgspec.structs.replace(
            answer, authorization=_resigned(answer.authorization, Authorization, "eu decision", expires_ms=1)
        ),
    ),
    "recorded in no log of its issuer": (
        "unrecorded",
        lambda answer: msgspec.structs.replace(
            answer, authorization=_resigned(answer.authorization, Authorization, "eu decision", origin="lab/us-1/e1")
        ),
    ),
    "with another frontier": ("frontier_behind", lambda answer: msgspec.structs.replace(answer, frontier=[])),
    "demanding what nobody here fulfils": (
        "obligation_unknown",
        lambda answer: msgspec.structs.replace(
            answer, authorization=_resigned(answer.authorization, Authorization, "eu decision", obligations=["dance"])
        ),
    ),
}


@pytest.mark.parametrize("what", FORGERIES)
async def test_an_authorization_that_does_not_hold_is_denied_and_the_block_recorded(core: Core, bus: FakeBus, what: str) -> None:
    code, change = FORGERIES[what]

    def spoil(subject: str, _data: bytes, answer: bytes) -> bytes:
        return pack(change(unpack(Authorized, answer))) if ".intent." in subject else answer

    bus.spoil = spoil
    with pytest.raises(Denied) as caught:
        await core.begin(wish(), lambda: None)
    assert caught.value.code == code
    await core.outbox.wait_taken_in(2_000)
    (blocked,) = (outcome.event for outcome in outcomes_of(bus))
    assert isinstance(blocked, Blocked)
    assert blocked.code == code


async def test_an_answer_that_holds_no_authorization_is_a_denial_without_a_record(core: Core, bus: FakeBus) -> None:
    bus.spoil = lambda _subject, _data, answer: pack(msgspec.structs.replace(unpack(Authorized, answer), authorization=msgspec.Raw(b"{}")))
    with pytest.raises(Denied) as caught:
        await core.begin(wish(), lambda: None)
    assert caught.value.code == "malformed"
    assert events_of(bus) == []


async def test_one_intent_runs_once_however_often_its_authorization_is_presented(core: Core, bus: FakeBus) -> None:
    asked = await core.request(wish())
    work = await core.present(wish(), asked, lambda: None)
    with pytest.raises(Denied) as caught:
        await core.present(wish(), asked, lambda: None)
    assert caught.value.code == "used"
    await core.end(work, DONE)
    await core.outbox.wait_taken_in(2_000)
    assert events_of(bus) == ["started", "blocked", "finished"]


async def test_other_parameters_than_those_authorized_do_not_run(core: Core) -> None:
    asked = await core.request(wish(amount=5))
    with pytest.raises(Denied) as caught:
        await core.present(wish(amount=6), asked, lambda: None)
    assert caught.value.code == "digest_mismatch"


async def test_what_changed_since_it_was_measured_does_not_run(core: Core) -> None:
    measured = list(wish().measure())
    changing = msgspec.structs.replace(wish(), measure=lambda: tuple(measured))
    asked = await core.request(changing)
    measured.clear()
    with pytest.raises(Denied) as caught:
        await core.present(changing, asked, lambda: None)
    assert caught.value.code == "digest_mismatch"


async def test_a_revocation_that_comes_while_the_disk_is_waited_for_stops_the_start(
    lab: Lab, core: Core, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend = core._store.spend

    async def slow(*args: Any, **kwargs: Any) -> int:
        count = await spend(*args, **kwargs)
        core.outlook.governance = revoked(lab, "key", lab.holder.public)
        return count

    monkeypatch.setattr(core._store, "spend", slow)
    with pytest.raises(Denied) as caught:
        await core.begin(wish(), lambda: None)
    assert caught.value.code == "revoked"
    await core.outbox.wait_taken_in(2_000)
    assert events_of(bus) == ["blocked"]
    assert await core._store.unfinished("00" * 32) == []


async def test_a_revocation_that_comes_while_the_start_is_recorded_stops_the_body(
    lab: Lab, core: Core, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = core._store.enqueue

    async def slow(*args: Any, **kwargs: Any) -> None:
        await enqueue(*args, **kwargs)
        core.outlook.governance = revoked(lab, "subject", "spiffe://lab/agent/anna")

    monkeypatch.setattr(core._store, "enqueue", slow)
    with pytest.raises(Denied) as caught:
        await core.begin(wish(), lambda: None)
    assert caught.value.code == "revoked"
    await core.outbox.wait_taken_in(2_000)
    assert events_of(bus) == ["started", "aborted"]


@pytest.mark.parametrize("at", ["intent", "spend", "enqueue"])
async def test_who_gives_up_while_it_begins_leaves_at_most_one_spent_intent_with_one_end(
    core: Core, bus: FakeBus, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_subject: str = "") -> None:
        reached.set()
        await go_on.wait()

    if at == "intent":
        bus.hold = wait
    else:
        method = getattr(core._store, at)

        async def slow(*args: Any, **kwargs: Any) -> Any:
            await wait()
            return await method(*args, **kwargs)

        monkeypatch.setattr(core._store, at, slow)
    begin = asyncio.create_task(core.begin(wish(), lambda: None))
    await reached.wait()
    begin.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begin
    go_on.set()
    await asyncio.sleep(0.3)
    await core.outbox.wait_taken_in(2_000)
    events = [outcome.event for outcome in outcomes_of(bus)]
    if at == "intent":
        assert events == []
    else:
        assert isinstance(events[0], Started)
        assert isinstance(events[1], Aborted)
        assert events[1].code == "cancelled"
        assert len(events) == 2
    assert not core._works


async def test_a_crash_between_start_and_end_is_unknown_to_the_next_boot(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    first = await opened(lab, bus, tmp_path / "spent.db")
    work = await first.begin(wish(), lambda: None)
    await first.close(wait_ms=2_000)
    second = await opened(lab, bus, tmp_path / "spent.db", boot="b2" * 32)
    await second.close(wait_ms=2_000)
    outcomes = outcomes_of(bus)
    assert [outcome.event.__struct_config__.tag for outcome in outcomes] == ["started", "unknown"]
    assert isinstance(outcomes[1].event, Unknown)
    assert outcomes[1].event.boot == outcomes[0].boot == "b1" * 32
    assert (outcomes[1].intent, outcomes[1].boot, outcomes[1].sequence) == (work.about.intent, "b2" * 32, 0)
    third = await opened(lab, bus, tmp_path / "spent.db", boot="b3" * 32)
    await third.close(wait_ms=2_000)
    assert len(outcomes_of(bus)) == 2


async def test_two_processes_that_start_at_once_report_an_unknown_once(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    first = await opened(lab, bus, tmp_path / "spent.db")
    await first.begin(wish(), lambda: None)
    await first.close(wait_ms=2_000)
    siblings = [opened(lab, bus, tmp_path / "spent.db", boot=boot * 32) for boot in ("b2", "b3")]
    for core in await asyncio.gather(*siblings):
        assert (await core.begin(wish(), lambda: None)).params
        await core.close(wait_ms=2_000)
    assert events_of(bus).count("unknown") == 1


async def test_an_end_is_recorded_once(core: Core, bus: FakeBus) -> None:
    work = await core.begin(wish(), lambda: None)
    await core.end(work, DONE)
    await core.end(work, Aborted(code="cancelled", duration_ms=0))
    await core.outbox.wait_taken_in(2_000)
    assert events_of(bus) == ["started", "finished"]


@pytest.mark.parametrize(("waiting", "allowed"), [(OUTBOX_OUTCOMES_MAX - 1, True), (OUTBOX_OUTCOMES_MAX, False)])
async def test_past_the_backlog_nothing_starts(core: Core, monkeypatch: pytest.MonkeyPatch, waiting: int, allowed: bool) -> None:
    async def backlog() -> int:
        return waiting

    monkeypatch.setattr(core._store, "backlog", backlog)
    if allowed:
        await core.end(await core.begin(wish(), lambda: None), DONE)
        return
    with pytest.raises(Refused) as caught:
        await core.begin(wish(), lambda: None)
    assert caught.value.code == "outcome_backlog"


async def test_a_view_that_is_not_fresh_denies_what_a_governor_permitted(core: Core, bus: FakeBus) -> None:
    asked = await core.request(wish())
    bus.silent = True
    bus.time.ahead_ms += 4_000
    with pytest.raises(Denied) as caught:
        await core.present(wish(), asked, lambda: None)
    assert caught.value.code == "stale"


async def test_a_gate_that_too_few_members_answer_opens_after_its_wait_and_denies_as_stale(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    for name in ("ap-1", "us-1"):
        bus.mesh.nodes[name].up = False
    store = await SpentStore.open(tmp_path / "spent.db", audience=lab.place_key.public)
    core = Core(settings(lab), bus, store, bus.time.clock(), bus.time.now_ms)  # type: ignore[arg-type]  # all that it uses
    begun = time.monotonic()
    await core.open_(wait_ms=300)
    assert 0.3 <= time.monotonic() - begun < 2.0
    try:
        for _ in range(2):
            with pytest.raises(Denied) as caught:
                await core.begin(wish(), lambda: None)
            assert (caught.value.code, caught.value.detail) == ("stale", "2 of 3 members have answered since the start")
        assert set(core.outlook.counters) == {"unreachable"}
    finally:
        await core.close(wait_ms=0)


async def test_a_watcher_that_dies_lets_nothing_start_any_more(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError

    monkeypatch.setattr(core.outlook, "view", broken)
    work = object.__new__(Work)
    work.refusal = None
    core._works.add(work)
    await asyncio.sleep(0.5)
    core._works.clear()
    with pytest.raises(Unavailable) as caught:
        await core.begin(wish(), lambda: None)
    assert caught.value.code == "unavailable"


async def test_an_exception_in_measuring_enters_nothing(core: Core, bus: FakeBus) -> None:
    def broken() -> Any:
        raise OSError

    with pytest.raises(OSError):
        await core.begin(msgspec.structs.replace(wish(), measure=broken), lambda: None)
    assert not [subject for subject in bus.asked if ".intent." in subject]


# ----------------------------------------------------------------------------------------------------------------------------- asking


async def _denied(core: Core) -> Denied:
    with pytest.raises(Denied) as caught:
        await core.request(wish())
    return caught.value


async def test_the_other_regions_are_asked_when_the_home_region_is_silent(core: Core, bus: FakeBus) -> None:
    bus.mesh.nodes["eu-1"].up = False
    assert (await core.request(wish())).intent.id
    assert [subject.split(".")[2] for subject in bus.asked if ".intent." in subject] == ["eu", "us"]


async def test_a_governor_that_cannot_tell_sends_us_on_and_its_code_is_kept(core: Core, bus: FakeBus) -> None:
    def spoil(subject: str, _data: bytes, answer: bytes) -> bytes:
        return pack(RefusedAnswer(code="overloaded", detail="")) if ".eu.intent." in subject else answer

    bus.spoil = spoil
    assert (await core.request(wish())).intent.id
    bus.spoil = lambda _subject, _data, _answer: pack(RefusedAnswer(code="overloaded", detail=""))
    assert (await _denied(core)).code == "overloaded"


async def test_a_signed_no_of_policy_is_final(core: Core, bus: FakeBus) -> None:
    with pytest.raises(Denied):
        await core.request(wish(amount=101))
    assert len([subject for subject in bus.asked if ".intent." in subject]) == 1


async def test_an_unsigned_no_about_the_request_itself_is_final(core: Core, bus: FakeBus) -> None:
    bus.spoil = lambda _subject, _data, _answer: pack(RefusedAnswer(code="too_large", detail="x"))
    assert (await _denied(core)).code == "too_large"
    assert len([subject for subject in bus.asked if ".intent." in subject]) == 1


def _denial(of: str, key: str, changes: dict[str, Any]) -> bytes:
    said: dict[str, Any] = {
        "mesh": "lab", "issuer": "eu-1", "intent": of, "code": "policy_denied", "detail": "", "determining": [], "at_ms": 1,
        "record": {"origin": "lab/eu-1/e1", "index": 0, "leaf": "00" * 32},
    }  # fmt: skip
    draft = envelope.draft(msgspec.convert(said | changes, Denial))
    return pack(DeniedAnswer(denial=msgspec.Raw(sign_draft(draft, secret(key)))))


@pytest.mark.parametrize(
    ("key", "changes", "code"),
    [
        ("mallory", {}, "bad_signature"),
        ("eu decision", {"intent": "22" * 32}, "intent_conflict"),
        ("eu decision", {"mesh": "other"}, "intent_conflict"),
        ("eu decision", {"issuer": "mallory"}, "unknown_member"),
    ],
    ids=["stranger", "other-intent", "other-mesh", "no-member"],
)
async def test_a_denial_that_cannot_be_believed_still_denies_but_is_not_an_answer(
    core: Core, bus: FakeBus, key: str, changes: dict[str, Any], code: str
) -> None:
    def spoil(_subject: str, data: bytes, _answer: bytes) -> bytes:
        intent = envelope.identify(bytes(unpack(IntentRequest, data).intent))[1]
        return _denial(intent, key, changes)

    bus.spoil = spoil
    denied = await _denied(core)
    assert (denied.code, denied.record) == (code, None)
    assert len([subject for subject in bus.asked if ".intent." in subject]) == 4


async def test_a_reason_from_the_future_is_a_no_all_the_same(core: Core, bus: FakeBus) -> None:
    bus.spoil = lambda _subject, _data, _answer: pack(RefusedAnswer(code="moon_phase", detail="full"))
    denied = await _denied(core)
    assert denied.code == "malformed"
    assert "moon_phase" in denied.reason


@pytest.mark.parametrize("answer", [b"", b"null", b"{}", b"\xff", b"[" * 100_000])
async def test_junk_instead_of_an_answer_denies(core: Core, bus: FakeBus, answer: bytes) -> None:
    bus.spoil = lambda _subject, _data, _answer: answer
    assert (await _denied(core)).code in {"malformed", "non_canonical"}


async def test_asking_ends_within_its_deadline(core: Core, bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.gate.core._DEADLINE_MS", 0)
    assert (await _denied(core)).code == "unreachable"


async def test_the_same_intent_sent_twice_has_one_authorization(core: Core, bus: FakeBus) -> None:
    """What makes asking again harmless."""
    seen = list[bytes]()

    def spoil(subject: str, data: bytes, answer: bytes) -> bytes:
        if ".intent." in subject:
            seen.append(data)
        return answer

    bus.spoil = spoil
    asked = await core.request(wish())
    again = unpack(Answer, (await bus.request("mesh.v1.us.intent.demo.x", seen[0], timeout_ms=1)).data)  # type: ignore[arg-type,var-annotated]
    assert isinstance(again, Authorized)
    statements: list[Statement[Authorization]] = [envelope.read(Authorization, bytes(item.authorization)) for item in (asked.answer, again)]
    assert statements[0].claims.intent == statements[1].claims.intent
    assert canonical.encode(statements[0].claims.params) == canonical.encode(statements[1].claims.params)
