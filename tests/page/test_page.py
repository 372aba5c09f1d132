"""The page never says VERIFIED of what `mesh verify` refuses, in a real browser; and nothing that stands in a proof can run in it."""

import base64
import json
import re
import time
from pathlib import Path
from typing import Any, Final

import blake3
import msgspec
import pytest
from nacl import bindings

from mesh.core.bytes import canonical, envelope
from mesh.core.law.reign import Handover
from mesh.core.law.roster import Role
from mesh.core.log.bundle import Proven, encode_proof, read_proof
from mesh.core.log.note import Note, parse_note
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.intent import Intent
from mesh.limits import ENVELOPE_BYTES_MAX, PROOF_BUNDLE_BYTES_MAX, PROOF_PAGE_BYTES_MAX
from mesh.page.render import inside, render
from tests.core.kit import refuses
from tests.page.corpus import attested, bent, everything, more, rolled
from tests.page.tab import Judge, Said, said_here
from tests.protocol.machines import LAB, OWNER
from tests.support import factory
from tests.support.epochs import ROSTERS, lived, proof
from tests.support.factory import DOMAIN, Lab, secret
from tests.support.proofs import Happened

# ------------------------------------------------------------------------------------------------------------- the same verdict


def test_the_page_says_of_each_proof_what_mesh_verify_says_check_by_check(judge: Judge) -> None:
    seen = set[str]()
    for bundle, roster in everything():
        (said,), wanted = judge.all([bundle], roster), said_here(bundle, roster)
        assert (said.verdict, said.failure) == (wanted.verdict, wanted.failure)
        assert {name: result for name, result in said.results.items() if name != "file"} == wanted.results
        seen.add(said.verdict)
    assert seen == {"VERIFIED", "PARTIAL", "FAILED"}


def _compared(judge: Judge, bundles: list[bytes], roster: bytes) -> list[Said]:
    """What the page says of each; whenever it is not FAILED, `mesh verify` says the same."""
    found = judge.all(bundles, roster)
    for bundle, said in zip(bundles, found, strict=True):
        if said.verdict != "FAILED":
            wanted = said_here(bundle, roster)
            assert said.verdict == wanted.verdict, (wanted, bundle)
    return found


# --------------------------------------------------------------------------------------------------------------- one byte changed


@pytest.mark.parametrize("which", ["permitted", "large", "epochs"])
def test_one_changed_byte_anywhere_is_never_verified(judge: Judge, which: str) -> None:
    if which == "epochs":
        data, roster = proof(3, lived(3).late, 1, 2), ROSTERS[2].envelope
    else:
        data, roster = more().proof(getattr(more(), which)), more().lab.roster_envelope
    fields = {match.start(1) for match in re.finditer(rb'"[A-Za-z_]+":"?(.)', data)}  # the first byte of every value
    places = sorted(fields | set(range(0, len(data), 41)))
    assert len(places) > 300
    changed = [data[:at] + bytes([data[at] ^ (0x01, 0x20, 0x80)[at % 3]]) + data[at + 1 :] for at in places]
    assert judge.all([data], roster)[0].verdict == "VERIFIED"
    assert {said.verdict for said in judge.all(changed, roster)} == {"FAILED"}


