"""Keys that open what was sealed for one reader: X25519, in libsodium's sealed boxes (``crypto_box_seal``).

A sealed box is an ephemeral public key behind which the data is encrypted and authenticated to one recipient. Nobody but the holder of
the recipient's secret key can open it, its maker included; and it says nothing of who made it.

Not here: making boxes, which draws an ephemeral key (:mod:`mesh.adapters.sealer`), signatures (:mod:`mesh.core.bytes.keys`).
"""

from nacl import bindings
from nacl.exceptions import CryptoError

from mesh.core.bytes.keys import KEY_BYTES, SEED_BYTES
from mesh.errors import Refused

__all__ = ["OVERHEAD_BYTES", "SealKey", "admit_seal_key"]

OVERHEAD_BYTES = 48
"""What a box is longer than its content: the ephemeral key and the authenticator."""
_ANY_SCALAR = bytes(31) + b"\x40"
_PRIME = 2**255 - 19
"""X25519 computes modulo this and ignores the highest bit (RFC 7748, 5): what is larger is another spelling that nobody's key file has."""


class SealKey:
    """An X25519 secret key; prints and pickles as nothing, so that it cannot reach a log."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        """The key pair of 32 random bytes, which are the secret key itself."""
        if len(seed) != SEED_BYTES:
            raise Refused("bad_key", "a seed is 32 bytes")
        self._secret = seed
        self.public: str = bindings.crypto_scalarmult_base(seed).hex()
        """The public key, lowercase hex."""

    def open(self, box: bytes) -> bytes | None:
        """What ``box`` holds; nothing if it was not sealed for this key, or not as it is."""
        if len(box) < OVERHEAD_BYTES:
            return None
        try:
            return bindings.crypto_box_seal_open(box, bytes.fromhex(self.public), self._secret)
        except (CryptoError, ValueError, TypeError):
            return None

    def __repr__(self) -> str:
        """Only the public half."""
        return f"SealKey({self.public[:8]}…)"

    def __reduce__(self) -> str:
        """Refuse: a secret key does not travel."""
        msg = "a SealKey is not serialisable"
        raise TypeError(msg)


def admit_seal_key(public_hex: str) -> bytes:
    """The 32 bytes of a public key that something may be sealed for.

    Raises:
        Refused: ``bad_key`` for what is not hex, not in the one spelling, or a point of small order: what is sealed for such a key
            anybody can open.
    """
    try:
        public = bytes.fromhex(public_hex)
    except ValueError:
        raise Refused("bad_key", "not hex") from None
    if len(public) != KEY_BYTES or public.hex() != public_hex or int.from_bytes(public, "little") >= _PRIME:
        raise Refused("bad_key", public_hex[:16])
    try:
        bindings.crypto_scalarmult(_ANY_SCALAR, public)  # libsodium refuses a shared secret that is zero
    except (CryptoError, RuntimeError, ValueError, TypeError):
        raise Refused("bad_key", public_hex[:16]) from None
    return public
