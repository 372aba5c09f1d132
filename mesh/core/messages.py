"""What travels around the statements: requests, answers and batches. Unsigned; everything that matters inside is signed.

Envelopes stand in these messages as JSON objects, not as strings in strings: a message is readable with any JSON tool. They
are cut out byte for byte (``Raw``) and then held to the one spelling by :mod:`mesh.core.bytes.envelope`.
"""

from typing import Annotated, TypeVar, cast

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, Hex32, Name, Payload, Text, Token
from mesh.core.law.heartbeat import Frontier, StreamName
from mesh.core.log.record import Origin
from mesh.core.run.intent import Digest
from mesh.core.run.kin import Parent
from mesh.core.run.params import Opening
from mesh.core.run.sealed import Box
from mesh.limits import (
    AFTER_MAX,
    APPROVALS_MAX,
    AUDIT_LOGS_MAX,
    BATCH_EVENTS_MAX,
    BATCH_RECORDS_MAX,
    MESSAGE_BYTES_MAX,
    NOTE_BYTES_MAX,
    PARAMS_MAX,
    PROOF_HASHES_MAX,
    SEALED_BOXES_MAX,
)

__all__ = [
    "Accusation",
    "Answer",
    "Asked",
    "Authorized",
    "BarrierAnswer",
    "BarrierAsked",
    "BundleAsked",
    "BundleGiven",
    "DeniedAnswer",
    "Find",
    "Found",
    "HeardAsked",
    "HeardGiven",
    "HeardRequest",
    "HeardWord",
    "IntentRequest",
    "LawAsked",
    "LawBatch",
    "Leaves",
    "LineageBatch",
    "Location",
    "MirrorStatus",
    "NodeStatus",
    "Offer",
    "Offered",
    "Openings",
    "OutcomeAnswer",
    "OutcomeRequest",
    "PolicyStatus",
    "Prove",
    "Proved",
    "Pull",
    "RefusedAnswer",
    "StatusAsked",
    "Supply",
    "Sync",
    "SyncAnswer",
    "pack",
    "unpack",
    "unpack_answer",
    "unpack_asked",
]

T = TypeVar("T")
Raw = msgspec.Raw
_Note = Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]


class IntentRequest(Payload):
    """A workload's request to a governor."""

    intent: Raw
    """Envelope of the intent."""
    identity: Raw
    """Envelope of the workload's identity document."""
    enforcer: Raw
    """Envelope of the enforcer's identity document."""
    openings: Annotated[list[Opening], msgspec.Meta(max_length=PARAMS_MAX)]
    """Of those committed parameters that are not sealed: of these a governor sees the boxes only."""
    boxes: Annotated[list[Box], msgspec.Meta(max_length=SEALED_BOXES_MAX)]
    """Those that the intent names, sorted by parameter and auditor."""
    approvals: Annotated[list[Raw], msgspec.Meta(max_length=APPROVALS_MAX)]
    """Envelopes of approvals and break-glass grants."""
    parents: Annotated[list[Parent], msgspec.Meta(max_length=1 + AFTER_MAX)]
    """The papers of the executions that the intent names, in its order: first that within which it runs, then those that it follows."""


class Authorized(Payload, tag_field="answer", tag="authorized"):
    """Yes."""

    authorization: Raw
    frontier: Frontier
    """The frontier whose digest the authorization names."""


class DeniedAnswer(Payload, tag_field="answer", tag="denied"):
    """A signed no."""

    denial: Raw


class RefusedAnswer(Payload, tag_field="answer", tag="refused"):
    """An unsigned no, to what was not authenticated or could not be taken."""

    code: Name
    detail: Text


Answer = Authorized | DeniedAnswer | RefusedAnswer


class OutcomeRequest(Payload):
    """An enforcer's outcomes, oldest first, with its identity document."""

    identity: Raw
    outcomes: Annotated[list[Raw], msgspec.Meta(min_length=1, max_length=BATCH_RECORDS_MAX)]


class HeardRequest(Payload):
    """What an enforcer has heard, with its identity document: sent where outcomes are, and answered with one receipt."""

    heard: Raw
    identity: Raw


class OutcomeAnswer(Payload, tag_field="answer", tag="receipts"):
    """One receipt per outcome, in order; one for a word on what was heard."""

    receipts: Annotated[list[Raw], msgspec.Meta(max_length=BATCH_RECORDS_MAX)]


class Openings(Payload):
    """What opens the committed parameters of one intent, in the clear or sealed for auditors: kept as one, and erased as one."""

    intent: Hex32
    openings: Annotated[list[Opening], msgspec.Meta(max_length=PARAMS_MAX)]
    boxes: Annotated[list[Box], msgspec.Meta(max_length=SEALED_BOXES_MAX)]


