"""`mesh audit run`: follow every log, verify every record, repeat every decision, and say what was found."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from mesh.cli import client
from mesh.cli.exporting import export, sample
from mesh.cli.naming import Naming
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.protocol.audited import AuditState, Finding, tally

__all__ = ["audit"]

_BEHIND: Final = 4
_FOUND: Final = 5
_REPORT_S: Final = 10.0


@click.group()
def audit() -> None:
    """Believe nobody: follow, verify, replay, alarm."""


audit.add_command(export)
audit.add_command(sample)


@audit.command()
@click.option("--once", is_flag=True, help="End when everything that is known to be final has been judged.")
@format_option
@pass_cli
def run(cli: Cli, *, once: bool) -> int:
    """Follow all logs, from where this context's auditor was last.

    Ends with 0 when all is well, 5 when something was found, 4 when what is known to be final could not all be had.
    """
    logging.basicConfig(
        level=os.environ.get("MESH_LOG", "ERROR"), stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    state, caught_up, naming = asyncio.run(_run(cli, once=once))
    numbers = tally(state)
    found = [_finding(finding, naming) for finding in state.findings]
    if cli.format == "table":
        cli.value({"caught up": caught_up, **_numbers(state)})
        if found:
            cli.rows(("code", "record", "detail"), found)
    else:
        cli.value({"caught_up": caught_up, **_numbers(state), "findings": found, "found": numbers.findings})
    cli.next(f"mesh lineage show {found[0]['record']}" if found else "mesh status")
    return _FOUND if numbers.findings else 0 if caught_up else _BEHIND


async def _run(cli: Cli, *, once: bool) -> tuple[AuditState, bool, Naming]:
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
    naming = Naming(library.governance)
    thread, store = DecisionThread(), AuditStore.open(context.path(context.audit))
    try:
        engine = CedarEngine(thread)
        admit_laws([law for laws in library.governance.laws.values() for law in laws], engine)
        async with await Bus.connect(bus_options(context.auditor, name="auditor", base=context.path("."))) as bus:
            auditor = Auditor(library.governance, engine, store, bus, thread)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, auditor.stop)
            await auditor.run(once=once, changed=_talk(cli, loop.time, naming, silent=once))
            return auditor.state, auditor.caught_up, naming
    finally:
        store.close()
        thread.close()


def _talk(cli: Cli, now_s: Callable[[], float], naming: Naming, *, silent: bool) -> Callable[[AuditState], None]:
    """Say each new finding at once, and the numbers now and then."""
    said: set[Finding] = set()
    last_s = now_s()

    def changed(state: AuditState) -> None:
        nonlocal last_s
        for finding in state.findings:
            if finding not in said:
                said.add(finding)
                cli.say(f"found {finding.code} at {naming.place(finding.origin, finding.index)}: {finding.detail}")
        if not silent and now_s() - last_s > _REPORT_S:
            last_s = now_s()
            cli.say(", ".join(f"{name} {value}" for name, value in _numbers(state).items()))

    return changed


def _numbers(state: AuditState) -> dict[str, Any]:
    numbers = tally(state)
    return {
        "records": numbers.records,
        "final": numbers.final,
        "match": numbers.match,
        "mismatch": numbers.mismatch,
        "unverifiable": numbers.unverifiable,
        "breakglass": numbers.breakglass,
        "findings": numbers.findings,
        "garbage": numbers.garbage,
    }


def _finding(finding: Finding, naming: Naming) -> dict[str, Any]:
    return {"code": finding.code, "record": naming.place(finding.origin, finding.index), "detail": finding.detail}
