"""`mesh policy`: begin a policy folder, check it the way a node would, run its cases on the real engine, build its bundle.

Not here: signing (:mod:`mesh.cli.policy_sign`), handing over (:mod:`mesh.cli.policy_push`), beginning
(:mod:`mesh.cli.policy_activate`), looking (:mod:`mesh.cli.policy_read`, :mod:`mesh.cli.policy_diff`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mesh.cli import Entry, LazyGroup
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.codes import CODES
from mesh.errors import Refused

if TYPE_CHECKING:
    from mesh.policy.build import Built
    from mesh.policy.folder import PolicyRefused

__all__ = ["build", "check", "checked", "init", "policy", "require_cases", "test"]

_FOLDER = click.argument("folder", type=click.Path(path_type=Path), default=Path())


_COMMANDS: Final[Mapping[str, Entry]] = {
    "activate": Entry("mesh.cli.policy_activate:activate", "Say from when an epoch decides, region by region."),
    "build": Entry("mesh.cli.policy:build", "Check a folder as a node does, and write its bundle."),
    "check": Entry("mesh.cli.policy:check", "Check everything in a folder except its cases."),
    "diff": Entry("mesh.cli.policy_diff:diff", "What is different between two policies."),
    "init": Entry("mesh.cli.policy:init", "Write a small policy to begin with."),
    "ls": Entry("mesh.cli.policy_read:ls", "The epochs that the mesh holds, and how members stand to them."),
    "push": Entry("mesh.cli.policy_push:push", "Hand a signed manifest and its bundle to every member."),
    "rollback": Entry("mesh.cli.policy_sign:rollback", "Sign an older epoch's content as a new epoch."),
    "shadow": Entry("mesh.cli.policy_shadow:shadow", "What a policy would have said to what was really asked."),
    "show": Entry("mesh.cli.policy_read:show", "One epoch: who signed what, on which terms, from when."),
    "sign": Entry("mesh.cli.policy_sign:sign", "Sign a policy, or add a signature to what others signed."),
    "test": Entry("mesh.cli.policy:test", "Check a folder, then run its cases on the real engine."),
}


class _Policy(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_Policy, no_args_is_help=True)
def policy() -> None:
    """Write, test, sign and hand out policy.

    Its life: `init`, `test` · `build` · `sign`, by each signer on a machine of their own · `push`, until k nodes have admitted it ·
    `activate`, which says from when it decides in each region · `ls`, `show`, `diff` · `rollback`.
    """


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
@_FOLDER
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Write the bundle to this file.")
@pass_cli
def build(cli: Cli, folder: Path, out: Path) -> int:
    """Check FOLDER as a node does, its cases too, and write the one bundle that it makes.

    The same folder gives the same bytes on every machine, so whoever signs can build it again and compare the digest.
    """
    from mesh.cli.cosigning import write_file

    built = _built(cli, folder)
    if isinstance(built, int):
        return built
    require_cases(built)
    write_file(out, built.data)
    cli.value({"domain": built.bundle.domain, "digest": built.digest, "bytes": len(built.data), "file": str(out)})
    cli.next(f"mesh policy sign {folder} --key KEYFILE")
    return 0


def checked(folder: Path) -> "Built":
    """What the folder makes, checked as a node does, its cases too.

    Raises:
        Refused: what is wrong with it.
    """
    from mesh.policy.build import check as check_folder

    built = check_folder(folder)
    require_cases(built)
    return built


def require_cases(built: "Built") -> None:
    """That there are cases, and that each gives what it must.

    Raises:
        Refused: ``policy_tests_failed``.
    """
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread
    from mesh.policy import cases

    if not built.bundle.cases:
        raise Refused("policy_tests_failed", "there are no cases in tests/*.toml")
    thread = DecisionThread()
    try:
        engine = CedarEngine(thread)
        engine.load(built.bundle, built.digest)
        thread.call(cases.require_cases, built.bundle, built.actions, engine)
    finally:
        thread.close()


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
        fix = (
            f"mend {finding.where} in {folder}"
            if finding.where != str(folder)
            else "name a folder with a policy: `mesh policy init DIR` makes one"
        )
        cli.error(finding.code, f"{finding.where}: {finding.what}", fix=fix)
    return CODES[refused.code].exit
