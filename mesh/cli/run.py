"""`mesh run`: a program runs only with a verified authorization for exactly this start of it. `mesh request`: ask only.

Rules
-----
1. The program is measured before it is asked for, and executed through the descriptors that were measured.
2. Arguments, folder, environment and user are parameters: policy sees them, the authorization binds them. The program gets no
   variable that was not named, but for MESH_WITHIN: in a private folder, the papers of this execution, for `mesh run` in the program.
3. Standard output and error are the program's, passed on as they come; ours is one line on standard error. Its exit status is
   ours when it ran; 128 and the signal when one killed it. When it did not run, the status is that of the code (2 for a denial).
4. What is ended from outside ends the program too: Ctrl-C, SIGTERM, or the mesh.

Not here: asking and checking (:mod:`mesh.gate`), measuring and running (:mod:`mesh.adapters.exec`).
"""

import asyncio
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

import click

from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.cli.requests import read_request
from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, pack
from mesh.core.run.authorization import Authorization
from mesh.errors import Refused
from mesh.gate.errors import Denied

if TYPE_CHECKING:
    from mesh.adapters import exec as programs
    from mesh.gate.front import Execution

__all__ = ["request", "run"]

_TERMINATED: Final = 128 + signal.SIGTERM
_WITHIN: Final = "MESH_WITHIN"
F = TypeVar("F", bound=Callable[..., Any])


def _approvals(command: F) -> F:
    return click.option(
        "--approval",
        "approvals",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="An approval or break-glass grant that goes with it.",
    )(command)


def _kin(command: F) -> F:
    paths = click.Path(exists=True, dir_okay=False, path_type=Path)
    after = click.option("--after", "after", multiple=True, type=paths, help="Papers of a finished execution whose result it uses.")
    within = click.option(
        "--within",
        type=paths,
        envvar=_WITHIN,
        help="Papers of the running execution that it is a part of; in a program that `mesh run` started, that one.",
    )
    return within(after(command))


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--as", "identity", metavar="ID", help="Whose intent it is: an identity of the context.")
@click.option("--action", required=True, metavar="DOMAIN/VERB", help="What it is, such as ops/run.")
@click.option("--resource", metavar="TYPE:ID", help="What it acts on; by default Host and this host's name.")
@click.option("--cwd", type=click.Path(exists=True, file_okay=False), default=".", help="Where it starts; by default here.")
@click.option("--env", "names", multiple=True, metavar="NAME[=VALUE]", help="Give it this variable: ours, or one of its own.")
@click.option("--purpose", default="", help="Why, in your own words.")
@click.option("--papers", type=click.Path(dir_okay=False, path_type=Path), help="Write its papers here, for --after, once it has ended.")
@_approvals
@_kin
@format_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_cli
def run(  # noqa: PLR0913 -- one for each option
    cli: Cli,
    *,
    identity: str | None,
    action: str,
    resource: str | None,
    cwd: str,
    names: tuple[str, ...],
    purpose: str,
    papers: Path | None,
    approvals: tuple[Path, ...],
    within: Path | None,
    after: tuple[Path, ...],
    command: tuple[str, ...],
) -> int:
    """Run COMMAND only if the mesh authorizes exactly this start of it.

    Standard input is passed on unless it is a terminal. The exit status is the program's own; 2 when it was denied.
    """
    env = _environment(names)
    place, kin = _resource(resource), _Kin(within, after, papers)
    return asyncio.run(_run(cli, identity, action, place, command, str(Path(cwd).resolve()), env, purpose, approvals, kin))


class _Kin(NamedTuple):
    """What it is a part of, what it comes after, and where its own papers go."""

    within: Path | None
    after: tuple[Path, ...]
    papers: Path | None