def test_a_truncated_or_lengthened_file_is_never_verified(judge: Judge) -> None:
    data, roster = more().proof(more().permitted), more().lab.roster_envelope
    changed = [b"", b"{}", data + b"\n", b" " + data, data + data, *(data[: len(data) * part // 40] for part in range(1, 40))]
    assert {said.verdict for said in judge.all(changed, roster)} == {"FAILED"}


# -------------------------------------------------------------------------------------------------------- parts are taken or exchanged


@pytest.mark.parametrize("which", ["permitted", "urgent"])
def test_no_part_can_be_changed_left_out_doubled_or_turned_round(judge: Judge, which: str) -> None:
    data = more().proof(getattr(more(), which))
    bundles = list(bent(data))
    assert len(bundles) > 400
    for bundle, said in zip(bundles, _compared(judge, bundles, more().lab.roster_envelope), strict=True):
        told = {**json.loads(bundle), "outcomes": []} == {**json.loads(data), "outcomes": []}
        assert said.verdict != "VERIFIED" or told, "only that an outcome is not told can go unseen"


def test_which_policy_was_in_force_follows_from_all_its_activations(judge: Judge) -> None:
    data, roster = rolled().proof(rolled().forbidden), rolled().lab.roster_envelope
    whole = json.loads(data)
    steps = whole["activations"]
    assert len(steps) == 2
    assert judge.all([data], roster)[0].verdict == "VERIFIED"
    twisted = [{**whole, "activations": given} for given in ([], steps[:1], steps[1:], steps[::-1], [*steps, steps[1]], [steps[0], *steps])]
    bundles = list(map(canonical.encode, twisted))
    for step in bent(base64.b64decode(steps[1]["payload"])):  # whatever its signers sign instead
        kind, keys = "application/vnd.govmesh.activate.v1+json", rolled().lab.signers[:2]
        said = envelope.assemble(kind, step, {key.public: key.sign(envelope.pae(kind, step)) for key in keys})
        name = envelope.identify(said)[1]
        leaf = json.loads(data)["record"] | {"origin": LAB.roster.origin(OWNER), "index": 0}
        leaf["attested"]["activation"] = name
        record = canonical.encode(leaf)
        parts = {"activations": [steps[0], json.loads(said)], "record": leaf, "proof": attested(record)}
        bundles.append(canonical.encode(whole | parts))
    assert {said.verdict for said in _compared(judge, bundles, roster)} == {"FAILED"}


def test_parts_of_two_proofs_do_not_make_a_third(judge: Judge) -> None:
    one, other = (json.loads(more().proof(getattr(more(), name))) for name in ("permitted", "large"))
    bundles = [canonical.encode({**one, part: other[part]}) for part in one if one[part] != other[part]]
    assert len(bundles) >= 4
    assert "VERIFIED" not in {said.verdict for said in _compared(judge, bundles, more().lab.roster_envelope)}


def test_rosters_that_are_not_of_the_one_chain_are_not_believed(judge: Judge) -> None:
    """By the second one: it may be left out of the file, and so may what comes after the last that is needed."""
    twisted = list(bent(proof(2, lived(2).late, 1, 2, 3)))[::2]
    found = [
        json.loads(bundle)
        for bundle, said in zip(twisted, _compared(judge, twisted, ROSTERS[1].envelope), strict=True)
        if said.verdict == "VERIFIED"
    ]
    shown = [[json.loads(base64.b64decode(item["payload"]))["epoch"] for item in bundle["rosters"]] for bundle in found]
    assert all(epochs in ([1, 3], [1, 2]) for epochs in shown), shown


def test_whatever_a_root_signs_the_page_believes_no_roster_that_a_node_would_refuse(judge: Judge) -> None:
    first, second = ROSTERS[0].claims, ROSTERS[1].claims
    people = lived(1).lab
    changes: list[dict[str, Any]] = [
        {"k": 1},
        {"f": 2},
        {"mesh": "other"},
        {"epoch": 3},
        {"previous": "ab" * 32},
        {"not_before_ms": first.not_before_ms},
        {"members": second.members[:4][::-1], "k": 3},
        {"members": [msgspec.structs.replace(second.members[0], log_key=secret("x").public), *second.members[1:]]},
        {"members": [second.members[0], *second.members]},
        {"members": second.members[2:], "k": 2, "f": 0},
        {"operators": {}},
        {"root": msgspec.structs.replace(second.root, threshold=9)},
        {"root": msgspec.structs.replace(second.root, keys=[secret("thief").public], threshold=1)},
        {"bounds": msgspec.structs.replace(second.bounds, stale_ms=1)},
        {"issuers": msgspec.structs.replace(second.issuers, keys=["01" + "00" * 31])},
        {"issuers": msgspec.structs.replace(second.issuers, keys=["ff" * 32])},
        {"bounds": msgspec.structs.replace(second.bounds, revocations_max=0)},
        {"bounds": msgspec.structs.replace(second.bounds, backlog_max=0)},
        {"bounds": msgspec.structs.replace(second.bounds, revocations_max=second.bounds.revocations_max - 1)},
        {"policy": {DOMAIN: Role(keys=[secret("another signer").public], threshold=1)}},
        {"policy": {DOMAIN: msgspec.structs.replace(second.policy[DOMAIN], threshold=1)}},
        {"handovers": {"policy/" + DOMAIN: Handover(sequence=0, head="ab" * 32)}},
        {"handovers": {"policy/" + DOMAIN: Handover(sequence=1, head="")}},
        {"handovers": {"Policy": Handover(sequence=0, head="")}},
    ]
    bundles = list[bytes]()
    for change in changes:
        claims = json.loads(canonical.encode(second)) | json.loads(canonical.encode(change))
        payload, kind = canonical.encode(claims), "application/vnd.govmesh.roster.v1+json"
        signers = [*people.root, people.operator]
        seal = envelope.assemble(kind, payload, {key.public: key.sign(envelope.pae(kind, payload)) for key in signers})
        bundles.append(lived(1).proof(lived(1).late, rosters=[ROSTERS[0].envelope, seal]))
    found = _compared(judge, bundles, ROSTERS[0].envelope)
    assert [said.verdict for said in found].count("FAILED") >= len(changes) - 1


# ------------------------------------------------------------------------------------------------------------------ k of them lie


def _lies(which: str) -> list[bytes]:
    """A proof whose record was changed in one place, and attested by k liars all the same."""
    bundle = read_proof(more().proof(getattr(more(), which)))
    found = list[bytes]()
    record = json.loads(bytes(bundle.record)) | {"origin": LAB.roster.origin(OWNER), "index": 0}
    for leaf in (canonical.encode(record), *bent(canonical.encode(record))):
        parts = {"record": msgspec.Raw(leaf), "proof": attested(leaf), "outcomes": []}
        found.append(encode_proof(msgspec.structs.replace(bundle, **parts)))
    return found


@pytest.mark.parametrize("which", ["permitted", "forbidden", "late", "large", "urgent", "lacking"])
def test_what_follows_from_a_record_is_repeated_so_k_liars_are_seen_as_mesh_verify_sees_them(judge: Judge, which: str) -> None:
    bundles = _lies(which)
    found = judge.all(bundles, more().lab.roster_envelope)
    here = [said_here(bundle, more().lab.roster_envelope) for bundle in bundles]
    assert [said.verdict for said in found] == [said.verdict for said in here]
    assert [said.failure[0].replace("file", "record") for said in found] == [said.failure[0].replace("file", "record") for said in here]
    assert sum(said.verdict == "FAILED" for said in found) > len(bundles) // 2


def test_an_intent_that_its_holder_signed_otherwise_is_judged_as_mesh_verify_judges_it(judge: Judge) -> None:
    """Everything but policy: a document that does not fit, times, parameters, an enforcer that is not meant."""
    bundle = read_proof(more().proof(more().forbidden))
    claims = json.loads(canonical.encode(envelope.read(Intent, bytes(bundle.bodies[0])).claims))
    record = json.loads(bytes(bundle.record)) | {"origin": LAB.roster.origin(OWNER), "index": 0}
    kind, lab = "application/vnd.govmesh.intent.v1+json", more().lab
    bundles = list[bytes]()
    for payload in bent(canonical.encode(claims)):
        said = envelope.assemble(kind, payload, {lab.holder.public: lab.holder.sign(envelope.pae(kind, payload))})
        leaf = canonical.encode(record | {"intent": envelope.identify(said)[1]})
        parts = {"record": msgspec.Raw(leaf), "proof": attested(leaf), "bodies": [msgspec.Raw(said), *bundle.bodies[1:]]}
        bundles.append(encode_proof(msgspec.structs.replace(bundle, **parts)))
    found, roster = judge.all(bundles, lab.roster_envelope), lab.roster_envelope
    assert [said.verdict for said in found] == [said_here(data, roster).verdict for data in bundles]
    assert {said.verdict for said in found} == {"FAILED"}


def test_an_outcome_that_its_enforcer_signed_otherwise_is_judged_as_mesh_verify_judges_it(judge: Judge) -> None:
    bundle, lab = read_proof(more().proof(more().permitted, outcomes=1)), more().lab
    outcome, record = bundle.outcomes[0], json.loads(bytes(bundle.outcomes[0].record)) | {"index": 0}
    payload = base64.b64decode(json.loads(bytes(outcome.bodies[0]))["payload"])
    kind, late = "application/vnd.govmesh.outcome.v1+json", canonical.encode(json.loads(payload) | {"at_ms": 253_402_300_799_999})
    bundles = list[bytes]()
    for claims in (payload, late, *bent(payload)):
        said = envelope.assemble(kind, claims, {lab.place_key.public: lab.place_key.sign(envelope.pae(kind, claims))})
        leaf = canonical.encode(record | {"outcome": envelope.identify(said)[1]})
        one = Proven(record=msgspec.Raw(leaf), proof=attested(leaf), bodies=[msgspec.Raw(said), *outcome.bodies[1:]])
        bundles.append(encode_proof(msgspec.structs.replace(bundle, outcomes=[one])))
    found, roster = judge.all(bundles, lab.roster_envelope), lab.roster_envelope
    assert [said.verdict for said in found] == [said_here(data, roster).verdict for data in bundles]
    assert (found[0].verdict, found[1].failure) == ("VERIFIED", ("outcome 0: outcome", "identity_expired"))


def test_a_strangers_line_spoils_a_certificate(judge: Judge) -> None:
    bundle = read_proof(more().proof(more().late))
    tlog = TlogProof.parse(bundle.proof.encode())
    note = parse_note(tlog.note)
    stranger = msgspec.structs.replace(note.lines[-1], name="lab/zz-1/attest")
    longer = msgspec.structs.replace(tlog, note=Note(note.text, (*note.lines, stranger)).encode()).encode().decode()
    data = encode_proof(msgspec.structs.replace(bundle, proof=longer))
    assert judge.all([data], more().lab.roster_envelope)[0].failure == ("final", "bad_signature")


# ------------------------------------------------------------------------------------------------------------------------- trust


def test_without_a_pin_the_page_says_whom_it_trusts_and_does_not_call_it_verified(judge: Judge) -> None:
    bundle, roster = more().proof(more().permitted), more().lab.roster_envelope
    report = judge.show(bundle, roster)
    assert (report["verdict"], report["roster"]) == ("PARTIAL", more().lab.pin)
    assert "as this file itself says" in judge.text("reasons")
    assert judge.text("whose") == "nobody but this file itself says so"
    assert judge.show(bundle, roster, f"#pin={more().lab.pin}")["verdict"] == "VERIFIED"
    assert judge.text("verdict") == "VERIFIED"


def test_a_roster_that_a_link_names_is_not_the_readers_until_they_confirm_it(judge: Judge) -> None:
    bundle, roster, pin = more().proof(more().permitted), more().lab.roster_envelope, more().lab.pin
    assert judge.show(bundle, roster, f"#pin={pin}", confirm=False)["verdict"] == "PARTIAL"
    assert "the link names it" in judge.text("whose")
    assert "the link chose the roster" in judge.text("sentence")
    judge.tab.value("document.getElementById('confirm').click(); Page.latest()")
    assert (judge.text("verdict"), judge.text("whose")) == ("VERIFIED", "the id that you gave")
    judge.tab.value(f"location.hash = '#pin={'ab' * 32}'; new Promise((done) => setTimeout(done, 400))")
    judge.tab.value(f"location.hash = '#pin={pin}'; new Promise((done) => setTimeout(done, 400))")
    assert judge.text("verdict") == "VERIFIED"  # the one that they have confirmed
    assert judge.show(bundle, roster, f"#pin={pin}", confirm=False)["verdict"] == "PARTIAL"


_SLOW_FIRST: Final = """(() => {
  const real = Proof.judge; let first = true;
  Proof.judge = async (...given) => {
    const wait = first ? 600 : 0; first = false;
    await new Promise((go) => setTimeout(go, wait));
    return real(...given);
  };
})(), true"""


@pytest.mark.parametrize("what", ["another pin", "another file", "nothing else"])
def test_a_verdict_that_comes_late_stands_beside_nothing_newer(judge: Judge, what: str) -> None:
    bundle, roster, pin = more().proof(more().permitted), more().lab.roster_envelope, more().lab.pin
    judge.show(bundle, roster, f"#pin={pin}")
    judge.tab.value(_SLOW_FIRST)
    judge.tab.value("Page.judge(), true")
    assert judge.text("verdict") == "…", "the former verdict does not stand beside what is being checked"
    if what == "another pin":
        judge.tab.value(f"location.hash = '#pin={'ab' * 32}', true")
    elif what == "another file":
        judge.tab.value("Page.load(new File(['{}'], 'other.json')), true")
    judge.tab.value("new Promise((done) => setTimeout(done, 1500))")
    assert judge.text("verdict") == ("VERIFIED" if what == "nothing else" else "FAILED")
    assert judge.text("source") == ("other.json" if what == "another file" else "the proof in this page")


@pytest.mark.parametrize("pin", ["00" * 32, "x", "A" * 64])
def test_a_pin_that_no_roster_in_the_file_has_fails(judge: Judge, pin: str) -> None:
    assert judge.show(more().proof(more().permitted), more().lab.roster_envelope, f"#pin={pin}")["verdict"] == "FAILED"


def test_the_pin_may_be_typed_and_may_be_any_roster_of_the_chain(judge: Judge) -> None:
    judge.show(proof(3, lived(3).permitted, 1, 2, 3), ROSTERS[0].envelope)
    for roster in ROSTERS:
        judge.tab.value(f"document.getElementById('pin').value = '{roster.id}'; document.querySelector('#trust-form button').click(); 1")
        judge.tab.value("new Promise((done) => setTimeout(done, 400))")
        assert judge.text("verdict") == "VERIFIED"


def test_a_mesh_of_ones_own_under_the_same_name_is_not_verified_by_the_pin_of_the_real_one(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole mesh of somebody else's keys, and a page that is right in itself."""
    monkeypatch.setattr(factory, "secret", lambda name: secret(f"thief's {name}"))
    theirs = Happened(Lab())
    assert theirs.lab.roster.mesh == more().lab.roster.mesh
    foreign = theirs.proof(theirs.permitted)
    assert judge.show(foreign, theirs.lab.roster_envelope)["verdict"] == "PARTIAL"
    assert judge.show(foreign, theirs.lab.roster_envelope, f"#pin={more().lab.pin}")["verdict"] == "FAILED"
    assert judge.all([foreign], more().lab.roster_envelope)[0].verdict == "FAILED"


def test_a_browser_that_cannot_check_signatures_never_says_verified(judge: Judge) -> None:
    lame = "crypto.subtle.importKey = async () => { throw new DOMException('unknown algorithm', 'NotSupportedError'); };"
    number = judge.tab.call("Page.addScriptToEvaluateOnNewDocument", source=lame)["identifier"]
    try:
        report = judge.show(more().proof(more().permitted), more().lab.roster_envelope, f"#pin={more().lab.pin}")
    finally:
        judge.tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=number)
    assert report["verdict"] == "PARTIAL"
    assert "no signature was checked" in judge.text("reasons")
    assert "nothing here is proved" in judge.text("sentence")


def test_a_page_judges_other_proofs_and_other_pages_by_its_own_program(judge: Judge, tmp_path: Path) -> None:
    roster, bundle = more().lab.roster_envelope, more().proof(more().large)
    lying = render(bundle.replace(b'"effect":"permit"', b'"effect":"deny"'), roster).replace(b'"FAILED"', b'"VERIFIED"')
    judge.show(more().proof(more().late), roster, f"#pin={more().lab.pin}")
    root = judge.tab.call("DOM.getDocument")["root"]["nodeId"]
    node = judge.tab.call("DOM.querySelector", nodeId=root, selector="#other")["nodeId"]
    given = {"one.json": (bundle, "VERIFIED"), "two.html": (render(bundle, roster), "VERIFIED"), "three.html": (lying, "FAILED")}
    for name, (data, verdict) in given.items():
        (tmp_path / name).write_bytes(data)
        judge.tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / name)])
        ask = f"{judge.says('source')} === '{name}' ? done({judge.says('verdict')}) : setTimeout(ask, 20)"
        shown = f"new Promise((done) => {{ const ask = () => {ask}; ask(); }})"
        assert judge.tab.value(shown) == verdict


