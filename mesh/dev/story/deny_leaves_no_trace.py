"""A denied command leaves nothing behind but the record of its denial."""

from mesh.core.log.record import DecisionMade, OutcomeRecorded
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    target = stage.folder / "never.txt"
    ran = await stage.command(
        "--context", str(stage.cluster.files.context), "run", "--as", "intern", "--action", "ops/run", "--resource", "Host:local",
        "--", "/bin/sh", "-c", f"echo ran >> {target}",
    )  # fmt: skip
    newest = await stage.about(ran.intent)
    effects = [item.record.decision.effect for item in newest if isinstance(item.record, DecisionMade)]
    started = [item for item in newest if isinstance(item.record, OutcomeRecorded) and item.record.event == "started"]
    return Measured(
        ran.status == 2 and not target.exists() and effects == ["deny"] and not started,
        f"exit {ran.status}; effect on disk: {'YES' if target.exists() else 'none'}; records: {', '.join(effects) or 'none'}",
    )


GUARANTEE = Guarantee("deny_leaves_no_trace", "a denied command never starts; only its denial is recorded", _check)
