"""A proof outlives its roster: whoever trusts one epoch can judge what was recorded in another, and nobody's word closes a gap."""

from collections.abc import Sequence

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Member, Role, Roster
from mesh.core.law.vouched import Vouched, vouch
from mesh.core.log.bundle import ProofBundle, Proven, encode_proof, make_proof, read_proof
from mesh.core.log.record import DecisionMade, GovernanceChanged, encode_record
from mesh.core.log.tlogproof import TlogProof
from mesh.errors import Refused
from mesh.limits import PROOF_ROSTERS_MAX
from mesh.verify import Report, verify
from tests.core.kit import refuses
from tests.protocol.machines import NOW, checkpoint
from tests.support.epochs import ALL, ROSTERS, attested_again, lived, proof, successor
from tests.support.factory import MESH, secret, sign

FIRST, SECOND, THIRD = ROSTERS
MEMBERS = {member.name: member for member in ALL.roster.members}


def _verify(data: bytes, trust: int, pin: str | None = None) -> Report:
    return verify(data, trust=ROSTERS[trust - 1].envelope, pin=pin)


def _verdict(data: bytes, trust: int) -> str:
    try:
        return _verify(data, trust).verdict
    except Refused as refusal:
        return refusal.code


def _failure(report: Report) -> tuple[str, str]:
    return next((check.name, check.code) for check in report.checks if check.result == "failed")


# -------------------------------------------------------------------------------------------------------- from epoch to epoch


@pytest.mark.parametrize("recorded", [1, 2, 3])
@pytest.mark.parametrize("trust", [1, 2, 3])
@pytest.mark.parametrize("which", ["permitted", "forbidden", "late"])
def test_a_proof_of_any_epoch_is_verified_by_whoever_trusts_any_other(recorded: int, trust: int, which: str) -> None:
    data = proof(recorded, getattr(lived(recorded), which), 1, 2, 3)
    if (recorded, trust) == (1, 3):  # of the three who made it final one has left, and two of four are no quorum's every second member
        data = _certified_again(data, "ap-1", "sa-1", "us-1")
    report = _verify(data, trust, pin=ROSTERS[trust - 1].id)
    assert report.verdict == "VERIFIED", report.checks
    as_of = 3 if (recorded, trust) == (1, 3) else recorded
    assert (report.as_of, report.roster) == (as_of, ROSTERS[as_of - 1].id)


def _certified_again(data: bytes, *names: str) -> bytes:
    """The same proof, its checkpoints attested by these."""
    bundle = read_proof(data)
    outcomes = [msgspec.structs.replace(item, proof=attested_again(item.proof, *names)) for item in bundle.outcomes]
    return encode_proof(msgspec.structs.replace(bundle, proof=attested_again(bundle.proof, *names), outcomes=outcomes))


def _final(report: Report) -> tuple[str, str]:
    return next((check.result, check.code) for check in report.checks if check.name == "final")


def test_whoever_trusts_the_epoch_of_a_certificate_believes_it_and_whoever_trusts_a_newer_one_asks_who_is_still_there() -> None:
    data = proof(1, lived(1).permitted, 1, 2, 3)
    verdicts = {trust: (report.verdict, *_final(report)) for trust in (1, 2, 3) for report in [_verify(data, trust)]}
    assert verdicts == {
        1: ("VERIFIED", "passed", ""),
        2: ("VERIFIED", "passed", ""),  # all three are there
        3: ("PARTIAL", "skipped", "former_certificate"),
    }


def test_what_is_no_more_believed_is_no_more_shown_by_leaving_rosters_away() -> None:
    """Whoever trusts the newest roster is told what lies before it, or can tell nothing."""
    for shown in ((), (1,), (1, 2), (1, 2, 3)):
        assert _verdict(proof(1, lived(1).permitted, *shown), 3) in {"PARTIAL", "FAILED"}


def test_keys_of_removed_members_make_nothing_final_however_many_there_are() -> None:
    """All who were in the first roster left one after the other; k of its keys are found together, years later."""
    everybody, spare = list(THIRD.claims.members), [_spare(number) for number in range(3)]
    chain = list(ROSTERS)
    for new, gone in zip(spare, [member.name for member in FIRST.claims.members[1:]], strict=True):
        everybody = [*everybody, new]
        chain.append(successor(chain[-1], members=everybody, k=4))
        everybody = [member for member in everybody if member.name != gone]
        chain.append(successor(chain[-1], members=everybody, k=3))
    assert not {member.name for member in everybody} & {member.name for member in FIRST.claims.members}
    forged = _governance("us-1", ["ap-1", "eu-1", "us-1"], rosters=chain)
    results = [verify(forged, trust=roster.envelope) for roster in chain]
    assert [report.verdict for report in results] == ["VERIFIED", "VERIFIED"] + ["PARTIAL"] * 7
    assert {_final(report) for report in results[2:]} == {("skipped", "former_certificate")}


