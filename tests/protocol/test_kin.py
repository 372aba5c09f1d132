"""Executions have parents: who names one shows its papers, is denied for whatever is wrong with them, and is replayed from the record."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.law.governance import Governance
from mesh.core.law.succession import Rosters
from mesh.core.log.record import DecisionMade, Denied, Record, encode_record, read_record
from mesh.core.messages import Answer, Authorized, DeniedAnswer, IntentRequest, OutcomeRequest, pack, unpack_answer
from mesh.core.run import kin
from mesh.core.run.authorization import Ancestor, Authorization, Denial
from mesh.core.run.intent import After, Intent
from mesh.core.run.kin import Parent, read_parent
from mesh.core.run.outcome import Aborted, Failed, Outcome
from mesh.errors import Refused
from mesh.limits import AFTER_MAX, ANCESTORS_MAX, APPROVALS_BYTES_MAX, PARENT_AGE_MS_MAX, PARENTS_BYTES_MAX, RECORD_BYTES_MAX
from mesh.protocol.attester import Examined, Material, examine_records
from mesh.protocol.belonging import ends
from mesh.protocol.documents import Documents
from mesh.protocol.intake import Intake, IntentArrived
from mesh.protocol.lineage import Writer
from mesh.protocol.outcomes import OutcomesArrived, take_outcomes
from mesh.protocol.step import Append, PutBody, Running
from tests.protocol.machines import LAB, ME, NOW, altered, answers, empty_log, halted, only, revoking, secret, sign
from tests.support.factory import DOMAIN, MESH

ORIGIN = LAB.roster.origin(ME)
OTHER = secret("another agent")
OTHERS_DOCUMENT = LAB.identity("spiffe://lab/agent/bert", OTHER, groups=["payers"])
BOOT = "b0" * 32


def asks(number: int, at_ms: int = NOW, **changes: Any) -> bytes:
    """An intent of the lab's agent."""
    return altered(LAB.intent(number, at_ms=at_ms)[1], Intent, LAB.holder, **changes)


class Desk:
    """One batch at one governor."""

    def __init__(self, governance: Governance = LAB.governance, *, over: frozenset[str] = frozenset(), at_ms: int = NOW) -> None:
        self.governance, self.at_ms = governance, at_ms
        self.writer = Writer(empty_log(ORIGIN), mesh=MESH, now_ms=at_ms)
        self.intake = Intake(
            governance=governance, me=ME, writer=self.writer, documents=Documents(), engine=LAB.engine, known={}, over=over
        )  # fmt: skip
        self.leaves: Sequence[bytes] = ()

    def ask(self, intent: bytes, *parents: Parent, identity: bytes = LAB.identity_envelope) -> Answer:
        """The answer to the intent with these papers."""
        request = IntentRequest(
            intent=msgspec.Raw(intent), identity=msgspec.Raw(identity), enforcer=msgspec.Raw(LAB.place_envelope), openings=[], boxes=[],
            approvals=[], parents=list(parents),
        )  # fmt: skip
        self.intake.take([IntentArrived(0, pack(request))], None)
        for effect in self.writer.finish(empty_log(ORIGIN))[1]:
            if isinstance(effect, Append):
                self.leaves = effect.leaves
        return unpack_answer(answers(self.intake.effects)[0])

    @property
    def record(self) -> Record:
        return read_record(self.leaves[0])

    def replayed(self, record: Record | None = None, *, governance: Governance | None = None) -> Examined:
        """As an attester finds it, from the record and what stands beside."""
        bodies = {body.id: body.envelope for body in only(PutBody, self.intake.effects)}
        leaf = self.leaves[0] if record is None else encode_record(record)
        return examine_records(
            [leaf], Material(bodies, {}), owner=ME, first=0, after_ms=0, governance=governance or self.governance,
            documents=Documents(), engine=LAB.engine, now_ms=self.at_ms,
        )[0]  # fmt: skip


