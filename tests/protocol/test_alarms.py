"""What a governor swallows, an enforcer skips, or nobody may do with an authorization is found by whoever reads all logs."""

from random import Random
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical
from mesh.core.run.outcome import Aborted, Blocked, Event, Failed, Started, Unknown
from mesh.limits import AUDIT_KEEP_MS_MAX, AUDIT_LAGS_MAX, AUDIT_LIVES_MAX, AUDIT_PARTS_MAX
from mesh.protocol.alarms import PATIENT, Patience, kept_of
from mesh.protocol.lives import Deed, Lives, Permit, Starts, unsure
from mesh.protocol.progress import IDLE, Lag, lagging, moved
from tests.support.auditing import DONE, Auditing, Enforcing, events_of, kept

LATE = PATIENT.late_ms + 1
NEVER = 10**10


@pytest.fixture
def story() -> Enforcing:
    return Enforcing()


def _lived(story: Enforcing, count: int, *, at: str = "us-1") -> list[bytes]:
    """So many executions that went well, in one governor's log."""
    outcomes = [said for _ in range(count) for said in story.lived(*story.permit())]
    if at:
        story.report(at, *outcomes)
    return outcomes


# ------------------------------------------------------------------------------------------------------- all is well


def test_what_went_well_raises_no_alarm_however_late_it_is(story: Enforcing) -> None:
    _lived(story, 3)
    story.permit()  # and is not used
    auditing = story.audited()
    assert (auditing.codes, auditing.alarms(after_ms=NEVER)) == ([], [])
    assert auditing.state.watched.starts == Starts(match=3, mismatch=0, unverifiable=0)


def test_outcomes_may_stand_in_any_log_late_and_twice(story: Enforcing) -> None:
    outcomes = _lived(story, 4, at="")
    for at, some in (("us-1", outcomes[4:6]), ("ap-1", outcomes[:3]), ("sa-1", outcomes[2:]), ("eu-1", outcomes)):
        story.report(at, *some)
        story.mesh.run(2)
    auditing = story.audited()
    assert (auditing.codes, auditing.alarms(after_ms=NEVER)) == ([], [])
    assert auditing.state.watched.starts.match == 4


def test_a_blocked_start_is_no_part_of_a_life_whatever_paper_was_shown(story: Enforcing) -> None:
    intent, authorization = story.permit()
    story.report("us-1", story.say(intent, "77" * 32, Blocked(code="bad_signature", detail="")))
    story.report("us-1", story.say(intent, authorization, Blocked(code="stale", detail="")), *story.lived(intent, authorization))
    auditing = story.audited()
    assert (auditing.codes, auditing.alarms(after_ms=NEVER)) == ([], [])


# -------------------------------------------------------------------------------------------------- something is missing


@pytest.mark.parametrize("skipped", [0, 1, 2, 3, 4])
def test_an_outcome_that_a_governor_swallows_is_missed_after_its_time_and_no_more_once_it_comes(story: Enforcing, skipped: int) -> None:
    outcomes = _lived(story, 3, at="")
    story.report("us-1", *(said for number, said in enumerate(outcomes) if number != skipped))
    auditing = story.audited()
    assert auditing.codes == []
    assert auditing.alarms() == []
    standing = auditing.standing(after_ms=LATE + 60_000)
    assert "outcome_missing" in {item.code for item in standing}
    assert f"outcome {skipped} of enforcer" in next(item.detail for item in standing if item.code == "outcome_missing")
    story.report("ap-1", outcomes[skipped])
    story.mesh.run(6)
    auditing.now_ms = story.mesh.now_ms
    auditing.feed(events_of(story.mesh.stream)).pull()
    assert (auditing.codes, auditing.alarms(after_ms=NEVER)) == ([], [])


def test_a_number_that_an_enforcer_skips_is_missed_as_well(story: Enforcing) -> None:
    _lived(story, 1)
    number, previous = story.previous["b0" * 32]
    story.previous["b0" * 32] = number + 1, previous
    _lived(story, 1)
    assert story.audited().alarms(after_ms=NEVER) == ["outcome_missing"]


def test_the_last_outcome_is_missed_as_an_end_past_lease_and_staleness(story: Enforcing) -> None:
    intent, authorization = story.permit()
    story.report("us-1", story.say(intent, authorization, story.lab.started()))
    auditing = story.audited()
    assert auditing.alarms(after_ms=LATE) == [], "the lease of 10 s and Δ of 3 s are not over"
    assert auditing.alarms(after_ms=LATE + 13_000) == ["end_missing"]
    assert auditing.alarms(after_ms=LATE + 13_000, patience=Patience(longest_ms=3_600_000)) == []
    story.report("ap-1", story.say(intent, authorization, DONE))
    assert story.audited(kept(auditing)).alarms(after_ms=NEVER) == []


