"""Whose logs there are, and by which rosters their certificates are judged, as the governance that is held says.

Not here: what a former certificate is worth (:mod:`mesh.core.law.former`).
"""

from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member, Roster
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import log_verifier, read_checkpoint
from mesh.errors import Refused

__all__ = ["is_current", "logs_of", "owner_of", "rosters_of", "was_certificate"]


def rosters_of(governance: Governance) -> tuple[Roster, ...]:
    """From the first one to the one in force, without a gap; only that, if it is aside."""
    chain = governance.rosters.chain[: governance.roster.epoch]
    return chain if chain and chain[-1] == governance.roster else (governance.roster,)


def logs_of(governance: Governance) -> tuple[str, ...]:
    """The origins of all logs of all who are or were members: those of now first."""
    rosters = reversed(rosters_of(governance))
    return tuple(dict.fromkeys(roster.origin(member) for roster in rosters for member in roster.members))


def owner_of(governance: Governance, origin: str) -> Member:
    """Whose log it is, as the newest roster up to the one in force says that knows it.

    Raises:
        Refused: ``unknown_member``.
    """
    for roster in reversed(rosters_of(governance)):
        for member in roster.members:
            if roster.origin(member) == origin:
                return member
    raise Refused("unknown_member", origin[:80])


def is_current(note: bytes, governance: Governance) -> bool:
    """Whether it is a certificate by the roster in force."""
    return _certifies(note, governance.roster, governance)


def was_certificate(note: bytes, governance: Governance) -> bool:
    """Whether it is one by any roster up to the one in force, whatever that is still worth."""
    return any(_certifies(note, roster, governance) for roster in reversed(rosters_of(governance)))


def _certifies(note: bytes, roster: Roster, governance: Governance) -> bool:
    try:
        origin = read_checkpoint(note).origin
        log = log_verifier(origin, owner_of(governance, origin).log_key)
        verify_certificate(note, log=log, attesters=roster.attest_keys(), k=roster.k)
    except Refused:
        return False
    return True
