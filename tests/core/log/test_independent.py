"""An independent C2SP implementation (the package tlog-scales) believes our logs, and we believe its."""

import base64
from pathlib import Path

import pytest
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import PlainEd25519Signer, Vkey, VkeySet
from tlog_scales.tlog import Checkpoint as TheirCheckpoint
from tlog_scales.tlog import ConsistencyProof, ConsistencyProofInvalid, InclusionProof, InclusionProofInvalid
from tlog_scales.writer import TilesWriter

from mesh.core.log.certificate import certificate_note
from mesh.core.log.checkpoint import cosigner, log_verifier, open_checkpoint
from mesh.core.log.merkle import Frontier, consistency_path, inclusion_path, leaf_hash, verify_consistency, verify_inclusion
from mesh.core.log.tlogproof import TlogProof
from tests.core.kit import secret
from tests.core.log.logs import ATTESTERS, GET, LOG, MEMBERS, RECORDS, attestation, checkpoint_of, signed

SIZE = len(RECORDS)
CHECKPOINT = checkpoint_of(SIZE)
NOTE = certificate_note(signed(CHECKPOINT), [attestation(name, CHECKPOINT) for name in MEMBERS])


def test_it_believes_our_certificate_line_by_line() -> None:
    theirs = TheirCheckpoint.from_text(NOTE.decode())
    theirs.verify(Vkey.from_string(LOG.vkey))
    vkeys = [LOG.vkey, *(cosigner(name, key).vkey for name, key in ATTESTERS.items())]
    assert len(VkeySet(*map(Vkey.from_string, vkeys)).verify(theirs.signatures, theirs)) == 5
    assert theirs.serialize().encode() == NOTE


def test_it_believes_our_tlog_proof() -> None:
    proof = TlogProof(index=9, path=inclusion_path(GET, 9, SIZE), note=NOTE, extra=RECORDS[9])
    head, _, note = proof.encode().decode().partition("\n\n")
    _, extra, index, *hashes = head.split("\n")
    theirs = TheirCheckpoint.from_text(note)
    leaf = leaf_hash(base64.b64decode(extra.removeprefix("extra ")))
    path = [base64.b64decode(line) for line in hashes]
    InclusionProof(int(index.removeprefix("index ")), theirs.size, path).check(leaf, theirs.root_hash)


def test_it_believes_our_paths_and_refuses_what_we_refuse() -> None:
    for new in range(1, SIZE + 1):
        for old in range(1, new + 1):
            path = list(consistency_path(GET, old, new))
            ConsistencyProof(old, new, path).check(checkpoint_of(old).root, checkpoint_of(new).root)
            if path:
                with pytest.raises(ConsistencyProofInvalid):
                    ConsistencyProof(old, new, path[:-1]).check(checkpoint_of(old).root, checkpoint_of(new).root)
        for index in range(new):
            path = list(inclusion_path(GET, index, new))
            InclusionProof(index, new, path).check(leaf_hash(RECORDS[index]), checkpoint_of(new).root)
            with pytest.raises(InclusionProofInvalid):
                InclusionProof(index, new, [*path, bytes(32)]).check(leaf_hash(RECORDS[index]), checkpoint_of(new).root)


def test_we_believe_a_log_that_it_wrote(tmp_path: Path) -> None:
    key, origin, size = secret(77), "log.example/theirs", 600
    leaves = [b"leaf %d" % number for number in range(size)]
    writer = TilesWriter.create(tmp_path / "log", origin)
    for leaf in leaves:
        writer.add_leaf(leaf)
    writer.commit([PlainEd25519Signer(origin, bytes([77]) * 32)])
    checkpoint = open_checkpoint((tmp_path / "log" / "checkpoint").read_bytes(), log_verifier(origin, key.public)).checkpoint
    frontier = Frontier.empty().extend(map(leaf_hash, leaves))
    assert (checkpoint.size, checkpoint.root) == (size, frontier.root())

    reader = TilesReader(LocalBackend(tmp_path / "log"))
    reader.set_size(size)
    for index in range(0, size, 37):
        path = reader.get_inclusion_proof(index, size).node_hashes
        verify_inclusion(leaf_hash(leaves[index]), index, size, checkpoint.root, path)
    for old in range(1, size, 41):
        root = Frontier.empty().extend(map(leaf_hash, leaves[:old])).root()
        verify_consistency(old, size, root, checkpoint.root, reader.get_consistency_proof(old, size).node_hashes)
