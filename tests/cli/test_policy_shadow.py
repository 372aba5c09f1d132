"""`mesh policy shadow` reads what was really decided, lets no member invent, change or hide a decision, and says what it could not read."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli import client, recorded, run
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.core.law.policy import Bundle, Case
from mesh.core.log.merkle import Frontier, inclusion_path, leaf_hash, tree_get
from mesh.core.log.record import DecisionMade, encode_record, read_record
from mesh.core.messages import Leaves, LineageBatch, MirrorStatus, NodeStatus, Prove, Pull, StatusAsked, pack, unpack
from mesh.core.run.intent import EntityRef
from mesh.errors import MeshError, Unavailable
from mesh.limits import BATCH_RECORDS_MAX, BUNDLE_BYTES_MAX
from tests.core.kit import refuses
from tests.support.factory import Lab
from tests.support.littlemesh import LittleMesh

EVER = ("--replay", "99999d")
COUNT = 2 * BATCH_RECORDS_MAX + 20
"""Decisions of the first node: three pages."""


class Past:
    """Every tenth payment of the first node is of 60, the first one has a memo; another node denied once, with and without a decision."""

    def __init__(self) -> None:
        self.lab = Lab()
        self.mesh = LittleMesh(self.lab)
        for number in range(COUNT):
            self.ask("eu-1", number, amount=10 if number % 10 else 60, memo="for the flat" if number == 0 else None)
            if number % 20 == 0:
                self.mesh.run(1)
        self.ask("ap-1", COUNT, account="frozen")
        self.ask("ap-1", COUNT + 1, action="steal")
        self.mesh.run(8)
        node = self.mesh.nodes["eu-1"]
        self.origin = node.origin
        self.leaves = node.logs[node.origin]
        self.records = [read_record(leaf) for leaf in self.leaves]
        assert node.state.log.certified == len(self.leaves)

    def ask(self, node: str, number: int, **said: Any) -> None:
        _, intent, openings = self.lab.intent(number, at_ms=self.mesh.now_ms, **said)
        self.mesh.request(node, self.lab.request(intent, openings))


@cache
def past() -> Past:
    return Past()


ALONE = "of signed policies only those in the context are known: "
"""A little mesh answers no `sync`."""
CASE = Case(
    name="anna may not",
    action="send",
    principal=EntityRef(type="Workload", id="spiffe://lab/agent/anna"),
    groups=["payers"],
    attributes={},
    resource=EntityRef(type="Account", id="acme"),
    params={"amount": 10},
    purpose="",
    enforcer_class="sidecar",
    person="",
    approvals={},
    breakglass=False,
    delegation_depth=0,
    root="spiffe://lab/agent/anna",
    now_s=1,
    effect="deny",
    determining=[],
)
SIXTIES = len(range(0, COUNT, 10))
Answering = Callable[[str, Payload], Awaitable[bytes]]


class Shell:
    """Runs the command against the mesh, through whoever may lie between."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.ask: Answering = past().mesh.ask
        self.governance = past().lab.governance
        self.asked: list[tuple[str, Payload]] = []
        monkeypatch.setattr(client, "open_client", self.opened)

    @asynccontextmanager
    async def opened(self, name: str | None) -> AsyncIterator[tuple[client.MeshClient, client.Library]]:
        assert name is None
        lab = past().lab
        library = client.Library(governance=self.governance, manifests=(), bundles=(), roster=lab.roster_envelope)
        yield client.MeshClient(self.counted, lab.governance), library

    async def counted(self, member: str, message: Payload) -> bytes:
        self.asked.append((member, message))
        return await self.ask(member, message)

    def bundle(self, limit: int = 100, **changes: Any) -> str:
        """A file of the bundle with another limit."""
        made = msgspec.structs.replace(past().lab.bundle, **changes)
        policies = [msgspec.structs.replace(one, json=one.json.replace(":100}", f":{limit}}}")) for one in made.policies]
        path = self.folder / "bundle.json"
        path.write_bytes(canonical.encode(msgspec.structs.replace(made, policies=policies)))
        return str(path)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        status = run(["policy", "shadow", *arguments])
        shown = self.capsys.readouterr()
        return status, shown.out, shown.err

    def json(self, *arguments: str, status: int = 0) -> Any:
        ended, out, err = self.run(*arguments, "-o", "json")
        assert ended == status, err
        return json.loads(out)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def counts(said: Any) -> tuple[int, int, int, int, int]:
    return said["replayed"], said["flips"]["count"], said["changes"]["count"], said["unanswerable"]["count"], sum(said["skipped"].values())


