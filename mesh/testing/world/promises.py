"""What must hold in every world after every event; each promise has the number it has in the threat model.

=== =====================================================================================================================
I1  nothing starts without an authorization that is valid, fresh by true time, at the last check before it, and names its ancestors
I2  once k members that know of a revocation said so, nothing of the revoked key, nor within it, starts later than Δ; and nothing in a
    halted domain, until all is said that lifts its halt; and nothing by a policy epoch that an activation known to k has replaced;
    and nothing in a domain whose policy has forked, until all is said that resolves it.
    At an enforcer whose own word covers the revocation or the halt, nothing of it starts in that boot, without any Δ
I3  any two final checkpoints of one log are prefixes of one history, and each carries k lines
I4  a final record is on the disks of at least k-f honest members
I5  incarnations and sequences of one member only rise
I6  an intent runs at most once
I7  nothing is signed before the disk knows it, and no two signed statements contradict each other, across all starts
I8  no honest member says of an honest member's record that it is wrong, or without proof that a log or a stream has two histories
I9  what a node knows of revocations and halts only grows, and so does what it says that it holds, whatever it starts from
I10 after healing, within a bound: what was acknowledged is final, all hold the same, work is allowed again
I11 the same input gives the same bytes; every recorded decision replays
I12 every request that reached a living process is answered exactly once
I13 no two rosters are acted under at once (:mod:`mesh.testing.world.epochs`); nothing starts on the word of who is no member
I14 who is caught counts for nothing where the proof is held, in the end everywhere (:mod:`mesh.testing.world.freezing`, also I8 of proofs)
I15 who was shown what is final takes no other records up to there, and counts once it holds them (:mod:`mesh.testing.world.goals`)
I16 who has a rotten record ends in time, and puts back what was there (:mod:`mesh.testing.world.rotting`)
I17 nobody prunes what is not final (:mod:`mesh.testing.world.pruning`)
=== =====================================================================================================================

Not here: what stirs a world (:mod:`mesh.testing.world.faults`).
"""

from collections.abc import Sequence
from typing import Final

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.halt import halt_stream
from mesh.core.law.heartbeat import Heartbeat, StreamHead, covers
from mesh.core.law.policy import policy_stream
from mesh.core.law.roster import Roster
from mesh.core.law.succession import same_member
from mesh.core.law.travel import read_law
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import DecisionMade, Denied, Incident, Refusal, read_record
from mesh.core.messages import SyncAnswer, unpack
from mesh.core.run.authorization import Authorization, Receipt, RecordRef
from mesh.core.run.heard import Heard
from mesh.errors import Alarm, Refused
from mesh.protocol.events import Event, IntentArrived, OfferArrived, OutcomesArrived, SyncArrived
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import Append, InsertOnce, KeyUse, Persist, PutLaw, PutNote, Reply, Send, SetMeta, Sign, Step
from mesh.protocol.stored import INCARNATION, ROSTER_EPOCH
from mesh.testing.world import keys
from mesh.testing.world.disk import Disk
from mesh.testing.world.epochs import ROUNDING_MS, Epochs
from mesh.testing.world.families import Families
from mesh.testing.world.freezing import Freezing
from mesh.testing.world.goals import Goals
from mesh.testing.world.governor import Governor
from mesh.testing.world.ground import Ground, Violation
from mesh.testing.world.handing import running, said_by, told
from mesh.testing.world.message import Message
from mesh.testing.world.pruning import check_final
from mesh.testing.world.reading import decided_at, expected, known_to, read, same_step, unpae, what_it_denies
from mesh.testing.world.setting import DOMAIN, EPOCH_MS, Setting

__all__ = ["Watch"]

_AGAIN_EVERY: Final = 8  # one step in so many is made twice


