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

__all__ = [
    "FAILPOINTS",
    "Append",
    "Commit",
    "Head",
    "HeadUse",
    "InsertOnce",
    "KeyUse",
    "Locate",
    "NoteDraft",
    "Persist",
    "PutBody",
    "PutNote",
    "PutOpenings",
    "Reply",
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
    index: int


class Locate(msgspec.Struct, frozen=True):
    """That a record is about a statement id."""

    id: str
    origin: str
    index: int


class PutNote(msgspec.Struct, frozen=True):
    """A signed note about a log at a size: its checkpoint, or its certificate."""

    space: Literal["checkpoint", "certificate"]
    origin: str
    size: int
    note: bytes


class SetMeta(msgspec.Struct, frozen=True):
    """A small durable fact of this node: incarnation, clock high-water, how far was published."""

    key: str
    value: int


Persist = Append | SetHead | PutBody | PutOpenings | InsertOnce | Locate | PutNote | SetMeta


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


class Send(msgspec.Struct, frozen=True):
    """Send what ``build`` makes of the signed things: statement id to envelope, or (name, text) to note line."""

    to: Reply | str
    """A waiter, or a subject."""
    build: Callable[["Signed"], bytes]
    durable: bool = False
    """Also keep it in the subject's stream, retried until the stream has it."""


Signed = Mapping[str | tuple[str, bytes], bytes]


class Step(msgspec.Struct, Generic[S], frozen=True):
    """What a machine answers."""

    state: S
    effects: tuple[Persist | Sign | Send, ...]


class Commit(msgspec.Struct, frozen=True):
    """Phase 1: make these durable in one transaction."""

    effects: tuple[Persist, ...]


class Sending(msgspec.Struct, frozen=True):
    """Phase 2: send these, in order."""

    messages: tuple[tuple[Send, bytes], ...]


FAILPOINTS: Final = ("persist.before", "persist.after", "sign.after", "send.after")


def phases(
    step: Step[S],
    *,
    sign: Callable[[KeyUse, bytes], bytes],
    public: Mapping[KeyUse, str],
    line: Callable[[NoteDraft, KeyUse], bytes],
    failpoint: Callable[[str], None],
) -> Generator[Commit | Sending, None, S]:
    """The runner: yields what must be done in order, and returns the state to adopt.

    Args:
        step: what the machine answered.
        sign: signature (64 bytes) of a message with the key of a use.
        public: public keys (hex) of the uses.
        line: the signed line of a note draft.
        failpoint: called with each boundary's name as it is passed.

    The caller performs each yielded phase and then resumes. If performing it failed, the caller closes the generator,
    and nothing further happens.
    """
    persists: list[Persist] = []
    signs: list[Sign] = []
    sends: list[Send] = []
    for effect in step.effects:
        if isinstance(effect, Sign):
            signs.append(effect)
        elif isinstance(effect, Send):
            sends.append(effect)
        else:
            persists.append(effect)
    failpoint("persist.before")
    if persists:
        yield Commit(tuple(persists))
    failpoint("persist.after")
    signed: dict[str | tuple[str, bytes], bytes] = {}
    for item in signs:
        draft = item.draft
        if isinstance(draft, NoteDraft):
            signed[draft.id] = line(draft, item.use)
        else:
            signed[draft.id] = assemble(draft.payload_type, draft.payload, {public[item.use]: sign(item.use, draft.message)})
    failpoint("sign.after")
    if sends:
        yield Sending(tuple((send, send.build(signed)) for send in sends))
    failpoint("send.after")
    return step.state