# ------------------------------------------------------------------------------------------------------------- what is said


def test_the_policy_in_force_flips_nothing(shell: Shell) -> None:
    said = shell.json(shell.bundle(), *EVER, "--max-flips", "0")
    assert counts(said) == (COUNT + 1, 0, 0, 0, 0)
    assert said["same"] == said["decisions"] == COUNT + 1
    assert said["denied"] == {"action_unknown": 1}
    assert [(log["node"], log["read_from"], log["error"]) for log in said["logs"]] == [(n, n, "") for n in past().mesh.nodes]


def test_every_flip_is_found_in_its_place(shell: Shell) -> None:
    said = shell.json(shell.bundle(50), *EVER)
    assert counts(said) == (COUNT + 1, SIXTIES, 0, 0, 0)
    places = [f"eu-1/{record.index}" for record in past().records if isinstance(record, DecisionMade)]
    assert [row["record"] for row in said["flips"]["rows"]] == places[::10]
    row = said["flips"]["rows"][0]
    assert (row["subject"], row["action"], row["resource"]) == ("spiffe://lab/agent/anna", "payments/send", 'Account::"acme"')
    assert (row["recorded"]["determining"], row["now"]["determining"]) == (["small-payments"], [])
    assert (said["flips"]["rows_left_out"], said["flips"]["groups_left_out"]) == (0, 0)
    assert [(group["count"], group["effect"], group["now_effect"]) for group in said["flips"]["groups"]] == [(SIXTIES, "permit", "deny")]


def test_people_see_the_sum_and_some_examples_of_each_turn(shell: Shell) -> None:
    status, out, err = shell.run(shell.bundle(50), *EVER)
    lines = out.splitlines()
    assert (status, err.startswith(ALONE), err.count("\n")) == (0, True, 1)
    assert lines[0].startswith(f"payments: {COUNT + 1} decisions replayed of {COUNT + 1} since ")
    assert lines[0].endswith(f"{SIXTIES} flips, 0 changes, 0 unanswerable, 0 skipped")
    assert lines[1] == f"flip  {SIXTIES} x  permit by small-payments -> deny by no policy (other obligations)"
    assert [line.split()[0].startswith("eu-1/") for line in lines[2:5]] == [True] * 3
    assert lines[5] == f"    and {SIXTIES - 3} more"
    assert lines[6] == "denied without a decision, not replayed: 1 action_unknown"


def test_more_flips_than_allowed_end_with_2_and_say_why(shell: Shell) -> None:
    assert shell.run(shell.bundle(50), *EVER, "--max-flips", str(SIXTIES))[0] == 0
    status, _, err = shell.run(shell.bundle(50), *EVER, "--max-flips", str(SIXTIES - 1))
    assert status == 2
    assert f"error[policy_flips]: {SIXTIES} decisions" in err


def test_what_cannot_be_asked_any_more_counts_like_a_flip(shell: Shell) -> None:
    made = past().lab.bundle
    actions = [msgspec.structs.replace(made.actions[0], name="pay")]
    policies = [msgspec.structs.replace(one, json=one.json.replace("payments/send", "payments/pay")) for one in made.policies]
    path = shell.bundle(actions=actions, policies=policies)
    said = shell.json(path, *EVER, "--max-flips", str(COUNT), status=2)
    assert counts(said) == (0, 0, 0, COUNT + 1, 0)
    assert {group["code"] for group in said["unanswerable"]["groups"]} == {"action_unknown"}


