"""Epochs are listed and shown as members hold them, and two policies are compared by what people read."""

import asyncio

import msgspec
import pytest

from mesh.cli import client, epochs
from mesh.cli.output import Cli
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.policy import bundle_digest
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.messages import BundleAsked, LawAsked
from mesh.protocol.audit import Audit
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL, PolicyDesk
from tests.support.factory import AUDITORS, DOMAIN


def _asked(policy: PolicyDesk) -> list[str]:
    """From now on, the streams that members are asked for."""
    honest, streams = policy.ask, list[str]()

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, LawAsked):
            streams.append(message.stream)
        return await honest(member, message)

    policy.ask = ask
    return streams


def test_every_epoch_is_listed_with_how_members_stand_to_it(policy: PolicyDesk) -> None:
    manifest = policy.pushed()
    policy.say("activate", DOMAIN, *policy.keys(0, 1), "--ring", "eu@2090-01-31T09:00:00Z")
    status, rows, err = policy.say("ls")
    assert (status, [(row["domain"], row["epoch"], row["signed"]) for row in rows]) == (
        0,
        [(DOMAIN, 1, "2 of 2"), (DOMAIN, 2, "2 of 2")],
    ), err
    assert [row["admitted"] for row in rows] == ["a newer one", "4 of 4"]
    assert (rows[1]["id"], rows[1]["admitted_by"], rows[1]["active_at"]) == (manifest.id, list(ALL), [])
    assert (rows[0]["active"], rows[1]["begins"]) == (["ap", "eu", "sa", "us"], {"eu": "2090-01-31T09:00:00.000Z"})
    assert policy.say("ls", DOMAIN)[1] == rows
    assert code_of(policy.say("ls", "elsewhere")[2]) == "domain_unknown"
    assert policy.run("policy", "ls")[1].splitlines()[0].split()[:4] == ["domain", "epoch", "digest", "signed"]


def test_one_epoch_is_shown_with_signers_terms_sources_and_rings(policy: PolicyDesk) -> None:
    manifest = policy.pushed()
    step = policy.say("activate", DOMAIN, *policy.keys(0, 2))[1]
    status, shown, err = policy.say("show", DOMAIN)
    assert (status, shown["epoch"], shown["id"], shown["needed"]) == (0, 2, manifest.id, 2), err
    assert shown["signed_by"] == sorted(signer.public for signer in policy.lab.signers[:2])
    assert shown["terms"] == {"send": "local, authorization 30000 ms, lease 10000 ms"}
    assert [item["id"] for item in shown["activations"]] == [step["id"]]
    assert '@id("payments/send-by-payers")' in shown["policies"]["payments/send-by-payers"]
    out = policy.run("policy", "show", DOMAIN, "--epoch", "2")[1]
    assert 'permit (\n  principal in Group::"payers"' in out
    assert "terms of send" in out
    assert code_of(policy.say("show", DOMAIN, "--epoch", "7")[2]) == "not_found"


def test_it_is_shown_for_whom_parameters_are_sealed(policy: PolicyDesk) -> None:
    domain, key = policy.policy / "domain.toml", AUDITORS["finance"].public
    hidden = 'payee = { type = "string", privacy = "sealed", required = false, auditors = ["finance"] }'
    domain.write_text(f'{domain.read_text()}{hidden}\n\n[auditors]\nfinance = "{key}"\n')  # its parameters stand last
    policy.pushed()
    assert policy.say("show", DOMAIN)[1]["sealed"] == {"send payee": [f"finance {key}"]}
    assert "send payee is sealed for" in policy.run("policy", "show", DOMAIN, "--epoch", "2")[1]


def test_a_bundle_that_nobody_gives_is_said_and_the_rest_is_shown(policy: PolicyDesk) -> None:
    policy.pushed()
    policy.losing(BundleAsked, ALL)
    status, shown, err = policy.say("show", DOMAIN)
    assert (status, shown["epoch"], shown["policies"]) == (0, 2, {})
    assert "not_found" in err


def test_what_a_member_gives_for_a_bundle_is_taken_only_if_it_is_that_one(policy: PolicyDesk) -> None:
    manifest = policy.pushed()
    policy.mesh.bundles[manifest.claims.digest] = policy.lab.bundle_bytes
    assert policy.say("show", DOMAIN)[1]["policies"] == {}


