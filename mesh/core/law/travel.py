"""The kinds of statement that travel in streams: how each is read, who is believed, and which streams there can be.

Whoever passes statements on (gossip, storage, commands) knows them by this only. A kind is added by one line in ``_KINDS``, and
by what it means in :mod:`mesh.core.law.governance`.

Not here: what they mean, and the streams themselves (:mod:`mesh.core.law.streams`).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, cast

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, activate_stream, admit_activation
from mesh.core.law.halt import Halt, admit_halt, halt_stream
from mesh.core.law.policy import Manifest, admit_manifest, policy_stream
from mesh.core.law.resolve import RESOLVES, Resolve, admit_resolve
from mesh.core.law.revocation import Revocation, admit_revocation, stream_of
from mesh.core.law.roster import ROSTERS, Roster
from mesh.core.law.streams import Cursor, Link
from mesh.core.law.succession import Rosters
from mesh.errors import Refused
from mesh.limits import FRONTIER_STREAMS_MAX

__all__ = ["TRAVELLING", "Said", "admit_law", "admit_next", "cursor_of", "link_of", "read_law", "streams_of"]

Said = Roster | Revocation | Halt | Manifest | Activation | Resolve
"""What may be said in a stream."""


class _Kind(NamedTuple):
    admit: Callable[[Statement[Any], Roster], object]
    """Raises unless the roster lets its signers say it."""
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
"""Besides rosters, which are judged by one another."""
TRAVELLING: Final = (Roster, *_KINDS)


def read_law(data: bytes) -> Statement[Said]:
    """A governance statement that travels in a stream. Nothing in it is believed.

    Raises:
        Refused: the codec's codes, ``wrong_kind``.
    """
    return envelope.read_any(TRAVELLING, data)


def admit_law(statement: Statement[Said], rosters: Rosters) -> None:
    """That these rosters let its signers say this: a roster follows one of them, anything else was the right of its signers in one.

    Raises:
        Refused: as the function that admits its kind.
    """
    if isinstance(statement.claims, Roster):
        admit_next(cast("Statement[Roster]", statement), rosters)
    else:
        rosters.judged(partial(_KINDS[type(statement.claims)].admit, statement), by=_voices)


def _voices(roster: Roster) -> object:
    """What it depends on whom a roster lets speak: a revocation also on which keys it names."""
    return roster.root, roster.revoker, roster.policy, roster.keys


def admit_next(statement: Statement[Roster], rosters: Rosters) -> Rosters:
    """The rosters with one more that follows one of them.

    Raises:
        Refused: as :meth:`Rosters.admit`; ``roster_unsound`` if all of them make for more streams than a heartbeat can name.
    """
    grown = rosters.admit(statement)
    streams = streams_of(rosters) | _streams_of(statement.claims)
    if len(streams) > FRONTIER_STREAMS_MAX:
        raise Refused("roster_unsound", f"with all before it {len(streams)} governance streams, at most {FRONTIER_STREAMS_MAX}")
    return grown


def streams_of(rosters: Rosters) -> frozenset[str]:
    """Every stream in which somebody whom one of these rosters knows can say something."""
    return frozenset({ROSTERS}).union(*(_streams_of(roster) for roster in rosters.every))


def _streams_of(roster: Roster) -> frozenset[str]:
    return frozenset(name for kind in _KINDS.values() for name in kind.streams(roster))


def link_of(statement: Statement[Said]) -> tuple[str, Link]:
    """The stream in which it stands, and its place there."""
    name, sequence, previous = statement.claims.link
    return name, Link(sequence, statement.id, previous)


def cursor_of(statement: Statement[Said]) -> Cursor:
    """Where whoever has come this far in the stream goes on."""
    return Cursor(statement.claims.sequence, statement.id)
