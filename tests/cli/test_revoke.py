"""A revocation is signed once, never lost, never said twice under one number, and called acknowledged only by k signed heartbeats."""

import asyncio
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters.store import hold
from mesh.cli.revoke import parse_target
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.revocation import Revocation, stream_of
from mesh.core.messages import LawAsked, LawBatch, Offer, Offered, RefusedAnswer, Sync, SyncAnswer, pack, unpack
from mesh.errors import Refused
from mesh.limits import BATCH_EVENTS_MAX
from tests.cli.lawmesh import Desk, code_of
from tests.support.factory import sign

ANNA, BERT, CARL = (f"spiffe://lab/agent/{name}" for name in ("anna", "bert", "carl"))
ALL = ("eu-1", "us-1", "ap-1", "sa-1")
HEX = "ab" * 32


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def _offer(desk: Desk, *statements: Any, to: str = "eu-1") -> None:
    asyncio.run(desk.mesh.ask(to, Offer(statements=[msgspec.Raw(item.envelope) for item in statements])))


def _kept(desk: Desk) -> list[int]:
    return [entry["sequence"] for entry in json.loads(desk.signed.read_bytes())["signed"]]


# ------------------------------------------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (f"key:{HEX}", "key", HEX),
        (f"subject:{ANNA}", "subject", ANNA),
        (ANNA, "subject", ANNA),
        (f"document:{HEX}", "document", HEX),
        (f"intent:{HEX}", "intent", HEX),
        (f"authorization:{HEX}", "authorization", HEX),
        (f"digest:blake3:{HEX}", "digest", f"blake3:{HEX}"),
    ],
)
def test_a_target_is_one_exact_thing(text: str, kind: str, value: str) -> None:
    target = parse_target(text)
    assert (target.type, target.value) == (kind, value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "anna", HEX, f"person:{HEX}", "key:", f"key:{HEX[:-1]}", f"key:{HEX}0", f"key:{HEX.upper()}", f"intent: {HEX}"),
        *("document:abcd", f"digest:{HEX}", f"digest:sha256:{HEX}", f"digest:blake3:{HEX}\n", "subject:anna", "spiffe://", "subject:"),
        *(f"spiffe://lab/{'a' * 300}", f"{ANNA}/..", f"{ANNA}\n"),
    ],
)
def test_anything_else_is_refused_before_a_key_is_touched(desk: Desk, text: str) -> None:
    status, shown, err = desk.revoke(text)
    assert (status, shown, code_of(err)) == (3, None, "usage")
    assert not desk.signed.exists()


def test_a_reason_that_fits_no_statement_is_refused(desk: Desk) -> None:
    assert code_of(desk.revoke(ANNA, "--reason", "x" * 1_025)[2]) == "usage"
    assert desk.revoke(ANNA, "--reason", "x" * 1_024)[0] == 0


# ------------------------------------------------------------------------------------------------------------------ signing


def test_a_revocation_reaches_every_member_and_is_kept_beside_its_key(desk: Desk) -> None:
    status, shown, _ = desk.revoke(ANNA, "--reason", "left")
    assert status == 0
    assert {row["node"]: row["answer"] for row in shown["members"]} == dict.fromkeys(ALL, "held")
    assert (shown["sequence"], shown["previous"], shown["target"], shown["reason"]) == (1, "", f"subject:{ANNA}", "left")
    assert (shown["held"], shown["needed"], shown["acknowledged"], shown["signed_before"]) == (4, 3, False, False)
    assert desk.mesh.revoked() == {name: {ANNA} for name in ALL}
    assert stat.S_IMODE(desk.signed.stat().st_mode) == 0o600
    (entry,) = json.loads(desk.signed.read_bytes())["signed"]
    statement = envelope.read(Revocation, msgspec.json.encode(entry["envelope"]))
    assert (entry["sequence"], entry["id"], statement.id) == (1, shown["id"], shown["id"])


