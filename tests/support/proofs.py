"""A mesh in which something happened, and the proofs of it."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from mesh.core.bytes import envelope
from mesh.core.log.bundle import encode_proof
from mesh.core.messages import Authorized, DeniedAnswer, Find, Found, Prove, Proved, pack, unpack
from mesh.core.run.authorization import Denial
from mesh.protocol.proving import gather, record_of
from tests.support.factory import Lab
from tests.support.littlemesh import LittleMesh

__all__ = ["FIXTURE", "Happened", "happened", "write_fixture"]

FIXTURE: Final = Path(__file__).resolve().parents[1] / "fixtures" / "proofs" / "permit"
"""A proof and the roster that it is judged by."""


class Happened:
    """One permit that ran well (its intent has a committed memo), one denial by policy, one denial without a decision."""

    def __init__(self, lab: Lab | None = None, *, at: str = "eu-1") -> None:
        self.lab = Lab() if lab is None else lab
        self.mesh = LittleMesh(self.lab)
        now_ms = self.mesh.now_ms
        self.permitted, intent, openings = self.lab.intent(1, memo="for the flat", at_ms=now_ms)
        answer = self.mesh.request(at, self.lab.request(intent, openings))
        assert isinstance(answer, Authorized)
        self.authorization = envelope.identify(bytes(answer.authorization))[1]
        self.outcomes = self.lab.lived(self.permitted, self.authorization, at_ms=now_ms)
        self.mesh.report("us-1", self.lab.report(self.outcomes))
        self.forbidden = self.deny("ap-1", 2, "policy_denied", account="frozen")
        self.late = self.deny("ap-1", 3, "action_unknown", action="steal")
        self.mesh.run(6)

    def deny(self, node: str, number: int, code: str, *, account: str = "acme", action: str = "send", amount: int = 10) -> str:
        """Ask for what is denied with ``code``; the intent's id."""
        name, intent, openings = self.lab.intent(number, amount=amount, account=account, action=action, at_ms=self.mesh.now_ms)
        answer = self.mesh.request(node, self.lab.request(intent, openings))
        assert isinstance(answer, DeniedAnswer)
        assert envelope.read(Denial, bytes(answer.denial)).claims.code == code
        return name

    def answers(self, name: str, *, node: str = "sa-1") -> list[Proved]:
        """What a node answers about every record of an id; decisions and denials first."""
        asked = self.mesh.nodes[node].answer
        found = unpack(Found, asked(pack(Find(prefix=name, count=100)))).records
        places = sorted({(place.origin, place.index) for place in found})
        answers = [unpack(Proved, asked(pack(Prove(origin=origin, index=index)))) for origin, index in places]
        return sorted(answers, key=lambda answer: record_of(answer).__struct_config__.tag == "outcome")

    def proof(self, name: str, *, outcomes: int | None = None, rosters: Sequence[bytes] = ()) -> bytes:
        """The proof bundle of an id."""
        main, *rest = self.answers(name)
        lab = self.lab
        bundle = gather(main, rest[:outcomes], manifests=[lab.manifest_envelope], bundles=[lab.bundle_bytes], rosters=rosters)
        return encode_proof(bundle)


@cache
def happened() -> Happened:
    """The same for every test that only reads it."""
    return Happened()


def write_fixture(folder: Path) -> None:
    """The proof that stands in the tree, for whoever has only that; ``python -m tests.support.proofs`` writes it anew."""
    folder.mkdir(parents=True, exist_ok=True)
    story = happened()
    (folder / "proof.json").write_bytes(story.proof(story.permitted))
    (folder / "roster.json").write_bytes(story.lab.roster_envelope)


if __name__ == "__main__":
    write_fixture(FIXTURE)
