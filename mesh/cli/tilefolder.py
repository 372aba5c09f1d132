"""A log in plain files: C2SP tlog-tiles with its certificate, the statements that its records name, and the rosters, below one folder.

`mesh lineage archive` writes it and judges what it wrote; `mesh verify DIR` judges it anywhere, by a roster alone.

Rules
-----
1. The folder stands under its name only once all was read back from the disk and judged.
2. Openings are not written: what is copied can never be erased.

Not here: judging (:mod:`mesh.protocol.tiled`), whom to ask (:mod:`mesh.cli.recorded`).
"""

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, recorded
from mesh.cli.covered import Span
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import envelope
from mesh.core.law.roster import Roster, admit_roster
from mesh.core.law.vouched import Vouched, vouch
from mesh.core.log.record import encode_record
from mesh.core.log.tiles import TILE_WIDTH
from mesh.core.log.tiling import Tiling
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import Prove, Proved
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import ENVELOPE_BYTES_MAX, PROOF_ROSTERS_MAX, RECORD_BYTES_MAX
from mesh.protocol.evidence import sealed_body
from mesh.protocol.proving import by_id
from mesh.protocol.serving import body_ids
from mesh.protocol.tiled import CHECKPOINT, Judgement, judge_tiles, statement_path

__all__ = ["archive", "folder_value", "judge_folder"]

_FILE_BYTES: Final = TILE_WIDTH * (2 + RECORD_BYTES_MAX)
"""A full bundle of the largest records."""
_PARTIAL: Final = 2


@click.command()
@click.argument("node")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="A folder that is not there yet.")
@format_option
@pass_cli
def archive(cli: Cli, node: str, folder: Path) -> int:
    """Write all final records of NODE's log into plain files that any C2SP tool reads, with the statements that they name.

    `mesh verify DIR --trust ROSTER` judges them without any mesh. What committed parameters hide is not written. Ends with 2 if
    statements are missing that no member serves.
    """
    if folder.exists():
        raise Refused("config_invalid", f"{folder} is there already")

    async def work(mesh: client.MeshClient, library: client.Library) -> Judgement:
        with _whole_folder(folder) as fresh:
            chain = (library.roster, *library.rosters)
            for number, data in enumerate(chain, 1):
                _write(fresh, _roster_path(number), data)
            pinned = next(data for data in chain if envelope.identify(data)[1] == library.governance.roster_id)
            rosters = vouch(envelope.read(Roster, pinned), [envelope.read(Roster, data) for data in chain])
            await _write_log(mesh, mesh.roster.origin(mesh.member(node)), fresh, rosters)
            judged = judge_folder(fresh, pinned, None)
            if judged.verdict == "FAILED":
                name, _, detail, code = judged.checks[-1]
                raise Refused(code, f"{name}: {detail}")
            return judged

    judged = client.run(cli, work)
    if cli.format == "table":
        cli.say(f"{folder}: {judged.size} records of {judged.origin}, {judged.verdict}")
    else:
        cli.value(folder_value(str(folder), judged))
    cli.next(f"mesh verify {folder} --trust ROSTER")
    return _PARTIAL if judged.verdict == "PARTIAL" else 0


async def _write_log(mesh: client.MeshClient, origin: str, folder: Path, rosters: Vouched) -> None:
    answers = await mesh.answering()
    head = await recorded.head_of(mesh, answers, origin)
    if head is None:
        raise Refused("not_final", f"no certificate of {origin} is known to whoever answers")
    members = recorded.readers(mesh, answers, head)
    failure: MeshError = Unavailable("unreachable", origin)
    for member in members:
        try:
            await _write_records(mesh, head, folder, [member, *(name for name in members if name != member)], rosters)
        except MeshError as error:
            failure = error
        else:
            return
    raise failure