def papers(authorization: bytes, outcome: bytes, countersignature: str = "") -> Parent:
    return Parent(authorization=msgspec.Raw(authorization), outcome=msgspec.Raw(outcome), countersignature=countersignature)


class Life:
    """One execution: what was issued for it, and what its enforcer said."""

    def __init__(self, intent: bytes, *parents: Parent, at_ms: int = NOW) -> None:
        answer = Desk(at_ms=at_ms).ask(intent, *parents)
        assert isinstance(answer, Authorized), _denial(answer)
        self.authorization = bytes(answer.authorization)
        self.claims = envelope.read(Authorization, self.authorization).claims
        self.id = envelope.identify(self.authorization)[1]
        self.started, self.finished = LAB.lived(self.claims.intent, self.id, at_ms=at_ms)
        self.after = After(authorization=self.id, outcome=envelope.identify(self.finished)[1])

    @property
    def running(self) -> Parent:
        return papers(self.authorization, self.started)

    @property
    def over(self) -> Parent:
        return papers(self.authorization, self.finished)


def _denial(answer: Answer) -> Denial:
    assert isinstance(answer, DeniedAnswer), answer
    return envelope.read(Denial, bytes(answer.denial)).claims


def denied(intent: bytes, *parents: Parent, governance: Governance = LAB.governance, **how: Any) -> str:
    """The code, which is also what is recorded, without any decision."""
    desk = Desk(governance, **how)
    code = _denial(desk.ask(intent, *parents)).code
    assert isinstance(desk.record, Denied)
    assert desk.record.code == code
    return code


ROOT = Life(asks(1))
CHILD = Life(asks(2, within=[ROOT.id]), ROOT.running)


# ------------------------------------------------------------------------------------------------------------------- within


def test_a_part_of_a_running_execution_is_authorized_with_the_whole_line_of_its_ancestors() -> None:
    desk = Desk()
    answer = desk.ask(asks(3, within=[CHILD.id]), CHILD.running)
    assert isinstance(answer, Authorized)
    claims = envelope.read(Authorization, bytes(answer.authorization)).claims
    assert [one.authorization for one in claims.ancestors] == [CHILD.id, ROOT.id]
    assert claims.ancestors[1] == Ancestor(
        authorization=ROOT.id, intent=ROOT.claims.intent, domain=DOMAIN, subject="spiffe://lab/agent/anna", holder=LAB.holder.public,
        identity=ROOT.claims.identity, issuer=ME.name,
    )  # fmt: skip
    record = desk.record
    assert isinstance(record, DecisionMade)
    assert (record.attested.delegation_depth, record.attested.root) == (2, "spiffe://lab/agent/anna")
    assert record.parents == [CHILD.running]
    assert desk.replayed().code == ""


def test_what_stands_alone_is_its_own_root() -> None:
    desk = Desk()
    desk.ask(asks(1))
    record = desk.record
    assert isinstance(record, DecisionMade)
    assert (record.attested.delegation_depth, record.attested.root, record.parents) == (0, "spiffe://lab/agent/anna", [])
    assert ROOT.claims.ancestors == []


def test_who_names_a_parent_shows_its_papers_and_no_others() -> None:
    inside = asks(4, within=[ROOT.id])
    assert denied(inside) == "parent_unknown"
    assert denied(inside, CHILD.running) == "parent_unknown"
    assert denied(inside, ROOT.running, CHILD.over) == "parent_unknown"
    assert denied(asks(4), ROOT.running) == "parent_unknown"


def _other_outcome(**changes: Any) -> Parent:
    return papers(ROOT.authorization, altered(ROOT.started, Outcome, LAB.place_key, **changes))


def _of_another_mesh() -> Life:
    life = Life(asks(1))
    life.authorization = altered(life.authorization, Authorization, LAB.keys[ME.name]["decision"], mesh="other")
    life.id = envelope.identify(life.authorization)[1]
    life.started = LAB.lived(life.claims.intent, life.id, at_ms=NOW)[0]
    return life


