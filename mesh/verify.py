"""Whether a proof holds, by what it contains and a roster: no network, no clock, no database, nobody's word.

The procedure, in this order; the first step that fails ends it (numbers stand where it happens):

1. the roster is signed by its own root threshold, and is the pinned one if a pin is given; the rosters in the file are those that
   lead from it to the first epoch and to the last, and nothing else (:mod:`mesh.core.law.vouched`)
2. the record is one of a log of these rosters; a decision, of the one under which it says that it was made
3. the record is in the tree that the proof's checkpoint names
4. the checkpoint is signed by the log, and k distinct members of one of these rosters attested it, who for a decision is not older
   than its own: the record is final, as of that epoch. If the trusted one is newer, enough of them are members still
   (:mod:`mesh.core.law.former`)
5. the statements beside the record are exactly those it names, each signed by exactly whom it must be; who is said to have been
   denied has asked, with a key that an issuer gave them; what is said to have been heard, its enforcer has signed
6. the policy manifest is signed by the domain's policy role, and names the bundle that is here
7. what was asked of policy, what follows from the verdict, and the authorization are as recorded: recomputed; sealed boxes are exactly
   those that the signed intent names, whatever they hold
8. the verdict itself is repeated, if an engine was handed in
9. every outcome is held to 2 to 5, belongs to this authorization, and is said by the enforcer and boot that the intent is meant for

The answer is ``VERIFIED`` when 1 to 7 and 9 hold, ``FAILED`` when anything does not, and ``PARTIAL`` when nothing is wrong but
something could not be checked: the record is not final yet, who made it final are members no more, openings or sealed boxes were erased, or
a roster is not here. Step 8 stands beside: k members have repeated the decision, that is what step 4 proves. Every byte of the file is
covered by one of the steps.

Not here: revocations that came later (a proof is about what was lawful then), and reading files.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, Literal, NoReturn, TypeVar

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation
from mesh.core.law.governance import Governance, Law
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Member, Roster, admit_roster
from mesh.core.law.vouched import Vouched, vouch
from mesh.core.log.bundle import ProofBundle, Proven, read_proof
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.merkle import leaf_hash, verify_inclusion
from mesh.core.log.record import DecisionMade, Denied, EnforcerHeard, OutcomeRecorded, Record, read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import Openings
from mesh.core.run.approval import weigh
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.core.run.heard import Heard, check_heard
from mesh.core.run.identity import Identity, check_identity
from mesh.core.run.intent import Intent
from mesh.core.run.kin import trace
from mesh.core.run.outcome import Outcome
from mesh.core.run.sealed import check_boxes, told
from mesh.errors import MeshError, Refused
from mesh.protocol import decide
from mesh.protocol.attester import Material, examine_records
from mesh.protocol.belonging import check_belongs, meant_by
from mesh.protocol.documents import Documents
from mesh.protocol.evidence import certified, in_order, nothing_else, ordered, sealed_body
from mesh.protocol.examine import authenticate
from mesh.protocol.serving import body_ids

__all__ = ["Check", "Report", "Result", "Verdicts", "verify"]

P = TypeVar("P", bound=Payload)
Result = Literal["passed", "failed", "skipped"]
Verdicts = Literal["VERIFIED", "PARTIAL", "FAILED"]
_TLOG: Final = b"c2sp.org/tlog-proof@v1\n"
_REPLAY: Final = "replay"
_ERASED: Final = "the boxes of its sealed parameters are not here"
_UNSURE: Final = frozenset({"former_certificate", "not_final"})


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One step, as it came out."""

    name: str
    result: Result
    detail: str
    """What was found, or why it could not be checked."""
    code: str = ""
    """Of the failure; ``not_final`` or ``former_certificate`` if that is why step 4 could not be checked."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer with its reasons."""

    verdict: Verdicts
    checks: tuple[Check, ...]
    mesh: str
    as_of: int
    """Epoch under which the record is final; of the trusted roster, as long as it is not."""
    roster: str
    """Statement id of the roster of that epoch."""
    record: Record | None
    """What was proved; believe it only if ``verdict`` says so. ``None`` if it could not be read."""


class _Skipped(Exception):
    """It could not be checked, and why."""

    def __init__(self, why: str, code: str = "") -> None:
        super().__init__(why)
        self.code = code


