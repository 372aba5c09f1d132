"""`mesh trust`: how many owners, not keys, would have to act together to break what a mesh promises, and how many signers make its rules.

Not here: the counting (:mod:`mesh.core.law.collusion`).
"""

from pathlib import Path
from typing import Any, Final

import click

from mesh.cli import client
from mesh.cli import roster_held as held
from mesh.cli import roster_words as words
from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.core.law.collusion import ATTACKS, DIMENSIONS, Collusion, Dimension, collusion, members_needed
from mesh.core.law.roster import Roster
from mesh.errors import Refused, Unavailable

__all__ = ["trust"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_MEANS: Final = {
    "exceed": "lie more than the roster bears: they stop everybody, and while rosters change they can divide the mesh",
    "contradict": "divide the mesh at any time: two histories become final, or something revoked starts",
    "forge": "make anything final without one honest member",
    "silence": "keep silent, and nothing becomes final or starts any more",
}
_RULES: Final = {
    "root": "name all members anew, step by step, and say which history of a forked stream counts",
    "issuers": "give anybody an identity",
    "revoker": "stop any domain",
}


@click.command()
@click.option("--roster", "file", type=_FILE, help="Of this roster, without asking anybody; by default of the one in force.")
@click.option("--at-least", type=click.IntRange(1), help="End with 2 if the collusion number is smaller.")
@click.option(
    "--by", type=click.Choice(DIMENSIONS), default="operator", show_default=True, help="Whose number it is that --at-least asks for."
)
@format_option
@pass_cli
def trust(cli: Cli, *, file: Path | None, at_least: int | None, by: Dimension) -> int:
    """How many owners would have to collude.

    The *collusion number* is the fewest owners of one kind who have more members together than the roster says may lie. One operator who
    runs everything makes it 1, whatever n is. Who owns what is the operators' own signed word; nobody can see whether two are one.
    """
    claims, identity = _roster(cli, file)
    found = collusion(claims)
    needed = members_needed(claims)
    roles = _roles(claims)
    if cli.format == "table":
        _print(cli, claims, found, roles)
    else:
        cli.value(
            {
                "roster": identity,
                "epoch": claims.epoch,
                "n": len(claims.members),
                "f": claims.f,
                "k": claims.k,
                "members_needed": {attack: {"members": needed[attack], "to": _MEANS[attack]} for attack in ATTACKS},
                "collusion": [
                    {
                        "by": one.dimension,
                        "owners": dict(one.owns),
                        "number": one.number,
                        **{attack: {"owners": len(one.fewest[attack]), "such_as": list(one.fewest[attack])} for attack in ATTACKS},
                    }
                    for one in found
                ],
                "roles": roles,
            }
        )
    number = next(one.number for one in found if one.dimension == by)
    if at_least is not None and number < at_least:
        return fail(cli, Refused("too_few_owners", f"{number} by {by}, {at_least} were asked for"))
    return 0


def _roster(cli: Cli, file: Path | None) -> tuple[Roster, str]:
    """The roster that was asked about, and its id; without members who answer that of the context's files."""
    if file is not None:
        statement = words.read(file)
        return statement.claims, statement.id
    governance = client.files(cli).governance
    try:
        seen = client.run(cli, lambda mesh, library: held.read(cli, mesh, library))
        governance = seen.governance.under(seen.in_force)
    except Unavailable as error:
        cli.say(f"this is the roster of the files, members were not heard: {error.code}")
    return governance.roster, governance.roster_id


def _roles(claims: Roster) -> list[dict[str, Any]]:
    return [
        {"role": name, "signers": role.threshold, "of": len(role.keys), "could": _RULES.get(name) or _could(name)}
        for name, role in words.roles(claims).items()
    ]


def _could(name: str) -> str:
    what, _, of = name.partition("/")
    return f"decide what {of} permits" if what == "policy" else f"approve whatever policy asks {of} for"


def _print(cli: Cli, claims: Roster, found: list[Collusion], roles: list[dict[str, Any]]) -> None:
    rows = [
        {"by": one.dimension, "owners": len(one.owns), "number": one.number, **{attack: len(one.fewest[attack]) for attack in ATTACKS[1:]}}
        for one in found
    ]
    cli.rows(("by", "owners", "number", *ATTACKS[1:]), rows)
    cli.lines([""])
    cli.rows(("role", "signers", "of", "could"), roles)
    needed = members_needed(claims)
    cli.say(f"epoch {claims.epoch}: n={len(claims.members)} f={claims.f} k={claims.k}")
    for attack in ATTACKS:
        name = "number" if attack == "exceed" else attack
        cli.say(f"{name}: the fewest owners with {needed[attack]} members, who could {_MEANS[attack]}")
    owners = next(one for one in found if one.dimension == "operator")
    names = ", ".join(owners.fewest["exceed"])
    cli.say(f"{owners.number} of {len(owners.owns)} operators could break what this mesh promises: {names}")