def test_what_the_page_saves_is_the_bundle_to_the_byte(judge: Judge, tmp_path: Path) -> None:
    bundle, roster = more().proof(more().large), more().lab.roster_envelope
    judge.show(bundle, roster)
    judge.tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    judge.tab.value("document.getElementById('save').click(); new Promise((done) => setTimeout(done, 500))")
    until = time.monotonic() + 10
    while not (tmp_path / "proof.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert (tmp_path / "proof.json").read_bytes() == bundle


# -------------------------------------------------------------------------------------------------------------------- hostile text

HOSTILE: Final = "</script><script>globalThis.ran = 1</script><img src=x onerror='globalThis.ran = 1'>\u202e<svg onload=alert(1)>"


def test_nothing_that_stands_in_a_proof_can_run_or_reach_the_network(judge: Judge) -> None:
    story = Happened()
    name, intent, openings = story.lab.intent(30, memo=HOSTILE, purpose=HOSTILE, at_ms=story.mesh.now_ms)
    story.mesh.request("eu-1", story.lab.request(intent, openings))
    story.mesh.run(6)
    bundle = story.proof(name)
    forged = canonical.encode(json.loads(bundle) | {HOSTILE: HOSTILE})
    for data in (bundle, forged, HOSTILE.encode(), bundle.replace(b'"lab/eu-1/e1"', canonical.encode(HOSTILE))):
        report = judge.show(data, story.lab.roster_envelope, f"#pin={story.lab.pin}")
        assert report["verdict"] == ("VERIFIED" if data is bundle else "FAILED")
        judge.tab.value("new Promise((done) => setTimeout(done, 100))")
        grown = "[typeof ran, document.images.length, document.scripts.length, document.querySelectorAll('svg').length]"
        assert judge.tab.value(grown) == [
            "undefined", 0, 4, 0,
        ]  # fmt: skip
        asked = [said["params"]["request"]["url"] for said in judge.tab.heard if said.get("method") == "Network.requestWillBeSent"]
        assert asked == [judge.page.as_uri() + f"#pin={story.lab.pin}"] or asked == [judge.page.as_uri()]
        assert [said for said in judge.tab.heard if said.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}] == []
    judge.show(bundle, story.lab.roster_envelope)
    assert "</script><script>globalThis.ran = 1</script>" in judge.text("story")
    assert "\u202e" not in judge.text("story"), "what turns the direction of text round is written out"


