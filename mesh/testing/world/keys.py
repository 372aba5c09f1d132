"""Keys of a seeded world: the same for the same name in every run, each signature made once and each checked once.

Ed25519 is deterministic, so remembering changes nothing but the time a world takes: a heartbeat that seven nodes check costs
one check. What is remembered is bounded.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, cast

from mesh.core.bytes import envelope, keys
from mesh.core.bytes.envelope import Draft, assemble
from mesh.core.bytes.keys import SecretKey

__all__ = ["nonce", "public", "remembered", "secret", "sign", "signed"]

_KEPT_MAX: Final = 1 << 15


@lru_cache(maxsize=1024)
def secret(name: str) -> SecretKey:
    """The key that goes by this name."""
    return SecretKey(hashlib.sha256(b"seeded world " + name.encode()).digest())


def public(name: str) -> str:
    """The public key, in hex, that goes by this name."""
    return secret(name).public


@lru_cache(maxsize=_KEPT_MAX)
def sign(name: str, message: bytes) -> bytes:
    """The signature (64 bytes) of the key that goes by this name."""
    return secret(name).sign(message)


def signed(draft: Draft, *names: str) -> bytes:
    """The envelope of a statement with the signatures of these keys."""
    return assemble(draft.payload_type, draft.payload, {public(name): sign(name, draft.message) for name in names})


def nonce(*parts: object) -> str:
    """32 bytes in hex that are the same for the same parts."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


@contextmanager
def remembered() -> Iterator[None]:
    """While this lasts, a signature that was checked is not checked again."""
    kept = lru_cache(maxsize=_KEPT_MAX)(keys.verify)
    doors = [cast("Any", keys), cast("Any", envelope)]
    before = [door.verify for door in doors]
    try:
        for door in doors:
            door.verify = kept
        yield
    finally:
        for door, verify in zip(doors, before, strict=True):
            door.verify = verify