class _Echo:
    """An engine that answers what was recorded: with it, everything but the verdict is repeated (step 7)."""

    build = "echo"

    def __init__(self, record: DecisionMade) -> None:
        self.profile = record.decision.profile
        self._decision = record.decision

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        """The recorded verdict, for each."""
        del bundle_digest
        said = self._decision
        allow = said.effect == "permit" or bool(said.needs)  # what lacks approvals is a deny, of what policy would have permitted
        return [Verdict(allow=allow, determining=tuple(said.determining), errors=tuple(said.errors)) for _ in requests]


class _Proof(msgspec.Struct, frozen=True):
    """One record to check, from either format."""

    record: bytes
    proof: bytes
    bodies: tuple[bytes, ...] | None
    """``None`` where the format carries none."""


def verify(data: bytes, *, trust: bytes, pin: str | None = None, engine: decide.Engine | None = None) -> Report:
    """Judge a proof bundle, or a tlog-proof that holds its record.

    Args:
        data: the file.
        trust: envelope of a roster: the anchor of everything. With those that the file carries, of whichever epoch.
        pin: its statement id, if it came by another way than the roster.
        engine: repeats the decision (step 8); must hold the bundle that the proof carries.

    Raises:
        Refused: if the file is neither format (``malformed``, ``non_canonical``, ``too_large``), or the roster cannot be trusted
            (``threshold_not_met``, ``wrong_epoch``, …).
    """
    judge = _Judge(trust, pin)
    if data.startswith(_TLOG):
        tlog = TlogProof.parse(data)
        if not tlog.extra:
            raise Refused("malformed", "this tlog-proof does not hold its record")
        judge.place(_Proof(tlog.extra, msgspec.structs.replace(tlog, extra=b"").encode(), None), "")
    else:
        judge.bundle(read_proof(data), engine)
    return judge.report()


@lru_cache(maxsize=8)
def _vouched(trusted: bytes, pin: str | None, shown: tuple[bytes, ...]) -> Vouched:
    return vouch(_anchor(trusted, pin), [envelope.read(Roster, data) for data in shown])


@lru_cache(maxsize=8)  # a pure function, and most of the cost when a thousand proofs are judged by one roster
def _anchor(trust: bytes, pin: str | None) -> Statement[Roster]:
    statement = envelope.read(Roster, trust)
    admit_roster(statement, pin=pin or statement.id)  # (1)
    return statement


