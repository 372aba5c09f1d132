"""What the parts of a proof are held to, each by itself.

Not here: the procedure that puts them together (:mod:`mesh.verify`).
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.former import final_under
from mesh.core.law.roster import Member, Roster
from mesh.core.law.vouched import Vouched
from mesh.core.log.bundle import ProofBundle
from mesh.core.log.certificate import Attested, verify_certificate
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.note import parse_note
from mesh.core.log.record import read_record
from mesh.core.run.heard import Heard
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from mesh.errors import Refused

__all__ = ["certified", "in_order", "nothing_else", "ordered", "sealed", "sealed_body"]

P = TypeVar("P", bound=Payload)


def certified(note: bytes, origin: str, owners: Sequence[Member], rosters: Sequence[Roster], trusted: int) -> tuple[Attested, Roster]:
    """Who made the checkpoint final, as members of which roster."""

    def by(owner: Member) -> tuple[Attested, Roster]:
        log = log_verifier(origin, owner.log_key)
        return final_under(rosters, lambda attesters, k: verify_certificate(note, log=log, attesters=attesters, k=k), trusted=trusted)

    for owner in owners[:-1]:
        with suppress(Refused):
            return by(owner)
    return by(owners[-1])


def in_order(note: bytes, origin: str) -> None:
    """That the log's own line comes first and the others by name: in another order they would be other bytes, as good as these.

    Raises:
        Refused: ``non_canonical``.
    """
    names = [line.name for line in parse_note(note).lines]
    if names != [origin, *sorted(names[1:])]:
        raise Refused("non_canonical", "the lines of the certificate are not in their order")


def sealed(statement: Statement[P], keys: Iterable[str], threshold: int) -> None:
    """That nobody but these signed, each validly, and enough of them: a line that nobody checks would be a byte that nobody checks."""
    strangers = frozenset(statement.signatures) - frozenset(keys)
    if strangers or not all(statement.signed_by(key) for key in statement.signatures):
        raise Refused("bad_signature", f"{envelope.kind_of(type(statement.claims)).name} {statement.id[:12]}")
    if len(statement.signatures) < threshold:
        raise Refused("threshold_not_met", f"{len(statement.signatures)} of {threshold}")


def sealed_body(data: bytes, rosters: Vouched) -> None:
    """That a statement beside a record is signed by whom it names, an identity document by issuers, and by nobody besides.

    Raises:
        Refused: ``bad_signature``, the codec's codes, ``wrong_kind`` for what does not stand beside records.
    """
    kind = envelope.identify(data)[0]
    if kind == envelope.kind_of(Intent).payload_type:
        intent = envelope.read(Intent, data)
        sealed(intent, [intent.claims.holder], 1)
    elif kind == envelope.kind_of(Identity).payload_type:
        document = envelope.read(Identity, data)
        rosters.judged(lambda roster: sealed(document, roster.issuers.keys, 1), by=lambda roster: roster.issuers.keys)
    elif kind == envelope.kind_of(Heard).payload_type:
        heard = envelope.read(Heard, data)
        sealed(heard, [heard.claims.enforcer], 1)
    else:
        outcome = envelope.read(Outcome, data)
        sealed(outcome, [outcome.claims.enforcer], 1)


def nothing_else(bundle: ProofBundle) -> str:
    """That nothing of a policy is in a bundle whose record is no decision."""
    if bundle.manifests or bundle.bundles or bundle.activations or bundle.openings or bundle.boxes:
        raise Refused("record_invalid", "only decisions rest on policy")
    return "no policy was asked"


def ordered(bundle: ProofBundle) -> str:
    """That the outcomes stand in the order of their places, each once."""
    records = [read_record(bytes(outcome.record)) for outcome in bundle.outcomes]
    places = [(record.origin, record.index) for record in records]
    if places != sorted(frozenset(places)):
        raise Refused("non_canonical", "the outcomes are not in their order")
    return "outcomes are in their order"
