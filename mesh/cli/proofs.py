"""`mesh prove` and `mesh replay`: a record's proof is put together from what nodes answer, and judged here before it is handed on."""

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
import msgspec

from mesh.cli import client, telling
from mesh.cli.collecting import Collector, check_handed_out
from mesh.cli.offline import engine_for, report_lines, report_value
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.core.log.record import DecisionMade, OutcomeRecorded, Record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import Proved
from mesh.errors import Refused
from mesh.protocol.proving import record_of
from mesh.verify import Report, verify

if TYPE_CHECKING:
    from mesh.core.bytes.keys import SecretKey

__all__ = ["prove", "replay"]

_ATTESTATION: Final = "attestation"
"""What a key that signs attestations is for, and nothing else."""
_MATCH: Final = 0
_UNVERIFIABLE: Final = 2
_MISMATCH: Final = 5


class _Gathered(msgspec.Struct, frozen=True):
    """A proof, and the roster it was judged by."""

    data: bytes
    main: Proved
    roster: bytes
    outcomes: int
    left_out: int
    """Outcomes that are not final yet."""
    place: str
    """What the record is called."""


@click.command()
@click.argument("name", metavar="ID|NODE/INDEX")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file; by default to standard output.")
@click.option("--format", "form", type=click.Choice(["bundle", "html", "in-toto", "tlog-proof"]), default="bundle", show_default=True)
@click.option("--sign", "key", type=click.Path(dir_okay=False, path_type=Path), help="Your key of the use attestation, for in-toto.")
@pass_cli
def prove(cli: Cli, name: str, out: Path | None, form: str, key: Path | None) -> None:
    """Write the proof of a record.

    A bundle holds all that a stranger with a roster, of whichever epoch, needs to check it, and what became of a permit. A tlog-proof holds
    the record and its place in the log, for any C2SP tool. A page (html) holds the bundle and judges it in whichever browser opens it.
    An in-toto attestation says what ran, by which decision, and how it ended; you sign it: that you have judged the proof.
    """
    signer = _signer(form, key)

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[_Gathered, Report]:
        found = await _gather(cli, mesh, library, name)
        mesh.attested(found.main)  # not final, no proof
        return found, verify(found.data, trust=library.roster)

    found, report = client.run(cli, work)
    check_handed_out(report)
    data = _attestation(found, report, signer) if signer is not None else _formed(found, form)
    if out is None:
        click.echo(data, nl=False)
    else:
        _write(out, data)
        if signer is not None:  # the attestation names these very bytes; the next proof may hold a newer certificate
            beside = out.with_name(f"{out.name}.proof.json")
            _write(beside, found.data)
            cli.say(f"{beside}: the proof that it names")
        cli.say(f"{out}: {len(data):,} bytes, {telling.told(record_of(found.main))}, {found.outcomes} outcomes")
    if found.left_out:
        cli.say(f"{found.left_out} outcomes are not final yet and were left out")
    if form == "html":
        cli.say(f"its reader is asked for the id of a roster that they trust; a link may fill it in: #pin={report.roster}")
    cli.next(f"mesh prove {name} -o proof.json" if signer is not None else f"mesh verify {out or 'FILE'} --trust ROSTER")


def _signer(form: str, path: Path | None) -> "SecretKey | None":
    """The key to sign an attestation with; none for what nobody signs anew."""
    if (form == "in-toto") != (path is not None):
        raise Refused("usage", "an in-toto attestation is signed by whoever makes it: --format in-toto and --sign KEYFILE go together")
    if path is None:
        return None
    from mesh.adapters.signer import load

    found = load(path)
    if found.use != _ATTESTATION:
        raise Refused("config_invalid", f"{path} is a key for {found.use}, not for {_ATTESTATION}")
    return found.key


def _attestation(found: _Gathered, report: Report, key: "SecretKey") -> bytes:
    from mesh.protocol.intoto import Judged, attest, statement_of

    verdict: Literal["VERIFIED", "PARTIAL"] = "VERIFIED" if report.verdict == "VERIFIED" else "PARTIAL"
    judged = Judged(verdict=verdict, roster=report.roster, roster_epoch=report.as_of)
    return attest(statement_of(read_proof(found.data), judged), key)


def _formed(found: _Gathered, form: str) -> bytes:
    if form == "tlog-proof":
        return _tlog(found.main)
    if form == "html":
        from mesh.page.render import render

        return render(found.data, found.roster)
    return found.data


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Refused("config_invalid", f"{path}: {error.strerror}") from None


def _tlog(answer: Proved) -> bytes:
    return msgspec.structs.replace(TlogProof.parse(answer.proof.encode()), extra=bytes(answer.batch.records[0])).encode()


async def _gather(cli: Cli, mesh: client.MeshClient, library: client.Library, name: str) -> _Gathered:
    """The record that ``name`` means, with the final outcomes of it if it is a permit."""
    answers = await mesh.prove_all(await mesh.locate(name))
    main = min(answers, key=lambda answer: _rank(record_of(answer), name))
    found = await Collector(cli, mesh, library).collect(main)
    place = record_of(main).origin, record_of(main).index
    return _Gathered(encode_proof(found.bundle), main, library.roster, found.outcomes, found.left_out, mesh.naming.place(*place))


def _rank(record: Record, name: str) -> tuple[bool, bool, bool, int]:
    """What is meant where several records are about an id: the outcome of that id, a permit, another decision, the oldest."""
    permit = isinstance(record, DecisionMade) and record.authorization != ""
    outcome = isinstance(record, OutcomeRecorded)
    named = isinstance(record, OutcomeRecorded) and record.outcome.startswith(name)
    return not named, not permit, outcome, record.at_ms


@click.command()
@click.argument("name", metavar="ID|NODE/INDEX")
@format_option
@pass_cli
def replay(cli: Cli, name: str) -> int:
    """Repeat a recorded decision here. Ends with 0 for a match, 5 for a mismatch, 2 if it cannot be told."""

    async def work(mesh: client.MeshClient, library: client.Library) -> _Gathered:
        return await _gather(cli, mesh, library, name)

    found = client.run(cli, work)
    record = record_of(found.main)
    if not isinstance(record, DecisionMade):
        raise Refused("not_found", f"{found.place} is no decision: {telling.told(record)}")
    with engine_for(found.data) as engine:
        report = verify(found.data, trust=found.roster, engine=engine)
    repeated = next(check for check in report.checks if check.name == "replay")
    mismatch = report.verdict == "FAILED"
    verdict = "mismatch" if mismatch else "match" if repeated.result == "passed" else "unverifiable"
    if cli.format == "table":
        cli.lines([f"{verdict}  {found.place}  {telling.told(record)}", *report_lines(report)])
    else:
        cli.value({"result": verdict, **report_value(report)})
    cli.next(f"mesh why {record.intent[:12]}")
    return _MISMATCH if mismatch else _MATCH if verdict == "match" else _UNVERIFIABLE
