"""Attesting means: I would have written this. Whatever the carrier did to it is missing, whatever the owner did is wrong."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import AttestRefused, DecisionMade, Denied, GovernanceChanged, Noise, OutcomeRecorded, Refusal, read_record
from mesh.core.messages import Openings
from mesh.core.run.decision import Verdict
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from mesh.core.run.params import Opening
from mesh.protocol.attester import Examined, Material, examine_records, located_ids, storing
from mesh.protocol.documents import Documents
from mesh.protocol.events import OutcomesArrived
from mesh.protocol.lineage import Writer
from mesh.protocol.outcomes import take_outcomes
from mesh.protocol.step import Append, Locate, PutBody, PutOpenings
from tests.core.kit import refuses
from tests.protocol.machines import LAB, MESH, NOW, OWNER, Owner, altered, empty_log, intent_of, only, secret, sign
from tests.support.factory import RuleEngine

ORIGIN = LAB.roster.origin(OWNER)
STRANGER = secret("stranger")


def _examine(
    owner: Owner, *, engine: Any = None, now_ms: int = NOW, first: int = 0, after_ms: int = 0, after_epoch: int = 0,
    material: Material | None = None,
) -> list[Examined]:  # fmt: skip
    if material is None:
        openings = {intent: canonical.decode(Openings, data, bytes_max=10**6) for intent, data in owner.openings.items()}
        material = Material(owner.bodies, openings)
    return examine_records(
        owner.leaves, material, owner=OWNER, first=first, after_ms=after_ms, governance=LAB.governance, documents=Documents(),
        engine=engine or LAB.engine, now_ms=now_ms, after_epoch=after_epoch,
    )  # fmt: skip


def _codes(owner: Owner, **named: Any) -> list[str]:
    return [item.code for item in _examine(owner, **named)]


def _decided(amount: int = 10, *, memo: str | None = None, account: str = "acme", engine: Any = None) -> tuple[Owner, DecisionMade]:
    owner = Owner(engine=engine)
    _, intent, openings = LAB.intent(1, amount=amount, account=account, memo=memo, at_ms=NOW)
    (record,) = owner.decide(LAB.request(intent, openings))
    return owner, record


def _rewritten(record: DecisionMade, owner: Owner, **changes: Any) -> Owner:
    owner.leaves = [canonical.encode(msgspec.structs.replace(record, **changes))]
    return owner


# ------------------------------------------------------------------------------------------------------------------ right


@pytest.mark.parametrize(("amount", "account"), [(10, "acme"), (5_000, "acme"), (10, "frozen")])
def test_a_decision_as_i_would_have_made_it_is_right(amount: int, account: str) -> None:
    owner, record = _decided(amount, account=account)
    (item,) = _examine(owner)
    assert (item.code, item.incomplete, item.hash) == ("", False, leaf_hash(owner.leaves[0]))
    assert {body.id for body in item.bodies} == {record.intent, record.identity, record.enforcer}
    assert bool(record.authorization) == (record.decision.effect == "permit")


def _denied(subject: str, *, document: str = "") -> tuple[Owner, str, bytes, str]:
    """A log with one denial of an intent, the intent, and the id of the asker's document."""
    name, intent = intent_of()
    who = document or envelope.identify(LAB.identity_envelope)[1]
    owner = Owner()
    owner.write(
        lambda writer: Denied(
            mesh=MESH, origin=ORIGIN, index=0, at_ms=NOW, intent=name, identity=who, subject=subject, code="stale", detail=""
        )
    )
    return owner, name, intent, who


def test_no_denial_needs_a_justification_but_who_asked_must_have_asked() -> None:
    owner, name, intent, who = _denied("spiffe://lab/agent/anna")
    (item,) = _examine(owner, material=Material({name: intent, who: LAB.identity_envelope}, {}))
    assert (item.code, {body.id for body in item.bodies}) == ("", {name, who})


def test_nobody_is_shown_asking_who_did_not() -> None:
    owner, name, intent, who = _denied("spiffe://lab/person/ceo")
    (item,) = _examine(owner, material=Material({name: intent, who: LAB.identity_envelope}, {}))
    assert item.code == "record_invalid"


def test_a_denial_whose_asker_is_not_shown_whole_is_incomplete() -> None:
    owner, name, intent, who = _denied("spiffe://lab/agent/anna")
    # A spoilt copy would stand in the way of the good one, should a decision about it follow.
    for spoilt in (_with_another_signature(intent), intent + b" ", b"{}"):
        (item,) = _examine(owner, material=Material({name: spoilt, who: LAB.identity_envelope}, {}))
        assert item.code == "body_missing"
    assert _examine(owner, material=Material({name: intent}, {}))[0].code == "body_missing"


