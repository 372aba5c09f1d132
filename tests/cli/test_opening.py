"""`mesh lineage open` shows an auditor what was sealed for it, and whom to blame for what does not open."""

import json
from pathlib import Path

import msgspec
import pytest
from nacl import bindings

from mesh.adapters.signer import generate, generate_seal
from mesh.core.bytes import canonical, envelope
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.core.log.record import encode_record, read_record
from mesh.core.messages import Openings, Prove, Proved, pack, unpack
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.params import commit
from mesh.core.run.sealed import Box, Seal, box_hash, content
from tests.cli.shell import Shell
from tests.core.kit import secret
from tests.support.factory import AUDITORS, sign
from tests.support.sealed import PAYEE, TOLD, SealedStory, boxed, hidden


class _Sealed(Shell):
    """A shell whose mesh has a sealed payment, and the auditors' keys."""

    story: SealedStory

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(SealedStory(), monkeypatch, capsys)
        self.folder = folder
        for name in AUDITORS:
            generate_seal(folder / f"{name}.key", bytes.fromhex(canonical.sha256_hex(f"auditor {name}".encode())))
        generate_seal(folder / "stranger.key", bytes(range(32)))

    def open(self, name: str, key: str = "finance", *more: str) -> tuple[int, str, str]:
        return self.run("-o", "json", "lineage", "open", name, "--key", str(self.folder / f"{key}.key"), *more)

    def spoil(self, nodes: list[str], boxes: list[Box]) -> None:
        """Have these nodes keep other boxes."""
        for node in nodes:
            held = self.story.mesh.nodes[node].openings
            kept = canonical.decode(Openings, held[self.story.sealed], bytes_max=10**6)
            held[self.story.sealed] = canonical.encode(msgspec.structs.replace(kept, boxes=boxes))


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> _Sealed:
    return _Sealed(tmp_path, monkeypatch, capsys)


def _code(err: str) -> str:
    return str(json.loads(err.splitlines()[0])["error"]["code"]) if err.startswith("{") else err.removeprefix("error[").split("]")[0]


# ---------------------------------------------------------------------------------------------------------------- it opens


@pytest.mark.parametrize("who", ["finance", "tax"])
def test_each_auditor_opens_what_was_sealed_for_it(sealed: _Sealed, who: str) -> None:
    status, out, err = sealed.open(sealed.story.sealed[:12], who)
    assert status == 0, err
    assert json.loads(out) == [{"parameter": "payee", "value": PAYEE, "auditor": who, "code": ""}]
    assert "1 opened, each as intent" in err


def test_a_table_shows_the_value_to_people(sealed: _Sealed) -> None:
    status, out, _ = sealed.run("lineage", "open", sealed.story.sealed, "--key", str(sealed.folder / "tax.key"))
    assert status == 0
    assert PAYEE in out


def test_lineage_show_says_what_is_sealed_and_for_whom(sealed: _Sealed) -> None:
    (shown,) = sealed.json("lineage", "show", sealed.story.sealed)
    assert [(item["parameter"], item["auditor"], item["held"]) for item in shown["sealed"]] == [
        ("payee", "finance", True),
        ("payee", "tax", True),
    ]
    assert [item["key"] for item in shown["sealed"]] == [key.public for key in AUDITORS.values()]
    assert PAYEE not in json.dumps(shown)
    stages = sealed.json("why", sealed.story.sealed)["stages"]
    assert stages[0]["params"] == {"amount": 10, "payee": "(sealed for finance, tax)"}


