"""What is held of another member's log, and what the two ways to take records of it in share: examining, waiting, saying no.

Not here: taking records by their owner's word (:mod:`mesh.protocol.mirror`), or by a certificate (:mod:`mesh.protocol.proven`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.proofs import AnyProof
from mesh.core.law.roster import Member
from mesh.core.log.checkpoint import Checkpoint, attest_name, read_checkpoint, witness_name
from mesh.core.log.merkle import Frontier
from mesh.core.log.note import Line, parse_note
from mesh.core.log.record import read_record
from mesh.core.messages import LineageBatch
from mesh.errors import Refused
from mesh.protocol import decide
from mesh.protocol.attester import Examined, Material, examine_records
from mesh.protocol.documents import Documents
from mesh.protocol.gossip import Told, ToldIncident
from mesh.protocol.histories import Recent, proof_of
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX, Writer, note_of
from mesh.protocol.proving import by_id
from mesh.protocol.refusing import conflict_key, say_refused
from mesh.protocol.step import Effect, Head, NoteDraft, Send, SetMeta, Sign

__all__ = [
    "MOVED",
    "PULL_MS",
    "STAGED_MAX",
    "Aim",
    "Mirror",
    "MirrorContext",
    "asked_last",
    "conflict",
    "examined_leaves",
    "my_lines",
    "prove",
    "remembered",
    "taken_sizes",
    "to_attest",
    "wait",
]

PULL_MS: Final = 300
"""Between two pulls of one log: a round trip and the answer's examination."""
STAGED_MAX: Final = 4_096
"""Records waiting for their checkpoint; beyond, they are pulled again later rather than held."""
_SIGNED_MAX: Final = 64
"""On either side of what is stored, without those that are pinned."""
_UNCERTIFIED_MAX: Final = 2 * CHECKPOINT_RECORDS_MAX
"""Records that are attested beyond the last certificate: an owner has one checkpoint out, and the certificate before may be late."""
MOVED: Final = {"asked": 0, "waiting_ms": 0, "missing": -1, "alone": False, "astray": 0, "said": 0}
"""What begins anew once something was stored."""


class Aim(msgspec.Struct, frozen=True):
    """A certificate that was believed."""

    size: int
    root: bytes
    note: bytes

    @classmethod
    def of(cls, note: bytes) -> "Aim":
        """That of a note.

        Raises:
            Refused: for one about no checkpoint.
        """
        checkpoint = read_checkpoint(note)
        return cls(checkpoint.size, checkpoint.root, note)