def test_without_watch_nothing_is_called_acknowledged(desk: Desk) -> None:
    status, out, err = desk.run("revoke", ANNA, "--key", str(desk.key))
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [["node", "answer"], *([name, "held"] for name in ALL)]
    assert "4 of 4 say that they hold it; it is acknowledged once 3 do by their signed heartbeats" in err
    assert "acknowledged by" not in err


def test_one_member_that_holds_it_suffices_to_go_on(desk: Desk) -> None:
    assert desk.revoke(ANNA)[0] == 0
    desk.losing(Payload, ALL[1:])
    status, shown, _ = desk.revoke(BERT)
    assert status == 0
    assert {row["answer"] for row in shown["members"]} == {"held", "unreachable"}
    assert (shown["held"], shown["sequence"]) == (1, 2)


def test_each_revocation_follows_the_one_before(desk: Desk) -> None:
    first = desk.revoke(ANNA)[1]
    second = desk.revoke(BERT)[1]
    third = desk.revoke(CARL)[1]
    assert [(item["sequence"], item["previous"]) for item in (first, second, third)] == [(1, ""), (2, first["id"]), (3, second["id"])]
    assert _kept(desk) == [3], "what an honest member holds need not be kept"


def test_the_same_again_signs_nothing_new(desk: Desk) -> None:
    first = desk.revoke(ANNA)[1]
    again = desk.revoke(f"subject:{ANNA}", "--reason", "another")[1]
    assert (again["id"], again["signed_before"], again["reason"]) == (first["id"], True, "")
    assert len(desk.mesh.law) == 1


def test_a_key_of_the_roster_takes_the_threshold_of_revokers(desk: Desk) -> None:
    target = f"key:{desk.lab.issuer.public}"
    status, _, err = desk.revoke(target)
    assert (status, code_of(err)) == (5, "threshold_not_met")
    assert code_of(desk.revoke(target, "--co-sign", str(desk.key))[2]) == "threshold_not_met", "one key twice is one key"
    assert not desk.signed.exists()
    status, shown, _ = desk.revoke(target, "--co-sign", str(desk.second))
    assert (status, shown["held"]) == (0, 4)
    assert shown["signed_by"] == sorted([desk.lab.revoker.public, desk.lab.second.public])
    assert desk.mesh.revoked()["sa-1"] == {desk.lab.issuer.public}
    assert desk.revoke(f"key:{HEX}")[0] == 0, "any other key takes one revoker"


def test_only_revokers_of_the_roster_sign(desk: Desk) -> None:
    stranger, holder = desk.key_file("stranger"), desk.key_file("holder", use="holder")
    assert code_of(desk.revoke(ANNA, key=stranger)[2]) == "bad_signature"
    assert code_of(desk.revoke(ANNA, "--co-sign", str(stranger))[2]) == "bad_signature"
    assert code_of(desk.revoke(ANNA, key=holder)[2]) == "config_invalid"
    assert code_of(desk.revoke(ANNA, key=desk.folder / "none.key")[2]) == "config_invalid"
    assert desk.mesh.law == {}


# ---------------------------------------------------------------------------------------------------------- never one number twice


