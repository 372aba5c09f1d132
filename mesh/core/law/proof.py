"""What all proofs against a member share: under what they stand, whom they name, and that they are nobody's word.

Rules
-----
1. Belief comes from what is in the proof alone. Who made it, or carries it, is nowhere in it; somebody's line on its envelope is refused.
2. One proof a key is kept. What it stands under, ``fraud/<key>``, does not depend on what is in it: nodes that hold different proofs
   against one key, also of different kinds, agree, and a liar that makes a thousand of them fills nothing.

Not here: what is proved (:mod:`mesh.core.law.fraud`, :mod:`mesh.core.law.unlawful`).
"""

from typing import Final, Literal, TypeVar

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import KeyHex, Payload, Token
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Member
from mesh.errors import Refused

__all__ = ["PREFIX", "Caught", "Proof", "ProofKind", "Use", "Wrong", "accusable", "bare", "check_unsigned", "fraud_stream"]

P = TypeVar("P", bound="Proof")

PREFIX: Final = "fraud/"
"""Of the streams of proofs; behind it stands the key."""
ProofKind = Literal["same-size", "prefix", "witness-conflict", "unlawful-decision"]
Use = Literal["log", "witness", "attest"]


class Proof(Payload):
    """What every proof says, whatever it proves."""

    key: KeyHex
    """Of whom it is about."""
    mesh: Token

    @property
    def link(self) -> tuple[str, int, str]:
        """(stream, number, previous): the only one in the stream of its key (rule 2)."""
        return fraud_stream(self.key), 1, ""

    @property
    def sequence(self) -> int:
        """The only one."""
        return 1

    @property
    def previous(self) -> str:
        """Nothing comes before it."""
        return ""

    @property
    def reason(self) -> str:
        """Nobody gives one."""
        return ""

    @property
    def issued_ms(self) -> int:
        """Nobody says when."""
        return 0

    @property
    def place(self) -> str:
        """What a frontier says that is held: the same for every proof against this key (rule 2)."""
        return canonical.sha256_hex(fraud_stream(self.key).encode())


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """The record of which members say that they would not have written it."""

    index: int
    leaf: str
    """Its hash, hex."""
    codes: tuple[str, ...]
    """Of the checks that failed where they repeated it, sorted."""
    members: tuple[str, ...]
    """Who says so, sorted."""


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof proves."""

    id: str
    kind: ProofKind
    member: str
    use: Use
    key: str
    origin: str
    """Of the log that has two histories, or that the member said has; or that has the record."""
    sizes: tuple[int, ...]
    roots: tuple[str, ...]
    """What the key signed at these sizes, hex."""
    epoch: int
    """The newest held roster that gives the key to that member; where others' word counts, that makes them members too."""
    wrong: Wrong | None = None
    """Where no history but a decision is the matter."""

    def __str__(self) -> str:
        """In one line."""
        if self.wrong is not None:
            who = f"{self.origin}: {', '.join(self.wrong.codes)}, say {', '.join(self.wrong.members)}"
            return f"{self.member}'s {self.use} key signed record {self.wrong.index} of {who}: {self.kind}"
        return f"{self.member}'s {self.use} key signed two histories of {self.origin}: {self.kind} at {self.sizes[0]} and {self.sizes[1]}"


def fraud_stream(key: str) -> str:
    """The stream of the proof against that key (hex)."""
    return f"{PREFIX}{key}"


def accusable(member: Member) -> tuple[str, ...]:
    """The keys of a member that a proof can name."""
    return member.log_key, member.witness_key, member.attest_key


def check_unsigned(said: Statement[Proof]) -> None:
    """Rule 1.

    Raises:
        Refused: ``bad_signature``.
    """
    if said.signatures:
        raise Refused("bad_signature", "a proof against a member is nobody's word: no line belongs on it")


def bare(kind: type[P], payload: bytes) -> Statement[P]:
    """The statement of that kind without a line.

    Raises:
        Refused: the codec's codes.
    """
    return envelope.read(kind, envelope.assemble(envelope.kind_of(kind).payload_type, payload, {}))
