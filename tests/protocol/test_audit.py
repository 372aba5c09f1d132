"""An auditor that believes nobody comes to the same answer however its messages arrive, and misses no lie under a signed root."""

from collections.abc import Iterable, Mapping, Sequence
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.bytes import canonical, envelope
from mesh.core.law.fold import extend, unsaid
from mesh.core.law.proofs import judge_proof
from mesh.core.law.revocation import Revocation, Target
from mesh.core.log.checkpoint import Checkpoint, log_line
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Line, Note, parse_note
from mesh.core.log.record import Cosigned, CosignedHead, Denied
from mesh.core.messages import Authorized, LineageBatch, Pull, pack, unpack
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.core.run.outcome import Blocked, Event, Finished, Outcome, Unknown
from mesh.protocol import governor
from mesh.protocol.audited import AuditEvent, AuditPosition
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.holding import Mirror
from mesh.protocol.lineage import LogState, Writer
from tests.core.kit import refuses
from tests.support.auditing import Auditing, events_of
from tests.support.factory import Lab, RuleEngine, sign
from tests.support.littlemesh import LittleMesh
from tests.support.proofs import Happened, happened


def _audit(story: Happened) -> Auditing:
    return Auditing(story.mesh).feed(events_of(story.mesh.stream)).pull()


# -------------------------------------------------------------------------------------------------------------- all is well


def test_what_was_decided_matches_and_is_final() -> None:
    auditing = _audit(happened())
    assert auditing.counts == (2, 0, 0)
    assert auditing.done
    assert auditing.codes == []


def test_what_rests_on_a_policy_not_heard_of_waits_and_matches_once_it_is() -> None:
    """Who attested it has heard of it: that nobody's pull helps says nothing about the record."""
    story = happened()
    auditing = Auditing(story.mesh)
    known, auditing.audit.governance = auditing.audit.governance, unsaid(auditing.audit.governance)
    auditing.feed(events_of(story.mesh.stream)).pull(rounds=30)
    assert (auditing.counts, auditing.codes) == ((0, 0, 0), [])
    assert any(log.lacks_policy for log in auditing.state.logs.values())
    assert not auditing.done
    auditing.audit.governance = known
    auditing.pull(rounds=30)
    assert (auditing.counts, auditing.codes) == ((2, 0, 0), [])
    assert auditing.done
    assert not any(log.lacks_policy for log in auditing.state.logs.values())


def test_pulls_alone_are_enough() -> None:
    story = happened()
    notes = [NoteArrived(node.notes["certificate", node.origin][node.state.log.certified]) for node in story.mesh.nodes.values()]
    auditing = Auditing(story.mesh).feed(notes).pull()
    assert auditing.counts == (2, 0, 0)
    assert auditing.done