@pytest.mark.parametrize(
    ("paper", "code"),
    [
        (papers(altered(ROOT.authorization, Authorization, LAB.place_key), ROOT.started), "bad_signature"),
        (papers(altered(ROOT.authorization, Authorization, LAB.keys["us-1"]["decision"]), ROOT.started), "bad_signature"),
        (papers(ROOT.authorization, altered(ROOT.started, Outcome, LAB.holder)), "bad_signature"),
        (papers(ROOT.authorization, altered(ROOT.started, Outcome, LAB.place_key, LAB.holder)), "bad_signature"),
        (_other_outcome(intent="ee" * 32), "parent_mismatch"),
        (_other_outcome(authorization=CHILD.id), "parent_mismatch"),
        (_other_outcome(boot="ee" * 32), "parent_mismatch"),
        (_other_outcome(enforcer=LAB.holder.public), "parent_mismatch"),
        (papers(ROOT.authorization, ROOT.started, "00" * 64), "parent_mismatch"),
        (ROOT.over, "parent_over"),
        (_other_outcome(event=Aborted(code="revoked", duration_ms=1)), "parent_over"),
        (_other_outcome(at_ms=ROOT.claims.not_before_ms - 301), "parent_over"),
        (_other_outcome(at_ms=NOW + 301), "parent_over"),
        (_other_outcome(at_ms=ROOT.claims.expires_ms + 300), "parent_over"),
    ],
)
def test_papers_that_do_not_hold_are_a_denial_that_says_why(paper: Parent, code: str) -> None:
    assert denied(asks(4, within=[ROOT.id]), paper) == code


def test_a_start_counts_up_to_the_bound_of_the_clocks() -> None:
    assert isinstance(Desk().ask(asks(4, within=[ROOT.id]), _other_outcome(at_ms=NOW + 300)), Authorized)


def test_a_parent_of_another_mesh_is_no_parent() -> None:
    life = _of_another_mesh()
    assert denied(asks(4, within=[life.id]), life.running) == "wrong_mesh"


def test_a_parent_of_a_roster_that_is_not_in_force_yet_is_asked_for_again() -> None:
    data = altered(ROOT.authorization, Authorization, LAB.keys[ME.name]["decision"], roster_epoch=2)
    name = envelope.identify(data)[1]
    assert denied(asks(4, within=[name]), papers(data, LAB.lived(ROOT.claims.intent, name, at_ms=NOW)[0])) == "wrong_epoch"


def test_a_parent_counts_by_the_roster_under_which_it_was_authorized() -> None:
    renewed = msgspec.structs.replace(ME, decision_key=secret("a later key").public)
    members = [renewed if member.name == ME.name else member for member in LAB.roster.members]
    later = msgspec.structs.replace(LAB.roster, epoch=2, members=members)
    rosters = Rosters({LAB.pin: LAB.roster, "22" * 32: later}, (LAB.pin, "22" * 32))
    child = envelope.read(Intent, asks(4, within=[ROOT.id]))
    assert kin.trace([ROOT.running], child, rosters, epoch=2, at_ms=NOW).ancestors[0].issuer == ME.name, "its key of then counts"
    data = altered(ROOT.authorization, Authorization, LAB.keys[ME.name]["decision"], roster_epoch=2)
    name = envelope.identify(data)[1]
    forged = papers(data, LAB.lived(ROOT.claims.intent, name, at_ms=NOW)[0])
    with pytest.raises(Refused, match="bad_signature"):
        kin.trace([forged], envelope.read(Intent, asks(4, within=[name])), rosters, epoch=2, at_ms=NOW)