class _Judge:
    """The working copy of one judgement."""

    def __init__(self, trust: bytes, pin: str | None) -> None:
        self._trust = trust, pin
        self._rosters = Vouched(_anchor(trust, pin), (_anchor(trust, pin),))
        self._as_of = self._trusted = self._rosters.trusted.claims
        self._documents = Documents()
        self._checks: list[Check] = [
            Check(name="trust", result="passed", detail=f"roster of {self._trusted.mesh}, epoch {self._trusted.epoch}")
        ]
        self._record: Record | None = None

    def report(self) -> Report:
        results = {check.result for check in self._checks if check.name != _REPLAY or check.result == "failed"}
        verdict: Verdicts = "FAILED" if "failed" in results else "PARTIAL" if "skipped" in results else "VERIFIED"
        return Report(
            verdict=verdict,
            checks=tuple(self._checks),
            mesh=self._trusted.mesh,
            as_of=self._as_of.epoch,
            roster=next(item.id for item in self._rosters.chain if item.claims.epoch == self._as_of.epoch),
            record=self._record,
        )

    def bundle(self, bundle: ProofBundle, engine: decide.Engine | None) -> None:
        """All steps for a proof bundle."""
        if bundle.rosters:
            self._check("rosters", lambda: self._led(bundle))
        record = self.place(_opened(bundle.proven), "")
        if isinstance(record, DecisionMade):
            self._decision(record, bundle, engine)
        else:
            self._check("policy", lambda: nothing_else(bundle))
        for number, outcome in enumerate(bundle.outcomes):
            self._outcome(record, bundle, _opened(outcome), f"outcome {number}: ")
        if bundle.outcomes:
            self._check("order", lambda: ordered(bundle))

    def place(self, proof: _Proof, prefix: str) -> Record | None:
        """Steps 2 to 5 for one record."""
        found: list[Record] = []
        self._check(f"{prefix}record", lambda: self._read(proof.record, found))
        record = found[0] if found else None
        if not prefix:
            self._record = record
        if record is None:
            return None
        self._check(f"{prefix}inclusion", lambda: _included(record, proof))
        self._check(f"{prefix}final", lambda: self._final(record, proof.proof, main=not prefix))
        self._check(f"{prefix}statements", lambda: self._statements(record, proof.bodies))
        return record

    # ---------------------------------------------------------------------------------------------------------- the steps

    def _led(self, bundle: ProofBundle) -> str:
        self._rosters = _vouched(*self._trust, tuple(bytes(raw) for raw in bundle.rosters))
        return f"epochs 1 to {len(self._rosters.chain)} follow one another"

    def _read(self, data: bytes, found: list[Record]) -> str:
        record = read_record(data)  # (2)
        if record.mesh != self._trusted.mesh:
            raise Refused("wrong_mesh", record.mesh)
        owner = self._owners(record)[0]
        found.append(record)
        return f"{record.__struct_config__.tag} {record.index} of {owner.name}"

    def _owners(self, record: Record) -> list[Member]:
        """Whose record it may be. A decision is its owner's under the roster that it names, if that is here."""
        then = self._rosters.of(record.roster_epoch) if isinstance(record, DecisionMade) else None
        return self._rosters.owners(record.origin) if then is None else [then.owner(record.origin)]

    def _then(self, record: DecisionMade) -> Roster:
        """The roster under which it was decided."""
        then = self._rosters.of(record.roster_epoch)
        return then if then is not None else _skip(f"the roster of epoch {record.roster_epoch} is not here")

    def _final(self, record: Record, proof: bytes, *, main: bool) -> str:
        if not proof:
            raise _Skipped("nobody has signed a tree with this record in it")
        note = TlogProof.parse(proof).note
        in_order(note, record.origin)
        # Who had left before it was decided has no say in it, whoever holds their keys by now.
        rosters = self._rosters.since(self._then(record).epoch if isinstance(record, DecisionMade) else 0)
        try:
            attested, as_of = certified(note, record.origin, self._owners(record), rosters, self._trusted.epoch)  # (4)
        except Refused as refusal:
            if refusal.code in _UNSURE:  # all lines that are there were verified before they were counted
                raise _Skipped(refusal.detail, refusal.code) from None
            raise
        if main:
            self._as_of = as_of
        who = ", ".join(signed.verifier.name for signed in attested.attestations)
        return f"{len(attested.attestations)} attested size {attested.checkpoint.size}, {as_of.k} needed in epoch {as_of.epoch}: {who}"

    def _statements(self, record: Record, bodies: tuple[bytes, ...] | None) -> str:
        wanted = list(body_ids(record))
        if bodies is None and wanted:
            raise _Skipped("a tlog-proof carries none")
        held = [envelope.identify(data)[1] for data in bodies or ()]
        if isinstance(record, Denied) and not held:
            raise _Skipped("the intent that was denied is not here")
        if held != wanted:  # (5)
            raise Refused(
                "body_missing" if len(held) < len(wanted) else "record_invalid", "not exactly the statements that the record names"
            )
        for data in bodies or ():
            sealed_body(data, self._rosters)
        if isinstance(record, Denied) and bodies is not None:
            self._asked(record, *bodies)
        if isinstance(record, EnforcerHeard) and bodies is not None:
            self._heard(record, *bodies)
        return f"{len(held)} named, {len(held)} here and signed"

    def _asked(self, record: Denied, intent: bytes, identity: bytes) -> None:
        """That who was denied has asked: a key of nobody's can sign an intent in anybody's name."""
        sender = authenticate(intent, identity, self._plain(), self._documents, former=True)
        if sender.intent.claims.subject != record.subject:
            raise Refused("record_invalid", "the intent is another's")

    def _heard(self, record: EnforcerHeard, heard: bytes, identity: bytes) -> None:
        """That it is the word of whom the record names: anybody's key can sign that something was heard."""
        place = envelope.read(Identity, identity)
        claims = check_heard(envelope.read(Heard, heard), mesh=record.mesh, document=place.id, key=place.claims.key)
        check_identity(place.claims, role="enforcer", subject=record.subject, key=claims.enforcer, now_ms=record.at_ms)

    def _decision(self, record: DecisionMade, bundle: ProofBundle, engine: decide.Engine | None) -> None:
        laws: list[Governance] = []
        self._check("policy", lambda: self._law(record, bundle, laws))
        governance = laws[0] if laws else None
        if record.approvals:
            self._check("approvals", lambda: self._approved(record, bundle))
        if record.parents:
            self._check("parents", lambda: self._traced(record, bundle))
        if _names_boxes(bundle):
            self._check("sealed", lambda: _sealed(bundle))
        self._check("decision", lambda: self._repeat(record, bundle, governance, _Echo(record)))  # (7)
        if engine is None:
            self._check(_REPLAY, lambda: _skip("no policy engine here"))
        else:
            self._check(_REPLAY, lambda: self._replay(record, bundle, governance, engine))

    def _approved(self, record: DecisionMade, bundle: ProofBundle) -> str:
        """Who said yes; that nothing but what counted stands there is part of repeating the decision."""
        intent = envelope.read(Intent, bytes(bundle.bodies[0])).claims
        backing = weigh([bytes(raw) for raw in record.approvals], intent, self._then(record), at_ms=record.at_ms)
        told = [f"{count} of {group}" for group, count in backing.approvals.items()]
        return ", ".join([*told, *(["break-glass"] if backing.breakglass else [])])

    def _traced(self, record: DecisionMade, bundle: ProofBundle) -> str:
        intent, rosters = envelope.read(Intent, bytes(bundle.bodies[0])), self._plain().rosters
        return trace(record.parents, intent, rosters, epoch=self._then(record).epoch, at_ms=record.at_ms).told

    def _law(self, record: DecisionMade, bundle: ProofBundle, laws: list[Governance]) -> str:
        if len(bundle.manifests) != 1 or len(bundle.bundles) != 1:
            raise Refused("body_missing", "a decision's proof carries its manifest and its policy bundle")
        manifest = envelope.read(Manifest, bytes(bundle.manifests[0]))
        domain = manifest.claims.domain
        needed = self._rosters.lawful(manifest)  # (6)
        activations = [envelope.read(Activation, bytes(raw)) for raw in bundle.activations]
        governance = self._whole().governance(manifests=[manifest], bundles=[bytes(bundle.bundles[0])], said=activations)
        law: Law = governance.laws[domain][0]
        named = law.manifest_id, law.manifest.digest, law.manifest.epoch
        if law.bundle is None or named != (record.attested.manifest, record.decision.bundle, record.attested.policy_epoch):
            raise Refused("digest_mismatch", "manifest, bundle and record do not name one another")
        before = ["", *(item.id for item in activations)]
        places = [(item.claims.domain, item.claims.sequence, item.claims.previous) for item in activations]
        if places != [(domain, at, name) for at, name in enumerate(before[:-1], 1)] or record.attested.activation != before[-1]:
            raise Refused("digest_mismatch", "the activations are not those from the first to the one that the record names")
        laws.append(governance)
        return f"{law.manifest.domain} epoch {law.manifest.epoch}, signed by {len(manifest.signatures)}, {needed} needed"

    def _repeat(self, record: DecisionMade, bundle: ProofBundle, governance: Governance | None, engine: decide.Engine) -> str:
        if governance is None:
            _skip("without a law")
        self._then(record)
        intent = envelope.read(Intent, bytes(bundle.bodies[0]))
        hidden = sorted(intent.claims.committed.keys() - intent.claims.sealed.keys())
        if hidden and not bundle.openings:
            raise _Skipped(f"the openings of its committed parameters are not here: {', '.join(hidden)}")
        if intent.claims.sealed and not bundle.boxes:
            raise _Skipped(_ERASED)
        if [opening.name for opening in bundle.openings] != sorted(opening.name for opening in bundle.openings):
            raise Refused("non_canonical", "the openings are not in their order")
        if engine.profile != record.decision.profile:
            raise _Skipped(f"decided under the profile {record.decision.profile}, this engine's is {engine.profile}")
        opened = Openings(intent=record.intent, openings=bundle.openings, boxes=bundle.boxes)
        self._examine(record, bytes(bundle.record), bundle.bodies, opened, governance, engine)
        decision = record.decision
        return f"{decision.effect} by {', '.join(decision.determining) or 'default'}"

    def _replay(self, record: DecisionMade, bundle: ProofBundle, governance: Governance | None, engine: decide.Engine) -> str:
        try:
            return self._repeat(record, bundle, governance, engine)  # (8)
        except MeshError as error:
            if error.code == "engine_unavailable":  # that an engine is broken says nothing about the proof
                raise _Skipped(error.detail or "the engine gave no answer") from None
            raise

    def _examine(
        self,
        record: Record,
        data: bytes,
        bodies: Iterable[msgspec.Raw],
        opened: Openings | None,
        governance: Governance,
        engine: decide.Engine,
    ) -> None:
        held = {envelope.identify(bytes(raw))[1]: bytes(raw) for raw in bodies}
        examined = examine_records(
            [data],
            Material(held, {} if opened is None else {opened.intent: opened}),
            owner=self._owners(record)[0],
            first=record.index,
            after_ms=0,
            governance=governance,
            documents=self._documents,
            engine=engine,
            now_ms=record.at_ms,
        )[0]
        if examined.code:
            raise Refused(examined.code, examined.detail)

    def _outcome(self, decision: Record | None, bundle: ProofBundle, proof: _Proof, prefix: str) -> None:  # (9)
        record = self.place(proof, prefix)
        self._check(f"{prefix}outcome", lambda: self._belongs(decision, bundle, record, proof))

    def _belongs(self, decision: Record | None, bundle: ProofBundle, record: Record | None, proof: _Proof) -> str:
        if not isinstance(decision, DecisionMade) or not isinstance(record, OutcomeRecorded):
            raise Refused("record_invalid", "only permits have outcomes, and only outcomes may stand there")
        if (record.intent, record.authorization) != (decision.intent, decision.authorization):
            raise Refused("record_invalid", "the outcome of another authorization")
        bodies = [msgspec.Raw(data) for data in proof.bodies or ()]
        self._examine(record, proof.record, bodies, None, self._plain(), _Echo(decision))
        outcome = envelope.read(Outcome, bytes(bodies[0]))
        check_belongs(outcome.claims, meant_by(envelope.read(Intent, bytes(bundle.bodies[0]))))
        return record.event

    def _plain(self) -> Governance:
        return self._whole().governance()

    def _whole(self) -> Vouched:
        """The rosters, if they begin with the first: by others it cannot be told what was in force."""
        return self._rosters if self._rosters.whole else _skip(f"the rosters before epoch {self._trusted.epoch} are not here")

    # ---------------------------------------------------------------------------------------------------------- the ladder

    def _check(self, name: str, check: Callable[[], str]) -> None:
        if any(done.result == "failed" for done in self._checks):
            self._checks.append(Check(name=name, result="skipped", detail="not reached"))
            return
        try:
            self._checks.append(Check(name=name, result="passed", detail=check()))
        except _Skipped as skipped:
            self._checks.append(Check(name=name, result="skipped", detail=str(skipped), code=skipped.code))
        except MeshError as error:
            self._checks.append(Check(name=name, result="failed", detail=str(error), code=error.code))