class LineageBatch(Payload):
    """Consecutive records of one log with the statements they are about."""

    origin: Origin
    first: Count
    """Index of the first record."""
    records: Annotated[list[Raw], msgspec.Meta(max_length=BATCH_RECORDS_MAX)]
    bodies: Annotated[list[Raw], msgspec.Meta(max_length=8 * BATCH_RECORDS_MAX)]
    """Envelopes, each once."""
    pruned: Annotated[list[Hex32], msgspec.Meta(max_length=BATCH_RECORDS_MAX)]
    """In an answer to a pull instead of records: their leaf hashes, where who answers holds no more of them."""
    openings: Annotated[list[Openings], msgspec.Meta(max_length=BATCH_RECORDS_MAX)]
    """Only in answers to a pull: what is published is kept by streams and could not be erased."""
    checkpoint: _Note
    """The owner's signed note over at least these records, if there is one yet; else empty."""
    path: Annotated[list[Hex32], msgspec.Meta(max_length=PROOF_HASHES_MAX)]
    """In an answer to a pull with a certificate: the consistency path (RFC 9162, 2.1.4) from where the batch ends to that; else empty."""
    start: Annotated[list[Hex32], msgspec.Meta(max_length=PROOF_HASHES_MAX + 1)]
    """The same from where the batch begins, behind the root there, for whoever holds another history; else empty."""


class Accusation(Payload):
    """A member's refusal to attest a record, and what shows that this record is its owner's; said again until its owner is caught."""

    note: _Note
    """A checkpoint signed by the log, over the record; empty where no proof is to come of it: something is missing, or it is final."""
    path: Annotated[list[Hex32], msgspec.Meta(max_length=PROOF_HASHES_MAX)]
    """The inclusion path (RFC 9162, 2.1.3) from the record to that."""
    refusal: Raw
    """Envelope of the refusal."""


class Sync(Payload, tag_field="ask", tag="sync"):
    """Sign me a heartbeat that names my boot nonce."""

    nonce: Hex32


class BarrierAsked(Payload, tag_field="ask", tag="barrier"):
    """I start: tell me, signed, what you know that I have signed."""

    asker: Token
    nonce: Hex32
    """Of its boot."""


class Pull(Payload, tag_field="ask", tag="pull"):
    """Give me records of a log from ``first`` on, as many as fit."""

    origin: Origin
    first: Count
    count: Count


class Leaves(Payload, tag_field="ask", tag="leaves"):
    """Give me records of a log from ``first`` on, as many as fit, without any statement beside them and without a note.

    For whoever searches or counts: of most records it wants nothing else, and the answer costs a fifth.
    """

    origin: Origin
    first: Count
    count: Count


class Find(Payload, tag_field="ask", tag="find"):
    """Which records are about an id that begins so: an intent, authorization or outcome; an empty prefix asks for the newest."""

    prefix: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,64}$(?!\\n)", max_length=64)]
    count: Count


class Prove(Payload, tag_field="ask", tag="prove"):
    """Prove the record at ``index``."""

    origin: Origin
    index: Count


class Offer(Payload, tag_field="ask", tag="offer"):
    """Take these governance statements, and tell me when they are held."""

    statements: Annotated[list[Raw], msgspec.Meta(min_length=1, max_length=BATCH_EVENTS_MAX)]


class LawAsked(Payload, tag_field="ask", tag="law"):
    """Give me statements of a governance stream, in the order (number, id), as many as fit."""

    stream: StreamName
    sequence: Count
    id: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    """Only what comes after (sequence, id); an empty id is before all of its number."""


class BundleAsked(Payload, tag_field="ask", tag="bundle"):
    """Give me the policy bundle of this digest."""

    digest: Digest


class Supply(Payload, tag_field="ask", tag="supply"):
    """Here is a policy bundle that a manifest names which you hold. Answered like an offer, under the bundle's digest."""

    bundle: Raw


class HeardAsked(Payload, tag_field="ask", tag="heard"):
    """Give me the newest word of each enforcer on what it has heard, in the order of their keys, as many as fit."""

    after: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    """Only of keys behind this one."""


class StatusAsked(Payload, tag_field="ask", tag="status"):
    """How are you."""


class Offered(Payload, tag_field="answer", tag="offered"):
    """What became of each statement offered, by its id: an empty code says that it is held durably."""

    results: dict[Text, Text]


class BundleGiven(Payload, tag_field="answer", tag="bundle"):
    """The bundle that was asked for. Its digest says that it is."""

    bundle: Raw


