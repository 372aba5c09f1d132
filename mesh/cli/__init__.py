"""The command ``mesh``: thin, and light until a command is named, so that help and ``mesh verify`` start at once.

Rules
-----
1. A command's module is imported when the command runs; nothing here imports a bus, an engine or a table renderer.
2. Exit status: 0 done or permitted, 1 operational, 2 denied or a check failed, 3 invalid input, 4 unreachable or stale, 5 forged,
   64 usage, 130 interrupted. A command returns its own, or raises one of our errors, whose code says it.
3. Data goes to standard output, everything else to standard error.

Not here: what the commands do.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import click

from mesh.cli.output import Cli, fail, format_option, unexpected
from mesh.errors import MeshError, Unavailable

__all__ = ["COMMANDS", "Entry", "LazyGroup", "main", "run"]

_OPERATIONAL: Final = 1
_USAGE: Final = 64
_INTERRUPTED: Final = 130


class Entry(NamedTuple):
    """Where a command is and what it is for, without importing it."""

    target: str
    """``module:attribute`` of the click command."""
    help: str


COMMANDS: Final[Mapping[str, Entry]] = {
    "approve": Entry("mesh.cli.approving:approve", "Sign that one exact effect may happen."),
    "audit": Entry("mesh.cli.auditing:audit", "Follow every log, verify and replay everything."),
    "bench": Entry("mesh.cli.bench:bench", "Measure beside the floors."),
    "dev": Entry("mesh.cli.dev:dev", "A whole mesh on this machine, and what it promises."),
    "explain": Entry("mesh.cli.meta:explain", "What a code means and what to do about it."),
    "fraud": Entry("mesh.cli.fraud:fraud", "Proofs that somebody has said two things that cannot both be, or what others find wrong."),
    "grant": Entry("mesh.cli.approving:grant", "Break the glass: sign that there is an emergency."),
    "halt": Entry("mesh.cli.halt:halt", "Start nothing in a domain until it is resumed."),
    "key": Entry("mesh.cli.meta:key", "Make and show keys."),
    "lineage": Entry("mesh.cli.evidence:lineage", "Records of all logs."),
    "log": Entry("mesh.cli.evidence:log", "Checkpoints of a node's log."),
    "node": Entry("mesh.cli.node:node", "Run and look after a node."),
    "peer": Entry("mesh.cli.peer:peer", "The members of the mesh."),
    "policy": Entry("mesh.cli.policy:policy", "Write, test, sign and hand out policy."),
    "prove": Entry("mesh.cli.proofs:prove", "Write the proof of a record to a file."),
    "replay": Entry("mesh.cli.proofs:replay", "Repeat a recorded decision here."),
    "request": Entry("mesh.cli.run:request", "Ask for an authorization."),
    "resolve": Entry("mesh.cli.streams:resolve", "Say which history of a forked stream counts."),
    "resume": Entry("mesh.cli.halt:resume", "Lift the halts of a domain."),
    "revocations": Entry("mesh.cli.revocations:revocations", "What has been revoked."),
    "revoke": Entry("mesh.cli.revoke:revoke", "Revoke a key, subject, document, issuer, governor or other thing, for ever."),
    "roster": Entry("mesh.cli.roster:roster", "Read, plan, sign and hand out rosters."),
    "run": Entry("mesh.cli.run:run", "Run a program only if it is authorized."),
    "schema": Entry("mesh.cli.meta:schema", "The JSON Schema of a kind of statement."),
    "status": Entry("mesh.cli.evidence:status", "How the nodes are."),
    "streams": Entry("mesh.cli.streams:streams", "What is said in the mesh's streams, and which have forked."),
    "trust": Entry("mesh.cli.trust:trust", "How many owners would have to collude."),
    "verify": Entry("mesh.cli.offline:verify", "Check proofs without any network."),
    "version": Entry("mesh.cli.meta:version", "Which version this is."),
    "witness": Entry("mesh.cli.witnessing:witness", "A witness of its own, for logs of any mesh and any maker."),
    "why": Entry("mesh.cli.evidence:why", "What happened to an intent, and by what right."),
    "world": Entry("mesh.cli.world:world", "Seeded worlds of simulated nodes."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that runs."""

    entries: Mapping[str, Entry] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, sorted."""
        return sorted({*super().list_commands(ctx), *self.entries})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, from what is known without importing."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in sorted(self.entries.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.option("--context", "context", metavar="NAME", help="Which mesh: a context's name or file.")
@click.option("--no-color", is_flag=True, help="Plain text.")
@click.option("-q", "--quiet", is_flag=True, help="Data and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks too.")
@format_option
@click.pass_obj
def root(cli: Cli, context: str | None, *, no_color: bool, quiet: bool, verbose: bool) -> None:
    """Peer governance: decide before it runs, prove it afterwards, trust no single node."""
    cli.context = context
    cli.color = cli.color and not no_color
    cli.quiet, cli.verbose = quiet, verbose


def main() -> None:
    """Entry point of the command ``mesh``."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit status."""
    cli = Cli()
    try:
        result = root.main(args=list(arguments), prog_name="mesh", obj=cli, standalone_mode=False)
    except click.ClickException as error:
        return _usage(cli, error)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing at exit fails again
        return _OPERATIONAL
    except MeshError as error:
        return fail(cli, error)
    except ModuleNotFoundError as error:
        return fail(cli, Unavailable("not_installed", error.name or ""))
    except Exception as error:  # noqa: BLE001 -- a traceback is not an answer; -v shows it
        return unexpected(cli, error)
    return result if isinstance(result, int) else 0


def _usage(cli: Cli, error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    else:
        cli.error("usage", error.format_message(), fix=f"{context.command_path if context else 'mesh'} --help")
    return _USAGE
