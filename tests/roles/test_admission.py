"""A node decides by no policy that it has not checked itself, whoever signed it and whoever sent it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from mesh.adapters.cedar import CedarEngine
from mesh.adapters.decision_thread import DecisionThread
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import admit_governance, extend, with_bundle
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Bundle, Manifest, PolicyJson, bundle_digest
from mesh.core.law.roster import Roster
from mesh.core.messages import Offered, unpack
from mesh.errors import Refused, Unavailable
from mesh.policy.build import Built, check
from mesh.protocol.gossip import PolicyAdmitted, PolicyRefused
from mesh.roles.admission import Admission, admit_stored, waiting
from tests.support.factory import Lab, sign

LAB: Final = Lab()
BUILT: Final[Built] = check(Path(__file__).parents[2] / "mesh" / "dev" / "policies" / "payments")
PLAIN: Final = admit_governance(envelope.read(Roster, LAB.roster_envelope), pin=LAB.pin)


def _manifest(data: bytes = BUILT.data, **changed: object) -> Statement[Manifest]:
    terms = {"actions": BUILT.actions, "enforcers": BUILT.enforcers, **changed}
    claims = msgspec.structs.replace(LAB.manifest, digest=bundle_digest(data), **terms)
    return envelope.read(Manifest, sign(claims, *LAB.signers[:2]))


def _spoilt(**changed: object) -> bytes:
    return canonical.encode(msgspec.structs.replace(BUILT.bundle, **changed))


class _Node:
    """What a node is to its admission."""

    def __init__(self, *statements: Statement[Manifest]) -> None:
        taken = extend(PLAIN, statements)
        assert taken.refused == {}
        self.governance: Governance = taken.governance
        self.told = list[PolicyAdmitted | PolicyRefused]()
        self.there: dict[str, bytes] = {}
        self.asked = list[str]()

    async def find(self, digest: str) -> bytes | None:
        self.asked.append(digest)
        return self.there.get(digest)

    def tell(self, event: PolicyAdmitted | PolicyRefused) -> None:
        self.told.append(event)
        if isinstance(event, PolicyAdmitted):
            self.governance = with_bundle(self.governance, event.manifest, event.bundle)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 -- what is waited for happens in another task
                await asyncio.sleep(0.01)


@pytest.fixture
def engine() -> Iterator[CedarEngine]:
    thread = DecisionThread()
    yield CedarEngine(thread)
    thread.close()


@pytest.fixture
async def running(engine: CedarEngine) -> AsyncIterator[Callable[[_Node], Admission]]:
    tasks = list[asyncio.Task[None]]()

    def begin(node: _Node) -> Admission:
        admission = Admission(engine, lambda: node.governance, [node.find], node.tell)
        tasks.append(asyncio.get_running_loop().create_task(admission.run()))
        return admission

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_held_is_looked_for_checked_and_said(running: Callable[[_Node], Admission], engine: CedarEngine) -> None:
    manifest = _manifest()
    node = _Node(manifest)
    running(node)
    await node.until(lambda: bool(node.asked))
    assert not node.told
    node.there[BUILT.digest] = BUILT.data
    await node.until(lambda: bool(node.told))
    assert node.told == [PolicyAdmitted(manifest.id, BUILT.bundle, BUILT.data)]
    assert engine.holds(BUILT.digest)
    assert waiting(node.governance) == []


async def test_what_somebody_supplies_is_taken_only_if_a_believed_manifest_names_it(running: Callable[[_Node], Admission]) -> None:
    node = _Node(_manifest())
    admission = running(node)
    for data in (b"{}", b"garbage", _spoilt(cases=[])):
        with pytest.raises(Refused) as caught:
            admission.supplied(data)
        assert caught.value.code == "not_found"
    assert unpack(Offered, admission.supplied(BUILT.data)).results == {BUILT.digest: ""}
    await node.until(lambda: bool(node.told))
    with pytest.raises(Refused) as caught:
        admission.supplied(BUILT.data)
    assert caught.value.code == "not_found", "nothing waits for it any more"


def _failing() -> bytes:
    cases = [msgspec.structs.replace(case, effect="deny" if case.effect == "permit" else "permit") for case in BUILT.bundle.cases]
    return _spoilt(cases=cases)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_failing(), "policy_tests_failed"),
        (_spoilt(schema="entity"), "policy_invalid"),
        (_spoilt(domain="other"), "policy_invalid"),
        (b"{}", "malformed"),
    ],
    ids=["its cases fail", "no schema", "another domain", "no bundle"],
)
async def test_what_fails_a_check_is_refused_once_whoever_signed_it(running: Callable[[_Node], Admission], data: bytes, code: str) -> None:
    manifest = _manifest(data)
    node = _Node(manifest)
    node.there[manifest.claims.digest] = data
    admission = running(node)
    await node.until(lambda: bool(node.told))
    assert node.told == [PolicyRefused(manifest.id, code)]
    assert admission.refused == {manifest.id: code}
    await asyncio.sleep(0.5)
    assert len(node.told) == 1
    admission.begin_again()
    await asyncio.sleep(0.5)
    assert len(node.told) == 1


def _strict(policy: PolicyJson) -> dict[str, str]:
    return {**policy.annotations, "assurance": "quorum"} if policy.effect == "permit" else policy.annotations


async def test_a_manifest_that_demands_less_than_the_policy_is_refused_though_its_content_is_known(
    running: Callable[[_Node], Admission], engine: CedarEngine
) -> None:
    """The same content under another epoch has other terms: each manifest is checked for itself."""
    strict = [msgspec.structs.replace(item, annotations=_strict(item)) for item in BUILT.bundle.policies]
    data = _spoilt(policies=strict)
    enough = {name: msgspec.structs.replace(terms, assurance="quorum") for name, terms in BUILT.actions.items()}
    first = _manifest(data, actions=enough)
    weak = _manifest(data, epoch=2, previous=first.id)
    node = _Node(first, weak)
    node.there[bundle_digest(data)] = data
    running(node)
    await node.until(lambda: len(node.told) == 2)
    assert {type(event) for event in node.told if event.manifest == weak.id} == {PolicyRefused}
    assert {type(event) for event in node.told if event.manifest == first.id} == {PolicyAdmitted}
    assert engine.holds(bundle_digest(data))


async def test_what_could_not_be_looked_at_is_looked_at_again(
    running: Callable[[_Node], Admission], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: list[bytes]) -> None:
        raise Unavailable("engine_unavailable", "no child")

    manifest = _manifest()
    node = _Node(manifest)
    node.there[BUILT.digest] = BUILT.data
    with monkeypatch.context() as patch:
        patch.setattr("mesh.roles.admission.examine", broken)
        running(node)
        await node.until(lambda: bool(node.asked))
        await asyncio.sleep(0.3)
        assert not node.told
    await node.until(lambda: bool(node.told))
    assert isinstance(node.told[0], PolicyAdmitted)


async def test_a_liar_that_gives_another_bundle_delays_and_changes_nothing(running: Callable[[_Node], Admission]) -> None:
    manifest = _manifest()
    node = _Node(manifest)
    node.there[BUILT.digest] = _spoilt(cases=[])
    running(node)
    await node.until(lambda: bool(node.asked))
    assert not node.told
    node.there[BUILT.digest] = BUILT.data
    await node.until(lambda: bool(node.told))
    assert node.told == [PolicyAdmitted(manifest.id, BUILT.bundle, BUILT.data)]


async def test_what_was_told_and_may_not_be_durable_is_told_again(running: Callable[[_Node], Admission]) -> None:
    manifest = _manifest()
    node = _Node(manifest)
    before = node.governance
    node.there[BUILT.digest] = BUILT.data
    admission = running(node)
    await node.until(lambda: bool(node.told))
    node.governance = before  # the step was discarded
    admission.begin_again()
    await node.until(lambda: len(node.told) == 2)
    assert node.told[0] == node.told[1]


async def test_a_start_admits_what_was_admitted_before_and_leaves_out_what_is_not_there(engine: CedarEngine) -> None:
    first = _manifest()
    second = _manifest(_spoilt(cases=BUILT.bundle.cases[:1]), epoch=2, previous=first.id)
    node = _Node(first, second)
    node.there[BUILT.digest] = BUILT.data
    admitted = await admit_stored(node.governance, engine, node.find)
    assert admitted == {first.id: msgspec.json.decode(BUILT.data, type=Bundle)}
    assert engine.holds(BUILT.digest)
