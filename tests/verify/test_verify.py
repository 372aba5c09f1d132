"""What a proof can and cannot be made to say: one changed byte anywhere is never VERIFIED, and what is missing is said."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import canonical, envelope
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Role
from mesh.core.log.bundle import ProofBundle, Proven, encode_proof, read_proof
from mesh.core.log.note import Note, parse_note
from mesh.core.log.record import DecisionMade, Denied
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import Authorized, LineageBatch, OutcomeRequest, Prove, Proved, Pull, pack, unpack
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Event, Finished, Outcome, Unknown
from mesh.core.run.params import Opening
from mesh.errors import Refused, Unavailable
from mesh.protocol.proving import gather, proven_of, record_of
from mesh.verify import Report, verify
from tests.core.kit import flips, refuses
from tests.support.factory import Lab, RuleEngine, secret, sign
from tests.support.littlemesh import LittleMesh
from tests.support.proofs import Happened, happened

Change = Callable[[ProofBundle], ProofBundle]


def _verify(data: bytes) -> Report:
    return verify(data, trust=happened().lab.roster_envelope)


def _judged(data: bytes) -> str:
    try:
        return _verify(data).verdict
    except Refused as refusal:
        return refusal.code


def _result(report: Report, name: str) -> str:
    return next(check.result for check in report.checks if check.name == name)


def _failure(report: Report) -> tuple[str, str]:
    return next((check.name, check.code) for check in report.checks if check.result == "failed")


def _changed(bundle: ProofBundle, **parts: Any) -> ProofBundle:
    return msgspec.structs.replace(bundle, **parts)


# ------------------------------------------------------------------------------------------------------------- it verifies


@pytest.mark.parametrize("which", ["permitted", "forbidden", "late"])
def test_what_happened_is_verified(which: str) -> None:
    story = happened()
    report = _verify(story.proof(getattr(story, which)))
    assert report.verdict == "VERIFIED", report.checks
    assert report.as_of == 1
    assert report.roster == story.lab.pin


def test_own_replay_stands_beside_the_verdict() -> None:
    story = happened()
    data = story.proof(story.permitted)
    assert _result(_verify(data), "replay") == "skipped"
    report = verify(data, trust=story.lab.roster_envelope, pin=story.lab.pin, engine=story.lab.engine)
    assert (report.verdict, _result(report, "replay")) == ("VERIFIED", "passed")


def test_every_record_of_a_log_can_be_proved() -> None:
    story = happened()
    for node in story.mesh.nodes.values():
        for index in range(node.state.log.certified):
            answer = unpack(Proved, node.answer(canonical.encode(Prove(origin=node.origin, index=index))))
            bundle = gather(answer, [], manifests=[story.lab.manifest_envelope], bundles=[story.lab.bundle_bytes])
            assert _verify(encode_proof(bundle)).verdict == "VERIFIED"


def test_the_same_question_has_the_same_answer() -> None:
    data = happened().proof(happened().permitted)
    assert canonical.encode(_verify(data)) == canonical.encode(_verify(data))


# ----------------------------------------------------------------------------------------------------- one byte is changed


def test_one_changed_byte_anywhere_is_never_verified() -> None:
    data = happened().proof(happened().permitted, outcomes=1)
    assert _judged(data) == "VERIFIED"
    for at, byte in enumerate(data):
        changed = data[:at] + bytes([byte ^ (0x01, 0x20, 0x80)[at % 3]]) + data[at + 1 :]
        assert _judged(changed) not in {"VERIFIED", "PARTIAL"}, (at, data[max(0, at - 40) : at + 40])


def test_nor_in_the_proof_of_a_denial() -> None:
    data = happened().proof(happened().late)
    assert _judged(data) == "VERIFIED"
    for changed in flips(data):
        assert _judged(changed) not in {"VERIFIED", "PARTIAL"}


@given(at=st.integers(0, 20_000), length=st.integers(1, 200), other=st.binary(max_size=60))
def test_no_piece_can_be_cut_out_or_exchanged(at: int, length: int, other: bytes) -> None:
    data = happened().proof(happened().permitted)
    at %= len(data)
    changed = data[:at] + other + data[at + length :]
    assert changed == data or _judged(changed) not in {"VERIFIED", "PARTIAL"}


# ------------------------------------------------------------------------------------------------------ parts are exchanged


def _extra_line(bundle: ProofBundle) -> ProofBundle:
    tlog = TlogProof.parse(bundle.proof.encode())
    note = parse_note(tlog.note)
    stranger = msgspec.structs.replace(note.lines[-1], name="lab/zz-1/attest")
    longer = Note(note.text, (*note.lines, stranger)).encode()
    return _changed(bundle, proof=msgspec.structs.replace(tlog, note=longer).encode().decode())


def _other_order(bundle: ProofBundle) -> ProofBundle:
    tlog = TlogProof.parse(bundle.proof.encode())
    note = parse_note(tlog.note)
    lines = (*note.lines[:1], *reversed(note.lines[1:]))
    return _changed(bundle, proof=msgspec.structs.replace(tlog, note=Note(note.text, lines).encode()).encode().decode())


def _with_record_inside(bundle: ProofBundle) -> ProofBundle:
    tlog = TlogProof.parse(bundle.proof.encode())
    return _changed(bundle, proof=msgspec.structs.replace(tlog, extra=bytes(bundle.record)).encode().decode())


def _second_signature(bundle: ProofBundle) -> ProofBundle:
    lab = happened().lab
    body = envelope.read(Intent, bytes(bundle.bodies[0]))
    twice = sign(body.claims, lab.holder, lab.place_key)
    return _changed(bundle, bodies=[msgspec.Raw(twice), *bundle.bodies[1:]])


def _unsigned_policy(bundle: ProofBundle) -> ProofBundle:
    lab = happened().lab
    return _changed(bundle, manifests=[msgspec.Raw(sign(lab.manifest, lab.signers[0]))])


def _policy_by_others(bundle: ProofBundle) -> ProofBundle:
    lab = happened().lab
    return _changed(bundle, manifests=[msgspec.Raw(sign(lab.manifest, lab.signers[0], lab.root[0]))])


def _other_epoch(bundle: ProofBundle) -> ProofBundle:
    lab = happened().lab
    other = msgspec.structs.replace(lab.manifest, epoch=2, previous="ab" * 32)
    return _changed(bundle, manifests=[msgspec.Raw(sign(other, *lab.signers[:2]))])


def _other_policy(bundle: ProofBundle) -> ProofBundle:
    lab = happened().lab
    return _changed(bundle, bundles=[msgspec.Raw(canonical.encode(msgspec.structs.replace(lab.bundle, cases=[], domain="other")))])


def _foreign_outcome(bundle: ProofBundle) -> ProofBundle:
    other = happened().answers(happened().forbidden)[0]
    return _changed(bundle, outcomes=[proven_of(other)])


def _same_outcome_twice(bundle: ProofBundle) -> ProofBundle:
    return _changed(bundle, outcomes=[bundle.outcomes[0], bundle.outcomes[0]])


def _two_openings(bundle: ProofBundle) -> ProofBundle:
    return _changed(bundle, openings=[*bundle.openings, Opening(name="more", salt="00" * 16, value=1)])


def _unsorted_openings(bundle: ProofBundle) -> ProofBundle:
    return _changed(bundle, openings=[*bundle.openings, Opening(name="a", salt="00" * 16, value=1)])


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (lambda bundle: _changed(bundle, bodies=bundle.bodies[:2]), ("statements", "body_missing")),
        (lambda bundle: _changed(bundle, bodies=[*bundle.bodies[1:], bundle.bodies[0]]), ("statements", "record_invalid")),
        (_second_signature, ("statements", "bad_signature")),
        (_extra_line, ("final", "bad_signature")),
        (_other_order, ("final", "non_canonical")),
        (_with_record_inside, ("inclusion", "bad_proof")),
        (_unsigned_policy, ("policy", "threshold_not_met")),
        (_policy_by_others, ("policy", "bad_signature")),
        (_other_epoch, ("policy", "digest_mismatch")),
        (_other_policy, ("policy", "digest_mismatch")),
        (lambda bundle: _changed(bundle, bundles=[]), ("policy", "body_missing")),
        (_two_openings, ("decision", "body_missing")),
        (_unsorted_openings, ("decision", "non_canonical")),
        (_foreign_outcome, ("outcome 0: outcome", "record_invalid")),
        (_same_outcome_twice, ("order", "non_canonical")),
    ],
)
def test_a_part_that_does_not_belong_fails(change: Change, failure: tuple[str, str]) -> None:
    bundle = read_proof(happened().proof(happened().permitted))
    report = _verify(encode_proof(change(bundle)))
    assert (report.verdict, _failure(report)) == ("FAILED", failure)


def test_another_domains_activations_do_not_belong() -> None:
    lab, bundle = happened().lab, read_proof(happened().proof(happened().forbidden))
    other = Role(keys=[secret("other's signer").public], threshold=1)
    both = lab.seal(msgspec.structs.replace(lab.roster, policy={**lab.roster.policy, "other": other}))
    mine = lab.activation(envelope.read(Manifest, lab.manifest_envelope), ([], 0)).claims
    theirs = sign(msgspec.structs.replace(mine, domain="other"), secret("other's signer"))
    assert verify(encode_proof(bundle), trust=both).verdict == "VERIFIED"
    report = verify(encode_proof(_changed(bundle, activations=[msgspec.Raw(theirs)])), trust=both)
    assert (report.verdict, _failure(report)) == ("FAILED", ("policy", "digest_mismatch"))


def test_a_denial_carries_no_policy() -> None:
    bundle = read_proof(happened().proof(happened().late))
    report = _verify(encode_proof(_changed(bundle, bundles=[msgspec.Raw(happened().lab.bundle_bytes)])))
    assert (report.verdict, _failure(report)) == ("FAILED", ("policy", "record_invalid"))


def test_the_record_of_another_mesh_fails() -> None:
    bundle = read_proof(happened().proof(happened().late))
    record = bytes(bundle.record).replace(b'"mesh":"lab"', b'"mesh":"bal"')
    assert _failure(_verify(encode_proof(_changed(bundle, record=msgspec.Raw(record))))) == ("record", "wrong_mesh")


def test_the_record_of_a_stranger_fails() -> None:
    bundle = read_proof(happened().proof(happened().late))
    record = bytes(bundle.record).replace(b"lab/ap-1/e1", b"lab/zz-1/e1")
    assert _failure(_verify(encode_proof(_changed(bundle, record=msgspec.Raw(record))))) == ("record", "unknown_member")


# --------------------------------------------------------------------------------------------------------- PARTIAL says why


def test_erased_openings_leave_a_partial_proof() -> None:
    bundle = read_proof(happened().proof(happened().permitted))
    report = _verify(encode_proof(_changed(bundle, openings=[])))
    assert (report.verdict, _result(report, "decision"), _result(report, "final")) == ("PARTIAL", "skipped", "passed")


def test_a_record_is_partial_until_k_have_attested_it() -> None:
    bundle = read_proof(happened().proof(happened().forbidden))
    tlog = TlogProof.parse(bundle.proof.encode())
    note = parse_note(tlog.note)
    fewer = msgspec.structs.replace(tlog, note=Note(note.text, note.lines[:-1]).encode())
    report = _verify(encode_proof(_changed(bundle, proof=fewer.encode().decode())))
    assert (report.verdict, _result(report, "final"), _result(report, "inclusion")) == ("PARTIAL", "skipped", "passed")


def test_a_record_that_nobody_signed_is_partial() -> None:
    bundle = read_proof(happened().proof(happened().forbidden))
    report = _verify(encode_proof(_changed(bundle, proof="")))
    assert (report.verdict, _result(report, "final"), _result(report, "inclusion")) == ("PARTIAL", "skipped", "skipped")


def test_an_outcome_that_is_not_final_makes_it_partial() -> None:
    bundle = read_proof(happened().proof(happened().permitted))
    first = Proven(record=bundle.outcomes[0].record, proof="", bodies=bundle.outcomes[0].bodies)
    report = _verify(encode_proof(_changed(bundle, outcomes=[first])))
    assert report.verdict == "PARTIAL"


def test_a_denial_without_its_intent_is_partial() -> None:
    bundle = read_proof(happened().proof(happened().late))
    report = _verify(encode_proof(_changed(bundle, bodies=[])))
    assert (report.verdict, _result(report, "statements")) == ("PARTIAL", "skipped")


def test_a_tlog_proof_proves_its_record_and_no_more() -> None:
    story = happened()
    answer = story.answers(story.forbidden)[0]
    tlog = msgspec.structs.replace(TlogProof.parse(answer.proof.encode()), extra=bytes(answer.batch.records[0]))
    report = _verify(tlog.encode())
    assert (report.verdict, _result(report, "final"), _result(report, "statements")) == ("PARTIAL", "passed", "skipped")
    with refuses("malformed"):
        _verify(msgspec.structs.replace(tlog, extra=b"").encode())


# -------------------------------------------------------------------------------------------------------------------- trust


def test_a_pin_names_the_one_roster() -> None:
    with refuses("wrong_epoch"):
        verify(happened().proof(happened().late), trust=happened().lab.roster_envelope, pin="00" * 32)


def test_a_roster_below_its_threshold_is_no_anchor() -> None:
    lab = happened().lab
    with refuses("threshold_not_met"):
        verify(happened().proof(happened().late), trust=sign(lab.roster, lab.root[0]))


def test_a_roster_with_other_keys_refutes_the_proof() -> None:
    lab = happened().lab
    other = msgspec.structs.replace(lab.roster, issuers=Role(keys=[lab.place_key.public], threshold=1))
    report = verify(happened().proof(happened().forbidden), trust=lab.seal(other))
    assert (report.verdict, _failure(report)) == ("FAILED", ("statements", "bad_signature"))


def test_a_roster_of_another_epoch_alone_leaves_a_decision_partial() -> None:
    lab = happened().lab
    other = msgspec.structs.replace(lab.roster, epoch=2)
    report = verify(happened().proof(happened().forbidden), trust=lab.seal(other))
    assert report.verdict == "PARTIAL"
    assert [check.name for check in report.checks if check.result == "skipped"] == ["final", "policy", "decision", "replay"]


# ------------------------------------------------------------------------------------------------------------------- replay


class _Engine(RuleEngine):
    def __init__(self, answer: Callable[[], Verdict | None], profile: str = RuleEngine.profile) -> None:
        self.answer = answer
        self.profile = profile

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        return [self.answer() for _ in requests]


def _broken() -> Verdict:
    raise Unavailable("engine_unavailable", "out of order")


@pytest.mark.parametrize(
    ("engine", "verdict", "replay"),
    [
        (_Engine(lambda: Verdict(allow=False, determining=(), errors=())), "FAILED", "failed"),
        (_Engine(lambda: Verdict(allow=True, determining=("small-payments",), errors=("never-frozen: overflow",))), "FAILED", "failed"),
        (_Engine(lambda: None), "VERIFIED", "skipped"),
        (_Engine(_broken), "VERIFIED", "skipped"),
        (_Engine(_broken, profile="cedar-5/1"), "VERIFIED", "skipped"),
    ],
)
def test_an_engine_that_disagrees_refutes_and_one_that_cannot_answer_does_not(engine: _Engine, verdict: str, replay: str) -> None:
    story = happened()
    report = verify(story.proof(story.permitted), trust=story.lab.roster_envelope, engine=engine)
    assert (report.verdict, _result(report, "replay")) == (verdict, replay)


def test_a_record_that_claims_what_does_not_follow_fails_without_an_engine() -> None:
    story, forged = happened(), msgspec.structs.replace
    record = record_of(story.answers(story.forbidden)[0])
    assert isinstance(record, DecisionMade)
    lie = forged(record, decision=forged(record.decision, effect="permit", determining=["small-payments"]))
    bundle = read_proof(story.proof(story.forbidden))
    report = _verify(encode_proof(_changed(bundle, record=msgspec.Raw(canonical.encode(lie)), proof="")))
    assert _failure(report) == ("decision", "replay_mismatch")


def test_a_pulled_batch_of_many_is_no_proof_of_one() -> None:
    node = happened().mesh.nodes["us-1"]
    batch = unpack(LineageBatch, node.pulled(Pull(origin=node.origin, first=0, count=3)))
    with refuses("malformed"):
        record_of(Proved(batch=batch, proof=""))


def test_a_proof_needs_the_policy_that_decided() -> None:
    story = happened()
    for manifests, bundles in (([], [story.lab.bundle_bytes]), ([story.lab.manifest_envelope], [])):
        with refuses("not_found"):
            gather(story.answers(story.forbidden)[0], [], manifests=manifests, bundles=bundles)


# --------------------------------------------------------------------------------------------------------------- who may say it


def _told_by(key: str, event: Event, *, boot: str = "b0" * 32, domain: str = "payments") -> str:
    """What `verify` answers about a permit whose outcome an issued enforcer has signed."""
    lab = Lab()
    mesh = LittleMesh(lab)
    intent, data, openings = lab.intent(1, at_ms=mesh.now_ms)
    answer = mesh.request("eu-1", lab.request(data, openings))
    assert isinstance(answer, Authorized)
    signer = secret(key)
    place = msgspec.structs.replace(lab.place, key=signer.public, subject=f"spiffe://lab/enforcer/{key}")
    outcome = Outcome(
        mesh="lab",
        enforcer=signer.public,
        identity=envelope.draft(place).id,
        boot=boot,
        sequence=0,
        previous="",
        domain=domain,
        intent=intent,
        authorization=envelope.identify(bytes(answer.authorization))[1],
        at_ms=mesh.now_ms,
        event=event,
    )
    raw = msgspec.Raw
    mesh.report("us-1", pack(OutcomeRequest(identity=raw(sign(place, lab.issuer)), outcomes=[raw(sign(outcome, signer))])))
    mesh.run(6)
    story = Happened.__new__(Happened)
    story.lab, story.mesh = lab, mesh
    report = verify(story.proof(intent), trust=lab.roster_envelope)
    assert len(story.answers(intent)) == 2, "it was taken in and is final"
    return report.verdict if report.verdict == "VERIFIED" else " ".join(_failure(report))


ENDED = Finished(status=0, outputs=[], duration_ms=1)
FORMER = Unknown(boot="b0" * 32)


def test_the_end_of_an_execution_is_said_by_the_enforcer_and_boot_that_it_was_meant_for() -> None:
    assert _told_by("enforcer", ENDED) == "VERIFIED"
    assert _told_by("enforcer", FORMER, boot="cc" * 32) == "VERIFIED"
    nobody = "outcome 0: outcome record_invalid"
    assert _told_by("rogue", ENDED) == nobody
    assert _told_by("rogue", FORMER) == nobody
    assert _told_by("enforcer", ENDED, boot="cc" * 32) == nobody
    assert _told_by("enforcer", Unknown(boot="cc" * 32)) == nobody
    assert _told_by("enforcer", ENDED, domain="other") == nobody


def _framed(bundle: ProofBundle, intent: bytes, identity: bytes) -> Report:
    """The proof of a denial with another asker, as a log could have it that holds whatever its owner wants."""
    record = msgspec.convert(msgspec.json.decode(bytes(bundle.record)), Denied)
    forged = msgspec.structs.replace(record, intent=envelope.identify(intent)[1], identity=envelope.identify(identity)[1])
    bodies = [msgspec.Raw(intent), msgspec.Raw(identity)]
    return _verify(encode_proof(_changed(bundle, record=msgspec.Raw(canonical.encode(forged)), bodies=bodies, proof="")))


def test_nobody_is_proved_to_have_asked_by_a_key_that_is_not_theirs() -> None:
    lab, bundle = happened().lab, read_proof(happened().proof(happened().late))
    mallory = secret("mallory")
    asked = envelope.read(Intent, bytes(bundle.bodies[0])).claims
    document = envelope.read(Identity, lab.identity_envelope).claims
    theirs = sign(msgspec.structs.replace(asked, holder=mallory.public), mallory)
    assert _failure(_framed(bundle, theirs, lab.identity_envelope)) == ("statements", "identity_mismatch")
    made_up = sign(msgspec.structs.replace(document, key=mallory.public), mallory)
    named = msgspec.structs.replace(asked, holder=mallory.public, identity=envelope.identify(made_up)[1])
    assert _failure(_framed(bundle, sign(named, mallory), made_up)) == ("statements", "bad_signature")
    other = lab.identity("spiffe://lab/agent/mallory", mallory, groups=[])
    own = msgspec.structs.replace(asked, subject="spiffe://lab/agent/mallory", holder=mallory.public, identity=envelope.identify(other)[1])
    assert _failure(_framed(bundle, sign(own, mallory), other)) == ("statements", "record_invalid")
    assert _framed(bundle, bytes(bundle.bodies[0]), lab.identity_envelope).verdict == "PARTIAL", "true, but nobody has attested it"
