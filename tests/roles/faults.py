"""Every step by which a governor's log, mirrors, witness and attester become durable: what makes it, and what it writes.

``python -m tests.roles.faults`` writes the table for readers, :file:`docs/faults.md`.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.law.policy import Manifest, bundle_digest
from mesh.core.law.roster import Roster
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.note import Note
from mesh.core.log.record import GovernanceChanged
from mesh.core.messages import LawBatch, pack
from mesh.protocol.events import (
    BarrierArrived,
    CosigArrived,
    HeartbeatArrived,
    IntentArrived,
    LawArrived,
    LineageArrived,
    NoteArrived,
    OpeningsErased,
    OutcomesArrived,
    PolicyAdmitted,
    RecordsPruned,
    Tick,
)
from mesh.protocol.serving import pull_answer
from mesh.protocol.step import PutNote
from tests.protocol.machines import BOOT, LAB, ME, MESH, NOW, OWNER, Owner, batch, beat, checkpoint, line, told
from tests.roles.faultdesk import FAULTS, OTHERS, Desk
from tests.support.epochs import successor
from tests.support.heard import request, word
from tests.support.retains import retain
from tests.support.revocations import branch

__all__ = ["STEPS", "Row", "rendered"]

Do = Callable[[Desk], Awaitable[None]]
"""What happens at the desk."""


class Row(NamedTuple):
    """One step."""

    part: str
    name: str
    writes: tuple[str, ...]
    """What is named here of what it writes."""
    before: Do
    """What has happened, durably."""
    step: Do
    boot: bool = True
    """Whether the governor is through with its start before."""


async def _nothing(_: Desk) -> None:
    """Nothing has happened but the start."""


def _asks(*numbers: int, memo: str | None = None) -> Do:
    async def do(desk: Desk) -> None:
        found = [LAB.intent(number, memo=memo, at_ms=NOW) for number in numbers]
        await desk.take(*(IntentArrived(1 + at, LAB.request(intent, openings)) for at, (_, intent, openings) in enumerate(found)))

    return do


def _then(*parts: Do) -> Do:
    async def do(desk: Desk) -> None:
        for part in parts:
            await part(desk)

    return do


def _later(by_ms: int) -> Do:
    async def do(desk: Desk) -> None:
        desk.now_ms += by_ms
        await desk.take(*desk.beats(1 + desk.now_ms), Tick())

    return do


async def _certified(desk: Desk) -> None:
    """Enough members have attested what is outstanding."""
    pending = desk.state.log.outstanding
    assert pending is not None
    log = [line(ME, use, pending.text, pending.head.time_s) for use in ("log", "attest")]
    lines = [line(LAB.roster.member(name), "attest", pending.text, pending.head.time_s) for name in OTHERS]
    await desk.take(CosigArrived(Note(pending.text, (*log, *lines)).encode()))


async def _outcomes(desk: Desk) -> None:
    await desk.take(OutcomesArrived(1, LAB.report(LAB.lived("aa" * 32, "bb" * 32, at_ms=NOW))))


async def _word(desk: Desk) -> None:
    await desk.take(OutcomesArrived(1, request(word(LAB, at_ms=NOW).envelope, LAB.place_envelope)))


async def _revoked(desk: Desk) -> None:
    await desk.take(
        LawArrived(pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in branch([1, 2], None, "test", key=LAB.revoker)])))
    )


_BUNDLE: Final = msgspec.structs.replace(LAB.bundle, policies=[*LAB.bundle.policies[1:], LAB.bundle.policies[0]])
_BUNDLE_BYTES: Final = canonical.encode(_BUNDLE)
_SECOND: Final = LAB.next_policy(envelope.read(Manifest, LAB.manifest_envelope), digest=bundle_digest(_BUNDLE_BYTES))
_NEXT: Final = successor(
    envelope.read(Roster, LAB.roster_envelope), not_before_ms=NOW + 30_000, members=LAB.roster.members, k=LAB.roster.k, f=LAB.roster.f
)


def _law(*statements: bytes) -> Do:
    async def do(desk: Desk) -> None:
        await desk.take(LawArrived(pack(LawBatch(statements=[msgspec.Raw(data) for data in statements]))))

    return do


async def _admitted(desk: Desk) -> None:
    await desk.take(PolicyAdmitted(_SECOND.id, _BUNDLE, _BUNDLE_BYTES))


async def _over(desk: Desk) -> None:
    desk.now_ms = max(desk.now_ms, NOW + 60_000)
    await desk.take(*desk.beats(1 + desk.now_ms), Tick())


def _owner(count: int = 3, member: str = OWNER.name, *, memo: str | None = None) -> Owner:
    owner = Owner(LAB.roster.member(member))
    for number in range(count):
        _, intent, openings = LAB.intent(100 + number, memo=memo, at_ms=NOW)
        owner.decide(LAB.request(intent, openings))
    return owner


_THEIRS: Final = _owner(memo="rent")
_MINE: Final = _owner(member=ME.name)


def _wrong() -> Owner:
    owner = _owner(1)
    owner.write(
        lambda writer: GovernanceChanged(mesh=MESH, origin=writer.origin, index=99, at_ms=writer.at_ms, change="started", about="elsewhere")
    )
    return owner


def _mirrors(owner: Owner, size: int | None = None) -> Do:
    async def do(desk: Desk) -> None:
        taken = len(owner.leaves) if size is None else size
        await desk.take(LineageArrived(pack(batch(owner, 0, taken, note=owner.note(size=taken))), pulled=True, node=OWNER.name))

    return do


async def _final(desk: Desk) -> None:
    await desk.take(NoteArrived(checkpoint(_THEIRS.leaves, *(LAB.roster.member(name) for name in OTHERS))))


async def _hashed(desk: Desk) -> None:
    """Another member has no more than the hashes of what k have attested."""
    note = checkpoint(_THEIRS.leaves, *(LAB.roster.member(name) for name in OTHERS))
    pruned = [leaf_hash(leaf) for leaf in _THEIRS.leaves]
    await desk.take(LineageArrived(pull_answer(_THEIRS.origin, 0, [], {}, {}, note, pruned=pruned), pulled=True, node=OTHERS[0]))


async def _forked(desk: Desk) -> None:
    await desk.take(NoteArrived(checkpoint([*_owner(member=OWNER.name).leaves[:2], b"another"])))


async def _risen(desk: Desk) -> None:
    await desk.take(HeartbeatArrived(beat(OWNER.name, 1, desk.now_ms, incarnation=7, echo=[BOOT])))


async def _outside(desk: Desk) -> None:
    await desk.perform([PutNote("outside", desk.state.log.origin, desk.state.log.frontier.size, b"a line", "shown")])


async def _erased(desk: Desk) -> None:
    await desk.take(OpeningsErased("ab" * 32), Tick())


async def _pruned(desk: Desk) -> None:
    await desk.take(RecordsPruned("cd" * 32, OWNER.name, 7), Tick())


async def _through(desk: Desk) -> None:
    await desk.take(*desk.answers())


async def _shown(desk: Desk) -> None:
    """The others have shown what this node signed before its disk was lost."""
    if desk.performer.state.barrier is None:
        return
    heads = desk.state.governance.frontier
    note = checkpoint(_MINE.leaves, ME, owner=ME)
    await desk.take(*(BarrierArrived(told(name, note, frontier=heads)) for name in OTHERS[:2]), Tick())


async def _refilled(desk: Desk) -> None:
    note = checkpoint(_MINE.leaves, ME, owner=ME)
    await desk.take(LineageArrived(pack(batch(_MINE, note=note)), pulled=True, node=OTHERS[0]))


async def _all_told(desk: Desk) -> None:
    heads = desk.state.governance.frontier
    note = checkpoint(_MINE.leaves, ME, owner=ME)
    await desk.take(*(BarrierArrived(told(name, note, frontier=heads)) for name in OTHERS))


_NEEDS: Final = ("InsertOnce intent", "Append own", "PutBody", "Locate")
STEPS: Final = (
    Row("start", "the start is through", ("SetMeta incarnation",), _nothing, _through, boot=False),
    Row("start", "a log that was lost comes back", ("Append own", "SetMeta refilled", "InsertOnce intent"), _shown, _refilled, boot=False),
    Row(
        "start", "a lost log goes on where it was signed", ("SetHead log own", "SetHead witness own", "SetHead attest own"),
        _then(_shown, _refilled), _all_told, boot=False,
    ),
    Row("log", "intents are decided", _NEEDS, _nothing, _asks(1, 2)),
    Row("log", "an intent with a committed parameter is decided", (*_NEEDS, "PutOpenings"), _nothing, _asks(3, memo="rent")),
    Row("log", "outcomes are recorded", ("InsertOnce outcome", "Append own", "PutBody", "Locate"), _nothing, _outcomes),
    Row("log", "an enforcer's word is recorded", ("SetMeta heard", "Append own"), _nothing, _word),
    Row(
        "log", "a checkpoint is made", ("SetHead log own", "SetHead witness own", "SetHead attest own"),
        _then(_certified, _asks(1)), _then(_later(1_000)),
    ),
    Row("log", "a checkpoint becomes final", ("PutNote certificate", "PutNote cosigned"), _nothing, _certified),
    Row("log", "an external witness has cosigned", ("PutNote outside",), _nothing, _outside),
    Row("law", "revocations are taken in", ("PutLaw",), _nothing, _revoked),
    Row("law", "it is recorded what was erased", ("Append own", "Locate"), _nothing, _erased),
    Row("law", "it is recorded up to where a log was pruned", ("Append own", "Locate", "SetMeta pruned"), _nothing, _pruned),
    Row("law", "a policy is admitted", ("PutBundle",), _law(_SECOND.envelope), _admitted),
    Row("law", "the next roster begins", ("SetMeta roster epoch",), _then(_law(_NEXT.envelope), _later(1_000)), _over),
    Row(
        "mirror, witness, attester", "records of another log are held, cosigned and attested",
        ("Append other", "PutBody", "PutOpenings", "Locate", "PutNote checkpoint", "SetHead witness other", "SetHead attest other"),
        _nothing, _mirrors(_THEIRS),
    ),
    Row(
        "mirror", "hashes of records below a floor are held, and attested as others have",
        ("AppendHashes", "PutNote checkpoint", "PutNote certificate", "SetHead witness other", "SetHead attest other"),
        _law(retain(LAB, {_THEIRS.origin: len(_THEIRS.leaves)}).envelope), _hashed,
    ),
    Row("mirror", "another log's certificate is kept", ("PutNote certificate",), _mirrors(_THEIRS), _final),
    Row("attester", "a record is refused", ("SetMeta refused", "PutNote refused", "Append own"), _nothing, _mirrors(_wrong())),
    Row(
        "attester", "a record is refused behind what was attested",
        ("SetMeta refused", "PutNote attested", "PutNote refused", "Append own"),
        _mirrors(_wrong(), 1), _mirrors(_wrong()),
    ),
    Row("mirror", "a log shows two histories", ("SetMeta conflict", "Append own"), _mirrors(_THEIRS), _forked),
    Row("witness", "another member's incarnation rises", ("PutNote heartbeat",), _nothing, _risen),
)  # fmt: skip

_HEAD: Final = """\
# What an interrupted step leaves behind

