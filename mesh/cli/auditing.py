"""`mesh audit run`: follow every log, verify every record, repeat every decision, and say what was found and what is missing."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mesh.cli import client
from mesh.cli.audit_files import audit_files
from mesh.cli.audit_metrics import write_metrics
from mesh.cli.audit_report import AuditReport
from mesh.cli.exporting import export, sample
from mesh.cli.naming import Naming
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.spans import span
from mesh.errors import MeshError
from mesh.protocol.alarms import PATIENT, Patience, Standing
from mesh.protocol.audited import AuditState

if TYPE_CHECKING:
    from mesh.roles.auditor import Auditor

__all__ = ["audit"]

_REPORT_S: Final = 10.0
_Metrics = Callable[[AuditState, list[Standing], bool], None]


@click.group()
def audit() -> None:
    """Believe nobody: follow, verify, replay, alarm."""


audit.add_command(export)
audit.add_command(sample)


@audit.command()
@click.option("--once", is_flag=True, help="End when everything that is known to be final has been judged.")
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Audit what this file holds, without a mesh: an export, a proof, a node's file or a copy of it. May be given again.",
)
@click.option("--metrics", type=click.Path(dir_okay=False, path_type=Path), help="Write a Prometheus text file here, every ten seconds.")
@click.option(
    "--proofs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a file here for each member that was seen to have signed two histories of a log, as `mesh fraud verify` takes it.",
)
@click.option("--late", callback=span, metavar="SPAN", help="After how long a missing record is an alarm, such as 2m, the default.")
@click.option("--still", callback=span, metavar="SPAN", help="After how long a log or member that stands still is one; 60s by default.")
@click.option("--longest", callback=span, metavar="SPAN", help="How long an execution may run beyond its lease; 0 by default.")
@format_option
@pass_cli
def run(
    cli: Cli,
    *,
    once: bool,
    files: tuple[Path, ...],
    metrics: Path | None,
    proofs: Path | None,
    late: int | None,
    still: int | None,
    longest: int | None,
) -> int:
    """Follow all logs, from where this context's auditor was last.

    Ends with 0 when all is well; with 5 when something was found, or a record is missing that must be there; with 4 when not everything
    could be seen: what is known to be final could not all be had, a log or a member stands still, or nobody has said how an execution
    ended. Findings stay; alarms end when what was missing comes.
    """
    logging.basicConfig(
        level=os.environ.get("MESH_LOG", "ERROR"), stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    patience = Patience(
        late_ms=PATIENT.late_ms if late is None else late,
        still_ms=PATIENT.still_ms if still is None else still,
        longest_ms=PATIENT.longest_ms if longest is None else longest,
    )
    report = AuditReport(cli, proofs)

    def measure(state: AuditState, standing: list[Standing], caught_up: bool) -> None:
        if metrics is not None:
            write_metrics(metrics, state, standing, caught_up=caught_up, now_ms=time.time_ns() // 1_000_000)

    work = audit_files(cli, files, patience) if files else _run(cli, report, measure, patience, once=once)
    state, standing, caught_up = asyncio.run(work)
    measure(state, standing, caught_up)
    return report.end(state, standing, caught_up=caught_up)


async def _run(
    cli: Cli, report: AuditReport, measure: _Metrics, patience: Patience, *, once: bool
) -> tuple[AuditState, list[Standing], bool]:
    from mesh.adapters.auditstore import AuditStore
    from mesh.adapters.bus import Bus
    from mesh.adapters.bus_table import bus_options
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread
    from mesh.gate.context import load_context
    from mesh.policy.admission import admit_laws
    from mesh.roles.auditor import Auditor

    context = load_context(cli.context)
    library = client.library_of(context.trust, context.path("."))
    report.naming = Naming(library.governance)
    thread, store = DecisionThread(), AuditStore.open(context.path(context.audit))
    try:
        engine = CedarEngine(thread)
        admit_laws([law for laws in library.governance.laws.values() for law in laws], engine)
        async with await Bus.connect(bus_options(context.auditor, name="auditor", base=context.path("."))) as bus:
            auditor = Auditor(library.governance, engine, store, bus, thread)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, auditor.stop)
            await auditor.run(once=once, changed=_talk(auditor, report, measure, patience, loop.time, silent=once))
            report.naming = Naming(auditor.governance)
            return auditor.state, auditor.standing(patience), auditor.caught_up
    finally:
        store.close()
        thread.close()


def _talk(
    auditor: "Auditor", report: AuditReport, measure: _Metrics, patience: Patience, now_s: Callable[[], float], *, silent: bool
) -> Callable[[AuditState], None]:
    """Say each new finding at once, and alarms and numbers now and then; alarms of a single run when it has seen all that it will."""
    last_s = now_s()

    def changed(state: AuditState) -> None:
        nonlocal last_s
        report.findings(state)
        if not silent and now_s() - last_s > _REPORT_S:
            last_s = now_s()
            standing = auditor.standing(patience)
            report.alarms(standing)
            report.numbers(state)
            try:
                measure(state, standing, auditor.caught_up)
            except MeshError as error:  # who cannot be told is no reason to stop looking
                report.trouble(error)

    return changed
