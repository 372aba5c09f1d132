"""The vectors on disk hold against the code, run from the files alone as any other implementation would run them."""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import blake3
import msgspec
import pytest
import rfc8785
from nacl.signing import SigningKey

from mesh.adapters.cedar import CedarEngine
from mesh.adapters.decision_thread import DecisionThread
from mesh.codes import CODES
from mesh.contracts.example import base
from mesh.contracts.jsonschema import known_kinds, record_tags
from mesh.contracts.vectors import cases
from mesh.core import messages
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import KINDS
from mesh.core.law.policy import read_bundle
from mesh.core.law.proof import Proof
from mesh.core.law.proofs import judge_proof, read_proof
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import AddCheckpoint, open_checkpoint, read_checkpoint, verify_growth
from mesh.core.log.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion
from mesh.core.log.note import parse_note
from mesh.core.log.record import encode_record, read_record
from mesh.core.run.decision import Decision, EngineRequest
from mesh.verify import verify
from tests.contracts.kit import PROCEDURE, VECTORS, attesters, log_keys, vector, vectors
from tests.core.kit import refuses

STATEMENTS = vectors("statement")
REFUSED = vectors("refused")
MESSAGES = vectors("message")
RECORDS = (VECTORS / "log/records.ndjson").read_bytes().splitlines()


def test_every_kind_has_an_example() -> None:
    assert {vector(path)["kind"] for path in STATEMENTS} == set(known_kinds())


@pytest.mark.parametrize("path", STATEMENTS)
def test_a_statement_has_these_bytes_and_this_id(path: str) -> None:
    example = vector(path)
    kind = KINDS[example["kind"]]
    payload = example["payload"].encode()
    assert payload == rfc8785.dumps(json.loads(payload))
    assert payload == canonical.encode(canonical.decode(kind.payload, payload, bytes_max=kind.bytes_max))
    message = b"DSSEv1 %d %b %d %b" % (len(kind.payload_type), kind.payload_type.encode(), len(payload), payload)
    assert base64.b64decode(example["pae"]) == message
    assert example["id"] == hashlib.sha256(message).hexdigest()
    seeds = vector("keys.json")
    signatures = {
        public: SigningKey(bytes.fromhex(seeds[name]["seed"])).sign(message).signature for name, public in example["signers"].items()
    }
    assert envelope.assemble(example["payload_type"], payload, signatures) == example["envelope"].encode()


@pytest.mark.parametrize("path", STATEMENTS)
def test_a_statement_is_believed_on_the_word_of_its_signers(path: str) -> None:
    example = vector(path)
    read = envelope.read(KINDS[example["kind"]].payload, example["envelope"].encode())
    assert read.id == example["id"]
    if isinstance(read.claims, Proof):  # it is nobody's word
        assert example["signers"] == {}
        caught = judge_proof(read_proof(read.payload), base().governance.rosters)
        assert (caught.kind, caught.member) in {("same-size", "sa-1"), ("unlawful-decision", "us-1")}
        return
    read.verify_threshold(example["signers"].values(), len(example["signers"]))


@pytest.mark.parametrize("path", REFUSED)
def test_is_refused_for_the_reason_it_names(path: str) -> None:
    example = vector(path)
    assert example["code"] in CODES
    with refuses(example["code"]):
        PROCEDURE[example["procedure"]](example["input"])


@pytest.mark.parametrize("path", [path for path in REFUSED if vector(path)["procedure"] in {"verify", "threshold"}])
def test_what_is_refused_for_its_signature_can_be_read(path: str) -> None:
    PROCEDURE["read"](vector(path)["input"])


def test_no_two_refusals_are_the_same() -> None:
    assert len({json.dumps([case.procedure, case.input]) for case in cases()}) == len(cases()) == len(REFUSED)


@pytest.mark.parametrize("path", MESSAGES)
def test_a_message_is_read_and_written_again(path: str) -> None:
    data = (VECTORS / path).read_bytes()
    kind = getattr(messages, path.removeprefix("message/").removesuffix(".json").partition("-")[0])
    read = messages.unpack(kind, data)
    assert messages.pack(read) == data == rfc8785.dumps(json.loads(data))


def test_every_record_type_stands_in_the_log() -> None:
    assert {json.loads(record)["record"] for record in RECORDS} == set(record_tags())
    for index, record in enumerate(RECORDS):
        read = read_record(record)
        assert (read.index, encode_record(read)) == (index, record)


def test_the_log_has_these_roots_and_paths() -> None:
    tree = vector("log/tree.json")
    hashes = [leaf_hash(record) for record in RECORDS]
    assert [value.hex() for value in hashes] == tree["leaf_hashes"]
    roots = [Frontier.empty().extend(hashes[:size]).root() for size in range(len(hashes) + 1)]
    assert [root.hex() for root in roots] == tree["roots"]
    for index, path in tree["inclusion"].items():
        verify_inclusion(hashes[int(index)], int(index), len(hashes), roots[-1], tuple(map(bytes.fromhex, path)))
    for old, path in tree["consistency"].items():
        verify_consistency(int(old), len(hashes), roots[int(old)], roots[-1], tuple(map(bytes.fromhex, path)))
    assert sorted(map(int, tree["inclusion"])) == list(range(len(hashes)))


def test_checkpoint_and_certificate_are_believed() -> None:
    log, k = log_keys()
    checkpoint = open_checkpoint((VECTORS / "log/checkpoint.note").read_bytes(), log).checkpoint
    attested = verify_certificate((VECTORS / "log/certificate.note").read_bytes(), log=log, attesters=attesters(), k=k)
    assert attested.checkpoint == checkpoint
    assert len(attested.attestations) == k


