"""Threats 19, 20 and 21: a log that shows two histories is refused, proven and frozen by everybody, and nobody honest is."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.law.fold import extend
from mesh.core.law.fraud import Fraud, accuse, judge_fraud
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.log.checkpoint import Checkpoint, attest_name, log_line
from mesh.core.log.merkle import Frontier, consistency_path, tree_get
from mesh.core.log.note import Note, parse_note
from mesh.core.log.record import Incident, read_record
from mesh.core.messages import Authorized, DeniedAnswer, LawBatch, Offer, Offered, pack, unpack
from mesh.core.run.authorization import Denial, Receipt, RecordRef
from mesh.protocol import lineage
from mesh.protocol.catching import check_acts
from mesh.protocol.documents import Documents
from mesh.protocol.enforcer import Running, check_receipt, recheck, watch
from mesh.protocol.events import CosigArrived, LawArrived, NoteArrived, OfferArrived
from mesh.protocol.freshness import Freshness, answered, check_fresh, hear
from mesh.protocol.gossip import Gossip
from mesh.protocol.histories import RECENT_MAX, Recent
from mesh.protocol.holding import MirrorContext
from mesh.protocol.step import PutLaw, PutNote, Send, SetHead, Sign
from tests.core.kit import refuses
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerbench import Bench, refused
from tests.protocol.machines import LAB, ME, NOW, OWNER, Governor, Owner, batch, beat, empty_log, line, only
from tests.protocol.test_mirror import MEMBERS, ORIGIN, Holder, _owner
from tests.support.frauds import frozen, two_roots
from tests.support.littlemesh import LittleMesh

KEY = LAB.keys[OWNER.name]["log"]
FROZEN = frozen(LAB.governance, OWNER.name, KEY)


def _signed(size: int, root: bytes) -> bytes:
    text = Checkpoint(ORIGIN, size, root).to_text()
    return Note(text, (log_line(ORIGIN, KEY.public, KEY.sign(text)),)).encode()


class Finder(Holder):
    """A mirror that hands on what it finds."""

    def __init__(self, governance: Governance = LAB.governance) -> None:
        super().__init__()
        self.governance = governance
        self.proofs: list[Any] = []

    def _context(self) -> MirrorContext:
        return MirrorContext(self.governance, ME, OWNER, self.writer, Documents(), self.engine, self.now_ms, self.proofs)

    @property
    def found(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Kind, member and sizes of the proofs, each judged by the roster alone."""
        judged = [judge_fraud(proof, LAB.governance.rosters) for proof in self.proofs]
        return [(caught.kind, caught.member, caught.sizes) for caught in judged]


# ------------------------------------------------------------------------------------------------------------------ it is found


def test_threat_19_two_roots_at_one_size_are_a_proof_wherever_both_are_seen() -> None:
    owner, mine = _owner(3), Finder()
    mine.batch(batch(owner, note=owner.note()))
    mine.note(_signed(3, bytes(32)))
    assert mine.found == [("same-size", OWNER.name, (3, 3))]
    early = Finder()
    early.note(owner.note())
    early.note(_signed(3, bytes(32)))
    assert early.found == mine.found, "also before a record of it is here"


def test_threat_20_a_checkpoint_that_the_next_one_does_not_continue_is_refused_and_a_proof() -> None:
    for before in range(4):
        owner, mine = _owner(before), Finder()
        if before:
            mine.batch(batch(owner, note=owner.note()))
        for number in range(before, 8):
            owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
        mine.note(_signed(5, bytes(32)))
        effects = mine.batch(batch(owner, before, note=owner.note()))
        assert not only(SetHead, effects), "nothing of it is cosigned"
        assert mine.found == [("prefix", OWNER.name, (5, 8))]


def test_threat_21_an_older_checkpoint_of_the_same_history_is_no_proof_whatever_the_order() -> None:
    owner, mine = _owner(6), Finder()
    for size in (2, 6, 4, 2, 6):
        mine.note(owner.note(size=size))
    mine.batch(batch(owner))
    for size in (6, 2, 4):
        mine.note(owner.note(size=size))
    assert mine.state.frontier.size == 6
    assert mine.found == []


def _grown(owner: Owner, mine: Finder, *sizes: int) -> None:
    """The owner's log comes to these sizes, one after the other, and the mirror takes them in."""
    for size in sizes:
        first = len(owner.leaves)
        for number in range(first, size):
            owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
        mine.batch(batch(owner, first, note=owner.note()))
        assert mine.state.frontier.size == size


