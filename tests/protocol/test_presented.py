"""Threats 3, 8, 14 and 15: what is presented is for exactly this, by a governor of today, under a policy that enough people signed."""

import base64
import json
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.law.fold import admit_governance
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Role, Roster
from mesh.core.law.succession import Rosters
from mesh.core.run.authorization import Possession
from mesh.core.run.intent import Intent
from mesh.errors import Refused
from mesh.protocol.documents import Documents
from mesh.protocol.enforcer import Actual, Presented, admit
from tests.core.kit import refuses
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerbench import CHALLENGE, MEASURED, MEMO, PARAMS, RESOURCE, Bench
from tests.protocol.enforcerkit import ENFORCER, HOLDER
from tests.support.factory import DOMAIN, Lab, sign

ACTUAL = Actual(domain="ops", action="pay", resource=RESOURCE, params=PARAMS, openings=(MEMO,), measurements=MEASURED)


def _flipped(intent: Intent) -> list[Intent]:
    """Each intent that is another one by one changed byte."""
    payload, found = canonical.encode(intent), list[Intent]()
    for at, byte in enumerate(payload):
        for other in {byte ^ 0x01, byte ^ 0x02, byte ^ 0x04} - {byte}:
            try:
                found.append(canonical.decode(Intent, payload[:at] + bytes([other]) + payload[at + 1 :], bytes_max=100_000))
            except Refused:
                continue
    return found


@pytest.mark.parametrize("answer", ["about the one that was authorized", "about the one that is presented"])
def test_threat_3_an_authorization_beside_an_intent_of_which_one_byte_is_another_is_refused(answer: str) -> None:
    bench = Bench()
    place, view = bench.place(), bench.view()
    identity, intent, _ = bench.documents()
    authorization = kit.read(bench.authorized(intent, view), *bench.signers).envelope
    codes = dict[str, int]()
    others = _flipped(intent)
    assert len(others) > 500, "every field is among them"
    for other in others:
        shown = intent if answer == "about the one that was authorized" else other
        possession = Possession(mesh=kit.MESH, intent=envelope.draft(shown).id, enforcer=ENFORCER.public, challenge=CHALLENGE)
        presented = Presented(
            authorization=authorization,
            frontier=view.governance.frontier,
            intent=kit.sign(other, HOLDER),
            identity=identity,
            possession=kit.sign(possession, HOLDER),
        )
        with pytest.raises(Refused) as caught:
            admit(presented, ACTUAL, challenge=CHALLENGE, place=place, view=view, documents=Documents())
        codes[caught.value.code] = codes.get(caught.value.code, 0) + 1
    if answer == "about the one that was authorized":
        assert max(codes, key=lambda code: codes[code]) == "digest_mismatch"
        assert codes.keys() <= {"digest_mismatch", "assurance_too_low"}
    else:
        assert codes.keys() == {"possession"}


def _without(name: str) -> Any:
    """The view of an enforcer that has gone over to a roster in which that governor is no more."""
    view = Bench().view()
    first = view.governance.roster
    members = [member for member in first.members if member.name != name]
    after = msgspec.structs.replace(first, epoch=2, previous=view.governance.roster_id, members=members, f=0, k=2)
    rosters = Rosters({**view.governance.rosters.held, "22" * 32: after}, (*view.governance.rosters.ids, "22" * 32))
    return msgspec.structs.replace(view, governance=msgspec.structs.replace(view.governance, rosters=rosters).under(2))


@pytest.mark.parametrize(("epoch", "code"), [(1, "wrong_epoch"), (2, "unknown_member"), (3, "wrong_epoch")])
def test_threat_8_what_a_governor_signs_that_is_no_member_any_more_starts_nothing_whichever_epoch_it_names(epoch: int, code: str) -> None:
    bench = Bench()
    bench.authorization["roster_epoch"] = epoch
    identity, intent, intent_bytes = bench.documents()
    view = _without("anna")
    authorization = kit.read(bench.authorized(intent, bench.view()), kit.decision_key("anna")).envelope
    possession = Possession(mesh=kit.MESH, intent=envelope.draft(intent).id, enforcer=ENFORCER.public, challenge=CHALLENGE)
    presented = Presented(
        authorization=authorization,
        frontier=view.governance.frontier,
        intent=intent_bytes,
        identity=identity,
        possession=kit.sign(possession, HOLDER),
    )
    with refuses(code):
        admit(presented, ACTUAL, challenge=CHALLENGE, place=bench.place(), view=view, documents=Documents())


# -------------------------------------------------------------------------------------------------------------- thresholds

LAB = Lab()


def _admitted(manifest: bytes) -> None:
    admit_governance(
        envelope.read(Roster, LAB.roster_envelope),
        pin=LAB.pin,
        manifests=[envelope.read(Manifest, manifest)],
        bundles=[LAB.bundle_bytes],
    )


def _lines(data: bytes, lines: list[dict[str, str]]) -> bytes:
    """The same statement with these signatures."""
    return json.dumps({**json.loads(data), "signatures": lines}, separators=(",", ":")).encode()


def test_threat_14_a_policy_that_one_signer_less_than_the_threshold_signed_is_nobodys() -> None:
    _admitted(LAB.manifest_envelope)
    one, two, _ = LAB.signers
    for signers in ([one], [two], [one, LAB.root[0]], [one, LAB.issuer, LAB.revoker]):
        with refuses("threshold_not_met", "bad_signature"):
            _admitted(sign(LAB.manifest, *signers))


def test_threat_15_one_key_is_one_signer_however_often_and_under_whatever_name_it_stands_there() -> None:
    one = LAB.signers[0]
    single = sign(LAB.manifest, one)
    line = json.loads(single)["signatures"][0]
    stray = base64.b64encode(base64.b64decode(line["sig"])).decode().rstrip("=")
    for again in (line, {**line, "keyid": one.public.upper()}, {**line, "sig": stray}):
        with refuses("non_canonical", "malformed"):
            _admitted(_lines(single, [line, again]))
    with refuses("threshold_not_met"):
        _admitted(_lines(single, [line]))  # it is the second line that was refused, not how this test writes
    with refuses("bad_key"):
        msgspec.structs.replace(LAB.roster, policy={DOMAIN: Role(keys=[one.public, one.public], threshold=2)})
