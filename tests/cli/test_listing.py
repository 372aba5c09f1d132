"""What `mesh lineage ls` lists is what was meant, newest first, final by proof or marked; and it reads no more than it must."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from mesh.cli import client
from mesh.cli.backward import BEYOND_MAX
from mesh.cli.output import Cli
from mesh.cli.sifting import KINDS
from mesh.cli.telling import when
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.log.record import Denied, Incident, encode_record, read_record
from mesh.core.messages import Leaves, LineageBatch, NodeStatus, Prove, Pull, StatusAsked, pack, unpack
from mesh.core.run.outcome import Blocked
from mesh.limits import BATCH_RECORDS_MAX, LISTED_RECORDS_MAX
from tests.cli.shell import Shell
from tests.support.factory import T0, Lab
from tests.support.littlemesh import LittleMesh
from tests.support.proofs import Happened

COUNT = 400
ANNA = "spiffe://lab/agent/anna"
TILL = "spiffe://lab/enforcer/till"
Ask = Callable[[str, Payload], Awaitable[bytes]]


@pytest.fixture(scope="module")
def busy() -> Happened:
    """Four hundred requests over some seconds, most of them at one node; every fifth is denied by policy."""
    story = Happened.__new__(Happened)
    story.lab = Lab()
    story.mesh = LittleMesh(story.lab)
    for number in range(COUNT):
        account = "frozen" if number % 5 == 0 else "acme"
        _, intent, openings = story.lab.intent(number, account=account, at_ms=story.mesh.now_ms)
        story.mesh.request("us-1" if number % 8 == 0 else "eu-1", story.lab.request(intent, openings))
        if number % 20 == 19:
            story.mesh.run(1)
    story.mesh.run(6)
    return story


@pytest.fixture
def many(busy: Happened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(busy, monkeypatch, capsys)


def _asked(shell: Shell) -> list[Payload]:
    """From now on, what is asked of whom is noted."""
    honest, asked = shell.ask, list[Payload]()

    async def ask(member: str, message: Payload) -> bytes:
        asked.append(message)
        return await honest(member, message)

    shell.ask = ask
    return asked


def _bent(shell: Shell, liar: str, bend: Callable[[Pull | Leaves, LineageBatch], LineageBatch]) -> None:
    """From now on that member's records are bent so."""
    honest = shell.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if member != liar or not isinstance(message, Pull | Leaves):
            return data
        return pack(bend(message, unpack(LineageBatch, data)))

    shell.ask = ask


# ------------------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["--kind", "decision"], {"eu-1/2", "ap-1/2"}),
        (["--kind", "outcome"], {"us-1/2", "us-1/3"}),
        (["--kind", "denied"], {"ap-1/3"}),
        (["--effect", "permit"], {"eu-1/2"}),
        (["--effect", "deny"], {"ap-1/2", "ap-1/3"}),
        (["--actor", ANNA], {"eu-1/2", "ap-1/2", "ap-1/3"}),
        (["--actor", TILL], {"us-1/2", "us-1/3"}),
        (["--actor", "spiffe://lab/*"], {"eu-1/2", "ap-1/2", "ap-1/3", "us-1/2", "us-1/3"}),
        (["--actor", "spiffe://lab/agent/ann"], set()),
        (["--action", "send"], {"eu-1/2", "ap-1/2"}),
        (["--action", "payments/send"], {"eu-1/2", "ap-1/2"}),
        (["--action", "other/send"], set()),
        (["--action", "payments/steal"], {"ap-1/3"}),
        (["--domain", "payments"], {"eu-1/2", "ap-1/2", "ap-1/3", "us-1/2", "us-1/3"}),
        (["--domain", "ops"], set()),
        (["--code", "policy_denied"], {"ap-1/2"}),
        (["--code", "action_unknown"], {"ap-1/3"}),
        (["--code", "stale"], set()),
        (["--node", "ap-1", "--effect", "deny", "--code", "action_unknown"], {"ap-1/3"}),
        (["--node", "eu-1", "--effect", "deny"], set()),
    ],
)
def test_exactly_what_is_meant_is_listed(shell: Shell, asked: list[str], found: set[str]) -> None:
    rows = shell.json("lineage", "ls", *asked)
    assert {row["record"] for row in rows} == found
    assert all(row["final"] for row in rows)


