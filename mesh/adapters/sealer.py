"""Boxes are made here: one for each auditor, each with an ephemeral key that libsodium draws and forgets.

Not here: what a box holds and how it is opened (:mod:`mesh.core.run.sealed`), who the auditors are (the policy bundle says it).
"""

from collections.abc import Mapping

from nacl import bindings
from nacl.exceptions import CryptoError

from mesh.core.bytes.sealkeys import admit_seal_key
from mesh.core.run.params import Opening
from mesh.core.run.sealed import Box, Seal, box_hash, content
from mesh.errors import Refused

__all__ = ["seal"]


def seal(opening: Opening, auditors: Mapping[str, str], *, holder: str) -> tuple[list[Seal], list[Box]]:
    """The seals of one parameter and their boxes, sorted by auditor.

    Args:
        opening: what is sealed.
        auditors: name to X25519 public key, lowercase hex.
        holder: the key with which the intent is signed, lowercase hex.

    Raises:
        Refused: ``bad_key``, ``too_large``.
    """
    seals, boxes = list[Seal](), list[Box]()
    data = content(opening, holder)
    for auditor, key in sorted(auditors.items()):
        try:
            box = bindings.crypto_box_seal(data, admit_seal_key(key))
        except (CryptoError, ValueError, TypeError):
            raise Refused("bad_key", key[:16]) from None
        seals.append(Seal(auditor=auditor, key=key, box=box_hash(box)))
        boxes.append(Box(name=opening.name, auditor=auditor, box=box.hex()))
    return seals, boxes
