"""Every kind of statement, record and message survives its own encoding, and hostile bytes raise only our refusals."""

import importlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core import messages
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import KINDS
from mesh.core.log import record
from mesh.errors import Refused
from tests.core.kit import secret
from tests.support.strategies import values_of

for _module in (
    "law.barrier",
    "law.governance",
    "law.heartbeat",
    "run.approval",
    "run.authorization",
    "run.heard",
    "run.intent",
    "run.outcome",
):
    importlib.import_module(f"mesh.core.{_module}")  # importing registers kinds
KIND_NAMES = sorted(KINDS)
RECORDS = [
    record.AttestRefused, record.DecisionMade, record.Denied, record.EnforcerHeard, record.GovernanceChanged, record.Incident, record.Noise,
    record.OutcomeRecorded,
]  # fmt: skip
PLAIN_MESSAGES = [
    messages.BarrierAsked,
    messages.Find, messages.Found, messages.HeardAsked, messages.Leaves,
    messages.NodeStatus, messages.Prove, messages.Pull, messages.RefusedAnswer,
    messages.StatusAsked, messages.Sync,
]  # fmt: skip
SLOW = settings(max_examples=12, suppress_health_check=list(HealthCheck))
KEY = secret(1)


def test_every_kind_of_the_wire_is_registered() -> None:
    assert set(KIND_NAMES) >= {
        "approval", "authorization", "barrier", "denial", "grant", "heard", "heartbeat", "identity", "intent",
        "outcome", "policy", "possession", "receipt", "refusal", "revocation", "roster",
    }  # fmt: skip


@pytest.mark.parametrize("name", KIND_NAMES)
@SLOW
@given(data=st.data())
def test_a_statement_survives_its_own_encoding(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    value = data.draw(values_of(kind.payload))
    draft = envelope.draft(value)
    signed = envelope.assemble(draft.payload_type, draft.payload, {KEY.public: KEY.sign(draft.message)})
    statement = envelope.read(kind.payload, signed)
    assert statement.claims == value
    assert statement.id == draft.id == envelope.identify(signed)[1]
    assert statement.signed_by(KEY.public)


@pytest.mark.parametrize("name", KIND_NAMES)
@SLOW
@given(data=st.data())
def test_a_statement_with_one_changed_byte_is_refused_or_no_longer_signed(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    draft = envelope.draft(data.draw(values_of(kind.payload)))
    signed = bytearray(envelope.assemble(draft.payload_type, draft.payload, {KEY.public: KEY.sign(draft.message)}))
    at = data.draw(st.integers(0, len(signed) - 1))
    signed[at] ^= data.draw(st.integers(1, 255))
    try:
        statement = envelope.read(kind.payload, bytes(signed))
    except Refused:
        return
    assert not statement.signed_by(KEY.public)


@pytest.mark.parametrize("name", KIND_NAMES)
@given(data=st.binary(max_size=300))
def test_hostile_bytes_are_refused_and_never_crash(name: str, data: bytes) -> None:
    kind = KINDS[name]
    with pytest.raises(Refused):
        envelope.read(kind.payload, data)
    with pytest.raises(Refused):
        canonical.decode(kind.payload, data, bytes_max=kind.bytes_max)


@pytest.mark.parametrize("kind", [*RECORDS, *PLAIN_MESSAGES], ids=lambda kind: kind.__name__)
@SLOW
@given(data=st.data())
def test_a_record_or_message_survives_its_own_encoding(kind: type[Payload], data: st.DataObject) -> None:
    value: Any = data.draw(values_of(kind))
    assert canonical.decode(kind, canonical.encode(value), bytes_max=10**6) == value


@given(data=st.binary(max_size=300))
def test_hostile_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(Refused):
        record.read_record(data)


@pytest.mark.parametrize("name", KIND_NAMES)
def test_a_statement_one_byte_past_its_limit_is_refused(name: str) -> None:
    kind = KINDS[name]
    with pytest.raises(Refused) as refused:
        canonical.decode(kind.payload, b" " * (kind.bytes_max + 1), bytes_max=kind.bytes_max)
    assert refused.value.code == "too_large"