def test_a_parent_that_a_quorum_had_to_allow_has_a_quorum_of_lines() -> None:
    keys = [LAB.keys[name]["decision"] for name in (ME.name, "us-1", "ap-1")]
    for lines, code in ((keys[:2], "threshold_not_met"), (keys, "")):
        data = altered(ROOT.authorization, Authorization, *lines, assurance="quorum")
        name = envelope.identify(data)[1]
        paper = papers(data, LAB.lived(ROOT.claims.intent, name, at_ms=NOW)[0])
        answer = Desk().ask(asks(4, within=[name]), paper)
        assert (_denial(answer).code if code else "") == code


def test_papers_of_which_nobody_ever_said_the_end_are_not_good_for_ever() -> None:
    for age_ms, code in ((PARENT_AGE_MS_MAX, ""), (PARENT_AGE_MS_MAX + 1, "parent_over")):
        at_ms = NOW + 1_000
        since = at_ms - age_ms
        data = altered(
            ROOT.authorization, Authorization, LAB.keys[ME.name]["decision"], not_before_ms=since, expires_ms=since + 1_000
        )  # fmt: skip
        name = envelope.identify(data)[1]
        paper = papers(data, LAB.lived(ROOT.claims.intent, name, at_ms=since)[0])
        answer = Desk(at_ms=at_ms).ask(asks(4, at_ms, within=[name]), paper)
        assert (_denial(answer).code if code else "") == code


def test_only_whoever_holds_the_parent_or_has_its_holders_countersignature_runs_within_it() -> None:
    inside = altered(
        asks(5), Intent, OTHER, subject="spiffe://lab/agent/bert", holder=OTHER.public, within=[ROOT.id],
        identity=envelope.identify(OTHERS_DOCUMENT)[1],
    )  # fmt: skip
    message = envelope.read(Intent, inside).message
    cases = (("", "parent_foreign"), (OTHER.sign(message).hex(), "parent_foreign"), (LAB.holder.sign(b"x").hex(), "parent_foreign"))
    for countersignature, code in cases:
        desk = Desk()
        assert _denial(desk.ask(inside, papers(ROOT.authorization, ROOT.started, countersignature), identity=OTHERS_DOCUMENT)).code == code
    desk = Desk()
    answer = desk.ask(inside, papers(ROOT.authorization, ROOT.started, LAB.holder.sign(message).hex()), identity=OTHERS_DOCUMENT)
    assert isinstance(answer, Authorized)
    record = desk.record
    assert isinstance(record, DecisionMade)
    assert record.attested.root == "spiffe://lab/agent/anna", "policy sees for whom it runs"
    assert desk.replayed().code == ""
    dropped = msgspec.structs.replace(record, parents=[ROOT.running])
    assert desk.replayed(dropped).code == "record_invalid", "the consent stands in the record"


def test_nothing_stands_deeper_than_the_limit() -> None:
    line, number = ROOT, 10
    for _ in range(ANCESTORS_MAX):
        number += 1
        line = Life(asks(number, within=[line.id]), line.running)
    assert len(line.claims.ancestors) == ANCESTORS_MAX
    assert denied(asks(99, within=[line.id]), line.running) == "too_deep"


def test_a_parent_that_is_known_to_be_over_lets_nothing_begin() -> None:
    desk = Desk()
    desk.ask(asks(4, within=[ROOT.id]), ROOT.running)
    assert only(Running, desk.intake.effects) == [Running(ROOT.id, LAB.place_key.public)], "whoever commits it asks first"
    assert denied(asks(4, within=[ROOT.id]), ROOT.running, over=frozenset({ROOT.id})) == "parent_over"


