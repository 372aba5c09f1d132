"""How a governor is, in one message: for `mesh status`, not for proofs."""

from collections.abc import Mapping

from mesh.core.messages import MirrorStatus, NodeStatus, PolicyStatus
from mesh.errors import Refused
from mesh.protocol.barrier import check
from mesh.protocol.freshness import check_clock, check_fresh, vouchers
from mesh.roles.performer import Performer

__all__ = ["node_status"]


def node_status(performer: Performer, counters: Mapping[str, int], *, started_ms: int) -> NodeStatus:
    """The status of the node whose steps ``performer`` performs; it started at ``started_ms``."""
    machine, state = performer.machine, performer.state
    governance, roster = state.governance, state.governance.roster
    now_ms, code = performer.clock.now_ms(), ""
    try:
        if state.barrier is not None:
            check(state.barrier, governance, now_ms=now_ms)
            raise Refused("barrier_pending", "")
        check_clock(state.fresh, roster, wall_ms=performer.clock.wall_ms(), now_ms=now_ms)
        check_fresh(state.fresh, governance.frontier, roster, now_ms=now_ms, whole=governance.whole)
    except Refused as refusal:
        code = refusal.code
    return NodeStatus(
        node=machine.me.name,
        region=machine.me.region,
        incarnation=state.incarnation,
        roster_epoch=roster.epoch,
        frontier=governance.digest,
        policies=[
            PolicyStatus(domain=domain, epoch=epochs[-1].manifest.epoch, digest=epochs[-1].manifest.digest)
            for domain, epochs in sorted(governance.laws.items())
        ],
        halted=sorted(governance.halted),
        origin=state.log.origin,
        size=state.log.frontier.size,
        certified=state.log.certified,
        mirrors=[
            MirrorStatus(
                origin=mirror.origin,
                size=mirror.frontier.size,
                witnessed=mirror.witnessed.size if mirror.witnessed else 0,
                attested=mirror.attested.size if mirror.attested else 0,
                certified=mirror.certified,
                refused=mirror.refused >= 0,
                conflicted=mirror.conflicted,
            )
            for _, mirror in sorted(state.mirrors.items())
        ],
        fresh=not code,
        code=code,
        vouchers=sorted(vouchers(state.fresh, governance.frontier, now_ms=now_ms, bounds=roster.bounds, whole=governance.whole)),
        now_ms=now_ms,
        uptime_ms=max(0, now_ms - started_ms),
        counters=dict(counters),
    )
