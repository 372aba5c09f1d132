"""Members that lie: two processes with the keys of one, a braggart, a governor that turns policy around, a poisoner, a slanderer.

Rules
-----
1. A liar has its own keys and nobody else's. Otherwise it does what it likes, and the real machine helps it.
2. *Twins* are two whole governors with one member's keys, each with its own disk and log; who talks to which is fixed for a world,
   and some hear both. So every key of the member signs two histories, each of which is perfect by itself.
3. A *braggart* changes its heartbeats and signs them again: it claims to know more than there is, from another time, of a log of
   another length. Whoever starts is told of incarnations that never were, of law that is not, or of nothing.
4. A *turncoat* decides the opposite of policy, and records it in good form.
5. *Thieves* have all keys of members that were removed, and nobody else's: they certify what never was, under a former roster.
6. A *poisoner* publishes records of others' logs that nobody wrote, and answers with such whoever asks it for others' records.
7. A *slanderer* publishes proofs against honest members: of their own notes, of other notes, and of both, in good form. And it
   refuses their records, as itself, again under another time, and in the name of somebody else.
"""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.law.barrier import Barrier
from mesh.core.law.fraud import accuse
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.roster import Roster
from mesh.core.law.succession import same_member
from mesh.core.law.unlawful import unlawful_of
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosignature_line, log_line, read_checkpoint
from mesh.core.log.merkle import inclusion_path, tree_get
from mesh.core.log.note import Note, cosignature_message, parse_note
from mesh.core.log.record import Noise, Refusal
from mesh.core.messages import Accusation, BarrierAnswer, LawBatch, LineageBatch, pack, unpack
from mesh.errors import Refused
from mesh.limits import INT_MAX
from mesh.testing.world import keys

__all__ = ["KINDS", "Braggart", "Poisoner", "Slanderer", "thieves"]

KINDS: Final = ("twins", "twins", "braggart", "turncoat", "poisoner", "slanderer")
_MS: Final = (-4_000, -600, -200, 0, 0, 0, 200, 600, 4_000, 86_400_000)


class Braggart:
    """What a member's heartbeats are before they leave."""

    def __init__(self, member: str, roster: Roster, random: Random) -> None:
        self._member = member
        self._origin = roster.origin(roster.member(member))
        self._random = random
        self._boasts = random.choice((0.5, 1.0, 1.0))
        # Whoever lies about one thing only is believed for longer.
        bends = random.random() < 0.5
        self._times = _MS if bends else (0,)
        self._numbers = (0, 0, 0, 1, 1_000) if bends else (0,)

    def heartbeat(self, data: bytes) -> bytes:
        """Another heartbeat instead of this one, as well signed."""
        beat, random = envelope.read(Heartbeat, data).claims, self._random
        frontier = {head.stream: head for head in beat.frontier}
        if random.random() < self._boasts:
            stream = random.choice([*frontier, f"revoke/{keys.public('revoker')}", "policy/other"])
            frontier[stream] = StreamHead(
                stream=stream, sequence=random.randrange(2, 9), head=keys.nonce("head", random.random()), forked=False, held=""
            )
        changed = msgspec.structs.replace(
            beat,
            frontier=[frontier[stream] for stream in sorted(frontier)],
            signed_ms=beat.signed_ms + random.choice(self._times),
            sequence=beat.sequence + random.choice(self._numbers),
            checkpoint=self._checkpoint() if random.random() < 0.3 else beat.checkpoint,
        )
        return keys.signed(envelope.draft(changed), f"{self._member} decision")

    def answer(self, data: bytes) -> bytes:
        """What is said instead of this answer, if it is one to a start."""
        try:
            message = unpack(BarrierAnswer, data)
            claims = envelope.read(Barrier, bytes(message.barrier)).claims
        except Refused:
            return data
        law = StreamHead(stream=f"revoke/{keys.public('revoker')}", sequence=99, head=keys.nonce("head"), forked=False, held="")
        certificates = message.certificates if self._random.random() < 0.5 else []
        lies: dict[str, Any] = self._random.choice(({"incarnation": INT_MAX}, {"frontier": [law]}, {"marks": []}, {}))
        changed = msgspec.structs.replace(claims, **lies)
        said = keys.signed(envelope.draft(changed), f"{self._member} decision")
        heartbeat = message.heartbeat if self._random.random() < 0.7 else []
        return pack(BarrierAnswer(barrier=msgspec.Raw(said), heartbeat=heartbeat, certificates=certificates))

    def _checkpoint(self) -> str:
        text = Checkpoint(self._origin, self._random.choice((1, 5, 40, 1 << 40)), bytes.fromhex(keys.nonce("root"))).to_text()
        name = f"{self._member} log"
        return Note(text, (log_line(self._origin, keys.public(name), keys.sign(name, text)),)).encode().decode()


