"""When a world counts as whole again: everything acknowledged is final, everybody holds the same, and work is allowed (I10).

Not here: what troubled it (:mod:`mesh.testing.world.faults`).
"""

from contextlib import suppress
from typing import Final

from mesh.core.bytes import canonical
from mesh.core.law.retain import NOWHERE, Floors
from mesh.core.law.roster import Member
from mesh.core.law.succession import same_member
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.record import DecisionMade, EnforcerHeard, OutcomeRecorded, read_record
from mesh.core.messages import Openings
from mesh.errors import Refused
from mesh.limits import REQUEST_BYTES_MAX
from mesh.protocol.attester import Material, examine_records
from mesh.protocol.documents import Documents
from mesh.protocol.hearing import NOBODY, newest
from mesh.protocol.members import owner_of
from mesh.protocol.serving import body_ids
from mesh.testing.world.clients import Wish
from mesh.testing.world.engine import WorldEngine
from mesh.testing.world.erasing import unerased
from mesh.testing.world.governor import Governor
from mesh.testing.world.ground import Violation
from mesh.testing.world.liars import thieves
from mesh.testing.world.lives import check_lives
from mesh.testing.world.pruning import Archive, unpruned
from mesh.testing.world.setting import ENFORCERS
from mesh.testing.world.stage import Stage

__all__ = ["Healing"]

_PROBE_US: Final = 500_000


