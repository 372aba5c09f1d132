"""A statement has one envelope and one identity; it is believed only on the word of keys that were asked about."""

import base64
import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import canonical
from mesh.core.bytes.envelope import KINDS, Statement, assemble, draft, identify, kind_of, pae, read
from mesh.core.law.revocation import Revocation, Target
from mesh.core.run.identity import Identity
from mesh.errors import Refused
from mesh.limits import ENVELOPE_BYTES_MAX, SIGNATURES_MAX, STATEMENT_BYTES_MAX
from tests.core.kit import HOSTILE, flips, refuses, secret

KEYS = sorted((secret(number) for number in range(1, 5)), key=lambda key: key.public)
PUBLIC = [key.public for key in KEYS]
VALUE = Revocation(
    mesh="mesh",
    revoker=PUBLIC[0],
    sequence=1,
    previous="",
    since="",
    target=Target(type="subject", value="spiffe://mesh/agent"),
    spares=[],
    reason="lost laptop",
    issued_ms=1_700_000_000_000,
)
DRAFT = draft(VALUE)


def signatures(*numbers: int) -> dict[str, bytes]:
    return {PUBLIC[number]: KEYS[number].sign(DRAFT.message) for number in numbers}


def envelope(*numbers: int) -> bytes:
    return assemble(DRAFT.payload_type, DRAFT.payload, signatures(*numbers))


def mangled(change: dict[str, object], *numbers: int) -> bytes:
    """The envelope with members changed, spelled as compactly and in the same order as the right one."""
    wire = json.loads(envelope(*numbers)) | change
    return json.dumps(dict(sorted(wire.items())), separators=(",", ":")).encode()