@pytest.mark.parametrize("by", [LAB.place_key, secret("another enforcer")])
def test_only_its_enforcer_says_that_an_execution_is_over(by: Any) -> None:
    said = envelope.read(Outcome, ROOT.finished).claims
    outcome = sign(msgspec.structs.replace(said, enforcer=by.public), by)
    place = msgspec.structs.replace(LAB.place, key=by.public)
    document = sign(place, LAB.issuer)
    outcome = altered(outcome, Outcome, by, identity=envelope.identify(document)[1])
    writer = Writer(empty_log(ORIGIN), mesh=MESH, now_ms=NOW)
    request = OutcomeRequest(identity=msgspec.Raw(document), outcomes=[msgspec.Raw(outcome)])
    effects, noise = take_outcomes(
        OutcomesArrived(0, pack(request)), governance=LAB.governance, me=ME, writer=writer, documents=Documents(), known={}, seen={}
    )  # fmt: skip
    assert noise == ""
    (leaf,) = [leaf for append in only(Append, writer.finish(empty_log(ORIGIN))[1]) for leaf in append.leaves]
    bodies = {body.id: body.envelope for body in only(PutBody, effects)}
    assert ends(leaf, bodies, ROOT.id, LAB.place_key.public) == (by is LAB.place_key)
    assert not ends(leaf, bodies, CHILD.id, LAB.place_key.public)
    assert not ends(leaf, {}, ROOT.id, LAB.place_key.public), "what is not held says nothing"


# -------------------------------------------------------------------------------------------------------------------- after


def test_a_step_names_what_it_comes_after_with_the_result_that_it_uses() -> None:
    two = Life(asks(6))
    desk = Desk()
    answer = desk.ask(asks(7, after=[ROOT.after, two.after]), ROOT.over, two.over)
    assert isinstance(answer, Authorized)
    record = desk.record
    assert isinstance(record, DecisionMade)
    assert (record.parents, record.attested.delegation_depth) == ([ROOT.over, two.over], 0)
    assert desk.replayed().code == ""


def _ended(event: Any) -> tuple[bytes, After]:
    data = altered(ROOT.finished, Outcome, LAB.place_key, event=event)
    return data, After(authorization=ROOT.id, outcome=envelope.identify(data)[1])


@pytest.mark.parametrize(
    ("quoted", "paper"),
    [
        (After(authorization=ROOT.id, outcome="ab" * 32), ROOT.over),
        (After(authorization=ROOT.id, outcome=envelope.identify(ROOT.started)[1]), ROOT.running),
        *(
            (quoted, papers(ROOT.authorization, data))
            for data, quoted in (
                _ended(Failed(status=1, error="exit", outputs=[], duration_ms=1)),
                _ended(Aborted(code="revoked", duration_ms=1)),
            )
        ),
    ],
)
def test_only_a_result_that_was_finished_can_be_used(quoted: After, paper: Parent) -> None:
    assert denied(asks(7, after=[quoted]), paper) == "parent_unfinished"


def test_what_is_over_needs_no_consent_and_nothing_is_named_twice() -> None:
    assert denied(asks(7, after=[ROOT.after]), papers(ROOT.authorization, ROOT.finished, "00" * 64)) == "parent_mismatch"
    assert denied(asks(7, after=[ROOT.after, ROOT.after]), ROOT.over, ROOT.over) == "parent_mismatch"
    assert denied(asks(7, within=[ROOT.id], after=[ROOT.after]), ROOT.running, ROOT.over) == "parent_mismatch"


def test_so_many_results_may_be_used_and_no_more() -> None:
    lives = [Life(asks(30 + number)) for number in range(AFTER_MAX + 1)]
    some = lives[:AFTER_MAX]
    assert isinstance(Desk().ask(asks(7, after=[life.after for life in some]), *(life.over for life in some)), Authorized)
    with pytest.raises(Refused, match="malformed"):
        envelope.read(Intent, asks(7, after=[life.after for life in lives]))


def test_papers_have_a_limit_with_which_a_record_still_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PARENTS_BYTES_MAX + APPROVALS_BYTES_MAX + 16_384 < RECORD_BYTES_MAX
    size = len(ROOT.authorization) + len(ROOT.finished)
    monkeypatch.setattr(kin, "PARENTS_BYTES_MAX", size)
    assert isinstance(Desk().ask(asks(7, after=[ROOT.after]), ROOT.over), Authorized)
    monkeypatch.setattr(kin, "PARENTS_BYTES_MAX", size - 1)
    assert denied(asks(7, after=[ROOT.after]), ROOT.over) == "too_large"