def test_what_was_signed_and_not_taken_is_offered_again_first(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    status, shown, err = desk.revoke(ANNA)
    assert (status, code_of(err)) == (4, "unreachable")
    assert "Number 1 is signed and kept" in err
    lost = shown["id"]
    desk.ask = honest
    after = desk.revoke(BERT)[1]
    assert (after["sequence"], after["previous"]) == (2, lost)
    assert desk.mesh.revoked() == {name: {ANNA, BERT} for name in ALL}


def test_what_was_signed_and_not_taken_is_not_signed_again(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    lost = desk.revoke(ANNA)[1]["id"]
    desk.ask = honest
    again = desk.revoke(ANNA)[1]
    assert (again["id"], again["signed_before"], again["held"]) == (lost, True, 4)


def test_what_only_a_liar_says_it_holds_is_not_lost(desk: Desk) -> None:
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Offer) and member == "eu-1":
            names = [envelope.identify(bytes(raw))[1] for raw in message.statements]
            return pack(Offered(results=dict.fromkeys(names, "")))
        return await honest(member, message)

    desk.ask = ask
    desk.losing(Offer, ALL[1:])
    assert desk.revoke(ANNA)[1]["held"] == 1
    assert desk.revoke(BERT)[1]["held"] == 1
    assert _kept(desk) == [1, 2]
    desk.ask = honest
    assert desk.revoke(CARL)[1]["sequence"] == 3
    assert desk.mesh.revoked() == {name: {ANNA, BERT, CARL} for name in ALL}


def test_no_more_is_signed_than_can_be_offered_at_once(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    for number in range(BATCH_EVENTS_MAX):
        desk.revoke(f"{ANNA}/{number}")
    assert len(_kept(desk)) == BATCH_EVENTS_MAX
    status, shown, err = desk.revoke(BERT)
    assert (status, shown, code_of(err)) == (4, None, "unreachable")
    desk.ask = honest
    assert desk.revoke(f"{ANNA}/{BATCH_EVENTS_MAX - 1}")[1]["held"] == 4
    assert desk.revoke(BERT)[1]["sequence"] == BATCH_EVENTS_MAX + 1


def test_a_key_whose_memory_is_lost_goes_on_where_the_mesh_is(desk: Desk) -> None:
    first = desk.revoke(ANNA)[1]
    old = desk.signed.read_bytes()
    second = desk.revoke(BERT)[1]
    desk.signed.unlink()
    third = desk.revoke(CARL)[1]
    assert (third["sequence"], third["previous"]) == (3, second["id"])
    desk.signed.write_bytes(old)
    fourth = desk.revoke(ANNA)[1]
    assert (fourth["sequence"], fourth["previous"], first["sequence"]) == (4, third["id"], 1), "the mesh is ahead of the file: it wins"


def test_a_key_without_memory_must_hear_k_members(desk: Desk) -> None:
    desk.losing(Sync, ["us-1", "sa-1"])
    status, shown, err = desk.revoke(ANNA)
    assert (status, shown, code_of(err)) == (4, None, "unreachable")
    assert "2 of 4 members answered" in err
    assert desk.mesh.law == {}
    assert not desk.signed.exists()


def test_without_any_member_nothing_is_signed(desk: Desk) -> None:
    desk.revoke(ANNA)
    desk.losing(Sync, ALL)
    assert code_of(desk.revoke(BERT)[2]) == "unreachable"
    assert _kept(desk) == [1]


def test_two_copies_of_a_key_that_said_two_things_are_stopped(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    desk.revoke(ANNA)
    desk.ask = honest
    elsewhere = desk.folder / "elsewhere"
    elsewhere.mkdir()
    copied = Path(shutil.copy2(desk.key, elsewhere / desk.key.name))
    assert desk.revoke(BERT, key=copied)[1]["sequence"] == 1
    status, shown, err = desk.revoke(CARL)
    assert (status, shown, code_of(err)) == (5, None, "stream_forked")


def test_a_forked_stream_is_not_continued(desk: Desk) -> None:
    desk.mesh.gossips = False
    one, other = (desk.lab.revocation(desk.lab.revoker, 1, value) for value in (ANNA, BERT))
    _offer(desk, one)
    _offer(desk, other, to="us-1")
    status, shown, err = desk.revoke(CARL)
    assert (status, shown, code_of(err)) == (5, None, "stream_forked"), "two members, two statements"
    _offer(desk, other)
    desk.losing(Sync, ["us-1"])
    assert code_of(desk.revoke(CARL)[2]) == "stream_forked", "one member says so, and shows both"
    assert desk.revoke(CARL, key=desk.second)[0] == 0, "another key goes on"


def test_a_link_to_a_key_is_that_key(desk: Desk) -> None:
    desk.revoke(ANNA)
    (desk.folder / "links").mkdir()
    link = desk.folder / "links" / "mine.key"
    link.symlink_to(desk.key)
    assert desk.revoke(BERT, key=link)[1]["sequence"] == 2
    assert _kept(desk) == [2]


def test_one_command_at_a_time_signs_with_a_key(desk: Desk) -> None:
    held = hold(desk.signed.with_name(f"{desk.signed.name}.lock"))
    assert held is not None
    status, _, err = desk.revoke(ANNA)
    assert (status, code_of(err)) == (4, "unavailable")
    assert desk.mesh.law == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text.replace('"sequence":1', '"sequence":2'),
        lambda text: text.replace(json.loads(text)["signed"][0]["id"], HEX),
        lambda text: json.dumps({"signed": json.loads(text)["signed"] * 2}, separators=(",", ":")),
        lambda _: '{"signed":[{"envelope":{},"id":"' + HEX + '","sequence":1}]}',
    ],
    ids=["cut", "number", "id", "twice", "empty"],
)
def test_a_memory_that_was_tampered_with_is_not_believed(desk: Desk, spoil: Any) -> None:
    desk.revoke(ANNA)
    desk.signed.write_text(spoil(desk.signed.read_text()))
    status, shown, err = desk.revoke(BERT)
    assert (status, shown, code_of(err)) == (3, None, "config_invalid")
    assert len(desk.mesh.law) == 1


@pytest.mark.parametrize("where", ["signature", "mesh"])
def test_a_memory_that_is_not_of_this_key_and_mesh_is_not_believed(desk: Desk, where: str) -> None:
    desk.revoke(ANNA)
    mesh, key = ("lab", desk.lab.second) if where == "signature" else ("other", desk.lab.revoker)
    statement = desk.lab.revocation(key, 1, ANNA, mesh=mesh)
    entry = {"envelope": json.loads(statement.envelope), "id": statement.id, "sequence": 1}
    desk.signed.write_text(json.dumps({"signed": [entry]}, separators=(",", ":")))
    assert code_of(desk.revoke(BERT)[2]) == ("config_invalid" if where == "signature" else "wrong_mesh")


def test_what_cannot_be_kept_is_not_sent(desk: Desk) -> None:
    desk.signed.with_name(f"{desk.signed.name}.new").mkdir()
    status, _, err = desk.revoke(ANNA)
    assert (status, code_of(err)) == (1, "storage_failed")
    assert desk.mesh.law == {}


# -------------------------------------------------------------------------------------------------------------------- liars


def test_a_member_that_claims_what_it_cannot_show_makes_nobody_skip_a_number(desk: Desk) -> None:
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=99, head=HEX, forked=False))
    assert desk.revoke(ANNA)[1]["sequence"] == 1