def lines(*numbers: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(envelope(*numbers))["signatures"]
    return found


# ------------------------------------------------------------------------------------------------------- form, identity


def test_an_envelope_survives_its_own_encoding() -> None:
    for signers in ((), (0,), (0, 1, 2, 3)):
        data = envelope(*signers)
        found = read(Revocation, data)
        assert (found.claims, found.payload, found.envelope) == (VALUE, DRAFT.payload, data)
        assert found.signatures == signatures(*signers)
        assert assemble(DRAFT.payload_type, found.payload, found.signatures) == data


def test_an_envelope_is_dsse() -> None:
    wire = json.loads(envelope(0))
    assert list(wire) == ["payload", "payloadType", "signatures"]
    assert wire["payloadType"] == "application/vnd.govmesh.revocation.v1+json"
    assert base64.b64decode(wire["payload"]) == canonical.encode(VALUE)
    assert list(wire["signatures"][0]) == ["keyid", "sig"]
    assert mangled({}, 0, 1) == envelope(0, 1), "the tests below change nothing but what they say"


def test_what_is_signed_is_the_pae_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert DRAFT.message == pae(DRAFT.payload_type, DRAFT.payload) == read(Revocation, envelope(0)).message


def test_the_length_of_a_type_is_counted_in_bytes() -> None:
    assert pae("é", "é".encode()) == "DSSEv1 2 é 2 é".encode()


def test_signatures_do_not_change_the_identity() -> None:
    ids = {read(Revocation, envelope(*signers)).id for signers in ((), (0,), (2,), (0, 1, 2, 3))}
    forged = assemble(DRAFT.payload_type, DRAFT.payload, {PUBLIC[0]: bytes(64)})
    assert ids == {DRAFT.id} == {read(Revocation, forged).id} == {hashlib.sha256(DRAFT.message).hexdigest()}
    assert identify(forged) == identify(envelope(1)) == (DRAFT.payload_type, DRAFT.id)


def test_identity_covers_every_byte_of_the_payload_and_the_kind() -> None:
    other = draft(msgspec.structs.replace(VALUE, sequence=2))
    assert other.id != DRAFT.id
    assert hashlib.sha256(pae("application/vnd.govmesh.halt.v1+json", DRAFT.payload)).hexdigest() != DRAFT.id


def test_signatures_stand_in_the_order_of_their_keys() -> None:
    assert envelope(3, 1, 0, 2) == envelope(0, 1, 2, 3)
    assert [line["keyid"] for line in lines(3, 1, 0, 2)] == PUBLIC


BASE64 = json.loads(envelope(0))["payload"]
STRAY = base64.b64encode(b"x" * 64).decode()[:-3] + "B=="  # what it decodes to is spelled with another last letter


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(mangled({"signatures": lines(0, 1)[::-1]}), "non_canonical", id="signatures in another order"),
        pytest.param(mangled({"signatures": lines(0) * 2}), "non_canonical", id="one signature twice"),
        pytest.param(
            mangled({"signatures": [*lines(0), {"keyid": PUBLIC[0], "sig": lines(1)[0]["sig"]}]}), "non_canonical", id="one key with two"
        ),
        pytest.param(mangled({"signatures": [{"keyid": PUBLIC[0], "sig": STRAY}]}), "non_canonical", id="stray bits in a signature"),
        pytest.param(mangled({"payload": BASE64 + "\n"}, 0), "malformed", id="a newline in base64"),
        pytest.param(mangled({"payload": BASE64.rstrip("=") + "===="}, 0), "malformed", id="padding too long"),
        pytest.param(mangled({"payload": BASE64[:-1]}, 0), "malformed", id="padding too short"),
        pytest.param(mangled({"payload": "é" * 4}, 0), "malformed", id="base64 outside of ASCII"),
        pytest.param(mangled({"payload": BASE64.replace("e", "-")}, 0), "malformed", id="the alphabet of URLs"),
        pytest.param(mangled({"note": "read me"}, 0), "malformed", id="an unknown member"),
        pytest.param(mangled({"signatures": [lines(0)[0] | {"alg": "none"}]}), "malformed", id="an unknown member of a signature"),
        pytest.param(
            mangled({"signatures": [{"keyid": PUBLIC[0].upper(), "sig": lines(0)[0]["sig"]}]}), "malformed", id="a key in capitals"
        ),
        pytest.param(mangled({"signatures": [{"keyid": "alice", "sig": lines(0)[0]["sig"]}]}), "malformed", id="a key id that is no key"),
        pytest.param(mangled({"signatures": [{"sig": lines(0)[0]["sig"]}]}), "malformed", id="no key id"),
        pytest.param(mangled({"signatures": [{"keyid": PUBLIC[0], "sig": "AA=="}]}), "malformed", id="a short signature"),
        pytest.param(
            mangled({"signatures": [{"keyid": PUBLIC[0], "sig": base64.b64encode(bytes(66)).decode()}]}), "malformed", id="a long signature"
        ),
        pytest.param(mangled({"signatures": None}), "malformed", id="null for signatures"),
        pytest.param(envelope(0).replace(b",", b", "), "non_canonical", id="spaces"),
        pytest.param(envelope(0) + b"\n", "non_canonical", id="a newline behind"),
        pytest.param(envelope(0).replace(b"+json", b"\\u002bjson"), "non_canonical", id="an escape that need not be"),
        pytest.param(envelope(0).replace(b'{"payload"', b'{"payload":"","payload"', 1), "non_canonical", id="a member twice"),
        pytest.param(envelope(0)[:-1], "malformed", id="cut off"),
        pytest.param(envelope(0) * 2, "malformed", id="two envelopes"),
        pytest.param(b"", "malformed", id="nothing"),
        pytest.param(b"[" * 100_000, "malformed", id="deep"),
        pytest.param(b'{"payload":' * 10_000, "malformed", id="deep maps"),
        pytest.param(mangled({"payloadType": kind_of(Identity).payload_type}, 0), "wrong_kind", id="another kind"),
        pytest.param(mangled({"payloadType": ""}, 0), "wrong_kind", id="no kind"),
        pytest.param(mangled({"payloadType": "application/vnd.govmesh.revocation.v2+json"}, 0), "wrong_kind", id="another version"),
        pytest.param(mangled({"payloadType": DRAFT.payload_type + "\n"}, 0), "wrong_kind", id="a newline behind the kind"),
    ],
)
def test_any_other_spelling_is_refused_by_its_code(data: bytes, code: str) -> None:
    with refuses(code):
        read(Revocation, data)


