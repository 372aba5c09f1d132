"""`mesh witness`: whoever runs one sees its key and its logs, and what it has caught."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tlog_scales.signing import Vkey

from mesh.cli import run
from tests.roles.witnesskit import configure, history, post, running
from tests.support.foreign import ForeignLog


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    status = run(["witness", *arguments, "-o", "json"])
    shown = capsys.readouterr()
    return status, json.loads(shown.out) if shown.out else None, shown.err


def test_it_shows_its_key_as_others_configure_it_and_what_it_watches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = ForeignLog(tmp_path / "log")
    config = configure(tmp_path, log.vkey)
    status, value, _ = told(capsys, "show", "--config", str(config))
    assert (status, value["name"], Vkey.from_string(value["vkey"]).sig_type) == (0, "witness.example/w1", 4)
    assert value["logs"] == [{"origin": log.origin, "vkey": log.vkey}]
    assert run(["witness", "show", "--config", str(config)]) == 0
    assert log.origin in capsys.readouterr().out


def test_evidence_of_two_histories_is_shown_with_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = ForeignLog(tmp_path / "log")
    config = configure(tmp_path, log.vkey)

    async def fork() -> bytes:
        (body,) = history(log, 5)
        async with running(config) as (_, url):
            await post(url, body)
            assert (await asyncio.to_thread(told, capsys, "evidence", "--config", str(config)))[0] == 1  # it runs
            await post(url, log.ask(5, checkpoint=log.signed(5, bytes(32))))
        return body.partition(b"\n\n")[2]

    note = asyncio.run(fork())
    status, found, _ = told(capsys, "evidence", "--config", str(config))
    assert status == 5
    assert found == [{"origin": log.origin, "cosigned": note.decode(), "signed_too": log.signed(5, bytes(32)).serialize()}]


def test_a_configuration_with_a_typing_error_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path, ForeignLog(tmp_path / "log").vkey)
    config.write_text(config.read_text().replace("listen", "lisen"))
    status, _, err = told(capsys, "show", "--config", str(config))
    assert status == 3
    assert "did you mean listen?" in err
