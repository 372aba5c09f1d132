"""Refusals of a member's record by others, and the proof that enough of them are, for tests of what follows."""

from collections.abc import Iterable
from typing import Any

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.unlawful import Unlawful, unlawful_of
from mesh.core.log.checkpoint import Checkpoint, log_line
from mesh.core.log.merkle import Frontier, inclusion_path, leaf_hash, tree_get
from mesh.core.log.note import Note
from mesh.core.log.record import Refusal
from mesh.core.messages import Accusation, pack
from tests.support.factory import T0, Lab, sign

__all__ = ["Refused"]


class Refused:
    """One record of a member's log, and who refuses it."""

    def __init__(self, lab: Lab, name: str = "us-1", *, index: int = 4, size: int = 9) -> None:
        self.lab, self.name, self.index = lab, name, index
        self.key = lab.keys[name]["log"]
        self.origin = lab.roster.origin(lab.roster.member(name))
        self.leaves = [leaf_hash(f"record {number}".encode()) for number in range(size)]
        self.leaf = self.leaves[index].hex()
        self.path = [value.hex() for value in inclusion_path(tree_get(self.leaves), index, size)]

    def note(self, key: Any = None) -> bytes:
        """The checkpoint over it."""
        key = key or self.key
        text = Checkpoint(self.origin, len(self.leaves), Frontier.empty().extend(self.leaves).root()).to_text()
        return Note(text, (log_line(self.origin, key.public, key.sign(text)),)).encode()

    def claims(self, member: str, /, **changes: Any) -> Refusal:
        """What a member says of it."""
        said = Refusal(
            mesh=self.lab.roster.mesh, member=member, origin=self.origin, index=self.index, leaf=self.leaf, reason="wrong",
            code="replay_mismatch", at_ms=T0,
        )  # fmt: skip
        return msgspec.structs.replace(said, **changes)

    def by(self, member: str, /, *, key: Any = None, **changes: Any) -> bytes:
        """The same, signed by it or by that key."""
        return sign(self.claims(member, **changes), key or self.lab.keys[member]["decision"])

    def proof(self, refusals: Iterable[bytes] | None = None) -> Statement[Unlawful]:
        """By f + 1 members, or these."""
        others = [member.name for member in self.lab.roster.members if member.name != self.name]
        enough = [self.by(name) for name in others[: self.lab.roster.f + 1]] if refusals is None else refusals
        return unlawful_of(self.lab.roster.mesh, self.key.public, self.note(), self.index, self.leaf, self.path, enough)

    def accusation(self, member: str, /, *, shown: bool = True, **changes: Any) -> bytes:
        """What a member says on the bus."""
        note, path = (self.note().decode(), self.path) if shown else ("", [])
        return pack(Accusation(note=note, path=path, refusal=msgspec.Raw(self.by(member, **changes))))
