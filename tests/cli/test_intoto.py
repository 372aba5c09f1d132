"""What leaves as an in-toto attestation is one to in-toto's own reader, says what the proof says, and is signed by whoever judged it."""

import base64
import json
from pathlib import Path
from typing import Any

import blake3
import msgspec
import pytest
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # pyright: ignore[reportPrivateImportUsage] -- as its documentation has it

from mesh.adapters.signer import generate
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.run.intent import Intent, Measurement
from mesh.core.run.outcome import Blocked, Finished
from mesh.protocol.intoto import PREDICATE_TYPE
from tests.cli.shell import Shell
from tests.contracts.jsonschematext import violations
from tests.contracts.kit import SCHEMAS
from tests.support.factory import sign


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate(tmp_path / "auditor.key", "attestation", bytes(32))
    return tmp_path / "auditor.key"


def _read(data: str) -> dict[str, Any]:
    """The statement, as in-toto's own types read it: an unknown member is an error there."""
    payload = base64.b64decode(json.loads(data)["payload"])
    statement = Statement([], "", {})
    json_format.Parse(payload, statement.pb)
    statement.validate()
    found: dict[str, Any] = json.loads(payload)
    return found


def test_it_is_a_statement_to_in_toto_and_an_envelope_to_securesystemslib(shell: Shell, key: Path) -> None:
    status, out, _ = shell.run("prove", shell.story.permitted, "--format", "in-toto", "--sign", str(key))
    assert status == 0
    said = _read(out)
    assert (said["_type"], said["predicateType"]) == ("https://in-toto.io/Statement/v1", PREDICATE_TYPE)
    wire = json.loads(out)
    line = wire["signatures"][0]
    sealed = Envelope.from_dict(json.loads(out))
    public = SSlibKey(line["keyid"], "ed25519", "ed25519", {"public": line["keyid"]})
    assert sealed.payload_type == "application/vnd.in-toto+json"
    assert list(sealed.verify([public], 1)) == [line["keyid"]]
    other = SSlibKey(line["keyid"], "ed25519", "ed25519", {"public": shell.story.lab.holder.public})
    with pytest.raises(VerificationError):
        sealed.verify([other], 1)


