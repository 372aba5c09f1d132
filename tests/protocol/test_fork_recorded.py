"""A node that takes in the second half of a conflict records which two statements they are, once, and every auditor finds it."""

from collections.abc import Sequence

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.conflict import judge
from mesh.core.law.policy import Manifest
from mesh.core.law.travel import Said
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import GovernanceChanged, Incident
from mesh.core.messages import LawBatch, Offer, pack
from mesh.protocol.events import HeartbeatArrived, Tick
from mesh.protocol.gossip import LawArrived, OfferArrived
from mesh.protocol.stored import Stored, StoredLog
from tests.protocol.machines import BOOT, LAB, ME, NOW, Governor, beat, started
from tests.support import resolves
from tests.support.auditing import Auditing, events_of
from tests.support.halts import halt
from tests.support.proofs import Happened
from tests.support.resolves import resolve
from tests.support.revocations import STREAM, branch, chained, governance

PLAIN = governance(LAB)
OTHERS = [member.name for member in LAB.roster.members if member.name != ME.name]
FIRST, OTHER = halt(None), halt(None, reason="another first")
HALTS = "halt/payments"


def _governor() -> Governor:
    governor = Governor(PLAIN)
    empty = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
    governor.state = started(governor.machine, Stored(incarnation=0, own=empty, mirrors={})).state
    governor.take(*(HeartbeatArrived(beat(name, 1, NOW, echo=[BOOT])) for name in OTHERS), Tick())
    return governor


def _offer(*statements: Statement[Said]) -> OfferArrived:
    return OfferArrived(9, pack(Offer(statements=[msgspec.Raw(item.envelope) for item in statements])))


def _incidents(governor: Governor) -> list[tuple[str, str]]:
    """Of the last batch."""
    return [(record.code, record.detail) for record in governor.records() if isinstance(record, Incident)]


def _detail(stream: str, *two: Statement[Said]) -> str:
    first, second = sorted(two, key=lambda item: (item.claims.sequence, item.id))
    return f"{stream} {first.id} {second.id}"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("order", [1, -1])
def test_the_second_half_is_recorded_with_both_ids_after_what_was_taken_in(order: int, *, at_once: bool) -> None:
    governor = _governor()
    halves = [FIRST, OTHER][::order]
    governor.take(*([_offer(*halves)] if at_once else map(_offer, halves)))
    assert _incidents(governor) == [], "recorded once the clock is known to be good, as all that is taken in"
    governor.take(Tick())
    assert _incidents(governor) == [("stream_forked", _detail(HALTS, FIRST, OTHER))]
    before, last = governor.records()[-2:]
    assert isinstance(before, GovernanceChanged)
    assert isinstance(last, Incident)
    assert judge(FIRST, OTHER, PLAIN.rosters).stream == HALTS


def test_what_a_thief_adds_to_a_fork_is_no_further_incident() -> None:
    governor = _governor()
    trunk = chained(3)
    aside = branch([2, 3], trunk[0], "another")
    governor.take(_offer(*trunk), _offer(*aside), Tick())
    assert _incidents(governor) == [("stream_forked", _detail(STREAM, trunk[1], aside[0]))]
    for number in range(5):
        governor.take(_offer(*branch([2], trunk[0], f"and another {number}")), Tick())
        assert governor.records()
        assert _incidents(governor) == []


@pytest.mark.parametrize("pair", [("next", "twin"), ("begins", "late")])
def test_a_contradiction_of_policy_signers_is_recorded_as_what_it_denies_by(pair: tuple[str, str]) -> None:
    governor = _governor()
    one, other = (resolves.WORLD[name] for name in pair)
    governor.take(LawArrived(pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in (one, other)]))), Tick())
    assert _incidents(governor) == [("policy_conflict", _detail(one.claims.link[0], one, other))]


def test_a_stream_that_is_forked_again_after_it_was_resolved_is_recorded_again() -> None:
    governor = _governor()
    governor.take(_offer(FIRST, OTHER), Tick())
    assert _incidents(governor) == [("stream_forked", _detail(HALTS, FIRST, OTHER))]
    governor.take(_offer(resolve(None, FIRST, OTHER)), Tick())
    assert _incidents(governor) == []
    two = [halt(FIRST, reason=reason) for reason in ("a second", "another second")]
    governor.take(*map(_offer, two), Tick())
    assert _incidents(governor) == [("stream_forked", _detail(HALTS, *two))]


def test_what_was_resolved_before_it_was_heard_is_recorded_too() -> None:
    governor = _governor()
    governor.take(_offer(resolve(None, FIRST, OTHER)), _offer(FIRST, OTHER), Tick())
    assert not governor.state.governance.forked(HALTS)
    assert _incidents(governor) == [("stream_forked", _detail(HALTS, FIRST, OTHER))]


def _audited(story: Happened, said: Sequence[Statement[Said]]) -> Auditing:
    for name in story.mesh.nodes:
        story.mesh.deliver(name, LawArrived(pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in said]))))
    story.mesh.run(8)
    return Auditing(story.mesh).feed(events_of(story.mesh.stream)).pull()


def test_an_auditor_finds_a_fork_in_the_log_of_every_node_that_saw_it_with_the_ids_of_both() -> None:
    story = Happened()
    first = envelope.read(Manifest, story.lab.manifest_envelope)
    one, twin = story.lab.next_policy(first), story.lab.next_policy(first, reason="another second")
    auditing = _audited(story, [one, twin])
    assert set(auditing.codes) == {"policy_conflict"}
    assert {finding.origin for finding in auditing.state.findings} == {node.origin for node in story.mesh.nodes.values()}
    assert {finding.detail for finding in auditing.state.findings} == {f"incident: {_detail('policy/payments', one, twin)}"}
