"""Transport logins: NATS user nkeys, which are Ed25519 keys in base32 with a prefix and a checksum (nats-io/nkeys).

They only open connections. Custody and rotation are apart from every key that governs. Written out because the published
package for it exists as source only, which hash-pinned installs of wheels cannot take.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Final

from mesh.core.bytes.keys import SEED_BYTES, SecretKey
from mesh.errors import Refused

__all__ = ["UserKey", "make_user", "read_seed"]

_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_SUM_BYTES: Final = 2


class UserKey:
    """A user's key pair: its public half logs in, its signature over the server's nonce proves it."""

    def __init__(self, seed: bytes) -> None:
        self._key = SecretKey(seed)
        self.public = _encode(bytes([_USER]), bytes.fromhex(self._key.public))

    def sign(self, nonce: str) -> bytes:
        """The signature over a server's nonce, in base64 as the protocol wants it."""
        return base64.b64encode(self._key.sign(nonce.encode()))

    def __repr__(self) -> str:
        return f"UserKey({self.public[:8]}…)"


def read_seed(text: str) -> UserKey:
    """The key of an encoded user seed (``SU…``).

    Raises:
        Refused: ``bad_key``.
    """
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise Refused("bad_key", "not the seed of a NATS user") from None
    prefix, seed = raw[:2], raw[2:-_SUM_BYTES]
    if len(seed) != SEED_BYTES or _encode(prefix, seed) != text or prefix != _seed_prefix():
        raise Refused("bad_key", "not the seed of a NATS user")
    return UserKey(seed)


def make_user(path: Path, seed: bytes) -> str:
    """Write the user nkey of a 32-byte ``seed`` to a new private file, and return its public half.

    Raises:
        Refused: ``key_exists``; ``config_invalid`` when the file cannot be made.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:  # noqa: PTH123 -- a descriptor, not a path
            file.write(_encode(_seed_prefix(), seed).encode() + b"\n")
    except FileExistsError:
        raise Refused("key_exists", str(path)) from None
    except OSError as error:
        raise Refused("config_invalid", f"{path}: {error.strerror}") from None
    return UserKey(seed).public


def _seed_prefix() -> bytes:
    return bytes([_SEED | (_USER >> 5), (_USER & 31) << 3])


def _encode(prefix: bytes, key: bytes) -> str:
    body = prefix + key
    total = binascii.crc_hqx(body, 0)  # CRC-16/XMODEM
    return base64.b32encode(body + total.to_bytes(_SUM_BYTES, "little")).decode().rstrip("=")
