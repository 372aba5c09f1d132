"""A signature is believed only in its one strict form, and no key is taken with which one signature could fit every message."""

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes.keys import KEY_BYTES, SEED_BYTES, SIGNATURE_BYTES, SecretKey, admit_key, verify
from tests.core.kit import flips, needs_vectors, refuses, secret, vectors

KEY = secret(1)
PUBLIC = bytes.fromhex(KEY.public)
MESSAGE = b"a message"
SIGNATURE = KEY.sign(MESSAGE)
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group: a lax verifier also takes S + ORDER for S."""

SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
NON_CANONICAL = [
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


def test_what_a_key_signed_is_believed() -> None:
    assert verify(PUBLIC, MESSAGE, SIGNATURE)
    assert (len(PUBLIC), len(SIGNATURE)) == (KEY_BYTES, SIGNATURE_BYTES)


@given(st.binary(max_size=200), st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES))
def test_any_message_of_any_key_is_believed_and_always_signed_alike(message: bytes, seed: bytes) -> None:
    key = SecretKey(seed)
    signature = key.sign(message)
    assert signature == SecretKey(seed).sign(message)
    assert verify(bytes.fromhex(key.public), message, signature)
    assert admit_key(key.public).hex() == key.public


def test_every_changed_byte_is_noticed() -> None:
    assert not any(verify(PUBLIC, MESSAGE, changed) for changed in flips(SIGNATURE))
    assert not any(verify(PUBLIC, changed, SIGNATURE) for changed in flips(MESSAGE))
    assert not any(verify(changed, MESSAGE, SIGNATURE) for changed in flips(PUBLIC))


def test_adding_the_group_order_makes_no_second_signature() -> None:
    s = int.from_bytes(SIGNATURE[32:], "little") + ORDER
    assert not verify(PUBLIC, MESSAGE, SIGNATURE[:32] + s.to_bytes(32, "little"))


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=70))
def test_hostile_bytes_are_never_believed_and_never_raise(public: bytes, message: bytes, signature: bytes) -> None:
    assert not verify(public, message, signature)


@pytest.mark.parametrize("length", [0, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_key_of_another_length_believes_nothing(length: int) -> None:
    assert not verify((PUBLIC * 2)[:length], MESSAGE, SIGNATURE)


@pytest.mark.parametrize("length", [0, SIGNATURE_BYTES - 1, SIGNATURE_BYTES + 1])
def test_a_signature_of_another_length_is_not_believed(length: int) -> None:
    # A byte moved from the message into the signature would otherwise be read as the same signed bytes.
    assert not verify(PUBLIC, MESSAGE, (SIGNATURE * 2)[:length])
    assert not verify(PUBLIC, MESSAGE[1:], SIGNATURE + MESSAGE[:1])


@pytest.mark.parametrize("key", [*SMALL_ORDER, *NON_CANONICAL, "02" + "00" * 31])
def test_a_key_that_is_no_point_of_the_group_is_not_admitted(key: str) -> None:
    with refuses("bad_key"):
        admit_key(key)
    assert not verify(bytes.fromhex(key), MESSAGE, bytes([1]) + bytes(63))


@pytest.mark.parametrize(
    "key", ["", "zz" * 32, KEY.public[:-2], KEY.public + "00", KEY.public.upper(), KEY.public + "\n", " " + KEY.public]
)
def test_a_key_is_spelled_in_lowercase_hex(key: str) -> None:
    with refuses("bad_key"):
        admit_key(key)


@pytest.mark.parametrize("length", [0, SEED_BYTES - 1, SEED_BYTES + 1])
def test_a_seed_has_32_bytes(length: int) -> None:
    with refuses("bad_key"):
        SecretKey(bytes(length))


def test_a_secret_key_reaches_no_log_and_no_wire() -> None:
    key = SecretKey(b"s" * SEED_BYTES)
    assert (b"s" * SEED_BYTES).hex() not in repr(key)
    assert repr(key) == str(key) == f"SecretKey({key.public[:8]}…)"
    travel: list[Callable[[SecretKey], object]] = [pickle.dumps, copy.copy, copy.deepcopy]
    for leave in travel:
        with pytest.raises(TypeError):
            leave(key)


@needs_vectors
def test_the_published_edge_cases_are_refused_but_the_one_correct_signature() -> None:
    cases = vectors("ed25519-speccheck/cases.json")
    believed = [verify(*(bytes.fromhex(case[part]) for part in ("pub_key", "message", "signature"))) for case in cases]
    assert believed == [number == 3 for number in range(12)]


@needs_vectors
def test_all_wycheproof_cases_hold() -> None:
    groups = vectors("wycheproof-ed25519/ed25519_test.json")["testGroups"]
    cases = [(bytes.fromhex(group["publicKey"]["pk"]), case) for group in groups for case in group["tests"]]
    assert len(cases) == 151
    for public, case in cases:
        believed = verify(public, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
        assert believed == (case["result"] == "valid"), case
