"""A start takes up exactly where the signatures left off."""

import msgspec
import pytest

from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.record import GovernanceChanged, read_record
from mesh.errors import Refused
from mesh.protocol.barrier import check
from mesh.protocol.events import HeartbeatArrived, Tick
from mesh.protocol.governor import Machine
from mesh.protocol.lineage import checkpoint_due
from mesh.protocol.state import GovernorState
from mesh.protocol.step import Announce, Append, Head, Send, SetHead, SetMeta, Sign, Step
from mesh.protocol.stored import INCARNATION, Stored, StoredLog
from tests.protocol.machines import BOOT, LAB, ME, NOW, OWNER, Governor, beat, only, perform, started

ORIGIN = LAB.roster.origin(ME)
LEAVES = [b"a", b"b", b"c"]
FRONTIER = Frontier.empty().extend(map(leaf_hash, LEAVES))
NEW = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
HEAD = Head(3, FRONTIER.root(), NOW // 1000 - 60)
HELD = StoredLog(frontier=FRONTIER, last_ms=NOW - 60_000, certified=0, log=HEAD, witness=HEAD, attest=HEAD)


def _begin(
    own: StoredLog = NEW, mirrors: dict[str, StoredLog] | None = None, *, incarnation: int = 0, now_ms: int = NOW
) -> Step[GovernorState]:
    machine = Machine(LAB.governance, ME, LAB.engine)
    return started(machine, Stored(incarnation=incarnation, own=own, mirrors=mirrors or {}), now_ms=now_ms)


@pytest.mark.parametrize("before", [0, 1, 41])
def test_the_incarnation_rises_before_anything_is_signed(before: int) -> None:
    step = _begin(incarnation=before)
    assert SetMeta(INCARNATION, before + 1) in step.effects
    assert not only(Sign, step.effects)
    assert not only(Send, step.effects)
    assert (step.state.incarnation, step.state.sequence) == (before + 1, 0)


def test_a_start_is_recorded_as_soon_as_others_have_borne_its_clock_out_and_nothing_before() -> None:
    governor = Governor()
    governor.state = _begin(HELD).state
    assert only(Append, _begin(HELD).effects) == []
    assert only(Append, governor.take(Tick())) == []
    heard = [HeartbeatArrived(beat(member.name, 1, NOW)) for member in LAB.roster.members[1 : LAB.roster.f + 2]]
    (append,) = only(Append, governor.take(*heard, Tick()))
    record = read_record(append.leaves[0])
    assert isinstance(record, GovernanceChanged)
    assert (record.change, record.about, record.index, append.first) == ("started", LAB.pin, 3, 3)


def test_nothing_is_fresh_yet() -> None:
    fresh = _begin(HELD).state.fresh
    assert (fresh.boot, dict(fresh.heard), fresh.echoed) == (BOOT, {}, frozenset())


def test_a_checkpoint_without_certificate_is_outstanding_and_signed_again_with_the_same_bytes() -> None:
    states = [_begin(HELD, now_ms=NOW + later).state.log for later in (0, 9_000)]
    notes = []
    for state, now_ms in zip(states, (NOW, NOW + 9_000), strict=True):
        assert state.outstanding is not None
        assert state.outstanding.head == HEAD
        _, effects = checkpoint_due(state, LAB.roster, ME, now_ms=now_ms)
        assert not only(SetHead, effects)
        (announce,), (send,) = only(Announce, effects), only(Send, effects)
        assert (announce.first, announce.size) == (0, 3)
        notes.append(send.build(perform(effects)))
    assert notes[0] == notes[1]


def test_a_certified_log_has_nothing_outstanding() -> None:
    state = _begin(msgspec.structs.replace(HELD, certified=3)).state.log
    assert (state.outstanding, state.certified, state.announced) == (None, 3, 3)


def test_a_log_remembers_under_which_time_it_signed_last() -> None:
    ahead = msgspec.structs.replace(HEAD, time_s=NOW // 1000 + 5)
    governor = Governor()
    governor.state = _begin(msgspec.structs.replace(HELD, certified=3, log=ahead)).state
    effects = governor.take(*(HeartbeatArrived(beat(member.name, 1, NOW)) for member in LAB.roster.members[1:]), Tick())
    assert {item.head.time_s for item in only(SetHead, effects)} == {NOW // 1000 + 5}


def test_storage_that_holds_less_than_was_signed_signs_nothing_though_all_have_answered() -> None:
    step = _begin(msgspec.structs.replace(HELD, frontier=Frontier.empty().append(leaf_hash(b"a"))))
    assert step.state.barrier is not None
    assert not only(Sign, step.effects)
    with pytest.raises(Refused) as caught:
        check(step.state.barrier, LAB.governance, now_ms=NOW + 60_000)
    assert caught.value.code == "storage_rolled_back"


def test_every_other_log_is_mirrored_from_where_it_was() -> None:
    origin = LAB.roster.origin(OWNER)
    held = StoredLog(frontier=FRONTIER, last_ms=NOW - 1, certified=2, witness=HEAD, attest=HEAD, refused=1, conflicted=True)
    mirrors = _begin(mirrors={origin: held}).state.mirrors
    assert set(mirrors) == {LAB.roster.origin(member) for member in LAB.roster.members} - {ORIGIN}
    mine = mirrors[origin]
    assert (mine.frontier, mine.last_ms, mine.certified, mine.witnessed, mine.attested) == (FRONTIER, NOW - 1, 2, HEAD, HEAD)
    assert (mine.refused, mine.conflicted, mine.wanted, mine.note, mine.staged) == (1, True, 3, b"", ())
    other = mirrors[LAB.roster.origin(LAB.roster.member("ap-1"))]
    assert (other.frontier.size, other.witnessed, other.refused, other.conflicted) == (0, None, -1, False)


def test_the_first_heartbeat_names_the_new_incarnation() -> None:
    governor = Governor()
    governor.state = _begin(incarnation=6).state
    governor.take(Tick())
    assert governor.state.fresh.heard[ME.name][-1].incarnation == 7