def test_a_row_says_who_asked_for_what_and_why_not(shell: Shell) -> None:
    (row,) = shell.json("lineage", "ls", "--kind", "denied")
    said = {name: row[name] for name in ("actor", "domain", "action", "effect", "code")}
    assert said == {"actor": ANNA, "domain": "payments", "action": "steal", "effect": "deny", "code": "action_unknown"}


def test_every_kind_of_record_can_be_asked_for(shell: Shell) -> None:
    assert set(KINDS) == {"attest_refused", "cosigned", "decision", "denied", "governance", "heard", "incident", "noise", "outcome"}
    for kind in KINDS:
        assert all(row["kind"] == kind for row in shell.json("lineage", "ls", "--kind", kind))


@pytest.mark.parametrize(
    "asked",
    [
        ["--actor", "spiffe://*/anna"],
        ["--since", "yesterday"],
        ["--since", "2027-01-31T09:00:00"],
        ["--until", "+30s"],
    ],
)
def test_what_cannot_be_meant_is_refused(shell: Shell, asked: list[str]) -> None:
    status, out, err = shell.run("lineage", "ls", *asked)
    assert (status, out, err.startswith("error[usage]")) == (3, "", True)


# ---------------------------------------------------------------------------------------------------------- order and number


def test_more_than_a_message_holds_is_listed_newest_first_and_each_once(many: Shell) -> None:
    rows = many.json("lineage", "ls", "-n", "1000", "--kind", "decision")
    assert len(rows) == len({row["record"] for row in rows}) == COUNT
    assert [row["at_ms"] for row in rows] == sorted((row["at_ms"] for row in rows), reverse=True)
    assert many.json("lineage", "ls", "-n", "300", "--kind", "decision") == rows[:300]


def test_as_many_are_listed_as_may_be_and_not_one_more(many: Shell) -> None:
    assert many.run("lineage", "ls", "-n", str(LISTED_RECORDS_MAX))[0] == 0
    assert many.run("lineage", "ls", "-n", str(LISTED_RECORDS_MAX + 1))[0] == 64


def test_a_span_of_time_has_the_records_of_that_time_and_no_others(many: Shell) -> None:
    every = many.json("lineage", "ls", "-n", "1000")
    times = sorted({row["at_ms"] for row in every})
    for since, until in (
        (times[3], times[9]),
        (times[0], times[1]),
        (times[-1], times[-1] + 1),
        (T0 - 10, T0 - 5),
        (times[5], times[5] + 1),
    ):
        rows = many.json("lineage", "ls", "-n", "1000", "--since", when(since), "--until", when(until))
        assert {row["record"] for row in rows} == {row["record"] for row in every if since <= row["at_ms"] < until}


def test_the_edge_of_a_span_is_searched_and_not_read_up_to(many: Shell) -> None:
    every = many.json("lineage", "ls", "-n", "1000", "--node", "eu-1")
    oldest = min(row["at_ms"] for row in every)
    asked = _asked(many)
    many.json("lineage", "ls", "--node", "eu-1", "--until", when(oldest + 400))
    pulls = [message for message in asked if isinstance(message, Pull | Leaves)]
    assert sum(message.count == 1 for message in pulls) <= len(every).bit_length()
    assert sum(message.count > 1 for message in pulls) == 1
    assert sum(isinstance(message, Prove) for message in asked) <= 3


def test_for_the_newest_few_one_message_of_each_log_is_read(many: Shell) -> None:
    asked = _asked(many)
    many.json("lineage", "ls", "-n", "10")
    assert sum(isinstance(message, Pull) for message in asked) <= 4
    assert sum(isinstance(message, Prove) for message in asked) <= 8


def test_a_whole_log_is_proved_by_stretches_and_not_record_by_record(many: Shell) -> None:
    asked = _asked(many)
    assert many.json("lineage", "ls", "--code", "stale") == []
    assert sum(isinstance(message, Prove) for message in asked) <= 12
    assert sum(isinstance(message, Leaves) for message in asked) <= 12
    assert not any(isinstance(message, Pull) for message in asked), "no statement is wanted"


