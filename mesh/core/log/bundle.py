"""A proof bundle is one file that shows what happened and by what right, to somebody who holds nothing but a roster.

Rules
-----
1. It has one spelling. What it carries stands in it as JSON, not as strings in strings, cut out byte for byte: anybody can read
   it with any JSON tool, and every part is still held to its own one spelling.
2. Nothing in it lies outside of what is checked (:mod:`mesh.verify`): an unread byte could be read by somebody as a promise.
3. The proofs are C2SP tlog-proofs with certificates, so any C2SP verifier can check inclusion and signatures without us.
4. Openings of committed parameters may be left out: what remains is still provable, and says what could not be repeated.
5. It is judged by one roster, whichever of them its reader trusts: the others come with it.

Not here: belief (:mod:`mesh.verify`), collecting the parts from nodes (``mesh prove``).
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.core.log.record import read_record
from mesh.core.run.params import Opening
from mesh.core.run.sealed import Box
from mesh.limits import (
    ACTIVATIONS_MAX,
    LIST_ITEMS_MAX,
    PARAMS_MAX,
    PROOF_BUNDLE_BYTES_MAX,
    PROOF_ROSTERS_MAX,
    SEALED_BOXES_MAX,
    TLOG_PROOF_BYTES_MAX,
)

__all__ = ["FORMAT", "ProofBundle", "Proven", "encode_proof", "make_proof", "read_proof"]

FORMAT: Final = "govmesh/proof-bundle/v1"
Raw = msgspec.Raw
_Bodies = Annotated[list[Raw], msgspec.Meta(max_length=3)]
_Proof = Annotated[str, msgspec.Meta(max_length=TLOG_PROOF_BYTES_MAX)]


class Proven(Payload):
    """A record, its place in a log, and the statements it names."""

    record: Raw
    """Leaf data."""
    proof: _Proof
    """A tlog-proof without an extra line; empty if nobody has signed a tree with this record in it."""
    bodies: _Bodies
    """Envelopes of exactly the statements that the record names, in its order."""


class ProofBundle(Payload):
    """A record with its proof and all that a repetition of it needs; and what became of it."""

    format: Literal["govmesh/proof-bundle/v1"]
    record: Raw
    proof: _Proof
    bodies: _Bodies
    manifests: Annotated[list[Raw], msgspec.Meta(max_length=1)]
    """For a decision, the envelope of the manifest that was in force."""
    bundles: Annotated[list[Raw], msgspec.Meta(max_length=1)]
    """For a decision, the policy bundle that the manifest names."""
    activations: Annotated[list[Raw], msgspec.Meta(max_length=ACTIVATIONS_MAX)]
    """For a decision, the envelopes of its domain's activations, from the first to the one that it names."""
    openings: Annotated[list[Opening], msgspec.Meta(max_length=PARAMS_MAX)]
    """Of the intent's committed parameters, sorted by name; empty once they are erased."""
    boxes: Annotated[list[Box], msgspec.Meta(max_length=SEALED_BOXES_MAX)]
    """Of its sealed parameters, sorted by parameter and auditor; empty once they are erased. The proof's holder need not open them."""
    outcomes: Annotated[list[Proven], msgspec.Meta(max_length=LIST_ITEMS_MAX)]
    """For a permit, records of what was started and how it ended, sorted by origin and index."""
    rosters: Annotated[list[Raw], msgspec.Meta(max_length=PROOF_ROSTERS_MAX)]
    """Envelopes of rosters, epoch after epoch: with the trusted one, all from the first to the last. Empty while there is only one."""

    @property
    def proven(self) -> Proven:
        """The record that it is about, in the form that its outcomes have."""
        return Proven(record=self.record, proof=self.proof, bodies=self.bodies)


def make_proof(
    proven: Proven,
    *,
    manifests: Iterable[bytes] = (),
    bundles: Iterable[bytes] = (),
    activations: Iterable[bytes] = (),
    openings: Iterable[Opening] = (),
    boxes: Iterable[Box] = (),
    outcomes: Iterable[Proven] = (),
    rosters: Iterable[bytes] = (),
) -> ProofBundle:
    """The bundle of these parts, in the one order.

    Raises:
        Refused: the codec's codes, for a part that is not what it should be.
    """

    def place(item: Proven) -> tuple[str, int]:
        record = read_record(bytes(item.record))
        return record.origin, record.index

    return ProofBundle(
        format=FORMAT,
        record=proven.record,
        proof=proven.proof,
        bodies=proven.bodies,
        manifests=[Raw(data) for data in manifests],
        bundles=[Raw(data) for data in bundles],
        activations=[Raw(data) for data in activations],
        openings=sorted(openings, key=lambda opening: opening.name),
        boxes=sorted(boxes, key=lambda box: (box.name, box.auditor)),
        outcomes=sorted(outcomes, key=place),
        rosters=[Raw(data) for data in rosters],
    )


def encode_proof(bundle: ProofBundle) -> bytes:
    """The file's bytes."""
    return canonical.encode(bundle)


def read_proof(data: bytes) -> ProofBundle:
    """Read a file. Nothing in it is believed, and its parts are not yet read.

    Raises:
        Refused: the codec's codes.
    """
    return canonical.decode(ProofBundle, data, bytes_max=PROOF_BUNDLE_BYTES_MAX)