# ------------------------------------------------------------------------------------------------------------------ revoked


@pytest.mark.parametrize(
    "target",
    [
        ("ancestor", ROOT.id),
        ("authorization", ROOT.id),
        ("intent", ROOT.claims.intent),
        ("document", ROOT.claims.identity),
        ("subject", "spiffe://lab/agent/anna"),
        ("key", LAB.holder.public),
        ("governor", ME.name),
        ("ancestor", CHILD.id),
    ],
)
def test_nothing_begins_below_what_is_revoked(target: tuple[str, str]) -> None:
    governance = revoking(target)
    assert denied(asks(8, within=[CHILD.id]), CHILD.running, governance=governance) == "revoked"
    assert denied(asks(8, after=[CHILD.after]), CHILD.over, governance=governance) == "revoked"


def test_nothing_begins_within_a_domain_that_is_halted() -> None:
    assert denied(asks(8, within=[ROOT.id]), ROOT.running, governance=halted()) == "halted"


def test_whoever_revokes_one_execution_leaves_others_alone() -> None:
    other = Life(asks(9))
    assert isinstance(Desk(revoking(("ancestor", ROOT.id))).ask(asks(8, within=[other.id]), other.running), Authorized)


# --------------------------------------------------------------------------------------------------------- who repeats it


def _permitted() -> tuple[Desk, DecisionMade]:
    desk = Desk()
    desk.ask(asks(3, within=[CHILD.id]), CHILD.running)
    assert isinstance(desk.record, DecisionMade)
    return desk, desk.record


def test_a_governor_that_drops_an_ancestor_from_the_line_is_found() -> None:
    desk, record = _permitted()
    answer = unpack_answer(answers(desk.intake.effects)[0])
    assert isinstance(answer, Authorized)
    claims = envelope.read(Authorization, bytes(answer.authorization)).claims
    short = envelope.draft(msgspec.structs.replace(claims, ancestors=claims.ancestors[:1])).id
    assert desk.replayed(msgspec.structs.replace(record, authorization=short)).code == "replay_mismatch"


def test_a_governor_that_says_another_root_or_depth_is_found() -> None:
    desk, record = _permitted()
    for changes in ({"delegation_depth": 1}, {"root": "spiffe://lab/agent/bert"}):
        attested = msgspec.structs.replace(record.attested, **changes)
        assert desk.replayed(msgspec.structs.replace(record, attested=attested)).code == "replay_mismatch"


@pytest.mark.parametrize("parents", [[], [ROOT.running], [CHILD.over], [papers(CHILD.authorization, CHILD.started, "00" * 64)]])
def test_papers_that_do_not_hold_make_the_record_wrong(parents: list[Parent]) -> None:
    desk, record = _permitted()
    assert desk.replayed(msgspec.structs.replace(record, parents=parents)).code == "record_invalid"


def test_who_knew_that_an_ancestor_was_revoked_and_went_on_is_found() -> None:
    governance = revoking(("ancestor", ROOT.id))
    desk, record = _permitted()
    attested = msgspec.structs.replace(record.attested, frontier=governance.digest)
    found = desk.replayed(msgspec.structs.replace(record, attested=attested), governance=governance)
    assert (found.code, found.detail[:8]) == ("revoked", "ancestor")
    assert desk.replayed(governance=governance).code == "", "nobody is accused of what it had not heard"


def test_papers_are_read_as_they_were_written() -> None:
    assert read_parent(canonical.encode(ROOT.running)) == ROOT.running
    for data in (b"", b"{}", canonical.encode(ROOT.running)[:-1], canonical.encode(papers(ROOT.started, ROOT.authorization))):
        with pytest.raises(Refused):
            read_parent(data)
