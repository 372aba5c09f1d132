"""Many proofs in one file, what they share standing there once: lines that are written and read one at a time, in bounded memory.

Rules
-----
1. A line is one JSON value: ``begin``; before a proof the *parts* that it needs and nobody holds any more; the proof, with the SHA-256
   of a part in the place of each; ``end``, which says how many proofs there were, so that a file cut short is seen.
2. Whoever reads holds the same parts as whoever wrote, by the same rule: those used last, as many as fit into
   :data:`mesh.limits.ARCHIVE_SHELF_BYTES_MAX`. All parts of one proof always do.
3. A proof is put together again to exactly the bytes of its own file, and then packed again and compared with what was read. So a
   file has one spelling, and holds nothing that no proof is made of.
4. The file says nothing of its own: not which records it should hold. Their logs number them.

Not here: belief (:mod:`mesh.verify`, proof by proof), which proofs (``mesh audit export``).
"""

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, NoReturn

import msgspec

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, Payload
from mesh.core.log.bundle import ProofBundle, Proven, encode_proof, read_proof
from mesh.errors import Refused
from mesh.limits import ARCHIVE_LINE_BYTES_MAX, ARCHIVE_SHELF_BYTES_MAX, NOTE_BYTES_MAX

__all__ = ["BEGIN", "Packer", "Unpacker"]

Raw = msgspec.Raw
_FORMAT: Final = "govmesh/proof-archive/v1"
_OVERHEAD: Final = 128
"""What a part costs besides its bytes: many small ones cost memory too."""
_NAMED: Final = re.compile(rb'"([0-9a-f]{64})"')
_NOTED: Final = re.compile(r"(.*?\n\n)#([0-9a-f]{64})", re.DOTALL)


class _Begin(Payload, tag_field="line", tag="begin"):
    format: Literal["govmesh/proof-archive/v1"]


class _Part(Payload, tag_field="line", tag="part"):
    """A statement or a policy bundle, as it stands in proofs."""

    json: Raw


class _Note(Payload, tag_field="line", tag="note"):
    """A signed checkpoint, as it stands at the end of a tlog-proof."""

    note: Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]


class _Proof(Payload, tag_field="line", tag="proof"):
    """A proof bundle with the digests of parts in their places; in a tlog-proof ``#`` and the digest in the place of its note."""

    bundle: ProofBundle


class _End(Payload, tag_field="line", tag="end"):
    proofs: Count


_Line = _Begin | _Part | _Note | _Proof | _End
BEGIN: Final = canonical.encode(_Begin(format=_FORMAT)) + b"\n"
"""How every such file begins."""


_LINES: Final[type[_Line]] = _Line  # type: ignore[assignment]  # a union is a type here


class _Shelf:
    """The parts used last (rule 2)."""

    def __init__(self) -> None:
        self._parts: dict[str, bytes] = {}
        self._bytes = 0

    def get(self, name: str) -> bytes | None:
        return self._parts.get(name)

    def use(self, name: str, data: bytes) -> bool:
        """Hold it as the one used last; whether it is new."""
        new = self._parts.pop(name, None) is None
        self._parts[name] = data
        if new:
            self._bytes += len(data) + _OVERHEAD
        while self._bytes > ARCHIVE_SHELF_BYTES_MAX:
            oldest = next(iter(self._parts))
            self._bytes -= len(self._parts.pop(oldest)) + _OVERHEAD
        return new