# ------------------------------------------------------------------------------------------------------------- what is believed


def test_what_is_not_final_is_listed_as_such(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    name, intent, openings = lab.intent(9, at_ms=mesh.now_ms)
    mesh.request("sa-1", lab.request(intent, openings))
    status, out, err = own.run("-o", "json", "lineage", "ls", "-n", "2")
    rows = json.loads(out)
    assert status == 0
    assert (rows[0]["intent"], rows[0]["final"]) == (name, False)
    assert "1 of these are not final yet: that they are so is the word of whoever serves them" in err
    assert rows[1]["final"]
    mesh.run(6)
    assert all(row["final"] for row in own.json("lineage", "ls", "-n", "2"))


def test_a_member_that_changes_a_record_is_not_believed(many: Shell) -> None:
    honest = many.json("lineage", "ls", "-n", "1000")

    def bend(_: Pull | Leaves, batch: LineageBatch) -> LineageBatch:
        records = [read_record(bytes(raw)) for raw in batch.records]
        records[-1] = Denied(
            mesh=records[-1].mesh,
            origin=records[-1].origin,
            index=records[-1].index,
            at_ms=records[-1].at_ms,
            intent="00" * 32,
            identity="00" * 32,
            subject=ANNA,
            code="stale",
            detail="",
        )
        return msgspec.structs.replace(batch, records=[msgspec.Raw(encode_record(record)) for record in records])

    _bent(many, "eu-1", bend)
    assert many.json("lineage", "ls", "-n", "1000") == honest
    assert many.json("lineage", "ls", "--code", "stale") == []


@pytest.mark.parametrize("shift_ms", [-60_000, 60_000])
def test_a_member_that_hides_the_end_of_a_span_is_not_believed(many: Shell, shift_ms: int) -> None:
    times = sorted({row["at_ms"] for row in many.json("lineage", "ls", "-n", "1000")})
    span = ["-n", "1000", "--since", when(times[4]), "--until", when(times[8])]
    honest = many.json("lineage", "ls", *span)

    def bend(message: Pull | Leaves, batch: LineageBatch) -> LineageBatch:
        if message.count != 1:
            return batch
        record = read_record(bytes(batch.records[0]))
        moved = msgspec.structs.replace(record, at_ms=record.at_ms + shift_ms)
        return msgspec.structs.replace(batch, records=[msgspec.Raw(encode_record(moved))])

    _bent(many, "eu-1", bend)
    assert honest
    assert many.json("lineage", "ls", *span) == honest


def test_a_log_that_nobody_serves_is_named_and_the_others_are_listed(own: Shell) -> None:
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Pull | Leaves) and message.origin == "lab/us-1/e1":
            message = msgspec.structs.replace(message, first=10_000)
        return await honest(member, message)

    own.ask = ask
    status, out, err = own.run("-o", "json", "lineage", "ls")
    assert status == 4
    assert {row["record"].split("/")[0] for row in json.loads(out)} == {"eu-1", "ap-1", "sa-1"}
    assert "lab/us-1/e1 could not be read below 4" in err


def test_a_claim_of_more_than_there_is_hinders_nobody(own: Shell) -> None:
    honest, rows = own.ask, own.json("lineage", "ls")

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if member == "ap-1" and isinstance(message, StatusAsked):
            said = unpack(NodeStatus, data)
            mirrors = [msgspec.structs.replace(mirror, size=10**9, certified=10**9) for mirror in said.mirrors]
            return pack(msgspec.structs.replace(said, mirrors=mirrors))
        return data

    own.ask = ask
    assert own.json("lineage", "ls") == rows


def test_statements_that_are_held_back_are_counted_and_nothing_is_guessed(own: Shell) -> None:
    for node in own.story.mesh.nodes.values():
        node.bodies.clear()
    status, out, err = own.run("-o", "json", "lineage", "ls", "--actor", ANNA)
    assert (status, "could not be judged" in err) == (4, True)
    assert {row["record"] for row in json.loads(out)} == {"ap-1/3"}, "a denial names who asked"
    assert own.run("lineage", "ls", "--kind", "decision")[0] == 0


