"""What happened in the example world: one payment that ran, one that policy denied, and everything a log can hold.

Not here: who was there (:mod:`mesh.contracts.example`), files (:mod:`mesh.contracts.vectors`).
"""

from functools import cache
from typing import Final, NamedTuple

import msgspec

from mesh.contracts.accused import REFUSED, accusation, refusal_by, two_roots, unlawful
from mesh.contracts.example import MEMBERS, MESH, NODE, OPENING, Signed, approvals, asked, base, decided, hex32, key, sign, start_ms
from mesh.contracts.notes import ORIGIN, checkpoint_note, cosigned
from mesh.core.bytes import envelope
from mesh.core.law.activation import Activation, Ring
from mesh.core.law.barrier import Barrier, marks_of
from mesh.core.law.erase import Erase
from mesh.core.law.halt import Halt, halt_stream
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.policy import Manifest
from mesh.core.law.resolve import Resolve
from mesh.core.law.retain import Floor, Retain
from mesh.core.law.revocation import Revocation, Target
from mesh.core.log.bundle import Proven, encode_proof, make_proof
from mesh.core.log.certificate import certificate_note
from mesh.core.log.checkpoint import AddCheckpoint, log_origin
from mesh.core.log.merkle import Frontier, consistency_path, inclusion_path, leaf_hash, tree_get
from mesh.core.log.note import append_lines, parse_note
from mesh.core.log.record import (
    AttestRefused,
    Cosigned,
    CosignedHead,
    DecisionMade,
    Denied,
    EnforcerHeard,
    GovernanceChanged,
    Incident,
    Noise,
    OutcomeRecorded,
    Record,
    encode_record,
)
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import (
    Authorized,
    BarrierAnswer,
    BarrierAsked,
    DeniedAnswer,
    Find,
    HeardAsked,
    HeardGiven,
    HeardRequest,
    HeardWord,
    IntentRequest,
    Leaves,
    LineageBatch,
    OutcomeAnswer,
    OutcomeRequest,
    Prove,
    Pull,
    RefusedAnswer,
    StatusAsked,
    Sync,
    SyncAnswer,
    pack,
)
from mesh.core.run.authorization import Denial, Possession, Receipt, RecordRef
from mesh.core.run.decision import Decision, Verdict
from mesh.core.run.heard import Heard
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Measurement
from mesh.core.run.outcome import CHECKS, Check, Event, Finished, Outcome, Started
from mesh.protocol.examine import Question, authorization_draft

__all__ = ["ORIGIN", "Story", "story"]

Raw = msgspec.Raw
_PERMIT: Final = Verdict(allow=True, determining=("payments/send-by-payers",), errors=())
_FORBID: Final = Verdict(allow=False, determining=("payments/unapproved-limit",), errors=())
_ENGINE: Final = "example-engine 1"
_SEEN: Final = 5
"""Records that a witness saw before."""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    statements: tuple[Signed, ...]
    records: tuple[bytes, ...]
    """Leaf data of the log of :data:`~mesh.contracts.example.NODE`."""
    roots: tuple[bytes, ...]
    """Root of the first n records, from n = 0."""
    inclusion: dict[int, tuple[bytes, ...]]
    """Index to path in the whole log."""
    consistency: dict[int, tuple[bytes, ...]]
    """Old size to path to the whole log."""
    checkpoint: bytes
    certificate: bytes
    add_checkpoint: bytes
    """What a witness that knows the log's first five records is asked."""
    proof: bytes
    """tlog-proof of the record that permitted."""
    bundle: bytes
    """Proof bundle of the same."""
    messages: dict[str, bytes]
    permitted: tuple[Question, Decision]
    denied: tuple[Question, Decision]


class _Said(NamedTuple):
    """Statements that messages carry."""

    intent: Signed
    authorization: Signed
    denial: Signed
    heartbeat: Signed
    barrier: Signed
    heard: Signed


class _Outcomes(NamedTuple):
    """What the enforcer said, and what it got for that."""

    said: tuple[Signed, ...]
    receipts: tuple[Signed, ...]


@cache
def story() -> Story:
    """The same in every run."""
    return _Teller().tell()


