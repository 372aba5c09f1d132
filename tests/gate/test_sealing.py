"""A gate seals for whom the signed policy names, and what it sealed leaves the process in boxes only."""

from collections.abc import Callable

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Params
from mesh.core.law.policy import Auditor
from mesh.core.messages import BundleGiven, IntentRequest, RefusedAnswer, pack, unpack
from mesh.core.run.intent import Intent
from mesh.core.run.sealed import open_box
from mesh.errors import MeshError, Refused
from mesh.gate.core import Core
from mesh.gate.errors import Denied
from mesh.gate.front import Gate
from tests.gate.test_core import DONE
from tests.gate.wire import FakeBus, events_of, wish
from tests.support.factory import AUDITORS, Lab
from tests.support.sealed import PAYEE

SEALED: Params = {"payee": PAYEE}


def _requests(bus: FakeBus) -> list[IntentRequest]:
    """Keeps every intent that is sent from now on."""
    found = list[IntentRequest]()

    def note(subject: str, data: bytes, answer: bytes) -> bytes:
        if ".intent." in subject:
            found.append(unpack(IntentRequest, data))
        return answer

    bus.spoil = note
    return found


def _bundles(bus: FakeBus) -> int:
    return len([subject for subject in bus.asked if subject.startswith("mesh.v1.sync.")])


async def test_what_is_sealed_runs_in_the_clear_here_and_leaves_in_boxes_only(core: Core, bus: FakeBus) -> None:
    sent = _requests(bus)
    work = await core.begin(wish(sealed=SEALED, committed={"memo": "rent"}), lambda: None)
    assert work.params == {"amount": 10, "memo": "rent", "payee": PAYEE}  # the effect has it from the caller
    await core.end(work, DONE)
    (request,) = sent
    assert PAYEE.encode() not in pack(request)
    assert [opening.name for opening in request.openings] == ["memo"]
    claims = envelope.read(Intent, bytes(request.intent)).claims
    assert {name: [seal.auditor for seal in seals] for name, seals in claims.sealed.items()} == {"payee": ["finance", "tax"]}
    for key in AUDITORS.values():
        assert open_box(claims.sealed, claims.committed, request.boxes, "payee", key, holder=claims.holder).value == PAYEE
    for node in bus.mesh.nodes.values():
        held = [*node.bodies.values(), *node.openings.values(), *(leaf for leaves in node.logs.values() for leaf in leaves)]
        assert not any(PAYEE.encode() in data for data in held)


async def test_the_clear_text_that_would_run_is_held_to_the_commitment(core: Core) -> None:
    asked = await core.request(wish(sealed=SEALED))
    other = tuple(msgspec.structs.replace(opening, value="somebody else") for opening in asked.openings)
    with pytest.raises(Denied) as no:
        await core.present(wish(sealed=SEALED), msgspec.structs.replace(asked, openings=other), lambda: None)
    assert no.value.code == "digest_mismatch"


async def test_without_the_clear_text_nothing_that_needs_it_runs(core: Core, bus: FakeBus) -> None:
    asked = await core.request(wish(sealed=SEALED))
    with pytest.raises(Denied) as no:
        await core.present(wish(), msgspec.structs.replace(asked, openings=()), lambda: None)
    assert no.value.code == "digest_mismatch"
    assert "started" not in events_of(bus)


async def test_who_the_auditors_are_is_asked_once(core: Core, bus: FakeBus) -> None:
    before = _bundles(bus)
    await core.request(wish())
    assert _bundles(bus) == before
    for _ in range(3):
        await core.request(wish(sealed=SEALED))
    assert _bundles(bus) == before + 1


@pytest.mark.parametrize("lie", ["another bundle", "nothing", "no"])
async def test_who_shows_another_bundle_is_not_believed(core: Core, bus: FakeBus, lab: Lab, lie: str) -> None:
    """A member that names itself among the auditors: the digest in the signed manifest says otherwise."""
    bundle = next(iter(lab.governance.laws.values()))[0].bundle
    assert bundle is not None
    forged = canonical.encode(msgspec.structs.replace(bundle, auditors=[Auditor(name="finance", key=bundle.auditors[1].key)]))
    answers = {
        "another bundle": pack(BundleGiven(bundle=msgspec.Raw(forged))),
        "nothing": b"",
        "no": pack(RefusedAnswer(code="unavailable", detail="")),
    }
    told = list[str]()

    def spoil(liars: Callable[[str], bool]) -> Callable[[str, bytes, bytes], bytes]:
        def answer(subject: str, data: bytes, honest: bytes) -> bytes:
            asks = subject.startswith("mesh.v1.sync.") and data.startswith(b'{"ask":"bundle"')
            if asks:
                told.append(subject)
            return answers[lie] if asks and liars(subject) else honest

        return answer

    bus.spoil = spoil(lambda _: True)
    with pytest.raises(MeshError) as no:
        await core.request(wish(sealed=SEALED))
    assert no.value.code == "unreachable"
    assert len(told) == 4  # all were asked
    bus.spoil = spoil(lambda subject: subject.endswith(".eu-1"))
    await core.request(wish(sealed=SEALED))


async def test_what_policy_does_not_seal_cannot_be_sealed(core: Core) -> None:
    cases: list[tuple[Params, Params | None]] = [({"memo": "x"}, None), ({"purse": "x"}, None), (SEALED, SEALED)]
    for sealed, committed in cases:
        with pytest.raises(Refused) as no:
            await core.request(wish(sealed=sealed, committed=committed))
        assert no.value.code == "params_mismatch"


async def test_what_policy_seals_cannot_be_sent_otherwise(core: Core) -> None:
    with pytest.raises(Denied) as no:
        await core.request(wish(committed=SEALED))
    assert no.value.code == "params_mismatch"


def test_a_guarded_function_seals_the_arguments_that_it_names(gate: Gate, bus: FakeBus) -> None:
    sent = _requests(bus)

    @gate.guard("payments/send", resource=("Account", "acme"), sealed=("payee",))
    def pay(amount: int, payee: str) -> str:
        return f"{payee}: {amount}"

    assert pay(5, PAYEE) == f"{PAYEE}: 5"
    assert PAYEE.encode() not in pack(sent[0])
    with gate.execution("payments/send", ("Account", "acme"), {"amount": 3}, sealed=SEALED) as run:
        assert run.params["payee"] == PAYEE
    gate.request("payments/send", ("Account", "acme"), {"amount": 3}, sealed=SEALED)
    with pytest.raises(Denied) as no:
        gate.request("payments/send", ("Account", "acme"), {"amount": 3}, sealed={"payee": "x" * 1_025})
    assert no.value.code == "params_mismatch"
