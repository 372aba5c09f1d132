"""Nothing begins within an execution of which this node holds a record that it is over, whichever step that came with."""

from pathlib import Path

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, DeniedAnswer
from mesh.core.run.authorization import Authorization, Denial
from mesh.core.run.intent import Intent
from mesh.core.run.kin import Parent
from mesh.core.run.outcome import Blocked
from mesh.limits import PARENT_RECORDS_MAX
from mesh.protocol.events import IntentArrived, OutcomesArrived
from tests.roles.test_performer import LAB, Bench, answer_in, request
from tests.support.factory import T0, sign

AT = T0 + 1_000


def _child(number: int, parent: str, authorization: bytes, started: bytes) -> bytes:
    claims = envelope.read(Intent, LAB.intent(number, at_ms=AT)[1]).claims
    intent = sign(msgspec.structs.replace(claims, within=[parent]), LAB.holder)
    paper = Parent(authorization=msgspec.Raw(authorization), outcome=msgspec.Raw(started), countersignature="")
    return LAB.request(intent, [], parents=[paper])


class _Parent:
    """A running execution of which the node has recorded the start."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.authorization = self.started = self.finished = b""
        self.id = self.intent = ""

    async def begin(self) -> None:
        self.bench.performer.fold([IntentArrived(0, request(1))])
        await self.bench.done()
        answer = answer_in(self.bench.said.pop()[1])
        assert isinstance(answer, Authorized)
        self.authorization = bytes(answer.authorization)
        statement = envelope.read(Authorization, self.authorization)
        self.id, self.intent = statement.id, statement.claims.intent
        self.started, self.finished = LAB.lived(self.intent, self.id, at_ms=AT)
        await self.report(self.started)

    async def report(self, *outcomes: bytes) -> None:
        self.bench.performer.fold([OutcomesArrived(9, LAB.report(list(outcomes)))])
        await self.bench.done()
        self.bench.said.clear()

    async def child(self, *numbers: int) -> list[str]:
        """With which codes parts are denied; empty for one that may begin."""
        for number in numbers:
            self.bench.performer.fold([IntentArrived(number, _child(number, self.id, self.authorization, self.started))])
        await self.bench.done()
        said, codes = dict(self.bench.said), list[str]()
        self.bench.said.clear()
        for number in numbers:
            answer = answer_in(said[number])
            assert isinstance(answer, Authorized | DeniedAnswer)
            codes.append("" if isinstance(answer, Authorized) else envelope.read(Denial, bytes(answer.denial)).claims.code)
        return codes


async def test_parts_begin_until_the_end_is_recorded_and_never_after(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    parent = _Parent(bench)
    await parent.begin()
    assert await parent.child(2, 3) == ["", ""]
    await parent.report(parent.finished)
    assert await parent.child(4, 5) == ["parent_over", "parent_over"]
    assert await parent.child(2) == [""], "what was authorized before is answered as it was"
    await bench.store.close()


async def test_an_end_that_commits_while_the_part_is_decided_counts(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    parent = _Parent(bench)
    await parent.begin()
    bench.store.open_gate.clear()
    bench.performer.fold([OutcomesArrived(9, LAB.report([parent.finished]))])
    await bench.begun(bench.store.begun)
    bench.performer.fold([IntentArrived(2, _child(2, parent.id, parent.authorization, parent.started))])
    bench.performer.fold([IntentArrived(3, request(3))])
    bench.store.open_gate.set()
    await bench.done()
    said = dict(bench.said)
    denied, other = answer_in(said[2]), answer_in(said[3])
    assert isinstance(denied, DeniedAnswer)
    assert envelope.read(Denial, bytes(denied.denial)).claims.code == "parent_over"
    assert isinstance(other, Authorized), "whatever else came with it is decided as if it had come alone"
    await bench.store.close()


@pytest.mark.parametrize(("more", "code"), [(0, ""), (1, "parent_over")])
async def test_nobody_hides_an_end_behind_many_words_of_others(tmp_path: Path, more: int, code: str) -> None:
    bench = await Bench.at(tmp_path)
    parent = _Parent(bench)
    await parent.begin()  # the decision and the start are two
    for number in range(PARENT_RECORDS_MAX - 2 + more):
        said = Blocked(code="audience", detail=str(number))
        await parent.report(LAB.outcome(parent.intent, parent.id, said, sequence=5 + number, previous="ab" * 32, at_ms=AT))
    assert await parent.child(2) == [code]
    await bench.store.close()