def test_the_page_may_neither_load_nor_send_nor_run_anything_else(judge: Judge) -> None:
    judge.show(more().proof(more().late), more().lab.roster_envelope)
    tried = judge.tab.value(
        """(async () => {
          const blocked = [];
          document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
          const script = document.createElement("script");
          try { script.text = "globalThis.ran = 1"; document.body.append(script); } catch { blocked.push("trusted-types"); }
          document.body.append(Object.assign(document.createElement("img"), { src: "https://example.com/x.png" }));
          try { await fetch("https://example.com/"); } catch { /* blocked */ }
          await new Promise((done) => setTimeout(done, 200));
          return [typeof ran, blocked.sort()];
        })()"""
    )
    assert tried[0] == "undefined"
    assert {"connect-src", "img-src"} <= set(tried[1])
    assert {"trusted-types", "script-src-elem"} & set(tried[1])


# ------------------------------------------------------------------------------------------------------------------ small parts


def test_blake3_is_blake3(judge: Judge) -> None:
    judge.all([], more().lab.roster_envelope)
    for size in (0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3073, 31_744, 65_537, 99_999):
        told = judge.tab.value(f"Proof.blake3(Uint8Array.from({{length: {size}}}, (_, at) => at % 251))")
        assert told == blake3.blake3(bytes(at % 251 for at in range(size))).hexdigest(), size