def test_a_proof_is_opened_without_any_mesh(sealed: _Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = sealed.folder / "proof.json"
    proof.write_bytes(sealed.story.proof(sealed.story.sealed))
    monkeypatch.setattr("mesh.cli.client.run", lambda *_: pytest.fail("a mesh was asked"))
    key = str(sealed.folder / "tax.key")
    status, out, _ = sealed.run("-o", "json", "lineage", "open", "--from", str(proof), "--key", key)
    assert (status, json.loads(out)[0]["value"]) == (0, PAYEE)
    for name in (sealed.story.late, sealed.story.permitted):
        proof.write_bytes(sealed.story.proof(name))
        status, _, err = sealed.run("lineage", "open", "--from", str(proof), "--key", key)
        assert (status != 0, _code(err)) == (True, "not_found" if name == sealed.story.late else "not_sealed_for")


def test_verify_says_for_whom_something_is_sealed(sealed: _Sealed) -> None:
    proof, roster = sealed.folder / "proof.json", sealed.folder / "roster.json"
    proof.write_bytes(sealed.story.proof(sealed.story.sealed))
    roster.write_bytes(sealed.story.lab.roster_envelope)
    status, out, _ = sealed.run("verify", str(proof), "--trust", str(roster), "--no-replay")
    assert status == 0
    assert f"sealed: {TOLD}" in out
    bundle = read_proof(proof.read_bytes())
    proof.write_bytes(encode_proof(msgspec.structs.replace(bundle, boxes=[])))
    assert sealed.run("verify", str(proof), "--trust", str(roster), "--no-replay")[0] == 2


# ------------------------------------------------------------------------------------------------------ it does not open


def test_another_key_opens_nothing_and_learns_for_whom(sealed: _Sealed) -> None:
    status, out, err = sealed.open(sealed.story.sealed, "stranger")
    assert (status, out, _code(err)) == (3, "", "not_sealed_for")
    assert TOLD in err
    assert _code(sealed.open(sealed.story.permitted)[2]) == "not_sealed_for"


def test_a_key_that_signs_opens_nothing(sealed: _Sealed) -> None:
    generate(sealed.folder / "holder.key", "holder", bytes(range(1, 33)))
    assert _code(sealed.open(sealed.story.sealed, "holder")[2]) == "bad_key"


def test_who_spoils_a_box_keeps_it_from_nobody(sealed: _Sealed) -> None:
    """One honest member is enough; without any, it is a fault of who answers, not of who asked."""
    kept = canonical.decode(Openings, sealed.story.mesh.nodes["eu-1"].openings[sealed.story.sealed], bytes_max=10**6).boxes
    one, other = kept
    for boxes, code in (
        ([msgspec.structs.replace(one, box=other.box), other], "box_mismatch"),
        ([msgspec.structs.replace(one, box=one.box[:-2]), other], "box_malformed"),
        ([], "box_mismatch"),
    ):
        sealed.spoil(["eu-1", "us-1", "ap-1"], boxes)
        status, out, err = sealed.open(sealed.story.sealed)
        assert (status, json.loads(out)[0]["value"]) == (0, PAYEE), err
        sealed.spoil(["sa-1"], boxes)
        status, out, err = sealed.open(sealed.story.sealed)
        assert (json.loads(out)[0]["value"], json.loads(out)[0]["code"], _code(err)) == ("", code, code)
        sealed.spoil(["sa-1"], kept)


def test_erased_boxes_are_said_to_be_gone(sealed: _Sealed) -> None:
    for node in sealed.story.mesh.nodes.values():
        node.openings.pop(sealed.story.sealed)
    status, _, err = sealed.open(sealed.story.sealed)
    assert (status, _code(err)) == (2, "box_mismatch")
    assert "it was erased, or who answers does not show it" in err
    (shown,) = sealed.json("lineage", "show", sealed.story.sealed)
    assert {item["held"] for item in shown["sealed"]} == {False}


def _lie(sealed: _Sealed, number: int, data: bytes) -> str:
    """A payment that seals these bytes for finance, and the truth for tax: every governor takes it."""
    story, opening = sealed.story, hidden(number=number)
    _, intent, (_, honest) = boxed(story.lab, number, at_ms=story.mesh.now_ms)
    claims = envelope.read(Intent, intent).claims
    assert claims.committed == {"payee": commit(opening)}
    false = Seal(auditor="finance", key=AUDITORS["finance"].public, box=box_hash(data))
    claims = msgspec.structs.replace(claims, sealed={"payee": [false, claims.sealed["payee"][1]]})
    boxes = [Box(name="payee", auditor="finance", box=data.hex()), honest]
    story.mesh.request("eu-1", story.lab.request(sign(claims, story.lab.holder), [], boxes=boxes))
    story.mesh.run(6)
    return envelope.draft(claims).id


def test_sealed_rubbish_is_taken_by_all_governors_and_found_by_the_auditor(sealed: _Sealed) -> None:
    name = _lie(sealed, 41, bytes(304))
    (shown,) = sealed.json("lineage", "show", name)
    assert len(shown["attested_by"]) >= 3  # nobody but the auditor can know
    status, out, err = sealed.open(name)
    assert (status, json.loads(out)[0]["code"], _code(err)) == (5, "sealed_rubbish", "sealed_rubbish")
    assert "mesh prove" in err
    assert sealed.open(name, "tax")[0] == 0


def test_another_value_than_the_one_that_ran_is_found_by_the_auditor(sealed: _Sealed) -> None:
    said = content(hidden("somebody else", 42), sealed.story.lab.holder.public)
    box = bindings.crypto_box_seal(said, bytes.fromhex(AUDITORS["finance"].public))
    status, out, err = sealed.open(_lie(sealed, 42, box))
    assert (status, json.loads(out)[0]["value"], _code(err)) == (5, "", "sealed_falsely")


def test_an_intent_in_somebody_elses_name_blames_nobody(sealed: _Sealed) -> None:
    """Anybody can make a file that looks like a proof; with a document of one's own making it looks even better."""
    story, forger, file, roster = sealed.story, secret(77), sealed.folder / "forged.json", sealed.folder / "roster.json"
    roster.write_bytes(story.lab.roster_envelope)
    bundle = read_proof(story.proof(story.sealed))
    claims = envelope.read(Intent, bytes(bundle.bodies[0])).claims
    document = envelope.read(Identity, bytes(bundle.bodies[1])).claims
    box = bytes(304)
    false = {"payee": [Seal(auditor="finance", key=AUDITORS["finance"].public, box=box_hash(box))]}
    own = sign(msgspec.structs.replace(document, key=forger.public), forger)
    for papers, codes in ((bytes(bundle.bodies[1]), {"identity_mismatch"}), (own, {"sealed_rubbish"})):
        lie = sign(msgspec.structs.replace(claims, holder=forger.public, identity=envelope.identify(papers)[1], sealed=false), forger)
        record = msgspec.structs.replace(read_record(bytes(bundle.record)), intent=envelope.identify(lie)[1])
        bodies = [msgspec.Raw(lie), msgspec.Raw(papers), *bundle.bodies[2:]]
        boxes = [Box(name="payee", auditor="finance", box=box.hex())]
        file.write_bytes(
            encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(encode_record(record)), bodies=bodies, boxes=boxes))
        )
        opening = ("lineage", "open", "--from", str(file), "--key", str(sealed.folder / "finance.key"))
        _, _, err = sealed.run("-o", "json", *opening)
        assert codes & {_code(err), *(code for code in codes if code in err)}
        assert "identity_mismatch" in codes or "before you blame anybody" in err
        status, _, err = sealed.run("-o", "json", *opening, "--trust", str(roster))
        assert (status, "sealed_rubbish" in err) == (5, False), err


def test_what_was_never_decided_has_no_boxes(sealed: _Sealed) -> None:
    assert _code(sealed.open(sealed.story.late)[2]) == "not_found"
    assert _code(sealed.run("lineage", "open", "--key", str(sealed.folder / "tax.key"))[2]) == "usage"
    place = unpack(Proved, sealed.story.mesh.nodes["eu-1"].answer(pack(Prove(origin="lab/eu-1/e1", index=2))))
    assert place.batch.openings[0].boxes == []


# --------------------------------------------------------------------------------------------------------------------- keys


def test_an_auditors_key_is_made_and_shown_like_any_other(sealed: _Sealed) -> None:
    path = sealed.folder / "new.key"
    made = sealed.json("key", "gen", str(path), "--use", "auditor-seal")
    assert made["use"] == "auditor-seal"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sealed.json("key", "show", str(path)) == made
    assert _code(sealed.run("key", "gen", str(path), "--use", "auditor-seal")[2]) == "key_exists"
