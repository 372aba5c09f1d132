"""`mesh verify`: proofs are judged from files alone; the base install is enough, and no network is touched.

One roster is trusted, of whichever epoch; those that lead from it to what is proved come with the proof.

Where a policy engine is installed the decision is also repeated. The policies in a stranger's file are then parsed in a child
process first, because policy text can kill the process that parses it.
"""

import importlib.util
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from mesh.adapters.trustfiles import read_bounded
from mesh.cli.covered import Covered, Span, span_of
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.tilefolder import folder_value, judge_folder
from mesh.core.bytes import envelope
from mesh.core.law.governance import Law
from mesh.core.law.policy import Manifest, read_bundle
from mesh.core.law.roster import Roster, admit_roster
from mesh.core.log.archive import BEGIN, Unpacker
from mesh.core.log.bundle import read_proof
from mesh.core.log.record import encode_record
from mesh.errors import MeshError, Refused
from mesh.limits import ARCHIVE_LINE_BYTES_MAX, ENVELOPE_BYTES_MAX, PROOF_BUNDLE_BYTES_MAX, PROOF_PAGE_BYTES_MAX
from mesh.page.render import inside, is_page
from mesh.protocol.decide import Engine
from mesh.verify import Report
from mesh.verify import verify as judge

__all__ = ["engine_for", "proofs_of", "report_lines", "report_value", "verify"]

_EXITS: Final = {"VERIFIED": 0, "PARTIAL": 2, "UNREADABLE": 3, "FAILED": 5}
"""The exit status is the worst of all files."""
_SIGNS: Final = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE|DIR...", type=click.Path(path_type=Path))
@click.option(
    "--trust",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A roster to judge by, of whichever epoch; by default the one that the context pins.",
)
@click.option("--pin", help="Statement id of that roster, if you have it by another way.")
@click.option("--replay/--no-replay", default=True, show_default=True, help="Repeat the decision too, where an engine is installed.")
@click.option("--whole", is_flag=True, help="Of a file of many: between the records of each log none may be missing.")
@click.option(
    "--range",
    "ranges",
    metavar="LOG=FIRST..LAST",
    multiple=True,
    help="Of a file of many, or a folder: these records of that log must be there.",
)
@format_option
@pass_cli
def verify(
    cli: Cli, files: tuple[Path, ...], trust: Path | None, pin: str | None, ranges: tuple[str, ...], *, replay: bool, whole: bool
) -> int:
    """Check proofs, and folders of `mesh lineage archive`.

    VERIFIED ends with 0, PARTIAL with 2, what cannot be read with 3, FAILED with 5. A file of many proofs says of which logs it holds
    which records. Where you know which ones there must be, say so with --range, or with --whole: one that is missing is FAILED, and named.
    """
    spans = [span_of(written) for written in ranges]
    roster, pin = _pinned(cli, pin) if trust is None else (read_bounded(trust, ENVELOPE_BYTES_MAX), pin)
    anchor = envelope.read(Roster, roster)
    admit_roster(anchor, pin=pin or anchor.id)
    if pin is None:
        cli.say(f"trusting the roster {anchor.id} because it was given; --pin says which one it must be")
    with _Engines(wanted=replay) as engines:
        judging = _Judging(cli, roster, pin, engines, spans, lambda: Covered(spans, whole=whole))
        values = [value for path in files for value in judging.file(path)]
    if cli.format == "json":
        cli.rows((), values)
    return judging.status


def _pinned(cli: Cli, pin: str | None) -> tuple[bytes, str]:
    """The roster that the context pins, and its id, if none other is asked for."""
    from mesh.cli import client

    library = client.files(cli)
    pinned = library.governance.roster_id
    return next(data for data in (library.roster, *library.rosters) if envelope.identify(data)[1] == pinned), pin or pinned