def test_the_predicate_says_what_the_proof_says_and_fits_its_schema(shell: Shell, key: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    shell.run("prove", shell.story.permitted, "-o", str(proof))
    predicate = _read(shell.run("prove", shell.story.permitted, "--format", "in-toto", "--sign", str(key))[1])["predicate"]
    bundle = json.loads(proof.read_bytes())
    assert predicate["decision"] == bundle["record"]["decision"]
    assert predicate["authorization"] == shell.story.authorization == bundle["record"]["authorization"]
    assert (predicate["record"]["origin"], predicate["record"]["index"]) == ("lab/eu-1/e1", 2)
    assert predicate["certificate"] == bundle["proof"].partition("\n\n")[2]
    assert [(one["event"], one["status"]) for one in predicate["outcomes"]] == [("started", []), ("finished", [0])]
    assert predicate["judged"] == {"roster": shell.story.lab.pin, "roster_epoch": 1, "verdict": "VERIFIED"}
    assert predicate["proof"]["digest"] == {"sha256": canonical.sha256_hex(proof.read_bytes())}
    described = SCHEMAS / "in-toto" / "execution.schema.json"
    assert violations(described, predicate) == []
    assert violations(described, {**predicate, "more": 1}) != []
    assert json.loads(described.read_bytes())["x-predicate-type"] == PREDICATE_TYPE
    assert "for the flat" not in json.dumps(predicate), "no parameter is in it"


def test_the_proof_that_an_attestation_names_is_written_beside_it(shell: Shell, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.dsse"
    assert shell.run("prove", shell.story.permitted, "--format", "in-toto", "--sign", str(key), "-o", str(out))[0] == 0
    named = _read(out.read_text())["predicate"]["proof"]["digest"]["sha256"]
    assert canonical.sha256_hex((tmp_path / "run.dsse.proof.json").read_bytes()) == named


def test_where_nothing_was_measured_the_subject_is_the_intent(shell: Shell, key: Path) -> None:
    said = _read(shell.run("prove", shell.story.forbidden, "--format", "in-toto", "--sign", str(key))[1])
    assert said["subject"] == [{"digest": {"sha256": shell.story.forbidden}, "name": "intent"}]
    assert (said["predicate"]["decision"]["effect"], said["predicate"]["outcomes"]) == ("deny", [])


def test_the_subjects_are_what_was_measured_under_in_totos_names(own: Shell, key: Path) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    digest = blake3.blake3(b"script").hexdigest()
    measured = [Measurement(name="interpreter", digest="sha256:" + "ab" * 32), Measurement(name="script", digest=f"blake3:{digest}")]
    claims = envelope.read(Intent, lab.intent(60, at_ms=mesh.now_ms)[1]).claims
    intent = sign(msgspec.structs.replace(claims, measurements=measured), lab.holder)
    name = envelope.identify(intent)[1]
    answer: Any = mesh.request("eu-1", lab.request(intent, []))
    authorization = envelope.identify(bytes(answer.authorization))[1]
    made = Finished(status=3, outputs=[Measurement(name="stdout", digest="sha256:" + "cd" * 32)], duration_ms=1)
    mesh.report("us-1", lab.report([lab.outcome(name, authorization, made, sequence=0, previous="", at_ms=mesh.now_ms)]))
    mesh.run(6)
    said = _read(own.run("prove", name, "--format", "in-toto", "--sign", str(key))[1])
    assert said["subject"] == [
        {"digest": {"sha256": "ab" * 32}, "name": "interpreter"},
        {"digest": {"blake3": digest}, "name": "script"},
    ]
    assert said["predicate"]["outcomes"][0]["outputs"] == [{"digest": "sha256:" + "cd" * 32, "name": "stdout"}]
    assert said["predicate"]["outcomes"][0]["status"] == [3]


@pytest.mark.parametrize("event", ["denied", "issued", "blocked"])
def test_what_never_began_is_no_subject_of_an_attestation(own: Shell, key: Path, event: str) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    claims = envelope.read(Intent, lab.intent(60, account="frozen" if event == "denied" else "", at_ms=mesh.now_ms)[1]).claims
    intent = sign(msgspec.structs.replace(claims, measurements=[Measurement(name="program", digest="sha256:" + "ab" * 32)]), lab.holder)
    name = envelope.identify(intent)[1]
    answer: Any = mesh.request("eu-1", lab.request(intent, []))
    if event == "blocked":
        authorization = envelope.identify(bytes(answer.authorization))[1]
        said = Blocked(code="stale", detail="")
        mesh.report("us-1", lab.report([lab.outcome(name, authorization, said, sequence=0, previous="", at_ms=mesh.now_ms)]))
    mesh.run(6)
    said_ = _read(own.run("prove", name, "--format", "in-toto", "--sign", str(key))[1])
    assert said_["predicate"]["decision"]["effect"] == ("deny" if event == "denied" else "permit")
    assert [one["event"] for one in said_["predicate"]["outcomes"]] == (["blocked"] if event == "blocked" else [])
    assert said_["subject"] == [{"digest": {"sha256": name}, "name": "intent"}]


def test_who_signs_says_if_something_could_not_be_judged(own: Shell, key: Path) -> None:
    for node in own.story.mesh.nodes.values():
        node.openings.clear()
    said = _read(own.run("prove", own.story.permitted, "--format", "in-toto", "--sign", str(key))[1])
    assert said["predicate"]["judged"]["verdict"] == "PARTIAL"


def test_nothing_is_signed_that_is_no_proof_of_a_decision(own: Shell, key: Path, tmp_path: Path) -> None:
    assert "error[not_found]" in own.run("prove", own.story.late, "--format", "in-toto", "--sign", str(key))[2]
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        return (await honest(member, message)).replace(b'"effect":"permit"', b'"effect":"deny"', 1)

    own.ask = ask
    status, out, _ = own.run("prove", own.story.permitted, "--format", "in-toto", "--sign", str(key))
    assert (status != 0, out) == (True, "")


def test_it_takes_a_key_for_attestations_and_no_other(shell: Shell, key: Path, tmp_path: Path) -> None:
    generate(tmp_path / "holder.key", "holder", bytes(31) + b"\1")
    name = shell.story.permitted
    assert "error[config_invalid]" in shell.run("prove", name, "--format", "in-toto", "--sign", str(tmp_path / "holder.key"))[2]
    assert "error[usage]" in shell.run("prove", name, "--format", "in-toto")[2]
    assert "error[usage]" in shell.run("prove", name, "--sign", str(key))[2]
