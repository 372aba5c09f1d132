"""What members would refuse is refused before anything is sent; an epoch is admitted when k members sign that they have it."""

import json
from pathlib import Path

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import Heartbeat, Standing
from mesh.core.law.policy import Manifest, bundle_digest
from mesh.core.messages import NodeStatus, Offer, StatusAsked, Supply, Sync, SyncAnswer, pack, unpack
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL, PolicyDesk
from tests.support.factory import DOMAIN, sign


def _read(path: Path) -> envelope.Statement[Manifest]:
    return envelope.read(Manifest, path.read_bytes())


def _changed(policy: PolicyDesk, **changes: object) -> str:
    """A manifest by both signers that no command would make."""
    path = policy.folder / "made.json"
    path.write_bytes(sign(msgspec.structs.replace(_read(policy.sign(0)).claims, **changes), *policy.lab.signers[:2]))
    return str(path)


def test_a_pushed_epoch_is_admitted_by_k_and_told_node_by_node(policy: PolicyDesk) -> None:
    manifest, bundle = policy.sign(0, 1), policy.build()
    status, shown, err = policy.say("push", str(manifest), str(bundle), "--watch")
    assert (status, shown["epoch"], shown["digest"], shown["needed"]) == (0, 2, bundle_digest(bundle.read_bytes()), 3), err
    assert shown["admitted"] >= 3
    assert shown["admitted_ms"] >= 0
    assert err.count("has admitted it after") == shown["admitted"]
    assert {row["node"]: row["answer"] for row in shown["members"]} == dict.fromkeys(ALL, "held")
    assert policy.held() == dict.fromkeys(ALL, (1, 2))
    assert "next: mesh policy activate payments --epoch 2" in err
    status, _, err = policy.say("push", str(manifest), str(bundle), "--watch")
    assert status == 0
    assert "already; it is offered again" in err


def test_one_signature_is_refused_with_who_signed_and_whose_is_missing(policy: PolicyDesk) -> None:
    status, shown, err = policy.say("push", str(policy.sign(0)), str(policy.build()))
    assert (status, shown, code_of(err)) == (5, None, "threshold_not_met")
    first, second, third = (signer.public[:12] for signer in policy.lab.signers)
    assert f"1 of 2 signatures; signed by {first}…; still to sign: 1 of {second}…, {third}…" in json.loads(err)["error"]["detail"]
    assert policy.held() == dict.fromkeys(ALL, (1,))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"epoch": 3}, "wrong_epoch"),
        ({"previous": "ab" * 32}, "wrong_epoch"),
        ({"domain": "elsewhere"}, "domain_unknown"),
        ({"mesh": "other"}, "wrong_mesh"),
        ({"expires_ms": 1}, "policy_expired"),
        ({"digest": "blake3:" + "ab" * 32}, "digest_mismatch"),
        ({"actions": {}}, "policy_invalid"),
    ],
)
def test_what_members_would_refuse_is_refused_before_it_is_offered(policy: PolicyDesk, changes: dict[str, object], code: str) -> None:
    policy.losing(Offer, ALL)
    assert code_of(policy.say("push", _changed(policy, **changes), str(policy.build()))[2]) == code


def test_a_bundle_whose_cases_fail_is_refused_before_it_is_offered(policy: PolicyDesk) -> None:
    bundle = policy.build()
    data = bundle.read_bytes().replace(b'"effect":"permit","enforcer_class"', b'"effect":"deny","enforcer_class"')
    assert data != bundle.read_bytes()
    bundle.write_bytes(data)
    manifest = _changed(policy, digest=bundle_digest(data))
    status, _, err = policy.say("push", manifest, str(bundle))
    assert (status, code_of(err)) == (2, "policy_tests_failed")
    assert policy.held() == dict.fromkeys(ALL, (1,))


def test_members_that_refuse_it_end_the_watch_with_their_code(policy: PolicyDesk) -> None:
    policy.mesh.refusing = {"eu-1": "policy_invalid", "us-1": "policy_invalid"}
    status, shown, err = policy.say("push", str(policy.sign(0, 1)), str(policy.build()), "--watch")
    assert (status, code_of(err)) == (3, "policy_invalid")
    assert {row["node"] for row in shown["members"] if row["refused"]} == {"eu-1", "us-1"}
    assert "eu-1 policy_invalid" in err