def test_stray_bits_in_the_payload_are_another_spelling() -> None:
    value = next(value for value in (reasoned("x" * length) for length in range(3)) if len(canonical.encode(value)) % 3 == 1)
    text = base64.b64encode(canonical.encode(value)).decode()
    stray = text[:-3] + chr(ord(text[-3]) + 1) + "=="
    assert base64.b64decode(stray, validate=True) == canonical.encode(value)
    right = assemble(DRAFT.payload_type, canonical.encode(value), {})
    assert read(Revocation, right).claims == value
    with refuses("non_canonical"):
        read(Revocation, right.replace(text.encode(), stray.encode()))


def test_the_payload_inside_has_one_spelling_too() -> None:
    for payload, code in ((DRAFT.payload + b" ", "non_canonical"), (DRAFT.payload[:-1], "malformed"), (b"{}", "malformed")):
        with refuses(code):
            read(Revocation, assemble(DRAFT.payload_type, payload, {}))


def reasoned(reason: str) -> Revocation:
    return msgspec.structs.replace(VALUE, reason=reason)


@given(HOSTILE)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    with refuses("malformed", "non_canonical", "wrong_kind"):
        read(Revocation, data)


@given(st.integers(0, 700), st.integers(0, 700), HOSTILE)
def test_spliced_envelopes_raise_only_our_error(start: int, end: int, data: bytes) -> None:
    whole = envelope(0, 1)
    for use in (lambda data: read(Revocation, data).envelope == data, identify):
        try:
            assert use(whole[:start] + data + whole[end:])
        except Refused:
            continue


def test_every_changed_byte_is_noticed() -> None:
    for changed in flips(envelope(0)):
        with refuses("malformed", "non_canonical", "wrong_kind", "bad_signature"):
            read(Revocation, changed).verify(PUBLIC[0])


# ---------------------------------------------------------------------------------------------------------------- limits


def test_an_envelope_may_carry_as_many_signatures_as_the_limit() -> None:
    many = {hashlib.sha256(b"%d" % number).hexdigest(): bytes(64) for number in range(SIGNATURES_MAX + 1)}
    most = dict(list(many.items())[:-1])
    assert len(read(Revocation, assemble(DRAFT.payload_type, DRAFT.payload, most)).signatures) == SIGNATURES_MAX
    with refuses("malformed"):
        read(Revocation, assemble(DRAFT.payload_type, DRAFT.payload, many))


def test_an_envelope_is_measured_before_it_is_read() -> None:
    with refuses("malformed"):
        read(Revocation, b"x" * ENVELOPE_BYTES_MAX)
    with refuses("malformed"):
        identify(b"x" * ENVELOPE_BYTES_MAX)
    for measure in (lambda data: read(Revocation, data), identify):
        with refuses("too_large"):
            measure(b"x" * (ENVELOPE_BYTES_MAX + 1))


def test_a_payload_is_measured_when_it_is_read() -> None:
    assert kind_of(Revocation).bytes_max == STATEMENT_BYTES_MAX
    with refuses("malformed"):
        read(Revocation, assemble(DRAFT.payload_type, b"x" * STATEMENT_BYTES_MAX, {}))
    with refuses("too_large"):
        read(Revocation, assemble(DRAFT.payload_type, b"x" * (STATEMENT_BYTES_MAX + 1), {}))


