"""Whatever root and policy signers sign, and k members attest: the page says VERIFIED of no law that a node would not act under."""

import json
from collections.abc import Callable
from typing import Any

import blake3
import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.law.activation import Activation
from mesh.core.law.policy import Manifest
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.core.log.tlogproof import TlogProof
from mesh.limits import STREAM_STATEMENTS_MAX
from mesh.protocol import attester, decide
from tests.page.corpus import LIARS, handed, more, rolled
from tests.page.tab import Judge, said_here
from tests.protocol.machines import LAB, checkpoint
from tests.support.epochs import ROSTERS, lived
from tests.support.factory import DOMAIN, secret, sign

ROSTER = "application/vnd.govmesh.roster.v1+json"


# ------------------------------------------------------------------------------------------------------------------ rosters


def _many_revokers() -> dict[str, Any]:
    """Each number of streams alone could be named in a heartbeat, those of the change together could not."""
    keys = sorted(secret(f"revoker {number}").public for number in range(90))
    handovers = {f"revoke/{key}": {"sequence": 0, "head": ""} for key in [*keys, *ROSTERS[0].claims.revoker.keys]}
    return {"revoker": {"keys": keys, "threshold": 2}, "handovers": handovers | {f"halt/{DOMAIN}": {"sequence": 0, "head": ""}}}


@pytest.mark.parametrize(
    "change",
    [
        {"handovers": {"halt/nowhere": {"sequence": 0, "head": ""}}},
        {"handovers": {"roster": {"sequence": 0, "head": ""}}},
        {"handovers": {f"policy/{DOMAIN}": {"sequence": STREAM_STATEMENTS_MAX, "head": "ab" * 32}}},
        {"handovers": {f"activate/{DOMAIN}": {"sequence": 4_096, "head": "ab" * 32}}},
        _many_revokers(),
    ],
    ids=[
        "a stream that nobody has",
        "the stream of rosters",
        "no room behind it",
        "no room for activations",
        "more streams than can be named",
    ],
)
def test_a_roster_that_no_node_takes_in_makes_nothing_verified(judge: Judge, change: dict[str, Any]) -> None:
    people, claims = lived(1).lab, json.loads(canonical.encode(ROSTERS[1].claims))
    handovers = dict(sorted({**claims["handovers"], **change["handovers"]}.items()))
    payload = canonical.encode({**claims, **change, "handovers": handovers})
    seal = envelope.assemble(
        ROSTER, payload, {key.public: key.sign(envelope.pae(ROSTER, payload)) for key in [*people.root, people.operator]}
    )
    bundle = lived(1).proof(lived(1).late, rosters=[ROSTERS[0].envelope, seal])
    (page,), here = judge.all([bundle], ROSTERS[0].envelope), said_here(bundle, ROSTERS[0].envelope)
    assert (page.verdict, page.failure[1]) == (here.verdict, here.failure[1]) == ("FAILED", "roster_unsound")


def test_a_manifest_of_a_later_reign_decides_nothing_under_the_roster_before(judge: Judge) -> None:
    told = handed()
    whole = read_proof(told.proof(told.forbidden, rosters=[told.roster.envelope]))
    owner = LAB.roster.member("ap-1")
    leaf = canonical.encode(json.loads(bytes(whole.record)) | {"origin": LAB.roster.origin(owner), "index": 0, "roster_epoch": 1})
    attested = TlogProof(index=0, path=(), note=checkpoint([leaf], *LIARS, owner=owner)).encode().decode()
    bundle = encode_proof(msgspec.structs.replace(whole, record=msgspec.Raw(leaf), proof=attested, outcomes=[]))
    (page,), here = judge.all([bundle], told.genesis.envelope), said_here(bundle, told.genesis.envelope)
    assert page.failure == here.failure == ("decision", "policy_unknown")


# ------------------------------------------------------------------------------------------------------------------ bundles


Change = Callable[[dict[str, Any]], None]


def _twice(part: str, name: str = "") -> Change:
    """The first of a list stands there again, otherwise."""

    def change(bundle: dict[str, Any]) -> None:
        listed = bundle["actions"][0]["params"] if part == "params" else bundle[part]
        if not listed:
            listed.append({"name": "level", "type": "int"})
        again = json.loads(json.dumps(listed[0]))
        if name == "privacy":
            again[name] = "public" if again[name] == "committed" else "committed"
        if name == "annotations":
            again[name].pop("approval", None)
        listed.append(again)

    return change


class _Lawful:
    """A decision of more() whose policy bundle is another, manifest, record and certificate with it."""

    def __init__(self, which: str, change: Change) -> None:
        self.whole = read_proof(more().proof(getattr(more(), which)))
        bundle = json.loads(bytes(self.whole.bundles[0]))
        change(bundle)
        self.data = canonical.encode(bundle)
        digest = "blake3:" + blake3.blake3(self.data).hexdigest()
        manifest = envelope.read(Manifest, bytes(self.whole.manifests[0]))
        self.manifest = sign(msgspec.structs.replace(manifest.claims, digest=digest), *more().lab.signers[:2])
        self.record = json.loads(bytes(self.whole.record)) | {"index": 0}
        self.record["attested"]["manifest"] = envelope.identify(self.manifest)[1]
        self.record["decision"]["bundle"] = digest

    def proof(self) -> bytes:
        leaf = canonical.encode(self.record)
        owner = next(member for member in LAB.roster.members if LAB.roster.origin(member) == self.record["origin"])
        attested = TlogProof(index=0, path=(), note=checkpoint([leaf], *LIARS, owner=owner)).encode().decode()
        parts = {"record": msgspec.Raw(leaf), "proof": attested, "outcomes": [], "bundles": [msgspec.Raw(self.data)]}
        return encode_proof(msgspec.structs.replace(self.whole, **parts, manifests=[msgspec.Raw(self.manifest)]))


