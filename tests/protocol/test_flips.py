"""No byte of what a log is made of can be changed unseen: records, statements, openings, certificates; nor their order."""

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from random import Random
from typing import Any, Final, NamedTuple, get_args

import msgspec
import pytest

from mesh.adapters.sealer import seal
from mesh.core.bytes import canonical, envelope
from mesh.core.log.archive import Packer, Unpacker
from mesh.core.log.bundle import read_proof
from mesh.core.log.record import (
    AttestRefused,
    Cosigned,
    CosignedHead,
    EnforcerHeard,
    Incident,
    Noise,
    OutcomeRecorded,
    Record,
    Refusal,
    encode_record,
    read_record,
)
from mesh.core.messages import Authorized, LineageBatch, Openings, pack
from mesh.core.run.heard import Heard
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent, Measurement
from mesh.core.run.outcome import Aborted, Blocked, Event, Failed, Finished, Outcome, Unknown, event_name
from mesh.core.run.params import commit
from mesh.errors import Refused
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent, AuditState
from mesh.protocol.events import LineageArrived, NoteArrived
from mesh.protocol.serving import body_ids, opening_ids
from mesh.verify import verify
from tests.protocol.machines import checkpoint
from tests.support.factory import AUDITORS, Lab, sign
from tests.support.heard import word
from tests.support.kin import Family
from tests.support.proofs import happened
from tests.support.sealed import hidden
from tests.support.spans import Field, fields_of, spans

MEMBERS: Final = {member.name: member for member in Lab().roster.members}
ORIGIN: Final = "lab/us-1/e1"
KINDS: Final = {"intent": Intent, "identity": Identity, "outcome": Outcome, "heard": Heard}
PLACES: Final = 12
"""Bytes of each part that are changed beside those of its fields."""


class Part(NamedTuple):
    """One record with all that goes with it."""

    leaf: bytes
    bodies: tuple[bytes, ...]
    openings: tuple[Openings, ...]
    note: bytes
    """Over it and all before it, by the log's key, with the lines of exactly k."""


def _more(story: Family) -> None:
    """Requests whose records have every part that a decision can have."""
    lab, mesh = story.lab, story.mesh
    for number, account in ((21, "vault"), (22, "vault"), (23, "vault")):
        name, data, openings = lab.intent(number, amount=500, account=account, memo="rent", at_ms=mesh.now_ms)
        claims = envelope.read(Intent, data).claims
        measured = [Measurement(name="program", digest="blake3:" + "ab" * 32)]
        seals, boxes = seal(hidden(number=number), {who: key.public for who, key in AUDITORS.items()}, holder=lab.holder.public)
        committed = {**claims.committed, "payee": commit(hidden(number=number))}
        intent = sign(msgspec.structs.replace(claims, measurements=measured, committed=committed, sealed={"payee": seals}), lab.holder)
        assert name
        approvals = {21: [], 22: [lab.approval(intent)], 23: [lab.grant()]}[number]
        answer = mesh.request("us-1", lab.request(intent, openings, *approvals, boxes=boxes))
        assert isinstance(answer, Authorized) is (number != 21)
    story.deny("us-1", 24, "action_unknown", action="steal")
    mesh.run(6)