def test_openings_are_kept_with_what_they_open() -> None:
    owner, record = _decided(memo="private")
    (item,) = _examine(owner)
    (kept,) = item.openings
    assert kept == PutOpenings(record.intent, owner.openings[record.intent])
    assert only(PutOpenings, storing(ORIGIN, 0, [item])) == [kept]


def test_an_outcome_word_for_word_is_right() -> None:
    owner, record = _decided()
    owner.leaves = []
    owner.log = empty_log(ORIGIN)
    _report(owner, record)
    assert _codes(owner) == ["", ""]


# ------------------------------------------------------------------------------------------------------------------ wrong


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mesh": "other"}, "record_invalid"),
        ({"origin": "lab/us-1/e2"}, "record_invalid"),
        ({"index": 1}, "record_invalid"),
        ({"at_ms": NOW - 1}, "record_invalid"),
        ({"roster_epoch": 0}, "wrong_epoch"),
        ({"authorization": ""}, "replay_mismatch"),
        ({"authorization": "ab" * 32}, "replay_mismatch"),
    ],
)
def test_a_decision_that_says_otherwise_is_wrong(change: dict[str, Any], code: str) -> None:
    owner, record = _decided()
    (item,) = _examine(_rewritten(record, owner, **change), after_ms=NOW)
    assert (item.code, item.incomplete) == (code, False)


