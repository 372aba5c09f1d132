"""How a governor starts: from what its storage holds, it takes up exactly where its signatures left off.

Rules
-----
1. The incarnation rises before anything is signed, so no heartbeat of this boot repeats one of an earlier boot. Who has peers asks
   them first what it has signed (:mod:`mesh.protocol.barrier`): until then it has no incarnation.
2. A checkpoint that was persisted and has no certificate is outstanding: it is signed and announced again with the same bytes.
3. Nothing is fresh yet: freshness begins empty.
4. Logs of former members are mirrored on: nobody else keeps what was final in them.
5. A start is a leap of time: nobody has borne out what the clock says. So nothing is recorded yet, not even the start.

Not here: what peers know of this node's own signatures.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mesh.core.bytes import canonical
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import restore, with_bundle
from mesh.core.law.policy import Bundle
from mesh.core.law.travel import Said
from mesh.protocol.barrier import pending
from mesh.protocol.freshness import Freshness, leap
from mesh.protocol.gossip import ToldIncident, put, told
from mesh.protocol.governor import Machine
from mesh.protocol.members import logs_of
from mesh.protocol.state import GovernorState
from mesh.protocol.step import PutBundle, SetMeta, Step
from mesh.protocol.stored import INCARNATION, Stored, own_log
from mesh.protocol.together import resumed

__all__ = ["begin"]


def begin(
    machine: Machine,
    stored: Stored,
    *,
    boot: str,
    now_ms: int,
    given: Sequence[Statement[Said]] = (),
    admitted: Mapping[str, Bundle] = MappingProxyType({}),
    found: Sequence[ToldIncident] = (),
) -> Step[GovernorState]:
    """The first step of a boot.

    Args:
        machine: the governor.
        stored: what storage holds.
        boot: 32 fresh random bytes, hex.
        now_ms: steady time.
        given: governance statements that the node is configured with; ``machine.governance`` believes them.
        admitted: manifest id to the bundle that its engine can decide by already.
        found: incidents that the log has to say, of what went wrong with storage before.

    Raises:
        Alarm: ``storage_rolled_back`` when more was signed than is held, and there is nobody to ask.
    """
    roster, me = machine.governance.roster, machine.me
    origin = roster.origin(me)
    waiting = pending(roster, me, stored, boot=boot, now_ms=now_ms)
    log = own_log(origin, stored.own, now_ms=now_ms)
    others = [name for name in logs_of(machine.governance) if name != origin]
    mirrors = {name: resumed(name, stored.mirrors.get(name), machine.governance) for name in others}
    governance = restore(machine.governance, stored.law)
    for manifest, bundle in admitted.items():
        governance = with_bundle(governance, manifest, bundle)
    held = {statement.id for statement in stored.law}
    incarnation = stored.incarnation + 1 if waiting is None else 0
    new = [statement for statement in given if statement.id not in held]
    state = GovernorState(
        incarnation=incarnation,
        sequence=0,
        governance=governance,
        asking={},
        untold=(("started", machine.governance.roster_id), *(told(statement, governance) for statement in new), *found),
        news=False,
        log=log,
        mirrors=mirrors,
        # Where there are not more than f others nobody could ever bear this clock out: there it must do.
        fresh=leap(Freshness.begin(boot)) if len(roster.members) - 1 > roster.f else Freshness.begin(boot),
        was_fresh=False,
        beat_ms=0,
        noise={},
        noise_ms=0,
        heard=stored.heard,
        barrier=waiting,
        words=stored.words,
    )
    kept = [PutBundle(law.manifest.digest, canonical.encode(law.bundle)) for laws in governance.laws.values() for law in laws if law.bundle]
    risen = (SetMeta(INCARNATION, incarnation),) if waiting is None else ()
    return Step(state, (*risen, *(put(statement) for statement in new), *kept))
