"""One mesh in three epochs: `af-1` joins with the second roster, `eu-1` leaves with the third, which has another issuer as well."""

from functools import cache
from typing import Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import admit_governance
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Role, Roster
from mesh.core.law.travel import Said
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.note import Note, parse_note
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.identity import Identity
from tests.protocol.machines import line
from tests.support.factory import Lab, secret, sign
from tests.support.proofs import Happened

__all__ = ["ALL", "ROSTERS", "EpochLab", "attested_again", "lived", "proof", "successor"]

ALL: Final = Lab(members=5, k=4)
"""Everybody who is ever a member."""
_NEW_ISSUER: Final = secret("second issuer")


def _read(roster: Roster) -> Statement[Roster]:
    return envelope.read(Roster, ALL.seal(roster))


def successor(of: Statement[Roster], **changed: object) -> Statement[Roster]:
    """The next epoch, signed by the root; ten seconds later, and changed in this."""
    times = {"not_before_ms": of.claims.not_before_ms + 10_000}
    return _read(msgspec.structs.replace(of.claims, epoch=of.claims.epoch + 1, previous=of.id, **{**times, **changed}))


def _rosters() -> tuple[Statement[Roster], ...]:
    everybody = ALL.roster.members
    first = _read(msgspec.structs.replace(ALL.roster, members=everybody[:4], k=3))
    second = successor(first, members=everybody, k=4)
    issuers = Role(keys=[_NEW_ISSUER.public], threshold=1)
    return first, second, successor(second, members=everybody[1:], k=3, issuers=issuers)


ROSTERS: Final = _rosters()
"""Epoch n at n-1. All began before the mesh of a lab does."""


class EpochLab(Lab):
    """A lab under the roster of that epoch; those before it are held, those after it not yet heard of."""

    def __init__(self, epoch: int) -> None:
        super().__init__(members=5, k=4)
        held = ROSTERS[:epoch]
        self.roster, self.roster_envelope, self.pin = held[-1].claims, held[-1].envelope, held[-1].id
        self.keys = {member.name: self.keys[member.name] for member in self.roster.members}
        if epoch == len(ROSTERS):
            self.issuer = _NEW_ISSUER
            anna = envelope.read(Identity, self.identity_envelope).claims
            # Documents of their own: the same words under another signature would be the same statement.
            self.identity_envelope = sign(msgspec.structs.replace(anna, expires_ms=anna.expires_ms + 1), self.issuer)
            self.place = msgspec.structs.replace(self.place, expires_ms=self.place.expires_ms + 1)
            self.place_envelope = sign(self.place, self.issuer)
        later: list[Statement[Said]] = list(held[1:])
        self.governance = admit_governance(
            held[0],
            pin=self.pin,
            manifests=[envelope.read(Manifest, self.manifest_envelope)],
            bundles=[self.bundle_bytes],
            said=later,
        )


@cache
def lived(epoch: int) -> Happened:
    """What happened in that epoch: the permit in the log of who leaves or, once gone, of who has joined."""
    return Happened(EpochLab(epoch), at="eu-1" if epoch < len(ROSTERS) else "af-1")


def proof(epoch: int, name: str, *rosters: int) -> bytes:
    """The proof of an id that was recorded in that epoch, with the rosters of these epochs."""
    return lived(epoch).proof(name, rosters=[ROSTERS[number - 1].envelope for number in rosters])


def attested_again(proof_: str, *names: str) -> str:
    """The same tlog-proof, its checkpoint attested by these and nobody else."""
    tlog = TlogProof.parse(proof_.encode())
    note = parse_note(tlog.note)
    owner = next(line_ for line_ in note.lines if line_.name == read_checkpoint(tlog.note).origin)
    members = [member for member in ALL.roster.members if member.name in names]
    lines = sorted((line(member, "attest", note.text) for member in members), key=lambda line_: line_.name)
    return msgspec.structs.replace(tlog, note=Note(note.text, (owner, *lines)).encode()).encode().decode()