def _opened(proven: Proven) -> _Proof:
    return _Proof(bytes(proven.record), proven.proof.encode(), tuple(bytes(raw) for raw in proven.bodies))


def _names_boxes(bundle: ProofBundle) -> bool:
    """Whether there is anything to say of sealed parameters."""
    try:
        return bool(bundle.boxes or envelope.read(Intent, bytes(bundle.bodies[0])).claims.sealed)
    except (IndexError, Refused):
        return False  # the statements have failed already


def _sealed(bundle: ProofBundle) -> str:
    sealed_ = envelope.read(Intent, bytes(bundle.bodies[0])).claims.sealed
    if sealed_ and not bundle.boxes:
        raise _Skipped(_ERASED)
    check_boxes(sealed_, bundle.boxes)
    return f"sealed: {told(sealed_)}"


def _skip(why: str) -> NoReturn:
    raise _Skipped(why)


def _included(record: Record, proof: _Proof) -> str:
    if not proof.proof:
        raise _Skipped("there is no proof")
    tlog = TlogProof.parse(proof.proof)
    if tlog.index != record.index or tlog.extra:
        raise Refused("bad_proof", "the proof is about another record")
    checkpoint = read_checkpoint(tlog.note)
    if checkpoint.origin != record.origin:
        raise Refused("bad_proof", f"the proof is about {checkpoint.origin[:80]}")
    verify_inclusion(leaf_hash(proof.record), tlog.index, checkpoint.size, checkpoint.root, tlog.path)  # (3)
    return f"leaf {record.index} of {checkpoint.size}"