# -------------------------------------------------------------------------------------------------------------------- patience


def test_whoever_waits_at_a_terminal_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    cli.progress("1 of 10")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("mesh.cli.output._PATIENCE_S", 0.0)
    cli.progress("5 of 10")
    cli.progress("")
    assert capsys.readouterr().err == "\r5 of 10\r       \r"
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    cli.progress("6 of 10")
    assert capsys.readouterr().err == ""


def test_names_lead_back_to_records(many: Shell) -> None:
    mesh = client.MeshClient(many.ask, many.story.lab.governance)
    for row in many.json("lineage", "ls", "-n", "5"):
        (place,) = asyncio.run(mesh.locate(row["record"]))
        assert mesh.naming.place(place.origin, place.index) == row["record"]


def test_statements_are_asked_for_only_of_what_may_be_meant(many: Shell) -> None:
    asked = _asked(many)
    (row,) = many.json("lineage", "ls", "--node", "us-1", "--effect", "deny", "-n", "1")
    (pull,) = [message for message in asked if isinstance(message, Pull)]
    assert row["actor"] == ANNA
    assert pull.first + pull.count == int(row["record"].split("/")[1]) + 1


def test_whose_documents_were_read_once_are_known(many: Shell) -> None:
    asked = _asked(many)
    assert many.json("lineage", "ls", "--actor", "spiffe://lab/agent/nobody") == []
    assert sum(isinstance(message, Leaves) for message in asked) > sum(isinstance(message, Pull) for message in asked)


def test_why_an_enforcer_started_nothing_is_read_from_what_it_signed(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    blocked = lab.outcome(
        own.story.permitted,
        own.story.authorization,
        Blocked(code="stale", detail=""),
        sequence=2,
        previous=envelope.identify(own.story.outcomes[1])[1],
        at_ms=mesh.now_ms,
    )
    mesh.report("ap-1", lab.report([blocked]))
    mesh.run(6)
    asked = _asked(own)
    (row,) = own.json("lineage", "ls", "--code", "stale")
    assert (row["record"], row["actor"], row["domain"], row["final"]) == ("ap-1/4", TILL, "payments", True)
    assert [message.count for message in asked if isinstance(message, Pull)] == [1]
    for node in mesh.nodes.values():
        node.bodies.clear()
    status, out, err = own.run("lineage", "ls", "--code", "stale")
    assert (status, "1 records could not be judged" in err, "ap-1/4" in out) == (4, True, False)


def test_whoever_invents_records_without_end_is_read_so_far_and_no_further(own: Shell) -> None:
    honest, asked = own.ask, list[int]()

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if member == "ap-1" and isinstance(message, StatusAsked):
            said = unpack(NodeStatus, data)
            return pack(msgspec.structs.replace(said, mirrors=[msgspec.structs.replace(one, size=10**9) for one in said.mirrors]))
        if member == "ap-1" and isinstance(message, Pull | Leaves) and message.first >= 4:
            asked.append(message.first)
            one = Incident(mesh="lab", origin=message.origin, index=0, at_ms=T0, code="invented", detail="")
            made = [msgspec.structs.replace(one, index=message.first + at) for at in range(message.count)]
            batch = unpack(LineageBatch, data)
            return pack(msgspec.structs.replace(batch, first=message.first, records=[msgspec.Raw(encode_record(item)) for item in made]))
        return data

    own.ask = ask
    status, out, err = own.run("-o", "json", "lineage", "ls", "--code", "policy_denied", "--node", "us-1")
    assert (status, json.loads(out)) == (4, [])
    assert "ap-1 holds more of lab/us-1/e1 that is not final: 999,991,804 records were not read" in err
    assert len(asked) == BEYOND_MAX // BATCH_RECORDS_MAX
    rows = json.loads(own.run("-o", "json", "lineage", "ls", "--kind", "incident", "--node", "us-1", "-n", "3")[1])
    assert [row["final"] for row in rows] == [False] * 3, "what is invented is never called final"