def test_a_member_that_calls_a_stream_forked_without_showing_it_stops_nobody(desk: Desk) -> None:
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=2, head=HEX, forked=True))
    assert desk.revoke(ANNA)[1]["sequence"] == 1


def test_a_forged_heartbeat_is_ignored_and_named(desk: Desk) -> None:
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=99, head=HEX, forked=True), key=desk.lab.keys["us-1"]["decision"])
    status, shown, err = desk.revoke(ANNA, "--watch")
    assert (status, shown["sequence"], shown["covered"]) == (0, 1, 3)
    assert "eu-1 is not counted on: bad_signature" in err


def test_a_forged_heartbeat_acknowledges_nothing(desk: Desk) -> None:
    desk.revoke(ANNA)
    desk.mesh.gossips = False
    desk.losing(Offer, ["ap-1", "sa-1"])
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("ap-1", StreamHead(stream=stream, sequence=9, head=HEX, forked=False), key=desk.lab.keys["us-1"]["decision"])
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


# ------------------------------------------------------------------------------------------------------------------- revocations ls


def test_all_revocations_are_listed_with_how_many_hold_them(desk: Desk) -> None:
    assert desk.ls() == []
    first = desk.revoke(ANNA, "--reason", "left")[1]
    desk.revoke(BERT)
    desk.mesh.gossips = False
    desk.losing(Offer, ["us-1", "sa-1"])
    desk.revoke(CARL)
    desk.revoke(f"digest:blake3:{HEX}", key=desk.second)
    rows = desk.ls()
    own = [row for row in rows if row["revoker"] == desk.lab.revoker.public]
    assert [(row["number"], row["target"], row["held"]) for row in own] == [
        (1, f"subject:{ANNA}", "4 of 4"),
        (2, f"subject:{BERT}", "4 of 4"),
        (3, f"subject:{CARL}", "2 of 4"),
    ]
    assert own[2]["held_by"] == ["eu-1", "ap-1"]
    assert (own[0]["id"], own[0]["reason"], own[0]["at"]) == (first["id"], "left", first["issued"])
    (other,) = [row for row in rows if row["revoker"] == desk.lab.second.public]
    assert (other["number"], other["target"]) == (1, f"digest:blake3:{HEX}")
    out = desk.run("revocations", "ls")[1]
    assert out.splitlines()[0].split() == ["number", "by", "target", "reason", "at", "held"]