class Mirror(msgspec.Struct, frozen=True):
    """What is held of one log."""

    origin: str
    frontier: Frontier
    """Of the records in storage."""
    last_ms: int
    staged: tuple[Examined, ...]
    witnessed: Head | None
    attested: Head | None
    wanted: int
    """The largest size the owner has signed, as far as seen."""
    certified: int
    asked_ms: int
    asked: int
    """How many pulls since the last progress: chooses whom to ask."""
    waiting_ms: int
    """Since when a record that its log has signed is incomplete; 0 if none is."""
    missing: int
    """Index of the record that was refused as missing; -1 if there is none."""
    refused: int
    """Index of the record that will not be attested; -1 if there is none."""
    conflicted: bool
    signed: Mapping[int, bytes] = {}
    """Size to the note with the log's signature: the last ones that were stored, the nearest ones that are not."""
    tail: tuple[bytes, ...] = ()
    """Leaf hashes after the staged records, from one on that is no record."""
    tail_code: str = ""
    """Why the first of them is none."""
    alone: bool = False
    """Whether staged records led nowhere since the last progress, so that one member at a time is believed."""
    astray: int = 0
    """How often since then the owner's own answers did; -1 once it was said."""
    astray_ms: int = 0
    """When first."""
    left: bool = False
    """Whether its owner is no member any more."""
    goal: int = 0
    """The largest size that is known to have been final, by whichever roster; ``certified`` is by the one in force."""
    room: int = 0
    """How many records beyond that are taken although the owner has left."""
    aim: Aim | None = None
    """A certificate that was believed, the goal's at first: up to its size records are taken that lead to its root, and no others."""
    split: bool = False
    """Whether it is proven that another history was final than the one that is held or was cosigned."""
    unsaid: tuple[int, bytes, str] | None = None
    """A wrong record that was stored while nothing could be signed: its index, leaf hash and code."""
    lacking: tuple[int, int] = (0, 0)
    """A size that had to be certified, and since when (ms); 0 for none."""
    certificate: bytes = b""
    """By the roster in force, at ``certified``; empty until there is one."""
    lines: Mapping[tuple[int, bytes], Mapping[str, Line]] = {}
    """Size and root of a checkpoint to the lines of members that were heard on it, by key name."""
    recent: Recent | None = None
    """The last records that are stored, from the certificate on, as far as they are remembered."""
    said: int = 0
    """How often my own line was said to all since something was stored; ``said_ms`` when last."""
    said_ms: int = 0
    shown_ms: int = 0
    """When a certificate was shown last to who said a line."""
    refusal: bytes = b""
    """My refusal of a record, unsigned, with what shows that it is its owner's."""
    refusal_said: int = 0
    """How often it was said again; ``refusal_ms`` when last."""
    refusal_ms: int = 0
    refusals: Mapping[str, bytes] = {}
    """Member to the newest refusal of it that was heard, which holds (:mod:`mesh.protocol.accusing`)."""

    @property
    def held(self) -> int:
        """Records stored or staged."""
        return self.frontier.size + len(self.staged) + len(self.tail)

    @property
    def note(self) -> bytes:
        """The nearest signed checkpoint whose records are not all stored; empty if there is none."""
        return self.signed[min(beyond)] if (beyond := [size for size in self.signed if size > self.frontier.size]) else b""

    @property
    def aimed(self) -> int:
        """How many records are taken by what leads to a certificate, not by the owner's word; 0 if there is no certificate."""
        return self.aim.size if self.aim is not None else 0

    @property
    def seeking(self) -> bool:
        """Whether records are taken so now."""
        return not self.split and self.frontier.size < self.aimed

    @property
    def frozen(self) -> bool:
        """Whether nothing more is stored of this log by its owner's word."""
        return self.conflicted or self.refused >= self.frontier.size


class MirrorContext(msgspec.Struct, frozen=True):
    """What a mirror's step works with besides its own state."""

    governance: Governance
    me: Member
    owner: Member
    writer: Writer
    documents: Documents
    engine: decide.Engine
    now_ms: int
    proofs: list[Statement[AnyProof]] = msgspec.field(default_factory=list[Statement[AnyProof]])
    """What this step finds is added here; like the writer, a working copy."""
    later: list[Told] | None = None
    """Where incidents go while nothing may be recorded, to be recorded once something may."""

    @property
    def caught(self) -> bool:
        """Whether the owner is."""
        return self.governance.caught(self.owner)


def remembered(state: Mirror, note: bytes, size: int) -> dict[int, bytes]:
    """The signed notes with this one, the one with more lines if there are two.

    However many its owner signs, those of the certificate that is aimed at and of what was attested stay.
    """
    notes = dict(state.signed)
    if size not in notes or len(parse_note(note).lines) > len(parse_note(notes[size]).lines):
        notes[size] = note
    sizes, stored = sorted(notes), state.frontier.size
    pinned = {state.aimed, *((state.attested.size,) if state.attested is not None else ())} & notes.keys()
    kept = [*pinned, *[size for size in sizes if size <= stored][-_SIGNED_MAX:], *[size for size in sizes if size > stored][:_SIGNED_MAX]]
    return {size: notes[size] for size in kept}


