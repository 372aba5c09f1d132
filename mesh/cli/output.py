"""How commands speak: data on standard output in one of three formats, talk on standard error, every no with its code and fix.

Rules
-----
1. ``table`` is for people, ``json`` is one value, ``jsonl`` one object a line. The data are the same; nothing is only in one.
2. Errors look the same everywhere: ``error[code]: what``, then ``fix: …``; as JSON they are ``{"error":{…}}`` on standard error.
3. A table is plain text unless a person looks at it and rich is installed; nothing else here knows rich.
4. What comes from the mesh is printed without control characters: a record must not paint on an operator's terminal.
"""

import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, cast, get_args

import click

from mesh.codes import CODES
from mesh.errors import MeshError

__all__ = ["Cli", "Format", "fail", "format_option", "one_line", "pass_cli", "plain", "unexpected"]

Format = Literal["table", "json", "jsonl"]
Row = Mapping[str, object]
F = TypeVar("F", bound=Callable[..., Any])
_GAP: Final = "  "
_OPERATIONAL: Final = 1
_PATIENCE_S: Final = 1.0


class Cli:
    """What the options before the command said, and the way to print."""

    def __init__(self) -> None:
        self.context: str | None = None
        """The context that was named; ``None`` for the default one."""
        self.format: Format = "table"
        self.color = "NO_COLOR" not in os.environ
        self.quiet = False
        self.verbose = False
        self._began_s = time.monotonic()
        self._drawn = 0
        """Characters of the line of progress that stands there."""

    # ------------------------------------------------------------------------------------------------- standard output

    def rows(self, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Print many things. A table shows ``columns``; the other formats show all that a row has."""
        if self.format == "json":
            self._line(json.dumps(list(rows), indent=2))
        elif self.format == "jsonl":
            for row in rows:
                self._line(json.dumps(row))
        else:
            self._table(columns, [[_cell(row.get(column)) for column in columns] for row in rows])

    def value(self, value: Row) -> None:
        """Print one thing."""
        if self.format == "json":
            self._line(json.dumps(value, indent=2))
        elif self.format == "jsonl":
            self._line(json.dumps(value))
        else:
            width = max((len(name) for name in value), default=0)
            for name, item in value.items():
                self._line(f"{name.ljust(width)}{_GAP}{_cell(item)}")

    def text(self, text: str) -> None:
        """Print lines as they are, except for control characters; for formats that are text by themselves."""
        self.lines(text.removesuffix("\n").split("\n"))

    def lines(self, lines: Iterable[str]) -> None:
        """Print each as one line, whatever it holds: what strangers wrote must not look like lines of ours."""
        for line in lines:
            self._line(one_line(line))

    # -------------------------------------------------------------------------------------------------- standard error

    def say(self, text: str) -> None:
        """Talk, unless told to be quiet."""
        if not self.quiet:
            click.echo(plain(text), err=True)

    def progress(self, text: str) -> None:
        """How far it is, on one line that is drawn anew: for a person who has waited a second. An empty text takes the line away."""
        if self.quiet or not sys.stderr.isatty() or (text and time.monotonic() - self._began_s < _PATIENCE_S):
            return
        if text or self._drawn:
            shown = one_line(text)
            click.echo(f"\r{shown.ljust(self._drawn)}\r" if not text else f"\r{shown.ljust(self._drawn)}", nl=False, err=True)
            self._drawn = len(shown)

    def next(self, command: str) -> None:
        """What one would do next."""
        self.say(f"next: {command}")

    def error(self, code: str, detail: str, *, fix: str) -> None:
        """Say no."""
        if self.format == "table":
            click.echo(f"error[{code}]: {one_line(detail)}\nfix: {one_line(fix)}", err=True)
        else:
            click.echo(json.dumps({"error": {"code": code, "detail": detail, "fix": fix}}), err=True)

    # ----------------------------------------------------------------------------------------------------------- parts

    def _line(self, text: str) -> None:
        click.echo(text)

    def _table(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        if self.color and sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
            _rich_table(columns, cells)
            return
        widths = [max(len(line[at]) for line in (columns, *cells)) for at in range(len(columns))]
        for line in (columns, *cells):
            self._line(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


pass_cli = click.make_pass_decorator(Cli, ensure=True)
"""Hand the :class:`Cli` to a command as its first argument."""


def format_option(command: F) -> F:
    """``-o table|json|jsonl``, before or after the name of the command."""

    def choose(ctx: click.Context, _param: click.Parameter, chosen: Format | None) -> None:
        if chosen is not None:
            ctx.ensure_object(Cli).format = chosen

    option = click.option(
        "-o", "--output", type=click.Choice(get_args(Format)), callback=choose, expose_value=False, help="How data is printed."
    )
    return option(command)


def plain(text: str) -> str:
    """``text`` with every character that is not printable written out (rule 4)."""
    return "".join(char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text)


def one_line(text: str) -> str:
    """``text`` on one line: line breaks are written out too."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def fail(cli: Cli, error: MeshError) -> int:
    """Print one of our errors; the exit status of its code."""
    entry = CODES[error.code]
    cli.error(error.code, error.detail or entry.meaning, fix=entry.fix)
    if cli.verbose:
        cli.say("".join(traceback.format_exception(error)))
    return entry.exit


def unexpected(cli: Cli, error: Exception) -> int:
    """Print an error that nobody foresaw; the exit status."""
    cli.error("internal", f"{type(error).__name__}: {error}"[:500], fix="run it again with -v, and report what it says")
    if cli.verbose:
        cli.say("".join(traceback.format_exception(error)))
    return _OPERATIONAL


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in cast("Sequence[object]", value))
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_cell(item)}" for name, item in cast("Row", value).items())
    return "-" if value is None or value == "" else one_line(str(value))


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))  # Text: what a record says is not markup
    Console().print(table)
