"""`mesh roster sign`: a roster passes as a file from one signer to the next, and gets one line from each.

Rules
-----
1. A key signs one roster of an epoch. What it signed is durable beside it (:mod:`mesh.cli.signed`) before the file is written.
2. Nobody signs what nobody may follow: the step is judged by each signer, with the roster before at hand.
3. A line is added only to a file in which every line is a valid one of somebody whom it takes.

Not here: who it takes (:func:`mesh.core.law.roster.assents`), handing it over.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from mesh.adapters.signer import KeyFile, load
from mesh.cli import client, cosigning, saying, signed
from mesh.cli import roster_draft as drafts
from mesh.cli import roster_held as held
from mesh.cli import roster_words as words
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import ROSTERS, Roster, assents
from mesh.core.law.succession import Rosters, check_place, check_step, overlap
from mesh.errors import Refused, Unavailable

__all__ = ["sign"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_USES: Final = ("root", "operator")
_KEPT: Final = 4
"""Rosters that stay beside a key."""


@click.command()
@click.argument("file", type=_FILE)
@click.option("--key", "key_file", required=True, type=_FILE, help="Key file of a root signer or an operator.")
@click.option("--co-sign", "others", multiple=True, type=_FILE, help="Another one's key file.")
@click.option("--from", "source", type=_FILE, help="The roster before; by default as the context's files have it, or members show it.")
@click.option("--out", type=_FILE, help="Write it there; by default FILE itself.")
@format_option
@pass_cli
def sign(cli: Cli, *, file: Path, key_file: Path, others: tuple[Path, ...], source: Path | None, out: Path | None) -> None:
    """Add lines to the roster in FILE with keys that are here, after showing what it changes.

    It takes the root threshold of the roster before and of this one, and every operator of whom it says something new.
    No key ever signs two rosters of one epoch. Ends with 0 also while signatures are missing, and says whose.
    """
    statement = words.read(file)
    now = _before(cli, statement, source)
    keys = _keys(statement, now, (key_file, *others))
    if now is not None:
        check_step(now, statement.claims)
        cli.say(str(overlap(now, statement.claims)))
    with saying.signing(list(keys)):
        made = _countersigned(statement, now, keys)
        target = out or file
        made = _joined(made, target, now)
        cosigning.write_file(target, made.envelope)
    _tell(cli, made, now, target)


def _before(cli: Cli, statement: Statement[Roster], source: Path | None) -> Roster | None:
    """The roster that it follows; none for the first one of a mesh.

    Raises:
        Refused: ``wrong_epoch`` unless it follows that one, ``wrong_mesh``.
    """
    claims = statement.claims
    if not claims.previous:
        if source is not None:
            raise Refused("usage", f"epoch {claims.epoch} follows no other roster")
        return None
    if source is not None:
        given = words.read(source)
        cli.say(f"{source} is taken on its own word: epoch {given.claims.epoch}, {given.id}")
        before, before_id = given.claims, given.id
    else:
        rosters = _rosters(cli, claims.previous)
        before_id = claims.previous if claims.previous in rosters.held else rosters.ids[-1]
        before = rosters.held[before_id]
    try:
        check_place(before, before_id, claims)
    except Refused as refusal:
        raise Refused(refusal.code, f"{refusal.detail}; --from FILE gives the roster before") from None
    return before


def _rosters(cli: Cli, wanted: str) -> Rosters:
    """Those of the context's files, and if ``wanted`` is not among them those that members show."""
    rosters = client.files(cli).governance.rosters
    if wanted in rosters.held:
        return rosters
    try:
        return client.run(cli, lambda mesh, library: held.read(cli, mesh, library)).governance.rosters
    except Unavailable as error:
        cli.say(f"rosters are those of the files, members were not heard: {error.code}")
        return rosters


def _keys(statement: Statement[Roster], now: Roster | None, paths: Sequence[Path]) -> dict[Path, KeyFile]:
    """What signs, by where it is kept what each has signed.

    Raises:
        Refused: ``config_invalid`` for a key of another use, ``bad_signature`` for one whose signature it does not take.
    """
    asked = {key for assent in assents(statement.claims, now) for key in assent.role.keys}
    found = dict[Path, KeyFile]()
    for path in paths:
        key = load(path)
        if key.use not in _USES:
            raise Refused("config_invalid", f"{path} is a key for {key.use}, not for {' or '.join(_USES)}")
        if key.key.public not in asked:
            raise Refused(
                "bad_signature",
                f"nobody asks key {key.key.public[:12]}… about this roster: it is no root key, and says nothing new of an operator",
            )
        found[signed.path_of(path, ROSTERS)] = key
    return found


def _countersigned(statement: Statement[Roster], now: Roster | None, keys: Mapping[Path, KeyFile]) -> Statement[Roster]:
    """With one line more for each key (rules 1 and 3). The caller holds the locks."""
    _check_lines(statement, now)
    kept = {path: signed.kept(path, stream=ROSTERS, key=key.key.public, mesh=statement.claims.mesh) for path, key in keys.items()}
    for path, items in kept.items():
        cosigning.check_free(statement, items, path)
    lines = {key.key.public: key.key.sign(statement.message) for key in keys.values()}
    made = _with(statement, {**statement.signatures, **lines})
    for path, items in kept.items():
        signed.keep(path, [*[item for item in items if item.id != made.id][-(_KEPT - 1) :], made])
    return made


def _check_lines(statement: Statement[Roster], now: Roster | None) -> None:
    """Rule 3.

    Raises:
        Refused: ``bad_signature``.
    """
    asked = {key for assent in assents(statement.claims, now) for key in assent.role.keys}
    for key in statement.signatures:
        if key not in asked or not statement.signed_by(key):
            raise Refused("bad_signature", f"the line of {key[:12]}… is not valid, or nobody asked that key")


def _joined(made: Statement[Roster], target: Path, now: Roster | None) -> Statement[Roster]:
    """With the valid lines that a copy of it in that file has more: what somebody signed there is not written over.

    Raises:
        Refused: ``usage`` for another roster that somebody signed.
    """
    if not target.exists():
        return made
    other = words.read(target)
    if other.id != made.id:
        raise Refused("usage", f"{target} is another roster; --out FILE names another file")
    asked = {key for assent in assents(made.claims, now) for key in assent.role.keys}
    return _with(
        made, {**{key: line for key, line in other.signatures.items() if key in asked and other.signed_by(key)}, **made.signatures}
    )


def _with(statement: Statement[Roster], lines: Mapping[str, bytes]) -> Statement[Roster]:
    return envelope.read(Roster, envelope.assemble(envelope.kind_of(Roster).payload_type, statement.payload, lines))


def _tell(cli: Cli, made: Statement[Roster], now: Roster | None, target: Path) -> None:
    counts = words.missing(made, now)
    changed = list(words.changes(now, made.claims)) if now is not None else []
    value = {**words.facts(made), "changes": changed, "signed_by": sorted(made.signatures), "complete": drafts.complete(counts)}
    if cli.format == "table":
        cli.value({**value, "file": str(target)})
    else:
        cli.value({**value, "signatures": counts, "file": str(target)})
    for count in counts:
        cli.say(words.tell(count))
    if not value["complete"]:
        cli.next(f"mesh roster sign {target} --key KEYFILE, by another signer")
    elif now is None:
        cli.say(f"pin it as {made.id} in every configuration")
        cli.next(f"mesh roster show {target}")
    else:
        cli.next(f"mesh roster push {target} --watch")
