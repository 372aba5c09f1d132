"""No lying member makes a revocation skip, stop or seem acknowledged; who holds it is told by signed heartbeats only."""

import asyncio

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.revocation import stream_of
from mesh.core.messages import Offer, Offered, RefusedAnswer, Sync, SyncAnswer, pack, unpack
from tests.cli.lawmesh import Desk, code_of
from tests.support.factory import sign

ANNA, BERT, CARL = (f"spiffe://lab/agent/{name}" for name in ("anna", "bert", "carl"))
ALL = ("eu-1", "us-1", "ap-1", "sa-1")
HEX = "ab" * 32


# -------------------------------------------------------------------------------------------------------------------- liars


def test_a_member_that_claims_what_it_cannot_show_makes_nobody_skip_a_number(desk: Desk) -> None:
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=99, head=HEX, forked=False, held=""))
    assert desk.revoke(ANNA)[1]["sequence"] == 1


def test_a_member_that_calls_a_stream_forked_without_showing_it_stops_nobody(desk: Desk) -> None:
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=2, head=HEX, forked=True, held=""))
    assert desk.revoke(ANNA)[1]["sequence"] == 1


def test_a_forged_heartbeat_is_ignored_and_named(desk: Desk) -> None:
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=99, head=HEX, forked=True, held=""), key=desk.lab.keys["us-1"]["decision"])
    status, shown, err = desk.revoke(ANNA, "--watch")
    assert (status, shown["sequence"], shown["covered"]) == (0, 1, 3)
    assert "eu-1 is not counted on: bad_signature" in err


def test_a_forged_heartbeat_acknowledges_nothing(desk: Desk) -> None:
    desk.revoke(ANNA)
    desk.mesh.gossips = False
    desk.losing(Offer, ["ap-1", "sa-1"])
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("ap-1", StreamHead(stream=stream, sequence=9, head=HEX, forked=False, held=""), key=desk.lab.keys["us-1"]["decision"])
    status, shown, err = desk.revoke(BERT, "--watch", "--wait", "0.3")
    assert (status, code_of(err)) == (4, "not_acknowledged")
    assert {row["node"] for row in shown["members"] if row["covers_ms"] is not None} == {"eu-1", "us-1"}


@pytest.mark.parametrize("whose", ["eu-1", "us-1"])
def test_a_heartbeat_that_was_not_made_now_by_the_member_is_ignored(desk: Desk, whose: str) -> None:
    honest = desk.ask
    old = asyncio.run(desk.mesh.ask(whose, Sync(nonce=HEX)))

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Sync) and member == "eu-1":
            return old if whose == "eu-1" else await honest(whose, message)
        return await honest(member, message)

    desk.ask = ask
    assert "eu-1 is not counted on: bad_signature" in desk.revoke(ANNA)[2]


def test_a_heartbeat_of_another_mesh_is_ignored(desk: Desk) -> None:
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if isinstance(message, Sync) and member == "eu-1":
            beat = envelope.read(Heartbeat, bytes(unpack(SyncAnswer, data).heartbeat)).claims
            other = sign(msgspec.structs.replace(beat, mesh="other"), desk.lab.keys["eu-1"]["decision"])
            return pack(SyncAnswer(heartbeat=msgspec.Raw(other)))
        return data

    desk.ask = ask
    assert "eu-1 is not counted on: wrong_mesh" in desk.revoke(ANNA)[2]


# -------------------------------------------------------------------------------------------------------------------- watching


def test_acknowledged_means_that_k_signed_heartbeats_cover_it(desk: Desk) -> None:
    status, shown, _ = desk.revoke(ANNA, "--watch")
    covered = sorted(row["covers_ms"] for row in shown["members"] if row["covers_ms"] is not None)
    assert (status, shown["acknowledged"]) == (0, True)
    assert len(covered) >= 3
    assert shown["acknowledged_ms"] == covered[2]
    assert shown["stale_ms"] == 3_000


