"""A statement is a payload of one kind, signed: DSSE (github.com/secure-systems-lab/dsse) in one spelling only.

Rules
-----
1. The wire form is exactly ``{"payload","payloadType","signatures":[{"keyid","sig"}]}``. DSSE says to ignore unknown
   members; we refuse them, because an unread member may be an unread restriction.
2. ``keyid`` is the public key itself, so there is no id under which one key could count twice. Signatures are sorted by
   key, one per key.
3. What is signed is DSSE's PAE over payloadType and payload; the payloadType names kind and version, so no statement
   can be used as another kind.
4. The identity of a statement is SHA-256 over its PAE: adding, removing or mangling signatures never changes it.
5. Reading never believes: :class:`Statement` holds *claims* until :meth:`Statement.verify` was asked about a key.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import KeyHex, Payload
from mesh.core.bytes.keys import SIGNATURE_BYTES, verify
from mesh.errors import Refused
from mesh.limits import ENVELOPE_BYTES_MAX, SIGNATURES_MAX, STATEMENT_BYTES_MAX

__all__ = ["KINDS", "Draft", "Kind", "Statement", "assemble", "draft", "identify", "kind_of", "pae", "read", "read_any", "statement"]

P = TypeVar("P", bound=Payload)
P_co = TypeVar("P_co", bound=Payload, covariant=True)


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One registered kind of statement."""

    name: str
    payload: type[Payload]
    bytes_max: int
    payload_type: str


KINDS: Final[dict[str, Kind]] = {}
"""Every kind by name. Round-trip and hostile-bytes tests run over this registry."""
_BY_PAYLOAD: Final[dict[type[Payload], Kind]] = {}


def statement(name: str, *, bytes_max: int = STATEMENT_BYTES_MAX) -> Callable[[type[P]], type[P]]:
    """Register the decorated payload type as the kind ``name``."""

    def register(payload: type[P]) -> type[P]:
        kind = Kind(name=name, payload=payload, bytes_max=bytes_max, payload_type=f"application/vnd.govmesh.{name}.v1+json")
        KINDS[name] = kind
        _BY_PAYLOAD[payload] = kind
        return payload

    return register


def kind_of(payload: type[Payload]) -> Kind:
    """The registered kind of a payload type."""
    return _BY_PAYLOAD[payload]


class _Signature(Payload):
    keyid: KeyHex
    sig: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class _Wire(Payload):
    # Bytes are base64 in JSON: reading is stricter than Python's own (alphabet, padding) but for stray bits.
    payload: bytes
    payloadType: str  # noqa: N815 -- DSSE's own spelling
    signatures: Annotated[list[_Signature], msgspec.Meta(max_length=SIGNATURES_MAX)]


class Draft(msgspec.Struct, frozen=True):
    """A statement before its signatures: what is persisted, then signed, then sent."""

    payload_type: str
    payload: bytes
    id: str
    """SHA-256 over the PAE, lowercase hex."""

    @property
    def message(self) -> bytes:
        """The bytes to sign."""
        return pae(self.payload_type, self.payload)