@pytest.mark.parametrize("size", range(1, 9))
def test_threat_19_an_older_checkpoint_of_another_history_that_comes_late_is_a_proof_at_whatever_size(size: int) -> None:
    owner, mine = _owner(0), Finder()
    _grown(owner, mine, 3, 5, 9)
    mine.note(_signed(size, bytes(32)))
    assert mine.found == ([("same-size", OWNER.name, (size, size))] if size in {3, 5} else [("prefix", OWNER.name, (size, 9))])
    assert mine.state.conflicted


@pytest.mark.parametrize("size", range(1, 10))
def test_threat_21_an_older_checkpoint_of_this_history_that_comes_late_is_none(size: int) -> None:
    owner, mine = _owner(0), Finder()
    _grown(owner, mine, 3, 5, 9)
    mine.note(owner.note(size=size))
    assert (mine.found, mine.state.conflicted) == ([], False)


def test_what_is_remembered_of_a_log_is_bounded_and_its_roots_are_right() -> None:
    hashes = [bytes([number % 256]) * 32 for number in range(3_000)]
    recent, size = Recent(Frontier.empty(), ()), 0
    while size < len(hashes):
        recent, size = recent.grown(hashes[size : size + 130]), size + 130
        assert len(recent.hashes) <= RECENT_MAX
    first = recent.before.size
    assert first > 1_000
    assert recent.root(first - 1) is recent.root(len(hashes) + 1) is Recent(Frontier.empty(), ()).root(0) is None
    for size in (first, first + 1, 2_900, 3_000):
        assert recent.root(size) == Frontier.empty().extend(hashes[:size]).root()
    assert recent.path(first, 3_000) == consistency_path(tree_get(hashes), first, 3_000)


def test_lines_of_others_on_both_notes_are_left_out_of_the_proof() -> None:
    owner, mine = _owner(3), Finder()
    mine.note(owner.note(*MEMBERS[:3]))
    mine.note(_signed(3, bytes(32)))
    (proof,) = mine.proofs
    assert [len(parse_note(note.encode()).lines) for note in (proof.claims.first, proof.claims.second)] == [1, 1]


def test_one_proof_is_made_of_a_thousand_lies() -> None:
    owner, mine = _owner(3), Finder()
    mine.note(owner.note())
    for number in range(1, 20):
        mine.note(_signed(3, bytes([number]) * 32))
    assert len(mine.found) == 1


# ---------------------------------------------------------------------------------------------------------------- it spreads


def _incidents(mesh: LittleMesh, name: str) -> list[Incident]:
    node = mesh.nodes[name]
    records = [read_record(leaf) for leaf in node.logs[node.origin]]
    return [record for record in records if isinstance(record, Incident) and record.code == "member_frozen"]


def test_threat_19_whoever_sees_two_roots_tells_everybody_and_each_records_it_once() -> None:
    mesh = LittleMesh(LAB)
    held = mesh.nodes["eu-1"].state.mirrors[ORIGIN].witnessed
    assert held is not None
    mesh.deliver("eu-1", NoteArrived(_signed(held.size, bytes(32))))
    mesh.deliver("ap-1", NoteArrived(_signed(held.size, bytes([1]) * 32)))
    mesh.run(8)
    for name, node in mesh.nodes.items():
        assert node.state.governance.frozen == {OWNER.name}
        (incident,) = _incidents(mesh, name)
        (kept,) = [data for stream, items in node.law.items() for data in items if stream.startswith("fraud/")]
        assert incident.detail.startswith(envelope.read(Fraud, kept).id), "whichever of the two it heard first"
    assert len({node.state.governance.digest for node in mesh.nodes.values()}) == 1
    for name in ("eu-1", "ap-1", "sa-1"):
        assert mesh.nodes[name].state.was_fresh, "k others are enough"


@pytest.mark.parametrize("use", ["witness", "attest"])
def test_who_cosigns_two_trees_of_one_log_is_caught_by_its_owner(use: str) -> None:
    mesh = LittleMesh(LAB)
    mesh.run(6)
    mine = mesh.nodes["eu-1"]
    closed = mine.state.log.closed
    assert closed is not None
    text = Checkpoint(mine.origin, closed.head.size, bytes(32)).to_text()
    forged = msgspec.structs.replace(line(OWNER, use, text), signature=line(OWNER, use, closed.text).signature)
    mesh.deliver("eu-1", CosigArrived(Note(text, (forged,)).encode()))
    assert mine.state.governance.frozen == frozenset(), "a line that it never made is none"
    mesh.deliver("eu-1", CosigArrived(Note(text, (line(OWNER, use, text),)).encode()))
    mesh.run(6)
    assert {frozenset(node.state.governance.frozen) for node in mesh.nodes.values()} == {frozenset({OWNER.name})}
    assert mine.state.governance.proven == {LAB.keys[OWNER.name][use].public}
    (kept,) = mine.law[f"fraud/{LAB.keys[OWNER.name][use].public}"]
    assert judge_fraud(envelope.read(Fraud, kept), LAB.governance.rosters).kind == "witness-conflict"