@pytest.mark.parametrize(
    "change",
    [
        _twice("policies", "annotations"),
        _twice("principal"),
        _twice("types"),
        _twice("entities"),
        _twice("actions"),
        _twice("params", "privacy"),
    ],
    ids=["policies", "attributes", "types", "entities", "actions", "parameters"],
)
def test_a_bundle_that_names_something_twice_is_refused_by_both(judge: Judge, change: Change) -> None:
    bundle, trust = _Lawful("lacking", change).proof(), more().lab.roster_envelope
    (page,), here = judge.all([bundle], trust), said_here(bundle, trust)
    assert page.failure == here.failure == ("policy", "policy_invalid")


def _seen(monkeypatch: pytest.MonkeyPatch, law: _Lawful) -> None:
    """Make the record say what would follow, if an annotation were read only up to its first comma."""
    decided: Any = decide
    attesting: Any = attester
    digest, draft, demands = decided.input_digest, attesting.authorization_draft, decided.demands
    seen = dict[str, str]()
    trust = more().lab.roster_envelope
    with monkeypatch.context() as patch:
        patch.setattr(decided, "demands", lambda annotation: demands(annotation.partition(",")[0]))
        patch.setattr(decided, "input_digest", lambda *given, **more_: seen.setdefault("input", digest(*given, **more_)))
        said_here(law.proof(), trust)
        law.record["decision"]["input"] = seen["input"]

        def drafted(*given: Any, **more_: Any) -> Any:
            made = draft(*given, **more_)
            seen["id"] = made.id
            return made

        patch.setattr(attesting, "authorization_draft", drafted)
        said_here(law.proof(), trust)
        law.record["authorization"] = seen.get("id", "")


@pytest.mark.parametrize("twice", [True, False], ids=["a group twice", "more groups than approvals"])
def test_an_annotation_that_no_node_admits_decides_nothing(judge: Judge, monkeypatch: pytest.MonkeyPatch, *, twice: bool) -> None:
    def change(bundle: dict[str, Any]) -> None:
        for policy in bundle["policies"]:
            if first := policy["annotations"].get("approval"):
                policy["annotations"]["approval"] = ",".join(
                    [first, first] if twice else [first, *(f"1 of x{number}" for number in range(4))]
                )

    law, trust = _Lawful("large" if twice else "lacking", change), more().lab.roster_envelope
    _seen(monkeypatch, law)
    if not twice:
        law.record["decision"]["needs"] = [*law.record["decision"]["needs"], *(f"1 of x{number}" for number in range(4))]
    (page,), here = judge.all([law.proof()], trust), said_here(law.proof(), trust)
    assert (page.verdict, page.failure[0]) == (here.verdict, here.failure[0]) == ("FAILED", "decision")


# ------------------------------------------------------------------------------------------------------------------ numbers


def _renumbered(epoch: int, sequences: tuple[int, int]) -> bytes:
    """A decision under two activations with these numbers, of a manifest with that epoch."""
    lab, whole = rolled().lab, json.loads(rolled().proof(rolled().forbidden))
    manifest = sign(msgspec.structs.replace(rolled().second.claims, epoch=epoch), *lab.signers[:2])
    named, before, steps = envelope.identify(manifest)[1], "", list[Any]()
    for number, step in zip(sequences, rolled().steps, strict=True):
        claims = msgspec.structs.replace(step.claims, sequence=number, previous=before, epoch=epoch, manifest=named)
        said = envelope.read(Activation, sign(claims, *lab.signers[:2]))
        before = said.id
        steps.append(json.loads(said.envelope))
    record = whole["record"] | {"index": 0}
    record["attested"] |= {"manifest": named, "activation": before, "policy_epoch": epoch}
    leaf = canonical.encode(record)
    owner = next(member for member in LAB.roster.members if LAB.roster.origin(member) == record["origin"])
    attested = TlogProof(index=0, path=(), note=checkpoint([leaf], *LIARS, owner=owner)).encode().decode()
    parts = {"record": record, "proof": attested, "manifests": [json.loads(manifest)], "activations": steps, "outcomes": []}
    return canonical.encode(whole | parts)


@pytest.mark.parametrize(
    ("epoch", "sequences"), [(2, (1, 3)), (STREAM_STATEMENTS_MAX + 1, (1, 2))], ids=["a step left out", "an epoch beyond any"]
)
def test_numbers_that_no_stream_reaches_are_refused_by_both(judge: Judge, epoch: int, sequences: tuple[int, int]) -> None:
    bundle, trust = _renumbered(epoch, sequences), rolled().lab.roster_envelope
    (page,), here = judge.all([bundle], trust), said_here(bundle, trust)
    assert page.failure[0] == here.failure[0] == "policy", (page.failure, here.failure)
