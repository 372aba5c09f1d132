"""One value, one byte string: RFC 8785 (JCS) JSON restricted to ASCII keys, strings, booleans and integers within ±(2^53-1).

Rules
-----
1. Size is checked before anything is parsed.
2. Every decoded value is encoded again and compared with the input: whitespace, duplicate keys, other key orders,
   ``1.0``, ``1e0``, ``-0``, escapes that need not be, all die there.
3. There are no floats and no nulls in any type that passes here; absent is never a twin of a default, because types
   on the wire have no defaults.
4. Foreign exceptions of the decoder (five kinds on hostile bytes) become :class:`~mesh.errors.Refused` here and nowhere else.

Not here: signatures (:mod:`mesh.core.bytes.envelope`).
"""

import hashlib
from typing import Annotated, Final, TypeVar, cast, dataclass_transform

import msgspec

from mesh.errors import Refused
from mesh.limits import CLOCK_MS_MAX, INT_MAX, LIST_ITEMS_MAX, PARAMS_MAX, REASON_CHARS_MAX, STRING_CHARS_MAX

__all__ = [
    "Count",
    "Hex16",
    "Hex32",
    "Integer",
    "KeyHex",
    "Millis",
    "Name",
    "Params",
    "Payload",
    "Reason",
    "Scalar",
    "Spiffe",
    "Text",
    "Token",
    "decode",
    "encode",
    "sha256_hex",
]

T = TypeVar("T")

# `$` also matches before a final newline, so patterns of several lengths end in `$(?!\n)`; the others have their length beside them.
Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$(?!\\n)", min_length=64, max_length=64)]
"""32 bytes in lowercase hex: SHA-256 digests, statement ids, nonces."""
Hex16 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$(?!\\n)", min_length=32, max_length=32)]
"""16 bytes in lowercase hex: nonces, salts."""
KeyHex = Hex32
"""An Ed25519 public key, 32 bytes in lowercase hex."""
Integer = Annotated[int, msgspec.Meta(ge=-INT_MAX, le=INT_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
"""A size, index, sequence number or epoch."""
Millis = Annotated[int, msgspec.Meta(ge=0, le=CLOCK_MS_MAX)]
"""A time in ms since the Unix epoch (UTC), or a duration in ms."""
Token = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$(?!\\n)", min_length=1, max_length=32)]
"""A name that may stand in a subject: node, region, domain, tenant."""
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z_][A-Za-z0-9_.-]{0,63}$(?!\\n)", min_length=1, max_length=64)]
"""A parameter, attribute, action verb, entity type or measurement."""
Text = Annotated[str, msgspec.Meta(max_length=STRING_CHARS_MAX)]
Reason = Annotated[str, msgspec.Meta(max_length=REASON_CHARS_MAX)]
"""Why somebody did it, for people."""
Spiffe = Annotated[
    str,
    msgspec.Meta(
        pattern="^spiffe://[a-z0-9.-]{1,64}(/(?!\\.\\.?(/|$))[A-Za-z0-9._-]{1,180})+$(?!\\n)",
        min_length=12,
        max_length=254,
    ),
]
"""A SPIFFE ID (https://github.com/spiffe/spiffe, SPIFFE-ID.md), path without empty or relative segments."""

Scalar = bool | Integer | Text
Params = Annotated[
    dict[Name, Scalar | Annotated[list[Scalar], msgspec.Meta(max_length=LIST_ITEMS_MAX)]],
    msgspec.Meta(max_length=PARAMS_MAX),
]
"""A flat map: names to booleans, integers, strings, or lists of those."""


@dataclass_transform(frozen_default=True, kw_only_default=True)  # tells type checkers that subclasses inherit both, as they do
class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that is signed or hashed: frozen, no unknown fields, no positional construction."""


_ENCODER = msgspec.json.Encoder(order="sorted")


def encode(value: object) -> bytes:
    """The one byte string of ``value`` (RFC 8785, for the types that pass here).

    Raises:
        Refused: ``malformed`` for a string with a lone surrogate, such as the name of a file that is not UTF-8.
    """
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError as error:
        raise Refused("malformed", _short(error)) from None


_DECODERS: Final[dict[object, msgspec.json.Decoder[object]]] = {}


def _decode(kind: type[T], data: bytes) -> T:
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    return cast("T", decoder.decode(data))


def decode(kind: type[T], data: bytes, *, bytes_max: int) -> T:
    """Read ``data`` as ``kind``, refusing every spelling but the canonical one.

    Raises:
        Refused: ``too_large``, ``malformed`` or ``non_canonical``.
    """
    if len(data) > bytes_max:
        raise Refused("too_large", f"{len(data)} bytes, at most {bytes_max}")
    try:
        value = _decode(kind, data)
        again = _ENCODER.encode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError, ValueError) as error:
        raise Refused("malformed", _short(error)) from None
    if again != data:
        raise Refused("non_canonical")
    return value


def sha256_hex(data: bytes) -> str:
    """SHA-256 of ``data`` in lowercase hex: for whatever an outsider must be able to verify."""
    return hashlib.sha256(data).hexdigest()


def _short(error: Exception) -> str:
    # The decoder's message names fields, never values longer than this: errors go into logs and denials.
    return str(error)[:160]