def test_the_proof_is_durable_before_anybody_is_told() -> None:
    governor = Governor()
    governor.take(LawArrived(pack(LawBatch(statements=[msgspec.Raw(two_roots(LAB.roster, OWNER.name, KEY).envelope)])), "us-1"))
    assert [effect.stream for effect in only(PutLaw, governor.effects)] == [f"fraud/{KEY.public}"]
    assert governor.state.governance.frozen == {OWNER.name}


def test_anybody_may_offer_a_proof_and_a_forged_one_freezes_nobody() -> None:
    proof, mesh = two_roots(LAB.roster, OWNER.name, KEY), LittleMesh(LAB)
    halves = [parse_note(note.encode()) for note in (proof.claims.first, proof.claims.second)]
    forged = accuse(LAB.roster.mesh, ME.log_key, [(note.text, note.lines[0]) for note in halves])
    for statement, code in ((forged, "bad_signature"), (proof, "")):
        gossip = Gossip(LAB.governance, {}, (), now_ms=NOW)
        effects, codes = gossip.offered(OfferArrived(1, pack(Offer(statements=[msgspec.Raw(statement.envelope)]))))
        answer = unpack(Offered, only(Send, effects)[-1].build(None))
        assert (answer.results, codes) == ({statement.id: code}, [code] if code else [])
        assert bool(gossip.governance.frozen) == (not code)
    assert not mesh.nodes["eu-1"].state.governance.frozen


def test_an_impossible_number_of_proofs_costs_one_verification_a_key() -> None:
    governance = LAB.governance
    for size in range(1, 40):
        taken = extend(governance, [two_roots(LAB.roster, OWNER.name, KEY, size=size)])
        governance = taken.governance
        assert len(taken.new) == (size == 1)


# ------------------------------------------------------------------------------------------------------------- what follows


def _heard(*names: str) -> Freshness:
    state = Freshness.begin("00" * 32)
    for name in names:
        claims = envelope.read(Heartbeat, beat(name, 1, NOW, echo=("00" * 32,))).claims
        state = hear(state, claims, "id", now_ms=NOW, bounds=LAB.roster.bounds)
    return state


def test_a_frozen_member_vouches_for_nothing_and_answers_no_start() -> None:
    state, frontier = _heard("eu-1", "us-1", "ap-1"), LAB.governance.frontier
    assert set(check_fresh(state, frontier, LAB.roster, now_ms=NOW)) == {"eu-1", "us-1", "ap-1"}
    with refuses("stale"):
        check_fresh(state, frontier, LAB.roster, now_ms=NOW, frozen=frozenset({"us-1"}))
    assert answered(state, LAB.roster, frozenset())
    assert not answered(state, LAB.roster, frozenset({"us-1"}))
    more = _heard("eu-1", "us-1", "ap-1", "sa-1")
    assert set(check_fresh(more, frontier, LAB.roster, now_ms=NOW, frozen=frozenset({"us-1"}))) == {"eu-1", "ap-1", "sa-1"}
    check_acts(FROZEN, more, {}, empty_log(LAB.roster.origin(ME)), wall_ms=NOW, now_ms=NOW)
    with refuses("stale"):
        check_acts(FROZEN, state, {}, empty_log(LAB.roster.origin(ME)), wall_ms=NOW, now_ms=NOW)


def test_lines_of_a_frozen_member_make_no_new_certificate_and_k_others_do() -> None:
    mine = Owner(ME)
    mine.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    pending, _ = lineage.checkpoint_due(mine.log, LAB.roster, ME, now_ms=NOW + 1_000)
    assert pending.outstanding is not None
    text = pending.outstanding.text
    own = [log_line(LAB.roster.origin(ME), ME.log_key, LAB.keys[ME.name]["log"].sign(text))]
    others = [member for member in MEMBERS if member.name not in {ME.name, OWNER.name}]
    lines = [*own, *(line(member, "attest", text) for member in (ME, OWNER, others[0]))]
    waiting, effects = lineage.take_lines(pending, LAB.roster, ME, Note(text, tuple(lines)).encode(), frozen=FROZEN.frozen)
    assert not effects
    last = Note(text, (line(others[1], "attest", text),)).encode()
    _, effects = lineage.take_lines(waiting, LAB.roster, ME, last, frozen=FROZEN.frozen)
    (certificate,) = [effect.note for effect in only(PutNote, effects) if effect.space == "certificate"]
    assert attest_name(LAB.roster.mesh, OWNER.name) not in {each.name for each in parse_note(certificate).lines}