def test_a_diff_names_what_is_added_removed_and_changed(policy: PolicyDesk) -> None:
    policy.pushed()
    assert policy.say("diff", f"{DOMAIN}@2", str(policy.policy)) == (0, [], "no difference\n")
    send, domain = policy.policy / "send.cedar", policy.policy / "domain.toml"
    old = policy.build().rename(policy.folder / "old.json")
    send.write_text(send.read_text().replace("500000", "400000").replace("// Every policy", "// Each policy"))
    domain.write_text(domain.read_text().replace("lease_ms = 10_000", "lease_ms = 9_000"))
    policy.change()
    changes = policy.say("diff", f"{DOMAIN}@2", str(policy.policy))[1]
    told = {(row["change"], row["part"], row["name"]) for row in changes}
    assert told == {("changed", "policy", "payments/send-by-payers"), ("added", "policy", "payments/extra-0"), ("changed", "terms", "send")}
    changed = next(row["diff"] for row in changes if row["name"] == "payments/send-by-payers")
    assert [line for line in changed.splitlines() if line.startswith(("-  ", "+  "))] == [
        "-  ((((context.asserted).params).amount_cents) <= 500000)",
        "+  ((((context.asserted).params).amount_cents) <= 400000)",
    ]
    status, less, err = policy.say("diff", str(policy.policy), str(old))
    assert {(row["change"], row["name"]) for row in less} == {("changed", "payments/send-by-payers"), ("removed", "payments/extra-0")}
    assert (status, "terms and enforcers are not compared" in err) == (0, True)
    out = policy.run("policy", "diff", str(old), str(policy.policy))[1]
    assert "changed policy payments/send-by-payers" in out
    assert code_of(policy.say("diff", "nowhere", str(old))[2]) == "usage"


def test_who_asks_about_policy_asks_for_no_revocations_and_the_other_way_round(policy: PolicyDesk) -> None:
    policy.pushed()
    policy.revoke("spiffe://lab/agent/anna")
    streams = _asked(policy)
    assert policy.ls()
    assert {stream.partition("/")[0] for stream in streams} == {"revoke", "roster"}
    streams.clear()
    assert policy.say("ls")[0] == 0
    assert {stream.partition("/")[0] for stream in streams} == {"policy", "roster"}


def test_what_a_member_claims_and_does_not_show_is_told(policy: PolicyDesk) -> None:
    policy.lying("eu-1", StreamHead(stream=f"activate/{DOMAIN}", sequence=3, head="ab" * 32, forked=False, held=""))
    assert f"eu-1 claims more of activate/{DOMAIN} than it shows" in policy.run("policy", "ls")[2]


@pytest.mark.parametrize("held", [True, False])
def test_what_a_decision_rested_on_is_asked_for_only_where_the_files_lack_it(policy: PolicyDesk, *, held: bool) -> None:
    manifest = policy.pushed()
    step = policy.say("activate", DOMAIN, *policy.keys(0, 1))[1]
    record = _decision(policy, manifest.id, step["id"], manifest.claims.digest)
    first = msgspec.structs.replace(policy.library, bundles=(policy.lab.bundle_bytes,))
    own = _decision(policy, policy.first.id, "", bundle_digest(policy.lab.bundle_bytes))
    streams = _asked(policy)

    async def work() -> client.Library:
        async with client.open_client(None) as (mesh, _):
            return await epochs.knowing(Cli(), mesh, first, [own] if held else [own, record])

    known = asyncio.run(work())
    if held:
        assert (known, streams) == (first, [])
        return
    assert {envelope.identify(data)[1] for data in known.manifests} == {policy.first.id, manifest.id}
    assert {envelope.identify(data)[1] for data in known.activations} == {step["id"]}
    assert {bundle_digest(data) for data in known.bundles} == {bundle_digest(policy.lab.bundle_bytes), manifest.claims.digest}
    law = known.governance.laws[DOMAIN][-1]
    assert (law.manifest_id, law.bundle is None) == (manifest.id, False)
    Audit(known.governance, policy.lab.engine)  # which takes only what is whole


def _decision(policy: PolicyDesk, manifest: str, activation: str, digest: str) -> DecisionMade:
    """A decision that says it rested on these."""
    _, request, openings = policy.lab.intent(1, at_ms=policy.mesh.now_ms)
    policy.mesh.request("eu-1", policy.lab.request(request, openings))
    records = [read_record(leaf) for leaf in policy.mesh.nodes["eu-1"].logs[policy.mesh.nodes["eu-1"].origin]]
    made = next(record for record in records if isinstance(record, DecisionMade))
    attested = msgspec.structs.replace(made.attested, manifest=manifest, activation=activation)
    return msgspec.structs.replace(made, attested=attested, decision=msgspec.structs.replace(made.decision, bundle=digest))