def _spare(number: int) -> Member:
    key = {f"{use}_key": secret(f"spare {number} {use}").public for use in ("log", "witness", "attest", "decision")}
    return msgspec.structs.replace(FIRST.claims.members[0], name=f"spare-{number}", **key)


def test_a_later_roster_does_not_take_back_what_enough_who_are_still_there_made_final_under_an_earlier_one() -> None:
    """Four of the first roster attested it, and one of them has left."""
    report = _verify(_certified_again(proof(1, lived(1).permitted, 1, 2, 3), "ap-1", "eu-1", "sa-1", "us-1"), 3)
    final = next(check for check in report.checks if check.name == "final")
    assert (report.verdict, report.as_of, "lab/eu-1/attest" in final.detail) == ("VERIFIED", 2, True)


@pytest.mark.parametrize(("recorded", "trust", "shown"), [(2, 3, (1, 2)), (3, 1, (2, 3)), (1, 1, ()), (2, 2, (1,)), (1, 2, (1, 3))])
def test_the_trusted_roster_needs_not_be_in_the_file(recorded: int, trust: int, shown: Sequence[int]) -> None:
    report = _verify(proof(recorded, lived(recorded).permitted, *shown), trust)
    assert (report.verdict, report.as_of) == ("VERIFIED", recorded), report.checks


def test_a_replay_repeats_a_decision_under_its_own_roster() -> None:
    story = lived(3)
    report = verify(proof(3, story.permitted, 2, 3), trust=FIRST.envelope, engine=story.lab.engine)
    assert [check.result for check in report.checks if check.name == "replay"] == ["passed"]


# ------------------------------------------------------------------------------------------------------------ what leads nowhere


@pytest.mark.parametrize(
    ("recorded", "trust", "shown"), [(3, 1, (3,)), (1, 3, (1,)), (1, 3, (2,)), (3, 2, (3,)), (3, 3, (2,)), (2, 3, (2, 3))]
)
def test_a_chain_with_a_gap_fails(recorded: int, trust: int, shown: Sequence[int]) -> None:
    report = _verify(proof(recorded, lived(recorded).permitted, *shown), trust)
    assert (report.verdict, _failure(report)) == ("FAILED", ("rosters", "wrong_epoch"))


@pytest.mark.parametrize(("recorded", "trust"), [(1, 3), (3, 1), (2, 3)])
def test_without_the_rosters_between_nothing_is_verified(recorded: int, trust: int) -> None:
    assert _verify(proof(recorded, lived(recorded).permitted), trust).verdict in {"PARTIAL", "FAILED"}


def test_a_later_roster_alone_says_who_attested_and_not_what_was_in_force() -> None:
    for name in (lived(3).permitted, lived(3).late):
        report = _verify(proof(3, name), 3)
        results = {check.name: check.result for check in report.checks}
        assert (report.verdict, report.as_of, results["final"]) == ("PARTIAL", 3, "passed")
        assert "the rosters before epoch 3 are not here" in {check.detail for check in report.checks}


FORK = successor(FIRST, reason="The other second roster.", members=ALL.roster.members, k=4)
"""By the same root, and of the same epoch as the second one."""
AFTER_FORK = successor(FORK)
FOREIGN = successor(FIRST, mesh="other")
UNSIGNED = envelope.read(Roster, sign(SECOND.claims, ALL.root[0]))
STRANGER = envelope.read(Roster, sign(SECOND.claims, *ALL.root[:2], ALL.operator, secret("stranger")))
STOLEN = envelope.read(
    Roster,
    sign(msgspec.structs.replace(SECOND.claims, root=Role(keys=[secret("thief").public], threshold=1)), secret("thief"), ALL.root[0]),
)


@pytest.mark.parametrize(
    ("trust", "shown", "code"),
    [
        (2, (FIRST, FORK), "roster_conflict"),
        (3, (FIRST, FORK), "wrong_epoch"),
        (3, (FIRST, FORK, AFTER_FORK), "roster_conflict"),
        (1, (FORK, THIRD), "wrong_epoch"),
        (1, (SECOND, FORK), "non_canonical"),
        (1, (SECOND, SECOND), "non_canonical"),
        (1, (THIRD, SECOND), "non_canonical"),
        (1, (FOREIGN,), "wrong_mesh"),
        (1, (UNSIGNED,), "threshold_not_met"),
        (1, (STRANGER,), "bad_signature"),
        (3, (FIRST, STRANGER), "bad_signature"),
        (3, (FIRST, UNSIGNED), "threshold_not_met"),
        (1, (STOLEN,), "threshold_not_met"),
    ],
)
def test_a_roster_that_is_not_of_the_one_chain_fails(trust: int, shown: Sequence[Statement[Roster]], code: str) -> None:
    data = lived(1).proof(lived(1).forbidden, rosters=[item.envelope for item in shown])
    report = _verify(data, trust)
    assert (report.verdict, _failure(report)) == ("FAILED", ("rosters", code))