def test_a_swallowed_start_is_missed_beside_its_number(story: Enforcing) -> None:
    started, ended = story.lived(*story.permit())
    assert started
    story.report("us-1", ended)
    assert story.audited().alarms(after_ms=NEVER) == ["outcome_missing", "start_missing"]


def test_what_was_authorized_in_no_log_is_missed_and_no_more_once_the_log_comes(story: Enforcing) -> None:
    intent, authorization = story.permit("eu-1")
    story.report("us-1", *story.lived(intent, authorization))
    story.mesh.run(6)
    others = [item for item in story.mesh.stream if ".eu." not in item[0]]
    auditing = Auditing(story.mesh, down=frozenset(story.mesh.nodes)).feed(events_of(others))
    assert auditing.alarms() == []
    assert set(auditing.alarms(after_ms=LATE)) == {"authorization_missing"}
    assert auditing.state.watched.starts.match == 0
    auditing.feed(events_of(story.mesh.stream))
    assert (auditing.codes, auditing.alarms(after_ms=NEVER), auditing.state.watched.starts.match) == ([], [], 1)


def test_what_a_log_that_is_behind_may_still_hold_is_waited_for_ten_times_as_long(story: Enforcing) -> None:
    outcomes = _lived(story, 2, at="")
    story.report("us-1", outcomes[0], *outcomes[2:])
    story.mesh.run(6)
    certificate = story.mesh.nodes["ap-1"].notes["certificate", "lab/ap-1/e1"]
    behind = [item for item in story.mesh.stream if ".lineage.ap-1" not in item[0]]
    auditing = Auditing(story.mesh, down=frozenset(story.mesh.nodes)).feed(events_of(behind))
    assert certificate
    assert auditing.state.logs["lab/ap-1/e1"].signed > 0
    assert "outcome_missing" not in auditing.alarms(after_ms=LATE)
    assert "outcome_missing" in auditing.alarms(after_ms=10 * LATE)


# --------------------------------------------------------------------------------------------------- what cannot be


def _begun(story: Enforcing, **changed: Any) -> Started:
    return msgspec.structs.replace(story.lab.started(), **changed)


def test_one_intent_that_is_started_twice_is_found_whoever_authorized_it(story: Enforcing) -> None:
    intent, one, other = story.permit("eu-1", "us-1")
    assert one != other
    story.report("ap-1", *story.lived(intent, one))
    assert story.audited().codes == []
    story.report("sa-1", *story.lived(intent, other))
    assert story.audited().codes == ["started_twice"]


@pytest.mark.parametrize(
    ("events", "codes"),
    [
        (["start", DONE, DONE], ["order_impossible"]),
        (["start", DONE, Aborted(code="revoked", duration_ms=3)], ["order_impossible"]),
        ([DONE, "start"], ["order_impossible"]),
        (["start", Failed(status=1, error="exit", outputs=[], duration_ms=2)], []),
        (["start", Aborted(code="revoked", duration_ms=2)], []),
    ],
)
def test_an_order_in_which_nothing_can_happen_is_found_in_whatever_order_it_is_read(
    story: Enforcing, events: list[Event | str], codes: list[str]
) -> None:
    intent, authorization = story.permit()
    outcomes = [story.say(intent, authorization, story.lab.started() if isinstance(event, str) else event) for event in events]
    for at, said in zip(("us-1", "ap-1", "sa-1"), outcomes, strict=False):
        story.report(at, said)
    assert story.audited().codes == codes
    events_ = events_of(story.mesh.stream)
    for seed in range(5):
        shuffled = Auditing(story.mesh).feed(Random(seed).sample(events_, len(events_))).pull()
        assert sorted(shuffled.codes) == sorted(codes)


def test_an_end_that_a_later_boot_does_not_know_is_no_contradiction_and_two_are(story: Enforcing) -> None:
    intent, authorization = story.permit()
    story.report("us-1", story.say(intent, authorization, story.lab.started()))
    story.report("us-1", story.say(intent, authorization, Unknown(boot="b0" * 32), boot="b1" * 32))
    auditing = story.audited()
    assert (auditing.codes, auditing.alarms(after_ms=NEVER)) == ([], [])
    story.report("us-1", story.say(intent, authorization, DONE))
    assert story.audited(kept(auditing)).codes == ["order_impossible"]


