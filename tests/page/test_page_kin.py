"""Of papers of parents, and of policy behind a handover, the page says what `mesh verify` says, whatever was signed and by whom."""

import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.activation import Activation
from mesh.core.law.policy import Manifest
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.core.run.authorization import Authorization
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from tests.page.corpus import attested, bent, handed
from tests.page.tab import Judge, said_here
from tests.protocol.machines import LAB, OWNER
from tests.support.factory import sign
from tests.support.kin import family


def test_whose_word_counts_behind_a_handover_is_judged_as_mesh_verify_judges_it(judge: Judge) -> None:
    told, trust = handed(), handed().genesis.envelope
    whole = read_proof(told.proof(told.forbidden, rosters=[told.roster.envelope]))
    record = json.loads(bytes(whole.record)) | {"origin": LAB.roster.origin(OWNER), "index": 0}
    begun, step = told.steps
    bundles = list[bytes]()
    for manifest_by, since, number, behind, step_by, step_since, step_number in product(
        (told.former, told.lab.signers), ("", told.roster.id, told.genesis.id, "ab" * 32), (1, 2, 3), ("", told.second.claims.previous),
        (told.former, told.lab.signers), ("", told.roster.id), (1, 2),
    ):  # fmt: skip
        changed = msgspec.structs.replace(told.second.claims, since=since, epoch=number, previous=behind)
        manifest = envelope.read(Manifest, sign(changed, *manifest_by[:2]))
        after = {"sequence": step_number, "previous": begun.id if step_number == 2 else "", "since": step_since}
        put = msgspec.structs.replace(step.claims, manifest=manifest.id, epoch=number, **after)
        chain = [*[begun][: step_number - 1], envelope.read(Activation, sign(put, *step_by[:2]))]
        named = {"manifest": manifest.id, "policy_epoch": number, "activation": chain[-1].id}
        leaf = canonical.encode(record | {"attested": record["attested"] | named})
        parts = {"record": msgspec.Raw(leaf), "proof": attested(leaf), "manifests": [msgspec.Raw(manifest.envelope)]}
        activations = [msgspec.Raw(item.envelope) for item in chain]
        bundles.append(encode_proof(msgspec.structs.replace(whole, activations=activations, **parts)))
    found, here = judge.all(bundles, trust), [said_here(bundle, trust) for bundle in bundles]
    assert [said.failure for said in found] == [said.failure for said in here]
    codes = {said.failure for said in here}
    assert codes >= {("policy", "handed_over"), ("policy", "bad_signature"), ("decision", "handed_over"), ("decision", "replay_mismatch")}


@pytest.mark.parametrize("which", ["child", "grandchild", "user"])
def test_no_liars_can_show_parents_to_the_page_that_mesh_verify_would_not_believe(judge: Judge, which: str) -> None:
    bundle = read_proof(family().proof(getattr(family(), which), outcomes=0))
    record = json.loads(bytes(bundle.record)) | {"origin": LAB.roster.origin(OWNER), "index": 0}
    (paper,), bundles = record["parents"], list[bytes]()
    papers = [[], [paper, paper], [json.loads(canonical.encode(family().ended))], [json.loads(canonical.encode(family().root))]]
    papers += [[json.loads(changed)] for changed in bent(canonical.encode(paper))]
    papers += [[paper | {"countersignature": line}] for line in ("", "00" * 64)]
    for given in papers:
        leaf = canonical.encode(record | {"parents": given})
        bundles.append(encode_proof(msgspec.structs.replace(bundle, record=msgspec.Raw(leaf), proof=attested(leaf))))
    found, here = judge.all(bundles, LAB.roster_envelope), [said_here(data, LAB.roster_envelope) for data in bundles]
    assert [said.verdict for said in found] == [said.verdict for said in here]
    assert [said.failure[0].replace("file", "record") for said in found] == [said.failure[0].replace("file", "record") for said in here]
    assert "parents" in {said.failure[0] for said in here}