def test_whoever_trusts_a_later_roster_is_not_fooled_by_a_root_that_was_stolen_after_it_was_replaced() -> None:
    """The thieves of the first root sign another second roster; who trusts the first cannot tell, who trusts the second can."""
    assert vouch(FIRST, [FORK]).of(2) == FORK.claims
    with refuses("roster_conflict"):
        vouch(SECOND, [FIRST, FORK])


def test_one_changed_byte_of_a_roster_is_never_verified() -> None:
    data = proof(3, lived(3).late, 1, 2)
    begin = data.index(b'"rosters":')
    assert _verdict(data, 3) == "VERIFIED"
    for at in range(begin, len(data)):
        changed = data[:at] + bytes([data[at] ^ (0x01, 0x20, 0x80)[at % 3]]) + data[at + 1 :]
        assert _verdict(changed, 3) not in {"VERIFIED", "PARTIAL"}, (at, data[max(0, at - 40) : at + 40])


def test_one_changed_byte_of_a_proof_with_rosters_is_never_verified() -> None:
    data = proof(3, lived(3).forbidden, 2, 3)
    assert _verdict(data, 1) == "VERIFIED"
    for at in range(0, data.index(b'"rosters":'), 3):
        changed = data[:at] + bytes([data[at] ^ (0x01, 0x20, 0x80)[at % 3]]) + data[at + 1 :]
        assert _verdict(changed, 1) not in {"VERIFIED", "PARTIAL"}, (at, data[max(0, at - 40) : at + 40])


def test_as_many_rosters_as_a_file_may_hold_are_read_and_one_more_is_not() -> None:
    late = read_proof(proof(1, lived(1).late))
    most = [msgspec.Raw(FIRST.envelope)] * PROOF_ROSTERS_MAX
    assert len(read_proof(encode_proof(msgspec.structs.replace(late, rosters=most))).rosters) == PROOF_ROSTERS_MAX
    with refuses("malformed"):
        read_proof(encode_proof(msgspec.structs.replace(late, rosters=[*most, most[0]])))


# ----------------------------------------------------------------------------------------------------------------- who attested


def _governance(owner: str, attesters: Sequence[str], *, rosters: Sequence[Statement[Roster]] = ROSTERS) -> bytes:
    """The proof of a record about governance in the log of ``owner``, which these attested."""
    member = MEMBERS[owner]
    record = GovernanceChanged(mesh=MESH, origin=FIRST.claims.origin(member), index=0, at_ms=NOW, change="roster", about=FIRST.id)
    leaf = encode_record(record)
    note = checkpoint([leaf], *(MEMBERS[name] for name in attesters), owner=member)
    proven = Proven(record=msgspec.Raw(leaf), proof=TlogProof(index=0, path=(), note=note).encode().decode(), bodies=[])
    return encode_proof(make_proof(proven, rosters=[item.envelope for item in rosters]))


@pytest.mark.parametrize(
    ("owner", "attesters", "verdict", "as_of"),
    [
        ("us-1", ["ap-1", "sa-1", "us-1"], "VERIFIED", 3),
        ("us-1", ["ap-1", "eu-1", "us-1"], "VERIFIED", 1),
        ("eu-1", ["ap-1", "eu-1", "us-1"], "VERIFIED", 1),
        ("eu-1", ["af-1", "ap-1", "us-1"], "VERIFIED", 3),
        ("af-1", ["af-1", "ap-1", "us-1"], "VERIFIED", 3),
        ("us-1", ["af-1", "ap-1", "eu-1", "us-1"], "VERIFIED", 2),
        ("us-1", ["af-1", "eu-1", "us-1"], "PARTIAL", 1),
        ("us-1", ["af-1", "us-1"], "PARTIAL", 1),
        ("us-1", ["ap-1", "eu-1"], "PARTIAL", 1),
        ("af-1", ["af-1"], "PARTIAL", 1),
    ],
)
def test_a_record_is_final_by_k_members_of_one_roster_and_never_of_several_together(
    owner: str, attesters: list[str], verdict: str, as_of: int
) -> None:
    report = _verify(_governance(owner, attesters), 1)
    assert (report.verdict, report.as_of) == (verdict, as_of), report.checks