def thieves(former: Roster, newest: Roster) -> bytes:
    """A certificate by k of ``former`` over records that nobody wrote, if that many of its keys are no member's in ``newest``."""
    gone = [member for member in former.members if not any(same_member(member, other) for other in newest.members)]
    if len(gone) < former.k:
        return b""
    origin = former.origin(gone[0])
    text = Checkpoint(origin, 1 << 20, bytes.fromhex(keys.nonce("stolen"))).to_text()
    lines = [log_line(origin, gone[0].log_key, keys.sign(f"{gone[0].name} log", text))]
    for member in gone:
        signature = keys.sign(f"{member.name} attest", cosignature_message(text, 1))
        lines.append(cosignature_line(attest_name(former.mesh, member.name), member.attest_key, 1, signature))
    return Note(text, tuple(lines)).encode()


class Poisoner:
    """Records that nobody wrote, in good form and at the right place."""

    def __init__(self, member: str, roster: Roster, random: Random) -> None:
        self._own = roster.origin(roster.member(member))
        self._mesh = roster.mesh
        self._random = random

    def invented(self, origin: str, first: int, at_ms: int) -> bytes:
        """A batch of records of that log, as if they came next."""
        records = [
            Noise(mesh=self._mesh, origin=origin, index=index, at_ms=at_ms, code="malformed", count=1, from_ms=0, to_ms=at_ms)
            for index in range(first, first + self._random.choice((1, 3, 20)))
        ]
        raws = [msgspec.Raw(canonical.encode(record)) for record in records]
        return pack(
            LineageBatch(origin=origin, first=first, records=raws, bodies=[], pruned=[], openings=[], path=[], start=[], checkpoint="")
        )

    def answer(self, data: bytes, at_ms: int) -> bytes:
        """What is said instead of this answer."""
        try:
            batch = unpack(LineageBatch, data)
        except Refused:
            return data
        return data if batch.origin == self._own else self.invented(batch.origin, batch.first, at_ms)


class Slanderer:
    """Proofs against others that prove nothing."""

    def __init__(self, member: str, roster: Roster, random: Random) -> None:
        self._member = member
        self._roster = roster
        self._random = random

    def slander(self, origin: str, notes: Sequence[bytes]) -> bytes:
        """What is published against the owner of that log, of whose signed notes these are at hand: nothing if there is none."""
        random, owner = self._random, self._roster.owner(origin)
        if not notes or owner.name == self._member:
            return b""
        one, other = (parse_note(random.choice(notes)) for _ in range(2))
        halves = [(note.text, line) for note in (one, other) for line in note.lines if line.name == origin][:2]
        size = Checkpoint.from_text(halves[0][0]).size
        invented = Checkpoint(origin, size, bytes.fromhex(keys.nonce("slander", random.random()))).to_text()
        kind = random.randrange(4)
        if kind == 0:  # the owner's line, over what it never signed
            halves[1] = invented, halves[0][1]
        elif kind == 1:  # by somebody's own key, under the owner's name
            name = f"{self._member} log"
            halves[1] = invented, log_line(origin, keys.public(name), keys.sign(name, invented))
        root = bytes.fromhex(keys.nonce("root", random.random())) if kind == 2 else b""
        path = [bytes.fromhex(keys.nonce("path", random.random())) for _ in range(random.randrange(4))] if kind == 2 else []
        proof = accuse(self._roster.mesh, owner.log_key, halves, root=root, path=path)
        return pack(LawBatch(statements=[msgspec.Raw(proof.envelope)]))

    def refuse(self, origin: str, hashes: Sequence[bytes], notes: Sequence[bytes]) -> tuple[bytes, bytes]:
        """What is said of a record of that log, which is honest, and what is passed off as a proof; nothing if no note covers one."""
        random, owner = self._random, self._roster.owner(origin)
        covering = [note for note in notes if 0 < read_checkpoint(note).size <= len(hashes)]
        if not covering or owner.name == self._member:
            return b"", b""
        note = random.choice(covering)
        size = read_checkpoint(note).size
        index = random.randrange(size)
        leaf, path = hashes[index].hex(), [value.hex() for value in inclusion_path(tree_get(hashes[:size]), index, size)]
        names = [self._member, random.choice(self._roster.members).name]
        said = [
            Refusal(
                mesh=self._roster.mesh,
                member=name,
                origin=origin,
                index=index,
                leaf=leaf,
                reason="wrong",
                code="replay_mismatch",
                at_ms=at_ms,
            )
            for name in names
            for at_ms in (1, 2)
        ]
        signed = [keys.signed(envelope.draft(refusal), f"{self._member} decision") for refusal in said]
        lone = parse_note(note).only(origin).encode()
        proof = unlawful_of(self._roster.mesh, owner.log_key, lone, index, leaf, path, random.choice((signed, signed[:2], signed[:1])))
        accusation = Accusation(note=lone.decode(), path=path, refusal=msgspec.Raw(random.choice(signed)))
        return pack(accusation), pack(LawBatch(statements=[msgspec.Raw(proof.envelope)]))