def test_papers_that_were_signed_otherwise_are_judged_as_mesh_verify_judges_them(judge: Judge) -> None:
    """Whatever a governor and an enforcer sign of a parent, and its part names it all the same."""
    lab, bundle = family().lab, read_proof(family().proof(family().child, outcomes=0))
    record = json.loads(bytes(bundle.record)) | {"origin": LAB.roster.origin(OWNER), "index": 0}
    asked, paper = envelope.read(Intent, bytes(bundle.bodies[0])).claims, family().root
    issued, said = envelope.read(Authorization, bytes(paper.authorization)), envelope.read(Outcome, bytes(paper.outcome))
    issuer = lab.keys[issued.claims.issuer]["decision"]

    def shown(authorization: bytes, outcome: bytes, *, by: Sequence[SecretKey] = (issuer,), line: str = "") -> bytes:
        first = _signed(Authorization, authorization, *by)
        about = {"authorization": envelope.identify(first)[1]} if outcome == canonical.encode(said.claims) else {}
        last = _signed(Outcome, canonical.encode(json.loads(outcome) | about), lab.place_key)
        intent = sign(msgspec.structs.replace(asked, within=[envelope.identify(first)[1]]), lab.holder)
        given = {"authorization": json.loads(first), "outcome": json.loads(last), "countersignature": line}
        leaf = canonical.encode(record | {"parents": [given], "intent": envelope.identify(intent)[1]})
        parts = {"record": msgspec.Raw(leaf), "proof": attested(leaf), "bodies": [msgspec.Raw(intent), *bundle.bodies[1:]]}
        return encode_proof(msgspec.structs.replace(bundle, **parts))

    plain, told = canonical.encode(issued.claims), canonical.encode(said.claims)
    bundles = [shown(payload, told) for payload in bent(plain)] + [shown(plain, payload) for payload in bent(told)]
    for at_ms in (-604_800_001, -604_800_000, -30_001, -1, 0, 1, 30_000, 90_000):
        early = msgspec.structs.replace(issued.claims, not_before_ms=0, expires_ms=record["at_ms"] * 2)
        began = canonical.encode(
            msgspec.structs.replace(said.claims, at_ms=record["at_ms"] + at_ms, authorization=envelope.draft(early).id)
        )
        bundles.append(shown(canonical.encode(early), began))
    bundles.append(shown(plain, canonical.encode(envelope.read(Outcome, bytes(family().ended.outcome)).claims)))
    others = [lab.keys[name]["decision"] for name in lab.keys if name != issued.claims.issuer]
    bundles += [shown(plain, told, by=by) for by in ([issuer, *others], others, [issuer, lab.holder], [others[0]])]
    strong = canonical.encode(msgspec.structs.replace(issued.claims, assurance="quorum"))
    bundles += [shown(strong, told, by=by) for by in ([issuer], [issuer, *others[:1]], [issuer, *others[:2]])]
    foreign = canonical.encode(msgspec.structs.replace(issued.claims, holder=lab.issuer.public))
    bundles += [shown(foreign, told), shown(foreign, told, line="00" * 64), shown(plain, told, line="00" * 64)]
    found, here = judge.all(bundles, lab.roster_envelope), [said_here(data, lab.roster_envelope) for data in bundles]
    assert [said.failure for said in found if said.failure[0] == "parents"] == [
        said.failure for said in here if said.failure[0] == "parents"
    ]
    assert [said.verdict for said in found] == [said.verdict for said in here]
    codes = {code for check, code in (said.failure for said in here) if check == "parents"}
    assert codes >= {
        "parent_mismatch",
        "parent_over",
        "parent_foreign",
        "threshold_not_met",
        "bad_signature",
        "unknown_member",
        "wrong_epoch",
    }


def _signed(kind: type[Any], payload: bytes, *keys: SecretKey) -> bytes:
    name = envelope.kind_of(kind).payload_type
    return envelope.assemble(name, payload, {key.public: key.sign(envelope.pae(name, payload)) for key in keys})