def test_a_forked_stream_is_listed_whole_and_marked(desk: Desk) -> None:
    desk.mesh.gossips = False
    values = [f"{ANNA}/{number}" for number in range(5)]
    one = [desk.lab.revocation(desk.lab.revoker, 1, values[0])]
    for number, value in enumerate(values[1:], 2):
        one.append(desk.lab.revocation(desk.lab.revoker, number, value, one[-1].id))
    _offer(desk, *one)
    _offer(desk, desk.lab.revocation(desk.lab.revoker, 1, BERT), to="us-1")
    desk.revoke(CARL, key=desk.second)
    rows = [row for row in desk.ls() if row["revoker"] == desk.lab.revoker.public]
    assert sorted(row["target"] for row in rows) == sorted(f"subject:{value}" for value in [*values, BERT])
    assert all(row["forked"] and row["held"] == "0 of 4, forked" for row in rows)
    _offer(desk, desk.lab.revocation(desk.lab.revoker, 1, BERT))
    rows = [row for row in desk.ls() if row["revoker"] == desk.lab.revoker.public]
    assert [row["held_by"] for row in rows] == [["eu-1"]] * 6
    assert "forked: this key has said two things under one number" in desk.run("revocations", "ls")[2]


def test_what_a_member_claims_and_does_not_show_is_not_listed(desk: Desk) -> None:
    desk.revoke(ANNA)
    desk.lying("eu-1", StreamHead(stream=stream_of(desk.lab.second.public), sequence=1, head=HEX, forked=False))
    status, out, err = desk.run("revocations", "ls")
    assert (status, len(out.splitlines())) == (0, 2)
    assert "eu-1 claims more of revoke/" in err


def test_what_a_member_serves_is_listed_only_if_a_revoker_signed_it(desk: Desk) -> None:
    desk.revoke(ANNA)
    honest, second = desk.ask, desk.lab.second
    genuine = desk.lab.revocation(second, 1, BERT)
    broken = envelope.assemble(envelope.draft(genuine.claims).payload_type, genuine.payload, {second.public: bytes(64)})
    forged = envelope.read(Revocation, broken)

    async def ask(member: str, message: Payload) -> bytes:
        if member == "eu-1" and isinstance(message, LawAsked) and message.stream == stream_of(second.public):
            return pack(LawBatch(statements=[msgspec.Raw(forged.envelope)]))
        return await honest(member, message)

    desk.ask = ask
    desk.lying("eu-1", StreamHead(stream=stream_of(second.public), sequence=1, head=genuine.id, forked=False))
    assert [row["target"] for row in desk.ls()] == [f"subject:{ANNA}"]


def test_without_any_member_there_is_no_list(desk: Desk) -> None:
    desk.losing(Sync, ALL)
    status, _, err = desk.run("-o", "json", "revocations", "ls")
    assert (status, code_of(err)) == (4, "unreachable")


def test_a_target_is_refused_with_its_own_words() -> None:
    with pytest.raises(Refused, match="what begins like another must not be revoked"):
        parse_target("intent:abcd")
