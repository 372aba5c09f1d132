"""One record's proof that any C2SP verifier can check without us: c2sp.org/tlog-proof@v1, in one spelling only.

Rules
-----
1. The file is a header, an optional ``extra`` line, the index, the inclusion path and, after an empty line, the checkpoint note.
2. Nobody signs ``extra``. Here it may hold the record itself and nothing else, so that it is checked like the rest.
3. The note is judged as a certificate is: k distinct cosigners, no line by a stranger. C2SP leaves that to policy.

Not here: our own proof bundle, which also carries what a replay needs.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from mesh.core.log.certificate import Attested, verify_certificate
from mesh.core.log.lines import from_base64, from_decimal, hash_lines, hashes_of, text_of, to_base64
from mesh.core.log.merkle import leaf_hash, verify_inclusion
from mesh.core.log.note import Verifier, parse_note
from mesh.errors import Refused
from mesh.limits import TLOG_PROOF_BYTES_MAX

__all__ = ["TlogProof"]

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_EXTRA: Final = "extra "
_INDEX: Final = "index "


class TlogProof(msgspec.Struct, frozen=True, kw_only=True):
    """A proof as it stands in its file; nothing in it is believed before :meth:`verify`."""

    index: int
    path: tuple[bytes, ...]
    note: bytes
    """The checkpoint with the lines of log and cosigners."""
    extra: bytes = b""
    """The record's leaf data, or nothing."""

    def encode(self) -> bytes:
        """The one spelling of this proof."""
        extra = f"{_EXTRA}{to_base64(self.extra)}\n" if self.extra else ""
        return f"{_HEADER}\n{extra}{_INDEX}{self.index}\n{hash_lines(self.path)}\n".encode() + self.note

    @classmethod
    def parse(cls, data: bytes) -> "TlogProof":
        """Read a proof file.

        Raises:
            Refused: ``too_large``, ``malformed``, ``non_canonical``.
        """
        if len(data) > TLOG_PROOF_BYTES_MAX:
            raise Refused("too_large", f"{len(data)} bytes, at most {TLOG_PROOF_BYTES_MAX}")
        head, _, note = data.partition(b"\n\n")
        header, *lines = text_of(head).split("\n")
        extra = lines.pop(0).removeprefix(_EXTRA) if lines and lines[0].startswith(_EXTRA) else ""
        if header != _HEADER or not lines or not lines[0].startswith(_INDEX):
            raise Refused("malformed", f"a proof begins {_HEADER!r} and names an index")
        index = from_decimal(lines[0].removeprefix(_INDEX))
        proof = cls(index=index, path=hashes_of(lines[1:]), note=note, extra=from_base64(extra))
        if proof.encode() != data:
            raise Refused("non_canonical")
        parse_note(note)
        return proof

    def verify(self, leaf: bytes, *, log: Verifier, cosigners: Mapping[str, str], k: int) -> Attested:
        """Believe that ``leaf`` (a record's leaf data) is in the log, under a checkpoint of ``k`` distinct ``cosigners``.

        Raises:
            Refused: ``bad_proof`` when path or ``extra`` belong to another leaf; otherwise as
                :func:`mesh.core.log.certificate.verify_certificate`.
        """
        attested = verify_certificate(self.note, log=log, attesters=cosigners, k=k)
        if self.extra not in (b"", leaf):
            raise Refused("bad_proof", "the extra line holds another record")
        verify_inclusion(leaf_hash(leaf), self.index, attested.checkpoint.size, attested.checkpoint.root, self.path)
        return attested
