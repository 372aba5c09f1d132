"""From what nodes answer to one proof bundle: the parts are put together here, and none of them is believed.

Not here: asking (the command line does), belief (:mod:`mesh.verify`).
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from mesh.core.bytes import envelope
from mesh.core.law.activation import Activation
from mesh.core.law.policy import bundle_digest
from mesh.core.log.bundle import ProofBundle, Proven, make_proof
from mesh.core.log.record import DecisionMade, Record, read_record
from mesh.core.messages import Proved
from mesh.errors import Refused
from mesh.protocol.serving import body_ids

__all__ = ["bodies_of", "by_id", "gather", "proven_of", "record_of"]


def by_id(bodies: Iterable[msgspec.Raw]) -> dict[str, bytes]:
    """Statement id to envelope. What cannot be read is under no id: whoever added it spoils nothing else."""
    found: dict[str, bytes] = {}
    for raw in bodies:
        with suppress(Refused):
            found[envelope.identify(bytes(raw))[1]] = bytes(raw)
    return found


def record_of(answer: Proved) -> Record:
    """The one record of a ``proved`` answer.

    Raises:
        Refused: ``malformed`` if it is not exactly one.
    """
    if len(answer.batch.records) != 1:
        raise Refused("malformed", f"{len(answer.batch.records)} records where one was asked for")
    return read_record(bytes(answer.batch.records[0]))


def bodies_of(answer: Proved) -> dict[str, bytes]:
    """Statement id to envelope, of what came with the record."""
    return by_id(answer.batch.bodies)


def proven_of(answer: Proved) -> Proven:
    """The record with its proof, and of what came with it exactly what it names, in its order.

    Raises:
        Refused: ``malformed``.
    """
    record, held = record_of(answer), bodies_of(answer)
    bodies = [msgspec.Raw(held[key]) for key in body_ids(record) if key in held]
    return Proven(record=answer.batch.records[0], proof=answer.proof, bodies=bodies)


def gather(
    main: Proved,
    outcomes: Iterable[Proved],
    *,
    manifests: Sequence[bytes],
    bundles: Sequence[bytes],
    activations: Sequence[bytes] = (),
    rosters: Sequence[bytes] = (),
) -> ProofBundle:
    """The proof of the record in ``main`` and of its outcomes.

    Args:
        main: the answer about the record.
        outcomes: the answers about what became of it.
        manifests: envelopes among which the one in force is looked for, if it is a decision.
        bundles: policy bundles, likewise.
        activations: envelopes among which are those of the domain up to the one that it names.
        rosters: envelopes of all rosters, epoch after epoch, if there is more than one.

    Raises:
        Refused: ``malformed``; ``not_found`` if what the decision names is not among those given.
    """
    record = record_of(main)
    others = [proven_of(outcome) for outcome in outcomes]
    if not isinstance(record, DecisionMade):
        return make_proof(proven_of(main), outcomes=others, rosters=rosters)
    return make_proof(
        proven_of(main),
        manifests=[_manifest(record, manifests)],
        bundles=[_bundle(record, bundles)],
        activations=_activations(record, activations),
        openings=[opening for item in main.batch.openings if item.intent == record.intent for opening in item.openings],
        boxes=[box for item in main.batch.openings if item.intent == record.intent for box in item.boxes],
        outcomes=others,
        rosters=rosters,
    )


def _manifest(record: DecisionMade, manifests: Sequence[bytes]) -> bytes:
    for data in manifests:
        if envelope.identify(data)[1] == record.attested.manifest:
            return data
    raise Refused("not_found", f"the manifest of policy epoch {record.attested.policy_epoch}")


def _activations(record: DecisionMade, activations: Sequence[bytes]) -> list[bytes]:
    held = {statement.id: statement for statement in (envelope.read(Activation, data) for data in activations)}
    chain, at = list[bytes](), record.attested.activation
    while at:
        if at not in held:
            raise Refused("not_found", f"the activation {at[:12]}…")
        chain.append(held[at].envelope)
        at = held[at].claims.previous
    return chain[::-1]


def _bundle(record: DecisionMade, bundles: Sequence[bytes]) -> bytes:
    for data in bundles:
        if bundle_digest(data) == record.decision.bundle:
            return data
    raise Refused("not_found", f"the policy bundle {record.decision.bundle[:20]}…")