def test_one_member_that_refuses_stops_nobody(policy: PolicyDesk) -> None:
    policy.mesh.refusing = {"us-1": "policy_tests_failed"}
    status, shown, err = policy.say("push", str(policy.sign(0, 1)), str(policy.build()), "--watch")
    assert (status, shown["admitted"]) == (0, 3), err
    assert {row["node"]: row["refused"] for row in shown["members"]}["us-1"] == "policy_tests_failed"


def test_why_a_member_does_not_admit_it_is_asked_of_it(policy: PolicyDesk) -> None:
    policy.losing(Supply, ALL)
    honest = policy.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if not isinstance(message, StatusAsked):
            return data
        status = unpack(NodeStatus, data)
        policies = [msgspec.structs.replace(item, held=2, admitted=1, code="policy_too_deep") for item in status.policies]
        return pack(msgspec.structs.replace(status, policies=policies))

    policy.ask = ask
    status, _, err = policy.say("push", str(policy.sign(0, 1)), str(policy.build()), "--watch")
    assert (status, code_of(err)) == (3, "policy_too_deep")


def test_without_k_the_watch_ends_and_says_who_lacks_it(policy: PolicyDesk) -> None:
    policy.losing(Supply, ["us-1", "sa-1"])
    status, shown, err = policy.say("push", str(policy.sign(0, 1)), str(policy.build()), "--watch", "--wait", "0.4")
    assert (status, code_of(err), shown["admitted"]) == (4, "not_admitted", 2)
    assert "lacking: us-1 (bundle: unreachable), sa-1 (bundle: unreachable)" in err
    assert {row["node"]: row["bundle"] for row in shown["members"]} == {
        "eu-1": "taken", "us-1": "unreachable", "ap-1": "taken", "sa-1": "unreachable"
    }  # fmt: skip


def test_fewer_than_k_members_say_what_is_held_and_nothing_is_offered(policy: PolicyDesk) -> None:
    manifest, bundle = str(policy.sign(0, 1)), str(policy.build())
    policy.losing(Sync, ALL[:2])
    status, _, err = policy.say("push", manifest, bundle)
    assert (status, code_of(err)) == (4, "unreachable")
    assert policy.held() == dict.fromkeys(ALL, (1,))


def test_an_epoch_under_another_manifest_is_not_this_one(policy: PolicyDesk) -> None:
    policy.losing(Supply, ["us-1", "sa-1"])
    policy.losing(Offer, ["us-1", "sa-1"])
    policy.mesh.gossips = False
    honest = policy.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if not isinstance(message, Sync) or member not in {"us-1", "sa-1"}:
            return data
        beat = envelope.read(Heartbeat, bytes(unpack(SyncAnswer, data).heartbeat)).claims
        other = msgspec.structs.replace(beat, policies=[Standing(domain=DOMAIN, admitted=2, active=1)])
        return pack(SyncAnswer(heartbeat=msgspec.Raw(sign(other, policy.lab.keys[member]["decision"]))))

    policy.ask = ask
    manifest, bundle = str(policy.sign(0, 1)), str(policy.build())
    status, shown, err = policy.say("push", manifest, bundle, "--watch", "--wait", "0.4")
    assert (status, code_of(err), shown["admitted"]) == (4, "not_admitted", 2)


def test_without_any_member_it_is_said_that_nobody_took_it(policy: PolicyDesk) -> None:
    manifest, bundle = str(policy.sign(0, 1)), str(policy.build())
    policy.losing(Offer, ALL)
    status, _, err = policy.say("push", manifest, bundle)
    assert (status, code_of(err)) == (4, "unreachable")


def test_signers_who_said_two_things_are_not_helped_to_say_more(policy: PolicyDesk) -> None:
    manifest, bundle = str(policy.sign(0, 1)), str(policy.build())
    claims = policy.first.claims
    for reason in ("one", "two"):
        other = msgspec.structs.replace(claims, epoch=2, previous=policy.first.id, reason=reason)
        policy.offer(envelope.read(Manifest, sign(other, *policy.lab.signers[:2])))
    for command in (["push", manifest, bundle], ["activate", DOMAIN, *policy.keys(0, 1)]):
        status, _, err = policy.say(*command)
        assert (status, code_of(err)) == (5, "policy_conflict")
    assert "forked: the signers of this domain have said two things" in policy.run("policy", "ls")[2]
