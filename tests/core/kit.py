"""What the tests of bytes and logs share: keys, the published vectors, and how a refusal is asserted."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from mesh.core.bytes.keys import SecretKey
from mesh.errors import Refused

__all__ = ["HOSTILE", "VECTORS", "flips", "needs_vectors", "refuses", "secret", "vectors"]

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="the published vectors are not beside this checkout")

HOSTILE = st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
"""Bytes from a stranger."""


def vectors(path: str) -> Any:
    """A JSON file among the published vectors."""
    return json.loads((VECTORS / path).read_text())


@contextmanager
def refuses(*codes: str) -> Iterator[None]:
    """What is done inside must be refused with one of these codes."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code in codes, caught.value


def secret(number: int) -> SecretKey:
    """The same key for the same number, in every run."""
    return SecretKey(bytes([number]) * 32)


def flips(data: bytes) -> Iterator[bytes]:
    """``data`` with each byte changed: to its neighbour, to the other case of a letter, to no ASCII at all."""
    for at, byte in enumerate(data):
        for mask in (0x01, 0x20, 0x80):
            yield data[:at] + bytes([byte ^ mask]) + data[at + 1 :]
