"""An auditor that comes late takes hashes below a floor, counts them as pruned and as nothing else, and judges what stands behind."""

import msgspec
import pytest

from mesh.core.messages import LineageBatch, pack
from mesh.core.run.outcome import Unknown
from mesh.limits import PRUNE_AGE_MS_MIN
from mesh.protocol.alarms import NOTHING, Watch, kept_of, watched
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditPosition, tally
from mesh.protocol.events import LineageArrived, NoteArrived
from mesh.protocol.step import Ask
from tests.protocol.machines import LAB, batch
from tests.protocol.test_audit_far import Reader
from tests.protocol.test_catching import K
from tests.protocol.test_proven import PAGE, page, simple
from tests.protocol.test_pruned import hashed
from tests.support.auditing import Enforcing, kept
from tests.support.retains import retaining

LOG, OTHER = simple("a", 400), simple("b", 400)
NOTE = LOG.note(*K)


def _reader(below: int, position: AuditPosition | None = None) -> Reader:
    reader = Reader()
    reader.audit = Audit(retaining(LAB, {LOG.origin: below}) if below else LAB.governance, LAB.engine)
    reader.state = reader.audit.begin(position)
    return reader


def _pruned(ask: Ask, below: int) -> LineageBatch:
    return hashed(LOG, ask.first, min(ask.first + PAGE, below), NOTE) if ask.first < below else page(LOG, ask.first, NOTE)


def test_hashes_below_a_floor_are_counted_as_pruned_and_what_stands_behind_is_judged() -> None:
    reader = _reader(300)
    reader.feed(NoteArrived(NOTE))
    reader.pull(lambda ask, _: _pruned(ask, 300))
    assert (reader.log.frontier, reader.log.certified, reader.log.caught_up) == (LOG.log.frontier, 400, True)
    numbers = tally(reader.state)
    assert (numbers.records, numbers.pruned, numbers.mismatch, numbers.unverifiable, reader.codes) == (400, 300, 0, 0, [])
    again = _reader(300, reader.audit.position(reader.state))
    assert (again.log.pruned, again.log.frontier) == (300, LOG.log.frontier)


@pytest.mark.parametrize("exhausted", [False, True])
def test_records_that_were_staged_before_a_pruned_stretch_hold_no_auditor_up(exhausted: bool) -> None:
    reader = _reader(300)
    for _ in range(60 if exhausted else 0):  # nobody could help yet
        reader.pull(lambda ask, _: batch(LOG, 400, 0, NOTE), rounds=1)
    reader.feed(LineageArrived(pack(batch(LOG, 0, 3, b"")), pulled=False), NoteArrived(NOTE))
    assert len(reader.log.staged) == 3
    reader.pull(lambda ask, _: _pruned(ask, 300), rounds=60)
    assert (reader.log.frontier, reader.log.certified, reader.log.caught_up, reader.codes) == (LOG.log.frontier, 400, True, [])


@pytest.mark.parametrize("below", [0, 127, 299])
def test_hashes_above_a_floor_are_not_taken(below: int) -> None:
    reader = _reader(below)
    reader.feed(NoteArrived(NOTE))
    reader.pull(lambda ask, _: _pruned(ask, 300), rounds=40)
    taken = below - below % PAGE
    assert (reader.log.frontier.size, reader.log.pruned, reader.log.caught_up) == (taken, taken, False)
    reader.pull(lambda ask, _: page(LOG, ask.first, NOTE))
    assert (reader.log.caught_up, reader.log.pruned, reader.codes) == (True, taken, [])


def test_hashes_that_lead_elsewhere_or_to_a_certificate_of_less_than_k_are_not_taken() -> None:
    def lie(ask: Ask, number: int) -> LineageBatch:
        whole = _pruned(ask, 300)
        if not whole.pruned:
            return whole
        other = hashed(OTHER, ask.first, min(ask.first + PAGE, 300), NOTE)
        return (
            msgspec.structs.replace(whole, pruned=other.pruned),
            msgspec.structs.replace(whole, path=whole.path[:-1]),
            msgspec.structs.replace(whole, checkpoint=LOG.note(*K[:-1]).decode()),
        )[number % 3]

    reader = _reader(300)
    reader.feed(NoteArrived(NOTE))
    reader.pull(lie, rounds=60)
    assert (reader.log.frontier.size, reader.log.pruned, reader.codes) == (0, 0, [])


def test_what_lacks_because_records_were_pruned_is_not_missed_and_what_lacks_since_is() -> None:
    for pruned_ms, alarms in ((-1, ["outcome_missing", "start_missing"]), (60_000, [])):
        story = Enforcing()
        begun = kept(story.audited())
        intent, authorization = story.permit()
        started, ended = story.lived(intent, authorization)
        assert started
        story.report("us-1", ended)
        watch = Watch(NOTHING)
        if pruned_ms >= 0:
            watch.pruned(story.mesh.now_ms + pruned_ms + PRUNE_AGE_MS_MIN, read_ms=0)
        late = story.audited(msgspec.structs.replace(begun, watched=kept_of(watch.finish(0))))
        assert late.alarms(after_ms=10**10) == alarms


