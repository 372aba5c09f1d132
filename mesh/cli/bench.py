"""`mesh bench`: figures of this machine, each beside its floor."""

from pathlib import Path

import click

from mesh.cli.output import Cli, format_option, pass_cli

__all__ = ["bench"]

_COLUMNS = ("id", "ours", "floor", "unit", "ratio", "reach", "reached", "what")
_DEFAULT_ROUNDS = 5
_CHECKED = 2


class _Benches(click.ParamType[str]):
    """The name of a benchmark; the list of them is not imported before it is needed."""

    name = "bench"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from mesh.bench.run import NAMES

        if value.upper() not in NAMES:
            self.fail(f"{value!r} is none of {', '.join(NAMES)}", param, ctx)
        return value.upper()


@click.command()
@click.argument("benches", nargs=-1, metavar="[P1 P2 P3]...", type=_Benches())
@click.option("--rounds", type=click.IntRange(1, 1_000), default=_DEFAULT_ROUNDS, show_default=True, help="Pairs of measurements.")
@click.option("--quick", is_flag=True, help="Few requests: shows that it runs, measures nothing.")
@click.option("--json", "as_json", is_flag=True, help="The whole report: host, versions, commit, every round.")
@click.option("--strict", is_flag=True, help="Exit 2 if a ratio is not what it should be.")
@click.option("--profile", type=click.Path(dir_okay=False, path_type=Path), help="Also profile the governor into this file (pstats).")
@format_option
@pass_cli
def bench(cli: Cli, benches: tuple[str, ...], *, rounds: int, quick: bool, as_json: bool, strict: bool, profile: Path | None) -> int:
    """Measure BENCHES, or all: P1 authorizations under load, P2 one alone, P3 verification at the enforcer.

    Each is measured in turns with its floor, which is the same work without anything of ours; the ratio is what counts.
    """
    import msgspec

    from mesh.bench.run import NAMES, measure

    found = measure(benches or NAMES, rounds=rounds, quick=quick, profile=profile)
    if as_json and cli.format == "table":
        cli.format = "json"
    if cli.format == "table":
        cli.say(f"{found.host}, {found.cores} cores, {'pinned' if found.pinned else 'not pinned'}, {found.commit or 'no checkout'}")
        cli.rows(_COLUMNS, [msgspec.structs.asdict(row) for row in found.rows])
    else:
        cli.value(msgspec.to_builtins(found))
    return _CHECKED if strict and not all(row.reached for row in found.rows) else 0
