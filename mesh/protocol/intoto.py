"""What happened, as an in-toto Statement: for tools that collect attestations and know nothing of a mesh.

Source: github.com/in-toto/attestation, spec v1. The envelope is DSSE, as for everything here.

Rules
-----
1. The subject is what was executed: each measurement of the intent under its name, its digest under in-toto's name for the algorithm
   (``sha256``) or, as in-toto allows, under the algorithm's own (``blake3``). Where nothing was measured, or nothing shows that it
   began, it is the intent itself, named by its statement id: SHA-256 over its PAE.
2. The predicate says what was decided and by what right, and how it ended; and which proof bundle shows it. It holds no parameter: the
   bundle does, as far as they are public.
3. Whoever signs says that they have judged that bundle, with this verdict, by this roster. The authority is not theirs: it is in what the
   bundle holds. A consumer who wants it judges the bundle.

Not here: judging (:mod:`mesh.verify`), keys (the caller hands in signatures), decision 27 for why it is signed at all.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Count, Hex32, Integer, Millis, Name, Payload, Spiffe, Text, Token, sha256_hex
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.policy import Manifest
from mesh.core.log.bundle import ProofBundle, encode_proof
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.authorization import RecordRef
from mesh.core.run.decision import Decision
from mesh.core.run.intent import Digest, EntityRef, Intent, Measurement
from mesh.core.run.outcome import EventName, Failed, Finished, Outcome, event_name
from mesh.errors import Refused
from mesh.limits import LIST_ITEMS_MAX, MEASUREMENTS_MAX, NOTE_BYTES_MAX

__all__ = ["PAYLOAD_TYPE", "PREDICATE_TYPE", "Execution", "InTotoStatement", "Judged", "attest", "statement_of"]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
PREDICATE_TYPE: Final = "urn:govmesh:attestation:execution:v1"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_RAN: Final = frozenset[EventName]({"started", "finished", "failed", "aborted"})
"""What enforcers say only of what they have begun."""
_BUNDLE: Final = "application/vnd.govmesh.proof-bundle.v1+json"


class Judged(Payload):
    """What whoever signs says of the proof."""

    verdict: Literal["VERIFIED", "PARTIAL"]
    """As `mesh verify` says it."""
    roster: Hex32
    """Statement id of the roster under which the record is final."""
    roster_epoch: Count


class PolicyRef(Payload):
    """By which policy."""

    epoch: Count
    manifest: Hex32
    """Statement id."""
    bundle: Digest


class Ended(Payload):
    """One outcome, as its enforcer signed it."""

    event: EventName
    outcome: Hex32
    """Statement id."""
    at_ms: Millis
    status: Annotated[list[Integer], msgspec.Meta(max_length=1)]
    """Of what ended by itself or with an error of its own."""
    outputs: Annotated[list[Measurement], msgspec.Meta(max_length=MEASUREMENTS_MAX)]
    record: RecordRef


class Descriptor(Payload):
    """A ResourceDescriptor of in-toto, as far as it is used here."""

    name: Text
    digest: dict[Name, Text]
    mediaType: Text  # noqa: N815 -- in-toto's own spelling


class Execution(Payload):
    """The predicate: a decision of a mesh, and what became of it."""

    mesh: Token
    domain: Token
    action: Name
    resource: EntityRef
    subject: Spiffe
    """Who asked."""
    intent: Hex32
    """Statement id of what they asked for."""
    decision: Decision
    policy: PolicyRef
    authorization: Text
    """Statement id of what was issued; empty if denied."""
    decided_ms: Millis
    record: RecordRef
    """Where the decision stands."""
    certificate: Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]
    """The signed checkpoint that makes it final: a C2SP note with the lines of k members."""
    outcomes: Annotated[list[Ended], msgspec.Meta(max_length=LIST_ITEMS_MAX)]
    judged: Judged
    proof: Descriptor
    """The proof bundle that shows all this to whoever trusts the mesh's roster."""


class _Subject(Payload):
    name: Text
    digest: dict[Name, Text]


class InTotoStatement(Payload):
    """An in-toto Statement v1 with that predicate."""

    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    predicate: Execution
    predicateType: Literal["urn:govmesh:attestation:execution:v1"]  # noqa: N815 -- in-toto's own spelling
    subject: Annotated[list[_Subject], msgspec.Meta(min_length=1, max_length=MEASUREMENTS_MAX)]


def statement_of(bundle: ProofBundle, judged: Judged) -> InTotoStatement:
    """The statement about the decision in ``bundle``, of which the caller has judged ``judged``.

    Raises:
        Refused: ``not_found`` for a proof of anything else; the codec's codes.
    """
    record = read_record(bytes(bundle.record))
    if not isinstance(record, DecisionMade):
        raise Refused("not_found", f"no decision: {record.__struct_config__.tag} {record.index} of {record.origin}")
    intent = envelope.read(Intent, bytes(bundle.bodies[0]))
    manifest = envelope.read(Manifest, bytes(bundle.manifests[0]))
    claims = intent.claims
    execution = Execution(
        mesh=record.mesh,
        domain=claims.domain,
        action=claims.action,
        resource=claims.resource,
        subject=claims.subject,
        intent=intent.id,
        decision=record.decision,
        policy=PolicyRef(epoch=manifest.claims.epoch, manifest=manifest.id, bundle=record.decision.bundle),
        authorization=record.authorization,
        decided_ms=record.at_ms,
        record=_place(bytes(bundle.record)),
        certificate=TlogProof.parse(bundle.proof.encode()).note.decode(),
        outcomes=[_ended(bytes(one.record), bytes(one.bodies[0])) for one in bundle.outcomes],
        judged=judged,
        proof=Descriptor(name="proof.json", digest={"sha256": sha256_hex(encode_proof(bundle))}, mediaType=_BUNDLE),
    )
    return InTotoStatement(
        type=_STATEMENT, predicate=execution, predicateType=PREDICATE_TYPE, subject=_subjects(claims, intent.id, execution.outcomes)
    )


def attest(statement: InTotoStatement, key: SecretKey) -> bytes:
    """The envelope, signed: DSSE with in-toto's payload type."""
    payload = canonical.encode(statement)
    return envelope.assemble(PAYLOAD_TYPE, payload, {key.public: key.sign(envelope.pae(PAYLOAD_TYPE, payload))})


def _subjects(intent: Intent, name: str, outcomes: Sequence[Ended]) -> list[_Subject]:
    """Rule 1."""
    if not intent.measurements or not any(outcome.event in _RAN for outcome in outcomes):
        return [_Subject(name="intent", digest={"sha256": name})]
    return [_Subject(name=item.name, digest=dict([item.digest.split(":", 1)])) for item in intent.measurements]


def _place(leaf: bytes) -> RecordRef:
    record = read_record(leaf)
    return RecordRef(origin=record.origin, index=record.index, leaf=leaf_hash(leaf).hex())


def _ended(leaf: bytes, body: bytes) -> Ended:
    outcome = envelope.read(Outcome, body)
    event = outcome.claims.event
    return Ended(
        event=event_name(event),
        outcome=outcome.id,
        at_ms=outcome.claims.at_ms,
        status=[event.status] if isinstance(event, Finished | Failed) else [],
        outputs=event.outputs if isinstance(event, Finished | Failed) else [],
        record=_place(leaf),
    )
