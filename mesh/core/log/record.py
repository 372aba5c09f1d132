"""A record is one line of a node's history; its canonical bytes are the leaf data of the node's Merkle log.

A record is not signed by itself: the checkpoint that covers it is its signature. It names its own log and index, so it
cannot stand anywhere else. Statements it is about (intents, identity documents, outcomes) are named by statement id and
kept beside the log once per node; the id is a hash over what they say.
"""

from typing import Annotated, Literal

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, Hex32, Millis, Name, Payload, Text, Token
from mesh.core.bytes.envelope import statement
from mesh.core.run.decision import Attested, Decision
from mesh.core.run.kin import Parent
from mesh.core.run.outcome import EventName
from mesh.errors import Refused
from mesh.limits import AFTER_MAX, APPROVALS_MAX, COSIGNED_HEADS_MAX, RECORD_BYTES_MAX

__all__ = [
    "AttestRefused",
    "Change",
    "Cosigned",
    "CosignedHead",
    "DecisionMade",
    "Denied",
    "EnforcerHeard",
    "GovernanceChanged",
    "Incident",
    "Noise",
    "Origin",
    "OutcomeRecorded",
    "Record",
    "Refusal",
    "encode_record",
    "read_record",
]

Origin = Annotated[str, msgspec.Meta(min_length=1, max_length=160)]
_Authorization = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]


class _Record(Payload, tag_field="record"):
    mesh: Token
    origin: Origin
    index: Count
    at_ms: Millis
    """When it was recorded by the owner's clock; never decreases within a log."""


class DecisionMade(_Record, tag="decision"):
    """The engine answered for complete inputs: permit or deny, repeatable by anyone."""

    roster_epoch: Count
    intent: Hex32
    identity: Hex32
    enforcer: Hex32
    """Statement id of the enforcer's identity document."""
    attested: Attested
    decision: Decision
    engine: Text
    """The build that answered; the profile in the decision is what counts."""
    approvals: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=APPROVALS_MAX)]
    """Envelopes of the approvals and grants that counted, sorted by id. They stand here, not beside the record: how many people
    signed decides, and that is in no statement id."""
    parents: Annotated[list[Parent], msgspec.Meta(max_length=1 + AFTER_MAX)]
    """The papers of the executions that the intent names, in its order: first that within which it runs, then those that it follows."""
    authorization: _Authorization
    """Statement id of what was issued; empty if denied."""


class Denied(_Record, tag="denied"):
    """A no without a decision: authenticated, but something was missing, stale or over.

    The no needs no justification; who asked does, or anybody could be shown asking for anything.
    """

    intent: Hex32
    identity: Hex32
    """Statement id of the identity document that names who asked."""
    subject: Text
    code: Name
    detail: Text


class Noise(_Record, tag="noise"):
    """What was refused before anyone was authenticated, in aggregate: a flood must not become a flood of records."""

    code: Name
    count: Count
    from_ms: Millis
    to_ms: Millis


class OutcomeRecorded(_Record, tag="outcome"):
    """An enforcer's signed outcome was taken in."""

    event: EventName
    outcome: Hex32
    identity: Hex32
    """Statement id of the enforcer's identity document."""
    intent: Hex32
    authorization: Hex32


class EnforcerHeard(_Record, tag="heard"):
    """An enforcer's signed word on what governs it was taken in."""

    heard: Hex32
    identity: Hex32
    """Statement id of the enforcer's identity document."""
    subject: Text
    """Whom that document names."""


Change = Literal[
    "started",
    "stopped",
    "roster",
    "policy",
    "activation",
    "revocation",
    "halt",
    "resolve",
    "erase",
    "erased",
    "retain",
    "pruned",
    "fresh",
    "stale",
]


class GovernanceChanged(_Record, tag="governance"):
    """A transition of what this node is governed by, or of its own trust in it."""

    change: Change
    about: Text
    """Statement id, or a word on the cause."""


@statement("refusal", bytes_max=2_048)
class Refusal(Payload):
    """Signed by a member's decision key: why it will not attest a log beyond a record."""

    mesh: Token
    member: Token
    origin: Origin
    index: Count
    leaf: Hex32
    reason: Literal["missing", "wrong"]
    code: Name
    at_ms: Millis


class AttestRefused(_Record, tag="attest_refused"):
    """This node refused to attest another's record. The refusal was also sent as a signed statement."""

    refusal: Refusal


class Incident(_Record, tag="incident"):
    """Something that must not happen was seen."""

    code: Name
    detail: Text


class CosignedHead(Payload):
    """A tree of another's log that this node's witness key has signed."""

    origin: Origin
    root: Hex32
    size: Count
    time_s: Count
    """Of the cosignature, POSIX seconds."""


class Cosigned(_Record, tag="cosigned"):
    """What this node has cosigned of other logs since the last record of this kind: each log's history stands in many.

    Whoever rewrote a log, with as many keys as it takes, would have to rewrite every log that names its tree, too.
    """

    heads: Annotated[list[CosignedHead], msgspec.Meta(min_length=1, max_length=COSIGNED_HEADS_MAX)]
    """The newest of each log, sorted by origin, each once; never its own."""


Record = DecisionMade | Denied | Noise | OutcomeRecorded | EnforcerHeard | GovernanceChanged | AttestRefused | Incident | Cosigned


def encode_record(record: Record) -> bytes:
    """The record's leaf data.

    Raises:
        Refused: ``too_large``: nobody could read it back.
    """
    data = canonical.encode(record)
    if len(data) > RECORD_BYTES_MAX:
        raise Refused("too_large", f"a record of {len(data)} bytes, at most {RECORD_BYTES_MAX}")
    return data


def read_record(data: bytes) -> Record:
    """Parse leaf data.

    Raises:
        Refused: the codec's codes.
    """
    return canonical.decode(Record, data, bytes_max=RECORD_BYTES_MAX)  # type: ignore[arg-type]  # a union is a type here
