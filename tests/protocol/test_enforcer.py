"""Removing any one condition turns yes into its own no, and the first in the order of PROTOCOL is the one that is named."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.law.halt import Halt
from mesh.core.law.heartbeat import StreamHead, frontier_digest
from mesh.core.law.roster import Role
from mesh.core.law.succession import Rosters
from mesh.core.run.authorization import Possession, Receipt, RecordRef
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Audience, EntityRef
from mesh.core.run.outcome import CHECKS, Outcome, Started
from mesh.errors import Refused
from mesh.protocol.documents import Documents
from mesh.protocol.enforcer import Actual, Presented, Running, admit, check_receipt, recheck, take_heartbeat, watch
from mesh.protocol.freshness import Freshness
from mesh.protocol.outcomechain import OutcomeChain, Subject
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerbench import BOOT, CHALLENGE, MEASURED, MEMO, PARAMS, RESOURCE, STRANGER, Bench, refused
from tests.protocol.enforcerkit import ENFORCER, HOLDER, ISSUER, NOW_MS, PLACE, SUBJECT


def _forward(stream: str) -> tuple[StreamHead, ...]:
    known = {head.stream: head for head in kit.governance().frontier}
    known[stream] = StreamHead(stream=stream, sequence=9, head="99" * 32, forked=False, held="")
    return tuple(known[name] for name in sorted(known))


def _behind(bench: Bench) -> None:
    bench.frontier = _forward("policy/ops")
    bench.authorization["frontier"] = frontier_digest(list(bench.frontier))


def _revoke(kind: str, value: str) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        bench.revoked.append(kit.revocation(kind, value))

    return change


def _halt(bench: Bench) -> None:
    halt = Halt(mesh=kit.MESH, domain="ops", sequence=1, previous="", since="", lifts=[], reason="", issued_ms=NOW_MS)
    bench.revoked.append(halt)


def _conflict(bench: Bench) -> None:
    """The policy signers have signed two things under one number; neither has begun."""
    later = kit.activation(kit.manifest(epoch=9, start_ms=NOW_MS + kit.YEAR_MS))
    bench.revoked += [later, msgspec.structs.replace(later, reason="another")]


def _resumed(bench: Bench) -> None:
    _halt(bench)
    (halt,) = bench.revoked
    identity = envelope.draft(halt).id
    assert isinstance(halt, Halt)
    bench.revoked.append(msgspec.structs.replace(halt, sequence=2, previous=identity, lifts=[identity]))


def _set(part: str, **fields: Any) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        getattr(bench, part).update(fields)

    return change


def _attr(**fields: Any) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        for name, value in fields.items():
            setattr(bench, name, value)

    return change


Broken = tuple[int, str, Callable[[Bench], None]]
TABLE: dict[str, Broken] = {
    # what is broken: (step, code, how)
    "another roster epoch": (1, "wrong_epoch", _set("authorization", roster_epoch=2)),
    "an issuer nobody knows": (1, "unknown_member", _set("authorization", issuer="mallory")),
    "a document nobody issued": (1, "identity_unknown", _attr(issuer=STRANGER)),
    "a stranger's signature": (2, "bad_signature", _attr(signers=[STRANGER])),
    "another member's signature alone": (2, "bad_signature", _attr(signers=[kit.decision_key("bert")])),
    "quorum on one word": (2, "threshold_not_met", _set("authorization", assurance="quorum")),
    "the challenge of another time": (3, "possession", _set("possession", challenge="00" * 32)),
    "an answer to another enforcer": (3, "possession", _set("possession", enforcer=STRANGER.public)),
    "an answer about another intent": (3, "possession", _set("possession", intent="11" * 32)),
    "an answer by another key": (3, "possession", _attr(presenter=STRANGER)),
    "a document of another subject": (3, "identity_mismatch", _set("holder_document", subject="spiffe://m-test/agents/eve")),
    "a document of another key": (3, "identity_mismatch", _set("holder_document", key=STRANGER.public)),
    "an enforcer as a workload": (3, "identity_mismatch", _set("holder_document", role="enforcer")),
    "a domain this is not": (4, "domain_mismatch", _set("actual", domain="payments")),
    "a domain that does not list me": (4, "audience_unknown", _set("manifest", enforcers=("spiffe://m-test/other",))),
    "a policy that is over": (4, "policy_expired", _set("manifest", end_ms=NOW_MS)),
    "a policy that has not begun": (4, "domain_unknown", _set("manifest", start_ms=NOW_MS + 301)),
    "another policy epoch": (4, "wrong_epoch", _set("authorization", policy_epoch=2)),
    "another policy": (4, "wrong_epoch", _set("authorization", bundle="blake3:" + "77" * 32)),
    "another enforcer": (4, "audience", _set("intent", audience=Audience(enforcer=STRANGER.public, boot=BOOT))),
    "an earlier boot": (4, "audience", _attr(boot="b1" * 32)),
    "another class of enforcer": (4, "audience", _set("authorization", enforcer_class="gateway")),
    "an action without terms": (4, "action_unknown", _set("intent", action="fly")),
    "a floor above what was signed": (5, "assurance_too_low", _set("manifest", floor="quorum")),
    "an intent that wanted more": (5, "assurance_too_low", _set("intent", assurance_min="quorum")),
    "finality that nobody shows": (5, "assurance_too_low", _set("manifest", floor="final")),
    "another action": (6, "digest_mismatch", _set("actual", action="run")),
    "another resource": (6, "digest_mismatch", _set("actual", resource=EntityRef(type="Thing", id="eve"))),
    "another parameter": (6, "digest_mismatch", _set("actual", params={**PARAMS, "amount": 6})),
    "a parameter more": (6, "digest_mismatch", _set("actual", params={**PARAMS, "urgent": True})),
    "true for one": (6, "digest_mismatch", _set("actual", params={"to": "bob", "amount": True})),
    "another committed value": (6, "digest_mismatch", _set("actual", openings=(msgspec.structs.replace(MEMO, value="bribe"),))),
    "another salt": (6, "digest_mismatch", _set("actual", openings=(msgspec.structs.replace(MEMO, salt="00" * 16),))),
    "no opening": (6, "digest_mismatch", _set("actual", openings=())),
    "an opening twice": (6, "digest_mismatch", _set("actual", openings=(MEMO, MEMO))),
    "another program": (6, "digest_mismatch", _set("actual", measurements=())),
    "an authorization for another intent": (6, "digest_mismatch", _set("authorization", intent="22" * 32)),
    "an authorization for more": (6, "digest_mismatch", _set("authorization", params="33" * 32)),
    "a record in another member's log": (6, "unrecorded", _set("authorization", origin="m-test/bert/e1")),
    "a record in a log of no epoch in force": (6, "unrecorded", _set("authorization", origin="m-test/anna/e2")),
    "a beginning past ε": (7, "not_yet_valid", _set("authorization", not_before_ms=NOW_MS + 301)),
    "an end that is now": (7, "expired", _set("authorization", expires_ms=NOW_MS)),
    "an intent that is over": (7, "expired", _set("intent", expires_ms=NOW_MS)),
    "a life beyond the manifest's": (7, "expired", _set("manifest", authorization_ms=0)),
    "a document that is over": (7, "identity_expired", _set("holder_document", expires_ms=NOW_MS)),
    "a document that has not begun": (7, "identity_expired", _set("holder_document", not_before_ms=NOW_MS + 1)),
    "an enforcer's document that is over": (7, "identity_expired", _set("own_document", expires_ms=NOW_MS)),
    "a clock behind its peers": (8, "clock_unsure", _attr(wall_ms=NOW_MS - 301)),
    "one voucher too few": (8, "stale", _attr(vouching=("anna", "bert"))),
    "silence for Δ": (8, "stale", _attr(heard_ms=NOW_MS - 2_701, wall_ms=NOW_MS)),
    "a governor that knew more": (9, "frontier_behind", _behind),
    "a frontier that is not the one named": (9, "frontier_behind", _attr(frontier=_forward("revoke/aa"))),
    "a revoked subject": (10, "revoked", _revoke("subject", SUBJECT)),
    "a halted domain": (10, "halted", _halt),
    "an obligation nobody here knows": (11, "obligation_unknown", _set("authorization", obligations=["notify"])),
}  # fmt: skip


def test_what_meets_every_condition_is_granted() -> None:
    grant = Bench().admit()
    assert grant.authorization.claims.intent == grant.intent.id
    assert grant.expires_ms == NOW_MS + 10_000
    assert grant.lease_ms == 2_000
    assert len(grant.heartbeats) == 3
    assert grant.signers == (kit.decision_key("anna").public,)


def test_a_start_records_the_eight_checks_and_who_vouched() -> None:
    grant = Bench().admit()
    assert [check.name for check in grant.started(4).checks] == list(CHECKS)
    assert all(check.passed for check in grant.started(4).checks)
    assert grant.started(4).heartbeats == list(grant.heartbeats)
    assert grant.started(4).spend == 4


@pytest.mark.parametrize("what", TABLE)
def test_without_one_condition_it_is_refused_by_its_own_code(what: str) -> None:
    _, code, change = TABLE[what]
    bench = Bench()
    change(bench)
    assert refused(bench) == code


def _revocable() -> dict[str, tuple[str, str]]:
    grant = Bench().admit()
    return {
        "holder key": ("key", HOLDER.public),
        "subject": ("subject", SUBJECT),
        "document": ("document", grant.identity.id),
        "intent": ("intent", grant.intent.id),
        "enforcer key": ("key", ENFORCER.public),
        "enforcer": ("subject", PLACE),
        "enforcer's document": ("document", Bench().place().document.id),
        "governor's key": ("enrolled", kit.decision_key("anna").public),
        "issuer's key": ("enrolled", ISSUER.public),
        "issuer": ("issuer", ISSUER.public),
        "governor": ("governor", "anna"),
        "something measured": ("digest", MEASURED[0].digest),
        "policy bundle": ("digest", grant.authorization.claims.bundle),
    }


@pytest.mark.parametrize("link", _revocable())
def test_a_revocation_of_any_link_of_the_chain_denies(link: str) -> None:
    bench = Bench()
    _revoke(*_revocable()[link])(bench)
    assert refused(bench) == "revoked"


@pytest.mark.parametrize("spared", ["both", "the workload's only", "the enforcer's only"])
def test_of_a_revoked_issuer_those_documents_are_good_that_every_revocation_spares(spared: str) -> None:
    workload, own = Bench().admit().identity.id, Bench().place().document.id
    ids = sorted({"both": (workload, own), "the workload's only": (workload,), "the enforcer's only": (own,)}[spared])
    bench = Bench()
    first = kit.revocation("issuer", ISSUER.public, spares=tuple(ids))
    bench.revoked.append(first)
    if spared != "both":
        assert refused(bench) == "revoked"
        return
    assert bench.admit().lease_ms
    bench.revoked.append(kit.revocation("issuer", ISSUER.public, spares=(own,), sequence=2, previous=envelope.draft(first).id))
    assert refused(bench) == "revoked"


def test_another_governor_that_is_revoked_is_no_obstacle() -> None:
    bench = Bench()
    _revoke("governor", "bert")(bench)
    assert bench.admit().lease_ms


def test_a_revoked_authorization_is_denied() -> None:
    bench = Bench()
    bench.authorization["frontier"] = kit.governance().digest  # else the revocation itself would change the authorization's id
    bench.frontier = kit.governance().frontier
    identity = bench.admit().authorization.id
    _revoke("authorization", identity)(bench)
    assert refused(bench) == "revoked"


def test_nothing_starts_in_a_halted_domain_until_it_is_resumed() -> None:
    bench = Bench()
    _halt(bench)
    assert refused(bench) == "halted"
    resumed = Bench()
    _resumed(resumed)
    assert resumed.admit().lease_ms
    assert _watch(Running(Bench().admit()), resumed).uncertain_ms == -1


def test_a_revocation_of_something_else_denies_nothing() -> None:
    bench = Bench()
    _revoke("key", STRANGER.public)(bench)
    assert bench.admit().lease_ms


@given(st.lists(st.sampled_from(sorted(TABLE)), min_size=2, max_size=4, unique=True))
def test_of_several_failures_the_earliest_step_is_named(names: list[str]) -> None:
    bench = Bench()
    for name in names:
        TABLE[name][2](bench)
    first = min(TABLE[name][0] for name in names)
    # One breach may cause another (a document changed is a document with another id), never in an earlier step than its own.
    assert refused(bench) in {code for step, code, _ in TABLE.values() if step == first}


@pytest.mark.parametrize("part", ["authorization", "intent", "identity", "possession"])
def test_bytes_that_are_no_statement_raise_only_our_error(part: str) -> None:
    bench = Bench()
    place, view = bench.place(), bench.view()
    identity, intent, intent_bytes = bench.documents()
    authorization = kit.read(bench.authorized(intent, view), *bench.signers)
    possession = Possession(mesh=kit.MESH, intent=envelope.draft(intent).id, enforcer=ENFORCER.public, challenge=CHALLENGE)
    whole = Presented(
        authorization=authorization.envelope, frontier=(), intent=intent_bytes, identity=identity,
        possession=kit.sign(possession, HOLDER),
    )  # fmt: skip
    actual = Actual(domain="ops", action="pay", resource=RESOURCE, params=PARAMS, openings=(MEMO,), measurements=MEASURED)
    broken = msgspec.structs.replace(whole, **{part: b"{}"})
    with pytest.raises(Refused) as caught:
        admit(broken, actual, challenge=CHALLENGE, place=place, view=view, documents=Documents())
    assert caught.value.code == "malformed"


def test_observe_never_authorizes() -> None:
    bench = Bench()
    bench.manifest["floor"] = bench.authorization["assurance"] = bench.intent["assurance_min"] = "observe"
    assert refused(bench) == "assurance_too_low"


def test_k_members_make_a_quorum_and_one_key_counts_once() -> None:
    bench = Bench()
    bench.manifest["floor"] = "quorum"
    bench.authorization["assurance"] = "quorum"
    bench.signers = [kit.decision_key(name) for name in ("anna", "bert", "cleo")]
    assert len(bench.admit().signers) == 3
    bench.signers = [kit.decision_key("anna"), kit.decision_key("bert"), STRANGER]
    assert refused(bench) == "threshold_not_met"
    bench.authorization["assurance"] = "local"
    assert refused(bench) == "assurance_too_low"


@pytest.mark.parametrize(("change", "allowed"), [(300, True), (301, False)])
def test_a_beginning_may_be_ahead_by_exactly_the_clock_difference(change: int, allowed: bool) -> None:
    bench = Bench()
    bench.authorization["not_before_ms"] = NOW_MS + change
    if allowed:
        assert bench.admit().lease_ms
    else:
        assert refused(bench) == "not_yet_valid"


@pytest.mark.parametrize(("change", "allowed"), [(9_999, True), (10_000, False), (10_300, False)])
def test_an_end_never_slips_not_even_by_the_clock_difference(change: int, allowed: bool) -> None:
    bench = Bench()
    bench.now_ms = bench.wall_ms = bench.heard_ms = NOW_MS + change
    if allowed:
        assert bench.admit().lease_ms
    else:
        assert refused(bench) == "expired"


def test_a_governor_cannot_stretch_what_the_manifest_grants() -> None:
    bench = Bench()
    bench.manifest |= {"authorization_ms": 1_000, "lease_ms": 500}
    grant = bench.admit()
    assert (grant.expires_ms, grant.lease_ms) == (NOW_MS + 1_000, 500)


def test_a_policy_that_begins_within_the_clock_difference_is_the_issuers() -> None:
    bench = Bench()
    bench.manifest["start_ms"] = bench.authorization["not_before_ms"] = NOW_MS + 200
    assert bench.admit().lease_ms


def test_an_obligation_that_is_understood_is_no_obstacle() -> None:
    bench = Bench()
    bench.authorization["obligations"] = ["notify"]
    bench.obligations = frozenset({"notify"})
    assert bench.admit().lease_ms


RECHECKED: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "time has passed": ("expired", _attr(now_ms=NOW_MS + 10_000, heard_ms=NOW_MS + 10_000, wall_ms=NOW_MS + 10_000)),
    "a revocation has come": ("revoked", _revoke("key", HOLDER.public)),
    "the domain was halted": ("halted", _halt),
    "the policy signers contradicted themselves": ("policy_conflict", _conflict),
    "the mesh fell silent": ("stale", _attr(now_ms=NOW_MS + 2_701)),
    "the clock jumped back": ("clock_unsure", _attr(wall_ms=NOW_MS - 301)),
    "the policy ended": ("policy_expired", _set("manifest", end_ms=NOW_MS)),
    "the policy changed": ("wrong_epoch", _set("manifest", epoch=2)),
    "I am listed no more": ("audience_unknown", _set("manifest", enforcers=())),
}


@pytest.mark.parametrize("what", RECHECKED)
def test_what_changes_during_a_wait_is_found_by_the_second_look(what: str) -> None:
    code, change = RECHECKED[what]
    grant, later = Bench().admit(), Bench()
    change(later)
    with pytest.raises(Refused) as caught:
        recheck(grant, place=later.place(), view=later.view())
    assert caught.value.code == code


def test_what_was_authorized_under_a_former_roster_does_not_start_after_going_over() -> None:
    grant, later = Bench().admit(), Bench()
    view, after = later.view(), "22" * 32
    roster = msgspec.structs.replace(view.governance.roster, epoch=2, previous=view.governance.roster_id)
    rosters = Rosters({**view.governance.rosters.held, after: roster}, (*view.governance.rosters.ids, after))
    over = msgspec.structs.replace(view.governance, rosters=rosters).under(2)
    recheck(grant, place=later.place(), view=view)
    with pytest.raises(Refused) as caught:
        recheck(grant, place=later.place(), view=msgspec.structs.replace(view, governance=over))
    assert caught.value.code == "wrong_epoch"


def test_the_second_look_names_the_heartbeats_of_its_own_time() -> None:
    grant, later = Bench().admit(), Bench()
    later.now_ms = later.wall_ms = later.heard_ms = NOW_MS + 1
    assert set(recheck(grant, place=later.place(), view=later.view()).heartbeats).isdisjoint(grant.heartbeats)


def _watch(running: Running, bench: Bench) -> Running:
    return watch(running, place=bench.place(), view=bench.view())


def test_running_work_goes_on_past_the_end_of_its_authorization() -> None:
    later = Bench()
    later.now_ms = later.wall_ms = later.heard_ms = NOW_MS + 60_000
    assert _watch(Running(Bench().admit()), later).uncertain_ms == -1


ENDED: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "the subject is revoked": ("revoked", _revoke("subject", SUBJECT)),
    "the issuer is revoked": ("revoked", _revoke("issuer", ISSUER.public)),
    "the governor is revoked": ("revoked", _revoke("governor", "anna")),
    "the domain is halted": ("halted", _halt),
    "the policy signers contradict themselves": ("policy_conflict", _conflict),
    "the workload's document ends": ("identity_expired", _attr(now_ms=NOW_MS + kit.YEAR_MS)),
    "the enforcer's document ends": ("identity_expired", _set("own_document", expires_ms=NOW_MS)),
}


@pytest.mark.parametrize("what", ENDED)
def test_running_work_ends_at_once_when(what: str) -> None:
    code, change = ENDED[what]
    later = Bench()
    change(later)
    with pytest.raises(Refused) as caught:
        _watch(Running(Bench().admit()), later)
    assert caught.value.code == code


def test_running_work_of_a_revoked_issuer_ends_also_once_the_roster_has_dropped_it() -> None:
    bench = Bench()
    running = Running(bench.admit())
    _revoke("enrolled", ISSUER.public)(bench)
    view = bench.view()
    roster = msgspec.structs.replace(view.governance.roster, issuers=Role(keys=[HOLDER.public], threshold=1))
    later = msgspec.structs.replace(view, governance=msgspec.structs.replace(view.governance, roster=roster))
    with pytest.raises(Refused) as caught:
        watch(running, place=bench.place(), view=later)
    assert caught.value.code == "revoked"


def test_running_work_outlives_silence_by_its_lease_less_one_heartbeat() -> None:
    bench = Bench()
    running = Running(bench.admit())
    bench.now_ms = bench.wall_ms = NOW_MS + 2_701
    running = _watch(running, bench)
    assert running.uncertain_ms == NOW_MS + 2_701
    bench.now_ms += 1_499
    assert _watch(running, bench).uncertain_ms == NOW_MS + 2_701
    bench.now_ms += 1
    with pytest.raises(Refused) as caught:
        _watch(running, bench)
    assert caught.value.code == "stale"
    bench.heard_ms = bench.wall_ms = bench.now_ms
    assert _watch(running, bench).uncertain_ms == -1


def test_a_policy_that_ends_gives_running_work_its_lease() -> None:
    bench = Bench()
    running = Running(bench.admit())
    bench.manifest["end_ms"] = NOW_MS
    running = _watch(running, bench)
    bench.now_ms = bench.wall_ms = bench.heard_ms = NOW_MS + 1_500
    with pytest.raises(Refused) as caught:
        _watch(running, bench)
    assert caught.value.code == "policy_expired"


def test_a_heartbeat_counts_only_on_its_members_word() -> None:
    governance = kit.governance()
    empty = Freshness.begin(BOOT)
    beat = kit.beat(governance, "anna", echo=(BOOT,))
    good = kit.sign(beat, kit.decision_key("anna"))
    assert take_heartbeat(empty, good, governance.roster, now_ms=NOW_MS).echoed == {"anna"}
    for data, code in (
        (kit.sign(beat, kit.decision_key("bert")), "bad_signature"),
        (kit.sign(msgspec.structs.replace(beat, member="eve"), kit.decision_key("anna")), "unknown_member"),
        (kit.sign(msgspec.structs.replace(beat, mesh="other"), kit.decision_key("anna")), "wrong_mesh"),
        (b"", "malformed"),
    ):
        with pytest.raises(Refused) as caught:
            take_heartbeat(empty, data, governance.roster, now_ms=NOW_MS)
        assert caught.value.code == code


def test_a_receipt_of_any_member_will_do_for_its_own_log_only() -> None:
    governance = kit.governance()
    ref = RecordRef(origin=governance.roster.origin(governance.roster.members[1]), index=3, leaf="aa" * 32)
    receipt = kit.sign(Receipt(mesh=kit.MESH, issuer="bert", statement="55" * 32, record=ref), kit.decision_key("bert"))
    assert check_receipt(receipt, "55" * 32, governance) == ref
    with pytest.raises(Refused) as caught:
        check_receipt(receipt, "56" * 32, governance)
    assert caught.value.code == "unrecorded"
    foreign = Receipt(mesh=kit.MESH, issuer="anna", statement="55" * 32, record=ref)
    with pytest.raises(Refused) as caught:
        check_receipt(kit.sign(foreign, kit.decision_key("anna")), "55" * 32, governance)
    assert caught.value.code == "unrecorded"


def test_outcomes_of_a_boot_are_dense_and_chained() -> None:
    place, grant = Bench().place(), Bench().admit()
    about = Subject("ops", grant.intent.id, grant.authorization.id)
    first, one = OutcomeChain(place=place).next(about, grant.started(1), at_ms=NOW_MS)
    second, two = first.next(about, grant.started(2), at_ms=NOW_MS + 1)
    said = [envelope.read(Outcome, envelope.assemble(item.payload_type, item.payload, {})).claims for item in (one, two)]
    assert [(item.sequence, item.previous) for item in said] == [(0, ""), (1, one.id)]
    assert (second.sequence, second.previous) == (2, two.id)
    assert said[0].boot == BOOT
    assert said[0].identity == place.document.id
    assert isinstance(said[1].event, Started)


def test_the_memo_of_documents_does_not_outlive_their_time() -> None:
    documents, bench = Documents(), Bench()
    identity = kit.read(kit.identity(SUBJECT, HOLDER), ISSUER)
    assert documents.admit(identity.envelope, kit.governance()) is documents.admit(identity.envelope, kit.governance())
    bench.holder_document["expires_ms"] = NOW_MS + 1
    grant = bench.admit()
    bench.now_ms = NOW_MS + 1
    with pytest.raises(Refused) as caught:
        recheck(grant, place=bench.place(), view=bench.view())
    assert caught.value.code == "identity_expired"
    assert isinstance(grant.identity.claims, Identity)