class Watch:
    """Looks on, and remembers what it needs to tell a broken promise."""

    def __init__(self, ground: Ground, setting: Setting) -> None:
        self._ground = ground
        self._setting = setting
        self.epochs = Epochs(ground, setting.genesis)
        self.families = Families(ground)
        self.freezing = Freezing(lambda: self.epochs.rosters)
        self.honest: list[Governor] = []
        self.liars: frozenset[str] = frozenset()
        """Members that lie."""
        self.astray: frozenset[str] = frozenset()
        """Members whose clocks were ahead for a while: what they said then looks younger than it is, as a liar's word may."""
        self.restored: frozenset[str] = frozenset()
        """Members whose disk was exchanged for an older copy."""
        self.acknowledged: dict[tuple[str, int], str] = {}
        """(origin, index) to leaf hash, of what a client was told is recorded."""
        self.final: dict[str, list[bytes]] = {}
        """Leaf hashes of the longest final prefix of each log."""
        self.goals = Goals(self.final)
        self._final: dict[str, Frontier] = {}
        self._certified: dict[tuple[str, int], bytes] = {}
        self._roots: dict[tuple[str, str, int], bytes] = {}
        self._lines: dict[tuple[str, str, str, int], tuple[int, bytes]] = {}
        self._newest: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._said: dict[tuple[str, str, str], str] = {}
        self._beats: dict[str, tuple[int, int]] = {}
        self._frontiers: dict[str, list[StreamHead]] = {}
        self.beat_us: dict[bytes, tuple[str, int]] = {}
        """Heartbeat as it was sent to (decision key, true µs of its signature)."""
        self._heard: dict[str, dict[str, int]] = {}
        self._begun_us: dict[str, int] = {}
        self._law: dict[str, frozenset[tuple[str, str]]] = {}
        self._knowing: dict[str, dict[str, int]] = {"revoked": {}, "halted": {}, "activated": {}, "halted twice": {}, "contested": {}}
        """Of what, to whose decision key said since when (true µs) that it knows."""
        self._beat_of: dict[str, str] = {}
        """Id of a heartbeat to the decision key that signed it."""
        self.offered = set[str]()
        """Ids of governance statements that somebody has been told."""
        self._confirmed: dict[str, set[str]] = {}
        """Enforcer to what it said in this boot that it starts nothing of."""
        self._steps = 0
        self._denials = ("revoked", setting.revocations[1]), ("halted", setting.halts[0])
        self.started: dict[str, str] = {}
        """Intent id to where it ran."""
        self._law_taken: dict[str, bytes] = {}
        """Id to envelope of every statement that an honest member ever kept."""
        self.permits = 0
        self.words = 0
        """Signed by enforcers, on what they have heard."""

    # ------------------------------------------------------------------------------------------------------- processes

    def booted(self, governor: Governor) -> None:
        """A governor begins: it has heard nothing yet, and has forgotten no revocation and no halt."""
        name = governor.name
        law = frozenset(governor.governance.revoked) | {what_it_denies(read_law(item.envelope)) for item in governor.disk.law.values()}
        if not self._law.get(name, frozenset()) <= law:
            raise Violation("I9", f"{name} has forgotten a revocation or a halt")
        self._law[name] = law
        self.listens(name)

    def alarmed(self, governor: Governor, alarm: Alarm) -> None:
        """An honest process never meets what must not exist."""
        if governor.member.name not in self.liars and not governor.disk.rotted:
            raise Violation("I12", f"{governor.name}: {alarm}")

    def set_back(self, governor: Governor, before: Disk) -> None:
        """An honest member's disk is older than what it signed: what it may forget is what too few others hold to be surely told of.

        Whoever asks k-1 others meets at least one that is honest and knows what n-k+1 honest others know. A member that had signed
        checkpoints which fewer hold counts as one that lies from now on: nobody can tell it.
        """
        name, roster, disk = governor.member.name, governor.roster, governor.disk
        origin = roster.origin(governor.member)
        self.restored |= {name}
        self._law.pop(name, None)
        if name in self.liars:
            return
        honest = [other for other in self.honest if other is not governor]
        others = [other for other in honest if any(same_member(other.member, member) for member in roster.members)]
        enough = len(roster.members) - roster.k + 1
        kept = max(disk.size(origin), known_to([other.disk.size(origin) for other in others], enough))
        signed = before.heads.get(("log", origin))
        if signed is not None and signed.size > kept:
            self.liars |= {name}
            self.honest = honest
            self.acknowledged = {ref: leaf for ref, leaf in self.acknowledged.items() if ref[0] != origin}
            return
        incarnations = [other.disk.largest("heartbeat", origin) for other in others]
        self._beats[name] = (max(disk.meta.get(INCARNATION, 0), known_to(incarnations, enough)), 1 << 60)
        views, now = [other.held for other in others], governor.held
        self._frontiers[name] = [
            head for head in self._frontiers.get(name, []) if said_by(now, head) or sum(said_by(view, head) for view in views) >= enough
        ]
        for what, denial in self._denials:
            if not told(self._frontiers[name], denial):
                self._knowing[what].pop(governor.member.decision_key, None)
        self._forget(governor, before, kept, [other.disk for other in others], enough)

    def _forget(self, governor: Governor, before: Disk, kept: int, others: Sequence[Disk], enough: int) -> None:
        """What nobody may be able to show it: what it cosigned of others, which follows from their logs but for the time."""
        name, own = governor.name, governor.roster.origin(governor.member)
        floors = {log: head.size for (use, log), head in governor.disk.heads.items() if use == "witness"}
        shown = [other.largest("certificate", own) for other in others]
        floors[own] = max(floors.get(own, 0), known_to(shown, enough))
        self._roots = {key: root for key, root in self._roots.items() if key[:2] != (name, own) or key[2] <= kept}
        self._lines = {key: line for key, line in self._lines.items() if key[0] != name or key[3] <= floors.get(key[2], 0)}
        self._newest = {key: line for key, line in self._newest.items() if key[0] != name or line[0] <= floors.get(key[2], 0)}
        self.acknowledged = {ref: leaf for ref, leaf in self.acknowledged.items() if ref[0] != own or ref[1] < kept}
        lost = {key for (_, space, key), index in before.once.items() if space == "intent" and index >= kept}
        self._said = {key: said for key, said in self._said.items() if key[0] != name or key[2] not in lost}

    def listens(self, name: str) -> None:
        """A process starts: whatever was said before may be a replay."""
        self._heard[name], self._begun_us[name] = {}, self._ground.now_us
        self._confirmed[name] = set()

    def received(self, governor: Governor, message: Message) -> None:
        """Remember by which heartbeats a governor may believe itself fresh."""
        self.hears(governor.name, message)

    def hears(self, name: str, message: Message) -> None:
        """The same for any process."""
        data = message.data
        if message.kind == "reply" and data not in self.beat_us:
            try:
                data = bytes(unpack(SyncAnswer, data).heartbeat)
            except Refused:
                return
        known = self.beat_us.get(data)
        if known is not None:
            key, said_us = known
            heard = self._heard[name]
            heard[key] = max(heard.get(key, 0), said_us)

    def faulty(self, roster: Roster) -> frozenset[str]:
        """Decision keys of members that lie, or whose clock was ahead."""
        return frozenset(member.decision_key for member in roster.members if member.name in self.liars | self.astray)

    def fresh(self, name: str, roster: Roster, *, me: str = "", slow_ms: int = 0) -> bool:
        """Whether by true time k members, less the liars, can vouch to a process: it has heard what each said within Δ.

        And enough of them have said something since the process began.

        Args:
            name: of the process.
            roster: under which it acts.
            me: decision key of the member that the process itself is, which vouches for itself.
            slow_ms: by how much its clock was set back. No rule helps who lives in the past and hears only of the past.
        """
        faulty = self.faulty(roster) - {me}
        needed = roster.k - len(faulty) - bool(me)
        oldest_us = self._ground.now_us - 1_000 * (roster.bounds.stale_ms + slow_ms + ROUNDING_MS)
        counting = {member.decision_key for member in roster.members} - faulty - {me}
        times = [said_us for key, said_us in self._heard[name].items() if key in counting]
        recent, since = sum(said_us >= oldest_us for said_us in times), sum(said_us >= self._begun_us[name] for said_us in times)
        return recent >= needed and since >= needed

    # ------------------------------------------------------------------------------------------------------------ steps

    def stepped(self, governor: Governor, before: GovernorState, events: Sequence[Event], facts: Facts, step: Step[GovernorState]) -> None:
        """I1, I11 and I12 of one step, before it is performed."""
        waiting = sorted(
            event.waiter for event in events if isinstance(event, IntentArrived | OfferArrived | OutcomesArrived | SyncArrived)
        )
        told = sorted(effect.to.waiter for effect in step.effects if isinstance(effect, Send) and isinstance(effect.to, Reply))
        if waiting != told:
            raise Violation("I12", f"{governor.name}: asked by {waiting}, answered {told}")
        permits = any(isinstance(effect, InsertOnce) and effect.space == "intent" for effect in step.effects)
        if governor.member.name not in self.liars and before.barrier is None:  # else it is what it had permitted before
            slow_ms = max(0, -governor.clock.ahead_ms())
            if permits:
                self._permits(governor)
                self.epochs.acts(governor.name, before.governance, slow_ms=slow_ms)
            elif any(isinstance(effect, Sign) and effect.use == "attest" for effect in step.effects):
                self.epochs.attests(governor.name, before.governance, slow_ms=slow_ms)
        self._steps += 1
        if self._steps % _AGAIN_EVERY == 0:
            now_ms, wall_ms = governor.clocks_ms()
            again = governor.machine.step(before, events, now_ms=now_ms, wall_ms=wall_ms, facts=facts)
            if not same_step(again, step):
                raise Violation("I11", f"{governor.name}: the same step gives other bytes")

    def _permits(self, governor: Governor) -> None:
        # Disks are slow: what was decided while fresh may be signed a little later. Whoever starts it asks again.
        if not self.fresh(governor.name, governor.roster, me=governor.member.decision_key, slow_ms=max(0, -governor.clock.step_ms)):
            raise Violation("I1", f"{governor.name} permits while k members have not been heard of within the staleness bound")

    def committed(self, governor: Governor, effects: Sequence[Persist]) -> None:
        """I3, I4 and I8 of what a governor now believes."""
        self._law_taken.update({effect.id: effect.envelope for effect in effects if isinstance(effect, PutLaw)})
        if governor.member.name in self.liars:
            return
        self.freezing.kept(governor, effects, self.liars)
        self.goals.kept(governor, effects)
        for effect in effects:
            match effect:
                case PutNote(space="certificate", origin=origin, size=size, note=note):
                    self._certificate(governor, origin, size, note)
                case Append(origin=origin, leaves=leaves) if origin == governor.roster.origin(governor.member):
                    for leaf in leaves:
                        self._recorded(governor, leaf)
                case SetMeta(key=key, value=epoch) if key == ROSTER_EPOCH:
                    self.epochs.goes_over(governor.name, epoch, self.faulty(governor.roster))
                case _:
                    pass

    def pruned(self, governor: Governor, origin: str, end: int) -> None:
        """I17 of what a governor lets go."""
        if governor.member.name not in self.liars:
            check_final(governor.name, governor.disk, origin, end, self.final.get(origin, ()))

    def _recorded(self, governor: Governor, leaf: bytes) -> None:
        record = read_record(leaf)
        if isinstance(record, Incident) and not expected(record, self.liars, self._law_taken, self.epochs.rosters):
            raise Violation("I8", f"{governor.name} recorded {record.code}: {record.detail}")
        if isinstance(record, DecisionMade) and record.authorization:
            self.permits += 1
        if isinstance(record, Denied):
            self._ground.say(governor.name, "denied", record.code)

    def _certificate(self, governor: Governor, origin: str, size: int, note: bytes) -> None:
        try:
            checkpoint, roster = self.epochs.certified(origin, note)
        except Refused as refusal:
            raise Violation("I3", f"{governor.name} holds a certificate that is none: {refusal}") from None
        held = governor.disk.hashes(origin)[:size]
        known = self.final.setdefault(origin, [])
        shared = min(len(known), size)
        if checkpoint.size != size or len(held) < size or held[:shared] != known[:shared]:
            raise Violation("I3", f"{governor.name}: final checkpoint of {origin} at {size} is of another history")
        if size > len(known):
            self._final[origin] = self._final.get(origin, Frontier.empty()).extend(held[len(known) :])
            self._certified[origin, size] = self._final[origin].root()
            self.final[origin] = list(held)
            self._kept(origin, size, roster)
            self._ground.say(governor.name, "final", f"{origin} {size}")
        if (root := self._certified.get((origin, size))) is None:
            root = self._certified[origin, size] = Frontier.empty().extend(held).root()
        if root != checkpoint.root:
            raise Violation("I3", f"{governor.name}: final checkpoint of {origin} at {size} has another root than its records")

    def _kept(self, origin: str, size: int, roster: Roster) -> None:
        wanted, keys = self.final[origin], {member.decision_key for member in roster.members}
        holding = sum(each.member.decision_key in keys and each.disk.hashes(origin)[:size] == wanted for each in self.honest)
        if holding < roster.k - roster.f:
            raise Violation("I4", f"{origin} is final at {size}, and only {holding} honest members hold it")

    # ------------------------------------------------------------------------------------------------------- signatures

    def signing(self, governor: Governor, use: KeyUse, message: bytes) -> None:
        """I5, I7 and I8 of one signature of an honest member; heartbeats of anybody are remembered."""
        if use == "decision":
            kind, payload = unpae(message)
            self._statement(governor, kind, payload)
            return
        if governor.member.name in self.liars:
            return
        time_s, text = 0, message
        if use != "log":
            head, _, text = message.removeprefix(b"cosignature/v1\ntime ").partition(b"\n")
            time_s = int(head)
        self._line(governor, use, Checkpoint.from_text(text), time_s)

    def _line(self, governor: Governor, use: KeyUse, checkpoint: Checkpoint, time_s: int) -> None:
        name, origin, size, root = governor.name, checkpoint.origin, checkpoint.size, checkpoint.root
        head = next((head for known, head in governor.disk.heads.items() if known == (use, origin)), None)
        if head is None or head.size < size or (head.size == size and (head.root, head.time_s) != (root, time_s or head.time_s)):
            raise Violation("I7", f"{name} signs {use} of {origin} at {size}, which its disk does not know")
        if self._roots.setdefault((name, origin, size), root) != root:
            raise Violation("I7", f"{name} signs two roots of {origin} at {size}")
        if use == "log":
            return
        said = self._lines.setdefault((name, use, origin, size), (time_s, root))
        if said != (time_s, root) and name not in self.restored:  # whom nobody may be able to tell when
            raise Violation("I7", f"{name} signs {use} of {origin} at {size} twice, with different times")
        newest_size, newest_s = self._newest.get((name, use, origin), (0, 0))
        if size > newest_size:
            if time_s < newest_s:
                raise Violation("I7", f"{name}: times of its {use} lines on {origin} decrease")
            self._newest[name, use, origin] = (size, time_s)

    def _statement(self, governor: Governor, kind: str, payload: bytes) -> None:
        name = governor.name
        if kind == "heartbeat":
            beat = read(Heartbeat, payload)
            self.goals.said(governor, beat, self.liars)
            self._heartbeat(governor, beat)
            return
        if governor.member.name in self.liars:
            return
        if kind == "authorization":
            authorization = read(Authorization, payload)
            identity = envelope.draft(authorization).id
            if ("intent", authorization.intent) not in governor.disk.keys or decided_at(governor.disk, authorization, identity) is None:
                raise Violation("I7", f"{name} authorizes what its disk does not know")
            self._once(name, kind, authorization.intent, payload)
        elif kind == "receipt":
            receipt = read(Receipt, payload)
            self._recorded_at(governor, receipt.record)
        elif kind == "refusal":
            refusal = read(Refusal, payload)
            owner = self.epochs.owner(refusal.origin).name
            if refusal.reason == "wrong":
                self._once(name, kind, f"{refusal.origin} {refusal.index}", refusal.leaf.encode())
            if owner not in self.liars and not self._excused(refusal):
                raise Violation("I8", f"{name} will not attest {refusal.origin} {refusal.index}: {refusal.reason} {refusal.code}")

    def _excused(self, refusal: Refusal) -> bool:
        """What is missing may be missing for a while; but it must be a record that its owner really wrote."""
        owners = [item for item in self.honest if item.roster.origin(item.member) == refusal.origin]
        log = owners[0].disk.hashes(refusal.origin) if owners else []
        return refusal.reason == "missing" and refusal.index < len(log) and log[refusal.index].hex() == refusal.leaf

    def _recorded_at(self, governor: Governor, ref: RecordRef) -> None:
        hashes = governor.disk.hashes(ref.origin)
        if ref.index >= len(hashes) or hashes[ref.index].hex() != ref.leaf:
            raise Violation("I7", f"{governor.name} signs a receipt for a record that its disk does not hold")

    def _once(self, name: str, kind: str, key: str, payload: bytes) -> None:
        said = canonical.sha256_hex(payload)
        if self._said.setdefault((name, kind, key), said) != said:
            raise Violation("I7", f"{name} signs two different {kind} statements about {key}")

    def _heartbeat(self, governor: Governor, beat: Heartbeat) -> None:
        draft = envelope.draft(beat)
        key = governor.member.decision_key
        self.beat_us[keys.signed(draft, f"{governor.label} decision")] = (key, self._ground.now_us)
        self._beat_of[draft.id] = key
        if governor.member.name in self.liars:
            return
        place = (beat.incarnation, beat.sequence)
        if place <= self._beats.get(governor.name, (0, -1)):
            raise Violation("I5", f"{governor.name} signs heartbeat {place} after {self._beats[governor.name]}")
        self._beats[governor.name] = place
        forked = {head.stream for head in beat.frontier if head.forked or head.held}
        before = [head for head in self._frontiers.get(governor.name, []) if head.stream not in forked]
        if not covers(list(beat.frontier), before) and not covers(list(beat.frontier), running(governor.held, before)):
            raise Violation("I9", f"{governor.name} says that it holds less than it said before")
        self._frontiers[governor.name] = list(beat.frontier)
        self.epochs.said(key, list(beat.frontier))
        for what, denial in self._denials:
            if told(beat.frontier, denial):
                self._knowing[what].setdefault(key, self._ground.now_us)
        if any(head.head == self._setting.activation.id for head in beat.frontier):
            self._knowing["activated"].setdefault(key, self._ground.now_us)
        for what, stream in (("halted twice", halt_stream(DOMAIN)), ("contested", policy_stream(DOMAIN))):
            if stream in forked:
                self._knowing[what].setdefault(key, self._ground.now_us)

    # -------------------------------------------------------------------------------------------------------- executions

    def starts(
        self, place: str, authorization: Authorization, holders: frozenset[str], governance: Governance, heartbeats: Sequence[str]
    ) -> None:
        """An enforcer starts this, which these keys hold with all above it, by what it holds and by these heartbeats (I1, I2, I6, I13)."""
        roster = governance.roster
        if authorization.intent in self.started:
            raise Violation("I6", f"{authorization.intent[:12]} runs at {place}, it ran at {self.started[authorization.intent]}")
        self.started[authorization.intent] = place
        if not self.fresh(place, roster):
            raise Violation("I1", f"{place} starts while k members have not been heard of within the staleness bound")
        self._by_members(place, authorization, governance, heartbeats)
        if any(("key", holder) in self._setting.revoking.revoked for holder in holders):
            self._denied(place, roster, "revoked")
        if not self.offered.issuperset(statement.id for statement in self._setting.halts):  # all of them: what allows must be complete
            self._denied(place, roster, "halted")
        lifted, by = self._setting.contested[halt_stream(DOMAIN)][-1], [item.id for item in self._setting.resolves]
        if not self.offered.issuperset([lifted.id, by[0]]):
            self._denied(place, roster, "halted twice")
        if not self.offered.issuperset(by[:2]):
            self._denied(place, roster, "contested")
        begins_ms = self._setting.activation.claims.begins_ms(roster.member(authorization.issuer).region)
        if begins_ms is not None and authorization.policy_epoch == 1:
            self._denied(place, roster, "activated", from_us=1_000 * (begins_ms - EPOCH_MS + roster.bounds.skew_ms + ROUNDING_MS))

    def _by_members(self, place: str, authorization: Authorization, governance: Governance, heartbeats: Sequence[str]) -> None:
        """I13 and I14, for one start."""
        self.epochs.acts(place, governance)
        vouching = {self._beat_of[beat] for beat in heartbeats if beat in self._beat_of}
        self.freezing.starts(place, authorization, governance, vouching)
        strangers = vouching - governance.keys.keys()
        if strangers:
            raise Violation("I13", f"{place} starts by heartbeats of {len(strangers)} strangers to epoch {governance.roster.epoch}")
        owner = next((member for member in governance.roster.members if governance.roster.origin(member) == authorization.origin), None)
        if owner is None or authorization.roster_epoch != governance.roster.epoch:
            said = f"{authorization.origin} under epoch {authorization.roster_epoch}"
            raise Violation("I13", f"{place} starts by the word of {said}, in force is {governance.roster.epoch}")

    def confirms(self, place: str, said: Heard) -> None:
        """An enforcer signs this, right now."""
        for what, denial in self._denials:
            if told(said.frontier, denial):
                self._confirmed[place].add(what)
        self.words += 1

    def _denied(self, place: str, roster: Roster, what: str, *, from_us: int = 0) -> None:
        if what in self._confirmed[place]:
            raise Violation("I2", f"{place} starts what is {what}, and has said that it starts nothing of it")
        for known in self.epochs.chain[max(0, roster.epoch - 2) : roster.epoch]:  # two that follow one another share an honest member
            keys_, k = {member.decision_key for member in known.members}, known.k
            knowing = sorted(since for key, since in self._knowing[what].items() if key in keys_)
            if len(knowing) >= k and self._ground.now_us > max(from_us, knowing[k - 1] + 1_000 * roster.bounds.stale_ms):
                raise Violation("I2", f"{place} starts what is {what} {self._ground.now_us - knowing[k - 1]} µs after {k} members said so")

    def authorizes(self, authorization: Statement[Authorization]) -> None:
        """A client was told by an authorization that its decision is recorded; a liar's word is no promise."""
        claims = authorization.claims
        if claims.issuer in self.liars:
            return
        (issuer,) = (item for item in self.honest if item.roster.origin(item.member) == claims.origin)
        leaf = decided_at(issuer.disk, claims, authorization.id)
        if leaf is None and claims.issuer in self.restored:
            return  # it was on its way when the record was lost
        if leaf is None:
            raise Violation("I7", f"{issuer.name} answers with an authorization that its disk does not hold")
        self.acknowledged[claims.origin, claims.index] = leaf

    def acknowledges(self, ref: RecordRef) -> None:
        """A client was told, with a member's signature, that something is recorded there; a liar's word is no promise."""
        owner = self.epochs.owner(ref.origin).name
        if owner in self.restored - self.liars:
            (holder,) = (item for item in self.honest if item.roster.origin(item.member) == ref.origin)
            hashes = holder.disk.hashes(ref.origin)
            if ref.index >= len(hashes) or hashes[ref.index].hex() != ref.leaf:
                return  # as above
        if owner not in self.liars:
            self.acknowledged[ref.origin, ref.index] = ref.leaf
