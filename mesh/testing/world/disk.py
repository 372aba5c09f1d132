"""A node's disk in a world: what a commit returned from is there for ever, what it did not return from may or may not be.

The rules are those of the real file (:mod:`mesh.adapters.store`): a commit is all or nothing; a record takes the next index of
its log; a head refuses a smaller size, another root at the same size and an earlier time; a key used once cannot be used
again; bodies, openings and places only ever appear, but for openings that are erased, which never come back, and for what goes with
records below a floor; of these only the hash stays.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from mesh.core.law.fold import put_in_force, restore
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member, Roster
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import read_law
from mesh.core.log.checkpoint import attest_name
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.record import read_record
from mesh.errors import Alarm, Refused, Unavailable
from mesh.protocol import hearing, serving
from mesh.protocol.attester import located_ids
from mesh.protocol.histories import Recent
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX
from mesh.protocol.members import logs_of
from mesh.protocol.refusing import conflict_key, refused_key
from mesh.protocol.step import (
    Append,
    AppendHashes,
    Head,
    HeadUse,
    InsertOnce,
    Locate,
    Persist,
    PutBody,
    PutBundle,
    PutLaw,
    PutNote,
    PutOpenings,
    SetHead,
    SetMeta,
)
from mesh.protocol.stored import INCARNATION, REFILLED, ROSTER_EPOCH, Stored, StoredLog

__all__ = ["Disk", "StoredLeaves", "Taken", "whole"]


class Taken(Refused):
    """A key that had to be new is not."""

    def __init__(self, effect: InsertOnce) -> None:
        super().__init__("intent_conflict", f"{effect.space} {effect.key}")


class StoredLeaves(msgspec.Struct):
    """The records of one log."""

    leaves: list[bytes] = msgspec.field(default_factory=list)
    hashes: list[bytes] = msgspec.field(default_factory=list)


class Disk:
    """One node's file."""

    def __init__(self) -> None:
        self.logs: dict[str, StoredLeaves] = {}
        self.heads: dict[tuple[HeadUse, str], Head] = {}
        self.bodies: dict[str, bytes] = {}
        self.openings: dict[str, bytes] = {}
        self.erased: set[str] = set()
        self.once: dict[tuple[int, Literal["intent", "outcome"], str], int] = {}
        """Index of the record, by time, space and key, as the file has them."""
        self.keys: set[tuple[Literal["intent", "outcome"], str]] = set()
        """What was used, at whatever time."""
        self.places: set[tuple[str, str, int]] = set()
        self.notes: dict[tuple[str, str], dict[int, bytes]] = {}
        self.meta: dict[str, int] = {}
        self.law: dict[str, PutLaw] = {}
        self.bundles: dict[str, bytes] = {}
        self.rotted: dict[tuple[str, int], bytes] = {}
        """Log and index of records in which a bit flipped, to what was written: for who looks on."""
        self.floors: dict[str, tuple[int, int]] = {}
        """Log to its floor, and up to where all was pruned."""
        self.archived: dict[bytes | str, bytes] = {}
        """What was pruned: records by hash, bodies by id, openings by ``opening`` and id; for who looks on."""
        self.full = False
        self.pending: tuple[Persist, ...] = ()
        """The transaction that is being committed."""

    def copy(self) -> "Disk":
        """What a backup taken now holds."""
        other = Disk()
        other.logs = {origin: StoredLeaves(list(log.leaves), list(log.hashes)) for origin, log in self.logs.items()}
        other.notes = {place: dict(notes) for place, notes in self.notes.items()}
        other.heads, other.bodies, other.openings, other.once = dict(self.heads), dict(self.bodies), dict(self.openings), dict(self.once)
        other.erased = set(self.erased)
        other.rotted, other.floors, other.archived = dict(self.rotted), dict(self.floors), dict(self.archived)
        other.keys, other.places, other.meta, other.law = set(self.keys), set(self.places), dict(self.meta), dict(self.law)
        return other

    # ---------------------------------------------------------------------------------------------------------- writing

    def commit(self, effects: Sequence[Persist]) -> None:
        """Make the effects of one step durable, all or none.

        Raises:
            Taken: a key is not new.
            Unavailable: ``storage_failed`` for a full disk.
            Alarm: ``storage_rolled_back``, ``storage_corrupt``.
        """
        if self.full:
            raise Unavailable("storage_failed", "disk full")
        self._check(effects)
        for effect in effects:
            self._apply(effect)
            if isinstance(effect, AppendHashes):
                self._raise_floor(effect.origin, effect.below, effect.first, effect.first + len(effect.hashes))

    def power_cut(self, *, kept: bool) -> tuple[Persist, ...]:
        """The host died: the transaction that was under way is there whole, if ``kept``, or not at all; what was written."""
        pending, self.pending = self.pending, ()
        if not kept:
            return ()
        try:
            self.commit(pending)
        except (Taken, Unavailable):
            return ()
        return pending

    def erase(self, intents: AbstractSet[str]) -> None:
        """Forget these openings, and take none of them in again."""
        self.erased |= intents
        for intent in self.openings.keys() & intents:
            del self.openings[intent]

    def prune(self, origin: str, first: int, end: int, *, below: int) -> None:
        """Keep of these records only the hashes, and nothing of what no other record is found under of which more is kept.

        Raises:
            Alarm: ``storage_rolled_back``: they stand above the floor; ``storage_corrupt``.
        """
        if end > below:
            raise Alarm("storage_rolled_back", f"{origin}: record {end - 1} of a log that is kept from {below} on")
        log, named = self.logs[origin], dict[str, None]()
        for index in range(first, end):
            for leaf in self.records(origin, index, 1) if log.leaves[index] else ():
                record = read_record(leaf)
                named |= dict.fromkeys((*located_ids(record), *serving.body_ids(record)))
                self.archived[log.hashes[index]] = leaf
                log.leaves[index] = b""
        places = [place for place in self.places if place[0] in named]
        kept = {identity for identity, at, index in places if self.logs[at].leaves[index]}
        for identity in {identity for identity, _, _ in places} - kept:
            for held, name in ((self.bodies, identity), (self.openings, f"opening {identity}")):
                if identity in held:
                    self.archived[name] = held.pop(identity)
        self._raise_floor(origin, below, first, end)

    def _raise_floor(self, origin: str, below: int, first: int, end: int) -> None:
        before, done = self.floors.get(origin, (0, 0))
        self.floors[origin] = max(before, below), (end if first <= done < end else done)

    def _check(self, effects: Sequence[Persist]) -> None:
        sizes: dict[str, int] = {}
        heads: dict[tuple[HeadUse, str], Head] = {}
        once: set[tuple[int, str, str]] = set()
        for effect in effects:
            match effect:
                case Append(origin=origin, first=first, leaves=leaves, hashes=hashes):
                    size = sizes.get(origin, self.size(origin))
                    if first != size:
                        raise Alarm("storage_rolled_back", f"{origin}: record {first} where {size} is next")
                    if [leaf_hash(leaf) for leaf in leaves] != list(hashes):
                        raise Alarm("storage_corrupt", f"{origin}: a record comes with another record's hash")
                    sizes[origin] = size + len(leaves)
                case AppendHashes(origin=origin, first=first, hashes=hashes, below=below):
                    if first != sizes.get(origin, self.size(origin)) or first + len(hashes) > below:
                        raise Alarm("storage_rolled_back", f"{origin}: the hash of record {first} out of turn")
                    sizes[origin] = first + len(hashes)
                case SetHead(use=use, origin=origin, head=head):
                    _check_head(use, origin, heads.get((use, origin), self.heads.get((use, origin))), head)
                    heads[use, origin] = head
                case InsertOnce(space=space, key=key, at_ms=at_ms):
                    if (at_ms, space, key) in self.once or (at_ms, space, key) in once:
                        raise Taken(effect)
                    once.add((at_ms, space, key))
                case _:
                    pass

    def _apply(self, effect: Persist) -> None:
        match effect:
            case Append(origin=origin, hashes=hashes) | AppendHashes(origin=origin, hashes=hashes):
                log = self.logs.setdefault(origin, StoredLeaves())
                log.leaves += effect.leaves if isinstance(effect, Append) else [b""] * len(hashes)
                log.hashes += hashes
            case SetHead(use=use, origin=origin, head=head):
                self.heads[use, origin] = head
            case PutBody(id=identity, envelope=data):
                self.bodies.setdefault(identity, data)
            case PutLaw(id=identity):
                self.law.setdefault(identity, effect)
            case PutBundle(digest=digest, data=data):
                self.bundles.setdefault(digest, data)
            case PutOpenings(intent=intent, openings=data):
                if intent not in self.erased:
                    self.openings.setdefault(intent, data)
            case InsertOnce(space=space, key=key, at_ms=at_ms, index=index):
                self.once[at_ms, space, key] = index
                self.keys.add((space, key))
            case Locate(id=identity, origin=origin, index=index):
                self.places.add((identity, origin, index))
            case PutNote(place=place, origin=origin, size=size, note=note):
                self.notes.setdefault((place, origin), {})[size] = note
            case SetMeta(key=key, value=value):
                self.meta[key] = value

    # ---------------------------------------------------------------------------------------------------------- reading

    def size(self, origin: str) -> int:
        """Records held of a log."""
        log = self.logs.get(origin)
        return len(log.leaves) if log is not None else 0

    def records(self, origin: str, first: int, count: int) -> list[bytes]:
        """Leaf data from ``first`` on: at most ``count``, fewer where one was pruned.

        Raises:
            Alarm: ``storage_corrupt`` for a record that has not the hash it was written with.
            Refused: ``record_pruned`` if the first one was.
        """
        leaves = self.verify(origin, first, count)
        if leaves and not leaves[0]:
            raise Refused("record_pruned", f"{origin} {first}")
        return leaves[: leaves.index(b"")] if b"" in leaves else leaves

    def verify(self, origin: str, first: int, count: int) -> list[bytes]:
        """The same, with nothing in place of what was pruned."""
        log = self.logs.get(origin, StoredLeaves())
        leaves = log.leaves[first : first + count]
        if self.rotted and not all(whole(leaf, log.hashes[index]) for index, leaf in enumerate(leaves, first) if leaf):
            raise Alarm("storage_corrupt", f"records {first} to {first + len(leaves) - 1} of {origin}")
        return leaves

    def pruned(self, origin: str, first: int, count: int) -> list[bytes]:
        """Leaf hashes from ``first`` on of records of which nothing else is held, up to one that is."""
        leaves = self.verify(origin, first, count)
        kept = next((at for at, leaf in enumerate(leaves) if leaf), len(leaves))
        return self.hashes(origin)[first : first + kept]

    def rotten(self) -> list[tuple[str, int]]:
        """Log and index of what is not what was written, as whoever looks finds it; in a world nothing else can have rotted."""
        return [place for place in sorted(self.rotted) if self._at(*place)[0] and not whole(*self._at(*place))]

    def _at(self, origin: str, index: int) -> tuple[bytes, bytes]:
        return self.logs[origin].leaves[index], self.logs[origin].hashes[index]

    def written(self, origin: str, index: int) -> bytes:
        """What was written there, whatever became of it: for who looks on."""
        leaf, hash_ = self._at(origin, index)
        return self.rotted.get((origin, index)) or leaf or self.archived.get(hash_, b"")

    def damaged(self) -> list[tuple[str, int]]:
        """As :meth:`rotten`, for who looks on: by what was written, whatever reading believes."""
        return [place for place, leaf in sorted(self.rotted.items()) if self._at(*place)[0] not in (b"", leaf)]

    def rot(self, origin: str, index: int, leaf: bytes) -> None:
        """A record becomes this."""
        self.rotted.setdefault((origin, index), self.logs[origin].leaves[index])
        self.logs[origin].leaves[index] = leaf

    def put_back(self, origin: str, index: int, leaf: bytes) -> bytes:
        """A record becomes this again; what it was."""
        self.logs[origin].leaves[index] = leaf
        return self.rotted.pop((origin, index))

    def hashes(self, origin: str) -> list[bytes]:
        """All leaf hashes held of a log."""
        log = self.logs.get(origin)
        return log.hashes if log is not None else []

    def held(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Envelopes of those of the statements that are held."""
        return {identity: self.bodies[identity] for identity in ids if identity in self.bodies}

    def statements(self, stream: str, after: Cursor, count: int) -> list[bytes]:
        """Governance statements of a stream behind ``after``, in order: at most ``count``."""
        held = sorted((Cursor(item.sequence, item.id), item.envelope) for item in self.law.values() if item.stream == stream)
        return [data for place, data in held if place > after][:count]

    def certificate(self, origin: str, beyond: int) -> bytes:
        """The smallest certificate over more than ``beyond`` records; empty if there is none."""
        certificates = self.notes.get(("certificate", origin), {})
        larger = [size for size in certificates if size > beyond]
        return certificates[min(larger)] if larger else b""

    def largest(self, space: str, origin: str) -> int:
        """The size of the largest note of a kind; of a heartbeat its incarnation. 0 if there is none."""
        return max(self.notes.get((space, origin), ()), default=0)

    def newest(self, space: str, origin: str) -> bytes:
        """The largest note of a kind; empty if there is none."""
        held = self.notes.get((space, origin), {0: b""})
        return held[max(held)]

    def shown(self, roster: Roster, me: Member, asker: Member) -> tuple[list[bytes], bytes]:
        """What may show another member what it has signed: notes, and its heartbeat of the largest incarnation."""
        origin = roster.origin(asker)
        places = [("checkpoint", origin), (f"cosigned {asker.name}", roster.origin(me))]
        notes = [self.notes[place][max(self.notes[place])] for place in places if place in self.notes]
        mine = attest_name(roster.mesh, asker.name).encode()
        for member in roster.members:
            held = self.notes.get(("certificate", roster.origin(member)), {})
            newest = [held[size] for size in sorted(held, reverse=True)[:8]]
            notes += [note for note in newest if mine in note or member.name == asker.name][:1]
        beats = self.notes.get(("heartbeat", origin), {0: b""})
        return notes, beats[max(beats)]

    def governance(self, files: Governance) -> Governance:
        """What the files said with all that was heard since, under the roster that this node went over to."""
        held = restore(files, [read_law(item.envelope) for item in self.law.values()])
        epoch = max(files.roster.epoch, self.meta.get(ROSTER_EPOCH, 0))
        return put_in_force(held, min(epoch, len(held.rosters.ids)))

    def stored(self, governance: Governance, me: Member) -> Stored:
        """What a start reads."""
        roster = governance.roster
        logs = {origin: self._log(origin) for origin in logs_of(governance)}
        own = logs.pop(roster.origin(me))
        law = tuple(read_law(item.envelope) for item in self.law.values())
        heard = {member.name: self.largest("heartbeat", roster.origin(member)) for member in roster.members}
        incarnation, refilled = self.meta.get(INCARNATION, 0), self.meta.get(REFILLED, 0)
        return Stored(incarnation=incarnation, own=own, mirrors=logs, law=law, heard=heard, refilled=refilled, words=self._heard())

    def _heard(self) -> hearing.Words:
        words = dict[str, dict[str, hearing.Word]]()
        for (origin, key), index in hearing.restored(self.meta).items():
            if self.pruned(origin, index, 1):
                continue
            leaf = self.logs[origin].leaves[index]
            for identity in serving.leaf_ids(leaf)[0][:1]:
                word = hearing.word_of(leaf, self.bodies[identity], index=index)
                if word is not None:
                    words.setdefault(origin, {})[key] = word
        return words

    def _last_ms(self, origin: str, log: StoredLeaves) -> int:
        if log.leaves and not log.leaves[-1]:
            own = self.heads.get(("log", origin))
            return own.time_s * 1000 if own is not None else 0
        return read_record(log.leaves[-1]).at_ms if log.leaves else 0

    def _log(self, origin: str) -> StoredLog:
        log = self.logs.get(origin, StoredLeaves())
        size, certified = len(log.leaves), max(self.notes.get(("certificate", origin), {0: b""}))
        first_mark = certified - certified % CHECKPOINT_RECORDS_MAX + CHECKPOINT_RECORDS_MAX
        return StoredLog(
            frontier=Frontier.empty().extend(log.hashes),
            last_ms=self._last_ms(origin, log),
            certified=certified,
            log=self.heads.get(("log", origin)),
            witness=self.heads.get(("witness", origin)),
            attest=self.heads.get(("attest", origin)),
            marks=tuple(Frontier.empty().extend(log.hashes[:mark]) for mark in range(first_mark, size + 1, CHECKPOINT_RECORDS_MAX)),
            refused=self.meta.get(refused_key(origin), -1),
            conflicted=conflict_key(origin) in self.meta,
            checkpoint=self.newest("checkpoint", origin),
            certificate=self.newest("certificate", origin),
            attested=self.newest("attested", origin),
            refusal=self.newest("refused", origin),
            recent=Recent(Frontier.empty().extend(log.hashes[:certified]), tuple(log.hashes[certified:])) if certified < size else None,
        )


def whole(leaf: bytes, hash_: bytes) -> bool:
    """Whether a record has its hash."""
    return leaf_hash(leaf) == hash_


def _check_head(use: HeadUse, origin: str, old: Head | None, new: Head) -> None:
    if old is None:
        return
    if new.size < old.size or new.time_s < old.time_s or (new.size == old.size and new.root != old.root):
        raise Alarm("storage_rolled_back", f"{use} head of {origin} moves from {old.size} at {old.time_s} to {new.size} at {new.time_s}")