def test_a_key_is_one_exactly_if_it_is_one_to_the_mesh(judge: Judge) -> None:
    judge.all([], more().lab.roster_envelope)
    small = [f"{number:064x}" for number in (0, 1 << 248, 0xEC << 248 | (1 << 248) - 0x81)]
    small += [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ]
    torsion = bytes.fromhex(small[-1])
    keys = [*small, *(f"{value:02x}" + "ff" * 30 + "7f" for value in range(0xEC, 0x100)), *(secret(str(at)).public for at in range(6))]
    keys += [bindings.crypto_core_ed25519_add(bytes.fromhex(secret(str(at)).public), torsion).hex() for at in range(3)]
    keys += [canonical.sha256_hex(bytes([at])) for at in range(24)]
    wanted = [bindings.crypto_core_ed25519_is_valid_point(bytes.fromhex(key)) for key in keys]
    assert judge.tab.value(f"{json.dumps(keys)}.map(Proof.admissible)") == wanted
    assert {True, False} == set(wanted)


def test_text_has_one_spelling_in_both_languages(judge: Judge) -> None:
    judge.all([], more().lab.roster_envelope)
    text = "".join(chr(code) for code in (*range(0x300), 0x2028, 0x2029, 0xFEFF, 0xFFFF, 0x1F600))
    for value in (text, {"b": [1, True, -5], "__proto__": "x", "constructor": {}, "10": 2, "9": 1}, 2**53 - 1, -(2**53) + 1):
        written = canonical.encode(value).decode()
        assert judge.tab.value(f"Proof.canonical(Proof.parse(Proof.utf8({json.dumps(written)}), 1e6))") == written


# ------------------------------------------------------------------------------------------------------------------------- the file


def test_the_same_proof_makes_the_same_page_and_only_that_one_is_ours() -> None:
    bundle, roster = more().proof(more().permitted), more().lab.roster_envelope
    page = render(bundle, roster)
    assert page == render(bundle, roster)
    assert inside(page) == (bundle, True)
    assert inside(page.replace(b"VERIFIED:", b"PARTIAL :", 1)) == (bundle, False)
    for spoilt in (page.replace(b'id="bundle">', b'id="bungle">'), page + page, page.replace(b'id="bundle">\n', b'id="bundle">\nA')):
        with refuses("malformed"):
            inside(spoilt)


def test_the_largest_bundle_and_roster_fit_a_page() -> None:
    assert len(render(b"b" * PROOF_BUNDLE_BYTES_MAX, b"r" * ENVELOPE_BYTES_MAX)) <= PROOF_PAGE_BYTES_MAX


def test_the_page_names_no_address() -> None:
    page = render(b"{}", b"{}").decode()
    assert not re.search(r"(?:src|href)=|@import|url\(|https?://", page.replace("https://json-schema.org", ""))