def test_a_candidate_that_no_node_would_admit_is_not_replayed(shell: Shell) -> None:
    path = shell.bundle(schema="entity Account {")
    status, out, err = shell.run(path)
    assert (status, out, [asked for _, asked in shell.asked if isinstance(asked, Pull)]) == (3, "", [])
    assert "error[policy_invalid]: " in err
    deep = msgspec.structs.replace(past().lab.bundle.policies[0], json="[" * 130 + "]" * 130)
    status, _, err = shell.run(shell.bundle(policies=[deep]))
    assert status == 3
    assert "error[policy_too_deep]: " in err
    status, _, err = shell.run(shell.bundle(cases=[CASE]))
    assert status == 2
    assert "error[policy_tests_failed]: anna may not: permit by small-payments" in err
    empty = shell.folder / "empty"
    empty.mkdir()
    status, _, err = shell.run(str(empty))
    assert status == 3
    assert err.count("error[policy_invalid]: ") > 1  # all that is wrong with a folder, at once


def test_a_bundle_alone_needs_a_manifest_to_take_terms_from(shell: Shell) -> None:
    shell.governance = msgspec.structs.replace(shell.governance, laws={})
    status, _, err = shell.run(shell.bundle())
    assert status == 2
    assert "error[domain_unknown]: " in err
    Path(shell.bundle()).write_bytes(b" " * (BUNDLE_BYTES_MAX + 1))
    assert shell.run(str(shell.folder / "bundle.json"))[0] == 3


@pytest.mark.parametrize("span", ["", "24", "0h", "1w", "-1h"])
def test_a_span_is_a_number_and_its_unit(shell: Shell, span: str) -> None:
    status, _, err = shell.run(shell.bundle(), "--replay", span)
    assert status == 64
    assert "30m, 24h, 7d" in err


# --------------------------------------------------------------------------------------------------------------- the span


def _mesh(ask: Answering | None = None) -> client.MeshClient:
    return client.MeshClient(ask or past().mesh.ask, past().lab.governance)


async def _read(mesh: client.MeshClient, member: str, since_ms: int) -> list[recorded.Page]:
    answers = {name: answer for name, answer in (await mesh.status()).items() if not isinstance(answer, MeshError)}
    head = await recorded.head_of(mesh, answers, past().origin)
    assert head is not None
    return [page async for page in recorded.pages(mesh, member, head, since_ms)]