def test_a_crash_before_the_start_was_recorded_misses_nothing(story: Enforcing) -> None:
    intent, authorization = story.permit()
    story.report("us-1", story.say(intent, authorization, Unknown(boot="b0" * 32), boot="b1" * 32))
    auditing = story.audited()
    assert (auditing.codes, auditing.alarms(after_ms=NEVER)) == ([], [])


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"heartbeats": []}, "0 members vouched, 3 are needed"),
        ({"heartbeats": ["ab" * 32] * 3}, "1 members vouched"),
        ({"checks": "trust"}, "without trust"),
        ({"checks": "authorization"}, "without authorization"),
        ({"checks": "order"}, "without their order"),
        ({"at_ms": -1_000}, "it began at"),
        ({"at_ms": 31_000}, "the authorization ended at"),
        ({"at_ms": 29_000}, ""),
        ({"at_ms": -200}, ""),
    ],
)
def test_a_start_that_no_enforcer_may_sign_is_a_mismatch(story: Enforcing, lie: dict[str, Any], told: str) -> None:
    began = story.lab.started()
    if "heartbeats" in lie:
        began = _begun(story, heartbeats=lie["heartbeats"])
    elif lie.get("checks") == "order":
        began = _begun(story, checks=began.checks[::-1])
    elif "checks" in lie:
        failed = [msgspec.structs.replace(check, passed=check.name != lie["checks"]) for check in began.checks]
        began = _begun(story, checks=failed)
    story.mesh.run(5)  # so that the enforcer's document is older than all this
    intent, authorization = story.permit()
    at_ms = story.mesh.now_ms + lie.get("at_ms", 0)
    story.report("us-1", story.say(intent, authorization, began, at_ms=at_ms), story.say(intent, authorization, DONE, at_ms=at_ms + 5))
    auditing = story.audited()
    assert auditing.codes == (["start_invalid"] if told else [])
    assert told in "".join(finding.detail for finding in auditing.state.findings)
    assert auditing.state.watched.starts == Starts(match=int(not told), mismatch=int(bool(told)), unverifiable=0)


def test_two_histories_of_an_enforcer_are_found_across_logs(story: Enforcing) -> None:
    first, second = story.permit(), story.permit()
    story.report("us-1", *story.lived(*first))
    story.previous.clear()
    story.report("ap-1", *story.lived(*second))
    assert set(story.audited().codes) == {"outcome_conflict"}


# ------------------------------------------------------------------------------------------------------------ position


def test_a_restart_at_any_point_neither_forgets_nor_repeats(story: Enforcing) -> None:
    outcomes = _lived(story, 3, at="")
    story.report("us-1", outcomes[0], *outcomes[2:4])
    story.report("ap-1", *outcomes[3:])
    intent, one, other = story.permit("eu-1", "us-1")
    story.report("sa-1", *story.lived(intent, one), *story.lived(intent, other))
    whole = story.audited()
    assert (whole.codes, whole.alarms(after_ms=NEVER)) == (["started_twice"], ["end_missing", "outcome_missing"])
    events = events_of(story.mesh.stream)
    for cut in range(0, len(events), 4):
        first = Auditing(story.mesh).feed(events[:cut])
        second = Auditing(story.mesh, kept(first)).feed(events[cut:]).pull()
        assert (second.codes, second.alarms(after_ms=NEVER)) == (whole.codes, whole.alarms(after_ms=NEVER))
        assert second.state.watched.starts == whole.state.watched.starts
        again = Auditing(story.mesh, kept(second)).feed(events).pull()
        assert kept_of(again.state.watched) == kept_of(second.state.watched)


# ------------------------------------------------------------------------------------------------------------ progress


def test_a_member_that_answers_no_more_is_an_alarm_of_its_log_until_it_does(story: Enforcing) -> None:
    auditing = story.audited().ask_all()
    story.mesh.nodes["ap-1"].up = False
    auditing.ask_all()
    assert auditing.alarms(after_ms=PATIENT.still_ms) == []
    (alarm,) = auditing.standing(after_ms=PATIENT.still_ms + 1)
    assert (alarm.code, alarm.origin) == ("log_silent", "lab/ap-1/e1")
    restarted = Auditing(story.mesh, kept(auditing))
    restarted.now_ms += 70_000
    assert restarted.ask_all().alarms() == ["log_silent"], "since when is kept"
    story.mesh.nodes["ap-1"].up = True
    assert restarted.ask_all().alarms(after_ms=NEVER) == []


