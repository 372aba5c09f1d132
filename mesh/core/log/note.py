"""Text with signature lines of known keys beneath it: C2SP signed-note (c2sp.org/signed-note), in one spelling only.

Rules
-----
1. A note is text that ends in a newline, an empty line, then lines ``— name base64(key id ‖ signature)``. The text ends at the
   *last* empty line. UTF-8, no ASCII control characters but the newline.
2. What was parsed is encoded again and compared: stray base64 bits die there. C2SP would let them pass.
3. Two signature types are known: 0x01, Ed25519 over the text itself, and 0x04, a cosignature over time and text
   (c2sp.org/tlog-cosignature). A key that signs 0x01 lines signs nothing else, for its messages carry no prefix.
4. Lines of unknown keys are ignored, as C2SP demands; a known key whose line fails, or that has two lines, spoils the note.
5. The key id is four bytes, so anyone can make a key of the same id: what is believed is the key, never the id.

Not here: what a note's text means (:mod:`mesh.core.log.checkpoint`), how many signatures are enough
(:mod:`mesh.core.log.certificate`).
"""

import hashlib
import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

from mesh.core.bytes import keys
from mesh.core.log.lines import from_base64, text_of, to_base64
from mesh.errors import Refused
from mesh.limits import CLOCK_MS_MAX, NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, STRING_CHARS_MAX

__all__ = [
    "KEY_ID_BYTES",
    "Line",
    "Note",
    "OpenedNote",
    "SignatureType",
    "Signed",
    "Verifier",
    "append_lines",
    "cosignature_message",
    "format_lines",
    "key_id",
    "open_note",
    "parse_lines",
    "parse_note",
    "verify_lines",
]

KEY_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_TIME_S_MAX: Final = CLOCK_MS_MAX // 1000
_DASH: Final = "\N{EM DASH} "
_NAME: Final = re.compile(r"[^\s+\ud800-\udfff]+")  # \s knows every Unicode space
_VKEY: Final = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44}={0,2})")


class SignatureType(IntEnum):
    """The signature types of signed-note that are made and believed here."""

    PLAIN = 0x01
    COSIGNATURE = 0x04


class Line(msgspec.Struct, frozen=True):
    """One signature line, not yet believed."""

    name: str
    key_id: bytes
    signature: bytes
    """What follows the key id: 64 bytes, or 72 with the time of a cosignature before them."""


class Note(msgspec.Struct, frozen=True):
    """A well-formed note, nothing in it believed."""

    text: bytes
    lines: tuple[Line, ...]

    def encode(self) -> bytes:
        """The one spelling of this note."""
        return self.text + b"\n" + format_lines(self.lines)

    def only(self, name: str) -> "Note":
        """The same without the lines of other names."""
        return Note(self.text, tuple(line for line in self.lines if line.name == name))


class Verifier(msgspec.Struct, frozen=True):
    """A key under the name and for the one signature type it is trusted for."""

    name: str
    kind: SignatureType
    key: str
    """The Ed25519 public key, lowercase hex."""

    def __post_init__(self) -> None:
        """Refuse a name or key that could not stand in a line (``malformed``, ``bad_key``)."""
        if not _NAME.fullmatch(self.name):
            raise Refused("malformed", "a key name is not empty and has neither spaces nor +")
        if not re.fullmatch("[0-9a-f]{64}", self.key):
            raise Refused("bad_key", "not 32 bytes in hex")

    @property
    def key_id(self) -> bytes:
        """The four bytes beside the name in this key's lines."""
        return key_id(self.name, self.kind, bytes.fromhex(self.key))

    @property
    def vkey(self) -> str:
        """C2SP's one-line form, as policies and other tools take it."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(bytes([self.kind]) + bytes.fromhex(self.key))}"

    @classmethod
    def from_vkey(cls, text: str) -> "Verifier":
        """Read C2SP's one-line form.

        Raises:
            Refused: ``malformed``, ``too_large``, or ``bad_key`` for another type, another key id or no usable key.
        """
        if len(text) > STRING_CHARS_MAX:
            raise Refused("too_large", f"a key of {len(text)} characters, at most {STRING_CHARS_MAX}")
        match = _VKEY.fullmatch(text)
        if match is None:
            raise Refused("malformed", "a verifier key is name+hex+base64")
        name, _, material = match.groups()
        raw = from_base64(material)
        if raw[0] not in tuple(SignatureType):
            raise Refused("bad_key", f"signature type {raw[0]:#04x}")
        verifier = cls(name, SignatureType(raw[0]), raw[1:].hex())
        keys.admit_key(verifier.key)
        if verifier.vkey != text:
            raise Refused("bad_key", "the key id does not belong to this name and key")
        return verifier

    def verify(self, text: bytes, line: Line) -> "Signed":
        """Believe that this key signed ``text`` in ``line``.

        Raises:
            Refused: ``bad_signature``.
        """
        payload, time_s, message = line.signature, 0, text
        if self.kind is SignatureType.COSIGNATURE:
            time_s, payload = int.from_bytes(payload[:_TIME_BYTES]), payload[_TIME_BYTES:]
            message = cosignature_message(text, time_s)
        mine = line.name == self.name and line.key_id == self.key_id
        if not mine or time_s > _TIME_S_MAX or not keys.verify(bytes.fromhex(self.key), message, payload):
            raise Refused("bad_signature", f"line of {self.name[:80]!r}")
        return Signed(self, line, time_s)


class Signed(msgspec.Struct, frozen=True):
    """A line that was verified."""

    verifier: Verifier
    line: Line
    time_s: int
    """POSIX seconds that a cosignature states; 0 for the plain type, which states none."""


class OpenedNote(msgspec.Struct, frozen=True):
    """A note of which at least one line was verified."""

    text: bytes
    signed: tuple[Signed, ...]
    """In the order of their lines."""
    strangers: int
    """How many lines were ignored because nobody knows their keys."""


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """The key id of a public key under a name for the signature type ``kind``."""
    return hashlib.sha256(b"%b\n%c%b" % (name.encode(), kind, public)).digest()[:KEY_ID_BYTES]


def cosignature_message(text: bytes, time_s: int) -> bytes:
    """What a cosignature at ``time_s`` (POSIX seconds) over a checkpoint's ``text`` signs (C2SP tlog-cosignature, Ed25519)."""
    return b"cosignature/v1\ntime %d\n%b" % (time_s, text)


