"""The kinds of statement that travel in streams: how each is read, who is believed, and which streams there can be.

Whoever passes statements on (gossip, storage, commands) knows them by this only. A kind is added by one line in ``_KINDS``, and
by what it means in :mod:`mesh.core.law.governance`.

Not here: what they mean, and the streams themselves (:mod:`mesh.core.law.streams`).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, activate_stream, admit_activation
from mesh.core.law.halt import Halt, admit_halt, halt_stream
from mesh.core.law.policy import Manifest, admit_manifest, policy_stream
from mesh.core.law.resolve import RESOLVES, Resolve, admit_resolve
from mesh.core.law.revocation import Revocation, admit_revocation, stream_of
from mesh.core.law.roster import Roster
from mesh.core.law.streams import Cursor, Link

__all__ = ["TRAVELLING", "Said", "admit_law", "cursor_of", "link_of", "read_law", "streams_of"]

Said = Revocation | Halt | Manifest | Activation | Resolve
"""What may be said in a stream."""


class _Kind(NamedTuple):
    admit: Callable[[Statement[Any], Roster], object]
    """Raises unless it is believed."""
    streams: Callable[[Roster], Iterable[str]]
    """All that there can be."""


def _revocations(roster: Roster) -> list[str]:
    return [stream_of(key) for key in roster.revoker.keys]


def _resolves(_roster: Roster) -> list[str]:
    return [RESOLVES]


def _domains(stream: Callable[[str], str]) -> Callable[[Roster], list[str]]:
    return lambda roster: [stream(domain) for domain in roster.policy]


_KINDS: Final[Mapping[type[Revocation | Halt | Manifest | Activation | Resolve], _Kind]] = {
    Revocation: _Kind(admit_revocation, _revocations),
    Halt: _Kind(admit_halt, _domains(halt_stream)),
    Manifest: _Kind(admit_manifest, _domains(policy_stream)),
    Activation: _Kind(admit_activation, _domains(activate_stream)),
    Resolve: _Kind(admit_resolve, _resolves),
}
TRAVELLING: Final = tuple(_KINDS)


def read_law(data: bytes) -> Statement[Said]:
    """A governance statement that travels in a stream. Nothing in it is believed.

    Raises:
        Refused: the codec's codes, ``wrong_kind``.
    """
    return envelope.read_any(TRAVELLING, data)


def admit_law(statement: Statement[Said], roster: Roster) -> None:
    """That ``roster`` lets its signers say this.

    Raises:
        Refused: as the function that admits its kind.
    """
    _KINDS[type(statement.claims)].admit(statement, roster)


def streams_of(roster: Roster) -> frozenset[str]:
    """Every stream in which somebody whom ``roster`` knows can say something."""
    return frozenset(name for kind in _KINDS.values() for name in kind.streams(roster))


def link_of(statement: Statement[Said]) -> tuple[str, Link]:
    """The stream in which it stands, and its place there."""
    name, sequence, previous = statement.claims.link
    return name, Link(sequence, statement.id, previous)


def cursor_of(statement: Statement[Said]) -> Cursor:
    """Where whoever has come this far in the stream goes on."""
    return Cursor(statement.claims.sequence, statement.id)