@pytest.mark.parametrize(
    "change",
    [
        {"now_s": NOW // 1000 + 1},
        {"region": "sa"},
        {"policy_epoch": 0},
        {"enforcer_class": "in-process"},
        {"person": "Eve"},
        {"approvals": {"security": 2}},
        {"breakglass": True},
    ],
)
def test_facts_that_were_not_those_of_this_governor_then_are_wrong(change: dict[str, Any]) -> None:
    owner, record = _decided()
    attested = msgspec.structs.replace(record.attested, **change)
    assert _codes(_rewritten(record, owner, attested=attested)) == ["replay_mismatch"]


@pytest.mark.parametrize(
    "change", [{"effect": "deny"}, {"determining": []}, {"obligations": []}, {"assurance": "quorum"}, {"input": "ab" * 32}]
)
def test_other_decision_bytes_are_wrong(change: dict[str, Any]) -> None:
    owner, record = _decided()
    decision = msgspec.structs.replace(record.decision, **change)
    assert _codes(_rewritten(record, owner, decision=decision)) == ["replay_mismatch"]


class _Generous(RuleEngine):
    limit = 10**6


class _Mean(RuleEngine):
    limit = 0


@pytest.mark.parametrize(("amount", "engine"), [(5_000, _Generous()), (10, _Mean())])
def test_a_permit_that_policy_forbids_and_a_denial_that_it_does_not_are_wrong(amount: int, engine: RuleEngine) -> None:
    assert _codes(_decided(amount, engine=engine)[0]) == ["replay_mismatch"]


@pytest.mark.parametrize("at_ms", [NOW + 30_000, NOW - 400])
def test_a_decision_about_an_intent_that_was_not_alive_is_wrong(at_ms: int) -> None:
    owner, record = _decided()
    attested = msgspec.structs.replace(record.attested, now_s=at_ms // 1000)
    assert _codes(_rewritten(record, owner, at_ms=at_ms, attested=attested), now_ms=NOW + 10**6) == ["intent_expired"]


def test_statements_exchanged_among_each_other_are_wrong() -> None:
    owner, record = _decided()
    assert _codes(_rewritten(record, owner, identity=record.enforcer, enforcer=record.identity)) == ["identity_mismatch"]


def _report(owner: Owner, record: DecisionMade) -> list[bytes]:
    outcomes = LAB.lived(record.intent, record.authorization, at_ms=NOW)
    writer = Writer(owner.log, mesh=MESH, now_ms=NOW)
    event = OutcomesArrived(1, LAB.report(outcomes))
    effects, code = take_outcomes(event, governance=LAB.governance, me=OWNER, writer=writer, documents=Documents(), known={}, seen={})
    assert not code
    owner.keep([*effects, *writer.finish(owner.log)[1]])
    return outcomes


@pytest.mark.parametrize("change", [{"event": "failed"}, {"intent": "ab" * 32}, {"authorization": "ab" * 32}])
def test_an_outcome_that_says_something_else_is_wrong(change: dict[str, str]) -> None:
    owner, record = _decided()
    owner.leaves, owner.log = [], empty_log(ORIGIN)
    _report(owner, record)
    said = read_record(owner.leaves[0])
    owner.leaves = [canonical.encode(msgspec.structs.replace(said, **change))]
    assert _codes(owner) == ["record_invalid"]


# ---------------------------------------------------------------------------------------------------------------- missing


def _with_another_signature(data: bytes) -> bytes:
    text = data.decode()
    at = text.rindex('"sig":"') + len('"sig":"')
    return (text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]).encode()


def _spaced(data: bytes) -> bytes:
    return data[:1] + b" " + data[1:]


def _by_nobody(data: bytes) -> bytes:
    wire = msgspec.json.decode(data)
    wire["signatures"] = []
    return msgspec.json.Encoder(order="sorted").encode(wire)


def _absent(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [_with_another_signature, _spaced, _by_nobody, _absent])
@pytest.mark.parametrize("which", ["intent", "identity", "enforcer"])
def test_a_statement_that_its_carrier_spoilt_is_missing_not_wrong(which: str, spoil: Callable[[bytes], bytes]) -> None:
    owner, record = _decided()
    name = getattr(record, which)
    spoilt = spoil(owner.bodies[name])
    bodies = {key: data for key, data in owner.bodies.items() if key != name} | ({name: spoilt} if spoilt else {})
    (item,) = _examine(owner, material=Material(bodies, {}))
    assert (item.code, item.incomplete) == ("body_missing", True)


@pytest.mark.parametrize("spoil", [_with_another_signature, _spaced, _by_nobody, _absent])
def test_an_outcome_that_its_carrier_spoilt_is_missing_not_wrong(spoil: Callable[[bytes], bytes]) -> None:
    owner, record = _decided()
    owner.leaves, owner.log = [], empty_log(ORIGIN)
    (first, _) = _report(owner, record)
    name = envelope.identify(first)[1]
    spoilt = spoil(first)
    bodies = {key: data for key, data in owner.bodies.items() if key != name} | ({name: spoilt} if spoilt else {})
    assert _codes(owner, material=Material(bodies, {})) == ["body_missing", ""]


@pytest.mark.parametrize(
    "openings",
    [
        {},
        [],
        [Opening(name="memo", salt="0" * 31 + "1", value="other")],
        [Opening(name="memo", salt="f" * 32, value="private")],
        [Opening(name="memo", salt="0" * 31 + "1", value="private"), Opening(name="more", salt="0" * 32, value=1)],
    ],
)
def test_openings_that_do_not_open_are_missing_not_wrong(openings: Any) -> None:
    owner, record = _decided(memo="private")
    given = {} if openings == {} else {record.intent: Openings(intent=record.intent, openings=openings, boxes=[])}
    (item,) = _examine(owner, material=Material(owner.bodies, given))
    assert (item.code, item.incomplete, item.openings) == ("body_missing", True, ())


@pytest.mark.parametrize(("ahead_ms", "code"), [(300, ""), (301, "clock_unsure"), (10**9, "clock_unsure")])
def test_what_is_from_the_future_waits_until_it_is_not(ahead_ms: int, code: str) -> None:
    owner, _ = _decided()
    assert _codes(owner, now_ms=NOW - ahead_ms) == [code]


def test_a_decision_under_a_roster_that_its_log_has_left_is_wrong() -> None:
    """Also if both stand in one batch, before anybody can tell whether the first is right."""
    owner, record = _decided()
    _, intent, openings = LAB.intent(2, at_ms=NOW)
    owner.decide(LAB.request(intent, openings))
    owner.leaves[-2] = canonical.encode(msgspec.structs.replace(record, roster_epoch=2))
    first, later = _examine(owner)
    assert (first.code, later.code, later.detail) == ("policy_unknown", "record_invalid", "decided under roster epoch 1 after 2")
    assert _codes(_rewritten(record, owner), after_epoch=2) == ["record_invalid"]
    assert _codes(owner, after_epoch=1) == [""]


def test_who_knows_a_newer_policy_or_roster_is_waited_for_not_called_wrong() -> None:
    owner, record = _decided()
    manifest = msgspec.structs.replace(record.attested, policy_epoch=2, manifest="ab" * 32)
    activation = msgspec.structs.replace(record.attested, activation="ab" * 32)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"attested": manifest}, "policy_unknown"),
        ({"attested": activation}, "policy_unknown"),
        ({"roster_epoch": 2}, "policy_unknown"),
    ]
    for change, code in changes:
        (item,) = _examine(_rewritten(record, owner, **change))
        assert (item.code, item.incomplete) == (code, True)


