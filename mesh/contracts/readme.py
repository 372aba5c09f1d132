"""The pages beside the contracts: what no schema can say.

Not here: the contracts.
"""

from collections.abc import Iterable
from typing import Final

from mesh.contracts.refusals import Case

__all__ = ["PROCEDURES", "schemas_readme", "vectors_readme"]

PROCEDURES: Final = {
    "read": "Read `envelope` (base64) as a statement of `kind`. No signature is checked.",
    "verify": "As `read`, which succeeds; then ask whether `key` (hex) signed it.",
    "threshold": "As `read`, which succeeds; then ask whether `threshold` distinct keys of `keys` signed it.",
    "admit_key": "Take `key` into a roster or an identity document.",
    "open": "Open the `committed` parameters (name to commitment) with `openings`.",
    "unseal": "Open the box of `name` in `boxes` with the X25519 secret key `seed`, by an intent's `sealed`, `committed` and `holder`.",
    "record": "Read `record` (base64) as leaf data.",
    "inclusion": "Check that `leaf` (base64, leaf data) is at `index` of the tree of `size` with `root`, by `path` (hex).",
    "consistency": "Check that the tree of `old_size` with `old_root` is a prefix of that of `new_size` with `new_root`, by `path`.",
    "checkpoint": "Open `note` (base64) as a checkpoint of the log in `log/keys.json`.",
    "certificate": "Judge `note` (base64) as a certificate by the log, the attest keys and k of `log/keys.json`.",
    "tlog-proof": "Judge `proof` (base64) as a proof of `record` (base64), by the same keys.",
}
"""Procedure of a refused vector to what it does."""

_SCHEMAS: Final = """\
# schemas/v1: the contracts

Rendered by `make schemas` from the code that enforces them; a test renders them again and compares. Nothing is edited here.

| path | what it is |
|---|---|
| [statement/](statement) | what is signed, one JSON Schema per kind |
| [envelope.schema.json](envelope.schema.json) | how it travels: DSSE |
| [record/](record), [record.schema.json](record.schema.json) | what a log holds, one per type, and any of them |
| [message/](message) | what goes over the bus around them |
| [asyncapi.yaml](asyncapi.yaml) | who sends which of these on which subject |
| [policy-bundle.schema.json](policy-bundle.schema.json) | all that decides in one domain |
| [cedar/](cedar) | the types that policy sees, as they are generated for a domain |
| [certificate.schema.json](certificate.schema.json) | what makes records final |
| [advance.schema.json](advance.schema.json) | a line of `mesh lineage tail -o jsonl`: records of a log came to a state |
| [proof-bundle.schema.json](proof-bundle.schema.json) | one file that shows what happened to anybody |
| [conflict.schema.json](conflict.schema.json) | one file that shows anybody that a stream has forked, and by whom |
| [in-toto/execution.schema.json](in-toto/execution.schema.json) | the predicate of what `mesh prove --format in-toto` writes |
| [codes.json](codes.json) | every reason to say no |
| [vectors/](vectors) | examples to the byte, and what must be refused |

## What no schema can say

**One spelling.** Signed and hashed JSON is RFC 8785 (JCS) without floats and nulls: object members sorted, no spaces, no escape
that need not be, integers within ±(2^53 − 1). Read it, write it again, compare; refuse it if a byte differs. `description`s and
bounds stand in the schemas, but a document that fits its schema and is spelled otherwise is refused.

**Identity.** The id of a statement is SHA-256 over its PAE, in lowercase hex:

```
PAE = "DSSEv1" SP len(payloadType) SP payloadType SP len(payload) SP payload
```

Lengths are decimal numbers of bytes. Signatures are Ed25519 over the same PAE, so they are no part of the identity. Each kind's
`payloadType` is `application/vnd.govmesh.<kind>.v1+json`.

**Keys.** `keyid` is the public key. Refuse keys that are no point, not canonical or of small order; verify strictly (S below the
group order). Count distinct keys, never entries.

**Records.** Leaf data is a record's canonical JSON, at most 65,535 bytes. Trees are RFC 6962: a leaf is SHA-256(0x00 ‖ data), a
branch SHA-256(0x01 ‖ left ‖ right). Checkpoints, cosignatures and proofs are C2SP's: signed-note, tlog-checkpoint,
tlog-cosignature, tlog-proof, tlog-witness.

**Digests.** SHA-256 over canonical JSON for parameters, commitments, effects, frontiers, inputs and decisions; `blake3:<hex>` over the
bytes of policy bundles and of what runs. [vectors/digests.json](vectors/digests.json) shows each.

**Sealed boxes.** libsodium's `crypto_box_seal` (X25519, XSalsa20-Poly1305) over the 32 bytes of the intent's holder key, a
canonical opening, one byte 0x80 and zeros up to a multiple of 256 bytes. A seal names SHA-256 of the box.
[vectors/sealed.json](vectors/sealed.json) shows one from end to end.

**Limits.** `x-bytes-max` is the largest payload or message. Measure before parsing.
"""

_VECTORS: Final = """\
# Vectors

One small world: four governors, one policy domain, one payment that ran and one that was denied. All files fit together: the
authorization is of the intent, the record names both, the proof is of that record.

**The keys in [keys.json](keys.json) are public. Never use them.** Their seeds are SHA-256 of a name.

| path | what must come out |
|---|---|
| statement/*.json | from `payload` the `pae` (base64) and the `id`; with the seeds of `signers` the `envelope`, byte for byte |
| message/*.json | the message itself, without a final newline: read it, write it again, compare |
| [digests.json](digests.json) | commitments, parameter, effect, frontier, input and decision digests |
| [sealed.json](sealed.json) | what a sealed box holds, and that it opens; message/IntentRequest-sealed.json carries it |
| [log/records.ndjson](log/records.ndjson) | one record per line, every type; the newline is not part of it |
| [log/tree.json](log/tree.json) | leaf hashes, the root of every size, the path of every record, the way from every old size |
| [log/keys.json](log/keys.json) | whom to believe in the files below, as C2SP verifier keys |
| [log/checkpoint.note](log/checkpoint.note), [log/certificate.note](log/certificate.note) | signed by the log; attested by k |
| [log/advances.json](log/advances.json) | what these two notes show, one after the other: records on their way |
| [log/add-checkpoint.txt](log/add-checkpoint.txt) | what a witness that knows five records is asked |
| [log/decision.tlog-proof](log/decision.tlog-proof) | the permit, for any C2SP verifier |
| [log/decision.proof.json](log/decision.proof.json) | the same with all that a repetition needs |
| [policy/payments.bundle.json](policy/payments.bundle.json) | the bundle that the manifest names |

## What must be refused

Each file of refused/ names a procedure, its input, and the stable code that must come out. Whatever is not named in the line is right
about it, signatures included.

| procedure | what to do |
|---|---|
"""


def schemas_readme() -> bytes:
    """The page of the whole folder."""
    return _SCHEMAS.encode()


def vectors_readme(cases: Iterable[Case]) -> bytes:
    """The page of the vectors, with one line for each that must be refused."""
    lines = [f"| `{name}` | {what} |" for name, what in PROCEDURES.items()]
    lines += ["", "| refused/ | procedure | code | the bug that lets it pass |", "|---|---|---|---|"]
    lines += [f"| {_link(case)} | {case.procedure} | `{case.code}` | {case.catches} |" for case in cases]
    return (_VECTORS + "\n".join(lines) + "\n").encode()


def _link(case: Case) -> str:
    return f"[{case.name}]({case.file})"
