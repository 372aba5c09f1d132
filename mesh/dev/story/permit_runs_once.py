"""A permitted command really runs, once, and its start and end are records."""

from mesh.core.log.record import DecisionMade, OutcomeRecorded
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    target = stage.folder / "ran.txt"
    target.unlink(missing_ok=True)
    ran = await stage.command(
        "--context", str(stage.cluster.files.context), "run", "--as", "deployer", "--action", "ops/run", "--resource", "Host:local",
        "--", "/bin/sh", "-c", f"echo ran >> {target}",
    )  # fmt: skip
    lines = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    events: list[str] = []

    async def recorded() -> bool:
        newest = await stage.about(ran.intent)
        events[:] = [
            item.record.event if isinstance(item.record, OutcomeRecorded) else item.record.decision.effect
            for item in newest
            if isinstance(item.record, OutcomeRecorded | DecisionMade)
        ]
        return "finished" in events

    await stage.until("the end to be recorded", recorded)
    return Measured(
        ran.status == 0 and lines == ["ran"] and events == ["permit", "started", "finished"],
        f"exit {ran.status}; effect on disk {len(lines)} time(s); records: {', '.join(events) or 'none'}",
    )


GUARANTEE = Guarantee("permit_runs_once", "a permitted command runs, exactly once, and is recorded from decision to end", _check)
