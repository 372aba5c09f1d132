"""Proofs of everything that can be proved, and everything that they can be bent into."""

import copy
import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any, Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.law.activation import Activation, activate_stream
from mesh.core.law.fold import admit_governance, extend, with_bundle
from mesh.core.law.policy import Manifest, policy_stream
from mesh.core.law.reign import Handover
from mesh.core.law.roster import Role, Roster
from mesh.core.log.bundle import Proven, encode_proof, make_proof, read_proof
from mesh.core.log.note import Note, parse_note
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import Authorized, DeniedAnswer, Prove, Proved, unpack
from mesh.protocol.proving import gather
from tests.protocol.machines import LAB, NOW, OWNER, checkpoint
from tests.support.epochs import ROSTERS, lived, proof
from tests.support.factory import DOMAIN, Lab, secret, sign
from tests.support.heard import word
from tests.support.kin import family
from tests.support.proofs import Happened

__all__ = ["LIARS", "Handed", "More", "Rolled", "attested", "bent", "everything", "handed", "more", "rolled"]

Case = tuple[bytes, bytes]
LIARS: Final = [LAB.roster.member(name) for name in ("ap-1", "eu-1", "sa-1")]
"""k of them."""


class More(Happened):
    """What happened before; then payments that people approved, that an emergency allowed, and that lack approvals."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.urgent, self.lacking = self._pay(11), self._pay(12, glass=True), self._pay(13, backed=False)
        self.mesh.run(6)

    def _pay(self, number: int, *, glass: bool = False, backed: bool = True) -> str:
        name, intent, openings = self.lab.intent(number, amount=500, account="vault", at_ms=self.mesh.now_ms)
        said = [self.lab.grant() if glass else self.lab.approval(intent)] if backed else []
        answer = self.mesh.request("us-1", self.lab.request(intent, openings, *said))
        assert isinstance(answer, Authorized if backed else DeniedAnswer)
        if isinstance(answer, Authorized):
            authorization = envelope.identify(bytes(answer.authorization))[1]
            self.mesh.report("eu-1", self.lab.report(self.lab.lived(name, authorization, at_ms=self.mesh.now_ms)))
        return name


class Rolled(Happened):
    """What happened first, under a second policy epoch that two activations put in force: here at once, there never, then everywhere."""

    def __init__(self) -> None:
        lab = Lab()
        first = envelope.read(Manifest, lab.manifest_envelope)
        self.second = lab.next_policy(first)
        begun = lab.activation(self.second, (["eu", "us"], 0))
        self.steps = [begun, lab.activation(self.second, ([], 0), (["eu"], 1), before=begun)]
        lab.governance = extend(lab.governance, [self.second, *self.steps]).governance
        lab.governance = with_bundle(lab.governance, self.second.id, lab.bundle)
        super().__init__(lab)

    def proof(self, name: str, *, outcomes: int | None = None, rosters: Sequence[bytes] = ()) -> bytes:
        main, *rest = self.answers(name)
        said = [step.envelope for step in self.steps]
        bundle = gather(main, rest[:outcomes], manifests=[self.second.envelope], bundles=[self.lab.bundle_bytes], activations=said)
        return encode_proof(bundle)


class Handed(Happened):
    """What happened first, under a policy of other signers than before: a second roster handed the domain over to them."""

    def __init__(self) -> None:
        lab = Lab()
        self.genesis, first = envelope.read(Roster, lab.roster_envelope), envelope.read(Manifest, lab.manifest_envelope)
        begun = lab.activation(first, ([], 0))
        self.former, lab.signers = lab.signers, [secret(f"later policy {number}") for number in range(3)]
        upto = {policy_stream(DOMAIN): first, activate_stream(DOMAIN): begun}
        claims = msgspec.structs.replace(
            lab.roster,
            epoch=2,
            previous=self.genesis.id,
            not_before_ms=lab.roster.not_before_ms + 10_000,
            policy={DOMAIN: Role(keys=sorted(key.public for key in lab.signers), threshold=2)},
            handovers={name: Handover(sequence=1, head=last.id) for name, last in upto.items()},
        )
        self.roster = envelope.read(Roster, lab.seal(claims))
        self.second = lab.next_policy(first, since=self.roster.id)
        step = msgspec.structs.replace(lab.activation(self.second, ([], 0), before=begun).claims, since=self.roster.id)
        self.steps = [begun, envelope.read(Activation, sign(step, *lab.signers[:2]))]
        lab.roster, lab.roster_envelope, lab.pin = self.roster.claims, self.roster.envelope, self.roster.id
        lab.governance = admit_governance(
            self.genesis, pin=lab.pin, manifests=[first, self.second], bundles=[lab.bundle_bytes], said=[self.roster, *self.steps]
        )
        super().__init__(lab)

    def proof(self, name: str, *, outcomes: int | None = None, rosters: Sequence[bytes] = ()) -> bytes:
        main, *rest = self.answers(name)
        said = [step.envelope for step in self.steps]
        law = {"manifests": [self.second.envelope], "bundles": [self.lab.bundle_bytes], "activations": said}
        return encode_proof(gather(main, rest[:outcomes], rosters=rosters, **law))


@cache
def handed() -> Handed:
    return Handed()


@cache
def rolled() -> Rolled:
    return Rolled()


@cache
def more() -> More:
    return More()


def _heard() -> bytes:
    said = word(LAB, at_ms=NOW)
    record = canonical.encode(
        {
            "record": "heard",
            "mesh": "lab",
            "origin": LAB.roster.origin(OWNER),
            "index": 0,
            "at_ms": NOW,
            "heard": said.id,
            "identity": envelope.identify(LAB.place_envelope)[1],
            "subject": LAB.place.subject,
        }
    )
    bodies = [msgspec.Raw(said.envelope), msgspec.Raw(LAB.place_envelope)]
    return encode_proof(make_proof(Proven(record=msgspec.Raw(record), proof=attested(record), bodies=bodies)))


def attested(record: bytes) -> str:
    """A proof that k members have attested that record, whatever it says."""
    return TlogProof(index=0, path=(), note=checkpoint([record], *LIARS)).encode().decode()


def everything() -> Iterator[Case]:
    """Proofs of every kind of record, of every epoch, whole or with something missing."""
    for name in ("permitted", "forbidden", "late", "large", "urgent", "lacking"):
        yield more().proof(getattr(more(), name)), more().lab.roster_envelope
    for node in more().mesh.nodes.values():
        for index in range(node.state.log.certified):
            answer = unpack(Proved, node.answer(canonical.encode(Prove(origin=node.origin, index=index))))
            bundle = gather(answer, [], manifests=[more().lab.manifest_envelope], bundles=[more().lab.bundle_bytes])
            yield encode_proof(bundle), more().lab.roster_envelope
    for recorded in (1, 2, 3):
        for trust in ROSTERS:
            for shown in ((1, 2, 3), (2, 3), (1, 2), ()):
                yield proof(recorded, lived(recorded).permitted, *shown), trust.envelope
    whole = read_proof(more().proof(more().permitted))
    tlog = TlogProof.parse(whole.proof.encode())
    note = parse_note(tlog.note)
    fewer = msgspec.structs.replace(tlog, note=Note(note.text, note.lines[:-1]).encode()).encode().decode()
    parts: list[dict[str, Any]] = [{"openings": []}, {"proof": ""}, {"proof": fewer}, {"bodies": []}, {"outcomes": []}]
    for changed in parts:
        yield encode_proof(msgspec.structs.replace(whole, **changed)), more().lab.roster_envelope
    yield _heard(), LAB.roster_envelope
    for name in ("permitted", "forbidden"):
        yield rolled().proof(getattr(rolled(), name)), rolled().lab.roster_envelope
        both = [handed().genesis.envelope, handed().roster.envelope]
        for anchor, held in product(both, (both, both[1:], [])):
            yield handed().proof(getattr(handed(), name), rosters=held), anchor
    for name in ("child", "grandchild", "user"):
        yield family().proof(getattr(family(), name)), family().lab.roster_envelope


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _other(value: Any) -> Any:
    """Something else of the same kind, as like it as can be."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return ("1" if value[0] != "1" else "2") + value[1:] if value else "x"
        case list():
            return value[1:] or [*value, 0]
        case _:
            return {**value, "more": 1}


def bent(data: bytes) -> Iterator[bytes]:
    """The same JSON with one part changed, left out, doubled or turned round, in the one spelling again."""
    value = json.loads(data)
    for path in list(_paths(value))[1:]:
        *before, last = path
        for how in ("other", "gone", "twice", "turned"):
            changed = copy.deepcopy(value)
            place = _at(changed, tuple(before))
            if how == "other":
                place[last] = _other(place[last])
            elif how == "gone":
                del place[last]
            elif how == "twice" and isinstance(place, list):
                place.insert(last, place[last])
            elif how == "turned" and isinstance(place[last], list) and len(place[last]) > 1:
                place[last] = place[last][::-1]
            else:
                continue
            yield canonical.encode(changed)
