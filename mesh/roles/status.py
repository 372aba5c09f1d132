"""How a governor is, in one message: for `mesh status`, not for proofs."""

from collections.abc import Mapping

from mesh.core.law.governance import Governance
from mesh.core.messages import MirrorStatus, NodeStatus, PolicyStatus
from mesh.errors import Refused
from mesh.protocol.barrier import check
from mesh.protocol.catching import check_acts
from mesh.protocol.freshness import vouchers
from mesh.roles.performer import Performer

__all__ = ["node_status", "policies_of"]


def node_status(
    performer: Performer, counters: Mapping[str, int], *, started_ms: int, refused: Mapping[str, str], ailing: str = ""
) -> NodeStatus:
    """The status of the node whose steps ``performer`` performs.

    Args:
        performer: what it does.
        counters: what it counts.
        started_ms: since when it runs.
        refused: manifest id to code, of policies that it will not decide by.
        ailing: why its storage takes nothing; empty if it does.
    """
    machine, state = performer.machine, performer.state
    governance, roster = state.governance, state.governance.roster
    now_ms, code = performer.clock.now_ms(), ailing
    try:
        if state.barrier is not None:
            check(state.barrier, governance, now_ms=now_ms)
            raise Refused("barrier_pending", "")
        check_acts(governance, state.fresh, state.mirrors, state.log, wall_ms=performer.clock.wall_ms(), now_ms=now_ms)
    except Refused as refusal:
        code = code or refusal.code
    return NodeStatus(
        node=machine.me.name,
        region=machine.me.region,
        incarnation=state.incarnation,
        roster_epoch=roster.epoch,
        frontier=governance.digest,
        policies=policies_of(governance, machine.me.region, now_ms, refused),
        halted=sorted(governance.halted),
        conflicts=sum(map(governance.forked, governance.whole)),
        frozen=sorted(governance.frozen),
        origin=state.log.origin,
        size=state.log.frontier.size,
        certified=state.log.certified,
        mirrors=[
            MirrorStatus(
                origin=mirror.origin,
                size=mirror.frontier.size,
                witnessed=mirror.witnessed.size if mirror.witnessed else 0,
                attested=mirror.attested.size if mirror.attested else 0,
                certified=max(mirror.certified, min(mirror.goal, mirror.frontier.size)),
                refused=mirror.refused >= 0,
                conflicted=mirror.conflicted,
            )
            for _, mirror in sorted(state.mirrors.items())
        ],
        fresh=not code,
        code=code,
        vouchers=sorted(
            vouchers(state.fresh, governance.frontier, now_ms=now_ms, bounds=roster.bounds, whole=governance.whole).keys()
            - governance.frozen
        ),
        now_ms=now_ms,
        uptime_ms=max(0, now_ms - started_ms),
        counters=dict(counters),
    )


def policies_of(governance: Governance, region: str, now_ms: int, refused: Mapping[str, str]) -> list[PolicyStatus]:
    """How a node of ``region`` stands to the policy of each domain; ``refused`` as in :func:`node_status`."""
    found = list[PolicyStatus]()
    for standing in governance.standings(region, now_ms):
        laws, code, digest = governance.laws[standing.domain], "", ""
        try:
            law = governance.active(standing.domain, region, now_ms)
            governance.check_open(standing.domain)
            digest = law.manifest.digest
            code = refused.get(laws[-1].manifest_id, "")
        except Refused as refusal:
            code = refusal.code
        found.append(
            PolicyStatus(
                domain=standing.domain,
                active=standing.active,
                admitted=standing.admitted,
                held=laws[-1].manifest.epoch,
                digest=digest,
                code=code,
            )
        )
    return found
