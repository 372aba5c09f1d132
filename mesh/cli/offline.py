"""`mesh verify`: proofs are judged from files alone; the base install is enough, and no network is touched.

One roster is trusted, of whichever epoch; those that lead from it to what is proved come with the proof.

Where a policy engine is installed the decision is also repeated. The policies in a stranger's file are then parsed in a child
process first, because policy text can kill the process that parses it.
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from mesh.adapters.trustfiles import read_bounded
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import envelope
from mesh.core.law.governance import Law
from mesh.core.law.policy import Manifest, read_bundle
from mesh.core.law.roster import Roster, admit_roster
from mesh.core.log.bundle import read_proof
from mesh.core.log.record import encode_record
from mesh.errors import MeshError, Refused
from mesh.limits import ENVELOPE_BYTES_MAX, PROOF_BUNDLE_BYTES_MAX, PROOF_PAGE_BYTES_MAX
from mesh.page.render import inside, is_page
from mesh.protocol.decide import Engine
from mesh.verify import Report
from mesh.verify import verify as judge

__all__ = ["engine_for", "report_lines", "report_value", "verify"]

_EXITS: Final = {"VERIFIED": 0, "PARTIAL": 2, "UNREADABLE": 3, "FAILED": 5}
"""The exit status is the worst of all files."""
_SIGNS: Final = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--trust",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A roster to judge by, of whichever epoch; by default the one that the context pins.",
)
@click.option("--pin", help="Statement id of that roster, if you have it by another way.")
@click.option("--replay/--no-replay", default=True, show_default=True, help="Repeat the decision too, where an engine is installed.")
@format_option
@pass_cli
def verify(cli: Cli, files: tuple[Path, ...], trust: Path | None, pin: str | None, *, replay: bool) -> int:
    """Check proofs. VERIFIED ends with 0, PARTIAL with 2, what cannot be read with 3, FAILED with 5."""
    roster, pin = _pinned(cli, pin) if trust is None else (read_bounded(trust, ENVELOPE_BYTES_MAX), pin)
    anchor = envelope.read(Roster, roster)
    admit_roster(anchor, pin=pin or anchor.id)
    if pin is None:
        cli.say(f"trusting the roster {anchor.id} because it was given; --pin says which one it must be")
    values = [_one(cli, path, roster, pin, replay=replay) for path in files]
    if cli.format != "table":
        cli.rows((), values)
    return max((_EXITS[value["verdict"]] for value in values), default=0)


def _pinned(cli: Cli, pin: str | None) -> tuple[bytes, str]:
    """The roster that the context pins, and its id, if none other is asked for."""
    from mesh.cli import client

    library = client.files(cli)
    pinned = library.governance.roster_id
    return next(data for data in (library.roster, *library.rosters) if envelope.identify(data)[1] == pinned), pin or pinned


def _one(cli: Cli, path: Path, roster: bytes, pin: str | None, *, replay: bool) -> dict[str, Any]:
    try:
        data = _proof_in(cli, path)
        with engine_for(data) if replay else _no_engine() as engine:
            report = judge(data, trust=roster, pin=pin, engine=engine)
    except MeshError as error:
        if cli.format == "table":
            cli.lines([f"UNREADABLE  {path}", f"  {error}"])
        return {"file": str(path), "verdict": "UNREADABLE", "code": error.code, "detail": error.detail}
    if cli.format == "table":
        cli.lines([f"{report.verdict}  {path}", *report_lines(report)])
    return {"file": str(path), **report_value(report)}


def _proof_in(cli: Cli, path: Path) -> bytes:
    """The proof in that file. Of a page only what it carries: nothing in it is run, and whatever it shows of itself is not believed."""
    data = read_bounded(path, PROOF_PAGE_BYTES_MAX)
    if is_page(data):
        data, genuine = inside(data)
        if not genuine:
            cli.say(f"{path} is not as this version writes pages: believe what is said here, and nothing that it shows by itself")
    if len(data) > PROOF_BUNDLE_BYTES_MAX:
        raise Refused("too_large", f"{path}: {len(data)} bytes, at most {PROOF_BUNDLE_BYTES_MAX}")
    return data


def report_lines(report: Report) -> list[str]:
    """Every check, one line each."""
    width = max(len(check.name) for check in report.checks)
    return [f"  {_SIGNS[check.result].ljust(7)}  {check.name.ljust(width)}  {check.detail}".rstrip() for check in report.checks]


def report_value(report: Report) -> dict[str, Any]:
    """A report for programs."""
    return {
        "verdict": report.verdict,
        "mesh": report.mesh,
        "roster": report.roster,
        "as_of_roster_epoch": report.as_of,
        "checks": [{"name": check.name, "result": check.result, "detail": check.detail, "code": check.code} for check in report.checks],
        "record": json.loads(encode_record(report.record)) if report.record is not None else {},
    }


@contextmanager
def engine_for(data: bytes) -> Iterator[Engine | None]:
    """An engine that holds the policy bundle of the proof ``data``; none if none is installed, or it cannot take the bundle."""
    if importlib.util.find_spec("cedarpy") is None:
        yield None
        return
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread
    from mesh.policy.admission import admit_laws

    thread = DecisionThread()
    try:
        engine: Engine | None = None
        try:
            cedar = CedarEngine(thread)
            admit_laws(_laws(data), cedar)
            engine = cedar
        except MeshError:
            engine = None  # what is wrong with the file is the judge's to say; that we cannot repeat it is no verdict
        yield engine
    finally:
        thread.close()


@contextmanager
def _no_engine() -> Iterator[Engine | None]:
    yield None


def _laws(data: bytes) -> list[Law]:
    if not data.startswith(b"{"):
        return []
    proof = read_proof(data)
    if len(proof.manifests) != 1 or len(proof.bundles) != 1:
        return []
    manifest = envelope.read(Manifest, bytes(proof.manifests[0]))
    bundle = read_bundle(bytes(proof.bundles[0]), digest=manifest.claims.digest)
    return [Law(manifest=manifest.claims, manifest_id=manifest.id, bundle=bundle)]
