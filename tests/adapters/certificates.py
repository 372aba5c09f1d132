"""An authority and one server certificate for 127.0.0.1, made anew for each run: no key is kept anywhere (RFC 5280, RFC 8410)."""

import base64
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from nacl.signing import SigningKey

__all__ = ["Certificates", "certificates"]

_ED25519 = bytes.fromhex("300506032b6570")
_ALWAYS = (b"200101000000Z", b"491231235959Z")


class Certificates(NamedTuple):
    """PEM files."""

    ca: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Make them below ``folder``."""
    root, leaf = SigningKey(os.urandom(32)), SigningKey(os.urandom(32))
    ca = _certificate("test ca", "test ca", root, root, ca=True)
    server = _certificate("test ca", "server", root, leaf, ca=False)
    private = _tlv(0x30, b"\x02\x01\x00" + _ED25519 + _tlv(0x04, _tlv(0x04, bytes(leaf))))
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    for path, label, der in zip(made, ("CERTIFICATE", "CERTIFICATE", "PRIVATE KEY"), (ca, server, private), strict=True):
        body = base64.encodebytes(der).decode()
        path.write_text(f"-----BEGIN {label}-----\n{body}-----END {label}-----\n")
    return made


def _tlv(tag: int, value: bytes) -> bytes:
    if len(value) < 0x80:
        return bytes((tag, len(value))) + value
    length = len(value).to_bytes((len(value).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def _name(text: str) -> bytes:
    return _tlv(0x30, _tlv(0x31, _tlv(0x30, bytes.fromhex("0603550403") + _tlv(0x0C, text.encode()))))


def _extension(oid: int, value: bytes, *, critical: bool) -> bytes:
    return _tlv(0x30, bytes((0x06, 0x03, 0x55, 0x1D, oid)) + (b"\x01\x01\xff" if critical else b"") + _tlv(0x04, value))


def _certificate(issuer: str, subject: str, signer: SigningKey, key: SigningKey, *, ca: bool) -> bytes:
    key_id, issuer_id = (hashlib.sha1(bytes(k.verify_key), usedforsecurity=False).digest() for k in (key, signer))
    extensions = [
        _extension(0x13, _tlv(0x30, b"\x01\x01\xff" if ca else b""), critical=True),
        _extension(0x0F, b"\x03\x02\x02\x04" if ca else b"\x03\x02\x07\x80", critical=True),
        _extension(0x0E, _tlv(0x04, key_id), critical=False),
        _extension(0x23, _tlv(0x30, _tlv(0x80, issuer_id)), critical=False),
    ]
    if not ca:
        extensions.append(_extension(0x11, _tlv(0x30, _tlv(0x87, bytes((127, 0, 0, 1)))), critical=False))
    validity = _tlv(0x30, b"".join(_tlv(0x17, moment) for moment in _ALWAYS))
    body = _tlv(
        0x30,
        _tlv(0xA0, b"\x02\x01\x02")
        + _tlv(0x02, b"\x01" + os.urandom(8))
        + _ED25519
        + _name(issuer)
        + validity
        + _name(subject)
        + _tlv(0x30, _ED25519 + _tlv(0x03, b"\x00" + bytes(key.verify_key)))
        + _tlv(0xA3, _tlv(0x30, b"".join(extensions))),
    )
    return _tlv(0x30, body + _ED25519 + _tlv(0x03, b"\x00" + signer.sign(body).signature))
