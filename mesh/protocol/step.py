"""What a machine may ask for, and the one order in which it happens: remember, then sign, then send.

Rules
-----
1. A batch of events is one step. All :data:`Persist` effects of it commit in one transaction; only then is anything signed;
   only when all is signed is anything sent. A crash between any two leaves nothing outside that storage does not know.
2. If the commit fails the step is thrown away: no signature, no message but ``unavailable`` to the waiters, state reloaded.
3. The new state is adopted only after the commit. The machine cannot believe what the disk does not.
4. Every boundary is a named failpoint (:data:`FAILPOINTS`); a driver may crash the process there.

:func:`phases` is the runner of both worlds: a shell drives it with a real disk, the seeded simulation with a simulated one.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Final, Generic, Literal, TypeVar

import msgspec

from mesh.core.bytes.envelope import Draft, assemble
from mesh.core.law.streams import Cursor
from mesh.core.log.checkpoint import cosignature_line, cosignature_message, log_line
from mesh.core.log.note import Line, Note

__all__ = [
    "FAILPOINTS",
    "Announce",
    "Append",
    "AppendHashes",
    "Ask",
    "AskLaw",
    "Commit",
    "Effect",
    "Head",
    "HeadUse",
    "InsertOnce",
    "KeyUse",
    "Locate",
    "NoteDraft",
    "Outgoing",
    "Persist",
    "PutBody",
    "PutBundle",
    "PutLaw",
    "PutNote",
    "PutOpenings",
    "Reply",
    "Running",
    "Send",
    "Sending",
    "SetHead",
    "SetMeta",
    "Sign",
    "Signed",
    "Step",
    "phases",
]

KeyUse = Literal["log", "witness", "attest", "decision"]
HeadUse = Literal["log", "witness", "attest"]
S = TypeVar("S")


class Append(msgspec.Struct, frozen=True):
    """Consecutive records of one log: the node's own, or one it mirrors."""

    origin: str
    first: int
    leaves: tuple[bytes, ...]
    """Leaf data."""
    hashes: tuple[bytes, ...]
    """RFC 6962 leaf hashes, one per leaf."""


class AppendHashes(msgspec.Struct, frozen=True):
    """Consecutive records of another's log of which only the hashes are held: nobody need keep the rest (:mod:`mesh.core.law.retain`)."""

    origin: str
    first: int
    hashes: tuple[bytes, ...]
    below: int
    """Index of the first record of that log that is kept; none of these may stand there or behind."""


class PutLaw(msgspec.Struct, frozen=True):
    """A governance statement in its stream. Idempotent: the id is its content."""

    stream: str
    sequence: int
    id: str
    envelope: bytes


class PutBundle(msgspec.Struct, frozen=True):
    """A policy bundle that was admitted here. Idempotent: the digest is its content."""

    digest: str
    """``blake3:<hex>``."""
    data: bytes


class Head(msgspec.Struct, frozen=True):
    """How far something was signed."""

    size: int
    root: bytes
    time_s: int


class SetHead(msgspec.Struct, frozen=True):
    """What will be signed about a log, its time included, so that a retry signs the same bytes.

    Storage itself refuses a smaller size, another root at the same size, and an earlier time.
    """

    use: HeadUse
    origin: str
    head: Head


class PutBody(msgspec.Struct, frozen=True):
    """A statement that records name. Idempotent: the id is its content."""

    id: str
    kind: str
    envelope: bytes


class PutOpenings(msgspec.Struct, frozen=True):
    """Openings of an intent's committed parameters, kept apart so that they can be erased."""

    intent: str
    openings: bytes


class InsertOnce(msgspec.Struct, frozen=True):
    """A key that must be new. If it is not, the whole step is discarded and made again with the facts."""

    space: Literal["intent", "outcome"]
    key: str
    """Id of a statement."""
    at_ms: int
    """The time that the statement itself says. The id is its content, so the same key never comes with another time."""
    index: int


class Running(msgspec.Struct, frozen=True):
    """That no record held here says that this execution is over. If one does, the whole step is discarded and made again with the facts."""

    authorization: str
    enforcer: str
    """Public key (hex) of who alone can say so."""


class Locate(msgspec.Struct, frozen=True):
    """That a record is about a statement id."""

    id: str
    origin: str
    index: int


class PutNote(msgspec.Struct, frozen=True):
    """A signed note about a log at a size: its checkpoint, or its certificate; what a member or an external witness cosigned of the own.

    Where later checkpoints of a log are not attested any more, the one that was attested last stands apart (``attested``).

    Also the heartbeat that shows the largest incarnation of a log's owner, which stands there in place of a size; and what this node
    says of a record that it refuses (``refused``), under the smallest size that covers it. Of all but certificates only the largest
    is kept.
    """

    space: Literal["checkpoint", "attested", "certificate", "cosigned", "outside", "heartbeat", "refused"]
    origin: str
    size: int
    note: bytes
    member: str = ""
    """Who cosigned; of external witnesses (``outside``), the name in the node's configuration."""

    @property
    def place(self) -> str:
        """Under what it is kept."""
        return f"{self.space} {self.member}".rstrip()


class SetMeta(msgspec.Struct, frozen=True):
    """A small durable fact of this node: incarnation, clock high-water, how far was published."""

    key: str
    value: int