def test_an_end_that_was_pruned_is_not_missed_behind_a_start_that_is_kept_in_another_log() -> None:
    story = Enforcing()
    begun = kept(story.audited())
    intent, authorization = story.permit()
    story.report("us-1", story.say(intent, authorization, story.lab.started()))
    watch = Watch(NOTHING)
    watch.pruned(story.mesh.now_ms + PRUNE_AGE_MS_MIN, read_ms=0)
    late = story.audited(msgspec.structs.replace(begun, watched=kept_of(watch.finish(0))))
    assert (story.audited(begun).alarms(after_ms=10**10), late.alarms(after_ms=10**10)) == (["end_missing"], [])


def test_what_a_log_that_was_read_before_showed_to_lack_is_not_missed_once_records_turn_out_to_be_pruned() -> None:
    story = Enforcing()
    begun = kept(story.audited())
    intent, authorization = story.permit()
    _, ended = story.lived(intent, authorization)
    story.report("us-1", ended)
    early = story.audited(begun)
    assert early.alarms(after_ms=10**10) == ["outcome_missing", "start_missing"]
    watch = Watch(early.state.watched)
    watch.pruned(story.mesh.now_ms + 60_000 + PRUNE_AGE_MS_MIN, read_ms=0)
    late = story.audited(msgspec.structs.replace(kept(early), watched=kept_of(watch.finish(0))))
    assert late.alarms(after_ms=10**10) == []


@pytest.mark.parametrize(("pruned_ms", "alarms"), [(60_000, []), (-60_000, ["outcome_missing"])])
def test_of_a_boot_that_spoke_before_something_was_pruned_nothing_is_missed_behind_that(pruned_ms: int, alarms: list[str]) -> None:
    story = Enforcing()
    for event in story.lived(*story.permit()):
        story.report("us-1", event)
    early = story.audited()
    watch = Watch(early.state.watched)
    watch.pruned(story.mesh.now_ms + pruned_ms + PRUNE_AGE_MS_MIN, read_ms=story.mesh.now_ms)
    after = msgspec.structs.replace(kept(early), watched=kept_of(watch.finish(0)))
    story.lived(*story.permit())  # nobody recorded it, or it was pruned
    for event in story.lived(*story.permit()):
        story.report("us-1", event)
    assert [code for code in story.audited(after).alarms(after_ms=10**10) if code == "outcome_missing"] == alarms


def test_an_auditor_that_was_away_misses_nothing_of_a_boot_that_it_knows_which_may_have_been_pruned_meanwhile_and_the_rest() -> None:
    for skipped_ms, alarms in ((0, ["outcome_missing"]), (60_000, []), (-3_600_000, ["outcome_missing"])):
        story = Enforcing()
        story.report("us-1", *story.lived(*story.permit()))
        begun = kept(story.audited())
        intent, authorization = story.permit()
        started, ended = story.lived(intent, authorization)
        assert started
        later = story.say(intent, authorization, story.lab.started())
        assert later
        story.report("us-1", ended)
        watch = Watch(watched(begun.watched))
        if skipped_ms:
            watch.pruned(story.mesh.now_ms + skipped_ms + PRUNE_AGE_MS_MIN, read_ms=story.mesh.now_ms)
        late = story.audited(msgspec.structs.replace(begun, watched=kept_of(watch.finish(0))))
        found = [code for code in late.alarms(after_ms=10**10) if code == "outcome_missing"]
        assert found == alarms


def test_a_hole_that_was_seen_before_records_were_skipped_stands_unless_they_may_fill_it() -> None:
    story = Enforcing()
    lived = story.lived(*story.permit())
    story.report("us-1", lived[1])
    begun = kept(story.audited())
    since_ms = story.mesh.now_ms
    for read_ms, alarms in ((since_ms, []), (since_ms + 3_600_000, ["outcome_missing"])):
        watch = Watch(watched(begun.watched))
        watch.pruned(since_ms + 2 * PRUNE_AGE_MS_MIN, read_ms=read_ms)
        late = story.audited(msgspec.structs.replace(begun, watched=kept_of(watch.finish(0))))
        assert [code for code in late.alarms(after_ms=10**11) if code == "outcome_missing"] == alarms


def test_who_cannot_say_how_it_ended_speaks_of_what_may_have_begun_before_any_record_that_is_kept() -> None:
    for skipped, alarms in ((False, ["authorization_missing"]), (True, [])):
        story = Enforcing()
        begun = kept(story.audited())
        story.report("us-1", story.say("aa" * 32, "bb" * 32, Unknown(boot="c0" * 32)))
        watch = Watch(NOTHING)
        if skipped:
            watch.pruned(story.mesh.now_ms, read_ms=0)
        late = story.audited(msgspec.structs.replace(begun, watched=kept_of(watch.finish(0))))
        assert late.alarms(after_ms=10**10) == alarms
