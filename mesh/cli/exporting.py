"""`mesh audit export` and `mesh audit sample`: many records with their proofs, in one file that `mesh verify` judges; each was judged here.

Rules
-----
1. Of each log the span is read, and nothing behind it, as it was certified (:mod:`mesh.cli.backward`): up to the largest certificate that a
   member can prove.
2. Records are proved one after the other, and written as they are: memory does not grow with their number.
3. The file stands under its name only once it is whole. What could not be had or would fail is named, left out, and is an exit status.
4. A sample is drawn from the certificates themselves (:mod:`mesh.protocol.sampling`): whoever has them draws the same one.

Not here: judging such a file (:mod:`mesh.cli.offline`).
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec

from mesh.cli import client, recorded
from mesh.cli.backward import Backward, Span
from mesh.cli.collecting import Collector, check_handed_out, whole_file
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.times import parse_when
from mesh.core.bytes import canonical
from mesh.core.law.former import final_under
from mesh.core.log.archive import Packer
from mesh.core.log.bundle import encode_proof
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import log_verifier, read_checkpoint
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import NodeStatus
from mesh.errors import MeshError, Refused
from mesh.limits import HEADS_BYTES_MAX, SAMPLE_RECORDS_MAX
from mesh.protocol.sampling import Drawn, Heads, draw, read_heads
from mesh.verify import verify

__all__ = ["export", "sample"]

_INCOMPLETE: Final = 4
_PARTIAL: Final = 2
_FAILED: Final = 5


class _Tally(msgspec.Struct):
    """What became of the records."""

    verified: int = 0
    partial: int = 0
    failed: int = 0
    lacking: int = 0
    """Records and logs that could not be had."""

    def status(self) -> int:
        """The worst of them, as an exit status."""
        return _FAILED if self.failed else _INCOMPLETE if self.lacking else _PARTIAL if self.partial else 0

    def value(self) -> dict[str, int]:
        return {"verified": self.verified, "partial": self.partial, "failed": self.failed, "lacking": self.lacking}


class _Export:
    """Proves records one after the other (rule 2)."""

    def __init__(self, cli: Cli, mesh: client.MeshClient, library: client.Library, file: IO[bytes] | None) -> None:
        self._cli, self._mesh, self._file = cli, mesh, file
        self._collector = Collector(cli, mesh, library)
        self._packer = Packer()
        self.tally = _Tally()
        self._write(self._packer.begin())

    def name(self, place: client.Place) -> str:
        """What a record is called."""
        return self._mesh.naming.place(place.origin, place.index)

    async def add(self, place: client.Place) -> str:
        """Prove one record; its verdict, or the code of why there is none."""
        where = self.name(place)
        try:
            main = await self._mesh.prove(place)
            self._mesh.attested(main)
            found = await self._collector.collect(main)
            data = encode_proof(found.bundle)
            report = verify(data, trust=self._collector.library.roster)
        except MeshError as error:  # a member may have written its words: they decide nothing
            self._cli.say(f"{where}: {error}")
            self.tally.lacking += 1
            return error.code
        try:
            check_handed_out(report)
        except Refused as refusal:
            self._cli.say(f"{where}: {refusal}")
            self.tally.failed += 1
            return refusal.code
        self._write(self._packer.add(found.bundle))
        if report.verdict == "PARTIAL":
            self.tally.partial += 1
            lacking = next(check for check in report.checks if check.result == "skipped" and check.name != "replay")
            self._cli.say(f"{where}: PARTIAL, {lacking.name}: {lacking.detail}")
        else:
            self.tally.verified += 1
        return report.verdict

    def end(self) -> None:
        """The file is whole."""
        self._write(self._packer.end())

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)


@click.command()
@click.option("--out", "out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@click.option("--from", "since", metavar="TIME", help="Recorded then or later, such as 2027-01-31T09:00:00Z; by default from the first on.")
@click.option("--to", "until", metavar="TIME", help="Recorded before then; by default to the last that is final.")
@click.option("--node", "only", metavar="NODE", help="Of this node's log only.")
@format_option
@pass_cli
def export(cli: Cli, out: Path, since: str | None, until: str | None, only: str | None) -> int:
    """Write the proofs of all records of a span of time into one file.

    Each record stands there with all that its proof needs, a permit with what became of it; what they share, once. `mesh verify FILE`
    judges them all. Ends with 2 if one is PARTIAL, with 4 if a log or a record could not be had, with 5 if one would fail:
    that one is left out.
    """
    now_ms = time.time_ns() // 1_000_000
    since_ms = 0 if since is None else parse_when(since, where="--from").moment_ms(now_ms)
    until_ms = now_ms if until is None else parse_when(until, where="--to").moment_ms(now_ms)

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[_Tally, list[dict[str, Any]]]:
        with whole_file(out) as file:
            exporting = _Export(cli, mesh, library, file)
            logs = [
                await _log(cli, exporting, head, mesh, Span(since_ms, until_ms)) async for head in _heads(cli, mesh, exporting.tally, only)
            ]
            exporting.end()
            return exporting.tally, logs

    tally, logs = client.run(cli, work)
    if cli.format == "table":
        cli.rows(("log", "first", "last", "records"), logs)
    else:
        cli.value({"file": str(out), "bytes": out.stat().st_size, **tally.value(), "logs": logs})
    cli.say(f"{out}: {out.stat().st_size:,} bytes, {', '.join(f'{count} {what}' for what, count in tally.value().items())}")
    cli.next(f"mesh verify {out} --trust ROSTER --whole")  # what was left out lacks there too
    return tally.status()


async def _heads(
    cli: Cli, mesh: client.MeshClient, tally: _Tally, only: str | None
) -> AsyncIterator[tuple[recorded.Head, Mapping[str, NodeStatus]]]:
    """How far each log is final, proved, and how the members say they are."""
    answers = await mesh.answering()
    if only is not None:
        mesh.member(only)
    for origin, name in sorted(mesh.origins().items()):
        if only not in {None, name}:
            continue
        try:
            head = await recorded.head_of(mesh, answers, origin)
        except MeshError as error:
            tally.lacking += 1
            cli.say(f"the log {origin} could not be read: {error}")
            continue
        if head is None:
            cli.say(f"the log {origin} has no certificate yet: nothing in it is final")
            continue
        yield head, answers


async def _log(
    cli: Cli, exporting: _Export, found: tuple[recorded.Head, Mapping[str, NodeStatus]], mesh: client.MeshClient, span: Span
) -> dict[str, Any]:
    """One log's records of that span; which they are is said by the owner's log as it was certified, not by whoever serves it."""
    head, answers = found
    row: dict[str, Any] = {"log": head.origin, "first": -1, "last": -1, "records": 0}
    log = Backward(mesh, answers, head.origin, cli.say, bare=True)
    first = end = -1
    async for stretch in log.certified(head, span):
        if stretch.records:
            first, end = stretch.records[0].index, max(end, stretch.records[-1].index + 1)
    if not log.complete:
        exporting.tally.lacking += 1
        return {**row, "error": f"{head.origin} could not all be read"}
    for index in range(first, end) if first >= 0 else ():
        await exporting.add(client.Place(head.origin, index))
    return row if first < 0 else {**row, "first": first, "last": end - 1, "records": end - first}


@click.command()
@click.option("-n", "--count", default=20, show_default=True, type=click.IntRange(1, SAMPLE_RECORDS_MAX), help="How many records.")
@click.option(
    "--seed", default="", metavar="TEXT", help="Something that nobody knew when the records were made, such as a lottery's result."
)
@click.option("--heads", "given", type=click.Path(dir_okay=False, path_type=Path), help="Draw from these certificates again.")
@click.option("--heads-out", type=click.Path(dir_okay=False, path_type=Path), help="Write the certificates that were drawn from here.")
@click.option("--out", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the proofs here too.")
@format_option
@pass_cli
def sample(cli: Cli, count: int, seed: str, given: Path | None, heads_out: Path | None, out: Path | None) -> int:
    """Prove some records that chance has chosen, out of all that are final.

    Which ones follows from the certificates of all logs, from --seed and from --count, so whoever has these gets the same ones. Ends with 0
    if all are VERIFIED, with 2 if one is PARTIAL, with 4 if a log or a record could not be had, with 5 if one fails.
    """

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[_Tally, Heads, list[dict[str, Any]]]:
        tally = _Tally()
        heads = await _certificates(cli, mesh, tally) if given is None else _given(cli, mesh, given)
        drawn = draw(heads, seed=seed, count=count)
        if out is None:
            exporting = _Export(cli, mesh, library, None)
            rows = await _rows(exporting, drawn)
        else:
            with whole_file(out) as file:
                exporting = _Export(cli, mesh, library, file)
                rows = await _rows(exporting, drawn)
                exporting.end()
        exporting.tally.lacking += tally.lacking
        return exporting.tally, heads, rows

    tally, heads, rows = client.run(cli, work)
    if heads_out is not None:
        with whole_file(heads_out) as file:
            file.write(canonical.encode(heads))
    if cli.format == "table":
        cli.rows(("record", "verdict"), rows)
    else:
        cli.value({**tally.value(), "heads": heads.digest, "seed": seed, "of": heads.total, "records": rows})
    told = ", ".join(f"{count} {what}" for what, count in tally.value().items())
    cli.say(f"{len(rows)} of {heads.total} final records, by the certificates {heads.digest[:16]}…: {told}")
    status = tally.status()
    cli.next(f"mesh explain {'record_invalid' if status == _FAILED else 'not_final'}" if status else "mesh audit run --once")
    return status


async def _rows(exporting: _Export, drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """In the order in which they were drawn; proved, and written, in the order of their logs, as every such file has them."""
    found = {place: await _row(exporting, place) for place in sorted(drawn, key=lambda place: (place.origin, place.index))}
    return [found[place] for place in drawn]


async def _row(exporting: _Export, drawn: Drawn) -> dict[str, Any]:
    place = client.Place(drawn.origin, drawn.index)
    verdict = await exporting.add(place)
    return {"record": exporting.name(place), "origin": drawn.origin, "index": drawn.index, "verdict": verdict}


async def _certificates(cli: Cli, mesh: client.MeshClient, tally: _Tally) -> Heads:
    """The largest certificate of each log that a member can prove."""
    notes = list[bytes]()
    async for head, _ in _heads(cli, mesh, tally, None):
        answer = await mesh.prove(client.Place(head.origin, head.size - 1))
        mesh.attested(answer)
        notes.append(TlogProof.parse(answer.proof.encode()).note)
    return Heads.of(notes)


def _given(cli: Cli, mesh: client.MeshClient, path: Path) -> Heads:
    """Certificates from a file, each of which must be one; logs of which it has none are named."""
    from mesh.adapters.trustfiles import read_bounded

    heads = read_heads(read_bounded(path, HEADS_BYTES_MAX))
    for log in heads.logs:
        _check_certificate(mesh, log.note.encode())
    for origin in sorted(mesh.origins().keys() - {read_checkpoint(log.note.encode()).origin for log in heads.logs}):
        cli.say(f"{path} has no certificate of the log {origin}: nothing is drawn from it")
    return heads


def _check_certificate(mesh: client.MeshClient, note: bytes) -> None:
    origin = read_checkpoint(note).origin
    log = log_verifier(origin, mesh.owner(origin).log_key)
    final_under(
        mesh.rosters.chain, lambda attesters, k: verify_certificate(note, log=log, attesters=attesters, k=k), trusted=mesh.roster.epoch
    )