def _parts() -> list[Part]:
    story = Family()
    _more(story)
    lab, node = story.lab, story.mesh.nodes["us-1"]
    leaves, bodies, at_ms = list(node.logs[ORIGIN]), dict(node.bodies), story.mesh.now_ms
    place, intent, authorization = envelope.identify(lab.place_envelope)[1], story.permitted, story.authorization
    output = [Measurement(name="report", digest="blake3:" + "cd" * 32)]
    events: list[Event] = [
        lab.started(), Finished(status=0, outputs=output, duration_ms=5), Failed(status=1, error="exit", outputs=output, duration_ms=5),
        Aborted(code="revoked", duration_ms=5), Unknown(boot="b1" * 32), Blocked(code="stale", detail="late"),
    ]  # fmt: skip

    def add(make: Any, **rest: Any) -> None:
        leaves.append(encode_record(make(mesh="lab", origin=ORIGIN, index=len(leaves), at_ms=at_ms, **rest)))

    for number, event in enumerate(events):
        said = lab.outcome(intent, authorization, event, sequence=number, previous="", at_ms=at_ms)
        bodies[envelope.identify(said)[1]] = said
        names = {"outcome": envelope.identify(said)[1], "identity": place, "intent": intent, "authorization": authorization}
        add(OutcomeRecorded, event=event_name(event), **names)
    heard = word(lab, at_ms=at_ms)
    bodies[heard.id] = heard.envelope
    add(EnforcerHeard, heard=heard.id, identity=place, subject=lab.place.subject)
    add(Noise, code="malformed", count=3, from_ms=1, to_ms=at_ms)
    add(Incident, code="log_conflict", detail="seen")
    refusal = Refusal(
        mesh="lab", member="us-1", origin="lab/eu-1/e1", index=3, leaf="ab" * 32, reason="missing", code="body_missing", at_ms=at_ms
    )
    add(AttestRefused, refusal=refusal)
    add(Cosigned, heads=[CosignedHead(origin="lab/eu-1/e1", root="cd" * 32, size=10**6, time_s=at_ms // 1000)])
    bodies[place] = lab.place_envelope
    return list(_whole(leaves, bodies, node.openings))


def _whole(leaves: Sequence[bytes], bodies: dict[str, bytes], openings: dict[str, bytes]) -> Iterator[Part]:
    owner = MEMBERS["us-1"]
    for number, leaf in enumerate(leaves):
        record = read_record(leaf)
        opened = [openings[name] for name in opening_ids(record) if name in openings]
        yield Part(
            leaf,
            tuple(bodies[name] for name in body_ids(record)),
            tuple(canonical.decode(Openings, data, bytes_max=100_000) for data in opened),
            checkpoint(leaves[: number + 1], MEMBERS["ap-1"], MEMBERS["sa-1"], owner, owner=owner),
        )


class Judged(NamedTuple):
    """What an auditor makes of a log: all that a change must change."""

    final: int
    decisions: tuple[int, int, int]
    findings: int


class Log:
    """A log with everything in it, and an auditor that stands before each of its records."""

    def __init__(self) -> None:
        self.story = Family()
        self.parts = _parts()
        self.now_ms = self.story.mesh.now_ms + 60_000
        self.audit = Audit(self.story.lab.governance, self.story.lab.engine)
        self.before = [self.audit.begin(None)]
        for number, part in enumerate(self.parts):
            self.before.append(self.after(number, part))

    def after(self, number: int, part: Part, *, first: int | None = None) -> AuditState:
        """The state after record ``number``, which comes as ``part``."""
        try:
            raws = [msgspec.Raw(body) for body in part.bodies]
            batch = LineageBatch(
                origin=ORIGIN,
                first=number if first is None else first,
                records=[msgspec.Raw(part.leaf)],
                bodies=raws,
                pruned=[],
                openings=list(part.openings),
                checkpoint="",
                path=[],
                start=[],
            )
            events: list[AuditEvent] = [LineageArrived(pack(batch), pulled=False), NoteArrived(part.note)]
        except UnicodeDecodeError:
            events = [LineageArrived(part.leaf, pulled=False), NoteArrived(part.note)]
        return self.audit.step(self.before[number], events, now_ms=self.now_ms).state

    def judged(self, state: AuditState) -> Judged:
        log = state.logs[ORIGIN]
        return Judged(log.certified, (log.match, log.mismatch, log.unverifiable), state.found)

    def unseen(self, number: int, part: Part) -> bool:
        """Whether an auditor takes ``part`` for what stands there."""
        changed = self.after(number, part)
        return self.judged(changed) == self.judged(self.before[number + 1])


@pytest.fixture(scope="module")
def log() -> Log:
    return Log()


def _flipped(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _sampled(data: bytes, random: Random) -> Iterator[bytes]:
    """The bytes with some of them changed, one at a time."""
    for at in random.sample(range(len(data)), min(PLACES, len(data))):
        yield _flipped(data, at, random)


def _resealed(body: bytes, payload: bytes) -> bytes:
    """The same envelope around another payload, under the former signatures."""
    value = json.loads(body)
    value["payload"] = base64.b64encode(payload).decode()
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _kind(body: bytes) -> type[Any]:
    return KINDS[envelope.identify(body)[0].split(".")[-2]]


# ---------------------------------------------------------------------------------------------------------------- it is whole


def test_the_log_is_final_to_its_end_and_holds_every_field_that_there_is(log: Log) -> None:
    assert log.judged(log.before[-1]).final == len(log.parts)
    assert all(log.unseen(number, part) for number, part in enumerate(log.parts))
    covered = set[Field]()
    for part in log.parts:
        covered |= {span.field for span in spans(read_record(part.leaf), part.leaf)}
        for body in part.bodies:
            payload = canonical.encode(envelope.read(_kind(body), body).claims)
            covered |= {span.field for span in spans(envelope.read(_kind(body), body).claims, payload)}
        for openings in part.openings:
            covered |= {span.field for span in spans(openings, canonical.encode(openings))}
    assert fields_of(*get_args(Record), *KINDS.values(), Openings) - covered == set()


# -------------------------------------------------------------------------------------------------------------- one byte


def test_one_changed_byte_of_any_field_of_any_record_is_seen(log: Log) -> None:
    random, changed = Random(1), 0
    for number, part in enumerate(log.parts):
        places = {random.randrange(span.start, span.end) for span in spans(read_record(part.leaf), part.leaf)}
        for leaf in (*(_flipped(part.leaf, at, random) for at in sorted(places)), *_sampled(part.leaf, random)):
            changed += 1
            assert not log.unseen(number, part._replace(leaf=leaf)), (number, leaf)
    assert changed > 500


def test_one_changed_byte_of_any_field_of_any_statement_is_seen(log: Log) -> None:
    random, changed = Random(2), 0
    for number, part in enumerate(log.parts):
        for at, body in enumerate(part.bodies):
            claims = envelope.read(_kind(body), body).claims
            payload = canonical.encode(claims)
            places = {random.randrange(span.start, span.end) for span in spans(claims, payload)}
            inside = [_resealed(body, _flipped(payload, place, random)) for place in sorted(places)]
            for other in (*inside, *_sampled(body, random)):
                changed += 1
                bodies = (*part.bodies[:at], other, *part.bodies[at + 1 :])
                assert not log.unseen(number, part._replace(bodies=bodies)), (number, at, other)
    assert changed > 1_000


def test_one_changed_opening_is_seen(log: Log) -> None:
    changed = 0
    for number, part in enumerate(log.parts):
        for one in part.openings:
            for at, opening in enumerate(one.openings):
                for lie in ({"name": "memos"}, {"salt": "0" * 32}, {"value": f"{opening.value}."}, {"value": 7}):
                    changed += 1
                    others = [*one.openings[:at], msgspec.structs.replace(opening, **lie), *one.openings[at + 1 :]]
                    lied = msgspec.structs.replace(one, openings=others)
                    assert not log.unseen(number, part._replace(openings=(lied,)))
    assert changed >= 8


def test_one_changed_byte_anywhere_in_a_checkpoint_or_an_attestation_is_seen(log: Log) -> None:
    """With the lines of exactly k: with more, one more or less changes nothing."""
    random, changed = Random(3), 0
    for number in (0, len(log.parts) // 2, len(log.parts) - 1):
        part = log.parts[number]
        for at in range(len(part.note)):
            changed += 1
            assert not log.unseen(number, part._replace(note=_flipped(part.note, at, random))), (number, at)
    assert changed > 1_000


# --------------------------------------------------------------------------------------------------- removed, moved, rolled back


def _read(log: Log, leaves: Sequence[bytes], notes: Sequence[bytes]) -> Judged:
    """What is made of these records with all statements, and these notes."""
    bodies = list(dict.fromkeys(body for part in log.parts for body in part.bodies))
    openings = [one for part in log.parts for one in part.openings]
    raws = [msgspec.Raw(leaf) for leaf in leaves]
    batch = LineageBatch(
        origin=ORIGIN,
        first=0,
        records=raws,
        bodies=[msgspec.Raw(body) for body in bodies],
        pruned=[],
        openings=openings,
        path=[],
        start=[],
        checkpoint="",
    )
    events: list[AuditEvent] = [LineageArrived(pack(batch), pulled=False), *(NoteArrived(note) for note in notes)]
    return log.judged(log.audit.step(log.audit.begin(None), events, now_ms=log.now_ms).state)


def test_records_that_were_removed_moved_doubled_or_cut_off_lead_nowhere(log: Log) -> None:
    leaves, last = [part.leaf for part in log.parts], log.parts[-1].note
    assert _read(log, leaves, [last]).final == len(leaves)
    for at in range(len(leaves)):
        assert _read(log, leaves[:at] + leaves[at + 1 :], [last]).final == 0
        if at < len(leaves) - 1:  # behind the last one it is only a record that nobody has signed
            assert _read(log, [*leaves[:at], leaves[at], *leaves[at:]], [last]).final == 0
        assert _read(log, leaves[:at], [last]).final == 0
        if at:
            assert _read(log, [*leaves[: at - 1], leaves[at], leaves[at - 1], *leaves[at + 1 :]], [last]).final == 0


def test_a_log_that_was_rolled_back_and_goes_on_otherwise_is_two_histories(log: Log) -> None:
    owner, size = MEMBERS["us-1"], len(log.parts)
    short = [part.leaf for part in log.parts[: size - 3]]
    other = Noise(mesh="lab", origin=ORIGIN, index=size - 3, at_ms=log.now_ms, code="stale", count=1, from_ms=0, to_ms=1)
    rewritten = [*short, encode_record(other)]
    leaves = [part.leaf for part in log.parts]
    for lines in ((), (MEMBERS["ap-1"], MEMBERS["sa-1"], owner)):
        note = checkpoint(rewritten, *lines, owner=owner)
        both = _read(log, leaves, [log.parts[size - 3].note, note])
        assert both.findings == 1 + log.judged(log.before[size - 2]).findings


# ------------------------------------------------------------------------------------------------------------- in one file


def _unpacked(data: bytes) -> list[bytes]:
    unpacker = Unpacker()
    proofs = [proof for line in data.splitlines(keepends=True) if (proof := unpacker.take(line)) is not None]
    unpacker.close()
    return proofs


def test_one_changed_byte_of_a_file_of_many_proofs_is_seen() -> None:
    story, random = happened(), Random(4)
    proofs = [story.proof(name) for name in (story.permitted, story.forbidden, story.late)]
    packer = Packer()
    data = packer.begin() + b"".join(packer.add(read_proof(proof)) for proof in proofs) + packer.end()
    assert _unpacked(data) == proofs
    lines = [0, *accumulate(len(line) for line in data.splitlines(keepends=True))]
    places = {random.randrange(start, end) for start, end in pairwise(lines) for _ in range(8)}
    judged = 0
    for at in sorted({*places, *random.sample(range(len(data)), 150)}):
        try:
            read = _unpacked(_flipped(data, at, random))
        except Refused:
            continue
        assert len(read) == len(proofs)
        for other in (other for other, proof in zip(read, proofs, strict=True) if other != proof):
            judged += 1
            with suppress(Refused):
                assert verify(other, trust=story.lab.roster_envelope).verdict == "FAILED", at
        assert read != proofs, at
    assert judged > 20