@pytest.mark.asyncio
@pytest.mark.parametrize("at", [0, 1, 7, BATCH_RECORDS_MAX, -2, -1])
async def test_the_records_of_a_span_are_read_and_hardly_any_others(at: int) -> None:
    asked: list[Payload] = []

    async def counting(member: str, message: Payload) -> bytes:
        asked.append(message)
        return await past().mesh.ask(member, message)

    since_ms = past().records[at].at_ms
    found = [record for page in await _read(_mesh(counting), "us-1", since_ms) for record in page.records]
    assert found == [record for record in past().records if record.at_ms >= since_ms]
    pulls = [message for message in asked if isinstance(message, Pull)]
    pages = -(-(len(found) + 1) // BATCH_RECORDS_MAX)
    assert len(pulls) <= pages + len(past().leaves).bit_length()


@pytest.mark.asyncio
async def test_a_span_that_begins_after_the_last_record_is_empty_and_that_is_proved() -> None:
    after_ms = past().records[-1].at_ms + 1
    assert [page.records for page in await _read(_mesh(), "us-1", after_ms)] == [[]]


@given(data=st.data(), size=st.integers(1, 70))
def test_the_tree_before_a_record_follows_from_its_inclusion_proof(data: st.DataObject, size: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(tree_get(leaves), index, size)
    tree = recorded.before(index, size, path)
    assert tree == Frontier.empty().extend(leaves[:index])
    assert tree.extend(leaves[index:]).root() == Frontier.empty().extend(leaves).root()


def test_the_path_of_another_leaf_is_no_tree() -> None:
    with refuses("malformed"):
        recorded.before(5, 8, inclusion_path(tree_get([leaf_hash(bytes([number])) for number in range(8)]), 0, 8)[:1])


# ------------------------------------------------------------------------------------------------------------------ liars


def _changed(batch: LineageBatch, change: Callable[[DecisionMade], DecisionMade]) -> LineageBatch:
    read = [read_record(bytes(raw)) for raw in batch.records]
    made = [encode_record(change(record) if isinstance(record, DecisionMade) else record) for record in read]
    return msgspec.structs.replace(batch, records=[msgspec.Raw(data) for data in made])


def _lying(liar: str, lie: Callable[[LineageBatch], LineageBatch]) -> Answering:
    """A mesh in which one member answers pulls of the first node's log with a lie."""

    async def ask(member: str, message: Payload) -> bytes:
        data = await past().mesh.ask(member, message)
        if member != liar or not isinstance(message, Pull) or message.origin != past().origin:
            return data
        return pack(lie(unpack(LineageBatch, data)))

    return ask


def _denied(record: DecisionMade) -> DecisionMade:
    decision = msgspec.structs.replace(record.decision, effect="deny", determining=[], obligations=[])
    return msgspec.structs.replace(record, decision=decision)


def _older(record: DecisionMade) -> DecisionMade:
    return msgspec.structs.replace(record, at_ms=record.at_ms - 10**9)


def _turned_round(batch: LineageBatch) -> LineageBatch:
    return _changed(batch, _denied)


def _shortened(batch: LineageBatch) -> LineageBatch:
    return msgspec.structs.replace(batch, records=batch.records[1:])


def _empty(batch: LineageBatch) -> LineageBatch:
    return msgspec.structs.replace(batch, records=[])


def _moved(batch: LineageBatch) -> LineageBatch:
    return msgspec.structs.replace(batch, first=batch.first + 1)


def _garbage(batch: LineageBatch) -> LineageBatch:
    return msgspec.structs.replace(batch, records=[msgspec.Raw(b"{}")])


@pytest.mark.parametrize("lie", [_turned_round, _shortened, _empty, _moved, _garbage])
def test_a_member_that_changes_or_hides_records_is_not_believed(shell: Shell, lie: Callable[[LineageBatch], LineageBatch]) -> None:
    shell.ask = _lying("eu-1", lie)
    status, out, err = shell.run(shell.bundle(50), *EVER, "-o", "json")
    said = json.loads(out)
    assert status == 0, err
    assert counts(said) == (COUNT + 1, SIXTIES, 0, 0, 0)
    assert said["logs"][0]["read_from"] == "us-1"
    assert "eu-1: " in err


@pytest.mark.asyncio
async def test_a_member_that_says_that_a_span_begins_later_is_found_out() -> None:
    """While the beginning is searched it says that all records but the last are older, and then it serves the true ones."""
    since_ms, last = past().records[3].at_ms, len(past().leaves) - 1

    async def ask(member: str, message: Payload) -> bytes:
        data = await past().mesh.ask(member, message)
        searched = isinstance(message, Leaves) and message.count == 1 and message.first < last
        return pack(_changed(unpack(LineageBatch, data), _older)) if searched else data

    with refuses("bad_proof"):
        await _read(_mesh(ask), "us-1", since_ms)


def test_statements_and_openings_that_a_member_withholds_come_from_another(shell: Shell) -> None:
    def bare(batch: LineageBatch) -> LineageBatch:
        return msgspec.structs.replace(batch, bodies=batch.bodies[1:], openings=[])

    shell.ask = _lying("eu-1", bare)
    said = shell.json(shell.bundle(50), *EVER)
    assert counts(said) == (COUNT + 1, SIXTIES, 0, 0, 0)
    assert said["logs"][0]["read_from"] == "eu-1"


def test_openings_that_nobody_holds_any_more_make_a_decision_skipped(shell: Shell) -> None:
    async def ask(member: str, message: Payload) -> bytes:
        data = await past().mesh.ask(member, message)
        return pack(msgspec.structs.replace(unpack(LineageBatch, data), openings=[])) if isinstance(message, Pull) else data

    shell.ask = ask
    said = shell.json(shell.bundle(50), *EVER)
    assert counts(said) == (COUNT, SIXTIES - 1, 0, 0, 1)
    assert (said["decisions"], said["skipped"]) == (COUNT + 1, {"opening_mismatch": 1})


def _boasting(status: NodeStatus) -> NodeStatus:
    mirrors = [MirrorStatus(**{**msgspec.structs.asdict(one), "certified": 10**9, "size": 10**9}) for one in status.mirrors]
    return msgspec.structs.replace(status, mirrors=mirrors)


def test_a_certificate_that_is_claimed_and_not_proved_counts_for_nothing(shell: Shell) -> None:
    async def ask(member: str, message: Payload) -> bytes:
        data = await past().mesh.ask(member, message)
        return pack(_boasting(unpack(NodeStatus, data))) if member == "us-1" and isinstance(message, StatusAsked) else data

    shell.ask = ask
    said = shell.json(shell.bundle(50), *EVER)
    assert counts(said) == (COUNT + 1, SIXTIES, 0, 0, 0)
    assert said["logs"][0]["final"] == len(past().leaves)


def test_a_claim_is_not_proved_by_an_older_certificate(shell: Shell) -> None:
    async def ask(member: str, message: Payload) -> bytes:
        if member == "us-1" and isinstance(message, Prove):
            return await past().mesh.ask(member, msgspec.structs.replace(message, index=0))
        data = await past().mesh.ask(member, message)
        return pack(_boasting(unpack(NodeStatus, data))) if member == "us-1" and isinstance(message, StatusAsked) else data

    shell.ask = ask
    assert counts(shell.json(shell.bundle(50), *EVER)) == (COUNT + 1, SIXTIES, 0, 0, 0)


# --------------------------------------------------------------------------------------------------------------- silence


def _without(*down: str) -> Answering:
    async def ask(member: str, message: Payload) -> bytes:
        if member in down:
            raise Unavailable("unreachable", member)
        return await past().mesh.ask(member, message)

    return ask


def test_a_member_that_does_not_answer_is_named_and_its_log_is_read_elsewhere(shell: Shell) -> None:
    shell.ask = _without("eu-1")
    status, out, err = shell.run(shell.bundle(50), *EVER, "-o", "json")
    said = json.loads(out)
    assert (status, counts(said)) == (0, (COUNT + 1, SIXTIES, 0, 0, 0))
    assert said["silent"] == {"eu-1": "unreachable: nobody answered in time (eu-1)"}
    assert said["logs"][0]["read_from"] != "eu-1"
    assert "eu-1 does not answer" in err


def test_a_member_that_falls_silent_on_the_way_is_counted_only_once(shell: Shell) -> None:
    async def ask(member: str, message: Payload) -> bytes:
        if member == "eu-1" and isinstance(message, Pull) and message.first > BATCH_RECORDS_MAX and message.count > 1:
            raise Unavailable("unreachable", member)
        return await past().mesh.ask(member, message)

    shell.ask = ask
    assert counts(shell.json(shell.bundle(50), *EVER)) == (COUNT + 1, SIXTIES, 0, 0, 0)


def test_a_log_that_nobody_serves_is_named_and_ends_with_4(shell: Shell) -> None:
    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Pull | Prove) and message.origin == past().origin:
            raise Unavailable("unreachable", member)
        return await past().mesh.ask(member, message)

    shell.ask = ask
    status, out, err = shell.run(shell.bundle(50), *EVER, "--max-flips", "0", "-o", "json")
    said = json.loads(out)
    assert (status, counts(said)) == (4, (1, 0, 0, 0, 0))
    assert said["logs"][0]["error"].startswith("unreachable")
    assert "the log of eu-1 could not be read" in err


def test_when_nobody_answers_there_is_nothing_to_say(shell: Shell) -> None:
    shell.ask = _without(*past().mesh.nodes)
    status, out, err = shell.run(shell.bundle(), *EVER)
    assert (status, out) == (4, "")
    assert "error[unreachable]: " in err


def test_a_bundle_file_is_read_in_its_one_spelling(shell: Shell) -> None:
    path = Path(shell.bundle())
    assert canonical.decode(Bundle, path.read_bytes(), bytes_max=BUNDLE_BYTES_MAX) == past().lab.bundle
    path.write_bytes(path.read_bytes() + b"\n")
    status, _, err = shell.run(str(path))
    assert status == 3
    assert err.startswith("error[non_canonical]: ")