class LawBatch(Payload, tag_field="answer", tag="law"):
    """Governance statements: an answer, or published as they were taken in."""

    statements: Annotated[list[Raw], msgspec.Meta(max_length=BATCH_RECORDS_MAX)]


class HeardWord(Payload):
    """One enforcer's newest word that is in any log."""

    heard: Raw
    identity: Raw
    """Envelope of its identity document."""
    origin: Origin
    """In which log it is recorded."""
    index: Count


class HeardGiven(Payload, tag_field="answer", tag="heard"):
    """What was asked for."""

    words: Annotated[list[HeardWord], msgspec.Meta(max_length=BATCH_RECORDS_MAX)]
    after: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    """Ask again behind this key; empty if that is all."""


class SyncAnswer(Payload, tag_field="answer", tag="sync"):
    """One heartbeat."""

    heartbeat: Raw


class BarrierAnswer(Payload, tag_field="answer", tag="barrier"):
    """What the asker has signed, as far as the answerer knows."""

    barrier: Raw
    """Envelope of the answer."""
    heartbeat: Annotated[list[Raw], msgspec.Meta(max_length=1)]
    """Envelope of the asker's heartbeat that shows the incarnation; none if none was heard."""
    certificates: Annotated[list[_Note], msgspec.Meta(max_length=AUDIT_LOGS_MAX)]
    """The newest of each log that the answerer holds, as many as fit: what the asker must hold before its word counts."""


class Location(Payload):
    """Where a record about the id stands."""

    id: Hex32
    origin: Origin
    index: Count


class Found(Payload, tag_field="answer", tag="found"):
    """Newest first."""

    records: list[Location]


class Proved(Payload, tag_field="answer", tag="proved"):
    """A record with its C2SP tlog-proof; ``proof`` is empty while the record is not final."""

    batch: LineageBatch
    """The one record, with bodies and openings."""
    proof: _Note


class MirrorStatus(Payload):
    """How far a node holds another member's log."""

    origin: Origin
    size: Count
    """Records stored."""
    witnessed: Count
    attested: Count
    certified: Count
    refused: bool
    """Whether it refuses to attest a record of it."""
    conflicted: bool
    """Whether two histories of it were seen."""


class PolicyStatus(Payload):
    """How a node stands to the policy of a domain."""

    domain: Token
    active: Count
    """The epoch by which it decides now; 0 if none."""
    admitted: Count
    """The newest that it has checked and could decide by."""
    held: Count
    """The newest of which it has the manifest."""
    digest: Text
    """Of the active one's bundle; empty if there is none."""
    code: Text
    """Why the newest held is not admitted, or why none is active; empty if all is well or under way."""


class NodeStatus(Payload, tag_field="answer", tag="status"):
    """How a node is, in its own unsigned words."""

    node: Token
    region: Token
    incarnation: Count
    roster_epoch: Count
    frontier: Hex32
    policies: list[PolicyStatus]
    halted: list[Token]
    """Domains in which a halt is in force."""
    conflicts: Count
    """Streams that have forked, and that the root has not resolved."""
    frozen: list[Token]
    """Members against a key of whom it holds a proof, sorted."""
    origin: Origin
    size: Count
    """Records in its own log."""
    certified: Count
    mirrors: list[MirrorStatus]
    fresh: bool
    code: Text
    """Why it is not fresh; empty if it is."""
    vouchers: list[Token]
    now_ms: Count
    uptime_ms: Count
    counters: dict[Text, Count]


Asked = Sync | Pull | Leaves | Find | Prove | StatusAsked | Offer | LawAsked | BundleAsked | Supply | BarrierAsked | HeardAsked
"""What may be asked on a ``sync`` subject."""


def pack(message: Payload) -> bytes:
    """The message's bytes."""
    return canonical.encode(message)


def unpack_asked(data: bytes) -> Asked:
    """Read a question.

    Raises:
        Refused: the codec's codes.
    """
    kind = cast("type[Asked]", Asked)  # a union is a type here
    return canonical.decode(kind, data, bytes_max=MESSAGE_BYTES_MAX)


def unpack_answer(data: bytes) -> Answer:
    """Read a governor's answer to an intent.

    Raises:
        Refused: the codec's codes.
    """
    kind = cast("type[Answer]", Answer)
    return canonical.decode(kind, data, bytes_max=MESSAGE_BYTES_MAX)


def unpack(kind: type[T], data: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> T:
    """Read a message.

    Raises:
        Refused: the codec's codes.
    """
    return canonical.decode(kind, data, bytes_max=bytes_max)