def test_whoever_is_in_no_roster_of_the_file_has_no_log_and_no_say() -> None:
    assert _failure(_verify(_governance("af-1", ["ap-1", "eu-1", "us-1"], rosters=[]), 1)) == ("record", "unknown_member")
    assert _failure(_verify(_governance("us-1", ["af-1", "ap-1", "us-1"], rosters=[]), 1)) == ("final", "bad_signature")


def _certified_by(epoch: int, *names: str) -> ProofBundle:
    """A decision of that epoch with nobody's lines but these."""
    bundle = read_proof(proof(epoch, lived(epoch).forbidden, 1, 2, 3))
    node = lived(epoch).mesh.nodes["ap-1"]
    size = TlogProof.parse(bundle.proof.encode())
    count = min(node.notes["certificate", node.origin])
    while count <= size.index:
        count = min(at for at in node.notes["certificate", node.origin] if at > count)
    leaves = node.logs[node.origin][:count]
    note = checkpoint(leaves, *(MEMBERS[name] for name in names), owner=node.machine.me)
    return msgspec.structs.replace(bundle, proof=msgspec.structs.replace(size, note=note).encode().decode())


def test_members_who_had_left_before_it_was_decided_have_no_say_in_it() -> None:
    """The keys of the first roster's quorum, found in a drawer years later."""
    old = _certified_by(3, "eu-1", "sa-1", "us-1")
    assert verify(encode_proof(old), trust=FIRST.envelope).verdict in {"PARTIAL", "FAILED"}
    new = _certified_by(3, "af-1", "sa-1", "us-1")
    assert verify(encode_proof(new), trust=FIRST.envelope).verdict == "VERIFIED"


def test_a_decision_in_a_log_that_its_roster_does_not_know_fails() -> None:
    bundle = read_proof(proof(1, lived(1).forbidden, 1, 2, 3))
    record = msgspec.json.decode(bytes(bundle.record), type=DecisionMade)
    for epoch, origin in ((3, FIRST.claims.origin(MEMBERS["eu-1"])), (1, FIRST.claims.origin(MEMBERS["af-1"]))):
        forged = encode_record(msgspec.structs.replace(record, roster_epoch=epoch, origin=origin))
        report = _verify(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(forged), proof="")), 1)
        assert _failure(report) == ("record", "unknown_member")


def test_a_decision_before_its_roster_begins_fails() -> None:
    later = successor(THIRD, not_before_ms=NOW + 1_000_000_000)
    data = lived(3).proof(lived(3).forbidden, rosters=[item.envelope for item in (*ROSTERS, later)])
    bundle = read_proof(data)
    record = msgspec.json.decode(bytes(bundle.record), type=DecisionMade)
    forged = encode_record(msgspec.structs.replace(record, roster_epoch=4))
    report = _verify(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(forged), proof="")), 1)
    assert _failure(report) == ("decision", "roster_pending")


def test_a_decision_that_names_a_roster_which_is_not_here_is_partial() -> None:
    bundle = read_proof(proof(2, lived(2).forbidden, 1, 2))
    record = msgspec.json.decode(bytes(bundle.record), type=DecisionMade)
    ahead = encode_record(msgspec.structs.replace(record, roster_epoch=9))
    report = _verify(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(ahead), proof="")), 1)
    assert report.verdict == "PARTIAL"
    assert all(check.result != "passed" for check in report.checks if check.name in {"final", "decision"})


# ---------------------------------------------------------------------------------------------------------------- whose log it is


def test_a_name_that_comes_back_with_another_key_has_two_owners_and_the_newest_first() -> None:
    back = Member(**{**msgspec.structs.asdict(MEMBERS["eu-1"]), "log_key": secret("eu log again").public})
    fourth = successor(THIRD, members=[*THIRD.claims.members, back], k=4)
    chain = vouch(FIRST, [SECOND, THIRD, fourth])
    assert chain.owners(FIRST.claims.origin(back)) == [back, MEMBERS["eu-1"]]
    with refuses("unknown_member"):
        Vouched(FIRST, (FIRST,)).owners("lab/zz-1/e1")


def test_records_of_both_owners_of_one_name_are_verified() -> None:
    back = Member(**{**msgspec.structs.asdict(MEMBERS["eu-1"]), "log_key": secret("eu log again").public})
    fourth = successor(THIRD, members=[*THIRD.claims.members, back], k=4)
    assert _verify(_governance("eu-1", ["ap-1", "eu-1", "us-1"], rosters=[*ROSTERS, fourth]), 1).verdict == "VERIFIED"