def test_records_that_do_not_become_final_are_an_alarm_and_an_idle_log_is_none(story: Enforcing) -> None:
    auditing = story.audited()
    assert auditing.alarms(after_ms=NEVER) == []
    for name in ("us-1", "ap-1", "sa-1"):
        story.mesh.nodes[name].up = False
    story.permit("eu-1")
    story.mesh.run(3)
    auditing.now_ms = story.mesh.now_ms
    auditing.feed(events_of(story.mesh.stream))
    assert auditing.alarms() == []
    (alarm,) = auditing.standing(after_ms=PATIENT.still_ms + 3_000)
    assert (alarm.code, alarm.origin) == ("finality_stalled", "lab/eu-1/e1")


def test_signed_records_that_nobody_serves_are_an_alarm_that_names_the_first(story: Enforcing) -> None:
    _lived(story, 1)
    story.mesh.run(6)
    notes = [item for item in story.mesh.stream if ".checkpoint.us-1" in item[0]]
    auditing = Auditing(story.mesh, down=frozenset(story.mesh.nodes)).feed(events_of(notes)).pull()
    alarms = auditing.standing(after_ms=PATIENT.still_ms + 3_000)
    assert [(item.code, item.origin, item.index) for item in alarms] == [("log_behind", "lab/us-1/e1", 0)]


@pytest.mark.parametrize(("what", "code"), [("witnessed", "witness_lag"), ("attested", "attest_lag")])
def test_a_member_that_lags_behind_what_is_final_is_an_alarm_until_it_has_caught_up(story: Enforcing, what: str, code: str) -> None:
    auditing = story.audited()
    statuses = {name: node.status() for name, node in story.mesh.nodes.items()}
    behind = [msgspec.structs.replace(mirror, **{what: 0}) if "eu-1" in mirror.origin else mirror for mirror in statuses["sa-1"].mirrors]
    final = {origin: log.certified for origin, log in auditing.state.logs.items()}
    owners = {origin: origin.split("/")[1] for origin in final}
    lags = lagging([], {**statuses, "sa-1": msgspec.structs.replace(statuses["sa-1"], mirrors=behind)}, final, owners=owners, now_ms=5)
    assert [(lag.member, lag.origin, lag.what, lag.since_ms) for lag in lags] == [("sa-1", "lab/eu-1/e1", what, 5)]
    auditing.state = msgspec.structs.replace(auditing.state, watched=msgspec.structs.replace(auditing.state.watched, lags=lags))
    assert auditing.alarms() == [code]
    assert auditing.ask_all().alarms() == []


def test_as_many_lags_are_remembered_as_are_kept(story: Enforcing) -> None:
    status = story.mesh.nodes["sa-1"].status()
    mirror = msgspec.structs.replace(status.mirrors[0], attested=0, witnessed=0)
    mirrors = [msgspec.structs.replace(mirror, origin=f"lab/n-{number}/e1") for number in range(AUDIT_LAGS_MAX)]
    final = {one.origin: 9 for one in mirrors}
    owners = dict.fromkeys(final, "other")
    answered = {"sa-1": msgspec.structs.replace(status, mirrors=mirrors)}
    assert len(lagging([], answered, final, owners=owners, now_ms=1)) == AUDIT_LAGS_MAX
    old = Lag(member="eu-1", origin="lab/x/e1", what="attested", size=1, since_ms=1)
    assert lagging([old], {}, final, owners=owners, now_ms=2) == (old,), "who did not answer has said nothing new"


def test_what_waits_does_not_begin_anew_because_more_comes() -> None:
    pace = moved(IDLE, settled=5, certified=0, known=5, now_ms=100)
    pace = moved(pace, settled=9, certified=4, known=9, now_ms=200)
    assert (pace.waits, pace.waits_ms) == (5, 100)
    pace = moved(pace, settled=9, certified=5, known=9, now_ms=300)
    assert (pace.waits, pace.waits_ms) == (9, 300)
    assert moved(pace, settled=9, certified=9, known=9, now_ms=400).waits_ms == 0


# -------------------------------------------------------------------------------------------------------------- bounds


