"""A mesh in which executions ran within others and after others, and the proofs of them."""

from functools import cache

import msgspec

from mesh.core.bytes import envelope
from mesh.core.messages import Authorized
from mesh.core.run.intent import After, Intent
from mesh.core.run.kin import Parent
from tests.support.factory import sign
from tests.support.proofs import Happened

__all__ = ["Family", "family"]


class Family(Happened):
    """What happened before, and then a part of it, a part of that part, and what used the result of the first."""

    def __init__(self) -> None:
        super().__init__()
        _, self.root, self.ended = self._pay(11)
        self.child, part, _ = self._pay(12, self.root)
        self.grandchild, _, _ = self._pay(13, part)
        self.user, _, _ = self._pay(14, after=self.ended)
        self.mesh.run(6)

    def _pay(self, number: int, within: Parent | None = None, after: Parent | None = None) -> tuple[str, Parent, Parent]:
        claims = envelope.read(Intent, self.lab.intent(number, at_ms=self.mesh.now_ms)[1]).claims
        named = {
            "within": [within.named[0]] if within else [],
            "after": [After(authorization=after.named[0], outcome=after.named[1])] if after else [],
        }
        intent = sign(msgspec.structs.replace(claims, **named), self.lab.holder)
        name = envelope.identify(intent)[1]
        parents = [paper for paper in (within, after) if paper is not None]
        answer = self.mesh.request("us-1", self.lab.request(intent, [], parents=parents))
        assert isinstance(answer, Authorized), answer
        issued = bytes(answer.authorization)
        outcomes = self.lab.lived(name, envelope.identify(issued)[1], at_ms=self.mesh.now_ms)
        self.mesh.report("eu-1", self.lab.report(outcomes))
        started, finished = (
            Parent(authorization=msgspec.Raw(issued), outcome=msgspec.Raw(outcome), countersignature="") for outcome in outcomes
        )
        return name, started, finished


@cache
def family() -> Family:
    return Family()
