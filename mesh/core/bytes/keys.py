"""The one place where an Ed25519 signature is made or believed (RFC 8032, libsodium's strict verification).

libsodium refuses small-order and non-canonical keys, S outside the group order and small-order R: 11 of the 12 cases of
"Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020), all but the one that is a correct signature.

Not here: where secret keys live (:mod:`mesh.adapters.signer`).
"""

from nacl import bindings
from nacl.exceptions import CryptoError

from mesh.errors import Refused

__all__ = ["KEY_BYTES", "SEED_BYTES", "SIGNATURE_BYTES", "SecretKey", "admit_key", "verify"]

KEY_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64


class SecretKey:
    """An Ed25519 secret key; prints and pickles as nothing, so that it cannot reach a log."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        """Derive the key pair of a 32-byte ``seed``."""
        if len(seed) != SEED_BYTES:
            raise Refused("bad_key", "a seed is 32 bytes")
        public, self._secret = bindings.crypto_sign_seed_keypair(seed)
        self.public: str = public.hex()
        """The public key, lowercase hex: also its key id everywhere in the mesh."""

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature; the same message always gives the same bytes (RFC 8032 is deterministic)."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        """Only the public half."""
        return f"SecretKey({self.public[:8]}…)"

    def __reduce__(self) -> str:
        """Refuse: a secret key does not travel."""
        msg = "a SecretKey is not serialisable"
        raise TypeError(msg)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) over ``message`` was made with the key ``public`` (32 bytes). Never raises."""
    if len(signature) != SIGNATURE_BYTES or len(public) != KEY_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except (CryptoError, ValueError, TypeError):
        return False
    return True


def admit_key(public_hex: str) -> bytes:
    """The 32 bytes of a public key that may enter a roster or an identity document.

    Raises:
        Refused: ``bad_key`` for what is not hex, not canonical, or a point of small order: with such a key one constant
            signature can fit every message.
    """
    try:
        public = bytes.fromhex(public_hex)
    except ValueError:
        raise Refused("bad_key", "not hex") from None
    if len(public) != KEY_BYTES or public.hex() != public_hex or not bindings.crypto_core_ed25519_is_valid_point(public):
        raise Refused("bad_key", public_hex[:16])
    return public
