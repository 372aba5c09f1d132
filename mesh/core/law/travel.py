"""The kinds of statement that travel in streams: how each is read, who is believed, and which streams there can be.

Whoever passes statements on (gossip, storage, commands) knows them by this only. A kind is added by one line in ``_KINDS``, and
by what it means in :mod:`mesh.core.law.governance`.

Not here: what they mean, and the streams themselves (:mod:`mesh.core.law.streams`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, admit_activation
from mesh.core.law.erase import Erase, admit_erase
from mesh.core.law.halt import Halt, admit_halt
from mesh.core.law.policy import Manifest, admit_manifest
from mesh.core.law.proof import PREFIX, Proof, accusable, fraud_stream
from mesh.core.law.proofs import PROOFS, AnyProof, admit_proof
from mesh.core.law.reign import base_of, in_reign
from mesh.core.law.resolve import Resolve, admit_resolve
from mesh.core.law.retain import Retain, admit_retain
from mesh.core.law.revocation import Revocation, admit_revocation
from mesh.core.law.roster import ROSTERS, Roster, frauds_max
from mesh.core.law.streams import Cursor, Link
from mesh.core.law.succession import Rosters, voices
from mesh.errors import Refused
from mesh.limits import FRONTIER_STREAMS_MAX

__all__ = ["TRAVELLING", "Said", "admit_law", "admit_next", "cursor_of", "is_known", "link_of", "read_law", "streams_of"]

Said = Roster | Revocation | Halt | Manifest | Activation | Resolve | Erase | Retain | AnyProof
"""What may be said in a stream; a proof against a member is said by nobody, and is alone in its own."""


_Admit = Callable[[Statement[Any], Roster], object]
_KINDS: Final[Mapping[type[Revocation | Halt | Manifest | Activation | Resolve | Erase | Retain], _Admit]] = {
    Revocation: admit_revocation,
    Halt: admit_halt,
    Manifest: admit_manifest,
    Activation: admit_activation,
    Resolve: admit_resolve,
    Erase: admit_erase,
    Retain: admit_retain,
}
"""Besides rosters, which are judged by one another, and proofs: what raises unless a roster lets its signers say it."""
TRAVELLING: Final = (Roster, *_KINDS, *PROOFS)


def read_law(data: bytes) -> Statement[Said]:
    """A governance statement that travels in a stream. Nothing in it is believed.

    Raises:
        Refused: the codec's codes, ``wrong_kind``.
    """
    return envelope.read_any(TRAVELLING, data)


def admit_law(statement: Statement[Said], rosters: Rosters) -> None:
    """That these rosters let its signers say this: a roster follows one of them, anything else is judged by the one that it names.

    Raises:
        Refused: as the function that admits its kind; ``wrong_epoch``, ``handed_over`` as :meth:`Rosters.appointed`.
    """
    claims = statement.claims
    if isinstance(claims, Roster):
        admit_next(cast("Statement[Roster]", statement), rosters)
        return
    if isinstance(claims, Proof):
        admit_proof(cast("Statement[AnyProof]", statement), rosters)
        return
    stream, sequence, previous = claims.link
    _admission(type(claims))(statement, rosters.appointed(base_of(stream), claims.since, sequence, previous))


def _admission(kind: type[Revocation | Halt | Manifest | Activation | Resolve | Erase | Retain]) -> _Admit:
    return _KINDS[kind]


def admit_next(statement: Statement[Roster], rosters: Rosters) -> Rosters:
    """The rosters with one more that follows one of them.

    Raises:
        Refused: as :meth:`Rosters.admit`; ``roster_unsound`` if all of them make for more streams than a heartbeat can name.
    """
    grown = rosters.admit(statement)
    streams = {ROSTERS}.union(*(voices(roster) for roster in grown.every))
    # Until it is in force, both are named; and proofs against members, as many as one roster lets a frontier name.
    most = len(streams) + len(statement.claims.handovers) + max(frauds_max(roster) for roster in grown.every)
    if most > FRONTIER_STREAMS_MAX:
        raise Refused("roster_unsound", f"with all before it {most} governance streams, at most {FRONTIER_STREAMS_MAX}")
    return grown


def streams_of(rosters: Rosters) -> frozenset[str]:
    """Every stream in which somebody whom one of these rosters knows can say something."""
    names = {ROSTERS}
    for identity, roster in rosters.held.items():
        if roster.epoch == 1:
            names |= voices(roster).keys()
        names |= {in_reign(base, identity) for base in roster.handovers}
    return frozenset(names)


def is_known(stream: str, rosters: Rosters) -> bool:
    """Whether somebody whom one of these rosters knows can say something there, or be caught."""
    if stream.startswith(PREFIX):
        return any(stream == fraud_stream(key) for roster in rosters.every for member in roster.members for key in accusable(member))
    return stream in streams_of(rosters)


def link_of(statement: Statement[Said]) -> tuple[str, Link]:
    """The stream in which it stands, and its place there."""
    name, sequence, previous = statement.claims.link
    identity = statement.claims.place if isinstance(statement.claims, Proof) else statement.id  # whichever proof: it is caught
    return name, Link(sequence, identity, previous)


def cursor_of(statement: Statement[Said]) -> Cursor:
    """Where whoever has come this far in the stream goes on."""
    return Cursor(statement.claims.sequence, statement.id)