def test_watching_tells_who_holds_it_and_what_follows(desk: Desk) -> None:
    status, out, err = desk.run("revoke", ANNA, "--key", str(desk.key), "--watch")
    assert (status, out.splitlines()[0].split()) == (0, ["node", "answer", "covers_ms"])
    assert err.count("holds it after") >= 3
    assert "acknowledged by 3 of 4 after" in err
    assert "from now every enforcer denies new starts within Δ = 3000 ms" in err


def test_a_person_sees_the_table_fill(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    status, out, err = desk.run("revoke", ANNA, "--key", str(desk.key), "--watch")
    assert status == 0
    assert "sa-1       …" in err, "who is waited for"
    assert err.count("\x1b[4F\x1b[J") == err.count("eu-1"), "each is drawn over the one before, and the last is taken away"
    assert "\x1b" not in out
    assert "\x1b" not in desk.run("--no-color", "revoke", ANNA, "--key", str(desk.key), "--watch")[2]


def test_what_k_do_not_hold_in_time_is_not_acknowledged_and_the_rest_is_named(desk: Desk) -> None:
    desk.revoke(ANNA)
    desk.mesh.nodes["us-1"].up = False
    desk.mesh.gossips = False
    desk.losing(Offer, ["sa-1"])
    status, shown, err = desk.revoke(BERT, "--watch", "--wait", "0.3")
    assert (status, code_of(err), shown["acknowledged"], shown["acknowledged_ms"]) == (4, "not_acknowledged", False, None)
    assert "2 of 3 after 0.3 s; lacking: us-1 (unreachable), sa-1 (unreachable)" in err
    desk.mesh.gossips = True
    desk.mesh.nodes["us-1"].up = True
    again = desk.revoke(BERT, "--watch")
    assert (again[0], again[1]["id"], again[1]["acknowledged"]) == (0, shown["id"], True), "the same command watches on"


def test_the_word_of_a_member_that_its_heartbeats_do_not_bear_out_is_told(desk: Desk) -> None:
    desk.mesh.gossips = False
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Offer) and member in {"eu-1", "us-1"}:
            return pack(Offered(results={envelope.identify(bytes(message.statements[-1]))[1]: ""}))
        return await honest(member, message)

    desk.ask = ask
    status, _, err = desk.revoke(ANNA, "--watch", "--wait", "0.3")
    assert (status, code_of(err)) == (4, "not_acknowledged")
    assert "eu-1 (says that it holds it, its heartbeats do not)" in err


@pytest.mark.parametrize("more", [[], ["--watch"]])
@pytest.mark.parametrize(("code", "told"), [("overloaded", "overloaded"), ("no_such_word", "unavailable")])
def test_what_nobody_takes_ends_at_once_with_their_reason(desk: Desk, more: list[str], code: str, told: str) -> None:
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        return pack(RefusedAnswer(code=code, detail="")) if isinstance(message, Offer) else await honest(member, message)

    desk.ask = ask
    status, shown, err = desk.revoke(ANNA, *more)
    assert (status, code_of(err), shown["held"]) == (4, told, 0)
    assert {row["answer"] for row in shown["members"]} == {told}


def test_an_answer_about_something_else_is_no_answer(desk: Desk) -> None:
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        return pack(Offered(results={HEX: ""})) if isinstance(message, Offer) and member == "eu-1" else await honest(member, message)

    desk.ask = ask
    assert {row["node"]: row["answer"] for row in desk.revoke(ANNA)[1]["members"]}["eu-1"] == "malformed"


@pytest.mark.parametrize(("code", "told"), [("stream_full", "stream_full"), ("whatever\n", "unavailable")])
def test_why_a_member_does_not_believe_it_is_told_in_a_word_that_can_be_explained(desk: Desk, code: str, told: str) -> None:
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Offer):
            return pack(Offered(results={envelope.identify(bytes(message.statements[-1]))[1]: code}))
        return await honest(member, message)

    desk.ask = ask
    _, shown, err = desk.revoke(ANNA)
    assert code_of(err) == told
    assert {row["answer"] for row in shown["members"]} == {told}