async def _run(
    cli: Cli,
    identity: str | None,
    action: str,
    resource: tuple[str, str],
    command: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    purpose: str,
    approvals: Sequence[Path],
    kin: _Kin,
) -> int:
    from mesh.adapters import exec as programs
    from mesh.gate.connect import connect_async

    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    params = {"argv": list(command), "cwd": cwd, "env": [f"{name}={value}" for name, value in sorted(env.items())], "uid": os.geteuid()}
    try:
        with (
            programs.measure(command[0], os.environ.get("PATH", os.defpath)) as measured,
            tempfile.TemporaryDirectory(prefix="mesh-run-") as folder,
        ):
            async with await connect_async(cli.context, identity) as gate:
                async with gate.execution(
                    action,
                    resource,
                    params,
                    purpose=purpose,
                    approvals=approvals,
                    within=kin.within,
                    after=kin.after,
                    measure=lambda: measured.measurements,
                ) as work:
                    done = await _program(measured, command, cwd, env, work, Path(folder))
                if kin.papers is not None:
                    kin.papers.write_bytes(work.papers)
        cli.next(f"mesh why {work.intent}")
    except asyncio.CancelledError:
        return _TERMINATED
    except Denied as denied:
        return _denied(cli, denied)
    return done.status


async def _program(
    measured: "programs.Measured", command: Sequence[str], cwd: str, env: Mapping[str, str], work: "Execution", folder: Path
) -> "programs.Exit":
    from mesh.adapters import exec as programs

    shown = folder / "within.json"
    shown.write_bytes(work.papers)
    stdin = subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else sys.stdin.fileno()
    done = await programs.run(measured, command, cwd, {**env, _WITHIN: str(shown)}, on_output=_pass_on, stdin=stdin)
    for output in done.outputs:
        work.measured(output)
    work.exited(-done.signal if done.signal else done.status, "signal" if done.signal else "exit")
    return done


@click.command()
@click.option("--as", "identity", metavar="ID", help="Whose intent it is: an identity of the context.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False))
@_approvals
@_kin
@format_option
@pass_cli
def request(
    cli: Cli, *, identity: str | None, file: Path, approvals: tuple[Path, ...], within: Path | None, after: tuple[Path, ...]
) -> int:
    """Ask for the authorization that FILE (or - for standard input) describes, and print the governor's answer as it came.

    FILE is JSON: action, resource {type, id}, and perhaps params, committed, sealed, measurements, purpose, assurance. Nothing runs,
    nothing is spent; the authorization is for the enforcer of this context in this one connection.
    """
    from mesh.gate.connect import connect

    asked = read_request(file)
    try:
        with connect(cli.context, identity) as gate:
            answer = gate.request(
                asked.action,
                (asked.resource.type, asked.resource.id),
                asked.params,
                committed=asked.committed,
                sealed=asked.sealed,
                measurements=tuple(asked.measurements),
                purpose=asked.purpose,
                assurance=asked.assurance,
                approvals=approvals,
                within=within,
                after=after,
            )
    except Denied as denied:
        return _denied(cli, denied)
    cli.text(pack(answer).decode())
    claims = _claims(answer)
    cli.say(f"authorized by {claims.issuer}, {claims.assurance}, until {claims.expires_ms}")
    cli.next(f"mesh why {claims.intent}")
    return 0


def _denied(cli: Cli, denied: Denied) -> int:
    status = fail(cli, denied)
    if denied.code == "approval_needed":
        cli.next(f"mesh approve {denied.intent} --key KEYFILE")
    elif denied.record is not None:
        cli.next(f"mesh why {denied.intent}")
    return status


def _claims(answer: Authorized) -> Authorization:
    return envelope.read(Authorization, bytes(answer.authorization)).claims


def _environment(names: Sequence[str]) -> dict[str, str]:
    found = dict[str, str]()
    for item in names:
        name, equals, value = item.partition("=")
        if not name or "\0" in item:
            raise Refused("usage", f"--env {item[:80]!r}: NAME or NAME=VALUE is wanted")
        if name == _WITHIN:
            raise Refused("usage", f"--env {_WITHIN}: the program gets the papers of its own execution there")
        if not equals and name not in os.environ:
            raise Refused("usage", f"--env {name}: not set here")
        found[name] = value if equals else os.environ[name]
    return found


def _resource(text: str | None) -> tuple[str, str]:
    if text is None:
        return "Host", platform.node()
    kind, colon, identity = text.partition(":")
    if not colon:
        raise Refused("usage", f"--resource {text[:80]}: TYPE:ID is wanted")
    return kind, identity


def _pass_on(name: Literal["stdout", "stderr"], data: bytes) -> None:
    stream = sys.stdout.buffer if name == "stdout" else sys.stderr.buffer
    stream.write(data)
    stream.flush()
