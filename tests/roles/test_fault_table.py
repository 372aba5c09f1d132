"""Wherever a step is interrupted, the file holds all of it or nothing, nothing else was signed, and a retry signs the same.

The table itself is in :mod:`tests.roles.faults`, and for readers in ``docs/faults.md``.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, unpack_answer
from mesh.errors import MeshError
from tests.roles.faultdesk import FAULTS, Desk, rows
from tests.roles.faults import STEPS, Row

KEYS = {"log", "witness", "attest"}


class Control(NamedTuple):
    """The step as it goes when nothing interrupts it."""

    before: dict[str, str]
    after: dict[str, str]
    kinds: Sequence[str]
    signed: list[tuple[str, bytes]]
    sent: list[tuple[object, bytes]]


async def _desk(folder: Path, row: Row) -> Desk:
    desk = Desk(folder)
    await desk.start(fresh=row.boot)
    await row.before(desk)
    desk.signed.clear()
    desk.sent.clear()
    return desk


async def _control(folder: Path, row: Row) -> Control:
    desk = await _desk(folder, row)
    before = rows(desk.path)
    await row.step(desk)
    kinds, after = desk.kinds, rows(desk.path)
    await desk.end()
    return Control(before, after, kinds, desk.signed, desk.sent)


_known: dict[str, Control] = {}


@pytest.fixture
def control(tmp_path_factory: pytest.TempPathFactory, row: Row) -> Control:
    """That of the row, made once."""
    if row.name not in _known:
        _known[row.name] = asyncio.run(_control(tmp_path_factory.mktemp("control"), row))
    return _known[row.name]


def _texts(signed: list[tuple[str, bytes]]) -> dict[tuple[str, bytes, bytes], set[bytes]]:
    """What a key of the log, of the witness or of the attester signed, by use, log and size."""
    found: dict[tuple[str, bytes, bytes], set[bytes]] = {}
    for use, message in signed:
        if use in KEYS:
            lines = message.split(b"\n")
            lines = lines[2:] if lines[0].startswith(b"cosignature/") else lines
            found.setdefault((use, lines[0], lines[1]), set()).add(message)
    return found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("row", STEPS, ids=[row.name for row in STEPS])
def test_an_interrupted_step_is_durable_as_a_whole_or_not_at_all_and_a_retry_signs_nothing_else(
    tmp_path: Path, control: Control, row: Row, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(_interrupted(tmp_path, control, row, fault, monkeypatch))


async def _interrupted(folder: Path, control: Control, row: Row, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await _desk(folder, row)
    await desk.interrupted(fault, row.step, monkeypatch)
    # What must be in the file after reload, to the byte.
    assert rows(desk.path) == (control.after if FAULTS[fault] else control.before)
    assert control.after != control.before
    # Nothing is signed before it is durable, nothing is sent before it is signed.
    assert desk.signed == (control.signed if fault in {"sign.after", "send.after"} else [])
    assert desk.sent == (control.sent if fault == "send.after" else [])
    # Some time later the same comes again: under one key there is one text for one size, its time included.
    first, desk.now_ms = list(desk.sent), desk.now_ms + 5_000
    await desk.start(fresh=row.boot)
    await row.step(desk)
    await desk.end()
    said = _texts([*control.signed, *desk.signed] if FAULTS[fault] else desk.signed)
    assert [texts for texts in said.values() if len(texts) > 1] == []
    if FAULTS[fault]:
        answers = [*_authorized(control.sent), *_authorized(first), *_authorized(desk.sent)]
        assert len(set(answers)) == len(set(_authorized(control.sent))), "what was authorized is authorized again in the same words"


def _authorized(sent: list[tuple[object, bytes]]) -> list[str]:
    found = list[str]()
    for _, data in sent:
        try:
            answer = unpack_answer(data)
        except MeshError:
            continue
        if isinstance(answer, Authorized):
            found.append(envelope.identify(bytes(answer.authorization))[1])
    return found


@pytest.mark.parametrize("row", STEPS, ids=[row.name for row in STEPS])
def test_a_step_writes_what_the_table_says(control: Control, row: Row) -> None:
    assert set(row.writes) <= set(control.kinds)