Persist = Append | AppendHashes | SetHead | PutBody | PutBundle | PutLaw | PutOpenings | InsertOnce | Locate | PutNote | SetMeta


class NoteDraft(msgspec.Struct, frozen=True):
    """A line on a note before its signature."""

    name: str
    """Key name of the line."""
    text: bytes
    """The note's text."""
    time_s: int | None
    """Cosignature time; ``None`` for a log's own plain signature."""

    @property
    def id(self) -> tuple[str, bytes]:
        """What the line is found by once it is signed."""
        return self.name, self.text


class Sign(msgspec.Struct, frozen=True):
    """Sign this with the key of that use."""

    use: KeyUse
    draft: Draft | NoteDraft


class Reply(msgspec.Struct, frozen=True):
    """To whoever waits under this number."""

    waiter: int


class Signed(msgspec.Struct, frozen=True):
    """What the signing phase made."""

    statements: Mapping[str, bytes]
    """Statement id to envelope."""
    lines: Mapping[tuple[str, bytes], Line]
    """(key name, note text) to signature line."""

    def statement(self, identity: str) -> bytes:
        """The envelope of the statement with that id."""
        return self.statements[identity]


class Send(msgspec.Struct, frozen=True):
    """Send what ``build`` makes of the signed things."""

    to: Reply | str
    """A waiter, or a subject."""
    build: Callable[[Signed], bytes]
    durable: bool = False
    """Also keep it in the subject's stream, retried until the stream has it."""


class Announce(msgspec.Struct, frozen=True):
    """Publish the records ``[first, size)`` of the node's own log, the last message carrying the signed checkpoint.

    The records are in storage by now; the shell reads them from there, so that a long log never stands in memory.
    """

    origin: str
    first: int
    size: int
    checkpoint: NoteDraft


class Ask(msgspec.Struct, frozen=True):
    """Pull the records of a log from ``first`` on from a member; the answer comes back as an event."""

    member: str
    origin: str
    first: int


class AskLaw(msgspec.Struct, frozen=True):
    """Pull statements of a governance stream from a member; the answer comes back as an event."""

    member: str
    stream: str
    after: Cursor


class Step(msgspec.Struct, Generic[S], frozen=True):
    """What a machine answers."""

    state: S
    effects: tuple["Effect", ...]


class Commit(msgspec.Struct, frozen=True):
    """Phase 1: make these durable in one transaction."""

    effects: tuple[Persist, ...]


class Sending(msgspec.Struct, frozen=True):
    """Phase 2: send these, in order."""

    messages: tuple[tuple["Outgoing", bytes], ...]
    """Each with its finished bytes: a message, an announced checkpoint's note, nothing for a pull."""


Outgoing = Send | Announce | Ask | AskLaw
Effect = Persist | Running | Sign | Outgoing
_SENT: Final = (Send, Announce, Ask, AskLaw)  # written `A | B | C` at the place of use it would be made anew for each effect


FAILPOINTS: Final = ("persist.before", "persist.after", "sign.after", "send.after")


def phases(
    step: Step[S],
    *,
    sign: Callable[[KeyUse, bytes], bytes],
    public: Mapping[KeyUse, str],
    failpoint: Callable[[str], None],
) -> Generator[Commit | Sending, None, S]:
    """The runner: yields what must be done in order, and returns the state to adopt.

    Args:
        step: what the machine answered.
        sign: signature (64 bytes) of a message with the key of a use.
        public: public keys (hex) of the uses.
        failpoint: called with each boundary's name as it is passed.

    The caller performs each yielded phase and then resumes. If performing it failed, the caller closes the generator,
    and nothing further happens.
    """
    signs: list[Sign] = []
    sends: list[Outgoing] = []
    persists: list[Persist] = []
    for effect in step.effects:
        if isinstance(effect, Sign):
            signs.append(effect)
        elif isinstance(effect, _SENT):
            sends.append(effect)
        elif not isinstance(effect, Running):  # the shell has asked that before it comes here
            persists.append(effect)
    failpoint("persist.before")
    if persists:
        yield Commit(tuple(persists))
    failpoint("persist.after")
    signed = _sign_all(signs, sign, public)
    failpoint("sign.after")
    if sends:
        yield Sending(tuple(_finish(item, signed) for item in sends))
    failpoint("send.after")
    return step.state


def _sign_all(signs: list[Sign], sign: Callable[[KeyUse, bytes], bytes], public: Mapping[KeyUse, str]) -> Signed:
    statements: dict[str, bytes] = {}
    lines: dict[tuple[str, bytes], Line] = {}
    for item in signs:
        draft, key = item.draft, public[item.use]
        if isinstance(draft, Draft):
            statements[draft.id] = assemble(draft.payload_type, draft.payload, {key: sign(item.use, draft.message)})
        elif draft.time_s is None:
            lines[draft.id] = log_line(draft.name, key, sign(item.use, draft.text))
        else:
            message = cosignature_message(draft.text, draft.time_s)
            lines[draft.id] = cosignature_line(draft.name, key, draft.time_s, sign(item.use, message))
    return Signed(statements, lines)


def _finish(item: Outgoing, signed: Signed) -> tuple[Outgoing, bytes]:
    if isinstance(item, Send):
        return item, item.build(signed)
    if isinstance(item, Announce):
        return item, Note(item.checkpoint.text, (signed.lines[item.checkpoint.id],)).encode()
    return item, b""
