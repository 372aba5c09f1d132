"""An auditor that was not there reads every log, verifies every signature, hash and certificate, and replays every decision."""

import json

from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    ran = await stage.command("--context", str(stage.cluster.files.context), "-o", "json", "audit", "run", "--once")
    try:
        report = json.loads(ran.out)
    except ValueError:
        return Measured(False, f"exit {ran.status}: {ran.err.strip()[-200:]}")
    match, mismatch, findings = report["match"], report["mismatch"], len(report["findings"])
    return Measured(
        ran.status == 0 and match > 0 and mismatch == 0 and findings == 0,
        f"{report['records']} records, {match} decisions match, {mismatch} mismatch, {findings} findings",
    )


GUARANTEE = Guarantee("auditor_agrees", "anyone can repeat every decision and get the same answer", _check)