def test_nobody_drafts_what_nobody_would_read() -> None:
    rest = len(canonical.encode(reasoned("")))
    assert len(draft(reasoned("x" * (STATEMENT_BYTES_MAX - rest))).payload) == STATEMENT_BYTES_MAX
    with refuses("too_large"):
        draft(reasoned("x" * (STATEMENT_BYTES_MAX - rest + 1)))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_is_filed_under_its_own_type(name: str) -> None:
    kind = KINDS[name]
    assert kind == kind_of(kind.payload)
    assert kind.payload_type == f"application/vnd.govmesh.{name}.v1+json"
    assert [other.name for other in KINDS.values() if other.payload_type == kind.payload_type] == [name]


# ------------------------------------------------------------------------------------------------------------- believing


def test_claims_are_believed_on_the_word_of_a_key_that_signed() -> None:
    found = read(Revocation, envelope(0, 2))
    assert [found.signed_by(key) for key in PUBLIC] == [True, False, True, False]
    assert found.verify(PUBLIC[0]) == VALUE
    with refuses("bad_signature"):
        found.verify(PUBLIC[1])
    with refuses("bad_signature"):
        found.verify(PUBLIC[0].upper())
    with refuses("bad_signature"):
        found.verify("")


def test_a_signature_under_another_key_is_not_believed() -> None:
    swapped = assemble(DRAFT.payload_type, DRAFT.payload, {PUBLIC[0]: KEYS[1].sign(DRAFT.message)})
    with refuses("bad_signature"):
        read(Revocation, swapped).verify(PUBLIC[0])


def test_a_signature_over_the_bare_payload_or_another_kind_is_not_believed() -> None:
    for message in (DRAFT.payload, pae(kind_of(Identity).payload_type, DRAFT.payload)):
        found = read(Revocation, assemble(DRAFT.payload_type, DRAFT.payload, {PUBLIC[0]: KEYS[0].sign(message)}))
        with refuses("bad_signature"):
            found.verify(PUBLIC[0])


@pytest.mark.parametrize(
    ("signed", "asked", "threshold", "enough"),
    [
        pytest.param((0, 1, 2), [0, 1, 2, 3], 3, True, id="three of four"),
        pytest.param((0, 1), [0, 1, 2, 3], 3, False, id="one too few"),
        pytest.param((0, 1, 2, 3), [0, 1], 2, True, id="strangers beside them"),
        pytest.param((0, 2, 3), [0, 1], 2, False, id="strangers do not count"),
        pytest.param((0,), [0, 0, 0], 2, False, id="one key listed thrice"),
        pytest.param((0, 1), [0, 0, 1, 1], 2, True, id="two keys listed twice"),
        pytest.param((0,), [0], 1, True, id="one of one"),
        pytest.param((), [0], 1, False, id="nobody"),
        pytest.param((0,), [], 1, False, id="nobody is asked"),
        pytest.param((0, 1), [0, 1], 0, False, id="a threshold of nought"),
        pytest.param((0, 1), [0, 1], -1, False, id="a threshold below nought"),
    ],
)
def test_a_threshold_counts_distinct_keys(signed: tuple[int, ...], asked: list[int], threshold: int, enough: bool) -> None:
    found: Statement[Revocation] = read(Revocation, envelope(*signed))
    keys = [PUBLIC[number] for number in asked]
    if enough:
        assert found.verify_threshold(keys, threshold) == VALUE
    else:
        with refuses("threshold_not_met"):
            found.verify_threshold(keys, threshold)


def test_one_key_in_two_spellings_counts_once() -> None:
    with refuses("threshold_not_met"):
        read(Revocation, envelope(0)).verify_threshold([PUBLIC[0], PUBLIC[0].upper()], 2)


def test_a_false_signature_does_not_count_and_does_not_spoil() -> None:
    mixed = signatures(0, 1) | {PUBLIC[2]: bytes(64)}
    found = read(Revocation, assemble(DRAFT.payload_type, DRAFT.payload, mixed))
    assert found.verify_threshold(PUBLIC, 2) == VALUE
    with refuses("threshold_not_met"):
        found.verify_threshold(PUBLIC, 3)