def asked_last(state: Mirror, context: MirrorContext) -> str:
    """Whom the newest pull was for: the count of pulls chooses, two for each."""
    members = [*([] if state.left else [context.owner.name]), *(item.name for item in context.governance.roster.members)]
    others = [name for name in dict.fromkeys(members) if name != context.me.name]
    return others[((state.asked - 1) // 2) % len(others)] if state.asked else ""


def examined_leaves(
    leaves: list[bytes], batch: LineageBatch, context: MirrorContext, *, first: int, after_ms: int
) -> tuple[list[Examined], str]:
    """The leaves up to the first that is no record, and why it is none."""
    bodies = by_id(batch.bodies)
    openings = {item.intent: item for item in batch.openings}
    examine = partial(
        examine_records,
        material=Material(bodies, openings),
        owner=context.owner,
        first=first,
        after_ms=after_ms,
        governance=context.governance,
        documents=context.documents,
        engine=context.engine,
        now_ms=context.now_ms,
    )
    try:
        return examine(leaves), ""
    except Refused:
        count, code = _readable(leaves)
        return examine(leaves[:count]), code


def _readable(leaves: list[bytes]) -> tuple[int, str]:
    """How many come before the first that is no record, and why it is none."""
    for count, leaf in enumerate(leaves):
        try:
            read_record(leaf)
        except Refused as refusal:
            return count, refusal.code
    return len(leaves), ""


def taken_sizes(state: Mirror, context: MirrorContext) -> list[int]:
    """The signed sizes up to which records are taken, in order: of who is caught, what is known to be final."""
    final = max(state.goal, state.certified)
    return sorted(size for size, note in state.signed.items() if not context.caught or size <= final or len(parse_note(note).lines) > 1)


def wait(state: Mirror, item: Examined, index: int, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """The log has signed a record that is not complete here: said once, when it has lasted too long."""
    state = msgspec.structs.replace(state, waiting_ms=state.waiting_ms or context.now_ms)
    lasted_ms = context.now_ms - state.waiting_ms
    if lasted_ms <= context.governance.roster.bounds.attest_stall_ms or state.missing == index or state.refused >= 0:
        return state, []
    said = say_refused(state.origin, item.hash, index, "missing", item.code, me=context.me, writer=context.writer)
    return msgspec.structs.replace(state, missing=index), said


def my_lines(state: Mirror, checkpoint: Checkpoint, context: MirrorContext) -> list[Effect]:
    """My lines on a checkpoint that I have cosigned: the same bytes every time."""
    if state.left:
        return []
    mesh, me = context.governance.roster.mesh, context.me
    text = checkpoint.to_text()
    drafts: list[NoteDraft] = []
    effects: list[Effect] = []
    for use, name, head in (
        ("witness", witness_name(mesh, me.name), state.witnessed),
        ("attest", attest_name(mesh, me.name), state.attested),
    ):
        if head is not None and (head.size, head.root) == (checkpoint.size, checkpoint.root):
            draft = NoteDraft(name, text, head.time_s)
            drafts.append(draft)
            effects.append(Sign("witness" if use == "witness" else "attest", draft))
    if not drafts:
        return []
    subject = subjects.cosig(context.owner.region, context.owner.name)
    return [*effects, Send(subject, partial(note_of, tuple(drafts)))]


def prove(state: Mirror, notes: Sequence[bytes], context: MirrorContext, *, root: bytes | None = None, path: Sequence[bytes] = ()) -> None:
    """Make the proof of two histories that these two notes are, with what leads from the smaller to the larger."""
    if not state.conflicted:
        context.proofs.extend(proof_of(state.origin, notes, context.owner, context.governance, root=root, path=path))


def conflict(state: Mirror, size: int, said: str, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Its owner has two histories: nothing more is taken, cosigned or attested by its word, and it is said once."""
    if state.conflicted:
        return state, []
    if context.later is None:
        context.writer.alarm("log_conflict", f"{state.origin} signed {said}")
    else:
        context.later.append(ToldIncident("log_conflict", f"{state.origin} signed {said}"))
    return msgspec.structs.replace(state, conflicted=True, staged=(), tail=()), [SetMeta(conflict_key(state.origin), size)]


def to_attest(state: Mirror, size: int) -> bool:
    """Whether so much may be attested: an owner that shows nobody its certificates is not followed for ever, so that members meet."""
    return size <= max(state.goal, state.certified) + _UNCERTIFIED_MAX