class Packer:
    """Writes such a file."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self.shelf = _Shelf()
        self._proofs = 0

    def begin(self) -> bytes:
        """The first line."""
        return BEGIN

    def add(self, bundle: ProofBundle) -> bytes:
        """The lines of one more proof."""
        lines = list[bytes]()

        def shared(data: bytes, line: Callable[[], Payload]) -> str:
            name = canonical.sha256_hex(data)
            if self.shelf.use(name, data):
                lines.append(canonical.encode(line()) + b"\n")
            return name

        def raw(data: bytes) -> bytes:
            return b'"' + shared(data, lambda: _Part(json=Raw(data))).encode() + b'"'

        def note(written: str) -> str:
            head, gap, rest = written.partition("\n\n")
            return head + gap + "#" + shared(rest.encode(), lambda: _Note(note=rest)) if gap else written

        packed = _Proof(bundle=_exchanged(bundle, raw, note))
        self._proofs += 1
        return b"".join([*lines, canonical.encode(packed) + b"\n"])

    def end(self) -> bytes:
        """The last line."""
        return canonical.encode(_End(proofs=self._proofs)) + b"\n"


class Unpacker:
    """Reads such a file, line by line."""

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._packer = Packer()
        self._new: dict[str, bytes] = {}
        self._new_bytes = 0
        self._read: list[bytes] = []
        self._begun = False
        self.ended = False

    def take(self, line: bytes) -> bytes | None:
        """The proof's file, if with this line one is complete.

        Raises:
            Refused: ``malformed`` for a line that does not belong there, or names a part that is not there; ``non_canonical`` for
                parts that no proof needs, and any other spelling; the codec's codes.
        """
        if self.ended or not line.endswith(b"\n") or self._begun == (line == BEGIN):
            _malformed("a line that does not belong there")
        self._begun = True
        said = canonical.decode(_LINES, line[:-1], bytes_max=ARCHIVE_LINE_BYTES_MAX)
        match said:
            case _Begin():
                return None
            case _Part(json=json):
                self._keep(line, bytes(json))
            case _Note(note=note):
                self._keep(line, note.encode())
            case _Proof(bundle=bundle):
                return self._proof(line, bundle)
            case _End():
                if self._read or line != self._packer.end():
                    _malformed("it does not end as it should")
                self.ended = True
        return None

    def close(self) -> None:
        """That the file ended where it says.

        Raises:
            Refused: ``malformed``.
        """
        if not self.ended:
            _malformed("the file was cut short")

    def _keep(self, line: bytes, data: bytes) -> None:
        name = canonical.sha256_hex(data)
        if name in self._new:
            raise Refused("non_canonical", "one part stands there twice")
        self._read.append(line)
        self._new[name] = data
        self._new_bytes += len(data)
        # Envelopes and notes are longer than their overhead here: many small parts are of no proof.
        if max(self._new_bytes, len(self._new) * _OVERHEAD) > ARCHIVE_LINE_BYTES_MAX:
            raise Refused("too_large", "parts of one proof")

    def _proof(self, line: bytes, packed: ProofBundle) -> bytes:
        def part(name: str) -> bytes:
            data = self._new.get(name, self._packer.shelf.get(name))
            return data if data is not None else _malformed(f"no part {name[:12]}… is held")

        def raw(data: bytes) -> bytes:
            found = _NAMED.fullmatch(data)
            return part(found[1].decode()) if found is not None else _malformed("a part that is not named")

        def note(written: str) -> str:
            found = _NOTED.fullmatch(written)
            try:
                return found[1] + part(found[2]).decode() if found is not None else written
            except UnicodeDecodeError:
                _malformed("a note that is no text")

        data = encode_proof(_exchanged(packed, raw, note))
        if self._packer.add(read_proof(data)) != b"".join([*self._read, line]):
            raise Refused("non_canonical", "it holds what no proof needs, or not in the one order")
        self._read, self._new, self._new_bytes = [], {}, 0
        return data


def _exchanged(bundle: ProofBundle, raw: Callable[[bytes], bytes], note: Callable[[str], str]) -> ProofBundle:
    """The same with every shared part exchanged; records stay where they are: each is its own."""

    def each(parts: list[Raw]) -> list[Raw]:
        return [Raw(raw(bytes(part))) for part in parts]

    return msgspec.structs.replace(
        bundle,
        rosters=each(bundle.rosters),
        manifests=each(bundle.manifests),
        bundles=each(bundle.bundles),
        activations=each(bundle.activations),
        proof=note(bundle.proof),
        bodies=each(bundle.bodies),
        outcomes=[Proven(record=one.record, proof=note(one.proof), bodies=each(one.bodies)) for one in bundle.outcomes],
    )


def _malformed(what: str) -> NoReturn:
    raise Refused("malformed", what)