def test_notes_show_how_far_records_have_come() -> None:
    """By hand: recorded by the log's line, witnessed with the first line of another member, final with the k-th of all."""
    (own, k), size = log_keys(), len(RECORDS)
    certificate = parse_note((VECTORS / "log/certificate.note").read_bytes())
    times = {line.name: int.from_bytes(line.signature[:8]) * 1_000 for line in certificate.lines if line.name != own.name}
    others = [time_ms for name, time_ms in times.items() if name.split("/")[1] != own.name.split("/")[1]]
    ways = [[("recorded", 0)], [("witnessed", min(others)), ("final", sorted(times.values())[k - 1])]]
    expected = [[{"state": state, "origin": own.name, "first": 0, "end": size, "at_ms": at_ms} for state, at_ms in way] for way in ways]
    assert [[json.loads(line) for line in shown["advances"]] for shown in vector("log/advances.json")] == expected


def test_a_witness_that_knows_five_records_takes_the_request() -> None:
    data = (VECTORS / "log/add-checkpoint.txt").read_bytes()
    request = AddCheckpoint.parse(data)
    new = read_checkpoint(request.note)
    old = msgspec.structs.replace(new, size=request.old, root=bytes.fromhex(vector("log/tree.json")["roots"][request.old]))
    verify_growth(old, new, request.proof)
    assert request.encode() == data
    assert request.old == 5


@pytest.fixture(scope="module")
def engine() -> Iterator[CedarEngine]:
    thread = DecisionThread()
    cedar = CedarEngine(thread)
    yield cedar
    thread.close()


def _repeated(engine: CedarEngine, which: str) -> tuple[Any, Decision]:
    digests = vector("digests.json")
    bundle = (VECTORS / digests["bundle"]["file"]).read_bytes()
    engine.load(read_bundle(bundle, digest=digests["bundle"]["digest"]), digests["bundle"]["digest"])
    told = digests[which]
    request = canonical.decode(EngineRequest, told["request"].encode(), bytes_max=100_000)
    (verdict,) = engine.evaluate(digests["bundle"]["digest"], [request])
    return verdict, canonical.decode(Decision, told["decision"].encode(), bytes_max=100_000)


@pytest.mark.parametrize(("which", "allowed"), [("permitted", True), ("denied", False)])
def test_a_real_engine_gives_these_verdicts(engine: CedarEngine, which: str, *, allowed: bool) -> None:
    verdict, decision = _repeated(engine, which)
    assert (verdict.allow, list(verdict.determining), list(verdict.errors)) == (allowed, decision.determining, decision.errors)
    assert (decision.effect == "permit") is allowed


def test_the_digests_are_over_these_bytes() -> None:
    digests = vector("digests.json")
    for one in (digests["commitment"]["opening"], *(digests[part]["canonical"] for part in ("params", "effect", "frontier"))):
        assert rfc8785.dumps(json.loads(one)) == one.encode()
    for part, name in (("commitment", "opening"), ("params", "canonical"), ("effect", "canonical"), ("frontier", "canonical")):
        assert digests[part]["sha256"] == hashlib.sha256(digests[part][name].encode()).hexdigest()
    for told in (digests["permitted"], digests["denied"]):
        assert told["decision_sha256"] == hashlib.sha256(told["decision"].encode()).hexdigest()
        assert json.loads(told["decision"])["input"] == told["input_sha256"]
    bundle = (VECTORS / digests["bundle"]["file"]).read_bytes()
    assert digests["bundle"]["digest"] == "blake3:" + blake3.blake3(bundle).hexdigest()


def test_everything_fits_together() -> None:
    by_name = {path.partition("/")[2].removesuffix(".json"): vector(path) for path in STATEMENTS}
    decision = json.loads(RECORDS[1])
    digests = vector("digests.json")
    assert decision["intent"] == by_name["intent"]["id"] == digests["permitted"]["intent"]
    assert decision["authorization"] == by_name["authorization"]["id"]
    assert json.loads(by_name["receipt"]["payload"])["record"]["leaf"] == leaf_hash(RECORDS[2]).hex()
    authorization = json.loads(by_name["authorization"]["payload"])
    assert (authorization["origin"], authorization["index"]) == (decision["origin"], decision["index"])
    assert json.loads(by_name["intent"]["payload"])["committed"]["memo"] == digests["commitment"]["sha256"]
    assert json.loads(by_name["authorization"]["payload"])["params"] == digests["params"]["sha256"]
    assert json.loads(by_name["authorization"]["payload"])["frontier"] == digests["frontier"]["sha256"]
    assert json.loads(by_name["outcome"]["payload"])["previous"] == by_name["outcome-started"]["id"]


@pytest.mark.parametrize(("name", "verdict"), [("decision.proof.json", "VERIFIED"), ("decision.tlog-proof", "PARTIAL")])
def test_the_proofs_hold_offline(engine: CedarEngine, name: str, verdict: str) -> None:
    """The tlog-proof holds no statements beside its record: what could not be checked is said, not assumed."""
    roster = vector("statement/roster.json")
    report = verify((VECTORS / "log" / name).read_bytes(), trust=roster["envelope"].encode(), pin=roster["id"], engine=engine)
    assert report.verdict == verdict
    assert [check for check in report.checks if check.result == "failed"] == []