def _permit(number: int, **changed: Any) -> Permit:
    said: dict[str, Any] = {
        "authorization": f"{number:064x}", "origin": "lab/eu-1/e1", "index": number, "at_ms": 1_000 + number, "expires_ms": 9_000 + number,
        "lease_ms": 10, "enforcer": "ee" * 32, "boot": "b0" * 32, "domain": "payments", "sound": True, "k": 3, "skew_ms": 300, **changed,
    }  # fmt: skip
    return Permit(**said)


def _deed(number: int, event: str, **changed: Any) -> Deed:
    said: dict[str, Any] = {
        "event": event, "authorization": f"{number:064x}", "enforcer": "ee" * 32, "boot": "b0" * 32, "of": "b0" * 32, "domain": "payments",
        "sequence": 2 * number + (event != "started"), "at_ms": 1_000 + number, "lasted_ms": 0, "vouched": 3, "lacks": "",
        "recorded_ms": 1_000 + number, "origin": "lab/us-1/e1", "index": number, **changed,
    }  # fmt: skip
    return Deed(**said)


def _lives(*numbers: int, over: bool = True) -> Lives:
    lives = Lives({}, Starts(match=0, mismatch=0, unverifiable=0), 0)
    for number in numbers:
        lives.permit(f"{number:064x}", _permit(number))
        if over:
            lives.deed(f"{number:064x}", _deed(number, "started"))
            lives.deed(f"{number:064x}", _deed(number, "finished"))
    return lives


@pytest.mark.parametrize("first", [True, False])
def test_what_a_liar_records_of_anothers_authorization_accuses_no_enforcer(*, first: bool) -> None:
    lies = [_permit(1, sound=False, origin="lab/aa-1/e1", at_ms=8_000, expires_ms=8_001), _permit(1)]
    lives = _lives()
    one, other = lies if first else lies[::-1]
    lives.permit("aa" * 32, one)
    lives.deed("aa" * 32, _deed(1, "started"))
    lives.permit("aa" * 32, other)
    assert (lives.troubles, lives.starts) == ([], Starts(match=1, mismatch=0, unverifiable=0))
    alone = _lives()
    alone.permit("aa" * 32, lies[0])
    alone.deed("aa" * 32, _deed(1, "started"))
    assert (alone.troubles, alone.starts) == ([], Starts(match=0, mismatch=0, unverifiable=1))


def test_what_is_over_is_kept_for_a_while_and_then_forgotten() -> None:
    lives = _lives(1, 2)
    lives.forget(1_001 + AUDIT_KEEP_MS_MAX)
    assert len(lives.lives) == 2
    lives.forget(1_002 + AUDIT_KEEP_MS_MAX)
    assert list(lives.lives) == [f"{2:064x}"]
    assert (lives.lost_ms, lives.starts.match) == (0, 2)


def test_of_too_many_first_what_is_over_is_forgotten_then_what_was_not_used() -> None:
    lives = _lives(*range(AUDIT_LIVES_MAX))
    lives.forget(0)
    assert len(lives.lives) == AUDIT_LIVES_MAX
    lives.permit("aa" * 32, _permit(10**6))
    lives.forget(0)
    assert (len(lives.lives), f"{0:064x}" in lives.lives, lives.lost_ms) == (AUDIT_LIVES_MAX, False, 0)
    unused = _lives(*range(AUDIT_LIVES_MAX), over=False)
    unused.deed("bb" * 32, _deed(10**6, "started"))
    unused.forget(0)
    assert ("bb" * 32 in unused.lives, unused.lost_ms, unused.starts.unverifiable) == (True, 1_000, 0)


def test_a_start_that_was_forgotten_before_its_authorization_came_is_unverifiable_and_nobody_is_accused() -> None:
    lives = _lives()
    for number in range(AUDIT_LIVES_MAX + 1):
        lives.deed(f"{number:064x}", _deed(number, "started"))
    lives.forget(0)
    assert (lives.starts.unverifiable, lives.lost_ms) == (1, 1_000)
    assert unsure(_deed(0, "finished"), lives.lost_ms)
    assert not unsure(_deed(0, "finished", at_ms=70_000, lasted_ms=1_000), lives.lost_ms)


def test_of_one_intent_only_so_many_parts_are_kept() -> None:
    lives = _lives()
    for number in range(AUDIT_PARTS_MAX + 1):
        lives.permit("aa" * 32, _permit(number))
        lives.deed("aa" * 32, _deed(number, "failed", sequence=number))
    life = lives.lives["aa" * 32]
    assert (len(life.permits), len(life.deeds)) == (AUDIT_PARTS_MAX, AUDIT_PARTS_MAX)
    assert canonical.encode(life)