def format_lines(lines: Iterable[Line]) -> bytes:
    """Signature lines as they stand in a note, and alone in a witness's answer."""
    return "".join(f"{_DASH}{line.name} {to_base64(line.key_id + line.signature)}\n" for line in lines).encode()


def parse_lines(data: bytes) -> tuple[Line, ...]:
    """Read one or more signature lines.

    Raises:
        Refused: ``too_large``, ``malformed``, ``non_canonical``.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise Refused("too_large", f"{len(data)} bytes, at most {NOTE_BYTES_MAX}")
    parts = text_of(data).split("\n")
    if len(parts) > NOTE_SIGNATURES_MAX + 1:
        raise Refused("too_large", f"{len(parts) - 1} signatures, at most {NOTE_SIGNATURES_MAX}")
    if parts.pop() != "" or not parts:
        raise Refused("malformed", "signature lines end in a newline")
    lines = tuple(_parse_line(part) for part in parts)
    if format_lines(lines) != data:
        raise Refused("non_canonical")
    return lines


def parse_note(data: bytes) -> Note:
    """Read a note. Signatures are *not* checked here.

    Raises:
        Refused: ``too_large``, ``malformed``, ``non_canonical``.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise Refused("too_large", f"{len(data)} bytes, at most {NOTE_BYTES_MAX}")
    text_of(data)
    head, gap, tail = data.rpartition(b"\n\n")
    if not gap:
        raise Refused("malformed", "no empty line before the signatures")
    return Note(head + b"\n", parse_lines(tail))


def verify_lines(text: bytes, lines: Iterable[Line], verifiers: Iterable[Verifier]) -> tuple[Signed, ...]:
    """The lines of known keys, each verified over ``text``; other lines are ignored.

    Raises:
        Refused: ``bad_signature`` when a known key's line fails, ``malformed`` when it has two, ``bad_key`` when two of the
            verifiers answer to the same name and key id.
    """
    known = _index(verifiers)
    mine = [line for line in lines if (line.name, line.key_id) in known]
    if len(frozenset((line.name, line.key_id) for line in mine)) != len(mine):
        raise Refused("malformed", "two lines of one key")
    return tuple(known[line.name, line.key_id].verify(text, line) for line in mine)


def open_note(data: bytes, verifiers: Iterable[Verifier]) -> OpenedNote:
    """Read a note and believe its text on the word of at least one of ``verifiers``.

    Raises:
        Refused: as :func:`parse_note` and :func:`verify_lines`; ``bad_signature`` also when no known key signed.
    """
    note = parse_note(data)
    signed = verify_lines(note.text, note.lines, verifiers)
    if not signed:
        raise Refused("bad_signature", "no known key signed the note")
    return OpenedNote(note.text, signed, len(note.lines) - len(signed))


def append_lines(data: bytes, lines: Iterable[Line]) -> bytes:
    """The note with these lines added; one that already stands there is not doubled.

    Raises:
        Refused: ``too_large``, or ``malformed`` when one key would have two different lines.
    """
    note = parse_note(data)
    together = tuple(dict.fromkeys((*note.lines, *lines)))
    if len(frozenset((line.name, line.key_id) for line in together)) != len(together):
        raise Refused("malformed", "two lines of one key")
    longer = Note(note.text, together).encode()
    if len(together) > NOTE_SIGNATURES_MAX or len(longer) > NOTE_BYTES_MAX:
        raise Refused("too_large", f"{len(together)} signatures in {len(longer)} bytes")
    return longer


def _index(verifiers: Iterable[Verifier]) -> dict[tuple[str, bytes], Verifier]:
    known = dict[tuple[str, bytes], Verifier]()
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise Refused("bad_key", f"two keys answer to {verifier.name[:80]!r}")
    return known


def _parse_line(part: str) -> Line:
    dash, name, blob = part[: len(_DASH)], *part[len(_DASH) :].partition(" ")[::2]
    if dash != _DASH or not _NAME.fullmatch(name):
        raise Refused("malformed", "a signature line is: dash, name, base64")
    raw = from_base64(blob)
    if len(raw) <= KEY_ID_BYTES:
        raise Refused("malformed", "a signature line without a signature")
    return Line(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])
