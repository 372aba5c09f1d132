"""Who decides what nobody else would is refused, and caught by f + 1 refusals, whenever each was heard; nobody honest is."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.law.proofs import judge_proof
from mesh.core.law.unlawful import Unlawful
from mesh.core.log.record import GovernanceChanged, Incident, Refusal, read_record
from mesh.core.messages import Accusation, Authorized, DeniedAnswer, pack, unpack
from mesh.core.run.authorization import Denial
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.protocol.accusing import AGAIN_MS, AGAIN_MS_MAX, accused_log, again_due, take_accusation
from mesh.protocol.documents import Documents
from mesh.protocol.events import AccusationArrived
from mesh.protocol.holding import MirrorContext
from mesh.protocol.refusing import refused_key
from mesh.protocol.step import PutNote, Send, SetMeta, Sign
from mesh.protocol.stored import mirror_of
from tests.core.kit import refuses
from tests.protocol.machines import LAB, ME, MESH, NOW, OWNER, Owner, batch, only, perform
from tests.protocol.test_mirror import MEMBERS, ORIGIN, Holder
from tests.support.factory import RuleEngine
from tests.support.frauds import frozen
from tests.support.littlemesh import LittleMesh, Node
from tests.support.refused import Refused

WRONG = Refused(LAB, OWNER.name)
OTHERS = ("ap-1", "eu-1", "sa-1")


class Lies(RuleEngine):
    """Permits everything, for a reason of its own."""

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        """The same for each."""
        del bundle_digest
        return [Verdict(allow=True, determining=("vault",), errors=()) for _ in requests]


class Judge(Holder):
    """A mirror that collects refusals."""

    def __init__(self, governance: Any = LAB.governance) -> None:
        super().__init__()
        self.governance = governance
        self.proofs: list[Any] = []

    def _context(self) -> MirrorContext:
        return MirrorContext(self.governance, ME, OWNER, self.writer, Documents(), self.engine, self.now_ms, self.proofs)

    def hears(self, data: bytes) -> None:
        self.state = take_accusation(self.state, data, self._context())

    def again(self, after_ms: int = 0) -> list[Any]:
        self.now_ms += after_ms
        self.state, effects = again_due(self.state, self._context())
        return effects

    @property
    def caught(self) -> list[tuple[str, int]]:
        """Member and record of each proof, judged by the roster alone."""
        judged = [judge_proof(proof, LAB.governance.rosters) for proof in self.proofs]
        return [(caught.member, caught.wrong.index) for caught in judged if caught.wrong is not None]


def _liar(honest: int = 2) -> Owner:
    """It writes honest records, one that is wrong, and one more."""
    owner = Owner()
    for number in range(honest):
        owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
    owner.write(lambda writer: GovernanceChanged(mesh=MESH, origin="lab/eu-1/e1", index=writer.index, at_ms=NOW, change="fresh", about=""))
    owner.decide(LAB.request(LAB.intent(90, at_ms=NOW)[1], []))
    return owner


def _accusation(effects: list[Any]) -> bytes:
    (send,) = [effect for effect in only(Send, effects) if ".fraud." in str(effect.to)]
    return bytes(send.build(perform(effects)))


# ------------------------------------------------------------------------------------------------------------------ it is said


@pytest.mark.parametrize("honest", [0, 1, 5])
@pytest.mark.parametrize("before", [False, True])
def test_who_finds_a_record_wrong_shows_that_its_owner_signed_it(honest: int, *, before: bool) -> None:
    owner, mine = _liar(honest), Judge()
    if before and honest:
        mine.batch(batch(owner, count=honest, note=owner.note(size=honest)))
    effects = mine.batch(batch(owner, mine.state.frontier.size, note=owner.note()))
    said = unpack(Accusation, _accusation(effects))
    refusal = envelope.read(Refusal, bytes(said.refusal)).verify(ME.decision_key)
    assert (refusal.origin, refusal.index, refusal.reason, refusal.code) == (ORIGIN, honest, "wrong", "record_invalid")
    assert accused_log(pack(said)) == ORIGIN
    other = WRONG.by("ap-1", index=honest, leaf=refusal.leaf)
    mine.hears(pack(said))
    assert mine.caught == [], "f of them are none"
    mine.hears(pack(msgspec.structs.replace(said, refusal=msgspec.Raw(other))))
    assert mine.caught == [(OWNER.name, honest)]


def test_what_cannot_be_read_is_refused_and_accuses_nobody_for_a_newer_program_may_have_written_it() -> None:
    owner, mine = Owner(), Judge()
    owner.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    owner.append(b'{"record":"nonsense"}')
    effects = mine.batch(batch(owner, count=1)) + mine.batch(
        msgspec.structs.replace(batch(owner, count=1), first=1, records=[msgspec.Raw(owner.leaves[1])], checkpoint=owner.note().decode())
    )
    said = unpack(Accusation, _accusation(effects))
    assert only(SetMeta, effects) == [SetMeta(refused_key(ORIGIN), 1)]
    assert (said.note, said.path, mine.state.refusal, mine.state.refused) == ("", [], b"", 1)
    assert mine.again(AGAIN_MS_MAX) == []


def test_what_is_missing_or_final_is_refused_without_what_could_become_a_proof() -> None:
    owner, mine = _liar(), Judge()
    effects = mine.batch(batch(owner, note=owner.note(*MEMBERS[:3])))
    said = unpack(Accusation, _accusation(effects))
    assert (said.note, said.path, mine.state.refusal) == ("", [], b"")
    assert mine.again(AGAIN_MS_MAX) == []
    late, mute = Owner(), Judge()
    late.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    lacking = batch(late, note=late.note(), without=list(late.bodies))
    mute.batch(lacking)
    mute.now_ms += LAB.roster.bounds.attest_stall_ms + 1
    effects = mute.batch(lacking)
    said = unpack(Accusation, _accusation(effects))
    assert envelope.read(Refusal, bytes(said.refusal)).claims.reason == "missing"
    assert (said.note, mute.state.refusal) == ("", b"")


def test_it_is_said_again_at_a_slow_rate_the_same_bytes_also_after_a_restart_until_its_owner_is_caught() -> None:
    owner, mine = _liar(), Judge()
    effects = mine.batch(batch(owner, note=owner.note()))
    first, (kept,) = _accusation(effects), [effect for effect in only(PutNote, effects) if effect.space == "refused"]
    assert mine.again(AGAIN_MS - 1) == []
    assert _accusation(mine.again(1)) == first
    for wait_ms in (2 * AGAIN_MS, 4 * AGAIN_MS, AGAIN_MS_MAX, AGAIN_MS_MAX):
        assert mine.again(wait_ms - 1) == []
        assert _accusation(mine.again(1)) == first
    stored = mirror_of(ORIGIN, None)
    mine.state = msgspec.structs.replace(stored, refusal=kept.note, refused=2)
    assert _accusation(mine.again()) == first
    mine.governance = frozen(LAB.governance, OWNER.name, LAB.keys[OWNER.name]["log"])
    assert mine.again(AGAIN_MS_MAX) == []
    mine.governance = LAB.governance
    mine.state = msgspec.structs.replace(mine.state, certified=3)
    assert mine.again(AGAIN_MS_MAX) == [], "it has become final without me"


# ------------------------------------------------------------------------------------------------------------------ it is heard


def test_those_of_f_and_one_make_a_proof_in_any_order_and_i_need_not_find_it_wrong_myself() -> None:
    mine = Judge()
    for _ in range(3):
        mine.hears(WRONG.accusation("sa-1"))
    assert mine.caught == []
    mine.hears(WRONG.accusation("ap-1"))
    assert mine.caught == [(OWNER.name, WRONG.index)]
    assert isinstance(mine.proofs[0].claims, Unlawful)


def test_refusals_of_other_records_are_not_added_up_and_each_members_newest_counts() -> None:
    mine, other = Judge(), Refused(LAB, OWNER.name, index=5)
    mine.hears(WRONG.accusation("sa-1"))
    mine.hears(other.accusation("ap-1"))
    assert mine.caught == []
    mine.hears(other.accusation("sa-1"))
    assert mine.caught == [(OWNER.name, 5)]
    assert len(mine.state.refusals) == 2, "one a member is kept, however many it signs"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (WRONG.accusation("ap-1", mesh="other"), "wrong_mesh"),
        (WRONG.accusation("ap-1", member="nobody"), "unknown_member"),
        (WRONG.accusation("ap-1", member="sa-1"), "bad_signature"),
        (WRONG.accusation("ap-1", index=7), "bad_proof"),
        (WRONG.accusation("ap-1", leaf="ab" * 32), "bad_proof"),
        (pack(msgspec.structs.replace(unpack(Accusation, WRONG.accusation("ap-1")), path=[])), "bad_proof"),
        (
            pack(
                msgspec.structs.replace(
                    unpack(Accusation, WRONG.accusation("ap-1")),
                    note=Refused(LAB, OWNER.name, size=9).note(LAB.keys["ap-1"]["log"]).decode(),
                )
            ),
            "bad_signature",
        ),
    ],
)
def test_nobody_refuses_in_another_ones_name_or_what_was_never_written(data: bytes, code: str) -> None:
    mine = Judge()
    with refuses(code):
        mine.hears(data)
    assert mine.state.refusals == {}


def test_what_proves_nothing_is_not_even_kept() -> None:
    mine = Judge()
    mine.hears(WRONG.accusation("ap-1", reason="missing"))
    mine.hears(WRONG.accusation("ap-1", shown=False))
    mine.state = msgspec.structs.replace(mine.state, certified=WRONG.index + 1)
    mine.hears(WRONG.accusation("ap-1"))
    mine.state = msgspec.structs.replace(mine.state, certified=0, left=True)
    mine.hears(WRONG.accusation("ap-1"))
    assert mine.state.refusals == {}
    mine.state = msgspec.structs.replace(mine.state, left=False)
    for name in (OWNER.name, "ap-1"):
        mine.hears(WRONG.accusation(name))
    assert mine.caught == [], "what its owner says of itself is not counted"


# ------------------------------------------------------------------------------------------------------------------ all of it


def _incidents(mesh: LittleMesh, name: str) -> list[Incident]:
    node = mesh.nodes[name]
    records = [read_record(leaf) for leaf in node.logs[node.origin]]
    return [record for record in records if isinstance(record, Incident) and record.code == "member_frozen"]


def test_a_governor_that_permits_what_policy_denies_is_caught_by_all_and_its_record_is_never_final() -> None:
    mesh = LittleMesh(LAB)
    liar = mesh.nodes[OWNER.name]
    liar.machine.engine = Lies()
    certified = liar.state.log.certified
    mesh.request(OWNER.name, LAB.request(LAB.intent(7, at_ms=mesh.now_ms)[1], []))
    (index,) = [number for number, leaf in enumerate(liar.logs[ORIGIN]) if b'"record":"decision"' in leaf]
    mesh.run(8)
    for name in OTHERS:
        node = mesh.nodes[name]
        assert node.state.governance.frozen == {OWNER.name}
        assert node.state.mirrors[ORIGIN].certified <= index
        head = node.state.mirrors[ORIGIN].attested
        assert head is None or head.size <= index
        (incident,) = _incidents(mesh, name)
        assert f"signed record {index} of {ORIGIN}: replay_mismatch" in incident.detail
        assert node.state.was_fresh, "k others are enough"
    assert certified <= liar.state.log.certified <= index
    no = mesh.request(OWNER.name, LAB.request(LAB.intent(8, at_ms=mesh.now_ms)[1], []))
    assert isinstance(no, DeniedAnswer), "a process whose key is caught decides nothing, if it is honest now"
    assert envelope.read(Denial, bytes(no.denial)).claims.code == "member_frozen"
    assert isinstance(mesh.request("eu-1", LAB.request(LAB.intent(9, at_ms=mesh.now_ms)[1], [])), Authorized)


def test_a_member_that_was_away_as_others_refused_hears_it_again_and_holds_the_proof() -> None:
    mesh = LittleMesh(LAB)
    refusal = {name: WRONG.accusation(name) for name in OTHERS}
    mesh.deliver("eu-1", AccusationArrived(refusal["ap-1"]))
    assert mesh.nodes["eu-1"].state.governance.frozen == frozenset()
    mesh.deliver("eu-1", AccusationArrived(refusal["sa-1"]))
    mesh.run(6)
    assert {frozenset(node.state.governance.frozen) for node in mesh.nodes.values()} == {frozenset({OWNER.name})}, "all pull the proof"


class Deaf(LittleMesh):
    """What is said of refused records is lost, until somebody listens."""

    listens = False

    def _publish(self, node: Node, subject: str, data: bytes) -> None:
        if self.listens or ".fraud." not in subject:
            super()._publish(node, subject, data)


def test_refusals_that_were_all_lost_are_said_again_and_who_lied_is_caught_then() -> None:
    mesh = Deaf(LAB)
    mesh.nodes[OWNER.name].machine.engine = Lies()
    mesh.request(OWNER.name, LAB.request(LAB.intent(7, at_ms=mesh.now_ms)[1], []))
    mesh.run(4)
    honest = [mesh.nodes[name] for name in OTHERS]
    assert all(node.state.mirrors[ORIGIN].refusal and not node.state.governance.frozen for node in honest)
    mesh.listens = True
    mesh.run(AGAIN_MS // 300 + 2)
    assert {frozenset(node.state.governance.frozen) for node in honest} == {frozenset({OWNER.name})}


def test_an_honest_mesh_refuses_nothing_and_no_single_member_freezes_anybody() -> None:
    mesh = LittleMesh(LAB)
    for number, name in enumerate(mesh.nodes):
        mesh.request(name, LAB.request(LAB.intent(number, at_ms=mesh.now_ms)[1], []))
    mesh.run(6)
    assert not any(node.state.mirrors[origin].refusal for node in mesh.nodes.values() for origin in node.state.mirrors)
    for name in mesh.nodes:
        for _ in range(3):
            mesh.deliver(name, AccusationArrived(WRONG.accusation("ap-1")))
            mesh.deliver(name, AccusationArrived(WRONG.accusation("ap-1", at_ms=7)))
    mesh.run(6)
    assert all(not node.state.governance.proven for node in mesh.nodes.values())


def test_what_a_governor_says_of_a_record_is_signed_by_its_decision_key_alone() -> None:
    owner, mine = _liar(), Judge()
    effects = mine.batch(batch(owner, note=owner.note()))
    signs = [effect for effect in only(Sign, effects) if effect.use == "decision"]
    assert len(signs) == 1