class Healing:
    """Asks for work at every honest governor until it is done, then waits until all is final everywhere."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._archive = Archive(())
        self._wanted: dict[str, str] = {}
        """Governor to the newest intent that it was asked for."""
        self._probe(0)

    def _named(self) -> list[Governor]:
        """Honest governors that the newest roster names."""
        watch = self._stage.watch
        members = watch.epochs.newest.members
        return [each for each in watch.honest if any(same_member(each.member, member) for member in members)]

    def _probe(self, count: int) -> None:
        """One more round; nothing is asked of whom has already permitted what then ran."""
        stage = self._stage
        for at, governor in enumerate(self._named()):
            name = governor.member.name
            if self._wanted.get(name) in stage.watch.started:
                continue
            enforcer = ENFORCERS[(at + count) % len(ENFORCERS)]
            wish = Wish(enforcer=enforcer, allow=True, fail=False, memo="", twice=False, governors=(name,))
            self._wanted[name] = stage.workloads["w0"].want(wish)
        stage.ground.after(_PROBE_US, lambda: self._probe(count + 1))

    def whole(self) -> bool:
        """Whether all is well."""
        return not self.missing()

    def missing(self) -> str:
        """What is not well yet; the first thing found."""
        stage = self._stage
        epochs = self._epochs()
        if epochs:
            return epochs
        for governor in self._named():
            if self._wanted.get(governor.member.name) not in stage.watch.started:
                return f"{governor.name} permits nothing that runs"
        for enforcer in stage.enforcers.values():
            if enforcer.unsent:
                return f"{enforcer.name} has {len(enforcer.unsent)} outcomes that nobody has recorded"
            if enforcer.untold is not None:
                return f"nobody has recorded what {enforcer.name} has heard"
        if found := next((said for each in self._named() if (said := self._held(each) or self._unproven(each))), ""):
            return found
        governing = {governor.name: governor.state.governance for governor in self._named() if governor.state is not None}
        governing |= {enforcer.name: enforcer.governance for enforcer in stage.enforcers.values()}
        if free := stage.watch.freezing.missing(governing):
            return free
        states = {name: governance.digest for name, governance in governing.items()}
        if len(set(states.values())) > 1:
            return f"not all hold the same law: {states}"
        handed = stage.handed.lacking([*governing.values()]) if stage.handed is not None else ""
        if handed:
            return handed
        known = [self._heard(governor) for governor in self._named()]
        if known != known[:1] * len(known):
            return f"not all know the same of what enforcers have heard: {known}"
        return self._lost()

    def _unproven(self, governor: Governor) -> str:
        """Of whom it refuses a record that is not final, though nobody has proven that it is wrong."""
        state = governor.state
        for origin, held in state.mirrors.items() if state is not None else ():
            open_ = bool(held.refusal) and not held.left and held.refused >= max(held.goal, held.certified)
            if open_ and state is not None and not state.governance.caught(owner_of(state.governance, origin)):
                return f"{governor.name} refuses record {held.refused} of {origin}, and its owner is not caught"
        return ""

    def _epochs(self) -> str:
        """Who does not act under the newest roster."""
        stage = self._stage
        newest = stage.watch.epochs.newest.epoch
        in_force = {each.name: each.governance.roster.epoch for each in stage.enforcers.values()}
        in_force |= {each.name: each.roster.epoch for each in self._named()}
        if set(in_force.values()) != {newest}:
            return f"not all act under epoch {newest}: {in_force}"
        return ""

    def _lost(self) -> str:
        """What was final or acknowledged and is not held; who is no member any more makes nothing final."""
        stage = self._stage
        roster = stage.watch.epochs.newest
        remaining = {roster.origin(member) for member in roster.members}
        for origin, final in stage.watch.final.items():
            if all(each.disk.hashes(origin)[: len(final)] != final for each in self._named()):
                return f"nobody who is left holds the {len(final)} final records of {origin}"
            if stage.watch.epochs.owner(origin).name not in stage.watch.liars:  # of two histories who is left may hold the other one
                lost = self._unproved(origin, len(final))
                if lost:
                    return lost
        for (origin, index), leaf in stage.watch.acknowledged.items():
            final = stage.watch.final.get(origin, [])
            if index >= len(final) and origin not in remaining:
                continue
            if index >= len(final) or final[index].hex() != leaf:
                return f"{origin} {index} was acknowledged and is not final"
        return ""

    def _unproved(self, origin: str, size: int) -> str:
        """Who has no certificate that whoever trusts the newest roster believes, over all that was ever final of a log."""
        epochs = self._stage.watch.epochs
        for each in self._named():
            note = each.disk.newest("certificate", origin)
            try:
                checkpoint, roster = epochs.believed(origin, note)
            except Refused as refusal:
                return f"{each.name} has no certificate of {origin} for whoever trusts the newest roster: {refusal}"
            if checkpoint.size < size or roster is not epochs.newest:
                return f"{each.name} has a certificate of {origin} at {checkpoint.size} of epoch {roster.epoch}, {size} were final"
        return ""

    def _held(self, owner: Governor) -> str:
        origin, state = owner.roster.origin(owner.member), owner.state
        if state is None:
            return f"{owner.name} is down"
        if rotten := owner.disk.damaged():
            return f"{owner.name} has rotten records: {rotten}"
        size = state.log.frontier.size
        if state.log.certified < size:
            return f"{origin} has {size} records, {state.log.certified} of them final"
        now_ms, restored = owner.clocks_ms()[0], owner.member.name in self._stage.watch.restored
        if left := unerased(owner.disk, state) or unpruned(owner.disk, state, now_ms, restored=restored):
            return f"{owner.name}: {left}"
        for other in self._named():
            if other is owner:
                continue
            if other.state is None or other.state.mirrors[origin].frontier != state.log.frontier:
                return f"{other.name} does not hold {origin} up to {size}"
        return ""

    def _heard(self, governor: Governor) -> dict[str, str]:
        """Enforcer to the newest word that honest logs have of it, as this governor knows them."""
        honest = {each.roster.origin(each.member) for each in self._named()}
        words = governor.state.words if governor.state is not None else NOBODY
        floors: Floors = governor.state.governance.floors if governor.state is not None else {}
        kept = {  # whose newest word was pruned may be known by nothing any more
            log: {key: word for key, word in words[log].items() if word.index >= floors.get(log, NOWHERE).below}
            for log in words
            if log in honest
        }
        return {key: word.id for key, (_, word) in newest(kept).items()}

    def robbed(self) -> None:
        """I3: all keys of removed members are found; what k of a former roster certify by them is believed by nobody who knows better."""
        epochs = self._stage.watch.epochs
        for former in epochs.chain[:-1]:
            note = thieves(former, epochs.newest)
            if note:
                with suppress(Refused):
                    epochs.believed(read_checkpoint(note).origin, note)
                    said = f"whoever trusts epoch {epochs.newest.epoch} believes what removed keys of epoch {former.epoch} certify"
                    raise Violation("I3", said)

    def audit(self) -> None:
        """I11: every record of an honest log, and every final one of a liar's, is what its rules demand; every decision replays."""
        watch = self._stage.watch
        self._archive = Archive(each.disk for each in watch.honest)
        for governor in watch.honest:
            self._audit(governor, governor.member, governor.disk.size(governor.roster.origin(governor.member)))
        for origin in sorted(watch.final):
            owner, final = watch.epochs.owner(origin), len(watch.final[origin])
            if owner.name in watch.liars:
                holding = next(each for each in self._named() if each.disk.size(origin) >= final)
                self._audit(holding, owner, final)
        newest = next(each.state.governance for each in self._named() if each.state is not None)
        check_lives(watch.honest, newest, self._archive, whole=not (watch.liars or watch.restored))

    def _audit(self, governor: Governor, member: Member, size: int) -> None:
        states = (each.state for each in self._named())
        governance, disk = next(state.governance for state in states if state is not None), governor.disk
        leaves = self._archive.records(disk, governance.roster.origin(member))[:size]
        bodies = {key: self._archive.bodies[key] for leaf in leaves for key in body_ids(read_record(leaf)) if key in self._archive.bodies}
        held = self._archive.openings if disk.floors else disk.openings
        openings = {intent: canonical.decode(Openings, data, bytes_max=REQUEST_BYTES_MAX) for intent, data in held.items()}
        examined = examine_records(
            leaves,
            Material(bodies, openings),
            owner=member,
            first=0,
            after_ms=0,
            governance=governance,
            documents=Documents(),
            engine=WorldEngine(),
            now_ms=1 << 52,
        )
        for index, item in enumerate(examined):
            if item.code == "erased" and item.record.intent in disk.erased:  # type: ignore[union-attr]  # a decision
                continue
            if item.code and isinstance(item.record, DecisionMade | EnforcerHeard | OutcomeRecorded):
                raise Violation("I11", f"record {index} of {member.name}: {item.code} {item.detail}")