class Statement(msgspec.Struct, Generic[P_co], frozen=True):
    """A well-formed statement whose signatures are not yet believed."""

    claims: P_co
    """What it says. Verify before acting on it."""
    payload: bytes
    id: str
    envelope: bytes
    """The bytes it arrived in, which are its only spelling."""
    signatures: Mapping[str, bytes]
    """Public key (hex) to signature (64 bytes)."""

    @property
    def message(self) -> bytes:
        """What each signature must cover."""
        return pae(kind_of(type(self.claims)).payload_type, self.payload)

    def signed_by(self, key: str) -> bool:
        """Whether a valid signature of ``key`` (hex) is here."""
        signature = self.signatures.get(key)
        return signature is not None and verify(bytes.fromhex(key), self.message, signature)

    def sealed_by(self, keys: Collection[str]) -> bool:
        """Whether at least one key of ``keys`` signed, and nobody else: what is *kept* must carry no line that a verifier cannot check."""
        # Strangers first: they cost no verification.
        return bool(self.signatures) and all(key in keys for key in self.signatures) and all(self.signed_by(key) for key in self.signatures)

    def verify(self, key: str) -> P_co:
        """The claims, believed on the word of ``key``.

        Raises:
            Refused: ``bad_signature``.
        """
        if not self.signed_by(key):
            raise Refused("bad_signature", f"{kind_of(type(self.claims)).name} by {key[:8]}…")
        return self.claims

    def verify_threshold(self, keys: Iterable[str], threshold: int) -> P_co:
        """The claims, believed on the word of ``threshold`` distinct keys out of ``keys``.

        Keys are compared as the bytes they are: a key listed twice, or under two names, counts once.

        Raises:
            Refused: ``threshold_not_met``.
        """
        valid = sum(self.signed_by(key) for key in frozenset(keys))
        if threshold < 1 or valid < threshold:
            raise Refused("threshold_not_met", f"{kind_of(type(self.claims)).name} has {valid} of {threshold}")
        return self.claims


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def draft(value: Payload) -> Draft:
    """``value`` as canonical bytes with its statement id, not yet signed."""
    kind = kind_of(type(value))
    payload = canonical.encode(value)
    if len(payload) > kind.bytes_max:
        raise Refused("too_large", f"{kind.name} of {len(payload)} bytes, at most {kind.bytes_max}")
    return Draft(kind.payload_type, payload, hashlib.sha256(pae(kind.payload_type, payload)).hexdigest())


def assemble(payload_type: str, payload: bytes, signatures: Mapping[str, bytes]) -> bytes:
    """The wire form: ``signatures`` maps public key (hex) to signature (64 bytes)."""
    lines = [_Signature(keyid=key, sig=signatures[key]) for key in sorted(signatures)]
    return _WIRE_ENCODER.encode(_Wire(payload=payload, payloadType=payload_type, signatures=lines))


def read(payload: type[P], data: bytes) -> Statement[P]:
    """Parse an envelope that must hold a ``payload`` statement. Signatures are *not* checked here.

    Raises:
        Refused: ``too_large``, ``malformed``, ``non_canonical``, ``wrong_kind``.
    """
    return read_any((payload,), data)


def read_any(payloads: Sequence[type[P]], data: bytes) -> Statement[P]:
    """Parse an envelope that must hold a statement of one of these kinds; as :func:`read`."""
    if len(data) > ENVELOPE_BYTES_MAX:
        raise Refused("too_large", f"{len(data)} bytes, at most {ENVELOPE_BYTES_MAX}")
    wire = _decode_wire(data)
    for payload in payloads:
        kind = _BY_PAYLOAD[payload]
        if wire.payloadType == kind.payload_type:
            return _open(wire, payload, kind, data)
    raise Refused("wrong_kind", f"{wire.payloadType[:80]!r} is not {' or '.join(kind_of(payload).name for payload in payloads)}")


def _open(wire: _Wire, payload: type[P], kind: Kind, data: bytes) -> Statement[P]:
    body = wire.payload
    signatures = {line.keyid: line.sig for line in wire.signatures}
    # Re-encoding is what refuses stray base64 bits, unsorted or doubled signatures, spaces and escapes.
    if assemble(kind.payload_type, body, signatures) != data:
        raise Refused("non_canonical")
    claims = canonical.decode(payload, body, bytes_max=kind.bytes_max)
    return Statement(claims, body, hashlib.sha256(pae(kind.payload_type, body)).hexdigest(), data, signatures)


def identify(data: bytes) -> tuple[str, str]:
    """(payloadType, statement id) of an envelope of any kind, to file it by what it says. Nothing in it is believed.

    Raises:
        Refused: ``too_large``, ``malformed``.
    """
    if len(data) > ENVELOPE_BYTES_MAX:
        raise Refused("too_large", f"{len(data)} bytes, at most {ENVELOPE_BYTES_MAX}")
    wire = _decode_wire(data)
    return wire.payloadType, hashlib.sha256(pae(wire.payloadType, wire.payload)).hexdigest()


_WIRE_DECODER = msgspec.json.Decoder(_Wire)
_WIRE_ENCODER = msgspec.json.Encoder()


def _decode_wire(data: bytes) -> _Wire:
    try:
        return _WIRE_DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError) as error:
        raise Refused("malformed", str(error)[:160]) from None
