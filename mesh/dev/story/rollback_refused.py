"""An old manifest offered again, and an older epoch activated by the very people who may: nothing changes anywhere."""

from mesh.adapters.clock import wall_ms
from mesh.core.bytes import envelope
from mesh.core.law.activation import Activation, Ring, activate_stream
from mesh.dev import lawmaking
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    held = await lawmaking.manifests(stage)
    before = await _active(stage)
    again = await stage.offer(held[0].envelope)
    steps = [envelope.read(Activation, item.envelope) for item in await stage.law(activate_stream(lawmaking.DOMAIN))]
    older = Activation(
        mesh=held[0].claims.mesh,
        domain=lawmaking.DOMAIN,
        sequence=len(steps) + 1,
        previous=steps[-1].id if steps else "",
        since="",
        epoch=held[0].claims.epoch,
        manifest=held[0].id,
        rings=[Ring(regions=[], not_before_ms=wall_ms() - 1)],
        reason="the story: an older epoch",
        issued_ms=wall_ms(),
    )
    taken = await stage.offer(lawmaking.signed(stage, older, 2))
    after = await _active(stage)
    newest = held[-1].claims.epoch
    return Measured(
        len(held) > 1 and before == after == dict.fromkeys(stage.nodes, newest) and not any([*again.values(), *taken.values()]),
        f"epoch 1 offered to {len(again)} nodes again, then activated by two signers: {_told(before)} before, {_told(after)} after",
    )


async def _active(stage: Stage) -> dict[str, int]:
    """Node to the epoch by which it decides."""
    found = dict[str, int]()
    for node in stage.nodes:
        status = await stage.status(node)
        found[node] = next((policy.active for policy in status.policies if policy.domain == lawmaking.DOMAIN), 0)
    return found


def _told(active: dict[str, int]) -> str:
    return "epoch " + ", ".join(map(str, sorted(set(active.values()))))


GUARANTEE = Guarantee("rollback_refused", "nobody brings an older policy back under its old number", _check)
