"""The small parts of C2SP's text formats: base64, decimals and clean text, each refused in words of ours.

Readers built from these compare their re-encoding with the input, so that each value has one spelling; here nothing is
compared yet.

Not here: which lines a format has (:mod:`mesh.core.log.note`, :mod:`mesh.core.log.checkpoint`, :mod:`mesh.core.log.tlogproof`).
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

from mesh.errors import Refused
from mesh.limits import PROOF_HASHES_MAX, TREE_SIZE_MAX

__all__ = ["HASH_BYTES", "from_base64", "from_decimal", "hash_lines", "hashes_of", "text_of", "to_base64"]

HASH_BYTES: Final = 32
"""SHA-256, the only hash of trees and notes."""

_DECIMAL: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


def text_of(data: bytes) -> str:
    """``data`` as UTF-8 without ASCII control characters other than the newline.

    Raises:
        Refused: ``malformed``.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Refused("malformed", "not UTF-8") from None
    if _CONTROL.search(text):
        raise Refused("malformed", "a control character")
    return text


def to_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return binascii.b2a_base64(data, newline=False).decode()


def from_base64(text: str) -> bytes:
    """The bytes of a base64 text; stray bits in it pass, so compare the re-encoding.

    Raises:
        Refused: ``malformed``.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one; non-ASCII text raises the plain kind
        raise Refused("malformed", "base64") from None


def from_decimal(text: str) -> int:
    """A size or index of a tree; leading zeros pass, so compare the re-encoding.

    Raises:
        Refused: ``malformed``, or ``too_large`` past :data:`mesh.limits.TREE_SIZE_MAX`.
    """
    if not text.isascii() or not text.isdigit():  # int() alone also takes "1_0", " 5 " and other alphabets' digits
        raise Refused("malformed", "not a decimal number")
    if not _DECIMAL.fullmatch(text) or int(text) > TREE_SIZE_MAX:
        raise Refused("too_large", f"a number past {TREE_SIZE_MAX}")
    return int(text)


def hash_lines(hashes: Iterable[bytes]) -> str:
    """One base64 line for each hash of a proof."""
    return "".join(f"{to_base64(value)}\n" for value in hashes)


def hashes_of(lines: list[str]) -> tuple[bytes, ...]:
    """The hashes of a proof, one per line.

    Raises:
        Refused: ``malformed``, or ``too_large`` past :data:`mesh.limits.PROOF_HASHES_MAX`.
    """
    if len(lines) > PROOF_HASHES_MAX:
        raise Refused("too_large", f"{len(lines)} hashes, at most {PROOF_HASHES_MAX}")
    hashes = tuple(from_base64(line) for line in lines)
    if any(len(value) != HASH_BYTES for value in hashes):
        raise Refused("malformed", f"a hash is {HASH_BYTES} bytes")
    return hashes