def test_the_stream_alone_lacks_only_openings() -> None:
    story = happened()
    auditing = Auditing(story.mesh).feed(events_of(story.mesh.stream))
    assert auditing.counts == (1, 0, 0)
    assert auditing.pull().asked == ["eu-1"]
    assert auditing.done


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_order_and_repetition_change_nothing(random: Random) -> None:
    story = happened()
    events = events_of(story.mesh.stream)
    shuffled = random.sample(events, len(events)) + random.sample(events, len(events) // 2)
    auditing = Auditing(story.mesh).feed(shuffled).pull()
    assert auditing.audit.position(auditing.state) == _audit(story).audit.position(_audit(story).state)


def test_a_position_goes_on_where_it_was_kept() -> None:
    story = happened()
    events = events_of(story.mesh.stream)
    whole = _audit(story)
    for cut in range(0, len(events), 5):
        first = Auditing(story.mesh).feed(events[:cut])
        kept = canonical.decode(AuditPosition, canonical.encode(first.audit.position(first.state)), bytes_max=100_000)
        second = Auditing(story.mesh, kept).feed(events[cut:]).pull()
        assert second.counts == whole.counts
        assert second.done


def test_a_member_that_is_down_is_passed_over() -> None:
    story = happened()
    auditing = Auditing(story.mesh, down=frozenset({"eu-1", "us-1"})).feed(events_of(story.mesh.stream)).pull()
    assert auditing.done
    assert auditing.asked == ["eu-1", "us-1", "ap-1"]


def test_nobody_is_asked_twice_at_once() -> None:
    story = happened()
    auditing = Auditing(story.mesh).feed(events_of(story.mesh.stream))
    first = auditing.audit.step(auditing.state, [Tick()], now_ms=auditing.now_ms)
    second = auditing.audit.step(first.state, [Tick()], now_ms=auditing.now_ms + 10_000)
    assert (len(first.effects), len(second.effects)) == (1, 0)


# ------------------------------------------------------------------------------------------------------------ what is erased


def test_erased_openings_are_unverifiable_and_no_finding() -> None:
    story = Happened()
    for node in story.mesh.nodes.values():
        node.openings.clear()
    auditing = _audit(story)
    assert auditing.counts == (1, 0, 1)
    assert auditing.done
    assert auditing.codes == []
    assert auditing.asked == ["eu-1", "us-1", "ap-1"], "k of them are enough to know"


def test_silence_is_no_evidence_that_something_is_gone() -> None:
    story = happened()
    auditing = Auditing(story.mesh, down=frozenset(story.mesh.nodes)).feed(events_of(story.mesh.stream)).pull(40)
    assert auditing.counts == (1, 0, 0)
    assert not auditing.done
    auditing.down = frozenset()
    assert auditing.pull().counts == (2, 0, 0)


def test_an_engine_that_cannot_answer_is_no_mismatch() -> None:
    class Silent(RuleEngine):
        def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
            return [None for _ in requests]

    story = happened()
    auditing = Auditing(story.mesh)
    auditing.audit.engine = Silent()
    auditing.feed(events_of(story.mesh.stream)).pull(24)
    assert auditing.counts == (0, 0, 2)
    assert auditing.done
    assert auditing.codes == []


def test_evidence_that_nobody_holds_is_a_finding() -> None:
    story = Happened()
    for node in story.mesh.nodes.values():
        for outcome in story.outcomes:
            node.bodies = {key: data for key, data in node.bodies.items() if data != outcome}
    stream = [(subject, data) for subject, data in story.mesh.stream if ".lineage.us-1" not in subject]
    auditing = Auditing(story.mesh).feed(events_of(stream)).pull(24)
    assert auditing.codes == ["body_missing", "body_missing"]


# ---------------------------------------------------------------------------------------------------------------------- lies


class Liar(RuleEngine):
    """Allows everything."""

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        return [Verdict(allow=True, determining=("small-payments",), errors=()) for _ in requests]


def _lied(liars: Iterable[str]) -> LittleMesh:
    lab = Lab()
    mesh = LittleMesh(lab)
    for liar in liars:
        mesh.nodes[liar].machine.engine = Liar()
    _, intent, openings = lab.intent(1, account="frozen", at_ms=mesh.now_ms)
    mesh.request("eu-1", lab.request(intent, openings))
    mesh.run(6)
    return mesh


def test_a_governor_that_decides_unlawfully_is_found() -> None:
    mesh = _lied(["eu-1"])
    auditing = Auditing(mesh).feed(events_of(mesh.stream)).pull()
    assert auditing.counts == (0, 1, 0)
    assert auditing.state.logs["lab/eu-1/e1"].certified == 2
    assert {finding.origin for finding in auditing.state.findings if finding.code == "replay_mismatch"} == {"lab/eu-1/e1"}
    assert set(auditing.codes) == {"replay_mismatch", "member_frozen"}, "whoever takes the proof in records that"
    assert sum("refuses to attest" in finding.detail for finding in auditing.state.findings) == 3


def test_all_governors_together_cannot_hide_it() -> None:
    mesh = _lied(["eu-1", "us-1", "ap-1", "sa-1"])
    auditing = Auditing(mesh).feed(events_of(mesh.stream)).pull()
    assert auditing.counts == (0, 1, 0)
    assert auditing.done, "they made it final"
    assert auditing.codes == ["replay_mismatch"]


def _signed(mesh: LittleMesh, name: str, checkpoint: Checkpoint) -> bytes:
    key, text = mesh.nodes[name].keys["log"], checkpoint.to_text()
    return Note(text, (log_line(checkpoint.origin, key.public, key.sign(text)),)).encode()


@pytest.mark.parametrize("before", [True, False])
def test_two_roots_at_one_size_are_found(*, before: bool) -> None:
    story = happened()
    forked = NoteArrived(_signed(story.mesh, "us-1", Checkpoint("lab/us-1/e1", 4, bytes(32))))
    events = events_of(story.mesh.stream)
    auditing = Auditing(story.mesh).feed([forked, *events] if before else [*events, forked]).pull()
    assert "log_conflict" in auditing.codes
    assert auditing.state.findings[0].origin == "lab/us-1/e1"
    assert auditing.state.findings[0].index == 4
    (proof,) = auditing.state.proofs
    caught = judge_proof(proof, story.mesh.lab.governance.rosters)
    assert (caught.kind, caught.member, caught.sizes) == ("same-size", "us-1", (4, 4))


@pytest.mark.parametrize("first", [True, False])
def test_a_line_that_somebody_added_in_a_logs_name_hides_no_second_root(*, first: bool) -> None:
    story = happened()
    good, stray = parse_note(_signed(story.mesh, "us-1", Checkpoint("lab/us-1/e1", 4, bytes(32)))), Line("lab/us-1/e1", b"else", bytes(64))
    forked = NoteArrived(Note(good.text, (stray, *good.lines) if first else (*good.lines, stray)).encode())
    auditing = Auditing(story.mesh).feed([*events_of(story.mesh.stream), forked]).pull()
    (proof,) = auditing.state.proofs
    assert judge_proof(proof, story.mesh.lab.governance.rosters).member == "us-1"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_older_checkpoint_of_another_history_that_comes_late_is_found_and_proven(size: int) -> None:
    story = happened()
    forked = NoteArrived(_signed(story.mesh, "us-1", Checkpoint("lab/us-1/e1", size, bytes(32))))
    auditing = Auditing(story.mesh).feed([*events_of(story.mesh.stream), forked, forked]).pull()
    assert "log_conflict" in auditing.codes
    (proof,) = auditing.state.proofs
    caught = judge_proof(proof, story.mesh.lab.governance.rosters)
    assert (caught.kind, caught.member, caught.sizes[0]) == ("same-size" if size in {2, 4} else "prefix", "us-1", size)


def test_checkpoints_of_one_history_are_no_proof_in_whatever_order_they_come() -> None:
    story = happened()
    leaves = [leaf_hash(leaf) for leaf in story.mesh.nodes["us-1"].logs["lab/us-1/e1"]]
    notes = [
        NoteArrived(_signed(story.mesh, "us-1", Checkpoint("lab/us-1/e1", size, Frontier.empty().extend(leaves[:size]).root())))
        for size in range(1, len(leaves) + 1)
    ]
    auditing = Auditing(story.mesh).feed([*reversed(notes), *events_of(story.mesh.stream), *notes]).pull()
    assert (auditing.state.proofs, auditing.codes) == ((), [])


def test_a_root_that_nobodys_records_lead_to_is_found_and_holds_nothing_up() -> None:
    story = happened()
    forked = NoteArrived(_signed(story.mesh, "us-1", Checkpoint("lab/us-1/e1", 3, bytes(32))))
    auditing = Auditing(story.mesh).feed([forked]).pull(24)
    assert auditing.codes == ["log_conflict"]
    assert auditing.state.findings[0].index == 3
    assert auditing.state.logs["lab/us-1/e1"].frontier.size == 4


def test_a_root_that_nobodys_records_lead_to_is_found_where_nothing_is_certified() -> None:
    story = Happened()
    for node in story.mesh.nodes.values():
        node.notes.clear()
    forked = NoteArrived(_signed(story.mesh, "us-1", Checkpoint("lab/us-1/e1", 3, bytes(32))))
    auditing = Auditing(story.mesh).feed([forked]).pull(24)
    assert auditing.codes == ["bad_proof"]
    assert auditing.state.logs["lab/us-1/e1"].frontier.size == 0


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_a_log_with_one_record_removed_leads_nowhere(removed: int) -> None:
    story = Happened()
    note = NoteArrived(story.mesh.nodes["us-1"].notes["certificate", "lab/us-1/e1"][4])
    for node in story.mesh.nodes.values():
        del node.logs["lab/us-1/e1"][removed]
    auditing = Auditing(story.mesh).feed([note]).pull(24)
    assert auditing.state.logs["lab/us-1/e1"].certified <= 2
    assert not auditing.state.logs["lab/us-1/e1"].caught_up


def test_a_log_with_one_record_exchanged_is_found() -> None:
    story = Happened()
    note = NoteArrived(story.mesh.nodes["us-1"].notes["certificate", "lab/us-1/e1"][4])
    for node in story.mesh.nodes.values():
        node.notes.clear()
        leaf = node.logs["lab/us-1/e1"][1]
        node.logs["lab/us-1/e1"][1] = leaf.replace(b'"fresh"', b'"stale"')
    auditing = Auditing(story.mesh).feed([note]).pull(24)
    assert auditing.codes == ["bad_proof"]
    assert (auditing.state.findings[0].origin, auditing.state.findings[0].index) == ("lab/us-1/e1", 4)


def test_injected_records_are_thrown_away() -> None:
    story = happened()
    injected = Denied(
        mesh="lab", origin="lab/eu-1/e1", index=0, at_ms=1, intent="00" * 32, identity="cd" * 32, subject="x", code="stale", detail=""
    )
    raw = msgspec.Raw(canonical.encode(injected))
    batch = LineageBatch(origin="lab/eu-1/e1", first=0, records=[raw], bodies=[], pruned=[], openings=[], path=[], start=[], checkpoint="")
    auditing = Auditing(story.mesh).feed([LineageArrived(pack(batch), pulled=False), *events_of(story.mesh.stream)]).pull()
    assert auditing.done
    assert auditing.counts == (2, 0, 0)
    assert auditing.codes == []


def test_an_incident_is_a_finding() -> None:
    story = Happened()
    mesh = story.mesh
    fork = _signed(mesh, "us-1", Checkpoint("lab/us-1/e1", 4, bytes(32)))
    mesh.deliver("eu-1", NoteArrived(fork))
    mesh.run(6)
    auditing = _audit(story)
    assert set(auditing.codes) == {"log_conflict", "member_frozen"}
    (conflict,) = [finding for finding in auditing.state.findings if finding.code == "log_conflict"]
    assert conflict.detail.startswith("incident: lab/us-1/e1")
    caught = [finding.origin for finding in auditing.state.findings if finding.code == "member_frozen"]
    assert sorted(caught) == ["lab/ap-1/e1", "lab/eu-1/e1", "lab/sa-1/e1", "lab/us-1/e1"], "whoever takes the proof in records that"


@pytest.mark.parametrize("truth", [True, False])
def test_a_tree_that_a_log_names_of_another_and_that_this_one_did_not_have_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, *, truth: bool
) -> None:
    said = list[int]()

    def entangle(state: LogState, mirrors: Mapping[str, Mirror], writer: Writer, *, now_ms: int) -> LogState:
        head = mirrors["lab/us-1/e1"].witnessed if "lab/us-1/e1" in mirrors else None
        if writer.origin == "lab/eu-1/e1" and head is not None and not said:
            said.append(writer.index)
            named = CosignedHead(origin="lab/us-1/e1", root=head.root.hex() if truth else "ab" * 32, size=head.size, time_s=now_ms // 1000)
            writer.append(Cosigned(mesh=writer.mesh, origin=writer.origin, index=writer.index, at_ms=writer.at_ms, heads=[named]))
        return state

    monkeypatch.setattr(governor, "entangle", entangle)
    story = Happened()
    auditing = _audit(story)
    assert said
    assert auditing.done, "who attests cannot tell"
    assert auditing.codes == ([] if truth else ["log_conflict"])
    if not truth:
        (finding,) = auditing.state.findings
        assert (finding.origin, finding.index) == ("lab/eu-1/e1", said[0])


@pytest.mark.parametrize("kind", ["issuer", "governor", "enrolled"])
def test_what_was_decided_before_its_issuer_or_governor_was_revoked_stays_lawful(kind: str) -> None:
    story = happened()
    value = "eu-1" if kind == "governor" else story.lab.issuer.public
    said = Revocation(
        mesh=story.lab.roster.mesh,
        revoker=story.lab.revoker.public,
        sequence=1,
        previous="",
        since="",
        target=msgspec.convert({"type": kind, "value": value}, Target),
        spares=[],
        reason="stolen",
        issued_ms=story.mesh.now_ms,
    )
    auditing = Auditing(story.mesh)
    taken = extend(auditing.audit.governance, [envelope.read(Revocation, sign(said, story.lab.revoker))])
    assert (kind, value) in taken.governance.revoked
    auditing.audit.governance = taken.governance
    auditing.feed(events_of(story.mesh.stream)).pull()
    assert (auditing.counts, auditing.codes) == ((2, 0, 0), [])
    assert auditing.done


def test_garbage_is_counted_and_changes_nothing() -> None:
    story = happened()
    auditing = _audit(story)
    before = auditing.audit.position(auditing.state)
    proof = story.proof(story.permitted)
    auditing.feed([LineageArrived(b"{}", pulled=False), NoteArrived(b"nonsense"), NoteArrived(proof), LineageArrived(proof, pulled=False)])
    assert auditing.state.garbage == 4
    assert auditing.audit.position(auditing.state) == before


def test_a_pull_that_brings_garbage_counts_as_no_answer() -> None:
    story = happened()
    batch = unpack(LineageBatch, story.mesh.nodes["eu-1"].pulled(Pull(origin="lab/eu-1/e1", first=0, count=9)))
    spoilt = msgspec.structs.replace(batch, records=[msgspec.Raw(b"{}")], checkpoint="")
    auditing = Auditing(story.mesh).feed([LineageArrived(pack(spoilt), pulled=True)])
    assert auditing.state.logs["lab/eu-1/e1"].fruitless == 1
    assert auditing.state.garbage == 1


# ------------------------------------------------------------------------------------------------------------------ position


def test_the_position_of_another_mesh_is_refused() -> None:
    auditing = Auditing(happened().mesh)
    kept = auditing.audit.position(auditing.state)
    with refuses("wrong_mesh"):
        auditing.audit.begin(msgspec.structs.replace(kept, mesh="other"))
    with refuses("wrong_epoch"):
        auditing.audit.begin(msgspec.structs.replace(kept, roster="00" * 32))
    with refuses("malformed"):
        auditing.audit.begin(msgspec.structs.replace(kept, logs=[msgspec.structs.replace(kept.logs[0], size=7)]))


# ------------------------------------------------------------------------------------------------------- clocks and strangers


def test_an_auditor_whose_clock_is_slow_waits_and_finds_nothing() -> None:
    story = happened()
    auditing = Auditing(story.mesh)
    auditing.now_ms = story.mesh.now_ms - 20_000
    auditing.feed(events_of(story.mesh.stream)).pull(40)
    assert (auditing.counts, auditing.codes) == ((0, 0, 0), [])
    auditing.now_ms = story.mesh.now_ms
    auditing.pull()
    assert (auditing.counts, auditing.codes) == ((2, 0, 0), [])
    assert auditing.done


def test_one_body_that_cannot_be_read_spoils_nothing_beside_it() -> None:
    def spoilt(event: AuditEvent) -> AuditEvent:
        if not isinstance(event, LineageArrived):
            return event
        batch = unpack(LineageBatch, event.data)
        return LineageArrived(pack(msgspec.structs.replace(batch, bodies=[msgspec.Raw(b"{}"), *batch.bodies])), pulled=False)

    story = happened()
    auditing = Auditing(story.mesh).feed([spoilt(event) for event in events_of(story.mesh.stream)])
    assert (auditing.counts, auditing.state.garbage) == ((1, 0, 0), 0)
    assert auditing.pull().asked == ["eu-1"], "only what streams never hold"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("boot", "event", "codes"),
    [
        ("cc" * 32, Finished(status=0, outputs=[], duration_ms=1), ["outcome_foreign"]),
        ("cc" * 32, Unknown(boot="b0" * 32), []),
        ("cc" * 32, Blocked(code="audience", detail=""), []),
        ("b0" * 32, Finished(status=0, outputs=[], duration_ms=1), []),
    ],
)
def test_an_outcome_by_whom_the_intent_is_not_meant_for_is_found(*, late: bool, boot: str, event: Event, codes: list[str]) -> None:
    lab = Lab()
    mesh = LittleMesh(lab)
    intent, data, openings = lab.intent(1, at_ms=mesh.now_ms)
    answer = mesh.request("eu-1", lab.request(data, openings))
    assert isinstance(answer, Authorized)
    authorization = envelope.identify(bytes(answer.authorization))[1]
    said = lab.outcome(intent, authorization, event, sequence=0, previous="", at_ms=mesh.now_ms)
    other = msgspec.structs.replace(envelope.read(Outcome, said).claims, boot=boot)
    mesh.report("us-1", lab.report([sign(other, lab.place_key)]))
    mesh.run(6)
    first = [item for item in mesh.stream if (".us." in item[0]) is late]
    auditing = Auditing(mesh).feed(events_of([*first, *(item for item in mesh.stream if item not in first)])).pull()
    assert auditing.done
    assert auditing.codes == codes
    assert {finding.origin for finding in auditing.state.findings} <= {"lab/us-1/e1"}