class _Teller:
    """The working copy: records get their indexes in the order in which they are told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.statements: list[Signed] = [base().roster, base().manifest, base().workload, base().enforcer]

    def tell(self) -> Story:
        self._add(GovernanceChanged, at_ms=start_ms(1), change="started", about=base().roster.draft.id)
        intent = asked("intent", "acct:acme-supplies", 124_900, minute=2)
        permitted = decided(intent, _PERMIT, at_ms=start_ms(2) + 40)
        place = ORIGIN, len(self.records)
        draft = authorization_draft(*permitted, base().governance, issuer=NODE, place=place, at_ms=start_ms(2) + 40)
        self._decision(permitted, start_ms(2) + 40, draft.id)
        authorization = self._resign("authorization", draft)
        possession = Possession(mesh=MESH, intent=intent.draft.id, enforcer=key("enforcer").public, challenge=hex32("challenge"))
        self.statements += [intent, authorization, sign("possession", possession, "workload")]
        beats = [self._heartbeat(name) for name in MEMBERS]
        about = intent.draft.id, draft.id
        started, first = self._outcome("outcome-started", 0, "", about, _started(beats), start_ms(2) + 200)
        finished, second = self._outcome("outcome", 1, started.draft.id, about, _finished(), start_ms(2) + 900)
        outcomes = _Outcomes((started, finished), (first, second))
        unpaid = asked("intent-that-is-denied", "acct:mule-77", 199_000, minute=3)
        denied = decided(unpaid, _FORBID, at_ms=start_ms(3) + 40)
        reference = self._decision(denied, start_ms(3) + 40, "")
        denial = self._sign(
            "denial",
            Denial(
                mesh=MESH,
                issuer=NODE,
                intent=unpaid.draft.id,
                code="policy_denied",
                detail="",
                determining=denied[1].determining,
                at_ms=start_ms(3) + 40,
                record=reference,
            ),
        )
        self.statements += [
            first,
            beats[0],
            unpaid,
            denial,
            self._revocation(),
            *self._halts(),
            self._resolve(),
            *self._let_go(intent),
            two_roots(),
            unlawful(),
            *self._renewal(),
            self._rest(),
        ]
        self.statements += [start := self._barrier(), heard := self._heard(), *approvals(unpaid)]
        return self._told(permitted, denied, _Said(intent, authorization, denial, beats[0], start, heard), outcomes)

    # ---------------------------------------------------------------------------------------------------------- records

    def _add(self, kind: type[Record], **members: object) -> RecordRef:
        index = len(self.records)
        record: Record = kind(mesh=MESH, origin=ORIGIN, index=index, **members)  # type: ignore[arg-type]
        self.records.append(record)
        return RecordRef(origin=ORIGIN, index=index, leaf=leaf_hash(encode_record(record)).hex())

    def _decision(self, made: tuple[Question, Decision], at_ms: int, authorization: str) -> RecordRef:
        question, decision = made
        return self._add(
            DecisionMade,
            at_ms=at_ms,
            roster_epoch=1,
            intent=question.intent.id,
            identity=question.identity.id,
            enforcer=question.enforcer.id,
            attested=question.attested,
            decision=decision,
            engine=_ENGINE,
            approvals=[Raw(said.envelope) for said in question.backing.said],
            parents=list(question.family.papers),
            authorization=authorization,
        )

    def _rest(self) -> Signed:
        """The records that no statement here is about, and a refusal to attest somebody else's."""
        late = asked("intent-in-a-stale-view", "acct:acme-supplies", 100, minute=4)
        self.statements.append(late)
        self._add(
            Denied,
            at_ms=start_ms(5),
            intent=late.draft.id,
            identity=base().workload.draft.id,
            subject=f"spiffe://{MESH}/agent/billing",
            code="stale",
            detail="2 of 3 members vouch",
        )
        self._add(Noise, at_ms=start_ms(6), code="unauthenticated", count=17, from_ms=start_ms(5), to_ms=start_ms(6))
        self._add(AttestRefused, at_ms=start_ms(7), refusal=REFUSED)
        self._add(Incident, at_ms=start_ms(7), code="replay_mismatch", detail="example/us-1/e1 at 41")
        head = CosignedHead(origin=log_origin(MESH, "us-1", 1), root=hex32("a tree"), size=41, time_s=start_ms(7) // 1000)
        self._add(Cosigned, at_ms=start_ms(7), heads=[head])
        return refusal_by(NODE)

    # ------------------------------------------------------------------------------------------------------- statements

    def _sign(self, name: str, value: Receipt | Denial | Heartbeat | Barrier, member: str = NODE) -> Signed:
        return sign(name, value, f"{member}/decision")

    def _resign(self, name: str, draft: envelope.Draft) -> Signed:
        signer = f"{NODE}/decision"
        signatures = {key(signer).public: key(signer).sign(draft.message)}
        return Signed(name, "authorization", draft, envelope.assemble(draft.payload_type, draft.payload, signatures), (signer,))

    def _heartbeat(self, member: str) -> Signed:
        beat = Heartbeat(
            mesh=MESH,
            member=member,
            incarnation=1,
            sequence=60,
            signed_ms=start_ms(2),
            roster_epoch=1,
            frontier=list(base().governance.frontier),
            policies=[],
            checkpoint="",
            behind=False,
            echo=[hex32("boot")],
        )
        return self._sign("heartbeat", beat, member)

    def _barrier(self) -> Signed:
        """What another member tells this one, should it start again."""
        roster, asked = base().governance.roster, BarrierAsked(asker=NODE, nonce=hex32("next boot"))
        leaves = [leaf_hash(encode_record(record)) for record in self.records[:_SEEN]]
        note = checkpoint_note(_SEEN, Frontier.empty().extend(leaves).root())
        barrier = Barrier(
            mesh=MESH,
            member="us-1",
            asker=asked.asker,
            nonce=asked.nonce,
            incarnation=1,
            marks=marks_of(parse_note(note), roster, roster.member(NODE)),
            frontier=list(base().governance.frontier),
        )
        return self._sign("barrier", barrier, "us-1")

    def _outcome(self, name: str, sequence: int, previous: str, about: tuple[str, str], event: Event, at_ms: int) -> tuple[Signed, Signed]:
        """An outcome, and the receipt of whoever recorded it."""
        outcome = Outcome(
            mesh=MESH,
            enforcer=key("enforcer").public,
            identity=base().enforcer.draft.id,
            boot=hex32("boot"),
            sequence=sequence,
            previous=previous,
            domain="payments",
            intent=about[0],
            authorization=about[1],
            at_ms=at_ms,
            event=event,
        )
        signed = sign(name, outcome, "enforcer")
        reference = self._add(
            OutcomeRecorded,
            at_ms=at_ms + 20,
            event=str(type(event).__struct_config__.tag),
            outcome=signed.draft.id,
            identity=base().enforcer.draft.id,
            intent=about[0],
            authorization=about[1],
        )
        self.statements.append(signed)
        return signed, self._sign(
            "" if previous else "receipt", Receipt(mesh=MESH, issuer=NODE, statement=signed.draft.id, record=reference)
        )

    def _revocation(self) -> Signed:
        target = Target(type="subject", value=f"spiffe://{MESH}/agent/intern")
        said = Revocation(
            mesh=MESH, revoker=key("revoker").public, sequence=1, previous="", since="",
            target=target, spares=[], reason="left the company", issued_ms=start_ms(4),
        )  # fmt: skip
        return sign("revocation", said, "revoker")

    def _halts(self) -> tuple[Signed, Signed]:
        """A halt, and the resume that lifts it."""
        reason = "books do not balance"
        plain = Halt(mesh=MESH, domain="payments", sequence=1, previous="", since="", lifts=[], reason=reason, issued_ms=start_ms(5))
        halt = sign("halt", plain, "revoker")
        lifts = [halt.draft.id]
        resume = msgspec.structs.replace(plain, sequence=2, previous=lifts[0], lifts=lifts, reason="they do again", issued_ms=start_ms(6))
        return halt, sign("halt-resume", resume, "revoker")

    def _resolve(self) -> Signed:
        """Somebody had halted again under the number of the resume: the resume counts."""
        halt, resume = self._halts()
        again = msgspec.structs.replace(
            envelope.read(Halt, resume.envelope).claims, lifts=[], reason="some books still do not balance", issued_ms=start_ms(6)
        )
        aside = [sign("halt-again", again, "revoker").draft.id]
        said = Resolve(
            mesh=MESH, sequence=1, previous="", since="", stream=halt_stream("payments"), head=resume.draft.id, aside=aside,
            reason=f"both follow {halt.draft.id[:12]}", issued_ms=start_ms(7),
        )  # fmt: skip
        return sign("resolve", said, "root-1", "root-2")

    def _let_go(self, intent: Signed) -> tuple[Signed, Signed]:
        """What the customer bought is nobody's business any more; and the log has been archived."""
        said = Erase(
            mesh=MESH, sequence=1, previous="", since="", intents=[intent.draft.id],
            reason="the customer asked for it", issued_ms=start_ms(8),
        )  # fmt: skip
        erase = sign("erase", said, "root-1", "root-2")
        kept = Retain(
            mesh=MESH, sequence=2, previous=erase.draft.id, since="", floors=[Floor(origin=ORIGIN, below=2)],
            archive="tape 7 in the vault", reason="kept for ten years elsewhere", issued_ms=start_ms(9),
        )  # fmt: skip
        return erase, sign("retain", kept, "root-1", "root-2")

    def _renewal(self) -> tuple[Signed, Signed]:
        """The same policy for another year, and from when."""
        before = base().manifest.draft.id
        first = envelope.read(Manifest, base().manifest.envelope).claims
        later = msgspec.structs.replace(
            first, epoch=2, previous=before, not_before_ms=start_ms(7), expires_ms=first.expires_ms + 31_536_000_000,
            reason="another year", issued_ms=start_ms(6),
        )  # fmt: skip
        manifest = sign("policy-2", later, "policy-1", "policy-3")
        activation = Activation(
            mesh=MESH,
            domain="payments",
            sequence=1,
            previous="",
            since="",
            epoch=2,
            manifest=manifest.draft.id,
            rings=[Ring(regions=["eu"], not_before_ms=start_ms(8)), Ring(regions=[], not_before_ms=start_ms(9))],
            reason="eu first",
            issued_ms=start_ms(7),
        )
        return manifest, sign("activate", activation, "policy-1", "policy-2")

    def _heard(self) -> Signed:
        """The enforcer's word that it knows of the revocation, and the record of it."""
        revocation = next(item for item in self.statements if item.name == "revocation")
        stream = StreamHead(stream=f"revoke/{key('revoker').public}", sequence=1, head=revocation.draft.id, forked=False, held="")
        said = Heard(
            mesh=MESH,
            enforcer=key("enforcer").public,
            identity=base().enforcer.draft.id,
            boot=hex32("boot"),
            sequence=2,
            frontier=sorted([*base().governance.frontier, stream], key=lambda head: head.stream),
            at_ms=start_ms(7),
        )
        signed = sign("heard", said, "enforcer")
        subject = envelope.read(Identity, base().enforcer.envelope).claims.subject
        self._add(EnforcerHeard, at_ms=start_ms(7) + 20, heard=signed.draft.id, identity=base().enforcer.draft.id, subject=subject)
        return signed

    # -------------------------------------------------------------------------------------------------------------- log

    def _told(
        self,
        permitted: tuple[Question, Decision],
        denied: tuple[Question, Decision],
        said: _Said,
        outcomes: _Outcomes,
    ) -> Story:
        leaves = tuple(encode_record(record) for record in self.records)
        size = len(leaves)
        get = tree_get([leaf_hash(leaf) for leaf in leaves])
        roots = tuple(Frontier.load(get, count).root() for count in range(size + 1))
        note, seen = checkpoint_note(size, roots[size]), checkpoint_note(_SEEN, roots[_SEEN])
        certificate = certificate_note(note, [cosigned("attest", member, note) for member in list(MEMBERS)[:3]])
        paths = {index: inclusion_path(get, index, size) for index in range(size)}

        def proven(index: int, *bodies: Signed) -> Proven:
            proof = TlogProof(index=index, path=paths[index], note=certificate).encode().decode()
            return Proven(record=Raw(leaves[index]), proof=proof, bodies=[Raw(body.envelope) for body in bodies])

        bundle = make_proof(
            proven(1, said.intent, base().workload, base().enforcer),
            manifests=[base().manifest.envelope],
            bundles=[base().built.data],
            openings=[OPENING],
            outcomes=[proven(number, one, base().enforcer) for number, one in enumerate(outcomes.said, 2)],
        )
        return Story(
            statements=tuple(self.statements),
            records=leaves,
            roots=roots,
            inclusion=paths,
            consistency={old: consistency_path(get, old, size) for old in range(1, size + 1)},
            checkpoint=note,
            certificate=certificate,
            add_checkpoint=AddCheckpoint(
                _SEEN, consistency_path(get, _SEEN, size), append_lines(note, [cosigned("witness", NODE, note)])
            ).encode(),
            proof=TlogProof(index=1, path=paths[1], note=certificate, extra=leaves[1]).encode(),
            bundle=encode_proof(bundle),
            messages=_messages(said, outcomes, leaves, seen),
            permitted=permitted,
            denied=denied,
        )


def _started(beats: list[Signed]) -> Started:
    checks = [Check(name=name, passed=True) for name in CHECKS]
    return Started(checks=checks, heartbeats=sorted(beat.draft.id for beat in beats[:3]), spend=1)


def _finished() -> Finished:
    return Finished(status=0, outputs=[Measurement(name="result", digest=f"sha256:{hex32('result')}")], duration_ms=690)


def _messages(said: _Said, outcomes: _Outcomes, leaves: tuple[bytes, ...], seen: bytes) -> dict[str, bytes]:
    world = base()
    identity, enforcer = Raw(world.workload.envelope), Raw(world.enforcer.envelope)
    frontier = list(world.governance.frontier)
    bodies = [Raw(item.envelope) for item in (said.intent, world.workload, world.enforcer, *outcomes.said)]
    messages = {
        "IntentRequest": IntentRequest(
            intent=Raw(said.intent.envelope), identity=identity, enforcer=enforcer, openings=[OPENING], boxes=[], approvals=[], parents=[]
        ),
        "Answer-authorized": Authorized(authorization=Raw(said.authorization.envelope), frontier=frontier),
        "Answer-denied": DeniedAnswer(denial=Raw(said.denial.envelope)),
        "Answer-refused": RefusedAnswer(code="overloaded", detail=""),
        "OutcomeRequest": OutcomeRequest(identity=enforcer, outcomes=[Raw(item.envelope) for item in outcomes.said]),
        "OutcomeAnswer": OutcomeAnswer(receipts=[Raw(item.envelope) for item in outcomes.receipts]),
        "HeardRequest": HeardRequest(heard=Raw(said.heard.envelope), identity=enforcer),
        "LineageBatch": LineageBatch(
            origin=ORIGIN,
            first=0,
            records=[Raw(leaf) for leaf in leaves[:_SEEN]],
            bodies=bodies,
            pruned=[],
            openings=[],
            path=[],
            start=[],
            checkpoint=seen.decode(),
        ),
        "Asked-sync": Sync(nonce=hex32("boot")),
        "Asked-pull": Pull(origin=ORIGIN, first=0, count=128),
        "Asked-leaves": Leaves(origin=ORIGIN, first=0, count=128),
        "Asked-find": Find(prefix=said.intent.draft.id[:12], count=8),
        "Asked-prove": Prove(origin=ORIGIN, index=1),
        "Asked-status": StatusAsked(),
        "Asked-barrier": BarrierAsked(asker=NODE, nonce=hex32("next boot")),
        "BarrierAnswer": BarrierAnswer(barrier=Raw(said.barrier.envelope), heartbeat=[Raw(said.heartbeat.envelope)], certificates=[]),
        "Asked-heard": HeardAsked(after=""),
        "HeardGiven": HeardGiven(
            words=[HeardWord(heard=Raw(said.heard.envelope), identity=enforcer, origin=ORIGIN, index=len(leaves) - 1)], after=""
        ),
        "Accusation": accusation(),
        "SyncAnswer": SyncAnswer(heartbeat=Raw(said.heartbeat.envelope)),
    }
    return {name: pack(message) for name, message in messages.items()}
