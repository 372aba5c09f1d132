"""Records from a file come to an auditor as records from a mesh do: in batches that any receiver takes, each note after what it covers."""

import msgspec
import pytest

from mesh.core.log.bundle import read_proof
from mesh.core.messages import LineageBatch, unpack
from mesh.limits import BATCH_RECORDS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent
from mesh.protocol.events import LineageArrived
from mesh.protocol.filed import Filed, proofs_as_events, that_is_all
from tests.support.proofs import happened

ORIGIN = "lab/eu-1/e1"


def _batches(events: list[AuditEvent]) -> list[tuple[int, int]]:
    """First index and number of records of each batch."""
    read = [unpack(LineageBatch, event.data) for event in events if isinstance(event, LineageArrived)]
    return [(batch.first, len(batch.records)) for batch in read]


def _filed(indices: range | list[int], *, body: bytes = b"{}", note: bytes = b"") -> list[AuditEvent]:
    filed = Filed()
    events = [event for index in indices for event in filed.add(ORIGIN, index, b'{"n":%d}' % index, [body], None, note)]
    return [*events, *filed.end()]


def test_a_long_log_comes_in_whole_batches() -> None:
    assert _batches(_filed(range(300))) == [(0, BATCH_RECORDS_MAX), (128, BATCH_RECORDS_MAX), (256, 44)]


def test_a_gap_another_log_and_what_is_large_begin_a_new_batch() -> None:
    assert _batches(_filed([0, 1, 3, 4, 9])) == [(0, 2), (3, 2), (9, 1)]
    filed = Filed()
    events = [*filed.add("lab/a/e1", 0, b"1", [], None, b""), *filed.add("lab/b/e1", 1, b"2", [], None, b""), *filed.end()]
    assert _batches(events) == [(0, 1), (1, 1)]
    large = [b'{"%d":"%s"}' % (number, b"x" * 120_000) for number in range(9)]
    filed = Filed()
    events = [event for number, body in enumerate(large) for event in filed.add(ORIGIN, number, b"0", [body], None, b"")] + filed.end()
    assert max(len(event.data) for event in events if isinstance(event, LineageArrived)) <= MESSAGE_BYTES_MAX
    assert sum(count for _, count in _batches(events)) == 9


def test_a_note_comes_once_and_after_the_record_that_it_came_with() -> None:
    events = _filed(range(3), note=b"note")
    assert [type(event).__name__ for event in events] == ["LineageArrived", "NoteArrived", "LineageArrived"]
    assert _batches(events) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("openings", [True, False])
def test_what_lacks_its_openings_is_judged_without_them_once_that_is_all(*, openings: bool) -> None:
    story = happened()
    bundle = read_proof(story.proof(story.permitted))
    bundle = bundle if openings else msgspec.structs.replace(bundle, openings=[])
    audit = Audit(story.lab.governance, story.lab.engine)
    state = audit.begin(None)
    first = story.mesh.nodes["eu-1"]
    filed = Filed()
    for index, leaf in enumerate(first.logs[ORIGIN][:2]):
        events = filed.add(ORIGIN, index, leaf, [], None, b"")
        state = audit.step(state, events, now_ms=story.mesh.now_ms).state
    for events in ([*filed.end()], *proofs_as_events([bundle])):
        state = audit.step(state, events, now_ms=story.mesh.now_ms).state
    state = that_is_all(audit, state, now_ms=story.mesh.now_ms)
    log = state.logs[ORIGIN]
    assert (log.match, log.unverifiable, log.caught_up, state.found) == (int(openings), int(not openings), True, 0)
