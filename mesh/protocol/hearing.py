"""What enforcers say that they have heard is recorded once, and of each the newest word in any log is known.

Rules
-----
1. The enforcer's document comes with its word; its key alone signs it. Anyone else's is refused unsigned and counted.
2. A word recorded here before is answered with a receipt for the record it has; so is one by which nothing has changed in that boot.
   One that is older than what is known of that enforcer, from whichever log, is ``superseded``: a replay fills no log.
3. At most one record of an enforcer each :data:`RECORD_MS`, here; the next is told ``overloaded``: what is newest then is brought again.
4. Of each log the last word of each enforcer is known, of :data:`~mesh.limits.HEARD_ENFORCERS_MAX` enforcers at most. Which records
   these are is durable with them, so a start finds them again (:func:`word_of`).
5. What a mirrored log holds counts here if an enforcer has signed it, whatever else is wrong with that log.

Not here: what a word means (:mod:`mesh.core.run.heard`), sending one (:mod:`mesh.gate.hearing`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import frontier_digest
from mesh.core.law.roster import Member
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import EnforcerHeard, read_record
from mesh.core.messages import HeardGiven, HeardRequest, HeardWord, OutcomeAnswer, unpack
from mesh.core.run.authorization import Receipt, RecordRef
from mesh.core.run.heard import Heard, check_heard
from mesh.core.run.identity import check_identity
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX, HEARD_ENFORCERS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol.documents import Documents
from mesh.protocol.intake import refuse
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Append, Effect, Locate, PutBody, Reply, Send, SetMeta, Sign, Signed

__all__ = [
    "META",
    "NOBODY",
    "RECORD_MS",
    "Hearing",
    "Word",
    "Words",
    "answer",
    "is_heard",
    "key_of",
    "newest",
    "page",
    "restored",
    "word_of",
]

RECORD_MS: Final = 1_000
_TAG: Final = b'"record":"heard"'
_FRAME_BYTES: Final = 512
_WORD_BYTES: Final = 300
"""Of one word in an answer, without its two envelopes."""
META: Final = "heard "
"""How the durable facts begin that say where the last words stand."""
_GONE: Final = -1


class Word(msgspec.Struct, frozen=True):
    """The last that one enforcer has in one log."""

    id: str
    identity: str
    boot: str
    sequence: int
    at_ms: int
    digest: str
    """Of the frontier."""
    index: int
    leaf: str
    recorded_ms: int

    @property
    def order(self) -> tuple[int, int, str]:
        """The larger, the newer: a boot that began later speaks later."""
        return self.at_ms, self.sequence, self.id


Words = Mapping[str, Mapping[str, Word]]
"""Log to enforcer's key to its last word there."""
NOBODY: Final[Words] = MappingProxyType({})


def is_heard(data: bytes) -> bool:
    """Whether a request on an outcome subject is a word on what was heard; it has one spelling, and outcomes have another."""
    return data.startswith(b'{"heard":')


def newest(words: Words) -> dict[str, tuple[str, Word]]:
    """Enforcer's key to (log, word), of all logs."""
    found = dict[str, tuple[str, Word]]()
    for origin, log in words.items():
        for key, word in log.items():
            if key not in found or found[key][1].order < word.order:
                found[key] = origin, word
    return found


