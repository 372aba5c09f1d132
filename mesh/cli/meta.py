"""Commands that need no mesh: what a code means, which version this is, what a statement looks like, keys."""

import importlib.metadata
import secrets
from pathlib import Path
from typing import Final

import click

from mesh.cli.output import Cli, format_option, pass_cli
from mesh.codes import CODES, again
from mesh.errors import Refused

__all__ = ["explain", "key", "schema", "version"]

_SCHEMA: Final = ".schema.json"
_AGAIN: Final = {"later": "may help, later", "anew": "may help, as a new request", "no": "does not help as it is"}
_SHELVES: Final = ("", "statement/", "record/", "message/")
"""Where a kind is looked for when its shelf was not named."""


@click.command()
@click.argument("code", required=False)
@format_option
@pass_cli
def explain(cli: Cli, code: str | None) -> None:
    """What CODE means, who says it, what to do about it. Without CODE: all of them."""
    if code is None:
        rows = [{"code": name, "meaning": entry.meaning, "exit": entry.exit, "fix": entry.fix} for name, entry in CODES.items()]
        cli.rows(("code", "exit", "meaning"), rows)
        return
    entry = CODES.get(code)
    if entry is None:
        raise Refused("not_found", f"no code {code[:60]!r}; `mesh explain` lists them")
    said = {"code": code, "meaning": entry.meaning, "said by": entry.raised_by, "fix": entry.fix}
    cli.value({**said, "trying again": _AGAIN[again(code)], "exit status": entry.exit})


@click.command()
@format_option
@pass_cli
def version(cli: Cli) -> None:
    """Which version this is."""
    cli.value({"govmesh": importlib.metadata.version("govmesh")})


@click.command()
@click.argument("kind", required=False)
@format_option
@pass_cli
def schema(cli: Cli, kind: str | None) -> None:
    """The JSON Schema of a KIND: a statement, record, message or file. Without KIND: what there is."""
    from mesh.contracts.jsonschema import schema_files

    known = {path.removesuffix(_SCHEMA): data for path, data in schema_files().items()}
    if kind is None:
        cli.rows(("kind",), [{"kind": name} for name in sorted(known)])
        return
    found = next((known[name] for shelf in _SHELVES if (name := f"{shelf}{kind}") in known), None)
    if found is None:
        raise Refused("not_found", f"no kind {kind[:60]!r}; `mesh schema` lists them")
    cli.text(found.decode())


@click.group()
def key() -> None:
    """Make and show keys."""


@key.command("gen")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--use",
    default="holder",
    show_default=True,
    help="What the key will sign: a key has one use. auditor-seal signs nothing: it opens what is sealed.",
)
@format_option
@pass_cli
def gen(cli: Cli, path: Path, use: str) -> None:
    """Make a key and keep it in a private file at PATH; a file that stands there is never overwritten."""
    from mesh.adapters.signer import SEAL_USE, generate, generate_seal

    seed = secrets.token_bytes(32)
    public = (generate_seal(path, seed) if use == SEAL_USE else generate(path, use, seed).key).public
    cli.value({"use": use, "public": public, "file": str(path)})
    cli.next(f"mesh key show {path}")


@key.command("show")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@format_option
@pass_cli
def show(cli: Cli, path: Path) -> None:
    """The public half of the key at PATH."""
    from mesh.adapters.signer import public_of

    use, public = public_of(path)
    cli.value({"use": use, "public": public, "file": str(path)})
