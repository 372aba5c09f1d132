"""What is sealed in the example world: one parameter, for one auditor, with the box that came out once.

A box is made with an ephemeral key that nobody keeps, so it stands here as it is: it cannot be made again, only opened.

Not here: the world (:mod:`mesh.contracts.example`); its policy declares nothing sealed, so no governor would take this intent.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mesh.contracts.example import Signed, asked, base, hex32, sign
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
    "9d6b544e55f6ae2fd0f76bf929e4748bd5527235d7aca8ba131af379800f0a2b85b103b65905c0d0fa378581c0f6ac1ef12afd0e1a9eb36124a6162697c945b9"
    "37d03355acc6deb3e0554184bf52df69d2f62d534d73b3ee53eb385456ff0907ac72b332f6ced50a2c2baaa5b9861118e94a10f670a797e53fac0bcdcba63864"
    "465d3eef739ca518e0903143d38735a97466ccb07f44d385152f9b321a3fe542ffc403911947078bf7c9a4b62819a39455689648d94506ae1f5354d93c8e888b"
    "ea9886f5b3de00b34298159e1d987174b0e50a984d947b63a13abf23f8e1521ed790e507912df8a3e9d9227e9079d568b29b3ef0d29d54e8b023d68e5c623876"
    "b431bfbae577c2cc0b991200f538c91ef88b89f85352d532b64a8a993f6b36107184006fcc28a9142f71043418c83822"
)


def _seed(name: str) -> str:
    return hex32(f"key auditor {name}")


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
        "content": content(_OPENING).hex(),
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
    ) -> Case:
        seals = {_OPENING.name: [msgspec.to_builtins(_seal(sealed))]}
        boxes = [{"name": _OPENING.name, "auditor": _AUDITOR, "box": box}]
        given = {"sealed": seals, "committed": committed, "boxes": boxes, "name": _OPENING.name, "seed": _seed(whose)}
        return Case(name, "unseal", given, code, catches)

    yield case("unsealed_by_another", "not_sealed_for", "trying every key on every box", whose="tax")
    yield case("other_box", "box_mismatch", "opening whatever box came", box=flipped)
    yield case("cut_box", "box_malformed", "a box without a length", box=_BOX[:-2])
    yield case("sealed_rubbish", "sealed_rubbish", "taking what does not open for a fault of the transport", sealed=rubbish, box=rubbish)
    yield case("sealed_another_value", "sealed_falsely", "believing what is in the box without its commitment", committed=other)