def test_of_a_frozen_members_log_nothing_new_is_cosigned_and_what_was_final_is_still_taken() -> None:
    owner, mine = _owner(3), Finder(FROZEN)
    assert not only(Sign, mine.batch(batch(owner, note=owner.note())))
    assert mine.state.frontier.size == 0
    assert only(SetHead, mine.note(owner.note(*MEMBERS[:3]))), "a certificate was made before, or by who did not know"
    assert mine.state.frontier.size == 3
    owner.decide(LAB.request(LAB.intent(9, at_ms=NOW)[1], []))
    assert not mine.batch(batch(owner, 3, note=owner.note()))
    assert mine.tick() == [], "and nothing more is asked for"


def test_a_frozen_member_is_not_even_told_again_what_was_cosigned_before() -> None:
    owner, mine = _owner(3), Finder()
    assert only(Sign, mine.batch(batch(owner, note=owner.note())))
    assert only(Sign, mine.note(owner.note()))
    mine.governance = FROZEN
    assert not only(Sign, mine.note(owner.note()))


def test_a_governor_whose_own_key_has_signed_two_histories_decides_nothing() -> None:
    mesh = LittleMesh(LAB)
    mesh.deliver("eu-1", LawArrived(pack(LawBatch(statements=[msgspec.Raw(two_roots(LAB.roster, OWNER.name, KEY).envelope)])), "us-1"))
    mesh.run(3)
    answers = {
        name: mesh.request(name, LAB.request(LAB.intent(number, at_ms=mesh.now_ms)[1], [])) for number, name in enumerate(mesh.nodes)
    }
    assert {name for name, answer in answers.items() if isinstance(answer, Authorized)} == {"eu-1", "ap-1", "sa-1"}
    no = answers[OWNER.name]
    assert isinstance(no, DeniedAnswer)
    assert envelope.read(Denial, bytes(no.denial)).claims.code == "member_frozen"


class Caught(Bench):
    """An enforcer that holds a proof against that governor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.vouching = ("anna", "bert", "cleo", "dora")

    def view(self) -> Any:
        view = super().view()
        governance = frozen(view.governance, self.name, kit.member_key(self.name, "log"))
        fresh = kit.fresh_view(governance, self.boot, at_ms=self.heard_ms, names=self.vouching)
        return msgspec.structs.replace(view, governance=governance, fresh=fresh)


def test_an_enforcer_starts_nothing_that_a_frozen_governor_signed_and_everything_that_others_did() -> None:
    assert refused(Caught("anna")) == "member_frozen"
    assert Caught("bert").admit().lease_ms


def test_a_pending_start_is_refused_once_its_governor_is_frozen_and_running_work_ends_at_once() -> None:
    grant, later = Bench().admit(), Caught("anna")
    with refuses("member_frozen"):
        recheck(grant, place=later.place(), view=later.view())
    with refuses("member_frozen"):
        watch(Running(grant), place=later.place(), view=later.view())
    assert watch(Running(grant), place=later.place(), view=Caught("bert").view()).uncertain_ms == -1


def test_a_receipt_of_a_frozen_member_is_none_for_nothing_there_becomes_final() -> None:
    view = Caught("bert").view()
    member = view.governance.roster.member("bert")
    ref = RecordRef(origin=view.governance.roster.origin(member), index=3, leaf="aa" * 32)
    receipt = kit.sign(Receipt(mesh=kit.MESH, issuer="bert", statement="55" * 32, record=ref), kit.decision_key("bert"))
    assert check_receipt(receipt, "55" * 32, kit.governance()) == ref
    with refuses("member_frozen"):
        check_receipt(receipt, "55" * 32, view.governance)


def test_an_enforcer_counts_no_heartbeat_of_a_frozen_member() -> None:
    bench = Caught("bert")
    assert len(bench.admit().heartbeats) == 3
    bench.vouching = ("anna", "bert", "cleo")
    assert refused(bench) == "stale"


def test_the_proof_that_a_governor_held_must_be_held_here_before_anything_of_it_starts() -> None:
    bench = Bench()
    bench.frontier = Caught("bert").view().governance.frontier
    bench.authorization["frontier"] = Caught("bert").view().governance.digest
    assert refused(bench) == "frontier_behind"


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    mesh = LittleMesh(LAB)
    mesh.run(6)
    assert all(not node.state.governance.proven for node in mesh.nodes.values())
    assert all(not node.state.governance.frozen for node in mesh.nodes.values())
