"""Whoever asks for a record that was pruned is told so, with where archives are, by every command; what is kept is shown as ever."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from mesh.core.bytes.canonical import Payload
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import encode_record
from mesh.core.messages import Leaves, LineageBatch, Prove, Pull, RefusedAnswer, pack, unpack
from tests.cli import test_listing, test_policy_shadow
from tests.cli.shell import Shell

busy, many = test_listing.busy, test_listing.many
EU = "lab/eu-1/e1"
WHERE = "archives: tape 7"
Answering = Callable[[str, Payload], Awaitable[bytes]]


def _without(ask: Answering, origin: str, below: int) -> Answering:
    """From now on every member has pruned the records of that log below an index, and answers as :mod:`mesh.roles.answers` does."""

    async def asking(member: str, message: Payload) -> bytes:
        at = message.first if isinstance(message, Pull | Leaves) else message.index if isinstance(message, Prove) else below
        if getattr(message, "origin", "") != origin or at >= below:
            return await ask(member, message)
        if not isinstance(message, Pull):
            return pack(RefusedAnswer(code="record_pruned", detail=f"{origin} {at}, kept from {below} on; {WHERE}"))
        batch = unpack(LineageBatch, await ask(member, message))
        hashes = [leaf_hash(bytes(raw)).hex() for raw in batch.records][: below - at]
        return pack(msgspec.structs.replace(batch, records=[], bodies=[], openings=[], pruned=hashes))

    return asking


@pytest.fixture
def gone(own: Shell) -> Shell:
    """All of eu-1's log is pruned: the decision about what ran. What became of it stands in us-1's."""
    own.ask = _without(own.ask, EU, 3)
    return own


@pytest.mark.parametrize("command", ["lineage show eu-1/2", "prove eu-1/2", "prove eu-1/2 --format tlog-proof", "lineage show eu-1/0"])
def test_a_record_that_was_pruned_ends_with_its_code_and_says_where_archives_are(gone: Shell, command: str) -> None:
    status, out, err = gone.run(*command.split())
    assert (status, out) == (2, "")
    assert "record_pruned" in err
    assert WHERE in err
    assert "Traceback" not in err


def test_the_records_that_are_kept_of_an_execution_are_shown_and_the_pruned_one_is_named(gone: Shell) -> None:
    status, out, err = gone.run("-o", "json", "lineage", "show", gone.story.permitted)
    assert status == 0
    assert [(item["record"]["record"], item["record"]["origin"]) for item in json.loads(out)] == [("outcome", "lab/us-1/e1")] * 2
    assert "eu-1/2 is left out: record_pruned" in err
    assert WHERE in err


def test_why_tells_what_is_kept_and_names_what_was_pruned(gone: Shell) -> None:
    status, out, err = gone.run("why", gone.story.permitted)
    assert status == 0
    assert "us-1/2" in out
    assert "eu-1/2 is left out: record_pruned" in err
    assert WHERE in err


def test_no_proof_of_an_execution_is_made_without_saying_that_its_decision_was_pruned(gone: Shell) -> None:
    status, _, err = gone.run("prove", gone.story.permitted)
    assert status == 0, "what came of it is proved"
    assert "eu-1/2 is left out: record_pruned" in err
    assert WHERE in err


def test_no_graph_is_drawn_around_a_decision_that_was_pruned(gone: Shell) -> None:
    status, out, err = gone.run("lineage", "graph", gone.story.permitted)
    assert (status, out) == (2, "")
    assert "record_pruned" in err
    assert WHERE in err


def test_no_archive_is_begun_of_a_log_that_was_pruned(gone: Shell, tmp_path: Path) -> None:
    status, _, err = gone.run("lineage", "archive", "eu-1", "--to", str(tmp_path / "archive"))
    assert status == 2
    assert "record_pruned" in err
    assert list(tmp_path.iterdir()) == []
    assert gone.run("lineage", "archive", "us-1", "--to", str(tmp_path / "archive"))[0] == 0


@pytest.mark.parametrize("below", [1, 129, 200, 255])
def test_what_is_kept_of_a_pruned_log_is_listed_to_the_last_record_and_what_is_not_is_said(many: Shell, below: int) -> None:
    whole = many.json("lineage", "ls", "--node", "eu-1", "-n", "1000")
    many.ask = _without(many.ask, EU, below)
    status, out, err = many.run("-o", "json", "lineage", "ls", "--node", "eu-1", "-n", "1000")
    listed = json.loads(out)
    assert [row["record"] for row in listed] == [row["record"] for row in whole if int(row["record"].split("/")[1]) >= below]
    assert f"{EU} could not be read below {below}: record_pruned" in err
    assert status == 4


def test_the_newest_few_are_listed_without_a_word_on_what_was_pruned(many: Shell) -> None:
    many.ask = _without(many.ask, EU, 200)
    status, out, err = many.run("-o", "json", "lineage", "ls", "--node", "eu-1", "-n", "5")
    assert (status, len(json.loads(out))) == (0, 5)
    assert "record_pruned" not in err


def test_a_span_behind_the_floor_is_replayed_and_one_that_reaches_below_it_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell, past = test_policy_shadow.Shell(tmp_path, monkeypatch, capsys), test_policy_shadow.past()
    below = len(past.records) // 2
    shell.ask = _without(past.mesh.ask, past.origin, below)
    said = shell.json(shell.bundle(), *test_policy_shadow.EVER, status=4)
    (unread,) = [log for log in said["logs"] if log["error"]]
    assert (unread["node"], "record_pruned" in unread["error"]) == ("eu-1", True)
    assert "Traceback" not in shell.run(shell.bundle(), *test_policy_shadow.EVER)[2]


@pytest.mark.asyncio
@pytest.mark.parametrize("since", [0, 1, 9])
async def test_the_records_of_a_span_are_found_behind_what_was_pruned(since: int) -> None:
    past = test_policy_shadow.past()
    below = len(past.records) // 2
    index = next(at for at in range(below + 1, len(past.records)) if past.records[at].at_ms > past.records[at - 1].at_ms) + since
    mesh = test_policy_shadow._mesh(_without(past.mesh.ask, past.origin, below))
    since_ms = past.records[index].at_ms
    found = [record for page in await test_policy_shadow._read(mesh, "us-1", since_ms) for record in page.records]
    assert list(map(encode_record, found)) == [encode_record(record) for record in past.records if record.at_ms >= since_ms]
