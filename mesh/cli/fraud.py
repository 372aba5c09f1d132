"""`mesh fraud`, and `mesh fraud verify`: a file is judged by the roster alone; the base install is enough, and no network is touched.

Not here: finding conflicts among what members hold (:mod:`mesh.cli.conflicts`), judging (:mod:`mesh.core.law.conflict`,
:mod:`mesh.core.law.proofs`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from mesh.adapters.trustfiles import about, read_bounded
from mesh.cli import Entry, LazyGroup, caught
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.conflict import Conflict, read_conflict
from mesh.core.law.proofs import is_proof, judge_proof, read_proof
from mesh.core.law.roster import Roster, admit_roster
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said
from mesh.core.law.vouched import vouch
from mesh.errors import Refused
from mesh.limits import CONFLICT_BYTES_MAX, ENVELOPE_BYTES_MAX

__all__ = ["facts", "fraud", "told", "verify"]

_COMMANDS: Final[Mapping[str, Entry]] = {
    "ls": Entry("mesh.cli.conflicts:ls", "Which streams and logs have two histories, and whose keys said both."),
    "show": Entry("mesh.cli.conflicts:show", "Write the proof of a conflict to a file."),
    "push": Entry("mesh.cli.fraud_push:push", "Hand proofs against members to every member, and see who holds them."),
    "verify": Entry("mesh.cli.fraud:verify", "Judge such files without any network."),
}
_UNREADABLE: Final = frozenset({"config_invalid", "malformed", "non_canonical", "too_large", "wrong_kind"})
_EXITS: Final = {"PROVED": 0, "NOTHING PROVED": 2, "UNREADABLE": 3, "FORGED": 5}
"""The exit status is the worst of all files."""


class _Fraud(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_Fraud, no_args_is_help=True)
def fraud() -> None:
    """Proofs that somebody has said two things that cannot both be, or what others find wrong."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--trust", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The roster to judge by.")
@click.option("--pin", help="Statement id of that roster, if you have it by another way.")
@click.option("--roster", "more", multiple=True, type=click.Path(dir_okay=False, path_type=Path), help="Another one, from the first on.")
@format_option
@pass_cli
def verify(cli: Cli, files: tuple[Path, ...], trust: Path, pin: str | None, more: tuple[Path, ...]) -> int:
    """Judge proofs of conflicts, and against members. PROVED ends with 0, NOTHING PROVED with 2, what cannot be read with 3, FORGED with 5.

    Nothing is proved by two genuine statements that can both be. Named are only keys that said both, and may be none: two sets of
    signers without a common member fork a stream too. A statement is judged by the roster that named its signers: give those between the
    first and the newest that is needed with --roster.
    """
    with about(trust):
        anchor = envelope.read(Roster, read_bounded(trust, ENVELOPE_BYTES_MAX))
        admit_roster(anchor, pin=pin or anchor.id)
    shown = {item.id: item for item in (envelope.read(Roster, read_bounded(path, ENVELOPE_BYTES_MAX)) for path in more)}
    rosters = vouch(anchor, sorted(shown.values(), key=lambda item: item.claims.epoch)).rosters_held
    if pin is None:
        cli.say(f"trusting the roster {anchor.id} because it was given; --pin says which one it must be")
    values = [_one(cli, path, rosters) for path in files]
    if cli.format != "table":
        cli.rows((), values)
    return max((_EXITS[value["verdict"]] for value in values), default=0)


def _one(cli: Cli, path: Path, rosters: Rosters) -> dict[str, Any]:
    try:
        words, value = _judged(read_bounded(path, CONFLICT_BYTES_MAX), rosters)
    except Refused as refusal:
        verdict = "NOTHING PROVED" if refusal.code == "no_conflict" else "UNREADABLE" if refusal.code in _UNREADABLE else "FORGED"
        if cli.format == "table":
            cli.lines([f"{verdict}  {path}", f"  {refusal}"])
        return {"file": str(path), "verdict": verdict, "code": refusal.code, "detail": refusal.detail}
    if cli.format == "table":
        cli.lines([f"PROVED  {path}", *(f"  {line}" for line in words)])
    return {"file": str(path), "verdict": "PROVED", **value}


def _judged(data: bytes, rosters: Rosters) -> tuple[list[str], dict[str, Any]]:
    """What a file proves, in words and for programs. Which format it has, it says itself."""
    if is_proof(data):
        proof = read_proof(data)
        caught_ = judge_proof(proof, rosters)
        return caught.told(caught_), caught.facts(caught_, proof.claims.mesh)
    conflict = read_conflict(data, rosters)
    return told(conflict), facts(conflict)


def facts(conflict: Conflict) -> dict[str, Any]:
    """A conflict for programs."""
    return {
        "kind": conflict.kind,
        "mesh": conflict.first.claims.mesh,
        "stream": conflict.stream,
        "numbers": list(conflict.numbers),
        "signers": list(conflict.signers),
        "statements": [_said(statement) for statement in (conflict.first, conflict.second)],
    }


def told(conflict: Conflict) -> list[str]:
    """A conflict for people."""
    lines = [f"{conflict.kind} in {conflict.stream}"]
    for statement in (conflict.first, conflict.second):
        signed = ", ".join(f"{key[:12]}…" for key in sorted(statement.signatures))
        lines.append(f"number {statement.claims.sequence} is {statement.id} by {signed}: {statement.claims.reason or 'no reason given'}")
    named = ", ".join(conflict.signers) or "nobody: no key must have said both"
    return [*lines, f"said both: {named}"]


def _said(statement: Statement[Said]) -> dict[str, Any]:
    claims = statement.claims
    return {
        "id": statement.id,
        "number": claims.sequence,
        "previous": claims.previous,
        "issued_ms": claims.issued_ms,
        "reason": claims.reason,
        "signed_by": sorted(statement.signatures),
    }