async def _write_records(mesh: client.MeshClient, head: recorded.Head, folder: Path, members: Sequence[str], rosters: Vouched) -> None:
    """What the first of these members has, with the statements that it spoils or withholds from the others."""
    member, *others = members
    tiling = Tiling()
    async for page in recorded.pages(mesh, member, head, 0):
        leaves, bodies = [encode_record(record) for record in page.records], _sound(page.bodies, rosters)
        wanted = {identity for record in page.records for identity in body_ids(record)}
        for other in others:
            if wanted <= bodies.keys():
                break
            bodies |= _sound(await _bodies(mesh, other, head.origin, page.first, len(leaves)), rosters)
        for identity in wanted & bodies.keys():
            _write(folder, statement_path(identity), bodies[identity])
        _write_tiles(folder, tiling.add(leaves))
    _write_tiles(folder, tiling.finish())
    answer = await mesh.ask(member, Prove(origin=head.origin, index=head.size - 1), Proved)
    note = TlogProof.parse(answer.proof.encode()).note if answer.proof else b""
    mesh.attested(answer)
    _write(folder, CHECKPOINT, note)


async def _bodies(mesh: client.MeshClient, member: str, origin: str, first: int, count: int) -> Mapping[str, bytes]:
    try:
        return by_id((await mesh.records(member, origin, first, count)).bodies)
    except MeshError:
        return {}


def _sound(bodies: Mapping[str, bytes], rosters: Vouched) -> dict[str, bytes]:
    """Those with the signatures that they must have: whoever carries a statement can spoil them, and it keeps its id."""
    found = dict[str, bytes]()
    for identity, data in bodies.items():
        with suppress(Refused):
            sealed_body(data, rosters)
            found[identity] = data
    return found


def _write_tiles(folder: Path, tiles: Iterator[tuple[Any, bytes]]) -> None:
    for tile, data in tiles:
        _write(folder, tile.path, data)


def _write(folder: Path, path: str, data: bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that stands there only once the block has ended without an error (rule 1)."""
    fresh = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.new")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        fresh.rename(folder)
    except OSError as error:
        raise Refused("config_invalid", f"{folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------------- to judge


def judge_folder(folder: Path, trust: bytes, pin: str | None, spans: Sequence[Span] = ()) -> Judgement:
    """Judge what stands in a folder, by a roster; with ``spans``, that these records are among it.

    Raises:
        Refused: ``config_invalid`` for what cannot be read, what is wrong with the trusted roster.
    """
    anchor = envelope.read(Roster, trust)
    admit_roster(anchor, pin=pin or anchor.id)
    if not any((folder / path).exists() for path in (CHECKPOINT, _roster_path(1), "tile")):
        raise Refused("config_invalid", f"{folder} is no archive: it has neither a checkpoint nor tiles")
    try:
        shown = [envelope.read(Roster, data) for data in _rosters(folder)]
        rosters = vouch(anchor, shown)
    except Refused as refusal:
        return Judgement((("rosters", "failed", refusal.detail, refusal.code),), "", 0)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    judged = judge_tiles(lambda path: _read(folder, path), rosters, files - {_roster_path(number + 1) for number in range(len(shown))})
    return _covering(judged, spans) if spans else judged


def _covering(judged: Judgement, spans: Sequence[Span]) -> Judgement:
    """What must be there, after all that is: an older archive is as sound as a newer one."""
    has = {judged.origin: judged.size}
    for span in spans:
        lacks = max(span.first, has.get(span.origin, span.first))
        if lacks <= span.last:
            step = ("range", "failed", f"record {lacks} of {span.origin} is not there", "not_found")
            return msgspec.structs.replace(judged, checks=(*judged.checks, step))
    return msgspec.structs.replace(judged, checks=(*judged.checks, ("range", "passed", f"{len(spans)} named, all there", "")))


def folder_value(name: str, judged: Judgement) -> dict[str, Any]:
    """A judgement for programs."""
    checks = [{"name": check, "result": result, "detail": detail, "code": code} for check, result, detail, code in judged.checks]
    return {"file": name, "verdict": judged.verdict, "origin": judged.origin, "records": judged.size, "checks": checks}


def _rosters(folder: Path) -> Iterator[bytes]:
    for number in range(1, PROOF_ROSTERS_MAX + 1):
        data = _read(folder, _roster_path(number))
        if data is None:
            return
        yield data


def _roster_path(number: int) -> str:
    return f"rosters/{number}.json"


def _read(folder: Path, path: str) -> bytes | None:
    file = folder / path
    if not file.exists():
        return None
    return read_bounded(file, ENVELOPE_BYTES_MAX if path.endswith(".json") else _FILE_BYTES)
