"""What is sealed in the example world: one parameter, for one auditor, with the box that came out once.

A box is made with an ephemeral key that nobody keeps, so it stands here as it is: it cannot be made again, only opened.

Not here: the world (:mod:`mesh.contracts.example`); its policy declares nothing sealed, so no governor would take this intent.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mesh.contracts.example import Signed, asked, base, hex32, key, sign
from mesh.contracts.refusals import Case
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.sealkeys import SealKey
from mesh.core.messages import IntentRequest, pack
from mesh.core.run.intent import Intent
from mesh.core.run.params import Opening, commit
from mesh.core.run.sealed import Box, Seal, box_hash, content

__all__ = ["boxed_files", "boxed_intent", "boxed_request", "unseal_cases"]

_AUDITOR: Final = "finance"
_OPENING: Final = Opening(name="payee", salt=hex32("payee salt")[:32], value="Ada Example, DE02 1203 0000 0000 2020 51")
_BOX: Final = (
    "bd9963b19ae8975478e7aaed2e303cef1f1504e69791c6cb94d84c8dbb11c060a634d1e861a302c1e85c88d6e0c90dc61b1d48476a192efbddbb012c58fc8ecc"
    "cd20ff73b653d4e9ae247adb521ecb765fe0c64f17896e20eff389a9aa91f78c260cfd2aa6285a3ddba99d88b918ea024a883a116b578758cf1a5bf7dff9e2fc"
    "7d5ffee791e44983bf48ff8172e25751a17954afcf3bafc8891df693cfebbffc821bcdd4a2fba6b9d423074ff7e1ee1ce154cb29dac5d82a82efcd2c17e72a3c"
    "ac9f44bf9c330b4110ccce872fca34018c5725bcd0536f0f429a1d8d8f223abb4a2b08bd2dff4842e5a6d66ae84727142ce328f0bb2f31ff67e7d7b6b09d5783"
    "b885be76944d04e7a03e3a60d59cc7b9f5c05d94b406f735f01ad877fa35f3d5ee856a2bebcb3e6d6f8fe6cde293626a"
)


def _seed(name: str) -> str:
    return hex32(f"key auditor {name}")


_HOLDER: Final = key("workload").public


def _seal(box: str) -> Seal:
    return Seal(auditor=_AUDITOR, key=SealKey(bytes.fromhex(_seed(_AUDITOR))).public, box=box_hash(bytes.fromhex(box)))


def boxed_intent() -> Signed:
    """An intent with a sealed parameter."""
    plain = envelope.read(Intent, asked("intent-sealed", "acct:acme-supplies", 2_500, minute=3).envelope).claims
    intent = msgspec.structs.replace(plain, committed={_OPENING.name: commit(_OPENING)}, sealed={_OPENING.name: [_seal(_BOX)]})
    return sign("intent-sealed", intent, "workload")


def boxed_request() -> bytes:
    """The same with its box, on its way to a governor."""
    raw, world = msgspec.Raw, base()
    request = IntentRequest(
        intent=raw(boxed_intent().envelope),
        identity=raw(world.workload.envelope),
        enforcer=raw(world.enforcer.envelope),
        openings=[],
        boxes=[Box(name=_OPENING.name, auditor=_AUDITOR, box=_BOX)],
        approvals=[],
        parents=[],
    )
    return pack(request)


def boxed_files() -> Mapping[str, Any]:
    """How it comes out, step by step."""
    key = SealKey(bytes.fromhex(_seed(_AUDITOR)))
    return {
        "opening": canonical.encode(_OPENING).decode(),
        "commitment": commit(_OPENING),
        "content": content(_OPENING, _HOLDER).hex(),
        "holder": _HOLDER,
        "auditor": {"name": _AUDITOR, "seed": _seed(_AUDITOR), "public": key.public},
        "box": _BOX,
        "box_sha256": box_hash(bytes.fromhex(_BOX)),
    }


def unseal_cases() -> Iterator[Case]:
    """What an auditor must not take for the value that was signed."""
    good = {_OPENING.name: commit(_OPENING)}
    other = {_OPENING.name: commit(msgspec.structs.replace(_OPENING, value="somebody else"))}
    rubbish = b"".join(hashlib.sha256(b"rubbish %d" % number).digest() for number in range(10))[: len(_BOX) // 2].hex()
    flipped = f"{_BOX[:-1]}{int(_BOX[-1], 16) ^ 1:x}"

    def case(
        name: str,
        code: str,
        catches: str,
        *,
        sealed: str = _BOX,
        box: str = _BOX,
        whose: str = _AUDITOR,
        committed: Mapping[str, str] = good,
        holder: str = _HOLDER,
    ) -> Case:
        seals = {_OPENING.name: [msgspec.to_builtins(_seal(sealed))]}
        boxes = [{"name": _OPENING.name, "auditor": _AUDITOR, "box": box}]
        given = {"sealed": seals, "committed": committed, "boxes": boxes, "name": _OPENING.name, "seed": _seed(whose), "holder": holder}
        return Case(name, "unseal", given, code, catches)

    yield case("unsealed_by_another", "not_sealed_for", "trying every key on every box", whose="tax")
    yield case("other_box", "box_mismatch", "opening whatever box came", box=flipped)
    yield case("cut_box", "box_malformed", "a box without a length", box=_BOX[:-2])
    yield case("sealed_rubbish", "sealed_rubbish", "taking what does not open for a fault of the transport", sealed=rubbish, box=rubbish)
    yield case("sealed_another_value", "sealed_falsely", "believing what is in the box without its commitment", committed=other)
    stranger = key("enforcer").public
    yield case("sealed_by_another", "sealed_falsely", "opening a box that was copied from somebody else's intent", holder=stranger)