class _Judging:
    """Judges files one after the other; what was said in a table or as lines of JSON is not kept."""

    def __init__(
        self, cli: Cli, roster: bytes, pin: str | None, engines: "_Engines", spans: Sequence[Span], counting: Callable[[], Covered]
    ) -> None:
        self._cli, self._roster, self._pin, self._engines, self._spans, self._counting = cli, roster, pin, engines, spans, counting
        self.status = 0

    def file(self, path: Path) -> Iterator[dict[str, Any]]:
        """What came of it; of an archive first each proof that is not VERIFIED, or each at all as lines of JSON, then all together."""
        try:
            if path.is_dir():
                yield from self._said(folder_value(str(path), judge_folder(path, self._roster, self._pin, self._spans)))
                return
            with _opened(path) as archive:
                if archive is None:
                    yield from self._said(self._judged(str(path), _proof_in(self._cli, path)))
                    return
                yield from self._archive(path, archive)
        except MeshError as error:
            yield from self._said({"file": str(path), "verdict": "UNREADABLE", "code": error.code, "detail": error.detail})

    def _archive(self, path: Path, archive: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        covered = self._counting()
        for number, data in enumerate(archive):
            try:
                value = self._judged(f"{path}#{number}", data)
            except MeshError as error:
                value = {"file": f"{path}#{number}", "verdict": "UNREADABLE", "code": error.code, "detail": error.detail}
            covered.add(value)
            if value["verdict"] != "VERIFIED" or self._cli.format == "jsonl":
                yield from self._said(value)
        if self._cli.format == "table":
            self._cli.lines([f"{covered.worst}  {path}", *covered.lines()])
        yield from self._said({"file": str(path), "verdict": covered.worst, **covered.value()}, shown=True)

    def _judged(self, name: str, data: bytes) -> dict[str, Any]:
        report = judge(data, trust=self._roster, pin=self._pin, engine=self._engines.of(data))
        return {"file": name, **report_value(report)}

    def _said(self, value: dict[str, Any], *, shown: bool = False) -> Iterator[dict[str, Any]]:
        self.status = max(self.status, _EXITS[value["verdict"]])
        if self._cli.format == "table":
            if not shown:
                self._cli.lines([f"{value['verdict']}  {value['file']}", *_told(value)])
        elif self._cli.format == "jsonl":
            self._cli.value(value)
        else:
            yield value


def _told(value: Mapping[str, Any]) -> list[str]:
    if value["verdict"] == "UNREADABLE":
        return [f"  {Refused(value['code'], value['detail'])}"]
    return _check_lines([(check["name"], check["result"], check["detail"], check["code"]) for check in value["checks"]])


def proofs_of(cli: Cli, path: Path) -> Iterator[bytes]:
    """The proofs in a file, whichever kind it is.

    Raises:
        Refused: ``config_invalid``, and what is wrong with an archive.
    """
    with _opened(path) as archive:
        if archive is None:
            yield _proof_in(cli, path)
        else:
            yield from archive


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[bytes] | None]:
    """The proofs of an archive; ``None`` for any other file."""
    try:
        # O_NONBLOCK: a pipe in the place of the file must be refused, not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 -- a descriptor
            yield _proofs(file) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.peek(len(BEGIN)).startswith(BEGIN) else None
    except OSError as error:
        raise Refused("config_invalid", f"{path}: {error.strerror}") from None


def _proofs(file: BinaryIO) -> Iterator[bytes]:
    unpacker = Unpacker()
    while line := file.readline(ARCHIVE_LINE_BYTES_MAX + 2):
        data = unpacker.take(line)
        if data is not None:
            yield data
    unpacker.close()


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
    return _check_lines([(check.name, check.result, check.detail, check.code) for check in report.checks])


def _check_lines(checks: Sequence[tuple[str, str, str, str]]) -> list[str]:
    width = max(len(name) for name, _, _, _ in checks)
    return [f"  {_SIGNS[result].ljust(7)}  {name.ljust(width)}  {detail}".rstrip() for name, result, detail, _ in checks]


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


class _Engines(ExitStack):
    """The engine for one proof after the other: while the policy is the same, so is the engine."""

    def __init__(self, *, wanted: bool) -> None:
        super().__init__()
        self._wanted = wanted
        self._known: tuple[list[bytes], Engine | None] = [], None

    def of(self, data: bytes) -> Engine | None:
        """An engine that holds the policy bundle of that proof, or none."""
        if not self._wanted or not data.startswith(b"{"):
            return None
        proof = read_proof(data)
        policies = [bytes(raw) for raw in (*proof.manifests, *proof.bundles)]
        if not policies:
            return None
        if self._known[0] != policies:
            self.close()
            self._known = policies, self.enter_context(engine_for(data))
        return self._known[1]


def _laws(data: bytes) -> list[Law]:
    if not data.startswith(b"{"):
        return []
    proof = read_proof(data)
    if len(proof.manifests) != 1 or len(proof.bundles) != 1:
        return []
    manifest = envelope.read(Manifest, bytes(proof.manifests[0]))
    bundle = read_bundle(bytes(proof.bundles[0]), digest=manifest.claims.digest)
    return [Law(manifest=manifest.claims, manifest_id=manifest.id, bundle=bundle)]
