"""A governor decides by a policy that it has checked itself, says so before anybody may activate it, and denies rather than fall back."""

import msgspec

from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.heartbeat import Heartbeat, Standing
from mesh.core.law.policy import Manifest, bundle_digest
from mesh.core.law.travel import Said
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import DecisionMade, Denied, GovernanceChanged
from mesh.core.messages import Authorized, DeniedAnswer, Offer, RefusedAnswer, pack, unpack_answer
from mesh.core.run.authorization import Denial
from mesh.protocol.begin import begin
from mesh.protocol.events import HeartbeatArrived, IntentArrived, OfferArrived, PolicyAdmitted, PolicyRefused, Tick
from mesh.protocol.step import PutBundle, PutLaw, Send
from mesh.protocol.stored import Stored, StoredLog
from tests.protocol.machines import BOOT, DOMAIN, LAB, ME, NOW, Governor, answers, beat, only, perform, started
from tests.support.factory import sign

FIRST = envelope.read(Manifest, LAB.manifest_envelope)
SECOND = LAB.next_policy(FIRST)
LATER = LAB.activation(SECOND, ([ME.region], NOW + 1_000), ([], NOW + 2_000))
ADMITTED = PolicyAdmitted(SECOND.id, LAB.bundle, LAB.bundle_bytes)
OTHERS = [member.name for member in LAB.roster.members if member.name != ME.name]
EMPTY = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)


def _fresh(*statements: Statement[Said]) -> Governor:
    governor = Governor(LAB.governance)
    governor.state = started(governor.machine, Stored(incarnation=0, own=EMPTY, mirrors={})).state
    governor.take(*_beats(governor, 1), Tick())
    assert governor.state.was_fresh
    if statements:
        governor.take(_offered(*statements))
        _heard(governor, 2)
    return governor


def _beats(governor: Governor, sequence: int) -> list[HeartbeatArrived]:
    frontier = list(governor.state.governance.frontier)
    return [HeartbeatArrived(beat(name, sequence, governor.now_ms, echo=[BOOT], frontier=frontier)) for name in OTHERS]


def _heard(governor: Governor, sequence: int) -> None:
    governor.take(*_beats(governor, sequence), Tick())


def _offered(*statements: Statement[Said]) -> OfferArrived:
    return OfferArrived(9, pack(Offer(statements=[msgspec.Raw(item.envelope) for item in statements])))


def _ask(governor: Governor, number: int) -> Authorized | DeniedAnswer | RefusedAnswer:
    _, intent, openings = LAB.intent(number, at_ms=governor.now_ms)
    return unpack_answer(answers(governor.take(IntentArrived(1, LAB.request(intent, openings))))[1])


def _epochs(governor: Governor) -> list[int]:
    return [record.attested.policy_epoch for record in governor.records() if isinstance(record, DecisionMade)]


def _told(governor: Governor) -> list[str]:
    """What was just recorded of policies."""
    return [record.about for record in governor.records() if isinstance(record, GovernanceChanged) and record.change == "policy"]


def test_a_policy_that_is_heard_is_kept_and_not_decided_by_until_it_was_checked_here() -> None:
    governor = _fresh()
    effects = governor.take(_offered(SECOND, LATER))
    assert [item.stream for item in only(PutLaw, effects)] == [f"policy/{DOMAIN}", f"activate/{DOMAIN}"]
    _heard(governor, 2)
    assert isinstance(_ask(governor, 1), Authorized)
    assert _epochs(governor) == [1]
    governor.now_ms += 1_000
    _heard(governor, 3)
    denied = _ask(governor, 2)
    assert [record.code for record in governor.records() if isinstance(record, Denied)] == ["engine_unavailable"]
    assert isinstance(denied, DeniedAnswer), "nobody falls back to the epoch before"
    assert envelope.read(Denial, bytes(denied.denial)).claims.code == "engine_unavailable"
    governor.take(ADMITTED)
    assert isinstance(_ask(governor, 3), Authorized)
    assert _epochs(governor) == [2]


def test_each_decision_names_the_statements_by_which_its_epoch_is_found() -> None:
    governor = _fresh(SECOND, LATER)
    governor.take(ADMITTED)
    for number, manifest in enumerate((FIRST, SECOND), 1):
        _ask(governor, number)
        (record,) = [record for record in governor.records() if isinstance(record, DecisionMade)]
        assert (record.attested.manifest, record.attested.activation) == (manifest.id, LATER.id)
        governor.now_ms += 1_000
        _heard(governor, 2 + number)


def test_what_was_admitted_is_kept_recorded_and_said_at_once() -> None:
    governor = _fresh(SECOND)
    assert f"policy/{DOMAIN} 2 {SECOND.id}" in _told(governor)
    governor.now_ms += 50
    effects = governor.take(ADMITTED)
    assert only(PutBundle, effects) == [PutBundle(bundle_digest(LAB.bundle_bytes), LAB.bundle_bytes)]
    signed = perform(effects)
    (said,) = [effect.build(signed) for effect in only(Send, effects) if effect.to == subjects.hb(ME.name)]
    assert envelope.read(Heartbeat, said).verify(ME.decision_key).policies == [Standing(domain=DOMAIN, admitted=2, active=1)]
    governor.take(Tick())
    assert _told(governor) == [f"admitted {SECOND.id}"]


def test_what_was_refused_is_recorded_and_never_said_to_be_admitted() -> None:
    governor = _fresh(SECOND)
    governor.take(PolicyRefused(SECOND.id, "policy_tests_failed"))
    governor.take(Tick())
    assert _told(governor) == [f"refused {SECOND.id} policy_tests_failed"]
    assert governor.state.governance.standings(ME.region, governor.now_ms) == [Standing(domain=DOMAIN, admitted=1, active=1)]


def test_two_manifests_for_one_epoch_shut_the_domain() -> None:
    twin = envelope.read(Manifest, sign(msgspec.structs.replace(SECOND.claims, reason="another"), *LAB.signers[:2]))
    denied = _ask(_fresh(SECOND, twin), 1)
    assert isinstance(denied, DeniedAnswer)
    assert envelope.read(Denial, bytes(denied.denial)).claims.code == "policy_conflict"


def test_an_old_manifest_that_is_offered_again_changes_nothing() -> None:
    governor = _fresh(SECOND, LATER)
    governor.take(ADMITTED)
    before = governor.state.governance
    effects = governor.take(_offered(FIRST, SECOND, LATER))
    assert governor.state.governance is before
    assert only(PutLaw, effects) == []


def test_a_start_remembers_what_was_admitted_and_serves_it() -> None:
    stored = Stored(incarnation=1, own=EMPTY, mirrors={}, law=(SECOND, LATER))
    machine = Governor(LAB.governance).machine
    step = begin(machine, stored, boot=BOOT, now_ms=NOW, admitted={SECOND.id: LAB.bundle})
    assert step.state.governance.active(DOMAIN, ME.region, NOW + 1_000).bundle == LAB.bundle
    assert {effect.digest for effect in only(PutBundle, step.effects)} == {bundle_digest(LAB.bundle_bytes)}
    without = begin(machine, stored, boot=BOOT, now_ms=NOW).state.governance
    assert without.active(DOMAIN, ME.region, NOW + 1_000).bundle is None