class _Odd(RuleEngine):
    def evaluate(self, bundle_digest: str, requests: Any) -> list[Verdict | None]:
        return [Verdict(allow=True, determining=("no-such-policy",), errors=()) for _ in requests]


class _Down(RuleEngine):
    def evaluate(self, bundle_digest: str, requests: Any) -> list[Verdict | None]:
        return [None for _ in requests]


@pytest.mark.parametrize("engine", [_Down(), _Odd()])
def test_while_my_engine_gives_no_answer_that_can_be_nothing_is_wrong(engine: RuleEngine) -> None:
    (item,) = _examine(_decided()[0], engine=engine)
    assert (item.code, item.incomplete) == ("engine_unavailable", True)


# ------------------------------------------------------------------------------------------------------------------ other


def test_leaf_data_that_is_no_record_is_refused() -> None:
    owner, _ = _decided()
    owner.append(b'{"record":"nothing"}')
    with refuses("malformed"):
        _examine(owner)


def test_a_wrong_record_does_not_hide_what_follows() -> None:
    owner = Owner()
    for index, at_ms in enumerate((NOW, NOW - 5, NOW)):
        record = GovernanceChanged(mesh=MESH, origin=ORIGIN, index=index, at_ms=at_ms, change="policy", about="x")
        owner.append(canonical.encode(record))
    assert _codes(owner) == ["", "record_invalid", ""]


def test_a_claim_of_an_enforcer_that_nobody_issued_is_not_attested() -> None:
    owner, record = _decided()
    forged = altered(owner.bodies[record.enforcer], Identity, STRANGER)
    assert _codes(owner, material=Material({**owner.bodies, record.enforcer: forged}, {})) == ["body_missing"]


def test_an_outcome_by_another_key_than_the_document_names_is_wrong() -> None:
    owner, record = _decided()
    owner.leaves, owner.log = [], empty_log(ORIGIN)
    (first, _) = _report(owner, record)
    forged = sign(msgspec.structs.replace(envelope.read(Outcome, first).claims, enforcer=STRANGER.public), STRANGER)
    name = envelope.identify(forged)[1]
    said = read_record(owner.leaves[0])
    owner.leaves = [canonical.encode(msgspec.structs.replace(said, outcome=name))]
    owner.bodies[name] = forged
    assert _codes(owner) == ["identity_mismatch"]


def test_a_record_can_be_found_under_every_statement_that_it_is_about() -> None:
    a, b, c = ("aa" * 32, "bb" * 32, "cc" * 32)
    place: dict[str, Any] = {"mesh": MESH, "origin": ORIGIN, "index": 0, "at_ms": NOW}
    _, record = _decided()
    refusal = Refusal(mesh=MESH, member="us-1", origin=ORIGIN, index=0, leaf=a, reason="wrong", code="stale", at_ms=NOW)
    for made, ids in (
        (record, (record.intent, record.authorization)),
        (msgspec.structs.replace(record, authorization=""), (record.intent,)),
        (Denied(**place, intent=a, identity="cd" * 32, subject="x", code="stale", detail=""), (a,)),
        (OutcomeRecorded(**place, event="finished", outcome=a, identity="dd" * 32, intent=b, authorization=c), (a, b, c)),
        (AttestRefused(**place, refusal=refusal), (envelope.draft(refusal).id,)),
        (Noise(**place, code="stale", count=1, from_ms=0, to_ms=1), ()),
    ):
        assert located_ids(made) == ids


def test_what_is_stored_of_records_names_each_body_once() -> None:
    owner = Owner()
    for number in range(3):
        owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
    effects = storing(ORIGIN, 0, _examine(owner))
    (append,) = only(Append, effects)
    assert (append.first, append.leaves) == (0, tuple(owner.leaves))
    assert sorted(body.id for body in only(PutBody, effects)) == sorted(owner.bodies)
    assert {place.index for place in only(Locate, effects)} == {0, 1, 2}


def test_the_kinds_of_statement_are_what_they_are() -> None:
    owner, record = _decided()
    kinds = {body.id: body.kind for body in _examine(owner)[0].bodies}
    assert kinds == {record.intent: "intent", record.identity: "identity", record.enforcer: "identity"}
    assert envelope.read(Intent, owner.bodies[record.intent]).id == record.intent
