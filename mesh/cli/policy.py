"""`mesh policy`: begin a policy folder, check it the way a node would, run its cases on the real engine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.policy_shadow import shadow
from mesh.codes import CODES

if TYPE_CHECKING:
    from mesh.policy.build import Built
    from mesh.policy.folder import PolicyRefused

__all__ = ["policy"]

_FOLDER = click.argument("folder", type=click.Path(path_type=Path), default=Path())


@click.group(no_args_is_help=True)
def policy() -> None:
    """Write, check and test policy."""


policy.add_command(shadow)


@policy.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--mesh", "mesh_name", default="dev", show_default=True, metavar="NAME", help="Trust domain of the SPIFFE ids in it.")
@format_option
@pass_cli
def init(cli: Cli, folder: Path, mesh_name: str) -> int:
    """Write a small policy into FOLDER, to begin with."""
    from mesh.policy.init import write_starter

    files = write_starter(folder, mesh=mesh_name)
    cli.rows(["file"], [{"file": str(file)} for file in files])
    cli.next(f"mesh policy test {folder}")
    return 0


@policy.command()
@_FOLDER
@format_option
@pass_cli
def check(cli: Cli, folder: Path) -> int:
    """Check everything in FOLDER except its cases, and list all that is wrong."""
    built = _built(cli, folder)
    if isinstance(built, int):
        return built
    bundle = built.bundle
    cli.value(
        {
            "domain": bundle.domain,
            "digest": built.digest,
            "bytes": len(built.data),
            "policies": len(bundle.policies),
            "actions": len(bundle.actions),
            "entities": len(bundle.entities),
            "cases": len(bundle.cases),
        }
    )
    cli.next(f"mesh policy test {folder}")
    return 0


@policy.command()
@_FOLDER
@format_option
@pass_cli
def test(cli: Cli, folder: Path) -> int:
    """Check FOLDER, then run its cases on the real engine."""
    import time

    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread
    from mesh.policy.cases import run_cases

    built = _built(cli, folder)
    if isinstance(built, int):
        return built
    thread = DecisionThread()
    engine = CedarEngine(thread)
    engine.load(built.bundle, built.digest)
    outcomes = thread.call(run_cases, built.bundle, built.actions, engine, clock_ns=time.perf_counter_ns)
    thread.close()
    rows = [{"result": "PASS" if one.ok else "FAIL", "us": round(one.us), "case": one.name, "decided": one.said} for one in outcomes]
    cli.rows(["result", "us", "case", "decided"], rows)
    failed = sum(not one.ok for one in outcomes)
    cli.say(f"{len(outcomes) - failed} passed, {failed} failed")
    if failed or not outcomes:
        detail = f"{failed} of {len(outcomes)} cases failed" if outcomes else f"{folder} has no cases in tests/*.toml"
        cli.error("policy_tests_failed", detail, fix="mend the policy, or what the case expects")
        return CODES["policy_tests_failed"].exit
    return 0


def _built(cli: Cli, folder: Path) -> "Built | int":
    """What the folder makes, or the exit status after saying all that is wrong with it."""
    from mesh.policy.build import check as check_folder
    from mesh.policy.folder import PolicyRefused

    try:
        return check_folder(folder)
    except PolicyRefused as refused:
        return _say(cli, refused, folder)


def _say(cli: Cli, refused: "PolicyRefused", folder: Path) -> int:
    for finding in refused.findings:
        cli.error(finding.code, f"{finding.where}: {finding.what}", fix=f"mend {finding.where} in {folder}")
    return CODES[refused.code].exit