class Hearing:
    """The working copy of one step."""

    def __init__(self, words: Words, *, me: Member, origin: str, documents: Documents) -> None:
        """Begin with what is known; ``origin`` is the log of ``me``."""
        self.words = words
        self._me = me
        self._origin = origin
        self._documents = documents

    def take(self, waiter: int, data: bytes, governance: Governance, writer: Writer) -> tuple[list[Effect], str]:
        """Record a word that an enforcer sends; the effects, and the code under which to count the request as noise."""
        try:
            return self._take(waiter, data, governance, writer), ""
        except Refused as refusal:
            return [refuse(waiter, refusal.code, refusal.detail)], refusal.code

    def _take(self, waiter: int, data: bytes, governance: Governance, writer: Writer) -> list[Effect]:
        request = unpack(HeardRequest, data)
        place = self._documents.admit(bytes(request.identity), governance)  # (1)
        said = envelope.read(Heard, bytes(request.heard))
        claims = check_heard(said, mesh=governance.roster.mesh, document=place.id, key=place.claims.key)
        check_identity(place.claims, role="enforcer", subject=None, key=claims.enforcer, now_ms=writer.at_ms)
        if claims.at_ms > writer.at_ms + governance.roster.bounds.skew_ms:
            raise Refused("clock_unsure", f"said at {claims.at_ms}, now {writer.at_ms}")
        own = self.words.get(self._origin, {}).get(claims.enforcer)
        digest = frontier_digest(claims.frontier)
        if own is not None and (own.id == said.id or (own.boot, own.digest) == (claims.boot, digest)):  # (2)
            return self._receipt(waiter, own, writer)
        word = Word(said.id, place.id, claims.boot, claims.sequence, claims.at_ms, digest, 0, "", writer.at_ms)
        if any(log[claims.enforcer].order > word.order for log in self.words.values() if claims.enforcer in log):
            raise Refused("superseded", f"number {claims.sequence} of boot {claims.boot[:12]}…")
        if own is not None and writer.at_ms - own.recorded_ms < RECORD_MS:  # (3)
            raise Refused("overloaded", f"recorded {writer.at_ms - own.recorded_ms} ms ago")
        ref = writer.append(
            EnforcerHeard(
                mesh=writer.mesh,
                origin=writer.origin,
                index=writer.index,
                at_ms=writer.at_ms,
                heard=said.id,
                identity=place.id,
                subject=place.claims.subject,
            )
        )
        word = msgspec.structs.replace(word, index=ref.index, leaf=ref.leaf)
        return [
            PutBody(place.id, "identity", place.envelope),
            PutBody(said.id, "heard", said.envelope),
            Locate(said.id, ref.origin, ref.index),
            *self._know(self._origin, claims.enforcer, word),
            *self._receipt(waiter, word, writer),
        ]

    def mirrored(self, effects: Sequence[Effect], governance: Governance) -> list[Effect]:
        """What is to be known of records that are stored with these effects (rule 5)."""
        found = list[Effect]()
        bodies: dict[str, bytes] | None = None
        for append in effects:
            if not isinstance(append, Append):
                continue
            for index, leaf in enumerate(append.leaves, append.first):
                if _TAG in leaf:  # a filter only: every record of every log comes through here
                    bodies = bodies or {effect.id: effect.envelope for effect in effects if isinstance(effect, PutBody)}
                    found += self._mirrored(append.origin, index, leaf, bodies, governance)
        return found

    def _mirrored(self, origin: str, index: int, leaf: bytes, bodies: Mapping[str, bytes], governance: Governance) -> list[Effect]:
        try:
            record = read_record(leaf)
            if not isinstance(record, EnforcerHeard):
                return []
            place = self._documents.admit(bodies.get(record.identity, b""), governance)
            said = envelope.read(Heard, bodies.get(record.heard, b""))
            claims = check_heard(said, mesh=governance.roster.mesh, document=place.id, key=place.claims.key)
            check_identity(place.claims, role="enforcer", subject=None, key=claims.enforcer, now_ms=record.at_ms)
        except Refused:
            return []
        word = word_of(leaf, said.envelope, index=index)
        known = self.words.get(origin, {}).get(claims.enforcer)
        return [] if word is None or (known is not None and known.order >= word.order) else self._know(origin, claims.enforcer, word)

    def _know(self, origin: str, key: str, word: Word) -> list[Effect]:
        """Rule 4."""
        log, effects = dict(self.words.get(origin, {})), list[Effect]()
        if key not in log and len(log) >= HEARD_ENFORCERS_MAX:
            oldest = min(log, key=lambda other: (log[other].recorded_ms, log[other].index))
            del log[oldest]
            effects.append(SetMeta(_meta(origin, oldest), _GONE))
        log[key] = word
        self.words = {**self.words, origin: log}
        return [*effects, SetMeta(_meta(origin, key), word.index)]

    def _receipt(self, waiter: int, word: Word, writer: Writer) -> list[Effect]:
        ref = RecordRef(origin=self._origin, index=word.index, leaf=word.leaf)
        draft = envelope.draft(Receipt(mesh=writer.mesh, issuer=self._me.name, statement=word.id, record=ref))
        return [Sign("decision", draft), Send(Reply(waiter), partial(_answer, draft.id))]


def _answer(identity: str, signed: Signed) -> bytes:
    return canonical.encode(OutcomeAnswer(receipts=[msgspec.Raw(signed.statements[identity])]))


# ------------------------------------------------------------------------------------------------------------- to find again


def _meta(origin: str, key: str) -> str:
    return f"{META}{origin} {key}"


def key_of(meta: str) -> tuple[str, str] | None:
    """(log, enforcer) of a durable fact that says where its last word stands; None for one about something else."""
    origin, _, key = meta.removeprefix(META).rpartition(" ")
    return (origin, key) if meta.startswith(META) and origin else None


def restored(facts: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """(log, enforcer) to the index of its last word, from durable facts."""
    return {place: index for meta, index in facts.items() if (place := key_of(meta)) is not None and index != _GONE}


def word_of(leaf: bytes, body: bytes, *, index: int) -> Word | None:
    """The word that stands at ``index``, as its record and its statement have it; None if these are no such."""
    record = read_record(leaf)
    if not isinstance(record, EnforcerHeard):
        return None
    said = envelope.read(Heard, body)
    claims = said.claims
    return Word(
        said.id,
        record.identity,
        claims.boot,
        claims.sequence,
        claims.at_ms,
        frontier_digest(claims.frontier),
        index,
        leaf_hash(leaf).hex(),
        record.at_ms,
    )


# ---------------------------------------------------------------------------------------------------------------- to answer


def page(words: Words, after: str) -> list[tuple[str, str, Word]]:
    """(key, log, word) of the enforcers behind ``after``, in the order of their keys, no more than an answer may have."""
    found = newest(words)
    return [(key, *found[key]) for key in sorted(found) if key > after][:BATCH_RECORDS_MAX]


def answer(chosen: Sequence[tuple[str, str, Word]], bodies: Mapping[str, bytes]) -> bytes:
    """The answer with as many of these words as fit; one whose statements are not held is left out."""
    words, after, room = list[HeardWord](), "", MESSAGE_BYTES_MAX - _FRAME_BYTES
    for key, origin, word in chosen:
        said, identity = bodies.get(word.id), bodies.get(word.identity)
        if said is not None and identity is not None:
            room -= len(said) + len(identity) + _WORD_BYTES
            if room < 0:
                return canonical.encode(HeardGiven(words=words, after=after))
            words.append(HeardWord(heard=msgspec.Raw(said), identity=msgspec.Raw(identity), origin=origin, index=word.index))
        after = key
    return canonical.encode(HeardGiven(words=words, after=after if len(chosen) == BATCH_RECORDS_MAX else ""))
