"""Our codec of NATS user nkeys: one spelling, private files, signatures that a server takes (live in test_bus_options)."""

import base64
import binascii
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from mesh.adapters.nkey import make_user, read_seed
from tests.core.kit import refuses

# Made once with nats-io's own tools from the seeds 00 01 … 1f and 32 times ff.
KNOWN = {
    bytes(range(32)): (
        "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y",
        "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK",
    ),
    bytes([255]) * 32: (
        "SUAP777777777777777777777777777777777777777777777777775UUA",
        "UB3KCWJAISTOJ5IREZN4U45GATMQWBJJ2HPWAK7DBIM2SJLWMDI7LRYD",
    ),
}


@pytest.mark.parametrize("seed", KNOWN)
def test_seeds_and_public_keys_are_spelled_as_others_spell_them(tmp_path: Path, seed: bytes) -> None:
    text, public = KNOWN[seed]
    assert make_user(tmp_path / "user.nk", seed) == public
    assert (tmp_path / "user.nk").read_text() == text + "\n"
    assert read_seed(text).public == public


@given(st.binary(min_size=32, max_size=32), st.text(max_size=40))
def test_a_signature_is_over_the_nonce(seed: bytes, nonce: str) -> None:
    key = SigningKey(seed)
    public = base64.b32encode(bytes([20 << 3]) + bytes(key.verify_key)).decode()
    user = read_seed(_seed_text(seed))
    assert user.public.startswith(public[:52])
    key.verify_key.verify(nonce.encode(), base64.b64decode(user.sign(nonce)))


def _seed_text(seed: bytes) -> str:
    seed_byte, user_byte = 18 << 3, 20 << 3  # nats-io/nkeys: eight bits of one and five of the other share two bytes
    raw = bytes([seed_byte | user_byte >> 5, (user_byte & 31) << 3]) + seed
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def test_a_file_of_a_login_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "user.nk"
    make_user(path, bytes(32))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with refuses("key_exists"):
        make_user(path, bytes(range(32)))
    with refuses("config_invalid"):
        make_user(tmp_path / "missing" / "user.nk", bytes(32))
    assert read_seed(path.read_text().strip()).public == make_user(tmp_path / "other.nk", bytes(32))


SEED = KNOWN[bytes(range(32))][0]
ACCOUNT = "SAAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4HYMHI"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SU",
        SEED[:-1],
        SEED + "A",
        SEED + "\n",
        SEED.lower(),
        " " + SEED,
        SEED[:-1] + "Z",
        SEED[:20] + "A" + SEED[21:],
        "SU" + "7" * 56,
        ACCOUNT,
        KNOWN[bytes(range(32))][1],
        "SÜ",
    ],
)
def test_anything_else_is_refused_and_not_shown(text: str) -> None:
    with refuses("bad_key"):
        read_seed(text)


def test_a_key_is_shown_by_its_public_half_only() -> None:
    assert SEED not in repr(read_seed(SEED))
    assert read_seed(SEED).public[:8] in repr(read_seed(SEED))
