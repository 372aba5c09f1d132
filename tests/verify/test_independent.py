"""A tlog-proof of a record of a real mesh is believed by an independent C2SP implementation (tlog-scales), without us."""

import base64

import msgspec
import pytest
from tlog_scales.signing import Vkey, VkeySet
from tlog_scales.tlog import Checkpoint, InclusionProof, InclusionProofInvalid

from mesh.core.log.checkpoint import cosigner, log_verifier
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.tlogproof import TlogProof
from tests.support.proofs import happened


def _file() -> str:
    answer = happened().answers(happened().permitted)[0]
    return msgspec.structs.replace(TlogProof.parse(answer.proof.encode()), extra=bytes(answer.batch.records[0])).encode().decode()


def test_its_note_its_lines_and_its_path_are_believed() -> None:
    lab = happened().lab
    head, _, note = _file().partition("\n\n")
    _, extra, index, *hashes = head.split("\n")
    theirs = Checkpoint.from_text(note)
    owner = lab.roster.owner(theirs.origin)
    vkeys = [log_verifier(theirs.origin, owner.log_key).vkey, *(cosigner(name, key).vkey for name, key in lab.roster.attest_keys().items())]
    assert len(VkeySet(*map(Vkey.from_string, vkeys)).verify(theirs.signatures, theirs)) == 1 + lab.roster.k
    leaf = leaf_hash(base64.b64decode(extra.removeprefix("extra ")))
    path = [base64.b64decode(line) for line in hashes]
    InclusionProof(int(index.removeprefix("index ")), theirs.size, path).check(leaf, theirs.root_hash)
    with pytest.raises(InclusionProofInvalid):
        InclusionProof(int(index.removeprefix("index ")), theirs.size, path).check(leaf_hash(b"another"), theirs.root_hash)
