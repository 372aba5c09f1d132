"""Sealed parameters: like committed ones, but what opens them travels encrypted, for the auditors whom policy names and nobody else.

Rules
-----
1. A sealed parameter has a commitment among the committed ones, and beside it one *seal* for each of its auditors: for whom, under
   which key, and the SHA-256 of the *box* that holds the opening for them. So the signed intent binds every byte of every box.
2. Boxes travel beside the intent and are kept where openings are. What they hold no governor can see: that they are the boxes which the
   intent names is all that is checked on the way.
3. A box begins with the key of the holder who signs the intent, so it is worth nothing in an intent of somebody else: who copies it
   there has said with their own signature what is not so (``sealed_falsely``).
4. Content is padded to a multiple of 256 bytes (ISO/IEC 7816-4: one byte 0x80, then zeros), so that a box tells little of the
   length of a value.
5. Whoever seals can lie: seal rubbish, or another value than the one committed to. Only the auditor finds out, and has then, in the signed
   intent and its own key, all that shows it: ``sealed_rubbish``, ``sealed_falsely``.

Not here: which parameters are sealed for whom (:mod:`mesh.core.law.policy`), making boxes (:mod:`mesh.adapters.sealer`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Hex32, KeyHex, Name, Payload, Token
from mesh.core.bytes.sealkeys import OVERHEAD_BYTES, SealKey
from mesh.core.run.params import Opening, commit
from mesh.errors import Refused
from mesh.limits import PARAMS_MAX, SEAL_AUDITORS_MAX, SEALED_BOX_BYTES_MAX, SEALED_BOXES_BYTES_MAX

__all__ = ["Box", "Seal", "Seals", "box_hash", "check_boxes", "content", "open_box", "told"]

_BLOCK_BYTES: Final = 256
_KEY_BYTES: Final = 32
_MARK: Final = b"\x80"


class Seal(Payload):
    """For whom a parameter was sealed."""

    auditor: Token
    """As the policy bundle calls them."""
    key: KeyHex
    """Their X25519 public key."""
    box: Hex32
    """SHA-256 of the box that is theirs."""


Seals = Annotated[
    dict[Name, Annotated[list[Seal], msgspec.Meta(min_length=1, max_length=SEAL_AUDITORS_MAX)]], msgspec.Meta(max_length=PARAMS_MAX)
]
"""Parameter name to its seals, sorted by auditor."""


class Box(Payload):
    """One parameter's opening, encrypted for one auditor."""

    name: Name
    auditor: Token
    box: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$(?!\\n)", max_length=2 * SEALED_BOX_BYTES_MAX)]
    """The box's bytes in lowercase hex."""


def box_hash(box: bytes) -> str:
    """What a seal names, lowercase hex."""
    return hashlib.sha256(box).hexdigest()


def content(opening: Opening, holder: str) -> bytes:
    """What goes into a box in an intent that is signed with the key ``holder`` (hex): rules 3 and 4.

    Raises:
        Refused: ``too_large`` if no box may be so large.
    """
    data = bytes.fromhex(holder) + canonical.encode(opening) + _MARK
    data += bytes(-len(data) % _BLOCK_BYTES)
    if len(data) + OVERHEAD_BYTES > SEALED_BOX_BYTES_MAX:
        raise Refused("too_large", f"{opening.name}: its box would have {len(data) + OVERHEAD_BYTES} bytes, at most {SEALED_BOX_BYTES_MAX}")
    return data


def told(sealed: Mapping[str, Sequence[Seal]]) -> str:
    """Which parameters are sealed, and for whom, in words; empty if none is."""
    return "; ".join(f"{name} for {', '.join(seal.auditor for seal in sealed[name])}" for name in sorted(sealed))


def check_boxes(sealed: Mapping[str, Sequence[Seal]], boxes: Sequence[Box]) -> None:
    """That these are exactly the boxes that an intent names, in their order: by name, then by auditor (rule 2).

    Raises:
        Refused: ``box_mismatch``, ``box_malformed``, ``too_large``.
    """
    wanted = [(name, seal) for name in sorted(sealed) for seal in sealed[name]]
    if [(box.name, box.auditor) for box in boxes] != [(name, seal.auditor) for name, seal in wanted]:
        raise Refused("box_mismatch", f"{len(boxes)} boxes are here, the intent names {len(wanted)}: {told(sealed)}"[:200])
    if sum(len(box.box) // 2 for box in boxes) > SEALED_BOXES_BYTES_MAX:
        raise Refused("too_large", f"its boxes together, at most {SEALED_BOXES_BYTES_MAX} bytes")
    for box, (_, seal) in zip(boxes, wanted, strict=True):
        _check_box(box, seal)


def open_box(
    sealed: Mapping[str, Sequence[Seal]], committed: Mapping[str, str], boxes: Iterable[Box], name: str, key: SealKey, *, holder: str
) -> Opening:
    """What the auditor with ``key`` finds in its box for the parameter ``name`` of an intent that ``holder`` (hex) signed (rule 5).

    Raises:
        Refused: ``not_sealed_for`` if none is sealed for this key; ``box_mismatch`` and ``box_malformed`` if the box here is none that the
            intent names; ``sealed_rubbish`` and ``sealed_falsely`` if who asked has lied.
    """
    seal = next((seal for seal in sealed.get(name, ()) if seal.key == key.public), None)
    if seal is None:
        raise Refused("not_sealed_for", f"{name} is not sealed for the key {key.public[:12]}…")
    box = next((box for box in boxes if (box.name, box.auditor) == (name, seal.auditor)), None)
    if box is None:
        raise Refused("box_mismatch", f"the box of {name} for {seal.auditor} is not here")
    _check_box(box, seal)
    whose, opening = _opened(key.open(bytes.fromhex(box.box)), name)
    if whose != bytes.fromhex(holder):
        raise Refused("sealed_falsely", f"the box of {name} was sealed by {whose.hex()[:12]}…, and not by who signed this intent")
    if opening.name != name or commit(opening) != committed.get(name):
        raise Refused("sealed_falsely", f"what is sealed for {seal.auditor} is not what {name} commits to")
    return opening


def _check_box(box: Box, seal: Seal) -> None:
    data = bytes.fromhex(box.box)
    inside = len(data) - OVERHEAD_BYTES
    if inside <= 0 or inside % _BLOCK_BYTES:
        raise Refused("box_malformed", f"{box.name} for {box.auditor}: {len(data)} bytes")
    if box_hash(data) != seal.box:
        raise Refused("box_mismatch", f"{box.name} for {box.auditor} is not the box that the intent names")


def _opened(data: bytes | None, name: str) -> tuple[bytes, Opening]:
    """Whose it is, and what is in it."""
    if data is None:
        raise Refused("sealed_rubbish", f"the box of {name} does not open with the key that it is said to be for")
    said, mark, padding = data.rpartition(_MARK)
    if not mark or padding.strip(b"\0") or len(padding) >= _BLOCK_BYTES:
        raise Refused("sealed_rubbish", f"the box of {name} is not padded as it must be")
    try:
        return said[:_KEY_BYTES], canonical.decode(Opening, said[_KEY_BYTES:], bytes_max=SEALED_BOX_BYTES_MAX)
    except Refused as refusal:
        raise Refused("sealed_rubbish", f"the box of {name} holds no opening: {refusal.code}") from None
