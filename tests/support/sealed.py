"""Auditors of the lab's policy, and intents with a parameter that is sealed for them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mesh.adapters.sealer import seal
from mesh.core.bytes import envelope
from mesh.core.bytes.sealkeys import SealKey
from mesh.core.messages import Authorized
from mesh.core.run.intent import Intent
from mesh.core.run.params import Opening, commit
from mesh.core.run.sealed import Box
from tests.support.factory import AUDITORS, T0, Lab, sign
from tests.support.proofs import Happened

__all__ = ["PAYEE", "TOLD", "SealedStory", "boxed", "hidden"]

PAYEE: Final = "Ada Example, DE02 1203 0000 0000 2020 51"
TOLD: Final = "payee for finance, tax"


def hidden(value: Any = PAYEE, number: int = 1) -> Opening:
    """What is sealed."""
    return Opening(name="payee", salt=f"{number:032x}", value=value)


def boxed(
    lab: Lab, number: int = 1, *, opening: Opening | None = None, keys: Mapping[str, SealKey] = AUDITORS, at_ms: int = T0, **changed: Any
) -> tuple[str, bytes, Sequence[Box]]:
    """Id and envelope of an intent whose payee is sealed, and the boxes."""
    made = opening or hidden(number=number)
    seals, boxes = seal(made, {name: key.public for name, key in keys.items()}, holder=lab.holder.public)
    plain = envelope.read(Intent, lab.intent(number, at_ms=at_ms)[1]).claims
    claims = msgspec.structs.replace(plain, committed={made.name: commit(made)}, sealed={made.name: seals})
    claims = msgspec.structs.replace(claims, **changed)
    return envelope.draft(claims).id, sign(claims, lab.holder), boxes


class SealedStory(Happened):
    """What happened, and a payment whose payee nobody but the auditors knows."""

    def __init__(self) -> None:
        super().__init__(Lab())
        self.sealed = self.pay(31)

    def pay(self, number: int, **changed: Any) -> str:
        """One more such payment; the intent's id."""
        name, intent, boxes = boxed(self.lab, number, at_ms=self.mesh.now_ms, **changed)
        assert isinstance(self.mesh.request("eu-1", self.lab.request(intent, [], boxes=boxes)), Authorized)
        self.mesh.run(6)
        return name
