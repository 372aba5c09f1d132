"""A small log whose checkpoint a log key signed and four members attested: what the tests here take apart."""

from mesh.core.log.checkpoint import (
    Checkpoint,
    attest_name,
    cosignature_line,
    cosignature_message,
    log_line,
    log_origin,
    log_verifier,
)
from mesh.core.log.merkle import Frontier, leaf_hash, tree_get
from mesh.core.log.note import Line, Note
from tests.core.kit import secret

__all__ = ["ATTESTERS", "GET", "LOG", "LOG_KEY", "MEMBERS", "ORIGIN", "RECORDS", "attestation", "checkpoint_of", "signed"]

ORIGIN = log_origin("mesh.example", "eu1", 0)
LOG_KEY = secret(100)
LOG = log_verifier(ORIGIN, LOG_KEY.public)
MEMBERS = {attest_name("mesh.example", f"eu{number}"): secret(number) for number in range(1, 5)}
ATTESTERS = {name: key.public for name, key in MEMBERS.items()}
RECORDS = tuple(b'{"record":%d}' % number for number in range(13))
HASHES = tuple(leaf_hash(record) for record in RECORDS)
GET = tree_get(HASHES)


def checkpoint_of(size: int, origin: str = ORIGIN) -> Checkpoint:
    """The true checkpoint of the log at ``size``."""
    return Checkpoint(origin, size, Frontier.load(GET, size).root())


def signed(checkpoint: Checkpoint) -> bytes:
    """The note as the log publishes it."""
    text = checkpoint.to_text()
    return Note(text, (log_line(ORIGIN, LOG_KEY.public, LOG_KEY.sign(text)),)).encode()


def attestation(name: str, checkpoint: Checkpoint, *, time_s: int = 1_700_000_000) -> Line:
    """The attest line of a member."""
    key = MEMBERS[name]
    return cosignature_line(name, key.public, time_s, key.sign(cosignature_message(checkpoint.to_text(), time_s)))