For whoever asks what a crash or a failing disk can make a governor say. Each row is a step by which its log, its mirrors, its witness
or its attester become durable. Every one is interrupted at each of these places, over a real file and with the real machine and keys,
by `tests/roles/test_fault_table.py`. The table is made from what is tested; a step that is missing here fails the build.

| interrupted at | after reload the file holds | signed by then | sent by then |
|---|---|---|---|
"""
_SIGNED: Final = {"sign.after": ("all of it", "nothing"), "send.after": ("all of it", "all of it")}
_BODY: Final = """
What holds for every row:

* **Not persisted**: the file is, to the byte, what it was before. Nothing of the step was signed, so nobody has heard of it, and what
  comes again is judged anew.
* **Persisted**: the file is, to the byte, what it is when nothing interrupts. When the same comes again, five seconds later, log,
  witness and attester sign the same bytes for the same size, time included, and an intent gets the authorization that it had.

| part | step | writes |
|---|---|---|
"""
_TAIL: Final = """
A witness of its own (`mesh witness run`) has one step, a head with its note: `tests/roles/test_witness.py` interrupts it at each call
of SQLite, and kills the process at each failpoint. `tests/live/test_failpoints.py` kills governors. Erasing is no step: it comes
before the one that records it. `tests/adapters/test_store_erase.py` kills the process in the middle of it, `tests/live/test_erase.py`
governors around it.
"""


def rendered() -> str:
    """The table for readers."""
    places = [(at, "all of the step" if kept else "nothing of it", *_SIGNED.get(at, ("nothing", "nothing"))) for at, kept in FAULTS.items()]
    steps = [(row.part, row.name, ", ".join(f"`{item}`" for item in row.writes)) for row in STEPS]
    return f"{_HEAD}{_lines(places)}{_BODY}{_lines(steps)}{_TAIL}"


def _lines(table: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in table)


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs" / "faults.md").write_text(rendered(), encoding="utf-8")
